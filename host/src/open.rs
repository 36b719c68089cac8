//! Opens everything that a server needs at its start, in the order in which it may fail (port,
//! directory, stores), so that a mistake is reported in one line before anything runs.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use base::process::start_log;
use base::socket::{Counters, Here, Key, Listener};
use clerk::api::{Address, GroupId};
use raft::rsm::{Parts, Threads};
use raft::transport::mailbox;
use raft::transport::tcp::{self, Peers, Settings, TcpTransport};
use raft::types::{Membership, NodeId};
use raft_disk::directory::{DataDir, Identity};
use raft_disk::rocksdb::TableOptions;
use raft_disk::wal::LogOptions;

use crate::address::HttpAddress;
use crate::args::{ServerArgs, raft_config};
use crate::descriptors::Descriptors;
use crate::disk::{Disk, watch_disk};
use crate::error::HostError;
use crate::key::KeyKeeper;

/// What a server needs besides its replica.
pub struct Host {
    /// The one port, on which clients and peers arrive.
    pub listener: Listener,
    /// The port on which it shows itself over HTTP, if it was asked to.
    pub http: Option<TcpListener>,
    /// The identity of this server.
    pub here: Here,
    /// The addresses of the members of its group, including this server.
    pub members: BTreeMap<NodeId, Address>,
    /// The transport to its peers, which also takes arriving peers.
    pub transport: Arc<TcpTransport>,
    /// What to start the replica with.
    pub parts: Parts,
    /// What its status shows besides its replica.
    pub facts: Facts,
    /// Connections that it may open to controllers and other groups.
    pub calls: usize,
    /// Keeps the key of the cluster.
    pub keeper: KeyKeeper,
}

/// What a server shows of itself besides its replica.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Its process.
    pub pid: u32,
    /// The counters of its connections, including refusals in both directions.
    pub counters: Arc<Counters>,
    /// File descriptors that its process may have, if that is known.
    pub descriptors: Option<usize>,
    /// Where it shows itself over HTTP.
    pub http: Option<SocketAddr>,
    /// The disk with its data.
    pub disk: Arc<Disk>,
    /// A request that takes so long is slow; zero: none is.
    pub slow: Duration,
}

/// Messages of peers that wait for the replica.
const MAILBOX_MESSAGES_MAX: usize = 16_384;

/// The data directory, as the transport sees it: the incarnation with which each peer was met
/// (correctness rule 32).
struct Met(Arc<DataDir>);

impl Peers for Met {
    fn met(&self, peer: NodeId) -> Option<u64> {
        self.0.met(peer)
    }

    fn remember(&self, peer: NodeId, incarnation: u64) {
        if let Err(known) = self.0.remember(peer, incarnation) {
            tracing::error!(%peer, incarnation, known, "a peer's incarnation was remembered twice");
        }
    }
}

/// Opens everything for a server of `group`.
///
/// # Errors
/// The first problem.
pub async fn open(args: &ServerArgs, group: GroupId) -> Result<Host, HostError> {
    args.validate()?;
    let config = raft_config(args);
    config.validate()?;
    let descriptors = Descriptors::raise(args.members.0.len(), args.connections())?;
    // The port first: a busy one is reported before anything is written.
    let listener = Listener::bind(&args.listen, descriptors.connections).await?;
    let http = args.http.as_ref().map(HttpAddress::bind).transpose()?;
    let members = args.members.0.keys().copied().map(NodeId).collect();
    let identity = Identity { cluster: args.cluster.clone(), group: group.0, node: NodeId(args.id), members };
    let directory = Arc::new(DataDir::open(&args.data_dir, &identity, args.new)?);
    // The process releases the lock when it ends, not before. The owners of the stores are dropped
    // in no fixed order, and as long as one store is open another process may neither open the
    // directory nor delete it.
    std::mem::forget(Arc::clone(&directory));
    start_log(&args.data_dir.join("log"), args.log_format)?;
    let log_options = LogOptions::for_limit(config.log_bytes_max);
    let table_options = TableOptions { open_files_max: descriptors.table_files, ..TableOptions::default() };
    let (log, table) = directory.open_stores(&log_options, &table_options)?;
    let (disk, disk_low) = watch_disk(&args.data_dir, args.disk_reserve_bytes)?;
    let here = here(args, group, &directory);
    let Here { incarnation, boot, .. } = here;
    tracing::info!(cluster = args.cluster, listen = %listener.address(), incarnation, boot, ?descriptors, "starting");
    let (inbox, mailbox) = mailbox(MAILBOX_MESSAGES_MAX, config.mailbox_bytes_max);
    let members: BTreeMap<_, _> =
        args.members.0.iter().map(|(id, address)| (NodeId(*id), address.clone())).collect();
    let counters = listener.counters();
    let refusals = Arc::clone(counters.refusals());
    let alive_timeout = config.tick * config.election_ticks_max;
    let limits = tcp::Limits { alive_timeout, ..tcp::Limits::default() };
    let settings =
        Settings { here: here.clone(), members: members.clone(), limits, seed: config.seed, refusals };
    let keeper = KeyKeeper { directory: Arc::clone(&directory), key: here.key.clone() };
    let transport = Arc::new(TcpTransport::start(settings, Arc::new(Met(directory)), inbox));
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
    let address = http.as_ref().and_then(|http| http.local_addr().ok());
    let (pid, limit) = (std::process::id(), Some(descriptors.limit));
    let slow = Duration::from_millis(args.slow_request_ms);
    let facts = Facts { pid, counters, descriptors: limit, http: address, disk, slow };
    Ok(Host { listener, http, here, members, transport, parts, facts, calls: descriptors.calls, keeper })
}

/// The identity of this server, in a process that has just begun.
fn here(args: &ServerArgs, group: GroupId, directory: &DataDir) -> Here {
    Here {
        cluster: args.cluster.clone(),
        key: Key::new(directory.key()),
        group: group.0,
        node: args.id,
        incarnation: directory.incarnation(),
        boot: rand::random::<u64>().max(1),
        founders: directory.founders(),
    }
}
