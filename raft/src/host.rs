//! A replica as a process: what every server of the cluster opens at its start, in the order in which it
//! may fail (port, directory, stores), so that a mistake is told in one line before anything runs.

use std::sync::Arc;

use base::process::{ServerArgs, start_log, watch_disk};
use base::socket::{Here, Limits, Listener};

use crate::config::Config;
use crate::rsm::{Parts, Threads};
use crate::storage::directory::{DataDir, Identity};
use crate::storage::rocksdb::TableOptions;
use crate::storage::wal::LogOptions;
use crate::transport::mailbox;
use crate::transport::tcp::{Settings, TcpTransport};
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
    // The port first: a busy one is told before anything is written.
    let listener = Listener::bind(&args.listen, Limits::default()).await?;
    let identity = Identity { cluster: args.cluster.clone(), group, node: NodeId(args.id) };
    let directory = Arc::new(DataDir::open(&args.data_dir, &identity, args.new)?);
    // The process gives the lock back when it ends, not before: what holds the stores is dropped in no order, and as long as one
    // of them is open another process may neither open the directory nor delete it.
    std::mem::forget(Arc::clone(&directory));
    start_log(&args.data_dir.join("log"))?;
    let log_options = LogOptions::for_limit(config.log_bytes_max);
    let (log, table) = directory.open_stores(&log_options, &TableOptions::default())?;
    let disk_low = watch_disk(&args.data_dir, args.disk_reserve_bytes)?;
    let incarnation = directory.incarnation();
    tracing::info!(cluster = args.cluster, listen = %listener.address(), incarnation, "starting");
    let boot = rand::random::<u64>().max(1);
    let (cluster, node) = (args.cluster.clone(), args.id);
    let here = Here { cluster, group, node, incarnation, boot, ..Here::default() };
    let (inbox, mailbox) = mailbox(16_384, config.mailbox_bytes_max);
    let members = args.members.0.iter().map(|(id, address)| (NodeId(*id), address.clone())).collect();
    let settings = Settings { here: here.clone(), members, limits: Default::default(), seed: config.seed };
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
    Ok(Host { listener, here, transport, parts })
}
