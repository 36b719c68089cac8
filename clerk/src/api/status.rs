//! What servers report about themselves.

use std::collections::BTreeMap;
use std::fmt;

use base::socket::{self, Counters, Kind};
use serde::{Deserialize, Serialize};

use super::config::Place;
use super::{Address, ConfigNum, Digest, GroupId, Incarnation, ShardId};

/// A replica's part in its group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Follows a leader or waits for one.
    #[default]
    Follower,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// A replica of any kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// Its id in its group.
    pub id: u64,
    /// Its process.
    pub pid: u32,
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// The leader it knows of.
    pub leader: Option<u64>,
    /// Its commit index.
    pub commit: u64,
    /// Its applied index.
    pub applied: u64,
    /// Bytes of log in memory.
    pub log_bytes: u64,
    /// Hash chained over all applied changes; comparable between replicas at equal `applied`.
    pub table_hash: u64,
    /// Bytes of entries that are committed and not applied here (correctness rule 77).
    pub unapplied_bytes: u64,
    /// Synced writes of its log since it started.
    pub wal_syncs: u64,
    /// Those of them that took longer than the shortest election timeout.
    pub slow_syncs: u64,
    /// What a leader knows of the others, by id.
    pub followers: BTreeMap<u64, Follower>,
    /// Bytes that clients may write per second, while it slows them down for a member that lags.
    pub pace: Option<u64>,
    /// Connections that it refused since it started, by reason (correctness rule 48).
    pub refused: BTreeMap<String, u64>,
    /// The servers that do not let it in, or are not what they should be, by address, with the
    /// reason.
    pub refused_by: BTreeMap<String, String>,
    /// The entry (`index@term`) up to which this server must have its log again before it is a full
    /// member: it lost a part of it (correctness rule 62).
    pub owes: Option<String>,
    /// Messages of peers that it refused since it started.
    pub refused_messages: u64,
    /// Alarms since it started: signs that a promise of the group, or of a member's disk, does not hold.
    pub alarms: u64,
    /// The newest of them, in words.
    pub last_alarm: Option<String>,
    /// Its table differs from those of most servers: it answers no client until a snapshot has replaced the table.
    pub table_bad: bool,
    /// Members whose messages it refuses, because they were wrong about their logs again and again.
    pub refused_peers: Vec<u64>,
    /// Its connections.
    pub connections: Connections,
    /// The disk that its data lies on.
    pub disk: DiskStatus,
    /// Where it shows itself over HTTP (docs/operations.md); none: nowhere.
    pub http: Option<Address>,
    /// The requests that ended here since it started, by verb; verbs without any are left out.
    pub requests: BTreeMap<String, Requests>,
    /// Slow requests since it started.
    pub slow_requests: u64,
}

/// Requests of a verb that ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    /// How they ended, by outcome; outcomes without any are left out.
    pub ended: BTreeMap<String, u64>,
    /// All of them.
    pub count: u64,
    /// What they took together, in microseconds.
    pub micros: u64,
    /// How many took at most each of [`base::times::BOUNDS_MICROS`].
    pub at_most: Vec<u64>,
}

/// How a member of a group keeps up with its leader (correctness rule 133).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It lacks little.
    #[default]
    Level,
    /// It lacks more, and is on its way.
    Arriving,
    /// It is not heard.
    Silent,
    /// It takes less than clients write, and no write waits for it.
    GivenUp,
}

/// Another server, as its leader sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Follower {
    /// Entries that are committed and that it is not known to have.
    pub lacks: u64,
    /// Whole seconds since it was heard.
    pub silent_seconds: u64,
    /// How it keeps up.
    pub standing: Standing,
    /// Bytes that it takes per second, if that was measured while it lagged.
    pub takes: Option<u64>,
    /// Bytes that clients write per second, if it lags.
    pub wanted: Option<u64>,
}

