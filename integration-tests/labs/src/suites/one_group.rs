//! What the labs' two replicated stores have in common: one replica group, and the faults it gets.
//!
//! A generic test repeats three times: clients work; possibly a partitioner assigns every server to
//! one of two sides, about once a second; everything is connected again; possibly all servers are
//! killed and started. The clients' work and the required results differ: [`super::kvraft`] is the
//! classic store with appends, [`super::kvraft1`] the one with conditional puts.
//!
//! Partitions cut servers from servers; a client always reaches every server, as in the labs.
//!
//! Left out on purpose: faults of the controller. It said once who owns the only shard, and is not
//! asked again.

use std::time::Duration;

use anyhow::{Context, ensure};
use base::clock::{self, Instant};
use rand::RngExt;
use tokio::task::JoinHandle;

use super::versioned::Done;
use crate::lab::client::Client;
use crate::lab::{Lab, Store};
use sim::cluster::Cluster;
use sim::{Name, lock};

/// The group.
pub(super) const GROUP: u64 = 1;
/// The number of iterations of a generic test.
pub(super) const ITERATIONS: u64 = 3;
/// The size of the log that the labs' snapshot tests want to see compacted.
pub(super) const RAFT_STATE_MAX: usize = 1000;

/// Parameters of a generic test.
#[derive(Clone, Copy, Debug)]
pub(super) struct Generic {
    pub(super) clients: u64,
    pub(super) servers: u64,
    pub(super) crash: bool,
    pub(super) partitions: bool,
    pub(super) raft_state_max: Option<usize>,
    pub(super) random_keys: bool,
}

impl Generic {
    /// Without faults and snapshots, each client with a key that it knows.
    pub(super) const fn of(clients: u64, servers: u64) -> Self {
        let (crash, partitions, random_keys) = (false, false, false);
        Self { clients, servers, crash, partitions, raft_state_max: None, random_keys }
    }

    /// All servers are killed in each iteration.
    pub(super) const fn crash(self) -> Self {
        Self { crash: true, ..self }
    }

    /// While clients work, servers are cut off from each other.
    pub(super) const fn partitions(self) -> Self {
        Self { partitions: true, ..self }
    }

    /// The log is compacted.
    pub(super) const fn snapshots(self) -> Self {
        Self { raft_state_max: Some(RAFT_STATE_MAX), ..self }
    }

    /// Clients share their keys.
    pub(super) const fn random_keys(self) -> Self {
        Self { random_keys: true, ..self }
    }

    /// The group.
    pub(super) async fn set_up(self, lab: &Lab) -> anyhow::Result<Store> {
        lab.one_group(self.servers, self.raft_state_max).await
    }

    /// Lets the clients work undisturbed for a second, then begins to cut servers off.
    pub(super) async fn begin_trouble(self, store: &Store) -> anyhow::Result<Option<Partitioner>> {
        if !self.partitions {
            return Ok(None);
        }
        store.lab.sleep(1000).await;
        Partitioner::start(store).map(Some)
    }

    /// Connects everybody; kills and starts everybody.
    pub(super) async fn end_trouble(
        self,
        store: &Store,
        partitioner: Option<Partitioner>,
    ) -> anyhow::Result<()> {
        if let Some(partitioner) = partitioner {
            partitioner.stop().await?;
            connect_all(store)?;
            store.lab.sleep(1000).await;
        }
        if self.crash {
            restart_all(store).await?;
        }
        Ok(())
    }

    /// Checks that the log is as short as it should be.
    ///
    /// Adapted: without maxraftstate the labs want an empty snapshot. All our state is rows,
    /// snapshot or not; instead no server may ever have compacted its log. Processes do not report
    /// that.
    pub(super) async fn check_sizes(self, store: &Store) -> anyhow::Result<()> {
        if let Some(max) = self.raft_state_max {
            return check_log_size(store, max).await;
        }
        let Some(cluster) = store.ground.cluster() else { return Ok(()) };
        for seen in cluster.seen().into_iter().filter(|seen| *seen.group == *GROUP.to_string()) {
            let marker = lock(&seen.journal).marker.index;
            ensure!(
                marker.0 == 0,
                "{} compacted its log up to {marker} although no test asked for it",
                seen.name
            );
        }
        Ok(())
    }
}

/// Checks that the largest log of the group is at most eight times the size at which it should be
/// compacted.
pub(super) async fn check_log_size(store: &Store, max: usize) -> anyhow::Result<()> {
    let (log, _) = store.bytes(GROUP).await?;
    ensure!(log <= 8 * max, "logs were not trimmed: {log} bytes > 8 * maxraftstate ({max})");
    Ok(())
}

