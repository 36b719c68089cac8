//! The life of a shard in a group: six states. Every transition is a log entry.
//!
//! Configuration n says who *should* own a shard. The group that has the rows (the *holder*) serves
//! until its own log says that it stops (`Seal`). The number of a move is the number of the
//! configuration that changed the owner.
//!
//! | state | serves | leaves by |
//! |---|---|---|
//! | `Absent` | `WrongGroup` | Adopt, mine now: nobody ever owned it -> `Serving`; else -> `Awaiting` |
//! | `Awaiting` | `NotReady` | Installs, then Activate -> `Serving`; Adopt, not mine any more -> `Absent` |
//! | `Serving` | yes | Adopt, another's now -> `Leaving`; nobody's -> `Parked` |
//! | `Leaving` | yes | Seal -> `Handing`; Adopt, mine again -> `Serving`, another's -> `Leaving`, nobody's -> `Parked` |
//! | `Handing` | `WrongGroup`; rows frozen | Release -> `Absent`, rows dropped; Reopen -> what the newest Adopt wants |
//! | `Parked` | `NotReady`; rows frozen | Adopt, mine now -> `Serving`; another's -> `Leaving` |
//!
//! Adopting waits for nothing (correctness rule 36). The holder *pushes*, and serves meanwhile: its
//! leader sends rows, then the changes that were made since, each after the cursor that the receiver
//! has reached. Seal names the few changes that are still missing, and freezes the shard. Activate
//! carries them. The receiver gives one of these answers to move m of a shard:
//!
//! - it has not reached configuration m yet: `NotReady`;
//! - it awaits the shard for move m: its cursor and its counters;
//! - it took the shard by move m or a later one: "done". Only this permits Release(m);
//! - it will never take move m, because it lost the assignment first: "refused". Only this permits
//!   Reopen(m).
//!
//! Taking and refusing are entries of one log, so "done" and "refused" exclude each other until the
//! move is over. Transitions are judged when the log entry is applied, by the exact (shard, move) and
//! the cursor (rule 37). So repeats, delays, reordering and any number of old leaders are harmless.
//!
//! A configuration may declare a shard lost: then every group drops what it has of it, in any state, and
//! its owner serves it empty. The group counts it as taken by that configuration (rule 143).
//!
//! A number has a meaning in one history only, so the digests of configurations are compared too. A
//! group adopts n+1 only if it follows the group's own n. For a move of another history's n it
//! changes nothing and never answers "done" (rule 55).
//!
//! Everything here is a pure function, so a model checker explores the code that runs.
//! Left out on purpose: sending, rows, and time (`push`, `moves`, `mover`).

use clerk::api::config::{Assignment, Place};
use clerk::api::push::{Cursor, End};
use clerk::api::{ConfigNum, Digest, GroupId};
use serde::{Deserialize, Serialize};

/// The state of a shard in a group, in the form of the group's rows. Grows only at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ShardState {
    /// Not here: no rows.
    #[default]
    Absent,
    /// This group owns the shard, and waits for the group that has it.
    Awaiting {
        /// The move.
        num: ConfigNum,
    },
    /// Owned and served.
    Serving,
    /// Served here until the new owner has nearly all rows.
    Leaving {
        /// The new owner.
        to: GroupId,
        /// The move.
        num: ConfigNum,
    },
    /// Frozen, until its new owner has all rows.
    Handing {
        /// The new owner.
        to: GroupId,
        /// The move.
        num: ConfigNum,
        /// What later configurations, adopted meanwhile, want.
        next: Next,
    },
    /// Frozen: nobody owns it, and its rows are here.
    Parked,
}

/// What becomes of a sealed shard if its new owner refuses it. If the shard was released, this says
/// what becomes of it when it returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Next {
    /// Its owner has not changed meanwhile.
    #[default]
    Unchanged,
    /// It belongs to this group again.
    Mine {
        /// By this configuration.
        num: ConfigNum,
    },
    /// It belongs to another group.
    Others {
        /// That group.
        to: GroupId,
        /// By this configuration.
        num: ConfigNum,
    },
    /// It belongs to nobody.
    Nobodys,
}

impl ShardState {
    /// Whether the shard is in the state that the newest adopted configuration wants.
    pub fn settled(self) -> bool {
        matches!(self, Self::Absent | Self::Serving | Self::Parked)
    }

    /// Whether clients are served.
    pub fn serves(self) -> bool {
        matches!(self, Self::Serving | Self::Leaving { .. })
    }

    /// The move that the shard takes part in.
    pub fn moving(self) -> Option<ConfigNum> {
        match self {
            Self::Awaiting { num } | Self::Leaving { num, .. } | Self::Handing { num, .. } => Some(num),
            Self::Absent | Self::Serving | Self::Parked => None,
        }
    }

