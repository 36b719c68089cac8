use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use base::clock;
use bytes::Bytes;

use super::{AskError, Attempts, GroupClient};
use crate::api::kv::{KvRefusal, KvReply, KvRequest};
use crate::api::{ConfigNum, GroupId, Version};
use crate::connection::Connection;
use crate::fake::{Answer, Fake};

const VALUE: KvReply = KvReply::Value { value: None, version: Version(0) };

fn get() -> KvRequest {
    KvRequest::Get { key: Bytes::from_static(b"key"), config: ConfigNum(1) }
}

fn group(fake: &Arc<Fake>) -> GroupClient {
    let addresses = ["a", "b", "c"].map(str::to_owned).to_vec();
    GroupClient::new(Arc::clone(fake) as Arc<dyn Connection>, GroupId(1), addresses, 7)
}

fn led_from(hint: &str) -> Answer {
    Answer::Kv(Err(KvRefusal::NotLeader { hint: Some(hint.to_owned()) }))
}

async fn ask(group: &GroupClient, attempts: &mut Attempts) -> Result<KvReply, AskError<KvRefusal>> {
    group.ask(&get(), clock::now().after(Duration::from_secs(10)), attempts).await
}

#[tokio::test(start_paused = true)]
async fn a_hint_is_followed_and_the_leader_remembered() {
    let fake = Fake::new(|to, _| if to == "c" { Answer::Kv(Ok(VALUE)) } else { led_from("c") });
    let group = group(&fake);
    for _ in 0..3 {
        assert_eq!(ask(&group, &mut Attempts::repeatable()).await, Ok(VALUE));
    }
    let servers = fake.servers();
    assert!(servers.len() <= 4, "{servers:?}");
    assert!(servers[servers.len() - 3..].iter().all(|server| server == "c"));
}

