//! Nodes on the simulated network: a single group of a toy service, or controllers and replica
//! groups.
//!
//! A crash cuts the node's links in both directions, then drops its tasks, then loses what its disk
//! had not made durable. So a dead server tells nobody that it died. A restart opens the same disk
//! again. A node has the identity that a data directory would give it (`strangers`), and each of
//! its processes has a boot number. `boot`: how a node of each kind starts. `harm`: what disks do
//! to it.
//!
//! Left out on purpose: nodes that stop cleanly. Nothing may depend on that.

mod boot;
mod harm;
mod strangers;

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::clock;
use base::socket::Refusals;
use clerk::api::config::Params;
use clerk::api::{Address, GroupId};
use raft::config::Config;
use raft::rsm::{Replica, Role, StateMachine, Status};
use raft::storage::Table;
use raft::types::{EntryId, NodeId};
use rand::RngExt;
use shardkv::changes::Limits;
use shardkv::machine::Standing;
use shardkv::plan::Sizes;
use tokio::sync::watch;
use tokio::task::AbortHandle;

pub use boot::Bare;
use strangers::Passport;

use super::disk::{Disk, Journal, Temper};
use super::network::{Calls, Network, Pass, Server};
use super::{Name, World, lock};
use crate::record::What;

/// The service of a node.
#[derive(Clone)]
pub enum Kind {
    Toy,
    /// A controller.
    Ctrl,
    Kv(GroupId),
    /// A replicated state machine without a service: tests use its replicas directly
    /// ([`Cluster::replica`]).
    Bare(Bare),
}

/// Sizes of a cluster.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Limits of the sharded cluster.
    pub params: Params,
    /// Settings of every replica.
    pub raft: Config,
    /// How disks behave.
    pub disks: Temper,
    /// How much of a shard that moves is sent at once.
    pub sizes: Sizes,
    /// How much replicas remember of what was changed in it.
    pub memory: Limits,
}

impl Shape {
    /// Shards move as in the product.
    pub fn usual(params: Params, raft: Config, disks: Temper) -> Self {
        Self { params, raft, disks, sizes: Sizes::USUAL, memory: Limits::default() }
    }

    /// A shape drawn from the seed. Logs are small, so that compactions and snapshots happen often.
    /// Appends hold as little as one entry, and the limit in flight may be one. Shards are large for
    /// their chunks, and little is remembered of what is changed in them.
    pub fn drawn(world: &World) -> Self {
        let mut random = world.generator("shape");
        let mut one_of = |choices: [usize; 3]| choices[random.random_range(0..3)];
        let raft = Config {
            chunk_bytes: one_of([256, 2 << 10, 16 << 10]),
            append_bytes_max: one_of([64, 1 << 10, 1 << 20]),
            in_flight_messages_max: one_of([1, 4, 256]),
            in_flight_bytes_max: one_of([1 << 10, 16 << 10, 8 << 20]),
            uncommitted_bytes_max: one_of([4 << 10, 64 << 10, 32 << 20]),
            unapplied_bytes_max: one_of([1 << 10, 16 << 10, 32 << 20]),
            ..Config::default()
        };
        let raft = raft.with_log_bytes_max(one_of([4 << 10, 8 << 10, 32 << 10]));
        let Sizes { mut chunk, mut seal, mut hold, mut round, .. } = Sizes::USUAL;
        (chunk.rows, seal.rows) = (one_of([1, 8, 4096]), one_of([2, 16, 256]));
        (hold.rows, round.rows) = (one_of([8, 64, 4096]) as u64, one_of([8, 64, 16 << 10]) as u64);
        let sizes = Sizes { chunk, seal, hold, round, round_entries: one_of([16, 256, 32 << 10]) as u64 };
        let memory = Limits { rows: one_of([16, 256, 64 << 10]), ..Limits::default() };
        let params = Params { shard_count: 10, ..Params::default() };
        Self { params, raft, disks: Temper::Moody, sizes, memory }
    }
}

