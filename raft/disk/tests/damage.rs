//! What a replica does when its disk fails (rules 29, 30): it ends, or it does not start; it never
//! continues with less than it promised.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use raft::rsm::{Parts, Rows, StateMachine, encode_command, start};
use raft::storage::memory::MemoryDisk;
use raft::storage::{Change, OpenError, Read, Restored, Row, Save, ScanLimit};
use raft::transport::memory::Network;
use raft::types::{Entry, EntryId, HardState, Membership, NodeId, Payload, Term};
use raft_disk::rocksdb::{TableOptions, open_table};
use raft_disk::wal::{Judged, LogOptions, judge, open_log};

/// Set in the processes that the tests start.
const DIRECTORY: &str = "DAMAGE_TEST_DIRECTORY";

fn noisy(index: u64, bytes: usize) -> Entry {
    let mut state = index.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    let noise: Vec<u8> = (0..bytes).map(|_| next()).collect();
    Entry::new(EntryId::new(1, index), Payload::Command(noise.into()))
}

fn first_term() -> Save {
    Save { hard_state: Some(HardState { term: Term(1), vote: None }), ..Save::default() }
}

fn one(index: u64, bytes: usize) -> Save {
    Save { entries: vec![noisy(index, bytes)], ..Save::default() }
}

/// Files of 256 KiB.
fn options() -> LogOptions {
    LogOptions { file_bytes: 256 << 10, ..LogOptions::default() }
}

fn load(path: &Path) -> Result<Restored, OpenError> {
    open_log(path, &options())?.load()
}

/// Runs the test `name` of this program as a process of its own, with the shell's settings `limits`.
fn process(name: &str, limits: &str, directory: &Path) -> Output {
    let script = format!("{limits}; exec \"$0\" --exact {name} --nocapture");
    let program = std::env::current_exe().unwrap();
    Command::new("sh").args(["-c", &script]).arg(program).env(DIRECTORY, directory).output().unwrap()
}

/// The child process of the test below; does nothing when run alone.
#[tokio::test]
async fn writes_until_the_disk_fails() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let mut log = open_log(Path::new(&directory), &options()).unwrap();
    log.load().unwrap();
    log.save(&first_term()).await;
    for index in 1..=100 {
        log.save(&one(index, 50_000 * index as usize)).await;
        println!("acknowledged {index}");
    }
}

/// Rule 29: whatever was not written ends the process, with its own exit code and the reason.
#[test]
fn a_write_that_fails_ends_the_process_and_loses_nothing_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    // Files of 2 MiB at most; what goes beyond fails as on a full disk.
    let output = process("writes_until_the_disk_fails", "trap '' XFSZ; ulimit -f 4096", directory.path());
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(74), "{out}\n{err}");
    assert!(err.contains("disk error: cannot write the log"), "{err}");
    let acknowledged = out.matches("acknowledged").count();
    assert!((1..100).contains(&acknowledged), "{acknowledged}");
    let kept = load(directory.path()).unwrap().entries.len();
    assert!(kept >= acknowledged, "{acknowledged} acknowledged, {kept} kept");
}

/// The child process of the test below; does nothing when run alone.
#[tokio::test]
async fn dies_after_a_save() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let mut log = open_log(Path::new(&directory), &options()).unwrap();
    log.load().unwrap();
    log.save(&first_term()).await;
    for index in 1..=30 {
        log.save(&one(index, 40_000)).await;
    }
    std::process::abort();
}

/// Damage is noticed, and what was promised is known, or the log refuses to open.
fn keeps_its_promises(path: &Path) -> bool {
    match judge(path) {
        Ok(Judged { restored, damage: Some(_) }) => {
            restored.promised == EntryId::new(1, 30)
                && restored.hard_state.term == Term(1)
                && restored.entries.iter().zip(1..).all(|(entry, index)| *entry == noisy(index, 40_000))
        }
        Ok(Judged { damage: None, .. }) => false,
        Err(error) => matches!(error, OpenError::Corrupt { .. }),
    }
}

/// Rules 30, 61, 62: a log of which a file is missing, or cut short, never opens as if it had promised less.
#[test]
fn a_process_that_died_left_everything_and_a_file_less_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    process("dies_after_a_save", "ulimit -c 0", path);
    assert_eq!(load(path).unwrap().entries.len(), 30);
    let manifest = std::fs::read_to_string(path.join("manifest")).unwrap();
    let numbers = manifest.lines().filter_map(|line| line.strip_prefix("file ")?.split_once(' '));
    let files: Vec<String> = numbers.map(|(number, _)| format!("{number}.log")).collect();
    assert!(files.len() >= 5, "{files:?}");
    for file in files.iter().map(|file| path.join(file)) {
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
        assert!(keeps_its_promises(path), "cut short: {}", file.display());
        std::fs::remove_file(&file).unwrap();
        assert!(keeps_its_promises(path), "gone: {}", file.display());
        std::fs::write(&file, bytes).unwrap();
    }
    assert_eq!(load(path).unwrap().entries.len(), 30);
    // The process left no time for the mark to be synced; it was written all the same.
    std::fs::remove_file(path.join("0.log")).unwrap();
    assert_eq!(judge(path).unwrap().restored.promised, EntryId::new(1, 30));
}

