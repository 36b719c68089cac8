//! Messages from the group that hands a shard over to the group that gets it.
//!
//! They use separate connections, whose first frame names the sender and the incarnation of its
//! data: a client's connection cannot carry rows (correctness rule 58). Every request names the
//! configuration that moves the shard by number and digest.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::config::Place;
use super::kv::ELEMENTS_MAX;
use super::{ConfigNum, GroupId, Incarnation, ShardId, Version};

/// The group that pushes, as it introduces itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Sender {
    /// The group.
    pub group: GroupId,
    /// The life of its data.
    pub incarnation: Incarnation,
}

/// Requests to a group that gets a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PushRequest {
    /// Rows that continue the copy, and its new cursor. Without rows it only moves the cursor.
    Install {
        /// The shard.
        shard: ShardId,
        /// The configuration that moves it.
        config: Place,
        /// The sender.
        from: GroupId,
        /// The cursor that the sender believes the receiver has.
        after: Cursor,
        /// The cursor with these rows. It differs from `after`.
        to: Cursor,
        /// Raw rows.
        #[serde(deserialize_with = "base::codec::bounded::<ELEMENTS_MAX, _, _>")]
        rows: Vec<Change>,
    },
    /// The last rows; serve it.
    Activate {
        /// The shard.
        shard: ShardId,
        /// The configuration that moves it.
        config: Place,
        /// The sender.
        from: GroupId,
        /// The cursor that the sender believes the receiver has.
        after: Cursor,
        /// The rows that are missing or have changed.
        #[serde(deserialize_with = "base::codec::bounded::<ELEMENTS_MAX, _, _>")]
        rows: Vec<Change>,
        /// What the receiver must have then.
        end: End,
    },
    /// Offers the shard and asks for the cursor.
    Offer {
        /// The shard.
        shard: ShardId,
        /// The configuration that moves it.
        config: Place,
        /// The sender.
        from: GroupId,
    },
}

impl PushRequest {
    /// The configuration that it names.
    pub fn config(&self) -> Place {
        match self {
            Self::Install { config, .. } | Self::Activate { config, .. } | Self::Offer { config, .. } => {
                *config
            }
        }
    }

    /// The group that it says it comes from.
    pub fn from(&self) -> GroupId {
        match self {
            Self::Install { from, .. } | Self::Activate { from, .. } | Self::Offer { from, .. } => *from,
        }
    }
}

/// A row of the sender: its key, and its value unless it was deleted.
pub type Change = (Bytes, Option<Bytes>);

/// A position in the sender's log: a change that an entry makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pos {
    /// The entry.
    pub index: u64,
    /// The change, counted from 1.
    pub change: u32,
}

impl Pos {
    /// The position of everything that an entry does.
    pub const fn end_of(index: u64) -> Self {
        Self { index, change: u32::MAX }
    }
}

/// How far rows have been copied, in the order of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Reach {
    /// None.
    #[default]
    Start,
    /// Up to this key.
    Key(Bytes),
    /// All.
    End,
}

/// How far a copy is. A row within `reach` that differs from the sender's was changed after `pos`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cursor {
    /// These rows have been copied.
    pub reach: Reach,
    /// These changes are in them.
    pub pos: Pos,
}

/// What a receiver has of a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// How far the copy is.
    pub cursor: Cursor,
    /// Keys of clients that are there.
    pub rows: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// How often the end did not match, so that the copy started over. Each is a bug.
    pub wipes: u32,
}

/// The counters of a shard. They are compared when its rows have been copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The highest version that was deleted.
    pub floor: Version,
    /// Keys of clients.
    pub rows: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
}

/// The answer. Refusals are those of clients ([`super::kv::KvRefusal`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PushReply {
    /// While the shard is awaited: how far the receiver is.
    Copied {
        /// The configuration this is about.
        num: ConfigNum,
        /// How far.
        copied: Copied,
        /// Its disks are nearly full: it takes no rows of a shard that the sender can serve.
        disk_full: bool,
    },
    /// The receiver took the shard by this move or a later one: the sender may drop its rows. Stays true.
    Done {
        /// The move.
        num: ConfigNum,
    },
    /// The receiver will never take the shard by this move: the sender may serve it again. Stays true.
    Refused {
        /// The move.
        num: ConfigNum,
    },
}
