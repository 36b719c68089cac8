//! The box "RequestVote RPC".

use raft::core::message::Body;
use raft::types::{EntryId, Term};

use super::{THREE, answer, granted, server};
use crate::common::message;

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
