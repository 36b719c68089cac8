//! What a log keeps below its marker for lagging members (correctness rule 79).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::log::{Step, next, save, steps};
use super::wal::{TERM, noisy, one};
use super::{Disk, MemoryDisk, RealDisk, entries, names, short};
use crate::wal::{LogOptions, judge, open_log};
use raft::storage::{Kept, Log, Restored, Save};
use raft::types::{Entry, EntryId, Index, Payload};

fn compact(index: u64) -> Save {
    Save { marker: Some(EntryId::new(1, index)), ..Save::default() }
}

/// A log of entries 1 to 40 in files of a few, of which nothing above `marker` is compacted.
async fn log_of_40(
    path: &Path,
    options: &LogOptions,
    wanted: u64,
    marker: u64,
) -> (Box<dyn Log>, Arc<dyn Kept>) {
    let mut log = open_log(path, options).unwrap();
    log.load().unwrap();
    let kept = log.kept();
    kept.keep_from(Index(wanted));
    save(&mut *log, TERM).await;
    for index in 1..=40 {
        save(&mut *log, one(index)).await;
        if index == marker {
            save(&mut *log, compact(marker)).await;
        }
    }
    (log, kept)
}

/// Bytes of the log files in a directory.
fn log_bytes(directory: &Path) -> u64 {
    let logs = names(directory).into_iter().filter(|name| name.ends_with(".log"));
    logs.map(|name| directory.join(name).metadata().unwrap().len()).sum()
}

/// All entries after `prev`, read piece by piece.
fn all_after(kept: &dyn Kept, prev: u64, to: u64) -> Option<Vec<Entry>> {
    let mut found: Vec<Entry> = Vec::new();
    while let at = found.last().map_or(prev, |last| last.id.index.0)
        && at < to
    {
        let run = kept.read(Index(at), Index(to), 600)?;
        let expected = if at == 0 { EntryId::ZERO } else { EntryId::new(1, at) };
        assert_eq!(run.prev, expected);
        found.extend(run.entries);
    }
    Some(found)
}

#[tokio::test]
async fn what_is_wanted_is_read_from_the_files_and_goes_when_it_is_not_wanted_any_more() {
    let root = tempfile::tempdir().unwrap();
    let (mut log, kept) = log_of_40(root.path(), &short(), 7, 30).await;
    assert!(kept.first() <= Index(7), "{}", kept.first());
    let expected: Vec<Entry> = (8..=30).map(noisy).collect();
    assert_eq!(all_after(&*kept, 7, 30), Some(expected));
    assert_eq!(kept.read(Index(29), Index(30), 0).unwrap().entries, [noisy(30)], "one at least");
    kept.keep_from(Index::NEVER);
    for index in 41..=50 {
        save(&mut *log, one(index)).await;
    }
    assert!(kept.first() > Index(7));
    assert_eq!(kept.read(Index(7), Index(30), 600), None);
}

/// No save waits for more than a few files.
#[tokio::test]
async fn what_is_not_wanted_any_more_goes_a_few_files_at_a_time() {
    let root = tempfile::tempdir().unwrap();
    let (mut log, kept) = log_of_40(root.path(), &short(), 1, 40).await;
    let files = |path: &Path| names(path).len();
    let first = files(root.path());
    kept.keep_from(Index::NEVER);
    let mut before = first;
    for round in 0..120 {
        // (A file may be made meanwhile, which keeps others from going.)
        if round % 3 == 0 {
            let index = 41 + round / 3;
            let marker = Some(EntryId::new(1, index - 1));
            save(&mut *log, Save { marker, ..one(index) }).await;
        } else {
            log.rest();
        }
        let now = files(root.path());
        assert!(now + 4 >= before, "{} files went at once", before - now);
        before = now;
        std::thread::sleep(std::time::Duration::from_millis(3));
    }
    assert!(before < first - 8, "{before} files of {first} are left");
}

