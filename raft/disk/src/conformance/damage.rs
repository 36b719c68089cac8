//! A log of 50 records, and everything that can happen to its files (correctness rules 30, 61, 62):
//! it is opened correctly, or repaired so that nothing is promised twice, or refused with an error
//! that names the damage. Nothing acknowledged is ever lost silently.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use proptest::prelude::*;

use super::log::{next, steps};
use super::wal::{content, load, noisy, one};
use super::{copy_open_files, names};
use crate::wal::steps::{Step, watch};
use crate::wal::{Judged, LogOptions, judge, open_log};
use raft::storage::memory::MemoryDisk;
use raft::storage::{OpenError, Restored, Save};
use raft::types::{Entry, EntryId, HardState, Index, NodeId, Payload, Term};

const SAVES: usize = 50;

fn options() -> LogOptions {
    LogOptions { file_bytes: 1500, keep_bytes: 6000, ..LogOptions::default() }
}

fn small(term: u64, index: u64) -> Entry {
    let Payload::Command(noise) = noisy(index).payload else { unreachable!("noise") };
    Entry::new(EntryId::new(term, index), Payload::Command(noise.slice(..20 + (index as usize * 7) % 40)))
}

/// The save with this number: entries, now and then a truncation, a compaction, a vote.
fn save(number: u64, model: &Restored) -> Save {
    let last = last(model);
    let term = 1 + number / 7;
    let hard_state = HardState { term: Term(term), vote: Some(NodeId(number % 3 + 1)) };
    let mut save = Save { hard_state: number.is_multiple_of(7).then_some(hard_state), ..Save::default() };
    if number % 9 == 5 {
        save.truncate_from = Some(last.index);
        save.entries = vec![small(term, last.index.0), small(term, last.index.0 + 1)];
    } else if number % 20 == 13 {
        save.marker = model.entries.get(model.entries.len() / 2).map(|entry| entry.id);
    } else if number > 0 {
        save.entries = vec![small(term, last.index.0 + 1)];
    }
    save
}

fn last(model: &Restored) -> EntryId {
    model.entries.last().map_or(model.marker, |entry| entry.id)
}

/// A closed log, its content after each save, and the file of its mark after each.
struct Made {
    path: PathBuf,
    states: Vec<Restored>,
    tails: Vec<Vec<u8>>,
    _root: tempfile::TempDir,
}

fn made() -> Made {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("raft");
    let mut log = open_log(&path, &options()).unwrap();
    // What the log should hold is what a disk in memory does.
    let memory = MemoryDisk::new();
    let (mut model, _table) = memory.open();
    log.load().unwrap();
    let (mut states, mut tails) = (vec![Restored::default()], vec![fs::read(path.join("tail")).unwrap()]);
    for number in 0..SAVES as u64 {
        let save = save(number, states.last().unwrap());
        futures::executor::block_on(log.save(&save));
        futures::executor::block_on(model.save(&save));
        states.push(memory.restored());
        tails.push(fs::read(path.join("tail")).unwrap());
    }
    drop(log);
    assert!(content(&path).len() > 3, "too few files");
    Made { path, states, tails, _root: root }
}

/// The promise of a log in this state that lost something.
fn promise(state: &Restored) -> EntryId {
    state.promised.max(last(state))
}

impl Made {
    /// The mark is that after this save.
    fn mark(&self, save: usize) {
        fs::write(self.path.join("tail"), &self.tails[save]).unwrap();
    }

    /// Checks that the opened log holds everything that was acknowledged up to the save `known`, or
    /// says that it does not; if `all`, up to the last save.
    fn check(&self, found: &Judged, known: usize, all: bool, what: &str) {
        let since = if all { &self.states[SAVES..] } else { &self.states[known..] };
        let Judged { restored, damage } = found;
        let right = match damage {
            None => since.contains(restored),
            Some(_) => {
                let told = |state: &Restored| {
                    (restored.hard_state, restored.promised) == (state.hard_state, promise(state))
                };
                let was = |state: &Restored| {
                    state.marker == restored.marker && state.entries.starts_with(&restored.entries)
                };
                since.iter().any(told) && self.states.iter().any(was)
            }
        };
        assert!(right, "{what}, mark {known}: {found:?}");
    }

    /// Applies `harm`, judges, and repairs; returns whether it could be opened.
    fn judged(&self, known: usize, all: bool, what: &str) -> bool {
        match judge(&self.path) {
            Ok(found) => {
                self.check(&found, known, all, what);
                true
            }
            Err(OpenError::Corrupt { .. }) => false,
            Err(error) => panic!("{what}: {error}"),
        }
    }
}

