//! The complete judge against the definition, and against histories that were spoilt on purpose;
//! its words where replies carry versions; and histories of other stores.

use rand::rngs::Xoshiro256PlusPlus as Generator;
use rand::{RngExt, SeedableRng};

use super::sample::{self, Shape, Spoil};
use super::{Ruling, brute, check, explain};
use crate::history::{Client, Op, Operation, Outcome};

/// A key with true values, driven by instants inside the operations' intervals.
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
    let (mut accepted, mut rejected) = (0, 0);
    for seed in 0..6000_u64 {
        let mut history = history(seed, 3 + seed % 8, (seed % 3) as u32 * 20);
        let mut random = Generator::seed_from_u64(seed ^ 0xabcd);
        spoil(&mut history, &mut random);
        match (check(&history), brute::linearizable(&history)) {
            (Ok(()), true) => accepted += 1,
            (Err(_), false) => rejected += 1,
            (Err(anomaly), true) => panic!("seed {seed}: a false alarm: {anomaly}\n{}", shown(&history)),
            (Ok(()), false) => panic!("seed {seed}: missed\n{}", shown(&history)),
        }
    }
    assert!(accepted > 500 && rejected > 500, "accepted {accepted}, rejected {rejected}");
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

/// A conditional put of the labs: done, refused, or "maybe".
fn cas(client: u64, value: &str, expected: u64, version: Option<u64>, call: u64, end: u64) -> Operation {
    let outcome = if version.is_some() { Outcome::Ok } else { Outcome::Fail };
    Operation {
        expected_version: Some(expected),
        version,
        outcome,
        ..write(client, Op::Cas, value, 0, call, end)
    }
}

fn maybe(client: u64, value: &str, expected: u64, call: u64, end: u64) -> Operation {
    Operation { outcome: Outcome::Unknown, ..cas(client, value, expected, None, call, end) }
}

#[test]
fn a_conditional_put_of_unknown_outcome_wrote_the_next_version_or_nothing() {
    let first = cas(1, "a", 0, Some(1), 0, 10);
    let lost = maybe(2, "b", 1, 20, 30);
    let told = |more: &[Operation]| verdict(&[&[first.clone(), lost.clone()][..], more].concat());
    assert_eq!(told(&[get(2, "b", 2, 40, 50)]), "fine");
    assert_eq!(told(&[get(2, "a", 1, 40, 50)]), "fine");
    assert_eq!(told(&[cas(2, "c", 1, Some(2), 40, 50)]), "fine");
    assert_eq!(told(&[cas(2, "c", 2, Some(3), 40, 50)]), "fine");
    assert_eq!(told(&[get(2, "a", 1, 40, 50), get(2, "b", 2, 60, 70)]), "fine");
    assert!(told(&[get(2, "b", 3, 40, 50)]).contains("another version than expected"));
    assert!(told(&[get(2, "b", 2, 12, 15)]).contains("before the write"));
    assert_ne!(told(&[cas(3, "c", 1, Some(2), 40, 50), get(3, "b", 2, 60, 70)]), "fine");
    assert_ne!(told(&[cas(3, "c", 2, Some(3), 40, 50), get(2, "a", 1, 60, 70)]), "fine");
    assert_ne!(verdict(&[first.clone(), cas(3, "c", 2, Some(3), 40, 50)]), "fine");
    assert_ne!(verdict(&[first, cas(3, "c", 1, Some(2), 40, 50), cas(4, "d", 1, Some(2), 40, 50)]), "fine");
}

/// As the labs' clients see their versioned store: values repeat, and only gets return versions.
fn as_in_the_labs(mut history: Vec<Operation>) -> Vec<Operation> {
    let names = ["", "0", "1"];
    let renamed = |text: &String| {
        let number: usize = text.trim_matches(['<', '>']).parse().expect("a number");
        names[number % names.len()].to_owned()
    };
    for operation in &mut history {
        operation.value = operation.value.as_ref().map(renamed);
        operation.output = operation.output.as_ref().map(renamed);
        if operation.op == Op::Cas {
            operation.version = None;
        }
    }
    history
}

#[test]
fn the_labs_versioned_store_is_judged_exactly() {
    let shape = |operations, unknown_percent| Shape {
        clients: 5,
        operations,
        shares: [5, 0, 0, 0, 5],
        unknown_percent,
        versions: true,
    };
    for (seed, unknown_percent) in [(1, 0), (2, 10), (3, 30)] {
        let history = as_in_the_labs(sample::history(seed, &shape(3000, unknown_percent)));
        let verdicts = explain(&history);
        assert_eq!(verdicts[0].ruling, Ruling::Linearizable, "{unknown_percent} % unknown");
        assert!(brute::explains(&history, &verdicts[0].order));
    }
    let (mut accepted, mut rejected) = (0, 0);
    for seed in 0..3000 {
        let mut history = sample::history(seed, &shape(4 + (seed % 8) as usize, 20));
        let how = [Spoil::StaleRead, Spoil::SwappedReplies, Spoil::Moved][(seed % 3) as usize];
        sample::spoil(&mut history, how, &mut Generator::seed_from_u64(seed));
        let history = as_in_the_labs(history);
        let truth = brute::linearizable(&history);
        assert_eq!(check(&history).is_ok(), truth, "seed {seed}\n{}", shown(&history));
        *(if truth { &mut accepted } else { &mut rejected }) += 1;
    }
    assert!(accepted > 500 && rejected > 200, "accepted {accepted}, rejected {rejected}");
}

#[test]
fn the_labs_classic_store_reads_a_missing_key_as_an_empty_text() {
    let plain = |one: Operation| Operation { version: None, ..one };
    let empty =
        |client, call, end| Operation { output: Some(String::new()), ..plain(get(client, "", 0, call, end)) };
    let append = plain(write(1, Op::Append, "x 1 0 y", 0, 20, 30));
    assert_eq!(verdict(&[empty(2, 0, 10), append.clone(), plain(get(2, "x 1 0 y", 0, 40, 50))]), "fine");
    assert!(verdict(&[append, empty(2, 40, 50)]).contains("found missing"));
}

#[test]
fn a_client_may_go_on_after_perhaps_but_not_before_its_reply() {
    let one = maybe(1, "a", 0, 0, 10);
    let two = cas(1, "b", 1, Some(2), 20, 30);
    assert_eq!(verdict(&[one.clone(), two.clone()]), "fine");
    let silent = Operation { return_ns: None, ..one };
    assert!(verdict(&[silent, two]).contains("two operations at a time"));
}

#[test]
fn greedy_guesses_about_unknown_outcomes_do_not_reject() {
    // Versions 3 to 5 need three of the four writes that nobody saw; 7 and 8 need two, or the
    // delete.
    let history = [
        unknown(1, Op::Put, "<0>", 29),
        write(2, Op::Put, "<1>", 2, 68, 152),
        unknown(3, Op::Put, "<2>", 6),
        unknown(5, Op::Append, "<4>", 138),
        write(6, Op::Put, "<5>", 6, 170, 232),
        unknown(7, Op::Put, "<6>", 177),
        unknown(8, Op::Delete, "", 269),
        unknown(9, Op::Put, "<9>", 338),
        Operation { value: None, ..write(11, Op::Delete, "", 9, 471, 556) },
    ];
    assert!(brute::linearizable(&history));
    assert_eq!(verdict(&history), "fine");
}
