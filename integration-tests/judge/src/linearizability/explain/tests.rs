//! The input of a failure page.

use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus as Generator;

use super::super::sample::{SPOILS, Shape, history, spoil};
use super::super::{brute, check};
use super::{Ruling, explain};
use crate::history::{Client, Op, Operation, Outcome};

fn operation(client: u64, op: Op, text: &str, call: u64, end: u64) -> Operation {
    let text = (!text.is_empty()).then(|| text.to_owned());
    let (value, output) = if op == Op::Get { (None, text) } else { (text, None) };
    Operation {
        client: Client::Number(client),
        op,
        key: "k".into(),
        value,
        expected_version: None,
        output,
        version: None,
        call_ns: call,
        return_ns: Some(end),
        outcome: Outcome::Ok,
    }
}

#[test]
fn an_accepted_key_has_a_full_order() {
    let other = Operation { key: "other".into(), ..operation(3, Op::Get, "", 60, 70) };
    let history = [
        operation(1, Op::Get, "ab", 40, 50),
        operation(1, Op::Put, "a", 0, 10),
        other,
        operation(2, Op::Append, "b", 20, 30),
    ];
    let verdicts = explain(&history);
    let told: Vec<_> = verdicts.iter().map(|one| (one.key.as_str(), one.ruling, one.order.clone())).collect();
    let fine = Ruling::Linearizable;
    assert_eq!(told, [("k", fine, vec![1, 3, 0]), ("other", fine, vec![2])]);
    assert!(verdicts.iter().all(|one| one.unplaced.is_empty() && one.ends_ns.is_none()));
}

#[test]
fn each_culprit_is_named_and_the_rest_has_an_order() {
    let history = [
        operation(1, Op::Put, "a", 0, 10),
        operation(2, Op::Append, "b", 20, 30),
        operation(3, Op::Get, "a", 40, 50),
        operation(4, Op::Get, "ab", 60, 70),
        operation(2, Op::Get, "abb", 80, 90),
        operation(3, Op::Append, "c", 100, 110),
        operation(4, Op::Get, "abc", 120, 130),
    ];
    let verdict = &explain(&history)[0];
    assert_eq!((verdict.ruling, verdict.ends_ns), (Ruling::Broken, None));
    assert_eq!(verdict.order, [0, 1, 3, 5, 6]);
    let unplaced: Vec<_> = verdict.unplaced.iter().map(|one| (one.operation, one.what.as_str())).collect();
    assert_eq!(unplaced.len(), 2);
    assert!(unplaced[0].0 == 2 && unplaced[0].1.contains("a lost write"), "{unplaced:?}");
    assert!(unplaced[1].0 == 4 && unplaced[1].1.contains("a doubled piece"), "{unplaced:?}");
    assert!(verdict.unplaced.iter().all(|one| one.witnesses.contains(&one.operation)), "{verdict:?}");
}

#[test]
fn a_write_whose_reply_is_wrong_keeps_its_effect() {
    let versioned = |version, one| Operation { version: Some(version), ..one };
    let history = [
        versioned(1, operation(1, Op::Put, "a", 0, 10)),
        versioned(1, operation(2, Op::Append, "b", 20, 30)),
        versioned(2, operation(3, Op::Get, "ab", 40, 50)),
    ];
    let verdict = &explain(&history)[0];
    assert_eq!(verdict.order, [0, 1, 2]);
    assert_eq!(verdict.unplaced.iter().map(|one| one.operation).collect::<Vec<_>>(), [1]);
}