struct Counter;

impl StateMachine for Counter {
    type Command = u64;
    type Output = ();
    type Query = ();
    type Answer = ();

    fn load(&mut self, _rows: &dyn Read) {}

    fn apply(&mut self, _rows: &mut dyn Rows, _id: EntryId, number: u64) {
        println!("applied {number}");
    }

    fn query(&self, _rows: &dyn Read, (): ()) {}
}

/// The child process of the test below; does nothing when run alone.
#[tokio::test]
async fn applies_an_entry_that_went_bad_in_memory() {
    if std::env::var_os(DIRECTORY).is_none() {
        return;
    }
    let entry =
        |index, number: u64| Entry::new(EntryId::new(1, index), Payload::Command(encode_command(&number)));
    let changed = Entry { payload: entry(2, 3).payload, ..entry(2, 2) };
    let (mut log, table) = MemoryDisk::new().open();
    log.save(&Save { entries: vec![entry(1, 1), changed], ..first_term() }).await;
    let (me, network) = (NodeId(1), Network::default());
    let parts = Parts { log, table, ..Parts::in_memory(me, &Membership::of([me]), &network) };
    let _replica = start(parts, Counter).await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    println!("still there");
}

/// Rule 66: an entry that changed in memory after the last check is not applied.
#[test]
fn an_entry_that_changed_in_memory_ends_the_process_before_it_is_applied() {
    let directory = tempfile::tempdir().unwrap();
    let output = process("applies_an_entry_that_went_bad_in_memory", "ulimit -c 0", directory.path());
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!output.status.success(), "{out}\n{err}");
    assert!(err.contains("checksum is wrong: 2@1"), "{err}");
    assert!(out.contains("applied 1") && !out.contains("applied 3") && !out.contains("still there"), "{out}");
}

/// The child process of the test below; does nothing when run alone.
#[test]
fn reads_a_whole_table() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let table = open_table(Path::new(&directory), &TableOptions::default()).unwrap();
    println!("opened");
    println!("{} rows", table.scan(b"", None, ScanLimit { rows: usize::MAX, bytes: usize::MAX }).len());
}

/// A row of a kilobyte.
fn row(at: u64) -> Row {
    let Payload::Command(value) = noisy(at, 1000).payload else { unreachable!("a command") };
    (at.to_be_bytes().to_vec().into(), value)
}

fn put(at: u64) -> Change {
    let (key, value) = row(at);
    Change::Put(key, value)
}

/// The child process of the test below; does nothing when run alone.
#[tokio::test]
async fn fills_a_table_until_the_disk_fails() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let way = std::env::var("DAMAGE_TEST_WAY").unwrap();
    let file_bytes_min = if way == "memory" { usize::MAX } else { 1 << 20 };
    let options = TableOptions { file_bytes_min, ..TableOptions::default() };
    let table = open_table(Path::new(&directory), &options).unwrap();
    table.write((0..1000).map(put).collect());
    table.flush().await;
    println!("durable");
    if way == "snapshot" {
        table.stage_start();
        table.stage((0..5000).map(row).collect());
        table.switch(EntryId::new(1, 1)).await;
    } else {
        table.write((1000..6000).map(put).collect());
        table.flush().await;
    }
    println!("all of it");
}

/// Rule 29, by each way on which rows reach the disk.
#[test]
fn a_table_that_cannot_be_written_ends_the_process_and_keeps_what_was_durable() {
    for way in ["memory", "files", "snapshot"] {
        let directory = tempfile::tempdir().unwrap();
        let limits = format!("export DAMAGE_TEST_WAY={way}; trap '' XFSZ; ulimit -f 4096");
        let output = process("fills_a_table_until_the_disk_fails", &limits, directory.path());
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(74), "{way}: {out}\n{err}");
        assert!(err.contains("disk error: cannot "), "{way}: {err}");
        assert!(out.contains("durable") && !out.contains("all of it"), "{way}: {out}");
        let table = open_table(directory.path(), &TableOptions::default()).unwrap();
        assert!((0..1000).map(row).all(|(key, value)| table.get(&key) == Some(value)), "{way}");
    }
}

/// Rule 30: a row that cannot be read is never taken for one that is not there.
#[tokio::test]
async fn a_table_that_went_bad_ends_its_reader() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let table = open_table(path, &TableOptions::default()).unwrap();
    table.write((0..1000).map(put).collect());
    table.flush().await;
    drop(table);
    let output = process("reads_a_whole_table", "ulimit -c 0", path);
    assert!(String::from_utf8_lossy(&output.stdout).contains("1000 rows"), "{output:?}");
    let files = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let sorted = files.filter(|file| file.extension().is_some_and(|extension| extension == "sst"));
    let largest = sorted.max_by_key(|file| file.metadata().unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    std::fs::write(&largest, bytes).unwrap();
    let output = process("reads_a_whole_table", "ulimit -c 0", path);
    assert_eq!(output.status.code(), Some(74), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("opened"), "{output:?}");
}
