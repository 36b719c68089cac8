//! The closed loop: a number of clients, each with one call in flight, over the same keys for every
//! store.
//!
//! Keys are drawn uniformly. Sixteen keys share a hash tag and so a slot, in our store and in Redis
//! Cluster alike, so that a batch is one request to one group in both. Values are cut out of random
//! bytes, so they do not compress. Before the measured time the loop runs for a while, to warm up
//! connections, sessions and caches.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures::future::{self, LocalBoxFuture};
use hdrhistogram::Histogram;
use rand::rngs::Xoshiro256PlusPlus as Generator;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

use super::store::{Client, Done, System};
use real::{Caller, closed_loop, process, rss_bytes};

/// Keys of one hash tag, and the limit of pairs in a batch.
pub const BATCH: u64 = 16;
/// Random bytes that values are cut out of.
const POOL_BYTES: usize = 1 << 16;
/// Clients that fill a store.
const FILLERS: usize = 64;
/// A client whose call failed waits this long, to avoid spinning.
const AFTER_FAILURE: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Calls in flight at any time.
    pub clients: usize,
    /// Percentage of gets; the rest are puts.
    pub reads: u32,
    /// Puts of one call; 1: plain puts.
    pub batch: u64,
}

/// The keys, values and times of a measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// Number of keys; all exist before anything is measured.
    pub keys: u64,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Time before the measured time.
    pub warm_up: Duration,
    /// The measured time.
    pub time: Duration,
}

impl Default for Scale {
    fn default() -> Self {
        let (warm_up, time) = (Duration::from_millis(700), Duration::from_secs(3));
        Self { keys: 10_000, value_bytes: 256, warm_up, time }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Operations per second: every put of a batch counts as one.
    pub rate: f64,
    /// Median time of a call.
    pub p50_ms: f64,
    /// 99th percentile of it.
    pub p99_ms: f64,
    /// Processor time of all servers together, per operation.
    pub server_us: f64,
    /// Processor time of the client, per operation.
    pub client_us: f64,
    /// The largest resident memory of a server, at the end.
    pub rss_mib: f64,
    pub failed: u64,
}

pub fn key(number: u64) -> Bytes {
    Bytes::from(format!("{{{:07}}}{:02}", number / BATCH, number % BATCH))
}

struct Values {
    pool: Bytes,
    bytes: usize,
}

impl Values {
    fn new(bytes: usize) -> Self {
        let mut pool = vec![0; POOL_BYTES + bytes];
        Generator::seed_from_u64(1).fill_bytes(&mut pool);
        Self { pool: Bytes::from(pool), bytes }
    }

    fn draw(&self, random: &mut Generator) -> Bytes {
        let at = random.random_range(0..POOL_BYTES);
        self.pool.slice(at..at + self.bytes)
    }
}

/// Rows to be put, each once.
pub struct Rows<'a> {
    pub numbers: Range<u64>,
    pub key: &'a dyn Fn(u64) -> Bytes,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Rows per call. With more than one, `key` must give the rows of a call the same slot.
    pub batch: u64,
}

/// Puts the keys of these numbers.
///
/// # Errors
/// When a put fails.
pub async fn fill(system: &dyn System, numbers: Range<u64>, value_bytes: usize) -> Done {
    put_rows(system, &Rows { numbers, key: &key, value_bytes, batch: BATCH }).await
}

/// Puts rows, with many clients at once.
///
/// # Errors
/// When a put fails.
pub async fn put_rows(system: &dyn System, rows: &Rows<'_>) -> Done {
    let clients = system.connect(FILLERS).await?;
    let (next, values) = (Cell::new(rows.numbers.start), Values::new(rows.value_bytes));
    let filler = |(number, client)| filler(client, number as u64, rows, &next, &values);
    let all = future::try_join_all(clients.into_iter().enumerate().map(filler)).await;
    all.map(drop).with_context(|| format!("{}: filling it", system.name()))
}

/// One of the clients that fill a store: takes the next rows until there are none.
async fn filler(
    mut client: Box<dyn Client>,
    number: u64,
    rows: &Rows<'_>,
    next: &Cell<u64>,
    values: &Values,
) -> Done {
    let mut random = Generator::seed_from_u64(number);
    while next.get() < rows.numbers.end {
        let first = next.get();
        // A call never crosses the end of a slot.
        let end = rows.numbers.end.min((first + 1).next_multiple_of(rows.batch));
        next.set(end);
        let mut pairs: Vec<(Bytes, Bytes)> =
            (first..end).map(|number| ((rows.key)(number), values.draw(&mut random))).collect();
        match pairs.pop() {
            Some((key, value)) if pairs.is_empty() => client.put(key, value).await?,
            Some(last) => {
                pairs.push(last);
                client.put_batch(pairs).await?;
            }
            None => {}
        }
    }
    Ok(())
}

/// The state that all clients of a run share.
struct Run {
    work: Work,
    scale: Scale,
    values: Values,
    over: Cell<bool>,
    counting: Cell<bool>,
    latencies: RefCell<Histogram<u64>>,
    failed: Cell<u64>,
    why: RefCell<Option<anyhow::Error>>,
}

