//! A server's data directory: which server it belongs to, and a lock so that one process at a time
//! uses it.
//!
//! ```text
//! identity   cluster, group, node; the incarnation, a random number drawn when it was made; the ids of the
//!            members that founded the group; the key of the cluster, 0 until it is known; the level
//! lock       held by the running process (flock); its text is the process id
//! peers      incarnations of the peers met so far
//! raft/      the log          state/     the table
//! ```
//!
//! A replica that lost its disk and comes back under its old name has forgotten its votes
//! (correctness rule 32). So an empty directory is accepted only from a start that says `--new`. A
//! server that meets a peer remembers its incarnation and refuses another one.
//!
//! The members are part of the data (correctness rule 50). A server that is started with a shorter
//! list would need fewer votes than its peers, and could lead beside their leader. So other ids are
//! refused; addresses may change.
//!
//! The key of the cluster is written once, when the group's log has provided it
//! ([`DataDir::learn_key`]); from then on the directory belongs to that cluster (correctness rule
//! 51).
//!
//! A directory counts as made once both stores exist. Until then its identity is in `identity.new`,
//! nothing was promised to anybody, and a start with `--new` begins again. From then on a missing
//! store is damage.
//!
//! Left out on purpose: servers' own logs and settings, which may be in the same directory.

mod inspect;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use base::socket::LEVEL;
pub(crate) use inspect::{Inspected, inspect};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use xxhash_rust::xxh3::Xxh3;

use super::lines;
use super::lines::{corrupt, replace, sync_directory, unavailable};
use super::rocksdb::{TableOptions, open_table};
use super::wal::{LogOptions, open_log};
use raft::storage::{OpenError, Stores, fatal};
use raft::types::NodeId;

const FORMAT: u32 = base::codec::DISK as u32;
/// A new directory holds nothing of a higher level.
const FIRST_LEVEL: u32 = 1;
const IDENTITY: &str = "identity";
const IDENTITY_NEW: &str = "identity.new";
const LOCK: &str = "lock";
const PEERS: &str = "peers";
pub(crate) const RAFT: &str = "raft";
pub(crate) const STATE: &str = "state";

/// The server whose data a directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster, one word.
    pub cluster: String,
    /// The group; 0 for controllers.
    pub group: u64,
    /// The server within it.
    pub node: NodeId,
    /// The servers that the group was founded with, including this one.
    pub members: BTreeSet<NodeId>,
}

impl Identity {
    /// A number for the group and its founders: cluster, group and ids. Never 0, and it never
    /// changes: the key of the cluster is not in it, because it becomes known later.
    pub fn founders(&self) -> u64 {
        let mut digest = Xxh3::new();
        digest.update(self.cluster.as_bytes());
        digest.update(&[0]);
        digest.update(&self.group.to_be_bytes());
        self.members.iter().for_each(|member| digest.update(&member.0.to_be_bytes()));
        digest.digest().max(1)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "server {} of group {} of cluster {:?}", self.node, self.group, self.cluster)
    }
}

/// An open data directory. Locked as long as this lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    made: Made,
    key: Mutex<Option<u64>>,
    /// Its stores do not exist yet.
    unfinished: Mutex<bool>,
    peers: Mutex<BTreeMap<NodeId, u64>>,
    _lock: File,
}

impl DataDir {
    /// Opens and locks the directory; with `new`, makes it, and refuses one that was made before.
    ///
    /// # Errors
    /// [`OpenError`]: absent, already there, another server's, in use, damaged, of a newer format.
    pub fn open(path: &Path, identity: &Identity, new: bool) -> Result<Self, OpenError> {
        assert!(
            !identity.cluster.is_empty() && !identity.cluster.contains(char::is_whitespace),
            "a cluster's name is one word"
        );
        let shown = || path.display().to_string();
        if new {
            fs::create_dir_all(path)
                .and_then(|()| path.canonicalize()?.parent().map_or(Ok(()), sync_directory))
                .map_err(|error| unavailable(path, &error))?;
        } else if !path.is_dir() {
            return Err(OpenError::Absent { path: shown() });
        }
        let lock = take_lock(path)?;
        // A killed process may have renamed files: make that durable before acting on it.
        sync_directory(path).map_err(|error| unavailable(path, &error))?;
        let (made, key, unfinished) = match (read_identity(path)?, new) {
            (None, false) => return Err(OpenError::Absent { path: shown() }),
            (Some(_), true) => return Err(OpenError::AlreadyThere { path: shown() }),
            (None, true) => (begin(path, identity)?, 0, true),
            (Some((made, key)), false) => {
                same_server(&shown(), &made.identity, identity)?;
                (made, key, false)
            }
        };
        let peers = Mutex::new(read_peers(path)?);
        let key = Some(key).filter(|key| *key != 0);
        let (key, unfinished) = (Mutex::new(key), Mutex::new(unfinished));
        Ok(Self { path: path.to_owned(), made, key, unfinished, peers, _lock: lock })
    }

