//! Log replication (5.3, 5.4.2).
//!
//! A leader keeps one [`Progress`] per follower and makes its Appends when a Ready is taken, so
//! that everything proposed in a round leaves in one message. Each Append, heartbeats included,
//! names the entry before the ones it carries. A follower that does not have it says where it could
//! continue (fast backup), and the leader probes from there. What an answer proves is computed from
//! the answer alone (rule 16).

use super::alarm::Alarm;
use super::message::{Body, Envelope, Message, TableReport, Verdict};
use super::progress::{Feed, Progress};
use super::ready::RunOrder;
use super::role::{Leader, Role};
use super::{Raft, Refused};
use crate::types::{Entry, EntryId, Index, NodeId};

impl Raft {
    pub(super) fn tick_leader(&mut self) {
        let heartbeat_ticks = self.config.heartbeat_ticks;
        let (patience, fresh_ticks) = (3 * heartbeat_ticks, self.config.election_ticks_min);
        let commit = self.commit;
        let Role::Leader(leader) = &mut self.role else { return };
        leader.heartbeat_elapsed += 1;
        let beat = leader.heartbeat_elapsed >= heartbeat_ticks;
        if beat {
            leader.heartbeat_elapsed = 0;
        }
        let mut stalled = Vec::new();
        for (id, follower) in &mut leader.followers {
            follower.silent_ticks = follower.silent_ticks.saturating_add(1);
            // A commit index that no message has carried yet goes with the next tick, not the next
            // heartbeat.
            let owes_commit = follower.commit_told < commit && follower.matched >= commit;
            follower.due |= beat || owes_commit;
            match &mut follower.feed {
                Feed::Probe { waiting } if beat => *waiting = false,
                _ => {}
            }
            // (One that is silent gets heartbeats only.)
            let is_fresh = follower.silent_ticks < fresh_ticks;
            if let Some(stream) = follower.stream_mut().filter(|stream| !stream.is_reading) {
                stream.idle_ticks = stream.idle_ticks.saturating_add(1);
                if stream.idle_ticks >= patience && is_fresh {
                    stream.restart();
                    stalled.push(*id);
                }
            }
        }
        if beat {
            self.start_round(true);
        }
        for follower in stalled {
            self.order_chunk(follower);
        }
        self.tick_claims();
        self.tick_pacing();
        self.maybe_step_down();
    }

    /// The Appends of this round: entries that followers lack, and heartbeats that are due.
    pub(super) fn take_appends(&mut self) -> Vec<Envelope> {
        // First those of entries from files: the following entries may be in memory.
        let mut appends = std::mem::take(&mut self.appends);
        self.start_round(false);
        let Role::Leader(leader) = &self.role else { return appends };
        let ids: Vec<NodeId> = leader.followers.keys().copied().collect();
        for id in ids {
            while let Some(message) = self.next_append(id) {
                appends.push(Envelope { to: id, message });
            }
        }
        appends
    }

    fn next_append(&mut self, to: NodeId) -> Option<Message> {
        let (term, marker, last) = (self.hard_state.term, self.log.marker(), self.log.last().index);
        let follower = self.role.leader_mut()?.followers.get(&to)?;
        let (next, is_streamed) = (follower.next, matches!(follower.feed, Feed::Snapshot(_)));
        let is_behind = !is_streamed && next <= marker.index;
        if is_behind && !self.has_after(next.previous()) {
            // The entry that it needs next is gone (section 7).
            self.become_stream(to);
            return self.next_append(to);
        }
        let Role::Leader(leader) = &mut self.role else { return None };
        let round = leader.round;
        let follower = leader.followers.get_mut(&to)?;
        // (Entries that are in memory disturb nobody.)
        let halvings = if is_behind { leader.pacing.halvings } else { 0 };
        let open = follower.open_bytes(&self.config, halvings);
        if let Some(bytes) = open.filter(|_| is_behind && !follower.is_reading) {
            follower.is_reading = true;
            self.reads.push(RunOrder { to, prev: next.previous(), upto: marker.index, bytes });
        }
        let probing = matches!(follower.feed, Feed::Probe { waiting: false }) && !is_behind;
        let more =
            open.is_some() && !is_behind && next <= last && !base::mutant!("entries-wait-for-heartbeat");
        if !(follower.due || probing || more) {
            return None;
        }
        let (prev, entries) = match open {
            _ if is_streamed => (marker, Vec::new()),
            _ if is_behind => (follower.prev_or(marker), Vec::new()),
            Some(bytes_max) => (self.log.id_at(next.previous())?, self.log.range(next, last, bytes_max)),
            None => (self.log.id_at(next.previous())?, Vec::new()),
        };
        if !is_behind {
            note_sent(follower, &entries);
        }
        let differs = follower.differs;
        follower.due = false;
        follower.commit_told = self.commit;
        let acked = follower.acked;
        let commit = self.commit;
        Some(Message::new(term, Body::Append { prev, entries, commit, round, acked, differs }))
    }

