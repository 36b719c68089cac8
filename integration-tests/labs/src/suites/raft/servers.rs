//! The servers of a Raft lab, independent of what they replicate: who leads, who is connected, who
//! is dead.
//!
//! Servers are numbered from 0, modulo their number, as in the labs; messages to people name them
//! as the network does ("list.1" is server 0). A *connected* server is one that nobody
//! disconnected; a crash disconnects, a restart connects.
//!
//! The two families of labs ([`Style`]) differ in how they wait for a leader and in how soon a
//! caller learns that a server cannot be reached.
//!
//! Left out on purpose: what is replicated ([`super::lab`]).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use base::clock;
use raft::config::Config;
use raft::rsm::{Role, Status};
use rand::RngExt;

use crate::lab::{Lab, Net};
use sim::cluster::{Bare, Cluster, Kind, Seen};
use sim::network::Weather;
use sim::{Generator, Name, lock};

/// Whose lab it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// MIT's. An unreachable server is noticed up to seven seconds late.
    Mit,
    /// SJTU's.
    ///
    /// Adapted: there an unreachable server is noticed at once, here within 0.1 s; and there the unreliable
    /// network fails one request in ten and loses no reply, here it loses replies as well.
    Sjtu,
}

#[derive(Clone)]
pub(crate) struct Servers {
    /// The lab.
    pub(crate) lab: Lab,
    /// The simulated cluster.
    pub(crate) cluster: Cluster,
    pub(crate) style: Style,
    names: Arc<[Name]>,
    random: Arc<Mutex<Generator>>,
    fresh: Arc<Mutex<u64>>,
}

impl Servers {
    /// Starts `servers` servers of `bare`; none leads yet.
    pub(crate) async fn set_up(
        lab: &Lab,
        style: Style,
        bare: Bare,
        servers: u64,
        config: Config,
    ) -> anyhow::Result<Self> {
        let cluster = lab.cluster(1, config)?;
        let unreliable = lab.net() == Net::Unreliable;
        let long_delays = style == Style::Mit;
        cluster.network.set_weather(Weather { unreliable, long_delays, ..Weather::default() });
        let names = cluster.add(Kind::Bare(bare), servers).into();
        lab.set_peers(servers);
        let random = Arc::new(Mutex::new(lab.random("scenario")));
        let all = Self { lab: lab.clone(), cluster, style, names, random, fresh: Arc::default() };
        for server in 0..all.len() {
            all.is_running(server).await?;
        }
        Ok(all)
    }

    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    pub(crate) fn name(&self, server: usize) -> &Name {
        &self.names[server % self.len()]
    }

    /// What is visible of a server that runs.
    pub(crate) fn seen(&self, server: usize) -> Option<Seen> {
        let name = self.name(server);
        self.cluster.seen().into_iter().find(|seen| seen.name == *name)
    }

    /// How a server is; none if it is dead.
    pub(crate) fn status(&self, server: usize) -> Option<Status> {
        self.seen(server).map(|seen| seen.probe.status.borrow().clone())
    }

    /// Whether a server runs.
    pub(crate) fn is_alive(&self, server: usize) -> bool {
        self.seen(server).is_some()
    }

    /// Whether nobody disconnected it.
    pub(crate) fn is_connected(&self, server: usize) -> bool {
        self.cluster.network.is_connected(self.name(server))
    }

    fn connected(&self) -> impl Iterator<Item = (usize, Status)> {
        let connected = (0..self.len()).filter(|server| self.is_connected(*server));
        connected.filter_map(|server| Some((server, self.status(server)?)))
    }

    // Randomness. One generator for the whole scenario: tasks take turns in an order that the seed
    // decides.

