//! Servers and configurations: what servers inherit, and how directories and configurations are
//! checked, changed and shown.

use super::*;

#[test]
fn servers_are_given_nothing_but_their_standard_files() {
    let _machine = together();
    let cluster = Cluster::up(&["--groups", "1", "--replicas", "1"]);
    let held = cluster.path().join("held");
    cluster.ok(&["kill", "101.1"]);
    // What a shell passes to the programs it starts: a lock, the end of a pipe.
    let start = cluster.command(&["start", "101.1"]);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "exec 7>\"$0\"; exec \"$@\""])
        .arg(&held)
        .arg(start.get_program())
        .args(start.get_args());
    let answer = run(&mut shell, None, LIMIT);
    assert_eq!(answer.code, Some(0), "{}", answer.stderr);
    assert!(held.exists());
    let pid = cluster.pids()["101.1"];
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let open: Vec<_> = open.flatten().filter_map(|file| fs::read_link(file.path()).ok()).collect();
    assert!(open.len() > 3, "{open:?}");
    assert!(!open.contains(&held), "{open:?}");
}

#[test]
fn a_directory_is_judged_while_its_server_is_down() {
    let _machine = together();
    let cluster = Cluster::up(&["--groups", "1", "--replicas", "1"]);
    cluster.ok(&["put", "a", "one"]);
    for name in ["101.1", "ctrl.1"] {
        let place = cluster.path().join(name);
        let directory = place.display().to_string();
        assert_eq!(cluster.fails(1, &["check", &directory]), "not_checked", "it runs");
        cluster.ok(&["down", name]);
        let report = cluster.json(&["check", &directory]);
        assert_eq!(keys_of(&report), ["directory", "parts", "server", "sound"]);
        let keys = ["cluster", "group", "incarnation", "key", "members", "node"];
        assert_eq!((keys_of(&report["server"]), &report["sound"]), (keys.to_vec(), &json!(true)), "{report}");
        let parts: Vec<&str> =
            report["parts"].as_array().unwrap().iter().map(|part| part["part"].as_str().unwrap()).collect();
        assert_eq!(parts, ["identity", "peers", "log", "table", "log and table"]);
        assert!(cluster.ok(&["check", &directory]).contains("identity       sound"));

        let identity = fs::read(place.join("identity")).unwrap();
        fs::write(place.join("identity"), &identity[..identity.len() - 2]).unwrap();
        let report = cluster.clerk(&["check", &directory, "-o", "json"]);
        assert_eq!((report.code, &report.json()["parts"][0]["verdict"]), (Some(1), &json!("damaged")));
        assert_eq!(report.json()["sound"], false);
        fs::write(place.join("identity"), identity).unwrap();
        cluster.ok(&["start", name]);
    }
    assert_eq!(cluster.ok(&["get", "a"]), "one\n", "as it was");
    assert_eq!(cluster.fails(1, &["check", "/nowhere/at/all"]), "not_checked");
    assert_eq!(cluster.fails(2, &["check", &cluster.path().display().to_string()]), "usage");
}

