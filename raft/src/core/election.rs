//! Elections (5.2, 5.4.1), with pre-vote and check-quorum, which only work together (rule 5).
//!
//! A follower that hears no leader for a random timeout first asks everybody "would you vote for me
//! in the next term?". No term changes. Only with a majority of yes does it raise its term and ask
//! for real votes. A server that heard a leader within the shortest election timeout says no to
//! both questions. A leader that did not hear a majority for the longest election timeout steps
//! down, so that its followers no longer hear a leader.

use std::collections::{BTreeMap, VecDeque};

use rand::RngExt;

use super::Raft;
use super::message::{Body, Message};
use super::pacing::Pacing;
use super::progress::Progress;
use super::quorum::Tally;
use super::ready::Apply;
use super::role::{Leader, Role};
use crate::types::{EntryId, HardState, NodeId, Payload, Term};

impl Raft {
    /// A new timeout is drawn for each attempt (rule 8).
    pub(super) fn reset_election_timer(&mut self) {
        self.election_elapsed = 0;
        self.election_timeout =
            self.random.random_range(self.config.election_ticks_min..=self.config.election_ticks_max);
    }

    pub(super) fn tick_election(&mut self) {
        self.election_elapsed = self.election_elapsed.saturating_add(1);
        if self.election_elapsed < self.election_timeout || !self.may_stand() {
            return;
        }
        if self.owes().is_some() && !base::mutant!("stands-while-it-owes") {
            // Rule 62: its log may lack what was committed with its help. It waits for a leader.
            self.reset_election_timer();
            self.leader_silent = None;
            self.role = Role::Follower { leader: None };
        } else {
            self.become_pre_candidate();
        }
    }

    /// Whether this server may stand for election: a voter whose log nobody had reason to doubt
    /// lately (rule 67), and whose table is not bad (rule 69).
    fn may_stand(&self) -> bool {
        let sound = !self.table.is_bad() || base::mutant!("bad-table-stands");
        self.membership.is_voter(self.me) && self.abstains_ticks == 0 && sound
    }

    /// Whether a leader was heard within the shortest election timeout; a leader hears itself.
    pub(super) fn hears_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
            || self.leader_silent.is_some_and(|ticks| ticks < self.config.election_ticks_min)
    }

    /// Follows in `term`. The election timer keeps running: only the events in rule 7 reset it.
    pub(super) fn become_follower(&mut self, term: Term, leader: Option<NodeId>) {
        self.abort_reads();
        if term > self.hard_state.term {
            self.set_hard_state(HardState { term, vote: None });
            self.apply.push(Apply::NewerTerm(term));
            self.leader_silent = None;
        }
        if matches!(self.role, Role::Leader(_)) {
            self.reset_election_timer();
        }
        self.role = Role::Follower { leader };
    }

    fn become_pre_candidate(&mut self) {
        self.reset_election_timer();
        self.leader_silent = None;
        self.role = Role::PreCandidate { answers: BTreeMap::from([(self.me, true)]) };
        self.ask_all(Body::PreVote { last: self.log.last() });
        self.count_votes();
    }

    fn become_candidate(&mut self) {
        self.reset_election_timer();
        let term = self.hard_state.term.next();
        self.set_hard_state(HardState { term, vote: Some(self.me) });
        self.apply.push(Apply::NewerTerm(term));
        self.role = Role::Candidate { answers: BTreeMap::from([(self.me, true)]) };
        self.ask_all(Body::Vote { last: self.log.last() });
        self.count_votes();
    }

    fn become_leader(&mut self) {
        let next = self.log.last().index.next();
        let uncommitted_bytes = self.log.bytes_after(self.commit);
        let claims = self.own_claims();
        let others = self.membership.voters.iter().copied().filter(|voter| *voter != self.me);
        self.role = Role::Leader(Leader {
            followers: others.map(|voter| (voter, Progress::new(next))).collect(),
            term_start: next,
            since: self.log.marker().index,
            round: 0,
            waiting: Vec::new(),
            rounds: VecDeque::new(),
            heartbeat_elapsed: 0,
            uncommitted_bytes,
            claims,
            pacing: Box::new(Pacing::new(self.log.marker().index, self.log.last().index, self.log.bytes())),
        });
        base::mutant!("skip-empty-entry", return);
        // Rule 12: without an entry of its own term a leader may commit nothing older (rule 11).
        self.append_own(Payload::Empty, true);
    }

    fn ask_all(&mut self, body: Body) {
        let others: Vec<NodeId> =
            self.membership.voters.iter().copied().filter(|voter| *voter != self.me).collect();
        for voter in others {
            self.send(voter, body.clone());
        }
    }

    /// Rules 1 and 2: the vote is part of this round's save, which comes before the answer; a repeated
    /// request is granted again.
    pub(super) fn on_vote(&mut self, from: NodeId, last: EntryId) {
        let free = self.hard_state.vote.is_none_or(|voted| voted == from) || base::mutant!("vote-twice");
        let recent = last >= self.bar() || base::mutant!("vote-ignores-log");
        let granted = free && recent && !matches!(self.role, Role::Leader(_));
        if granted {
            if self.hard_state.vote.is_none() {
                self.set_hard_state(HardState { vote: Some(from), ..self.hard_state });
            }
            self.reset_election_timer();
        }
        self.send(from, Body::VoteReply { granted });
    }

    pub(super) fn on_pre_vote(&mut self, from: NodeId, term: Term, last: EntryId) {
        let granted = last >= self.bar() || base::mutant!("vote-ignores-log");
        self.send(from, Body::PreVoteReply { asked: term.next(), granted });
    }

    /// Refuses, with this server's term.
    pub(super) fn refuse_vote(&mut self, from: NodeId, message: &Message) {
        let body = match message.body {
            Body::PreVote { .. } => Body::PreVoteReply { asked: message.term.next(), granted: false },
            _ => Body::VoteReply { granted: false },
        };
        self.send(from, body);
    }

    pub(super) fn on_pre_vote_reply(&mut self, from: NodeId, asked: Term, granted: bool) {
        let current = asked == self.hard_state.term.next();
        if let (Role::PreCandidate { answers }, true) = (&mut self.role, current) {
            answers.insert(from, granted);
            self.count_votes();
        }
    }

    pub(super) fn on_vote_reply(&mut self, from: NodeId, granted: bool) {
        if let Role::Candidate { answers } = &mut self.role {
            // A late no to an earlier request does not take back a yes to this one.
            *answers.entry(from).or_default() |= granted;
            self.count_votes();
        }
    }

    fn count_votes(&mut self) {
        let (tally, real) = match &self.role {
            Role::PreCandidate { answers } => (self.membership.tally(answers), false),
            Role::Candidate { answers } => (self.membership.tally(answers), true),
            _ => return,
        };
        match (tally, real) {
            (Tally::Won, false) => self.become_candidate(),
            (Tally::Won, true) => self.become_leader(),
            (Tally::Lost, _) => self.role = Role::Follower { leader: None },
            (Tally::Open, _) => {}
        }
    }

    /// Check-quorum: fresh answers count, nothing else (rule 6).
    pub(super) fn maybe_step_down(&mut self) {
        let Role::Leader(leader) = &self.role else { return };
        let limit = self.config.election_ticks_max;
        let heard = |voter| {
            voter == self.me
                || leader.followers.get(&voter).is_some_and(|follower| follower.silent_ticks < limit)
        };
        if !self.membership.majority(heard) {
            self.become_follower(self.hard_state.term, None);
        }
    }
}
