//! The protocol that moves shards, in every state that it can reach. MODEL=full in the environment takes
//! longer owner histories; the size for every day takes some seconds.

use std::time::Instant;

use move_model::campaign::{Hunt, hunts, sweeps};
use move_model::copying::{self, Fault, Scope};
use move_model::machine::compare;
use move_model::{Bug, Dead, History, Mover, Options, classes};

fn full() -> bool {
    std::env::var("MODEL").is_ok_and(|size| size == "full")
}

#[test]
fn every_owner_history_keeps_one_owner_and_all_rows_and_always_settles() {
    let started = Instant::now();
    let (mut histories, mut states) = (0, 0);
    for sweep in sweeps(full()) {
        let started = Instant::now();
        let total = sweep.run().unwrap_or_else(|wrong| panic!("{wrong}"));
        println!("{}: {total}, {:.1} s", sweep.title, started.elapsed().as_secs_f64());
        // Only movers that do not ask send an Activate that does not match, and those do.
        assert_eq!(total.seen.wipes > 0, sweep.options.mover == Mover::Early, "{}", sweep.title);
        assert_eq!(total.seen.deaths > 0, sweep.options.dead == Dead::AtAnyMoment, "{}", sweep.title);
        // A shard that was sealed is refused when its new owner lost it again: by the third configuration.
        assert_eq!(total.seen.reopens > 0, *sweep.lengths.end() >= 3, "{}", sweep.title);
        let choices = (sweep.groups + 1).pow(sweep.shards as u32);
        let all: usize = sweep.lengths.clone().map(|length| choices.pow(length as u32)).sum();
        assert_eq!(total.histories, all, "{}", sweep.title);
        histories += total.histories;
        states += total.seen.states;
    }
    println!("{histories} owner histories, {states} states, {:.1} s", started.elapsed().as_secs_f64());
    assert!(states > 3_000_000, "only {states} states");
}

fn hunted(hunt: &Hunt) -> String {
    let Options { bug, stop, mover, .. } = hunt.options;
    let what = bug.map_or_else(|| format!("switched off when {stop:?}"), |bug| format!("{bug:?}"));
    if mover == Mover::Early { format!("{what}, movers that do not ask") } else { what }
}

