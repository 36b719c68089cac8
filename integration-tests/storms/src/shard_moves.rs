//! Three groups between which shards move all the time, under every fault.
//!
//! [`play`]: a random Join, Leave or Move every 200 to 800 ms for thirty virtual seconds, clients
//! that read, write, append, delete and write conditionally, and the nemesis. The history must be
//! linearizable with every acknowledged operation in it exactly once; after healing every shard
//! answers within two seconds. A run in which too little happened fails as vacuous.
//!
//! [`idle_restart`]: everything restarts in mid-move with no client connected, and the move
//! continues (correctness rules 12, 41). [`rings`]: all shards go round a ring of groups at once
//! (rule 40).

use std::collections::BTreeMap;
use std::time::Duration;

use base::clock;
use clerk::api::config::{NewGroup, shard_of};
use clerk::api::ctrl::Change;
use clerk::api::{GroupId, ShardId};
use rand::RngExt;
use tokio::task::JoinHandle;

use super::raft_faults::judge;
use super::{Report, at_least};
use judge::history::Op;
use sim::clerks::{Admin, KvStore};
use sim::cluster::{Cluster, Kind, Shape};
use sim::faults::{Fault, Nemesis, Plan};
use sim::invariants;
use sim::workload::{Answer, Mix, Recorder, Request, Store};
use sim::{Failure, Generator, World, run};

const GROUPS: [GroupId; 3] = [GroupId(101), GroupId(102), GroupId(103)];
const REPLICAS: u64 = 3;
const SHARDS: u32 = 10;
const CLIENTS: u64 = 14;
/// Clients that send batches.
const BATCHING_CLIENTS: u64 = 2;
/// Writes of a batch.
const BATCH: usize = 4;
const KEYS_PER_SHARD: usize = 2;
/// The length of a run; longer while too little has happened in it, but not forever.
const LASTS: Duration = Duration::from_secs(32);
const LASTS_MAX: Duration = Duration::from_secs(60);
/// The required number of configurations in a run.
const CONFIGS_MIN: u64 = 20;
const CRASHES_MIN: u64 = 10;
const ACKNOWLEDGED_MIN: u64 = 2000;
const INTERRUPTED_MIN: u64 = 5;
/// After healing every shard answers within this time.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// The faults while shards move at random.
const FAULTS: &[(Fault, u32)] = &[
    (Fault::Crash, 18),
    (Fault::CrashLeader, 15),
    (Fault::CrashMidMove, 32),
    (Fault::CrashGroup, 3),
    (Fault::LoseLeader, 4),
    (Fault::CrashAll, 1),
    (Fault::Partition, 12),
    (Fault::Weather, 14),
    (Fault::SlowDisks, 5),
    (Fault::StallLeader, 4),
    (Fault::DamageTail, 8),
    (Fault::SetBack, 2),
];
/// The faults while shards go round.
const CRASHES: &[(Fault, u32)] = &[(Fault::Crash, 5), (Fault::CrashLeader, 20), (Fault::CrashMidMove, 75)];

/// A cluster with its controllers and groups, all groups known to the admin.
pub(super) struct Stage {
    pub(super) world: World,
    pub(super) cluster: Cluster,
    pub(super) admin: Admin,
    newcomers: BTreeMap<GroupId, NewGroup>,
    recorder: Recorder,
    keys: Vec<String>,
}

impl Stage {
    pub(super) async fn set(world: World) -> Result<Self, String> {
        let cluster = Cluster::new(&world, Shape::drawn(&world));
        invariants::watch(&cluster);
        cluster.add(Kind::Ctrl, REPLICAS);
        for group in GROUPS {
            cluster.add(Kind::Kv(group), REPLICAS);
        }
        cluster.ready(Duration::from_secs(10)).await?;
        let admin = Admin::new(&cluster);
        let mut newcomers = BTreeMap::new();
        for group in GROUPS {
            let addresses = cluster.addresses(&group.to_string());
            newcomers.insert(group, admin.newcomer(group, addresses).await?);
        }
        let keys = keys();
        Ok(Self { world, cluster, admin, newcomers, recorder: Recorder::default(), keys })
    }

    pub(super) fn join(&self, groups: &[GroupId]) -> Change {
        let wanted = |group: &GroupId| (*group, self.newcomers[group].clone());
        Change::Join(groups.iter().map(wanted).collect())
    }

