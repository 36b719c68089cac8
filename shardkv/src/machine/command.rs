//! The commands that go through a group's log, and the queries about its rows.
//!
//! Commands are replicated: the enum grows only at the end. Everything that decides a result
//! travels in the command (the clerk's configuration number, the configuration that moves a shard),
//! so `apply` needs nothing but the rows (correctness rule 21).
//!
//! A batch to one shard is one command with one number, so it needs one session row.

use base::socket::Reservation;
use bytes::Bytes;
use clerk::api::config::{Place, Sealed};
use clerk::api::kv::{KvRefusal, KvReply, Write};
use clerk::api::push::{Change, Cursor, End, PushReply};
use clerk::api::{ConfigNum, Incarnation, ShardId, Ticket};
use serde::{Deserialize, Serialize};

use crate::machine::rows::Frozen;

/// A change of a group's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Names this incarnation of the group's data. The first command wins.
    Init {
        /// Drawn by a leader that found none.
        incarnation: Incarnation,
    },
    /// Adopts this configuration, if it is the next one of the group's history.
    Adopt(Sealed),
    /// Opens a session in a shard.
    Open {
        shard: ShardId,
        /// The clerk's configuration.
        config: ConfigNum,
    },
    /// Changes a key.
    Write {
        shard: ShardId,
        key: Bytes,
        write: Write,
        /// Session and number, if the clerk has a session.
        ticket: Option<Ticket>,
        /// The clerk's configuration.
        config: ConfigNum,
    },
    /// Adds rows to the copy of a shard that is awaited. If `to` is the start, it drops the copy.
    Install {
        shard: ShardId,
        /// The configuration that moves it.
        config: Place,
        /// The cursor that the sender assumes.
        after: Cursor,
        /// The cursor with these rows.
        to: Cursor,
        /// Raw rows.
        rows: Vec<Change>,
    },
    /// Adds the last rows of a shard that is awaited, and serves it if its counters are the sender's.
    Activate {
        shard: ShardId,
        /// The configuration that moves it.
        config: Place,
        /// The cursor that the sender assumes.
        after: Cursor,
        /// Raw rows.
        rows: Vec<Change>,
        /// The sender's counters.
        end: End,
    },
    /// Drops a shard that another group serves now.
    Release {
        shard: ShardId,
        /// The configuration that moved it.
        num: ConfigNum,
    },
    /// Changes keys of one shard, in order.
    Batch {
        shard: ShardId,
        /// Keys and changes.
        writes: Vec<(Bytes, Write)>,
        /// Session and number, if the clerk has a session.
        ticket: Option<Ticket>,
        /// The clerk's configuration.
        config: ConfigNum,
    },
    /// Stops serving a shard that leaves, unless it was changed after the changes that this names.
    Seal {
        /// The shard.
        shard: ShardId,
        /// The move.
        num: ConfigNum,
        /// What is missing.
        frozen: Frozen,
    },
    /// Takes back a sealed shard that its new owner refused.
    Reopen {
        shard: ShardId,
        /// The move.
        num: ConfigNum,
    },
}

/// The answer to the sender of a command or a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// For requests from clients.
    Reply(Result<KvReply, KvRefusal>),
    /// For requests from another group that hands a shard over.
    Push(Result<PushReply, KvRefusal>),
    /// For the group's own commands: whether anything changed.
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

/// A query about the rows. It never leaves the process.
#[derive(Clone, Debug)]
pub enum Query {
    /// The value of a key.
    Get {
        shard: ShardId,
        key: Bytes,
        /// The clerk's configuration.
        config: ConfigNum,
        /// The room reserved for the answer.
        room: Reservation,
    },
    /// A page of a shard's rows.
    Scan {
        shard: ShardId,
        /// Rows after this key.
        after: Option<Bytes>,
        /// At most so many.
        limit: u32,
        /// The clerk's configuration.
        config: ConfigNum,
        /// The room reserved for the answer.
        room: Reservation,
    },
    /// Asks for the cursor.
    Cursor {
        /// The shard.
        shard: ShardId,
        /// The configuration that moves it.
        config: Place,
    },
    /// The configurations that were adopted.
    History,
}
