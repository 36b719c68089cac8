//! What goes through a group's log, and what is asked of its rows.
//!
//! Commands are replicated: the enum grows only at the end. Whatever decides a result travels in the
//! command (the clerk's configuration number, the configuration that moves a shard), so that `apply`
//! needs nothing but the rows (correctness rule 21).
//!
//! A batch to one shard is one command with one number, so it costs one session row.

use base::socket::Reservation;
use bytes::Bytes;
use clerk::api::config::{Place, Sealed};
use clerk::api::kv::{KvRefusal, KvReply, Write};
use clerk::api::push::{Cursor, PushReply};
use clerk::api::{ConfigNum, Incarnation, ShardId, Ticket};
use serde::{Deserialize, Serialize};

/// A change of a group's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Names this life of the group's data. The first one wins.
    Init {
        /// Drawn by the leader that found none.
        incarnation: Incarnation,
    },
    /// Goes on to this configuration, if it is the next one of the own history.
    Adopt(Sealed),
    /// Opens a session in a shard.
    Open {
        /// The shard.
        shard: ShardId,
        /// The clerk's configuration.
        config: ConfigNum,
    },
    /// Changes a key.
    Write {
        /// The shard of the key.
        shard: ShardId,
        /// The key.
        key: Bytes,
        /// The change.
        write: Write,
        /// Session and number, if the clerk has a session.
        ticket: Option<Ticket>,
        /// The clerk's configuration.
        config: ConfigNum,
    },
    /// Adds rows behind the install cursor of a shard that is awaited.
    Install {
        /// The shard.
        shard: ShardId,
        /// The configuration that moves it.
        config: Place,
        /// Where the sender believes the cursor is.
        after: Cursor,
        /// Raw rows behind it, ascending.
        rows: Vec<(Bytes, Bytes)>,
    },
    /// Serves a shard that is awaited, if its cursor is the end of the sender's rows.
    Activate {
        /// The shard.
        shard: ShardId,
        /// The configuration that moves it.
        config: Place,
        /// The cursor that all rows make.
        end: Cursor,
    },
    /// Drops a shard that another group serves by now.
    Release {
        /// The shard.
        shard: ShardId,
        /// The configuration that moved it.
        num: ConfigNum,
    },
    /// Changes keys of one shard, in order.
    Batch {
        /// The shard of every key.
        shard: ShardId,
        /// Keys and changes.
        writes: Vec<(Bytes, Write)>,
        /// Session and number, if the clerk has a session.
        ticket: Option<Ticket>,
        /// The clerk's configuration.
        config: ConfigNum,
    },
    /// Stops serving a shard that leaves, so that its rows can be sent.
    Seal {
        /// The shard.
        shard: ShardId,
        /// The move.
        num: ConfigNum,
    },
    /// Takes a sealed shard back that its new owner refused.
    Reopen {
        /// The shard.
        shard: ShardId,
        /// The move.
        num: ConfigNum,
    },
}

/// What the sender of a command or a question is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// To what comes from clients.
    Reply(Result<KvReply, KvRefusal>),
    /// To what comes from another group that hands a shard over.
    Push(Result<PushReply, KvRefusal>),
    /// To commands of the group itself: whether anything changed.
    Changed(bool),
}

impl Outcome {
    /// The reply to a client.
    ///
    /// # Errors
    /// The refusal.
    pub fn reply(self) -> Result<KvReply, KvRefusal> {
        match self {
            Self::Reply(reply) => reply,
            _ => Err(odd()),
        }
    }

    /// The reply to another group.
    ///
    /// # Errors
    /// The refusal.
    pub fn push(self) -> Result<PushReply, KvRefusal> {
        match self {
            Self::Push(reply) => reply,
            _ => Err(odd()),
        }
    }
}

fn odd() -> KvRefusal {
    KvRefusal::Malformed("an internal command has no reply".to_owned())
}

/// A question to the rows. Never leaves the process.
#[derive(Clone, Debug)]
pub enum Query {
    /// The value of a key.
    Get {
        /// The shard of the key.
        shard: ShardId,
        /// The key.
        key: Bytes,
        /// The clerk's configuration.
        config: ConfigNum,
        /// Where the answer has to find room.
        room: Reservation,
    },
    /// A page of a shard's rows.
    Scan {
        /// The shard.
        shard: ShardId,
        /// Rows behind this key.
        after: Option<Bytes>,
        /// At most so many.
        limit: u32,
        /// The clerk's configuration.
        config: ConfigNum,
        /// Where the answer has to find room.
        room: Reservation,
    },
    /// An Install without rows: where is the cursor?
    Cursor {
        /// The shard.
        shard: ShardId,
        /// The configuration that moves it.
        config: Place,
    },
    /// The configurations that were adopted.
    History,
}
