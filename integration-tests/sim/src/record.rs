//! What happened in a run, for people: the events of servers, network and test, and the operations
//! of clients. A failed run is repeated with recording on (the seed makes it the same run), so a
//! run that passes pays nothing. Of a long run the newest part is kept ([`Tape`]).
//!
//! The log in columns and the page are made of a [`Recording`] alone, and it is stored beside them.

mod tape;

use serde::{Deserialize, Serialize};

pub use self::tape::{LeftOut, Tape};

use judge::history::Operation;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Virtual nanoseconds since the start of the run.
    pub at_ns: u64,
    /// The server or client it concerns ("1.2": server 2 of group 1); none: the test or the network.
    pub at: Option<String>,
    /// The term, where there is one.
    pub term: Option<u64>,
    #[serde(flatten)]
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    /// A server starts; its lives count from 1.
    Start { life: u64 },
    /// A server is killed.
    Crash { life: u64 },
    /// A server's role changed: "follower", "pre-candidate", "candidate", "leader".
    Role {
        role: String,
        /// The leader it knows of.
        leader: Option<u64>,
    },
    /// Its commit index or its applied index moved.
    Progress {
        commit: u64,
        applied: u64,
        /// Bytes of log in memory.
        log_bytes: u64,
    },
    /// A message left.
    Sent {
        /// Its kind: "vote", "append", "chunk reply", "request", ...
        kind: String,
        /// To whom.
        to: String,
        /// Its content, shortened.
        text: String,
        /// Why it will not arrive: "lost", "unreachable"; none: it will.
        fate: Option<String>,
    },
    /// A message arrived.
    Arrived {
        kind: String,
        from: String,
        /// Its content, shortened.
        text: String,
    },
    /// Something became durable: "save", "flush", "switch".
    Saved { kind: String },
    /// A client end was enabled or disabled.
    Link { from: String, to: String, up: bool },
    /// The network changed for everybody.
    Weather {
        /// In words: "reliable", "unreliable, long reordering".
        text: String,
    },
    /// A group's shard changed, as the group's server sees it.
    Shard {
        shard: u32,
        /// Its state there: "serving", "awaiting", "handing to 102", "parked", "absent".
        state: String,
        config: u64,
    },
    /// The scenario says where it is.
    Step {
        /// In words.
        text: String,
    },
    /// The run failed here.
    Failed { text: String },
}

impl What {
    /// The word by which a log is filtered.
    pub fn topic(&self) -> &str {
        match self {
            Self::Start { .. } | Self::Crash { .. } => "life",
            Self::Role { .. } => "role",
            Self::Progress { .. } => "commit",
            Self::Sent { kind, .. } | Self::Arrived { kind, .. } => match kind.as_str() {
                kind if kind.contains("vote") => "vote",
                kind if kind.contains("chunk") => "snapshot",
                kind if kind.contains("append") => "append",
                kind if kind.contains("heartbeat") => "heartbeat",
                _ => "client",
            },
            Self::Saved { .. } => "disk",
            Self::Link { .. } | Self::Weather { .. } => "network",
            Self::Shard { .. } => "shard",
            Self::Step { .. } | Self::Failed { .. } => "test",
        }
    }
}

/// Every topic a log can be filtered by.
pub const TOPICS: [&str; 12] = [
    "life",
    "role",
    "vote",
    "append",
    "heartbeat",
    "commit",
    "snapshot",
    "disk",
    "network",
    "shard",
    "client",
    "test",
];

/// The run that was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The test's id: "R12".
    pub test: String,
    /// Its title, as the labs print it.
    pub title: String,
    pub seed: u64,
    /// Everything else that decides the run, as "name: value" pairs.
    pub options: Vec<(String, String)>,
    pub failure: String,
    /// The time of the failure, in virtual nanoseconds.
    pub failed_at_ns: u64,
    /// The command that repeats it.
    pub replay: String,
}

/// A run, recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recording {
    /// The run.
    pub header: Header,
    /// What happened, in order.
    pub events: Vec<Event>,
    /// What was not kept.
    pub left_out: LeftOut,
    /// What clients saw.
    pub history: Vec<Operation>,
}
