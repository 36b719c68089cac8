//! Nodes on the simulated network: a single group of a toy service, or controllers and replica groups.
//!
//! A crash cuts the node's links in both directions, then drops its tasks where they stand, then loses
//! what its disk had not made durable; so a dead server tells nobody that it died. A restart opens the
//! same disk again. A node has the identity that a data directory would give it (`Passport`), and each of its
//! processes a boot number.
//!
//! Left out on purpose: nodes that stop cleanly. Nothing may depend on that.

mod harm;

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::clock;
use base::socket::{Here, Key, Refusals};
use bytes::Bytes;
use clerk::api::config::Params;
use clerk::api::{Address, GroupId};
use clerk::connection::Connection;
use raft::config::Config;
use raft::rsm::{self, Parts, Replica, Role, StateMachine, Status, Threads};
use raft::storage::directory;
use raft::storage::{Read, Table};
use raft::transport::{self, Inbox};
use raft::types::{EntryId, Membership, NodeId};
use rand::RngExt;
use shardctrler::state_machine::Controller;
use shardkv::state_machine::{Machine, Standing};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::disk::{Disk, Journal, Temper};
use super::network::{Calls, Handler, Identity, Network, Pass, PeerTransport, Reply, Request, Server};
use super::toy::{self, Toy};
use super::{Name, World, lock};
use crate::record::What;

/// What a node serves.
#[derive(Clone)]
pub enum Kind {
    /// The toy service.
    Toy,
    /// A controller.
    Ctrl,
    /// A replica of a group.
    Kv(GroupId),
    /// A replicated state machine and nothing around it: tests hold its replicas in their own hands
    /// ([`Cluster::replica`]).
    Bare(Bare),
}

/// A state machine without a service.
#[derive(Clone)]
pub struct Bare {
    name: &'static str,
    start: Arc<dyn StartBare>,
}

type Started<'a> = futures::future::BoxFuture<'a, Result<Running, String>>;

trait StartBare: Send + Sync {
    fn start<'a>(&self, boot: Boot<'a>, parts: Parts, inbox: Inbox) -> Started<'a>;
}

impl<S: StateMachine, F: Fn() -> S + Send + Sync> StartBare for F {
    fn start<'a>(&self, boot: Boot<'a>, parts: Parts, inbox: Inbox) -> Started<'a> {
        Box::pin(boot.bare(parts, inbox, self()))
    }
}

impl Bare {
    /// The machine that `make` makes anew for each life of a node, in a group called `name`.
    pub fn new<S: StateMachine>(name: &'static str, make: impl Fn() -> S + Send + Sync + 'static) -> Self {
        Self { name, start: Arc::new(make) }
    }
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
}

impl Shape {
    /// A shape drawn from the seed. Logs are small, so that compaction and snapshots happen all the time;
    /// Appends hold as little as one entry, and as few as one is on its way.
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
        Self {
            params: Params { shard_count: 10, ..Params::default() },
            raft: raft.with_log_bytes_max(one_of([4 << 10, 8 << 10, 32 << 10])),
            disks: Temper::Moody,
        }
    }
}

