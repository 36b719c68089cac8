//! What a core does about messages that sound servers never send, which no storm of sound servers shows.

use bytes::Bytes;
use raft::config::Config;
use raft::core::message::{Body, Chunk, Message, Verdict};
use raft::core::role::Role;
use raft::core::table::TableReport;
use raft::core::{Raft, Refused};
use raft::storage::Restored;
use raft::types::{Entry, EntryId, HardState, Index, Membership, NodeId, Payload, Term};

/// A server of three in term 1, with five entries, all applied.
fn server() -> Raft {
    let entry = |index| Entry::new(EntryId::new(1, index), Payload::Empty);
    let hard_state = HardState { term: Term(1), vote: None };
    let restored = Restored { hard_state, entries: (1..=5).map(entry).collect(), ..Restored::default() };
    let members = Membership::of([1, 2, 3].map(NodeId));
    Raft::new(NodeId(1), members, Config::default(), restored, EntryId::new(1, 5))
}

fn says(raft: &mut Raft, term: u64, body: Body) -> Result<(), Refused> {
    raft.step(NodeId(2), Message::new(Term(term), body))
}

/// Contradictions of every kind.
pub(crate) fn differences() -> Result<(), String> {
    let entries = vec![Entry::new(EntryId::new(2, 4), Payload::Empty)];
    let prev = EntryId::new(1, 3);
    let replaced =
        Body::Append { prev, entries, commit: Index(0), round: 0, acked: EntryId::ZERO, differs: None };
    let outcome = says(&mut server(), 2, replaced);
    if !matches!(outcome, Err(Refused::SafetyViolation(_))) {
        return Err(format!("a committed entry was replaced, and the answer is {outcome:?}"));
    }
    let rows = vec![(Bytes::from("key"), Bytes::from("value"))];
    let members = Membership::of([1, 2, 3].map(NodeId));
    let sound = Chunk::new(EntryId::new(1, 9), members, None, rows, true);
    let mut flipped = sound.clone();
    flipped.rows[0].1 = Bytes::from("valuf");
    let lost = Chunk { total: !sound.total, ..sound };
    for (what, chunk) in [("changed on their way", flipped), ("do not add up", lost)] {
        if says(&mut server(), 1, Body::Chunk(chunk)).is_ok() {
            return Err(format!("rows of a snapshot that {what} are taken"));
        }
    }
    let mut leader = server();
    (0..=Config::default().election_ticks_max).for_each(|_| leader.tick());
    let _ = says(&mut leader, 1, Body::PreVoteReply { asked: Term(2), granted: true });
    let _ = says(&mut leader, 2, Body::VoteReply { granted: true });
    let table = TableReport::default();
    let beyond = Body::AppendReply {
        verdict: Verdict::Matched(Index(99)),
        round: 0,
        disk_low: false,
        owes: false,
        table,
    };
    let was = matches!(leader.role(), Role::Leader(_));
    let _ = says(&mut leader, 2, beyond);
    match (was, leader.role()) {
        (true, Role::Follower { .. }) => Ok(()),
        (_, role) => Err(format!("a leader that lacks entries goes on: {was} {role:?}")),
    }
}
