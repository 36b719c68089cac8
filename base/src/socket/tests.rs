mod memory;

use std::time::Duration;

use tarpc::client::RpcError;
use tarpc::server::serve;
use tarpc::{client, context};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use super::{
    Arrival, BindError, Counters, DialError, Hello, Here, Kind, Limits, Listener, Places, Purpose, dial, wire,
};
use crate::clock;

const LIMIT: Duration = Duration::from_secs(5);
const FRAME_BYTES_MAX: usize = 1 << 16;

fn here() -> Here {
    Here { cluster: "blue".into(), group: 101, node: 1, incarnation: 77, ..Here::default() }
}

fn hello() -> Hello {
    Hello { cluster: "blue".into(), group: 101, ..Hello::default() }
}

/// Answers each text with itself, doubled if the text asks for that.
async fn echo(arrival: Arrival) {
    echo_as(arrival, &here()).await;
}

async fn echo_as(arrival: Arrival, here: &Here) {
    let Some(stream) = arrival.admit(here).await else { return };
    let answer = serve(|_, text: String| async move {
        match &text[..] {
            "never" => std::future::pending().await,
            text if text.starts_with("double") => Ok(text.repeat(2)),
            _ => Ok(text),
        }
    });
    wire::serve(stream, 8, LIMIT, answer).await;
}

struct Server {
    address: String,
    counters: std::sync::Arc<Counters>,
    task: AbortHandle,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn server(limits: Limits) -> Server {
    let limits = Limits { frame_bytes_max: FRAME_BYTES_MAX, ..limits };
    let listener = Listener::bind("127.0.0.1:0", limits).await.expect("a free port");
    let (address, counters) = (listener.address().to_string(), listener.counters());
    let task = tokio::spawn(async move { listener.run(echo).await }).abort_handle();
    Server { address, counters, task }
}

async fn call(channel: &client::Channel<String, String>, text: &str) -> Result<String, RpcError> {
    channel.call(context::current(), text.to_owned()).await
}

async fn channel(address: &str) -> client::Channel<String, String> {
    let (stream, welcome) = dial(address, &hello(), LIMIT).await.expect("welcome");
    assert_eq!(welcome.incarnation, 77);
    let transport = wire::client(stream.with_frame_bytes_max(FRAME_BYTES_MAX));
    client::new(client::Config::default(), transport).spawn()
}

/// Waits until `count` is reached.
async fn until(mut count: impl FnMut() -> u64, at_least: u64) {
    let waiting = async {
        while count() < at_least {
            clock::sleep(Duration::from_millis(2)).await;
        }
    };
    clock::timeout(LIMIT, waiting).await.expect("counted in time");
}

async fn closed(mut tcp: TcpStream) -> bool {
    let mut rest = Vec::new();
    clock::timeout(LIMIT, tcp.read_to_end(&mut rest)).await.is_ok()
}

#[tokio::test]
async fn a_request_is_answered() {
    let server = server(Limits::default()).await;
    let channel = channel(&server.address).await;
    assert_eq!(call(&channel, "hello").await.expect("an answer"), "hello");
    assert_eq!(server.counters.accepted(), 1);
}

#[tokio::test]
async fn a_caller_that_means_another_server_is_told_so_and_counted() {
    let server = server(Limits::default()).await;
    let cases = [
        (
            Hello { cluster: "red".into(), ..hello() },
            "this is cluster \"blue\", not \"red\": check the addresses",
        ),
        (
            Hello { group: 0, ..hello() },
            "this server belongs to group 101, not the controllers: check the addresses",
        ),
        (
            Hello { to: 2, ..hello() },
            "this is server 1 of group 101, not 2: check the addresses of the members",
        ),
    ];
    for (hello, words) in cases {
        let error = dial(&server.address, &hello, LIMIT).await.expect_err("refused");
        assert_eq!(error, DialError::Refused(words.into()));
    }
    assert_eq!(server.counters.refused(), 3);
}

#[tokio::test]
async fn a_caller_that_knows_only_the_address_is_told_the_cluster() {
    let server = server(Limits::default()).await;
    assert_eq!(super::cluster_of(&server.address, LIMIT).await, Ok(("blue".to_owned(), None)));
    let nameless = Hello { cluster: String::new(), ..hello() };
    assert!(matches!(dial(&server.address, &nameless, LIMIT).await, Err(DialError::Refused(_))));
    let peer = Hello { purpose: Purpose::PeerControl, ..nameless };
    assert!(matches!(dial(&server.address, &peer, LIMIT).await, Err(DialError::Refused(_))));
    assert_eq!(server.counters.accepted(), 0);
}

#[tokio::test]
async fn a_caller_that_turns_out_to_mean_another_cluster_is_closed() {
    let key = super::Key::default();
    let here = Here { key: key.clone(), ..here() };
    let listener = Listener::bind("127.0.0.1:0", Limits::default()).await.expect("a free port");
    let (address, counters) = (listener.address().to_string(), listener.counters());
    let serve = move |arrival: Arrival| {
        let here = here.clone();
        async move { echo_as(arrival, &here).await }
    };
    let _server = Server {
        address: address.clone(),
        counters: counters.clone(),
        task: tokio::spawn(async move { listener.run(serve).await }).abort_handle(),
    };
    let channel = |key: u64| {
        let (address, hello) = (address.clone(), Hello { key, ..hello() });
        async move {
            let (stream, _) = dial(&address, &hello, LIMIT).await.expect("welcome");
            client::new(client::Config::default(), wire::client(stream)).spawn()
        }
    };
    let (right, wrong, unknowing) = (channel(5).await, channel(6).await, channel(0).await);
    for channel in [&right, &wrong, &unknowing] {
        assert_eq!(call(channel, "before").await.expect("an answer"), "before");
    }
    key.learn(5);
    assert_eq!(call(&right, "right").await.expect("an answer"), "right");
    assert_eq!(call(&unknowing, "unknowing").await.expect("an answer"), "unknowing");
    assert!(call(&wrong, "wrong").await.is_err());
    assert_eq!(counters.refusals().of(super::Reason::OtherKey), 1);
}

#[tokio::test]
async fn garbage_closes_its_connection_and_nothing_else() {
    let server = server(Limits::default()).await;
    let channel = channel(&server.address).await;
    let junk: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 64],
        &[0, 0, 0, 3, 1, 2, 3],
        // A Hello of another format.
        &[0, 0, 0, 2, 9, 0],
    ];
    for bytes in junk {
        let mut tcp = TcpStream::connect(&server.address).await.expect("connected");
        tcp.write_all(bytes).await.expect("written");
        assert!(closed(tcp).await);
    }
    until(|| server.counters.malformed(), 4).await;
    assert_eq!(call(&channel, "still here").await.expect("an answer"), "still here");
}