#[test]
fn one_wrong_reply_does_not_cost_all_that_came_after_it() {
    let versioned = |version, one| Operation { version: Some(version), ..one };
    let mut history = vec![versioned(9, operation(1, Op::Put, "a", 0, 10))];
    history.extend((1..8).map(|at| versioned(1, operation(2, Op::Get, "a", 20 * at, 20 * at + 10))));
    let verdict = &explain(&history)[0];
    assert_eq!(verdict.unplaced.iter().map(|one| one.operation).collect::<Vec<_>>(), [0]);
    assert_eq!(verdict.order, [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn a_hopeless_key_is_explained_up_to_where_it_is_hopeless() {
    let mut history = vec![operation(1, Op::Put, "a", 0, 10)];
    history.extend((1..100).map(|at| operation(1, Op::Get, &format!("wrong {at}"), at * 20, at * 20 + 10)));
    let verdict = &explain(&history)[0];
    assert_eq!((verdict.order.as_slice(), verdict.unplaced.len()), (&[0][..], super::UNPLACED_MAX));
    assert_eq!(verdict.ends_ns, Some(17 * 20 + 10));
}

#[test]
fn a_long_key_in_which_every_second_read_is_wrong_is_explained_in_bounded_time() {
    let (mut history, mut value) = (Vec::new(), String::new());
    for at in 0..1500_u64 {
        value += &format!("<{at}>");
        history.push(operation(1, Op::Append, &format!("<{at}>"), at * 100, at * 100 + 10));
        let seen = if at % 2 == 0 { value.clone() } else { value.replace("<0>", "") };
        history.push(operation(2, Op::Get, &seen, at * 100 + 20, at * 100 + 30));
    }
    let names = super::names(&history);
    let key = super::Key::new(&history, (0..history.len()).collect(), &names);
    let verdict = key.explain("k");
    assert_eq!((verdict.ruling, verdict.ends_ns.is_some()), (Ruling::Broken, true));
    assert!(!verdict.unplaced.is_empty() && !verdict.order.is_empty());
    assert!(key.judged.get() < 2 * super::JUDGED_MAX, "{} operations judged", key.judged.get());
}

#[test]
fn a_client_with_two_operations_at_a_time_is_named() {
    let history = [operation(1, Op::Put, "a", 0, 10), operation(1, Op::Get, "a", 5, 15)];
    let verdict = &explain(&history)[0];
    assert_eq!((verdict.ruling, verdict.unplaced[0].operation), (Ruling::Broken, 1));
    assert_eq!(verdict.unplaced[0].witnesses, [0, 1]);
}

fn shown(history: &[Operation]) -> String {
    history.iter().map(|operation| format!("  {operation}\n")).collect()
}

#[test]
fn what_remains_of_spoilt_histories_has_the_order_shown() {
    let (mut broken, mut hopeless) = (0, 0);
    for seed in 0..2000_u64 {
        let shape = Shape {
            clients: 3,
            operations: 5 + (seed % 30) as usize,
            shares: [4, 2, 3, 1, 1],
            unknown_percent: 10,
            versions: seed % 2 == 0,
        };
        let mut history = history(seed, &shape);
        let mut random = Generator::seed_from_u64(seed);
        for _ in 0..1 + seed % 3 {
            spoil(&mut history, SPOILS[(seed / 2 % 6) as usize], &mut random);
        }
        let Some(verdict) = explain(&history).pop() else { continue };
        assert_eq!(verdict.ruling == Ruling::Linearizable, check(&history).is_ok(), "seed {seed}");
        assert_eq!(
            verdict.ruling == Ruling::Broken,
            !verdict.unplaced.is_empty(),
            "seed {seed}: {verdict:?}"
        );
        broken += usize::from(verdict.ruling == Ruling::Broken);
        if verdict.ends_ns.is_some() {
            hopeless += 1;
            continue;
        }
        let mut rest = history.clone();
        for one in &verdict.unplaced {
            let operation = &mut rest[one.operation];
            operation.version = None;
            if operation.outcome == Outcome::Ok {
                (operation.outcome, operation.return_ns, operation.output) = (Outcome::Unknown, None, None);
            }
        }
        assert!(brute::explains(&rest, &verdict.order), "seed {seed}: {verdict:?}\n{}", shown(&history));
    }
    assert!(broken > 300 && hopeless * 20 < broken, "{broken} broken, {hopeless} beyond explanation");
}
