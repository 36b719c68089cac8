//! A server's checks before it talks to anybody: its data directory, and the rows that it gets.

use std::path::Path;

use raft::config::Config;
use raft::core::message::{Body, Chunk, Message};
use raft::core::{Raft, Refused};
use raft::storage::{OpenError, Restored};
use raft::types::{EntryId, Membership, NodeId, Term};
use raft_disk::directory::{DataDir, Identity};
use raft_disk::rocksdb::TableOptions;
use raft_disk::wal::LogOptions;

const KEY: u64 = 77;

fn identity(members: &[u64]) -> Identity {
    let members = members.iter().copied().map(NodeId).collect();
    Identity { cluster: "blue".to_owned(), group: 101, node: NodeId(1), members }
}

/// The same each time: a seed means nothing to it.
pub(crate) fn play() -> Result<(), String> {
    let root = tempfile::tempdir().map_err(|error| error.to_string())?;
    directory(root.path())?;
    chunk()
}

fn directory(path: &Path) -> Result<(), String> {
    let open = |members: &[u64], new: bool| DataDir::open(path, &identity(members), new);
    let words = |error: OpenError| error.to_string();
    let made = open(&[1, 2, 3], true).map_err(words)?;
    made.open_stores(&LogOptions::default(), &TableOptions::default()).map_err(words)?;
    made.learn_key(KEY).map_err(|other| format!("the key was {other} before it was learned"))?;
    drop(made);
    for members in [&[1][..], &[1, 2], &[1, 2, 3, 4]] {
        if !matches!(open(members, false), Err(OpenError::OtherMembers { .. })) {
            return Err(format!("a server of three starts with the members {members:?}"));
        }
    }
    let again = open(&[1, 2, 3], false).map_err(words)?;
    match (again.key(), again.learn_key(KEY + 1)) {
        (Some(KEY), Err(KEY)) => Ok(()),
        found => Err(format!("after a restart the key of the cluster is {found:?}")),
    }
}

fn chunk() -> Result<(), String> {
    let (here, there) = (Membership::of([1, 2, 3].map(NodeId)), Membership::of([1, 2].map(NodeId)));
    let mut raft = Raft::new(NodeId(2), here, Config::default(), Restored::default(), EntryId::ZERO);
    let chunk = Chunk::new(EntryId::new(1, 1), there, None, Vec::new(), true);
    match raft.step(NodeId(1), Message::new(Term(1), Body::Chunk(chunk))) {
        Err(Refused::OtherMembers) => Ok(()),
        taken => Err(format!("a chunk of a group with other members: {taken:?}")),
    }
}
