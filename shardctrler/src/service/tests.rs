use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base::clock;
use clerk::api::config::{NewGroup, Params};
use clerk::api::ctrl::{Change, CtrlRefusal, CtrlReply, CtrlRequest};
use clerk::api::status::Role;
use clerk::api::{ConfigNum, GroupId, Incarnation, Seq, SessionId, ShardId, Ticket};
use raft::config::Config;
use raft::core::message::Message;
use raft::rsm::{Parts, Threads, start};
use raft::storage::memory::MemoryDisk;
use raft::transport::{Transport, mailbox};
use raft::types::{Membership, NodeId};

use super::{Service, Settings, WATCH_MAX};
use crate::state_machine::{Controller, Verdict};

/// A way to nobody.
struct Nowhere;

impl Transport for Nowhere {
    fn send(&self, _to: NodeId, _message: Message) {}
}

/// A controller that is one of `voters` and cannot reach the others.
async fn controller(disk: &MemoryDisk, voters: u64) -> Service {
    let (log, table) = disk.open();
    let (_inbox, mailbox) = mailbox(16, 1 << 20);
    let (_low, disk_low) = tokio::sync::watch::channel(false);
    let parts = Parts {
        me: NodeId(1),
        membership: Membership::of((1..=voters).map(NodeId)),
        config: Config::default(),
        log,
        table,
        transport: Arc::new(Nowhere),
        mailbox,
        threads: Threads::Shared,
        disk_low,
    };
    let replica = start(parts, Controller::default()).await.expect("an empty disk is in order");
    let members = (1..=voters).map(|node| (NodeId(node), format!("host{node}:1"))).collect();
    let params = Params { shard_count: 10, ..Params::default() };
    Service::new(replica, Settings { members, params, pid: 42, refusals: Arc::default() })
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

fn join(id: u64) -> Change {
    let group = NewGroup { incarnation: Incarnation(id), addresses: vec![format!("host:{id}")] };
    Change::Join(BTreeMap::from([(GroupId(id), group)]))
}

async fn open(service: &Service) -> SessionId {
    match ask(service, CtrlRequest::Open).await {
        Ok(CtrlReply::Opened(session)) => session,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_cluster_gets_configuration_0_by_itself_and_keeps_what_it_was_told() {
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
            assert_eq!(config.groups, BTreeSet::from([GroupId(101)]));
            assert_eq!(config.owner(ShardId(9)), Some(GroupId(101)));
            assert_eq!(book.groups[&GroupId(101)], ["host:101"]);
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
    let watch = CtrlRequest::Watch { after: ConfigNum(0), book: 0 };

    let asked = clock::now();
    let nothing = service.handle(watch.clone()).await;
    assert!(matches!(nothing, Ok(CtrlReply::Configs(configs, _)) if configs.is_empty()));
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
        Ok(CtrlReply::Configs(configs, book)) => {
            let numbers = configs.iter().map(|config| config.num).collect::<Vec<_>>();
            assert_eq!((numbers, book.version), (vec![ConfigNum(1)], 1));
        }
        other => panic!("{other:?}"),
    }
    assert!(asked.elapsed() < WATCH_MAX);

    // Who knows the configuration but an older book is told at once, too.
    let asked = clock::now();
    service.handle(CtrlRequest::Watch { after: ConfigNum(1), book: 0 }).await.unwrap();
    assert!(asked.elapsed() < WATCH_MAX / 2);
}

#[tokio::test(start_paused = true)]
async fn a_replica_without_a_majority_refuses_changes_and_queries_and_still_answers_watches() {
    let service = controller(&MemoryDisk::new(), 3).await;
    clock::sleep(Duration::from_secs(3)).await;
    let refusal = Err(CtrlRefusal::NotLeader { hint: None });
    assert_eq!(service.handle(CtrlRequest::Open).await, refusal);
    assert_eq!(service.handle(CtrlRequest::Query(None)).await, refusal);
    let watch = CtrlRequest::Watch { after: ConfigNum(0), book: 0 };
    assert!(matches!(service.handle(watch).await, Ok(CtrlReply::Configs(configs, _)) if configs.is_empty()));
    assert!(matches!(service.handle(CtrlRequest::Status).await, Ok(CtrlReply::Status(_))));
}
