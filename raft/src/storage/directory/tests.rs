use std::fs;
use std::path::Path;

use super::{DataDir, Identity};
use crate::storage::OpenError;
use crate::storage::rocksdb::TableOptions;
use crate::storage::wal::LogOptions;
use crate::types::NodeId;

fn identity(node: u64) -> Identity {
    Identity { cluster: "blue".into(), group: 101, node: NodeId(node) }
}

/// Makes a data directory and closes it; its incarnation.
fn made(path: &Path) -> u64 {
    let directory = DataDir::open(path, &identity(1), true).unwrap();
    directory.open_stores(&LogOptions::default(), &TableOptions::default()).unwrap();
    directory.incarnation()
}

fn refusal(path: &Path, identity: &Identity, new: bool) -> OpenError {
    DataDir::open(path, identity, new).expect_err("must be refused")
}

#[test]
fn a_directory_keeps_its_incarnation_and_two_directories_differ() {
    let root = tempfile::tempdir().unwrap();
    let (one, two) = (root.path().join("one"), root.path().join("two"));
    let incarnation = made(&one);
    assert_ne!(incarnation, made(&two));
    assert!(DataDir::is_made(&one));
    assert_eq!(DataDir::open(&one, &identity(1), false).unwrap().incarnation(), incarnation);
}

#[test]
fn an_absent_or_emptied_directory_is_refused_without_new() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("server");
    assert!(matches!(refusal(&path, &identity(1), false), OpenError::Absent { .. }));
    made(&path);
    fs::remove_dir_all(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(refusal(&path, &identity(1), false), OpenError::Absent { .. }));
}

#[test]
fn new_is_refused_where_data_is() {
    let root = tempfile::tempdir().unwrap();
    made(root.path());
    assert!(matches!(refusal(root.path(), &identity(1), true), OpenError::AlreadyThere { .. }));
    // Nor does it help when only the identity was lost.
    fs::remove_file(root.path().join("identity")).unwrap();
    assert!(matches!(refusal(root.path(), &identity(1), true), OpenError::Corrupt { .. }));
}

#[test]
fn a_first_start_that_ended_halfway_is_repeated_with_new() {
    let root = tempfile::tempdir().unwrap();
    drop(DataDir::open(root.path(), &identity(1), true).unwrap());
    fs::create_dir(root.path().join("raft")).unwrap();
    assert!(!DataDir::is_made(root.path()));
    assert!(matches!(refusal(root.path(), &identity(1), false), OpenError::Absent { .. }));
    made(root.path());
    assert!(DataDir::is_made(root.path()));
}

#[test]
fn a_store_that_vanished_is_damage_never_an_empty_store() {
    for lost in ["raft", "state", "raft/manifest", "state/CURRENT"] {
        let root = tempfile::tempdir().unwrap();
        made(root.path());
        let lost = root.path().join(lost);
        if lost.is_dir() {
            fs::remove_dir_all(&lost).unwrap();
        } else {
            fs::remove_file(&lost).unwrap();
        }
        let directory = DataDir::open(root.path(), &identity(1), false).unwrap();
        let opened = directory.open_stores(&LogOptions::default(), &TableOptions::default());
        assert!(matches!(opened.err(), Some(OpenError::Corrupt { .. })));
    }
}

#[test]
fn another_servers_directory_is_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    made(root.path());
    let text = refusal(root.path(), &identity(2), false).to_string();
    assert!(text.contains("server 1 of group 101") && text.contains("not of server 2"), "{text}");
    let other = Identity { cluster: "green".into(), ..identity(1) };
    assert!(matches!(refusal(root.path(), &other, false), OpenError::AnotherServer { .. }));
}

#[test]
fn a_second_opener_is_refused_and_told_the_process() {
    let root = tempfile::tempdir().unwrap();
    made(root.path());
    let first = DataDir::open(root.path(), &identity(1), false).unwrap();
    let pid = std::process::id();
    assert_eq!(fs::read_to_string(root.path().join("lock")).unwrap(), format!("{pid}\n"));
    match refusal(root.path(), &identity(1), false) {
        OpenError::InUse { holder, .. } => assert_eq!(holder, format!("process {pid}")),
        other => panic!("{other}"),
    }
    drop(first);
    DataDir::open(root.path(), &identity(1), false).unwrap();
}

#[test]
fn newer_and_older_formats_and_a_damaged_identity_are_told_apart() {
    let root = tempfile::tempdir().unwrap();
    made(root.path());
    let file = root.path().join("identity");
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, good.replace("format 3", "format 4")).unwrap();
    assert!(matches!(refusal(root.path(), &identity(1), false), OpenError::NewerFormat { found: 4, .. }));
    // Of an older build: never taken for an empty one.
    fs::write(&file, good.replace("format 3", "format 2")).unwrap();
    let refused = refusal(root.path(), &identity(1), false);
    assert!(matches!(refused, OpenError::OlderFormat { found: 2, .. }));
    assert!(refused.to_string().contains("dump with the build that wrote it"), "{refused}");
    for bad in [good.replace("group 101", "group many"), good.replace("node 1\n", ""), String::new()] {
        fs::write(&file, bad).unwrap();
        assert!(matches!(refusal(root.path(), &identity(1), false), OpenError::Corrupt { .. }));
    }
}

#[test]
fn a_text_file_that_was_cut_or_changed_anywhere_is_refused() {
    let root = tempfile::tempdir().unwrap();
    made(root.path());
    DataDir::open(root.path(), &identity(1), false).unwrap().remember(NodeId(2), 22).unwrap();
    for name in ["identity", "peers"] {
        let file = root.path().join(name);
        let good = fs::read(&file).unwrap();
        let refused = |bad: &[u8], what: &str| {
            fs::write(&file, bad).unwrap();
            let error = refusal(root.path(), &identity(1), false);
            assert!(!matches!(error, OpenError::Unavailable { .. }), "{name} {what}: {error}");
        };
        for cut in 0..good.len() {
            refused(&good[..cut], &format!("cut at {cut}"));
        }
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            refused(&bad, &format!("bit {bit}"));
        }
        refused(&[&good[..], b"\n"].concat(), "something behind it");
        // What a hand does: a number changed, a line added.
        let text = String::from_utf8(good.clone()).unwrap();
        refused(text.replace("22", "23").replace("101", "102").as_bytes(), "edited");
        fs::write(&file, &good).unwrap();
    }
    DataDir::open(root.path(), &identity(1), false).unwrap();
}

#[test]
fn a_peer_that_comes_back_with_other_data_is_refused_also_after_a_restart() {
    let root = tempfile::tempdir().unwrap();
    made(root.path());
    let directory = DataDir::open(root.path(), &identity(1), false).unwrap();
    assert_eq!(directory.remember(NodeId(2), 22), Ok(()));
    assert_eq!(directory.remember(NodeId(3), 33), Ok(()));
    assert_eq!(directory.remember(NodeId(2), 22), Ok(()));
    assert_eq!(directory.remember(NodeId(2), 23), Err(22));
    drop(directory);
    let directory = DataDir::open(root.path(), &identity(1), false).unwrap();
    assert_eq!(directory.remember(NodeId(2), 23), Err(22));
    assert_eq!(directory.remember(NodeId(3), 33), Ok(()));
}
