//! Replicated state machines without a store (6.5840 2025 and 2026, Labs 4A and 4C; M01 to M08): a
//! counter on three servers, and callers that must all get an answer to their commands.
//!
//! `Inc` counts and answers with the count, `Null` does nothing, and no `Dec` may ever reach the
//! machine: it is only sent to a leader that cannot commit it. The labs' Submit is
//! `Replica::execute` without a deadline; that of the helper `one_partition` tries servers for
//! ten seconds.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use base::clock;
use futures::future::join_all;
use raft::ExecuteError;
use raft::rsm::toy::{self, Toy};

use crate::lab::{Lab, Timers};
use crate::sheet::{Scenario, scenario};
use sim::cluster::{Bare, Cluster, Kind};
use sim::network::majority_without;
use sim::{Name, lock};

/// The scenarios of this file.
pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario("M01", basic),
        scenario("M02", concurrent),
        scenario("M03", leader_failure),
        scenario("M04", leader_partition),
        scenario("M05", restart_replay),
        scenario("M06", shutdown),
        scenario("M07", restart_submit),
        scenario("M08", snapshot),
    ]
}

/// The group's servers.
const SERVERS: u64 = 3;
/// The labs' NSEC: a helper tries this long, and calls may linger for a second more.
const TRY_FOR: Duration = Duration::from_secs(10);
const OVER_WITHIN: Duration = Duration::from_secs(11);
/// Longer than any test: a command waits until it gets its answer.
const FOREVER: Duration = Duration::from_secs(3600);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Inc,
    Null,
    Dec,
}

const COUNT: &[u8] = b"count";
/// A server that applies a `Dec` has this key.
const DEC: &[u8] = b"dec";

impl Command {
    fn of_toy(self) -> toy::Command {
        match self {
            Self::Inc => toy::Command::add(COUNT, 1),
            Self::Null => toy::Command::new(COUNT, toy::Change::Get),
            Self::Dec => toy::Command::put(DEC, &b"applied"[..]),
        }
    }
}

/// The three servers. Clones share them.
#[derive(Clone)]
struct Rsm {
    lab: Lab,
    cluster: Cluster,
    servers: Vec<Name>,
    /// The server that led at the last answer.
    leader: Arc<AtomicUsize>,
}

impl Rsm {
    async fn set_up(lab: &Lab, raft_state_max: Option<usize>) -> anyhow::Result<Self> {
        let config = lab.config(Timers::Product);
        let config = match raft_state_max {
            Some(bytes) => config.with_log_bytes_max(bytes),
            None => config,
        };
        let cluster = lab.cluster(1, config)?;
        let servers = cluster.add(Kind::Bare(Bare::new("rsm", || Toy)), SERVERS);
        lab.set_peers(SERVERS);
        cluster.ready(TRY_FOR).await.map_err(|why| anyhow!(why))?;
        Ok(Self { lab: lab.clone(), cluster, servers, leader: Arc::default() })
    }

    /// Submits at one server.
    async fn submit(&self, server: &Name, command: Command) -> Result<u64, ExecuteError> {
        let Some(replica) = self.cluster.replica::<Toy>(server) else {
            return Err(ExecuteError::NotLeader { hint: None });
        };
        let outcome = replica.execute(&command.of_toy(), FOREVER).await?;
        Ok(outcome.ok().and_then(|outcome| outcome.after).map_or(0, |cell| cell.number()))
    }

    /// The labs' onePartition: submits at one connected server after the other, of `part` if there
    /// is one, beginning with the last known leader, until one has executed it. None after ten
    /// seconds.
    async fn one_partition(&self, part: Option<&[Name]>, command: Command) -> Option<u64> {
        let start = clock::now();
        while start.elapsed() < TRY_FOR {
            let first = self.leader.load(Ordering::Relaxed);
            for step in 0..self.servers.len() {
                let at = (first + step) % self.servers.len();
                let server = &self.servers[at];
                if !self.cluster.network.is_connected(server)
                    || part.is_some_and(|part| !part.contains(server))
                {
                    continue;
                }
                if let Ok(count) = self.submit(server, command).await {
                    self.leader.store(at, Ordering::Relaxed);
                    self.lab.count_op();
                    return Some(count);
                }
            }
            self.lab.sleep(50).await;
        }
        None
    }

