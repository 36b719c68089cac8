//! One group that gets more writes than it can serve, while its tables and disks are slow, disks
//! are nearly full and servers are away for a long time.
//!
//! Limits are small, so each of them is reached. Committed entries that are not applied, and the
//! log, stay bounded (rule 77), and the history must be linearizable. Within five seconds after the
//! faults end, operations take no longer than without load, although the load continues.

use std::time::Duration;

use base::clock;
use rand::RngExt;

use super::raft_faults::{clients, judge, store};
use super::{Report, at_least};
use judge::history::Op;
use sim::cluster::{Cluster, Kind, Shape};
use sim::faults::{Fault, Nemesis, Plan};
use sim::invariants;
use sim::workload::{Answer, Mix, Recorder, Request};
use sim::{Failure, World, run};

/// The length of a run; up to twice as long while too little has happened in it.
const LASTS: Duration = Duration::from_secs(15);
const ACKNOWLEDGED_MIN: u64 = 500;
const CLIENTS: u64 = 24;
const KEYS: usize = 24;
/// After the faults the group has recovered within this time.
const RECOVERS_WITHIN: Duration = Duration::from_secs(5);
/// Then operations take no longer than this, although the load continues.
const WELL: Duration = Duration::from_millis(500);
const LOOKS: usize = 20;
const FAULTS: &[(Fault, u32)] = &[
    (Fault::SlowTable, 30),
    (Fault::FullDisk, 25),
    (Fault::SlowDisks, 10),
    (Fault::LongRestart, 15),
    (Fault::StallLeader, 8),
    (Fault::Crash, 5),
    (Fault::CrashGroup, 2),
    (Fault::Partition, 5),
    (Fault::Weather, 5),
];

/// One run of `seed`.
///
/// # Errors
/// What it violated.
pub fn play(seed: u64) -> Result<Report, Failure> {
    let done = run(seed, |world| async move { main(world).await })?;
    Ok(Report { trace: done.trace, events: done.events, ..done.output })
}

async fn main(world: World) -> Result<Report, String> {
    let cluster = Cluster::new(&world, Shape::drawn(&world));
    invariants::watch(&cluster);
    let replicas = if world.generator("size").random_bool(0.3) { 5 } else { 3 };
    let servers = cluster.add(Kind::Toy, replicas);
    cluster.ready(Duration::from_secs(10)).await?;
    let recorder = Recorder::default();
    let keys: Vec<String> = (0..KEYS).map(|key| format!("k{key}")).collect();
    let mix = Mix { shares: [15, 60, 5, 10, 10], keys: keys.clone(), think_max: Duration::from_millis(2) };
    let clients = clients(&cluster, &servers, &recorder, &mix, CLIENTS);
    // The toy cannot tell a repeated request from a new one.
    let plan = Plan { chaos_requests: false, ..Plan::of(FAULTS) };
    let nemesis = Nemesis::new(&cluster, plan);
    let trouble = tokio::spawn(nemesis.clone().run());
    clock::sleep(LASTS).await;
    for _ in 0..LASTS.as_secs() {
        if recorder.acknowledged() >= ACKNOWLEDGED_MIN {
            break;
        }
        clock::sleep(Duration::from_secs(1)).await;
    }
    nemesis.stop();
    let _ = trouble.await;
    // The effects of the last fault end as well.
    nemesis.stop();
    clock::sleep(RECOVERS_WITHIN).await;
    let mut observer = store(&cluster, &servers, "observer");
    for look in 0..LOOKS {
        let before = clock::now();
        let key = &keys[look % KEYS];
        // (A client of the toy may give up on a server after a tenth of a second.)
        for attempt in 0.. {
            let client = recorder.new_client();
            let (op, value) = match look % 2 {
                0 => (Op::Put, Some(format!("look {look}.{attempt}"))),
                _ => (Op::Get, None),
            };
            let request = Request { op, key: key.clone(), value, expected: None };
            let answer = recorder.run(client, &mut *observer, &request).await;
            if before.elapsed() > WELL {
                return Err(format!(
                    "{RECOVERS_WITHIN:?} after the trouble {request:?} took {:?}: {answer:?}",
                    before.elapsed()
                ));
            }
            if matches!(answer, Answer::Done { .. }) {
                break;
            }
        }
    }
    recorder.stop();
    for client in clients {
        let _ = client.await;
    }
    cluster.caught_up(RECOVERS_WITHIN).await?;
    let acknowledged = recorder.acknowledged();
    judge(&recorder)?;
    at_least("acknowledged operations", acknowledged, ACKNOWLEDGED_MIN)?;
    Ok(Report { acknowledged, tally: nemesis.tally(), ..Report::default() })
}
