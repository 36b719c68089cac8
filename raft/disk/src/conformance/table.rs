//! What a table promises.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::{ALL, Disk, MemoryDisk, RealDisk, bytes, on_both_disks};
use raft::storage::{APPLIED_KEY, Applied, Change, Read, Row, ScanLimit, Stores, applied};
use raft::types::EntryId;

on_both_disks!(
    an_empty_table_was_applied_nothing,
    a_batch_takes_effect_in_order,
    scans_keep_their_bounds_and_limits,
    a_view_does_not_change,
    only_what_was_flushed_survives_a_crash,
    durable_applied_follows_the_flush,
    staged_rows_are_invisible_and_lost_in_a_crash,
    a_switch_is_durable_and_replaces_every_row,
    a_crash_at_each_step_of_a_switch_leaves_one_generation_whole,
    staging_again_starts_from_nothing,
    rows_that_are_dropped_before_a_switch_are_gone,
    a_view_of_the_old_generation_outlives_the_switch,
    writes_go_to_the_new_generation_after_a_switch,
    a_bad_mark_survives_crashes_and_goes_with_the_rows_that_it_is_about,
);

fn put(key: &str, value: &str) -> Change {
    Change::Put(bytes(key), bytes(value))
}

fn row(key: &str, value: &str) -> Row {
    (bytes(key), bytes(value))
}

fn applied_row(index: u64) -> Row {
    let applied = Applied { id: EntryId::new(1, index), hash: index };
    (Bytes::from_static(APPLIED_KEY), base::codec::encode(&applied))
}

fn put_applied(index: u64) -> Change {
    let (key, value) = applied_row(index);
    Change::Put(key, value)
}

fn all(rows: &dyn Read) -> Vec<Row> {
    rows.scan(b"", None, ALL)
}

async fn an_empty_table_was_applied_nothing(disk: &mut dyn Disk) {
    let (_log, table) = disk.open();
    assert_eq!(applied(&*table), Applied::default());
    assert_eq!(table.durable_applied(), EntryId::ZERO);
    assert_eq!(table.installed(), None);
    assert_eq!(all(&*table), []);
}

async fn a_batch_takes_effect_in_order(disk: &mut dyn Disk) {
    let (_log, table) = disk.open();
    table.write(vec![put("a", "1"), put("b", "1"), put("c", "1"), put("", "empty key")]);
    table.write(vec![
        Change::DeleteRange(bytes("a"), bytes("c")),
        put("b", "2"),
        Change::Delete(bytes("c")),
        Change::DeleteRange(bytes("z"), bytes("a")),
        put("d", "1"),
        Change::Delete(bytes("d")),
    ]);
    assert_eq!(all(&*table), [row("", "empty key"), row("b", "2")]);
    assert_eq!(table.get(b"a"), None);
    assert_eq!(table.get(b"b"), Some(bytes("2")));
}

async fn scans_keep_their_bounds_and_limits(disk: &mut dyn Disk) {
    let (_log, table) = disk.open();
    let keys = ["a", "b", "ba", "c", "\u{7f}"];
    table.write(keys.iter().map(|key| put(key, "1234")).collect());
    let found = |start: &str, end: Option<&str>, limit| -> Vec<String> {
        let rows = table.scan(start.as_bytes(), end.map(str::as_bytes), limit);
        rows.into_iter().map(|(key, _)| String::from_utf8(key.to_vec()).unwrap()).collect()
    };
    assert_eq!(found("b", Some("c"), ALL), ["b", "ba"]);
    assert_eq!(found("b\0", None, ALL), ["ba", "c", "\u{7f}"]);
    assert_eq!(found("c", Some("b"), ALL), [""; 0]);
    assert_eq!(found("", None, ScanLimit { rows: 2, ..ALL }), ["a", "b"]);
    assert_eq!(found("", None, ScanLimit { bytes: 6, ..ALL }), ["a", "b"]);
    assert_eq!(found("", None, ScanLimit { bytes: 1, rows: 9 }), ["a"]);
}

async fn a_view_does_not_change(disk: &mut dyn Disk) {
    let (_log, table) = disk.open();
    table.write(vec![put("a", "1"), put("b", "1")]);
    let view = table.view();
    table.write(vec![put("a", "2"), Change::Delete(bytes("b")), put("c", "2")]);
    table.flush().await;
    assert_eq!(all(&*view), [row("a", "1"), row("b", "1")]);
    assert_eq!(view.get(b"b"), Some(bytes("1")));
    assert_eq!(all(&*table), [row("a", "2"), row("c", "2")]);
}

