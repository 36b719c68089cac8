//! The box "Rules for Servers", and the property of Figure 3 that they give.

use raft::config::Config;
use raft::core::message::{Body, TableReport, Verdict};
use raft::core::role::Role;
use raft::core::{Raft, Refused};
use raft::types::{EntryId, HardState, Index, NodeId, Term};

use super::{
    ME, THREE, TWO, answer, append, appends_to, entries, granted, leader, led, server, terms, verdict,
};
use crate::common::{Cluster, matched, message, small_config};

/// "If RPC request or response contains term T > currentTerm: set currentTerm = T, convert to follower".
/// Not for a pre-vote, which moves nobody, and not for candidates while a leader is heard.
#[test]
fn a_newer_term_makes_a_follower_of_everybody() {
    let refusal = Verdict::Conflict { at: Index(1), try_at: EntryId::ZERO };
    let bodies = [
        Body::VoteReply { granted: false },
        Body::PreVoteReply { asked: Term(2), granted: false },
        Body::Append {
            prev: EntryId::ZERO,
            entries: Vec::new(),
            commit: Index(0),
            round: 0,
            acked: EntryId::ZERO,
            differs: None,
        },
        Body::AppendReply {
            verdict: refusal,
            round: 0,
            disk_low: false,
            owes: false,
            table: TableReport::default(),
            room: u64::MAX,
        },
        Body::ChunkReply { snapshot: EntryId::ZERO, cursor: None, resume: false },
    ];
    for body in bodies {
        let mut cluster = led();
        cluster.step(TWO, ME, message(5, body));
        assert_eq!(cluster.raft(ME).term(), Term(5));
        assert!(matches!(cluster.raft(ME).role(), Role::Follower { .. }));
    }
    let mut cluster = led();
    for body in [Body::PreVote { last: EntryId::ZERO }, Body::Vote { last: EntryId::ZERO }] {
        cluster.step(TWO, ME, message(5, body));
    }
    assert_eq!(cluster.raft(ME).term(), Term(1));
}

/// "Followers: Respond to RPCs from candidates and leaders"
#[test]
fn a_follower_answers_candidates_and_leaders() {
    let mut raft = server(&[]);
    assert!(granted(&answer(&mut raft, message(1, Body::Vote { last: EntryId::ZERO }))));
    let answered = answer(&mut raft, append(1, EntryId::ZERO, Vec::new(), 0));
    assert_eq!(verdict(&answered), Verdict::Matched(Index(0)));
}

/// "If election timeout elapses without receiving AppendEntries RPC from current leader or granting vote to
/// candidate: convert to candidate". Here it first asks whether it could win.
#[test]
fn silence_makes_a_candidate_and_an_append_or_a_granted_vote_is_no_silence() {
    let Config { election_ticks_min: least, election_ticks_max: most, .. } = small_config(1);
    let calm = |raft: &Raft| matches!(raft.role(), Role::Follower { .. });
    let mut raft = server(&[]);
    (0..most).for_each(|_| raft.tick());
    assert!(matches!(raft.role(), Role::PreCandidate { .. }));

    let mut raft = server(&[]);
    for _ in 0..10 {
        (1..least).for_each(|_| raft.tick());
        answer(&mut raft, append(1, EntryId::ZERO, Vec::new(), 0));
        assert!(calm(&raft));
    }
    for term in 2..10 {
        (1..least).for_each(|_| raft.tick());
        // (Long enough for the leader to be forgotten, and no longer.)
        raft.tick();
        if !calm(&raft) {
            break;
        }
        assert!(granted(&answer(&mut raft, message(term, Body::Vote { last: EntryId::ZERO }))));
    }
    // A refused vote does not count as hearing anybody (rule 7).
    let mut raft = server(&[5]);
    for _ in 0..most {
        raft.step(TWO, message(5, Body::Vote { last: EntryId::ZERO })).unwrap();
        raft.tick();
    }
    assert!(!calm(&raft));
}

