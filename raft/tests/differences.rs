//! What a server does when a message does not fit its own knowledge (correctness rules 10, 13, 65,
//! 67 to 69).

mod common;

use bytes::Bytes;
use raft::core::alarm::Alarm;
use raft::core::message::{Body, Chunk, TableReport, Verdict};
use raft::core::ready::Apply;
use raft::core::role::Role;
use raft::core::{Raft, Refused};
use raft::storage::Restored;
use raft::types::{Entry, EntryId, HardState, Index, Membership, NodeId, Term};

use common::{Cluster, Seen, entry, matched, message, small_config};

/// A follower in term 5, whose log was compacted up to 10@3, goes on with 11@3 12@4 13@4, and is applied up to 12.
fn follower() -> Raft {
    let entries = vec![entry(3, 11, "x"), entry(4, 12, "y"), entry(4, 13, "z")];
    let hard_state = HardState { term: Term(5), vote: None };
    let restored = Restored { hard_state, marker: EntryId::new(3, 10), entries, ..Restored::default() };
    let members = Membership::of([1, 2, 3].map(NodeId));
    Raft::new(NodeId(2), members, small_config(1), restored, EntryId::new(4, 12))
}

fn append(prev: EntryId, entries: Vec<Entry>) -> Body {
    Body::Append { prev, entries, commit: Index(0), round: 0, acked: EntryId::ZERO, differs: None }
}

fn chunk(snapshot: EntryId) -> Body {
    let membership = Membership::of([1, 2, 3].map(NodeId));
    Body::Chunk(Chunk::new(snapshot, membership, None, Vec::new(), false))
}

fn verdict(raft: &mut Raft) -> Option<Verdict> {
    let ready = raft.take_ready();
    ready.send.iter().find_map(|it| match it.message.body {
        Body::AppendReply { verdict, .. } => Some(verdict),
        _ => None,
    })
}

/// Rules 13 and 65. (All but the two marked ones were answered "matched", or ended in a panic.)
#[test]
fn whatever_contradicts_what_is_committed_here_proves_that_safety_is_broken() {
    let id = EntryId::new;
    let cases = [
        (
            "a committed entry replaced, in a message that ends there",
            append(id(3, 10), vec![entry(4, 11, "x"), entry(4, 12, "y")]),
        ),
        (
            "the same in one that goes on",
            append(id(3, 11), vec![entry(5, 12, "y"), entry(5, 13, "z"), entry(5, 14, "")]),
        ),
        ("another entry before the carried ones", append(id(5, 12), vec![entry(5, 13, "z")])),
        ("the same in a heartbeat", append(id(4, 11), Vec::new())),
        ("another entry at the marker", append(id(2, 9), vec![entry(4, 10, "w"), entry(4, 11, "x")])),
        ("an older one at the marker", append(id(1, 9), vec![entry(1, 10, "w"), entry(1, 11, "x")])),
        ("the marker is not before the carried ones", append(id(4, 10), vec![entry(4, 11, "x")])),
        ("a later term below the marker", append(id(4, 8), vec![entry(4, 9, "v")])),
        ("terms that fall below what is committed", append(id(3, 13), vec![entry(5, 14, "")])),
        ("terms that fall far beyond the log", append(id(3, 20), Vec::new())),
        ("another payload under a committed name", append(id(3, 11), vec![entry(4, 12, "other")])),
        ("another payload under any name", append(id(4, 12), vec![entry(4, 13, "other")])),
        ("a snapshot of another entry", chunk(id(4, 11))),
        ("a snapshot of another entry at the marker", chunk(id(2, 10))),
        ("a snapshot further on and of an earlier term", chunk(id(3, 20))),
    ];
    for (what, body) in cases {
        let mut raft = follower();
        let outcome = raft.step(NodeId(1), message(5, body));
        assert!(matches!(outcome, Err(Refused::SafetyViolation(_))), "{what}: {outcome:?}");
        raft.check();
        assert_eq!((verdict(&mut raft), raft.log().last()), (None, id(4, 13)), "{what}");
    }
}

