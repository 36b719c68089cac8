use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use base::times::{Amounts, Times};
use clerk::api::status::{
    CtrlStatus, Follower, History, KvStatus, Moved, Places, ReplicaStatus, Role, Sessions, ShardLoad,
    ShardPhase, ShardStatus,
};
use clerk::api::{ConfigNum, Digest, GroupId, ShardId};
use futures::FutureExt;
use futures::future::BoxFuture;
use raft::rsm::Measured;

use super::{
    HTTP_CONNECTIONS_MAX, HTTP_HEAD_BYTES_MAX, HTTP_TURN_MAX, Moves, Observed, Shown, is_named_directly,
    ready, show,
};
use crate::measures::{Ended, Measures};

struct Server {
    shown: Shown,
    measures: Measures,
    replica: Measured,
    moves: Option<Moves>,
    silent: Duration,
}

impl Observed for Server {
    fn shown(&self) -> BoxFuture<'_, Shown> {
        async { self.shown.clone() }.boxed()
    }

    fn measures(&self) -> &Measures {
        &self.measures
    }

    fn replica_measured(&self) -> Measured {
        self.replica.clone()
    }

    fn moves(&self) -> Option<Moves> {
        self.moves
    }

    fn since_last_tick(&self) -> Duration {
        self.silent
    }
}

/// A controller that leads and has a configuration.
fn healthy() -> CtrlStatus {
    let followers = [(2, Follower { lacks: 7, silent_seconds: 3, ..Follower::default() })].into();
    let replica = ReplicaStatus {
        id: 1,
        role: Role::Leader,
        leader: Some(1),
        commit: 5_000,
        applied: 4_000,
        followers,
        ..ReplicaStatus::default()
    };
    CtrlStatus {
        replica,
        config: ConfigNum(3),
        digest: Some(Digest::default()),
        key: Some(1),
        recovering: false,
    }
}

/// Shows a controller, and returns where.
fn shown(status: CtrlStatus) -> SocketAddr {
    silent(status, Duration::ZERO)
}

/// The same of one whose loop turned last so long ago.
fn silent(status: CtrlStatus, silent: Duration) -> SocketAddr {
    let measures = Measures::new(&["query", "change"]);
    measures.begin(0).end(Ended::Ok);
    let shown = Shown::Controller(Box::new(status));
    serve(Server { shown, measures, replica: Measured::default(), moves: None, silent })
}

/// Shows a server, and returns where.
fn serve(server: Server) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    show(listener, Arc::new(server), axum::Router::new).unwrap();
    address
}

