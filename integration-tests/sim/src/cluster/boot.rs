//! How a node of each kind starts: its replica, its service, and what the network sees of both.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use base::socket::Here;
use clerk::api::{Address, GroupId};
use clerk::connection::Connection;
use futures::future::BoxFuture;
use raft::config::Config;
use raft::rsm::toy::Toy;
use raft::rsm::{self, Parts, Replica, StateMachine, Threads};
use raft::storage::Read;
use raft::transport::{self, Inbox};
use raft::types::{Membership, NodeId};
use shardctrler::state_machine::Controller;
use shardkv::machine::{Machine, Standing};
use tokio::sync::watch;

use super::{Cluster, Kind, Probe, Running};
use crate::network::{Calls, Handler, Identity, Pass, PeerTransport, Reply, Request, Server};
use crate::toy;
use crate::{Name, lock};

/// A state machine without a service.
#[derive(Clone)]
pub struct Bare {
    pub(super) name: &'static str,
    start: Arc<dyn StartBare>,
}

type Started<'a> = BoxFuture<'a, Result<Running, String>>;

trait StartBare: Send + Sync {
    fn start<'a>(&self, boot: Boot<'a>, parts: Parts, inbox: Inbox) -> Started<'a>;
}

impl<S: StateMachine, F: Fn() -> S + Send + Sync> StartBare for F {
    fn start<'a>(&self, boot: Boot<'a>, parts: Parts, inbox: Inbox) -> Started<'a> {
        Box::pin(boot.bare(parts, inbox, self()))
    }
}

impl Bare {
    /// The machine that `make` makes for each life of a node, in a group called `name`.
    pub fn new<S: StateMachine>(name: &'static str, make: impl Fn() -> S + Send + Sync + 'static) -> Self {
        Self { name, start: Arc::new(make) }
    }
}

impl Cluster {
    pub(super) async fn boot(&self, name: &Name) -> Result<(), String> {
        let (kind, passport, id, peers, life, config, (log, table), disk_low) = {
            let nodes = lock(&self.nodes);
            let node = &nodes[name];
            let config = node.config.clone();
            let passport = node.passport.clone();
            let (peers, stores, low) = (node.peers.clone(), node.disk.open(), node.disk.low());
            (node.kind.clone(), passport, node.id, peers, node.life, config, stores, low)
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
        let key_of: fn(&dyn Read) -> Option<u64> = match &kind {
            Kind::Ctrl => shardctrler::rows::cluster_key,
            Kind::Kv(_) => shardkv::cluster_key,
            Kind::Toy | Kind::Bare(_) => |_| None,
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
    key_of: fn(&dyn Read) -> Option<u64>,
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
        handle: impl Fn(Arc<T>, Request) -> BoxFuture<'static, Reply> + Send + Sync + 'static,
    ) -> Running {
        let probe = Probe { status: replica.watch(), standing, table: Arc::clone(replica.table()) };
        // Running calls hold the server; only this slot and running handlers hold the service.
        let slot = Arc::new(Mutex::new(Some(Arc::new(service))));
        let held = Arc::clone(&slot);
        let handler: Handler = Arc::new(move |request| match lock(&held).clone() {
            Some(service) => handle(service, request),
            None => Box::pin(std::future::pending()),
        });
        let members = self.peers.keys().copied().collect();
        let (table, key_of) = (Arc::clone(replica.table()), self.key_of);
        let mut identity = Identity::new(self.here.clone(), members, Arc::clone(&self.met));
        identity.key_of = Some(Box::new(move || key_of(&*table).unwrap_or(0)));
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
            facts: host::Facts::default(),
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
        let machine = Machine::with_limits(group, self.cluster.shape.memory);
        let standing = machine.standing();
        let replica = Self::replica(parts, machine).await?;
        let settings = shardkv::service::Settings {
            group,
            members: self.members(),
            controllers: self.cluster.controllers(),
            connection: self.connection(),
            seed: self.seed,
            facts: host::Facts::default(),
            sizes: self.cluster.shape.sizes,
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
