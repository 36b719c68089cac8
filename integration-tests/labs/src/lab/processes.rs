//! Processes of this machine as the ground of a lab: the product's programs, TCP, RocksDB with
//! synced writes, SIGKILL.
//!
//! Every server is started by hand, as on a separate machine, in one temporary directory. The
//! directory goes, with all servers, when the lab ends ([`Place`]).
//!
//! Left out on purpose: everything about networks.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use base::clock;
use clerk::api::ctrl::{CtrlRefusal, CtrlReply, CtrlRequest};
use clerk::api::kv::{KvRefusal, KvReply, KvRequest};
use clerk::api::push::{PushReply, PushRequest, Sender};
use clerk::api::status::{ReplicaStatus, Role};
use clerk::api::{Address, GroupId};
use clerk::connection::{Called, Connection, Options, TarpcConnection};
use clerk::ctrl::CtrlClerk;
use futures::future::BoxFuture;

use super::{Ground, Setup, Timers};
use real::{Place, Server, anonymous_bytes, free_ports};
use sim::cluster::group_of;
use sim::{Name, lock};

pub(super) const CLUSTER: &str = "lab";
/// The time limit for a new group to have a leader.
const UP_WITHIN: Duration = Duration::from_secs(30);

/// How a server is started.
#[derive(Clone, Debug)]
struct Recipe {
    program: &'static str,
    listen: Address,
    arguments: Vec<String>,
}

#[derive(Default)]
struct Servers {
    recipes: BTreeMap<Name, Recipe>,
    running: BTreeMap<Name, Server>,
}

/// Connections whose calls are counted: calls between servers are not visible here.
struct Counted {
    inner: TarpcConnection,
    calls: AtomicU64,
}

impl Connection for Counted {
    fn kv<'a>(
        &'a self,
        to: &'a Address,
        group: GroupId,
        request: KvRequest,
        deadline: Duration,
    ) -> BoxFuture<'a, Called<KvReply, KvRefusal>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.inner.kv(to, group, request, deadline)
    }

    fn push<'a>(
        &'a self,
        to: &'a Address,
        group: GroupId,
        sender: Sender,
        request: PushRequest,
        deadline: Duration,
    ) -> BoxFuture<'a, Called<PushReply, KvRefusal>> {
        self.inner.push(to, group, sender, request, deadline)
    }

    fn ctrl<'a>(
        &'a self,
        to: &'a Address,
        request: CtrlRequest,
        deadline: Duration,
    ) -> BoxFuture<'a, Called<CtrlReply, CtrlRefusal>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.inner.ctrl(to, request, deadline)
    }
}

/// Real servers.
pub struct Processes {
    place: Place,
    timers: Timers,
    value_bytes_max: u32,
    connection: Arc<Counted>,
    servers: Arc<Mutex<Servers>>,
}

impl Processes {
    /// No servers yet.
    pub fn new(timers: Timers, value_bytes_max: u32) -> Self {
        let inner = TarpcConnection::new(Options::of(CLUSTER));
        let connection = Arc::new(Counted { inner, calls: AtomicU64::new(0) });
        Self { place: Place::new(), timers, value_bytes_max, connection, servers: Arc::default() }
    }

    fn recipe(&self, group: &str, id: u64, addresses: &[Address], setup: &Setup) -> Recipe {
        let members: Vec<String> = (1..).zip(addresses).map(|(id, at)| format!("{id}={at}")).collect();
        let mut arguments: Vec<String> = Vec::new();
        let mut add = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        add("--cluster", CLUSTER.to_owned());
        add("--id", id.to_string());
        add("--members", members.join(","));
        if self.timers == Timers::Lab {
            add("--heartbeat-ms", "200".to_owned());
            add("--election-ms", "600".to_owned());
        }
        let program = if group == "ctrl" {
            add("--shards", setup.shards.to_string());
            add("--value-bytes-max", self.value_bytes_max.to_string());
            "shardctrler"
        } else {
            add("--group", group.to_owned());
            add("--controllers", self.addresses("ctrl").join(","));
            if let Some(bytes) = setup.raft_state_max {
                add("--log-bytes-max", bytes.to_string());
            }
            "shardkv"
        };
        let position = usize::try_from(id).unwrap_or(1) - 1;
        Recipe { program, listen: addresses[position].clone(), arguments }
    }

    /// Starts servers, all at once, and waits until they serve.
    async fn launch(&self, names: Vec<Name>, new: bool) -> anyhow::Result<()> {
        let place: PathBuf = self.place.path().to_owned();
        let servers = Arc::clone(&self.servers);
        let start = move || -> anyhow::Result<()> {
            let starts: Vec<_> = names
                .into_iter()
                .map(|name| {
                    let recipe = lock(&servers).recipes.get(&name).cloned();
                    let recipe = recipe.with_context(|| format!("there is no server {name}"))?;
                    let place = place.clone();
                    Ok(std::thread::spawn(move || {
                        let mut arguments: Vec<&str> = recipe.arguments.iter().map(String::as_str).collect();
                        arguments.extend(new.then_some("--new"));
                        let server = Server::start(&place, &name, recipe.program, &recipe.listen, &arguments);
                        (name, server)
                    }))
                })
                .collect::<anyhow::Result<_>>()?;
            for start in starts {
                let (name, server) = start.join().map_err(|_| anyhow!("a server does not start"))?;
                lock(&servers).running.insert(name, server);
            }
            Ok(())
        };
        tokio::task::spawn_blocking(start).await?
    }

