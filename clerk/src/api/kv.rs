//! What a replica group is asked and answers, by clients and by other groups.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::config::{AddressBook, Config};
use super::status::KvStatus;
use super::{Address, ConfigNum, GroupId, SessionId, ShardId, Ticket, Version};

/// Rows of one request or answer: more than fit the bytes of a chunk or a page, few enough that a frame
/// made of tiny ones stays small in memory (correctness rule 47).
const ELEMENTS_MAX: usize = 1 << 16;

/// Writes of one [`KvRequest::Batch`]: what a session remembers of them stays small.
pub const BATCH_WRITES_MAX: usize = 256;

/// Bytes of keys and values at which a batch is full; a single larger write travels alone.
pub const BATCH_BYTES_MAX: usize = 1 << 20;

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Write {
    /// Sets the value.
    Put {
        /// The new value.
        value: Bytes,
        /// Only if the key's version is this; 0: only if it is absent.
        expected: Option<Version>,
    },
    /// Adds to the end of the value; of a missing key: sets it.
    Append {
        /// What is added.
        piece: Bytes,
    },
    /// Removes the key.
    Delete,
}

/// What a group is asked. Requests about a shard carry the clerk's configuration number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KvRequest {
    /// Opens a session in a shard.
    Open {
        /// The shard.
        shard: ShardId,
        /// Newest configuration the clerk knows.
        config: ConfigNum,
    },
    /// The value of a key. Linearizable.
    Get {
        /// The key.
        key: Bytes,
        /// Newest configuration the clerk knows.
        config: ConfigNum,
    },
    /// Changes a key: exactly once with a ticket; without one, a conditional Put is at most once by
    /// its version and anything else at least once.
    Write {
        /// The key.
        key: Bytes,
        /// The change.
        write: Write,
        /// Session and number, the same on every retry.
        ticket: Option<Ticket>,
        /// Newest configuration the clerk knows.
        config: ConfigNum,
    },
    /// A page of a shard's rows, in the order (slot, key). Each page is linearizable by itself.
    Scan {
        /// The shard.
        shard: ShardId,
        /// Keys behind this one in that order; none: from the start.
        after: Option<Bytes>,
        /// At most this many rows; a page is also cut at about 1 MiB.
        limit: u32,
        /// Newest configuration the clerk knows.
        config: ConfigNum,
    },
    /// From the group that hands the shard over: rows behind the cursor.
    Install {
        /// The shard.
        shard: ShardId,
        /// The configuration that moves it.
        num: ConfigNum,
        /// The sender.
        from: GroupId,
        /// The cursor that the sender believes the receiver has.
        after: Cursor,
        /// Raw rows behind it, ascending. Empty: a question about the cursor.
        #[serde(deserialize_with = "base::codec::bounded::<ELEMENTS_MAX, _, _>")]
        rows: Vec<(Bytes, Bytes)>,
    },
    /// From the group that hands the shard over: everything was sent; serve it.
    Activate {
        /// The shard.
        shard: ShardId,
        /// The configuration that moves it.
        num: ConfigNum,
        /// The sender.
        from: GroupId,
        /// The cursor that all rows make.
        end: Cursor,
    },
    /// The newest configuration and address book this replica knows of. Any replica answers.
    Config,
    /// How this replica is. Any replica answers.
    Status,
    /// Changes keys of one shard, in order and at one point: nobody sees a part of it. Each write is judged by
    /// itself. One command with one number, exactly once with a ticket; without one, at least once.
    Batch {
        /// The shard of every key.
        shard: ShardId,
        /// At most [`BATCH_WRITES_MAX`] keys and changes.
        #[serde(deserialize_with = "base::codec::bounded::<BATCH_WRITES_MAX, _, _>")]
        writes: Vec<(Bytes, Write)>,
        /// Session and number, the same on every retry.
        ticket: Option<Ticket>,
        /// Newest configuration the clerk knows.
        config: ConfigNum,
    },
}

/// How far a shard's rows have been installed: equal cursors name equal prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cursor {
    /// Key of the last row; none before the first.
    pub last: Option<Bytes>,
    /// Rows so far.
    pub rows: u64,
    /// Rolling hash over the rows so far, however they were cut into chunks.
    pub hash: u64,
}

