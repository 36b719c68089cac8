use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clerk::api::ConfigNum;
use clerk::api::status::{CtrlStatus, ReplicaStatus};
use clerk::connection::Options;
use clerk_survey::page::FILES;
use futures::FutureExt;
use futures::future::BoxFuture;
use host::{Measures, Observed, Shown};
use raft::rsm::Measured;
use serde_json::Value;

use super::{AdminToken, BODY_BYTES_MAX, STREAMS_MAX, Settings, openapi, routes};
use crate::service::Changes;

const TOKEN: &str = "0123456789abcdef";

struct Server(Measures);

impl Observed for Server {
    fn shown(&self) -> BoxFuture<'_, Shown> {
        let replica = ReplicaStatus { id: 1, ..ReplicaStatus::default() };
        let status = CtrlStatus { replica, config: ConfigNum(0), digest: None, key: None, recovering: false };
        async { Shown::Controller(Box::new(status)) }.boxed()
    }

    fn measures(&self) -> &Measures {
        &self.0
    }

    fn replica_measured(&self) -> Measured {
        Measured::default()
    }

    fn since_last_tick(&self) -> Duration {
        Duration::ZERO
    }
}

/// Shows a controller that reaches nobody, and returns where.
fn site(token: Option<&str>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let token = token.map(|text| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
        AdminToken::read(file.path()).unwrap()
    });
    let connection = Options::of("nobody");
    let members = [].into();
    let settings = Settings { connection, members, me: 1, token, changes: Changes::never() };
    host::show(listener, Arc::new(Server(Measures::new(&[]))), move || routes(settings)).unwrap();
    address
}

