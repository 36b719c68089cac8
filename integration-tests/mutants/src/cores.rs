//! Tests what a core does with messages that sound servers never send, or send only in a rare
//! overload, so that no storm of sound servers shows it.

use bytes::Bytes;
use raft::config::{Config, Law};
use raft::core::message::{Body, Chunk, Message, TableReport, Verdict};
use raft::core::ready::{Apply, ReadId};
use raft::core::role::Role;
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

fn members() -> Membership {
    Membership::of([1, 2, 3].map(NodeId))
}

fn says(raft: &mut Raft, term: u64, body: Body) -> Result<(), Refused> {
    raft.step(NodeId(2), Message::new(Term(term), body))
}

/// The same server as the leader of term 2.
fn elected() -> Raft {
    let mut leader = server();
    (0..=Config::default().election_ticks_max).for_each(|_| leader.tick());
    let _ = says(&mut leader, 1, Body::PreVoteReply { asked: Term(2), granted: true });
    let _ = says(&mut leader, 2, Body::VoteReply { granted: true });
    leader
}

fn matched(index: u64, round: u64, room: u64) -> Body {
    let (verdict, table) = (Verdict::Matched(Index(index)), TableReport::default());
    Body::AppendReply { verdict, round, disk_low: false, owes: false, table, room }
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
    let mut leader = elected();
    let was = matches!(leader.role(), Role::Leader(_));
    let _ = says(&mut leader, 2, matched(99, 0, u64::MAX));
    match (was, leader.role()) {
        (true, Role::Follower { .. }) => Ok(()),
        (_, role) => Err(format!("a leader that lacks entries goes on: {was} {role:?}")),
    }
}

/// Where its Appends to server 2 begin, and how many entries they carry.
fn appends(raft: &mut Raft) -> Vec<(u64, usize)> {
    let ready = raft.take_ready();
    raft.saved();
    let to_two = ready.appends.into_iter().filter(|envelope| envelope.to == NodeId(2));
    to_two
        .filter_map(|envelope| match envelope.message.body {
            Body::Append { prev, entries, .. } => Some((prev.index.0, entries.len())),
            _ => None,
        })
        .collect()
}

/// Followers without room (correctness rule 77).
pub(crate) fn backlogs() -> Result<(), String> {
    // The server is full of entries that an old leader could not commit.
    let limit = Config { unapplied_bytes_max: 1000, ..Config::default() };
    let restored = Restored::default();
    let mut follower =
        Raft::new(NodeId(1), Membership::of([1, 2, 3].map(NodeId)), limit, restored, EntryId::ZERO);
    for index in 1..4 {
        let command = Payload::Command(Bytes::from(vec![0; 1000]));
        let entries = vec![Entry::new(EntryId::new(1, index), command)];
        let prev = if index == 1 { EntryId::ZERO } else { EntryId::new(1, index - 1) };
        let append =
            Body::Append { prev, entries, commit: Index(0), round: 0, acked: EntryId::ZERO, differs: None };
        let _ = says(&mut follower, 1, append);
    }
    if follower.log().last().index != Index(3) {
        return Err("entries that are not committed fill a follower".to_owned());
    }
    // Entries are in flight when the follower says that it dropped them.
    let mut leader = elected();
    appends(&mut leader);
    let _ = says(&mut leader, 2, matched(6, 0, u64::MAX));
    for _ in 0..2 {
        let _ = leader.propose(Bytes::from_static(b"command"), false);
        let _ = leader.read(ReadId(1));
        appends(&mut leader);
    }
    let _ = says(&mut leader, 2, matched(6, 0, 0));
    (0..Config::default().heartbeat_ticks).for_each(|_| leader.tick());
    let beats = appends(&mut leader);
    if beats.iter().any(|beat| *beat != (6, 0)) {
        return Err(format!("a follower that is full at 6 is sent {beats:?}"));
    }
    // The message that there is room was lost; this one answers a heartbeat.
    let _ = says(&mut leader, 2, matched(6, 1, 1000));
    match appends(&mut leader).first() {
        Some((6, 2)) => Ok(()),
        other => Err(format!("a follower that has room again is sent {other:?}")),
    }
}

/// The log's files keep entries that a follower lacks (correctness rule 79).
pub(crate) fn kept() -> Result<(), String> {
    let mut leader = elected();
    appends(&mut leader);
    let _ = says(&mut leader, 2, matched(6, 0, u64::MAX));
    match leader.wanted() {
        Index(0..=6) => Ok(()),
        other => Err(format!("a follower is at 6, another is silent, and entries from {other} on are kept")),
    }
}

