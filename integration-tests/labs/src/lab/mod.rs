//! What a graded scenario gets: servers to start and kill, a network to disturb, clients, and
//! judges.
//!
//! A [`Lab`] is one run of one test with one seed. Scenarios about the store set up a [`Store`]
//! (controllers and replica groups) on it and drive it through the product's own clients
//! ([`client::Client`], [`Store::join`]). Such a scenario runs the same on the simulator and, if it
//! needs no special network, on real processes ([`Ground`]). Scenarios about bare replicated state
//! machines (Raft itself, the labs' rsm) use the simulated cluster directly ([`Lab::cluster`]).
//!
//! Numbers are the labs'. Where the product differs on purpose, the scenario's comment says so.
//!
//! Left out on purpose: which tests exist and how they are selected ([`crate::grading`]).

pub mod client;
pub mod mapreduce;
mod observe;
mod processes;
mod simulated;
mod store;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::clock;
use clerk::api::Address;
use clerk::api::config::Params;
use clerk::connection::Connection;
use futures::future::BoxFuture;
use raft::config::Config;
use rand::SeedableRng;

pub use processes::Processes;
pub use simulated::Simulated;
pub use store::{Change, Store, leave};

use sim::cluster::{Cluster, Shape};
use sim::disk::Temper;
use sim::record::What;
use sim::workload::Recorder;
use sim::{Generator, Name, World, lock};

/// Whether the network delays and loses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Net {
    /// 0.2 to 0.5 ms each way.
    Reliable,
    /// As in the labs: up to 26 ms more, one request and one reply in ten lost.
    Unreliable,
}

/// Raft's timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timers {
    /// For a simulated lab network: heartbeat 200 ms, election 600 to 1,200 ms.
    Lab,
    /// The product's defaults: heartbeat 100 ms, election 500 to 1,000 ms.
    Product,
}

impl Timers {
    pub fn config(self) -> Config {
        match self {
            Self::Lab => Config::default().with_timers(200, 600),
            Self::Product => Config::default(),
        }
    }
}

/// Everything that decides a run, apart from the test.
#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    /// The network at the start.
    pub net: Net,
    /// The timers of every replica; none: the scenario's choice.
    pub timers: Option<Timers>,
}

/// The sizes of a store at its start.
#[derive(Clone, Debug)]
pub struct Setup {
    pub shards: u32,
    pub controllers: u64,
    /// Bytes of log that start a compaction (the labs' maxraftstate); none: the product's default,
    /// which no test reaches.
    pub raft_state_max: Option<usize>,
}

/// The platform of a lab's servers: the simulator, or processes, TCP and disks.
pub trait Ground: Send + Sync {
    /// Adds a group of servers called `group` ("ctrl", or a replica group's number) and starts it.
    fn add<'a>(&'a self, group: &'a str, servers: u64, setup: &'a Setup)
    -> BoxFuture<'a, anyhow::Result<()>>;
    /// Kills a server as `kill -9` does.
    fn kill<'a>(&'a self, server: &'a str) -> BoxFuture<'a, anyhow::Result<()>>;
    /// Starts a killed server from its disk.
    fn start<'a>(&'a self, server: &'a str) -> BoxFuture<'a, anyhow::Result<()>>;
    /// Removes a group forever.
    fn remove<'a>(&'a self, group: &'a str) -> BoxFuture<'a, anyhow::Result<()>>;
    /// The servers of a group: "1.1", "1.2", "1.3".
    fn servers(&self, group: &str) -> Vec<Name>;
    /// Their addresses, in the same order.
    fn addresses(&self, group: &str) -> Vec<Address>;
    /// A client's connection to all servers.
    fn connection(&self, client: &str) -> Arc<dyn Connection>;
    /// The server that leads a group, if one claims to.
    fn leader<'a>(&'a self, group: &'a str) -> BoxFuture<'a, anyhow::Result<Option<Name>>>;
    /// Bytes of a server's log with the hard state, and of its rows.
    fn bytes<'a>(&'a self, server: &'a str) -> BoxFuture<'a, anyhow::Result<(usize, usize)>>;
    /// Bytes that a server keeps: in the simulator its log, hard state and rows; for a process the
    /// memory that is its own and not a file's.
    fn kept<'a>(&'a self, server: &'a str) -> BoxFuture<'a, anyhow::Result<usize>> {
        Box::pin(async move {
            let (log, rows) = self.bytes(server).await?;
            Ok(log + rows)
        })
    }
    /// Requests sent so far, by clients and servers.
    fn rpcs(&self) -> u64;
    /// The simulated cluster below, if there is one: for scenarios that only a simulated network
    /// supports.
    fn cluster(&self) -> Option<&Cluster> {
        None
    }
}

/// The numbers of the labs' result line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Servers of the group under test.
    pub peers: u64,
    /// Requests.
    pub rpcs: u64,
    /// Operations.
    pub ops: u64,
}

/// One run of one test. Clones share it.
#[derive(Clone)]
pub struct Lab {
    shared: Arc<Shared>,
}

struct Shared {
    options: Options,
    world: Option<World>,
    recorder: Recorder,
    peers: AtomicU64,
    ops: AtomicU64,
    rpcs: AtomicU64,
    names: AtomicU64,
    value_bytes_max: AtomicU32,
    ground: Mutex<Option<Arc<dyn Ground>>>,
}

