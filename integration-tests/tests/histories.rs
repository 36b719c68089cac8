//! Mistakes that make two histories out of one, or an empty group out of a full one, with processes
//! and disks. No acknowledged write is lost, no server answers for rows that it does not have, and
//! the servers and clients concerned get an error.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base::socket::{Hello, Purpose, dial};
use bytes::Bytes;
use clerk::api::config::shard_of;
use clerk::api::kv::{KvRefusal, KvReply, KvRequest};
use clerk::api::push::{Cursor, End, PushRequest, Reach, Sender};
use clerk::api::{GroupId, Incarnation, ShardId};
use clerk::connection::CallError;
use real::{Client, Cluster, together};

const RECORDS: usize = 200;

/// A cluster of two groups with some records.
fn with_records(replicas: &str) -> Cluster {
    let cluster = Cluster::up(&["--groups", "2", "--replicas", replicas]);
    let lines: String = (0..RECORDS).map(|number| format!("k{number}\tv{number}\n")).collect();
    assert_eq!(cluster.clerk_reading(&["load", "-"], lines).code, Some(0));
    cluster
}

fn records_there(cluster: &Cluster) -> usize {
    let dump = cluster.ok(&["dump", "--timeout", "30"]);
    dump.lines().filter(|line| line.starts_with('k')).count()
}

/// The command line of a server that runs.
fn command_line(cluster: &Cluster, name: &str) -> Vec<String> {
    let pid = cluster.pids()[name];
    let text = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    text.split(|byte| *byte == 0)
        .filter(|part| !part.is_empty())
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .filter(|part| part != "--new")
        .collect()
}

/// Servers that a test started by hand; they end with this.
struct ByHand(Vec<Child>);

