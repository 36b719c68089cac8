//! Messages from the group that hands a shard over to the group that gets it.
//!
//! They use separate connections, whose first frame names the sender and the incarnation of its
//! data: a client's connection cannot carry rows (correctness rule 58). Every request names the
//! configuration that moves the shard by number and digest.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::config::Place;
use super::kv::ELEMENTS_MAX;
use super::{ConfigNum, GroupId, Incarnation, ShardId};

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
    /// Rows after the cursor.
    Install {
        /// The shard.
        shard: ShardId,
        /// The configuration that moves it.
        config: Place,
        /// The sender.
        from: GroupId,
        /// The cursor that the sender believes the receiver has.
        after: Cursor,
        /// Raw rows after it, ascending. Empty: a question about the cursor.
        #[serde(deserialize_with = "base::codec::bounded::<ELEMENTS_MAX, _, _>")]
        rows: Vec<(Bytes, Bytes)>,
    },
    /// Everything was sent; serve it.
    Activate {
        /// The shard.
        shard: ShardId,
        /// The configuration that moves it.
        config: Place,
        /// The sender.
        from: GroupId,
        /// The cursor that all rows make.
        end: Cursor,
    },
    /// Would the receiver take the shard now? The sender serves it until it would.
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

/// The answer. Refusals are those of clients ([`super::kv::KvRefusal`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PushReply {
    /// While the shard is awaited: how far the receiver is.
    Cursor {
        /// The configuration this is about.
        num: ConfigNum,
        /// How far.
        cursor: Cursor,
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
