//! Rule 77: commit does not run away from apply. Tests what a server holds in memory while its
//! applier hangs, and that it continues when the applier does.

mod common;

use bytes::Bytes;
use raft::ExecuteError;
use raft::config::Config;
use raft::core::Raft;
use raft::core::Refused;
use raft::core::message::{Body, Message, TableReport, Verdict};
use raft::core::ready::{Apply, ReadId};
use raft::core::role::Role;
use raft::storage::Restored;
use raft::types::{Entry, EntryId, HardState, Index, Membership, NodeId, Payload, Term};

use common::{Cluster, message, small_config};

const MIB: usize = 1 << 20;
const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);

fn three() -> Membership {
    Membership::of([1, 2, 3].map(NodeId))
}

fn command_of(bytes: usize) -> Payload {
    Payload::Command(Bytes::from(vec![0; bytes]))
}

/// Acts as the driver, with an applier that hangs: returns what it got.
fn effects(raft: &mut Raft) -> (Vec<Message>, usize) {
    let (mut sent, mut handed) = (Vec::new(), 0);
    loop {
        let ready = raft.take_ready();
        raft.saved();
        raft.check();
        if ready.is_empty() {
            return (sent, handed);
        }
        sent.extend(ready.appends.into_iter().chain(ready.send).map(|it| it.message));
        handed += ready.apply.iter().filter_map(entry_of).map(Entry::weight).sum::<usize>();
    }
}

fn entry_of(item: &Apply) -> Option<&Entry> {
    match item {
        Apply::Entry(entry) => Some(entry),
        _ => None,
    }
}

fn matched(index: Index, room: u64) -> Body {
    let (verdict, table) = (Verdict::Matched(index), TableReport::default());
    Body::AppendReply { verdict, round: 0, disk_low: false, owes: false, table, room }
}

fn says(raft: &mut Raft, from: NodeId, body: Body) -> Result<(), Refused> {
    let said = raft.step(from, message(raft.term().0, body));
    raft.check();
    said
}

/// Server 1, which leads term 1 of three.
fn leader(config: Config) -> Raft {
    let mut raft = Raft::new(ONE, three(), config.clone(), Restored::default(), EntryId::ZERO);
    (0..config.election_ticks_max).for_each(|_| raft.tick());
    effects(&mut raft);
    says(&mut raft, TWO, Body::PreVoteReply { asked: Term(1), granted: true }).unwrap();
    effects(&mut raft);
    says(&mut raft, TWO, Body::VoteReply { granted: true }).unwrap();
    effects(&mut raft);
    assert!(matches!(raft.role(), Role::Leader(_)));
    raft
}

/// The leader's half, and what it owes to those who ask again.
#[test]
fn a_leader_whose_applier_hangs_is_busy_before_its_memory_is_full() {
    let config = Config::default();
    let mut raft = leader(config.clone());
    let command = Bytes::from(vec![0; MIB]);
    let (mut busy, mut handed) = (0, 0);
    for _ in 0..256 {
        busy += usize::from(raft.propose(command.clone(), false) == Err(ExecuteError::Busy));
        handed += effects(&mut raft).1;
        let last = raft.log().last().index;
        says(&mut raft, TWO, matched(last, u64::MAX)).unwrap();
        handed += effects(&mut raft).1;
    }
    let limit = config.unapplied_bytes_max;
    assert!((limit..=limit + 2 * MIB).contains(&raft.log().bytes()), "{} bytes", raft.log().bytes());
    assert!(busy > 200, "{busy} times busy");
    // It hears of a part, and takes commands again.
    raft.applied_bytes(handed);
    effects(&mut raft);
    assert!(raft.unapplied_bytes() < limit);
    assert!(raft.propose(command, false).is_ok());
}