    /// Increments, at any server; returns the count.
    async fn inc(&self) -> anyhow::Result<u64> {
        let counted = self.one_partition(None, Command::Inc).await;
        counted.with_context(|| format!("no server counted within {TRY_FOR:?}"))
    }

    /// The labs' checkCounter: soon at least `expected` servers have counted to `count`.
    async fn check_counter(&self, count: u64, expected: usize) -> anyhow::Result<()> {
        let mut pause_ms = 10;
        for _ in 0..30 {
            if self.counters().iter().filter(|(_, counter)| *counter == count).count() >= expected {
                return Ok(());
            }
            self.lab.sleep(pause_ms).await;
            pause_ms = if pause_ms < 1000 { pause_ms * 2 } else { pause_ms };
        }
        bail!("not {expected} servers have counted to {count}: {:?}", self.counters())
    }

    fn counters(&self) -> Vec<(Name, u64)> {
        self.cluster
            .seen()
            .into_iter()
            .map(|seen| (seen.name, toy::count(&*seen.probe.table, COUNT)))
            .collect()
    }

    /// Submits a command many times at once; returns the tasks that wait for the answers.
    fn submit_many<F: Future<Output: Send> + Send + 'static>(
        &self,
        times: usize,
        submit: impl Fn(Self) -> F,
    ) -> Vec<tokio::task::JoinHandle<F::Output>> {
        (0..times).map(|_| tokio::spawn(submit(self.clone()))).collect()
    }

    fn leader(&self) -> anyhow::Result<Name> {
        Ok(self.cluster.leader("rsm").context("nobody leads")?.name)
    }

    fn kill_all(&self) {
        self.lab.step("kill all servers");
        self.servers.iter().for_each(|server| self.cluster.crash(server));
    }

    fn start_all(&self) {
        self.lab.step("start all servers");
        self.servers.iter().for_each(|server| self.cluster.start(server));
    }

    /// Increments a hundred times, and restarts all servers: the next count is 101.
    async fn count_and_restart(&self) -> anyhow::Result<()> {
        for _ in 0..100 {
            let count = self.inc().await?;
            self.check_counter(count, 3).await?;
        }
        self.kill_all();
        self.lab.sleep(1000).await;
        self.start_all();
        let count = self.inc().await?;
        ensure!(count == 101, "after 100 increments and a restart the next one counted {count}");
        self.lab.sleep(1000).await;
        Ok(())
    }

    /// Submits a hundred times at once and kills all servers 20 ms later: every caller must get an
    /// answer.
    ///
    /// Adapted: the labs' group commits with its heartbeats, ours within 2 ms; so that commands
    /// wait when the servers die, the followers' next write takes a second.
    async fn kill_while_commands_wait(&self) -> anyhow::Result<()> {
        let leader = self.leader()?;
        for follower in self.servers.iter().filter(|server| **server != leader) {
            self.cluster.stall(follower, Duration::from_secs(1));
        }
        let callers = self.submit_many(100, |all| async move {
            all.one_partition(None, Command::Null).await;
        });
        self.lab.sleep(20).await;
        let waiting = callers.iter().filter(|caller| !caller.is_finished()).count();
        ensure!(waiting > 0, "no command waits: the shutdown would prove nothing");
        self.kill_all();
        let over = clock::timeout(OVER_WITHIN, join_all(callers)).await;
        let over =
            over.ok().with_context(|| format!("callers still wait {OVER_WITHIN:?} after the shutdown"))?;
        over.into_iter().collect::<Result<Vec<()>, _>>()?;
        Ok(())
    }
}

async fn basic(lab: Lab) -> anyhow::Result<()> {
    let all = Rsm::set_up(&lab, None).await?;
    for expected in 1..=10 {
        let count = all.inc().await?;
        ensure!(count == expected, "increment {expected} counted {count}");
        all.check_counter(count, 3).await?;
    }
    Ok(())
}

async fn concurrent(lab: Lab) -> anyhow::Result<()> {
    const TIMES: usize = 50;
    let all = Rsm::set_up(&lab, None).await?;
    let callers = all.submit_many(TIMES, |all| async move { all.inc().await });
    let mut counts = BTreeSet::new();
    for caller in callers {
        let count = caller.await??;
        ensure!(counts.insert(count), "two increments counted {count}");
    }
    all.check_counter(TIMES as u64, 3).await
}

