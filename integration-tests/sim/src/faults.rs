//! The nemesis: crashes, partitions and bad weather, drawn from the seed.
//!
//! Every fault ends on its own after a bounded time, so that a run makes progress between faults.
//! Several can overlap, and a whole group may be down at once. One kind waits until a shard is
//! being moved and then kills a leader that takes part.
//!
//! Left out on purpose: clocks that drift.

mod harm;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use base::clock;
use rand::RngExt;
use rand::seq::SliceRandom;

use super::cluster::{Cluster, group_of};
use super::network::Weather;
use super::{Generator, Name};

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Some node crashes.
    Crash,
    /// The leader of some group crashes.
    CrashLeader,
    /// A leader crashes while its group has a shard on its way.
    CrashMidMove,
    /// All nodes of a group crash.
    CrashGroup,
    /// A group crashes just after its leader committed something, and the leader stays down for a
    /// long time.
    LoseLeader,
    /// Everything crashes.
    CrashAll,
    /// Two halves of all nodes do not hear each other, or only one half does not hear the other.
    Partition,
    /// Messages are delayed, lost, duplicated, late.
    Weather,
    /// Synced writes take up to forty times as long.
    SlowDisks,
    /// The table of a server takes milliseconds for each write.
    SlowTable,
    /// The disk of a server is nearly full.
    FullDisk,
    /// A server is away so long that it lacks more than others keep for it.
    LongRestart,
    /// A leader's disk stalls for longer than an election takes, most often while it is cut off.
    StallLeader,
    /// A server crashes, and its log loses what its last saves wrote (correctness rule 62). In each
    /// group it is the same server each time: if a majority owes entries that nobody has, nobody
    /// may lead the group.
    DamageTail,
    /// A server is set back to an older state of its disk, without a trace, while a leader that
    /// knows its newer state is present (rule 63).
    SetBack,
}

/// What goes wrong, how often and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The faults with their shares.
    pub shares: &'static [(Fault, u32)],
    /// Longest quiet time between two faults.
    pub quiet_max: Duration,
    /// The longest time a node usually stays down.
    pub down_max: Duration,
    /// Whether Raft's lost messages may arrive late and duplicated.
    pub chaos: bool,
    /// Whether requests may be duplicated too.
    pub chaos_requests: bool,
}

impl Plan {
    /// A plan with these shares.
    pub fn of(shares: &'static [(Fault, u32)]) -> Self {
        Self {
            shares,
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
    /// Logs that lost saves.
    pub damaged: u64,
    /// Servers that were set back.
    pub set_back: u64,
}

#[derive(Default)]
struct Counts {
    over: AtomicBool,
    crashes: AtomicU64,
    interrupted: AtomicU64,
    partitions: AtomicU64,
    storms: AtomicU64,
    damaged: AtomicU64,
    set_back: AtomicU64,
}

/// The source of all faults. Clones share it.
#[derive(Clone)]
pub struct Nemesis {
    cluster: Cluster,
    plan: Plan,
    counts: Arc<Counts>,
}

impl Nemesis {
    /// Faults for `cluster`; they begin with [`Self::run`].
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
            damaged: read(&self.counts.damaged),
            set_back: read(&self.counts.set_back),
        }
    }

    fn is_over(&self) -> bool {
        self.counts.over.load(Ordering::Relaxed)
    }

    /// Ends the faults: links healed, fair weather, everything started.
    pub fn stop(&self) {
        self.counts.over.store(true, Ordering::Relaxed);
        self.cluster.world.note("heal");
        self.cluster.network.heal();
        self.cluster.network.set_weather(Weather::default());
        self.cluster.mend_disks();
        self.cluster.start_all();
    }

