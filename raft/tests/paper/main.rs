//! Figure 2 of the extended Raft paper, sentence by sentence, one file for each of its boxes. Each
//! test is named after its sentence, which is quoted above it. Where the product departs from the
//! text (pre-vote before an election, fast backup instead of decrementing) the test says so.

mod append_entries;
#[path = "../common/mod.rs"]
mod common;
mod request_vote;
mod rules_for_servers;
mod state;

use raft::core::Raft;
use raft::core::message::{Body, Message, Verdict};
use raft::core::role::{Leader, Role};
use raft::storage::Restored;
use raft::types::{Entry, EntryId, HardState, Index, Membership, NodeId, Term};

use common::{Cluster, Seen, entry, message, small_config};

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
