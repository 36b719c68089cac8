use std::sync::Arc;
use std::time::Duration;

use base::clock;
use base::socket::{Arrival, Counters, Here, Key, Limits, Listener, Reason, Refusals};
use bytes::Bytes;
use futures::future::join_all;
use tokio::task::AbortHandle;

use super::{Options, TarpcConnection};
use crate::api::ctrl::{CtrlRefusal, CtrlReply, CtrlRequest};
use crate::api::kv::{KvRefusal, KvReply, KvRequest};
use crate::api::{ConfigNum, Digest, GroupId, SessionId, Version, rpc};
use crate::connection::{CallError, Called, Connection};

const DEADLINE: Duration = Duration::from_secs(5);
const GROUP: GroupId = GroupId(101);

fn here(group: u64) -> Here {
    Here { cluster: "blue".into(), group, node: 1, incarnation: 1, ..Here::default() }
}

fn get(key: &str) -> KvRequest {
    KvRequest::Get { key: Bytes::from(key.to_owned()), config: ConfigNum(1) }
}

fn value(text: &str) -> Called<KvReply, KvRefusal> {
    Ok(Ok(KvReply::Value { value: Some(Bytes::from(text.to_owned())), version: Version(1) }))
}

/// The value of every key is the key; "slow" and "never" take their time.
async fn handle_kv(request: KvRequest) -> Result<KvReply, KvRefusal> {
    let KvRequest::Get { key, .. } = request else { return Err(KvRefusal::Busy) };
    match &key[..] {
        b"slow" => clock::sleep(Duration::from_millis(300)).await,
        b"never" => std::future::pending().await,
        _ => {}
    }
    Ok(KvReply::Value { value: Some(key), version: Version(1) })
}

async fn handle_ctrl(request: CtrlRequest) -> Result<CtrlReply, CtrlRefusal> {
    match request {
        CtrlRequest::Open => Ok(CtrlReply::Opened(SessionId(9))),
        CtrlRequest::Watch { .. } => std::future::pending().await,
        _ => Err(CtrlRefusal::Busy),
    }
}

async fn serve(arrival: Arrival, group: u64, key: Key) {
    let Some(stream) = arrival.admit(&Here { key, ..here(group) }).await else { return };
    match group {
        0 => rpc::serve_ctrl(stream, handle_ctrl).await,
        group => rpc::serve_kv(stream, GroupId(group), handle_kv).await,
    }
}