impl Drop for ByHand {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// All servers of a group lose everything and are started as new ones, in their old places.
fn anew(cluster: &Cluster, group: &str, names: &[&str]) -> ByHand {
    let lines: BTreeMap<&str, Vec<String>> =
        names.iter().map(|name| (*name, command_line(cluster, name))).collect();
    cluster.ok(&["kill", group]);
    let start = |(name, line): (&str, Vec<String>)| {
        let data = cluster.path().join(name);
        std::fs::remove_dir_all(&data).unwrap();
        std::fs::create_dir(&data).unwrap();
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).arg("--new").current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    ByHand(lines.into_iter().map(start).collect())
}

fn log_of(place: &Path, name: &str) -> String {
    std::fs::read_to_string(place.join(name).join("log")).unwrap()
}

/// Waits until the log of a server contains `words`.
fn until_log(cluster: &Cluster, name: &str, words: &str) {
    let until = Instant::now() + Duration::from_secs(30);
    while !log_of(cluster.path(), name).contains(words) {
        assert!(Instant::now() < until, "{name} never says {words:?}: {}", log_of(cluster.path(), name));
        std::thread::sleep(Duration::from_millis(100));
    }
}

const CONTROLLERS: [&str; 3] = ["ctrl.1", "ctrl.2", "ctrl.3"];

#[test]
fn controllers_made_anew_move_nothing_and_everything_stays() {
    let _machine = together();
    let cluster = with_records("1");
    let before = cluster.json(&["query"]);
    let strangers = anew(&cluster, "ctrl", &CONTROLLERS);
    until_log(&cluster, "101.1", "adopts nothing");
    // No command makes a group follow them.
    for verb in [&["join", "101", "--timeout", "5"][..], &["join", "102", "--timeout", "5"]] {
        assert_ne!(cluster.clerk(verb).code, Some(0), "{verb:?}");
    }
    std::thread::sleep(Duration::from_secs(2));
    let status = cluster.status();
    assert!(!status.settled, "{status:#?}");
    for group in &status.groups {
        assert_eq!(group.config, Some(1), "{group:#?}");
        assert_eq!(group.history.as_deref(), Some("other"), "{group:#?}");
        assert_eq!(group.shards.len(), 32, "{group:#?}");
    }
    // The way back: new controllers that continue from what the groups hold.
    drop(strangers);
    let recovered = cluster.json(&["recover-controllers"]);
    assert_eq!((&recovered["config"], &recovered["digest"]), (&before["num"], &before["digest"]));
    cluster.await_health();
    assert_eq!(records_there(&cluster), RECORDS);
}

#[test]
fn lost_controllers_are_recovered_from_the_groups() {
    let _machine = together();
    let cluster = with_records("1");
    cluster.ok(&["move", "0", "102"]);
    cluster.ok(&["move", "0", "101"]);
    let before = cluster.json(&["query"]);
    assert_eq!(cluster.json(&["recover-controllers"])["recovered"], false, "they are well");
    cluster.ok(&["kill", "ctrl"]);
    assert_eq!(cluster.fails(1, &["recover-controllers"]), "not_lost", "they only sleep");
    std::fs::remove_dir_all(cluster.path().join("ctrl.1")).unwrap();
    std::fs::remove_dir_all(cluster.path().join("ctrl.2")).unwrap();
    // A group that does not answer stops it before anything is changed.
    cluster.ok(&["kill", "102"]);
    assert_eq!(cluster.fails(1, &["recover-controllers", "--timeout", "3"]), "unavailable");
    assert!(cluster.path().join("ctrl.3").exists());
    cluster.ok(&["start", "102"]);
    let recovered = cluster.json(&["recover-controllers"]);
    assert_eq!((&recovered["recovered"], &recovered["config"]), (&true.into(), &before["num"]));
    assert_eq!(recovered["key"], before["key"]);
    assert_eq!(recovered["set_aside"].as_array().map(Vec::len), Some(1), "{recovered}");
    assert!(cluster.path().join("ctrl.3.lost-1").exists());
    cluster.await_health();
    let after = cluster.json(&["query"]);
    assert_eq!((&after["digest"], &after["shards"]), (&before["digest"], &before["shards"]));
    assert_eq!(cluster.json(&["recover-controllers"])["recovered"], false, "once more is harmless");
    // Moves work as before, and after a restart of all servers.
    cluster.ok(&["add-group", "103", "--replicas", "1"]);
    cluster.ok(&["join", "103"]);
    cluster.ok(&["leave", "101"]);
    cluster.ok(&["kill", "all"]);
    cluster.ok(&["up"]);
    cluster.await_health();
    assert_eq!(records_there(&cluster), RECORDS);
}

#[test]
fn a_group_that_lost_its_data_is_served_nowhere() {
    let _machine = together();
    let cluster = with_records("3");
    let owners = cluster.json(&["query"]);
    let of = |group: u64| {
        let home = |key: &String| owners["shards"][shard_of(key.as_bytes(), 64).0 as usize] == group;
        (0..RECORDS).map(|number| format!("k{number}")).find(home).unwrap()
    };
    let _wiped = anew(&cluster, "102", &["102.1", "102.2", "102.3"]);
    cluster.await_status("it says that it lost its data", |status| {
        let group = status.groups.iter().find(|group| group.gid == 102)?;
        group.lost_data.then(|| assert!(!status.settled && group.shards.is_empty(), "{status:#?}"))
    });
    let get = cluster.clerk(&["get", &of(102), "--timeout", "5"]);
    assert!(get.code == Some(1) && get.stderr.contains("lost its data"), "{get:?}");
    assert!(!get.stderr.contains("there is no key"), "{get:?}");
    assert_ne!(cluster.clerk(&["put", &of(102), "other", "--timeout", "5"]).code, Some(0));
    assert_ne!(cluster.clerk(&["join", "102", "--timeout", "5"]).code, Some(0));
    assert!(cluster.ok(&["status"]).contains("LOST ITS DATA"));
    assert_eq!(cluster.ok(&["get", &of(101)]).trim_end(), of(101).replace('k', "v"));
}

#[test]
#[expect(clippy::too_many_lines, reason = "one attack after the other on one cluster")]
fn garbage_rows_end_no_server() {
    let _machine = together();
    let cluster = with_records("3");
    let status = cluster.status();
    cluster.ok(&["kill", "101"]);
    let made = cluster.json(&["leave", "101", "--no-wait"]);
    let awaited = cluster.await_status("group 102 awaits shards", |status| {
        let group = status.groups.iter().find(|group| group.gid == 102)?;
        let shard = group.shards.iter().find(|shard| shard.state == "awaiting")?;
        (group.config == made["config"].as_u64()).then_some(shard.shard)
    });
    let pids = cluster.pids();
    let query = cluster.json(&["query"]);
    let incarnation = u64::from_str_radix(
        status.groups.iter().find(|group| group.gid == 101).unwrap().incarnation.as_ref().unwrap(),
        16,
    )
    .unwrap();
    let place = clerk::api::config::Place {
        num: clerk::api::ConfigNum(query["num"].as_u64().unwrap()),
        digest: clerk::api::Digest(u64::from_str_radix(query["digest"].as_str().unwrap(), 16).unwrap()),
    };
    let client = Client::new(&cluster.target());
    let shard = ShardId(u32::try_from(awaited).unwrap());
    let meta = [&[0x10][..], &shard.0.to_be_bytes()].concat();
    let sessions = [&[0x11][..], &shard.0.to_be_bytes(), &[0]].concat();
    let values = Bytes::from(vec![0x12, 0, 0, b'x']);
    let honest = Sender { group: GroupId(101), incarnation: Incarnation(incarnation) };
    for replica in status.group(102) {
        for key in [Bytes::from(meta.clone()), Bytes::from(sessions.clone()), values.clone()] {
            let rows = vec![(key, Some(Bytes::from_static(b"garbage")))];
            let (config, after) = (place, Cursor::default());
            let to = Cursor { reach: Reach::End, ..Cursor::default() };
            let request = PushRequest::Install { shard, config, from: GroupId(101), after, to, rows };
            let connection = cluster.target().connection();
            let answer = client.run(connection.push(
                &replica.address,
                GroupId(102),
                honest,
                request,
                Duration::from_secs(5),
            ));
            assert!(matches!(answer, Ok(Err(_))), "{answer:?}");
        }
        // A group that did not join is not let in at all, and rows are not accepted from a client.
        let stranger = Sender { incarnation: Incarnation(5), ..honest };
        let (from, after, rows) = (GroupId(101), Cursor::default(), Vec::new());
        let end = PushRequest::Activate { shard, config: place, from, after, rows, end: End::default() };
        let limit = Duration::from_secs(5);
        let ask = || {
            let connection = cluster.target().connection();
            client.run(connection.push(&replica.address, GroupId(102), stranger, end.clone(), limit))
        };
        // A follower may not have heard yet who joined. It takes nothing either.
        let mut answer = ask();
        for _ in 0..100 {
            if !matches!(answer, Ok(Err(KvRefusal::NotLeader { .. }))) {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
            answer = ask();
        }
        assert!(matches!(answer, Err(CallError::Refused { .. })), "{answer:?}");
        let hello = Hello {
            cluster: status.cluster.clone(),
            purpose: Purpose::Push,
            group: 102,
            from_group: 101,
            incarnation: 5,
            ..Hello::default()
        };
        assert!(client.run(dial(&replica.address, &hello, limit)).is_err());
        let connection = cluster.target().connection();
        let asked = client.run(connection.kv(&replica.address, GroupId(102), KvRequest::Status, limit));
        assert!(matches!(asked, Ok(Ok(KvReply::Status(_)))), "{asked:?}");
    }
    cluster.ok(&["start", "101"]);
    cluster.await_health();
    assert_eq!(records_there(&cluster), RECORDS);
    let after = cluster.pids();
    assert!(pids.iter().all(|(name, pid)| after[name] == *pid), "a server died");
}
