//! Where a request goes when its shard is moving, and what the error says when there is no time
//! left.

use std::time::Duration;

use base::clock;

use super::{DONE, config, kv, tickets, told, with};
use crate::api::config::Sealed;
use crate::api::ctrl::CtrlRequest;
use crate::api::kv::{KvRefusal, KvReply, KvRequest};
use crate::api::{ConfigNum, GroupId, SessionId, Version};
use crate::fake::{Answer, Ask, Fake};
use crate::kv::{Error, Options};

/// A group takes one configuration after the other: while it waits for a shard, it lags, and a
/// shard that it gets later is served where it was.
#[tokio::test(start_paused = true)]
async fn a_shard_that_its_new_owner_awaits_is_served_by_its_last_owner_at_once() {
    for owner in [Some(2), None] {
        let mut moved = (*config(3, owner)).clone();
        moved.shards.iter_mut().for_each(|assignment| assignment.last_owner = Some(GroupId(1)));
        let moved = Sealed::new(moved);
        let fake = Fake::new(move |_, ask| match ask {
            Ask::Ctrl(CtrlRequest::Watch { .. }) => Answer::NotSent,
            Ask::Ctrl(_) => told(moved.clone()),
            Ask::Kv(GroupId(2), _) => kv(Err(KvRefusal::NotReady { config: ConfigNum(2), ask: None })),
            Ask::Kv(_, KvRequest::Open { .. }) => kv(Ok(KvReply::Opened(SessionId(1)))),
            Ask::Kv(..) => kv(DONE),
        });
        let (clerk, started) = (with(&fake, true), clock::now());
        assert_eq!(clerk.append("key", "piece").await, Ok(Version(1)));
        assert!(started.elapsed() < Duration::from_millis(100), "{:?}", started.elapsed());
        let mut sent = tickets(&fake);
        sent.dedup();
        assert_eq!(sent, [(1, 1)], "both groups got the same ticket");
    }
}

/// The shards are to go from group 1 to group 2, and group 3 still has them: their last owner never got them.
#[tokio::test(start_paused = true)]
async fn a_group_that_is_named_as_the_holder_is_asked_at_once_and_first_from_then_on() {
    let mut moved = (*config(3, Some(2))).clone();
    moved.shards.iter_mut().for_each(|assignment| assignment.last_owner = Some(GroupId(1)));
    let (moved, here) = (Sealed::new(moved), ConfigNum(3));
    let mut served = 0;
    let fake = Fake::new(move |_, ask| match ask {
        Ask::Ctrl(_) => told(moved.clone()),
        Ask::Kv(GroupId(2), _) if served >= 5 => kv(DONE),
        Ask::Kv(GroupId(2), _) => kv(Err(KvRefusal::NotReady { config: here, ask: Some(GroupId(3)) })),
        Ask::Kv(GroupId(3), _) if served < 5 => {
            served += 1;
            kv(DONE)
        }
        Ask::Kv(GroupId(3), _) => kv(Err(KvRefusal::WrongGroup { config: here, ask: Some(GroupId(2)) })),
        Ask::Kv(..) => panic!("the last owner is asked"),
    });
    let (clerk, started) = (with(&fake, false), clock::now());
    for _ in 0..8 {
        assert_eq!(clerk.put_if("key", "value", Version(0)).await, Ok(Version(1)));
    }
    let groups: Vec<u64> = super::writes(&fake).into_iter().map(|(group, _)| group.0).collect();
    assert_eq!(groups, [2, 3, 3, 3, 3, 3, 3, 2, 2, 2]);
    assert!(started.elapsed() < Duration::from_millis(50), "{:?}", started.elapsed());
}

/// Group 2 has the shards, and serves them from the fourth request on; group 1 had them, and answers so.
async fn put_beside_a_last_owner(answer: fn() -> Answer, sessions: bool) -> Duration {
    let mut moved = (*config(3, Some(2))).clone();
    moved.shards.iter_mut().for_each(|assignment| assignment.last_owner = Some(GroupId(1)));
    let moved = Sealed::new(moved);
    let mut asked = 0;
    let fake = Fake::new(move |_, ask| match ask {
        Ask::Ctrl(_) => told(moved.clone()),
        Ask::Kv(GroupId(1), _) => answer(),
        Ask::Kv(_, KvRequest::Open { .. }) => kv(Ok(KvReply::Opened(SessionId(1)))),
        Ask::Kv(..) => {
            asked += 1;
            let ready = asked > 3;
            kv(if ready { DONE } else { Err(KvRefusal::NotReady { config: ConfigNum(3), ask: None }) })
        }
    });
    let started = clock::now();
    assert_eq!(with(&fake, sessions).put("key", "value").await, Ok(Version(1)));
    started.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_last_owner_that_is_gone_costs_nothing_and_a_silent_one_little() {
    let gone = put_beside_a_last_owner(|| Answer::NotSent, false).await;
    assert!(gone < Duration::from_millis(200), "{gone:?}");
    let silent = put_beside_a_last_owner(|| Answer::Lost, true).await;
    assert!(silent < Duration::from_secs(1), "{silent:?}");
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_is_out_of_time_names_what_was_heard_and_takes_all_its_time() {
    let fake = Fake::new(|_, ask| match ask {
        Ask::Ctrl(_) => told(config(1, Some(1))),
        Ask::Kv(..) => Answer::NotSent,
    });
    let started = clock::now();
    let (why, silent) = ("group 1: group 1: not reached: scripted".to_owned(), Some(GroupId(1)));
    assert_eq!(with(&fake, true).get("key").await, Err(Error::Unavailable { why, silent }));
    let (took, limit) = (started.elapsed(), Options::default().deadline);
    assert!(took >= limit && took < limit + Duration::from_millis(100), "{took:?}");
}
