//! The fast checker against the definition, and against histories that were spoilt on purpose.

use rand::rngs::Xoshiro256PlusPlus as Generator;
use rand::{RngExt, SeedableRng};

use super::{brute, check};
use crate::history::{Client, Op, Operation, Outcome};

/// A key with true values, driven by instants that lie inside the operations' intervals.
fn history(seed: u64, length: u64, unknown_percent: u32) -> Vec<Operation> {
    let mut random = Generator::seed_from_u64(seed);
    let (mut value, mut version): (Option<String>, u64) = (None, 0);
    let mut operations = Vec::new();
    for number in 0..length {
        let instant = (number + 1) * 100;
        let op = [Op::Get, Op::Get, Op::Put, Op::Append, Op::Append, Op::Delete, Op::Cas]
            [random.random_range(0..7)];
        let mut operation = Operation {
            client: Client::Number(number),
            op,
            key: "k".into(),
            value: matches!(op, Op::Put | Op::Append | Op::Cas).then(|| format!("<{number}>")),
            expected_version: None,
            output: None,
            version: None,
            call_ns: instant - random.random_range(0..100_u64.max(instant).min(400)),
            return_ns: Some(instant + random.random_range(0..400)),
            outcome: Outcome::Ok,
        };
        let unknown = random.random_range(0..100) < unknown_percent;
        let effect = !unknown || random.random_bool(0.5);
        let jump = if value.is_none() { random.random_range(1..3) } else { 1 };
        let present = if value.is_some() { version } else { 0 };
        if op == Op::Cas {
            let expected =
                if random.random_bool(0.7) { present } else { random.random_range(0..version + 2) };
            operation.expected_version = Some(expected);
        }
        match op {
            Op::Get => {
                operation.output = value.clone();
                operation.version = Some(present);
            }
            Op::Cas if operation.expected_version != Some(present) => {
                operation.version = Some(present);
                operation.outcome = Outcome::Fail;
            }
            Op::Delete => {
                operation.version = Some(present);
                if effect {
                    value = None;
                }
            }
            Op::Put | Op::Append | Op::Cas if effect => {
                version += jump;
                operation.version = Some(version);
                let piece = operation.value.clone().unwrap();
                let before = if op == Op::Append { value.take().unwrap_or_default() } else { String::new() };
                value = Some(before + &piece);
            }
            Op::Put | Op::Append | Op::Cas => {}
        }
        if unknown {
            operation.outcome = Outcome::Unknown;
            (operation.return_ns, operation.output, operation.version) = (None, None, None);
        }
        operations.push(operation);
    }
    operations
}

fn shown(history: &[Operation]) -> String {
    history.iter().map(|operation| format!("  {operation}\n")).collect()
}

/// Spoils one thing, not always noticeably.
fn spoil(operations: &mut [Operation], random: &mut Generator) {
    let at = random.random_range(0..operations.len());
    let other = random.random_range(0..operations.len());
    match random.random_range(0..5) {
        0 => operations[at].version = operations[at].version.map(|v| v + 1),
        1 if operations[at].op == Op::Get => operations[at].output = operations[other].output.clone(),
        2 if operations[at].op == Op::Get && operations[other].outcome == Outcome::Ok => {
            operations[at].output = operations[other].output.clone();
            operations[at].version = operations[other].version;
        }
        3 if operations[at].return_ns.is_some() => {
            let later = operations[at].call_ns + random.random_range(0..1500);
            operations[at].call_ns = later;
            operations[at].return_ns = Some(later + 20);
        }
        _ => operations[at].version = operations[at].version.map(|v| v.saturating_sub(1)),
    }
}

#[test]
fn true_histories_are_accepted() {
    for seed in 0..3000 {
        let history = history(seed, 2 + seed % 40, (seed % 4) as u32 * 15);
        if let Err(anomaly) = check(&history) {
            panic!("seed {seed}: {anomaly}\n{}", shown(&history));
        }
    }
}

#[test]
fn verdicts_are_those_of_the_definition() {
    let (mut accepted, mut rejected, mut lenient) = (0, 0, 0);
    for seed in 0..6000_u64 {
        let unknown = (seed % 3) as u32 * 20;
        let mut history = history(seed, 3 + seed % 8, unknown);
        let mut random = Generator::seed_from_u64(seed ^ 0xabcd);
        spoil(&mut history, &mut random);
        let (fast, slow) = (check(&history), brute::linearizable(&history));
        match (&fast, slow) {
            (Ok(()), true) => accepted += 1,
            (Err(_), false) => rejected += 1,
            (Err(anomaly), true) => panic!("seed {seed}: a false alarm: {anomaly}\n{}", shown(&history)),
            (Ok(()), false) => {
                assert!(unknown > 0, "seed {seed}: missed\n{}", shown(&history));
                lenient += 1;
            }
        }
    }
    assert!(accepted > 500 && rejected > 500, "accepted {accepted}, rejected {rejected}");
    assert!(lenient * 50 < rejected, "{lenient} missed, {rejected} found");
}

