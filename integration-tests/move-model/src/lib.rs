//! Exhaustive check of the protocol that moves shards, over the product's own transition functions.
//!
//! [`shardkv::shard`] says what each event does to a shard. This crate builds the smallest world
//! around it in which shards move. Each group is one linearized state machine, because its log
//! makes it one. Configurations follow an owner history. Movers send, and every message that was
//! ever sent may arrive at any time, any number of times, in any order, or never. The search visits
//! every state of that world, for every owner history of a given length, with every placement of
//! clients' writes.
//!
//! In every state and step:
//! * at most one group serves a shard, judged by [`shardkv::shard::access`], and its configuration
//!   gives it the shard;
//! * the group that serves it has exactly the rows that acknowledged writes made: nothing is lost,
//!   nothing is of an earlier life;
//! * a group that may not drop them holds those rows, and a Release happens only after the receiver
//!   has everything (correctness rule 38);
//! * rows that are being installed are a prefix of the present sender's rows, and a mover that
//!   asked first never sends an Activate that does not match (rule 37).
//!
//! From every state: without clients, and with only messages that can be sent anew, all groups
//! reach the newest configuration and all shards their place, including rings of two shards (rules
//! 36, 40).
//!
//! The check itself is checked: it finds each [`Bug`].
//!
//! Reading order: `values`, `messages`, `histories`, `group`, `sending`, `steps`, `properties`,
//! `search`, [`campaign`] (which worlds are searched); and [`machine`], which compares the groups
//! of this world with the product's state machine. Left out on purpose: sessions (rows like
//! others), `Busy` and addresses (they look like loss), clerks, and the group's own log, which the
//! simulator tests.

mod bugs;
pub mod campaign;
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
    /// Like the product's: they ask, and continue from the answer.
    #[default]
    Careful,
    /// They send rows and Activate without asking, too.
    Early,
}

/// When a group that left may be switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// When every running group has adopted a configuration from which on it owns nothing: the rule
    /// that `clerk leave` waits for.
    EverybodyPastIt,
    /// A wrong rule: when all its shards are absent.
    AllAbsent,
    /// A wrong rule: when it has adopted such a configuration itself, and all its shards are
    /// absent.
    LeftAndAllAbsent,
}

/// The options of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Keys that clients write.
    pub keys: u8,
    /// Writes of each shard.
    pub writes: u8,
    pub mover: Mover,
    /// Whether and when groups that left are switched off.
    pub stop: Option<Stop>,
    /// Whether sending a message is a separate step, which may come too late.
    pub one_message_a_step: bool,
    /// Whether to check properties that no client sees.
    pub inner: bool,
    pub bug: Option<Bug>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            keys: 1,
            writes: 2,
            mover: Mover::Careful,
            stop: None,
            one_message_a_step: false,
            inner: true,
            bug: None,
        }
    }
}
