//! Commands that meet servers that are down, files that are gone, and work that other commands left
//! half done (correctness rules 43, 85, 86, 87, 101).

use std::fs;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use real::{Cluster, Place, binary, run, together};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

fn addresses(added: &Value) -> Vec<String> {
    let servers = added["servers"].as_array().unwrap();
    servers.iter().map(|server| server["address"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn keys_need_one_controller_or_one_group() {
    let _machine = together();
    let cluster = Cluster::up(&["--groups", "2", "--replicas", "1"]);
    cluster.ok(&["put", "a", "1"]);
    let controllers = cluster.target().controllers.join(",");
    cluster.ok(&["kill", "ctrl.1", "ctrl.2"]);
    assert_eq!(cluster.ok(&["get", "a"]), "1\n");
    cluster.ok(&["put", "a", "2", "--timeout", "4"]);
    let mut elsewhere = Command::new(binary("clerk"));
    elsewhere.args(["--controllers", &controllers, "get", "a", "--timeout", "3"]);
    assert_eq!(run(&mut elsewhere, None, LIMIT).text(), "2\n");
    // A server that led does not notice at once that the others died: until then it is silent.
    cluster.await_status("a controller that knows that it is alone", |status| {
        status.group(0).iter().all(|controller| !controller.leads()).then_some(())
    });
    let started = Instant::now();
    let late = cluster.clerk(&["move", "1", "101", "--timeout", "1", "-o", "json"]);
    assert_eq!(late.error(1), "unavailable");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    let message = late.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("does not lead") && message.contains("not reached"), "{message}");
    cluster.ok(&["kill", "ctrl.3"]);
    assert_eq!(cluster.ok(&["get", "a"]), "2\n", "the groups know");
}

/// Verbs that look at the whole cluster, and what they do meanwhile.
#[test]
fn no_verb_takes_longer_than_it_may_where_controllers_are_silent() {
    let _machine = together();
    let cluster = Cluster::up(&["--groups", "1", "--replicas", "1"]);
    let controllers = cluster.status().group(0).iter().map(|it| it.name.clone()).collect::<Vec<_>>();
    let pids = cluster.pids();
    let signal = |signal| {
        for name in &controllers {
            kill_process(Pid::from_raw(pids[name] as i32).unwrap(), signal).unwrap();
        }
    };
    signal(Signal::STOP);
    let file = cluster.path().join("none.jsonl").display().to_string();
    let verbs: [(&[&str], u64); 8] = [
        (&["bench", "--seconds", "1", "--clients", "2"], 3),
        (&["status"], 1),
        (&["moves"], 1),
        (&["query"], 1),
        (&["history"], 1),
        (&["get", "a"], 1),
        (&["dump"], 3),
        (&["load", &file], 1),
    ];
    let late: Vec<String> = verbs
        .iter()
        .filter_map(|(verb, seconds)| {
            let started = Instant::now();
            cluster.clerk(&[verb, &["--timeout", "1"][..]].concat());
            let took = started.elapsed();
            (took > Duration::from_secs(*seconds) + Duration::from_millis(700))
                .then(|| format!("{verb:?}: {took:?}"))
        })
        .collect();
    signal(Signal::CONT);
    assert!(late.is_empty(), "{late:?}");
}

/// The time of a command is that of each look, or a long move would end the watch.
#[test]
fn moves_are_watched_for_longer_than_one_question_may_take() {
    let _machine = together();
    let cluster = Cluster::up(&["--groups", "2", "--replicas", "1", "--shards", "2"]);
    let owned = cluster.json(&["query"])["shards"].as_array().unwrap().clone();
    let shard = owned.iter().position(|owner| *owner == json!(101)).expect("a shard of 101").to_string();
    cluster.ok(&["kill", "102.1"]);
    cluster.ok(&["move", &shard, "102", "--no-wait"]);
    let mut watch = cluster.command(&["moves", "--watch", "--timeout", "1", "-o", "json"]);
    let mut watch = watch.stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(5));
    let ended = watch.try_wait().unwrap();
    let _ = watch.kill();
    let output = watch.wait_with_output().unwrap();
    assert_eq!(ended, None, "the move is not over");
    let text = String::from_utf8(output.stdout).unwrap();
    let looks: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert!(looks.len() >= 2, "{text}");
    assert!(
        looks.iter().all(|look| look["moves"].as_array().is_some_and(|moves| moves.len() == 1)),
        "{text}"
    );
}

#[test]
fn up_waits_for_servers_that_still_stop() {
    let _machine = together();
    let cluster = Cluster::up(&["--groups", "1"]);
    for delay in [10, 30, 60] {
        for pid in cluster.pids().values() {
            kill_process(Pid::from_raw(*pid as i32).unwrap(), Signal::TERM).unwrap();
        }
        cluster.ok(&["up"]);
        assert!(cluster.status().replicas().all(|replica| replica.up));
        let mut down =
            cluster.command(&["down"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        // It may have ended.
        let _ = kill_process(Pid::from_child(&down), Signal::INT);
        down.wait().unwrap();
        cluster.ok(&["start", "all"]);
        assert!(cluster.status().replicas().all(|replica| replica.up));
    }
}

#[test]
fn two_that_start_a_cluster_at_once_start_one() {
    let _machine = together();
    let place = Place::new();
    let clerk = |arguments: &[&str]| {
        let mut command = Command::new(binary("clerk"));
        command.arg("--dir").arg(place.path()).args(arguments);
        command
    };
    let up = ["up", "--groups", "1", "--replicas", "1", "-o", "json"];
    let (one, other) = std::thread::scope(|scope| {
        let one = scope.spawn(|| run(&mut clerk(&up), None, LIMIT));
        let other = run(&mut clerk(&up), None, LIMIT);
        (one.join().unwrap(), other)
    });
    assert_eq!((one.code, other.code), (Some(0), Some(0)), "{} {}", one.stderr, other.stderr);
    assert_eq!(one.json()["cluster"], other.json()["cluster"]);
    assert_eq!(run(&mut clerk(&["down", "--purge"]), None, LIMIT).code, Some(0));
    assert!(!place.path().join("cluster.json").exists());
}

#[test]
fn a_group_that_was_told_to_leave_stays_out_after_an_interrupted_up() {
    let _machine = together();
    let place = Place::new();
    let clerk = |arguments: &[&str]| {
        let mut command = Command::new(binary("clerk"));
        command.arg("--dir").arg(place.path()).args(["-o", "json"]).args(arguments);
        command
    };
    let ask = |arguments: &[&str]| run(&mut clerk(arguments), None, LIMIT);
    let up = ["up", "--groups", "2", "--replicas", "1"];
    let mut up = clerk(&up).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let joined = || ask(&["query", "--timeout", "0.5"]).json()["num"].as_u64() >= Some(1);
    assert!((0..1000).any(|_| joined()), "the groups have joined");
    // It may have ended.
    let _ = kill_process(Pid::from_child(&up), Signal::INT);
    up.wait().unwrap();
    assert_eq!(ask(&["leave", "102"]).code, Some(0));
    assert_eq!(ask(&["leave", "102"]).json()["moves"], json!([]), "harmless");
    assert_eq!(ask(&["up"]).code, Some(0));
    let groups = ask(&["query"]).json()["groups"].clone();
    assert_eq!(groups.as_object().unwrap().keys().collect::<Vec<_>>(), ["101"]);
    assert_eq!(ask(&["down", "--purge"]).code, Some(0));
}

#[test]
fn a_wrong_list_of_servers_is_refused_and_can_be_corrected() {
    let _machine = together();
    let cluster = Cluster::up(&["--groups", "1"]);
    let servers = addresses(&cluster.json(&["add-group", "102"]));
    let first = format!("102={}", servers[0]);
    assert_eq!(cluster.fails(1, &["join", &first]), "wrong_servers");
    let stranger = format!("102={},{}", servers.join(","), cluster.target().controllers[0]);
    assert_eq!(cluster.fails(1, &["join", &stranger]), "wrong_servers");
    assert_eq!(cluster.json(&["query"])["num"], 1, "nothing changed");
    let joined = cluster.json(&["join", &first, "--partial"]);
    let known = |cluster: &Cluster| cluster.json(&["query"])["groups"]["102"].clone();
    assert_eq!(known(&cluster), json!([servers[0]]));
    let corrected = cluster.json(&["join", "102"]);
    assert_eq!((&corrected["config"], &corrected["moves"]), (&joined["config"], &json!([])));
    assert_eq!(known(&cluster), json!(servers));
    let records: String = (0..60).map(|number| format!("k{number}\tv\n")).collect();
    assert_eq!(cluster.clerk_reading(&["load", "-"], records).code, Some(0));
    cluster.ok(&["kill", "102.1"]);
    for number in 0..60 {
        assert_eq!(cluster.ok(&["get", &format!("k{number}")]), "v\n");
    }
}

#[test]
fn servers_are_found_without_their_file() {
    let _machine = together();
    let cluster = Cluster::up(&["--groups", "1", "--replicas", "1"]);
    let (file, kept) = (cluster.path().join("cluster.json"), cluster.path().join("kept"));
    fs::rename(&file, &kept).unwrap();
    let status = cluster.json(&["status"]);
    assert_eq!(status["groups"][0]["replicas"][0]["up"], true, "{status}");
    fs::write(&file, "{\"cluster\": 7}").unwrap();
    assert_eq!(cluster.fails(1, &["up"]), "bad_cluster_file");
    let down = cluster.json(&["down"]);
    assert_eq!(down["stopped"].as_array().map(Vec::len), Some(4), "{down}");
    assert_eq!(cluster.fails(1, &["down"]), "bad_cluster_file", "none runs: there is nothing to go by");
    fs::rename(&kept, &file).unwrap();
    cluster.ok(&["up"]);
}

#[test]
fn a_dump_prints_what_healthy_groups_hold() {
    let _machine = together();
    let cluster = Cluster::up(&["--groups", "2", "--replicas", "1", "--shards", "8"]);
    let records: String = (0..100).map(|number| format!("k{number}\tv\n")).collect();
    assert_eq!(cluster.clerk_reading(&["load", "-"], records).code, Some(0));
    let shards = cluster.json(&["query"])["shards"].clone();
    cluster.ok(&["kill", "102"]);
    let dump = cluster.clerk(&["dump", "--timeout", "2"]);
    assert_eq!(dump.code, Some(3), "{}", dump.stderr);
    let count = dump.text().lines().filter(|line| line.contains('\t')).count();
    assert!((20..80).contains(&count) && !dump.text().contains("# end of dump"), "{count} records");
    assert!(dump.stderr.contains("missing"), "{}", dump.stderr);
    let dump = cluster.clerk(&["dump", "--timeout", "2", "-o", "json"]).json();
    let missing: Vec<u64> =
        dump["missing"].as_array().unwrap().iter().map(|shard| shard["shard"].as_u64().unwrap()).collect();
    let lost: Vec<u64> = (0..8).filter(|shard| shards[*shard as usize] == 102).collect();
    assert_eq!(missing, lost);
}

#[test]
fn ctrl_c_in_a_write_says_that_it_may_have_been_done() {
    let _machine = together();
    let cluster = Cluster::up(&["--groups", "1", "--replicas", "1"]);
    cluster.ok(&["put", "dash", "-", "--literal"]);
    assert_eq!(cluster.ok(&["get", "dash"]), "-\n");
    let interrupted = |arguments: &[&str]| {
        let mut command = cluster.command(arguments);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // Its input stays open: at its end it would begin to write.
        let input = child.stdin.take();
        std::thread::sleep(Duration::from_millis(700));
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let ended = child.wait_with_output().unwrap();
        drop(input);
        assert_eq!(ended.status.code(), Some(130));
        String::from_utf8_lossy(&ended.stderr).into_owned()
    };
    assert!(interrupted(&["put", "a", "-"]).contains("nothing was written"), "it still reads the value");
    cluster.ok(&["kill", "101"]);
    assert!(interrupted(&["put", "a", "1"]).contains("may have been done"));
}

/// More connections than a server may have took the descriptors of its stores, and ended it as "disk error".
#[test]
fn servers_with_64_descriptors_outlive_more_connections_than_they_may_have() {
    let _machine = together();
    let cluster = Cluster::up_with_descriptors(64, &["--groups", "1"]);
    let pids = cluster.pids();
    let addresses: Vec<String> =
        cluster.status().group(101).iter().map(|replica| replica.address.clone()).collect();
    // Connections that make room are closed at the servers' end only.
    let silent: Vec<TcpStream> = (0..80)
        .flat_map(|_| addresses.iter().map(|address| TcpStream::connect(address).expect("it listens")))
        .collect();
    for number in 0..20 {
        cluster.ok(&["put", &format!("key {number}"), "value"]);
    }
    assert_eq!(cluster.ok(&["get", "key 7"]), "value\n");
    drop(silent);
    assert_eq!(cluster.pids(), pids, "no process was started anew");
    assert!(cluster.status().replicas().all(|replica| replica.up));
}