    /// Makes faults until [`Self::stop`].
    pub async fn run(self) {
        let mut random = self.cluster.world.generator("nemesis");
        let mut frail = BTreeMap::new();
        while !self.is_over() {
            clock::sleep(self.plan.quiet_max.mul_f64(random.random())).await;
            if self.is_over() {
                break;
            }
            let names = self.cluster.names();
            let any = names[random.random_range(0..names.len())].clone();
            let members = names.iter().filter(|name| group_of(name) == group_of(&any)).cloned();
            let group: Vec<Name> = members.collect();
            match pick(&mut random, self.plan.shares) {
                Fault::Crash => self.crash(&any, &mut random),
                Fault::CrashLeader => {
                    let leader = self.cluster.leader(&group_of(&any));
                    self.crash(&leader.map_or(any, |leader| leader.name), &mut random);
                }
                Fault::CrashMidMove => self.crash_mid_move(&mut random).await,
                Fault::CrashGroup => group.iter().for_each(|name| self.crash(name, &mut random)),
                Fault::LoseLeader => self.lose_leader(&any, group, &mut random).await,
                Fault::CrashAll => names.iter().for_each(|name| self.crash(name, &mut random)),
                Fault::Partition => self.partition(names, &mut random),
                Fault::Weather => self.weather(&mut random),
                Fault::SlowDisks => {
                    self.cluster.set_slow_disks(true);
                    let lasts = Duration::from_millis(random.random_range(500..3000));
                    self.later(lasts, |cluster| cluster.set_slow_disks(false));
                }
                Fault::SlowTable => {
                    self.cluster.set_slow_table(&any, true);
                    let lasts = Duration::from_millis(random.random_range(500..4000));
                    self.later(lasts, move |cluster| cluster.set_slow_table(&any, false));
                }
                Fault::FullDisk => {
                    self.cluster.set_disk_low(&any, true);
                    let lasts = Duration::from_millis(random.random_range(200..3000));
                    self.later(lasts, move |cluster| cluster.set_disk_low(&any, false));
                }
                Fault::LongRestart => {
                    self.crash_for(&any, Duration::from_millis(random.random_range(2000..5000)));
                }
                Fault::StallLeader => self.stall_leader(&any, group, &mut random),
                Fault::DamageTail => {
                    let name = frail.entry(group_of(&any)).or_insert(any);
                    self.damage_tail(name, &mut random);
                }
                Fault::SetBack => self.set_back(&any, &mut random).await,
            }
        }
    }

    /// Does something after a while.
    fn later(&self, lasts: Duration, what: impl FnOnce(&Cluster) + Send + 'static) {
        let cluster = self.cluster.clone();
        tokio::spawn(async move {
            clock::sleep(lasts).await;
            what(&cluster);
        });
    }

    /// Crashes a node; it restarts on its own.
    fn crash(&self, name: &Name, random: &mut Generator) {
        self.crash_for(name, self.plan.down_max.mul_f64(random.random()));
    }

    fn crash_for(&self, name: &Name, down: Duration) {
        if !self.cluster.is_up(name) {
            return;
        }
        let moves = self.moving_leaders().contains(name);
        self.cluster.crash(name);
        self.counts.crashes.fetch_add(1, Ordering::Relaxed);
        self.counts.interrupted.fetch_add(u64::from(moves), Ordering::Relaxed);
        let name = Arc::clone(name);
        self.later(down, move |cluster| cluster.start(&name));
    }

    /// By then the entries that the leader acknowledged must be on disks: nobody else may know that
    /// they are committed.
    async fn lose_leader(&self, any: &Name, group: Vec<Name>, random: &mut Generator) {
        const COMMIT_WITHIN: Duration = Duration::from_millis(500);
        let Some(leader) = self.cluster.leader(&group_of(any)) else { return };
        let mut status = leader.probe.status;
        let commit = status.borrow().commit;
        let committed = status.wait_for(|status| status.commit > commit);
        let _ = clock::timeout(COMMIT_WITHIN, committed).await;
        clock::sleep(Duration::from_micros(random.random_range(0..600))).await;
        for name in group {
            let down_ms = if name == leader.name { 1500..3000 } else { 1..60 };
            self.crash_for(&name, Duration::from_millis(random.random_range(down_ms)));
        }
    }

    /// A leader that was away must not continue as if it still led (correctness rule 6).
    fn stall_leader(&self, any: &Name, group: Vec<Name>, random: &mut Generator) {
        let Some(leader) = self.cluster.leader(&group_of(any)) else { return };
        let lasts = Duration::from_millis(random.random_range(600..2500));
        let name = leader.name;
        self.cluster.world.note(&format!("stall {name}"));
        self.cluster.stall(&name, lasts);
        if random.random_bool(0.7) {
            let set = move |cluster: &Cluster, enabled: bool| {
                for peer in group.iter().filter(|peer| **peer != name) {
                    cluster.network.link(&name, peer, enabled);
                }
            };
            set(&self.cluster, false);
            let longer = Duration::from_millis(random.random_range(0..200));
            self.later(lasts + longer, move |cluster| set(cluster, true));
        }
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
                // At any point of the move, not always at its first step.
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
        // Sometimes one way only.
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
        self.later(lasts, |cluster| {
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
            ..Weather::default()
        });
        let lasts = Duration::from_millis(random.random_range(100..2500));
        self.later(lasts, |cluster| cluster.network.set_weather(Weather::default()));
    }
}

fn pick(random: &mut Generator, shares: &[(Fault, u32)]) -> Fault {
    let mut draw = random.random_range(0..shares.iter().map(|(_, share)| share).sum());
    for (fault, share) in shares {
        if draw < *share {
            return *fault;
        }
        draw -= share;
    }
    Fault::Crash
}