fn write_at(path: &Path, at: usize, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at as u64).unwrap();
}

/// Where the records of a file end: what is after was never written.
fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

#[test]
fn every_flipped_bit_is_opened_right_or_repaired_and_refused_only_if_nobody_knows_what_was_promised() {
    let made = made();
    // The mark of the last save; and older ones, and none, as a power cut may leave them.
    for known in [SAVES, SAVES - 1, 40, 3, 0] {
        made.mark(known);
        for (name, bytes) in content(&made.path) {
            let file = made.path.join(&name);
            // Each bit for two of the marks; for the others some.
            let is_each = [SAVES, 40].contains(&known);
            let bits = (0..bytes.len() * 8).filter(|bit| is_each || bit % 25 == 0);
            for bit in bits {
                write_at(&file, bit / 8, &[bytes[bit / 8] ^ 1 << (bit % 8)]);
                let opened = made.judged(known, true, &format!("{name}, bit {bit}"));
                let is_written = bit / 8 < used(&bytes);
                assert!(opened || known < SAVES || !is_written, "{name}, bit {bit}: not repaired");
                write_at(&file, bit / 8, &bytes[bit / 8..][..1]);
            }
        }
    }
    // The mark itself is damaged: the log is sound, and the mark is rewritten.
    for bit in 0..made.tails[SAVES].len() * 8 {
        let mut bad = made.tails[SAVES].clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fs::write(made.path.join("tail"), bad).unwrap();
        assert_eq!(judge(&made.path).unwrap().restored, made.states[SAVES], "bit {bit} of the mark");
    }
    made.mark(SAVES);
    assert!(judge(&made.path).unwrap().damage.is_none());
}

#[test]
fn every_cut_and_every_zeroed_tail_is_repaired_and_loses_at_most_what_the_mark_did_not_know() {
    let made = made();
    let files: Vec<(String, Vec<u8>)> = content(&made.path).into_iter().collect();
    for known in [SAVES, SAVES - 1, 40, 0] {
        made.mark(known);
        for (at, (name, bytes)) in files.iter().enumerate() {
            let file = made.path.join(name);
            // Each for two of the marks; for the others some.
            let step = if [SAVES, 40].contains(&known) { 1 } else { 17 };
            for cut in (0..bytes.len()).step_by(step) {
                // Short by all that follows; it has its length, and zeros; and so have all files after it. (Files are
                // used in the order of their numbers here, but for the last ones.)
                File::options().write(true).open(&file).unwrap().set_len(cut as u64).unwrap();
                let what = format!("{name} cut at {cut}");
                let is_refused = !made.judged(known, false, &what) && known == SAVES && cut < used(bytes);
                File::options().write(true).open(&file).unwrap().set_len(bytes.len() as u64).unwrap();
                // Refused only if the part that is cut away was left over from an earlier use: then
                // no record is lost.
                let is_whole = || judge(&made.path).is_ok_and(|found| found.damage.is_none());
                assert!(!is_refused || is_whole(), "{what}: not repaired");
                let opened = made.judged(known, false, &format!("{name} zeroed from {cut} on"));
                assert!(opened || known < SAVES, "{name} zeroed from {cut} on: not repaired");
                if cut % 32 < step {
                    for (name, bytes) in &files[at + 1..] {
                        fs::write(made.path.join(name), vec![0; bytes.len()]).unwrap();
                    }
                    let opened = made.judged(known, false, &format!("all zeros from {name} {cut} on"));
                    assert!(opened || known < SAVES, "all zeros from {name} {cut} on: not repaired");
                    for (name, bytes) in &files[at + 1..] {
                        fs::write(made.path.join(name), bytes).unwrap();
                    }
                }
                fs::write(&file, bytes).unwrap();
            }
        }
    }
}

