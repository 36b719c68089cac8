//! Storms for situations that the suites rarely reach: contested elections, clerks without sessions
//! that write unconditionally, and sessions that expire.

pub(crate) mod damage;
pub(crate) mod identity;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use base::clock;
use clerk::api::config::{NewGroup, Params};
use clerk::api::ctrl::Change;
use clerk::api::{GroupId, Incarnation};
use clerk::kv::{Clerk, Options};
use judge::linearizability;
use rand::RngExt;
use sim::clerks::{Admin, KvStore};
use sim::cluster::{Cluster, Kind, Shape};
use sim::faults::{Fault, Nemesis, Plan};
use sim::invariants;
use sim::network::Weather;
use sim::toy::ToyStore;
use sim::workload::{Mix, Recorder, Store};
use sim::{Name, World};

fn mix(shares: [u32; 5]) -> Mix {
    let keys = (0..4).map(|key| format!("k{key}")).collect();
    Mix { shares, keys, think_max: Duration::from_millis(40) }
}

fn judge(recorder: &Recorder, acknowledged_min: u64) -> Result<(), String> {
    if recorder.acknowledged() < acknowledged_min {
        return Err(format!("vacuous: {} acknowledged operations", recorder.acknowledged()));
    }
    linearizability::check(&recorder.take()).map_err(|anomaly| anomaly.to_string())
}

/// One group on an unreliable network with timeouts so short that candidates compete all the time.
/// Servers restart as soon as they have voted, and leaders die as soon as they are elected or have
/// committed something (Figure 8). Appends carry one entry.
pub(crate) async fn elections(world: World) -> Result<(), String> {
    const LASTS: Duration = Duration::from_secs(20);
    let mut shape = Shape::drawn(&world);
    shape.raft.append_bytes_max = 64;
    shape.raft.in_flight_messages_max = 1;
    shape.raft.heartbeat_ticks = 1;
    shape.raft.election_ticks_min = 2;
    shape.raft.election_ticks_max = 4;
    let cluster = Cluster::new(&world, shape);
    invariants::watch(&cluster);
    let replicas = if world.generator("size").random_bool(0.5) { 3 } else { 5 };
    let servers = cluster.add(Kind::Toy, replicas);
    cluster.ready(Duration::from_secs(10)).await?;
    cluster.network.set_weather(Weather { unreliable: true, ..Weather::default() });
    let recorder = Recorder::default();
    for number in 0..3 {
        let name = format!("client {number}");
        let (calls, servers) = (cluster.client(&name), servers.clone());
        let store: Box<dyn Store> =
            Box::new(ToyStore { calls, servers, random: world.generator(&name), at: number });
        tokio::spawn(recorder.clone().client(store, mix([20, 20, 40, 5, 15]), world.derive(&name)));
    }
    let voters = tokio::spawn(restart_voters(cluster.clone()));
    let leaders = tokio::spawn(kill_leaders(cluster.clone(), replicas));
    clock::sleep(LASTS).await;
    voters.abort();
    leaders.abort();
    cluster.network.set_weather(Weather::default());
    clock::sleep(Duration::from_secs(4)).await;
    cluster.start_all();
    cluster.ready(Duration::from_secs(5)).await?;
    recorder.stop();
    clock::sleep(Duration::from_secs(5)).await;
    judge(&recorder, 20)
}

/// Restarts servers that reached a new term, at once: their votes must be on their disks (rule 1).
async fn restart_voters(cluster: Cluster) {
    const LOOK: Duration = Duration::from_micros(300);
    let mut random = cluster.world.generator("voters");
    let mut known = BTreeSet::new();
    loop {
        clock::sleep(LOOK).await;
        for seen in cluster.seen() {
            let term = seen.journal.lock().unwrap_or_else(PoisonError::into_inner).hard_state.term;
            if known.insert((seen.name.clone(), term)) && random.random_bool(0.3) {
                clock::sleep(Duration::from_micros(random.random_range(0..1000))).await;
                cluster.crash(&seen.name);
                clock::sleep(Duration::from_micros(random.random_range(0..2000))).await;
                cluster.start(&seen.name);
            }
        }
    }
}