/// What can be seen of a running replica from outside.
#[derive(Clone)]
pub struct Probe {
    /// Its Raft status.
    pub status: watch::Receiver<Status>,
    /// Its shards.
    pub standing: Option<watch::Receiver<Standing>>,
    /// Its rows.
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

/// What stands in a node's data directory besides its stores.
#[derive(Clone)]
struct Passport {
    cluster: String,
    group: u64,
    incarnation: u64,
    founders: u64,
    /// Of the cluster, once the group knows it.
    key: Key,
    /// The lives of its peers' data.
    met: Arc<Mutex<BTreeMap<NodeId, u64>>>,
}

impl Passport {
    /// Of a directory that was just made.
    fn new(
        world: &World,
        cluster: &str,
        kind: &Kind,
        name: &str,
        id: NodeId,
        peers: &BTreeMap<NodeId, Name>,
    ) -> Self {
        let group = match kind {
            Kind::Ctrl => 0,
            Kind::Kv(group) => group.0,
            Kind::Toy | Kind::Bare(_) => 1,
        };
        let members = peers.keys().copied().collect();
        let identity = directory::Identity { cluster: cluster.to_owned(), group, node: id, members };
        Self {
            cluster: cluster.to_owned(),
            group,
            incarnation: world.derive(&format!("incarnation of {name}")),
            founders: identity.founders(),
            key: Key::default(),
            met: Arc::default(),
        }
    }
}

struct Node {
    passport: Passport,
    kind: Kind,
    config: Config,
    id: NodeId,
    peers: BTreeMap<NodeId, Name>,
    disk: Disk,
    life: u64,
    /// Applied at least this far durably when it last crashed.
    floor: EntryId,
    starting: Option<AbortHandle>,
    running: Option<Running>,
}

/// A cluster. Clones share it.
#[derive(Clone)]
pub struct Cluster {
    /// Its world.
    pub world: World,
    /// Its network.
    pub network: Network,
    name: Arc<str>,
    /// Where groups ask for configurations, if not at this cluster's controllers.
    controllers: Arc<Mutex<Option<Vec<Address>>>>,
    shape: Arc<Shape>,
    nodes: Arc<Mutex<BTreeMap<Name, Node>>>,
    /// Nodes in whose place strangers run.
    aside: Arc<Mutex<BTreeMap<Name, Node>>>,
    lives: Arc<AtomicU64>,
    /// The key that controllers draw; 0: as the world says.
    key: Arc<AtomicU64>,
    recovering: Arc<AtomicBool>,
}

/// One replica as it is at present.
pub struct Seen {
    /// Its name.
    pub name: Name,
    /// Its group's name.
    pub group: Name,
    /// Counts its restarts.
    pub life: u64,
    /// What it must have applied at least, as of its last crash.
    pub floor: EntryId,
    /// How to look at it.
    pub probe: Probe,
    /// What its log durably holds.
    pub journal: Arc<Mutex<Journal>>,
    /// Its table was damaged, and not replaced since.
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

    /// A cluster of the same name on the network of another one. Its nodes must have other names.
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

    /// From now on groups that start ask these servers for configurations.
    pub fn set_controllers(&self, addresses: Vec<Address>) {
        *lock(&self.controllers) = Some(addresses);
    }

    /// Adds a group of nodes and starts them: `toy`, `ctrl`, the number of a replica group, or the name
    /// of a bare machine.
    pub fn add(&self, kind: Kind, replicas: u64) -> Vec<Name> {
        self.add_with(kind, replicas, self.shape.raft.clone())
    }

    /// Like [`Self::add`], with settings of its own.
    pub fn add_with(&self, kind: Kind, replicas: u64, config: Config) -> Vec<Name> {
        let group = match &kind {
            Kind::Toy => "toy".to_owned(),
            Kind::Ctrl => "ctrl".to_owned(),
            Kind::Kv(group) => group.to_string(),
            Kind::Bare(bare) => bare.name.to_owned(),
        };
        self.add_named(&group, kind, replicas, config)
    }

    /// Like [`Self::add_with`], as a group of another name: a second group of controllers, say, which only
    /// those ask who are told where it is.
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

    /// Controllers that start from now on draw this key, if they make a cluster.
    pub fn set_key(&self, key: u64) {
        self.key.store(key, Ordering::Relaxed);
    }

    /// Controllers that start from now on make no cluster and wait to be recovered, or do as usual.
    pub fn set_recovering(&self, recovering: bool) {
        self.recovering.store(recovering, Ordering::Relaxed);
    }

    /// All servers of a group lose everything, and start anew as if they had never been.
    pub fn wipe(&self, group: &str) {
        for name in self.names().into_iter().filter(|name| *group_of(name) == *group) {
            self.crash(&name);
            self.network.forget_vote(&name);
            if let Some(node) = lock(&self.nodes).get_mut(&name) {
                let unique = format!("{name} anew after life {}", node.life);
                let (kind, peers) = (&node.kind, &node.peers);
                node.passport = Passport::new(&self.world, &self.name, kind, &unique, node.id, peers);
                node.disk = Disk::new(&self.world, &name, self.shape.disks);
                node.floor = EntryId::ZERO;
            }
            self.start(&name);
        }
    }