    /// The state after the group `me` adopted configuration `num`, which gives the shard to its new
    /// owner. `before` owned it in the previous configuration.
    #[must_use]
    pub fn adopt(self, me: GroupId, num: ConfigNum, before: Option<GroupId>, now: Assignment) -> Self {
        if before == now.owner {
            return self;
        }
        match (self, now.owner) {
            (Self::Absent, Some(owner)) if owner == me => match now.last_owner {
                None => Self::Serving,
                Some(_) if base::mutant!("serve-without-rows") => Self::Serving,
                Some(_) => Self::Awaiting { num },
            },
            (Self::Awaiting { .. }, _) if base::mutant!("awaiting-survives-its-loss") => self,
            (Self::Absent | Self::Awaiting { .. }, _) => Self::Absent,
            (Self::Handing { to, num: sealed, .. }, owner) => {
                base::mutant!("adopt-forgets-sealed", return self);
                Self::Handing { to, num: sealed, next: Next::of(me, num, owner) }
            }
            (Self::Serving, None) if base::mutant!("parked-is-absent") => Self::Absent,
            (Self::Serving | Self::Leaving { .. } | Self::Parked, owner) => {
                Next::of(me, num, owner).of_rows().unwrap_or(self)
            }
        }
    }
}

impl Next {
    /// What a configuration wants at the group `me` if it gives the shard to `owner`.
    fn of(me: GroupId, num: ConfigNum, owner: Option<GroupId>) -> Self {
        match owner {
            Some(owner) if owner == me => Self::Mine { num },
            Some(to) => Self::Others { to, num },
            None => Self::Nobodys,
        }
    }

    /// The state of a shard whose rows are here; none if it stays as it was.
    fn of_rows(self) -> Option<ShardState> {
        match self {
            Self::Unchanged => None,
            Self::Mine { .. } => Some(ShardState::Serving),
            Self::Others { to, num } => Some(ShardState::Leaving { to, num }),
            Self::Nobodys => Some(ShardState::Parked),
        }
    }
}

/// Whether a group at `current` may adopt the configuration `next`, which follows one with the
/// digest `before`. It must be exactly the next one of the group's own history; the first is 0
/// (correctness rules 36, 55).
pub fn may_adopt(current: Option<Place>, next: ConfigNum, before: Digest) -> bool {
    let Place { num: expected, digest } = current.map_or(Place::default(), |current| Place {
        num: ConfigNum(current.num.0.saturating_add(1)),
        digest: current.digest,
    });
    let follows = before == digest || base::mutant!("adopt-ignores-digest");
    let skips = next > expected && base::mutant!("skip-configuration");
    next == expected && follows || skips
}

/// The verdict on a client's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Served.
    Serve,
    /// Not here; the group that gets it, if that is known.
    WrongGroup {
        /// The group that gets it.
        ask: Option<GroupId>,
    },
    /// Not yet.
    NotReady,
}

/// Judges a request that carries configuration `asked` at a group that adopted `mine`. A served
/// shard is served whatever number the request carries, and a shard that is handed over names its
/// new group. Otherwise the number decides first, then the table.
pub fn access(state: ShardState, mine: ConfigNum, asked: ConfigNum) -> Access {
    match state {
        ShardState::Serving | ShardState::Leaving { .. } => Access::Serve,
        ShardState::Handing { .. } if base::mutant!("serve-while-handing") => Access::Serve,
        ShardState::Handing { to, .. } => Access::WrongGroup { ask: Some(to) },
        _ if mine < asked => Access::NotReady,
        ShardState::Absent => Access::WrongGroup { ask: None },
        ShardState::Awaiting { .. } | ShardState::Parked => Access::NotReady,
    }
}

/// A shard at its receiver when a push arrives.
#[derive(Clone, Copy, Debug)]
pub struct Here<'a> {
    pub state: ShardState,
    /// The newest move by which this group took it.
    pub taken: Option<ConfigNum>,
    /// How far its copy is.
    pub cursor: &'a Cursor,
    /// The configuration that the group adopted last.
    pub adopted: Option<ConfigNum>,
    /// The digest of this group's own configuration with the number that the push names.
    pub digest: Option<Digest>,
}

/// The verdict on any push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Push {
    Early,
    OtherHistory,
    Awaited,
    Done,
    Refused,
}