/// A flush that hangs: the log in memory must not grow forever. It waits for the table alone, so it ends.
#[test]
fn a_server_whose_table_does_not_get_durable_takes_no_more_until_it_does() {
    let config = Config { unapplied_bytes_max: 128 << 10, ..Config::default().with_log_bytes_max(64 << 10) };
    let limit = 2 * config.log_bytes_hard_max + (64 << 10);
    let mut raft = leader(config.clone());
    let command = Bytes::from(vec![0; 16 << 10]);
    let mut busy = 0;
    for _ in 0..256 {
        busy += usize::from(raft.propose(command.clone(), false) == Err(ExecuteError::Busy));
        let handed = effects(&mut raft).1;
        raft.applied_bytes(handed);
        let last = raft.log().last().index;
        says(&mut raft, TWO, matched(last, u64::MAX)).unwrap();
        let handed = effects(&mut raft).1;
        raft.applied_bytes(handed);
    }
    assert!(raft.log().bytes() <= limit && busy > 200, "{} bytes, {busy} times busy", raft.log().bytes());
    raft.compact(raft.commit());
    effects(&mut raft);
    assert!(raft.propose(command, false).is_ok());

    let mut raft = Raft::new(TWO, three(), config, Restored::default(), EntryId::ZERO);
    let mut prev = EntryId::ZERO;
    for round in 1..=256 {
        let entry = Entry::new(EntryId::new(1, prev.index.0 + 1), command_of(16 << 10));
        let (entries, commit, acked) = (vec![entry], prev.index, EntryId::ZERO);
        let append = Body::Append { prev, entries, commit, round, acked, differs: None };
        raft.step(ONE, message(1, append)).unwrap();
        let handed = effects(&mut raft).1;
        raft.applied_bytes(handed);
        prev = raft.log().last();
    }
    assert!(raft.log().bytes() <= limit, "{} bytes", raft.log().bytes());
    assert!(prev.index < Index(100), "it took all {prev}");
    raft.compact(raft.commit());
    let (sent, _) = effects(&mut raft);
    let has_room = |message: &Message| matches!(message.body, Body::AppendReply { room: 1.., .. });
    assert!(sent.iter().any(has_room), "it says unasked that it has room: {sent:?}");
}

/// The follower's half: it answers everything, and says how far it is.
#[test]
fn a_follower_whose_applier_hangs_takes_no_more_and_answers_on() {
    let config = Config::default();
    let mut raft = Raft::new(TWO, three(), config.clone(), Restored::default(), EntryId::ZERO);
    let mut prev = EntryId::ZERO;
    let mut handed = 0;
    for round in 1..=256 {
        // Like a leader that does not listen.
        let entry = Entry::new(EntryId::new(1, prev.index.0 + 1), command_of(MIB));
        let next = entry.id;
        let append = Body::Append {
            prev,
            entries: vec![entry],
            commit: prev.index,
            round,
            acked: EntryId::ZERO,
            differs: None,
        };
        raft.step(ONE, message(1, append)).unwrap();
        let (sent, more) = effects(&mut raft);
        handed += more;
        let [Message { body: Body::AppendReply { verdict, room, .. }, .. }] = sent.as_slice() else {
            panic!("one answer to one Append: {sent:?}");
        };
        let last = raft.log().last();
        assert_eq!(*verdict, Verdict::Matched(last.index));
        let left = config.unapplied_bytes_max.saturating_sub(raft.unapplied_bytes());
        assert_eq!(*room, left.min(config.in_flight_bytes_max) as u64);
        assert!(last == next || *room == 0, "what fits is taken whole");
        prev = last;
    }
    assert!(raft.log().bytes() <= config.unapplied_bytes_max + 2 * MIB, "{} bytes", raft.log().bytes());
    // A quarter of the window is worth an unasked message.
    raft.applied_bytes(handed.min(MIB));
    assert_eq!(effects(&mut raft).0, []);
    raft.applied_bytes(handed - MIB);
    let (sent, _) = effects(&mut raft);
    assert!(
        matches!(sent.as_slice(), [Message { body: Body::AppendReply { room, .. }, .. }] if *room > 2 << 20),
        "{sent:?}"
    );
    raft.applied_bytes(0);
    assert_eq!(effects(&mut raft).0, [], "once");
}

/// Nothing is applied to a bad table (rule 69), so nothing makes room: the log is the bound.
#[test]
fn a_follower_whose_table_is_bad_takes_entries_until_its_log_is_full() {
    let config = Config::default();
    let mut raft = Raft::new(TWO, three(), config.clone(), Restored::default(), EntryId::ZERO);
    raft.start_with_bad_table();
    let mut prev = EntryId::ZERO;
    for round in 1..=256 {
        let entries = vec![Entry::new(EntryId::new(1, prev.index.0 + 1), command_of(MIB))];
        let (commit, acked) = (prev.index, EntryId::ZERO);
        let append = Body::Append { prev, entries, commit, round, acked, differs: None };
        raft.step(ONE, message(1, append)).unwrap();
        let (sent, _) = effects(&mut raft);
        let [Message { body: Body::AppendReply { verdict, room, .. }, .. }] = sent.as_slice() else {
            panic!("one answer to one Append: {sent:?}");
        };
        prev = raft.log().last();
        assert_eq!(*verdict, Verdict::Matched(prev.index), "it acknowledges what it has");
        assert_eq!(*room == 0, raft.log().bytes() >= config.log_bytes_hard_max);
    }
    let (bytes, limit) = (raft.log().bytes(), config.log_bytes_hard_max);
    assert!((limit..limit + 2 * MIB).contains(&bytes), "{bytes} bytes");
}