/// Kills each leader, some before anybody heard of it, some after their first commit.
async fn kill_leaders(cluster: Cluster, replicas: u64) {
    const LOOK: Duration = Duration::from_micros(300);
    const COMMIT_WITHIN: Duration = Duration::from_millis(400);
    let mut random = cluster.world.generator("leaders");
    loop {
        clock::sleep(LOOK).await;
        let Some(leader) = cluster.leader("toy") else { continue };
        let down = cluster.names().iter().filter(|name| !cluster.is_up(name)).count() as u64;
        if down >= (replicas - 1) / 2 {
            continue;
        }
        if random.random_bool(0.6) {
            let mut status = leader.probe.status.clone();
            let commit = status.borrow().commit;
            let committed = status.wait_for(|status| status.commit > commit);
            let _ = clock::timeout(COMMIT_WITHIN, committed).await;
        }
        clock::sleep(Duration::from_micros(random.random_range(0..1500))).await;
        let name: Name = leader.name;
        cluster.crash(&name);
        // Most are back before the others miss them, so that three compete.
        let range = if random.random_bool(0.6) { 1..40 } else { 100..1000 };
        let (cluster, down_ms) = (cluster.clone(), random.random_range(range));
        tokio::spawn(async move {
            clock::sleep(Duration::from_millis(down_ms)).await;
            cluster.start(&name);
        });
    }
}

/// One group whose logs are tiny and whose disks are slow. Nodes are cut off until they need a
/// snapshot, and the power is cut wherever a log was just shortened (rule 33). With `many` chunks
/// each snapshot takes dozens, while rows change.
pub(crate) async fn snapshots(world: World, many: bool) -> Result<(), String> {
    const LASTS: Duration = Duration::from_secs(15);
    const FAULTS: &[(Fault, u32)] = &[(Fault::Weather, 60), (Fault::LoseLeader, 40)];
    let mut shape = Shape::drawn(&world);
    shape.raft = shape.raft.with_log_bytes_max(2 << 10);
    if many {
        shape.raft.chunk_bytes = 64;
    }
    let cluster = Cluster::new(&world, shape);
    invariants::watch(&cluster);
    let servers = cluster.add(Kind::Toy, 3);
    cluster.ready(Duration::from_secs(10)).await?;
    let recorder = Recorder::default();
    for number in 0..12 {
        let name = format!("client {number}");
        let (calls, servers) = (cluster.client(&name), servers.clone());
        let store: Box<dyn Store> =
            Box::new(ToyStore { calls, servers, random: world.generator(&name), at: number % 3 });
        tokio::spawn(recorder.clone().client(
            store,
            Mix { think_max: Duration::from_millis(4), ..mix([40, 20, 25, 5, 10]) },
            world.derive(&name),
        ));
    }
    cluster.network.set_weather(Weather { unreliable: true, chaos: true, ..Weather::default() });
    let nemesis = Nemesis::new(&cluster, Plan { chaos_requests: false, ..Plan::of(FAULTS) });
    let trouble = tokio::spawn(nemesis.clone().run());
    let lonely = tokio::spawn(cut_off_one_after_the_other(cluster.clone(), servers.clone()));
    let cuts = tokio::spawn(cut_power_after_compactions(cluster.clone()));
    clock::sleep(LASTS).await;
    lonely.abort();
    cuts.abort();
    nemesis.stop();
    let _ = trouble.await;
    nemesis.stop();
    clock::sleep(Duration::from_millis(500)).await;
    cluster.start_all();
    cluster.ready(Duration::from_secs(5)).await?;
    recorder.stop();
    clock::sleep(Duration::from_secs(5)).await;
    judge(&recorder, 200)
}

/// Cuts one server off until the others no longer wait for it with their compactions, then the
/// next.
async fn cut_off_one_after_the_other(cluster: Cluster, servers: Vec<Name>) {
    let mut random = cluster.world.generator("lonely");
    loop {
        let name = &servers[random.random_range(0..servers.len())];
        for enabled in [false, true] {
            for peer in servers.iter().filter(|peer| *peer != name) {
                cluster.network.link(name, peer, enabled);
            }
            let lasts = if enabled { 100..400 } else { 1100..1700 };
            clock::sleep(Duration::from_millis(random.random_range(lasts))).await;
        }
    }
}

