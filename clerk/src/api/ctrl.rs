//! The shard controller's requests and answers.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::config::{AddressBook, Move, NewGroup, Place, Sealed, few_groups, few_ids, few_shards};
use super::placement::{Placement, few_pins};
use super::server::{ServerReply, ServerRequest};
use super::status::CtrlStatus;
use super::{Address, ConfigNum, Digest, GroupId, SessionId, ShardId, Ticket};

/// Configurations of one message.
const CONFIGS_READ: usize = 1024;

/// A change of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Adds groups and rebalances.
    Join(#[serde(deserialize_with = "few_groups")] BTreeMap<GroupId, NewGroup>),
    /// Removes groups and rebalances.
    Leave {
        /// The groups.
        #[serde(deserialize_with = "few_ids")]
        groups: BTreeSet<GroupId>,
        /// Allow that no group remains: the shards are parked at their last holders.
        force: bool,
    },
    /// Gives one shard to a group. Pins nothing: the next Join or Leave may move it again.
    Move {
        /// The shard.
        shard: ShardId,
        /// Its new group.
        group: GroupId,
    },
    /// Sets the weight of a group and rebalances.
    Weigh {
        /// The group.
        group: GroupId,
        /// Its weight; 0: it gives all its shards away and gets none.
        weight: u32,
    },
    /// Gives one shard to a group, where it stays.
    Pin {
        /// The shard.
        shard: ShardId,
        /// Its group from now on.
        group: GroupId,
    },
    /// Allows a pinned shard to be moved again. Moves nothing.
    Unpin {
        /// The shard.
        shard: ShardId,
    },
    /// Gives shards to groups, by a plan that was made from a configuration and a placement: refused
    /// if either has changed since.
    Arrange {
        /// The configuration that the plan was made from.
        made_from: Place,
        /// The version of the placement that it was made from.
        placement: u64,
        /// The new group of each shard.
        #[serde(deserialize_with = "few_pins")]
        moves: BTreeMap<ShardId, GroupId>,
    },
    /// Limits how fast shards move.
    MoveRate {
        /// MiB a second of each group; none: no limit.
        mib: Option<u32>,
    },
    /// Gives up what is left of shards, whose rows nobody has any more: each begins anew at its owner,
    /// empty. Refused if another configuration has been made since it was found out that they are lost.
    DeclareLost {
        /// The shards.
        #[serde(deserialize_with = "few_shards")]
        shards: BTreeSet<ShardId>,
        /// The configuration in which they were looked for.
        made_from: Place,
    },
}

/// What the controller is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CtrlRequest {
    /// Opens a session for changes.
    Open,
    /// Changes the configuration, exactly once.
    Change {
        /// The change's session and number.
        ticket: Ticket,
        /// The change.
        change: Change,
    },
    /// What would move; changes nothing.
    Plan(Change),
    /// A configuration, the newest if no number is given, and the newest address book. Linearizable.
    Query(Option<ConfigNum>),
    /// Configurations after a number, at most 64 at a time. Linearizable.
    History {
        /// Those with a larger number; none: from configuration 0 on.
        after: Option<ConfigNum>,
    },
    /// Waits up to two seconds for configurations after a number, or an address book newer than the
    /// version; then answers with what there is. Any replica answers, from what it has applied. It
    /// refuses if its own configuration of that number is another one.
    Watch {
        /// Those with a larger number.
        after: ConfigNum,
        /// The digest of the configuration `after`; 0: not known.
        digest: Digest,
        /// The version of the address book that is known.
        book: u64,
    },
    /// The status of this replica.
    Status,
    /// To controllers that were started to be recovered, after all lost their data: continue the
    /// history that the groups hold.
    Recover(Box<Recovery>),
    /// The weights and pins in force. Linearizable.
    Placement,
    /// About this server itself. Any replica answers.
    Server(ServerRequest),
}

