//! The nemesis: crashes, partitions and bad weather, drawn from the seed.
//!
//! Every fault ends by itself after a bounded time, so that a run makes progress between them; several
//! can overlap, and a whole group may be down at once. One kind waits until a shard is being moved and
//! then kills a leader that takes part.
//!
//! Left out on purpose: slow clocks and failing disks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use base::clock;
use rand::RngExt;
use rand::seq::SliceRandom;

use super::cluster::{Cluster, group_of};
use super::network::Weather;
use super::{Generator, Name};

/// What goes wrong, as shares.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Shares of: crash of any node, crash of a leader, crash in mid-move, crash of a whole group,
    /// partition, weather, crash of everything.
    pub shares: [u32; 7],
    /// Longest quiet time between two faults.
    pub quiet_max: Duration,
    /// Longest time a node stays down.
    pub down_max: Duration,
    /// Whether lost messages may come late and doubled.
    pub chaos: bool,
    /// Whether requests may be doubled, too.
    pub chaos_requests: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            shares: [20, 15, 35, 4, 15, 15, 1],
            quiet_max: Duration::from_millis(1500),
            down_max: Duration::from_millis(1200),
            chaos: true,
            chaos_requests: true,
        }
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Nodes killed.
    pub crashes: u64,
    /// Kills of a leader whose group had a shard on its way.
    pub interrupted: u64,
    /// Partitions.
    pub partitions: u64,
    /// Changes of weather.
    pub storms: u64,
}

#[derive(Default)]
struct Counts {
    over: AtomicBool,
    crashes: AtomicU64,
    interrupted: AtomicU64,
    partitions: AtomicU64,
    storms: AtomicU64,
}

/// The source of all trouble. Clones share it.
#[derive(Clone)]
pub struct Nemesis {
    cluster: Cluster,
    plan: Plan,
    counts: Arc<Counts>,
}

impl Nemesis {
    /// Trouble for `cluster`; it begins with [`Self::run`].
    pub fn new(cluster: &Cluster, plan: Plan) -> Self {
        Self { cluster: cluster.clone(), plan, counts: Arc::default() }
    }

    /// What was done so far.
    pub fn tally(&self) -> Tally {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Tally {
            crashes: read(&self.counts.crashes),
            interrupted: read(&self.counts.interrupted),
            partitions: read(&self.counts.partitions),
            storms: read(&self.counts.storms),
        }
    }

    fn is_over(&self) -> bool {
        self.counts.over.load(Ordering::Relaxed)
    }

    /// Ends the trouble: links healed, fair weather, everything started.
    pub fn stop(&self) {
        self.counts.over.store(true, Ordering::Relaxed);
        self.cluster.world.note("heal");
        self.cluster.network.heal();
        self.cluster.network.set_weather(Weather::default());
        self.cluster.start_all();
    }

    /// Makes trouble until [`Self::stop`].
    pub async fn run(self) {
        let mut random = self.cluster.world.generator("nemesis");
        while !self.is_over() {
            clock::sleep(self.plan.quiet_max.mul_f64(random.random())).await;
            if self.is_over() {
                break;
            }
            let names = self.cluster.names();
            let any = names[random.random_range(0..names.len())].clone();
            match pick(&mut random, &self.plan.shares) {
                0 => self.crash(&any, &mut random),
                1 => {
                    let leader = self.cluster.leader(&group_of(&any));
                    self.crash(&leader.map_or(any, |leader| leader.name), &mut random);
                }
                2 => self.crash_mid_move(&mut random).await,
                3 => {
                    let group = group_of(&any);
                    for name in names.iter().filter(|name| group_of(name) == group) {
                        self.crash(name, &mut random);
                    }
                }
                4 => self.partition(names, &mut random),
                5 => self.weather(&mut random),
                _ => names.iter().for_each(|name| self.crash(name, &mut random)),
            }
        }
    }

    /// Crashes a node; it comes back by itself.
    fn crash(&self, name: &Name, random: &mut Generator) {
        if !self.cluster.is_up(name) {
            return;
        }
        let moves = self.moving_leaders().contains(name);
        self.cluster.crash(name);
        self.counts.crashes.fetch_add(1, Ordering::Relaxed);
        self.counts.interrupted.fetch_add(u64::from(moves), Ordering::Relaxed);
        let (cluster, name) = (self.cluster.clone(), Arc::clone(name));
        let down = self.plan.down_max.mul_f64(random.random());
        tokio::spawn(async move {
            clock::sleep(down).await;
            cluster.start(&name);
        });
    }

    /// Leaders whose group has a shard on its way, in or out.
    fn moving_leaders(&self) -> Vec<Name> {
        let moves = |name: &Name| {
            let leader = self.cluster.leader(&group_of(name)).filter(|leader| leader.name == *name);
            let standing = leader.and_then(|leader| leader.probe.standing);
            standing.is_some_and(|standing| standing.borrow().shards.iter().any(|shard| !shard.settled()))
        };
        self.cluster.names().into_iter().filter(moves).collect()
    }

    async fn crash_mid_move(&self, random: &mut Generator) {
        const LOOKS: u32 = 2000;
        const LOOK: Duration = Duration::from_micros(500);
        for _ in 0..LOOKS {
            let moving = self.moving_leaders();
            if !moving.is_empty() {
                // Somewhere in the move, not always at its first step.
                clock::sleep(Duration::from_micros(random.random_range(0..4000))).await;
                let moving = self.moving_leaders();
                if let Some(name) =
                    (!moving.is_empty()).then(|| &moving[random.random_range(0..moving.len())])
                {
                    self.crash(name, random);
                    return;
                }
            }
            clock::sleep(LOOK).await;
            if self.is_over() {
                return;
            }
        }
    }

    fn partition(&self, mut names: Vec<Name>, random: &mut Generator) {
        self.counts.partitions.fetch_add(1, Ordering::Relaxed);
        names.shuffle(random);
        let (one, other) = names.split_at(random.random_range(1..names.len()));
        // One way only, now and then.
        let both = random.random_range(0..4) > 0;
        self.cluster.world.note(&format!("partition {one:?} | {other:?} both {both}"));
        let cuts: Vec<(Name, Name)> =
            one.iter().flat_map(|a| other.iter().map(move |b| (a.clone(), b.clone()))).collect();
        let set = |cluster: &Cluster, enabled: bool| {
            for (from, to) in &cuts {
                cluster.network.direct(from, to, enabled);
                if both {
                    cluster.network.direct(to, from, enabled);
                }
            }
        };
        set(&self.cluster, false);
        let lasts = Duration::from_millis(random.random_range(50..1800));
        let cluster = self.cluster.clone();
        tokio::spawn(async move {
            clock::sleep(lasts).await;
            cluster.world.note("partition over");
            cluster.network.heal();
        });
    }

    fn weather(&self, random: &mut Generator) {
        self.counts.storms.fetch_add(1, Ordering::Relaxed);
        let chaos = self.plan.chaos && random.random_bool(0.5);
        self.cluster.network.set_weather(Weather {
            unreliable: true,
            chaos,
            chaos_requests: chaos && self.plan.chaos_requests,
        });
        let lasts = Duration::from_millis(random.random_range(100..2500));
        let cluster = self.cluster.clone();
        tokio::spawn(async move {
            clock::sleep(lasts).await;
            cluster.network.set_weather(Weather::default());
        });
    }
}

fn pick(random: &mut Generator, shares: &[u32]) -> usize {
    let mut draw = random.random_range(0..shares.iter().sum());
    for (position, share) in shares.iter().enumerate() {
        if draw < *share {
            return position;
        }
        draw -= share;
    }
    0
}
