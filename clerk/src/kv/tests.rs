mod route;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::clock;
use bytes::Bytes;
use futures::future::join_all;

use super::{Clerk, Error, Got, Options};
use crate::api::config::{AddressBook, Assignment, Config, Params, Registered, Sealed, shard_of};
use crate::api::ctrl::{CtrlRefusal, CtrlReply, CtrlRequest, News};
use crate::api::kv::{BATCH_WRITES_MAX, KvRefusal, KvReply, KvRequest, Write};
use crate::api::{ConfigNum, GroupId, Incarnation, SessionId, ShardId, Ticket, Version};
use crate::connection::Connection;
use crate::fake::{Answer, Ask, Fake};

const SHARDS: u32 = 4;
const DONE: Result<KvReply, KvRefusal> = Ok(KvReply::Written { version: Version(1) });

fn config(num: u64, owner: Option<u64>) -> Sealed {
    let params = Params { shard_count: SHARDS, value_bytes_max: 100, ..Params::default() };
    let assignment = Assignment { owner: owner.map(GroupId), last_owner: None };
    Sealed::new(Config {
        num: ConfigNum(num),
        shards: vec![assignment; SHARDS as usize],
        groups: owner.map(|group| (GroupId(group), Incarnation(group))).into_iter().collect(),
        ..Config::zero(7, params)
    })
}

/// Each group has one server of its own name.
fn book() -> AddressBook {
    let addresses = |group| vec![format!("group {group}")];
    let of = |group| Registered::new(Incarnation(group), addresses(group));
    let groups = [1, 2, 3].map(|group| (GroupId(group), of(group)));
    AddressBook { version: 1, key: 7, groups: BTreeMap::from(groups), ..AddressBook::default() }
}

fn told(config: Sealed) -> Answer {
    Answer::Ctrl(Ok(CtrlReply::Config(config, book())))
}

fn kv(answer: Result<KvReply, KvRefusal>) -> Answer {
    Answer::Kv(answer)
}

/// A write of so many bytes.
fn put(bytes: usize) -> Write {
    Write::Put { value: vec![b'x'; bytes].into(), expected: None }
}

fn with(fake: &Arc<Fake>, sessions: bool) -> Clerk {
    let options = Options { seed: 3, sessions, ..Options::default() };
    Clerk::new(Arc::clone(fake) as Arc<dyn Connection>, vec!["ctrl".to_owned()], options)
}

/// Group 1 owns everything, sessions open, and the writes get `answers` and then success.
fn one_group(answers: Vec<Answer>) -> Arc<Fake> {
    let (mut opened, mut answers) = (0, answers.into_iter());
    Fake::new(move |_, ask| match ask {
        Ask::Ctrl(_) => told(config(1, Some(1))),
        Ask::Kv(_, KvRequest::Open { .. }) => {
            opened += 1;
            kv(Ok(KvReply::Opened(SessionId(opened))))
        }
        Ask::Kv(..) => answers.next().unwrap_or_else(|| kv(DONE)),
    })
}

fn writes(fake: &Fake) -> Vec<(GroupId, Option<Ticket>)> {
    let write = |(_, ask)| match ask {
        Ask::Kv(group, KvRequest::Write { ticket, .. }) => Some((group, ticket)),
        _ => None,
    };
    fake.asked().into_iter().filter_map(write).collect()
}

fn tickets(fake: &Fake) -> Vec<(u64, u64)> {
    let pair = |(_, ticket): (_, Option<Ticket>)| ticket.map(|ticket| (ticket.session.0, ticket.seq.0));
    writes(fake).into_iter().filter_map(pair).collect()
}

fn queries(fake: &Fake) -> usize {
    let query = |(_, ask): &(_, Ask)| matches!(ask, Ask::Ctrl(CtrlRequest::Query(_)));
    fake.asked().iter().filter(|asked| query(asked)).count()
}