/// What new controllers continue from after all of them lost their data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// The end of the history, without a gap: from the configuration that the slowest group needs next, or
    /// before, to the newest.
    #[serde(deserialize_with = "base::codec::bounded::<CONFIGS_READ, _, _>")]
    pub configs: Vec<Sealed>,
    /// The newest address book that a group holds.
    pub book: AddressBook,
}

/// Configurations, as one replica of the controllers knows them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// In order, without a gap.
    #[serde(deserialize_with = "base::codec::bounded::<CONFIGS_READ, _, _>")]
    pub configs: Vec<Sealed>,
    /// The newest one that this replica knows.
    pub newest: ConfigNum,
    /// The newest address book it knows.
    pub book: AddressBook,
    /// MiB a second that a group may send of shards that move; none: no limit.
    pub move_rate: Option<u32>,
}

/// The controller's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CtrlReply {
    /// To [`CtrlRequest::Open`].
    Opened(SessionId),
    /// To [`CtrlRequest::Change`] and [`CtrlRequest::Plan`]: the configuration that follows (the
    /// present one, if nothing changes) and what moves.
    Changed {
        /// Its number.
        config: ConfigNum,
        /// The shards that change hands.
        moves: Vec<Move>,
    },
    /// To [`CtrlRequest::Query`].
    Config(Sealed, AddressBook),
    /// To [`CtrlRequest::History`] and [`CtrlRequest::Watch`].
    Configs(Box<News>),
    /// To [`CtrlRequest::Status`].
    Status(Box<CtrlStatus>),
    /// To [`CtrlRequest::Recover`]: the newest configuration, from which it continues.
    Recovered(Place),
    /// To [`CtrlRequest::Placement`].
    Placement(Box<Placement>),
    /// To [`CtrlRequest::Server`].
    Server(ServerReply),
}

