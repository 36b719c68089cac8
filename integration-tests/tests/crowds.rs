//! Strangers by the thousand, and what an honest client and the servers' memory notice of them (rules 101 and 103).
//!
//! `make crowd` has all of them, and its numbers count. Beside other tests there are fewer, and only what surely holds
//! on a busy machine is judged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt as _, SeedableRng as _};
use real::{Client, Cluster, MemoryWatch, Target, Writes, alone};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

const MIB: u64 = 1 << 20;
const VALUE: usize = 64 << 10;
const VALUES: u64 = 200;
/// Each server may grow by so much.
const GROWTH_MAX: u64 = 256 * MIB;
const P99_MAX: Duration = Duration::from_millis(100);

/// Strangers of a server; they come again when they are closed.
struct Crowd {
    over: Arc<AtomicBool>,
    dials: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

/// What one of them does.
#[derive(Clone, Copy, Debug)]
enum Stranger {
    /// Connects, and says nothing.
    Silent,
    /// Begins a Hello, and never ends it.
    HalfHello,
    /// Is a client, and asks nothing.
    Idle,
    /// Sends a large frame a few bytes at a time.
    Slow,
    /// Asks for large values, and takes nothing.
    Deaf,
    /// Sends what is no frame.
    Garbage,
}

use Stranger::{Deaf, Garbage, HalfHello, Idle, Silent, Slow};
const ALL: [Stranger; 6] = [Silent, HalfHello, Idle, Slow, Deaf, Garbage];

/// A get of one of the large values, as docs/formats.md says.
fn get(id: u64, group: u64, key: &str) -> Vec<u8> {
    let mut body = vec![2, 0, 0, 0, 0];
    body.extend(id.to_le_bytes());
    body.extend(60_000_u32.to_le_bytes());
    body.extend(0_u32.to_le_bytes());
    body.extend(group.to_le_bytes());
    body.extend(1_u32.to_le_bytes());
    body.extend((key.len() as u64).to_le_bytes());
    body.extend(key.as_bytes());
    body.extend(1_u64.to_le_bytes());
    body.push(0);
    framed(&body)
}

/// Of a client of group 101.
fn hello(cluster: &str) -> Vec<u8> {
    let field = |tag: u16, value: &[u8]| {
        [&tag.to_le_bytes()[..], &(value.len() as u16).to_le_bytes(), value].concat()
    };
    let numbers = [&b"clrk\x01"[..], &2_u16.to_le_bytes(), &1_u32.to_le_bytes()].concat();
    let (service, group) = (1_u64.to_le_bytes(), 101_u64.to_le_bytes());
    framed(&[numbers, field(1, cluster.as_bytes()), field(2, &service), field(3, &group)].concat())
}

fn framed(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(4 + body.len()).expect("small");
    [&length.to_be_bytes()[..], &crc32fast::hash(body).to_be_bytes(), body].concat()
}

impl Stranger {
    /// One connection, until it is closed.
    async fn visit(
        self,
        address: &str,
        cluster: &str,
        random: &mut Xoshiro256PlusPlus,
    ) -> std::io::Result<()> {
        let socket = TcpSocket::new_v4()?;
        if let Deaf = self {
            socket.set_recv_buffer_size(4096)?;
        }
        let mut stream = socket.connect(address.parse().expect("an address")).await?;
        let hello = hello(cluster);
        match self {
            Silent => {}
            HalfHello => stream.write_all(&hello[..20]).await?,
            Garbage => stream.write_all(&[0xaa; 64]).await?,
            Idle | Slow | Deaf => stream.write_all(&hello).await?,
        }
        if let Deaf = self {
            for id in 0..64 {
                let key = format!("{{large}}{:08}", random.random_range(0..VALUES));
                stream.write_all(&get(id, 101, &key)).await?;
            }
            std::future::pending::<()>().await;
        }
        if let Slow = self {
            stream.write_all(&(32_u32 << 20).to_be_bytes()).await?;
            loop {
                stream.write_all(&[1; 1024]).await?;
                tokio::time::sleep(Duration::from_millis(random.random_range(100..1000))).await;
            }
        }
        let mut bytes = [0; 256];
        while stream.read(&mut bytes).await? > 0 {}
        Ok(())
    }
}

impl Crowd {
    fn start(target: &Target, address: &str, count: usize) -> Self {
        let (over, dials) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stop, counter) = (Arc::clone(&over), Arc::clone(&dials));
        let (cluster, address) = (target.cluster.clone(), address.to_owned());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("one");
            runtime.block_on(async move {
                let mut strangers = JoinSet::new();
                for number in 0..count {
                    let (cluster, address, counter) = (cluster.clone(), address.clone(), counter.clone());
                    strangers.spawn(async move {
                        let mut random = Xoshiro256PlusPlus::seed_from_u64(number as u64);
                        loop {
                            counter.fetch_add(1, Ordering::Relaxed);
                            let _ = ALL[number % ALL.len()].visit(&address, &cluster, &mut random).await;
                            tokio::time::sleep(Duration::from_millis(random.random_range(500..2000))).await;
                        }
                    });
                }
                while !stop.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        });
        Self { over, dials, thread }
    }

    /// How often they connected.
    fn finish(self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the strangers leave");
        self.dials.load(Ordering::Relaxed)
    }
}

/// This process holds the strangers' ends.
fn raise_own_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("the limit is raised");
}

/// Strangers come to the leader of a group while somebody puts.
fn an_honest_client_among(descriptors: u32) {
    let _machine = alone();
    let asked = std::env::var("CROWD").ok();
    let count = asked.as_ref().map_or(300, |count| count.parse().expect("CROWD is a number"));
    raise_own_limit();
    let cluster = Cluster::up_with_descriptors(descriptors, &["--groups", "1"]);
    let (target, client) = (cluster.target(), Client::new(&cluster.target()));
    client.fill("large", VALUES, VALUE);
    let status = cluster.await_health();
    let leader = status.group(101).iter().find(|replica| replica.leads()).expect("a leader").clone();
    let writes = Writes::start(&target, 200, 100, 100);
    std::thread::sleep(Duration::from_secs(2));
    writes.lap();
    std::thread::sleep(Duration::from_secs(3));
    let (_, before) = writes.lap();
    let pids = cluster.pids();
    let memory = MemoryWatch::start(&pids);
    let crowd = Crowd::start(&target, &leader.address, count);
    std::thread::sleep(Duration::from_secs(10));
    let (puts, among) = writes.lap();
    let growth = memory.finish();
    let (dials, failed) = (crowd.finish(), writes.finish());
    let largest = growth.iter().max_by_key(|growth| growth.bytes()).expect("servers");
    println!(
        "{count} strangers, {dials} connections, {descriptors} descriptors: p99 of puts {before:?}, then {among:?} \
         ({puts} puts, {failed} failed); {largest}"
    );
    assert_eq!(failed, 0);
    assert!(puts > 500, "vacuous: {puts} puts");
    assert!(largest.bytes() < GROWTH_MAX, "{largest}");
    // (How fast it is beside other tests says nothing about the product.)
    assert!(asked.is_none() || among < P99_MAX, "p99 {among:?}");
    client.check_filled("large", VALUES, VALUE);
    assert_eq!(cluster.pids(), pids, "no process was started anew");
}

#[test]
fn hostile_silent_and_slow_connections_delay_nobody_and_take_little_memory() {
    an_honest_client_among(65_536);
}

#[test]
fn strangers_delay_nobody_where_servers_have_256_descriptors() {
    an_honest_client_among(256);
}
