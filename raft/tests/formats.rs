//! Files as builds of each level wrote them: they always open (correctness rule 75).
//!
//! `formats/level-N.hex` holds a directory without its table: for each file its name and size, then lines of a position
//! and the bytes there, in hexadecimal digits; all others are zeros. A level that changes what is written adds a file.

use std::fs;
use std::path::Path;

use raft::storage::directory::{DataDir, Identity};
use raft::storage::wal::{LogOptions, open_log};
use raft::types::{EntryId, NodeId, Payload};

/// Makes the files that `text` describes.
fn make(root: &Path, text: &str) {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for line in text.lines() {
        if let Some(file) = line.strip_prefix("file ") {
            let (name, bytes) = file.split_once(' ').expect("a name and a size");
            files.push((name.to_owned(), vec![0; bytes.parse().expect("a size")]));
            continue;
        }
        let (at, digits) = line.split_once(' ').expect("a position and bytes");
        let at: usize = at.parse().expect("a position");
        let (_, content) = files.last_mut().expect("a file was named");
        for (offset, pair) in digits.as_bytes().chunks(2).enumerate() {
            let pair = std::str::from_utf8(pair).expect("digits");
            content[at + offset] = u8::from_str_radix(pair, 16).expect("digits");
        }
    }
    for (name, content) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("below the root")).expect("a directory");
        fs::write(path, content).expect("a file");
    }
}

fn identity(members: impl IntoIterator<Item = u64>) -> Identity {
    let members = members.into_iter().map(NodeId).collect();
    Identity { cluster: "local-96cd2b24".to_owned(), group: 101, node: NodeId(1), members }
}

#[test]
fn a_directory_of_level_1_always_opens() {
    let root = tempfile::tempdir().expect("a directory");
    make(root.path(), include_str!("formats/level-1.hex"));
    let directory = DataDir::open(root.path(), &identity(1..=3), false).expect("it is the server's own");
    assert_eq!(directory.incarnation(), 11_887_784_912_359_433_141);
    assert_eq!(directory.remember(NodeId(2), 13_108_599_339_000_541_040), Ok(()));
    assert_eq!(directory.remember(NodeId(3), 5), Err(937_438_740_086_320_563));
    let mut log = open_log(&root.path().join("raft"), &LogOptions { create: false, ..LogOptions::default() })
        .expect("a log");
    let restored = log.load().expect("it is whole");
    assert_eq!((restored.marker, restored.promised), (EntryId::ZERO, EntryId::ZERO));
    let first = restored.entries.first().expect("there are entries");
    assert_eq!((first.id.index.0, &first.payload), (1, &Payload::Empty));
    assert!(restored.entries.iter().all(raft::types::Entry::is_whole));
    let commands = restored.entries.iter().filter_map(|entry| match &entry.payload {
        Payload::Command(command) => Some(command),
        Payload::Empty => None,
    });
    let puts =
        commands.filter(|command| command.windows(2).any(|pair| pair == b"v1" || pair == b"v4")).count();
    assert_eq!(puts, 2, "the first and the last of the values that were put");
}
