//! What only a table on RocksDB does on its own.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ::bytes::Bytes;

use super::{ALL, bytes, copy_open_files, hasty, names};
use crate::rocksdb::{TableOptions, open_table};
use raft::storage::{Change, OpenError, Row, Table};
use raft::types::EntryId;

/// Hardly compressible, so that the middle of a file is the middle of the entries.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Generations of which a closed table holds rows.
fn generations(path: &Path) -> Vec<u32> {
    let database = ::rocksdb::DB::open_default(path).unwrap();
    let rows = database.iterator(::rocksdb::IteratorMode::Start);
    let mut found: Vec<u32> =
        rows.map(|row| u32::from_be_bytes(*row.unwrap().0.first_chunk().unwrap())).collect();
    found.dedup();
    found
}

#[tokio::test]
async fn a_start_removes_the_generations_that_a_crash_left() {
    let root = tempfile::tempdir().unwrap();
    let (there, copy) = (root.path().join("there"), root.path().join("copy"));
    let table = open_table(&there, &small()).unwrap();
    table.write(vec![Change::Put(bytes("live"), bytes("1"))]);
    table.flush().await;
    for attempt in ["first", "second"] {
        table.stage_start();
        // The second piece is taken when the first one, longer than a file, is written.
        for piece in noisy_rows(attempt, 800).chunks(700) {
            table.stage(piece.to_vec());
        }
    }
    copy_open_files(&there, &copy);
    drop(table);
    let unfinished = |path: &Path| names(path).into_iter().filter(|name| name.starts_with("staged")).count();
    assert_eq!(unfinished(&copy), 1, "the table was not left in the state to test");
    assert_eq!(generations(&copy), [0, 1, 3], "the table was not left in the state to test");
    drop(open_table(&copy, &small()).unwrap());
    assert_eq!(unfinished(&copy), 0);
    assert_eq!(generations(&copy), [0, 1]);
    // Their numbers are not used again, although only their rows, and not their names, were
    // durable.
    let table = open_table(&copy, &small()).unwrap();
    table.stage_start();
    table.stage(vec![(bytes("third"), bytes("1"))]);
    table.switch(EntryId::new(1, 1)).await;
    drop(table);
    assert_eq!(generations(&copy), [0, 4]);
}

/// Waits until RocksDB has sorted most of a small table into files below level 0, each of which holds
/// rows of one generation only.
fn wait_for_sorted_files(path: &Path) {
    for _ in 0..1000 {
        let before = names(path);
        std::thread::sleep(std::time::Duration::from_millis(50));
        if names(path) == before {
            return;
        }
    }
    panic!("RocksDB never came to rest");
}

/// Batch `number`: the row "last" and one of twenty others say it.
fn numbered(number: u64) -> Vec<Change> {
    let value = Bytes::from(number.to_be_bytes().to_vec());
    vec![
        Change::Put(bytes("last"), value.clone()),
        Change::Put(bytes(&format!("row {}", number % 20)), value),
    ]
}

/// The value of a numbered row; 0: it does not exist.
fn number(table: &dyn Table, key: &str) -> u64 {
    table.get(key.as_bytes()).map_or(0, |value| u64::from_be_bytes(value[..].try_into().unwrap()))
}

#[test]
fn a_reader_never_sees_a_row_go_back_while_rows_are_on_their_way() {
    never_back(20_000, &TableOptions { file_bytes_min: usize::MAX, ..hasty() });
    // Files take their time.
    never_back(300, &hasty());
}

