//! The network's numbers and counters. The labs' own tests of their network are
//! `labs::suites::network`.

mod cuts;
mod recordings;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::{clock, codec};
use bytes::Bytes;
use clerk::api::ctrl::{CtrlReply, CtrlRequest};
use clerk::api::kv::{KvReply, KvRequest, Write};
use clerk::api::{Address, ConfigNum, GroupId, Seq, SessionId, Ticket, Version};
use clerk::connection::{CallError, Connection};
use raft::core::message::{Body, Chunk, Message, TableReport, Verdict};
use raft::transport::{Incoming, Mailbox, Transport, mailbox};
use raft::types::{Entry, EntryId, Index, Membership, NodeId, Payload, Term};

use super::words::Said;
use super::{Calls, Handler, Network, PeerTransport, Reply, Request, Server, Weather, majority_without};
use crate::record::{Event, Tape, What};
use crate::{Label, Name, World, lock, run, run_recorded};

const DEADLINE: Duration = Duration::from_secs(30);

/// A server that takes `work` for each request and counts them.
fn counting(network: &Network, name: &Name, work: Duration) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&count);
    let handler = move |_request: Request| -> futures::future::BoxFuture<'static, Reply> {
        let number = seen.fetch_add(1, Ordering::Relaxed) + 1;
        Box::pin(async move {
            if !work.is_zero() {
                clock::sleep(work).await;
            }
            Reply::Ctrl(Ok(CtrlReply::Opened(SessionId(number))))
        })
    };
    network.attach(name, Server::new(Arc::new(handler), None));
    count
}

async fn ask_of(network: &Network, from: &str, to: &str) -> Result<(), CallError> {
    let calls = Calls { network: network.clone(), from: from.into(), alive: None, pass: None };
    calls.ctrl(&Address::from(to), CtrlRequest::Open, DEADLINE).await.map(drop)
}

async fn ask(network: &Network, from: &str) -> Result<(), CallError> {
    ask_of(network, from, "server").await
}

fn play<F: Future<Output = Result<(), String>>>(main: impl FnOnce(World, Network, Name) -> F) {
    run(7, |world| {
        let network = Network::new(&world);
        main(world, network, "server".into())
    })
    .unwrap();
}

fn nobody() -> Handler {
    Arc::new(|_| Box::pin(async { Reply::Refused(String::new()) }))
}

/// A replica "sender" that sends to a replica "server", both on the network, and what each hears.
fn pair(network: &Network) -> (PeerTransport, Mailbox, Mailbox) {
    let (inbox, heard) = mailbox(8192, 8 << 20);
    let (own, told) = mailbox(8192, 8 << 20);
    let (server, sender): (Name, Name) = ("server".into(), "sender".into());
    network.attach(&server, Server::new(nobody(), Some(inbox)));
    network.attach(&sender, Server::new(nobody(), Some(own)));
    let peers = [(NodeId(2), server)].into();
    (PeerTransport { network: network.clone(), from: sender, me: NodeId(1), peers }, heard, told)
}

fn vote(term: u64) -> Message {
    Message::new(Term(term), Body::Vote { last: EntryId::ZERO })
}

fn granted(term: u64) -> Message {
    Message::new(Term(term), Body::VoteReply { granted: true })
}

async fn wait(world: &World, ms: u64) {
    world.pause(Duration::from_millis(ms), Label::of("wait", &"test".into())).await;
}

fn drain(mailbox: &mut Mailbox) -> Vec<u64> {
    let mut terms = Vec::new();
    while let Some(incoming) = mailbox.try_receive() {
        if let Incoming::Message(_, message) = incoming {
            terms.push(message.term.0);
        }
    }
    terms
}

#[test]
fn a_call_over_a_disabled_end_fails_within_99_ms_and_enabling_does_not_rescue_it() {
    play(|_, network, server| async move {
        let count = counting(&network, &server, Duration::ZERO);
        let client: Name = "client".into();
        network.link(&client, &server, false);
        let start = clock::now();
        let calls: Vec<_> = (0..20)
            .map(|_| {
                let network = network.clone();
                tokio::spawn(async move { ask(&network, "client").await })
            })
            .collect();
        tokio::task::yield_now().await;
        network.heal();
        ask(&network, "client").await.unwrap();
        assert!(start.elapsed() < Duration::from_millis(30));
        for call in calls {
            assert!(matches!(call.await.unwrap(), Err(CallError::NotSent { .. })));
        }
        assert!(start.elapsed() <= Duration::from_millis(101));
        assert_eq!(count.load(Ordering::Relaxed), 1);
        Ok(())
    });
}

#[test]
fn an_unreliable_network_loses_about_a_fifth_of_all_calls() {
    play(|_, network, server| async move {
        counting(&network, &server, Duration::ZERO);
        network.set_weather(Weather { unreliable: true, ..Weather::default() });
        let mut done = 0;
        for number in 0..1000 {
            done += u32::from(ask(&network, &format!("client {number}")).await.is_ok());
        }
        assert!((760..860).contains(&done), "{done} of 1000");
        Ok(())
    });
}

