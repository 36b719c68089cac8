//! A cluster of controllers and replica groups, as scenarios drive it.
//!
//! Servers are named by group and number: "ctrl.1", "100.2". Requests to the controllers are
//! retried forever, as the labs' clerks do.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{anyhow, ensure};
use base::clock;
use clerk::api::config::{Config, NewGroup, shard_of};
use clerk::api::{Address, ConfigNum, GroupId, ShardId};
use clerk::ctrl::CtrlClerk;
use clerk::group::GroupClient;

use super::client::{Client, FOREVER};
use super::{Ground, Lab, Net, Setup, Timers};
use sim::Name;
use sim::network::{Network, Weather};

pub use clerk::api::ctrl::Change;

/// The time limit for a new group to answer.
const UP_WITHIN: Duration = Duration::from_secs(30);

/// A cluster. Clones share it.
#[derive(Clone)]
pub struct Store {
    pub lab: Lab,
    pub ground: Arc<dyn Ground>,
    pub setup: Setup,
    admin: Arc<CtrlClerk>,
}

impl Store {
    pub(super) async fn set_up(lab: &Lab, setup: Setup, timers: Timers) -> anyhow::Result<Self> {
        let ground = lab.ground(&setup, lab.timers(timers))?;
        ground.add("ctrl", setup.controllers, &setup).await?;
        let admin = Arc::new(Self::admin_of(lab, &*ground, "admin"));
        Ok(Self { lab: lab.clone(), ground, setup, admin })
    }

    fn admin_of(lab: &Lab, ground: &dyn Ground, name: &str) -> CtrlClerk {
        let clerk = CtrlClerk::new(ground.connection(name), ground.addresses("ctrl"), lab.derive(name));
        clerk.with_deadline(FOREVER)
    }

    // Clients.

    /// A client whose writes are exactly once (the classic labs' clerk).
    pub fn client(&self) -> Client {
        self.client_named(&self.lab.fresh_name("client"), true)
    }

    /// A client without a session: its conditional puts are at most once by their versions (the clerk of
    /// 2025 and 2026).
    pub fn versioned_client(&self) -> Client {
        self.client_named(&self.lab.fresh_name("client"), false)
    }

    /// A client with this name, which identifies its links on the network.
    pub fn client_named(&self, name: &str, sessions: bool) -> Client {
        let (connection, controllers) = (self.ground.connection(name), self.ground.addresses("ctrl"));
        let client =
            Client::new(connection, controllers, self.lab.recorder(), self.lab.derive(name), sessions);
        match self.lab.world() {
            Ok(_) => client,
            Err(_) => client.waiting(self.lab.random(&format!("moments of {name}"))),
        }
    }

    /// A client with sessions that knows only these controllers.
    pub fn client_of(&self, name: &str, controllers: Vec<Address>) -> Client {
        Client::new(
            self.ground.connection(name),
            controllers,
            self.lab.recorder(),
            self.lab.derive(name),
            true,
        )
    }

    /// Another admin, with this name on the network.
    pub fn admin_named(&self, name: &str) -> CtrlClerk {
        Self::admin_of(&self.lab, &*self.ground, name)
    }

    // Groups and configurations.

