//! Tests the judges: our checker against the definition and against an independent second judge, on
//! histories of a correct store and on spoilt ones.
//!
//! Each history gets three opinions: `check` (ours), `brute` (the definition: every order tried,
//! small histories only), and the crate porcupine-rs with its own model of the store.
//!
//! Only the plain calls of that crate are used: the variant with information says "illegal" even
//! when it merely ran out of time. It starts a thread for each partition, so every key is a
//! separate call.
//!
//! Everything is drawn from fixed seeds, and a failure prints its seed.

use std::collections::BTreeMap;
use std::time::Duration;

use judge::history::{Op, Operation, Outcome};
use judge::linearizability::sample::{SPOILS, Shape, Spoil, history, spoil};
use judge::linearizability::{Ruling, brute, check, explain};
use porcupine_rs::{CheckResult, Model, check_operations, check_operations_timeout};
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus as Generator;

/// The second judge's model of a key: its own version of the store's rules.
#[derive(Clone)]
struct Store;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Held {
    value: Option<String>,
    /// The versions that the key may have now.
    least: u64,
    most: u64,
}

impl Held {
    fn pinned(&self, version: Option<u64>) -> Option<Self> {
        let Some(version) = version else { return Some(self.clone()) };
        if self.value.is_none() {
            return (version == 0).then(|| self.clone());
        }
        let fits = version > 0 && self.least <= version && version <= self.most;
        fits.then(|| Self { least: version, most: version, ..self.clone() })
    }

    fn set(&self, value: String, version: Option<u64>) -> Option<Self> {
        let most = if self.value.is_some() { self.most.saturating_add(1) } else { u64::MAX };
        Self { value: Some(value), least: self.least + 1, most }.pinned(version)
    }

    fn step(&self, one: &Operation) -> Option<Self> {
        let text = one.value.clone().unwrap_or_default();
        match (one.outcome, one.op) {
            // A refused operation changes nothing; a conditional put may return the version that it
            // met.
            (Outcome::Fail, Op::Cas) => {
                self.pinned(one.version).filter(|_| one.version != one.expected_version)
            }
            (Outcome::Fail, _) | (Outcome::Unknown, Op::Get) => Some(self.clone()),
            (Outcome::Ok, Op::Get) => self.pinned(one.version).filter(|held| held.value == one.output),
            (Outcome::Ok, Op::Cas) => self.pinned(one.expected_version)?.set(text, one.version),
            // It has no effect if its version is not met. Its open end says that it may have none.
            (Outcome::Unknown, Op::Cas) => Some(
                self.pinned(one.expected_version)
                    .and_then(|held| held.set(text, None))
                    .unwrap_or_else(|| self.clone()),
            ),
            (outcome, Op::Delete) => {
                let held = if outcome == Outcome::Ok { self.pinned(one.version)? } else { self.clone() };
                Some(Self { value: None, ..held })
            }
            (outcome, Op::Put | Op::Append) => {
                let before = self.value.clone().filter(|_| one.op == Op::Append).unwrap_or_default();
                self.set(before + &text, one.version.filter(|_| outcome == Outcome::Ok))
            }
        }
    }
}

impl Model for Store {
    type State = Held;
    type Op = Operation;
    type Metadata = ();

    fn init() -> Held {
        Held { value: None, least: 0, most: 0 }
    }

    fn step(held: &Held, one: &Operation) -> (bool, Held) {
        match held.step(one) {
            Some(next) => (true, next),
            None => (false, held.clone()),
        }
    }
}

fn for_porcupine(history: &[Operation]) -> Vec<porcupine_rs::Operation<Store>> {
    let time = |nanoseconds: u64| i64::try_from(nanoseconds).unwrap_or(i64::MAX);
    let operation = |one: &Operation| porcupine_rs::Operation {
        client_id: None,
        call_time: time(one.call_ns),
        return_time: time(one.end_ns()),
        op: one.clone(),
        metadata: None,
    };
    history.iter().map(operation).collect()
}

/// The second judge's verdict over one key.
fn porcupine(history: &[Operation]) -> bool {
    check_operations(&for_porcupine(history))
}

fn shown(history: &[Operation]) -> String {
    history.iter().map(|operation| format!("  {operation}\n")).collect()
}

/// Small enough for the definition. Deletes make things hard, versions make them easy, so both vary.
fn small(seed: u64) -> Shape {
    let shares = [[4, 2, 4, 0, 0], [4, 3, 0, 0, 0], [4, 0, 4, 0, 0], [4, 2, 3, 1, 1], [4, 2, 3, 2, 0]];
    Shape {
        clients: 2 + (seed % 3) as usize,
        operations: 4 + (seed / 3 % 7) as usize,
        shares: shares[(seed / 21 % 5) as usize],
        unknown_percent: [0, 0, 15, 30][(seed / 105 % 4) as usize],
        versions: (seed / 420).is_multiple_of(2),
    }
}

const HISTORIES: usize = 10_000;

