use std::sync::Arc;
use std::time::Duration;

use base::clock;
use clerk::api::config::{AddressBook, Assignment, Config, Params, Place, Sealed};
use clerk::api::ctrl::{CtrlRefusal, CtrlReply, CtrlRequest, News};
use clerk::api::kv::{KvRefusal, KvReply, KvRequest};
use clerk::api::push::{PushReply, PushRequest, Sender};
use clerk::api::status::History;
use clerk::api::{Address, ConfigNum, GroupId};
use clerk::connection::{CallError, Connection};
use futures::future::BoxFuture;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;

use super::knowledge::KEPT_CONFIGS_MAX;
use super::{ConfigWatcher, Knowledge};
use crate::machine::Standing;

/// Configurations of one history.
fn configs(numbers: std::ops::Range<u64>) -> Vec<Sealed> {
    history(numbers, 7)
}

fn history(numbers: std::ops::Range<u64>, key: u64) -> Vec<Sealed> {
    let params = Params { shard_count: 4, ..Params::default() };
    let mut all = vec![Sealed::new(Config::zero(key, params))];
    for num in 1..numbers.end {
        let before = all[all.len() - 1].digest();
        all.push(Sealed::new(Config { num: ConfigNum(num), before, ..Config::zero(key, params) }));
    }
    all.into_iter().filter(|config| numbers.contains(&config.num.0)).collect()
}

fn at(num: u64) -> Place {
    configs(num..num + 1)[0].place()
}

fn watch(after: u64) -> CtrlRequest {
    CtrlRequest::Watch { after: ConfigNum(after), digest: at(after).digest, book: 0 }
}

#[test]
fn configuration_zero_is_asked_for_by_number_and_the_rest_is_watched() {
    let mut known = Knowledge::default();
    assert_eq!(known.question(None), CtrlRequest::Query(Some(ConfigNum(0))));
    assert_eq!(known.question(Some(at(3))), watch(3));
    assert!(known.learn(None, configs(0..1), AddressBook::default()));
    assert!(known.next(None).is_some());
    assert_eq!(known.question(None), watch(0));
    assert!(!known.learn(None, configs(0..1), AddressBook::default()));
}

#[test]
fn what_is_no_longer_kept_between_adopted_and_newest_is_asked_for_again() {
    let mut known = Knowledge::default();
    let adopted = Some(at(0));
    known.learn(adopted, configs(1..101), AddressBook::default());
    assert_eq!(known.upcoming.len(), KEPT_CONFIGS_MAX);
    assert_eq!(known.question(adopted), watch(100));
    let adopted = Some(at(64));
    assert_eq!(known.question(adopted), watch(64));
    known.learn(adopted, configs(65..101), AddressBook::default());
    assert_eq!(known.next(adopted).map(|config| config.num), Some(ConfigNum(65)));
    assert_eq!(known.question(adopted), watch(100));
}

/// One controller is cut off from the others, and so never has any news.
struct Controllers;