/// Re-partitions the servers at random until it is stopped.
pub(super) struct Partitioner {
    done: Done,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Partitioner {
    fn start(store: &Store) -> anyhow::Result<Self> {
        store.network()?;
        let mut random = store.lab.random(&store.lab.fresh_name("partitioner"));
        let (store, done) = (store.clone(), Done::default());
        let told = done.clone();
        let task = tokio::spawn(async move {
            while !told.is_over() {
                let (one, other): (Vec<Name>, Vec<Name>) =
                    store.servers(GROUP).into_iter().partition(|_| random.random_bool(0.5));
                partition(&store, &one, &other)?;
                store.lab.sleep(1000 + random.random_range(0..200)).await;
            }
            Ok(())
        });
        Ok(Self { done, task })
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.done.tell();
        self.task.await?
    }
}

/// Cuts the servers of one side off from those of the other.
pub(super) fn partition(store: &Store, one: &[Name], other: &[Name]) -> anyhow::Result<()> {
    store.lab.step(&format!("partition {} | {}", one.join(" "), other.join(" ")));
    store.network()?.partition(one, other);
    Ok(())
}

/// Ends every partition.
pub(super) fn connect_all(store: &Store) -> anyhow::Result<()> {
    store.lab.step("connect all");
    store.network()?.partition(&store.servers(GROUP), &[]);
    Ok(())
}

/// Kills all servers, and starts them a second later.
async fn restart_all(store: &Store) -> anyhow::Result<()> {
    store.lab.step("kill all servers");
    store.kill_group(GROUP).await?;
    store.lab.sleep(1000).await;
    store.lab.step("start all servers");
    store.start_group(GROUP).await
}

/// The numbers (in the labs: from 0) of servers, as names.
pub(super) fn named(store: &Store, numbers: &[usize]) -> Vec<Name> {
    let servers = store.servers(GROUP);
    numbers.iter().map(|number| Name::clone(&servers[*number])).collect()
}

/// A client that reaches only these servers, and its name.
pub(super) fn client_of(
    store: &Store,
    sessions: bool,
    reachable: &[Name],
) -> anyhow::Result<(Client, String)> {
    let name = store.lab.fresh_name("client");
    let client = store.client_named(&name, sessions);
    store.limit_client(&name, GROUP, reachable)?;
    Ok((client, name))
}

/// Operations of a speed test.
pub(super) const SPEED_OPS: u32 = 1000;

/// Checks that they were fast enough: 33.3 ms each on average, as the labs want (three in each
/// heartbeat interval of 100 ms), and in the simulator, where a synced save takes 0.2 ms, 5 ms.
pub(super) fn check_speed(store: &Store, start: Instant) -> anyhow::Result<()> {
    const LABS: Duration = Duration::from_micros(33_333);
    const OURS: Duration = Duration::from_millis(5);
    let each = start.elapsed() / SPEED_OPS;
    ensure!(each <= LABS, "operations completed too slowly: {each:?} each > {LABS:?}");
    if store.ground.cluster().is_some() {
        ensure!(each <= OURS, "operations completed too slowly for us: {each:?} each > {OURS:?}");
    }
    Ok(())
}

/// The result of a client that has waited long enough.
pub(super) async fn within_3_s<T>(waiting: &mut JoinHandle<T>) -> anyhow::Result<T> {
    let waited = clock::timeout(Duration::from_secs(3), waiting).await;
    Ok(waited.ok().context("not over 3 s after the partition healed")??)
}

/// Checks that a server's rows came from another one as a snapshot.
pub(super) fn check_installed(store: &Store, server: &Name) -> anyhow::Result<()> {
    let seen = store.ground.cluster().into_iter().flat_map(Cluster::seen).find(|seen| seen.name == *server);
    let seen = seen.with_context(|| format!("{server} does not run"))?;
    ensure!(seen.probe.table.installed().is_some(), "{server} caught up without a snapshot");
    Ok(())
}

/// Checks that a table of one key with a short value is as small as the labs want its snapshot to
/// be.
pub(super) async fn check_rows_size(store: &Store) -> anyhow::Result<()> {
    const MAX: usize = 500;
    let (_, rows) = store.bytes(GROUP).await?;
    ensure!(rows <= MAX, "the rows of one key are too large: {rows} bytes > {MAX}");
    Ok(())
}