#[test]
fn a_reliable_call_takes_between_0_4_and_1_ms() {
    play(|_, network, server| async move {
        counting(&network, &server, Duration::ZERO);
        for _ in 0..100 {
            let start = clock::now();
            ask(&network, "client").await.unwrap();
            let took = start.elapsed();
            assert!((Duration::from_micros(400)..Duration::from_micros(1010)).contains(&took), "{took:?}");
        }
        Ok(())
    });
}

#[test]
fn long_delays_let_unreachable_targets_answer_after_up_to_seven_seconds() {
    play(|world, network, server| async move {
        let failing = async |count: usize| {
            let mut times = Vec::new();
            for _ in 0..count {
                let start = clock::now();
                ask(&network, "client").await.unwrap_err();
                times.push(start.elapsed().as_millis());
            }
            times
        };
        // No server of that name exists.
        assert!(*failing(200).await.iter().max().unwrap() <= 100);
        network.set_weather(Weather { long_delays: true, ..Weather::default() });
        let times = failing(400).await;
        let (least, most) = (*times.iter().min().unwrap(), *times.iter().max().unwrap());
        assert!(least < 200 && (6800..=7000).contains(&most), "{least} to {most} ms");
        let mean = times.iter().sum::<u128>() / 400;
        assert!((3200..3800).contains(&mean), "{mean} ms");
        // A server exists: nothing changes.
        counting(&network, &server, Duration::ZERO);
        let start = clock::now();
        ask(&network, "client").await.unwrap();
        assert!(start.elapsed() < Duration::from_millis(2));
        // Raft learns it equally late.
        let (transport, _heard, mut told) = pair(&network);
        network.link(&"sender".into(), &server, false);
        (0..100).for_each(|term| transport.send(NodeId(2), vote(term)));
        wait(&world, 100).await;
        let soon = std::iter::from_fn(|| told.try_receive()).count();
        wait(&world, 6900).await;
        let late = std::iter::from_fn(|| told.try_receive()).count();
        assert!(soon < 10 && soon + late == 100, "{soon} soon, {late} late");
        Ok(())
    });
}

#[test]
fn long_reordering_delays_two_thirds_of_the_replies_that_are_not_lost() {
    for unreliable in [false, true] {
        play(|_, network, server| async move {
            const CALLS: usize = 3000;
            counting(&network, &server, Duration::ZERO);
            network.set_weather(Weather { unreliable, long_reordering: true, ..Weather::default() });
            let mut late = Vec::new();
            let mut done = 0;
            for _ in 0..CALLS {
                let start = clock::now();
                if ask(&network, "client").await.is_ok() {
                    done += 1;
                    late.extend(Some(start.elapsed().as_millis()).filter(|took| *took > 100));
                }
            }
            let least_done = if unreliable { CALLS * 3 / 4 } else { CALLS };
            assert!(done >= least_done, "{done} came back");
            let share = late.len() as f64 / done as f64;
            assert!((0.63..0.70).contains(&share), "{share} of them late");
            assert!(late.iter().all(|took| (200..=2228).contains(took)), "{late:?}");
            let mean = late.iter().sum::<u128>() / late.len() as u128;
            assert!((660..760).contains(&mean), "{mean} ms");
            // Skewed: half of them within about the first fifth of the range.
            let soon = late.iter().filter(|took| **took < 600).count();
            assert!(soon * 2 > late.len() && late.iter().max() > Some(&1900), "{soon} of {}", late.len());
            Ok(())
        });
    }
}

#[test]
fn long_reordering_concerns_the_answers_of_raft_and_not_its_requests() {
    play(|world, network, _| async move {
        let (transport, mut heard, _told) = pair(&network);
        network.set_weather(Weather { long_reordering: true, ..Weather::default() });
        (0..300).for_each(|term| transport.send(NodeId(2), vote(term)));
        wait(&world, 1).await;
        assert_eq!(drain(&mut heard).len(), 300);
        (0..300).for_each(|term| transport.send(NodeId(2), granted(term)));
        wait(&world, 199).await;
        let soon = drain(&mut heard).len();
        assert!((70..130).contains(&soon), "{soon} of 300 at once");
        wait(&world, 2002).await;
        let late = drain(&mut heard);
        assert!(soon + late.len() == 300 && !late.is_sorted());
        // The link is checked again when an answer arrives.
        (0..300).for_each(|term| transport.send(NodeId(2), granted(term)));
        wait(&world, 199).await;
        network.link(&"sender".into(), &"server".into(), false);
        wait(&world, 2002).await;
        let soon = drain(&mut heard).len();
        assert!((70..130).contains(&soon), "{soon} of 300 before the cut");
        Ok(())
    });
}

