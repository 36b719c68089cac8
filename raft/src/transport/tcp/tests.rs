use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::clock;
use base::socket::wire::FrameWriter;
use base::socket::{self, Arrival, DialError, Hello, Here, Key, Listener, Purpose, Reason, Refusals, dial};
use bytes::Bytes;
use tokio_util::task::AbortOnDropHandle;

use super::{Lane, Limits, Peers, Settings, TcpTransport};
use crate::core::message::{Body, Chunk, Message};
use crate::transport::{Inbox, Incoming, Mailbox, Transport, mailbox};
use crate::types::{EntryId, Membership, NodeId, Term};

const LIMIT: Duration = Duration::from_secs(10);
const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
const ANY: &str = "127.0.0.1:0";

/// Remembers the first incarnation of each peer, in memory.
#[derive(Default)]
struct Memory(Mutex<BTreeMap<NodeId, u64>>);

impl Peers for Memory {
    fn met(&self, peer: NodeId) -> Option<u64> {
        self.0.lock().expect("no panic in tests").get(&peer).copied()
    }

    fn remember(&self, peer: NodeId, incarnation: u64) {
        self.0.lock().expect("no panic in tests").insert(peer, incarnation);
    }
}

struct Node {
    address: String,
    transport: Arc<TcpTransport>,
    mailbox: Mailbox,
    refusals: Arc<Refusals>,
    listener: Option<AbortOnDropHandle<()>>,
}

fn here(node: NodeId, incarnation: u64) -> Here {
    let boot = incarnation * 10;
    Here {
        cluster: "blue".into(),
        group: 101,
        node: node.0,
        incarnation,
        boot,
        founders: 7,
        ..Here::default()
    }
}

fn members(one: &str, two: &str) -> BTreeMap<NodeId, String> {
    [(ONE, one.to_owned()), (TWO, two.to_owned())].into()
}

async fn listen(address: &str) -> Listener {
    let bound = async {
        loop {
            if let Ok(listener) = Listener::bind(address, socket::Limits::default()).await {
                return listener;
            }
            clock::sleep(Duration::from_millis(5)).await;
        }
    };
    clock::timeout(LIMIT, bound).await.expect("the port is free")
}

fn node(listener: Listener, here: Here, members: &BTreeMap<NodeId, String>, peers: Arc<dyn Peers>) -> Node {
    let (inbox, mailbox): (Inbox, Mailbox) = mailbox(1 << 16, 64 << 20);
    let (members, refusals) = (members.clone(), listener.refusals());
    let settings =
        Settings { here, members, limits: Limits::default(), seed: 7, refusals: Arc::clone(&refusals) };
    let transport = Arc::new(TcpTransport::start(settings, peers, inbox));
    let address = listener.address().to_string();
    let serving = Arc::clone(&transport);
    let listener = AbortOnDropHandle::new(tokio::spawn(async move {
        let handle = move |arrival| {
            let serving = Arc::clone(&serving);
            async move { serving.serve_peer(arrival).await }
        };
        listener.run(handle).await;
    }));
    Node { address, transport, mailbox, refusals, listener: Some(listener) }
}

async fn pair() -> (Node, Node, BTreeMap<NodeId, String>) {
    let (first, second) = (listen(ANY).await, listen(ANY).await);
    let members = members(&first.address().to_string(), &second.address().to_string());
    let first = node(first, here(ONE, 11), &members, Arc::new(Memory::default()));
    let second = node(second, here(TWO, 22), &members, Arc::new(Memory::default()));
    (first, second, members)
}

fn message(term: u64) -> Message {
    Message::new(Term(term), Body::VoteReply { granted: true })
}

fn chunk(term: u64, bytes: usize) -> Message {
    let rows = vec![(Bytes::from_static(b"key"), Bytes::from(vec![7; bytes]))];
    let membership = Membership::of([ONE, TWO]);
    let chunk = Chunk::new(EntryId::ZERO, membership, None, rows, false);
    Message::new(Term(term), Body::Chunk(chunk))
}

async fn receive(node: &mut Node) -> Incoming {
    clock::timeout(LIMIT, node.mailbox.receive()).await.expect("in time").expect("open")
}

