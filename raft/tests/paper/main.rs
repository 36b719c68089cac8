//! Figure 2 of the extended Raft paper, sentence by sentence. Each test is named by its sentence, which
//! stands above it; where the product departs from the words (pre-vote before an election, fast backup
//! instead of decrementing) the test says so.

mod common;

use raft::config::Config;
use raft::core::message::{Body, Message, Verdict};
use raft::core::role::{Leader, Role};
use raft::core::table::TableReport;
use raft::core::{Raft, Refused};
use raft::storage::Restored;
use raft::types::{Entry, EntryId, HardState, Index, Membership, NodeId, Term};

use common::{Cluster, Seen, entry, matched, message, small_config};

const ME: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
const THREE: NodeId = NodeId(3);

/// Server 1 of three with entries of these terms, in the last of them.
fn server(terms: &[u64]) -> Raft {
    let entries = entries(1, terms);
    let term = entries.last().map_or(Term(0), |last| last.id.term);
    let hard_state = HardState { term, vote: None };
    let restored = Restored { hard_state, entries, ..Restored::default() };
    Raft::new(ME, Membership::of([ME, TWO, THREE]), small_config(1), restored, EntryId::ZERO)
}

fn entries(from: u64, terms: &[u64]) -> Vec<Entry> {
    terms.iter().zip(from..).map(|(term, index)| entry(*term, index, "x")).collect()
}

fn append(term: u64, prev: EntryId, entries: Vec<Entry>, commit: u64) -> Message {
    message(
        term,
        Body::Append { prev, entries, commit: Index(commit), round: 0, acked: EntryId::ZERO, differs: None },
    )
}

/// What the server answers to a message from server 2.
fn answer(raft: &mut Raft, asked: Message) -> Message {
    raft.step(TWO, asked).expect("a possible message");
    raft.check();
    let ready = raft.take_ready();
    raft.saved();
    ready.send.into_iter().find(|envelope| envelope.to == TWO).expect("an answer").message
}

fn verdict(answered: &Message) -> Verdict {
    match &answered.body {
        Body::AppendReply { verdict, .. } => *verdict,
        other => panic!("not an answer to an Append: {other:?}"),
    }
}

fn granted(answered: &Message) -> bool {
    match &answered.body {
        Body::VoteReply { granted } => *granted,
        other => panic!("not a vote: {other:?}"),
    }
}

fn terms(raft: &Raft) -> Vec<u64> {
    (1..=raft.log().last().index.0)
        .filter_map(|at| raft.log().term_at(Index(at)))
        .map(|term| term.0)
        .collect()
}

/// Three servers of which the first leads term 1.
fn led() -> Cluster {
    let mut cluster = Cluster::new(3, small_config(1));
    cluster.elect(ME);
    cluster.seen.clear();
    cluster
}

fn leader(cluster: &Cluster) -> &Leader {
    match cluster.raft(ME).role() {
        Role::Leader(leader) => leader,
        other => panic!("not the leader: {other:?}"),
    }
}

fn appends_to(cluster: &Cluster, to: NodeId) -> Vec<(EntryId, Vec<EntryId>)> {
    let mut found = Vec::new();
    for seen in &cluster.seen {
        if let Seen::Sent { flying, .. } = seen
            && flying.to == to
            && let Body::Append { prev, entries, .. } = &flying.message.body
        {
            found.push((*prev, entries.iter().map(|entry| entry.id).collect()));
        }
    }
    found
}

// State

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

// AppendEntries RPC

/// "leaderId: so follower can redirect clients"
#[test]
fn a_follower_knows_its_leader() {
    let mut cluster = led();
    assert_eq!(cluster.raft(TWO).leader(), Some(ME));
    let refused = cluster.input(TWO, |raft| raft.propose(bytes::Bytes::new(), false)).unwrap_err();
    assert_eq!(refused, raft::core::ProposeError::NotLeader { hint: Some(ME) });
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
fn an_append_behind_an_unknown_entry_is_refused() {
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

// RequestVote RPC

/// "1. Reply false if term < currentTerm"
#[test]
fn a_vote_is_refused_to_an_older_term() {
    let mut raft = server(&[3]);
    let answered = answer(&mut raft, message(2, Body::Vote { last: EntryId::new(9, 9) }));
    assert!(!granted(&answered));
    assert_eq!(answered.term, Term(3));
    assert_eq!(raft.hard_state().vote, None);
}

/// "2. If votedFor is null or candidateId, and candidate's log is at least as up-to-date as receiver's log,
/// grant vote"
#[test]
fn a_vote_goes_to_the_first_candidate_whose_log_is_as_good() {
    for (last, expected) in [
        (EntryId::new(1, 9), false),
        (EntryId::new(2, 2), false),
        (EntryId::new(2, 3), true),
        (EntryId::new(3, 1), true),
    ] {
        let mut raft = server(&[1, 1, 2]);
        let answered = answer(&mut raft, message(4, Body::Vote { last }));
        assert_eq!(granted(&answered), expected, "a candidate whose last entry is {last}");
    }
    let mut raft = server(&[]);
    assert!(granted(&answer(&mut raft, message(4, Body::Vote { last: EntryId::ZERO }))));
    assert!(granted(&answer(&mut raft, message(4, Body::Vote { last: EntryId::ZERO }))));
    raft.step(THREE, message(4, Body::Vote { last: EntryId::new(9, 9) })).unwrap();
    assert!(!granted(&raft.take_ready().send[0].message));
}

// Rules for Servers

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
