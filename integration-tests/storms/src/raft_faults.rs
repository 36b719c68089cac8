//! One group under every fault: loss, reordering, partitions, crashes, power cuts.
//!
//! Three or five nodes, five clients, twenty virtual seconds, and logs so small that compactions
//! and snapshots never stop. The history must be linearizable, and after healing every key
//! readable.

use std::time::Duration;

use base::clock;
use rand::RngExt;
use tokio::task::JoinHandle;

use super::{Report, at_least};
use judge::history;
use judge::history::Op;
use judge::linearizability;
use sim::cluster::{Cluster, Kind, Shape};
use sim::faults::{Fault, Nemesis, Plan};
use sim::invariants;
use sim::toy::ToyStore;
use sim::workload::{Answer, Mix, Recorder, Request};
use sim::{Failure, Name, World, run};

/// The length of a run; up to twice as long while too little has happened in it.
const LASTS: Duration = Duration::from_secs(20);
const ACKNOWLEDGED_MIN: u64 = 500;
const CRASHES_MIN: u64 = 4;
const CLIENTS: u64 = 5;
const KEYS: usize = 6;
const FAULTS: &[(Fault, u32)] = &[
    (Fault::Crash, 20),
    (Fault::CrashLeader, 20),
    (Fault::CrashGroup, 3),
    (Fault::LoseLeader, 10),
    (Fault::Partition, 20),
    (Fault::Weather, 20),
    (Fault::SlowDisks, 10),
    (Fault::StallLeader, 25),
    (Fault::DamageTail, 20),
    (Fault::SetBack, 4),
];

/// One run of `seed`.
///
/// # Errors
/// What it violated.
pub fn play(seed: u64) -> Result<Report, Failure> {
    let done = run(seed, |world| async move { main(world).await })?;
    Ok(Report { trace: done.trace, events: done.events, ..done.output })
}

pub(super) fn store(cluster: &Cluster, servers: &[Name], name: &str) -> Box<ToyStore> {
    let mut random = cluster.world.generator(name);
    let at = random.random_range(0..servers.len());
    Box::new(ToyStore { calls: cluster.client(name), servers: servers.to_vec(), random, at })
}

/// Starts clients that work until the recorder stops.
pub(super) fn clients(
    cluster: &Cluster,
    servers: &[Name],
    recorder: &Recorder,
    mix: &Mix,
    count: u64,
) -> Vec<JoinHandle<()>> {
    let start = |number: u64| {
        let name = format!("client {number}");
        let store = store(cluster, servers, &name);
        tokio::spawn(recorder.clone().client(store, mix.clone(), cluster.world.derive(&name)))
    };
    (0..count).map(start).collect()
}

async fn main(world: World) -> Result<Report, String> {
    let cluster = Cluster::new(&world, Shape::drawn(&world));
    invariants::watch(&cluster);
    let replicas = if world.generator("size").random_bool(0.3) { 5 } else { 3 };
    let servers = cluster.add(Kind::Toy, replicas);
    cluster.ready(Duration::from_secs(10)).await?;
    let recorder = Recorder::default();
    let keys: Vec<String> = (0..KEYS).map(|key| format!("k{key}")).collect();
    let mix = Mix { shares: [30, 20, 35, 5, 10], keys: keys.clone(), think_max: Duration::from_millis(30) };
    let clients = clients(&cluster, &servers, &recorder, &mix, CLIENTS);
    // The toy cannot tell a repeated request from a new one.
    let plan = Plan { chaos_requests: false, ..Plan::of(FAULTS) };
    let nemesis = Nemesis::new(&cluster, plan);
    let trouble = tokio::spawn(nemesis.clone().run());
    clock::sleep(LASTS).await;
    let full = || nemesis.tally().crashes >= CRASHES_MIN && recorder.acknowledged() >= ACKNOWLEDGED_MIN;
    for _ in 0..LASTS.as_secs() {
        if full() {
            break;
        }
        clock::sleep(Duration::from_secs(1)).await;
    }
    nemesis.stop();
    let _ = trouble.await;
    // Nodes that the last faults took down come back too.
    clock::sleep(plan.down_max).await;
    nemesis.stop();
    recorder.stop();
    for client in clients {
        let _ = client.await;
    }
    cluster.ready(Duration::from_secs(5)).await?;
    // Including those that lost data.
    cluster.caught_up(Duration::from_secs(5)).await?;
    let mut reader = store(&cluster, &servers, "reader");
    for key in keys {
        let request = Request { op: Op::Get, key, value: None, expected: None };
        let answer = recorder.run(recorder.new_client(), &mut *reader, &request).await;
        if !matches!(answer, Answer::Done { .. }) {
            return Err(format!("after healing {} is not answered: {answer:?}", request.key));
        }
    }
    let tally = nemesis.tally();
    let acknowledged = recorder.acknowledged();
    judge(&recorder)?;
    at_least("acknowledged operations", acknowledged, ACKNOWLEDGED_MIN)?;
    at_least("crashes", tally.crashes, CRASHES_MIN)?;
    Ok(Report { acknowledged, tally, ..Report::default() })
}

/// Checks the history; one that fails is kept if SIM_HISTORY names a file.
pub(super) fn judge(recorder: &Recorder) -> Result<(), String> {
    let operations = recorder.take();
    linearizability::check(&operations).map_err(|anomaly| {
        if let Some(path) = std::env::var_os("SIM_HISTORY") {
            let written = std::fs::File::create(&path).and_then(|file| history::write(file, &operations));
            if let Err(error) = written {
                eprintln!("cannot write the history: {error}");
            }
        }
        anomaly.to_string()
    })
}