/// Sends to node two, whose mailbox is `to`, until something arrives.
async fn reach(from: &Node, to: &mut Node) -> Message {
    let arriving = async {
        loop {
            from.transport.send(TWO, message(1));
            if let Ok(Some(Incoming::Message(sender, message))) =
                clock::timeout(Duration::from_millis(20), to.mailbox.receive()).await
            {
                assert_eq!(sender, ONE);
                return message;
            }
        }
    };
    clock::timeout(LIMIT, arriving).await.expect("reached in time")
}

#[tokio::test]
async fn messages_of_a_lane_arrive_in_the_order_they_were_sent() {
    let (one, mut two, _) = pair().await;
    const MESSAGES: u64 = 20_000;
    let sending = async {
        for number in 0..MESSAGES {
            one.transport.send(TWO, message(number));
            if number % 97 == 0 {
                tokio::task::yield_now().await;
            }
        }
    };
    let receiving = async {
        for number in 0..MESSAGES {
            match receive(&mut two).await {
                Incoming::Message(from, arrived) => assert_eq!((from, arrived), (ONE, message(number))),
                Incoming::Unreachable(peer) => panic!("{peer} unreachable"),
            }
        }
    };
    tokio::join!(sending, receiving);
    assert_eq!(one.transport.dropped(), 0);
}

#[tokio::test]
async fn chunks_travel_beside_and_a_row_of_the_largest_size_fits() {
    let (one, mut two, _) = pair().await;
    one.transport.send(TWO, chunk(1, 32 << 20));
    one.transport.send(TWO, message(2));
    let Incoming::Message(_, first) = receive(&mut two).await else { panic!("unreachable") };
    let Incoming::Message(_, second) = receive(&mut two).await else { panic!("unreachable") };
    assert_eq!((first, second), (message(2), chunk(1, 32 << 20)));
}

#[tokio::test]
async fn a_peer_that_comes_back_is_reached_again_and_the_core_is_told_between() {
    let (mut one, mut two, members) = pair().await;
    reach(&one, &mut two).await;
    drop(two);
    let told = async {
        loop {
            one.transport.send(TWO, message(2));
            let waiting = clock::timeout(Duration::from_millis(20), one.mailbox.receive()).await;
            if let Ok(Some(Incoming::Unreachable(peer))) = waiting {
                return peer;
            }
        }
    };
    assert_eq!(clock::timeout(LIMIT, told).await, Ok(TWO));
    // While the lane rests, nothing piles up.
    for number in 0..1000 {
        one.transport.send(TWO, message(number));
    }
    clock::sleep(Duration::from_millis(100)).await;
    let listener = listen(&members[&TWO]).await;
    let mut two = node(listener, here(TWO, 22), &members, Arc::new(Memory::default()));
    let back = clock::now();
    reach(&one, &mut two).await;
    assert!(back.elapsed() < Duration::from_millis(2500));
    assert!(one.transport.dropped() > 0);
}

#[tokio::test]
async fn a_peer_that_takes_nothing_is_unreachable() {
    let listener = listen(ANY).await;
    let members = members(ANY, &listener.address().to_string());
    let _deaf = AbortOnDropHandle::new(tokio::spawn(listener.run(|arrival: Arrival| async move {
        let _open = arrival.admit(&here(TWO, 22)).await;
        std::future::pending::<()>().await;
    })));
    let (inbox, mut mailbox): (Inbox, Mailbox) = mailbox(1 << 16, 64 << 20);
    let limits = Limits { stall_timeout: Duration::from_millis(200), ..Limits::default() };
    let settings = Settings { here: here(ONE, 11), members, limits, seed: 7, refusals: Arc::default() };
    let transport = TcpTransport::start(settings, Arc::new(Memory::default()), inbox);
    // More than the buffers of both machines take.
    transport.send(TWO, chunk(1, 48 << 20));
    let told = clock::timeout(LIMIT, mailbox.receive()).await;
    assert!(matches!(told, Ok(Some(Incoming::Unreachable(TWO)))), "{told:?}");
    assert_eq!(transport.dropped(), 1);
}