    /// Grows whenever a node comes up or goes down.
    pub fn lives(&self) -> u64 {
        self.lives.load(Ordering::Relaxed)
    }

    /// Whether a node runs or is on its way to.
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

    /// Bytes of a node's log and hard state, and of its durable rows: the labs' raft state and snapshot.
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

    /// Kills a node, and starts a server with an empty disk in its place, as with `--new`, and so many members more
    /// than the group was founded with.
    pub fn impersonate(&self, name: &Name, more: u64) -> Name {
        self.crash(name);
        let mut nodes = lock(&self.nodes);
        let Some(node) = nodes.remove(name) else { return Arc::clone(name) };
        let mut peers = node.peers.clone();
        let last = peers.keys().last().map_or(0, |id| id.0);
        peers.extend((last + 1..=last + more).map(|id| (NodeId(id), format!("nobody.{id}").into())));
        // A stranger of its own each time.
        let unique = format!("{name} instead of life {}", node.life);
        let stranger = Node {
            passport: Passport::new(&self.world, &self.name, &node.kind, &unique, node.id, &peers),
            kind: node.kind.clone(),
            config: node.config.clone(),
            id: node.id,
            peers,
            disk: Disk::new(&self.world, name, self.shape.disks),
            life: node.life,
            floor: EntryId::ZERO,
            starting: None,
            running: None,
        };
        nodes.insert(Arc::clone(name), stranger);
        lock(&self.aside).insert(Arc::clone(name), node);
        drop(nodes);
        self.start(name);
        Arc::clone(name)
    }

    /// Kills the stranger in a node's place, and starts the node again.
    pub fn unmask(&self, name: &Name) {
        self.crash(name);
        if let Some(node) = lock(&self.aside).remove(name) {
            let mut nodes = lock(&self.nodes);
            let life = nodes.get(name).map_or(node.life, |stranger| stranger.life);
            nodes.insert(Arc::clone(name), Node { life, ..node });
        }
        self.start(name);
    }

    /// Starts another process with a copy of a node's disk, under a name of its own, which only it knows.
    pub fn add_twin(&self, of: &Name) -> Option<Name> {
        let name: Name = format!("{of}x").into();
        let mut nodes = lock(&self.nodes);
        let node = nodes.get(of)?;
        let mut peers = node.peers.clone();
        peers.insert(node.id, Arc::clone(&name));
        let key = Key::new(node.passport.key.get());
        let met = Arc::new(Mutex::new(lock(&node.passport.met).clone()));
        let twin = Node {
            passport: Passport { key, met, ..node.passport.clone() },
            kind: node.kind.clone(),
            config: node.config.clone(),
            id: node.id,
            peers,
            disk: node.disk.copied(&name),
            life: 0,
            floor: EntryId::ZERO,
            starting: None,
            running: None,
        };
        nodes.insert(Arc::clone(&name), twin);
        drop(nodes);
        self.start(&name);
        Some(name)
    }

    /// Kills a node and forgets it.
    pub fn remove_node(&self, name: &Name) {
        self.crash(name);
        lock(&self.nodes).remove(name);
    }

    /// What a running node refused.
    pub fn refusals(&self, name: &Name) -> Option<Arc<Refusals>> {
        let server =
            lock(&self.nodes).get(name)?.running.as_ref().map(|running| Arc::clone(&running.server))?;
        server.identity().map(|identity| Arc::clone(&identity.refusals))
    }

    /// A way to all servers for a client.
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

    /// Changes one row of a node's table behind its back; false: there is no such row.
    pub fn corrupt(&self, name: &str, key: &[u8], change: impl Fn(&Bytes) -> Bytes) -> bool {
        self.world.note(&format!("corrupt {name}"));
        lock(&self.nodes).get(name).is_some_and(|node| node.disk.corrupt(key, change))
    }

    /// Makes all disks slow, or well again.
    pub fn set_slow_disks(&self, slow: bool) {
        lock(&self.nodes).values().for_each(|node| node.disk.set_slow(slow));
    }