/// Runs the loop and measures it.
///
/// # Errors
/// When no client connects, or no call succeeds.
pub async fn run(system: &dyn System, work: Work, scale: Scale) -> Done<Measured> {
    let time = async {
        tokio::time::sleep(scale.time).await;
        Ok(())
    };
    Ok(run_during(system, work, scale, time).await?.0)
}

/// Runs the loop and measures it while something else happens, which begins after the warm-up.
///
/// # Errors
/// When no client connects, or no call succeeds, and those of the other work.
pub async fn run_during<T>(
    system: &dyn System,
    work: Work,
    scale: Scale,
    happening: impl Future<Output = Done<T>>,
) -> Done<(Measured, T)> {
    let pids = system.pids();
    let clients = system.connect(work.clients).await?;
    let run = Rc::new(Run {
        work,
        scale,
        values: Values::new(scale.value_bytes),
        over: Cell::new(false),
        counting: Cell::new(false),
        latencies: RefCell::new(Histogram::new_with_bounds(1, 3_600_000_000, 3)?),
        failed: Cell::new(0),
        why: RefCell::new(None),
    });
    let loops = clients.into_iter().enumerate().map(|(number, client)| run.client(number as u64, client));
    let loops: Vec<_> = loops.map(tokio::task::spawn_local).collect();

    tokio::time::sleep(scale.warm_up).await;
    run.counting.set(true);
    let me = std::process::id();
    let spent = || (process::cpu_time_of(&pids), process::cpu_time(me).unwrap_or_default());
    let (start, before) = (Instant::now(), spent());
    let happened = happening.await;
    run.counting.set(false);
    let (took, after) = (start.elapsed(), spent());
    run.over.set(true);
    for client in loops {
        client.await.context("a client ends")?;
    }
    let spent = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
    Ok((run.measured(took, spent, rss_mib(&pids))?, happened?))
}

/// The largest resident memory of a process.
pub fn rss_mib(pids: &BTreeMap<String, u32>) -> f64 {
    let largest = pids.values().filter_map(|pid| rss_bytes(*pid)).max().unwrap_or(0);
    largest as f64 / f64::from(1 << 20)
}

/// One of the clients.
struct OneClient {
    run: Rc<Run>,
    client: Box<dyn Client>,
    random: Generator,
}

impl Caller for OneClient {
    async fn call(&mut self) -> Option<Duration> {
        let start = Instant::now();
        let done = self.run.call(&mut *self.client, &mut self.random).await;
        let (run, counting) = (&self.run, self.run.counting.get());
        match done {
            Ok(()) => {
                if counting {
                    let micros = start.elapsed().as_micros() as u64;
                    run.latencies.borrow_mut().saturating_record(micros.max(1));
                }
                None
            }
            Err(error) => {
                run.failed.set(run.failed.get() + u64::from(counting));
                *run.why.borrow_mut() = Some(error);
                Some(AFTER_FAILURE)
            }
        }
    }
}

impl Run {
    fn client(self: &Rc<Self>, number: u64, client: Box<dyn Client>) -> LocalBoxFuture<'static, ()> {
        let run = Rc::clone(self);
        let random = Generator::seed_from_u64(1_000 + number);
        let one = OneClient { run: Rc::clone(self), client, random };
        Box::pin(async move { closed_loop(|| run.over.get(), None, one).await })
    }

    async fn call(&self, client: &mut dyn Client, random: &mut Generator) -> Done {
        let number = random.random_range(0..self.scale.keys);
        if random.random_range(0..100) < self.work.reads {
            if !client.get(key(number)).await? {
                bail!("key {number} is missing");
            }
            return Ok(());
        }
        if self.work.batch == 1 {
            return client.put(key(number), self.values.draw(random)).await;
        }
        let first = number / BATCH * BATCH;
        let numbers = first..first + self.work.batch.min(BATCH);
        client.put_batch(numbers.map(|number| (key(number), self.values.draw(random))).collect()).await
    }

    fn measured(&self, took: Duration, spent: (Duration, Duration), rss_mib: f64) -> Done<Measured> {
        let latencies = self.latencies.borrow();
        if latencies.is_empty() {
            let why = self.why.borrow_mut().take();
            return Err(why.unwrap_or_else(|| anyhow::anyhow!("no call ended in time")));
        }
        let operations = (latencies.len() * self.work.batch) as f64;
        let each = |spent: Duration| spent.as_secs_f64() * 1e6 / operations;
        let quantile = |share| latencies.value_at_quantile(share) as f64 / 1e3;
        Ok(Measured {
            rate: operations / took.as_secs_f64(),
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
            server_us: each(spent.0),
            client_us: each(spent.1),
            rss_mib,
            failed: self.failed.get(),
        })
    }
}

/// Runs `work` on one thread with its own runtime, where everything of a client belongs.
///
/// # Errors
/// Those of `work`, and when there is no runtime.
pub fn on_one_thread<T>(work: impl Future<Output = Done<T>>) -> Done<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(tokio::task::LocalSet::new().run_until(work))
}

#[cfg(test)]
mod tests;