fn push(here: Here<'_>, config: Place) -> Push {
    let num = config.num;
    let same = here.digest == Some(config.digest) || base::mutant!("push-ignores-digest");
    match (here.adopted, here.state) {
        (None, _) => Push::Early,
        (Some(mine), _) if mine < num => Push::Early,
        _ if !same => Push::OtherHistory,
        (_, ShardState::Awaiting { .. }) if base::mutant!("old-push-accepted") => Push::Awaited,
        (_, ShardState::Awaiting { num: awaited }) if awaited == num => Push::Awaited,
        // It returns when the present move is over. Whether its rows come from this sender is not
        // known yet.
        (_, ShardState::Handing { next: Next::Mine { num: next }, .. }) if next == num => Push::Early,
        _ if here.taken.is_some_and(|taken| taken >= num) => Push::Done,
        _ if base::mutant!("past-says-done") => Push::Done,
        _ => Push::Refused,
    }
}

/// The verdict on an Install, or on an Offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Install {
    /// The group has not reached the move yet: `NotReady`.
    Early,
    /// The sender's configuration is not this group's: nothing changes.
    OtherHistory,
    /// Taken: the sender may release.
    Done,
    /// It will never be taken: the sender may reopen.
    Refused,
    /// Awaited, but the rows do not continue the copy that is here: the answer is the cursor.
    Elsewhere,
    /// Awaited, and the rows continue the copy that is here.
    Accept,
}

/// Judges an Install for (`config`, this shard) that continues `after`.
pub fn install(here: Here<'_>, config: Place, after: &Cursor) -> Install {
    match push(here, config) {
        Push::Early => Install::Early,
        Push::OtherHistory => Install::OtherHistory,
        Push::Done => Install::Done,
        Push::Refused => Install::Refused,
        Push::Awaited if after == here.cursor => Install::Accept,
        Push::Awaited => Install::Elsewhere,
    }
}

/// The verdict on an Activate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activate {
    /// The group has not reached the move yet: `NotReady`.
    Early,
    /// The sender's configuration is not this group's: nothing changes.
    OtherHistory,
    /// Taken: the sender may release.
    Done,
    /// It will never be taken: the sender may reopen.
    Refused,
    /// Awaited, but the rows do not continue the copy that is here: the answer is the cursor.
    Elsewhere,
    /// All rows are here: serve.
    Serve,
    /// Awaited, but these are not the sender's rows. A sender sends Activate only with all rows that
    /// are missing after the cursor, so this is a bug somewhere: drop the rows and start over.
    Wipe,
}

/// Judges an Activate for (`config`, this shard) that continues `after`. With its rows the shard
/// here has the counters `counted`, and the sender's has `end`.
pub fn activate(here: Here<'_>, config: Place, after: &Cursor, counted: End, end: End) -> Activate {
    match push(here, config) {
        Push::Early => Activate::Early,
        Push::OtherHistory => Activate::OtherHistory,
        Push::Done => Activate::Done,
        Push::Refused => Activate::Refused,
        Push::Awaited if after != here.cursor => Activate::Elsewhere,
        Push::Awaited if counted == end => Activate::Serve,
        Push::Awaited => Activate::Wipe,
    }
}

/// The state after a configuration that declares the shard lost, whatever it was before.
pub fn begun(is_mine: bool) -> ShardState {
    if is_mine { ShardState::Serving } else { ShardState::Absent }
}

/// The state after Seal(`num`), which names the changes up to entry `upto`. Only a shard that leaves
/// by that move stops being served, and only if no later entry changed it: `last` is the last one.
pub fn seal(state: ShardState, num: ConfigNum, last: u64, upto: u64) -> Option<ShardState> {
    let is_named = last <= upto || base::mutant!("seal-ignores-last-change");
    match state {
        ShardState::Leaving { to, num: leaving } if leaving == num && is_named => {
            Some(ShardState::Handing { to, num, next: Next::Unchanged })
        }
        _ => None,
    }
}

/// The state after Release(`num`), which drops the rows. It applies only while the shard is handed
/// over by that move: "Done(m)" permits no other move.
pub fn release(state: ShardState, num: ConfigNum) -> Option<ShardState> {
    match state {
        ShardState::Handing { num: handed, next, .. } if handed == num => Some(match next {
            Next::Mine { num } => ShardState::Awaiting { num },
            Next::Unchanged | Next::Others { .. } | Next::Nobodys => ShardState::Absent,
        }),
        _ => None,
    }
}

/// The state after Reopen(`num`): the rows stay here, and the shard enters the state that the
/// newest configuration wants.
pub fn reopen(state: ShardState, num: ConfigNum) -> Option<ShardState> {
    match state {
        ShardState::Handing { to, num: handed, next } if handed == num => {
            Some(next.of_rows().unwrap_or(ShardState::Leaving { to, num }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
