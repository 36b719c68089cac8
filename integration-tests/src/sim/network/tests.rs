//! The labs' own tests of their network, on ours.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::clock;
use bytes::Bytes;
use clerk::api::ctrl::{CtrlReply, CtrlRequest};
use clerk::api::{Address, SessionId};
use clerk::connection::{CallError, Connection};
use raft::core::message::{Body, Message};
use raft::transport::{Incoming, Transport, mailbox};
use raft::types::{EntryId, NodeId, Term};

use super::{Calls, Network, PeerTransport, Reply, Request, Server, Weather};
use crate::sim::{Label, Name, World, lock, run};

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

async fn ask(network: &Network, from: &str) -> Result<(), CallError> {
    let calls = Calls { network: network.clone(), from: from.into(), alive: None };
    calls.ctrl(&Address::from("server"), CtrlRequest::Open, DEADLINE).await.map(drop)
}

fn play<F: Future<Output = Result<(), String>>>(main: impl FnOnce(World, Network, Name) -> F) {
    run(7, |world| {
        let network = Network::new(&world);
        main(world, network, "server".into())
    })
    .unwrap();
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
fn a_call_to_a_server_that_dies_fails_within_100_ms_and_lives_that_long_otherwise() {
    play(|_, network, server| async move {
        counting(&network, &server, Duration::from_secs(20));
        let waiting = network.clone();
        let call = tokio::spawn(async move { ask(&waiting, "client").await });
        clock::sleep(Duration::from_secs(1)).await;
        assert!(!call.is_finished());
        network.detach(&server).unwrap().kill();
        let start = clock::now();
        assert!(matches!(call.await.unwrap(), Err(CallError::Lost { .. })));
        assert!(start.elapsed() <= Duration::from_millis(100));
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
fn raft_messages_reach_the_life_they_were_sent_to_and_a_cut_is_reported() {
    play(|world, network, server| async move {
        let (inbox, mut heard) = mailbox(64, 1 << 20);
        let (own, mut told) = mailbox(64, 1 << 20);
        let nobody = || -> super::Handler { Arc::new(|_| Box::pin(async { Reply::Refused(String::new()) })) };
        let sender: Name = "sender".into();
        network.attach(&server, Server::new(nobody(), Some(inbox.clone())));
        network.attach(&sender, Server::new(nobody(), Some(own)));
        let peers = [(NodeId(2), Arc::clone(&server))].into();
        let transport =
            PeerTransport { network: network.clone(), from: sender.clone(), me: NodeId(1), peers };
        let message = Message { term: Term(3), body: Body::Vote { last: EntryId::ZERO } };
        transport.send(NodeId(2), message.clone());
        let arrived = heard.receive().await;
        assert!(matches!(arrived, Some(Incoming::Message(NodeId(1), got)) if got == message));
        // A restart: what was on its way to the old life is gone.
        transport.send(NodeId(2), message.clone());
        network.attach(&server, Server::new(nobody(), Some(inbox)));
        world.pause(Duration::from_millis(5), Label::of("wait", &sender)).await;
        assert!(heard.try_receive().is_none());
        network.link(&sender, &server, false);
        transport.send(NodeId(2), message);
        assert!(matches!(told.receive().await, Some(Incoming::Unreachable(NodeId(2)))));
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
            network.set_weather(Weather { unreliable: true, chaos: true, chaos_requests: true });
            let (inbox, mut heard) = mailbox(4096, 1 << 20);
            let (own, _told) = mailbox(64, 1 << 20);
            let nobody =
                || -> super::Handler { Arc::new(|_| Box::pin(async { Reply::Refused(String::new()) })) };
            let (server, sender): (Name, Name) = ("server".into(), "sender".into());
            network.attach(&server, Server::new(nobody(), Some(inbox)));
            network.attach(&sender, Server::new(nobody(), Some(own)));
            let peers = [(NodeId(2), server)].into();
            let transport = PeerTransport { network, from: sender.clone(), me: NodeId(1), peers };
            for term in 0..500 {
                transport
                    .send(NodeId(2), Message { term: Term(term), body: Body::Vote { last: EntryId::ZERO } });
            }
            world.pause(Duration::from_secs(5), Label::of("wait", &sender)).await;
            while let Some(Incoming::Message(_, message)) = heard.try_receive() {
                lock(&seen).push(message.term.0);
            }
            world.note(&format!("{:?}", Bytes::new()));
            Ok(())
        });
        (lock(&order).clone(), outcome.unwrap().trace)
    };
    let (terms, trace) = play();
    let distinct: std::collections::BTreeSet<_> = terms.iter().collect();
    assert!(terms.len() > distinct.len() && distinct.len() < 500 && !terms.is_sorted());
    assert_eq!((terms, trace), play());
}
