//! The box "AppendEntries RPC".

use raft::core::message::{Body, TableReport, Verdict};
use raft::core::role::Role;
use raft::types::{EntryId, Index, Term};

use super::{ME, TWO, answer, append, appends_to, entries, led, server, terms, verdict};
use crate::common::message;

/// "leaderId: so follower can redirect clients"
#[test]
fn a_follower_knows_its_leader() {
    let mut cluster = led();
    assert_eq!(cluster.raft(TWO).leader(), Some(ME));
    let refused = cluster.input(TWO, |raft| raft.propose(bytes::Bytes::new(), false)).unwrap_err();
    assert_eq!(refused, raft::ExecuteError::NotLeader { hint: Some(ME) });
}

/// "entries[]: log entries to store (empty for heartbeat; may send more than one for efficiency)"
#[test]
fn a_rounds_commands_travel_in_one_message_and_heartbeats_carry_none() {
    let mut cluster = led();
    for command in ["a", "b", "c"] {
        cluster.input_only(ME, |raft| raft.propose(command.into(), false)).unwrap();
    }
    cluster.effects(ME, None);
    let ids: Vec<EntryId> = (2..=4).map(|index| EntryId::new(1, index)).collect();
    assert_eq!(appends_to(&cluster, TWO), [(EntryId::new(1, 1), ids)]);
    cluster.deliver_all();
    cluster.tick(ME);
    cluster.deliver_all();
    cluster.seen.clear();
    cluster.tick(ME);
    cluster.tick(ME);
    assert_eq!(appends_to(&cluster, TWO), [(EntryId::new(1, 4), Vec::new())]);
}

/// "1. Reply false if term < currentTerm"
#[test]
fn an_append_of_an_older_term_is_refused_and_changes_nothing() {
    let mut raft = server(&[1, 2]);
    let answered = answer(&mut raft, append(1, EntryId::new(1, 1), entries(2, &[1]), 2));
    assert!(matches!(verdict(&answered), Verdict::Conflict { .. }));
    assert_eq!(answered.term, Term(2));
    assert_eq!((terms(&raft), raft.commit(), raft.leader()), (vec![1, 2], Index(0), None));
}

/// "2. Reply false if log doesn't contain an entry at prevLogIndex whose term matches prevLogTerm"
#[test]
fn an_append_after_an_unknown_entry_is_refused() {
    let mut raft = server(&[1, 2]);
    for prev in [EntryId::new(2, 3), EntryId::new(3, 2)] {
        let answered = answer(&mut raft, append(3, prev, Vec::new(), 3));
        assert!(matches!(verdict(&answered), Verdict::Conflict { at, .. } if at == prev.index));
    }
    assert_eq!((terms(&raft), raft.commit()), (vec![1, 2], Index(0)));
}

/// "3. If an existing entry conflicts with a new one (same index but different terms), delete the existing
/// entry and all that follow it"
#[test]
fn a_conflicting_entry_goes_with_all_that_follow_it() {
    let mut raft = server(&[1, 1, 2, 2, 2]);
    let answered = answer(&mut raft, append(3, EntryId::new(1, 2), entries(3, &[3]), 0));
    assert_eq!(verdict(&answered), Verdict::Matched(Index(3)));
    assert_eq!(terms(&raft), [1, 1, 3]);
}

/// "4. Append any new entries not already in the log" (and leave alone what follows those that are)
#[test]
fn entries_already_in_the_log_stay_and_so_does_what_follows_them() {
    let mut raft = server(&[1, 1, 1, 1]);
    let answered = answer(&mut raft, append(1, EntryId::new(1, 1), entries(2, &[1]), 0));
    assert_eq!(verdict(&answered), Verdict::Matched(Index(2)));
    assert_eq!(terms(&raft), [1, 1, 1, 1]);
    answer(&mut raft, append(1, EntryId::new(1, 3), entries(4, &[1, 1]), 0));
    assert_eq!(terms(&raft), [1, 1, 1, 1, 1]);
}

/// "5. If leaderCommit > commitIndex, set commitIndex = min(leaderCommit, index of last new entry)"
#[test]
fn a_follower_commits_the_smaller_of_what_the_leader_did_and_what_it_was_shown() {
    let mut raft = server(&[1, 1, 1, 1]);
    answer(&mut raft, append(1, EntryId::new(1, 1), entries(2, &[1]), 4));
    assert_eq!(raft.commit(), Index(2));
    answer(&mut raft, append(1, EntryId::new(1, 4), Vec::new(), 3));
    assert_eq!(raft.commit(), Index(3));
}

/// "term: currentTerm, for leader to update itself"
#[test]
fn an_answer_carries_the_term_and_an_old_leader_gives_way_to_it() {
    let mut cluster = led();
    let reply = Body::AppendReply {
        verdict: Verdict::Conflict { at: Index(1), try_at: EntryId::ZERO },
        round: 0,
        disk_low: false,
        owes: false,
        table: TableReport::default(),
        room: u64::MAX,
    };
    cluster.step(TWO, ME, message(5, reply));
    assert_eq!(cluster.raft(ME).term(), Term(5));
    assert!(matches!(cluster.raft(ME).role(), Role::Follower { leader: None }));
}