    /// An Append from the leader of this term.
    pub(super) fn on_append(
        &mut self,
        from: NodeId,
        prev: EntryId,
        mut entries: Vec<Entry>,
        commit: Index,
        round: u64,
        acked: EntryId,
    ) -> Result<(), Refused> {
        self.check_append(prev, &entries)?;
        self.follow(from)?;
        self.compare(prev, &entries)?;
        self.check_acked(acked)?;
        self.drop_entries_without_room(&mut entries);
        let covered = Index(prev.index.0 + entries.len() as u64);
        let agrees = self.log.contains(prev)
            || base::mutant!("ignore-previous-term") && prev.index <= self.log.last().index;
        let verdict = if covered <= self.commit {
            // All of it is committed here and was compared, so everything that is committed is in
            // the leader's log as well (leader completeness).
            Verdict::Matched(self.commit)
        } else if prev.index >= self.log.marker().index && !agrees {
            let try_at = self.log.last_not_above(prev.index, prev.term);
            Verdict::Conflict { at: prev.index, try_at }
        } else {
            self.take_entries(entries)?;
            base::mutant!("truncate-always", self.truncate(covered.next()));
            base::mutant!("commit-beyond-message", self.advance_commit(commit.min(self.log.last().index)));
            // Rule 14: only as far as this message is known to agree.
            self.advance_commit(commit.min(covered));
            Verdict::Matched(covered)
        };
        self.answer_append(from, verdict, round);
        Ok(())
    }

    pub(super) fn answer_append(&mut self, to: NodeId, verdict: Verdict, round: u64) {
        let table = self.table_report();
        self.answer_with(to, verdict, round, table);
    }

    fn answer_with(&mut self, to: NodeId, verdict: Verdict, round: u64, table: TableReport) {
        let (disk_low, owes, room) = (self.lacks_space(), self.owes().is_some(), self.report_room());
        self.send(to, Body::AppendReply { verdict, round, disk_low, owes, table, room });
    }

    fn check_append(&self, prev: EntryId, entries: &[Entry]) -> Result<(), Refused> {
        let mut before = prev;
        for entry in entries {
            if !entry.is_whole() {
                return Err(Refused::Impossible("an entry whose checksum is wrong"));
            }
            if before.index.0.checked_add(1) != Some(entry.id.index.0) || entry.id.term < before.term {
                return Err(Refused::Impossible("entries with a gap or a falling term"));
            }
            before = entry.id;
        }
        if before.index >= Index::LIMIT {
            return Err(Refused::Impossible("entries beyond all positions"));
        }
        if before.term > self.hard_state.term {
            return Err(Refused::Impossible("entries of a later term than their leader's"));
        }
        Ok(())
    }

    /// Rule 65: compares what a leader says of its log with the entries committed here, as far as
    /// they are still known, and with entries of the same id. Both are the same in every log
    /// forever, and the leader of a term has everything that was committed before it: so the first
    /// difference proves that safety is broken.
    fn compare(&self, prev: EntryId, entries: &[Entry]) -> Result<(), Refused> {
        base::mutant!("matched-unseen", return Ok(()));
        self.compare_id(prev)?;
        let last = self.log.last();
        for entry in entries {
            // An entry that continues the log is compared with its end; terms do not fall along a
            // message (check_append).
            if entry.id.index > last.index && entry.id.term >= last.term {
                break;
            }
            self.compare_id(entry.id)?;
            let own = self.log.entry(entry.id.index).filter(|own| own.id == entry.id);
            if own.is_some_and(|own| own != entry) {
                return Err(Refused::SafetyViolation(format!(
                    "the leader's entry {} does not carry what it carries here",
                    entry.id
                )));
            }
        }
        Ok(())
    }