/// What a start makes of it is what was judged; and it stays so.
#[test]
fn a_repaired_log_is_opened_again_and_the_damaged_one_is_kept() {
    let found = |harm: &dyn Fn(&Path)| {
        let made = made();
        harm(&made.path.join(content(&made.path).keys().next().unwrap()));
        let judged = judge(&made.path).unwrap();
        assert!(judged.damage.is_some());
        made.check(&judged, SAVES, true, "a file with records");
        let restored = load(&made.path).unwrap();
        assert_eq!(restored, judged.restored);
        assert_eq!(names(made.path.parent().unwrap()), ["raft", "raft.damaged-0"]);
        // It continues, and owes what it owed until it learns otherwise.
        let mut log = open_log(&made.path, &options()).unwrap();
        assert_eq!(log.load().unwrap(), restored);
        let (term, next) = (restored.hard_state.term, last(&restored).index.next());
        let entry = |index| Entry { id: EntryId { term, index }, ..small(1, 1) };
        futures::executor::block_on(log.save(&Save { entries: vec![entry(next)], ..Save::default() }));
        drop(log);
        assert_eq!(load(&made.path).unwrap().promised, restored.promised);
        let mut log = open_log(&made.path, &options()).unwrap();
        log.load().unwrap();
        let settled = Save { promised: Some(EntryId::ZERO), ..Save::default() };
        futures::executor::block_on(log.save(&settled));
        drop(log);
        assert_eq!(load(&made.path).unwrap().promised, EntryId::ZERO);
    };
    for at in [3, 200, 700] {
        found(&|file| {
            let byte = fs::read(file).unwrap()[at];
            write_at(file, at, &[byte ^ 4]);
        });
    }
    found(&|file| fs::remove_file(file).unwrap());
    found(&|file| fs::write(file, "nothing of it").unwrap());
}