#[tokio::test(start_paused = true)]
async fn a_moved_shard_is_found_with_one_refresh_for_all_and_the_same_ticket() {
    let mut asked = 0;
    let mut opened = 0;
    let fake = Fake::new(move |_, ask| match ask {
        Ask::Ctrl(_) => {
            asked += 1;
            told(config(asked, Some(asked.min(2))))
        }
        Ask::Kv(_, KvRequest::Open { .. }) => {
            opened += 1;
            kv(Ok(KvReply::Opened(SessionId(opened))))
        }
        Ask::Kv(GroupId(1), _) => kv(Err(KvRefusal::WrongGroup { config: ConfigNum(2), ask: None })),
        Ask::Kv(..) => kv(DONE),
    });
    let clerk = with(&fake, true);
    let results = join_all((0..20).map(|_| clerk.put("key", "value"))).await;
    assert!(results.iter().all(|result| *result == Ok(Version(1))));
    assert_eq!(queries(&fake), 2, "one to begin with, one for the newer number");
    let sent = writes(&fake);
    for (group, ticket) in &sent {
        if *group == GroupId(1) {
            assert!(sent.contains(&(GroupId(2), *ticket)), "the retry kept {ticket:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_lags_takes_nothing_back() {
    let mut asked = 0;
    let fake = Fake::new(move |_, ask| match ask {
        Ask::Ctrl(_) => {
            asked += 1;
            // The second answer is older than the first.
            told(if asked == 2 { config(1, Some(1)) } else { config(2 + asked, Some(2)) })
        }
        Ask::Kv(GroupId(2), _) if asked_enough(asked) => kv(DONE),
        Ask::Kv(GroupId(2), _) => kv(Err(KvRefusal::WrongGroup { config: ConfigNum(9), ask: None })),
        Ask::Kv(..) => panic!("the old owner is asked"),
    });
    fn asked_enough(asked: u64) -> bool {
        asked >= 4
    }
    let clerk = with(&fake, false);
    assert_eq!(clerk.put("key", "value").await, Ok(Version(1)));
    assert!(clerk.cache().current().unwrap().config.num >= ConfigNum(5));
}

#[tokio::test(start_paused = true)]
async fn a_shard_on_its_way_is_asked_for_again_soon_without_any_refresh() {
    let not_ready = || kv(Err(KvRefusal::NotReady { config: ConfigNum(0), ask: None }));
    let fake = one_group(vec![not_ready(), not_ready(), not_ready()]);
    let started = clock::now();
    assert_eq!(with(&fake, true).put("key", "value").await, Ok(Version(1)));
    assert!(started.elapsed() < Duration::from_millis(200));
    assert_eq!(queries(&fake), 1);
    assert_eq!(tickets(&fake), [(1, 1); 4]);
}

/// Its disk hangs, and it does not hear of its successor.
#[tokio::test(start_paused = true)]
async fn a_leader_of_old_that_goes_on_saying_later_is_doubted_soon() {
    for refusal in [
        KvRefusal::NotReady { config: ConfigNum(0), ask: None },
        KvRefusal::WrongGroup { config: ConfigNum(0), ask: None },
    ] {
        let started = clock::now();
        let fake = Fake::new(move |server, ask| match ask {
            Ask::Ctrl(_) => {
                let servers = ["old", "new", "other"].map(str::to_owned).to_vec();
                let groups = BTreeMap::from([(GroupId(1), Registered::new(Incarnation(1), servers))]);
                let book = AddressBook { version: 1, key: 7, groups, ..AddressBook::default() };
                Answer::Ctrl(Ok(CtrlReply::Config(config(1, Some(1)), book)))
            }
            Ask::Kv(..) if server == "old" => kv(Err(refusal.clone())),
            // The others elect a new leader after a while.
            Ask::Kv(..) if started.elapsed() < Duration::from_millis(500) => {
                kv(Err(KvRefusal::NotLeader { hint: Some("old".to_owned()) }))
            }
            Ask::Kv(..) if server == "new" => kv(Ok(KvReply::Value { value: None, version: Version(0) })),
            Ask::Kv(..) => kv(Err(KvRefusal::NotLeader { hint: Some("new".to_owned()) })),
        });
        assert!(with(&fake, true).get("key").await.is_ok());
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_without_owner_is_waited_for_by_one_watch() {
    let fake = Fake::new(|_, ask| match ask {
        Ask::Ctrl(CtrlRequest::Watch { after: ConfigNum(1), .. }) => {
            let configs = vec![config(2, None), config(3, Some(1))];
            let news = News { newest: ConfigNum(3), configs, book: book(), move_rate: None };
            Answer::Ctrl(Ok(CtrlReply::Configs(Box::new(news))))
        }
        Ask::Ctrl(_) => told(config(1, None)),
        Ask::Kv(..) => kv(Ok(KvReply::Value { value: None, version: Version(0) })),
    });
    let clerk = with(&fake, true);
    let gets = join_all((0..10).map(|_| clerk.get("key"))).await;
    let absent = Ok(Got { value: None, version: Version(0) });
    assert!(gets.iter().all(|got| *got == absent));
    let watch = |(_, ask): &(_, Ask)| matches!(ask, Ask::Ctrl(CtrlRequest::Watch { .. }));
    assert_eq!(fake.asked().iter().filter(|asked| watch(asked)).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn when_no_controller_answers_the_groups_tell_their_configuration() {
    let mut asked = 0;
    let fake = Fake::new(move |_, ask| match ask {
        Ask::Ctrl(_) => {
            asked += 1;
            if asked == 1 { told(config(1, Some(1))) } else { Answer::NotSent }
        }
        Ask::Kv(GroupId(1), KvRequest::Config) => kv(Ok(KvReply::Config(config(2, Some(2)), book()))),
        Ask::Kv(GroupId(2), KvRequest::Config) => {
            kv(Err(KvRefusal::NotReady { config: ConfigNum(0), ask: None }))
        }
        Ask::Kv(GroupId(1), _) => kv(Err(KvRefusal::WrongGroup { config: ConfigNum(2), ask: None })),
        Ask::Kv(..) => kv(DONE),
    });
    assert_eq!(with(&fake, false).put_if("key", "value", Version(0)).await, Ok(Version(1)));
}

#[tokio::test(start_paused = true)]
async fn sessions_are_used_again_with_the_next_number() {
    let fake = one_group(Vec::new());
    let clerk = with(&fake, true);
    for _ in 0..3 {
        clerk.append("key", "piece").await.unwrap();
    }
    assert_eq!(tickets(&fake), [(1, 1), (1, 2), (1, 3)]);
    join_all([clerk.append("key", "piece"), clerk.append("key", "piece")]).await;
    assert_eq!(tickets(&fake)[3..], [(1, 4), (2, 1)], "two at once need two sessions");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_was_cut_short_lends_its_number_to_nobody() {
    let fake = one_group(vec![Answer::Lost]);
    let clerk = with(&fake, true);
    assert!(clock::timeout(Duration::from_millis(50), clerk.put("key", "value")).await.is_err());
    clerk.put("key", "other").await.unwrap();
    assert_eq!(tickets(&fake), [(1, 1), (1, 2)]);
}

#[tokio::test(start_paused = true)]
async fn an_expired_session_is_replaced_only_if_definitely_nothing_was_done() {
    let expired = || kv(Err(KvRefusal::SessionExpired));
    let fake = one_group(vec![expired()]);
    assert_eq!(with(&fake, true).append("key", "piece").await, Ok(Version(1)));
    assert_eq!(tickets(&fake), [(1, 1), (2, 1)]);

    let fake = one_group(vec![Answer::Lost, expired()]);
    assert_eq!(with(&fake, true).append("key", "piece").await, Err(Error::Unknown));
    assert_eq!(tickets(&fake), [(1, 1), (1, 1)]);
}

#[tokio::test(start_paused = true)]
async fn running_out_of_time_is_unknown_only_if_an_attempt_may_have_been_executed() {
    let lost = Fake::new(|_, ask| match ask {
        Ask::Ctrl(_) => told(config(1, Some(1))),
        Ask::Kv(_, KvRequest::Open { .. }) => kv(Ok(KvReply::Opened(SessionId(1)))),
        Ask::Kv(..) => Answer::Lost,
    });
    let started = clock::now();
    assert_eq!(with(&lost, true).put("key", "value").await, Err(Error::Unknown));
    assert!(started.elapsed() >= Duration::from_secs(9));
    assert!(started.elapsed() <= Duration::from_secs(11));
    assert!(matches!(with(&lost, true).get("key").await, Err(Error::Unavailable { .. })));

    let unreached = Fake::new(|_, ask| match ask {
        Ask::Ctrl(_) => told(config(1, Some(1))),
        Ask::Kv(..) => Answer::NotSent,
    });
    for sessions in [true, false] {
        let clerk = with(&unreached, sessions);
        assert!(matches!(clerk.put("key", "value").await, Err(Error::Unavailable { .. })));
    }
    let nobody = Fake::new(|_, _| Answer::NotSent);
    assert!(matches!(with(&nobody, true).put("key", "value").await, Err(Error::Unavailable { .. })));
}

#[tokio::test(start_paused = true)]
async fn without_a_session_a_lost_conditional_put_that_meets_another_version_is_maybe() {
    let mismatch = || kv(Err(KvRefusal::VersionMismatch { version: Version(5) }));
    let fake = one_group(vec![Answer::Lost, mismatch()]);
    assert_eq!(with(&fake, false).put_if("key", "value", Version(4)).await, Err(Error::Maybe));
    assert_eq!(writes(&fake), [(GroupId(1), None), (GroupId(1), None)]);

    let surely = Err(Error::VersionMismatch { version: Version(5) });
    let fake = one_group(vec![Answer::NotSent, mismatch()]);
    assert_eq!(with(&fake, false).put_if("key", "value", Version(4)).await, surely);
    // With a session the refusal is the recorded result of this very put.
    let fake = one_group(vec![Answer::Lost, mismatch()]);
    assert_eq!(with(&fake, true).put_if("key", "value", Version(4)).await, surely);
}

#[tokio::test(start_paused = true)]
async fn without_a_session_other_writes_are_not_sent_again_after_a_loss() {
    for _ in 0..2 {
        let fake = one_group(vec![Answer::Lost]);
        assert_eq!(with(&fake, false).append("key", "piece").await, Err(Error::Unknown));
        assert_eq!(writes(&fake).len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_session_a_lost_create_is_not_sent_again() {
    // Had it been done and the key been deleted since, another attempt would create the key a second time.
    let fake = one_group(vec![Answer::Lost]);
    assert_eq!(with(&fake, false).put_if("key", "value", Version(0)).await, Err(Error::Unknown));
    assert_eq!(writes(&fake).len(), 1);
    // Where no attempt left, there is nothing to repeat.
    let fake = one_group(vec![Answer::NotSent]);
    assert_eq!(with(&fake, false).put_if("key", "value", Version(0)).await, Ok(Version(1)));
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_after_a_lost_attempt_says_nothing_of_that_attempt() {
    let full = || kv(Err(KvRefusal::DiskFull));
    let fake = one_group(vec![full()]);
    assert_eq!(with(&fake, true).put("key", "value").await, Err(Error::DiskFull));
    let fake = one_group(vec![Answer::Lost, full()]);
    assert_eq!(with(&fake, true).put("key", "value").await, Err(Error::Unknown));
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_does_not_travel() {
    let fake = one_group(Vec::new());
    let clerk = with(&fake, true);
    let too_large = Err(Error::ValueTooLarge { bytes: 101, limit: 100 });
    assert_eq!(clerk.put("key", vec![0; 101]).await, too_large);
    assert_eq!(clerk.put("", "value").await, Err(Error::InvalidKey { bytes: 0, limit: 4096 }));
    assert!(matches!(clerk.get(vec![b'k'; 5000]).await, Err(Error::InvalidKey { .. })));
    assert_eq!(clerk.scan(ShardId(4), None, 1).await, Err(Error::UnknownShard(ShardId(4))));
    assert!(writes(&fake).is_empty());
}

/// The parts of batches that were sent: shard, keys, ticket.
fn batches(fake: &Fake) -> Vec<(ShardId, Vec<Bytes>, Option<Ticket>)> {
    let part = |(_, ask)| match ask {
        Ask::Kv(_, KvRequest::Batch { shard, writes, ticket, .. }) => {
            Some((shard, writes.into_iter().map(|(key, _)| key).collect(), ticket))
        }
        _ => None,
    };
    fake.asked().into_iter().filter_map(part).collect()
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_one_request_a_shard_and_its_results_keep_the_order_of_its_writes() {
    let mut opened = 0;
    let fake = Fake::new(move |_, ask| match ask {
        Ask::Ctrl(_) => told(config(1, Some(1))),
        Ask::Kv(_, KvRequest::Open { .. }) => {
            opened += 1;
            kv(Ok(KvReply::Opened(SessionId(opened))))
        }
        // Each write's version tells its key.
        Ask::Kv(_, KvRequest::Batch { writes, .. }) => {
            let version = |(key, _): &(Bytes, Write)| match &key[..] {
                b"k7" => Err(KvRefusal::VersionMismatch { version: Version(70) }),
                key => Ok(Version(String::from_utf8_lossy(&key[1..]).parse().unwrap())),
            };
            kv(Ok(KvReply::Batch { results: writes.iter().map(version).collect() }))
        }
        Ask::Kv(..) => panic!("only batches are sent"),
    });
    let write = |key: usize| (Bytes::from(format!("k{key}")), put(if key == 3 { 101 } else { 5 }));
    let results = with(&fake, true).batch((1..20).map(write)).await;
    for (key, result) in (1..20).zip(results) {
        assert_eq!(
            result,
            match key {
                3 => Err(Error::ValueTooLarge { bytes: 101, limit: 100 }),
                7 => Err(Error::VersionMismatch { version: Version(70) }),
                key => Ok(Version(key)),
            }
        );
    }
    let sent = batches(&fake);
    let shards: BTreeSet<ShardId> = sent.iter().map(|(shard, ..)| *shard).collect();
    assert_eq!(sent.len(), shards.len(), "one request a shard");
    assert!(shards.len() > 1);
    assert!(sent.iter().all(|(shard, keys, _)| keys.iter().all(|key| shard_of(key, SHARDS) == *shard)));
}

#[tokio::test(start_paused = true)]
async fn a_large_batch_goes_in_parts_one_after_the_other_and_a_lost_part_keeps_its_ticket() {
    let mut lost = false;
    let mut versions = 0;
    let fake = Fake::new(move |_, ask| match ask {
        Ask::Ctrl(_) => told(config(1, Some(1))),
        Ask::Kv(_, KvRequest::Open { .. }) => kv(Ok(KvReply::Opened(SessionId(1)))),
        Ask::Kv(..) if !std::mem::replace(&mut lost, true) => Answer::Lost,
        Ask::Kv(_, KvRequest::Batch { writes, .. }) => {
            let results = writes.iter().map(|_| {
                versions += 1;
                Ok(Version(versions))
            });
            kv(Ok(KvReply::Batch { results: results.collect() }))
        }
        Ask::Kv(..) => panic!("only batches are sent"),
    });
    let count = BATCH_WRITES_MAX + 1;
    let results = with(&fake, true).batch((0..count).map(|_| (Bytes::from("one key"), put(1)))).await;
    let versions: Vec<_> = (1..).take(count).map(|version| Ok(Version(version))).collect();
    assert_eq!(results, versions);
    let sent = batches(&fake);
    let sizes: Vec<usize> = sent.iter().map(|(_, keys, _)| keys.len()).collect();
    assert_eq!(sizes, [BATCH_WRITES_MAX, BATCH_WRITES_MAX, 1]);
    assert_eq!(sent[0].2, sent[1].2, "the retry kept its ticket");
    assert_ne!(sent[1].2, sent[2].2);
}

/// Rule 105.
#[tokio::test(start_paused = true)]
async fn a_batch_that_would_make_too_much_is_sent_in_halves_with_separate_tickets() {
    let fake = Fake::new(move |_, ask| match ask {
        Ask::Ctrl(_) => told(config(1, Some(1))),
        Ask::Kv(_, KvRequest::Open { .. }) => kv(Ok(KvReply::Opened(SessionId(1)))),
        Ask::Kv(_, KvRequest::Batch { writes, .. }) if writes.len() > 2 => {
            kv(Err(KvRefusal::BatchTooLarge { bytes: 9, limit: 5 }))
        }
        Ask::Kv(_, KvRequest::Batch { writes, .. }) => {
            kv(Ok(KvReply::Batch { results: writes.iter().map(|_| Ok(Version(1))).collect() }))
        }
        Ask::Kv(..) => panic!("only batches are sent"),
    });
    let results = with(&fake, true).batch((0..5).map(|_| (Bytes::from("one key"), put(1)))).await;
    assert_eq!(results, vec![Ok(Version(1)); 5]);
    let sent = batches(&fake);
    let sizes: Vec<usize> = sent.iter().map(|(_, keys, _)| keys.len()).collect();
    assert_eq!(sizes, [5, 2, 3, 1, 2]);
    let tickets: BTreeSet<Option<u64>> =
        sent.iter().map(|(.., ticket)| ticket.map(|ticket| ticket.seq.0)).collect();
    assert_eq!(tickets.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_batch_without_a_session_is_not_sent_again_after_a_loss() {
    let fake = one_group(vec![Answer::Lost]);
    let results =
        with(&fake, false).batch([(Bytes::from("key"), put(1)), (Bytes::from("key"), put(2))]).await;
    assert_eq!(results, [Err(Error::Unknown), Err(Error::Unknown)]);
    assert_eq!(batches(&fake).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn controllers_of_another_cluster_are_named_at_once() {
    let fake = Fake::new(|_, _| Answer::Foreign);
    let started = clock::now();
    assert!(matches!(with(&fake, true).get("key").await, Err(Error::Refused { .. })));
    assert!(started.elapsed() < Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn equal_seeds_make_equal_runs() {
    async fn run() -> Vec<(String, Ask)> {
        let log = Arc::new(Mutex::new(0));
        let fake = Fake::new(move |_, ask| {
            *log.lock().unwrap() += 1;
            match (ask, *log.lock().unwrap()) {
                (Ask::Ctrl(_), 1..6) => Answer::Ctrl(Err(CtrlRefusal::NotLeader { hint: None })),
                (Ask::Ctrl(_), _) => told(config(1, Some(1))),
                (_, count) if count % 3 == 0 => Answer::Lost,
                (_, count) if count % 3 == 1 => Answer::NotSent,
                (Ask::Kv(_, KvRequest::Open { .. }), _) => kv(Ok(KvReply::Opened(SessionId(1)))),
                _ => kv(DONE),
            }
        });
        let clerk = with(&fake, true);
        let keys = ["a", "b", "c", "d"];
        join_all(keys.map(|key| clerk.put(key, "value"))).await;
        assert!(keys.iter().any(|key| shard_of(key.as_bytes(), SHARDS) != ShardId(0)));
        fake.asked()
    }
    assert_eq!(run().await, run().await);
}
