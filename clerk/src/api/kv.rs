//! Requests of clients to a replica group, and its answers.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::config::{AddressBook, Params, Place, Sealed};
use super::server::{ServerReply, ServerRequest};
use super::status::KvStatus;
use super::{Address, ConfigNum, GroupId, Incarnation, SessionId, ShardId, Ticket, Version};

/// Rows of one request or answer: more than fit the bytes of a chunk or a page, but few enough that
/// a frame of tiny ones stays small in memory (correctness rule 47).
pub(super) const ELEMENTS_MAX: usize = 1 << 16;

/// Configurations of one answer.
const CONFIGS_READ: usize = 1024;

/// Writes of one [`KvRequest::Batch`]: what a session remembers of them stays small.
pub const BATCH_WRITES_MAX: usize = 256;

/// Bytes of keys and values at which a batch is full; a single larger write travels alone.
pub const BATCH_BYTES_MAX: usize = 1 << 20;

/// Bytes of the values that a batch may make, where a single value may not have more (correctness rule 105).
const BATCH_RESULT_BYTES_MAX: u64 = 4 << 20;

/// Bytes of keys and values that a batch of several writes may make: an append of a byte writes the whole value.
pub fn batch_result_bytes_max(params: Params) -> u64 {
    BATCH_RESULT_BYTES_MAX.max(params.value_bytes_max.into())
}

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

impl Write {
    /// Bytes of the value that it carries.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Put { value, .. } => value.len(),
            Self::Append { piece } => piece.len(),
            Self::Delete => 0,
        }
    }

    /// Refuses a write that is too large on its own, before it is sent or logged. An append may
    /// still make too large a value: the result is judged where it is made.
    ///
    /// # Errors
    /// [`KvRefusal::ValueTooLarge`].
    pub fn check(&self, params: Params) -> Result<(), KvRefusal> {
        let (bytes, limit) = (self.bytes() as u64, params.value_bytes_max);
        if bytes > u64::from(limit) {
            return Err(KvRefusal::ValueTooLarge { bytes, limit });
        }
        Ok(())
    }
}

/// Whether a key has an allowed length.
///
/// # Errors
/// [`KvRefusal::InvalidKey`].
pub fn check_key(key: &[u8], params: Params) -> Result<(), KvRefusal> {
    let (bytes, limit) = (key.len() as u64, params.key_bytes_max);
    if bytes == 0 || bytes > u64::from(limit) {
        return Err(KvRefusal::InvalidKey { bytes, limit });
    }
    Ok(())
}

/// Requests to a group. Requests about a shard carry the clerk's configuration number.
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
    /// A page of a shard's rows, in the order (slot, key). Each page on its own is linearizable.
    Scan {
        /// The shard.
        shard: ShardId,
        /// Keys after this one in that order; none: from the start.
        after: Option<Bytes>,
        /// At most this many rows; a page is also cut at about 1 MiB.
        limit: u32,
        /// Newest configuration the clerk knows.
        config: ConfigNum,
    },
    /// The newest configuration and address book this replica knows of. Any replica answers.
    Config,
    /// The status of this replica. Any replica answers.
    Status,
    /// Changes keys of one shard, in order and at one point: nobody sees a part of it. Each write
    /// is judged separately. One command with one number, exactly once with a ticket; without one,
    /// at least once.
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
    /// The configurations that the group adopted, as many as it keeps. Linearizable.
    History,
    /// About this server itself. Any replica answers.
    Server(ServerRequest),
}

/// The end of the history of configurations, as a group adopted it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// In order, without a gap; the last one is the one that the group is at. Empty: it adopted none yet.
    #[serde(deserialize_with = "base::codec::bounded::<CONFIGS_READ, _, _>")]
    pub configs: Vec<Sealed>,
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
    /// To [`KvRequest::Write`]: the key's version now (for a deleted key: the version that was
    /// deleted, 0 if there was nothing).
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
    /// To [`KvRequest::Config`].
    Config(Sealed, AddressBook),
    /// To [`KvRequest::Status`].
    Status(Box<KvStatus>),
    /// To [`KvRequest::Batch`]: the outcome of each write, in their order.
    Batch {
        /// As for a write alone: the key's version, or the refusal.
        #[serde(deserialize_with = "base::codec::bounded::<BATCH_WRITES_MAX, _, _>")]
        results: Vec<Result<Version, KvRefusal>>,
    },
    /// To [`KvRequest::History`].
    Adopted(Box<Adopted>),
    /// To [`KvRequest::Server`].
    Server(ServerReply),
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
    /// The shard is not here. Carries the configuration that this group adopted last.
    #[error("this group does not serve the shard in configuration {config}")]
    WrongGroup {
        /// That configuration.
        config: ConfigNum,
        /// The group that gets the shard from this one.
        ask: Option<GroupId>,
    },
    /// The shard is on its way here, or this group is behind the clerk's configuration; try again
    /// soon.
    #[error("the shard is not ready here yet (configuration {config})")]
    NotReady {
        /// The configuration that this group adopted last.
        config: ConfigNum,
        /// The group that has the shard and offered it to this one.
        ask: Option<GroupId>,
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
    /// The session was dropped; its request is not executed now, but an earlier try may have been.
    #[error("the session expired")]
    SessionExpired,
    /// The session has gone past this number.
    #[error("an older request of this session: its answer is gone")]
    StaleSeq,
    /// Whether it was done is not known.
    #[error("the group cannot tell whether this was done")]
    Unknown,
    /// Definitely not done; try again.
    #[error("not done, try again")]
    NotExecuted,
    /// Too much at once, or too many sessions that are used: not done.
    #[error("the group has too much to do, or the shard all the sessions that it may have: try again")]
    Busy,
    /// The disk is nearly full: not done. Reads and deletes still work.
    #[error("a disk of this group is nearly full: free space, it recovers on its own")]
    DiskFull,
    /// No such shard.
    #[error("shard {0} does not exist in this cluster")]
    UnknownShard(ShardId),
    /// The request contradicts itself.
    #[error("refused: {0}")]
    Malformed(String),
    /// To a push: the configuration that it names is another one here. One of the two groups
    /// follows controllers that were newly made or set back.
    #[error("configuration {} is another one in this group (digest {}): nothing was done", .here.num, .here.digest)]
    OtherHistory {
        /// The one here.
        here: Place,
    },
    /// The group's data is not the data that joined the cluster: none of it is served (correctness
    /// rule 57).
    #[error(
        "group {group} lost its data: the cluster knows it as {:016x}, and it has {:016x}, so nothing was done; \
         stop its servers and start them on the data directories that it joined with",
        .registered.0,
        .own.0
    )]
    LostData {
        /// The group.
        group: GroupId,
        /// The incarnation of its data that the cluster knows.
        registered: Incarnation,
        /// The incarnation of the present data.
        own: Incarnation,
    },
    /// The values that a batch would make are too large together: nothing of it was done.
    #[error(
        "the values that this batch would make have {bytes} bytes or more, allowed are {limit}: send it in parts"
    )]
    BatchTooLarge {
        /// Bytes that they would have up to the write that is too much.
        bytes: u64,
        /// Bytes allowed.
        limit: u64,
    },
}