    /// Stalls the next synced write of a node.
    pub fn stall(&self, name: &str, lasts: Duration) {
        if let Some(node) = lock(&self.nodes).get(name) {
            node.disk.stall(lasts);
        }
    }

    /// Waits until every node runs and every group has a leader.
    ///
    /// # Errors
    /// Who has not after `limit`.
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

    async fn boot(&self, name: &Name) -> Result<(), String> {
        let (kind, passport, id, peers, life, config, (log, table)) = {
            let nodes = lock(&self.nodes);
            let node = &nodes[name];
            let config = node.config.clone();
            let passport = node.passport.clone();
            (node.kind.clone(), passport, node.id, node.peers.clone(), node.life, config, node.disk.open())
        };
        let seed = self.world.derive(&format!("raft {name} life {life}"));
        let config = Config { seed, ..config };
        let (inbox, mailbox) = transport::mailbox(MAILBOX_MESSAGES, config.mailbox_bytes_max);
        let transport = PeerTransport {
            network: self.network.clone(),
            from: Arc::clone(name),
            me: id,
            peers: peers.clone(),
        };
        let (_, disk_low) = watch::channel(false);
        let parts = Parts {
            me: id,
            membership: Membership::of(peers.keys().copied()),
            config,
            log,
            table,
            transport: Arc::new(transport),
            mailbox,
            threads: Threads::Shared,
            disk_low,
        };
        let boot = self.world.derive(&format!("boot {name} life {life}"));
        let here = Here {
            cluster: passport.cluster.clone(),
            key: passport.key.clone(),
            group: passport.group,
            node: id.0,
            incarnation: passport.incarnation,
            boot,
            founders: passport.founders,
        };
        let alive = Arc::new(AtomicBool::new(true));
        let key_of: fn(&dyn Read) -> u64 = match &kind {
            Kind::Ctrl => shardctrler::rows::cluster_key,
            Kind::Kv(_) => shardkv::cluster_key,
            Kind::Toy | Kind::Bare(_) => |_| 0,
        };
        let member =
            Boot { cluster: self, name, peers: peers.clone(), here, met: passport.met, key_of, seed, alive };
        let running = match kind {
            Kind::Toy => member.toy(parts, inbox).await,
            Kind::Ctrl => member.ctrl(parts, inbox).await,
            Kind::Kv(group) => member.kv(group, parts, inbox).await,
            Kind::Bare(bare) => bare.start.start(member, parts, inbox).await,
        }?;
        self.network.attach(name, Arc::clone(&running.server));
        self.network.greet(name, &peers);
        let mut nodes = lock(&self.nodes);
        if let Some(node) = nodes.get_mut(name) {
            node.starting = None;
            node.running = Some(running);
            self.lives.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

const MAILBOX_MESSAGES: usize = 4096;

/// A node that is being started.
struct Boot<'a> {
    cluster: &'a Cluster,
    name: &'a Name,
    peers: BTreeMap<NodeId, Name>,
    here: Here,
    met: Arc<Mutex<BTreeMap<NodeId, u64>>>,
    /// The key of the cluster in its rows.
    key_of: fn(&dyn Read) -> u64,
    seed: u64,
    alive: Arc<AtomicBool>,
}

impl Boot<'_> {
    fn members(&self) -> BTreeMap<NodeId, Address> {
        self.peers.iter().map(|(id, name)| (*id, name.to_string())).collect()
    }

    fn connection(&self) -> Arc<dyn Connection> {
        let (network, from) = (self.cluster.network.clone(), Arc::clone(self.name));
        let (cluster, key) = (self.here.cluster.clone(), self.here.key.clone());
        let pass = Some(Pass { cluster, key, keeps_key: false });
        Arc::new(Calls { network, from, alive: Some(Arc::clone(&self.alive)), pass })
    }

    async fn replica<S: StateMachine>(parts: Parts, machine: S) -> Result<Replica<S>, String> {
        rsm::start(parts, machine).await.map_err(|error| error.to_string())
    }

    fn running<S: StateMachine, T: Send + Sync + 'static>(
        &self,
        replica: Replica<S>,
        standing: Option<watch::Receiver<Standing>>,
        inbox: Inbox,
        service: T,
        handle: impl Fn(Arc<T>, Request) -> futures::future::BoxFuture<'static, Reply> + Send + Sync + 'static,
    ) -> Running {
        let probe = Probe { status: replica.watch(), standing, table: Arc::clone(replica.table()) };
        // Calls that are under way hold the server; only this slot and running handlers hold the service.
        let slot = Arc::new(Mutex::new(Some(Arc::new(service))));
        let held = Arc::clone(&slot);
        let handler: Handler = Arc::new(move |request| match lock(&held).clone() {
            Some(service) => handle(service, request),
            None => Box::pin(std::future::pending()),
        });
        let members = self.peers.keys().copied().collect();
        let (table, key_of) = (Arc::clone(replica.table()), self.key_of);
        let mut identity = Identity::new(self.here.clone(), members, Arc::clone(&self.met));
        identity.key_of = Some(Box::new(move || key_of(&*table)));
        let server = Server::with_identity(handler, Some(inbox), Some(identity));
        let drop_tasks = Box::new(move || {
            replica.kill();
            drop(lock(&slot).take());
        });
        Running { server, probe, alive: Arc::clone(&self.alive), replica: None, drop_tasks }
    }