#[test]
fn configurations_are_asked_for_and_changed() {
    let _machine = together();
    let cluster = Cluster::up(&["--groups", "2", "--replicas", "1", "--shards", "12"]);
    let first = cluster.json(&["query"]);
    assert_eq!(
        (keys_of(&first), &first["num"]),
        (vec!["digest", "groups", "key", "num", "shards"], &json!(1))
    );
    assert_eq!(keys_of(&first["groups"]), ["101", "102"]);
    assert_eq!(first["groups"]["101"].as_array().map(Vec::len), Some(1));
    assert_eq!(cluster.json(&["query", "0"])["shards"], json!(vec![0; 12]));

    let added = cluster.json(&["add-group", "103", "--replicas", "1"]);
    assert_eq!(added["gid"], 103);
    let plan = cluster.json(&["join", "103", "--dry-run"]);
    assert_eq!(plan["moves"].as_array().map(Vec::len), Some(4), "{plan}");
    assert_eq!(cluster.json(&["query"]), first, "a dry run changes nothing");
    assert_eq!((&plan["bytes"], &plan["unknown"]), (&json!(0), &json!([])), "{plan}");
    let joined = cluster.json(&["join", "103"]);
    assert_eq!(keys_of(&joined), ["config", "moves", "seconds", "settled"]);
    assert_eq!(
        (&joined["config"], &joined["settled"], &joined["moves"]),
        (&json!(2), &json!(true), &plan["moves"])
    );
    assert!(joined["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0));
    let one = &joined["moves"][0];
    assert_eq!((keys_of(one), &one["to"]), (vec!["from", "shard", "to"], &json!(103)));
    // The same once more is harmless.
    assert_eq!(cluster.json(&["join", "103"])["moves"], json!([]));

    let shards = &cluster.json(&["query"])["shards"];
    let to = if shards[5] == 101 { "102" } else { "101" };
    let moved = cluster.json(&["move", "5", to]);
    assert_eq!(moved["moves"].as_array().map(Vec::len), Some(1), "{moved}");
    assert_eq!(cluster.json(&["query"])["shards"][5].to_string(), to);
    assert_eq!(cluster.json(&["leave", "103", "--no-wait"])["settled"], false);
    cluster.await_health();

    // The last group leaves only by force; its shards wait with it, and come back with all their
    // rows.
    cluster.ok(&["put", "kept", "yes"]);
    assert_eq!(cluster.fails(1, &["leave", "101", "102"]), "last_group");
    let forced = cluster.json(&["leave", "101", "102", "--force"]);
    assert_eq!(forced["settled"], true, "{forced}");
    assert_eq!(cluster.json(&["query"])["shards"], json!(vec![0; 12]));
    assert_eq!(cluster.json(&["query"])["groups"], json!({}));
    assert_eq!(cluster.fails(1, &["get", "kept", "--timeout", "1"]), "unavailable");
    cluster.ok(&["join", "103"]);
    assert_eq!(cluster.ok(&["get", "kept"]), "yes\n");

    let history = cluster.json(&["history"]);
    let configs = history["configs"].as_array().unwrap();
    let numbers: Vec<u64> = configs.iter().map(|config| config["num"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..configs.len() as u64).collect::<Vec<_>>());
    assert_eq!(configs[1]["shards"], first["shards"]);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one cluster whose servers go and return")]
fn the_status_tells_of_servers_that_are_down_and_waiting_has_an_end() {
    let _machine = together();
    let cluster = Cluster::up(&["--groups", "2", "--shards", "8"]);
    let document = cluster.json(&["status"]);
    assert_eq!(
        keys_of(&document),
        ["cluster", "config", "controllers", "digest", "groups", "key", "params", "placement", "settled"]
    );
    const SERVER: [&str; 32] = [
        "address",
        "alarms",
        "applied",
        "behind",
        "commit",
        "config",
        "connections",
        "digest",
        "disk",
        "followers",
        "http",
        "last_alarm",
        "leader",
        "log_bytes",
        "name",
        "owes",
        "pace",
        "pid",
        "refused",
        "refused_by",
        "refused_messages",
        "refused_peers",
        "role",
        "sessions",
        "slow_syncs",
        "table_bad",
        "table_hash",
        "term",
        "unapplied_bytes",
        "up",
        "wal_syncs",
        "wipes",
    ];
    assert_eq!(keys_of(&document["controllers"][0]), SERVER);
    const GROUP: [&str; 13] = [
        "config",
        "digest",
        "gid",
        "history",
        "history_text",
        "incarnation",
        "joined",
        "key",
        "lost_data",
        "registered",
        "replicas",
        "shards",
        "weight",
    ];
    assert_eq!(keys_of(&document["groups"][0]), GROUP);
    assert_eq!(document["groups"][0]["history"], "ok");
    assert_eq!(document["groups"][0]["digest"], document["digest"]);
    assert_eq!(keys_of(&document["groups"][0]["replicas"][0]), SERVER);
    let shard = ["bytes", "load", "move", "peer", "progress", "rows", "shard", "state"];
    assert_eq!(keys_of(&document["groups"][0]["shards"][0]), shard);
    assert!(cluster.ok(&["status"]).contains("101.1"));

    assert_eq!(cluster.json(&["kill", "101.2"])["killed"], json!(["101.2"]));
    assert_eq!(cluster.fails(1, &["kill", "101.2"]), "not_running");
    let status = cluster.status();
    let down = status.group(101).iter().find(|replica| replica.name == "101.2").unwrap();
    assert!(!down.up && down.role.is_none() && down.pid.is_none(), "{down:?}");
    assert!(status.settled, "a majority is enough");
    assert_eq!(cluster.json(&["start", "101.2"])["started"], json!(["101.2"]));
    assert!(cluster.ok(&["logs", "101.2"]).lines().count() > 1);
    cluster.await_health();

    // Without a majority nothing settles, a write's outcome is unknown, and nobody waits forever.
    let shards = cluster.json(&["query"])["shards"].clone();
    let of_101 = (0..8).find(|shard| shards[*shard] == 101).unwrap().to_string();
    let shard_of = |key: &String| clerk::api::config::shard_of(key.as_bytes(), 8).0 as usize;
    let key = (0..).map(|number| format!("key-{number}")).find(|key| shards[shard_of(key)] == 102).unwrap();
    let leader = cluster.leader(102);
    let others: Vec<&str> = ["102.1", "102.2", "102.3"].into_iter().filter(|name| *name != leader).collect();
    let mut load = cluster.command(&["load", "-", "-o", "json", "--timeout", "3"]);
    let mut load = load.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = load.stdin.take().unwrap();
    lines.write_all(format!("{key}\tbefore\n").as_bytes()).unwrap();
    cluster.await_status("the first line is stored", |_| {
        (cluster.clerk(&["get", &key]).code == Some(0)).then_some(())
    });
    cluster.ok(&["kill", others[0], others[1]]);
    lines.write_all(format!("{key}\tperhaps\n").as_bytes()).unwrap();
    drop(lines);
    let load = load.wait_with_output().unwrap();
    let said = Answer { code: load.status.code(), stdout: load.stdout, stderr: String::new() };
    assert_eq!(said.error(4), "unknown");
    assert_eq!(cluster.fails(1, &["get", &key, "--timeout", "1"]), "unavailable");
    let late = cluster.clerk(&["move", &of_101, "102", "--timeout", "2", "-o", "json"]);
    assert_eq!((late.code, &late.json()["settled"]), (Some(3), &json!(false)), "{}", late.stderr);

    // Ctrl-C leaves the move running, and says so.
    let mut waiting = cluster.command(&["join", "101"]);
    let waiting = waiting.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(700));
    kill_process(Pid::from_child(&waiting), Signal::INT).unwrap();
    let waiting = waiting.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&waiting.stderr);
    assert_eq!(waiting.status.code(), Some(130), "{said}");
    assert!(said.contains("continue without this command"), "{said}");
    cluster.ok(&["start", "102"]);
    let status = cluster.await_health();
    assert!(status.groups[1].shards.iter().any(|shard| shard.shard.to_string() == of_101), "{status:?}");
    let value = cluster.ok(&["get", &key]);
    assert!(["before\n", "perhaps\n"].contains(&&*value), "{value:?}");

    assert_eq!(cluster.fails(1, &["kill", "103"]), "unknown_server");
    cluster.ok(&["down"]);
    cluster.ok(&["down"]);
    assert_eq!(cluster.fails(1, &["get", &key, "--timeout", "1"]), "unavailable");
    let status = cluster.status();
    assert!(status.replicas().all(|replica| !replica.up), "{status:?}");
    cluster.ok(&["up"]);
    assert_eq!(cluster.ok(&["get", &key]), value);
    cluster.ok(&["down", "--purge"]);
    assert!(!cluster.path().join("cluster.json").exists());
}
