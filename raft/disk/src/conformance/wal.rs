//! What can happen only to a log in real files (correctness rules 30 and 31).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::log::{next, steps};
use super::{Disk, RealDisk, copy_open_files, entries, names, short};
use crate::wal::{LogOptions, open_log};
use raft::storage::{OpenError, Restored, Save};
use raft::types::{Entry, EntryId, HardState, Index, Payload, Term};

pub(super) const TERM: Save = Save {
    hard_state: Some(HardState { term: Term(1), vote: None }),
    truncate_from: None,
    entries: Vec::new(),
    marker: None,
    promised: None,
    more: base::codec::Denied::NONE,
};

pub(super) fn noisy(index: u64) -> Entry {
    let command = (0..200_u64).map(|at| (index * 7919 + at * 104_729) as u8).collect::<Vec<_>>();
    Entry::new(EntryId::new(1, index), Payload::Command(command.into()))
}

pub(super) fn one(index: u64) -> Save {
    Save { entries: vec![noisy(index)], ..Save::default() }
}

fn compact(index: u64) -> Save {
    Save { marker: Some(EntryId::new(1, index)), ..Save::default() }
}

pub(super) fn load(path: &Path) -> Result<Restored, OpenError> {
    open_log(path, &LogOptions { create: false, ..short() })?.load()
}

/// Without a mark damage is not repaired, because the promise is unknown. (With a mark:
/// `damage.rs`.)
fn refused(path: &Path) -> String {
    let _ = std::fs::remove_file(path.join("tail"));
    match load(path) {
        Err(error @ OpenError::Corrupt { .. }) => error.to_string(),
        other => panic!("not refused as damaged: {other:?}"),
    }
}

/// A closed log of 20 entries in several files, each saved separately.
struct Closed {
    path: PathBuf,
    _root: tempfile::TempDir,
}

impl Closed {
    fn path(&self) -> &Path {
        &self.path
    }
}

fn closed(options: &LogOptions) -> Closed {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("raft");
    let mut log = open_log(&path, options).unwrap();
    log.load().unwrap();
    futures::executor::block_on(async {
        log.save(&TERM).await;
        for index in 1..=20 {
            log.save(&one(index)).await;
        }
    });
    Closed { path, _root: root }
}

/// The files of a log and their content.
pub(super) fn content(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let logs = names(directory).into_iter().filter(|name| name.ends_with(".log"));
    logs.map(|name| (name.clone(), std::fs::read(directory.join(name)).unwrap())).collect()
}

fn flip(file: &Path, at: usize) {
    let mut content = std::fs::read(file).unwrap();
    content[at] ^= 0x40;
    std::fs::write(file, content).unwrap();
}

/// The file and position of `what`; the last one, if there are several.
fn find(directory: &Path, what: &Entry) -> (String, usize) {
    let Payload::Command(command) = &what.payload else { panic!("an empty entry") };
    let found = content(directory).into_iter().find_map(|(name, bytes)| {
        bytes.windows(command.len()).rposition(|window| window == command).map(|at| (name, at))
    });
    found.unwrap()
}

#[test]
fn a_byte_flipped_in_the_middle_of_the_log_refuses_to_open() {
    for index in 1..20 {
        let log = closed(&short());
        let (name, at) = find(log.path(), &noisy(index));
        flip(&log.path().join(&name), at + 100);
        let text = refused(log.path());
        assert!(text.contains("record"), "{text}");
    }
}

/// A power cut may leave any sectors of a record that spans several, and it has no mark.
#[test]
fn a_torn_last_record_was_never_acknowledged_and_is_dropped() {
    let options = LogOptions { file_bytes: 4000, ..short() };
    let log = closed(&options);
    let tail = std::fs::read(log.path().join("tail")).unwrap();
    let big = Entry::new(EntryId::new(1, 21), Payload::Command(vec![7; 2000].into()));
    let mut open = open_log(log.path(), &options).unwrap();
    open.load().unwrap();
    futures::executor::block_on(open.save(&Save { entries: vec![big.clone()], ..Save::default() }));
    drop(open);
    let (name, at) = find(log.path(), &big);
    let file = log.path().join(&name);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[(at + 600).next_multiple_of(SECTOR)..][..SECTOR].fill(0);
    std::fs::write(&file, bytes).unwrap();
    std::fs::write(log.path().join("tail"), tail).unwrap();
    assert_eq!(load(log.path()).unwrap().entries, (1..=20).map(noisy).collect::<Vec<_>>());
    // The next write replaces it.
    let mut reopened = open_log(log.path(), &options).unwrap();
    reopened.load().unwrap();
    futures::executor::block_on(reopened.save(&Save { entries: entries(1, 21, 21), ..Save::default() }));
    drop(reopened);
    assert_eq!(load(log.path()).unwrap().entries[20], entries(1, 21, 21)[0]);
}