/// Kills some of the servers whose log was just shortened.
async fn cut_power_after_compactions(cluster: Cluster) {
    const LOOK: Duration = Duration::from_micros(100);
    let mut random = cluster.world.generator("compactions");
    let mut known = BTreeMap::new();
    loop {
        cluster.set_slow_disks(true);
        clock::sleep(LOOK).await;
        for seen in cluster.seen() {
            let marker = seen.journal.lock().unwrap_or_else(PoisonError::into_inner).marker;
            let before = known.insert(seen.name.clone(), marker);
            if before.is_some_and(|before| before != marker) && random.random_bool(0.2) {
                cluster.crash(&seen.name);
                let (cluster, name, down_ms) = (cluster.clone(), seen.name, random.random_range(1..400));
                tokio::spawn(async move {
                    clock::sleep(Duration::from_millis(down_ms)).await;
                    cluster.start(&name);
                });
            }
        }
    }
}

/// Two groups and calm weather: each shard moves to the other group, and stays there.
pub(crate) async fn moves(world: World) -> Result<(), String> {
    const GROUPS: [GroupId; 2] = [GroupId(101), GroupId(102)];
    let cluster = Cluster::new(&world, Shape::drawn(&world));
    invariants::watch(&cluster);
    cluster.add(Kind::Ctrl, 3);
    cluster.ready(Duration::from_secs(10)).await?;
    let admin = Admin::new(&cluster);
    for group in GROUPS {
        let (key, incarnation) = (cluster.key(), Incarnation(group.0));
        let newcomer = NewGroup { key, incarnation, addresses: vec![group.to_string()] };
        admin.change(Change::Join([(group, newcomer)].into())).await;
    }
    let mut owners = admin.owners().await?;
    for (shard, owner) in owners.clone() {
        let group = GROUPS[usize::from(owner == GROUPS[0])];
        owners.insert(shard, group);
        if !admin.change(Change::Move { shard, group }).await {
            return Err(format!("shard {shard} was not moved"));
        }
        let now = admin.owners().await?;
        if now != owners {
            return Err(format!("shard {shard} was moved to {group}, and the owners are {now:?}"));
        }
    }
    Ok(())
}

/// One replica group of the product in bad weather, with clerks that have few sessions or none.
pub(crate) async fn clerks(world: World, sessions: bool) -> Result<(), String> {
    const GROUP: GroupId = GroupId(101);
    const CLIENTS: u64 = 8;
    const LASTS: Duration = Duration::from_secs(15);
    const FAULTS: &[(Fault, u32)] =
        &[(Fault::Crash, 10), (Fault::CrashLeader, 15), (Fault::Partition, 15), (Fault::Weather, 60)];
    let params = Params { shard_count: 2, sessions_max: 4, ..Params::default() };
    let shape = Shape { params, ..Shape::drawn(&world) };
    let cluster = Cluster::new(&world, shape);
    invariants::watch(&cluster);
    cluster.add(Kind::Ctrl, 3);
    cluster.add(Kind::Kv(GROUP), 3);
    cluster.ready(Duration::from_secs(10)).await?;
    let admin = Admin::new(&cluster);
    let addresses = cluster.addresses(&GROUP.to_string());
    let newcomer = admin.newcomer(GROUP, addresses).await?;
    admin.change(Change::Join([(GROUP, newcomer)].into())).await;
    let recorder = Recorder::default();
    let mix = mix([25, 20, 30, 5, 20]);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let name = format!("client {number}");
            let options = Options { seed: world.derive(&name), deadline: Duration::from_secs(4), sessions };
            let clerk = Clerk::new(Arc::new(cluster.client(&name)), cluster.addresses("ctrl"), options);
            let store = Box::new(KvStore::of(clerk).on(&cluster.network, &name));
            tokio::spawn(recorder.clone().client(store, mix.clone(), world.derive(&name)))
        })
        .collect();
    // Without sessions the store cannot tell a duplicated request from a new one.
    let nemesis = Nemesis::new(&cluster, Plan { chaos_requests: sessions, ..Plan::of(FAULTS) });
    let trouble = tokio::spawn(nemesis.clone().run());
    clock::sleep(LASTS).await;
    nemesis.stop();
    let _ = trouble.await;
    nemesis.stop();
    recorder.stop();
    for client in clients {
        let _ = client.await;
    }
    judge(&recorder, 200)
}
