//! The box "State".

use raft::core::message::{Body, TableReport, Verdict};
use raft::core::role::Role;
use raft::types::{EntryId, HardState, Index, Term};

use super::{ME, TWO, answer, append, entries, granted, leader, led, server, verdict};
use crate::common::{Cluster, entry, message, small_config};

/// "currentTerm: latest term server has seen (initialized to 0 on first boot, increases monotonically)"
#[test]
fn the_current_term_starts_at_0_and_only_rises() {
    let mut raft = server(&[]);
    assert_eq!(raft.term(), Term(0));
    answer(&mut raft, append(7, EntryId::ZERO, Vec::new(), 0));
    assert_eq!(raft.term(), Term(7));
    answer(&mut raft, append(3, EntryId::ZERO, Vec::new(), 0));
    assert_eq!(raft.term(), Term(7));
}

/// "votedFor: candidateId that received vote in current term (or null if none)"
#[test]
fn the_vote_belongs_to_one_candidate_and_one_term() {
    let mut raft = server(&[]);
    assert_eq!(raft.hard_state().vote, None);
    answer(&mut raft, message(3, Body::Vote { last: EntryId::ZERO }));
    assert_eq!(raft.hard_state(), HardState { term: Term(3), vote: Some(TWO) });
    answer(&mut raft, append(4, EntryId::ZERO, Vec::new(), 0));
    assert_eq!(raft.hard_state(), HardState { term: Term(4), vote: None });
}

/// "log[]: log entries; each entry contains command for state machine, and term when entry was received
/// by leader (first index is 1)"
#[test]
fn entries_carry_their_leaders_term_and_the_first_index_is_1() {
    let mut cluster = led();
    assert_eq!(cluster.raft(ME).log().last(), EntryId::new(1, 1));
    assert_eq!(cluster.propose(ME, "a"), EntryId::new(1, 2));
    assert_eq!(cluster.raft(ME).log().entry(Index(2)), Some(&entry(1, 2, "a")));
}

/// "Persistent state on all servers (Updated on stable storage before responding to RPCs)"
#[test]
fn term_vote_and_entries_are_in_the_save_that_precedes_the_answer() {
    let mut raft = server(&[]);
    raft.step(TWO, message(3, Body::Vote { last: EntryId::ZERO })).unwrap();
    let ready = raft.take_ready();
    assert_eq!(ready.save.unwrap().hard_state, Some(HardState { term: Term(3), vote: Some(TWO) }));
    assert!(ready.appends.is_empty() && granted(&ready.send[0].message));
    raft.saved();

    raft.step(TWO, append(3, EntryId::ZERO, entries(1, &[3, 3]), 0)).unwrap();
    let ready = raft.take_ready();
    assert_eq!(ready.save.unwrap().entries, entries(1, &[3, 3]));
    assert_eq!(verdict(&ready.send[0].message), Verdict::Matched(Index(2)));
}

/// "commitIndex: index of highest log entry known to be committed (initialized to 0, increases
/// monotonically)". Here it starts at what the table has applied, which was committed.
#[test]
fn the_commit_index_only_rises() {
    let mut raft = server(&[1, 1, 1]);
    assert_eq!(raft.commit(), Index(0));
    answer(&mut raft, append(1, EntryId::new(1, 3), Vec::new(), 2));
    assert_eq!(raft.commit(), Index(2));
    answer(&mut raft, append(1, EntryId::new(1, 3), Vec::new(), 1));
    assert_eq!(raft.commit(), Index(2));
}

/// "lastApplied: index of highest log entry applied to state machine (initialized to 0, increases
/// monotonically)"; "If commitIndex > lastApplied: increment lastApplied, apply log[lastApplied] to state
/// machine"
#[test]
fn committed_entries_are_applied_in_order_each_once() {
    let mut cluster = led();
    cluster.propose(ME, "a");
    cluster.propose(ME, "b");
    cluster.deliver_all();
    cluster.tick(ME);
    cluster.deliver_all();
    for id in cluster.ids() {
        assert_eq!(cluster.servers[&id].table.rows, [entry(1, 1, ""), entry(1, 2, "a"), entry(1, 3, "b")]);
    }
}

/// "nextIndex[]: for each server, index of the next log entry to send to that server (initialized to leader
/// last log index + 1)"; "matchIndex[]: for each server, index of highest log entry known to be replicated on
/// server (initialized to 0, increases monotonically)"
#[test]
fn a_new_leader_starts_at_the_end_of_its_log_and_knows_of_no_agreement() {
    let mut cluster = Cluster::new(3, small_config(1));
    cluster.time_out(ME);
    cluster.deliver(0); // the question to 2
    let answer = cluster.pool.iter().position(|flying| flying.to == ME).unwrap();
    cluster.deliver(answer);
    while !matches!(cluster.raft(ME).role(), Role::Leader(_)) {
        cluster.deliver(0);
    }
    for follower in leader(&cluster).followers.values() {
        assert_eq!((follower.matched, follower.next), (Index(0), Index(1)));
    }
    cluster.deliver_all();
    for follower in leader(&cluster).followers.values() {
        assert_eq!((follower.matched, follower.next), (Index(1), Index(2)));
    }
    // An old answer moves nothing back.
    let reply = Body::AppendReply {
        verdict: Verdict::Matched(Index(0)),
        round: 0,
        disk_low: false,
        owes: false,
        table: TableReport::default(),
        room: u64::MAX,
    };
    cluster.step(TWO, ME, message(1, reply));
    assert_eq!(leader(&cluster).followers[&TWO].matched, Index(1));
}