#[test]
fn a_file_that_is_gone_or_of_another_length_refuses_to_open() {
    let log = closed(&short());
    assert!(content(log.path()).len() > 4, "too few files");
    for (name, bytes) in content(log.path()) {
        let file = log.path().join(&name);
        std::fs::remove_file(&file).unwrap();
        assert!(refused(log.path()).contains("gone"));
        for length in [0, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(&file, &bytes[..length]).unwrap();
            assert!(refused(log.path()).contains("bytes long"));
        }
        std::fs::write(&file, bytes).unwrap();
    }
    assert_eq!(load(log.path()).unwrap().entries.len(), 20);
}

#[test]
fn a_file_whose_first_record_went_bad_refuses_to_open() {
    let log = closed(&short());
    for name in content(log.path()).keys() {
        for at in [0, 9, 30] {
            flip(&log.path().join(name), at);
            refused(log.path());
            flip(&log.path().join(name), at);
        }
    }
    assert_eq!(load(log.path()).unwrap().entries.len(), 20);
}

#[test]
fn a_manifest_of_another_log_or_of_another_day_refuses_to_open() {
    let (one, two) = (closed(&short()), closed(&short()));
    let manifest = |log: &Closed| log.path().join("manifest");
    std::fs::copy(manifest(&one), manifest(&two)).unwrap();
    refused(two.path());
    // One that does not name the newest files yet.
    let early = std::fs::read(manifest(&one)).unwrap();
    let mut log = open_log(one.path(), &short()).unwrap();
    log.load().unwrap();
    for index in 21..=40 {
        futures::executor::block_on(log.save(&self::one(index)));
    }
    drop(log);
    let late = std::fs::read(manifest(&one)).unwrap();
    std::fs::write(manifest(&one), early).unwrap();
    refused(one.path());
    std::fs::write(manifest(&one), late).unwrap();
    assert_eq!(load(one.path()).unwrap().entries.len(), 40);
}

#[test]
fn files_that_a_crash_left_half_made_or_half_removed_go() {
    let log = closed(&short());
    let kept = names(log.path());
    std::fs::write(log.path().join("98.log"), vec![0; 300]).unwrap();
    std::fs::copy(log.path().join("0.log"), log.path().join("99.log")).unwrap();
    assert_eq!(load(log.path()).unwrap().entries.len(), 20);
    assert_eq!(names(log.path()), kept);
}

/// Rule 104. A next file that is a link to a full device cannot be filled.
#[test]
fn a_next_file_that_cannot_be_made_ends_nobody_while_the_present_one_has_room() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("raft");
    let options = LogOptions { file_bytes: 8000, ..short() };
    let mut log = open_log(&path, &options).unwrap();
    log.load().unwrap();
    let obstacle = path.join("1.log");
    std::os::unix::fs::symlink("/dev/full", &obstacle).unwrap();
    let mut save = |save: &Save| {
        futures::executor::block_on(log.save(save));
        // So the thread that makes the next file has ended when the log checks it.
        std::thread::sleep(Duration::from_millis(5));
    };
    save(&TERM);
    (1..=20).for_each(|index| save(&one(index)));
    // The partial file was removed, so the next attempt made a real one.
    assert!(!obstacle.is_symlink());
    (21..=100).for_each(|index| save(&one(index)));
    drop(log);
    assert!(names(&path).len() > 3 && obstacle.is_file(), "{:?}", names(&path));
    assert_eq!(load(&path).unwrap().entries.len(), 100);
}

/// Rule 104. A directory in the place of the new manifest prevents its writing, as a full disk
/// does.
#[test]
fn files_that_cannot_be_removed_end_nobody_and_are_removed_later() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("raft");
    let options = LogOptions { file_bytes: 4000, keep_bytes: 9000, ..short() };
    let mut log = open_log(&path, &options).unwrap();
    log.load().unwrap();
    let mut save = |save: &Save| {
        futures::executor::block_on(log.save(save));
        // Nothing is removed while a file is being made.
        std::thread::sleep(Duration::from_millis(5));
    };
    save(&TERM);
    (1..=100).for_each(|index| save(&one(index)));
    let obstacle = path.join("manifest.partial");
    // Not while the thread that makes files writes there.
    let until = Instant::now() + Duration::from_secs(10);
    while let Err(error) = std::fs::create_dir(&obstacle) {
        assert!(Instant::now() < until, "{error}");
    }
    save(&compact(95));
    (101..=102).for_each(|index| save(&one(index)));
    let many = names(&path).len();
    assert!(many > 5, "{:?}", names(&path));
    std::fs::remove_dir(&obstacle).unwrap();
    let last = (103..=300).find(|index| {
        save(&one(*index));
        names(&path).len() < many - 3
    });
    let last = last.unwrap_or_else(|| panic!("{:?}", names(&path)));
    drop(log);
    let restored = load(&path).unwrap();
    assert_eq!((restored.marker.index, restored.entries.len() as u64), (Index(95), last - 95));
}

