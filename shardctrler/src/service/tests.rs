use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base::clock;
use clerk::api::config::{GROUPS_MAX, NewGroup, Params};
use clerk::api::ctrl::{Change, CtrlRefusal, CtrlReply, CtrlRequest, News, Recovery};
use clerk::api::status::{CtrlStatus, Role};
use clerk::api::{ConfigNum, Digest, GroupId, Incarnation, Seq, SessionId, ShardId, Ticket};
use host::Facts;
use raft::storage::memory::MemoryDisk;
use raft::transport::memory::Network;
use raft::{Membership, NodeId, Parts, start};

use super::{Service, Settings, WATCH_MAX};
use crate::state_machine::{Controller, Verdict};

const KEY: u64 = 7;

/// A controller that is one of `voters` and cannot reach the others.
async fn controller(disk: &MemoryDisk, voters: u64) -> Service {
    controller_that(disk, voters, false).await
}

/// The same, perhaps started to be recovered.
async fn controller_that(disk: &MemoryDisk, voters: u64, recover: bool) -> Service {
    let (log, table) = disk.open();
    let members = Membership::of((1..=voters).map(NodeId));
    let parts = Parts { log, table, ..Parts::in_memory(NodeId(1), &members, &Network::default()) };
    let replica = start(parts, Controller::default()).await.expect("an empty disk is in order");
    let members = (1..=voters).map(|node| (NodeId(node), format!("host{node}:1"))).collect();
    let params = Params { shard_count: 10, ..Params::default() };
    let (key, sessions) = (KEY, 1 << 32);
    let facts = Facts { pid: 42, ..Facts::default() };
    Service::new(replica, Settings { members, params, key, sessions, recover, facts })
}

/// Repeats `request` while the controller has no leader or no configuration yet.
async fn ask(service: &Service, request: CtrlRequest) -> Verdict {
    loop {
        match service.handle(request.clone()).await {
            Err(CtrlRefusal::NotLeader { .. } | CtrlRefusal::NotExecuted) => {
                clock::sleep(Duration::from_millis(10)).await;
            }
            verdict => return verdict,
        }
    }
}

fn watch(after: u64) -> CtrlRequest {
    CtrlRequest::Watch { after: ConfigNum(after), digest: Digest::default(), book: 0 }
}

fn join(id: u64) -> Change {
    let group = NewGroup { key: KEY, incarnation: Incarnation(id), addresses: vec![format!("host:{id}")] };
    Change::Join(BTreeMap::from([(GroupId(id), group)]))
}

