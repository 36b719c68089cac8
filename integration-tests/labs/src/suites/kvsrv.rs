//! The single key/value server of 6.5840 2024 (Lab 2): Get, Put and Append, every write exactly
//! once.
//!
//! Adapted: the server is a group with one member. Its memory is what it keeps in rows, without
//! which nothing comes back after a restart. Our Append answers with the version that it made
//! instead of the old value: versions show just as exactly which appends came before it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::ensure;
use bytes::Bytes;
use clerk::cache::ConfigCache;
use clerk::kv::{Clerk, Options};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use rand::RngExt;

use crate::lab::client::FOREVER;
use crate::lab::{Lab, Store};
use crate::sheet::{Scenario, scenario};

const MIB: usize = 1 << 20;
/// A log that is compacted all the time, so that only rows remain.
const RAFT_STATE_MAX: usize = 1000;
/// Adapted: the labs' hundred thousand clients act one after the other, 0.1 ms each; a message takes longer
/// here, so that many act at once.
const AT_ONCE: usize = 64;
const CROWD: u64 = 100_000;

/// The scenarios of this file.
pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario("S24-1", |lab| generic(lab, 1)),
        scenario("S24-2", |lab| generic(lab, 5)),
        scenario("S24-3", |lab| generic(lab, 5)),
        scenario("S24-4", one_key),
        scenario("S24-5", memory_get),
        scenario("S24-6", memory_put),
        scenario("S24-7", memory_append),
        scenario("S24-8", memory_many_puts),
        scenario("S24-9", memory_many_gets),
    ]
}

async fn generic(lab: Lab, clients: u64) -> anyhow::Result<()> {
    const ITERATIONS: u64 = 3;
    let store = lab.one_group(1, None).await?;
    for iteration in 0..ITERATIONS {
        let over = Arc::new(AtomicBool::new(false));
        let client =
            |number| tokio::spawn(append_and_get(store.clone(), number, iteration, Arc::clone(&over)));
        let tasks: Vec<_> = (0..clients).map(client).collect();
        lab.sleep(1000).await;
        over.store(true, Ordering::Relaxed);
        for (number, task) in (0..).zip(tasks) {
            let expected = task.await??;
            store.client().check(&format!("{number}"), &expected).await?;
        }
    }
    Ok(())
}

/// One client with its own key until it is told to stop; returns what the key must hold then.
async fn append_and_get(
    store: Store,
    number: u64,
    iteration: u64,
    over: Arc<AtomicBool>,
) -> anyhow::Result<String> {
    let mut client = store.client();
    let mut random = store.lab.random(&format!("kvsrv client {number} {iteration}"));
    let (key, mut expected, mut appends) = (format!("{number}"), String::new(), 0);
    let mut version = client.put(&key, "").await?;
    while !over.load(Ordering::Relaxed) {
        if random.random_bool(0.5) {
            let piece = format!("x {number} {appends} y");
            let made = client.append(&key, &piece).await?;
            ensure!(made == version + 1, "append {piece:?} made version {made} after version {version}");
            version = made;
            expected.push_str(&piece);
            appends += 1;
        } else {
            client.check_version(&key, &expected, version).await?;
        }
    }
    Ok(expected)
}

async fn one_key(lab: Lab) -> anyhow::Result<()> {
    const CLIENTS: u64 = 5;
    const APPENDS: u64 = 10;
    let store = lab.one_group(1, None).await?;
    let append = |number| {
        let mut client = store.client();
        tokio::spawn(async move {
            let mut versions = Vec::new();
            for count in 0..APPENDS {
                versions.push(client.append("k", &format!("x {number} {count} y")).await?);
            }
            anyhow::Ok(versions)
        })
    };
    let tasks: Vec<_> = (0..CLIENTS).map(append).collect();
    let mut made = BTreeSet::new();
    for task in tasks {
        let versions = task.await??;
        ensure!(versions.is_sorted(), "a client's appends made versions {versions:?}");
        made.extend(versions);
    }
    ensure!(made.iter().copied().eq(1..=CLIENTS * APPENDS), "the appends made versions {made:?}");
    let (value, _) = store.client().get("k").await?;
    check_appends(&value, CLIENTS, APPENDS)
}

/// Every piece exactly once, and each client's in order.
pub(super) fn check_appends(value: &str, clients: u64, appends: u64) -> anyhow::Result<()> {
    for client in 0..clients {
        let mut last = None;
        for count in 0..appends {
            let piece = format!("x {client} {count} y");
            let places: Vec<usize> = value.match_indices(&piece).map(|(place, _)| place).collect();
            ensure!(places.len() == 1, "{piece:?} occurs {} times in {value:?}", places.len());
            ensure!(last < Some(places[0]), "{piece:?} comes before the client's earlier piece in {value:?}");
            last = Some(places[0]);
        }
    }
    Ok(())
}

