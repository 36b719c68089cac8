//! Files as builds of each level wrote them, and messages as builds of each wire version say them: they are always
//! understood (correctness rule 75).
//!
//! `formats/wire-N.hex` has a line for each message: its name, and its bytes after the version's byte. Another wire
//! version gets another file.
//!
//! `formats/level-N.hex` holds a directory without its table: for each file its name and size, then lines of a position
//! and the bytes there, in hexadecimal digits; all others are zeros. A level that changes what is written adds a file.

use std::fs;
use std::path::Path;

use base::codec::{WIRE, wire};
use bytes::Bytes;
use raft::core::message::{Body, Chunk, Message, TableReport, Verdict};
use raft::types::{Entry, EntryId, Index, Membership, NodeId, Payload, Term};
use raft_disk::directory::{DataDir, Identity};
use raft_disk::wal::{LogOptions, open_log};

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

/// A message of every kind, with every form of what may be there or not.
fn messages() -> Vec<(&'static str, Body)> {
    let (last, bytes) = (EntryId::new(3, 17), Bytes::from_static);
    let membership = Membership::of([1, 2, 3].map(NodeId));
    let rows = vec![(bytes(b"k1"), bytes(b"v1")), (bytes(b"k2"), bytes(b""))];
    let entry = |index, payload| Entry::new(EntryId::new(4, index), payload);
    let entries = vec![entry(18, Payload::Empty), entry(19, Payload::Command(bytes(b"put")))];
    let (round, commit, room) = (9, Index(16), 8 << 20);
    let heartbeat =
        Body::Append { prev: last, entries: Vec::new(), commit, round, acked: EntryId::ZERO, differs: None };
    let append =
        Body::Append { prev: last, entries, commit, round, acked: last, differs: Some((Index(256), 77)) };
    let reply =
        |verdict, table| Body::AppendReply { verdict, round, disk_low: true, owes: false, table, room };
    let told = TableReport { mark: Some((Index(512), 78)), needs: Some(Index(300)) };
    let conflict = Verdict::Conflict { at: Index(17), try_at: EntryId::new(2, 11) };
    let chunk = |after, rows, done| Body::Chunk(Chunk::new(last, membership.clone(), after, rows, done));
    vec![
        ("pre-vote", Body::PreVote { last }),
        ("pre-vote-reply", Body::PreVoteReply { asked: Term(5), granted: true }),
        ("vote", Body::Vote { last }),
        ("vote-reply", Body::VoteReply { granted: false }),
        ("heartbeat", heartbeat),
        ("append", append),
        ("matched", reply(Verdict::Matched(Index(19)), TableReport::default())),
        ("conflict", reply(conflict, told)),
        ("first-chunk", chunk(None, rows, false)),
        ("last-chunk", chunk(Some(bytes(b"k2")), Vec::new(), true)),
        ("staged", Body::ChunkReply { snapshot: last, cursor: Some(bytes(b"k2")), resume: false }),
        ("not-staged", Body::ChunkReply { snapshot: last, cursor: None, resume: true }),
    ]
}

/// Position of a kind; a new one must be added to the messages above.
fn kind(body: &Body) -> usize {
    match body {
        Body::PreVote { .. } => 0,
        Body::PreVoteReply { .. } => 1,
        Body::Vote { .. } => 2,
        Body::VoteReply { .. } => 3,
        Body::Append { .. } => 4,
        Body::AppendReply { .. } => 5,
        Body::Chunk(_) => 6,
        Body::ChunkReply { .. } => 7,
    }
}

#[test]
fn messages_are_what_builds_of_this_wire_version_say() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let messages = messages().into_iter().map(|(name, body)| (name, Message::new(Term(4), body)));
    let messages: Vec<(&str, Message)> = messages.collect();
    assert!((0..8).all(|wanted| messages.iter().any(|(_, message)| kind(&message.body) == wanted)));
    let said = messages.iter().map(|(name, message)| (name, wire::encode(message)));
    let said: String = said.map(|(name, bytes)| format!("{name} {}\n", hex(&bytes[1..]))).collect();
    assert_eq!(WIRE, 2, "another version has a file of its own");
    let written = include_str!("formats/wire-2.hex");
    assert_eq!(said, written);
    for (row, (name, message)) in written.lines().zip(&messages) {
        let digits = row.split_once(' ').expect("a name and bytes").1.as_bytes();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("digits"), 16);
        let bytes = digits.chunks(2).map(|pair| byte(pair).expect("digits"));
        let bytes: Vec<u8> = std::iter::once(WIRE).chain(bytes).collect();
        assert_eq!(wire::decode::<Message>(&bytes, bytes.len()).as_ref(), Ok(message), "{name}");
    }
}
