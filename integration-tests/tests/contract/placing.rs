//! Weights, pins, and plans of many moves (docs/cli.md, Administration).

use clerk::api::config::shard_of;

use super::*;

/// Lines for `clerk load`: a value of so many bytes in each of these shards.
fn lines(shards: &[u32], count: u32, bytes: usize) -> String {
    let key = |shard: u32| {
        let mut keys = (0..).map(|number| format!("key-{number}"));
        keys.find(|key| shard_of(key.as_bytes(), count).0 == shard).unwrap()
    };
    shards.iter().map(|shard| format!("{}\t{}\n", key(*shard), "v".repeat(bytes))).collect()
}

/// The shards of each of these groups.
fn owned(cluster: &Cluster, groups: [u64; 2]) -> [Vec<u32>; 2] {
    let query = cluster.json(&["query"]);
    let shards = query["shards"].as_array().unwrap();
    groups.map(|group| (0..).zip(shards).filter(|(_, it)| **it == group).map(|(shard, _)| shard).collect())
}

#[test]
fn weights_and_pins_are_set_and_shown() {
    let _machine = together();
    let cluster = Cluster::up(&["--groups", "2", "--replicas", "1", "--shards", "12"]);
    let planned = cluster.json(&["weight", "102", "200", "--dry-run"]);
    let keys = ["bytes", "config", "dry_run", "estimated_seconds", "moves", "seconds", "settled", "unknown"];
    assert_eq!((keys_of(&planned), &planned["unknown"]), (keys.to_vec(), &json!([])));
    assert_eq!(planned["moves"].as_array().map(Vec::len), Some(2), "{planned}");
    assert_eq!(cluster.json(&["status"])["placement"]["weights"], json!({}), "a dry run changes nothing");
    let weighed = cluster.json(&["weight", "102", "200"]);
    assert_eq!(keys_of(&weighed), ["config", "moves", "seconds", "settled"]);
    assert_eq!((&weighed["moves"], &weighed["settled"]), (&planned["moves"], &json!(true)));
    assert_eq!(owned(&cluster, [101, 102]).map(|shards| shards.len()), [4, 8]);
    assert_eq!(cluster.json(&["weight", "102", "200"])["moves"], json!([]), "twice is harmless");

    let shard = owned(&cluster, [101, 102])[1][0].to_string();
    assert_eq!(cluster.json(&["pin", &shard, "101"])["moves"].as_array().map(Vec::len), Some(1));
    let status = cluster.json(&["status"]);
    let pins: serde_json::Map<_, _> = [(shard.clone(), json!(101))].into_iter().collect();
    assert_eq!(
        status["placement"],
        json!({"version": 2, "weights": {"102": 200}, "pins": pins, "move_rate": null})
    );
    let weights: Vec<&Value> =
        status["groups"].as_array().unwrap().iter().map(|group| &group["weight"]).collect();
    assert_eq!(weights, [&json!(100), &json!(200)]);
    assert!(cluster.ok(&["status"]).contains(&format!("pinned: shard {shard} to group 101")));
    assert_eq!(cluster.fails(1, &["move", &shard, "102"]), "pinned");
    assert_eq!(cluster.json(&["unpin", &shard])["moves"], json!([]));
    cluster.ok(&["move", &shard, "102"]);

    let limited = json!({"config": cluster.json(&["query"])["num"], "move_rate": 20});
    assert_eq!(cluster.json(&["move-rate", "20"]), limited);
    assert_eq!(cluster.json(&["status"])["placement"]["move_rate"], 20);
    assert!(cluster.ok(&["status"]).contains("at most 20 MiB a second"));
    assert!(cluster.ok(&["leave", "101", "--dry-run"]).contains("20 MiB/s"));
    assert_eq!(cluster.json(&["move-rate", "none"])["move_rate"], Value::Null);
    for rate in ["0", "-1", "fast", "100001"] {
        assert_eq!(cluster.fails(2, &["move-rate", rate]), "usage", "{rate}");
    }

    // Drained: nothing stays, and its servers need not serve.
    let drained = cluster.json(&["weight", "101", "0"]);
    assert_eq!((&drained["settled"], owned(&cluster, [101, 102])[0].len()), (&json!(true), 0));
}