#[test]
fn raft_messages_reach_the_life_they_were_sent_to_and_a_cut_is_reported() {
    play(|world, network, server| async move {
        let (transport, mut heard, mut told) = pair(&network);
        let message = vote(3);
        transport.send(NodeId(2), message.clone());
        let arrived = clock::timeout(DEADLINE, heard.receive()).await.unwrap();
        assert!(matches!(arrived, Some(Incoming::Message(NodeId(1), got)) if got == message));
        // A restart: messages to the old life are gone.
        transport.send(NodeId(2), message.clone());
        let (inbox, mut heard_anew) = mailbox(64, 1 << 20);
        network.attach(&server, Server::new(nobody(), Some(inbox)));
        wait(&world, 5).await;
        assert!(heard.try_receive().is_none() && heard_anew.try_receive().is_none());
        network.link(&"sender".into(), &server, false);
        transport.send(NodeId(2), message);
        let report = clock::timeout(DEADLINE, told.receive()).await.unwrap();
        assert!(matches!(report, Some(Incoming::Unreachable(NodeId(2)))));
        Ok(())
    });
}

#[test]
fn requests_count_when_they_are_tried_and_replies_when_they_arrive() {
    play(|world, network, server| async move {
        let (request, reply) = (
            codec::wire::encode(&Request::Ctrl(CtrlRequest::Open)).len() as u64,
            codec::wire::encode(&Reply::Ctrl(Ok(CtrlReply::Opened(SessionId(1))))).len() as u64,
        );
        // To nobody.
        ask(&network, "client").await.unwrap_err();
        assert_eq!((network.rpcs(), network.bytes(), network.served(&server)), (1, request, 0));
        counting(&network, &server, Duration::from_secs(1));
        {
            let call = ask(&network, "client");
            tokio::pin!(call);
            assert!(clock::timeout(Duration::from_millis(900), &mut call).await.is_err());
            assert_eq!((network.rpcs(), network.bytes(), network.served(&server)), (2, 2 * request, 1));
            call.await.unwrap();
        }
        assert_eq!((network.rpcs(), network.bytes()), (2, 2 * request + reply));
        // Lost replies arrive nowhere; requests that are lost were tried.
        network.set_weather(Weather { unreliable: true, ..Weather::default() });
        let mut done = 0;
        for number in 0..100 {
            done += u64::from(ask(&network, &format!("client {number}")).await.is_ok());
        }
        assert_eq!((network.rpcs(), network.bytes()), (102, 102 * request + (1 + done) * reply));
        let served = network.served(&server) - 1;
        assert!(done < served && served < 100, "{done} < {served} < 100");
        network.set_weather(Weather::default());

        let (before, bytes) = (network.rpcs(), network.bytes());
        let (transport, _heard, _told) = pair(&network);
        assert_eq!(network.served(&server), 0, "another life");
        let (asking, answering) =
            (codec::wire::encode(&vote(1)).len() as u64, codec::wire::encode(&granted(1)).len() as u64);
        transport.send(NodeId(2), vote(1));
        assert_eq!((network.rpcs(), network.bytes()), (before + 1, bytes + asking), "at once");
        transport.send(NodeId(2), granted(1));
        assert_eq!((network.rpcs(), network.bytes()), (before + 1, bytes + asking), "not yet, and never");
        wait(&world, 1).await;
        assert_eq!((network.rpcs(), network.bytes()), (before + 1, bytes + asking + answering));
        assert_eq!(network.served(&server), 1);
        network.link(&"sender".into(), &server, false);
        transport.send(NodeId(2), vote(1));
        transport.send(NodeId(2), granted(1));
        wait(&world, 200).await;
        assert_eq!((network.rpcs(), network.bytes()), (before + 2, bytes + 2 * asking + answering));
        assert_eq!(network.served(&server), 1);
        Ok(())
    });
}

#[test]
fn chaos_doubles_messages_and_the_same_seed_does_so_again() {
    let play = || {
        let order = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&order);
        let outcome = run(11, |world| async move {
            let network = Network::new(&world);
            network.set_weather(Weather {
                unreliable: true,
                chaos: true,
                chaos_requests: true,
                ..Weather::default()
            });
            let (transport, mut heard, _told) = pair(&network);
            (0..500).for_each(|term| transport.send(NodeId(2), vote(term)));
            wait(&world, 5000).await;
            *lock(&seen) = drain(&mut heard);
            assert_eq!(network.rpcs(), 500, "what the network doubles nobody tried");
            Ok(())
        });
        (lock(&order).clone(), outcome.unwrap().trace)
    };
    let (terms, trace) = play();
    let distinct: BTreeSet<_> = terms.iter().collect();
    assert!(terms.len() > distinct.len() && distinct.len() < 500 && !terms.is_sorted());
    assert_eq!((terms, trace), play());
}