#[test]
fn what_only_looks_like_a_contradiction_is_none() {
    let id = EntryId::new;
    let matched = |index| Some(Verdict::Matched(Index(index)));
    let cases = [
        ("the same once more", append(id(3, 10), vec![entry(3, 11, "x"), entry(4, 12, "y")]), matched(12)),
        (
            "from below the marker",
            append(id(2, 8), vec![entry(2, 9, ""), entry(3, 10, ""), entry(3, 11, "x")]),
            matched(12),
        ),
        ("nothing is known of it any more", append(id(1, 1), vec![entry(2, 2, "")]), matched(12)),
        ("what is not committed may go", append(id(4, 12), vec![entry(5, 13, "other")]), matched(13)),
        (
            "what is not committed may differ",
            append(id(5, 13), vec![entry(5, 14, "")]),
            Some(Verdict::Conflict { at: Index(13), try_at: id(4, 13) }),
        ),
        ("an older snapshot than needed", chunk(id(4, 12)), matched(12)),
        ("one of before the marker", chunk(id(2, 7)), matched(12)),
        ("one of a log that goes on otherwise", chunk(id(5, 13)), None),
    ];
    for (what, body, answer) in cases {
        let mut raft = follower();
        assert_eq!(raft.step(NodeId(1), message(5, body)), Ok(()), "{what}");
        raft.check();
        assert_eq!(verdict(&mut raft), answer, "{what}");
    }
}

/// Rule 66: entries are checked on receipt, before anything of the message is taken.
#[test]
fn an_entry_that_changed_on_its_way_is_refused() {
    let mut raft = follower();
    let changed = Entry { payload: entry(5, 15, "other").payload, ..entry(5, 15, "said") };
    let entries = vec![entry(5, 14, "whole"), changed];
    let outcome = raft.step(NodeId(1), message(5, append(EntryId::new(4, 13), entries)));
    assert!(matches!(outcome, Err(Refused::Impossible(_))), "{outcome:?}");
    assert_eq!((verdict(&mut raft), raft.log().last()), (None, EntryId::new(4, 13)));
}

/// Rule 66: rows are checked chunk by chunk before they are staged, and all together before the last one is.
#[test]
fn rows_of_a_snapshot_that_changed_on_their_way_are_refused_and_sent_again() {
    let members = || Membership::of([1, 2, 3].map(NodeId));
    let row = |key: &'static str| (Bytes::from(key), Bytes::from("value"));
    let snapshot = EntryId::new(5, 20);
    let first = || Chunk::new(snapshot, members(), None, vec![row("a"), row("b")], false);
    let last = || {
        let last = Chunk::new(snapshot, members(), Some(Bytes::from("b")), vec![row("c")], true);
        Chunk { total: Chunk::sum_of(first().total, &last.rows), ..last }
    };
    let given = |raft: &mut Raft, chunk: Chunk| {
        let outcome = raft.step(NodeId(1), message(5, Body::Chunk(chunk)));
        let ready = raft.take_ready();
        let taken = ready.apply.iter().any(|item| matches!(item, Apply::Chunk(_)));
        assert_eq!(taken, outcome.is_ok(), "{outcome:?}");
        if taken {
            raft.staged(snapshot);
        }
        taken
    };
    let mut raft = follower();
    let mut flipped = first();
    flipped.rows[1].1 = Bytes::from("valuf");
    assert!(!given(&mut raft, flipped.clone()));
    assert!(given(&mut raft, first()), "it is taken when it comes again");
    // Each chunk as it was sent, but one that is not of this snapshot between them.
    assert!(!given(&mut raft, Chunk { total: !last().total, ..last() }));
    assert!(!raft.is_staging(), "nothing of it is kept");
    assert!(given(&mut raft, first()));
    assert!(given(&mut raft, last()));
    // What is wrong in itself says so even if the sums of the message were made of it.
    let mut other = follower();
    flipped.sum = Chunk::sum_of(0, &flipped.rows);
    assert!(!given(&mut other, flipped), "the total was made by the streamer, of what it read");
}

fn alarms(cluster: &mut Cluster, id: NodeId) -> Vec<Alarm> {
    let seen = std::mem::take(&mut cluster.seen);
    let alarm = |seen| match seen {
        Seen::Alarm(at, alarm) if at == id => Some(alarm),
        _ => None,
    };
    seen.into_iter().filter_map(alarm).collect()
}

