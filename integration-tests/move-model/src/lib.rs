//! Exhaustive check of the protocol that moves shards, over the product's own transition functions.
//!
//! ```
//! use move_model::{Options, classes, search};
//!
//! // Every order of events in every world of two groups, one shard and two configurations.
//! for history in classes(2, 2, 1).keys() {
//!     search(history, Options::default(), 100_000).expect("no property is broken");
//! }
//! ```
//!
//! [`shardkv::shard`] says what each event does to a shard. This crate adds the smallest world in
//! which shards move. Each group is one linearized state machine, because its log makes it one.
//! Configurations follow an owner history. Movers send, and everything that was ever sent may
//! arrive at any time, any number of times, in any order, or never. Every state of that world is
//! visited, for every owner history of a given length, however clients' writes fall between.
//!
//! In every state and step:
//! * at most one group serves a shard, judged by [`shardkv::shard::access`];
//! * who serves it has exactly the rows that acknowledged writes made, nothing lost, nothing of an
//!   earlier life;
//! * somebody who may not drop them holds those rows, a Release happens only after the receiver has
//!   everything, and a Reopen only when the receiver cannot take them any more (correctness rule
//!   38);
//! * each shard is in a state that the newest configuration wants, by the right move;
//! * rows that are being installed are the beginning of what the present sender holds, and a mover
//!   that asked first never sends an Activate that does not match (rule 37).
//!
//! From every state, without clients and only with messages that can be sent again, all groups
//! reach the newest configuration and all shards their place, rings of two shards included (rules
//! 36, 40). One group may be dead from the start, or die at any moment. Then all other groups still
//! get there, and so does each shard, unless the dead group has it or was just receiving it. A
//! shard that should move to the dead group is served by the group that has it.
//!
//! The check is itself checked: it finds each [`Bug`].
//!
//! Reading order: `values`, `messages`, `histories`, `group`, `sending`, `steps`, `properties`,
//! `search`, [`campaign`] (which worlds are searched); and [`machine`], which compares the groups
//! of this world with the product's state machine. Left out on purpose: sessions (rows like
//! others), `Busy` and addresses (they look like loss), clerks, and the group's own log, which the
//! simulator tests.

mod bugs;
pub mod campaign;
pub mod copying;
mod group;
mod histories;
pub mod machine;
mod messages;
mod product;
mod properties;
mod search;
mod sending;
mod steps;
mod values;

pub use bugs::Bug;
pub use histories::{History, classes};
pub use search::{Seen, Violation, search};

/// How movers behave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mover {
    /// As the product's: they ask, and go on from the answer.
    #[default]
    Careful,
    /// They send rows and Activate without asking, too.
    Early,
}

/// When a group that left may be switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// When every running group has adopted a configuration from which on it owns nothing, all its shards are
    /// absent, and nobody hands a shard over to it: the rule that `clerk leave` waits for.
    NobodyHandsToIt,
    /// A wrong rule: when all its shards are absent and every running group has adopted such a configuration.
    EverybodyPastIt,
    /// A wrong rule: when all its shards are absent.
    AllAbsent,
    /// A wrong rule: when it has itself adopted such a configuration, and all its shards are absent.
    LeftAndAllAbsent,
}

/// Which group dies: it stops, and nobody gets what it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dead {
    /// None.
    #[default]
    Nobody,
    /// The one at this position, before anything happens.
    FromTheStart(usize),
    /// Any one, at any moment.
    AtAnyMoment,
}

/// What is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Keys that clients write.
    pub keys: u8,
    /// Writes of each shard.
    pub writes: u8,
    /// How movers behave.
    pub mover: Mover,
    /// Whether and when groups that left are switched off.
    pub stop: Option<Stop>,
    /// Which group dies.
    pub dead: Dead,
    /// Whether saying something is a step of its own, which may not happen in time.
    pub one_message_a_step: bool,
    /// Whether properties are checked that no client sees.
    pub inner: bool,
    /// A planted bug.
    pub bug: Option<Bug>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            keys: 1,
            writes: 2,
            mover: Mover::Careful,
            stop: None,
            dead: Dead::Nobody,
            one_message_a_step: false,
            inner: true,
            bug: None,
        }
    }
}