/// The sessions of clients at a replica (correctness rules 26 and 131), of the shards that were written to since it
/// started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// Open now.
    pub open: u64,
    /// Dropped for new ones, since it started.
    pub evicted: u64,
    /// New ones that were told "busy", since it started: all others were used lately.
    pub refused: u64,
}

/// A server's disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStatus {
    /// The directory on it.
    pub directory: String,
    /// Bytes that are free.
    pub free_bytes: u64,
    /// With less free space it accepts only what frees space (correctness rule 35).
    pub reserve_bytes: u64,
    /// Whether that is so.
    pub low: bool,
}

/// The connections that others have opened to a server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// File descriptors that its process may have; 0: not known.
    pub descriptors: u64,
    /// By kind: how many are open, and how many may be.
    pub open: BTreeMap<String, Places>,
    /// Taken since it started.
    pub accepted: u64,
    /// Idle ones that it closed for others (correctness rule 101).
    pub made_room: u64,
    /// Turned away: there were too many with requests in progress, or no Hello came.
    pub turned_away: u64,
    /// Closed because of invalid bytes.
    pub malformed: u64,
    /// Bytes that wait on them (correctness rule 103).
    pub waiting_bytes: u64,
}

impl Connections {
    /// What the counters of a server say.
    pub fn of(counters: &Counters, descriptors: usize) -> Self {
        let places = |kind: Kind| {
            let socket::Places { open, max } = counters.places(kind);
            (kind.name().to_owned(), Places { open: open as u64, max: max as u64 })
        };
        Self {
            descriptors: descriptors as u64,
            open: Kind::ALL.into_iter().map(places).collect(),
            accepted: counters.accepted(),
            made_room: counters.made_room(),
            turned_away: counters.turned_away(),
            malformed: counters.malformed(),
            waiting_bytes: counters.waiting_bytes() as u64,
        }
    }
}

/// Connections of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// How many are open.
    pub open: u64,
    /// How many may be.
    pub max: u64,
}

/// A controller replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CtrlStatus {
    /// The replica.
    pub replica: ReplicaStatus,
    /// Newest configuration applied.
    pub config: ConfigNum,
    /// Its digest; none before configuration 0.
    pub digest: Option<Digest>,
    /// The key of the cluster; none before configuration 0.
    pub key: Option<u64>,
    /// Whether it waits to be recovered and makes no configuration 0.
    pub recovering: bool,
}

/// State of a shard in a group (docs/a-move.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShardPhase {
    /// Being filled from another group.
    Awaiting,
    /// Served here.
    Serving,
    /// Frozen, on its way to another group.
    Handing,
    /// Frozen; nobody owns it.
    Parked,
    /// Served here until another group is ready to take it.
    Leaving,
}

impl ShardPhase {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Awaiting, Self::Serving, Self::Handing, Self::Parked, Self::Leaving];

    /// As programs read it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Awaiting => "awaiting",
            Self::Serving => "serving",
            Self::Leaving => "leaving",
            Self::Handing => "handing",
            Self::Parked => "parked",
        }
    }

    /// Whether clients are served.
    pub fn serves(self) -> bool {
        matches!(self, Self::Serving | Self::Leaving)
    }
}

/// What clients ask of a shard in a second, as its leader measures it; 0 on other replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardLoad {
    /// Reads, a scan's page being one.
    pub reads: u64,
    /// Writes, those of a batch counted one by one.
    pub writes: u64,
    /// Bytes read and written.
    pub bytes: u64,
}

/// What a push of a shard does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CopyStep {
    /// It asks the receiver.
    #[default]
    Asks,
    /// It sends rows.
    Copies,
    /// All rows have been sent. It sends what has changed since.
    CatchesUp,
    /// Writes wait until the shard is sealed.
    Holds,
    /// The receiver does not take it.
    Refused,
}

/// How the copy of a shard goes, as the leader saw it that sends it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyStatus {
    /// What it does.
    pub step: CopyStep,
    /// Keys that have arrived.
    pub rows: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Rows that have changed since they arrived, at most.
    pub changed: u64,
    /// Bytes that arrive in a second.
    pub bytes_per_second: u64,
    /// Holds that did not end with a seal.
    pub failed_holds: u32,
    /// How often it started over.
    pub restarts: u32,
    /// How often because the rows were not the sender's: each is a bug.
    pub wipes: u32,
}

