//! A group whose clients write at a steady speed, and one member that takes less (rule 133).
//!
//! First it takes a little less: writes are slowed down, by a quarter at most, and it arrives. Then
//! it takes far less: it is given up within seconds, and nobody waits for it. Then it is well: it is
//! tried again and arrives while the load goes on. Reads, and what frees space, never wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::clock::{self, Instant};
use bytes::Bytes;
use raft::config::{Config, Law};
use raft::core::pace::Standing;
use raft::rsm::toy::{Change, Command, Toy};
use raft::rsm::{ExecuteError, Replica};
use rand::RngExt;

use super::{Report, at_least};
use sim::cluster::{Bare, Cluster, Kind, Seen, Shape};
use sim::disk::Temper;
use sim::invariants;
use sim::{Failure, Name, World, run};

const GROUP: &str = "notes";
const VALUE: usize = 1 << 10;
/// What clients write: so many values each so often.
const AT_ONCE: u64 = 4;
const PERIOD: Duration = Duration::from_millis(10);
const WRITES: u64 = AT_ONCE * VALUE as u64 * 100;
const KEYS: u64 = 64;
/// A read, and a delete, take no longer than this.
const WELL: Duration = Duration::from_millis(150);
const DEADLINE: Duration = Duration::from_secs(5);

fn name(key: u64) -> String {
    format!("note {key:08}")
}

/// One run of `seed`.
///
/// # Errors
/// What it violated.
pub fn play(seed: u64) -> Result<Report, Failure> {
    let done = run(seed, |world| async move { main(world).await })?;
    Ok(Report { trace: done.trace, events: done.events, ..done.output })
}

fn shape(world: &World) -> Shape {
    let pace = Law {
        recent: Duration::from_millis(250),
        window: Duration::from_millis(400),
        patience: Duration::from_secs(3),
        calm: Duration::from_secs(1),
        retry: Duration::from_secs(8),
        level_bytes: 256 << 10,
        least: 1 << 10,
    };
    let raft = Config {
        pace,
        held_bytes_max: 64 << 10,
        unapplied_bytes_max: 32 << 10,
        in_flight_bytes_max: 64 << 10,
        chunk_bytes: 4 << 10,
        ..Config::default()
    };
    Shape { raft: raft.with_log_bytes_max(512 << 10), disks: Temper::Steady, ..Shape::drawn(world) }
}

/// Counters of the load.
#[derive(Default)]
struct Done {
    bytes: AtomicU64,
    busy: AtomicU64,
    /// The longest time of a read or a delete, in microseconds, and how many there were.
    slowest_us: AtomicU64,
    passed: AtomicU64,
}

struct Test {
    cluster: Cluster,
    done: Arc<Done>,
    slow: Name,
}

fn replica(cluster: &Cluster) -> Option<Replica<Toy>> {
    cluster.replica::<Toy>(&cluster.leader(GROUP)?.name)
}

/// Clients that write at their speed, whatever becomes of it.
async fn write(cluster: Cluster, done: Arc<Done>) {
    for number in 0_u64.. {
        clock::sleep(PERIOD).await;
        let Some(replica) = replica(&cluster) else { continue };
        for key in 0..AT_ONCE {
            let (replica, done) = (replica.clone(), Arc::clone(&done));
            let value = Bytes::from(vec![(number % 251) as u8; VALUE]);
            tokio::spawn(async move {
                let put = Command::put(name((number * AT_ONCE + key) % KEYS), value);
                match replica.execute(&put, DEADLINE).await {
                    Ok(_) => done.bytes.fetch_add(VALUE as u64, Ordering::Relaxed),
                    Err(ExecuteError::Busy) => done.busy.fetch_add(1, Ordering::Relaxed),
                    Err(_) => 0,
                };
            });
        }
    }
}

