//! What the load can ask of a store, and the description of a store.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::future::LocalBoxFuture;

pub type Done<T = ()> = anyhow::Result<T>;

pub trait System {
    /// Its name in tables: one word.
    fn name(&self) -> &'static str;

    /// The version that runs.
    fn version(&self) -> String;

    /// What it promises with its settings, in one sentence.
    fn promise(&self) -> &'static str;

    /// Every server process, by name.
    fn pids(&self) -> BTreeMap<String, u32>;

    /// Connects `clients` clients, on the runtime of the caller.
    fn connect(&self, clients: usize) -> LocalBoxFuture<'_, Done<Vec<Box<dyn Client>>>>;
}

/// One client: one call at a time.
pub trait Client {
    /// Sets the value of a key.
    fn put(&mut self, key: Bytes, value: Bytes) -> LocalBoxFuture<'_, Done>;

    /// Reads a key, as strictly as the store can by default; returns whether it existed.
    fn get(&mut self, key: Bytes) -> LocalBoxFuture<'_, Done<bool>>;

    /// Sets the values of several keys of one slot in one call.
    fn put_batch(&mut self, pairs: Vec<(Bytes, Bytes)>) -> LocalBoxFuture<'_, Done>;
}
