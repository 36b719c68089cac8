//! The life of a shard in a group: five states, and every transition a log entry.
//!
//! | state | serves | leaves by |
//! |---|---|---|
//! | `Absent` | `WrongGroup` | Adopt, mine: nobody ever owned it -> `Serving`; else -> `Awaiting` |
//! | `Awaiting` | `NotReady` | Install chunks, then Activate(n, s) -> `Serving` |
//! | `Serving` | yes | Adopt: another's -> `Handing`; nobody's -> `Parked` |
//! | `Handing` | `WrongGroup`; rows frozen | Release(n, s) -> `Absent`, rows dropped |
//! | `Parked` | `NotReady`; rows frozen | Adopt: mine -> `Serving`; another's -> `Handing` |
//!
//! A group adopts configuration n+1 only when each of its shards is `Serving`, `Absent` or `Parked`
//! (correctness rule 36). The owner *pushes*: its leader sends rows in chunks, each behind the cursor the
//! receiver has reached; at the end it says Activate. A push for (n, s) is answered `NotReady` by a
//! receiver that is behind n, handled by one that is at n and awaits the shard, and answered
//! "already done" in every other case: that answer, and nothing else, permits Release(n, s). Transitions
//! are judged when the log entry is applied, by the exact (shard, configuration number) and the cursor
//! (rule 37), so repeats, delays, reordering and any number of old leaders are harmless.
//!
//! A number means something in one history only, so configurations are compared by their digests too: a group
//! adopts n+1 only if that follows its own n, and of another n nothing is done and nothing is "already done"
//! (rule 55).
//!
//! Everything here is a pure function: what a model checker explores is the code that runs.
//! Left out on purpose: sending, rows, and time (`push`, `moves`, `mover`).

use clerk::api::config::{Assignment, Place};
use clerk::api::push::Cursor;
use clerk::api::{ConfigNum, Digest, GroupId};
use serde::{Deserialize, Serialize};

/// State of a shard in a group, as it lies in the group's rows. Grows only at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShardState {
    /// Not here: no rows.
    #[default]
    Absent,
    /// Owned, and being filled by the group that had it.
    Awaiting,
    /// Owned and served.
    Serving,
    /// Frozen, and being pushed to its new owner.
    Handing {
        /// The new owner, of the configuration that was adopted when the shard became this.
        to: GroupId,
    },
    /// Frozen; nobody owns it, and its rows are here.
    Parked,
}

impl ShardState {
    /// Whether nothing has to happen before the next configuration.
    pub fn settled(self) -> bool {
        matches!(self, Self::Absent | Self::Serving | Self::Parked)
            || self == Self::Awaiting && base::mutant!("adopt-while-awaiting")
    }

    /// The state after the group `me` adopted a configuration that assigns the shard so. Asked of settled
    /// states only; cases that the table does not list change nothing.
    #[must_use]
    pub fn adopt(self, me: GroupId, next: Assignment) -> Self {
        match (self, next.owner) {
            (Self::Absent, Some(owner)) if owner == me => match next.last_owner {
                None => Self::Serving,
                Some(_) if base::mutant!("serve-without-rows") => Self::Serving,
                Some(_) => Self::Awaiting,
            },
            (Self::Serving | Self::Parked, Some(owner)) if owner == me => Self::Serving,
            (Self::Serving | Self::Parked, Some(to)) => Self::Handing { to },
            (Self::Serving, None) if base::mutant!("parked-is-absent") => Self::Absent,
            (Self::Serving | Self::Parked, None) => Self::Parked,
            (state, _) => state,
        }
    }
}

/// Whether a group at `current` may go on to the configuration `next`, which follows one with the digest
/// `before`: strictly the next one of its own history, the first being 0, and only when every shard is settled
/// (correctness rules 36, 55).
pub fn may_adopt(
    current: Option<Place>,
    next: ConfigNum,
    before: Digest,
    mut shards: impl Iterator<Item = ShardState>,
) -> bool {
    let Place { num: expected, digest } = current.map_or(Place::default(), |current| Place {
        num: ConfigNum(current.num.0.saturating_add(1)),
        digest: current.digest,
    });
    let follows = before == digest || base::mutant!("adopt-ignores-digest");
    let skips = next > expected && base::mutant!("skip-configuration");
    (next == expected && follows || skips) && shards.all(ShardState::settled)
}