fn large() -> String {
    "v".repeat(10 * MIB)
}

/// A store with one server that takes large values.
async fn roomy(lab: &Lab) -> anyhow::Result<Store> {
    lab.allow_values_of(32 * MIB as u32);
    lab.one_group(1, Some(RAFT_STATE_MAX)).await
}

/// Bytes that the server keeps. Adapted: overwritten values leave the disk with the next
/// compaction, so a few small puts trigger one.
async fn kept(store: &Store) -> anyhow::Result<usize> {
    const PUTS: u64 = 30;
    let mut client = store.client();
    for number in 0..PUTS {
        client.put("other", &format!("{number}")).await?;
    }
    store.lab.sleep(3000).await;
    store.kept(1).await
}

async fn memory_get(lab: Lab) -> anyhow::Result<()> {
    let store = roomy(&lab).await?;
    let (mut one, mut other) = (store.client(), store.client());
    one.put("k", &large()).await?;
    for client in [&mut one, &mut other] {
        let (value, _) = client.get("k").await?;
        ensure!(value.len() == 10 * MIB, "the value has {} bytes", value.len());
    }
    one.put("k", "0").await?;
    let bytes = kept(&store).await?;
    ensure!(bytes < 10 * MIB, "{bytes} bytes are kept after the large value was overwritten");
    Ok(())
}

async fn memory_put(lab: Lab) -> anyhow::Result<()> {
    let store = roomy(&lab).await?;
    let (mut one, mut other) = (store.client(), store.client());
    one.put("k", &large()).await?;
    other.put("k", "").await?;
    let bytes = kept(&store).await?;
    ensure!(bytes < 10 * MIB, "{bytes} bytes are kept after the large value was overwritten");
    Ok(())
}

async fn memory_append(lab: Lab) -> anyhow::Result<()> {
    let store = roomy(&lab).await?;
    let (mut one, mut other) = (store.client(), store.client());
    one.append("k", &large()).await?;
    other.append("k", &large()).await?;
    let bytes = kept(&store).await?;
    ensure!(bytes <= 30 * MIB, "{bytes} bytes are kept of two appends of 10 MiB");
    Ok(())
}

/// Many clerks in this process, which share their knowledge of configurations.
pub(super) fn crowd(store: &Store, count: u64, sessions: bool) -> Vec<Clerk> {
    let connection = store.ground.connection("crowd");
    let controllers = store.ground.addresses("ctrl");
    let cache = ConfigCache::new(Arc::clone(&connection), controllers, store.lab.derive("crowd"));
    let clerk = |number| {
        let seed = store.lab.derive(&format!("crowd {number}"));
        let options = Options { seed, deadline: FOREVER, sessions };
        Clerk::with_cache(Arc::clone(&connection), cache.clone(), options)
    };
    (0..count).map(clerk).collect()
}

/// How much more the server keeps after every clerk of a crowd did something.
async fn growth<F>(store: &Store, clerks: &[Clerk], act: impl Fn(Clerk) -> F) -> anyhow::Result<usize>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let before = kept(store).await?;
    let acts = stream::iter(clerks.iter().cloned()).map(|clerk| Ok(act(clerk)));
    acts.try_buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    Ok(kept(store).await?.saturating_sub(before))
}

async fn memory_many_puts(lab: Lab) -> anyhow::Result<()> {
    const BYTES_MAX: usize = 200 * CROWD as usize;
    let store = lab.one_group(1, Some(RAFT_STATE_MAX)).await?;
    let clerks = crowd(&store, CROWD, true);
    let value = Bytes::from(vec![b'v'; 1000]);
    let put = |clerk: Clerk| {
        let (lab, value) = (lab.clone(), value.clone());
        async move {
            clerk.put("k", value).await?;
            lab.count_op();
            Ok(())
        }
    };
    let bytes = growth(&store, &clerks, put).await?;
    ensure!(
        bytes <= BYTES_MAX,
        "{CROWD} clients that put once cost {bytes} bytes, at most {BYTES_MAX} are allowed"
    );
    Ok(())
}

async fn memory_many_gets(lab: Lab) -> anyhow::Result<()> {
    const BYTES_MAX: usize = 10 * CROWD as usize;
    let store = lab.one_group(1, Some(RAFT_STATE_MAX)).await?;
    let clerks = crowd(&store, CROWD, true);
    let get = |clerk: Clerk| {
        let lab = lab.clone();
        async move {
            clerk.get("0").await?;
            lab.count_op();
            Ok(())
        }
    };
    let bytes = growth(&store, &clerks, get).await?;
    ensure!(
        bytes < BYTES_MAX,
        "{CROWD} clients that read once cost {bytes} bytes, at most {BYTES_MAX} are allowed"
    );
    Ok(())
}