/// Rule 67: a server has entries that this leader lacks; it may come to lead.
#[test]
fn a_leader_that_lacks_what_a_follower_has_lets_others_lead() {
    let (leader, other) = (NodeId(1), NodeId(2));
    let mut cluster = Cluster::new(3, small_config(1));
    cluster.elect(leader);
    let term = cluster.raft(leader).term().0;
    cluster.step(other, leader, message(term, matched(99)));
    cluster.effects(leader, None);
    assert!(matches!(cluster.raft(leader).role(), Role::Follower { leader: None }));
    let claimed = Index(99);
    let last = cluster.raft(leader).log().last();
    assert_eq!(alarms(&mut cluster, leader), [Alarm::BeyondLog { peer: other, claimed, last }]);
    // For ten of the longest election timeouts it does not even ask, even if nobody else is there.
    cluster.isolate(leader);
    let patience = cluster.config.election_ticks_max;
    for _ in 0..10 * patience - 1 {
        cluster.tick(leader);
        assert!(matches!(cluster.raft(leader).role(), Role::Follower { .. }));
    }
    cluster.tick(leader);
    cluster.time_out(leader);
    assert!(matches!(cluster.raft(leader).role(), Role::PreCandidate { .. }));
}

/// Rule 67, the case it is made for: the leader's disk forgot what it acknowledged, and one other
/// server has it.
#[test]
fn a_follower_that_has_what_its_leader_lost_comes_to_lead() {
    let (forgetful, keeper, third) = (NodeId(1), NodeId(2), NodeId(3));
    let mut cluster = Cluster::new(3, small_config(1));
    for id in [keeper, third] {
        cluster.server(id).disk.entries = vec![entry(1, 1, ""), entry(1, 2, "kept")];
        cluster.server(id).disk.hard_state.term = Term(1);
        cluster.restart(id);
    }
    cluster.server(third).disk.entries.clear();
    cluster.server(forgetful).disk.hard_state.term = Term(1);
    cluster.restart(third);
    cluster.restart(forgetful);
    cluster.cut.extend([(forgetful, keeper), (keeper, forgetful)]);
    cluster.time_out(forgetful);
    while cluster.leaders().is_empty() {
        cluster.deliver(0);
    }
    // Nothing of the new leader has reached anybody when the one that knows better answers.
    cluster.pool.clear();
    cluster.cut.clear();
    let term = cluster.raft(forgetful).term().0;
    // As it would answer what the leader sent before it forgot.
    cluster.step(keeper, forgetful, message(term, matched(2)));
    cluster.effects(forgetful, None);
    let patience = cluster.config.election_ticks_max;
    cluster.pass(9 * patience);
    assert_eq!(cluster.leaders(), [keeper]);
    assert_eq!(cluster.raft(forgetful).log().entry(Index(2)), Some(&entry(1, 2, "kept")));
}

/// Elects `id` although it abstains for long: the others hear nobody any more, and say nothing of themselves.
fn lead_again(cluster: &mut Cluster, id: NodeId) {
    for other in cluster.ids().into_iter().filter(|other| *other != id) {
        (0..cluster.config.election_ticks_min).for_each(|_| cluster.tick(other));
    }
    cluster.pool.clear();
    for _ in 0..20 * cluster.config.election_ticks_max {
        if cluster.leaders() == [id] {
            break;
        }
        cluster.tick(id);
        cluster.deliver_all();
    }
}