/// "Candidates: On conversion to candidate, start election: Increment currentTerm; Vote for self; Reset
/// election timer; Send RequestVote RPCs to all other servers"
#[test]
fn a_candidate_votes_for_itself_in_a_new_term_and_asks_everybody() {
    let mut raft = server(&[2]);
    while matches!(raft.role(), Role::Follower { .. }) {
        raft.tick();
    }
    let asked = raft.take_ready();
    assert_eq!(asked.save, None, "a question costs no sync");
    raft.step(TWO, message(2, Body::PreVoteReply { asked: Term(3), granted: true })).unwrap();
    assert!(matches!(raft.role(), Role::Candidate { .. }));
    assert_eq!(raft.hard_state(), HardState { term: Term(3), vote: Some(ME) });
    let ready = raft.take_ready();
    assert_eq!(ready.save.unwrap().hard_state, Some(raft.hard_state()));
    let asked: Vec<NodeId> = ready.send.iter().map(|envelope| envelope.to).collect();
    assert_eq!(asked, [TWO, THREE]);
    for envelope in &ready.send {
        assert_eq!(envelope.message, message(3, Body::Vote { last: EntryId::new(2, 1) }));
    }
}

/// "If votes received from majority of servers: become leader"
#[test]
fn a_majority_of_votes_makes_a_leader_and_each_server_counts_once() {
    let mut cluster = Cluster::new(5, small_config(1));
    cluster.time_out(ME);
    let yes = Body::PreVoteReply { asked: Term(1), granted: true };
    cluster.step(TWO, ME, message(0, yes.clone()));
    cluster.step(TWO, ME, message(0, yes.clone()));
    assert!(matches!(cluster.raft(ME).role(), Role::PreCandidate { .. }));
    cluster.step(THREE, ME, message(0, yes));
    for _ in 0..3 {
        assert!(matches!(cluster.raft(ME).role(), Role::Candidate { .. }));
        cluster.step(TWO, ME, message(1, Body::VoteReply { granted: true }));
    }
    cluster.step(THREE, ME, message(1, Body::VoteReply { granted: true }));
    assert!(matches!(cluster.raft(ME).role(), Role::Leader(_)));
}

/// "If AppendEntries RPC received from new leader: convert to follower"
#[test]
fn a_candidate_follows_who_won_its_term() {
    let mut cluster = Cluster::new(3, small_config(1));
    cluster.time_out(ME);
    cluster.step(TWO, ME, message(0, Body::PreVoteReply { asked: Term(1), granted: true }));
    assert!(matches!(cluster.raft(ME).role(), Role::Candidate { .. }));
    cluster.step(TWO, ME, append(1, EntryId::ZERO, Vec::new(), 0));
    assert!(matches!(cluster.raft(ME).role(), Role::Follower { leader: Some(TWO) }));
}

/// "If election timeout elapses: start new election"
#[test]
fn a_candidate_that_hears_nothing_tries_again_in_another_term() {
    let mut cluster = Cluster::new(3, small_config(1));
    cluster.time_out(ME);
    cluster.step(TWO, ME, message(0, Body::PreVoteReply { asked: Term(1), granted: true }));
    cluster.effects(ME, None);
    cluster.time_out(ME);
    assert!(matches!(cluster.raft(ME).role(), Role::PreCandidate { .. }));
    cluster.step(TWO, ME, message(1, Body::PreVoteReply { asked: Term(2), granted: true }));
    assert_eq!(cluster.raft(ME).term(), Term(2));
}

/// "Leaders: Upon election: send initial empty AppendEntries RPCs (heartbeat) to each server; repeat during
/// idle periods to prevent election timeouts". Here the first carries the empty entry of the term (8).
#[test]
fn a_leader_speaks_at_once_and_goes_on_in_idle_times() {
    let mut cluster = Cluster::new(3, small_config(1));
    cluster.elect(ME);
    for to in [TWO, THREE] {
        assert_eq!(appends_to(&cluster, to)[0], (EntryId::ZERO, vec![EntryId::new(1, 1)]));
    }
    for _ in 0..20 * cluster.config.election_ticks_max {
        for id in cluster.ids() {
            cluster.tick(id);
        }
        cluster.deliver_all();
    }
    assert_eq!((cluster.leaders(), cluster.raft(ME).term()), (vec![ME], Term(1)));
}