impl Lab {
    /// A lab in a simulated world; `recorder` gets what its clients see.
    pub fn simulated(world: World, options: Options, recorder: Recorder) -> Self {
        Self::new(options, Some(world), recorder)
    }

    /// A lab on real processes. Must be used on a tokio runtime of several threads.
    pub fn real(options: Options, recorder: Recorder) -> Self {
        Self::new(options, None, recorder)
    }

    fn new(options: Options, world: Option<World>, recorder: Recorder) -> Self {
        let shared = Shared {
            options,
            world,
            recorder,
            peers: AtomicU64::new(0),
            ops: AtomicU64::new(0),
            rpcs: AtomicU64::new(0),
            names: AtomicU64::new(0),
            value_bytes_max: AtomicU32::new(Params::default().value_bytes_max),
            ground: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The network that the test asks for.
    pub fn net(&self) -> Net {
        self.shared.options.net
    }

    pub fn recorder(&self) -> &Recorder {
        &self.shared.recorder
    }

    /// The generator for `name`.
    pub fn random(&self, name: &str) -> Generator {
        Generator::seed_from_u64(self.derive(name))
    }

    /// A seed for `name`.
    pub fn derive(&self, name: &str) -> u64 {
        base::seed::derive(self.shared.options.seed, name)
    }

    /// A name that is new in this run: "client 3".
    pub fn fresh_name(&self, kind: &str) -> String {
        format!("{kind} {}", self.shared.names.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Waits `ms` milliseconds, virtual or real.
    pub async fn sleep(&self, ms: u64) {
        clock::sleep(Duration::from_millis(ms)).await;
    }

    /// Notes in a recording where the scenario is.
    pub fn step(&self, text: &str) {
        if let Some(world) = &self.shared.world {
            world.record(None, None, || What::Step { text: text.to_owned() });
        }
    }

    /// Allows values of `bytes` bytes in the stores that are set up from now on.
    pub fn allow_values_of(&self, bytes: u32) {
        self.shared.value_bytes_max.store(bytes, Ordering::Relaxed);
    }

    /// Counts one operation that is not a client's (those are counted by the recorder).
    pub fn count_op(&self) {
        self.shared.ops.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one request that is not the ground's.
    pub fn count_rpc(&self) {
        self.shared.rpcs.fetch_add(1, Ordering::Relaxed);
    }

    /// Sets the size of the group under test, for the result line.
    pub fn set_peers(&self, peers: u64) {
        self.shared.peers.store(peers, Ordering::Relaxed);
    }

    pub fn tally(&self) -> Tally {
        Tally {
            peers: self.shared.peers.load(Ordering::Relaxed),
            rpcs: lock(&self.shared.ground).as_ref().map_or(0, |ground| ground.rpcs())
                + self.shared.rpcs.load(Ordering::Relaxed),
            ops: self.shared.ops.load(Ordering::Relaxed) + self.shared.recorder.acknowledged(),
        }
    }

    /// The world of a simulated run.
    ///
    /// # Errors
    /// On real processes.
    pub fn world(&self) -> anyhow::Result<&World> {
        self.shared.world.as_ref().ok_or_else(|| anyhow::anyhow!("this test needs the simulator"))
    }

    /// The settings of replicas: the requested timers, or else `otherwise`.
    pub fn config(&self, otherwise: Timers) -> Config {
        self.timers(otherwise).config()
    }

    fn timers(&self, otherwise: Timers) -> Timers {
        self.shared.options.timers.unwrap_or(otherwise)
    }

    /// An empty simulated cluster with the labs' disks (0.2 ms per synced save), watched by every
    /// invariant, for scenarios that drive replicas directly.
    ///
    /// # Errors
    /// On real processes.
    pub fn cluster(&self, shards: u32, config: Config) -> anyhow::Result<Cluster> {
        let params = Params { shard_count: shards, ..Params::default() };
        let shape = Shape::usual(params, config, Temper::Steady);
        let simulated = Simulated::new(self.world()?, shape, self.net());
        let cluster = simulated.cluster.clone();
        *lock(&self.shared.ground) = Some(Arc::new(simulated));
        Ok(cluster)
    }

    /// Sets up controllers and waits until one leads; there are no groups yet.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn store(&self, setup: Setup) -> anyhow::Result<Store> {
        Store::set_up(self, setup, Timers::Product).await
    }

    /// One group, number 1, of `servers` servers that owns everything: the labs' unsharded stores.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn one_group(&self, servers: u64, raft_state_max: Option<usize>) -> anyhow::Result<Store> {
        let store = self.store(Setup { shards: 1, controllers: 1, raft_state_max }).await?;
        store.add_group(1, servers).await?;
        store.join(&[1]).await?;
        self.set_peers(servers);
        Ok(store)
    }

    fn ground(&self, setup: &Setup, timers: Timers) -> anyhow::Result<Arc<dyn Ground>> {
        let value_bytes_max = self.shared.value_bytes_max.load(Ordering::Relaxed);
        let ground: Arc<dyn Ground> = match &self.shared.world {
            None => Arc::new(Processes::new(timers, value_bytes_max)),
            Some(world) => {
                let params = Params { shard_count: setup.shards, value_bytes_max, ..Params::default() };
                let shape = Shape::usual(params, timers.config(), Temper::Steady);
                Arc::new(Simulated::new(world, shape, self.net()))
            }
        };
        *lock(&self.shared.ground) = Some(Arc::clone(&ground));
        Ok(ground)
    }
}
