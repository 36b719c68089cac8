//! What a store can be asked by the load, and what is known of a store as a whole.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::future::LocalBoxFuture;

/// The outcome of a call.
pub type Done<T = ()> = anyhow::Result<T>;

/// A running store.
pub trait System {
    /// Its name in tables: one word.
    fn name(&self) -> &'static str;

    /// The version that runs.
    fn version(&self) -> String;

    /// What it promises with the settings it runs with, in one sentence.
    fn promise(&self) -> &'static str;

    /// Every server process, by name.
    fn pids(&self) -> BTreeMap<String, u32>;

    /// Clients of it, so many, on the runtime of the caller.
    fn connect(&self, clients: usize) -> LocalBoxFuture<'_, Done<Vec<Box<dyn Client>>>>;
}

/// One client: one call at a time.
pub trait Client {
    /// Sets the value of a key.
    fn put(&mut self, key: Bytes, value: Bytes) -> LocalBoxFuture<'_, Done>;

    /// Reads a key, as strictly as the store can by default; whether it was there.
    fn get(&mut self, key: Bytes) -> LocalBoxFuture<'_, Done<bool>>;

    /// Sets the values of several keys of one slot in one call.
    fn put_batch(&mut self, pairs: Vec<(Bytes, Bytes)>) -> LocalBoxFuture<'_, Done>;
}