/// A file of the log, or the manifest, is an older version: as when some files are restored from a
/// copy.
#[test]
fn files_of_another_day_are_repaired_or_refused() {
    let made = made();
    let (path, root) = (&made.path, made.path.parent().unwrap());
    let old = root.join("old");
    copy(path, &old);
    let mut log = open_log(path, &options()).unwrap();
    log.load().unwrap();
    let mut state = made.states[SAVES].clone();
    for index in last(&state).index.0 + 1..last(&state).index.0 + 40 {
        let entry = small(state.hard_state.term.0, index);
        futures::executor::block_on(log.save(&Save { entries: vec![entry.clone()], ..Save::default() }));
        state.entries.push(entry);
    }
    drop(log);
    for name in names(&old) {
        let new = fs::read(path.join(&name)).ok();
        fs::copy(old.join(&name), path.join(&name)).unwrap();
        match judge(path) {
            Ok(Judged { restored, damage: None }) => assert_eq!(restored, state, "{name}"),
            Ok(Judged { restored, damage: Some(_) }) => {
                assert_eq!(
                    (restored.hard_state, restored.promised),
                    (state.hard_state, promise(&state)),
                    "{name}"
                );
            }
            Err(OpenError::Corrupt { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        match new {
            Some(new) => fs::write(path.join(&name), new).unwrap(),
            None => fs::remove_file(path.join(&name)).unwrap(),
        }
    }
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (at, name) = (entry.as_ref().unwrap().path(), entry.unwrap().file_name());
        if at.is_dir() {
            copy(&at, &to.join(name));
        } else {
            fs::copy(&at, to.join(name)).unwrap();
        }
    }
}

/// Copies the directory `from` at each step that `what` makes on this thread.
fn copied_at_each_step(
    (from, to): (&Path, &Path),
    copy: fn(&Path, &Path),
    what: impl FnOnce(),
) -> Vec<(Step, PathBuf)> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let (source, target, steps) = (from.to_owned(), to.to_owned(), Rc::clone(&seen));
    watch(Some(Box::new(move |step| {
        let mut steps = steps.borrow_mut();
        let at = target.join(steps.len().to_string());
        copy(&source, &at);
        steps.push((step, at));
    })));
    what();
    watch(None);
    seen.take()
}

#[test]
fn a_kill_at_any_step_of_a_repair_ends_in_the_same_log() {
    let made = made();
    let (name, _) = content(&made.path).into_iter().next().unwrap();
    write_at(&made.path.join(&name), 300, &[0x55, 0xAA]);
    let judged = judge(&made.path).unwrap();
    assert!(judged.damage.is_some());
    let root = made.path.parent().unwrap();
    let copies = tempfile::tempdir().unwrap();
    let steps = copied_at_each_step((root, copies.path()), copy, || {
        assert_eq!(load(&made.path).unwrap(), judged.restored);
    });
    let passed: Vec<Step> = steps.iter().map(|(step, _)| *step).collect();
    for step in [Step::RepairBegun, Step::Written, Step::RepairWritten, Step::RepairHalfway, Step::Repaired] {
        assert!(passed.contains(&step), "{passed:?}");
    }
    for (step, at) in steps {
        let path = at.join("raft");
        assert_eq!(judge(&path).unwrap().restored, judged.restored, "judged at {step:?}");
        assert_eq!(load(&path).unwrap(), judged.restored, "killed at {step:?}");
        assert_eq!(load(&path).unwrap(), judged.restored, "and once more");
        assert_eq!(names(&at), ["raft", "raft.damaged-0"], "killed at {step:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The process dies between a record, its sync and its mark; or the power fails there, and any
    /// part of the unsynced bytes is on the disk. The save happened or did not, and nothing looks
    /// damaged (rule 61).
    #[test]
    fn a_kill_or_a_power_cut_at_any_step_of_a_save_is_no_damage(steps in steps()) {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("raft");
        let mut log = open_log(&path, &options()).unwrap();
        log.load().unwrap();
        let mut model = Restored::default();
        for step in &steps {
            let (old, before) = (model.clone(), content(&path));
            let save = next(&mut model, step);
            let copies = root.path().join("copies");
            let _ = fs::remove_dir_all(&copies);
            let seen = copied_at_each_step((&path, &copies), copy_open_files, || futures::executor::block_on(log.save(&save)));
            let last = seen.len() - 1;
            for (at, (step, copy)) in seen.into_iter().enumerate() {
                let found = judge(&copy).unwrap();
                prop_assert_eq!(&found.damage, &None);
                // The first three may be those of a new file's head.
                let happened = found.restored == model;
                prop_assert!(happened || found.restored == old);
                prop_assert!(happened || at < last, "{:?}", step);
                // Before the sync nothing of the record need be there; the mark may be.
                if step == Step::Written && at < 3 {
                    for (name, bytes) in &before {
                        let (at, mut bytes) = (copy.join(name), bytes.clone());
                        // A file that was just being made is made by now.
                        bytes.resize(fs::metadata(&at).map_or(0, |made| made.len() as usize).max(bytes.len()), 0);
                        fs::write(at, bytes).unwrap();
                    }
                    let found = judge(&copy);
                    prop_assert!(found.is_ok_and(|found| found.damage.is_none() && found.restored == old));
                }
            }
        }
    }

    /// Any bytes of any files are damaged.
    #[test]
    fn bytes_that_went_bad_never_make_another_log(
        steps in steps(),
        bad in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..40),
    ) {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("raft");
        let mut log = open_log(&path, &options()).unwrap();
        log.load().unwrap();
        let mut model = Restored::default();
        let mut ever = BTreeMap::new();
        for step in &steps {
            let save = next(&mut model, step);
            ever.extend(save.entries.iter().map(|entry| (entry.id, entry.clone())));
            futures::executor::block_on(log.save(&save));
        }
        drop(log);
        let mut files: Vec<(String, Vec<u8>)> = content(&path).into_iter().collect();
        files.push(("tail".to_owned(), fs::read(path.join("tail")).unwrap()));
        for (bad, bits) in bad {
            let mut at = bad.index(files.iter().map(|(_, bytes)| bytes.len()).sum());
            let (name, bytes) = files.iter().find(|(_, bytes)| {
                let here = at < bytes.len();
                at -= if here { 0 } else { bytes.len() };
                here
            }).unwrap();
            write_at(&path.join(name), at, &[bytes[at] ^ bits]);
            match judge(&path) {
                Ok(Judged { restored, damage: None }) => prop_assert_eq!(&restored, &model),
                Ok(Judged { restored, damage: Some(_) }) => {
                    prop_assert_eq!(restored.hard_state, model.hard_state);
                    prop_assert!(restored.promised >= promise(&model), "{:?}", restored);
                    prop_assert!(restored.entries.iter().all(|entry| ever.get(&entry.id) == Some(entry)));
                }
                Err(error) => prop_assert!(matches!(error, OpenError::Corrupt { .. }), "{}", error),
            }
            write_at(&path.join(name), at, &bytes[at..][..1]);
        }
    }
}

/// Rule 62: a promise outlives the files in which it was saved.
#[test]
fn a_promise_is_carried_into_each_new_file() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("raft");
    let mut log = open_log(&path, &options()).unwrap();
    log.load().unwrap();
    let promised = EntryId::new(9, 99);
    let hard_state = Some(HardState { term: Term(9), vote: None });
    futures::executor::block_on(async {
        log.save(&Save { hard_state, promised: Some(promised), ..Save::default() }).await;
        for index in 1..=60 {
            log.save(&one(index)).await;
            let marker = Some(EntryId::new(1, index));
            log.save(&Save { marker, ..Save::default() }).await;
        }
    });
    drop(log);
    let restored = load(&path).unwrap();
    assert_eq!((restored.promised, restored.marker.index), (promised, Index(60)));
}