fn never_back(batches: u64, options: &TableOptions) {
    let root = tempfile::tempdir().unwrap();
    let table = open_table(root.path(), options).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (table, over) = (&table, &over);
            scope.spawn(move || {
                let mut seen = 0;
                while !over.load(Ordering::Relaxed) {
                    let now = number(&**table, "last");
                    let other = number(&**table, &format!("row {}", now % 20));
                    assert!(now >= seen, "reader {reader}: {now} after {seen}");
                    assert!(other >= now, "reader {reader}: a row says {other} after batch {now}");
                    seen = now;
                }
            });
        }
        let lost = (1..=batches).find(|at| {
            table.write(numbered(*at));
            number(&*table, "last") != *at
        });
        // The readers end before anything is found wrong: a panic here would wait for them.
        over.store(true, Ordering::Relaxed);
        assert_eq!(lost, None, "a batch is not there right after its write");
    });
    drop(table);
    let table = open_table(root.path(), options).unwrap();
    let rows: Vec<u64> = (0..20).map(|row| number(&*table, &format!("row {row}"))).collect();
    assert_eq!(
        rows,
        (0..20).map(|row| if row == 0 { batches } else { batches - 20 + row }).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn what_a_crash_leaves_of_rows_on_their_way_is_a_prefix_of_the_batches() {
    let root = tempfile::tempdir().unwrap();
    let (there, copy) = (root.path().join("there"), root.path().join("copy"));
    std::fs::create_dir_all(&there).unwrap();
    let table = open_table(&there, &hasty()).unwrap();
    let mut kept = 0;
    for round in 0..20_u64 {
        let first = round * 60;
        for at in first + 1..=first + 60 {
            table.write(numbered(at));
        }
        if round % 3 == 1 {
            table.flush().await;
            kept = first + 60;
        }
        copy_open_files(&there, &copy);
        let after = open_table(&copy, &hasty()).unwrap();
        let last = number(&*after, "last");
        assert!(last >= kept, "batch {kept} was flushed, the crash left {last}");
        for row in 0..20 {
            let newest = (last.saturating_sub(19)..=last).find(|at| at % 20 == row).unwrap_or(0);
            assert_eq!(number(&*after, &format!("row {row}")), newest, "row {row} after batch {last}");
        }
    }
}

#[test]
fn rows_that_go_in_files_are_not_durable_before_what_was_written_before_them() {
    let root = tempfile::tempdir().unwrap();
    let (there, copy) = (root.path().join("there"), root.path().join("copy"));
    let options = TableOptions { waiting_bytes: 2000, file_bytes_min: 2000, ..TableOptions::default() };
    let table = open_table(&there, &options).unwrap();
    let rows_of = |table: &dyn Table, kind: &str| table.scan(kind.as_bytes(), None, ALL).len();
    table.write(vec![Change::Put(bytes("early"), bytes("1"))]);
    // A scan of waiting rows sends them into RocksDB's memory.
    assert_eq!(rows_of(&*table, "early"), 1);
    let kinds = ["k", "late", "m"];
    let rows = |kind: &'static str, count: u32| {
        (0..count).map(move |row| Change::Put(bytes(&format!("{kind} {row:02}")), bytes("1")))
    };
    table.write(kinds.into_iter().zip([2, 30, 2]).flat_map(|(kind, count)| rows(kind, count)).collect());
    assert_eq!(rows_of(&*table, "k"), 34);
    copy_open_files(&there, &copy);
    let after = open_table(&copy, &options).unwrap();
    assert_eq!(
        rows_of(&*after, "k"),
        34,
        "nobody flushed, but files are durable: the way to be tested was taken"
    );
    assert_eq!(rows_of(&*after, "early"), 35, "an earlier row was lost");
}

/// Rule 80. Hundreds of thousands of rows beside the range stand for a RocksDB that delays the
/// write.
#[test]
fn readers_do_not_wait_for_a_range_that_is_being_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let table = open_table(directory.path(), &TableOptions::default()).unwrap();
    let (is_over, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    let rows = (0..400_000).map(|row: u32| (Bytes::copy_from_slice(&row.to_be_bytes()), bytes("value")));
    let mut batch: Vec<Change> = rows.map(|(key, value)| Change::Put(key, value)).collect();
    batch.push(Change::DeleteRange(bytes("a"), bytes("b")));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                table.get(b"another");
                reads.fetch_add(1, Ordering::SeqCst);
            }
        });
        while reads.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        let before = reads.load(Ordering::SeqCst);
        table.write(batch);
        let during = reads.load(Ordering::SeqCst) - before;
        is_over.store(true, Ordering::SeqCst);
        assert!(during > 1000, "only {during} reads had their turn");
    });
}