#[tokio::test]
async fn a_connection_from_a_peer_ends_the_rest() {
    let (first, second) = (listen(ANY).await, listen(ANY).await);
    let members = members(&first.address().to_string(), &second.address().to_string());
    let address = second.address().to_string();
    drop(second);
    let one = node(first, here(ONE, 11), &members, Arc::new(Memory::default()));
    // Long enough for rests of about a second.
    for _ in 0..60 {
        one.transport.send(TWO, message(1));
        clock::sleep(Duration::from_millis(30)).await;
    }
    let mut two = node(listen(&address).await, here(TWO, 22), &members, Arc::new(Memory::default()));
    two.transport.send(ONE, message(1));
    clock::sleep(Duration::from_millis(50)).await;
    one.transport.send(TWO, message(5));
    let arrived = clock::timeout(Duration::from_millis(200), two.mailbox.receive()).await;
    assert!(matches!(arrived, Ok(Some(Incoming::Message(ONE, _)))), "{arrived:?}");
}

#[tokio::test]
async fn a_peer_with_other_data_is_refused_on_either_side() {
    let (one, mut two, members) = pair().await;
    reach(&one, &mut two).await;
    let address = two.address.clone();
    drop(two.listener.take());
    drop(two);
    // Server 2 comes back without its data.
    let mut two = node(listen(&address).await, here(TWO, 23), &members, Arc::new(Memory::default()));
    let silent = async {
        for _ in 0..20 {
            one.transport.send(TWO, message(3));
            two.transport.send(ONE, message(3));
            clock::sleep(Duration::from_millis(20)).await;
        }
    };
    silent.await;
    while let Some(arrived) = two.mailbox.try_receive() {
        assert!(matches!(arrived, Incoming::Unreachable(ONE)), "{arrived:?}");
    }
    assert!(one.transport.refused() >= 2, "once as the caller and once as the called");
    assert!(two.transport.refused() >= 1);
}

#[tokio::test]
async fn strangers_are_refused_in_words_and_not_remembered() {
    let (one, _two, _) = pair().await;
    let hello = Hello { incarnation: 99, ..hello_of_two() };
    let cases = [
        (
            Hello { cluster: "red".into(), ..hello.clone() },
            "this is cluster \"blue\", not \"red\": check the addresses",
        ),
        (Hello { from: 3, ..hello.clone() }, "server 3 is not a member of this group"),
        (Hello { from: 1, ..hello.clone() }, "server 1 is not a member of this group"),
    ];
    for (stranger, words) in cases {
        let refused = dial(&one.address, &stranger, LIMIT).await.expect_err("refused");
        assert_eq!(refused, DialError::Refused(words.into()));
    }
    assert_eq!(one.transport.refused(), 3);
    let real = Hello { incarnation: 22, ..hello };
    assert!(dial(&one.address, &real, LIMIT).await.is_ok(), "99 was never remembered");
}

/// The Hello of server 2 to server 1.
fn hello_of_two() -> Hello {
    Hello {
        cluster: "blue".into(),
        purpose: Purpose::PeerControl,
        group: 101,
        from: 2,
        to: 1,
        incarnation: 22,
        boot: 220,
        founders: 7,
        ..Hello::default()
    }
}

/// Both send to each other for a while, and nothing arrives at either.
async fn stay_apart(one: &mut Node, two: &mut Node) {
    for _ in 0..20 {
        one.transport.send(TWO, message(3));
        two.transport.send(ONE, message(3));
        clock::sleep(Duration::from_millis(20)).await;
    }
    for node in [one, two] {
        while let Some(arrived) = node.mailbox.try_receive() {
            assert!(matches!(arrived, Incoming::Unreachable(_)), "{arrived:?}");
        }
    }
}

#[tokio::test]
async fn servers_of_other_founders_or_of_another_cluster_of_this_name_have_nothing_to_say_to_each_other() {
    let key = |key| Here { key: Key::from_wire(key), ..here(TWO, 22) };
    let cases = [
        (here(ONE, 11), Here { founders: 8, ..here(TWO, 22) }, Reason::OtherFounders),
        (Here { key: Key::from_wire(5), ..here(ONE, 11) }, key(6), Reason::OtherKey),
    ];
    for (first_here, second_here, reason) in cases {
        let (first, second) = (listen(ANY).await, listen(ANY).await);
        let members = members(&first.address().to_string(), &second.address().to_string());
        let (met_by_one, met_by_two) = (Arc::new(Memory::default()), Arc::new(Memory::default()));
        let mut one = node(first, first_here, &members, met_by_one.clone());
        let mut two = node(second, second_here, &members, met_by_two.clone());
        stay_apart(&mut one, &mut two).await;
        for node in [&one, &two] {
            assert!(node.refusals.of(reason) >= 1, "{reason:?}: {:?}", node.refusals.counted());
            assert_eq!(node.refusals.refused_by().len(), 1, "it is told, and tells: {reason:?}");
        }
        assert_eq!(
            (met_by_one.met(TWO), met_by_two.met(ONE)),
            (None, None),
            "nothing is remembered of strangers"
        );
    }
}