    pub(super) fn clients(&self, mix: &Mix) -> Vec<JoinHandle<()>> {
        let client = |number| {
            let name = format!("client {number}");
            let store = Box::new(KvStore::new(&self.cluster, &name));
            tokio::spawn(self.recorder.clone().client(store, mix.clone(), self.world.derive(&name)))
        };
        let batching = |number| {
            let name = format!("batching client {number}");
            let store = KvStore::new(&self.cluster, &name);
            let random = self.world.generator(&name);
            tokio::spawn(batches(self.recorder.clone(), store, mix.clone(), random))
        };
        (0..CLIENTS).map(client).chain((0..BATCHING_CLIENTS).map(batching)).collect()
    }

    pub(super) fn mix(&self, think_max: Duration) -> Mix {
        Mix { shares: [30, 20, 35, 5, 10], keys: self.keys.clone(), think_max }
    }

    /// Reads every key, each with a separate client, within `limit`.
    async fn read_all(&self, limit: Duration) -> Result<(), String> {
        let start = clock::now();
        let reads: Vec<_> = self
            .keys
            .iter()
            .map(|key| {
                let name = format!("reader of {key} at {}", start.as_nanos());
                let mut store = KvStore::new(&self.cluster, &name);
                let request = Request { op: Op::Get, key: key.clone(), value: None, expected: None };
                let (recorder, client) = (self.recorder.clone(), self.recorder.new_client());
                tokio::spawn(async move {
                    let answer = recorder.run(client, &mut store as &mut dyn Store, &request).await;
                    (request.key, answer, start.elapsed())
                })
            })
            .collect();
        for read in reads {
            let (key, answer, took) = read.await.map_err(|error| error.to_string())?;
            if !matches!(answer, Answer::Done { .. }) || took > limit {
                return Err(format!("after healing {key} was answered {answer:?} after {took:?}"));
            }
        }
        Ok(())
    }

    /// Waits until every group's leader has adopted the newest configuration and is settled in it.
    async fn settle(&self, limit: Duration) -> Result<(), String> {
        const LOOK: Duration = Duration::from_millis(2);
        let start = clock::now();
        loop {
            let waiting: Vec<String> = GROUPS.iter().filter_map(|group| self.waits_for(*group)).collect();
            if waiting.is_empty() {
                return Ok(());
            }
            if start.elapsed() > limit {
                return Err(format!("not settled after {limit:?}: {}", waiting.join("; ")));
            }
            clock::sleep(LOOK).await;
        }
    }

    /// Whether enough has happened.
    fn is_full(&self, nemesis: &Nemesis) -> bool {
        let tally = nemesis.tally();
        let configs = self.admin.newest_made(&self.cluster).map_or(0, |num| num.0);
        configs >= CONFIGS_MIN
            && tally.crashes >= CRASHES_MIN
            && tally.interrupted >= INTERRUPTED_MIN
            && self.recorder.acknowledged() >= ACKNOWLEDGED_MIN
    }

    fn waits_for(&self, group: GroupId) -> Option<String> {
        let newest = self.admin.newest_made(&self.cluster);
        let Some(leader) = self.cluster.leader(&group.to_string()) else {
            return Some(format!("group {group} has no leader"));
        };
        let standing = leader.probe.standing?.borrow().clone();
        let open = standing.shards.iter().enumerate().find(|(_, state)| !state.settled());
        match open {
            Some((shard, state)) => Some(format!("group {group}: shard {shard} is {state:?}")),
            None if standing.config != newest => {
                Some(format!("group {group} is at configuration {:?} of {newest:?}", standing.config))
            }
            None => None,
        }
    }

    pub(super) async fn finish(
        self,
        clients: Vec<JoinHandle<()>>,
        nemesis: Option<&Nemesis>,
    ) -> Result<Report, String> {
        self.recorder.stop();
        for client in clients {
            let _ = client.await;
        }
        self.settle(Duration::from_secs(20)).await?;
        self.read_all(ANSWERS_WITHIN).await?;
        self.cluster.caught_up(Duration::from_secs(5)).await?;
        judge(&self.recorder)?;
        Ok(Report {
            acknowledged: self.recorder.acknowledged(),
            configs: self.admin.newest_made(&self.cluster).map_or(0, |num| num.0),
            tally: nemesis.map(Nemesis::tally).unwrap_or_default(),
            ..Report::default()
        })
    }
}