#[test]
fn every_planted_bug_is_found() {
    let mut missed = Vec::new();
    let mut bugs = Vec::new();
    for hunt in hunts(true) {
        match hunt.run() {
            Some(catch) => {
                let (history, steps) = (&catch.history, catch.violation.trace.len());
                println!("{}: {history}: {} ({steps} steps)", hunted(&hunt), catch.violation.what);
                bugs.extend(hunt.options.bug);
            }
            None => missed.push(hunted(&hunt)),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
    assert!(Bug::ALL.iter().all(|bug| bugs.contains(bug)));
}

/// Bugs that another rule repairs before a client sees anything.
const MASKED: [Bug; 1] = [Bug::PushesToTheNewestOwner];

#[test]
fn every_planted_bug_that_is_not_repaired_by_another_rule_is_seen_by_clients() {
    let mut wrong = Vec::new();
    for hunt in hunts(false) {
        let masked = hunt.options.bug.is_some_and(|bug| MASKED.contains(&bug));
        match hunt.run() {
            Some(catch) => {
                println!("{}: {}: {}", hunted(&hunt), catch.history, catch.violation.what);
                wrong.extend(masked.then(|| format!("{} is no longer repaired", hunted(&hunt))));
            }
            None => wrong.extend((!masked).then(|| format!("{} is not seen", hunted(&hunt)))),
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn the_groups_of_the_search_are_the_products_state_machine() {
    let started = Instant::now();
    let (mut states, mut events, mut histories) = (0, 0, 0);
    let longer = usize::from(full());
    let of = |longest: usize, groups, shards, writes| {
        let histories = (1..=longest).flat_map(move |length| classes(length, groups, shards).into_keys());
        histories.map(move |history| (history, Options { writes, ..Options::default() }))
    };
    let one_shard = of(3 + longer, 3, 1, 2).chain(of(4 + longer, 3, 1, 1)).chain(of(5 + longer, 3, 1, 0));
    let worlds: Vec<(History, Options)> = one_shard.chain(of(3, 2, 2, 0)).collect();
    for mover in [Mover::Careful, Mover::Early] {
        for (history, options) in &worlds {
            let options = Options { mover, ..*options };
            let compared = compare(history, options).unwrap_or_else(|why| panic!("{why}"));
            states += compared.states;
            events += compared.events;
            histories += 1;
        }
    }
    println!("{histories} searches, {states} states of groups, {events} events, {:?}", started.elapsed());
    assert!(states > 20_000 && events > 500_000, "only {states} states and {events} events");
}

#[test]
fn a_group_that_differs_from_the_products_state_machine_is_found() {
    for bug in [
        Bug::InstallIgnoresTheCursor,
        Bug::InstallAcceptedForAnotherMove,
        Bug::InstallAcceptedByAServingShard,
        Bug::ActivateDoesNotCompare,
        Bug::ActivateAcceptedForAnotherMove,
        Bug::WipeKeepsTheCursor,
        Bug::CursorSurvivesTheLife,
        Bug::AbsentServesWheneverMine,
        Bug::ParkedCountsAsAbsent,
        Bug::AdoptSkipsConfigs,
        Bug::AdoptWaits,
        Bug::AwaitingSurvivesItsLoss,
        Bug::LostAssignmentCountsAsTaken,
        Bug::LeavingDroppedWhenRetargeted,
        Bug::RetargetKeepsTheNumber,
        Bug::NextIsNeverTakenBack,
        Bug::NextKeepsTheFirst,
        Bug::NextSaysRefused,
        Bug::SealForAnotherMove,
        Bug::ReleaseForAnotherMove,
        Bug::ReopenForAnotherMove,
        Bug::TakenDroppedWithTheRows,
        Bug::BehindSaysDone,
        Bug::BehindSaysRefused,
        Bug::PastSaysDone,
        Bug::TakenComparedByEquality,
        Bug::ServingSaysRefused,
        Bug::LeavingOrParkedSaysDone,
        Bug::NewerAwaitingSaysDone,
        Bug::NoAnswerOnceSettled,
        Bug::DoneAnsweredOnlyWhileTheShardIsSettled,
        Bug::WritesServedWhileHanding,
        Bug::AdoptIgnoresTheDigest,
        Bug::PushIgnoresTheDigest,
    ] {
        let options = Options { bug: Some(bug), mover: Mover::Early, ..Options::default() };
        let histories = (1..=4).flat_map(|length| classes(length, 3, 1).into_keys());
        let found = histories.map(|history| compare(&history, options)).find_map(Result::err);
        let found = found.unwrap_or_else(|| panic!("{bug:?} is not found"));
        println!("{bug:?}: {found}");
        // It is a difference, and not that the search ended before it had brought everything about.
        assert!(found.contains("here"), "{bug:?}: {found}");
    }
}

/// States of each scope that the size for every day searches; those that take the fewest steps come first.
const STATES_EVERY_DAY: usize = 200_000;

#[test]
fn rows_that_change_while_they_are_sent_arrive_as_they_are_at_the_end() {
    let started = Instant::now();
    let scope =
        |keys, before, writes, deletes, moves| Scope { keys, before, writes, deletes, moves, fault: None };
    let everyday = [
        scope(2, 2, 2, false, 1),
        scope(2, 2, 1, true, 1),
        scope(1, 1, 2, true, 1),
        scope(2, 2, 1, false, 3),
        scope(1, 0, 1, true, 3),
    ];
    let larger = [scope(2, 2, 3, true, 1), scope(3, 3, 2, true, 1), scope(2, 2, 2, true, 3)];
    let scopes = everyday.iter().chain(larger.iter().filter(|_| full()));
    let (mut states, mut sealed, mut started_over) = (0, 0, 0);
    for scope in scopes {
        let began = Instant::now();
        let limit = if full() { usize::MAX } else { STATES_EVERY_DAY };
        let found = copying::search(*scope, limit).unwrap_or_else(|wrong| panic!("{scope:?}: {wrong}"));
        println!("{scope:?}: {found:?}, {:.1} s", began.elapsed().as_secs_f64());
        states += found.states;
        sealed += found.sealed;
        started_over += found.started_over;
    }
    println!("{states} states, {:.1} s", started.elapsed().as_secs_f64());
    assert!(
        sealed > 10 && started_over > 10,
        "vacuous: {sealed} seals that name changes, {started_over} new copies"
    );
}

#[test]
fn every_fault_of_a_copy_is_found() {
    for fault in Fault::ALL {
        let scope = Scope { keys: 2, before: 2, writes: 2, deletes: false, moves: 1, fault: Some(fault) };
        let found = copying::search(scope, 300_000);
        let wrong = found.expect_err(&format!("{fault:?} is not found"));
        println!("{fault:?}: {wrong}\n");
    }
}