async fn open(service: &Service) -> SessionId {
    match ask(service, CtrlRequest::Open).await {
        Ok(CtrlReply::Opened(session)) => session,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_cluster_gets_configuration_0_on_its_own_and_keeps_its_settings() {
    let disk = MemoryDisk::new();
    let service = controller(&disk, 1).await;
    let session = open(&service).await;
    let ticket = Ticket { session, seq: Seq(1) };
    let change = CtrlRequest::Change { ticket, change: join(101) };
    let first = ask(&service, change.clone()).await;
    assert!(matches!(&first, Ok(CtrlReply::Changed { config: ConfigNum(1), moves }) if moves.len() == 10));
    service.replica().stop().await;
    drop(service);

    let restarted = controller(&disk, 1).await;
    assert_eq!(ask(&restarted, change).await, first);
    match ask(&restarted, CtrlRequest::Query(None)).await {
        Ok(CtrlReply::Config(config, book)) => {
            assert_eq!(config.group_ids(), BTreeSet::from([GroupId(101)]));
            assert_eq!(config.owner(ShardId(9)), Some(GroupId(101)));
            assert_eq!(book.addresses(GroupId(101)), ["host:101"]);
            assert_eq!(book.incarnation(GroupId(101)), Some(Incarnation(101)));
        }
        other => panic!("{other:?}"),
    }
    match restarted.handle(CtrlRequest::Status).await {
        Ok(CtrlReply::Status(status)) => {
            assert_eq!(
                (status.config, status.replica.role, status.replica.pid),
                (ConfigNum(1), Role::Leader, 42)
            );
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_waits_for_news_and_no_longer_than_two_seconds() {
    let service = Arc::new(controller(&MemoryDisk::new(), 1).await);
    let session = open(&service).await;
    let watch = self::watch(0);

    let asked = clock::now();
    let nothing = service.handle(watch.clone()).await;
    assert!(matches!(nothing, Ok(CtrlReply::Configs(news)) if news.configs.is_empty()));
    assert!(asked.elapsed() >= WATCH_MAX);

    let asked = clock::now();
    let watching = tokio::spawn({
        let service = Arc::clone(&service);
        async move { service.handle(watch).await }
    });
    clock::sleep(Duration::from_millis(500)).await;
    let ticket = Ticket { session, seq: Seq(1) };
    ask(&service, CtrlRequest::Change { ticket, change: join(101) }).await.unwrap();
    match watching.await.unwrap() {
        Ok(CtrlReply::Configs(news)) => {
            let numbers = news.configs.iter().map(|config| config.num).collect::<Vec<_>>();
            assert_eq!((numbers, news.book.version), (vec![ConfigNum(1)], 1));
        }
        other => panic!("{other:?}"),
    }
    assert!(asked.elapsed() < WATCH_MAX);

    // A caller that knows the configuration but has an older book is answered at once too.
    let asked = clock::now();
    service.handle(self::watch(1)).await.unwrap();
    assert!(asked.elapsed() < WATCH_MAX / 2);
}

#[tokio::test(start_paused = true)]
async fn a_watch_hears_of_addresses_that_were_corrected_without_a_new_configuration() {
    let service = controller(&MemoryDisk::new(), 1).await;
    let session = open(&service).await;
    for (seq, address) in [(1, "host:101"), (2, "elsewhere:101")] {
        let Change::Join(mut groups) = join(101) else { panic!("a join") };
        groups.values_mut().for_each(|group| group.addresses = vec![address.to_owned()]);
        let ticket = Ticket { session, seq: Seq(seq) };
        ask(&service, CtrlRequest::Change { ticket, change: Change::Join(groups) }).await.unwrap();
    }
    let asked = clock::now();
    let watch = CtrlRequest::Watch { after: ConfigNum(1), digest: Digest::default(), book: 1 };
    let Ok(CtrlReply::Configs(news)) = service.handle(watch).await else { panic!("news") };
    assert_eq!((news.configs.len(), news.book.version), (0, 2));
    assert_eq!(news.book.addresses(GroupId(101)), ["elsewhere:101"]);
    assert!(asked.elapsed() < WATCH_MAX / 2);
}

#[tokio::test(start_paused = true)]
async fn a_replica_without_a_majority_refuses_changes_and_queries_and_still_answers_watches() {
    let service = controller(&MemoryDisk::new(), 3).await;
    clock::sleep(Duration::from_secs(3)).await;
    let refusal = Err(CtrlRefusal::NotLeader { hint: None });
    assert_eq!(service.handle(CtrlRequest::Open).await, refusal);
    assert_eq!(service.handle(CtrlRequest::Query(None)).await, refusal);
    let watch = self::watch(0);
    assert!(matches!(service.handle(watch).await, Ok(CtrlReply::Configs(news)) if news.configs.is_empty()));
    assert!(matches!(service.handle(CtrlRequest::Status).await, Ok(CtrlReply::Status(_))));
}

#[tokio::test(start_paused = true)]
async fn controllers_that_wait_to_be_recovered_found_no_cluster_and_answer_nothing_else() {
    let (old, new) = (MemoryDisk::new(), MemoryDisk::new());
    let lost = controller(&old, 1).await;
    let session = open(&lost).await;
    let ticket = Ticket { session, seq: Seq(1) };
    ask(&lost, CtrlRequest::Change { ticket, change: join(101) }).await.unwrap();
    let Ok(CtrlReply::Configs(news)) = ask(&lost, CtrlRequest::History { after: None }).await else {
        panic!("no history")
    };
    let News { configs, book, .. } = *news;
    let recovery = Box::new(Recovery { configs, book });
    // A controller that founds its own cluster is not to be recovered.
    let founded = controller(&MemoryDisk::new(), 3).await;
    let refused = founded.handle(CtrlRequest::Recover(recovery.clone())).await;
    assert!(matches!(refused, Err(CtrlRefusal::NotRecovered(_))), "{refused:?}");

    // A controller that does not lead may merely lag: only the leader says that they wait.
    let late = controller_that(&MemoryDisk::new(), 3, true).await;
    assert_eq!(late.handle(CtrlRequest::Open).await, Err(CtrlRefusal::NotLeader { hint: None }));

    let service = controller_that(&new, 1, true).await;
    clock::sleep(Duration::from_secs(5)).await;
    for request in [CtrlRequest::Open, CtrlRequest::Query(None), watch(0), CtrlRequest::Plan(join(102))] {
        assert_eq!(service.handle(request).await, Err(CtrlRefusal::Recovering));
    }
    let status = |service: &Service| {
        let CtrlStatus { key, recovering, .. } = service.status();
        (key, recovering)
    };
    assert_eq!(status(&service), (None, true));
    let recovered = ask(&service, CtrlRequest::Recover(recovery.clone())).await;
    assert!(matches!(recovered, Ok(CtrlReply::Recovered(place)) if place.num == ConfigNum(1)));
    assert_eq!(status(&service), (Some(KEY), false));
    assert_eq!(ask(&service, CtrlRequest::Recover(recovery)).await, recovered, "harmless");
    let session = open(&service).await;
    assert!(session.0 > 1 << 32);
    let ticket = Ticket { session, seq: Seq(1) };
    let joined = ask(&service, CtrlRequest::Change { ticket, change: join(102) }).await;
    assert!(matches!(joined, Ok(CtrlReply::Changed { config: ConfigNum(2), .. })), "{joined:?}");
}

#[tokio::test(start_paused = true)]
async fn a_caller_with_another_configuration_is_told_so_at_once() {
    let service = controller(&MemoryDisk::new(), 1).await;
    open(&service).await;
    let Ok(CtrlReply::Config(zero, _)) = ask(&service, CtrlRequest::Query(None)).await else {
        panic!("none")
    };
    let watch = |num, digest| CtrlRequest::Watch { after: ConfigNum(num), digest, book: 0 };
    let asked = clock::now();
    let refused = service.handle(watch(0, Digest(5))).await;
    assert_eq!(refused, Err(CtrlRefusal::OtherHistory { here: zero.place(), key: KEY }));
    assert!(asked.elapsed() < Duration::from_millis(10));
    assert!(service.handle(watch(0, zero.digest())).await.is_ok());
    // This replica may only lag: a number that it does not know says nothing.
    let Ok(CtrlReply::Configs(news)) = service.handle(watch(7, Digest(5))).await else { panic!("refused") };
    assert_eq!(news.newest, ConfigNum(0));
}

/// Rule 102.
#[tokio::test(start_paused = true)]
async fn a_watch_is_told_the_addresses_only_if_they_are_new() {
    let service = controller(&MemoryDisk::new(), 1).await;
    let ticket = Ticket { session: open(&service).await, seq: Seq(1) };
    let joined = ask(&service, CtrlRequest::Change { ticket, change: join(101) }).await;
    assert!(matches!(joined, Ok(CtrlReply::Changed { .. })), "{joined:?}");
    let news = async |after: u64, book: u64| {
        let watch = CtrlRequest::Watch { after: ConfigNum(after), digest: Digest::default(), book };
        match ask(&service, watch).await {
            Ok(CtrlReply::Configs(news)) => *news,
            other => panic!("{other:?}"),
        }
    };
    let all = news(0, 0).await;
    assert!(all.book.groups.contains_key(&GroupId(101)) && all.book.version > 0);
    for after in [0, 1] {
        let bare = news(after, all.book.version).await.book;
        assert_eq!((bare.version, bare.key, bare.groups.len()), (all.book.version, KEY, 0));
    }
    assert_eq!(news(1, all.book.version - 1).await.book, all.book);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_impossible_size_is_refused_before_the_log() {
    let service = controller(&MemoryDisk::new(), 1).await;
    let ticket = Ticket { session: open(&service).await, seq: Seq(1) };
    let before = service.replica().status().commit;
    let wide = NewGroup { key: KEY, incarnation: Incarnation(1), addresses: vec!["x".repeat(1 << 20)] };
    let change = Change::Join(BTreeMap::from([(GroupId(101), wide)]));
    let refused = service.handle(CtrlRequest::Change { ticket, change }).await;
    assert_eq!(refused, Err(CtrlRefusal::InvalidGroup(GroupId(101))));
    let groups = (1..=GROUPS_MAX + 1).map(|group| GroupId(group.into())).collect();
    let change = Change::Leave { groups, force: true };
    let refused = service.handle(CtrlRequest::Change { ticket, change }).await;
    assert_eq!(refused, Err(CtrlRefusal::TooManyGroups { limit: GROUPS_MAX }));
    assert_eq!(service.replica().status().commit, before);
}