    async fn bare<S: StateMachine>(self, parts: Parts, inbox: Inbox, machine: S) -> Result<Running, String> {
        let replica = Self::replica(parts, machine).await?;
        let held: Arc<dyn Any + Send + Sync> = Arc::new(replica.clone());
        let running = self.running(replica, None, inbox, (), |_, _| {
            Box::pin(async { Reply::Refused("no service here".to_owned()) })
        });
        Ok(Running { replica: Some(held), ..running })
    }

    async fn toy(self, parts: Parts, inbox: Inbox) -> Result<Running, String> {
        let replica = Self::replica(parts, Toy).await?;
        let members = Arc::new(self.members().into_iter().collect::<Vec<_>>());
        let service = replica.clone();
        Ok(self.running(replica, None, inbox, service, move |replica, request| {
            let members = Arc::clone(&members);
            Box::pin(async move { toy::serve((*replica).clone(), members, request).await })
        }))
    }

    async fn ctrl(self, parts: Parts, inbox: Inbox) -> Result<Running, String> {
        let replica = Self::replica(parts, Controller::default()).await?;
        let settings = shardctrler::service::Settings {
            members: self.members(),
            params: self.cluster.shape.params,
            key: self.cluster.key(),
            sessions: 1 << 32,
            recover: self.cluster.recovering.load(Ordering::Relaxed),
            facts: raft::host::Facts::default(),
        };
        let service = shardctrler::service::Service::new(replica.clone(), settings);
        Ok(self.running(replica, None, inbox, service, |service, request| {
            Box::pin(async move {
                match request {
                    Request::Ctrl(request) => Reply::Ctrl(service.handle(request).await),
                    Request::Kv(..) | Request::Push(..) => Reply::Refused("this is a controller".to_owned()),
                }
            })
        }))
    }

    async fn kv(self, group: GroupId, parts: Parts, inbox: Inbox) -> Result<Running, String> {
        let machine = Machine::new(group);
        let standing = machine.standing();
        let replica = Self::replica(parts, machine).await?;
        let settings = shardkv::service::Settings {
            group,
            members: self.members(),
            controllers: self.cluster.controllers(),
            connection: self.connection(),
            seed: self.seed,
            facts: raft::host::Facts::default(),
        };
        let service = shardkv::service::Service::new(replica.clone(), standing.clone(), settings);
        Ok(self.running(replica, Some(standing), inbox, service, |service, request| {
            Box::pin(async move {
                match request {
                    Request::Kv(group, request) => Reply::Kv(service.handle(group, request).await),
                    Request::Push(group, sender, request) => {
                        Reply::Push(service.handle_push(group, sender, request).await)
                    }
                    Request::Ctrl(_) => Reply::Refused("this is a replica group".to_owned()),
                }
            })
        }))
    }
}