/// Reads and deletes, which never wait for a member.
async fn pass(cluster: Cluster, done: Arc<Done>) {
    for number in 0_u64.. {
        clock::sleep(PERIOD).await;
        let Some(replica) = replica(&cluster) else { continue };
        let begun = clock::now();
        let outcome = match number % 2 {
            0 => replica.query(name(number % KEYS).into(), DEADLINE).await.map(drop),
            _ => {
                let delete = Command::new(name(KEYS + number), Change::Delete);
                replica.execute_freeing(&delete, DEADLINE).await.map(drop)
            }
        };
        let took = if outcome.is_ok() { begun.elapsed() } else { DEADLINE };
        done.slowest_us.fetch_max(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        done.passed.fetch_add(1, Ordering::Relaxed);
    }
}

impl Test {
    fn leader(&self) -> Result<Seen, String> {
        self.cluster.leader(GROUP).ok_or_else(|| "nobody leads".to_owned())
    }

    /// How the slow member stands, and the pace.
    fn standing(&self) -> Result<(Standing, Option<u64>), String> {
        let status = self.leader()?.probe.status.borrow().clone();
        let names: Vec<Name> = self.cluster.names();
        let is_slow = |id: u64| names.get((id - 1) as usize) == Some(&self.slow);
        let found = status.followers.iter().find(|it| is_slow(it.id.0));
        found.map(|it| (it.standing, status.pace)).ok_or_else(|| "the slow member leads".to_owned())
    }

    /// Half a second: the bytes that were written per second meanwhile.
    async fn look(&self) -> u64 {
        let before = self.done.bytes.load(Ordering::Relaxed);
        clock::sleep(Duration::from_millis(500)).await;
        (self.done.bytes.load(Ordering::Relaxed) - before) * 2
    }

    /// Waits until the member stands so, while at least `floor` is written. Returns how many looks saw
    /// a pace.
    async fn until(&self, wanted: Standing, limit: Duration, floor: u64) -> Result<u64, String> {
        let (begun, mut paced) = (clock::now(), 0);
        loop {
            let written = self.look().await;
            let (standing, pace) = self.standing()?;
            if written < floor {
                return Err(format!(
                    "{written} bytes were written per second, the floor is {floor}: {pace:?}"
                ));
            }
            paced += u64::from(pace.is_some());
            if standing == wanted {
                return Ok(paced);
            }
            if begun.elapsed() > limit {
                return Err(format!("{} is {standing:?} after {limit:?}, not {wanted:?}", self.slow));
            }
        }
    }

    /// For so long at least `floor` is written.
    async fn keeps(&self, lasts: Duration, floor: u64) -> Result<u64, String> {
        let (until, mut paced) = (clock::now().after(lasts), 0);
        while clock::now() < until {
            let written = self.look().await;
            paced += u64::from(self.standing()?.1.is_some());
            if written < floor {
                return Err(format!("{written} bytes were written per second, the floor is {floor}"));
            }
        }
        Ok(paced)
    }
}

async fn main(world: World) -> Result<Report, String> {
    let seconds = Duration::from_secs;
    let cluster = Cluster::new(&world, shape(&world));
    invariants::watch(&cluster);
    let servers = cluster.add(Kind::Bare(Bare::new(GROUP, || Toy)), 3);
    cluster.ready(seconds(10)).await?;
    let done = Arc::<Done>::default();
    let load = [
        tokio::spawn(write(cluster.clone(), Arc::clone(&done))),
        tokio::spawn(pass(cluster.clone(), Arc::clone(&done))),
    ];
    clock::sleep(seconds(5)).await;
    let leader = cluster.leader(GROUP).ok_or("nobody leads")?.name;
    let followers: Vec<Name> = servers.into_iter().filter(|name| *name != leader).collect();
    let mut random = world.generator("slow member");
    let slow = Arc::clone(&followers[random.random_range(0..followers.len())]);
    let test = Test { cluster: cluster.clone(), done: Arc::clone(&done), slow };
    let begun: Instant = clock::now();
    // A little less than is written: a quarter is the most that it costs.
    cluster.set_table_speed(&test.slow, Some(WRITES * random.random_range(80..90) / 100));
    let paced = test.keeps(seconds(8), WRITES * 65 / 100).await?;
    at_least("looks with a pace", paced, 3)?;
    cluster.set_table_speed(&test.slow, None);
    test.until(Standing::Level, seconds(3), WRITES * 65 / 100).await?;
    clock::sleep(seconds(3)).await;
    // Far less: it is given up, and then nobody waits for it.
    cluster.set_table_speed(&test.slow, Some(WRITES * random.random_range(10..30) / 100));
    test.until(Standing::GivenUp, seconds(6), WRITES * 65 / 100).await?;
    test.keeps(seconds(1), 0).await?;
    let paced = test.keeps(seconds(4), WRITES * 90 / 100).await?;
    if paced > 0 {
        return Err("writes wait for a member that was given up".to_owned());
    }
    // It is well, and arrives although the load goes on.
    cluster.set_table_speed(&test.slow, None);
    test.until(Standing::Level, seconds(15), WRITES * 65 / 100).await?;
    load.iter().for_each(tokio::task::JoinHandle::abort);
    cluster.caught_up(seconds(5)).await?;
    let slowest = Duration::from_micros(done.slowest_us.load(Ordering::Relaxed));
    if slowest > WELL {
        return Err(format!("a read or a delete took {slowest:?}"));
    }
    at_least("reads and deletes", done.passed.load(Ordering::Relaxed), 1000)?;
    let acknowledged = done.bytes.load(Ordering::Relaxed) / VALUE as u64;
    at_least("writes", acknowledged, begun.elapsed().as_secs() * 200)?;
    Ok(Report { acknowledged, ..Report::default() })
}