/// One row of a scan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
    /// Its version.
    pub version: Version,
}

/// A group's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KvReply {
    /// To [`KvRequest::Open`].
    Opened(SessionId),
    /// To [`KvRequest::Get`]: a missing key has no value and version 0.
    Value {
        /// The value.
        value: Option<Bytes>,
        /// Its version.
        version: Version,
    },
    /// To [`KvRequest::Write`]: the key's version now (of a deleted key: the version that was deleted, 0 if
    /// there was nothing).
    Written {
        /// The version.
        version: Version,
    },
    /// To [`KvRequest::Scan`].
    Page {
        /// The rows.
        #[serde(deserialize_with = "base::codec::bounded::<ELEMENTS_MAX, _, _>")]
        items: Vec<Item>,
        /// Nothing follows.
        done: bool,
    },
    /// To [`KvRequest::Install`] and [`KvRequest::Activate`] while the shard is awaited: how far the
    /// receiver is.
    Cursor {
        /// The configuration this is about.
        num: ConfigNum,
        /// How far.
        cursor: Cursor,
    },
    /// To [`KvRequest::Install`] and [`KvRequest::Activate`] in every later state: the sender may
    /// release the shard of this configuration, and of no other.
    AlreadyDone {
        /// That configuration.
        num: ConfigNum,
    },
    /// To [`KvRequest::Config`].
    Config(Box<Config>, AddressBook),
    /// To [`KvRequest::Status`].
    Status(Box<KvStatus>),
    /// To [`KvRequest::Batch`]: what became of each write, in their order.
    Batch {
        /// As for a write alone: the key's version, or the refusal.
        #[serde(deserialize_with = "base::codec::bounded::<BATCH_WRITES_MAX, _, _>")]
        results: Vec<Result<Version, KvRefusal>>,
    },
}

/// Why a group did not do it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum KvRefusal {
    /// Another replica leads.
    #[error("this replica does not lead its group")]
    NotLeader {
        /// Where the leader was last seen.
        hint: Option<Address>,
    },
    /// The shard is not here. Carries the configuration this group has settled on.
    #[error("this group does not serve the shard in configuration {config}")]
    WrongGroup {
        /// That configuration.
        config: ConfigNum,
    },
    /// The shard is on its way here, or this group is behind the clerk; try again soon.
    #[error("the shard is not ready here yet (configuration {config})")]
    NotReady {
        /// The configuration this group has settled on.
        config: ConfigNum,
    },
    /// The key has another version: nothing was done.
    #[error("the key's version is {version}, not the expected one")]
    VersionMismatch {
        /// The key's version.
        version: Version,
    },
    /// The value would become too large: nothing was done.
    #[error("a value of {bytes} bytes exceeds this cluster's limit of {limit}")]
    ValueTooLarge {
        /// Bytes it would have.
        bytes: u64,
        /// Bytes allowed.
        limit: u32,
    },
    /// The key is too long, or empty: nothing was done.
    #[error("a key of {bytes} bytes is not allowed: keys have 1 to {limit} bytes in this cluster")]
    InvalidKey {
        /// Its length.
        bytes: u64,
        /// Bytes allowed.
        limit: u32,
    },
    /// The session was dropped; what it asked is not executed now, but an earlier try may have been.
    #[error("the session expired")]
    SessionExpired,
    /// The session has gone past this number.
    #[error("an older request of this session: its answer is gone")]
    StaleSeq,
    /// Whether it was done is not known.
    #[error("the group cannot tell whether this was done")]
    Unknown,
    /// Surely not done; try again.
    #[error("not done, try again")]
    NotExecuted,
    /// Too much at once: not done.
    #[error("the group is busy, try again")]
    Busy,
    /// The disk is nearly full: not done. Reads and deletes go on.
    #[error("a disk of this group is nearly full: free space, it recovers by itself")]
    DiskFull,
    /// No such shard.
    #[error("shard {0} does not exist in this cluster")]
    UnknownShard(ShardId),
    /// The request contradicts itself.
    #[error("refused: {0}")]
    Malformed(String),
}
