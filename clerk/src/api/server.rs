//! What any server is asked about itself, whatever it serves: its slow requests, the level of its log. It
//! answers at once, from memory, also while its group has no leader.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ShardId;

/// Slow requests that a server remembers.
pub const SLOW_REQUESTS_MAX: usize = 128;

/// Stages of a request.
const STAGES_MAX: usize = 8;

/// What a server is asked about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerRequest {
    /// The slow requests that it remembers.
    Slow,
    /// The level of its log, after it was set if there is a text. Not kept across a start.
    LogLevel(Option<String>),
}

/// Its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerReply {
    /// To [`ServerRequest::Slow`]: the newest first.
    Slow(#[serde(deserialize_with = "base::codec::bounded::<SLOW_REQUESTS_MAX, _, _>")] Vec<SlowRequest>),
    /// To [`ServerRequest::LogLevel`]: the level in force.
    LogLevel(String),
    /// It was not done, and why.
    Refused(String),
}

/// A request that took long. Its key and its value are not remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowRequest {
    /// When it ended: milliseconds since 1970, of that server's clock.
    pub at: u64,
    /// Its verb.
    pub verb: String,
    /// The shard that it was about.
    pub shard: Option<ShardId>,
    /// How it ended.
    pub outcome: String,
    /// How long it took, in microseconds.
    pub micros: u64,
    /// Where the time went, in microseconds, in the order of the stages. What was not measured is missing.
    #[serde(deserialize_with = "base::codec::bounded::<STAGES_MAX, _, _>")]
    pub stages: Vec<(Stage, u64)>,
}

/// A part of the way of a request through a server. The last one may have been cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// It waited for its place in the leader's log, or a read for its turn.
    Queue,
    /// The leader wrote it to its disk.
    Sync,
    /// It waited for a majority of the group.
    Replicate,
    /// It waited to be applied, was applied, and was answered.
    Apply,
    /// A read waited until the leader knew that it still led.
    Confirm,
    /// A read waited for what was committed before it, and read.
    Read,
}

impl Stage {
    /// As programs read it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Sync => "sync",
            Self::Replicate => "replicate",
            Self::Apply => "apply",
            Self::Confirm => "confirm",
            Self::Read => "read",
        }
    }
}

/// A slow request, as programs read it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShownSlow {
    server: String,
    at: u64,
    verb: String,
    shard: Option<ShardId>,
    outcome: String,
    seconds: f64,
    stages: BTreeMap<&'static str, f64>,
}

impl SlowRequest {
    /// As programs read it; `server`: the name of the server that had it.
    pub fn shown(&self, server: &str) -> ShownSlow {
        let seconds = |micros: u64| Duration::from_micros(micros).as_secs_f64();
        ShownSlow {
            server: server.to_owned(),
            at: self.at,
            verb: self.verb.clone(),
            shard: self.shard,
            outcome: self.outcome.clone(),
            seconds: seconds(self.micros),
            stages: self.stages.iter().map(|(stage, micros)| (stage.name(), seconds(*micros))).collect(),
        }
    }
}