/// Sends `head` and returns all of the answer.
fn ask(address: SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // A server that refuses early may close before all was sent.
    let _ = stream.write_all(head.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

fn get(address: SocketAddr, path: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"))
}

#[test]
fn metrics_say_what_the_status_says() {
    let page = get(shown(healthy()), "/metrics");
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    for line in [
        "shardctrler_raft_leader{group=\"ctrl\",replica=\"1\"} 1\n",
        "shardctrler_config_number{group=\"ctrl\",replica=\"1\"} 3\n",
        "shardctrler_raft_peer_lag_entries{group=\"ctrl\",replica=\"1\",peer=\"2\"} 7\n",
        "shardctrler_raft_peer_silence_seconds{group=\"ctrl\",replica=\"1\",peer=\"2\"} 3\n",
        "shardctrler_requests_total{group=\"ctrl\",replica=\"1\",verb=\"query\",outcome=\"ok\"} 1\n",
        "# TYPE shardctrler_request_duration_seconds histogram\n",
        "verb=\"change\",le=\"+Inf\"} 0\n",
        "process_resident_memory_bytes ",
    ] {
        assert!(page.contains(line), "{line} is missing in {page}");
    }
}

/// A leader of a group that serves shard 7 and gives others away.
fn group() -> Server {
    let mut replica = healthy().replica;
    replica.pace = Some(9_000_000);
    replica.refused.insert("other_cluster".to_owned(), 4);
    replica.connections.open.insert("clients".to_owned(), Places { open: 5, max: 6 });
    let load = ShardLoad { reads: 31, writes: 32, bytes: 33 };
    let shard = ShardStatus {
        shard: ShardId(7),
        phase: ShardPhase::Serving,
        num: None,
        peer: None,
        rows: 21,
        bytes: 22,
        progress: None,
        load,
        copy: None,
    };
    let status = KvStatus {
        replica,
        group: GroupId(101),
        incarnation: None,
        config: ConfigNum(3),
        digest: None,
        key: None,
        history: History::Same,
        lost: None,
        settled: false,
        shards: vec![shard],
        members: BTreeMap::new(),
        wipes: 0,
        sessions: Sessions::default(),
        moved: Moved { shards: 11, last_pause_micros: 2_500, longest_pause_micros: 9_000 },
    };
    let (saves, round_entries) = (Times::default(), Amounts::default());
    saves.note(Duration::from_micros(1_500));
    round_entries.note(3);
    let replica = Measured {
        saves: saves.read(),
        round_entries: round_entries.read(),
        log_file_bytes: 41,
        leader_changes: 42,
        snapshots_sent: 43,
        snapshots_installed: 44,
        log_repairs: 45,
        table_repairs: 46,
    };
    let stalled = Duration::from_millis(1_500);
    let moves = Moves { newest: ConfigNum(5), rows_out: 51, rows_in: 52, stalled, dirty_rows: 53 };
    let measures = Measures::new(&["get"]).with_slow(Duration::from_nanos(1), &[]);
    measures.begin(0).end(Ended::Ok);
    let shown = Shown::Group(Box::new(status));
    Server { shown, measures, replica, moves: Some(moves), silent: Duration::ZERO }
}

#[test]
fn metrics_say_what_a_group_measured() {
    let address = serve(group());
    let page = get(address, "/metrics?shards=1");
    for (sample, value) in [
        ("slow_requests_total", "1"),
        ("wal_sync_duration_seconds_bucket,le=0.001", "0"),
        ("wal_sync_duration_seconds_bucket,le=0.002", "1"),
        ("wal_sync_duration_seconds_sum", "0.0015"),
        ("raft_round_entries_bucket,le=2", "0"),
        ("raft_round_entries_bucket,le=4", "1"),
        ("raft_round_entries_sum", "3"),
        ("wal_bytes", "41"),
        ("raft_leader_changes_total", "42"),
        ("snapshots_sent_total", "43"),
        ("snapshots_installed_total", "44"),
        ("raft_repairs_total,what=log", "45"),
        ("raft_repairs_total,what=table", "46"),
        ("raft_pace_bytes", "9000000"),
        ("config_number", "3"),
        ("config_newest_number", "5"),
        ("move_rows_total,direction=out", "51"),
        ("move_rows_total,direction=in", "52"),
        ("move_stalled_seconds", "1.5"),
        ("moves_total", "11"),
        ("move_last_pause_seconds", "0.0025"),
        ("dirty_rows", "53"),
        ("shard_reads_per_second,shard=7", "31"),
        ("shard_writes_per_second,shard=7", "32"),
        ("shard_load_bytes_per_second,shard=7", "33"),
    ] {
        let (name, label) = sample.split_once(',').unwrap_or((sample, ""));
        let label = label.split_once('=').map(|(label, of)| format!(",{label}=\"{of}\""));
        let label = label.unwrap_or_default();
        let line = format!("shardkv_{name}{{group=\"101\",replica=\"1\"{label}}} {value}\n");
        assert!(page.contains(&line), "{line} is missing in {page}");
    }
    assert!(!get(address, "/metrics").contains("shard=\"7\""), "only when it is asked for");
}

/// The names of a page's metrics, without what they begin with.
fn names(page: &str) -> BTreeSet<String> {
    let names = page.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next());
    let own = names.filter_map(|name| {
        name.strip_prefix("shardkv_").or_else(|| name.strip_prefix("shardctrler_")).map(str::to_owned)
    });
    own.collect()
}

#[test]
fn the_documents_name_every_metric_and_no_other() {
    let mut all = names(&get(serve(group()), "/metrics?shards=1"));
    all.extend(names(&get(shown(healthy()), "/metrics")));
    let text = include_str!("../../../docs/operations.md");
    let (_, table) = text.split_once("\n| metric |").unwrap();
    let table = table.split("\n\n").next().unwrap();
    let cells = table.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let documented: BTreeSet<String> = cells
        .flat_map(|cell| cell.split("`, `"))
        .map(|name| name.trim_end_matches('`').split('{').next().unwrap().to_owned())
        .filter(|name| name != "process_*")
        .collect();
    let only = |one: &BTreeSet<String>, other| one.difference(other).cloned().collect::<Vec<_>>();
    assert_eq!(only(&all, &documented), [""; 0], "add it to the table in docs/operations.md");
    assert_eq!(only(&documented, &all), [""; 0], "no server shows it");
}

#[test]
fn a_server_is_ready_when_everything_holds_and_says_what_does_not() {
    type Spoil = fn(&mut CtrlStatus);
    let healthy_text = get(shown(healthy()), "/readyz?verbose");
    assert!(healthy_text.starts_with("HTTP/1.1 200") && healthy_text.ends_with("ready\n"), "{healthy_text}");
    let cases: [(Spoil, &str); 7] = [
        (|it| it.digest = None, "[-] configuration: there is no configuration yet"),
        (|it| it.recovering = true, "[-] configuration: waits for `clerk recover-controllers`"),
        (|it| it.replica.leader = None, "[-] leader: no leader is known"),
        (|it| it.replica.applied = 3_999, "[-] applied: 1001 committed entries are not applied"),
        (|it| it.replica.disk.low = true, "[-] disk: "),
        (|it| it.replica.table_bad = true, "[-] table: "),
        (|it| it.replica.owes = Some("7@3".to_owned()), "[-] log: "),
    ];
    for (spoil, expected) in cases {
        let mut status = healthy();
        spoil(&mut status);
        let checks = ready::checks(&Shown::Controller(Box::new(status.clone())));
        assert_eq!(checks.iter().filter(|check| !check.holds()).count(), 1, "{expected}");
        let text = get(shown(status), "/readyz");
        assert!(text.starts_with("HTTP/1.1 503") && text.ends_with("not ready\n"), "{text}");
        assert!(text.contains(expected), "{expected} is missing in {text}");
    }
}

#[test]
fn a_server_whose_loop_stands_still_is_not_alive() {
    assert!(get(silent(healthy(), HTTP_TURN_MAX), "/livez").starts_with("HTTP/1.1 200"));
    let hung = get(silent(healthy(), HTTP_TURN_MAX + Duration::from_secs(1)), "/livez");
    assert!(hung.starts_with("HTTP/1.1 503") && hung.contains("not turned for 11 s"), "{hung}");
}

#[test]
fn only_an_address_or_localhost_is_answered() {
    let address = shown(healthy());
    let from = |host: &str| {
        ask(address, &format!("GET /livez HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
    };
    assert!(from("localhost:7400").starts_with("HTTP/1.1 200"));
    assert!(from("evil.example:7400").starts_with("HTTP/1.1 403"));
    assert!(ask(address, "GET /livez HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 403"), "no name at all");
    for (host, is_direct) in [
        ("127.0.0.1", true),
        ("127.0.0.1:80", true),
        ("[::1]:80", true),
        ("[::1]", true),
        ("LOCALHOST", true),
        ("localhost.evil.example", false),
        ("127.0.0.1.evil.example:80", false),
        ("", false),
    ] {
        assert_eq!(is_named_directly(host), is_direct, "{host}");
    }
}

#[test]
fn unknown_pages_and_other_methods_are_refused_in_words() {
    let address = shown(healthy());
    assert!(get(address, "/").starts_with("HTTP/1.1 404"));
    assert!(get(address, "/").contains("/metrics"));
    let post = format!(
        "POST /metrics HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    assert!(ask(address, &post).starts_with("HTTP/1.1 405"));
}

#[test]
fn a_head_without_end_ends_its_own_connection_only() {
    let address = shown(healthy());
    let endless = format!("GET / HTTP/1.1\r\nHost: {address}\r\nX: {}", "x".repeat(2 * HTTP_HEAD_BYTES_MAX));
    let answer = ask(address, &endless);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert!(!ask(address, "\0\u{1}\u{2}garbage\r\n\r\n").starts_with("HTTP/1.1 200"));
    assert!(get(address, "/livez").starts_with("HTTP/1.1 200"));
}

#[test]
fn connections_beyond_the_limit_are_closed_and_places_come_back() {
    let address = shown(healthy());
    let silent: Vec<_> = (0..HTTP_CONNECTIONS_MAX).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert_eq!(get(address, "/livez"), "", "one too many");
    drop(silent);
    let is_served = || get(address, "/livez").starts_with("HTTP/1.1 200");
    assert!((0..100).any(|_| is_served() || {
        std::thread::sleep(Duration::from_millis(20));
        false
    }));
}