    async fn await_leader(&self, group: &str) -> anyhow::Result<()> {
        let start = clock::now();
        while self.leader_of(group).await?.is_none() {
            ensure!(start.elapsed() < UP_WITHIN, "group {group} has no leader");
            clock::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn leader_of(&self, group: &str) -> anyhow::Result<Option<Name>> {
        let (names, addresses) = (self.servers(group), self.addresses(group));
        let mut best: Option<(u64, Name)> = None;
        for (name, status) in names.into_iter().zip(self.statuses(group, &addresses).await?) {
            let Some(status) = status.filter(|status| status.role == Role::Leader) else { continue };
            if best.as_ref().is_none_or(|(term, _)| *term < status.term) {
                best = Some((status.term, name));
            }
        }
        Ok(best.map(|(_, name)| name))
    }

    async fn statuses(&self, group: &str, of: &[Address]) -> anyhow::Result<Vec<Option<ReplicaStatus>>> {
        let mut statuses = Vec::new();
        if group == "ctrl" {
            let connection: Arc<dyn Connection> = self.connection.clone();
            let clerk = CtrlClerk::new(connection, of.to_vec(), 0);
            let all: BTreeMap<Address, _> = clerk.statuses().await.into_iter().collect();
            let one = |at| all.get(at).and_then(|status| Some(status.as_ref().ok()?.replica.clone()));
            return Ok(of.iter().map(one).collect());
        }
        let group = GroupId(group.parse().context("a group's name is its number")?);
        for address in of {
            statuses.push(self.status(group, address).await.map(|status| status.0));
        }
        Ok(statuses)
    }

    /// A replica's status, and the bytes of its rows.
    async fn status(&self, group: GroupId, at: &Address) -> Option<(ReplicaStatus, usize)> {
        const LIMIT: Duration = Duration::from_secs(1);
        match self.connection.kv(at, group, KvRequest::Status, LIMIT).await {
            Ok(Ok(KvReply::Status(status))) => {
                let bytes: u64 = status.shards.iter().map(|shard| shard.bytes).sum();
                Some((status.replica, usize::try_from(bytes).unwrap_or(usize::MAX)))
            }
            _ => None,
        }
    }

    fn recipes<T>(&self, group: &str, of: impl Fn(&Name, &Recipe) -> T) -> Vec<T> {
        let servers = lock(&self.servers);
        let group = servers.recipes.iter().filter(|(name, _)| *group_of(name) == *group);
        group.map(|(name, recipe)| of(name, recipe)).collect()
    }
}

impl Ground for Processes {
    fn add<'a>(
        &'a self,
        group: &'a str,
        servers: u64,
        setup: &'a Setup,
    ) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(async move {
            let ports = free_ports(usize::try_from(servers)?);
            let addresses: Vec<Address> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
            let names: Vec<Name> = (1..=servers).map(|id| format!("{group}.{id}").into()).collect();
            for (id, name) in (1..).zip(&names) {
                let recipe = self.recipe(group, id, &addresses, setup);
                lock(&self.servers).recipes.insert(Arc::clone(name), recipe);
            }
            self.launch(names, true).await?;
            self.await_leader(group).await
        })
    }

    fn kill<'a>(&'a self, server: &'a str) -> BoxFuture<'a, anyhow::Result<()>> {
        let running = lock(&self.servers).running.remove(server);
        Box::pin(async move {
            if let Some(running) = running {
                tokio::task::spawn_blocking(|| running.kill()).await?;
            }
            Ok(())
        })
    }

    fn start<'a>(&'a self, server: &'a str) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(async move {
            if lock(&self.servers).running.contains_key(server) {
                return Ok(());
            }
            self.launch(vec![server.into()], false).await
        })
    }

    fn remove<'a>(&'a self, group: &'a str) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(async move {
            for name in self.servers(group) {
                self.kill(&name).await?;
                lock(&self.servers).recipes.remove(&name);
            }
            Ok(())
        })
    }

    fn servers(&self, group: &str) -> Vec<Name> {
        self.recipes(group, |name, _| Arc::clone(name))
    }

    fn addresses(&self, group: &str) -> Vec<Address> {
        self.recipes(group, |_, recipe| recipe.listen.clone())
    }

    fn connection(&self, _client: &str) -> Arc<dyn Connection> {
        self.connection.clone()
    }

    fn leader<'a>(&'a self, group: &'a str) -> BoxFuture<'a, anyhow::Result<Option<Name>>> {
        Box::pin(self.leader_of(group))
    }

    fn bytes<'a>(&'a self, server: &'a str) -> BoxFuture<'a, anyhow::Result<(usize, usize)>> {
        Box::pin(async move {
            let listen = lock(&self.servers).recipes.get(server).map(|recipe| recipe.listen.clone());
            let listen = listen.with_context(|| format!("there is no server {server}"))?;
            let group = GroupId(group_of(server).parse().context("only replica groups have rows")?);
            let status = self.status(group, &listen).await;
            let (status, rows) = status.with_context(|| format!("{server} does not report its status"))?;
            Ok((usize::try_from(status.log_bytes)?, rows))
        })
    }

    fn kept<'a>(&'a self, server: &'a str) -> BoxFuture<'a, anyhow::Result<usize>> {
        let pid = lock(&self.servers).running.get(server).map(Server::pid);
        Box::pin(async move {
            let bytes = pid.and_then(anonymous_bytes);
            Ok(usize::try_from(bytes.with_context(|| format!("{server} does not run"))?)?)
        })
    }

    fn rpcs(&self) -> u64 {
        self.connection.calls.load(Ordering::Relaxed)
    }
}
