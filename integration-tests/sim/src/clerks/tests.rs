use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::clock;
use clerk::api::config::{AddressBook, Assignment, Config, Params, Registered, Sealed};
use clerk::api::ctrl::CtrlReply;
use clerk::api::kv::{KvRefusal, KvReply, KvRequest};
use clerk::api::{ConfigNum, GroupId, Incarnation, SessionId, Version};
use clerk::kv::{Clerk, Options};
use futures::future::BoxFuture;

use super::KvStore;
use crate::network::{Calls, Network, Reply, Request, Server, Weather};
use crate::workload::{self, Answer, Store as _};
use crate::{Name, run};
use judge::history::Op;

const GROUP: GroupId = GroupId(1);
const SERVER: &str = "server";

/// Controller and group in one, which answers writes with `answer`; and a counter of the writes it
/// was asked for.
fn server(network: &Network, answer: Result<KvReply, KvRefusal>) -> Arc<AtomicU64> {
    let asked = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&asked);
    let owned = Assignment { owner: Some(GROUP), last_owner: None };
    let params = Params { shard_count: 1, ..Params::default() };
    let groups = BTreeMap::from([(GROUP, Incarnation(1))]);
    let config = Config { num: ConfigNum(1), shards: vec![owned], groups, ..Config::zero(7, params) };
    let config = Sealed::new(config);
    let registered = Registered::new(Incarnation(1), vec![SERVER.to_owned()]);
    let book = AddressBook {
        version: 1,
        key: 7,
        groups: BTreeMap::from([(GROUP, registered)]),
        ..AddressBook::default()
    };
    let handler = move |request| -> BoxFuture<'static, Reply> {
        let reply = match request {
            Request::Ctrl(_) => Reply::Ctrl(Ok(CtrlReply::Config(config.clone(), book.clone()))),
            Request::Kv(_, KvRequest::Open { .. }) => Reply::Kv(Ok(KvReply::Opened(SessionId(1)))),
            Request::Kv(_, KvRequest::Config) => Reply::Kv(Ok(KvReply::Config(config.clone(), book.clone()))),
            Request::Push(..) => Reply::Refused("nobody pushes here".to_owned()),
            Request::Kv(..) => {
                count.fetch_add(1, Ordering::Relaxed);
                Reply::Kv(answer.clone())
            }
        };
        Box::pin(async move { reply })
    };
    network.attach(&SERVER.into(), Server::new(Arc::new(handler), None));
    asked
}

#[test]
fn a_refusal_of_one_copy_of_a_doubled_request_leaves_the_outcome_open() {
    run(7, |world| async move {
        let network = Network::new(&world);
        let asked = server(&network, Err(KvRefusal::DiskFull));
        let name: Name = "client".into();
        let calls = Calls { network: network.clone(), from: Arc::clone(&name), alive: None, pass: None };
        let options = Options { seed: 1, deadline: Duration::from_secs(4), sessions: true };
        let clerk = Clerk::new(Arc::new(calls), vec![SERVER.to_owned()], options);
        let mut store = KvStore::of(clerk).on(&network, &name);
        let put = workload::Request {
            op: Op::Put,
            key: "k".to_owned(),
            value: Some("v".to_owned()),
            expected: None,
        };
        assert_eq!(store.run(&put).await, Answer::Refused, "in calm weather a refusal is the last word");
        network.set_weather(Weather { chaos: true, chaos_requests: true, ..Weather::default() });
        let mut doubled = 0;
        for _ in 0..200 {
            let before = network.doubled(&name);
            let answer = store.run(&put).await;
            let was_doubled = network.doubled(&name) > before;
            assert_eq!(answer, if was_doubled { Answer::Unknown } else { Answer::Refused });
            doubled += u64::from(was_doubled);
        }
        clock::sleep(Duration::from_secs(2)).await;
        assert!(doubled > 5, "{doubled} of 200 were doubled");
        assert_eq!(asked.load(Ordering::Relaxed), 201 + doubled, "each second copy arrives");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_lost_create_is_sent_again_only_where_nobody_deletes() {
    run(7, |world| async move {
        let network = Network::new(&world);
        let asked = server(&network, Ok(KvReply::Written { version: Version(1) }));
        let name: Name = "client".into();
        let store = || {
            let calls = Calls { network: network.clone(), from: Arc::clone(&name), alive: None, pass: None };
            let options = Options { seed: 1, deadline: Duration::from_secs(60), sessions: false };
            KvStore::of(Clerk::new(Arc::new(calls), vec![SERVER.to_owned()], options))
        };
        let create = workload::Request {
            op: Op::Cas,
            key: "k".to_owned(),
            value: Some("v".to_owned()),
            expected: Some(0),
        };
        let mut answers = Vec::new();
        network.set_weather(Weather { unreliable: true, ..Weather::default() });
        for _ in 0..100 {
            answers.push(store().run(&create).await);
        }
        assert!(answers.contains(&Answer::Unknown), "none of 100 was lost");
        let before = asked.load(Ordering::Relaxed);
        for _ in 0..100 {
            let answer = store().repeating_creates().run(&create).await;
            assert_eq!(answer, Answer::Done { output: None, version: 1 });
        }
        assert!(asked.load(Ordering::Relaxed) > before + 100, "some were sent again");
        Ok(())
    })
    .unwrap();
}