#[test]
fn ten_thousand_valid_histories_are_accepted_by_all_judges() {
    for seed in 0..HISTORIES as u64 {
        let shape = small(seed);
        let history = history(seed, &shape);
        let told = || format!("seed {seed}, {shape:?}\n{}", shown(&history));
        if let Err(anomaly) = check(&history) {
            panic!("{anomaly}\n{}", told());
        }
        assert!(brute::linearizable(&history), "the definition: {}", told());
        assert!(porcupine(&history), "the second judge: {}", told());
        for verdict in explain(&history) {
            assert_eq!(verdict.ruling, Ruling::Linearizable, "{}", told());
            assert!(brute::explains(&history, &verdict.order), "{:?}: {}", verdict.order, told());
        }
    }
}

#[test]
fn ten_thousand_spoilt_histories_are_rejected_by_all_judges() {
    let mut rejected: BTreeMap<Spoil, usize> = BTreeMap::new();
    let mut harmless = 0;
    let mut seed = 1_000_000;
    while rejected.values().sum::<usize>() < HISTORIES {
        seed += 1;
        let shape = small(seed);
        let how = SPOILS[(seed % SPOILS.len() as u64) as usize];
        let mut history = history(seed, &shape);
        if !spoil(&mut history, how, &mut Generator::seed_from_u64(seed)) {
            continue;
        }
        let told = || format!("seed {seed}, {how:?}, {shape:?}\n{}", shown(&history));
        let truth = brute::linearizable(&history);
        assert_eq!(check(&history).is_ok(), truth, "{:?}\n{}", check(&history), told());
        assert_eq!(porcupine(&history), truth, "the second judge: {}", told());
        if truth {
            harmless += 1;
            continue;
        }
        *rejected.entry(how).or_default() += 1;
        let verdict = explain(&history).remove(0);
        assert_eq!(verdict.ruling, Ruling::Broken, "{}", told());
        assert!(verdict.unplaced.iter().all(|one| !one.what.is_empty()) && !verdict.unplaced.is_empty());
    }
    println!("rejected {rejected:?}, harmless {harmless}");
    assert!(rejected.len() == SPOILS.len() && rejected.values().all(|count| *count > 500), "{rejected:?}");
}

/// Too long for the definition. The rules and the search have to find the mistake somewhere in the
/// middle.
///
#[test]
fn long_histories_get_the_verdict_of_the_second_judge() {
    let (mut valid, mut spoilt, mut undecided) = (0, 0, 0);
    for seed in 0..600_u64 {
        let shape = Shape {
            clients: 3 + (seed % 3) as usize,
            operations: 120,
            shares: [[4, 2, 4, 0, 0], [4, 4, 0, 0, 0], [4, 2, 3, 1, 0], [4, 2, 3, 1, 1]]
                [(seed / 3 % 4) as usize],
            unknown_percent: if seed % 2 == 0 { 0 } else { 3 },
            versions: seed % 5 > 1,
        };
        let mut history = history(seed, &shape);
        if seed % 3 > 0 {
            spoil(&mut history, SPOILS[(seed / 12 % 6) as usize], &mut Generator::seed_from_u64(seed));
        }
        let told = || format!("seed {seed}, {shape:?}\n{}", shown(&history));
        let ours = check(&history);
        match check_operations_timeout(&for_porcupine(&history), Duration::from_secs(1)) {
            CheckResult::Unknown => undecided += 1,
            theirs => assert_eq!(ours.is_ok(), theirs == CheckResult::Ok, "{ours:?}\n{}", told()),
        }
        assert!(explain(&history).iter().all(|one| one.ruling != Ruling::Undecided), "{}", told());
        *(if ours.is_ok() { &mut valid } else { &mut spoilt }) += 1;
    }
    println!("valid {valid}, spoilt {spoilt}, undecided by the second judge {undecided}");
    assert!(valid > 200 && spoilt > 150 && undecided < 10, "{valid}, {spoilt}, {undecided}");
}

/// A store in which one append in a thousand is lost, doubled or read too late.
#[test]
fn one_wrong_reply_among_many_is_found_and_named() {
    let expected = |how: Spoil| match how {
        Spoil::StaleRead => "a stale read",
        Spoil::DoubledPiece => "a doubled piece",
        Spoil::ReorderedPieces => "reordered pieces",
        _ => "a lost write",
    };
    let shape =
        Shape { clients: 6, operations: 1000, shares: [4, 1, 5, 0, 0], unknown_percent: 2, versions: false };
    let mut named: BTreeMap<Spoil, (usize, usize)> = BTreeMap::new();
    for seed in 0..60_u64 {
        let how = SPOILS[(seed % 4) as usize];
        let mut history = history(seed, &shape);
        if !spoil(&mut history, how, &mut Generator::seed_from_u64(seed)) {
            continue;
        }
        let Err(anomaly) = check(&history) else { continue };
        let (right, all) = named.entry(how).or_default();
        *all += 1;
        *right += usize::from(anomaly.what.contains(expected(how)));
    }
    println!("{named:?}");
    assert!(named.len() == 4 && named.values().all(|(right, all)| *all > 5 && right * 2 > *all), "{named:?}");
}
