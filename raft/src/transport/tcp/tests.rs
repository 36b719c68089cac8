use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::clock;
use base::socket::{self, Arrival, DialError, Hello, Here, Listener, Service, dial};
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

/// Remembers the first incarnation of everybody, in memory.
#[derive(Default)]
struct Memory(Mutex<BTreeMap<NodeId, u64>>);

impl Peers for Memory {
    fn check(&self, from: NodeId, incarnation: u64) -> Result<(), String> {
        let mut met = self.0.lock().expect("no panic in tests");
        match *met.entry(from).or_insert(incarnation) {
            first if first == incarnation => Ok(()),
            first => Err(format!("server {from} was met with data {first}, not {incarnation}")),
        }
    }
}

struct Node {
    address: String,
    transport: Arc<TcpTransport>,
    mailbox: Mailbox,
    listener: Option<AbortOnDropHandle<()>>,
}

fn here(node: NodeId, incarnation: u64) -> Here {
    Here { cluster: "blue".into(), group: 101, node: node.0, incarnation, ..Here::default() }
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
    let settings = Settings { here, members: members.clone(), limits: Limits::default(), seed: 7 };
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
    Node { address, transport, mailbox, listener: Some(listener) }
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
    let settings = Settings { here: here(ONE, 11), members, limits, seed: 7 };
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
async fn a_peer_with_other_data_is_refused_whoever_calls() {
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
    let hello = Hello {
        cluster: "blue".into(),
        service: Service::PeerControl,
        group: 101,
        from: 2,
        to: 1,
        incarnation: 99,
        ..Hello::default()
    };
    let cases = [
        (Hello { cluster: "red".into(), ..hello.clone() }, "this is cluster \"blue\", not \"red\""),
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