    /// Whether a server was made in `path`: if not, its first start needs `--new`.
    pub fn is_made(path: &Path) -> bool {
        path.join(IDENTITY).exists()
    }

    /// Identifies this directory among all that this server may ever have had.
    pub fn incarnation(&self) -> u64 {
        self.made.incarnation
    }

    /// The digest of its group's founders.
    pub fn founders(&self) -> u64 {
        self.made.identity.founders()
    }

    /// The key of the cluster that it belongs to, once it is known.
    pub fn key(&self) -> Option<u64> {
        *self.key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores the cluster's key, durably before it returns (correctness rule 51).
    ///
    /// # Errors
    /// The key that it already has, if that is another one: this directory belongs to another
    /// cluster.
    pub fn learn_key(&self, key: u64) -> Result<(), u64> {
        let mut known = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none() && !base::mutant!("key-never-learned") {
            replace(&self.path, IDENTITY, FORMAT, &self.made.text(key))
                .unwrap_or_else(|error| fatal("write down the key of the cluster", &error));
            *known = Some(key);
        }
        match *known {
            Some(known) if known != key => Err(known),
            _ => Ok(()),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens both stores. Makes them in a directory that is new, and only there.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_stores(&self, log: &LogOptions, table: &TableOptions) -> Result<Stores, OpenError> {
        let mut unfinished = self.unfinished.lock().unwrap_or_else(PoisonError::into_inner);
        let create = *unfinished;
        let log = open_log(&self.path.join(RAFT), &LogOptions { create, ..log.clone() })?;
        let table = open_table(&self.path.join(STATE), &TableOptions { create, ..table.clone() })?;
        if create {
            fs::rename(self.path.join(IDENTITY_NEW), self.path.join(IDENTITY))
                .and_then(|()| sync_directory(&self.path))
                .map_err(|error| unavailable(&self.path, &error))?;
            *unfinished = false;
        }
        Ok((log, table))
    }

    /// The incarnation that `peer` was met with.
    pub fn met(&self, peer: NodeId) -> Option<u64> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).get(&peer).copied()
    }

    /// Stores a peer's incarnation, durably before it returns.
    ///
    /// # Errors
    /// The one it was met with before, if that was another.
    pub fn remember(&self, peer: NodeId, incarnation: u64) -> Result<(), u64> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        match peers.get(&peer) {
            Some(known) if *known == incarnation => Ok(()),
            Some(known) => Err(*known),
            None => {
                peers.insert(peer, incarnation);
                let lines = peers.iter().map(|(peer, incarnation)| format!("{peer} {incarnation}\n"));
                replace(&self.path, PEERS, FORMAT, &lines.collect::<String>())
                    .unwrap_or_else(|error| fatal("remember a peer's incarnation", &error));
                Ok(())
            }
        }
    }
}

/// What a directory was made with and keeps forever.
#[derive(Debug)]
struct Made {
    identity: Identity,
    incarnation: u64,
    /// The level of its content: a build that knows less must not touch it.
    level: u32,
}

impl Made {
    /// The lines of the identity.
    fn text(&self, key: u64) -> String {
        let Self { identity: Identity { cluster, group, node, members }, incarnation, level } = self;
        let members = listed(members);
        format!(
            "cluster {cluster}\ngroup {group}\nnode {node}\nincarnation {incarnation}\nmembers {members}\nkey {key}\n\
             level {level}\n"
        )
    }
}

