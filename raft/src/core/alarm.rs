//! What an operator must know: signs that a promise of the group, or of a member's disk, does not
//! hold.
//!
//! An alarm itself changes nothing. The code that raises it says what the core does about the
//! cause.

use crate::types::{EntryId, Index, NodeId, Term};

/// Something that must not happen, and what this server does about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Alarm {
    /// A follower has what its leader lacks (correctness rule 67).
    #[error(
        "{peer} says that it agrees with this leader up to {claimed}, but this log ends at {last}: one of the two lost or \
         made up entries; this server steps down and does not stand for ten election timeouts"
    )]
    BeyondLog {
        /// The follower that says so.
        peer: NodeId,
        /// Its claimed position.
        claimed: Index,
        /// The end of the leader's log.
        last: EntryId,
    },
    /// One follower alone made that claim three times (correctness rule 67).
    #[error(
        "{peer} alone has said three times that it agrees beyond this leader's log: its messages are refused from now on; \
         check its disk and memory, then restart this server"
    )]
    PeerRefused {
        /// The follower.
        peer: NodeId,
    },
    /// This server's table differs from those of most servers (correctness rule 69).
    #[error(
        "this server's table differs from those of most servers at position {at}: it answers no client and does not lead until a \
         snapshot has replaced the table; its log is sound. If this returns, check the disk and the memory"
    )]
    TableBad {
        /// Where the difference showed.
        at: Index,
    },
    /// A follower's table differs from those of most servers (correctness rule 69).
    #[error(
        "the table of {peer} differs from those of most servers at position {at}: it is told to replace it"
    )]
    PeerTable {
        /// The follower.
        peer: NodeId,
        /// Where the difference showed.
        at: Index,
    },
    /// Tables differ, and no majority says which is wrong (correctness rule 69).
    #[error(
        "the tables of this group differ at position {at}, and no majority has the same: nobody can tell which is wrong. Compare \
         dumps of the servers before you trust either"
    )]
    TablesDiffer {
        /// Where the difference showed.
        at: Index,
    },
    /// Two servers claim to lead one term (correctness rule 68).
    #[error(
        "{one} and {other} both lead term {term}: somebody voted twice or speaks for another server; this server leaves that \
         term"
    )]
    TwoLeaders {
        /// The term.
        term: Term,
        /// The leader that was known first.
        one: NodeId,
        /// The other one.
        other: NodeId,
    },
}
