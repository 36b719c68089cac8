//! Tables that are damaged without their servers' knowledge, one at a time (correctness rule 69).
//!
//! Three or five nodes of the toy service. A row that no recorded client reads is changed on one
//! follower. Then the row is written, which shows the change in the chained hash. The leader must
//! find the server within a few seconds and replace its table soon after. Meanwhile the server
//! crashes, or the leader crashes, or the network drops messages. The recorded clients keep
//! working, and their history must be linearizable.
//!
//! Left out on purpose: damage of rows that nobody writes again, which only reading can find, and
//! damage of the leader's table (the limit of rule 69).

use std::sync::atomic::Ordering;
use std::time::Duration;

use base::clock;
use bytes::Bytes;
use rand::RngExt;

use super::raft_faults::{clients, judge, store};
use super::{Report, at_least};
use judge::history::Op;
use sim::cluster::{Cluster, Kind, Seen, Shape};
use sim::faults::Tally;
use sim::invariants;
use sim::network::Weather;
use sim::toy::ToyStore;
use sim::workload::{Answer, Mix, Recorder, Request, Store as _};
use sim::{Failure, Generator, Name, World, run};

const ROUNDS: u64 = 4;
const CLIENTS: u64 = 3;
const ACKNOWLEDGED_MIN: u64 = 100;
/// The time limit, in a working group, to find a difference and to replace a table.
const FOUND_WITHIN: Duration = Duration::from_secs(4);
const REPLACED_WITHIN: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(2);
/// The key of the row that is damaged.
const HIDDEN: &str = "hidden";

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
    let mut random = world.generator("damage");
    let replicas = if random.random_bool(0.3) { 5 } else { 3 };
    let servers = cluster.add(Kind::Toy, replicas);
    cluster.ready(Duration::from_secs(10)).await?;
    let recorder = Recorder::default();
    let keys = (0..4).map(|key| format!("k{key}")).collect();
    let mix = Mix { shares: [30, 20, 35, 5, 10], keys, think_max: Duration::from_millis(60) };
    let clients = clients(&cluster, &servers, &recorder, &mix, CLIENTS);
    let mut writer = store(&cluster, &servers, "writer");
    let mut crashes = 0;
    for _ in 0..ROUNDS {
        crashes += round(&cluster, &servers, &mut writer, &mut random).await?;
    }
    recorder.stop();
    for client in clients {
        let _ = client.await;
    }
    let acknowledged = recorder.acknowledged();
    judge(&recorder)?;
    at_least("acknowledged operations", acknowledged, ACKNOWLEDGED_MIN)?;
    Ok(Report { acknowledged, tally: Tally { crashes, ..Tally::default() }, ..Report::default() })
}

/// Damages one server and waits until it is well again. Returns how many nodes were killed
/// meanwhile.
async fn round(
    cluster: &Cluster,
    servers: &[Name],
    writer: &mut ToyStore,
    random: &mut Generator,
) -> Result<u64, String> {
    let row = raft::rsm::toy::row_key(HIDDEN.as_bytes());
    cluster.ready(Duration::from_secs(10)).await?;
    write(writer).await;
    let everywhere =
        |cluster: &Cluster| cluster.seen().iter().all(|seen| seen.probe.table.get(&row).is_some());
    wait(cluster, FOUND_WITHIN, "not every server has the row", everywhere).await?;
    // Not a leader: a leader that streams a snapshot before its table is found bad passes the
    // damage on (rule 69, its limit).
    let leads = |name: &&Name| cluster.leader("toy").is_some_and(|leader| leader.name == **name);
    let followers: Vec<&Name> = servers.iter().filter(|name| !leads(name)).collect();
    let victim = followers[random.random_range(0..followers.len())].clone();
    let alarms =
        |cluster: &Cluster| see(cluster, &victim).map_or(0, |seen| seen.probe.status.borrow().alarms);
    let before = alarms(cluster);
    // The first byte after the version: each append writes it again. A changed version would not
    // do: a write takes a version one above all that were deleted, which may be the same for both.
    let other = |value: &Bytes| value.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == 8)).collect();
    if !cluster.corrupt(&victim, &row, other) {
        return Err(format!("{victim} has no row to damage"));
    }
    let start = clock::now();
    let is_damaged =
        |cluster: &Cluster| see(cluster, &victim).is_none_or(|seen| seen.damaged.load(Ordering::Relaxed));
    while alarms(cluster) == before {
        if !is_damaged(cluster) {
            // It lagged, and an ordinary snapshot replaced the table before any comparison.
            return Ok(0);
        }
        write(writer).await;
        if start.elapsed() > FOUND_WITHIN {
            return Err(format!("the damaged table of {victim} was not found after {FOUND_WITHIN:?}"));
        }
        clock::sleep(LOOK).await;
    }
    let crashes = trouble(cluster, &victim, random).await;
    let sound = |cluster: &Cluster| {
        let sound =
            |seen: &Seen| !seen.damaged.load(Ordering::Relaxed) && !seen.probe.status.borrow().table_bad;
        see(cluster, &victim).is_some_and(|seen| sound(&seen))
    };
    wait(cluster, REPLACED_WITHIN, "a damaged table was not replaced", sound).await?;
    Ok(crashes)
}

/// A fault while the table is being replaced.
async fn trouble(cluster: &Cluster, victim: &Name, random: &mut Generator) -> u64 {
    clock::sleep(Duration::from_micros(random.random_range(0..20_000))).await;
    let name = match random.random_range(0..5) {
        0 | 1 => victim.clone(),
        2 => match cluster.leader("toy") {
            Some(leader) => leader.name,
            None => return 0,
        },
        3 => {
            cluster.network.set_weather(Weather { unreliable: true, ..Weather::default() });
            clock::sleep(Duration::from_millis(random.random_range(100..2000))).await;
            cluster.network.set_weather(Weather::default());
            return 0;
        }
        _ => return 0,
    };
    cluster.crash(&name);
    clock::sleep(Duration::from_millis(random.random_range(1..1500))).await;
    cluster.start(&name);
    1
}

async fn write(writer: &mut ToyStore) {
    let value = Some("+".to_owned());
    let request = Request { op: Op::Append, key: HIDDEN.to_owned(), value, expected: None };
    while !matches!(writer.run(&request).await, Answer::Done { .. }) {}
}

fn see(cluster: &Cluster, name: &Name) -> Option<Seen> {
    cluster.seen().into_iter().find(|seen| seen.name == *name)
}

async fn wait(
    cluster: &Cluster,
    limit: Duration,
    why: &str,
    holds: impl Fn(&Cluster) -> bool,
) -> Result<(), String> {
    let start = clock::now();
    while !holds(cluster) {
        if start.elapsed() > limit {
            return Err(format!("after {limit:?} {why}"));
        }
        clock::sleep(LOOK).await;
    }
    Ok(())
}