/// Why the controller did not do it. The text says what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum CtrlRefusal {
    /// Another replica leads.
    #[error("this replica does not lead the controller")]
    NotLeader {
        /// Where the leader was last seen.
        hint: Option<Address>,
    },
    /// Whether it was done is not known.
    #[error("the controller cannot tell whether this was done: query the configuration before repeating it")]
    Unknown,
    /// Definitely not done; try again.
    #[error("not done, try again")]
    NotExecuted,
    /// Too much at once.
    #[error("the controller is busy, try again")]
    Busy,
    /// Its disk is nearly full.
    #[error("the controller's disk is nearly full: free space, it recovers on its own")]
    DiskFull,
    /// The session was dropped; its request is not executed.
    #[error("the session expired: open a new one, and query the configuration before repeating a change")]
    SessionExpired,
    /// The session has gone past this number.
    #[error("an older request of this session: its answer is gone")]
    StaleSeq,
    /// No such group.
    #[error("group {0} is not joined, or never was: `clerk query` lists those that are")]
    UnknownGroup(GroupId),
    /// No such shard.
    #[error("shard {shard} does not exist: shards are 0 to {last}")]
    UnknownShard {
        /// The shard named.
        shard: ShardId,
        /// The last one.
        last: ShardId,
    },
    /// Group 0 means "no group", and a group needs servers.
    #[error("group {0} cannot join: ids start at 1, and a group needs at least one server address")]
    InvalidGroup(GroupId),
    /// No longer used: a joined group may be given other servers. It keeps its place, so that the
    /// numbers of the others stay.
    #[error("group {0} is joined already with other servers: leave it first, or use a new id")]
    OtherServers(GroupId),
    /// The id belonged to a group with other data (correctness rule 57).
    #[error(
        "group {0} had other data under this id before, which is not there: start its servers on the data \
         that it joined with, or a new group under an id that was never used"
    )]
    OtherIncarnation(GroupId),
    /// Nobody would be left.
    #[error("no group would be left to serve: add --force to park all shards at their last holders")]
    LastGroup,
    /// No such configuration yet.
    #[error("configuration {asked} does not exist: the newest is {newest}")]
    UnknownConfig {
        /// The number asked for.
        asked: ConfigNum,
        /// The newest number.
        newest: ConfigNum,
    },
    /// Nothing to do: no group named.
    #[error("name at least one group")]
    NothingNamed,
    /// More group ids than a cluster remembers.
    #[error("a cluster remembers at most {limit} group ids, those that left included")]
    TooManyGroups {
        /// The limit.
        limit: u32,
    },
    /// The group belongs to another cluster, whatever its name.
    #[error(
        "group {group} belongs to another cluster of this name (key {key:016x}, this one has {own:016x}): \
         nothing was changed; start the group with the --controllers of this cluster"
    )]
    OtherCluster {
        /// The group.
        group: GroupId,
        /// Its cluster's key; 0: it does not know it yet.
        key: u64,
        /// The key of this cluster.
        own: u64,
    },
    /// The caller's configuration is not this cluster's: one of them was newly made, or set back.
    #[error(
        "configuration {} is another one here (digest {}, cluster key {key:016x}): these controllers were made \
         anew or set back; `clerk status` shows what the groups hold", .here.num, .here.digest
    )]
    OtherHistory {
        /// The configuration here.
        here: Place,
        /// The key of this cluster.
        key: u64,
    },
    /// These controllers were recovered and know no older ones.
    #[error("configuration {asked} is not known any more: the controllers were recovered at {oldest}")]
    ForgottenConfig {
        /// The number asked for.
        asked: ConfigNum,
        /// The oldest one known.
        oldest: ConfigNum,
    },
    /// There is no configuration yet, and none is made.
    #[error("the controllers wait to be recovered, nothing was done: run `clerk recover-controllers`")]
    Recovering,
    /// A recovery that does not fit.
    #[error("the controllers were not recovered: {0}")]
    NotRecovered(String),
    /// More than a group may weigh.
    #[error("a weight of {weight} is too large, nothing was changed: weights are 0 to {limit}")]
    WeightTooLarge {
        /// The weight asked for.
        weight: u32,
        /// The largest one.
        limit: u32,
    },
    /// No group would get shards.
    #[error(
        "every group that remains would have weight 0, nothing was changed: give one of them a weight above 0 \
         first"
    )]
    NothingWeighs,
    /// The group gets no shards.
    #[error("group {0} has weight 0 and gets no shards, nothing was changed: give it a weight above 0 first")]
    Drained(GroupId),
    /// A group cannot be drained while shards are pinned to it.
    #[error(
        "{count} shards are pinned to group {group}, shard {first} is the first, nothing was changed: unpin them, \
         or pin them to another group, first"
    )]
    HasPins {
        /// The group.
        group: GroupId,
        /// The shards pinned to it.
        count: u32,
        /// One of them.
        first: ShardId,
    },
    /// The shard is to stay where it is.
    #[error(
        "shard {shard} is pinned to group {group}, nothing was changed: unpin it first, or pin it to another group"
    )]
    Pinned {
        /// The shard.
        shard: ShardId,
        /// Its group.
        group: GroupId,
    },
    /// The plan does not fit any more.
    #[error(
        "this was planned from configuration {made_from}, and since then a configuration, a weight or a pin was made \
         (the newest configuration is {newest}), nothing was changed: look again, and repeat it"
    )]
    Outdated {
        /// The configuration that it was made from.
        made_from: ConfigNum,
        /// The newest one.
        newest: ConfigNum,
    },
    /// No such limit of moves.
    #[error(
        "moves cannot be limited to {mib} MiB a second, nothing was changed: 1 to {limit} are allowed, or none"
    )]
    InvalidRate {
        /// The rate asked for.
        mib: u32,
        /// The highest one.
        limit: u32,
    },
    /// A shard that nobody owns cannot begin anew.
    #[error("shard {0} has no owner, nothing was changed: let a group join first")]
    Unowned(ShardId),
}