impl Connection for Controllers {
    fn kv<'a>(
        &'a self,
        to: &'a Address,
        _: GroupId,
        _: KvRequest,
        _: Duration,
    ) -> BoxFuture<'a, Result<Result<KvReply, KvRefusal>, CallError>> {
        let refused = CallError::Refused { address: to.clone(), why: "a controller".to_owned() };
        Box::pin(async { Err(refused) })
    }

    fn push<'a>(
        &'a self,
        to: &'a Address,
        _: GroupId,
        _: Sender,
        _: PushRequest,
        _: Duration,
    ) -> BoxFuture<'a, Result<Result<PushReply, KvRefusal>, CallError>> {
        let refused = CallError::Refused { address: to.clone(), why: "a controller".to_owned() };
        Box::pin(async { Err(refused) })
    }

    fn ctrl<'a>(
        &'a self,
        to: &'a Address,
        request: CtrlRequest,
        _: Duration,
    ) -> BoxFuture<'a, Result<Result<CtrlReply, CtrlRefusal>, CallError>> {
        Box::pin(async move {
            // Its name says how many it knows.
            let newest = if to == "cut off" { 0 } else { to.parse().unwrap_or(1) };
            if let CtrlRequest::Query(Some(asked)) = request
                && asked > ConfigNum(newest)
            {
                return Ok(Err(CtrlRefusal::UnknownConfig { asked, newest: ConfigNum(newest) }));
            }
            let news = match request {
                CtrlRequest::Watch { after, .. } => configs(after.0 + 1..newest.min(after.0 + 64) + 1),
                _ => configs(0..1),
            };
            if news.is_empty() {
                clock::sleep(Duration::from_secs(2)).await;
            }
            let (configs, newest) = (news, ConfigNum(newest));
            Ok(Ok(CtrlReply::Configs(Box::new(News {
                configs,
                newest,
                book: AddressBook::default(),
                move_rate: None,
            }))))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_is_cut_off_from_the_others_keeps_nobody_from_news_for_long() {
    for seed in 0..4 {
        let (_standing, standing) = watch::channel(Standing::default());
        let (_named, named) = watch::channel(ConfigNum(0));
        let knowledge = Arc::new(watch::Sender::new(Knowledge::default()));
        let mut known = knowledge.subscribe();
        let follower = ConfigWatcher {
            group: GroupId(101),
            connection: Arc::new(Controllers),
            controllers: vec!["cut off".to_owned(), "well".to_owned()],
            standing,
            knowledge,
            named,
            random: StdRng::seed_from_u64(seed),
        };
        let has_news =
            |known: &Knowledge| known.newest.as_ref().is_some_and(|newest| newest.num == ConfigNum(1));
        tokio::select! {
            () = follower.run() => panic!("it follows forever"),
            _ = known.wait_for(has_news) => {}
            () = clock::sleep(Duration::from_secs(5)) => panic!("no news in time, seed {seed}"),
        }
    }
}

/// Rule 102.
#[tokio::test(start_paused = true)]
async fn a_group_that_lags_by_a_thousand_configurations_is_current_within_two_seconds() {
    const NEWEST: u64 = 1000;
    let (adopting, standing) = watch::channel(Standing::default());
    let (_named, named) = watch::channel(ConfigNum(0));
    let knowledge = Arc::new(watch::Sender::new(Knowledge::default()));
    let mut known = knowledge.subscribe();
    let follower = ConfigWatcher {
        group: GroupId(101),
        connection: Arc::new(Controllers),
        controllers: vec![NEWEST.to_string()],
        standing,
        knowledge,
        named,
        random: StdRng::seed_from_u64(1),
    };
    // The mover of a group that none of them concerns.
    let adopt = async {
        let mut adopted = None;
        while adopted.is_none_or(|place: Place| place.num < ConfigNum(NEWEST)) {
            known.changed().await.expect("it follows forever");
            let run = known.borrow_and_update().run(adopted);
            assert!(run.len() <= KEPT_CONFIGS_MAX);
            clock::sleep(Duration::from_millis(10)).await;
            adopted = run.last().map(Sealed::place).or(adopted);
            adopting.send_modify(|standing| standing.place = adopted);
        }
    };
    let begun = clock::now();
    tokio::select! {
        () = follower.run() => panic!("it follows forever"),
        () = adopt => {}
        () = clock::sleep(Duration::from_secs(60)) => panic!("it never gets there"),
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn configurations_that_follow_each_other_are_adopted_together_whatever_they_move() {
    let owned = |owner: Option<u64>, last: Option<u64>| Assignment {
        owner: owner.map(GroupId),
        last_owner: last.map(GroupId),
    };
    let mut all = configs(0..1);
    let changes = [owned(None, None), owned(Some(101), None), owned(Some(102), Some(101))];
    for (num, change) in (1..).zip(changes) {
        let before = all[all.len() - 1].digest();
        let zero = Config::zero(7, all[0].params);
        let shards = vec![change; 4];
        all.push(Sealed::new(Config { num: ConfigNum(num), before, shards, ..zero }));
    }
    let mut known = Knowledge::default();
    known.learn(None, all.clone(), AddressBook::default());
    assert_eq!(known.run(None), all);
    assert_eq!(known.run(Some(all[3].place())), []);
    let last = Config { num: ConfigNum(4), before: all[2].digest(), ..(*all[3]).clone() };
    known.learn(None, vec![Sealed::new(last)], AddressBook::default());
    assert_eq!(known.run(Some(all[3].place())), [], "it follows another one");
}

/// Rule 56: a number that somebody made up does not keep a group from hearing that it is ahead.
#[tokio::test(start_paused = true)]
async fn a_number_that_no_controller_knows_is_not_asked_for_forever() {
    let standing = Standing { place: Some(at(5)), key: Some(7), ..Standing::default() };
    let (_standing, standing) = watch::channel(standing);
    let (_named, named) = watch::channel(ConfigNum(u64::MAX));
    let knowledge = Arc::new(watch::Sender::new(Knowledge::default()));
    let mut known = knowledge.subscribe();
    let follower = ConfigWatcher {
        group: GroupId(101),
        connection: Arc::new(Controllers),
        controllers: vec!["one".to_owned(), "two".to_owned(), "three".to_owned()],
        standing,
        knowledge,
        named,
        random: StdRng::seed_from_u64(1),
    };
    let is_ahead = |known: &Knowledge| known.history == History::Ahead { newest: ConfigNum(1) };
    tokio::select! {
        () = follower.run() => panic!("it follows forever"),
        _ = known.wait_for(is_ahead) => {}
        () = clock::sleep(Duration::from_secs(30)) => panic!("nobody is told"),
    }
}

#[test]
fn an_older_answer_takes_nothing_back() {
    let mut known = Knowledge::default();
    let book = |version| AddressBook { version, ..AddressBook::default() };
    known.learn(None, configs(0..5), book(7));
    assert!(!known.learn(None, configs(0..3), book(6)));
    assert_eq!(known.newest.as_ref().map(|config| config.num), Some(ConfigNum(4)));
    assert_eq!(known.book.version, 7);
}

#[test]
fn what_does_not_follow_the_adopted_configuration_is_not_kept_as_the_next_one() {
    let mut known = Knowledge::default();
    let others = history(0..3, 8);
    known.learn(Some(at(0)), others[1..].to_vec(), AddressBook::default());
    assert_eq!(known.next(Some(at(0))), None);
    assert_eq!(known.question(Some(at(0))), watch(0), "the gap is asked for");
    known.forget(Some(at(0)));
    known.learn(Some(at(0)), configs(1..3), AddressBook::default());
    assert_eq!(known.next(Some(at(0))).map(|next| next.place()), Some(at(1)));
}

#[test]
fn a_group_that_knows_nothing_begins_where_recovered_controllers_begin() {
    let mut known = Knowledge { first: ConfigNum(5), ..Knowledge::default() };
    assert_eq!(known.question(None), CtrlRequest::Query(Some(ConfigNum(5))));
    known.learn(None, configs(5..7), AddressBook::default());
    assert_eq!(known.next(None).map(|next| next.place()), Some(at(5)));
    assert_eq!(known.next(Some(at(5))).map(|next| next.place()), Some(at(6)));
}