struct Server {
    address: String,
    counters: Arc<Counters>,
    task: AbortHandle,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn server(address: &str, group: u64) -> Server {
    server_of(address, group, Key::default()).await
}

async fn server_of(address: &str, group: u64, key: Key) -> Server {
    let limits = Limits { frame_bytes_max: 1 << 20, ..Limits::default() };
    let bound = async {
        loop {
            // A server that just stopped may keep its port for a moment.
            if let Ok(listener) = Listener::bind(address, limits).await {
                return listener;
            }
            clock::sleep(Duration::from_millis(5)).await;
        }
    };
    let listener = clock::timeout(DEADLINE, bound).await.expect("the port is free");
    let (address, counters) = (listener.address().to_string(), listener.counters());
    let run = move |arrival| serve(arrival, group, key.clone());
    let task = tokio::spawn(async move { listener.run(run).await });
    Server { address, counters, task: task.abort_handle() }
}

const ANY: &str = "127.0.0.1:0";

fn pool() -> TarpcConnection {
    TarpcConnection::new(Options { frame_bytes_max: 1 << 20, ..Options::of("blue") })
}

#[tokio::test]
async fn both_services_answer() {
    let (kv, ctrl, pool) = (server(ANY, 101).await, server(ANY, 0).await, pool());
    assert_eq!(pool.kv(&kv.address, GROUP, get("key"), DEADLINE).await, value("key"));
    let opened = pool.ctrl(&ctrl.address, CtrlRequest::Open, DEADLINE).await;
    assert_eq!(opened, Ok(Ok(CtrlReply::Opened(SessionId(9)))));
    let refused = pool.ctrl(&ctrl.address, CtrlRequest::Status, DEADLINE).await;
    assert_eq!(refused, Ok(Err(CtrlRefusal::Busy)));
}

#[tokio::test]
async fn many_calls_share_one_connection_and_a_slow_one_delays_nobody() {
    let (server, pool) = (server(ANY, 101).await, pool());
    let slow = pool.kv(&server.address, GROUP, get("slow"), DEADLINE);
    let quick = async {
        let keys: Vec<String> = (0..200).map(|number| format!("key {number}")).collect();
        let calls = keys.iter().map(|key| pool.kv(&server.address, GROUP, get(key), DEADLINE));
        for (key, answer) in keys.iter().zip(join_all(calls).await) {
            assert_eq!(answer, value(key));
        }
        clock::now()
    };
    let slow = async {
        assert_eq!(slow.await, value("slow"));
        clock::now()
    };
    let (slow, quick) = tokio::join!(slow, quick);
    assert!(quick < slow);
    assert_eq!(server.counters.accepted(), 1);
}

#[tokio::test]
async fn a_watch_has_a_connection_of_its_own() {
    let (server, pool) = (server(ANY, 0).await, pool());
    let watch = CtrlRequest::Watch { after: ConfigNum(0), digest: Digest::default(), book: 0 };
    let watching = pool.ctrl(&server.address, watch, DEADLINE);
    let opened = async {
        for _ in 0..3 {
            assert!(pool.ctrl(&server.address, CtrlRequest::Open, DEADLINE).await.is_ok());
        }
    };
    tokio::select! {
        biased;
        _ = watching => panic!("nobody answers the watch"),
        () = opened => {}
    }
    assert_eq!(server.counters.accepted(), 2);
}

#[tokio::test]
async fn a_server_that_comes_back_on_its_port_is_found_again() {
    let pool = pool();
    let mut address = ANY.to_owned();
    for round in 0..3 {
        let server = server(&address, 101).await;
        address.clone_from(&server.address);
        let key = format!("round {round}");
        assert_eq!(pool.kv(&address, GROUP, get(&key), DEADLINE).await, value(&key));
        drop(server);
        clock::sleep(Duration::from_millis(20)).await;
        let started = clock::now();
        let answer = pool.kv(&address, GROUP, get("nobody"), DEADLINE).await;
        assert!(matches!(answer, Err(CallError::NotSent { .. })), "{answer:?}");
        assert!(started.elapsed() < Duration::from_millis(500));
    }
}

#[tokio::test]
async fn a_server_that_dies_in_mid_call_leaves_the_call_lost() {
    let (server, pool) = (server(ANY, 101).await, pool());
    let address = server.address.clone();
    let dies = async {
        clock::sleep(Duration::from_millis(50)).await;
        drop(server);
    };
    let (answer, ()) = tokio::join!(pool.kv(&address, GROUP, get("never"), DEADLINE), dies);
    assert!(matches!(answer, Err(CallError::Lost { .. })), "{answer:?}");
}

#[tokio::test]
async fn another_cluster_and_another_group_are_refused_in_words() {
    let server = server(ANY, 101).await;
    let red = TarpcConnection::new(Options::of("red"));
    let answer = red.kv(&server.address, GROUP, get("key"), DEADLINE).await;
    let why = "this is cluster \"blue\", not \"red\": check the addresses".to_owned();
    assert_eq!(answer, Err(CallError::Refused { address: server.address.clone(), why }));
    let answer = pool().kv(&server.address, GroupId(102), get("key"), DEADLINE).await;
    assert!(matches!(answer, Err(CallError::Refused { why, .. }) if why.contains("belongs to group 101")));
    let answer = pool().ctrl(&server.address, CtrlRequest::Open, DEADLINE).await;
    assert!(matches!(answer, Err(CallError::Refused { why, .. }) if why.contains("not the controllers")));
    assert_eq!(server.counters.refused(), 3);
}

#[tokio::test]
async fn the_first_key_that_is_met_is_kept_and_servers_with_another_one_are_refused_by_both() {
    let ours = server_of(ANY, 101, Key::from_wire(5)).await;
    let theirs = server_of(ANY, 101, Key::from_wire(6)).await;
    let young = server_of(ANY, 101, Key::default()).await;
    let options = Options::of("blue");
    let key = options.key.clone();
    let pool = TarpcConnection::new(options);
    for address in [&young.address, &ours.address, &young.address] {
        assert_eq!(pool.kv(address, GROUP, get("key"), DEADLINE).await, value("key"));
    }
    assert_eq!(key.get(), Some(5));
    let refused = pool.kv(&theirs.address, GROUP, get("key"), DEADLINE).await;
    let Err(CallError::Refused { why, .. }) = refused else { panic!("{refused:?}") };
    assert!(why.contains("0000000000000005") && why.contains("0000000000000006"), "{why}");
    assert_eq!(theirs.counters.refusals().of(Reason::OtherKey), 1);
    // It is told who means it, with the next connection at the latest.
    assert_eq!(young.counters.accepted(), 2, "the first connection was made without the key");
}

#[tokio::test]
async fn a_server_takes_no_key_from_those_it_calls_and_judges_their_answers() {
    let controllers = server_of(ANY, 0, Key::from_wire(5)).await;
    let here = Here { key: Key::default(), ..here(101) };
    let refusals: Arc<Refusals> = Arc::default();
    let pool = TarpcConnection::new(Options::of_server(&here, Arc::clone(&refusals)));
    let open = || pool.ctrl(&controllers.address, CtrlRequest::Open, DEADLINE);
    for _ in 0..3 {
        assert_eq!(open().await, Ok(Ok(CtrlReply::Opened(SessionId(9)))));
    }
    assert_eq!(
        (here.key.get(), controllers.counters.accepted()),
        (None, 1),
        "one connection, and nothing learned"
    );
    // Its group's log tells the key: it belongs to another cluster.
    here.key.learn(6);
    let refused = open().await;
    assert!(matches!(refused, Err(CallError::Refused { .. })), "{refused:?}");
    assert!(refusals.refused_by()[&controllers.address].contains("two clusters are named"));
}

#[tokio::test]
async fn a_request_too_large_is_refused_and_the_connection_lives_on() {
    let (server, pool) = (server(ANY, 101).await, pool());
    let answer = pool.kv(&server.address, GROUP, get(&"x".repeat(2 << 20)), DEADLINE).await;
    assert!(matches!(answer, Err(CallError::Refused { why, .. }) if why.contains("exceeds the limit")));
    assert_eq!(pool.kv(&server.address, GROUP, get("key"), DEADLINE).await, value("key"));
    assert_eq!(server.counters.accepted(), 1);
}

#[tokio::test]
async fn a_host_that_went_silent_costs_its_deadline_once_and_is_dialed_again() {
    let (server, pool) = (server(ANY, 101).await, pool());
    assert_eq!(pool.kv(&server.address, GROUP, get("key"), DEADLINE).await, value("key"));
    let answer = pool.kv(&server.address, GROUP, get("never"), Duration::from_millis(300)).await;
    assert!(matches!(answer, Err(CallError::Lost { .. })), "{answer:?}");
    assert_eq!(pool.kv(&server.address, GROUP, get("key"), DEADLINE).await, value("key"));
    assert_eq!(server.counters.accepted(), 2);
}

#[tokio::test]
async fn a_port_that_accepts_and_says_nothing_costs_the_connect_timeout() {
    let silent = tokio::net::TcpListener::bind(ANY).await.expect("a free port");
    let address = silent.local_addr().expect("bound").to_string();
    let pool =
        TarpcConnection::new(Options { connect_timeout: Duration::from_millis(100), ..Options::of("blue") });
    let started = clock::now();
    let calls = (0..20).map(|_| pool.kv(&address, GROUP, get("key"), DEADLINE));
    for answer in join_all(calls).await {
        assert!(matches!(answer, Err(CallError::NotSent { .. })), "{answer:?}");
    }
    assert!(started.elapsed() < Duration::from_millis(250), "one dial serves all callers");
}

#[tokio::test]
async fn calls_beyond_the_bound_wait_and_definitely_do_nothing_when_their_time_is_up() {
    let server = server(ANY, 101).await;
    let pool = TarpcConnection::new(Options { in_flight_max: 1, ..Options::of("blue") });
    let holds = pool.kv(&server.address, GROUP, get("slow"), DEADLINE);
    let waits = async {
        clock::sleep(Duration::from_millis(50)).await;
        pool.kv(&server.address, GROUP, get("key"), Duration::from_millis(50)).await
    };
    let (held, waited) = tokio::join!(holds, waits);
    assert_eq!(held, value("slow"));
    assert!(matches!(waited, Err(CallError::NotSent { .. })), "{waited:?}");
}

#[tokio::test]
async fn a_server_that_works_on_too_much_is_busy_and_answers_again_later() {
    let server = server(ANY, 101).await;
    let pool = TarpcConnection::new(Options { in_flight_max: 2 * rpc::IN_FLIGHT_MAX, ..Options::of("blue") });
    let limit = Duration::from_secs(1);
    let under_way = (0..rpc::IN_FLIGHT_MAX).map(|_| pool.kv(&server.address, GROUP, get("never"), limit));
    let one_more = async {
        clock::sleep(Duration::from_millis(300)).await;
        pool.kv(&server.address, GROUP, get("key"), limit).await
    };
    let (answers, one_more) = tokio::join!(join_all(under_way), one_more);
    assert!(matches!(one_more, Err(CallError::Busy { .. })), "{one_more:?}");
    let lost = answers.iter().filter(|answer| matches!(answer, Err(CallError::Lost { .. }))).count();
    assert!(lost > rpc::IN_FLIGHT_MAX / 2, "{lost} of {} were worked on: {:?}", answers.len(), answers[0]);
    assert_eq!(pool.kv(&server.address, GROUP, get("key"), DEADLINE).await, value("key"));
}

#[tokio::test]
async fn the_pool_keeps_a_bounded_number_of_connections() {
    let servers = [server(ANY, 101).await, server(ANY, 101).await, server(ANY, 101).await];
    let pool = TarpcConnection::new(Options { connections_max: 2, ..Options::of("blue") });
    for server in servers.iter().chain(&servers[1..]) {
        assert_eq!(pool.kv(&server.address, GROUP, get("key"), DEADLINE).await, value("key"));
        assert!(pool.kv.slots.len() <= 2);
    }
    let accepted: Vec<u64> = servers.iter().map(|server| server.counters.accepted()).collect();
    assert_eq!(accepted, [1, 1, 1], "those used last were kept");
}
