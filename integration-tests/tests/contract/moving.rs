//! Commands over shards that move meanwhile: they move in a circle as long as a command runs.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

const SHARDS: usize = 4;

/// Runs `act` while every shard moves from group to group, again and again; returns the number of
/// moves.
fn while_shards_move(cluster: &Cluster, act: impl FnOnce()) -> usize {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mover = scope.spawn(|| {
            let mut moves = 0;
            for number in 0.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                let shard = (number % SHARDS).to_string();
                let to = if (number / SHARDS).is_multiple_of(2) { "102" } else { "101" };
                moves += cluster.json(&["move", &shard, to])["moves"].as_array().map_or(0, Vec::len);
            }
            moves
        });
        let acted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
        is_over.store(true, Ordering::Relaxed);
        let moves = mover.join().unwrap();
        acted.unwrap();
        moves
    })
}

fn moving_cluster() -> Cluster {
    Cluster::up(&["--groups", "2", "--replicas", "1", "--shards", &SHARDS.to_string()])
}

fn records(prefix: &str, count: usize) -> String {
    (0..count).map(|number| format!("{prefix}{number:05}\t{}{number}\n", "v".repeat(500))).collect()
}

#[test]
fn a_dump_over_moving_shards_has_every_record_once() {
    let _machine = together();
    let cluster = moving_cluster();
    assert_eq!(cluster.clerk_reading(&["load", "-"], records("a", 4000)).code, Some(0));
    let expected: Vec<String> = records("a", 4000).lines().map(str::to_owned).collect();
    let mut dumps = 0;
    let moves = while_shards_move(&cluster, || {
        for _ in 0..6 {
            let dump = cluster.ok(&["dump"]);
            let lines: Vec<&str> = dump.lines().filter(|line| !line.starts_with('#')).collect();
            assert_eq!(lines, expected);
            dumps += 1;
        }
    });
    assert!(moves >= 2 && dumps == 6, "{moves} moves beside {dumps} dumps");
}

#[test]
fn loads_and_verifications_over_moving_shards_lose_nothing() {
    let _machine = together();
    let cluster = moving_cluster();
    let (first, second) = (records("a", 3000), records("b", 3000));
    assert_eq!(cluster.clerk_reading(&["load", "-"], first.clone()).code, Some(0));
    let file = cluster.path().join("records.tsv");
    fs::write(&file, &first).unwrap();
    let verify = ["verify", "--records", file.to_str().unwrap()];
    // A load sends batches. What it says is stored is there, also what a batch carried over a move.
    let moves = while_shards_move(&cluster, || {
        assert_eq!(
            cluster.clerk_reading(&["load", "-", "-o", "json"], second.clone()).json()["loaded"],
            3000
        );
        cluster.ok(&verify);
        cluster.ok(&["bench", "--seconds", "3", "--clients", "4", "--batch", "8", "--keys", "200"]);
        cluster.ok(&verify);
    });
    assert!(moves >= 2, "{moves} moves");
    fs::write(&file, [first, second].concat()).unwrap();
    cluster.ok(&verify);
}