/// Ids as the file and people write them.
fn listed(members: &BTreeSet<NodeId>) -> String {
    members.iter().map(NodeId::to_string).collect::<Vec<_>>().join(",")
}

/// Whether the directory is that of the server to be started.
fn same_server(path: &str, found: &Identity, expected: &Identity) -> Result<(), OpenError> {
    let path = path.to_owned();
    if (&found.cluster, found.group, found.node) != (&expected.cluster, expected.group, expected.node) {
        let (found, expected) = (found.to_string(), expected.to_string());
        return Err(OpenError::AnotherServer { path, found, expected });
    }
    if found.members != expected.members && !base::mutant!("members-not-compared") {
        let (found, expected) = (listed(&found.members), listed(&expected.members));
        return Err(OpenError::OtherMembers { path, found, expected });
    }
    Ok(())
}

/// The process that holds a lock, as far as its text says.
fn holder(lock: &mut File) -> String {
    let mut text = String::new();
    match lock.read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => format!("process {}", text.trim()),
        _ => "another process".to_owned(),
    }
}

fn take_lock(path: &Path) -> Result<File, OpenError> {
    let at = path.join(LOCK);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&at)
        .map_err(|error| unavailable(&at, &error))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let holder = holder(&mut file);
            return Err(OpenError::InUse { path: path.display().to_string(), holder });
        }
        Err(error) => return Err(unavailable(&at, &error)),
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(|error| unavailable(&at, &error))?;
    Ok(file)
}

/// Draws an incarnation for a directory that is being made, and clears the remains of an earlier
/// attempt.
fn begin(path: &Path, identity: &Identity) -> Result<Made, OpenError> {
    let begun = path.join(IDENTITY_NEW).exists();
    for left in [RAFT, STATE] {
        let left = path.join(left);
        if left.exists() && !begun {
            return Err(corrupt(path, format!("{} is there, but whose it is is not", left.display())));
        }
        if left.exists() {
            fs::remove_dir_all(&left).map_err(|error| unavailable(&left, &error))?;
        }
    }
    let made =
        Made { identity: identity.clone(), incarnation: rand::random::<u64>().max(1), level: FIRST_LEVEL };
    replace(path, IDENTITY_NEW, FORMAT, &made.text(0)).map_err(|error| unavailable(path, &error))?;
    Ok(made)
}

/// What the identity says, and the key of the cluster.
fn read_identity(path: &Path) -> Result<Option<(Made, u64)>, OpenError> {
    let Some((at, fields)) = lines::read(path, IDENTITY, FORMAT)? else { return Ok(None) };
    let field = |name: &str| {
        let found = fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        found.ok_or_else(|| corrupt(&at, format!("{name} is missing")))
    };
    let number_of = |name: &str, text: &str| {
        text.parse::<u64>().map_err(|_| corrupt(&at, format!("{name} is {text:?}, not a number")))
    };
    let number = |name: &str| number_of(name, &field(name)?);
    // First, because the rest may mean something else at a higher level.
    let level = u32::try_from(number("level")?).unwrap_or(u32::MAX);
    if level > LEVEL {
        let path = at.display().to_string();
        return Err(OpenError::HigherLevel { path, found: level, supported: LEVEL });
    }
    let members: Result<BTreeSet<NodeId>, _> =
        field("members")?.split(',').map(|id| number_of("members", id).map(NodeId)).collect();
    let (cluster, group, node) = (field("cluster")?, number("group")?, NodeId(number("node")?));
    let identity = Identity { cluster, group, node, members: members? };
    Ok(Some((Made { identity, incarnation: number("incarnation")?, level }, number("key")?)))
}

fn read_peers(path: &Path) -> Result<BTreeMap<NodeId, u64>, OpenError> {
    let Some((at, lines)) = lines::read(path, PEERS, FORMAT)? else { return Ok(BTreeMap::new()) };
    let parsed = |(peer, incarnation): (String, String)| {
        let ids = peer.parse().ok().zip(incarnation.parse().ok());
        ids.map(|(peer, incarnation)| (NodeId(peer), incarnation))
            .ok_or_else(|| corrupt(&at, format!("the line \"{peer} {incarnation}\"")))
    };
    lines.into_iter().map(parsed).collect()
}

#[cfg(test)]
mod tests;