/// What is visible of a running replica from outside.
#[derive(Clone)]
pub struct Probe {
    /// Its Raft status.
    pub status: watch::Receiver<Status>,
    pub standing: Option<watch::Receiver<Standing>>,
    pub table: Arc<dyn Table>,
}

struct Running {
    server: Arc<Server>,
    probe: Probe,
    alive: Arc<AtomicBool>,
    /// The replica of a [`Bare`] machine.
    replica: Option<Arc<dyn Any + Send + Sync>>,
    /// Drops the service and the replica's tasks.
    drop_tasks: Box<dyn FnOnce() + Send>,
}

struct Node {
    passport: Passport,
    kind: Kind,
    config: Config,
    id: NodeId,
    peers: BTreeMap<NodeId, Name>,
    disk: Disk,
    life: u64,
    /// It had durably applied at least this far at its last crash.
    floor: EntryId,
    starting: Option<AbortHandle>,
    running: Option<Running>,
}

/// A cluster. Clones share it.
#[derive(Clone)]
pub struct Cluster {
    pub world: World,
    pub network: Network,
    name: Arc<str>,
    /// The controllers that groups ask for configurations, if not this cluster's.
    controllers: Arc<Mutex<Option<Vec<Address>>>>,
    shape: Arc<Shape>,
    nodes: Arc<Mutex<BTreeMap<Name, Node>>>,
    /// Nodes that are replaced by strangers.
    aside: Arc<Mutex<BTreeMap<Name, Node>>>,
    lives: Arc<AtomicU64>,
    /// The key that controllers draw; 0: the world decides.
    key: Arc<AtomicU64>,
    recovering: Arc<AtomicBool>,
}

/// One replica in its present state.
pub struct Seen {
    pub name: Name,
    /// Its group's name.
    pub group: Name,
    /// Counts its restarts.
    pub life: u64,
    /// It must have applied at least this, as of its last crash.
    pub floor: EntryId,
    /// Access to its state.
    pub probe: Probe,
    /// What its log durably holds.
    pub journal: Arc<Mutex<Journal>>,
    /// Its table was damaged and has not been replaced since.
    pub damaged: Arc<AtomicBool>,
}

/// The part of a node's name that it shares with its group.
pub fn group_of(name: &str) -> Name {
    name.split('.').next().unwrap_or(name).into()
}

impl Cluster {
    /// A cluster without nodes.
    pub fn new(world: &World, shape: Shape) -> Self {
        Self::on(&Network::new(world), world, shape)
    }

    /// A cluster of the same name on the network of another cluster. Its nodes must have other
    /// names.
    pub fn on(network: &Network, world: &World, shape: Shape) -> Self {
        Self {
            world: world.clone(),
            network: network.clone(),
            name: "sim".into(),
            controllers: Arc::default(),
            shape: Arc::new(shape),
            nodes: Arc::default(),
            aside: Arc::default(),
            lives: Arc::default(),
            key: Arc::default(),
            recovering: Arc::default(),
        }
    }

    fn controllers(&self) -> Vec<Address> {
        lock(&self.controllers).clone().unwrap_or_else(|| self.addresses("ctrl"))
    }

    /// Groups that start from now on ask these servers for configurations.
    pub fn set_controllers(&self, addresses: Vec<Address>) {
        *lock(&self.controllers) = Some(addresses);
    }

    /// Adds a group of nodes and starts them: `toy`, `ctrl`, the number of a replica group, or the name
    /// of a bare machine.
    pub fn add(&self, kind: Kind, replicas: u64) -> Vec<Name> {
        self.add_with(kind, replicas, self.shape.raft.clone())
    }

    /// Like [`Self::add`], with its own settings.
    pub fn add_with(&self, kind: Kind, replicas: u64, config: Config) -> Vec<Name> {
        let group = match &kind {
            Kind::Toy => "toy".to_owned(),
            Kind::Ctrl => "ctrl".to_owned(),
            Kind::Kv(group) => group.to_string(),
            Kind::Bare(bare) => bare.name.to_owned(),
        };
        self.add_named(&group, kind, replicas, config)
    }