#[tokio::test]
async fn a_flipped_bit_in_a_frame_closes_its_connection() {
    let server = server(Limits::default()).await;
    let body = hello().encode();
    let frame = |sum: u32| {
        let length = u32::try_from(body.len() + 4).expect("small");
        [&length.to_be_bytes()[..], &sum.to_be_bytes(), &body].concat()
    };
    let sum = crc32fast::hash(&body);
    let mut tcp = TcpStream::connect(&server.address).await.expect("connected");
    tcp.write_all(&frame(sum ^ 1)).await.expect("written");
    assert!(closed(tcp).await);
    until(|| server.counters.malformed(), 1).await;
    // The same after the handshake: a request whose text was changed in transit.
    let (mut stream, _) = dial(&server.address, &hello(), LIMIT).await.expect("welcome");
    let mut request = [0_u8; 4 + 4 + 40];
    request[3] = 44;
    stream.tcp.write_all(&request).await.expect("written");
    assert!(closed(stream.tcp).await);
    until(|| server.counters.malformed(), 2).await;
    let mut tcp = TcpStream::connect(&server.address).await.expect("connected");
    tcp.write_all(&frame(sum)).await.expect("written");
    until(|| server.counters.accepted(), 2).await;
}

#[tokio::test]
async fn another_wire_version_is_refused_in_words_that_name_both() {
    let server = server(Limits::default()).await;
    let later = Hello { wire: 9, ..hello() };
    let Err(DialError::Refused(why)) = dial(&server.address, &later, LIMIT).await else { panic!("taken") };
    assert!(why.contains("wire version 2") && why.contains("version 9"), "{why}");
}