#[test]
fn two_files_that_changed_places_are_what_they_were() {
    let log = closed(&short());
    let (one, two) = (log.path().join("0.log"), log.path().join("1.log"));
    let (first, second) = (std::fs::read(&one).unwrap(), std::fs::read(&two).unwrap());
    assert_eq!(first.len(), second.len());
    std::fs::write(&one, &second).unwrap();
    std::fs::write(&two, &first).unwrap();
    assert_eq!(load(log.path()).unwrap().entries.len(), 20);
    // One of them twice is not.
    std::fs::write(&one, &first).unwrap();
    refused(log.path());
}

#[test]
fn a_manifest_with_any_byte_changed_refuses_to_open() {
    let log = closed(&short());
    let manifest = log.path().join("manifest");
    let good = std::fs::read(&manifest).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&manifest, &bad).unwrap();
        let refused = load(log.path()).expect_err("must be refused");
        assert!(!matches!(refused, OpenError::Unavailable { .. }), "{refused}");
    }
    std::fs::remove_file(&manifest).unwrap();
    assert!(refused(log.path()).contains("gone"));
}

#[test]
fn an_entry_that_contradicts_the_log_names_what_is_wrong() {
    let root = tempfile::tempdir().unwrap();
    let after = |save: Save| {
        let path = root.path().join("log");
        let _ = std::fs::remove_dir_all(&path);
        let mut log = open_log(&path, &short()).unwrap();
        log.load().unwrap();
        futures::executor::block_on(log.save(&save));
        drop(log);
        refused(&path)
    };
    let text = after(Save { entries: entries(1, 1, 2), ..Save::default() });
    assert!(text.contains("later term than the current one"), "{text}");
    let text = after(Save { entries: [entries(1, 1, 2), entries(1, 4, 4)].concat(), ..TERM });
    assert!(text.contains("entry 3 is missing"), "{text}");
    let text = after(Save { entries: [entries(1, 1, 1), entries(0, 2, 2)].concat(), ..TERM });
    assert!(text.contains("terms fall"), "{text}");
}

#[tokio::test]
async fn compacted_entries_leave_the_disk_and_their_files_are_used_again() {
    let root = tempfile::tempdir().unwrap();
    let (path, killed) = (root.path().join("open"), root.path().join("killed"));
    let options = LogOptions { file_bytes: 4000, keep_bytes: 16_000, ..LogOptions::default() };
    let mut log = open_log(&path, &options).unwrap();
    log.load().unwrap();
    log.save(&TERM).await;
    // More than is kept, at once.
    for index in 1..=500 {
        log.save(&one(index)).await;
    }
    assert!(names(&path).len() > 25);
    log.save(&compact(490)).await;
    let mut before = None;
    for round in 0..40 {
        for index in 501 + round * 20..=520 + round * 20 {
            log.save(&one(index)).await;
        }
        log.save(&compact(510 + round * 20)).await;
        let files = names(&path);
        // Nothing is removed as long as a file is being made, which takes time.
        if round > 5 {
            assert!(files.len() <= 6, "{files:?}");
            assert_eq!(*before.get_or_insert(files.clone()), files, "round {round}");
        }
    }
    copy_open_files(&path, &killed);
    let restored = load(&killed).unwrap();
    assert_eq!(restored.marker, EntryId::new(1, 1290));
    assert_eq!(restored.entries, (1291..=1300).map(noisy).collect::<Vec<_>>());
}

#[tokio::test]
async fn copies_of_records_in_a_torn_record_are_not_taken_for_records() {
    let root = tempfile::tempdir().unwrap();
    let options = LogOptions { file_bytes: 2000, keep_bytes: 8000, ..LogOptions::default() };
    let mut log = open_log(root.path(), &options).unwrap();
    log.load().unwrap();
    log.save(&TERM).await;
    for index in 1..=3 {
        log.save(&one(index)).await;
    }
    let copy = std::fs::read(root.path().join("0.log")).unwrap();
    for shift in 0..8 {
        let command = [&vec![0; shift][..], &copy[..800]].concat();
        let last = Entry::new(EntryId::new(1, 4), Payload::Command(command.into()));
        let tail = std::fs::read(root.path().join("tail")).unwrap();
        log.save(&Save { entries: vec![last.clone()], truncate_from: Some(Index(4)), ..Save::default() })
            .await;
        drop(log);
        let (name, at) = find(root.path(), &last);
        // Two bits: it was torn, and has no mark.
        flip(&root.path().join(&name), at + 790);
        flip(&root.path().join(name), at + 700);
        std::fs::write(root.path().join("tail"), &tail).unwrap();
        log = open_log(root.path(), &options).unwrap();
        assert_eq!(log.load().unwrap().entries, (1..=3).map(noisy).collect::<Vec<_>>());
    }
}