    /// Like [`Self::add_with`], as a group of another name: for example, a second group of
    /// controllers, which only groups ask that got its addresses.
    pub fn add_named(&self, group: &str, kind: Kind, replicas: u64, config: Config) -> Vec<Name> {
        let peers: BTreeMap<NodeId, Name> =
            (1..=replicas).map(|id| (NodeId(id), format!("{group}.{id}").into())).collect();
        for (id, name) in &peers {
            let node = Node {
                passport: Passport::new(&self.world, &self.name, &kind, name, *id, &peers),
                kind: kind.clone(),
                config: config.clone(),
                id: *id,
                peers: peers.clone(),
                disk: Disk::new(&self.world, name, self.shape.disks),
                life: 0,
                floor: EntryId::ZERO,
                starting: None,
                running: None,
            };
            lock(&self.nodes).insert(Arc::clone(name), node);
            self.start(name);
        }
        peers.into_values().collect()
    }

    /// The names of all nodes.
    pub fn names(&self) -> Vec<Name> {
        lock(&self.nodes).keys().cloned().collect()
    }

    /// The servers of a group, as addresses.
    pub fn addresses(&self, group: &str) -> Vec<Address> {
        self.names().iter().filter(|name| *group_of(name) == *group).map(ToString::to_string).collect()
    }

    /// The key of a cluster that controllers make here.
    pub fn key(&self) -> u64 {
        match self.key.load(Ordering::Relaxed) {
            0 => self.world.derive("cluster key").max(1),
            key => key,
        }
    }

    /// Controllers that start from now on draw this key if they make a cluster.
    pub fn set_key(&self, key: u64) {
        self.key.store(key, Ordering::Relaxed);
    }

    /// Sets whether controllers that start from now on make no cluster and wait to be recovered.
    pub fn set_recovering(&self, recovering: bool) {
        self.recovering.store(recovering, Ordering::Relaxed);
    }

    /// Grows whenever a node starts or stops.
    pub fn lives(&self) -> u64 {
        self.lives.load(Ordering::Relaxed)
    }

    /// Whether a node runs or is starting.
    pub fn is_up(&self, name: &str) -> bool {
        lock(&self.nodes).get(name).is_some_and(|node| node.running.is_some() || node.starting.is_some())
    }

    /// The running nodes.
    pub fn seen(&self) -> Vec<Seen> {
        let nodes = lock(&self.nodes);
        let seen = |(name, node): (&Name, &Node)| {
            let running = node.running.as_ref()?;
            Some(Seen {
                name: Arc::clone(name),
                group: group_of(name),
                life: node.life,
                floor: node.floor,
                probe: running.probe.clone(),
                journal: node.disk.journal(),
                damaged: node.disk.damaged(),
            })
        };
        nodes.iter().filter_map(seen).collect()
    }

    /// The leader of the highest term that a running node of `group` claims to be.
    pub fn leader(&self, group: &str) -> Option<Seen> {
        let leaders = self.seen().into_iter().filter(|seen| *seen.group == *group);
        leaders
            .filter(|seen| seen.probe.status.borrow().role == Role::Leader)
            .max_by_key(|seen| seen.probe.status.borrow().term)
    }

    /// The replica of a running node of a [`Bare`] machine.
    pub fn replica<S: StateMachine>(&self, name: &str) -> Option<Replica<S>> {
        let nodes = lock(&self.nodes);
        let held = nodes.get(name)?.running.as_ref()?.replica.clone()?;
        held.downcast_ref::<Replica<S>>().cloned()
    }

    /// Bytes that a node's log keeps below its marker, and how many it may keep.
    pub fn kept(&self, name: &str) -> (usize, usize) {
        lock(&self.nodes).get(name).map_or((0, 0), |node| node.disk.kept())
    }

    /// Bytes of rows that a node has staged and that are not live yet.
    pub fn staged_bytes(&self, name: &str) -> usize {
        lock(&self.nodes).get(name).map_or(0, |node| node.disk.staged_bytes())
    }

    /// Bytes of commands that may wait at a node while there is a pace.
    pub fn held_bytes_max(&self, name: &str) -> usize {
        lock(&self.nodes).get(name).map_or(0, |node| node.config.held_bytes_max)
    }

