use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::Overlay;
use crate::rsm::Rows;
use crate::storage::memory::MemoryDisk;
use crate::storage::{APPLIED_KEY, Applied, Read, Row, ScanLimit, Table, applied};
use crate::types::EntryId;

type Model = BTreeMap<Bytes, Bytes>;

#[derive(Clone, Debug)]
enum Step {
    Put(Bytes, Bytes),
    Delete(Bytes),
    DeleteRange(Bytes, Bytes),
}

fn key() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(1_u8..5, 1..4).prop_map(Bytes::from)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (key(), 0_u8..100).prop_map(|(key, value)| Step::Put(key, vec![value; 3].into())),
        2 => key().prop_map(Step::Delete),
        2 => (key(), key()).prop_map(|(start, end)| Step::DeleteRange(start, end)),
    ]
}

fn commands() -> impl Strategy<Value = Vec<Vec<Step>>> {
    proptest::collection::vec(proptest::collection::vec(step(), 0..6), 0..12)
}

fn run(rows: &mut dyn Rows, step: &Step) {
    match step.clone() {
        Step::Put(key, value) => rows.put(key, value),
        Step::Delete(key) => rows.delete(&key),
        Step::DeleteRange(start, end) => rows.delete_range(&start, &end),
    }
}

fn run_naively(model: &mut Model, step: &Step) {
    match step.clone() {
        Step::Put(key, value) => {
            model.insert(key, value);
        }
        Step::Delete(key) => {
            model.remove(&key);
        }
        Step::DeleteRange(start, end) => model.retain(|key, _| *key < start || *key >= end),
    }
}

fn scan_naively(model: &Model, start: &[u8], end: Option<&[u8]>, limit: ScanLimit) -> Vec<Row> {
    let within = |key: &[u8]| key >= start && end.is_none_or(|end| key < end);
    let mut bytes = 0;
    let mut found = Vec::new();
    for (key, value) in model.iter().filter(|(key, _)| within(key)) {
        if !found.is_empty() && (found.len() >= limit.rows || bytes >= limit.bytes) {
            break;
        }
        bytes += key.len() + value.len();
        found.push((key.clone(), value.clone()));
    }
    found
}

const ALL: ScanLimit = ScanLimit { rows: usize::MAX, bytes: usize::MAX };

fn table() -> Arc<dyn Table> {
    MemoryDisk::new().open().1
}

/// Applies `commands` in batches of the given sizes, the last size for all that are left.
fn apply_in_batches(table: &dyn Table, commands: &[Vec<Step>], sizes: &[usize]) -> Applied {
    let mut sizes = sizes.iter().copied();
    let mut index = 0;
    let mut rest = commands;
    while !rest.is_empty() {
        let (batch, left) = rest.split_at(sizes.next().unwrap_or(rest.len()).clamp(1, rest.len()));
        rest = left;
        let mut overlay = Overlay::new(table, applied(table));
        for command in batch {
            command.iter().for_each(|step| run(&mut overlay, step));
            index += 1;
            overlay.finish_command(EntryId::new(1, index));
        }
        table.write(overlay.into_batch());
    }
    applied(table)
}

proptest! {
    #[test]
    fn an_overlay_reads_like_a_naive_map_and_writes_what_it_showed(
        before in commands(),
        after in commands(),
        start in key(),
        end in proptest::option::of(key()),
        rows in 1_usize..6,
        bytes in 1_usize..20,
    ) {
        let table = table();
        let first = apply_in_batches(&*table, &before, &[]);
        let mut model: Model = table.scan(b"", None, ALL).into_iter().collect();
        let mut overlay = Overlay::new(&*table, first);
        for step in after.iter().flatten() {
            run(&mut overlay, step);
            run_naively(&mut model, step);
            for limit in [ScanLimit { rows, ..ALL }, ScanLimit { bytes, ..ALL }, ALL] {
                let found = overlay.scan(&start, end.as_deref(), limit);
                prop_assert_eq!(found, scan_naively(&model, &start, end.as_deref(), limit));
            }
            prop_assert_eq!(overlay.get(&start), model.get(&start).cloned());
        }
        overlay.finish_command(EntryId::new(1, 99));
        model.insert(Bytes::from_static(APPLIED_KEY), base::codec::encode(&overlay.applied()));
        table.write(overlay.into_batch());
        let written: Model = table.scan(b"", None, ALL).into_iter().collect();
        prop_assert_eq!(written, model);
    }

    #[test]
    fn grouping_commands_into_batches_changes_neither_rows_nor_hash(
        commands in commands(),
        sizes in proptest::collection::vec(1_usize..5, 0..8),
    ) {
        let (one_by_one, grouped) = (table(), table());
        let expected = apply_in_batches(&*one_by_one, &commands, &[1; 12]);
        prop_assert_eq!(apply_in_batches(&*grouped, &commands, &sizes), expected);
        prop_assert_eq!(grouped.scan(b"", None, ALL), one_by_one.scan(b"", None, ALL));
    }

    #[test]
    fn a_change_more_makes_another_hash(
        mut commands in proptest::collection::vec(proptest::collection::vec(step(), 0..6), 1..12),
        at in any::<prop::sample::Index>(),
        change in step(),
    ) {
        let without = apply_in_batches(&*table(), &commands, &[]);
        at.get_mut(&mut commands).push(change);
        prop_assert_ne!(apply_in_batches(&*table(), &commands, &[]), without);
    }
}

#[test]
fn a_scan_of_one_row_skips_deleted_ranges_whole() {
    let table = table();
    let many = (1..=100_u8).map(|at| vec![Step::Put(vec![2, at].into(), Bytes::from_static(b"x"))]);
    let commands: Vec<_> = many.chain([vec![Step::Put(vec![3].into(), Bytes::from_static(b"y"))]]).collect();
    let first = apply_in_batches(&*table, &commands, &[]);
    let mut overlay = Overlay::new(&*table, first);
    overlay.delete_range(&[2], &[3]);
    let found = overlay.scan(&[1], None, ScanLimit { rows: 1, ..ALL });
    assert_eq!(found, [(Bytes::from_static(&[3]), Bytes::from_static(b"y"))]);
}