/// An overload leaves a long log. A start applies the same limit to it.
#[test]
fn a_start_with_a_long_log_commits_it_piece_by_piece() {
    const ENTRIES: u64 = 200;
    let entries = (1..=ENTRIES).map(|at| Entry::new(EntryId::new(1, at), command_of(MIB))).collect();
    let hard_state = HardState { term: Term(1), vote: None };
    let restored = Restored { hard_state, entries, ..Restored::default() };
    let config = Config::default();
    let limit = config.unapplied_bytes_max + config.uncommitted_bytes_max + config.in_flight_bytes_max;
    let mut follower = Raft::new(TWO, three(), config.clone(), restored.clone(), EntryId::ZERO);
    let last = EntryId::new(1, ENTRIES);
    let heartbeat = || Body::Append {
        prev: last,
        entries: Vec::new(),
        commit: last.index,
        round: 1,
        acked: EntryId::ZERO,
        differs: None,
    };
    let (mut beats, mut applied) = (0, 0);
    while applied < ENTRIES as usize * MIB {
        follower.step(ONE, message(1, heartbeat())).unwrap();
        let (_, handed) = effects(&mut follower);
        assert!(follower.unapplied_bytes() <= limit + 2 * MIB, "{}", follower.unapplied_bytes());
        assert!(handed > 0, "a beat brings something");
        follower.applied_bytes(handed);
        (beats, applied) = (beats + 1, applied + handed);
    }
    assert!(beats > 3 && follower.commit() == last.index);

    // As a leader, it reads only once all of it is committed.
    let mut alone = Raft::new(ONE, Membership::of([ONE]), config, restored, EntryId::ZERO);
    (0..=Config::default().election_ticks_max).for_each(|_| alone.tick());
    let (_, mut handed) = effects(&mut alone);
    assert!(matches!(alone.role(), Role::Leader(_)) && alone.commit() < last.index);
    alone.read(ReadId(1)).unwrap();
    let mut reads = 0;
    while handed > 0 {
        assert!(reads == 0 || alone.commit() > last.index);
        alone.applied_bytes(handed);
        handed = 0;
        loop {
            let ready = alone.take_ready();
            alone.saved();
            if ready.is_empty() {
                break;
            }
            handed += ready.apply.iter().filter_map(entry_of).map(Entry::weight).sum::<usize>();
            reads += ready.apply.iter().filter(|item| matches!(item, Apply::Read(..))).count();
        }
    }
    assert_eq!((reads, alone.commit()), (1, last.index.next()));
}

/// A follower that applies slowly, and a load that is faster: everybody goes at its pace once commits need it, and nobody
/// does while they do not.
#[test]
fn one_slow_applier_of_three_slows_nobody_and_two_slow_everybody() {
    let committed = |slow: &[NodeId]| {
        let weight = common::entry(1, 1, "a command of some bytes").weight();
        let config = Config {
            unapplied_bytes_max: 20 * weight,
            apply_backlog_bytes_max: 20 * weight,
            // (In a compacted log nobody can lag forever.)
            ..small_config(1)
        };
        let mut cluster = Cluster::new(3, config);
        cluster.elect(ONE);
        cluster.instant = false;
        for round in 0..600 {
            let command = Bytes::from_static(b"a command of some bytes");
            let _ = cluster.input(ONE, |raft| raft.propose(command, false));
            for id in cluster.ids() {
                if round % 5 == 0 || !slow.contains(&id) {
                    cluster.apply_one(id);
                }
                cluster.tell_events(id);
                cluster.effects(id, None);
                cluster.tick(id);
            }
            cluster.deliver_all();
        }
        assert_eq!(cluster.leaders(), [ONE]);
        cluster.raft(ONE).commit().0
    };
    assert!(committed(&[]) >= 590);
    assert!(committed(&[NodeId(3)]) >= 590);
    let both = committed(&[TWO, NodeId(3)]);
    assert!((100..250).contains(&both), "{both}");
}
