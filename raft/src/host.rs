//! A replica as a process: what every server of the cluster opens at its start, in the order in which it
//! may fail (port, directory, stores), so that a mistake is told in one line before anything runs.

use std::sync::Arc;

use base::process::{Descriptors, Disk, Fatal, ServerArgs, end, start_log, watch_disk};
use base::socket::{Counters, Here, Key, Listener};
use tokio::sync::watch;

use crate::config::Config;
use crate::rsm::{Parts, Status, Threads};
use crate::storage::directory::{DataDir, Identity};
use crate::storage::rocksdb::TableOptions;
use crate::storage::wal::LogOptions;
use crate::transport::mailbox;
use crate::transport::tcp::{self, Settings, TcpTransport};
use crate::types::{Membership, NodeId};

/// What a server needs beside its replica.
pub struct Host {
    /// The one port, on which clients and peers arrive.
    pub listener: Listener,
    /// Who this server is.
    pub here: Here,
    /// The way to its peers, to which arriving peers are handed.
    pub transport: Arc<TcpTransport>,
    /// What to start the replica with.
    pub parts: Parts,
    /// What its status shows beside its replica.
    pub facts: Facts,
    /// Connections that it may open to controllers and other groups.
    pub calls: usize,
    /// Where the key of the cluster is kept.
    pub keeper: KeyKeeper,
}

/// What a server shows of itself beside its replica.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Its process.
    pub pid: u32,
    /// What happened to its connections: what it refused, and who refuses it, for one.
    pub counters: Arc<Counters>,
    /// File descriptors that its process may have; 0: not known.
    pub descriptors: usize,
    /// The disk that its data lies on.
    pub disk: Arc<Disk>,
}

/// Keeps the key of the cluster (correctness rule 51).
#[derive(Debug)]
pub struct KeyKeeper {
    directory: Arc<DataDir>,
    key: Key,
}

impl KeyKeeper {
    /// Takes note of the key as soon as `key_of`, asked whenever the replica has gone on, does not say 0: first in the
    /// data directory, then for all connections. A key that contradicts the known one ends the process: these data
    /// belong to two clusters.
    pub async fn follow(self, mut replica: watch::Receiver<Status>, key_of: impl Fn() -> u64) {
        loop {
            let key = key_of();
            if key != 0 {
                return self.learn(key);
            }
            if replica.changed().await.is_err() {
                return;
            }
        }
    }

    fn learn(&self, key: u64) {
        if let Err(known) = self.directory.learn_key(key) {
            let path = self.directory.path().display();
            let what = format!(
                "{path} belongs to the cluster with key {known:016x}, and its group's log to {key:016x}: files of two \
                 clusters were mixed"
            );
            end(Fatal::Safety, &what);
        }
        if self.key.learn(key) == key {
            tracing::info!(key = format!("{key:016x}"), "the cluster's key is known");
        }
    }
}

/// Why a server does not start: one line that says what to do.
pub type HostError = Box<dyn std::error::Error + Send + Sync>;

/// The Raft settings that the command line makes.
pub fn raft_config(args: &ServerArgs) -> Config {
    let config = Config { seed: rand::random(), ..Config::default() };
    let config = config.with_timers(args.heartbeat_ms, args.election_ms);
    match args.log_bytes_max {
        Some(bytes) => config.with_log_bytes_max(bytes),
        None => config,
    }
}

/// Opens everything for a server of `group` (0: the controllers).
///
/// # Errors
/// The first thing that is wrong.
pub async fn open(args: &ServerArgs, group: u64) -> Result<Host, HostError> {
    args.validate()?;
    let config = raft_config(args);
    config.validate()?;
    let descriptors = Descriptors::raise(args.members.0.len(), args.connections())?;
    // The port first: a busy one is told before anything is written.
    let listener = Listener::bind(&args.listen, descriptors.connections).await?;
    let members = args.members.0.keys().copied().map(NodeId).collect();
    let identity = Identity { cluster: args.cluster.clone(), group, node: NodeId(args.id), members };
    let directory = Arc::new(DataDir::open(&args.data_dir, &identity, args.new)?);
    // The process gives the lock back when it ends, not before: what holds the stores is dropped in no order, and as long as one
    // of them is open another process may neither open the directory nor delete it.
    std::mem::forget(Arc::clone(&directory));
    start_log(&args.data_dir.join("log"))?;
    let log_options = LogOptions::for_limit(config.log_bytes_max);
    let table_options = TableOptions { open_files_max: descriptors.table_files, ..TableOptions::default() };
    let (log, table) = directory.open_stores(&log_options, &table_options)?;
    let (disk, disk_low) = watch_disk(&args.data_dir, args.disk_reserve_bytes)?;
    let here = here(args, group, &directory);
    let Here { incarnation, boot, .. } = here;
    tracing::info!(cluster = args.cluster, listen = %listener.address(), incarnation, boot, ?descriptors, "starting");
    let (inbox, mailbox) = mailbox(16_384, config.mailbox_bytes_max);
    let members = args.members.0.iter().map(|(id, address)| (NodeId(*id), address.clone())).collect();
    let counters = listener.counters();
    let refusals = Arc::clone(counters.refusals());
    let alive_timeout = config.tick * config.election_ticks_max;
    let limits = tcp::Limits { alive_timeout, ..tcp::Limits::default() };
    let settings = Settings { here: here.clone(), members, limits, seed: config.seed, refusals };
    let keeper = KeyKeeper { directory: Arc::clone(&directory), key: here.key.clone() };
    let transport = Arc::new(TcpTransport::start(settings, directory, inbox));
    let parts = Parts {
        me: NodeId(args.id),
        membership: Membership::of(args.members.0.keys().copied().map(NodeId)),
        config,
        log,
        table,
        transport: transport.clone(),
        mailbox,
        threads: Threads::Own,
        disk_low,
    };
    let facts = Facts { pid: std::process::id(), counters, descriptors: descriptors.limit, disk };
    Ok(Host { listener, here, transport, parts, facts, calls: descriptors.calls, keeper })
}

/// Who this server is, in a process that has just begun.
fn here(args: &ServerArgs, group: u64, directory: &DataDir) -> Here {
    Here {
        cluster: args.cluster.clone(),
        key: Key::new(directory.key()),
        group,
        node: args.id,
        incarnation: directory.incarnation(),
        boot: rand::random::<u64>().max(1),
        founders: directory.founders(),
    }
}