async fn only_what_was_flushed_survives_a_crash(disk: &mut dyn Disk) {
    let (_log, table) = disk.open();
    table.write(vec![put("a", "1"), put("b", "1")]);
    table.flush().await;
    table.write(vec![put("a", "2"), Change::DeleteRange(bytes("b"), bytes("c"))]);
    disk.crash();
    drop((_log, table));
    let (_log, table) = disk.open();
    assert_eq!(all(&*table), [row("a", "1"), row("b", "1")]);
}

async fn durable_applied_follows_the_flush(disk: &mut dyn Disk) {
    let (_log, table) = disk.open();
    table.write(vec![put_applied(3)]);
    assert_eq!(applied(&*table).id, EntryId::new(1, 3));
    assert_eq!(table.durable_applied(), EntryId::ZERO);
    table.flush().await;
    assert_eq!(table.durable_applied(), EntryId::new(1, 3));
    table.write(vec![put_applied(4)]);
    assert_eq!(table.durable_applied(), EntryId::new(1, 3));
    disk.crash();
    drop((_log, table));
    let (_log, table) = disk.open();
    assert_eq!(applied(&*table).id, EntryId::new(1, 3));
    assert_eq!(table.durable_applied(), EntryId::new(1, 3));
    // The first write of a life, too, is not durable before a flush.
    table.write(vec![put_applied(5)]);
    assert_eq!(table.durable_applied(), EntryId::new(1, 3));
}

/// A flushed table at entry 1, and a snapshot at entry 8 of two pieces staged.
async fn staged(disk: &mut dyn Disk) -> Stores {
    let (log, table) = disk.open();
    table.write(vec![put_applied(1), put("old", "1")]);
    table.flush().await;
    table.stage_start();
    table.stage(vec![applied_row(8), row("new", "1")]);
    table.stage(vec![row("newer", "1")]);
    (log, table)
}

fn old_rows() -> Vec<Row> {
    vec![applied_row(1), row("old", "1")]
}

fn new_rows() -> Vec<Row> {
    vec![applied_row(8), row("new", "1"), row("newer", "1")]
}

async fn staged_rows_are_invisible_and_lost_in_a_crash(disk: &mut dyn Disk) {
    let stores = staged(disk).await;
    assert_eq!(all(&*stores.1), old_rows());
    // Even if they became durable by the way.
    stores.1.flush().await;
    disk.crash();
    drop(stores);
    let (_log, table) = disk.open();
    assert_eq!(all(&*table), old_rows());
    assert_eq!(table.installed(), None);
    table.stage_start();
    table.stage(vec![row("other", "1")]);
    table.switch(EntryId::new(1, 9)).await;
    assert_eq!(all(&*table), [row("other", "1")]);
}

async fn rows_that_are_dropped_before_a_switch_are_gone(disk: &mut dyn Disk) {
    let (_log, table) = staged(disk).await;
    table.stage_drop();
    assert_eq!(all(&*table), old_rows());
    // Doing it again does no harm, and the next snapshot finds nothing of it.
    table.stage_drop();
    table.stage_start();
    table.stage(vec![row("other", "1")]);
    table.switch(EntryId::new(1, 9)).await;
    assert_eq!(all(&*table), [row("other", "1")]);
}

async fn a_switch_is_durable_and_replaces_every_row(disk: &mut dyn Disk) {
    let stores = staged(disk).await;
    stores.1.write(vec![put("unflushed", "1")]);
    stores.1.switch(EntryId::new(1, 8)).await;
    assert_eq!(all(&*stores.1), new_rows());
    assert_eq!(stores.1.durable_applied(), EntryId::new(1, 8));
    disk.crash();
    drop(stores);
    let (_log, table) = disk.open();
    assert_eq!(all(&*table), new_rows());
    assert_eq!(table.installed(), Some(EntryId::new(1, 8)));
    assert_eq!(table.durable_applied(), EntryId::new(1, 8));
}

async fn a_crash_at_each_step_of_a_switch_leaves_one_generation_whole(disk: &mut dyn Disk) {
    for round in 0..3 {
        let stores = disk.open();
        let before = all(&*stores.1);
        stores.1.stage_start();
        disk.crash();
        drop(stores);
        let stores = disk.open();
        assert_eq!(all(&*stores.1), before);
        stores.1.stage_start();
        stores.1.stage(vec![applied_row(round)]);
        stores.1.flush().await;
        disk.crash();
        drop(stores);
        let stores = disk.open();
        assert_eq!(all(&*stores.1), before);
        stores.1.stage_start();
        stores.1.stage(vec![applied_row(round + 10)]);
        stores.1.switch(EntryId::new(1, round + 10)).await;
        disk.crash();
        drop(stores);
        let (_log, table) = disk.open();
        assert_eq!(all(&*table), [applied_row(round + 10)]);
    }
}