async fn leader_failure(lab: Lab) -> anyhow::Result<()> {
    let all = Rsm::set_up(&lab, None).await?;
    let count = all.inc().await?;
    all.check_counter(count, 3).await?;
    let leader = all.leader()?;
    lab.step(&format!("disconnect {leader}"));
    all.cluster.network.disconnect(&leader, &all.servers);
    let count = all.inc().await?;
    all.check_counter(count, 2).await?;
    lab.step(&format!("connect {leader}"));
    all.cluster.network.connect(&leader, &all.servers);
    all.check_counter(count, 3).await
}

/// Commands at a leader that is cut off wait, because they may still be committed; once it learns
/// of a newer term they fail.
///
/// Adapted: when our leader steps down, because it hears of no majority, it answers nobody
/// (correctness rule 28). So none of the hundred may return before the partition heals, where the
/// labs only want that not all do.
async fn leader_partition(lab: Lab) -> anyhow::Result<()> {
    const SECOND: Duration = Duration::from_secs(1);
    let all = Rsm::set_up(&lab, None).await?;
    all.inc().await?;
    let leader = all.leader()?;
    let (majority, minority) = majority_without(&leader, &all.servers);
    lab.step(&format!("partition {} | {}", majority.join(" "), minority.join(" ")));
    all.cluster.network.partition(&majority, &minority);
    let callers = all.submit_many(100, |all| {
        let leader = leader.clone();
        async move { all.submit(&leader, Command::Dec).await }
    });
    lab.sleep(10).await;
    let count = all.one_partition(Some(&majority), Command::Inc).await;
    let count = count.context("the majority did not count")?;
    clock::sleep(SECOND).await;
    let over = callers.iter().filter(|caller| caller.is_finished()).count();
    ensure!(over == 0, "{over} of 100 commands at a leader without a majority came to an end");

    lab.step(&format!("connect {leader}"));
    all.cluster.network.partition(&all.servers, &[]);
    let outcomes = clock::timeout(SECOND, join_all(callers)).await;
    for outcome in
        outcomes.ok().context("commands at the old leader still wait 1 s after it was connected")?
    {
        let outcome = outcome?;
        ensure!(outcome.is_err(), "a command at a leader without a majority was answered {outcome:?}");
    }
    all.check_counter(count, 3).await?;
    for seen in all.cluster.seen() {
        let applied = toy::look(&*seen.probe.table, DEC).is_some();
        ensure!(!applied, "{} applied a Dec, which was only sent to a minority", seen.name);
    }
    Ok(())
}

async fn restart_replay(lab: Lab) -> anyhow::Result<()> {
    let all = Rsm::set_up(&lab, None).await?;
    all.count_and_restart().await?;
    all.check_counter(101, 3).await
}

async fn shutdown(lab: Lab) -> anyhow::Result<()> {
    Rsm::set_up(&lab, None).await?.kill_while_commands_wait().await
}

/// Commands that waited before the restart must not be taken for the later ones in their places.
async fn restart_submit(lab: Lab) -> anyhow::Result<()> {
    let all = Rsm::set_up(&lab, None).await?;
    all.count_and_restart().await?;
    all.kill_while_commands_wait().await?;
    all.start_all();
    let count = all.inc().await?;
    ensure!(
        count == 102,
        "after 101 increments, commands without effect and a restart the next one counted {count}"
    );
    all.check_counter(count, 3).await
}

async fn snapshot(lab: Lab) -> anyhow::Result<()> {
    const MAX: usize = 1000;
    let all = Rsm::set_up(&lab, Some(MAX)).await?;
    for _ in 0..100 {
        all.inc().await?;
    }
    all.check_counter(100, 3).await?;
    for seen in all.cluster.seen() {
        let (server, marker) = (&seen.name, lock(&seen.journal).marker.index);
        let (log, _) = all.cluster.bytes(server);
        ensure!(log <= 2 * MAX, "{server} did not trim its log: {log} bytes > 2 * maxraftstate ({MAX})");
        ensure!(
            marker.0 > 0,
            "{server} never compacted its log of {log} bytes: the restart would prove nothing"
        );
    }
    all.kill_all();
    all.start_all();
    all.inc().await?;
    all.check_counter(101, 3).await
}