#[tokio::test]
async fn a_flood_before_the_hello_is_cut_off() {
    let server = server(Limits::default()).await;
    let mut tcp = TcpStream::connect(&server.address).await.expect("connected");
    let chunk = vec![0x41; 1 << 20];
    let mut written = 0_usize;
    while written < 64 << 20 && tcp.write_all(&chunk).await.is_ok() {
        written += chunk.len();
    }
    assert!(written < 64 << 20, "the server closes long before it has read 64 MiB");
    until(|| server.counters.malformed(), 1).await;
}

#[tokio::test]
async fn a_frame_above_the_limit_closes_its_connection() {
    let server = server(Limits::default()).await;
    for prefix in [u32::MAX, u32::try_from(FRAME_BYTES_MAX).expect("small") + 1] {
        let (mut stream, _) = dial(&server.address, &hello(), LIMIT).await.expect("welcome");
        stream.tcp.write_all(&prefix.to_be_bytes()).await.expect("written");
        assert!(closed(stream.tcp).await);
    }
    until(|| server.counters.malformed(), 2).await;
    // A frame that only looks like a request is not believed either.
    let (mut stream, _) = dial(&server.address, &hello(), LIMIT).await.expect("welcome");
    stream.tcp.write_all(&[0, 0, 0, 4, 1, 9, 9, 9]).await.expect("written");
    assert!(closed(stream.tcp).await);
    until(|| server.counters.malformed(), 3).await;
}

#[tokio::test]
async fn what_does_not_fit_a_frame_fails_alone() {
    let server = server(Limits::default()).await;
    let channel = channel(&server.address).await;
    let long = "x".repeat(FRAME_BYTES_MAX);
    assert!(matches!(call(&channel, &long).await, Err(RpcError::Send(_))));
    let doubled = format!("double{}", "x".repeat(FRAME_BYTES_MAX / 2));
    let answer = call(&channel, &doubled).await;
    assert!(matches!(&answer, Err(RpcError::Server(error)) if error.detail.contains("exceeds the limit")));
    assert_eq!(call(&channel, "goes on").await.expect("an answer"), "goes on");
}

#[tokio::test]
async fn the_longest_deadline_is_capped_and_harmless() {
    let server = server(Limits::default()).await;
    let channel = channel(&server.address).await;
    let mut context = context::current();
    context.deadline += Duration::from_secs(60 * 60 * 24 * 365);
    assert_eq!(channel.call(context, "patient".into()).await.expect("an answer"), "patient");
}

#[tokio::test]
async fn a_silent_caller_is_turned_away() {
    let limits = Limits { handshake: Duration::from_millis(30), ..Limits::default() };
    let server = server(limits).await;
    let tcp = TcpStream::connect(&server.address).await.expect("connected");
    assert!(closed(tcp).await);
    assert_eq!(server.counters.turned_away(), 1);
}

#[tokio::test]
async fn clients_beyond_the_limit_are_told_and_peers_still_get_in() {
    let server = server(Limits { clients_max: 1, ..Limits::default() }).await;
    let first = channel(&server.address).await;
    let waits = tokio::spawn(async move { call(&first, "never").await });
    let busy = async {
        while !matches!(dial(&server.address, &hello(), LIMIT).await, Err(DialError::Busy(_))) {
            clock::sleep(Duration::from_millis(2)).await;
        }
    };
    clock::timeout(LIMIT, busy).await.expect("too many, while the first one is worked for");
    let peer = Hello { purpose: Purpose::PeerControl, from: 2, to: 1, ..hello() };
    let error = dial(&server.address, &peer, LIMIT).await.expect_err("this server has no peers");
    assert!(matches!(error, DialError::Refused(_)), "there is room for it: {error}");
    waits.abort();
    let again = async {
        while dial(&server.address, &hello(), LIMIT).await.is_err() {
            clock::sleep(Duration::from_millis(2)).await;
        }
    };
    clock::timeout(LIMIT, again).await.expect("the place of a client that left is free again");
}