#[tokio::test(start_paused = true)]
async fn followers_that_name_a_dead_leader_do_not_keep_anybody() {
    let fake = Fake::new(|to, _| match to {
        "a" => Answer::NotSent,
        "b" => led_from("a"),
        _ => Answer::Kv(Ok(VALUE)),
    });
    assert_eq!(ask(&group(&fake), &mut Attempts::repeatable()).await, Ok(VALUE));
    assert!(fake.servers().len() <= 3, "each server once: {:?}", fake.servers());
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_busy_is_asked_again_and_a_busy_follower_is_passed_over() {
    let mut calls = 0;
    let fake = Fake::new(move |to, _| match to {
        "a" => Answer::Busy,
        "b" => led_from("c"),
        _ => {
            calls += 1;
            if calls % 4 == 0 { Answer::Kv(Ok(VALUE)) } else { Answer::Busy }
        }
    });
    let group = group(&fake);
    for _ in 0..2 {
        assert_eq!(ask(&group, &mut Attempts::repeatable()).await, Ok(VALUE));
    }
    let servers = fake.servers();
    assert!(
        servers.len() <= 2 + 8 && servers[servers.len() - 8..].iter().all(|server| server == "c"),
        "{servers:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_busy_for_a_second_may_lead_no_more() {
    let leads = Arc::new(AtomicBool::new(true));
    let still = Arc::clone(&leads);
    let fake = Fake::new(move |to, _| match (to, still.load(Ordering::Relaxed)) {
        ("a", false) => Answer::Busy,
        ("a", true) | ("b", false) => Answer::Kv(Ok(VALUE)),
        (_, now) => led_from(if now { "a" } else { "b" }),
    });
    let group = group(&fake);
    assert_eq!(ask(&group, &mut Attempts::repeatable()).await, Ok(VALUE));
    leads.store(false, Ordering::Relaxed);
    assert!(matches!(ask(&group, &mut Attempts::repeatable()).await, Err(AskError::NoLeader { .. })));
    assert_eq!(ask(&group, &mut Attempts::repeatable()).await, Ok(VALUE));
}

#[tokio::test(start_paused = true)]
async fn an_election_is_waited_for_with_pauses() {
    let mut calls = 0;
    let fake = Fake::new(move |_, _| {
        calls += 1;
        let refusal = KvRefusal::NotLeader { hint: None };
        Answer::Kv(if calls > 12 { Ok(VALUE) } else { Err(refusal) })
    });
    let started = clock::now();
    assert_eq!(ask(&group(&fake), &mut Attempts::repeatable()).await, Ok(VALUE));
    assert!(started.elapsed() > Duration::from_millis(50), "no busy loop");
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn without_a_leader_the_caller_gets_an_error_after_a_second() {
    let fake = Fake::new(|_, _| Answer::NotSent);
    let (started, mut attempts) = (clock::now(), Attempts::repeatable());
    assert!(matches!(ask(&group(&fake), &mut attempts).await, Err(AskError::NoLeader { .. })));
    assert!(started.elapsed() <= Duration::from_secs(1));
    assert!(!attempts.may_have_acted);
}

#[tokio::test(start_paused = true)]
async fn a_lost_attempt_is_repeated_elsewhere_and_remembered_as_unknown() {
    let fake = Fake::new(|to, _| if to == "b" { Answer::Kv(Ok(VALUE)) } else { Answer::Lost });
    let mut attempts = Attempts::repeatable();
    let mut answers = Vec::new();
    // Whatever server comes first.
    for seed in 0..5 {
        let addresses = ["a", "b"].map(str::to_owned).to_vec();
        let connection = Arc::clone(&fake) as Arc<dyn Connection>;
        let group = GroupClient::new(connection, GroupId(1), addresses, seed);
        answers.push(ask(&group, &mut attempts).await);
    }
    assert!(answers.iter().all(|answer| *answer == Ok(VALUE)));
    assert!(attempts.may_have_acted);
}

/// A group whose leader answers after so many milliseconds.
struct Slow {
    millis: Arc<AtomicU64>,
    fake: Arc<Fake>,
    group: GroupClient,
}

impl Slow {
    fn new() -> Self {
        let millis = Arc::new(AtomicU64::new(1_500));
        let late = Arc::clone(&millis);
        let fake = Fake::new(move |to, _| match to {
            "b" => Answer::Late(Duration::from_millis(late.load(Ordering::Relaxed)), Ok(VALUE)),
            _ => led_from("b"),
        });
        let group = group(&fake);
        Self { millis, fake, group }
    }

    /// How often the leader is asked until so many operations are done.
    async fn asked(&self, times: usize) -> usize {
        let asked = || self.fake.servers().into_iter().filter(|server| server == "b").count();
        let before = asked();
        for _ in 0..times {
            let mut attempts = Attempts::repeatable();
            while ask(&self.group, &mut attempts).await != Ok(VALUE) {}
        }
        asked() - before
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_that_was_slow_is_given_more_time_and_less_again_once_it_is_not() {
    let slow = Slow::new();
    assert_eq!(slow.asked(1).await, 2, "the first one learns it");
    assert_eq!(slow.asked(20).await, 20, "and then none is asked twice");
    slow.millis.store(1, Ordering::Relaxed);
    assert_eq!(slow.asked(8).await, 8);
    slow.millis.store(1_500, Ordering::Relaxed);
    assert_eq!(slow.asked(1).await, 2, "it is forgotten, so that a server that went silent is soon given up");
    clock::sleep(Duration::from_secs(11)).await;
    assert_eq!(slow.asked(1).await, 2, "and so it is after a while");
    clock::sleep(Duration::from_secs(11)).await;
    slow.millis.store(1, Ordering::Relaxed);
    slow.asked(1).await;
    slow.millis.store(1_500, Ordering::Relaxed);
    assert_eq!(slow.asked(1).await, 2, "and what was long ago is not remembered by an answer either");
}

#[tokio::test(start_paused = true)]
async fn a_slow_group_is_waited_for_four_seconds_at_most() {
    let slow = Slow::new();
    slow.asked(1).await;
    for millis in [2_500, 3_900] {
        slow.millis.store(millis, Ordering::Relaxed);
        assert_eq!(slow.asked(1).await, 1, "it was nearly as slow before");
    }
    slow.millis.store(u64::MAX, Ordering::Relaxed);
    let before = slow.fake.servers().len();
    let until = clock::now().after(Duration::from_secs(5));
    slow.group.ask(&get(), until, &mut Attempts::repeatable()).await.unwrap_err();
    let asked = slow.fake.servers().len() - before;
    assert!(asked > 1, "it went silent, and nobody was asked again within five seconds");
}

#[tokio::test(start_paused = true)]
async fn a_group_that_was_never_quick_is_waited_for_too() {
    let slow = Slow::new();
    slow.millis.store(3_900, Ordering::Relaxed);
    let asked = tokio::time::timeout(Duration::from_secs(60), slow.asked(1)).await;
    assert!(asked.is_ok_and(|asked| asked <= 3), "each loss tells that it takes longer than that");
    assert_eq!(slow.asked(20).await, 20, "and then none is asked twice");
}

#[tokio::test(start_paused = true)]
async fn connections_that_break_at_once_make_nobody_wait_longer() {
    let silent = Arc::new(AtomicBool::new(false));
    let now_silent = Arc::clone(&silent);
    let fake =
        Fake::new(move |_, _| if now_silent.load(Ordering::Relaxed) { Answer::Lost } else { Answer::Broken });
    let group = group(&fake);
    ask(&group, &mut Attempts::repeatable()).await.unwrap_err();
    silent.store(true, Ordering::Relaxed);
    let (before, until) = (fake.servers().len(), clock::now().after(Duration::from_millis(1_500)));
    group.ask(&get(), until, &mut Attempts::repeatable()).await.unwrap_err();
    assert_eq!(fake.servers().len() - before, 2, "a second for the first one");
}

#[tokio::test(start_paused = true)]
async fn what_must_happen_only_once_is_not_sent_again_after_a_loss() {
    let fake = Fake::new(|_, _| Answer::Lost);
    let mut attempts = Attempts::only_once();
    assert_eq!(ask(&group(&fake), &mut attempts).await, Err(AskError::Unknown));
    assert_eq!(fake.asked().len(), 1);

    let fake = Fake::new(|_, _| Answer::Kv(Err(KvRefusal::Unknown)));
    assert_eq!(ask(&group(&fake), &mut Attempts::only_once()).await, Err(AskError::Unknown));
    assert_eq!(fake.asked().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn servers_of_something_else_end_the_search_at_once() {
    let fake = Fake::new(|_, _| Answer::Foreign);
    let answer = ask(&group(&fake), &mut Attempts::repeatable()).await;
    assert!(matches!(answer, Err(AskError::Foreign { .. })));
    assert_eq!(fake.asked().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn one_server_of_something_else_ends_nothing() {
    let mut calls = 0;
    let fake = Fake::new(move |to, _| {
        calls += 1;
        match to {
            "a" => Answer::Foreign,
            _ if calls < 15 => Answer::NotSent,
            _ => Answer::Kv(Ok(VALUE)),
        }
    });
    assert_eq!(ask(&group(&fake), &mut Attempts::repeatable()).await, Ok(VALUE));
}

#[tokio::test(start_paused = true)]
async fn a_short_last_question_does_not_hide_why_a_group_told_nothing() {
    let start = clock::now();
    let fake = Fake::new(move |_, _| {
        if start.elapsed() < Duration::from_millis(1500) { Answer::Foreign } else { Answer::NotSent }
    });
    let why = group(&fake).data(start.after(Duration::from_secs(2))).await.unwrap_err();
    assert!(!why.contains("not reached"), "{why}");
    assert!(start.elapsed() >= Duration::from_secs(2), "the time is used");
}
