//! A shard that moves while clients use it: real processes, an open loop on the shard and another one
//! on all others. What clients saw is judged; how long they waited is measured.

use std::time::{Duration, Instant};

use clerk::api::config::shard_of;
use real::{Client, Cluster, Lap, MemoryWatch, Paced, alone};

const MIB: u64 = 1 << 20;
/// The default number of shards of a cluster.
const SHARDS: u32 = 64;
const VALUE: usize = 64 << 10;
const TAG: &str = "bulk";

/// What was measured.
struct Measured {
    /// The shard that moved, before and meanwhile.
    on_it: (Lap, Lap),
    /// The others.
    elsewhere: (Lap, Lap),
    took: Duration,
    growth: u64,
}

/// Moves a shard of `mib` MiB while clients do `rate` operations a second on it, and as many on others.
fn moved_under_load(mib: u64, rate: u32, before: Duration) -> Measured {
    let cluster = Cluster::up(&[]);
    let target = cluster.target();
    let client = Client::new(&target);
    let count = mib * MIB / VALUE as u64;
    client.fill(TAG, count, VALUE);
    let shard = shard_of(TAG.as_bytes(), SHARDS);
    let owner = cluster.json(&["query"])["shards"][shard.0 as usize].as_u64().expect("an owner");
    let other = if owner == 101 { 102 } else { 101 };
    let mine = (0..200).map(|number| format!("{{{TAG}}}open-{number}")).collect();
    let elsewhere = (0..).map(|number| format!("open-{number}"));
    let elsewhere = elsewhere.filter(|key| shard_of(key.as_bytes(), SHARDS) != shard).take(200).collect();
    let (on_it, others) = (Paced::start(&target, rate, mine), Paced::start(&target, rate, elsewhere));
    std::thread::sleep(Duration::from_secs(1));
    on_it.lap();
    others.lap();
    std::thread::sleep(before);
    let quiet = (on_it.lap(), others.lap());
    let memory = MemoryWatch::start(&cluster.pids());
    let started = Instant::now();
    let (name, gid, limit) = (shard.to_string(), other.to_string(), (60 + mib).to_string());
    let moved = cluster.json(&["--timeout", &limit, "move", &name, &gid]);
    let took = started.elapsed();
    assert_eq!(moved["settled"], true, "{moved}");
    std::thread::sleep(Duration::from_millis(500));
    let meanwhile = (on_it.lap(), others.lap());
    let growth = memory.finish();
    for one in &growth {
        println!("  {one}");
    }
    let operations = on_it.finish() + others.finish();
    println!("{operations} operations, each acknowledged append there exactly once");
    client.check_filled(TAG, count, VALUE);
    let status = cluster.await_health();
    let serves = |gid: u64| {
        let group = status.groups.iter().find(|group| group.gid == gid);
        group.is_some_and(|it| {
            it.shards.iter().any(|one| one.shard == u64::from(shard.0) && one.state == "serving")
        })
    };
    assert!(serves(other) && !serves(owner));
    let growth = growth.iter().map(real::Growth::bytes).max().unwrap_or(0);
    Measured { on_it: (quiet.0, meanwhile.0), elsewhere: (quiet.1, meanwhile.1), took, growth }
}

fn shown(what: &str, (before, meanwhile): (Lap, Lap)) {
    println!("{what}: p99.9 {:?} before, {:?} while it moved", before.p999, meanwhile.p999);
    println!("  before {before:?}");
    println!("  while  {meanwhile:?}");
}

#[test]
fn a_shard_moves_under_load_with_a_pause_of_milliseconds() {
    let _machine = alone();
    let mib: Option<u64> =
        std::env::var("MOVE_MIB").ok().map(|mib| mib.parse().expect("MOVE_MIB is a number"));
    let (size, rate, before) = match mib {
        Some(mib) => (mib, 500, Duration::from_secs(10)),
        None => (32, 100, Duration::from_secs(2)),
    };
    let measured = moved_under_load(size, rate, before);
    let rate = size as f64 / measured.took.as_secs_f64();
    println!(
        "{size} MiB moved in {:?}, {rate:.1} MiB/s; growth {} MiB",
        measured.took,
        measured.growth / MIB
    );
    shown("the shard", measured.on_it);
    shown("the others", measured.elsewhere);
    let all = [measured.on_it.0, measured.on_it.1, measured.elsewhere.0, measured.elsewhere.1];
    assert!(all.iter().all(|lap| lap.failed == 0), "some operations were not acknowledged");
    assert!(all.iter().all(|lap| lap.done > 50), "vacuous");
    // Generous: the machine of a test may stall. (A frozen shard of 32 MiB paused for 600 ms.)
    if mib.is_none() {
        assert!(measured.on_it.1.longest < Duration::from_millis(400), "{:?}", measured.on_it.1);
    }
    assert!(measured.growth < 200 * MIB);
}