/// A table with little memory, so that it flushes and compacts on its own.
fn small() -> TableOptions {
    TableOptions { write_buffer_bytes: 256 << 10, block_cache_bytes: 1 << 20, ..TableOptions::default() }
}

fn noisy_rows(kind: &str, count: u64) -> Vec<Row> {
    (0..count).map(|at| (bytes(&format!("{kind}{at:05}")), noise(at, 1000).into())).collect()
}

/// A small table with 4 MB of rows.
fn filled(path: &Path) -> (Arc<dyn Table>, Vec<Row>) {
    let table = open_table(path, &small()).unwrap();
    let rows = noisy_rows("old", 4000);
    for piece in rows.chunks(100) {
        table.write(piece.iter().cloned().map(|(key, value)| Change::Put(key, value)).collect());
    }
    wait_for_sorted_files(path);
    (table, rows)
}

#[tokio::test]
async fn a_snapshot_far_larger_than_the_write_buffer_is_switched_to() {
    let root = tempfile::tempdir().unwrap();
    let (table, _) = filled(root.path());
    let new = noisy_rows("new", 2000);
    table.stage_start();
    for piece in new.chunks(100) {
        table.stage(piece.to_vec());
    }
    table.switch(EntryId::new(1, 1)).await;
    assert!(table.scan(b"", None, ALL) == new, "rows differ from the snapshot");
    drop(table);
    let table = open_table(root.path(), &small()).unwrap();
    assert!(table.scan(b"", None, ALL) == new, "rows differ from the snapshot");
}

#[tokio::test]
async fn files_of_an_old_generation_stay_under_a_view_and_go_after_it() {
    let root = tempfile::tempdir().unwrap();
    let (table, old) = filled(root.path());
    let view = table.view();
    let new = noisy_rows("new", 10);
    table.stage_start();
    table.stage(new.clone());
    table.switch(EntryId::new(1, 1)).await;
    table.flush().await;
    assert!(view.scan(b"", None, ALL) == old, "a view lost rows");
    drop(view);
    let size = |name: String| std::fs::metadata(root.path().join(name)).map_or(0, |file| file.len());
    let bytes =
        || -> u64 { names(root.path()).into_iter().filter(|name| name.ends_with(".sst")).map(size).sum() };
    let mut flushes = 0;
    while bytes() > 1 << 20 {
        assert!(flushes < 10, "{} bytes on disk for ten rows", bytes());
        flushes += 1;
        table.flush().await;
        wait_for_sorted_files(root.path());
    }
    assert!(table.scan(b"", None, ALL) == new, "rows differ from the snapshot");
}

#[tokio::test]
async fn a_sorted_file_that_is_gone_refuses_to_open() {
    let root = tempfile::tempdir().unwrap();
    let (table, _) = filled(root.path());
    table.flush().await;
    drop(table);
    let sorted = names(root.path()).into_iter().find(|name| name.ends_with(".sst")).unwrap();
    std::fs::remove_file(root.path().join(sorted)).unwrap();
    let refused = open_table(root.path(), &small()).err().unwrap();
    assert!(matches!(refused, OpenError::Corrupt { .. }), "{refused}");
}

#[test]
fn a_table_of_a_newer_format_is_refused_and_one_without_its_first_row_too() {
    let root = tempfile::tempdir().unwrap();
    drop(open_table(root.path(), &TableOptions::default()).unwrap());
    let put = |key: &[u8], value: &[u8]| {
        let database = ::rocksdb::DB::open_default(root.path()).unwrap();
        if value.is_empty() { database.delete(key) } else { database.put(key, value) }.unwrap();
    };
    let newer = base::codec::encode(&(4_u32, 1_u32, 1_u32, None::<EntryId>, 0_u32));
    put(b"\0\0\0\0generations", &newer);
    let refused = open_table(root.path(), &TableOptions::default()).err().unwrap();
    assert!(matches!(refused, OpenError::NewerFormat { found: 4, supported: 3, .. }), "{refused}");
    put(b"\0\0\0\x01row", b"value");
    put(b"\0\0\0\0generations", b"");
    let refused = open_table(root.path(), &TableOptions::default()).err().unwrap();
    assert!(matches!(refused, OpenError::Corrupt { .. }), "{refused}");
}
