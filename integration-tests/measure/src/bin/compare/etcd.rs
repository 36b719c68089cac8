//! etcd: three members with their defaults. Clients talk to the leader, which saves their requests
//! a hop.
//!
//! The requests of `wire` use tonic, like the usual client. That client generates its code from
//! etcd's protocol files at build time. It needs their compiler for that, and it would make cargo
//! compile RocksDB a second time, because both share packages of their build scripts.

mod wire;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures::future::LocalBoxFuture;
use measure::store::{Client, Done, System};
use real::free_ports;
use tonic::transport::{Channel, Endpoint};

use crate::peer::{Peer, version};

const MEMBERS: usize = 3;
/// Clients share at most this many connections: one HTTP/2 connection for 64 clients is slower than
/// several.
const CONNECTIONS_MAX: usize = 8;

pub(crate) struct Etcd {
    peer: Peer,
    version: String,
    leader: String,
    connections: RefCell<Vec<Channel>>,
}

impl Etcd {
    pub(crate) async fn start() -> Result<Self> {
        let version = version("etcd")?.replace("etcd Version: ", "");
        let ports = free_ports(2 * MEMBERS);
        let (client, server) = ports.split_at(MEMBERS);
        let url = |port: &u16| format!("http://127.0.0.1:{port}");
        let members: Vec<String> =
            server.iter().enumerate().map(|(at, port)| format!("etcd.{at}={}", url(port))).collect();
        let mut peer = Peer::new();
        for at in 0..MEMBERS {
            let name = format!("etcd.{at}");
            let data = peer.directory(&name)?.join("data");
            let mut command = Command::new("etcd");
            command.args(["--name", &name, "--data-dir"]).arg(data);
            command.args(["--listen-client-urls", &url(&client[at])]);
            command.args(["--advertise-client-urls", &url(&client[at])]);
            command.args(["--listen-peer-urls", &url(&server[at])]);
            command.args(["--initial-advertise-peer-urls", &url(&server[at])]);
            command.args(["--initial-cluster", &members.join(","), "--initial-cluster-state", "new"]);
            peer.start(&name, &mut command)?;
        }
        let urls: Vec<String> = client.iter().map(url).collect();
        let leader = peer.until("etcd elects a leader", async || leader(&urls).await).await?;
        Ok(Self { peer, version, leader, connections: RefCell::default() })
    }
}

/// The address of the member that leads.
async fn leader(urls: &[String]) -> Result<String> {
    for url in urls {
        let channel = Endpoint::from_shared(url.clone())?.connect().await?;
        if wire::leads(channel).await? {
            return Ok(url.clone());
        }
    }
    anyhow::bail!("no member leads")
}

impl System for Etcd {
    fn name(&self) -> &'static str {
        "etcd"
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    fn promise(&self) -> &'static str {
        "every acknowledged write is synced on a majority; reads are linearizable; a retried write may be executed twice"
    }

    fn pids(&self) -> BTreeMap<String, u32> {
        self.peer.pids()
    }

    fn connect(&self, clients: usize) -> LocalBoxFuture<'_, Done<Vec<Box<dyn Client>>>> {
        Box::pin(async move {
            while self.connections.borrow().len() < clients.min(CONNECTIONS_MAX) {
                let endpoint = Endpoint::from_shared(self.leader.clone())?;
                let connection = endpoint.connect().await.context("etcd")?;
                self.connections.borrow_mut().push(connection);
            }
            let connections = self.connections.borrow();
            let shared = connections.iter().cycle().take(clients);
            Ok(shared.map(|one| Box::new(Kv(one.clone())) as Box<dyn Client>).collect())
        })
    }
}

struct Kv(Channel);

impl Client for Kv {
    fn put(&mut self, key: Bytes, value: Bytes) -> LocalBoxFuture<'_, Done> {
        Box::pin(wire::put(&self.0, key, value))
    }

    fn get(&mut self, key: Bytes) -> LocalBoxFuture<'_, Done<bool>> {
        Box::pin(wire::get(&self.0, key))
    }

    /// One transaction, so all or none: the other stores promise less for a batch.
    fn put_batch(&mut self, pairs: Vec<(Bytes, Bytes)>) -> LocalBoxFuture<'_, Done> {
        Box::pin(wire::put_all(&self.0, pairs))
    }
}