/// A peer that is refused as the caller is not called either: here nothing comes from the other side.
#[tokio::test]
async fn an_answer_is_judged_too() {
    let listener = listen(ANY).await;
    let address = listener.address().to_string();
    // It lets everybody in.
    let stranger = Here { founders: 8, ..here(TWO, 22) };
    let open = move |arrival: Arrival| {
        let stranger = stranger.clone();
        async move {
            let _open = arrival.welcome(&stranger).await;
            std::future::pending::<()>().await;
        }
    };
    let _listener = AbortOnDropHandle::new(tokio::spawn(async move {
        listener.run(open).await;
    }));
    let members = members(ANY, &address);
    let one = node(listen(ANY).await, here(ONE, 11), &members, Arc::new(Memory::default()));
    let refused = async {
        while one.refusals.of(Reason::OtherFounders) == 0 {
            one.transport.send(TWO, message(1));
            clock::sleep(Duration::from_millis(5)).await;
        }
    };
    clock::timeout(LIMIT, refused).await.expect("refused");
    assert!(one.refusals.refused_by()[&address].contains("another list of members"));
}

#[tokio::test]
async fn a_second_process_of_a_peer_is_refused_by_name_and_the_first_one_goes_on() {
    let (one, mut two, mut members) = pair().await;
    reach(&one, &mut two).await;
    two.transport.send(ONE, message(1));
    // The same data, at another place: it knows where server 1 is.
    let listener = listen(ANY).await;
    members.insert(TWO, listener.address().to_string());
    let twin = Here { boot: 221, ..here(TWO, 22) };
    let twin = node(listener, twin, &members, Arc::new(Memory::default()));
    let told = async {
        while twin.refusals.refused_by().is_empty() {
            twin.transport.send(ONE, message(9));
            clock::sleep(Duration::from_millis(5)).await;
        }
    };
    clock::timeout(LIMIT, told).await.expect("refused");
    let text = twin.refusals.refused_by().into_values().next().expect("told");
    assert!(text.contains("two processes run as server 2 of group 101"), "{text}");
    // For longer than a process may be silent.
    for _ in 0..30 {
        twin.transport.send(ONE, message(9));
        clock::sleep(Duration::from_millis(50)).await;
    }
    for purpose in [Purpose::PeerControl, Purpose::PeerBulk] {
        let hello = Hello { purpose, boot: 221, ..hello_of_two() };
        assert!(matches!(dial(&one.address, &hello, LIMIT).await, Err(DialError::Refused(_))), "{purpose:?}");
    }
    assert!(one.refusals.of(Reason::Twin) >= 3);
    let mut one = one;
    while let Some(arrived) = one.mailbox.try_receive() {
        assert!(!matches!(arrived, Incoming::Message(_, ref it) if *it == message(9)), "{arrived:?}");
    }
    assert_eq!(reach(&one, &mut two).await, message(1));
    assert!(two.refusals.refused_by().is_empty());
}

#[tokio::test]
async fn a_process_that_was_killed_is_succeeded_at_once() {
    let (mut one, mut two, members) = pair().await;
    reach(&one, &mut two).await;
    two.transport.send(ONE, message(1));
    while !matches!(receive(&mut one).await, Incoming::Message(TWO, _)) {}
    drop(two.listener.take());
    drop(two);
    let successor = Here { boot: 221, ..here(TWO, 22) };
    let listener = listen(&members[&TWO]).await;
    let started = clock::now();
    let mut two = node(listener, successor, &members, Arc::new(Memory::default()));
    two.transport.send(ONE, message(5));
    while !matches!(receive(&mut one).await, Incoming::Message(TWO, it) if it == message(5)) {}
    assert!(started.elapsed() < Duration::from_millis(300), "{:?}", started.elapsed());
    reach(&one, &mut two).await;
    assert_eq!((one.refusals.counted().len(), two.refusals.counted().len()), (0, 0), "nobody was refused");
}

