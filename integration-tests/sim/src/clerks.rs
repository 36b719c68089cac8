//! The product's own clients on the simulated network: an admin of the cluster, and a clerk as a
//! workload's [`Store`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::clock;
use bytes::Bytes;
use clerk::api::config::NewGroup;
use clerk::api::ctrl::Change;
use clerk::api::kv::Write;
use clerk::api::{Address, ConfigNum, GroupId, ShardId, Version};
use clerk::connection::Connection;
use clerk::ctrl::CtrlClerk;
use clerk::group::GroupClient;
use clerk::kv::{Clerk, Error, Options};
use futures::future::BoxFuture;

use super::Name;
use super::cluster::Cluster;
use super::network::Network;
use crate::workload::{Answer, Batches, Request, Store};
use judge::history::Op;

/// The admin's time limit for a change, and a client's for an operation.
const PATIENCE: Duration = Duration::from_secs(4);

/// Changes the configuration.
pub struct Admin {
    connection: Arc<dyn Connection>,
    ctrl: CtrlClerk,
    seed: u64,
}

impl Admin {
    /// The admin of `cluster`.
    pub fn new(cluster: &Cluster) -> Self {
        let connection: Arc<dyn Connection> = Arc::new(cluster.client("admin"));
        let seed = cluster.world.derive("admin");
        let ctrl = CtrlClerk::new(Arc::clone(&connection), cluster.addresses("ctrl"), seed);
        Self { connection, ctrl: ctrl.with_deadline(PATIENCE), seed }
    }

    /// Tries a change; returns whether it was made.
    pub async fn change(&self, change: Change) -> bool {
        self.ctrl.change(change).await.is_ok()
    }

    /// Who owns each shard.
    ///
    /// # Errors
    /// When no controller answers.
    pub async fn owners(&self) -> Result<BTreeMap<ShardId, GroupId>, String> {
        let (config, _) = self.ctrl.query(None).await.map_err(|error| error.to_string())?;
        Ok(config.assignments().filter_map(|(shard, owner)| Some((shard, owner.owner?))).collect())
    }

    /// A group as it joins.
    ///
    /// # Errors
    /// When the group does not answer.
    pub async fn newcomer(&self, group: GroupId, addresses: Vec<Address>) -> Result<NewGroup, String> {
        let client = GroupClient::new(Arc::clone(&self.connection), group, addresses.clone(), self.seed);
        let (incarnation, key) = client.data(clock::now().after(PATIENCE)).await?;
        Ok(NewGroup { key, incarnation, addresses })
    }

    /// The newest configuration that any running controller has applied.
    pub fn newest_made(&self, cluster: &Cluster) -> Option<ConfigNum> {
        let controllers = cluster.seen().into_iter().filter(|seen| &*seen.group == "ctrl");
        controllers.filter_map(|seen| shardctrler::rows::newest(&*seen.probe.table)).max()
    }
}

pub struct KvStore {
    clerk: Clerk,
    /// The network that may duplicate its requests, and its name there.
    network: Option<(Network, Name)>,
    repeats_creates: bool,
}

impl KvStore {
    /// A clerk of `cluster` with its own name.
    pub fn new(cluster: &Cluster, name: &str) -> Self {
        let connection: Arc<dyn Connection> = Arc::new(cluster.client(name));
        let options = Options { seed: cluster.world.derive(name), deadline: PATIENCE, sessions: true };
        Self::of(Clerk::new(connection, cluster.addresses("ctrl"), options)).on(&cluster.network, name)
    }

    /// Any clerk as a store.
    pub fn of(clerk: Clerk) -> Self {
        Self { clerk, network: None, repeats_creates: false }
    }

    /// Puts the store on a network that may duplicate its requests: a request that was refused may
    /// still have been executed.
    #[must_use]
    pub fn on(self, network: &Network, name: &str) -> Self {
        Self { network: Some((network.clone(), name.into())), ..self }
    }

    /// Retries a lost create, as the clerks of the labs do. This is right only where nobody deletes
    /// a key. The product leaves it to its caller, because a create that succeeded and was deleted
    /// since would be done again.
    #[must_use]
    pub fn repeating_creates(self) -> Self {
        Self { repeats_creates: true, ..self }
    }

    fn doubled(&self) -> u64 {
        self.network.as_ref().map_or(0, |(network, name)| network.doubled(name))
    }

    async fn put_if(&self, key: Bytes, value: Bytes, expected: Version) -> Result<Version, Error> {
        let mut lost = false;
        loop {
            match self.clerk.put_if(key.clone(), value.clone(), expected).await {
                Err(Error::Unknown) if self.repeats_creates && expected.0 == 0 => lost = true,
                Err(_) if lost => return Err(Error::Maybe),
                put => return put,
            }
        }
    }
}

impl Batches for KvStore {
    fn run_batch<'a>(&'a self, requests: &'a [Request]) -> BoxFuture<'a, Vec<Answer>> {
        Box::pin(async move {
            let write = |request: &Request| {
                let value = Bytes::from(request.value.clone().unwrap_or_default());
                let write = match request.op {
                    Op::Get => panic!("batches are of writes"),
                    Op::Put => Write::Put { value, expected: None },
                    Op::Cas => {
                        Write::Put { value, expected: Some(Version(request.expected.unwrap_or_default())) }
                    }
                    Op::Append => Write::Append { piece: value },
                    Op::Delete => Write::Delete,
                };
                (Bytes::from(request.key.clone()), write)
            };
            let doubled_before = self.doubled();
            let written = self.clerk.batch(requests.iter().map(write)).await;
            written.into_iter().map(|written| self.answer(written, doubled_before)).collect()
        })
    }
}

impl KvStore {
    fn answer(&self, written: Result<Version, Error>, doubled_before: u64) -> Answer {
        match written {
            Ok(version) => Answer::Done { output: None, version: version.0 },
            Err(Error::VersionMismatch { version }) => Answer::Mismatch(version.0),
            Err(Error::Unknown | Error::Maybe) => Answer::Unknown,
            Err(_) if self.doubled() > doubled_before => Answer::Unknown,
            Err(_) => Answer::Refused,
        }
    }
}

impl Store for KvStore {
    fn run<'a>(&'a mut self, request: &'a Request) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            let key = Bytes::from(request.key.clone());
            let value = Bytes::from(request.value.clone().unwrap_or_default());
            let doubled_before = self.doubled();
            let written = match request.op {
                Op::Get => {
                    return match self.clerk.get(key).await {
                        Ok(got) => Answer::Done { output: got.value, version: got.version.0 },
                        Err(_) => Answer::Unknown,
                    };
                }
                Op::Put => self.clerk.put(key, value).await,
                Op::Append => self.clerk.append(key, value).await,
                Op::Delete => self.clerk.delete(key).await,
                Op::Cas => self.put_if(key, value, Version(request.expected.unwrap_or_default())).await,
            };
            self.answer(written, doubled_before)
        })
    }
}

#[cfg(test)]
mod tests;
