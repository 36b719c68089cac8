use std::collections::BTreeSet;

use super::{catalogue, run};
use crate::lab::{Lab, Net, Options};
use crate::sheet::{self, Sheet, scenario};

fn functions_on(sheet: Sheet) -> usize {
    let tests = catalogue();
    let entries =
        tests.iter().filter_map(|test| Some((test.suite, test.on(sheet)?.part, test.on(sheet)?.name)));
    entries.collect::<BTreeSet<_>>().len()
}

#[test]
fn ids_are_unique() {
    let tests = catalogue();
    let ids: BTreeSet<_> = tests.iter().map(|test| test.id).collect();
    assert_eq!(ids.len(), tests.len());
}

#[test]
fn every_sheet_has_the_tests_that_were_handed_out_then() {
    let expected = [
        ("2020", 59),
        ("2021", 69),
        ("2022", 70),
        ("2023", 72),
        ("2024", 84),
        ("2025", 97),
        ("2026", 99),
        ("sjtu", 21),
        ("gwu", 2),
    ];
    let found = expected.map(|(sheet, _)| (sheet, functions_on(sheet.parse().unwrap())));
    assert_eq!(found, expected);
}

#[test]
fn points_add_up_to_a_hundred() {
    let points: u32 = catalogue().iter().filter_map(|test| test.on(Sheet::Sjtu)?.points).sum();
    assert_eq!(points, 100);
}

async fn put_and_get(lab: Lab) -> anyhow::Result<()> {
    let store = lab.one_group(3, Some(1000)).await?;
    let mut client = store.client();
    for number in 0..200 {
        client.put("k", &format!("v{number}")).await?;
        client.check("k", &format!("v{number}")).await?;
    }
    println!("{:?}", store.bytes(1).await?);
    Ok(())
}

#[test]
fn a_run_is_the_same_again() {
    let row = "columns\nX | none | reliable | | put and get |";
    let tests = sheet::catalogue(row, vec![scenario("X", put_and_get)]).unwrap();
    let [test] = &tests[..] else { panic!("one test") };
    let options = Options { seed: 7, net: Net::Reliable, timers: None };
    let (one, other) = (run(test, &options), run(test, &options));
    assert!(one.passed(), "{one:?}");
    println!("{one:?}");
    assert_eq!((one.trace, one.tally), (other.trace, other.tally));
}
