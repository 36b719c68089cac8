use std::fs;
use std::path::Path;

use super::{DataDir, Identity};
use crate::rocksdb::TableOptions;
use crate::wal::LogOptions;
use raft::storage::OpenError;
use raft::types::NodeId;

fn identity(node: u64) -> Identity {
    Identity { cluster: "blue".into(), group: 101, node: NodeId(node), members: [1, 2, 3].map(NodeId).into() }
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

/// Changes a text file as another build would have written it.
fn rewrite(directory: &Path, name: &str, change: impl FnOnce(String) -> String) {
    let text = fs::read_to_string(directory.join(name)).unwrap();
    let (lines, _) = text.split_once("checksum ").unwrap();
    let lines = change(lines.to_owned());
    let sum = crc32fast::hash(lines.as_bytes());
    fs::write(directory.join(name), format!("{lines}checksum {sum}\n")).unwrap();
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
fn another_list_of_members_is_refused_in_one_line_and_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    made(root.path());
    let before = fs::read(root.path().join("identity")).unwrap();
    for ids in [&[1][..], &[1, 2], &[1, 2, 3, 4], &[1, 2, 4]] {
        let members = ids.iter().copied().map(NodeId).collect();
        let text = refusal(root.path(), &Identity { members, ..identity(1) }, false).to_string();
        assert!(text.contains("members 1,2,3") && text.contains("addresses may change"), "{text}");
        assert!(!text.contains('\n'), "{text}");
    }
    assert_eq!(fs::read(root.path().join("identity")).unwrap(), before);
    DataDir::open(root.path(), &identity(1), false).unwrap();
}

#[test]
fn the_founders_digest_tells_groups_apart_and_never_changes() {
    let digest = identity(1).founders();
    assert_eq!(digest, identity(2).founders(), "the same for all members");
    let members = [1, 2].map(NodeId).into();
    let others = [
        Identity { cluster: "green".into(), ..identity(1) },
        Identity { group: 102, ..identity(1) },
        Identity { members, ..identity(1) },
    ];
    assert!(others.iter().all(|other| other.founders() != digest));
    // It is in the Hellos of servers of other builds.
    assert_eq!(digest, 2_282_627_063_798_688_755);
    let root = tempfile::tempdir().unwrap();
    made(root.path());
    let directory = DataDir::open(root.path(), &identity(1), false).unwrap();
    assert_eq!(directory.founders(), digest);
    directory.learn_key(7).unwrap();
    assert_eq!(directory.founders(), digest, "the key is not in it");
}

#[test]
fn the_key_of_the_cluster_is_learned_once_and_stays() {
    let root = tempfile::tempdir().unwrap();
    let directory = DataDir::open(root.path(), &identity(1), true).unwrap();
    directory.open_stores(&LogOptions::default(), &TableOptions::default()).unwrap();
    let incarnation = directory.incarnation();
    assert_eq!(directory.key(), None);
    assert_eq!((directory.learn_key(77), directory.key()), (Ok(()), Some(77)));
    assert_eq!(directory.learn_key(77), Ok(()));
    assert_eq!(directory.learn_key(78), Err(77));
    drop(directory);
    let directory = DataDir::open(root.path(), &identity(1), false).unwrap();
    assert_eq!((directory.key(), directory.incarnation()), (Some(77), incarnation));
    assert_eq!(directory.learn_key(78), Err(77));
}

#[test]
fn a_directory_of_a_higher_level_is_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    made(root.path());
    rewrite(root.path(), "identity", |text| text.replace("level 1\n", "level 2\n"));
    let error = refusal(root.path(), &identity(1), false);
    assert!(matches!(error, OpenError::HigherLevel { found: 2, supported: 1, .. }), "{error}");
    assert!(error.to_string().contains("level 2"), "{error}");
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
        refused(&[&good[..], b"\n"].concat(), "something after it");
        // Edits by hand: a changed number, an added line.
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