#[tokio::test]
async fn silent_callers_keep_nobody_out() {
    let server = server(Limits { strangers_max: 4, clients_max: 4, ..Limits::default() }).await;
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(TcpStream::connect(&server.address).await.expect("connected"));
    }
    let begun = clock::now();
    let honest = channel(&server.address).await;
    assert_eq!(call(&honest, "hello").await.expect("an answer"), "hello");
    assert!(begun.elapsed() < Duration::from_secs(1), "it did not wait until they were turned away");
    assert!(server.counters.made_room() >= 60);
    assert!(server.counters.places(Kind::Strangers).open <= 4);
    assert!(closed(silent.swap_remove(0)).await);
}

#[tokio::test]
async fn a_caller_that_has_sent_its_hello_is_judged_before_others_take_its_place() {
    let limits = Limits { strangers_max: 2, ..Limits::default() };
    let listener = Listener::bind("127.0.0.1:0", limits).await.expect("a free port");
    let address = listener.address().to_string();
    let dial = |address: String| async move { dial(&address, &hello(), LIMIT).await };
    let dials: Vec<_> = (0..32).map(|_| tokio::spawn(dial(address.clone()))).collect();
    // All of them wait at the door, and have sent their Hello.
    clock::sleep(Duration::from_millis(200)).await;
    let task = tokio::spawn(async move { listener.run(echo).await }).abort_handle();
    for dialed in dials {
        dialed.await.expect("no panic").expect("welcome");
    }
    task.abort();
}

#[tokio::test]
async fn a_refused_caller_takes_nobodys_place() {
    let server = server(Limits { clients_max: 1, groups_max: 1, peers_max: 1, ..Limits::default() }).await;
    let honest = channel(&server.address).await;
    assert_eq!(call(&honest, "before").await.expect("an answer"), "before");
    let red = || Hello { cluster: "red".into(), ..hello() };
    for _ in 0..8 {
        for other in [red(), Hello { watches: true, ..red() }, Hello { from_group: 102, ..red() }] {
            assert!(matches!(dial(&server.address, &other, LIMIT).await, Err(DialError::Refused(_))));
        }
        super::cluster_of(&server.address, LIMIT).await.expect("the name of the cluster");
    }
    assert_eq!(call(&honest, "after").await.expect("an answer"), "after");
    assert_eq!(server.counters.made_room(), 0);
}

#[tokio::test]
async fn idle_clients_make_room_the_least_missed_one_first() {
    let server = server(Limits { clients_max: 2, ..Limits::default() }).await;
    let asks = channel(&server.address).await;
    assert_eq!(call(&asks, "before").await.expect("an answer"), "before");
    let mut held = Vec::new();
    for _ in 0..8 {
        let (idle, _) = dial(&server.address, &hello(), LIMIT).await.expect("an idle one makes room");
        held.push(idle);
    }
    assert_eq!(call(&asks, "after").await.expect("an answer"), "after");
    let later = channel(&server.address).await;
    assert_eq!(call(&later, "later").await.expect("an answer"), "later");
    assert_eq!(call(&asks, "still").await.expect("an answer"), "still");
    assert_eq!(server.counters.places(Kind::Clients), Places { open: 2, max: 2 });
}

#[tokio::test]
async fn a_busy_port_names_its_owner() {
    let server = server(Limits::default()).await;
    let error = Listener::bind(&server.address, Limits::default()).await.expect_err("in use");
    let BindError::InUse { address, owner } = &error else { panic!("{error}") };
    assert_eq!(address, &server.address);
    if cfg!(target_os = "linux") {
        assert!(owner.contains(&format!("pid {}", std::process::id())), "{error}");
    }
    let error = Listener::bind("nonsense", Limits::default()).await.expect_err("no address");
    assert!(error.to_string().starts_with("cannot listen on nonsense: "));
}

#[tokio::test]
async fn nobody_there_is_told_at_once() {
    let address = server(Limits::default()).await.address.clone();
    clock::sleep(Duration::from_millis(10)).await;
    let error = dial(&address, &hello(), LIMIT).await.expect_err("nobody there");
    assert!(matches!(error, DialError::Unreachable(_)), "{error:?}");
}