    /// The same for one entry id in the leader's log. Even if this server's entry is no longer
    /// known, or not committed, terms may not fall along the leader's log.
    pub(super) fn compare_id(&self, said: EntryId) -> Result<(), Refused> {
        let own = match self.log.id_at(said.index.min(self.commit)) {
            Some(own) if own.index == said.index && own != said => own,
            Some(own) if own.index < said.index && own.term > said.term => own,
            None if said.term > self.log.marker().term => self.log.marker(),
            _ => return Ok(()),
        };
        Err(Refused::SafetyViolation(format!(
            "the leader's log has {said}, but the committed entry here is {own}; one of the two was replaced"
        )))
    }

    /// `from` leads this term: follow it, and reset the timer (rule 7).
    pub(super) fn follow(&mut self, from: NodeId) -> Result<(), Refused> {
        match self.leader() {
            Some(leader) if leader == from => {}
            Some(leader) => return Err(self.leave_term_of_two(leader, from)),
            None => {
                self.become_follower(self.hard_state.term, Some(from));
                // It was elected with the entries that it claimed (rule 67).
                self.claimed_beyond.remove(&from);
            }
        }
        base::mutant!("heartbeat-not-heard", return Ok(()));
        self.leader_silent = Some(0);
        self.reset_election_timer();
        Ok(())
    }

    /// Rule 68. This does not prove that a committed entry is lost, so no process ends. But a
    /// server that forgets in a restart which leader it followed in this term could acknowledge the
    /// same positions to both. In the next term it cannot.
    fn leave_term_of_two(&mut self, one: NodeId, other: NodeId) -> Refused {
        let term = self.hard_state.term;
        self.alarms.push(Alarm::TwoLeaders { term, one, other });
        self.become_follower(term.next(), None);
        Refused::Impossible("a second leader in one term")
    }

    /// Rules 13 and 15: skip entries that are there, truncate only at a real conflict of terms;
    /// truncation and new entries are one save.
    fn take_entries(&mut self, entries: Vec<Entry>) -> Result<(), Refused> {
        for entry in entries {
            if entry.id.index <= self.log.marker().index || self.log.contains(entry.id) {
                continue;
            }
            if entry.id.index <= self.log.last().index {
                if entry.id.index <= self.commit {
                    return Err(Refused::SafetyViolation(format!(
                        "the leader replaces the committed entry at {} by {}",
                        entry.id.index, entry.id
                    )));
                }
                self.truncate(entry.id.index);
            }
            self.append_received(entry);
        }
        Ok(())
    }

    /// Refuses, by term: the sender learns this server's term from it. It names no round: by the
    /// time it arrives its receiver may lead this very term, and rounds of another term prove
    /// nothing in it.
    pub(super) fn refuse_append(&mut self, from: NodeId, at: Index) {
        let verdict = Verdict::Conflict { at, try_at: self.log.last() };
        // The hashes of the table are for the leader of this term.
        self.answer_with(from, verdict, 0, TableReport::default());
    }

    /// A follower's answer in this term.
    pub(super) fn on_append_reply(
        &mut self,
        from: NodeId,
        verdict: Verdict,
        round: u64,
        disk_low: bool,
        owes: bool,
        room: u64,
    ) -> Result<(), Refused> {
        let last = self.log.last().index;
        let (log, kept) = (&self.log, self.kept);
        let Role::Leader(leader) = &mut self.role else { return Ok(()) };
        let newest_round = leader.round;
        let Some(follower) = leader.followers.get_mut(&from) else { return Ok(()) };
        if round > newest_round {
            return Err(Refused::Impossible("an answer to something never sent"));
        }
        if let Verdict::Matched(claimed) = verdict
            && claimed > last
        {
            return Err(self.doubt_own_log(from, claimed));
        }
        follower.silent_ticks = 0;
        follower.round = follower.round.max(round);
        follower.disk_low = disk_low;
        follower.owes = owes;
        base::mutant!("answer-asks-again", follower.due = true);
        let news = match verdict {
            Verdict::Matched(index) => {
                let index = if base::mutant!("match-from-next") { follower.next.previous() } else { index };
                if let Some(id) = log.id_at(index) {
                    follower.acked = follower.acked.max(id);
                }
                if owes && index < follower.matched && !base::mutant!("matched-not-set-back") {
                    follower.set_back(index);
                    if !matches!(follower.feed, Feed::Snapshot(_)) {
                        follower.probe_from(index.next());
                    }
                }
                let news = follower.on_matched(index);
                let has_rest = follower.matched >= log.marker().index || follower.matched >= kept;
                if matches!(follower.feed, Feed::Snapshot(_)) && has_rest {
                    follower.probe_from(follower.matched.next());
                }
                news
            }
            Verdict::Conflict { at, try_at } => {
                if owes && at <= follower.matched && !base::mutant!("matched-not-set-back") {
                    // What it has now may be from before it agreed with this log: none of it is
                    // known to agree.
                    follower.set_back(Index(0));
                }
                on_conflict(follower, log, at, try_at);
                false
            }
        };
        if round == 0 || room == 0 || !base::mutant!("room-not-repeated") {
            follower.on_room(room);
        }
        if news {
            self.maybe_commit();
        }
        self.confirm_reads();
        Ok(())
    }