#[test]
fn wishes_that_cannot_be_fulfilled_are_named_and_change_nothing() {
    let _machine = together();
    let cluster = Cluster::up(&["--groups", "2", "--replicas", "1", "--shards", "12"]);
    cluster.ok(&["pin", "3", "102"]);
    let before = (cluster.json(&["query"]), cluster.json(&["status"])["placement"].clone());
    let refused: [(&[&str], &str); 9] = [
        (&["weight", "999", "1"], "unknown_group"),
        (&["pin", "3", "999"], "unknown_group"),
        (&["pin", "12", "101"], "unknown_shard"),
        (&["unpin", "12"], "unknown_shard"),
        (&["move", "3", "101"], "pinned"),
        (&["weight", "102", "0"], "has_pins"),
        (&["weight", "102", "0", "--dry-run"], "has_pins"),
        (&["move", "12", "101"], "unknown_shard"),
        (&["pin", "3", "103"], "unknown_group"),
    ];
    for (call, code) in refused {
        assert_eq!(cluster.fails(1, call), code, "{call:?}");
    }
    let misused: [&[&str]; 6] = [
        &["weight", "101", "-1"],
        &["weight", "101", "10001"],
        &["weight", "101"],
        &["weight", "0", "1"],
        &["pin", "x", "101"],
        &["balance", "--by", "colour"],
    ];
    for call in misused {
        assert_eq!(cluster.fails(2, call), "usage", "{call:?}");
    }
    assert_eq!((cluster.json(&["query"]), cluster.json(&["status"])["placement"].clone()), before);
    cluster.ok(&["weight", "101", "0"]);
    assert_eq!(cluster.fails(1, &["pin", "4", "101"]), "drained");
    assert_eq!(cluster.fails(1, &["weight", "102", "0"]), "has_pins");
    cluster.ok(&["unpin", "3"]);
    assert_eq!(cluster.fails(1, &["weight", "102", "0"]), "nothing_weighs");
    assert_eq!(cluster.fails(1, &["leave", "102"]), "nothing_weighs");
    // Without any group there is nothing to weigh or to balance.
    cluster.ok(&["leave", "101", "102", "--force"]);
    assert_eq!(cluster.fails(1, &["weight", "101", "5"]), "unknown_group");
    assert_eq!(cluster.fails(1, &["balance"]), "no_groups");
}

#[test]
fn a_plan_brings_bytes_and_load_near_the_shares_and_says_why() {
    let _machine = together();
    let cluster = Cluster::up(&["--groups", "2", "--replicas", "1", "--shards", "12"]);
    let [mine, yours] = owned(&cluster, [101, 102]);
    assert_eq!((mine.len(), yours.len()), (6, 6));
    // Four full shards at one group, and one at the other.
    let full = [&mine[..4], &yours[..1]].concat();
    assert_eq!(cluster.clerk_reading(&["load", "-"], lines(&full, 12, 60_000)).code, Some(0));
    assert_eq!(cluster.json(&["balance"])["plan"], json!([]), "by number it is balanced");
    let call = ["balance", "--by", "bytes"];
    let planned = cluster.json(&[&call[..], &["--dry-run"]].concat());
    let keys = [
        "balanced",
        "by",
        "bytes",
        "config",
        "dry_run",
        "estimated_seconds",
        "groups",
        "moves",
        "plan",
        "seconds",
        "settled",
        "unknown",
    ];
    assert_eq!(keys_of(&planned), keys);
    let step = &planned["plan"][0];
    assert_eq!(keys_of(step), ["from", "shard", "size", "to", "why"]);
    let why = step["why"].as_str().unwrap();
    assert!(why.contains("group 101 has 160 % of its share, group 102 40 %"), "{why}");
    assert_eq!(keys_of(&planned["groups"][0]), ["after", "before", "gid", "share", "weight"]);
    // 240 kB beside 60 kB; a half of them is 150 kB, and a shard has 60 kB: 180 beside 120 is the best.
    assert_eq!(planned["plan"].as_array().map(Vec::len), Some(1), "{planned}");
    assert_eq!(planned["balanced"], false);
    assert!(planned["bytes"].as_u64() > Some(60_000), "{planned}");
    let text = cluster.ok(&[&call[..], &["--dry-run"]].concat());
    assert!(text.contains("because group 101") && text.contains("MiB, about 1 s"), "{text}");
    let done = cluster.json(&call);
    assert_eq!((&done["plan"], &done["settled"]), (&planned["plan"], &json!(true)));
    assert_eq!(cluster.json(&call)["plan"], json!([]), "no move brings it nearer");

    // The load of a few keys is measured where they are, and pinned shards stay.
    cluster.ok(&["bench", "--seconds", "4", "--keys", "4", "--clients", "4", "--rate", "400"]);
    let status = cluster.json(&["status"]);
    let shards = status["groups"].as_array().unwrap().iter().flat_map(|it| it["shards"].as_array().unwrap());
    let load = |name: &str| shards.clone().filter_map(|it| it["load"][name].as_u64()).sum::<u64>();
    let rates = (load("reads"), load("writes"), load("bytes"));
    assert!(rates.0 > 10 && rates.1 > 10 && rates.2 > 1000, "{rates:?}");
    assert!(cluster.ok(&["status"]).contains("BUSIEST SHARDS"));
    let planned = cluster.json(&["balance", "--by", "load", "--dry-run"]);
    assert_eq!((&planned["by"], keys_of(&planned).len()), (&json!("load"), keys.len()));

    // A group that does not answer: what it has is not known, and nothing is planned.
    cluster.ok(&["kill", "102.1"]);
    let before = cluster.json(&["query"]);
    assert_eq!(cluster.fails(1, &["balance", "--by", "bytes", "--timeout", "5"]), "unavailable");
    assert_eq!(cluster.json(&["query"]), before);
    let forecast = cluster.json(&["leave", "102", "--dry-run", "--timeout", "5"]);
    assert!(forecast["unknown"].as_array().is_some_and(|unknown| !unknown.is_empty()), "{forecast}");
}

