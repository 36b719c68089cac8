//! What clients of the labs' versioned store do (6.5840 2025 and 2026, kvtest1): conditional puts
//! that race, and the sums that must result.
//!
//! A put names the version it met. Without a session its clerk may send it again and then learn of
//! another version, which its own first attempt may have made: [`Put::Maybe`]. So while nothing is
//! lost the version of a key is the number of acknowledged puts, and otherwise at most that of
//! acknowledged and doubtful ones together ([`check_put_concurrent`]).
//!
//! Left out on purpose: the store itself, which is a group of one server in Lab 2 and of several in
//! Lab 4, and the classic labs' puts and appends.

use std::iter::Sum;
use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail, ensure};
use rand::RngExt;

use crate::lab::client::{Client, Put};
use crate::lab::{Lab, Store};
use sim::Generator;

/// Puts by their outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Puts {
    /// Acknowledged.
    pub ok: u64,
    /// Not known whether it was done.
    pub maybe: u64,
}

impl AddAssign for Puts {
    fn add_assign(&mut self, other: Self) {
        self.ok += other.ok;
        self.maybe += other.maybe;
    }
}

impl Sum for Puts {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        let mut sum = Self::default();
        all.for_each(|one| sum += one);
        sum
    }
}

/// Tells a client to stop after its present operation. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Done(Arc<AtomicBool>);

impl Done {
    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Tells the client to stop.
    pub fn tell(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The labs' SpawnClientsAndWait: `count` new clients do `work` (with their numbers, from 0) for
/// `ms` milliseconds. Then each is told to stop and awaited, one after the other, so a client that
/// is stuck delays the end. Returns their results, in their order.
///
/// # Errors
/// What a client found wrong.
pub async fn spawn_clients_and_wait<T, F>(
    store: &Store,
    count: u64,
    ms: u64,
    work: impl Fn(u64, Client, Done) -> F,
) -> anyhow::Result<Vec<T>>
where
    F: Future<Output = anyhow::Result<T>> + Send + 'static,
    T: Send + 'static,
{
    let start = |me| {
        let done = Done::default();
        (done.clone(), tokio::spawn(work(me, store.versioned_client(), done)))
    };
    let clients: Vec<_> = (0..count).map(start).collect();
    store.lab.sleep(ms).await;
    let mut brought = Vec::with_capacity(clients.len());
    for (me, (done, task)) in clients.into_iter().enumerate() {
        done.tell();
        brought.push(task.await?.with_context(|| format!("client {me}"))?);
    }
    Ok(brought)
}

/// The labs' OnePut: tries until a put of `me` at `key` is acknowledged or doubtful, beginning at
/// `version`, and reads after each try. Returns how it ended, and the version read last. The texts
/// are unique if no two clients of a run have the same `me`.
///
/// # Errors
/// When the key is missing after a put, or the version that an acknowledged put made has another
/// value. (The labs meant to check that, but their check cannot fail: it wants both the writer and
/// the version to be wrong.)
pub async fn one_put(client: &mut Client, me: u64, key: &str, version: u64) -> anyhow::Result<(Put, u64)> {
    let mut version = version;
    loop {
        let value = format!(r#"{{"Id":{me},"V":{version}}}"#);
        let put = client.put_if(key, &value, version).await?;
        ensure!(put != Put::NoKey, "put {key} at version {version}: there is no such key");
        let (found, now) = client.get(key).await?;
        ensure!(now > 0, "get {key} after a put that was answered {put:?}: there is no such key");
        if put == Put::Ok && now == version + 1 {
            ensure!(found == value, "{key} has version {now}, made by putting {value}, but value {found}");
        }
        version = now;
        if put != Put::Version {
            return Ok((put, version));
        }
    }
}

/// The labs' OneClientPut: until `done`, [`one_put`] at a random one of `keys`, if there is
/// `random` to draw it, and otherwise at the first.
///
/// # Errors
/// As [`one_put`].
pub async fn one_client_put(
    mut client: Client,
    me: u64,
    keys: &[String],
    mut random: Option<Generator>,
    done: Done,
) -> anyhow::Result<Puts> {
    let mut versions = vec![0; keys.len()];
    let mut puts = Puts::default();
    while !done.is_over() {
        let at = random.as_mut().map_or(0, |random| random.random_range(0..keys.len()));
        let (put, version) = one_put(&mut client, me, &keys[at], versions[at]).await?;
        versions[at] = version;
        match put {
            Put::Ok => puts.ok += 1,
            _ => puts.maybe += 1,
        }
    }
    Ok(puts)
}

/// The labs' CheckPutConcurrent: whether the version of `key` is the number of all puts so far.
/// `reliable`: nothing was lost, so nothing may be doubtful.
///
/// # Errors
/// When it is not.
pub async fn check_put_concurrent(
    client: &mut Client,
    key: &str,
    puts: Puts,
    reliable: bool,
) -> anyhow::Result<()> {
    let (_, version) = client.get(key).await?;
    let Puts { ok, maybe } = puts;
    ensure!(ok > 0, "no put at {key} was acknowledged");
    if reliable {
        ensure!(version == ok, "{key} has version {version} after {ok} acknowledged puts");
    }
    ensure!(
        (ok..=ok + maybe).contains(&version),
        "{key} has version {version} after {ok} acknowledged and {maybe} doubtful puts"
    );
    Ok(())
}

/// The labs' PutAtLeastOnce: puts until it is acknowledged, from `version` on, one higher after
/// each refusal and each doubt. Returns the version that it made.
///
/// # Errors
/// When there is no such key although its version should not be 0.
pub async fn put_at_least_once(
    client: &mut Client,
    key: &str,
    value: &str,
    version: u64,
) -> anyhow::Result<u64> {
    let mut version = version;
    loop {
        match client.put_if(key, value, version).await? {
            Put::Ok => return Ok(version + 1),
            Put::Maybe | Put::Version => version += 1,
            Put::NoKey => bail!("put {key} at version {version}: there is no such key"),
        }
    }
}

/// The labs' CheckGet: the key is there, with this value and version.
///
/// # Errors
/// When it is not.
pub async fn check_get(client: &mut Client, key: &str, value: &str, version: u64) -> anyhow::Result<()> {
    client.check_version(key, value, version).await?;
    ensure!(version > 0, "get {key}: there is no such key");
    Ok(())
}

/// The labs' SpreadPuts: keys k0, k1, ... with random values of 20 letters, each put as new and read. The keys
/// and values.
///
/// # Errors
/// When one of them is refused or reads otherwise.
pub async fn spread_puts(
    lab: &Lab,
    client: &mut Client,
    count: usize,
) -> anyhow::Result<Vec<(String, String)>> {
    let mut random = lab.random("spread puts");
    let letters = |random: &mut Generator| (0..20).map(|_| random.random_range('a'..='z')).collect();
    let pairs: Vec<(String, String)> =
        (0..count).map(|number| (format!("k{number}"), letters(&mut random))).collect();
    for (key, value) in &pairs {
        // A put is doubtful only through its own second try: the check below shows whether it was
        // done.
        let put = client.put_if(key, value, 0).await?;
        ensure!(matches!(put, Put::Ok | Put::Maybe), "put {key} as new was answered {put:?}");
    }
    for (key, value) in &pairs {
        check_get(client, key, value, 1).await?;
    }
    Ok(pairs)
}
