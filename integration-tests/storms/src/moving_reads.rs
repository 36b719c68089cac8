//! Scans and batches of a shard that moves all the time, while leaders crash (rules 45, 105).
//!
//! A scan in small pages finds each key that was there from beginning to end exactly once, in order. A
//! page is one point in time: the keys of a batch that fit into it have values of one batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use base::clock;
use bytes::Bytes;
use clerk::api::config::{shard_of, slot_of};
use clerk::api::ctrl::Change;
use clerk::api::kv::{Item, Write};
use clerk::api::{ConfigNum, ShardId};
use clerk::kv::Clerk;
use rand::RngExt;

use super::lost_groups::{GROUPS, SHARDS, Stage};
use super::{Report, at_least};
use sim::{Failure, World, run};

/// The shard that moves.
const MOVES: ShardId = ShardId(3);
const STABLE: usize = 40;
const BATCH: usize = 8;
const LASTS: Duration = Duration::from_secs(12);

/// A run of one seed.
///
/// # Errors
/// What it violated.
pub fn play(seed: u64) -> Result<Report, Failure> {
    let outcome = run(seed, |world| async move { read_while_it_moves(world).await });
    let done = outcome.map_err(|failure| Failure { seed, ..failure })?;
    Ok(Report { trace: done.trace, events: done.events, ..done.output })
}

/// So many keys of the shard that moves, in the order of a scan.
fn keys(prefix: &str, count: usize) -> Vec<Bytes> {
    let all = (0..).map(|number| Bytes::from(format!("{prefix}{number}")));
    let mut keys: Vec<Bytes> = all.filter(|key| shard_of(key, SHARDS) == MOVES).take(count).collect();
    keys.sort_by_key(|key| (slot_of(key), key.clone()));
    keys
}

/// What the tasks of a run share.
#[derive(Clone, Default)]
struct Shared {
    is_over: Arc<AtomicBool>,
    scans: Arc<AtomicU64>,
    batches: Arc<AtomicU64>,
}

async fn read_while_it_moves(world: World) -> Result<Report, String> {
    let stage = Stage::set(&world).await?;
    for key in keys("stable-", STABLE) {
        stage.clerk.put(key.clone(), key).await.map_err(|error| error.to_string())?;
    }
    let shared = Shared::default();
    let scanner = |name: &str, pages| {
        let (clerk, shared, random) = (stage.clerk_named(name), shared.clone(), world.generator(name));
        tokio::spawn(scan(clerk, shared, random, pages))
    };
    let tasks = [
        scanner("small pages", 1..=7),
        scanner("large pages", 100..=200),
        tokio::spawn(batches(stage.clerk_named("batches"), shared.clone())),
    ];
    let mut random = world.generator("moves");
    let start = clock::now();
    let mut moves = 0;
    while start.elapsed() < LASTS {
        let group = GROUPS[random.random_range(0..GROUPS.len())];
        let before = stage.config().await?;
        let after = stage.change(Change::Move { shard: MOVES, group }).await?;
        moves += u64::from(after > before);
        clock::sleep(Duration::from_millis(random.random_range(5..300))).await;
        if random.random_bool(0.1) {
            let group = GROUPS[random.random_range(0..GROUPS.len())];
            if let Some(leader) = stage.cluster.leader(&group.to_string()) {
                stage.cluster.crash(&leader.name);
                clock::sleep(Duration::from_millis(random.random_range(0..200))).await;
                stage.cluster.start_all();
            }
        }
    }
    shared.is_over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.map_err(|error| error.to_string())??;
    }
    stage.settle(&GROUPS).await?;
    at_least("moves", moves, 10)?;
    at_least("scans", shared.scans.load(Ordering::Relaxed), 20)?;
    at_least("batches", shared.batches.load(Ordering::Relaxed), 20)?;
    let ConfigNum(configs) = stage.config().await?;
    let acknowledged = shared.batches.load(Ordering::Relaxed);
    Ok(Report { configs, acknowledged, ..Report::default() })
}

/// Scans the shard again and again.
async fn scan(
    clerk: Clerk,
    shared: Shared,
    mut random: sim::Generator,
    pages: std::ops::RangeInclusive<u32>,
) -> Result<(), String> {
    let (stable, batch) = (keys("stable-", STABLE), keys("batch-", BATCH));
    while !shared.is_over.load(Ordering::Relaxed) {
        let mut found: Vec<Item> = Vec::new();
        loop {
            let after = found.last().map(|item| item.key.clone());
            let page = clerk.scan(MOVES, after, random.random_range(pages.clone())).await;
            let page = page.map_err(|error| format!("a page after {} rows: {error}", found.len()))?;
            one_point(&page.items, &batch)?;
            found.extend(page.items);
            if page.done {
                break;
            }
        }
        let place = |item: &Item| (slot_of(&item.key), item.key.clone());
        if !found.is_sorted_by(|one, other| place(one) < place(other)) {
            return Err("a scan is not in order".to_owned());
        }
        let there: Vec<&Bytes> =
            found.iter().filter(|item| item.key.starts_with(b"stable-")).map(|item| &item.key).collect();
        if there != stable.iter().collect::<Vec<_>>() {
            return Err(format!("a scan found {there:?} of {stable:?}"));
        }
        let changed = found.iter().find(|item| item.key.starts_with(b"stable-") && item.key != item.value);
        if let Some(item) = changed {
            return Err(format!("a scan found {item:?}"));
        }
        shared.scans.fetch_add(1, Ordering::Relaxed);
        clock::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// The keys of a batch that are in one page have values of one batch.
fn one_point(page: &[Item], batch: &[Bytes]) -> Result<(), String> {
    let mut values: Vec<&Bytes> =
        page.iter().filter(|item| batch.contains(&item.key)).map(|item| &item.value).collect();
    values.dedup();
    match values.len() {
        0 | 1 => Ok(()),
        _ => Err(format!("one page has values of several batches: {values:?}")),
    }
}

/// Writes all keys of the batch with one value, again and again.
async fn batches(clerk: Clerk, shared: Shared) -> Result<(), String> {
    let batch = keys("batch-", BATCH);
    for number in 0_u64.. {
        if shared.is_over.load(Ordering::Relaxed) {
            break;
        }
        let value = Bytes::from(format!("batch {number}"));
        let write = |key: &Bytes| (key.clone(), Write::Put { value: value.clone(), expected: None });
        let versions = clerk.batch(batch.iter().map(write)).await;
        // An outcome that is unknown is possible where a leader crashes, and a lost one is not.
        if versions.iter().all(Result::is_ok) {
            shared.batches.fetch_add(1, Ordering::Relaxed);
        }
        clock::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