#[tokio::test]
#[should_panic(expected = "entries continue the log")]
async fn a_log_without_gaps_is_never_given_one() {
    let mut disk = RealDisk::new();
    let (mut log, _table) = disk.open();
    log.load().unwrap();
    log.save(&Save { entries: entries(1, 2, 2), ..Save::default() }).await;
}

#[tokio::test]
#[should_panic(expected = "rule 13")]
async fn what_was_compacted_is_never_truncated() {
    let mut disk = RealDisk::new();
    let (mut log, _table) = disk.open();
    log.load().unwrap();
    let marker = Some(EntryId::new(1, 2));
    log.save(&Save { entries: entries(1, 1, 5), marker, ..Save::default() }).await;
    log.save(&Save { truncate_from: Some(Index(2)), ..Save::default() }).await;
}

/// Bytes that a disk writes completely or not at all.
const SECTOR: usize = 512;

/// The disk in the middle of a write that changed `before` to `after`: the chosen sectors have
/// changed, others not. A file's first sector always has, because its head is synced separately.
fn torn(before: &[u8], after: &[u8], chosen: u64) -> Vec<u8> {
    let mut torn = before.to_vec();
    for (number, at) in (0..after.len()).step_by(SECTOR).enumerate() {
        if at == 0 || chosen >> (number % 64) & 1 == 1 {
            let end = (at + SECTOR).min(after.len());
            torn[at..end].copy_from_slice(&after[at..end]);
        }
    }
    torn
}

/// A log of files of 3,000 bytes, and big entries in it.
fn wide(save: &mut Save) -> LogOptions {
    for entry in &mut save.entries {
        let size = 100 + entry.id.index.0 as usize * 37 % 900;
        *entry = Entry::new(entry.id, Payload::Command(vec![entry.id.index.0 as u8; size].into()));
    }
    LogOptions { file_bytes: 3000, keep_bytes: 9000, ..LogOptions::default() }
}

fn kept(model: &Restored) -> Restored {
    let mut save = Save { entries: model.entries.clone(), ..Save::default() };
    wide(&mut save);
    Restored { entries: save.entries, ..model.clone() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Power fails in the middle of a write, again and again: the log is as before it, or as after
    /// it, and continues.
    #[test]
    fn a_save_that_a_power_cut_interrupts_happened_or_did_not(steps in steps(), chosen: u64, goes_on: u64) {
        let root = tempfile::tempdir().unwrap();
        let life = |number: usize| root.path().join(number.to_string());
        let options = wide(&mut Save::default());
        let (mut model, mut path) = (Restored::default(), life(0));
        let mut log = open_log(&path, &options).unwrap();
        log.load().unwrap();
        for (at, step) in steps.iter().enumerate() {
            let (old, before) = (model.clone(), content(&path));
            let tail = std::fs::read(path.join("tail")).unwrap();
            let mut save = next(&mut model, step);
            wide(&mut save);
            futures::executor::block_on(log.save(&save));
            let copy = life(at + 1);
            copy_open_files(&path, &copy);
            let after = content(&path);
            // Files are removed after a save: then it is durable.
            let durable = before.keys().any(|name| !after.contains_key(name));
            if !durable {
                // The mark is written after the record.
                std::fs::write(copy.join("tail"), tail).unwrap();
            }
            for (name, after) in after.into_iter().filter(|_| !durable) {
                let zeros = vec![0; after.len()];
                let before = before.get(&name).filter(|before| before.len() == after.len()).unwrap_or(&zeros);
                std::fs::write(copy.join(&name), torn(before, &after, chosen.rotate_left(at as u32))).unwrap();
            }
            let mut next_log = open_log(&copy, &options).unwrap();
            let found = next_log.load().unwrap();
            let happened = found == kept(&model);
            prop_assert!(happened || found == kept(&old), "{found:?} is neither {old:?} nor {model:?}");
            if goes_on >> (at % 64) & 1 == 1 {
                (path, log) = (copy, next_log);
                model = if happened { model } else { old };
            }
        }
    }
}