    /// Bytes of a node's log and hard state, and of its durable rows: the labs call them raft state
    /// and snapshot.
    pub fn bytes(&self, name: &str) -> (usize, usize) {
        lock(&self.nodes).get(name).map_or((0, 0), |node| node.disk.bytes())
    }

    /// How far a node's log is durably compacted.
    pub fn compacted(&self, name: &str) -> EntryId {
        lock(&self.nodes).get(name).map_or(EntryId::ZERO, |node| lock(&node.disk.journal()).marker)
    }

    /// Takes a group away: its nodes are killed and forgotten.
    pub fn remove(&self, group: &str) {
        for name in self.names().into_iter().filter(|name| *group_of(name) == *group) {
            self.crash(&name);
            lock(&self.nodes).remove(&name);
        }
    }

    /// Kills a node and forgets it.
    pub fn remove_node(&self, name: &Name) {
        self.crash(name);
        lock(&self.nodes).remove(name);
    }

    /// The refusals of a running node.
    pub fn refusals(&self, name: &Name) -> Option<Arc<Refusals>> {
        let server =
            lock(&self.nodes).get(name)?.running.as_ref().map(|running| Arc::clone(&running.server))?;
        server.identity().map(|identity| Arc::clone(&identity.refusals))
    }

    /// A client's connection to all servers.
    pub fn client(&self, name: &str) -> Calls {
        let pass = Some(Pass::of(&self.name));
        Calls { network: self.network.clone(), from: name.into(), alive: None, pass }
    }

    /// Starts a node that is down.
    pub fn start(&self, name: &Name) {
        let mut nodes = lock(&self.nodes);
        let Some(node) = nodes.get_mut(name).filter(|node| node.running.is_none() && node.starting.is_none())
        else {
            return;
        };
        node.life += 1;
        let life = node.life;
        self.world.note(&format!("start {name} life {life}"));
        self.world.record(Some(name), None, || What::Start { life });
        let (cluster, name) = (self.clone(), Arc::clone(name));
        let task = tokio::spawn(async move {
            if let Err(why) = cluster.boot(&name).await {
                cluster.world.fail(format!("{name} does not start: {why}"));
            }
        });
        node.starting = Some(task.abort_handle());
    }

    /// Starts every node that is down.
    pub fn start_all(&self) {
        for name in self.names() {
            self.start(&name);
        }
    }

    /// Kills a node: links, tasks, volatile storage, in this order.
    pub fn crash(&self, name: &Name) {
        let mut nodes = lock(&self.nodes);
        let Some(node) = nodes.get_mut(name) else { return };
        let life = node.life;
        self.world.note(&format!("crash {name} life {life}"));
        self.world.record(Some(name), None, || What::Crash { life });
        if let Some(starting) = node.starting.take() {
            starting.abort();
        }
        self.lives.fetch_add(1, Ordering::Relaxed);
        self.network.detach(name);
        if let Some(running) = node.running.take() {
            running.alive.store(false, Ordering::Relaxed);
            node.floor = running.probe.table.durable_applied();
            running.server.kill();
            (running.drop_tasks)();
        }
        node.disk.power_cut();
    }

    /// Waits until every node runs and every group has a leader.
    ///
    /// # Errors
    /// Names the nodes and groups that are not ready after `limit`.
    pub async fn ready(&self, limit: Duration) -> Result<(), String> {
        const LOOK: Duration = Duration::from_millis(5);
        let start = clock::now();
        loop {
            let mut groups: Vec<Name> = self.names().iter().map(|name| group_of(name)).collect();
            groups.dedup();
            let missing: Vec<Name> =
                groups.into_iter().filter(|group| self.leader(group).is_none()).collect();
            let down = self.names().len() - self.seen().len();
            if missing.is_empty() && down == 0 {
                return Ok(());
            }
            if start.elapsed() > limit {
                return Err(format!(
                    "after {limit:?} {down} nodes are not up and {missing:?} have no leader"
                ));
            }
            clock::sleep(LOOK).await;
        }
    }
}