/// A group that takes no writes, because its disks are full, removes what it kept for others.
#[tokio::test]
async fn what_is_not_wanted_any_more_goes_without_another_save() {
    let root = tempfile::tempdir().unwrap();
    let (mut log, kept) = log_of_40(root.path(), &short(), 1, 40).await;
    let before = names(root.path()).len();
    let bytes_before = kept.file_bytes();
    kept.keep_from(Index::NEVER);
    for _ in 0..100 {
        // Nothing is removed while a file is being made, which takes time.
        log.rest();
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(names(root.path()).len() < before - 8, "{before} files before");
    assert!(kept.file_bytes() < bytes_before);
    assert_eq!(kept.file_bytes(), log_bytes(root.path()));
    drop(log);
    let mut log = open_log(root.path(), &short()).unwrap();
    log.load().unwrap();
    assert_eq!(log.kept().file_bytes(), log_bytes(root.path()), "after a restart");
}

#[tokio::test]
async fn a_log_keeps_no_more_than_it_may() {
    let root = tempfile::tempdir().unwrap();
    let options = LogOptions { lagging_bytes_max: 3000, ..short() };
    let (mut log, kept) = log_of_40(root.path(), &options, 1, 38).await;
    for index in 41..=50 {
        save(&mut *log, one(index)).await;
    }
    for _ in 0..100 {
        if kept.first() >= Index(15) {
            break;
        }
        // Nothing is removed while a file is being made, which takes time.
        log.rest();
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let first = kept.first().0;
    assert!((15..38).contains(&first), "{first}");
    assert!(all_after(&*kept, first, 38).is_some());
    assert_eq!(all_after(&*kept, first - 5, 38), None);
}

/// Whatever is written, and however fast: what is kept for a member that takes nothing stays within its bound, which
/// grows with the table.
#[tokio::test]
async fn the_bound_of_what_is_kept_holds_under_any_load() {
    for seed in 0..8 {
        let root = tempfile::tempdir().unwrap();
        let mut random = StdRng::seed_from_u64(seed);
        let options =
            LogOptions { file_bytes: 4000, keep_bytes: 9000, lagging_bytes_max: 20_000, create: true };
        let mut log = open_log(root.path(), &options).unwrap();
        log.load().unwrap();
        let kept = log.kept();
        kept.keep_from(Index(1));
        let table_bytes = [0, 100_000][seed as usize % 2];
        kept.set_table_bytes(table_bytes);
        save(&mut *log, TERM).await;
        let (mut marker, mut most) = (0, 0);
        for index in 1..=600_u64 {
            // Some records are longer than a file.
            let bytes = if random.random_bool(0.05) { 9000 } else { random.random_range(10..2500) };
            let command = Payload::Command(bytes::Bytes::from(vec![index as u8; bytes]));
            let entry = Entry::new(EntryId::new(1, index), command);
            save(&mut *log, Save { entries: vec![entry], ..Save::default() }).await;
            if index > marker + 5 && random.random_bool(0.3) {
                marker = index - random.random_range(0..5);
                save(&mut *log, compact(marker)).await;
            }
            let files = std::fs::read_dir(root.path()).unwrap().map(|file| file.unwrap());
            let logs = files.filter(|file| file.path().extension().is_some_and(|it| it == "log"));
            most = most.max(logs.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum());
        }
        // Besides: what is above the marker, what is always kept, and files that are made or leave.
        let limit = 20_000.max(table_bytes / 2) + 9000 + 10 * 9100 + 8 * 4000;
        assert!(most <= limit, "seed {seed}: {most} bytes, {limit} allowed");
        assert!(kept.bytes_max() == 20_000.max(table_bytes / 2), "{}", kept.bytes_max());
    }
}

/// Kept files do not matter for the log itself: damage to them affects only lagging members.
#[tokio::test]
async fn a_start_does_not_read_what_was_kept_for_others() {
    let root = tempfile::tempdir().unwrap();
    let (log, _) = log_of_40(root.path(), &short(), 1, 36).await;
    drop(log);
    let file = root.path().join("0.log");
    let mut content = std::fs::read(&file).unwrap();
    let noise = content.len() / 2;
    content[noise..].fill(7);
    std::fs::write(&file, content).unwrap();
    let (mut log, restored) = reopened(root.path());
    assert_eq!(restored.entries, (37..=40).map(noisy).collect::<Vec<_>>());
    assert_eq!(log.kept().first(), Index(37), "of that a new life keeps nothing");
    let before = names(root.path()).len();
    save(&mut *log, one(41)).await;
    assert!(names(root.path()).len() < before, "they go");
}

/// Each bit of what it begins with: a file that only a lagging member needs ends no start, and goes.
#[tokio::test]
async fn a_start_does_not_need_the_beginning_of_what_was_kept_for_others() {
    let root = tempfile::tempdir().unwrap();
    let (log, _) = log_of_40(root.path(), &short(), 1, 36).await;
    drop(log);
    let expected: Vec<Entry> = (37..=40).map(noisy).collect();
    let path = root.path().join("0.log");
    let whole = std::fs::read(&path).unwrap();
    for bit in 0..8 * 100 {
        let mut content = whole.clone();
        content[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, &content).unwrap();
        let judged = judge(root.path()).unwrap();
        assert_eq!((judged.restored.entries, judged.damage), (expected.clone(), None), "bit {bit}");
    }
    // Two of them, with nothing left of the first sectors.
    for file in ["0.log", "3.log"] {
        let path = root.path().join(file);
        let mut content = std::fs::read(&path).unwrap();
        content[..512].fill(7);
        std::fs::write(&path, &content).unwrap();
    }
    let (mut log, restored) = reopened(root.path());
    assert_eq!((restored.entries, log.unreadable_files()), (expected, 2));
    save(&mut *log, one(41)).await;
    drop(log);
    assert!(!path.exists(), "it goes");
    let (log, restored) = reopened(root.path());
    assert_eq!((restored.entries.len(), log.unreadable_files()), (5, 0));
}

/// Where nobody can tell that a file is not needed, the log refuses as before.
#[tokio::test]
async fn a_file_that_cannot_be_read_is_missed_if_the_mark_is_gone_too() {
    let root = tempfile::tempdir().unwrap();
    let (log, _) = log_of_40(root.path(), &short(), 1, 36).await;
    drop(log);
    let file = root.path().join("0.log");
    let mut content = std::fs::read(&file).unwrap();
    content[0] ^= 1;
    std::fs::write(&file, content).unwrap();
    std::fs::remove_file(root.path().join("tail")).unwrap();
    assert!(judge(root.path()).is_err());
    assert!(open_log(root.path(), &short()).unwrap().load().is_err());
}

#[tokio::test]
async fn entries_that_went_bad_in_a_file_are_not_read() {
    let root = tempfile::tempdir().unwrap();
    let (_log, kept) = log_of_40(root.path(), &short(), 1, 36).await;
    let file = root.path().join("0.log");
    let mut content = std::fs::read(&file).unwrap();
    let noise = content.len() / 2;
    content[noise..].fill(7);
    std::fs::write(&file, content).unwrap();
    assert_eq!(all_after(&*kept, 0, 36), None);
    assert!(kept.first() > Index(1), "nobody asks for them again");
}

fn reopened(path: &Path) -> (Box<dyn Log>, Restored) {
    let mut log = open_log(path, &short()).unwrap();
    let restored = log.load().unwrap();
    (log, restored)
}

/// While the oldest files are reused, a read returns the right entries, or nothing.
#[tokio::test]
async fn a_reader_is_never_given_anything_wrong_while_files_are_used_again() {
    let root = tempfile::tempdir().unwrap();
    let options = LogOptions { lagging_bytes_max: 2000, ..short() };
    let (mut log, kept) = log_of_40(root.path(), &options, 1, 40).await;
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !is_over.load(Ordering::SeqCst) {
                let prev = kept.first();
                if let Some(run) = kept.read(prev, Index(u64::MAX >> 1), 600) {
                    let right = (prev.0 + 1..).map(noisy).take(run.entries.len());
                    assert_eq!(run.entries, right.collect::<Vec<_>>());
                    reads += 1;
                }
            }
            reads
        });
        futures::executor::block_on(async {
            for index in 41..=600 {
                kept.keep_from(Index(1));
                let entries = vec![noisy(index)];
                let marker = Some(EntryId::new(1, index - 1));
                save(&mut *log, Save { entries, marker, ..Save::default() }).await;
            }
        });
        is_over.store(true, Ordering::SeqCst);
        assert!(reader.join().unwrap() > 0);
    });
}

