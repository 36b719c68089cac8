use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::clock::{self, Instant};

use super::ConfigCache;
use crate::api::config::{AddressBook, Config, Params, Sealed};
use crate::api::ctrl::{CtrlRefusal, CtrlReply, CtrlRequest, News};
use crate::api::kv::{KvReply, KvRequest};
use crate::api::status::{CtrlStatus, ReplicaStatus};
use crate::api::{ConfigNum, Digest, GroupId};
use crate::connection::Connection;
use crate::ctrl::Error;
use crate::fake::{Answer, Ask, Fake};

fn config(num: u64) -> Sealed {
    Sealed::new(Config { num: ConfigNum(num), ..Config::zero(7, Params::default()) })
}

fn book() -> AddressBook {
    AddressBook { version: 1, key: 7, ..AddressBook::default() }
}

fn follower(newest: u64) -> CtrlStatus {
    let replica = ReplicaStatus { id: 1, ..ReplicaStatus::default() };
    CtrlStatus { replica, config: ConfigNum(newest), digest: None, key: Some(7), recovering: false }
}

/// A cache that knows three controllers and two groups.
fn cache(fake: &Arc<Fake>) -> ConfigCache {
    let controllers = ["a", "b", "c"].map(str::to_owned).to_vec();
    let groups = [1, 2].map(|group| (GroupId(group), vec![format!("group {group}")]));
    let connection = Arc::clone(fake) as Arc<dyn Connection>;
    ConfigCache::with_groups(connection, controllers, BTreeMap::from(groups), 7)
}

fn soon() -> Instant {
    clock::now().after(Duration::from_secs(10))
}

#[tokio::test(start_paused = true)]
async fn a_new_clerk_begins_with_what_any_one_controller_knows() {
    // The first one is new and knows nothing, and answers first.
    let fake = Fake::new(|server, ask| match ask {
        Ask::Ctrl(CtrlRequest::Status) if server == "a" => {
            Answer::Ctrl(Ok(CtrlReply::Status(Box::new(follower(0)))))
        }
        Ask::Ctrl(_) if server != "b" => Answer::NotSent,
        Ask::Ctrl(CtrlRequest::Status) => Answer::Ctrl(Ok(CtrlReply::Status(Box::new(follower(9))))),
        Ask::Ctrl(CtrlRequest::Watch { after, digest, .. }) => {
            assert_eq!(
                (*after, *digest),
                (ConfigNum(8), Digest::default()),
                "the newest one alone is asked for"
            );
            let news = News { configs: vec![config(9)], newest: ConfigNum(9), book: book(), move_rate: None };
            Answer::Ctrl(Ok(CtrlReply::Configs(Box::new(news))))
        }
        Ask::Ctrl(_) => Answer::Ctrl(Err(CtrlRefusal::NotLeader { hint: None })),
        Ask::Kv(..) => Answer::NotSent,
    });
    let started = clock::now();
    assert_eq!(cache(&fake).any(soon()).await.unwrap().config, config(9));
    assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_new_clerk_begins_with_what_any_one_group_knows() {
    // The controllers hang, as a stopped process does.
    let fake = Fake::new(|_, ask| match ask {
        Ask::Ctrl(_) => Answer::Lost,
        Ask::Kv(GroupId(2), KvRequest::Config) => Answer::Kv(Ok(KvReply::Config(config(4), book()))),
        Ask::Kv(..) => Answer::NotSent,
    });
    let started = clock::now();
    assert_eq!(cache(&fake).any(soon()).await.unwrap().config, config(4));
    assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_gives_up_says_what_each_controller_said() {
    let said = |answer: fn() -> Answer, limit: Duration| async move {
        let fake = Fake::new(move |_, ask| match ask {
            Ask::Ctrl(_) => answer(),
            Ask::Kv(..) => Answer::NotSent,
        });
        let started = clock::now();
        let Err(Error::Unavailable { why }) = cache(&fake).any(clock::now().after(limit)).await else {
            panic!("nobody answers")
        };
        assert!(started.elapsed() >= limit && started.elapsed() < limit + Duration::from_millis(20));
        why
    };
    let unreached = said(|| Answer::NotSent, Duration::from_secs(5)).await;
    assert_eq!(unreached, ["a", "b", "c"].map(|it| format!("{it}: not reached: scripted")).join("; "));
    let silent = said(|| Answer::Lost, Duration::from_millis(500)).await;
    assert_eq!(silent, "no answer in time from a, b, c");
}
