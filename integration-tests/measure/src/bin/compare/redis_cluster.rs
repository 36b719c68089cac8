//! Redis Cluster: three masters with a replica each, the append-only file synced before every
//! answer.
//!
//! Timed snapshots are off: with the append-only file they add no durability, and would cost speed.

mod wire;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::Command;
use std::rc::Rc;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use clerk::api::config::slot_of;
use futures::future::LocalBoxFuture;
use measure::store::{Client, Done, System};
use real::free_ports;

use self::wire::{Connection, Reply};
use crate::peer::{Peer, version};

const SERVERS: usize = 6;

pub(crate) struct Redis {
    peer: Peer,
    version: String,
    addresses: Vec<String>,
    masters: OnceCell<Rc<Masters>>,
}

impl Redis {
    pub(crate) async fn start() -> Result<Self> {
        let version = version("redis-server")?;
        let named = version.split_whitespace().find_map(|word| word.strip_prefix("v="));
        let version = named.unwrap_or(&version).to_owned();
        let ports = ports()?;
        let mut peer = Peer::new();
        for (at, port) in ports.iter().enumerate() {
            let name = format!("redis.{at}");
            let mut command = Command::new("redis-server");
            command.arg("--dir").arg(peer.directory(&name)?);
            // With another title the process could not be identified by its directory.
            command.args(["--set-proc-title", "no", "--bind", "127.0.0.1"]);
            command.args(["--port", &port.to_string()]);
            command.args(["--cluster-enabled", "yes", "--appendonly", "yes", "--appendfsync", "always"]);
            command.args(["--save", ""]);
            peer.start(&name, &mut command)?;
        }
        let addresses: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        peer.until("Redis answers", async || ping(&addresses).await).await?;
        create(&addresses)?;
        peer.until("Redis Cluster is complete", async || complete(&addresses).await).await?;
        Ok(Self { peer, version, addresses, masters: OnceCell::new() })
    }
}

/// Ports for which the server-to-server port, a fixed distance higher, is free as well.
fn ports() -> Result<Vec<u16>> {
    const HIGHER: u16 = 10_000;
    let usable = |port: &u16| TcpListener::bind(("127.0.0.1", *port + HIGHER)).is_ok();
    let ports: Vec<u16> = free_ports(20 * SERVERS).into_iter().filter(usable).take(SERVERS).collect();
    ensure!(ports.len() == SERVERS, "no ports are free {HIGHER} above others");
    Ok(ports)
}

async fn ping(addresses: &[String]) -> Result<()> {
    for address in addresses {
        Connection::open(address).await?.command(&["PING"]).await?;
    }
    Ok(())
}

