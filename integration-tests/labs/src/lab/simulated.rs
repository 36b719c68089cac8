//! The simulator as the ground of a lab.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clerk::api::{Address, GroupId};
use clerk::connection::Connection;
use futures::future::BoxFuture;
use raft::config::Config;

use super::{Ground, Net, Setup, observe};
use sim::cluster::{Cluster, Kind, Shape};
use sim::invariants;
use sim::network::Weather;
use sim::{Name, World};

/// A simulated cluster with every invariant watched.
pub struct Simulated {
    /// The cluster.
    pub cluster: Cluster,
    config: Config,
}

impl Simulated {
    /// An empty one.
    pub fn new(world: &World, shape: Shape, net: Net) -> Self {
        let config = shape.raft.clone();
        let cluster = Cluster::new(world, shape);
        // Events are recorded before a broken invariant is noticed.
        observe::watch(&cluster);
        invariants::watch(&cluster);
        cluster.network.set_weather(Weather { unreliable: net == Net::Unreliable, ..Weather::default() });
        Self { cluster, config }
    }
}

/// Settings of a store whose log is compacted beyond this size. The log waits for lagging followers
/// only as far as the labs' limit on the log (eight times that) allows.
fn with_raft_state_max(config: Config, bytes: Option<usize>) -> Config {
    let Some(bytes) = bytes else { return config };
    Config { log_bytes_max: bytes, log_keep_bytes: bytes / 4, log_bytes_hard_max: bytes * 4, ..config }
}

impl Ground for Simulated {
    fn add<'a>(
        &'a self,
        group: &'a str,
        servers: u64,
        setup: &'a Setup,
    ) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(async move {
            let (kind, config) = match group {
                "ctrl" => (Kind::Ctrl, self.config.clone()),
                number => {
                    let group = GroupId(number.parse().context("a group's name is its number")?);
                    (Kind::Kv(group), with_raft_state_max(self.config.clone(), setup.raft_state_max))
                }
            };
            self.cluster.add_with(kind, servers, config);
            self.cluster.ready(Duration::from_secs(20)).await.map_err(|why| anyhow!(why))
        })
    }

    fn kill<'a>(&'a self, server: &'a str) -> BoxFuture<'a, anyhow::Result<()>> {
        self.cluster.crash(&server.into());
        Box::pin(async { Ok(()) })
    }

    fn start<'a>(&'a self, server: &'a str) -> BoxFuture<'a, anyhow::Result<()>> {
        self.cluster.start(&server.into());
        Box::pin(async { Ok(()) })
    }

    fn remove<'a>(&'a self, group: &'a str) -> BoxFuture<'a, anyhow::Result<()>> {
        self.cluster.remove(group);
        Box::pin(async { Ok(()) })
    }

    fn servers(&self, group: &str) -> Vec<Name> {
        self.cluster.addresses(group).iter().map(|address| address.as_str().into()).collect()
    }

    fn addresses(&self, group: &str) -> Vec<Address> {
        self.cluster.addresses(group)
    }

    fn connection(&self, client: &str) -> Arc<dyn Connection> {
        Arc::new(self.cluster.client(client))
    }

    fn leader<'a>(&'a self, group: &'a str) -> BoxFuture<'a, anyhow::Result<Option<Name>>> {
        let leader = self.cluster.leader(group).map(|seen| seen.name);
        Box::pin(async { Ok(leader) })
    }

    fn bytes<'a>(&'a self, server: &'a str) -> BoxFuture<'a, anyhow::Result<(usize, usize)>> {
        let bytes = self.cluster.bytes(server);
        Box::pin(async move { Ok(bytes) })
    }

    fn rpcs(&self) -> u64 {
        self.cluster.network.rpcs()
    }

    fn cluster(&self) -> Option<&Cluster> {
        Some(&self.cluster)
    }
}