/// A table that does not get durable (correctness rule 77).
pub(crate) fn retained() -> Result<(), String> {
    let config = Config::default().with_log_bytes_max(1 << 16);
    let mut follower = Raft::new(NodeId(1), members(), config, Restored::default(), EntryId::ZERO);
    for index in 1..=200 {
        let command = Payload::Command(Bytes::from(vec![0; 1 << 14]));
        let entries = vec![Entry::new(EntryId::new(1, index), command)];
        let prev = if index == 1 { EntryId::ZERO } else { EntryId::new(1, index - 1) };
        let (commit, acked) = (Index(index), EntryId::ZERO);
        let _ =
            says(&mut follower, 1, Body::Append { prev, entries, commit, round: 0, acked, differs: None });
        let ready = follower.take_ready();
        follower.saved();
        let entry = |item: &Apply| if let Apply::Entry(entry) = item { entry.weight() } else { 0 };
        follower.applied_bytes(ready.apply.iter().map(entry).sum());
    }
    match follower.log().bytes() {
        0..1_000_000 => Ok(()),
        bytes => Err(format!("a log of {bytes} bytes is in memory, and the table is not durable")),
    }
}

/// A member at its snapshot, of which a lot is left (correctness rule 133).
pub(crate) fn paces() -> Result<(), String> {
    let pace = Law { least: 1, ..Law::default() };
    let config = Config { pace, ..Config::default() };
    let hard_state = HardState { term: Term(1), vote: None };
    let marker = EntryId::new(1, 5);
    let restored = Restored { hard_state, marker, ..Restored::default() };
    let mut leader = Raft::new(NodeId(1), members(), config.clone(), restored, marker);
    (0..=config.election_ticks_max).for_each(|_| leader.tick());
    let _ = says(&mut leader, 1, Body::PreVoteReply { asked: Term(2), granted: true });
    let _ = says(&mut leader, 2, Body::VoteReply { granted: true });
    leader.set_room(1 << 26, 1 << 30);
    let (slow, step) = (NodeId(3), 10_000);
    let mut staged = None;
    for tick in 0..1200_u32 {
        leader.tick();
        let _ = leader.propose(Bytes::from(vec![0; step]), false);
        let mut handed = 0;
        while let ready = leader.take_ready()
            && !ready.is_empty()
        {
            leader.saved();
            let entry = |item: &Apply| if let Apply::Entry(entry) = item { entry.weight() } else { 0 };
            handed += ready.apply.iter().map(entry).sum::<usize>();
            for order in ready.streams {
                // A fifth of what is written.
                let row = (Bytes::from(format!("{tick:08}")), Bytes::from(vec![0; step / 5]));
                let snapshot = order.snapshot.unwrap_or(EntryId::new(2, leader.commit().0));
                leader
                    .chunk_read(slow, Chunk::new(snapshot, members(), order.after, vec![row.clone()], false));
                staged = Some((snapshot, row.0));
            }
        }
        leader.applied_bytes(handed);
        let last = leader.log().last().index.0;
        let _ = says(&mut leader, 2, matched(last, 0, u64::MAX));
        let conflict = Verdict::Conflict { at: Index(5), try_at: EntryId::ZERO };
        let table = TableReport::default();
        let body = Body::AppendReply {
            verdict: conflict,
            round: 0,
            disk_low: false,
            owes: false,
            table,
            room: u64::MAX,
        };
        let _ = leader.step(slow, Message::new(leader.term(), body));
        if let Some((snapshot, cursor)) = staged.take() {
            let reply = Body::ChunkReply { snapshot, cursor: Some(cursor), resume: false };
            let _ = leader.step(slow, Message::new(leader.term(), reply));
        }
    }
    let written = step as u64 * 40;
    match (leader.standing(slow), leader.pace()) {
        (Some(_), Some(pace)) if pace < written / 2 => Ok(()),
        other => Err(format!("{written} bytes are written per second beside a long snapshot, and {other:?}")),
    }
}

/// A snapshot that fills the disk (correctness rule 35).
fn full_disk() -> Result<(), String> {
    let mut follower = server();
    let rows = vec![(Bytes::from("key"), Bytes::from("value"))];
    let first = Chunk::new(EntryId::new(1, 6), members(), None, rows, false);
    let _ = says(&mut follower, 1, Body::Chunk(first));
    follower.take_ready();
    follower.staged(EntryId::new(1, 6));
    follower.set_disk_low(true);
    follower.tick();
    let apply = follower.take_ready().apply;
    match apply.iter().any(|item| matches!(item, Apply::DropStaged)) {
        true => Ok(()),
        false => Err(format!("the disk is nearly full of a snapshot, which goes on: {apply:?}")),
    }
}

/// A snapshot that the log overtook (correctness rule 78).
pub(crate) fn stagings() -> Result<(), String> {
    full_disk()?;
    let mut follower = server();
    let rows = vec![(Bytes::from("key"), Bytes::from("value"))];
    let members = Membership::of([1, 2, 3].map(NodeId));
    let first = Chunk::new(EntryId::new(1, 6), members, None, rows, false);
    let _ = says(&mut follower, 1, Body::Chunk(first));
    let entries = vec![Entry::new(EntryId::new(1, 6), Payload::Empty)];
    let prev = EntryId::new(1, 5);
    let append =
        Body::Append { prev, entries, commit: Index(6), round: 0, acked: EntryId::ZERO, differs: None };
    let _ = says(&mut follower, 1, append);
    let apply = follower.take_ready().apply;
    if apply.iter().any(|item| matches!(item, Apply::DropStaged)) {
        Ok(())
    } else {
        Err(format!("rows that are not needed any more are kept: {apply:?}"))
    }
}