/// Moves that ended at a leader since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Shards that it gave away.
    pub shards: u64,
    /// How long nobody served the last of them, from the hold on.
    pub last_pause_micros: u64,
    /// The longest of these.
    pub longest_pause_micros: u64,
}

/// One shard that a group holds. Absent shards are not listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardStatus {
    /// The shard.
    pub shard: ShardId,
    /// Its state.
    pub phase: ShardPhase,
    /// The move that it takes part in: the number of the configuration that changed its owner.
    pub num: Option<ConfigNum>,
    /// The group it comes from or goes to.
    pub peer: Option<GroupId>,
    /// Keys.
    pub rows: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Keys that have arrived at the receiver, as far as this replica knows.
    pub progress: Option<u64>,
    /// What clients ask of it.
    pub load: ShardLoad,
    /// How its copy goes, if this replica sends it.
    pub copy: Option<CopyStatus>,
}

/// How the configurations that a group adopted compare with those of the controllers, as far as a
/// replica has heard (correctness rule 56). In all cases but the first the group adopts nothing and
/// keeps serving.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum History {
    /// They are a prefix of the controllers', or nothing else was heard.
    #[default]
    Same,
    /// The controllers have not made the configuration that the group adopted.
    Ahead {
        /// Their newest.
        newest: ConfigNum,
    },
    /// The controllers have another configuration of this number.
    Other {
        /// Theirs.
        theirs: Place,
        /// The key of their cluster.
        key: u64,
    },
    /// The controllers were recovered and do not know the configuration that the group needs next.
    Forgotten {
        /// The oldest one that they know.
        oldest: ConfigNum,
    },
    /// The controllers refuse the group.
    Refused {
        /// In their words.
        why: String,
    },
}

impl History {
    /// In one word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Same => "ok",
            Self::Ahead { .. } => "ahead",
            Self::Forgotten { .. } => "forgotten",
            Self::Other { .. } | Self::Refused { .. } => "other",
        }
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same => write!(f, "as the controllers'"),
            Self::Ahead { newest } => {
                write!(f, "ahead of the controllers, whose newest configuration is {newest}")
            }
            Self::Other { theirs, key } => {
                write!(
                    f,
                    "not the controllers': their configuration {theirs} of cluster {key:016x} is another one"
                )
            }
            Self::Forgotten { oldest } => {
                write!(f, "older than the controllers', who know none before configuration {oldest}")
            }
            Self::Refused { why } => write!(f, "refused by the controllers: {why}"),
        }
    }
}

/// A replica of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvStatus {
    /// The replica.
    pub replica: ReplicaStatus,
    /// Its group.
    pub group: GroupId,
    /// The incarnation of its data; none until the first leader drew it.
    pub incarnation: Option<Incarnation>,
    /// The configuration adopted.
    pub config: ConfigNum,
    /// Its digest; none before configuration 0.
    pub digest: Option<Digest>,
    /// The key of the cluster that the group belongs to; none before configuration 0.
    pub key: Option<u64>,
    /// How the group's history compares with the controllers'.
    pub history: History,
    /// The incarnation of the group's data that the cluster knows, if it is another one: the group
    /// lost its data and serves nothing (correctness rule 57).
    pub lost: Option<Incarnation>,
    /// Every shard is where that configuration wants it.
    pub settled: bool,
    /// The shards held.
    pub shards: Vec<ShardStatus>,
    /// The members of its group, by id, with the addresses that this replica was started with.
    pub members: BTreeMap<u64, Address>,
    /// Pushes of shards to it whose end did not match, since it started: each is a bug.
    pub wipes: u64,
    /// Sessions of clients.
    pub sessions: Sessions,
    /// Moves of shards that ended here.
    pub moved: Moved,
}
