use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use clerk::api::status::{CtrlStatus, Follower, ReplicaStatus, Role};
use clerk::api::{ConfigNum, Digest};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::{
    HTTP_CONNECTIONS_MAX, HTTP_HEAD_BYTES_MAX, HTTP_TURN_MAX, Observed, Shown, is_named_directly, ready, show,
};
use crate::measures::{Ended, Measures};

struct Server {
    status: CtrlStatus,
    measures: Measures,
    silent: Duration,
}

impl Observed for Server {
    fn shown(&self) -> BoxFuture<'_, Shown> {
        async { Shown::Controller(Box::new(self.status.clone())) }.boxed()
    }

    fn measures(&self) -> &Measures {
        &self.measures
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
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server { status, measures: Measures::new(&["query", "change"]), silent };
    server.measures.begin(0).end(Ended::Ok);
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