/// A machine that lost its power closes no connection.
#[tokio::test]
async fn a_process_that_is_silent_makes_room_for_its_successor_and_is_not_heard_again() {
    let (one, two, _) = pair().await;
    drop(two);
    let silent = dial(&one.address, &hello_of_two(), LIMIT).await.expect("the first");
    let started = clock::now();
    let successor = Hello { boot: 221, ..hello_of_two() };
    assert!(dial(&one.address, &successor, LIMIT).await.is_err(), "the first was heard a moment ago");
    let let_in = async {
        while dial(&one.address, &successor, LIMIT).await.is_err() {
            clock::sleep(Duration::from_millis(20)).await;
        }
    };
    clock::timeout(LIMIT, let_in).await.expect("let in");
    let waited = started.elapsed();
    assert!((800..1500).contains(&waited.as_millis()), "{waited:?}");
    // It comes back to life: too late. (The successor's connections are gone by now, too.)
    let _successor = dial(&one.address, &successor, LIMIT).await.expect("let in");
    let mut silent = FrameWriter::new(silent.0, LIMIT);
    silent.write(&super::Batch(vec![message(6)])).await.expect("written");
    clock::timeout(LIMIT, silent.closed()).await.expect("closed");
    let mut one = one;
    while let Some(arrived) = one.mailbox.try_receive() {
        assert!(!matches!(arrived, Incoming::Message(_, ref it) if *it == message(6)), "{arrived:?}");
    }
    assert!(dial(&one.address, &hello_of_two(), LIMIT).await.is_err(), "now it is the second one");
}

#[tokio::test]
async fn a_key_that_becomes_known_ends_connections_that_were_made_without_it() {
    let (first, second) = (listen(ANY).await, listen(ANY).await);
    let members = members(&first.address().to_string(), &second.address().to_string());
    let (one_here, two_here) = (here(ONE, 11), here(TWO, 22));
    let (one_key, two_key) = (one_here.key.clone(), two_here.key.clone());
    let mut one = node(first, one_here, &members, Arc::new(Memory::default()));
    let mut two = node(second, two_here, &members, Arc::new(Memory::default()));
    reach(&one, &mut two).await;
    one_key.learn(5);
    reach(&one, &mut two).await;
    two_key.learn(5);
    reach(&one, &mut two).await;
    assert_eq!((one.refusals.counted().len(), two.refusals.counted().len()), (0, 0), "they learned the same");
    let (third, fourth) = (here(ONE, 11), here(TWO, 22));
    let keys = (third.key.clone(), fourth.key.clone());
    drop((one.listener.take(), two.listener.take()));
    drop((one, two));
    let mut one = node(listen(&members[&ONE]).await, third, &members, Arc::new(Memory::default()));
    let mut two = node(listen(&members[&TWO]).await, fourth, &members, Arc::new(Memory::default()));
    reach(&one, &mut two).await;
    keys.0.learn(5);
    keys.1.learn(6);
    clock::sleep(Duration::from_millis(600)).await;
    while one.mailbox.try_receive().is_some() || two.mailbox.try_receive().is_some() {}
    stay_apart(&mut one, &mut two).await;
    assert!(one.refusals.of(Reason::OtherKey) >= 1 && two.refusals.of(Reason::OtherKey) >= 1);
}

#[test]
fn a_queue_is_bounded_but_takes_one_message_of_any_size() {
    let lane = Lane::new(1000);
    assert!(lane.push(chunk(1, 5000)));
    assert!(!lane.push(message(2)));
    assert_eq!(lane.take(100).0, [chunk(1, 5000)]);
    let weight = message(0).weight();
    let fit = (0..100).filter(|number| lane.push(message(*number))).count();
    assert_eq!(fit, 1000 / weight);
    let (batch, bytes) = lane.take(3 * weight);
    assert_eq!((batch.len(), bytes), (3, 3 * weight));
    assert_eq!(lane.rest(), fit - 3);
    assert!(!lane.push(message(1)), "a resting lane takes nothing");
    lane.wake();
    assert!(lane.push(message(1)));
}