/// "If command received from client: append entry to local log, respond after entry applied to state machine"
#[test]
fn a_command_is_applied_only_after_a_majority_has_it() {
    let mut cluster = led();
    let id = cluster.propose(ME, "a");
    assert!(cluster.raft(ME).log().contains(id));
    assert_eq!(cluster.servers[&ME].table.applied(), EntryId::new(1, 1));
    cluster.deliver_all();
    assert_eq!(cluster.servers[&ME].table.applied(), id);
}

/// "If last log index >= nextIndex for a follower: send AppendEntries RPC with log entries starting at
/// nextIndex"
#[test]
fn a_follower_gets_the_entries_from_its_next_index_on() {
    let mut cluster = led();
    cluster.propose(ME, "a");
    cluster.deliver_all();
    cluster.seen.clear();
    cluster.propose(ME, "b");
    assert_eq!(appends_to(&cluster, TWO), [(EntryId::new(1, 2), vec![EntryId::new(1, 3)])]);
}

/// "If successful: update nextIndex and matchIndex for follower"
#[test]
fn a_success_moves_the_followers_indexes() {
    let mut cluster = led();
    cluster.propose(ME, "a");
    assert_eq!(leader(&cluster).followers[&TWO].matched, Index(1));
    cluster.deliver_all();
    let follower = &leader(&cluster).followers[&TWO];
    assert_eq!((follower.matched, follower.next), (Index(2), Index(3)));
}

/// "If AppendEntries fails because of log inconsistency: decrement nextIndex and retry". Here it jumps over
/// whole terms at once (5.3, at the end).
#[test]
fn an_inconsistency_moves_the_next_index_back_until_the_logs_agree() {
    let mut cluster = Cluster::new(3, small_config(1));
    for (id, terms) in [(1, vec![1, 1, 4, 4]), (2, vec![1, 1, 2, 2, 3, 3]), (3, vec![1, 1, 4, 4])] {
        let id = NodeId(id);
        cluster.crash(id);
        let disk = &mut cluster.server(id).disk;
        disk.entries = entries(1, &terms);
        disk.hard_state.term = Term(4);
        cluster.restart(id);
    }
    cluster.elect(ME);
    assert_eq!(terms(cluster.raft(TWO)), [1, 1, 4, 4, 5]);
    let tried: Vec<EntryId> = appends_to(&cluster, TWO).into_iter().map(|(prev, _)| prev).collect();
    assert_eq!(tried, [EntryId::new(4, 4), EntryId::new(1, 2)]);
}

/// "If there exists an N such that N > commitIndex, a majority of matchIndex[i] >= N, and log[N].term ==
/// currentTerm: set commitIndex = N"
#[test]
fn a_leader_commits_what_a_majority_has_but_counts_only_its_own_term() {
    let mut cluster = Cluster::new(3, small_config(1));
    cluster.isolate(THREE);
    cluster.crash(ME);
    cluster.server(ME).disk.entries = entries(1, &[1, 1]);
    cluster.server(ME).disk.hard_state.term = Term(1);
    cluster.restart(ME);
    cluster.time_out(ME);
    while !matches!(cluster.raft(ME).role(), Role::Leader(_)) {
        cluster.deliver(0);
    }
    cluster.pool.clear();
    cluster.step(TWO, ME, message(2, matched(2)));
    assert_eq!(cluster.raft(ME).commit(), Index(0), "entries of term 1 are not counted in term 2");
    cluster.step(TWO, ME, message(2, matched(3)));
    assert_eq!(cluster.raft(ME).commit(), Index(3));
}

/// Figure 3, "Election Safety: at most one leader can be elected in a given term"; a message that says
/// otherwise is impossible.
#[test]
fn a_second_leader_of_a_term_is_refused() {
    let mut raft = server(&[]);
    answer(&mut raft, append(1, EntryId::ZERO, Vec::new(), 0));
    let refused = raft.step(THREE, append(1, EntryId::ZERO, Vec::new(), 0)).unwrap_err();
    assert!(matches!(refused, Refused::Impossible(_)));
}