/// Sends a request and returns all of the answer.
fn send(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // A server that refuses early may close before all was sent.
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

fn get(address: SocketAddr, path: &str) -> String {
    send(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"))
}

const JSON: &str = "Content-Type: application/json";

fn post(address: SocketAddr, path: &str, headers: &[&str], body: &str) -> String {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let length = body.len();
    send(
        address,
        &format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\
             {headers}\r\n{body}"
        ),
    )
}

/// The status of an answer, and the code of its error.
fn refusal(answer: &str) -> (u16, String) {
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    (status, body["error"]["code"].as_str().unwrap().to_owned())
}

const UNPIN: &str = r#"{"verb":"unpin","shard":7}"#;

#[test]
fn the_page_is_served_with_a_policy_that_lets_nothing_in_from_elsewhere() {
    let address = site(None);
    let page = get(address, "/");
    assert!(page.starts_with("HTTP/1.1 200") && page.ends_with(FILES[0].text), "{page}");
    for line in [
        "content-security-policy: default-src 'self';",
        "x-content-type-options: nosniff",
        "content-type: text/html; charset=utf-8",
    ] {
        assert!(page.to_lowercase().contains(line), "{line} is missing in {page}");
    }
    for file in &FILES[1..] {
        assert!(get(address, &format!("/{}", file.name)).ends_with(file.text), "{}", file.name);
    }
    let other = "GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert!(send(address, other).starts_with("HTTP/1.1 403"));
}

/// Rule 150.
#[test]
fn a_change_needs_the_token_json_and_the_pages_own_origin() {
    let address = site(Some(TOKEN));
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let own = format!("Origin: http://{address}");
    let act = |headers: &[&str]| refusal(&post(address, "/v1/act", headers, UNPIN));
    // Nobody can be reached: a request that finds this out was let in.
    let let_in = (503, "unavailable".to_owned());
    assert_eq!(act(&[&bearer, JSON]), let_in);
    assert_eq!(act(&[&bearer, JSON, &own]), let_in);
    let refused = |status, code: &str| (status, code.to_owned());
    assert_eq!(act(&[JSON]), refused(401, "token"));
    assert_eq!(act(&["Authorization: Bearer 0123456789abcdeF", JSON]), refused(401, "token"));
    assert_eq!(act(&["Authorization: Bearer", JSON]), refused(401, "token"));
    for origin in ["http://evil.example", "null", "http://127.0.0.1:1", "https://127.0.0.1", ""] {
        let origin = format!("Origin: {origin}");
        assert_eq!(act(&[&bearer, JSON, &origin]), refused(403, "origin"), "{origin}");
    }
    assert_eq!(act(&[&bearer, "Content-Type: text/plain"]), refused(415, "usage"));
    assert_eq!(act(&[&bearer]), refused(415, "usage"));
    let plan = post(address, "/v1/plan", &[JSON, "Origin: http://evil.example"], UNPIN);
    assert_eq!(refusal(&plan), refused(403, "origin"));
    assert!(get(address, "/v1/act").starts_with("HTTP/1.1 405"));
}

#[test]
fn without_a_token_nothing_can_be_changed() {
    let address = site(None);
    let answer = post(address, "/v1/act", &[JSON, "Authorization: Bearer x"], UNPIN);
    assert_eq!(refusal(&answer), (403, "read_only".to_owned()));
    assert_eq!(refusal(&post(address, "/v1/plan", &[JSON], UNPIN)), (503, "unavailable".to_owned()));
}

#[test]
fn a_body_that_is_huge_or_malformed_is_refused_in_words() {
    let address = site(Some(TOKEN));
    let huge = format!(r#"{{"verb":"unpin","shard":{}}}"#, "1".repeat(BODY_BYTES_MAX));
    assert_eq!(refusal(&post(address, "/v1/plan", &[JSON], &huge)), (413, "usage".to_owned()));
    for wrong in ["", "{", "[]", r#"{"verb":"purge"}"#, "\u{0}"] {
        let answer = post(address, "/v1/plan", &[JSON], wrong);
        assert_eq!(refusal(&answer), (400, "usage".to_owned()), "{wrong}");
    }
    let nested = "[".repeat(10_000);
    assert_eq!(refusal(&post(address, "/v1/plan", &[JSON], &nested)).0, 400);
}

#[test]
fn more_streams_than_the_limit_are_refused_and_places_come_back() {
    let address = site(None);
    let open = || {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET /v1/events HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        (stream, head.ends_with(b"200"))
    };
    let streams: Vec<_> = (0..STREAMS_MAX).map(|_| open()).collect();
    assert!(streams.iter().all(|(_, is_open)| *is_open));
    assert_eq!(refusal(&get_events(address)).0, 503);
    drop(streams);
    let begun = Instant::now();
    while !open().1 {
        assert!(begun.elapsed() < Duration::from_secs(20), "the places never come back");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// For a stream that is refused.
fn get_events(address: SocketAddr) -> String {
    get(address, "/v1/events")
}

#[test]
fn a_stream_begins_with_the_past_and_the_history_and_then_has_a_state_a_second() {
    let address = site(None);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET /v1/events HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let (mut text, mut piece) = (String::new(), [0; 4096]);
    while text.matches("event: state\n").count() < 3 {
        let bytes = stream.read(&mut piece).unwrap();
        assert!(bytes > 0, "it ended: {text}");
        text += std::str::from_utf8(&piece[..bytes]).unwrap();
    }
    let order: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(order, ["past", "history", "slow", "state", "state", "state"]);
    assert!(text.contains("retry: 1000\n"));
    let state = text.lines().filter_map(|line| line.strip_prefix("data: ")).nth(3).unwrap();
    let state: Value = serde_json::from_str(state).unwrap();
    assert_eq!(state["seen_by"], "ctrl.1");
    assert_eq!((&state["writable"], &state["health"]["ok"]), (&false.into(), &false.into()));
}

#[test]
fn the_description_names_exactly_the_routes_that_there_are() {
    let address = site(None);
    let description = openapi::document();
    for (path, methods) in description["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let head = match method.as_str() {
                "get" => "GET",
                "post" => "POST",
                other => panic!("{other}"),
            };
            let mut stream = TcpStream::connect(address).unwrap();
            write!(
                stream,
                "{head} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            .unwrap();
            let mut status = [0; 12];
            stream.read_exact(&mut status).unwrap();
            let status = String::from_utf8_lossy(&status[9..]).into_owned();
            assert!(status != "404" && status != "405", "{method} {path}: {status}");
        }
    }
    let source = include_str!("../page.rs");
    let routes = source.matches(".route(\"/v1/").count();
    let described = description["paths"].as_object().unwrap().keys();
    // `/v1/server` is every server's.
    assert_eq!(routes + 1, described.filter(|path| path.starts_with("/v1/")).count());
    let answer = get(address, "/v1/openapi.json");
    assert!(answer.contains("\"openapi\":\"3.1.0\""), "{answer}");
}