async fn staging_again_starts_from_nothing(disk: &mut dyn Disk) {
    let (_log, table) = staged(disk).await;
    table.stage_start();
    table.stage(vec![row("second", "try")]);
    table.switch(EntryId::new(1, 9)).await;
    assert_eq!(all(&*table), [row("second", "try")]);
    assert_eq!(table.installed(), Some(EntryId::new(1, 9)));
}

async fn a_view_of_the_old_generation_outlives_the_switch(disk: &mut dyn Disk) {
    let (_log, table) = staged(disk).await;
    let old = table.view();
    table.switch(EntryId::new(1, 8)).await;
    let new = table.view();
    table.flush().await;
    assert_eq!(all(&*old), old_rows());
    assert_eq!(all(&*new), new_rows());
    drop(old);
    table.flush().await;
    assert_eq!(all(&*new), new_rows());
}

async fn writes_go_to_the_new_generation_after_a_switch(disk: &mut dyn Disk) {
    let (_log, table) = staged(disk).await;
    table.switch(EntryId::new(1, 8)).await;
    table.write(vec![put_applied(9), Change::DeleteRange(bytes("new"), bytes("newer"))]);
    assert_eq!(all(&*table), [applied_row(9), row("newer", "1")]);
    assert_eq!(table.durable_applied(), EntryId::new(1, 8));
    table.flush().await;
    assert_eq!(table.durable_applied(), EntryId::new(1, 9));
}

async fn a_bad_mark_survives_crashes_and_goes_with_the_rows_that_it_is_about(disk: &mut dyn Disk) {
    let mut stores = disk.open();
    stores.1.write(vec![put_applied(1)]);
    assert!(!stores.1.is_bad());
    stores.1.mark_bad().await;
    assert!(stores.1.is_bad());
    for step in ["at once", "while rows are staged", "flushed"] {
        disk.crash();
        drop(stores);
        stores = disk.open();
        assert!(stores.1.is_bad(), "{step}");
        stores.1.stage_start();
        stores.1.stage(vec![applied_row(8)]);
        if step == "flushed" {
            stores.1.flush().await;
        }
        assert!(stores.1.is_bad(), "{step}");
    }
    drop(stores);
    let stores = staged(disk).await;
    assert!(stores.1.is_bad());
    stores.1.switch(EntryId::new(1, 8)).await;
    assert!(!stores.1.is_bad());
    disk.crash();
    drop(stores);
    let (_log, table) = disk.open();
    assert!(!table.is_bad());
    assert_eq!(all(&*table), new_rows());
    table.mark_bad().await;
    assert!(table.is_bad(), "the new rows may go bad as well");
}

fn key() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(0xff)], 0..4).prop_map(Bytes::from)
}

fn batch() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        4 => (key(), key()).prop_map(|(key, value)| Change::Put(key, value)),
        1 => key().prop_map(Change::Delete),
        1 => (key(), key()).prop_map(|(start, end)| Change::DeleteRange(start, end)),
    ];
    proptest::collection::vec(change, 0..6)
}

async fn like_a_map(
    disk: &mut dyn Disk,
    batches: &[(Vec<Change>, bool)],
    start: &Bytes,
    end: Option<&Bytes>,
) -> Result<(), TestCaseError> {
    let (_log, table) = disk.open();
    let mut model: BTreeMap<Bytes, Bytes> = BTreeMap::new();
    for (batch, flush) in batches {
        for change in batch {
            match change.clone() {
                Change::Put(key, value) => {
                    model.insert(key, value);
                }
                Change::Delete(key) => {
                    model.remove(&key);
                }
                Change::DeleteRange(start, end) => model.retain(|key, _| *key < start || *key >= end),
            }
        }
        table.write(batch.clone());
        if *flush {
            table.flush().await;
        }
        let within = |key: &Bytes| key >= start && end.is_none_or(|end| key < end);
        let expected: Vec<Row> = model
            .iter()
            .filter(|(key, _)| within(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        prop_assert_eq!(table.scan(start, end.map(|end| &end[..]), ALL), expected);
        prop_assert_eq!(table.get(start), model.get(start).cloned());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_table_is_an_ordered_map(
        batches in proptest::collection::vec((batch(), proptest::bool::weighted(0.1)), 1..8),
        start in key(),
        end in proptest::option::of(key()),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(like_a_map(&mut MemoryDisk::new(), &batches, &start, end.as_ref()))?;
        runtime.block_on(like_a_map(&mut RealDisk::new(), &batches, &start, end.as_ref()))?;
    }
}
