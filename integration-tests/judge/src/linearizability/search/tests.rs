//! The search against the definition, with and without the facts that the values give.

use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus as Generator;

use super::super::sample::{SPOILS, Shape, history, spoil};
use super::super::{brute, values};
use super::{Found, Search};
use crate::history::Operation;

fn search(operations: &[&Operation], with_facts: bool) -> Found {
    let facts = if with_facts { values::check(operations).unwrap() } else { None };
    super::run(operations, facts.as_ref())
}

#[test]
fn it_finds_an_order_exactly_if_there_is_one() {
    let (mut orders, mut impossible) = (0, 0);
    for seed in 0..12_000_u64 {
        let shape = Shape {
            clients: 3,
            operations: 4 + (seed % 7) as usize,
            shares: [4, 2, 3, 2, 1],
            unknown_percent: [0, 25][(seed / 2 % 2) as usize],
            versions: seed % 2 == 0,
        };
        let mut history = history(seed, &shape);
        let how = SPOILS[(seed / 4 % SPOILS.len() as u64) as usize];
        if seed % 3 > 0 && !spoil(&mut history, how, &mut Generator::seed_from_u64(seed)) {
            continue;
        }
        let operations: Vec<&Operation> = history.iter().collect();
        let truth = brute::linearizable(&history);
        for with_facts in [false, true] {
            if with_facts && values::check(&operations).is_err() {
                continue;
            }
            match search(&operations, with_facts) {
                Found::Order(order) => {
                    assert!(
                        truth && brute::explains(&history, &order),
                        "seed {seed}: {order:?}\n{history:#?}"
                    );
                    orders += 1;
                }
                Found::Impossible { .. } => {
                    assert!(!truth, "seed {seed}, facts: {with_facts}: a false alarm\n{history:#?}");
                    impossible += 1;
                }
                Found::Undecided(_) => panic!("seed {seed}: gave up on a small history"),
            }
        }
    }
    assert!(orders > 5000 && impossible > 1500, "{orders} orders, {impossible} impossible");
}

#[test]
fn a_true_history_is_walked_through_almost_straight() {
    for (unknown_percent, versions) in [(0, true), (0, false), (5, true), (5, false)] {
        for seed in 0..4 {
            let shape =
                Shape { clients: 8, operations: 4000, shares: [4, 2, 3, 1, 1], unknown_percent, versions };
            let history = history(seed, &shape);
            let operations: Vec<&Operation> = history.iter().collect();
            let facts = values::check(&operations).unwrap();
            let mut search = Search::new(&operations, facts.as_ref());
            let order = match search.run() {
                Found::Order(order) => order,
                other => panic!("{shape:?}, seed {seed}: {other:?}"),
            };
            println!("{unknown_percent} % unknown, versions {versions}: {} steps", search.evaluated);
            assert!(brute::explains(&history, &order));
            assert!(search.evaluated < 2_000_000, "{shape:?}, seed {seed}: {} steps", search.evaluated);
        }
    }
}