fn create(addresses: &[String]) -> Result<()> {
    let mut command = Command::new("redis-cli");
    command.args(["--cluster", "create"]).args(addresses).args(["--cluster-replicas", "1", "--cluster-yes"]);
    let output = command.output().context("redis-cli is missing: run scripts/compare-setup")?;
    ensure!(output.status.success(), "redis-cli: {}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

/// Checks that every slot is served, and every replica follows its master.
async fn complete(addresses: &[String]) -> Result<()> {
    let mut followed = 0;
    for address in addresses {
        let connection = Connection::open(address).await?;
        let info = text(connection.command(&["CLUSTER", "INFO"]).await?)?;
        ensure!(info.contains("cluster_state:ok"), "{address}: {info}");
        let info = text(connection.command(&["INFO", "replication"]).await?)?;
        followed += info.matches("state=online").count();
    }
    ensure!(followed == SERVERS / 2, "{followed} replicas are online");
    Ok(())
}

fn text(reply: Reply) -> Result<String> {
    match reply {
        Reply::Text(text) => Ok(text),
        Reply::Bytes(Some(bytes)) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        reply => bail!("not a text: {reply:?}"),
    }
}

/// The masters, by the last slot that each serves: one connection each, shared by all clients.
struct Masters(BTreeMap<u16, Connection>);

impl Masters {
    async fn find(address: &str) -> Result<Self> {
        let slots = Connection::open(address).await?.command(&["CLUSTER", "SLOTS"]).await?;
        let Reply::List(ranges) = slots else { bail!("no list of slots: {slots:?}") };
        let mut masters = BTreeMap::new();
        for range in ranges {
            let (last, address) =
                master(&range).with_context(|| format!("not a range of slots: {range:?}"))?;
            masters.insert(last, Connection::open(&address).await?);
        }
        Ok(Self(masters))
    }

    fn of(&self, key: &[u8]) -> Result<&Connection> {
        let found = self.0.range(slot_of(key)..).next();
        found.map(|(_, connection)| connection).context("nobody serves the slot")
    }
}

/// The last slot of a range and the address of its master: first slot, last slot, master, replicas.
fn master(range: &Reply) -> Option<(u16, String)> {
    let Reply::List(range) = range else { return None };
    let [_, Reply::Number(last), Reply::List(server), ..] = &range[..] else { return None };
    let [host, Reply::Number(port), ..] = &server[..] else { return None };
    Some((u16::try_from(*last).ok()?, format!("{}:{port}", text(host.clone()).ok()?)))
}

impl System for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    fn promise(&self) -> &'static str {
        "an acknowledged write is synced on its master only and copied later, so a fail-over may lose it; reads are local, so one may be stale"
    }

    fn pids(&self) -> BTreeMap<String, u32> {
        self.peer.pids()
    }

    fn connect(&self, clients: usize) -> LocalBoxFuture<'_, Done<Vec<Box<dyn Client>>>> {
        Box::pin(async move {
            if self.masters.get().is_none() {
                let masters = Masters::find(&self.addresses[0]).await?;
                let _ = self.masters.set(Rc::new(masters));
            }
            let masters = self.masters.get().context("connected just now")?;
            Ok((0..clients).map(|_| Box::new(Cluster(Rc::clone(masters))) as Box<dyn Client>).collect())
        })
    }
}

struct Cluster(Rc<Masters>);

impl Client for Cluster {
    fn put(&mut self, key: Bytes, value: Bytes) -> LocalBoxFuture<'_, Done> {
        self.put_batch(vec![(key, value)])
    }

    fn get(&mut self, key: Bytes) -> LocalBoxFuture<'_, Done<bool>> {
        Box::pin(async move {
            let mut replies = self.0.of(&key)?.ask(&[&[&b"GET"[..], &key[..]]]).await?;
            let reply = replies.pop().context("no reply")?.accepted()?;
            Ok(matches!(reply, Reply::Bytes(Some(_))))
        })
    }

    /// One pipeline: sent together, executed one by one.
    fn put_batch(&mut self, pairs: Vec<(Bytes, Bytes)>) -> LocalBoxFuture<'_, Done> {
        Box::pin(async move {
            let Some((first, _)) = pairs.first() else { return Ok(()) };
            let master = self.0.of(first)?;
            let sets: Vec<[&[u8]; 3]> = pairs.iter().map(|(key, value)| [&b"SET"[..], key, value]).collect();
            let commands: Vec<&[&[u8]]> = sets.iter().map(|set| &set[..]).collect();
            for reply in master.ask(&commands).await? {
                reply.accepted()?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::master;
    use super::wire::Reply;

    #[test]
    fn the_master_of_a_range_stands_before_its_replicas() {
        let server = |port| {
            let host = Reply::Bytes(Some(Bytes::from_static(b"127.0.0.1")));
            Reply::List(vec![host, Reply::Number(port), Reply::Bytes(Some(Bytes::from_static(b"id")))])
        };
        let range = vec![Reply::Number(0), Reply::Number(5460), server(7000), server(7001)];
        assert_eq!(master(&Reply::List(range)), Some((5460, "127.0.0.1:7000".to_owned())));
        assert_eq!(master(&Reply::Number(1)), None);
    }
}