fn write(client: u64, op: Op, value: &str, version: u64, call: u64, end: u64) -> Operation {
    Operation {
        client: Client::Number(client),
        op,
        key: "k".into(),
        value: Some(value.into()),
        expected_version: None,
        output: None,
        version: Some(version),
        call_ns: call,
        return_ns: Some(end),
        outcome: Outcome::Ok,
    }
}

fn get(client: u64, output: &str, version: u64, call: u64, end: u64) -> Operation {
    let output = (!output.is_empty()).then(|| output.to_owned());
    Operation { value: None, output, ..write(client, Op::Get, "", version, call, end) }
}

fn unknown(client: u64, op: Op, value: &str, call: u64) -> Operation {
    let (version, return_ns, outcome) = (None, None, Outcome::Unknown);
    Operation { version, return_ns, outcome, ..write(client, op, value, 0, call, call) }
}

fn verdict(history: &[Operation]) -> String {
    check(history).map_or_else(|anomaly| anomaly.what, |()| "fine".into())
}

#[test]
fn anomalies_are_named_in_words() {
    let put = write(1, Op::Put, "a", 1, 0, 10);
    let append = write(2, Op::Append, "b", 2, 20, 30);
    assert_eq!(verdict(&[put.clone(), append.clone(), get(3, "ab", 2, 40, 50)]), "fine");
    assert!(verdict(&[put.clone(), append.clone(), get(3, "a", 1, 40, 50)]).contains("stale read"));
    assert!(verdict(&[put.clone(), append.clone(), get(3, "", 0, 40, 50)]).contains("found missing"));
    assert!(verdict(&[put.clone(), append.clone(), get(3, "abb", 3, 40, 50)]).contains("took effect twice"));
    assert!(verdict(&[put.clone(), append.clone(), get(3, "a", 2, 40, 50)]).contains("not at its end"));
    assert!(verdict(&[put.clone(), append.clone(), get(3, "c", 3, 40, 50)]).contains("nobody wrote"));
    assert!(verdict(&[put.clone(), write(2, Op::Put, "b", 1, 20, 30)]).contains("one of them is lost"));
    assert!(verdict(&[put.clone(), write(2, Op::Put, "b", 3, 20, 30)]).contains("gap"));
    assert!(verdict(&[put, get(4, "ab", 2, 12, 14), append]).contains("before the write"));
}

#[test]
fn an_operation_of_unknown_outcome_may_appear_once_or_never_but_not_before_it_was_called() {
    let put = write(1, Op::Put, "a", 1, 0, 10);
    let lost = unknown(2, Op::Append, "b", 20);
    assert_eq!(verdict(&[put.clone(), lost.clone(), get(3, "a", 1, 40, 50)]), "fine");
    assert_eq!(
        verdict(&[put.clone(), lost.clone(), get(3, "a", 1, 40, 50), get(4, "ab", 2, 60, 70)]),
        "fine"
    );
    assert!(verdict(&[put.clone(), lost.clone(), get(3, "abb", 3, 40, 50)]).contains("twice"));
    assert!(verdict(&[put.clone(), lost, get(3, "ab", 2, 12, 15)]).contains("before the write"));
    let deleted = unknown(5, Op::Delete, "", 20);
    assert_eq!(verdict(&[put.clone(), deleted.clone(), get(3, "", 0, 40, 50)]), "fine");
    assert_ne!(verdict(&[put.clone(), deleted, get(3, "", 0, 12, 15)]), "fine");
    let refused = Operation { outcome: Outcome::Fail, ..write(2, Op::Append, "b", 0, 20, 30) };
    assert!(verdict(&[put, refused, get(3, "ab", 2, 40, 50)]).contains("refused write took effect"));
}

#[test]
fn a_long_history_is_checked_quickly() {
    let mut history = Vec::new();
    let mut value = String::new();
    for number in 0..20_000_u64 {
        let at = number * 100;
        if number % 50 == 0 {
            value.clear();
        }
        value += &format!("<{number}>");
        let op = if number % 50 == 0 { Op::Put } else { Op::Append };
        history.push(write(1, op, &format!("<{number}>"), number + 1, at, at + 10));
        history.push(get(2, &value, number + 1, at + 20, at + 30));
    }
    assert_eq!(verdict(&history), "fine");
}
