//! What the Raft labs do with their servers: start commands, wait for agreement, count.
//!
//! Where the labs speak of an index, it is a command's number here ([`super::machine`]).
//!
//! Left out on purpose: the labs' snapshots as byte strings. The rows are the snapshot, and
//! compaction of the log plays the part of the labs' `Snapshot()`.

use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{bail, ensure};
use base::clock;
use futures::future::try_join_all;
use raft::config::Config;

use super::machine::{self, List, Value};
use super::servers::{Servers, Style};
use super::watch::{self, Applied};
use crate::lab::{Lab, Timers};
use sim::cluster::Bare;
use sim::lock;

/// How long `one` tries.
const ONE_MAX: Duration = Duration::from_secs(10);
/// How long `one` waits for a command that a leader accepted.
const AGREED_MAX: Duration = Duration::from_secs(2);

/// When servers compact their logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compacts {
    /// Never, as far as a test gets.
    Never,
    /// When the test says so ([`RaftLab::compact`]).
    WhenTold,
    /// After commands 9, 19, 29, ..., like the labs' service.
    EveryTen,
}

impl Compacts {
    fn config(self, config: Config) -> Config {
        match self {
            Self::Never => config,
            Self::WhenTold => Config { log_keep_bytes: 0, ..config },
            // Adapted: the product waits a little for a follower that it heard lately. Such a
            // follower keeps the log of ten commands from being dropped (61 bytes each), and no
            // more.
            Self::EveryTen => {
                Config { log_keep_bytes: 0, log_bytes_max: 640, log_bytes_hard_max: 641, ..config }
            }
        }
    }
}

/// A command that a leader accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Started {
    /// The leader's term.
    pub(crate) term: u64,
    /// The command's number, if it is ever committed.
    pub(crate) number: u64,
}

/// Servers with a list of commands. Clones share them.
#[derive(Clone)]
pub(crate) struct RaftLab {
    servers: Servers,
    applied: Arc<Mutex<Applied>>,
}

impl Deref for RaftLab {
    type Target = Servers;

    fn deref(&self) -> &Servers {
        &self.servers
    }
}

impl RaftLab {
    /// Starts `servers` servers; none leads yet.
    pub(crate) async fn set_up(
        lab: &Lab,
        style: Style,
        servers: u64,
        compacts: Compacts,
    ) -> anyhow::Result<Self> {
        let config = compacts.config(lab.config(Timers::Lab));
        let servers = Servers::set_up(lab, style, Bare::new("list", || List), servers, config).await?;
        let every = (compacts == Compacts::EveryTen).then_some(10);
        let applied = watch::watch(&servers.cluster, every);
        Ok(Self { servers, applied })
    }

    /// Proposes a command to one server. None: it does not lead, or is dead.
    pub(crate) async fn start(
        &self,
        server: usize,
        value: impl Into<Value>,
    ) -> anyhow::Result<Option<Started>> {
        let Some(replica) = self.cluster.replica::<List>(self.name(server)) else { return Ok(None) };
        let Ok(placed) = replica.propose(&value.into()).await else { return Ok(None) };
        let Some(seen) = self.seen(server) else { return Ok(None) };
        let applied = seen.probe.status.borrow().applied.id;
        let count = List::count(&*seen.probe.table);
        let number = machine::number_of(&lock(&seen.journal), applied, count, placed.id);
        let Some(number) = number else {
            bail!("{} put a command at {}, where it had applied up to {applied}", seen.name, placed.id);
        };
        Ok(Some(Started { term: placed.id.term.0, number }))
    }

    /// Proposes commands to one server, one after the other, whether it leads or not.
    ///
    /// Adapted: the labs' `Start` returns at once; ours returns when the command has its place in
    /// the log, for which a running save has to end. So all are proposed before the first place is
    /// awaited.
    pub(crate) async fn start_all(
        &self,
        server: usize,
        values: impl IntoIterator<Item = u64>,
    ) -> anyhow::Result<Vec<Option<Started>>> {
        try_join_all(values.into_iter().map(|value| self.start(server, value))).await
    }

    /// Proposes `count` new commands to one server.
    pub(crate) async fn start_many(&self, server: usize, count: u64) -> anyhow::Result<()> {
        self.start_all(server, (0..count).map(|_| self.fresh())).await?;
        Ok(())
    }

    /// How many servers have applied the command of that number, and the command.
    pub(crate) fn n_committed(&self, number: u64) -> anyhow::Result<(usize, Option<Value>)> {
        let mut found: Option<(Value, sim::Name)> = None;
        let mut count = 0;
        for seen in self.cluster.seen() {
            let Some(value) = List::command(&*seen.probe.table, number) else { continue };
            if let Some((other, who)) = found.as_ref().filter(|(other, _)| *other != value) {
                bail!("command {number} is {other} at {who} and {value} at {}", seen.name);
            }
            found = Some((value, seen.name));
            count += 1;
        }
        Ok((count, found.map(|(value, _)| value)))
    }