/// Rule 143.
#[test]
fn shards_of_a_lost_group_begin_anew_and_stay_so_when_it_returns() {
    let _machine = together();
    let cluster = Cluster::up(&["--groups", "3", "--replicas", "1", "--shards", "6"]);
    let all: Vec<u32> = (0..6).collect();
    assert_eq!(cluster.clerk_reading(&["load", "-"], lines(&all, 6, 100)).code, Some(0));
    let key = |shard: u32| lines(&[shard], 6, 1).split('\t').next().unwrap().to_owned();
    let [lost, kept] = owned(&cluster, [103, 102]);
    let named: Vec<String> = lost.iter().map(u32::to_string).collect();
    let named: Vec<&str> = named.iter().map(String::as_str).collect();
    let declare = |more: &'static str| [&["declare-lost"], &named[..], &[more]].concat();
    assert_eq!(cluster.fails(2, &[&["declare-lost"], &named[..]].concat()), "usage");
    assert_eq!(cluster.fails(1, &declare("--accept-data-loss")), "not_lost");
    assert_eq!(cluster.fails(1, &["declare-lost", "6", "--accept-data-loss"]), "not_lost");

    cluster.ok(&["kill", "103.1"]);
    assert_eq!(cluster.fails(1, &declare("--accept-data-loss")), "unavailable", "it still owns them");
    cluster.ok(&["leave", "103", "--no-wait"]);
    let last = cluster.json(&["query"])["num"].as_u64().unwrap();
    let planned = cluster.await_status("all groups that live have adopted it", |_| {
        let planned = cluster.clerk(&[&declare("--dry-run")[..], &["-o", "json"]].concat());
        (planned.code == Some(0)).then(|| planned.json())
    });
    assert_eq!((&planned["lost"], &planned["silent"]), (&json!(lost), &json!([103])));
    assert_eq!(cluster.json(&["query"])["num"], last, "a dry run changes nothing");
    assert_eq!(cluster.fails(1, &["declare-lost", &kept[0].to_string(), "--accept-data-loss"]), "not_lost");
    let done = cluster.json(&declare("--accept-data-loss"));
    assert_eq!(
        (&done["lost"], &done["settled"], &done["config"]),
        (&json!(lost), &json!(true), &json!(last + 1))
    );
    assert_eq!(cluster.fails(1, &declare("--accept-data-loss")), "not_lost", "they are served now");
    let history = cluster.json(&["history"])["configs"].as_array().unwrap().clone();
    assert_eq!(history.last().unwrap()["lost"], json!(lost));
    assert!(cluster.ok(&["history"]).contains("LOST"));
    for shard in all.iter().filter(|shard| !lost.contains(shard)) {
        cluster.ok(&["get", &key(*shard)]);
    }
    for shard in &lost {
        assert_eq!(cluster.fails(1, &["get", &key(*shard)]), "not_found");
        let version = cluster.json(&["put", &key(*shard), "new"])["version"].as_u64();
        assert!(version > Some((last + 1) << 32), "{version:?}");
    }
    // It was not lost after all: it drops what it has, and joins like any other.
    cluster.ok(&["start", "103.1"]);
    cluster.ok(&["join", "103"]);
    cluster.await_health();
    for shard in &lost {
        assert_eq!(cluster.ok(&["get", &key(*shard)]), "new\n");
    }
}