/// Rule 67: one liar does not depose leaders forever.
#[test]
fn a_follower_that_alone_claims_too_much_three_times_is_not_believed_any_more() {
    let (leader, liar) = (NodeId(1), NodeId(2));
    let mut cluster = Cluster::new(3, small_config(1));
    for claims in 1..=3 {
        lead_again(&mut cluster, leader);
        assert_eq!(cluster.leaders(), [leader], "claim {claims}");
        cluster.seen.clear();
        let term = cluster.raft(leader).term().0;
        cluster.step(liar, leader, message(term, matched(1000)));
        cluster.effects(leader, None);
    }
    assert_eq!(alarms(&mut cluster, leader), [Alarm::PeerRefused { peer: liar }]);
    assert_eq!(cluster.leaders(), [leader], "the third time it stays");
    let term = cluster.raft(leader).term().0;
    let refused = cluster
        .input(leader, |raft| raft.step(liar, message(term + 1, Body::Vote { last: EntryId::new(9, 9) })));
    assert_eq!(refused, Err(Refused::Disbelieved(liar)));
    assert_eq!(cluster.raft(leader).disbelieved().iter().collect::<Vec<_>>(), [&liar]);
    let id = cluster.propose(leader, "served");
    cluster.deliver_all();
    assert!(cluster.raft(leader).commit() >= id.index);
}

/// Rule 67: what two say is true until proven otherwise.
#[test]
fn what_two_followers_claim_is_believed_however_often() {
    let leader = NodeId(1);
    let mut cluster = Cluster::new(3, small_config(1));
    for claims in 1..=6 {
        lead_again(&mut cluster, leader);
        assert_eq!(cluster.leaders(), [leader], "claim {claims}");
        let term = cluster.raft(leader).term().0;
        cluster.step(NodeId(2 + claims % 2), leader, message(term, matched(1000)));
        cluster.effects(leader, None);
        assert!(cluster.leaders().is_empty(), "claim {claims}");
    }
    assert!(cluster.raft(leader).disbelieved().is_empty());
}

/// Rule 67: a follower that is elected each time with what it claims is no liar.
#[test]
fn a_follower_that_wins_an_election_with_what_it_claims_is_believed_again() {
    let (leader, honest) = (NodeId(1), NodeId(2));
    let mut cluster = Cluster::new(3, small_config(1));
    for claims in 1..=4 {
        lead_again(&mut cluster, leader);
        assert_eq!(cluster.leaders(), [leader], "claim {claims}");
        let term = cluster.raft(leader).term().0;
        cluster.step(honest, leader, message(term, matched(1000)));
        cluster.effects(leader, None);
        assert!(cluster.leaders().is_empty(), "claim {claims}");
        lead_again(&mut cluster, honest);
        assert_eq!(cluster.leaders(), [honest], "claim {claims}");
    }
    assert!(cluster.raft(leader).disbelieved().is_empty());
}

/// Rule 69: the applier has the last chunk of a snapshot, so a mark that came now would be on the table of that snapshot.
#[test]
fn a_table_that_is_about_to_be_replaced_is_not_called_bad() {
    let members = Membership::of([1, 2, 3].map(NodeId));
    let snapshot = EntryId::new(5, 20);
    let mut raft = follower();
    raft.hashed(Index(12), 1);
    let differs = || Body::Append {
        prev: EntryId::new(4, 13),
        entries: Vec::new(),
        commit: Index(12),
        round: 0,
        acked: EntryId::ZERO,
        differs: Some((Index(12), 2)),
    };
    let bad = |raft: &mut Raft| raft.take_ready().apply.iter().any(|item| matches!(item, Apply::TableBad));
    let last = Chunk::new(snapshot, members, None, vec![(Bytes::from("a"), Bytes::new())], true);
    assert_eq!(raft.step(NodeId(1), message(5, Body::Chunk(last))), Ok(()));
    assert_eq!(raft.step(NodeId(1), message(5, differs())), Ok(()));
    assert!(!raft.is_table_bad() && !bad(&mut raft));
    // If the snapshot is not taken, the leader's next word counts.
    let mut other = raft;
    other.not_installed(snapshot);
    assert_eq!(other.step(NodeId(1), message(5, differs())), Ok(()));
    assert!(other.is_table_bad() && bad(&mut other));
}