/// Any saves and crashes: the entries that were compacted in this life, after the last jump, are
/// all there, in their last version.
async fn like_the_model(disk: &mut dyn Disk, steps: &[Step]) {
    let (mut model, mut below) = (Restored::default(), Vec::<Entry>::new());
    let mut stores = disk.open();
    stores.0.load().unwrap();
    for step in steps {
        let kept = stores.0.kept();
        kept.keep_from(Index(1));
        let before = model.clone();
        save(&mut *stores.0, next(&mut model, step)).await;
        below.extend(before.entries.into_iter().filter(|entry| entry.id.index <= model.marker.index));
        if below.last().is_some_and(|last| last.id != model.marker) {
            below.clear();
        }
        if matches!(step, Step::Crash) {
            disk.crash();
            drop(stores);
            stores = disk.open();
            stores.0.load().unwrap();
            below.clear();
            continue;
        }
        let Some(first) = below.first().map(|entry| entry.id.index) else { continue };
        assert!(kept.first() <= first, "{step:?}: all from {first} on are wanted, {} is there", kept.first());
        for (at, prev) in below.iter().enumerate().take(below.len() - 1) {
            let run = kept.read(prev.id.index, model.marker.index, 1 << 20).unwrap();
            assert_eq!(run.prev, prev.id);
            assert!(below[at + 1..].starts_with(&run.entries), "{step:?}: {run:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_was_compacted_is_read_as_it_was(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let memory = &mut MemoryDisk::new();
        memory.keep_for_others(1 << 20);
        runtime.block_on(like_the_model(memory, &steps));
        runtime.block_on(like_the_model(&mut RealDisk::new(), &steps));
    }
}

#[tokio::test]
async fn a_snapshot_that_jumps_ahead_leaves_nothing_to_be_read_below_it() {
    let root = tempfile::tempdir().unwrap();
    let (mut log, kept) = log_of_40(root.path(), &short(), 1, 30).await;
    let marker = Some(EntryId::new(3, 50));
    let jump =
        Save { truncate_from: Some(Index(31)), marker, entries: entries(3, 51, 60), ..Save::default() };
    save(&mut *log, jump).await;
    assert_eq!(kept.first(), Index(51));
}
