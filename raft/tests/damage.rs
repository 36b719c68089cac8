//! What a replica does when its disk fails it (rules 29, 30): it ends, or it does not start; it never goes
//! on with less than it promised.

use std::path::{Path, PathBuf};
use std::process::Command;

use raft::storage::rocksdb::{LogOptions, open_log};
use raft::storage::{OpenError, Restored, Save};
use raft::types::{Entry, EntryId, HardState, Payload, Term};

/// Set in the processes that the tests start.
const DIRECTORY: &str = "DAMAGE_TEST_DIRECTORY";
const SAVES: &str = "DAMAGE_TEST_SAVES";

fn noisy(index: u64, bytes: usize) -> Entry {
    let mut state = index.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    let noise: Vec<u8> = (0..bytes).map(|_| next()).collect();
    Entry { id: EntryId::new(1, index), payload: Payload::Command(noise.into()) }
}

fn first_term() -> Save {
    Save { hard_state: Some(HardState { term: Term(1), vote: None }), ..Save::default() }
}

fn one(index: u64, bytes: usize) -> Save {
    Save { entries: vec![noisy(index, bytes)], ..Save::default() }
}

/// The other process of the test below; nothing when run by itself.
#[tokio::test]
async fn writes_until_the_disk_fails() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let mut log = open_log(Path::new(&directory), &LogOptions::default()).unwrap();
    log.load().unwrap();
    log.save(&first_term()).await;
    for index in 1..=100 {
        log.save(&one(index, 100_000)).await;
        println!("acknowledged {index}");
    }
}

/// Rule 29: whatever was not written ends the process, with its own exit code and the reason.
#[test]
fn a_write_that_fails_ends_the_process_and_loses_nothing_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    // Files of 2 MiB at most; what goes beyond fails as on a full disk.
    let script = "trap '' XFSZ; ulimit -f 4096; exec \"$0\" --exact writes_until_the_disk_fails --nocapture";
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .env(DIRECTORY, directory.path())
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(74), "{out}\n{err}");
    assert!(err.contains("disk error: cannot write the log"), "{err}");
    let acknowledged = out.matches("acknowledged").count();
    assert!((1..100).contains(&acknowledged), "{acknowledged}");
    let kept = load(directory.path()).unwrap().entries.len();
    assert!(kept >= acknowledged, "{acknowledged} acknowledged, {kept} kept");
}

fn load(path: &Path) -> Result<Restored, OpenError> {
    open_log(path, &LogOptions::default())?.load()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).unwrap();
    for path in files(from) {
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// Write-ahead logs with something in them, oldest first.
fn write_ahead_logs(directory: &Path) -> Vec<PathBuf> {
    let is_log = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "log");
    let is_full = |path: &PathBuf| std::fs::metadata(path).is_ok_and(|file| file.len() > 0);
    files(directory).into_iter().filter(is_log).filter(is_full).collect()
}

/// The other process of the test below; nothing when run by itself.
#[tokio::test]
async fn dies_behind_a_save() {
    let (Some(directory), Ok(saves)) = (std::env::var_os(DIRECTORY), std::env::var(SAVES)) else { return };
    let options = LogOptions { write_buffer_bytes: 64 << 10, ..LogOptions::default() };
    let mut log = open_log(Path::new(&directory), &options).unwrap();
    log.load().unwrap();
    log.save(&first_term()).await;
    for index in 1..=saves.parse().unwrap() {
        log.save(&one(index, 40_000)).await;
    }
    std::process::abort();
}

/// Rule 30: with RocksDB's defaults such a log opens, and acknowledged entries are gone. Two nets catch it:
/// RocksDB's account of its older files, and our own look for gaps (rule 31). (Of the newest file there is
/// no account; the start rule has to notice.)
#[test]
fn a_missing_or_shortened_write_ahead_log_in_the_middle_refuses_to_open() {
    let mut refused = [0, 0];
    for attempt in 0..100 {
        let root = tempfile::tempdir().unwrap();
        let killed = root.path().join("killed");
        // A buffer is full every other save, and RocksDB sorts it to disk behind our back.
        let saves = 3 + attempt % 4;
        Command::new("sh")
            .args(["-c", "ulimit -c 0; exec \"$0\" --exact dies_behind_a_save"])
            .arg(std::env::current_exe().unwrap())
            .env(DIRECTORY, &killed)
            .env(SAVES, saves.to_string())
            .output()
            .unwrap();
        let logs = write_ahead_logs(&killed);
        if logs.len() < 2 {
            continue;
        }
        for cut in [false, true] {
            let damaged = root.path().join("damaged");
            copy(&killed, &damaged);
            let file = damaged.join(logs[0].file_name().unwrap());
            let bytes = std::fs::read(&file).unwrap();
            match cut {
                false => std::fs::remove_file(file).unwrap(),
                true => std::fs::write(file, &bytes[..bytes.len() / 2]).unwrap(),
            }
            match load(&damaged).map(|restored| restored.entries.len()) {
                // It had been sorted, and only not been removed yet.
                Ok(entries) => assert_eq!(entries, saves, "acknowledged entries are missing, cut: {cut}"),
                Err(OpenError::Corrupt { .. }) => refused[usize::from(cut)] += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(load(&killed).expect("nothing is missing in the original").entries.len(), saves);
        if refused.iter().all(|count| *count >= 3) {
            return;
        }
    }
    panic!("too rarely two write-ahead logs in use when the process died: {refused:?}");
}