/// Rule 69: one server that makes up positions does not drive out what others say.
#[test]
fn hashes_of_positions_beyond_the_log_are_not_remembered() {
    let (leader, liar, differing) = (NodeId(1), NodeId(2), NodeId(3));
    let mut cluster = Cluster::new(3, small_config(1));
    cluster.elect(leader);
    cluster.seen.clear();
    let term = cluster.raft(leader).term().0;
    let last = cluster.raft(leader).log().last().index;
    let told = |index, hash| Body::AppendReply {
        verdict: Verdict::Matched(last),
        round: 0,
        disk_low: false,
        owes: false,
        table: TableReport { mark: Some((index, hash)), needs: None },
        room: u64::MAX,
    };
    cluster.input(leader, |raft| raft.hashed(last, 1));
    for beyond in 1..=1000 {
        cluster.step(liar, leader, message(term, told(Index(last.0 + beyond), 1)));
    }
    cluster.step(differing, leader, message(term, told(last, 2)));
    cluster.step(liar, leader, message(term, told(last, 1)));
    cluster.effects(leader, None);
    assert_eq!(alarms(&mut cluster, leader), [Alarm::PeerTable { peer: differing, at: last }]);
}

/// Rule 68: a server that sees two leaders of one term acknowledges nothing more in it, not even
/// after a restart.
#[test]
fn a_server_that_sees_two_leaders_of_a_term_leaves_it() {
    let (leader, other, witness) = (NodeId(1), NodeId(2), NodeId(3));
    for seen_by in [leader, witness] {
        let mut cluster = Cluster::new(3, small_config(1));
        cluster.elect(leader);
        cluster.seen.clear();
        let term = cluster.raft(leader).term();
        let second = append(EntryId::new(1, 1), Vec::new());
        let refused = cluster.input(seen_by, |raft| raft.step(other, message(term.0, second.clone())));
        assert!(matches!(refused, Err(Refused::Impossible(_))), "{refused:?}");
        assert_eq!(alarms(&mut cluster, seen_by), [Alarm::TwoLeaders { term, one: leader, other }]);
        cluster.crash(seen_by);
        cluster.restart(seen_by);
        for from in [leader, other].into_iter().filter(|from| *from != seen_by) {
            cluster.seen.clear();
            cluster.step(
                from,
                seen_by,
                message(term.0, append(EntryId::new(1, 1), vec![entry(1, 2, "more")])),
            );
            cluster.effects(seen_by, None);
            assert_eq!(cluster.raft(seen_by).log().last(), EntryId::new(1, 1), "nothing more of that term");
        }
    }
}

/// Rule 10: one corrupt number does not use up the terms.
#[test]
fn one_message_cannot_end_all_elections() {
    for far in [Term::LIMIT.0 - 1, 1 << 40] {
        let mut cluster = Cluster::new(3, small_config(1));
        cluster.elect(NodeId(1));
        let before = cluster.raft(NodeId(2)).hard_state();
        let bodies = [
            append(EntryId::ZERO, Vec::new()),
            Body::Vote { last: EntryId::new(9, 9) },
            Body::PreVote { last: EntryId::new(9, 9) },
            Body::PreVoteReply { asked: Term(far), granted: false },
            matched(0),
            chunk(EntryId::new(1, 1)),
        ];
        for body in bodies {
            let refused = cluster.input(NodeId(2), |raft| raft.step(NodeId(3), message(far, body)));
            assert_eq!(refused, Err(Refused::TermJump { found: Term(far), own: before.term }));
        }
        let patience = cluster.config.election_ticks_max;
        cluster.pass(3 * patience);
        assert_eq!((cluster.leaders(), cluster.raft(NodeId(2)).hard_state()), (vec![NodeId(1)], before));
    }
}

#[test]
fn a_term_may_jump_by_two_to_the_32_and_from_term_0_to_anywhere_sane() {
    for (own, found, taken) in
        [(5, 5 + (1 << 32), true), (5, 6 + (1 << 32), false), (0, (1 << 62) - 1, true), (0, 1 << 62, false)]
    {
        let hard_state = HardState { term: Term(own), vote: None };
        let restored = Restored { hard_state, ..Restored::default() };
        let members = Membership::of([1, 2, 3].map(NodeId));
        let mut raft = Raft::new(NodeId(1), members, small_config(1), restored, EntryId::ZERO);
        let outcome = raft.step(NodeId(2), message(found, append(EntryId::ZERO, Vec::new())));
        assert_eq!(
            (outcome.is_ok(), raft.term().0),
            (taken, if taken { found } else { own }),
            "{own} to {found}"
        );
    }
}