/// What a client's request meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Served.
    Serve,
    /// Not here.
    WrongGroup,
    /// Not yet.
    NotReady,
}

/// Judges a request that carries configuration `asked` at a group that adopted `mine`. A served shard
/// serves whatever number the request carries; otherwise the number decides first, then the table.
pub fn access(state: ShardState, mine: ConfigNum, asked: ConfigNum) -> Access {
    match state {
        ShardState::Serving => Access::Serve,
        ShardState::Handing { .. } if base::mutant!("serve-while-handing") => Access::Serve,
        _ if mine < asked => Access::NotReady,
        ShardState::Absent | ShardState::Handing { .. } => Access::WrongGroup,
        ShardState::Awaiting | ShardState::Parked => Access::NotReady,
    }
}

/// What a push for (n, s) meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Push {
    Behind,
    OtherHistory,
    Awaited,
    Done,
}

/// `here`: the digest of this group's own configuration of that number.
fn push(state: ShardState, mine: Option<ConfigNum>, config: Place, here: Option<Digest>) -> Push {
    let (num, same) = (config.num, here == Some(config.digest) || base::mutant!("push-ignores-digest"));
    match mine {
        None => Push::Behind,
        Some(mine) if mine < num && !base::mutant!("behind-says-done") => Push::Behind,
        Some(mine) if mine >= num && !same => Push::OtherHistory,
        Some(_) if state == ShardState::Awaiting && base::mutant!("old-push-accepted") => Push::Awaited,
        Some(mine) if mine == num && state == ShardState::Awaiting => Push::Awaited,
        Some(_) => Push::Done,
    }
}

/// Whether a configuration that assigns a shard so moves it from the group `from` to `me`.
pub fn moves_here(assignment: Assignment, me: GroupId, from: GroupId) -> bool {
    assignment.owner == Some(me) && assignment.last_owner == Some(from)
}

/// Verdict on an Install.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Install {
    /// The group is behind the sender: `NotReady`.
    Behind,
    /// The sender's configuration is not this group's: nothing is done.
    OtherHistory,
    /// The sender may release.
    AlreadyDone,
    /// Awaited, but the rows do not continue what is here: the answer is the cursor.
    Elsewhere,
    /// Awaited, and the rows continue what is here.
    Accept,
}

/// Judges an Install for (`config`, this shard) that continues `after`, at a group that adopted `mine`, whose own
/// configuration of that number has the digest `here`, and whose cursor for the shard is `cursor`.
pub fn install(
    state: ShardState,
    mine: Option<ConfigNum>,
    config: Place,
    here: Option<Digest>,
    cursor: &Cursor,
    after: &Cursor,
) -> Install {
    match push(state, mine, config, here) {
        Push::Behind => Install::Behind,
        Push::OtherHistory => Install::OtherHistory,
        Push::Done => Install::AlreadyDone,
        Push::Awaited if after == cursor => Install::Accept,
        Push::Awaited => Install::Elsewhere,
    }
}

/// Verdict on an Activate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activate {
    /// The group is behind the sender: `NotReady`.
    Behind,
    /// The sender's configuration is not this group's: nothing is done.
    OtherHistory,
    /// The sender may release.
    AlreadyDone,
    /// All rows are here: serve.
    Serve,
    /// Awaited, and what is here is not what the sender has. Senders say Activate only when the cursor is
    /// at the end of their rows, so this is somebody's bug: drop the rows and start over.
    Wipe,
}

/// Judges an Activate for (`config`, this shard) of a sender whose rows make the cursor `end`; the rest as for an
/// Install.
pub fn activate(
    state: ShardState,
    mine: Option<ConfigNum>,
    config: Place,
    here: Option<Digest>,
    cursor: &Cursor,
    end: &Cursor,
) -> Activate {
    match push(state, mine, config, here) {
        Push::Behind => Activate::Behind,
        Push::OtherHistory => Activate::OtherHistory,
        Push::Done => Activate::AlreadyDone,
        Push::Awaited if cursor == end => Activate::Serve,
        Push::Awaited => Activate::Wipe,
    }
}

/// Whether a Release for (`num`, this shard) drops the shard: only while it is handed over, and only for
/// the configuration that hands it over. "Already done(n, s)" permits no other n.
pub fn release(state: ShardState, mine: Option<ConfigNum>, num: ConfigNum) -> bool {
    matches!(state, ShardState::Handing { .. }) && mine == Some(num)
}

#[cfg(test)]
mod tests;