    /// Checks that no server has applied a command of that number.
    pub(crate) fn check_not_committed(&self, number: u64, why: &str) -> anyhow::Result<()> {
        let (count, _) = self.n_committed(number)?;
        ensure!(count == 0, "{count} servers applied command {number} {why}");
        Ok(())
    }

    /// Waits until `expected` servers have applied the command of that number, which is returned. None: a
    /// server left the term `while_in`.
    pub(crate) async fn wait(
        &self,
        number: u64,
        expected: usize,
        while_in: Option<u64>,
    ) -> anyhow::Result<Option<Value>> {
        let mut pause = 10;
        for _ in 0..30 {
            if self.n_committed(number)?.0 >= expected {
                break;
            }
            self.sleep(pause).await;
            if pause < 1000 {
                pause *= 2;
            }
            let is_later =
                |term| (0..self.len()).any(|it| self.status(it).is_some_and(|it| it.term.0 > term));
            if while_in.is_some_and(is_later) {
                return Ok(None);
            }
        }
        let (count, value) = self.n_committed(number)?;
        ensure!(count >= expected, "only {count} of {expected} servers applied command {number} in time");
        Ok(value)
    }

    /// Agreement on one command, which is proposed again if it is not applied within two seconds.
    /// Returns its number.
    pub(crate) async fn one(&self, value: impl Into<Value>, expected: usize) -> anyhow::Result<u64> {
        self.agree(value.into(), expected, true).await
    }

    /// Agreement on one command, which is proposed once. (SJTU's labs always retry.)
    pub(crate) async fn once(&self, value: impl Into<Value>, expected: usize) -> anyhow::Result<u64> {
        self.agree(value.into(), expected, self.style == Style::Sjtu).await
    }

    async fn agree(&self, value: Value, expected: usize, retry: bool) -> anyhow::Result<u64> {
        self.lab.step(&format!("agree on {value}, on {expected} servers"));
        let begin = clock::now();
        let mut asked = 0;
        while begin.elapsed() < ONE_MAX {
            let Some(number) = self.start_somewhere(&value, &mut asked).await? else {
                self.sleep(50).await;
                continue;
            };
            if self.is_agreed(number, &value, expected).await? {
                self.lab.count_op();
                return Ok(number);
            }
            ensure!(retry, "{value} was accepted as command {number}, but not applied by {expected} servers");
        }
        bail!("no agreement on {value} by {expected} servers within {} s", ONE_MAX.as_secs())
    }

    /// Proposes the command to one connected server after the other until one accepts it.
    async fn start_somewhere(&self, value: &Value, asked: &mut usize) -> anyhow::Result<Option<u64>> {
        for _ in 0..self.len() {
            *asked += 1;
            if !self.is_connected(*asked) {
                continue;
            }
            if let Some(started) = self.start(*asked, value.clone()).await? {
                return Ok(Some(started.number));
            }
        }
        Ok(None)
    }

    async fn is_agreed(&self, number: u64, value: &Value, expected: usize) -> anyhow::Result<bool> {
        let begin = clock::now();
        while begin.elapsed() < AGREED_MAX {
            let (count, found) = self.n_committed(number)?;
            if count >= expected && found.as_ref() == Some(value) {
                return Ok(true);
            }
            self.sleep(20).await;
        }
        Ok(false)
    }

    /// The largest log with hard state, in bytes.
    pub(crate) fn log_size(&self) -> usize {
        (0..self.len()).map(|server| self.cluster.bytes(self.name(server)).0).max().unwrap_or_default()
    }

    /// Compacts a server's log up to what it has applied.
    ///
    /// Adapted: the product keeps what a follower that it heard in the last 1.2 s still lacks, so
    /// this retries until that follower counts as silent.
    pub(crate) async fn compact(&self, server: usize) -> anyhow::Result<()> {
        for _ in 0..20 {
            let Some(seen) = self.seen(server) else { bail!("{} is dead", self.name(server)) };
            if lock(&seen.journal).entries.is_empty() {
                return Ok(());
            }
            if let Some(replica) = self.cluster.replica::<List>(self.name(server)) {
                replica.compact();
            }
            self.sleep(100).await;
        }
        bail!("{} did not compact its log", self.name(server))
    }

    /// Commands that a server applied one by one since its last start.
    pub(crate) fn one_by_one(&self, server: usize) -> u64 {
        lock(&self.applied).one_by_one(self.name(server))
    }

    /// Snapshots that servers installed.
    pub(crate) fn installs(&self) -> u64 {
        lock(&self.applied).installs()
    }
}
