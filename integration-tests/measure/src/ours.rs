//! The product as a store: a cluster of processes on this machine, and its clerk.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use clerk::api::Address;
use clerk::api::kv::Write;
use clerk::connection::Connection;
use clerk::kv::Clerk;
use futures::future::{self, LocalBoxFuture};

use super::store::{Client, Done, System};
use real::{Cluster, Target};

pub struct Ours {
    cluster: Cluster,
    target: Target,
    connection: Arc<dyn Connection>,
    /// One for all clients, like in one process of a user.
    clerk: OnceCell<Clerk>,
}

impl Ours {
    /// One group of three servers, with three controllers beside it.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start() -> Self {
        Self::up(&["--groups", "1"])
    }

    /// `clerk up` with these arguments.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn up(arguments: &[&str]) -> Self {
        let cluster = Cluster::up(arguments);
        let target = cluster.target();
        let connection = target.connection();
        Self { cluster, target, connection, clerk: OnceCell::new() }
    }

    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Connections to its servers, for questions outside the load.
    pub fn connection(&self) -> &Arc<dyn Connection> {
        &self.connection
    }

    pub fn controllers(&self) -> Vec<Address> {
        self.target.controllers.clone()
    }

    pub fn clerk(&self) -> Clerk {
        self.clerk.get_or_init(|| self.target.clerk()).clone()
    }
}

impl System for Ours {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn version(&self) -> String {
        let said = self.cluster.ok(&["--version"]);
        said.trim().rsplit(' ').next().unwrap_or_default().to_owned()
    }

    fn promise(&self) -> &'static str {
        "every acknowledged write is synced on a majority; reads are linearizable; a retried write is executed once"
    }

    fn pids(&self) -> BTreeMap<String, u32> {
        self.cluster.pids()
    }

    fn connect(&self, clients: usize) -> LocalBoxFuture<'_, Done<Vec<Box<dyn Client>>>> {
        let clerk = self.clerk();
        Box::pin(future::ok((0..clients).map(|_| Box::new(clerk.clone()) as Box<dyn Client>).collect()))
    }
}

impl Client for Clerk {
    fn put(&mut self, key: Bytes, value: Bytes) -> LocalBoxFuture<'_, Done> {
        Box::pin(async move { Ok(Clerk::put(self, key, value).await.map(drop)?) })
    }

    fn get(&mut self, key: Bytes) -> LocalBoxFuture<'_, Done<bool>> {
        Box::pin(async move { Ok(Clerk::get(self, key).await?.value.is_some()) })
    }

    /// One request, and one command of the shard.
    fn put_batch(&mut self, pairs: Vec<(Bytes, Bytes)>) -> LocalBoxFuture<'_, Done> {
        Box::pin(async move {
            let put = |(key, value)| (key, Write::Put { value, expected: None });
            for written in self.batch(pairs.into_iter().map(put)).await {
                written?;
            }
            Ok(())
        })
    }
}
