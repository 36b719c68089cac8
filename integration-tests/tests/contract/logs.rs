//! `slow` and `log-level`: what servers remember of slow requests, and what they log.

use real::Paced;

use super::*;

fn log(cluster: &Cluster, server: &str) -> String {
    fs::read_to_string(cluster.path().join(server).join("log")).unwrap()
}

#[test]
fn the_level_of_a_log_is_set_while_servers_run_for_one_a_group_or_all() {
    let _machine = together();
    let cluster = Cluster::up(&["--groups", "2", "--replicas", "1", "--shards", "12"]);
    let levels = |document: &Value| -> Vec<(String, String)> {
        let servers = document["servers"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        servers.map(|it| (text(&it["name"]), text(&it["level"]))).collect()
    };
    let all = levels(&cluster.json(&["log-level"]));
    assert_eq!(all.len(), 5);
    assert!(all.iter().all(|(_, level)| level == "info"), "{all:?}");

    let set = cluster.json(&["log-level", "101.1", "raft=debug,info"]);
    assert_eq!(levels(&set), [("101.1".to_owned(), "raft=debug,info".to_owned())]);
    assert!(log(&cluster, "101.1").contains("the level of this log was set"));
    assert!(!log(&cluster, "102.1").contains("the level of this log was set"));
    let all: Vec<_> = levels(&cluster.json(&["log-level", "all"]));
    assert_eq!(all.iter().filter(|(_, level)| level == "raft=debug,info").count(), 1, "{all:?}");
    assert_eq!(levels(&cluster.json(&["log-level", "ctrl", "warn"])).len(), 3);

    assert_eq!(cluster.fails(2, &["log-level", "101", "inof"]), "usage");
    assert_eq!(cluster.fails(1, &["log-level", "109.1", "debug"]), "unknown_server");
    cluster.ok(&["kill", "102.1"]);
    let partly = cluster.clerk(&["-o", "json", "log-level", "all", "info"]);
    assert_eq!(partly.code, Some(3), "{}", partly.stderr);
    let silent =
        partly.json()["servers"].as_array().unwrap().iter().filter(|it| !it["error"].is_null()).count();
    assert_eq!(silent, 1);
    // A server that starts again has the level that it is started with.
    cluster.ok(&["log-level", "101.1", "debug"]);
    cluster.ok(&["kill", "101.1"]);
    cluster.ok(&["start", "all"]);
    cluster.await_health();
    assert_eq!(levels(&cluster.json(&["log-level", "101"])), [("101.1".to_owned(), "info".to_owned())]);
}

#[test]
fn a_write_that_waits_for_its_group_is_remembered_with_where_its_time_went() {
    let _machine = together();
    let cluster = Cluster::up(&["--groups", "1", "--shards", "12"]);
    // It knows the leader when the others stop.
    let load = Paced::start(&cluster.target(), 50, vec!["k".to_owned()]);
    std::thread::sleep(Duration::from_millis(500));
    let leader = cluster.leader(101);
    let others: Vec<u32> = cluster
        .pids()
        .into_iter()
        .filter(|(name, _)| name.starts_with("101.") && *name != leader)
        .map(|it| it.1)
        .collect();
    let signal = |signal| {
        for pid in &others {
            kill_process(Pid::from_raw(i32::try_from(*pid).unwrap()).unwrap(), signal).unwrap();
        }
    };
    signal(Signal::STOP);
    std::thread::sleep(Duration::from_millis(300));
    signal(Signal::CONT);
    std::thread::sleep(Duration::from_millis(500));
    assert!(load.finish() > 10);
    let document = cluster.json(&["slow"]);
    assert_eq!(document["silent"], json!([]));
    let all = document["slow"].as_array().unwrap();
    let put = all.iter().find(|it| it["verb"] == "append").unwrap_or_else(|| panic!("{document}"));
    assert!(put["server"].as_str().unwrap().starts_with("101."), "{put}");
    assert!(put["shard"].is_u64() && put["seconds"].as_f64().unwrap() >= 0.1, "{put}");
    let stages = put["stages"].as_object().unwrap();
    let spent: f64 = stages.values().filter_map(Value::as_f64).sum();
    assert!((spent - put["seconds"].as_f64().unwrap()).abs() < 0.001, "{put}");
    let longest = stages.iter().max_by(|one, other| one.1.as_f64().partial_cmp(&other.1.as_f64()).unwrap());
    assert_eq!(longest.unwrap().0, "replicate", "{put}");
    assert!(!document.to_string().contains("\"k\""), "keys are not remembered: {document}");
    let text = cluster.ok(&["slow"]);
    assert!(text.contains("replicate"), "{text}");
}
