//! Checking a data directory changes nothing and misses nothing (correctness rule 72).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use raft::storage::{APPLIED_KEY, Applied, Change, JudgeRows, OpenError, Save};
use raft::types::{Entry, EntryId, HardState, NodeId, Payload, Term};
use raft_disk::check::{Report, Verdict, directory};
use raft_disk::directory::{DataDir, Identity};
use raft_disk::rocksdb::TableOptions;
use raft_disk::wal::LogOptions;

/// Every row of the state machine is as long as it should be.
#[derive(Default)]
struct Rows {
    seen: usize,
}

impl JudgeRows for Rows {
    fn row(&mut self, _: &[u8], value: &[u8]) -> Result<(), String> {
        self.seen += 1;
        match value.len() {
            100 => Ok(()),
            bytes => Err(format!("{bytes} bytes")),
        }
    }

    fn end(&mut self) -> Result<(), String> {
        if self.seen < 50 { Err(format!("{} rows", self.seen)) } else { Ok(()) }
    }
}

fn identity() -> Identity {
    let members = [1, 2, 3].map(NodeId).into();
    Identity { cluster: "c".to_owned(), group: 101, node: NodeId(1), members }
}

fn entry(index: u64) -> Entry {
    Entry::new(EntryId::new(1, index), Payload::Command(vec![index as u8; 2000].into()))
}

fn put(at: usize, bytes: usize) -> Change {
    Change::Put(format!("k{at:04}").into_bytes().into(), vec![at as u8; bytes].into())
}

/// A directory with a log of twenty entries and a table to which they were applied up to `applied`.
async fn made(path: &Path, applied: u64, row_bytes: usize) {
    let data = DataDir::open(path, &identity(), true).unwrap();
    let (mut log, table) = data.open_stores(&LogOptions::default(), &TableOptions::default()).unwrap();
    log.load().unwrap();
    let hard_state = Some(HardState { term: Term(1), vote: None });
    log.save(&Save { hard_state, ..Save::default() }).await;
    for index in 1..=20 {
        log.save(&Save { entries: vec![entry(index)], ..Save::default() }).await;
    }
    let id = EntryId::new(1, applied);
    let applied = Change::Put(APPLIED_KEY.into(), base::codec::encode(&Applied { id, hash: 7 }));
    let rows = (0..50).map(|at| put(at, row_bytes)).chain([applied]);
    table.write(rows.collect());
    table.flush().await;
    data.remember(NodeId(2), 77).unwrap();
}

fn judged(path: &Path) -> Result<Report, OpenError> {
    directory(path, &mut Rows::default())
}

/// The parts that are not sound.
fn unsound(path: &Path) -> Vec<(&'static str, Verdict)> {
    let report = judged(path).unwrap();
    let bad = report.parts.iter().filter(|part| part.verdict != Verdict::Sound);
    let bad: Vec<_> = bad.map(|part| (part.part, part.verdict)).collect();
    assert_eq!(report.sound, bad.is_empty(), "{report:?}");
    assert!(report.parts.iter().all(|part| (part.verdict == Verdict::Sound) == part.next.is_empty()));
    bad
}

/// Every file with its content and when it was changed.
fn everything(path: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut found = BTreeMap::new();
    let mut open = vec![path.to_owned()];
    while let Some(path) = open.pop() {
        let data = fs::metadata(&path).unwrap();
        if data.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            found.insert(path, (Vec::new(), data.modified().unwrap()));
        } else {
            found.insert(path.clone(), (fs::read(&path).unwrap(), data.modified().unwrap()));
        }
    }
    found
}

fn flip(path: &Path, at: impl Fn(usize) -> usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = at(bytes.len());
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_sound_directory_is_judged_and_left_as_it_was() {
    let place = tempfile::tempdir().unwrap();
    made(place.path(), 18, 100).await;
    let before = everything(place.path());
    let report = judged(place.path()).unwrap();
    assert!(report.sound, "{report:?}");
    assert_eq!(report.parts.len(), 5);
    let server = report.server.as_ref().unwrap();
    assert_eq!((server.cluster.as_str(), server.group, server.node), ("c", 101, 1));
    assert_eq!(server.members, [1, 2, 3]);
    assert!(report.json().starts_with("{\"directory\":"));
    let after = everything(place.path());
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    assert!(before == after, "something was written");
}

#[tokio::test]
async fn a_directory_that_is_open_or_is_none_is_not_judged() {
    let place = tempfile::tempdir().unwrap();
    assert!(matches!(judged(place.path()), Err(OpenError::Absent { .. })));
    assert!(matches!(judged(&place.path().join("nowhere")), Err(OpenError::Absent { .. })));
    made(place.path(), 18, 100).await;
    let open = DataDir::open(place.path(), &identity(), false).unwrap();
    assert!(matches!(judged(place.path()), Err(OpenError::InUse { .. })));
    drop(open);
    assert_eq!(unsound(place.path()), []);
}

#[tokio::test]
async fn each_part_that_went_bad_is_named() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path();
    made(path, 18, 100).await;
    let sound = everything(path);
    let sorted = sound.keys().find(|file| file.extension().is_some_and(|it| it == "sst")).unwrap();
    let log = sound.keys().find(|file| file.extension().is_some_and(|it| it == "log")).unwrap();
    let damaged = |part| vec![(part, Verdict::Damaged)];
    let cases = [
        (path.join("identity"), 20, damaged("identity")),
        (path.join("peers"), 12, damaged("peers")),
        (sorted.clone(), 500, damaged("table")),
    ];
    for (file, at, expected) in cases {
        flip(&file, |_| at);
        assert_eq!(unsound(path), expected, "{}", file.display());
        fs::write(&file, &sound[&file].0).unwrap();
    }
    // In the midst of the log: what was promised is known, or not.
    flip(log, |_| 9000);
    assert_eq!(unsound(path)[0].0, "log");
    fs::write(log, &sound[log].0).unwrap();
    for (gone, part) in [("raft/manifest", "log"), ("state/CURRENT", "table"), ("identity", "identity")] {
        fs::remove_file(path.join(gone)).unwrap();
        assert_eq!(unsound(path), damaged(part), "without {gone}");
        fs::write(path.join(gone), &sound[&path.join(gone)].0).unwrap();
    }
    assert_eq!(unsound(path), []);
}

#[tokio::test]
async fn rows_that_mean_nothing_and_a_table_ahead_of_its_log_are_told() {
    let place = tempfile::tempdir().unwrap();
    made(place.path(), 18, 99).await;
    assert_eq!(unsound(place.path()), [("table", Verdict::Damaged)]);
    let report = judged(place.path()).unwrap();
    assert!(report.parts[3].found.contains("99 bytes (and 49 more"), "{report:?}");
    let place = tempfile::tempdir().unwrap();
    made(place.path(), 21, 100).await;
    assert_eq!(unsound(place.path()), [("log and table", Verdict::Damaged)]);
}