/// A client that sends batches until the recorder stops: appends and puts, sometimes to one shard,
/// sometimes to several.
async fn batches(recorder: Recorder, store: KvStore, mix: Mix, mut random: Generator) {
    let mut clients: Vec<u64> = (0..BATCH).map(|_| recorder.new_client()).collect();
    for number in 0_u64.. {
        clock::sleep(2 * mix.think_max.mul_f64(random.random())).await;
        if recorder.is_over() {
            return;
        }
        let home = random.random_range(0..mix.keys.len() / KEYS_PER_SHARD) * KEYS_PER_SHARD;
        let near = random.random_bool(0.5);
        let mut request = |client: &u64| {
            let key = if near {
                home + random.random_range(0..KEYS_PER_SHARD)
            } else {
                random.random_range(0..mix.keys.len())
            };
            let op = if random.random_bool(0.7) { Op::Append } else { Op::Put };
            let value = Some(format!("[{client}.{number}]"));
            Request { op, key: mix.keys[key].clone(), value, expected: None }
        };
        let requests: Vec<Request> = clients.iter().map(&mut request).collect();
        let answers = recorder.run_batch(&clients, &store, &requests).await;
        for (client, answer) in clients.iter_mut().zip(answers) {
            if answer == Answer::Unknown {
                *client = recorder.new_client();
            }
        }
    }
}

/// Keys, the same number in each shard.
fn keys() -> Vec<String> {
    let mut found: BTreeMap<ShardId, Vec<String>> = BTreeMap::new();
    for number in 0_u32.. {
        let key = format!("k{number}");
        let shard = found.entry(shard_of(key.as_bytes(), SHARDS)).or_default();
        if shard.len() < KEYS_PER_SHARD {
            shard.push(key);
        }
        if found.len() == SHARDS as usize && found.values().all(|keys| keys.len() == KEYS_PER_SHARD) {
            break;
        }
    }
    found.into_values().flatten().collect()
}

fn played(seed: u64, outcome: Result<sim::Run<Report>, Failure>) -> Result<Report, Failure> {
    let done = outcome.map_err(|failure| Failure { seed, ..failure })?;
    Ok(Report { trace: done.trace, events: done.events, ..done.output })
}

/// Random moves under all faults.
///
/// # Errors
/// What it violated.
pub fn play(seed: u64) -> Result<Report, Failure> {
    played(seed, run(seed, |world| async move { random_moves(world).await }))
}

async fn random_moves(world: World) -> Result<Report, String> {
    let stage = Stage::set(world).await?;
    let mut random = stage.world.generator("admin");
    stage.admin.change(stage.join(&GROUPS)).await;
    let clients = stage.clients(&stage.mix(Duration::from_millis(50)));
    let nemesis = Nemesis::new(&stage.cluster, Plan::of(FAULTS));
    let trouble = tokio::spawn(nemesis.clone().run());
    let start = clock::now();
    let mut joined = GROUPS.to_vec();
    while start.elapsed() < LASTS || (start.elapsed() < LASTS_MAX && !stage.is_full(&nemesis)) {
        clock::sleep(Duration::from_millis(random.random_range(200..800))).await;
        let may_empty = start.elapsed() < LASTS.mul_f64(0.8);
        let change = draw_change(&stage, &mut random, &mut joined, may_empty);
        stage.admin.change(change).await;
    }
    if joined.is_empty() {
        stage.admin.change(stage.join(&GROUPS)).await;
    }
    nemesis.stop();
    let _ = trouble.await;
    nemesis.stop();
    let healed = clock::now();
    stage.read_all(ANSWERS_WITHIN).await?;
    stage.world.note(&format!("answered after {:?}", healed.elapsed()));
    let report = stage.finish(clients, Some(&nemesis)).await?;
    at_least("configurations", report.configs, CONFIGS_MIN)?;
    at_least("crashes", report.tally.crashes, CRASHES_MIN)?;
    at_least("acknowledged operations", report.acknowledged, ACKNOWLEDGED_MIN)?;
    at_least("moves interrupted by a crash", report.tally.interrupted, INTERRUPTED_MIN)?;
    Ok(report)
}