    /// Rule 67: a follower agrees beyond the end of this leader's log. Either this server lost
    /// entries, and others may lead: a server that has them is elected as soon as this one steps
    /// down, because its log is longer. Or the follower is wrong: it could not win three elections
    /// with what it claims, and nobody else ever made such a claim.
    fn doubt_own_log(&mut self, peer: NodeId, claimed: Index) -> Refused {
        const CLAIMS_MAX: u32 = 3;
        const ABSTAINS_TIMEOUTS: u32 = 10;
        let refused = Refused::Impossible("agreement beyond the leader's log");
        base::mutant!("beyond-log-ignored", return refused);
        let claims = self.claimed_beyond.entry(peer).or_default();
        *claims += 1;
        if *claims >= CLAIMS_MAX && self.claimed_beyond.len() == 1 {
            self.disbelieved.insert(peer);
            self.alarms.push(Alarm::PeerRefused { peer });
            return refused;
        }
        self.alarms.push(Alarm::BeyondLog { peer, claimed, last: self.log.last() });
        self.become_follower(self.hard_state.term, None);
        self.abstains_ticks = self.config.election_ticks_max.saturating_mul(ABSTAINS_TIMEOUTS);
        refused
    }

    /// A message to `peer` was lost.
    pub fn unreachable(&mut self, peer: NodeId) {
        if let Some(follower) = self.role.leader_mut().and_then(|leader| leader.followers.get_mut(&peer))
            && matches!(follower.feed, Feed::Replicate { .. })
        {
            // Wait for the next heartbeat: probing at once would send to a dead peer in every
            // round.
            follower.probe_from(follower.matched.next());
            follower.feed = Feed::Probe { waiting: true };
        }
    }

    /// Rule 11: only an entry of the leader's own term is committed by counting (5.4.2, Figure 8).
    pub(super) fn maybe_commit(&mut self) {
        let Role::Leader(leader) = &self.role else { return };
        let matched = |voter: NodeId| {
            if voter == self.me {
                self.saved
            } else {
                leader.followers.get(&voter).map_or(Index(0), |follower| follower.matched)
            }
        };
        let Some(reached) = self.membership.reached(matched) else { return };
        let own = self.log.term_at(reached) == Some(self.hard_state.term);
        if reached > self.commit && (own || base::mutant!("count-old-term-commits")) {
            self.advance_commit(reached);
            self.start_round(false);
        }
    }
}

/// Sent entries count as in flight; `next` runs ahead of the answers.
pub(super) fn note_sent(follower: &mut Progress, entries: &[Entry]) {
    match &mut follower.feed {
        Feed::Probe { waiting } => *waiting = true,
        Feed::Replicate { in_flight } => {
            if let Some(last) = entries.last() {
                in_flight.push_back((last.id.index, entries.iter().map(Entry::weight).sum()));
                follower.next = last.id.index.next();
                base::mutant!("next-skips-one", follower.next = follower.next.next());
            }
        }
        Feed::Full | Feed::Snapshot(_) => {}
    }
}

/// Rules 16 and 17: an answer to an old message moves nothing; a real one shows where to probe
/// next.
fn on_conflict(follower: &mut Progress, log: &super::log::Log, at: Index, try_at: EntryId) {
    base::mutant!("match-from-refusal", follower.on_matched(try_at.index));
    let stale = match &follower.feed {
        Feed::Probe { .. } | Feed::Full => at != follower.next.previous(),
        Feed::Replicate { .. } => at <= follower.matched || at >= follower.next,
        Feed::Snapshot(_) => true,
    };
    if !stale {
        // The leader's last position that can agree with what the follower has at `try_at`.
        let agree = log.last_not_above(try_at.index, try_at.term).index;
        let next = if try_at.index < log.marker().index { try_at.index.next() } else { agree.next() };
        follower.probe_from(next.min(at));
    }
}

impl Leader {
    /// Every follower gets an Append in this round.
    pub(super) fn owe_all(&mut self) {
        for follower in self.followers.values_mut() {
            follower.due = true;
        }
    }
}