    /// A random number below `bound`.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        lock(&self.random).random_range(0..bound)
    }

    /// A random server.
    pub(crate) fn any(&self) -> usize {
        lock(&self.random).random_range(0..self.len())
    }

    /// True in `of_1000` of 1,000 cases.
    pub(crate) fn chance(&self, of_1000: u64) -> bool {
        self.below(1000) < of_1000
    }

    /// A command that was not used before: MIT's are random, SJTU's count up from 0.
    pub(crate) fn fresh(&self) -> u64 {
        if self.style == Style::Mit {
            return self.below(1 << 63);
        }
        let mut fresh = lock(&self.fresh);
        *fresh += 1;
        *fresh - 1
    }

    // The network.

    /// Cuts servers off from all others.
    pub(crate) fn disconnect(&self, servers: &[usize]) {
        for server in servers {
            self.cluster.network.disconnect(self.name(*server), &self.names);
        }
    }

    /// Connects servers with all that are connected.
    pub(crate) fn connect(&self, servers: &[usize]) {
        for server in servers {
            self.cluster.network.connect(self.name(*server), &self.names);
        }
    }

    /// Makes the network reliable.
    pub(crate) fn set_reliable(&self) {
        let weather = self.cluster.network.weather();
        self.cluster.network.set_weather(Weather { unreliable: false, ..weather });
    }

    /// Lets two in three answers come late.
    pub(crate) fn set_long_reordering(&self) {
        let weather = self.cluster.network.weather();
        self.cluster.network.set_weather(Weather { long_reordering: true, ..weather });
    }

    /// Requests so far. MIT counts what servers received since they started, SJTU what was sent.
    pub(crate) fn requests(&self) -> u64 {
        match self.style {
            Style::Mit => self.names.iter().map(|name| self.cluster.network.served(name)).sum(),
            Style::Sjtu => self.cluster.network.rpcs(),
        }
    }

    // Lives.

    /// Kills servers.
    pub(crate) fn crash(&self, servers: &[usize]) {
        self.disconnect(servers);
        for server in servers {
            self.cluster.crash(self.name(*server));
        }
    }

    /// Starts servers from their disks (and kills them first, if they run), and connects them.
    pub(crate) async fn restart(&self, servers: &[usize]) -> anyhow::Result<()> {
        for server in servers {
            self.crash(&[*server]);
            self.cluster.start(self.name(*server));
            self.connect(&[*server]);
            self.is_running(*server).await?;
        }
        Ok(())
    }

    async fn is_running(&self, server: usize) -> anyhow::Result<()> {
        const LOOK: Duration = Duration::from_micros(20);
        for _ in 0..50_000 {
            if self.is_alive(server) {
                return Ok(());
            }
            clock::sleep(LOOK).await;
        }
        bail!("{} does not start", self.name(server))
    }

    // Leaders.

    /// Waits for a leader: at most ten looks, half a second apart.
    pub(crate) async fn check_one_leader(&self) -> anyhow::Result<usize> {
        for look in 0..10 {
            match self.style {
                Style::Mit => self.lab.sleep(450 + self.below(100)).await,
                Style::Sjtu if look > 0 => self.lab.sleep(500 + self.below(271)).await,
                Style::Sjtu => {}
            }
            if let Some(leader) = self.leader_now()? {
                return Ok(leader);
            }
        }
        bail!("expected one leader, got none")
    }

    /// The connected leader of the highest term.
    fn leader_now(&self) -> anyhow::Result<Option<usize>> {
        let mut leaders = BTreeMap::new();
        for (server, status) in self.connected().filter(|(_, status)| status.role == Role::Leader) {
            if let Some(other) = leaders.insert(status.term, server) {
                bail!("{} and {} both lead term {}", self.name(other), self.name(server), status.term);
            }
        }
        Ok(leaders.pop_last().map(|(_, server)| server))
    }

    /// The term that all connected servers are in.
    pub(crate) fn check_terms(&self) -> anyhow::Result<u64> {
        let terms: BTreeMap<usize, u64> = self.connected().map(|(server, it)| (server, it.term.0)).collect();
        let term = *terms.values().next().context("no server is connected")?;
        ensure!(terms.values().all(|it| *it == term), "servers disagree on the term: {terms:?}");
        Ok(term)
    }

    /// No connected server may lead.
    pub(crate) fn check_no_leader(&self) -> anyhow::Result<()> {
        match self.connected().find(|(_, status)| status.role == Role::Leader) {
            Some((server, status)) => {
                bail!("expected no leader, but {} leads term {}", self.name(server), status.term)
            }
            None => Ok(()),
        }
    }

    /// Waits `ms` milliseconds.
    pub(crate) async fn sleep(&self, ms: u64) {
        self.lab.sleep(ms).await;
    }
}