/// A change that fits, as far as the admin knows; after an unknown outcome it may be wrong.
fn draw_change(stage: &Stage, random: &mut Generator, joined: &mut Vec<GroupId>, may_empty: bool) -> Change {
    let away: Vec<GroupId> = GROUPS.iter().filter(|group| !joined.contains(group)).copied().collect();
    let leave = random.random_range(0..100);
    if joined.is_empty() || (!away.is_empty() && leave < 40) {
        let some: Vec<GroupId> = away.into_iter().filter(|_| random.random_bool(0.7)).collect();
        let some = if some.is_empty() { GROUPS.to_vec() } else { some };
        let change = stage.join(&some);
        joined.extend(some);
        joined.sort_unstable();
        joined.dedup();
        return change;
    }
    let last = joined.len() == 1;
    if (!last && leave < 70) || (last && may_empty && leave < 48) {
        let group = joined.swap_remove(random.random_range(0..joined.len()));
        return Change::Leave { groups: [group].into(), force: true };
    }
    let group = joined[random.random_range(0..joined.len())];
    Change::Move { shard: ShardId(random.random_range(0..SHARDS)), group }
}

/// Everything restarts in mid-move, with no client connected.
///
/// # Errors
/// What it violated.
pub fn idle_restart(seed: u64) -> Result<Report, Failure> {
    played(seed, run(seed, |world| async move { restart_in_mid_move(world).await }))
}

async fn restart_in_mid_move(world: World) -> Result<Report, String> {
    const ROUNDS: usize = 6;
    let stage = Stage::set(world).await?;
    let mut random = stage.world.generator("admin");
    stage.admin.change(stage.join(&GROUPS[..2])).await;
    let clients = stage.clients(&stage.mix(Duration::from_millis(5)));
    clock::sleep(Duration::from_secs(2)).await;
    stage.recorder.stop();
    for client in clients {
        let _ = client.await;
    }
    let mut interrupted = 0;
    for round in 0..ROUNDS {
        let away = GROUPS[(round + 2) % 3];
        let back = GROUPS[round % 3];
        let change = stage.join(&[away]);
        stage.admin.change(change).await;
        stage.settle(Duration::from_secs(10)).await?;
        stage.admin.change(Change::Leave { groups: [back].into(), force: false }).await;
        clock::sleep(Duration::from_micros(random.random_range(0..8000))).await;
        interrupted += u64::from(stage.settle(Duration::ZERO).await.is_err());
        for name in stage.cluster.names() {
            stage.cluster.crash(&name);
        }
        clock::sleep(Duration::from_millis(random.random_range(1..500))).await;
        stage.cluster.start_all();
        stage.settle(Duration::from_secs(10)).await?;
    }
    at_least("restarts in mid-move", interrupted, 2)?;
    let mut report = stage.finish(Vec::new(), None).await?;
    report.tally.interrupted = interrupted;
    Ok(report)
}

/// All shards go round a ring of groups, again and again, while clients work and leaders crash.
///
/// # Errors
/// What it violated.
pub fn rings(seed: u64) -> Result<Report, Failure> {
    played(seed, run(seed, |world| async move { all_round(world).await }))
}

async fn all_round(world: World) -> Result<Report, String> {
    const ROUNDS: usize = 8;
    let stage = Stage::set(world).await?;
    stage.admin.change(stage.join(&GROUPS)).await;
    let clients = stage.clients(&stage.mix(Duration::from_millis(40)));
    let nemesis = Nemesis::new(&stage.cluster, Plan::of(CRASHES));
    let trouble = tokio::spawn(nemesis.clone().run());
    for _ in 0..ROUNDS {
        let owners = stage.admin.owners().await?;
        for (shard, owner) in owners {
            let at = GROUPS.iter().position(|group| *group == owner).unwrap_or_default();
            stage.admin.change(Change::Move { shard, group: GROUPS[(at + 1) % GROUPS.len()] }).await;
        }
        clock::sleep(Duration::from_millis(500)).await;
    }
    nemesis.stop();
    let _ = trouble.await;
    nemesis.stop();
    stage.settle(Duration::from_secs(10)).await?;
    let report = stage.finish(clients, Some(&nemesis)).await?;
    at_least("configurations", report.configs, (ROUNDS as u64) * u64::from(SHARDS) / 2)?;
    Ok(report)
}