    /// Creates a group and waits until it has a leader; it owns nothing yet.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn add_group(&self, group: u64, servers: u64) -> anyhow::Result<()> {
        self.ground.add(&group.to_string(), servers, &self.setup).await
    }

    /// What a Join needs to know of groups that run.
    ///
    /// # Errors
    /// When one of them does not answer.
    pub async fn newcomers(&self, groups: &[u64]) -> anyhow::Result<Change> {
        let mut newcomers = std::collections::BTreeMap::new();
        for group in groups {
            let addresses = self.ground.addresses(&group.to_string());
            let name = format!("who is {group}");
            let client = GroupClient::new(
                self.ground.connection(&name),
                GroupId(*group),
                addresses.clone(),
                self.lab.derive(&name),
            );
            let data = client.data(clock::now().after(UP_WITHIN)).await;
            let (incarnation, key) = data.map_err(|why| anyhow!("group {group}: {why}"))?;
            newcomers.insert(GroupId(*group), NewGroup { key, incarnation, addresses });
        }
        Ok(Change::Join(newcomers))
    }

    /// Changes the configuration; returns once it is made, not when shards have moved.
    ///
    /// # Errors
    /// When the controllers refuse.
    pub async fn change(&self, change: Change) -> anyhow::Result<()> {
        self.admin.change(change).await?;
        Ok(())
    }

    /// Joins groups.
    ///
    /// # Errors
    /// When the controllers refuse, or a group cannot be reached.
    pub async fn join(&self, groups: &[u64]) -> anyhow::Result<()> {
        self.lab.step(&format!("join {groups:?}"));
        self.change(self.newcomers(groups).await?).await
    }

    /// Leaves groups.
    ///
    /// # Errors
    /// When the controllers refuse.
    pub async fn leave(&self, groups: &[u64]) -> anyhow::Result<()> {
        self.lab.step(&format!("leave {groups:?}"));
        self.change(leave(groups)).await
    }

    /// Moves one shard.
    ///
    /// # Errors
    /// When the controllers refuse.
    pub async fn move_shard(&self, shard: u32, group: u64) -> anyhow::Result<()> {
        self.lab.step(&format!("move shard {shard} to {group}"));
        self.change(Change::Move { shard: ShardId(shard), group: GroupId(group) }).await
    }

    /// The configuration with this number, or the newest.
    ///
    /// # Errors
    /// When there is none of this number.
    pub async fn query(&self, num: Option<u64>) -> anyhow::Result<Config> {
        Ok(self.admin.query(num.map(ConfigNum)).await?.0.config().as_ref().clone())
    }

    /// The owner of a shard in the newest configuration (0: nobody).
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn owner(&self, shard: u32) -> anyhow::Result<u64> {
        Ok(self.query(None).await?.owner(ShardId(shard)).map_or(0, |group| group.0))
    }

    /// The shard of a key.
    pub fn shard_of(&self, key: &str) -> u32 {
        shard_of(key.as_bytes(), self.setup.shards).0
    }

    /// One key for each shard, in the order of shards. The labs find them by the first byte; we
    /// search, because our shard function is CRC16 slots.
    pub fn key_per_shard(&self) -> Vec<String> {
        let key = |shard| (0_u32..).map(|number| format!("{number}")).find(|key| self.shard_of(key) == shard);
        (0..self.setup.shards).filter_map(key).collect()
    }

    // Servers.

    /// The servers of a group.
    pub fn servers(&self, group: u64) -> Vec<Name> {
        self.ground.servers(&group.to_string())
    }

    /// Kills one server: number `number` of the group, from 1.
    ///
    /// # Errors
    /// When that cannot be done.
    pub async fn kill(&self, group: u64, number: u64) -> anyhow::Result<()> {
        self.ground.kill(&format!("{group}.{number}")).await
    }

    /// Starts a killed server.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(&self, group: u64, number: u64) -> anyhow::Result<()> {
        self.ground.start(&format!("{group}.{number}")).await
    }

    /// Kills a whole group.
    ///
    /// # Errors
    /// When that cannot be done.
    pub async fn kill_group(&self, group: u64) -> anyhow::Result<()> {
        for server in self.servers(group) {
            self.ground.kill(&server).await?;
        }
        Ok(())
    }

    /// Starts a whole group.
    ///
    /// # Errors
    /// When a server does not start.
    pub async fn start_group(&self, group: u64) -> anyhow::Result<()> {
        for server in self.servers(group) {
            self.ground.start(&server).await?;
        }
        Ok(())
    }

    /// The leader of a group ("ctrl" or a number); waits for it.
    ///
    /// # Errors
    /// When there is none within ten seconds.
    pub async fn leader(&self, group: &str) -> anyhow::Result<Name> {
        let start = clock::now();
        loop {
            if let Some(leader) = self.ground.leader(group).await? {
                return Ok(leader);
            }
            ensure!(start.elapsed() < Duration::from_secs(10), "group {group} has no leader");
            self.lab.sleep(20).await;
        }
    }

    /// The largest log with hard state, and the largest table, of a group's servers, in bytes: the labs'
    /// raft state and snapshot.
    ///
    /// # Errors
    /// When they cannot be measured.
    pub async fn bytes(&self, group: u64) -> anyhow::Result<(usize, usize)> {
        let mut largest = (0, 0);
        for server in self.servers(group) {
            let (log, table) = self.ground.bytes(&server).await?;
            largest = (largest.0.max(log), largest.1.max(table));
        }
        Ok(largest)
    }

    /// The most that a server of the group keeps, in bytes.
    ///
    /// # Errors
    /// When that cannot be measured.
    pub async fn kept(&self, group: u64) -> anyhow::Result<usize> {
        let mut most = 0;
        for server in self.servers(group) {
            most = most.max(self.ground.kept(&server).await?);
        }
        Ok(most)
    }

    // The network: simulated only.

    /// The simulated network.
    ///
    /// # Errors
    /// On real processes.
    pub fn network(&self) -> anyhow::Result<&Network> {
        let cluster = self.ground.cluster();
        cluster.map(|cluster| &cluster.network).ok_or_else(|| anyhow!("this test needs the simulator"))
    }

    /// Makes the network reliable or unreliable.
    ///
    /// # Errors
    /// On real processes.
    pub fn set_net(&self, net: Net) -> anyhow::Result<()> {
        self.network()?.set_weather(Weather { unreliable: net == Net::Unreliable, ..Weather::default() });
        Ok(())
    }

    /// Lets a client reach these servers of a group and no others of it.
    ///
    /// # Errors
    /// On real processes.
    pub fn limit_client(&self, client: &str, group: u64, reachable: &[Name]) -> anyhow::Result<()> {
        let network = self.network()?;
        for server in self.servers(group) {
            network.link(&client.into(), &server, reachable.contains(&server));
        }
        Ok(())
    }
}

/// A Leave of these groups.
pub fn leave(groups: &[u64]) -> Change {
    let groups: BTreeSet<GroupId> = groups.iter().copied().map(GroupId).collect();
    Change::Leave { groups, force: false }
}
