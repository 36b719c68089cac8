//! Rule 49: whatever peers send, in whatever role this server is, it neither panics nor contradicts
//! itself.
//!
//! Random messages about positions near the end of the receiver's own log, where its decisions are
//! made, mixed with time, proposals and compactions. (Random bytes are tested with the codec.)
//! `SEEDS=200000 cargo test -p raft --test nonsense` for long runs, `SEED=n` for one.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use raft::core::message::{Body, Chunk, Mark, TableReport, Verdict};
use raft::core::ready::{Apply, ReadId};
use raft::core::{Raft, Refused};
use raft::storage::Restored;
use raft::types::{Entry, EntryId, HardState, Index, Membership, NodeId, Term};

use common::{entry, message, small_config};

const STEPS: usize = 30;

struct Run {
    random: StdRng,
    raft: Raft,
    /// What the applier has applied.
    applied: Index,
    /// What happened, the newest last.
    trace: Vec<String>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let marker = EntryId::new(random.random_range(1..4), random.random_range(3..6));
        let mut last = marker;
        let entries: Vec<Entry> = (0..random.random_range(0..4))
            .map(|_| {
                last =
                    EntryId { term: Term(last.term.0 + random.random_range(0..2)), index: last.index.next() };
                entry(last.term.0, last.index.0, "")
            })
            .collect();
        let hard_state = HardState { term: Term(last.term.0 + random.random_range(0..2)), vote: None };
        let restored = Restored { hard_state, marker, entries, ..Restored::default() };
        let members = Membership::of([1, 2, 3].map(NodeId));
        let raft = Raft::new(NodeId(1), members, small_config(seed), restored, marker);
        Self { random, raft, applied: marker.index, trace: Vec::new() }
    }

    /// The name of an entry that may be in the log, or nearly.
    fn near(&mut self) -> EntryId {
        let log = self.raft.log();
        let low = log.marker().index.0.saturating_sub(2);
        let index = self.random.random_range(low..log.last().index.0 + 3);
        let own = log.term_at(Index(index)).unwrap_or(self.raft.term()).0;
        let term = if self.random.random_ratio(1, 3) {
            self.random.random_range(0..self.raft.term().0 + 2)
        } else {
            own
        };
        EntryId::new(term, index)
    }

    fn entries_after(&mut self, mut at: EntryId) -> Vec<Entry> {
        let mut next = |random: &mut StdRng| {
            at = EntryId {
                term: Term(at.term.0 + u64::from(random.random_ratio(1, 3))),
                index: at.index.next(),
            };
            entry(at.term.0, at.index.0, "")
        };
        (0..self.random.random_range(0..4)).map(|_| next(&mut self.random)).collect()
    }

    /// A hash of a table, right or wrong.
    fn mark(&mut self) -> Option<Mark> {
        let mark = (self.near().index, self.random.random_range(0..2));
        self.random.random_bool(0.3).then_some(mark)
    }

    fn body(&mut self) -> Body {
        let granted = self.random.random_ratio(2, 3);
        let round = self.random.random_range(0..3);
        let needs = self.random.random_bool(0.2).then_some(self.near().index);
        let table = TableReport { mark: self.mark(), needs };
        let room = [0, 1, u64::MAX][self.random.random_range(0..3)];
        let reply = |verdict| Body::AppendReply { verdict, round, disk_low: false, owes: false, table, room };
        match self.random.random_range(0..12) {
            0..3 => {
                let prev = self.near();
                let differs = self.mark();
                Body::Append {
                    prev,
                    entries: self.entries_after(prev),
                    commit: self.near().index,
                    round,
                    acked: EntryId::ZERO,
                    differs,
                }
            }
            3 => Body::PreVote { last: self.near() },
            4 => Body::PreVoteReply { asked: self.raft.term().next(), granted },
            5 => Body::Vote { last: self.near() },
            6 => Body::VoteReply { granted },
            7 => reply(Verdict::Matched(self.near().index)),
            8 => reply(Verdict::Conflict { at: self.near().index, try_at: self.near() }),
            9 | 10 => Body::Chunk(Chunk::new(
                self.near(),
                Membership::of([1, 2, 3].map(NodeId)),
                None,
                vec![(Bytes::from_static(b"a"), Bytes::new())],
                self.random.random_bool(0.5),
            )),
            _ => Body::ChunkReply { snapshot: self.near(), cursor: None, resume: granted },
        }
    }

    /// What the driver and the applier do. False: as in [`Self::step`].
    fn effects(&mut self) -> bool {
        let ready = self.raft.take_ready();
        self.raft.saved();
        self.trace.push("effects".to_owned());
        for item in ready.apply {
            match item {
                Apply::Entry(entry) => {
                    self.raft.applied_bytes(entry.weight());
                    self.applied = self.applied.max(entry.id.index);
                }
                Apply::Chunk(chunk) if !chunk.done => self.raft.staged(chunk.snapshot),
                Apply::Chunk(chunk) if chunk.snapshot.index <= self.applied => {
                    self.raft.not_installed(chunk.snapshot);
                }
                Apply::Chunk(chunk) => {
                    self.applied = chunk.snapshot.index;
                    if self.raft.installed(chunk.snapshot).is_err() {
                        return false;
                    }
                }
                _ => {}
            }
        }
        self.raft.check();
        true
    }

    /// False: safety is broken, as it should be in such company; a process would have ended.
    fn step(&mut self) -> bool {
        match self.random.random_range(0..16) {
            0 => {
                (0..self.random.random_range(0..25)).for_each(|_| self.raft.tick());
                self.trace.push("ticks".to_owned());
            }
            1 => {
                let _ = self.raft.propose(Bytes::from_static(b"x"), false);
                let _ = self.raft.read(ReadId(1));
                let durable = self.near().index;
                self.raft.compact(durable);
                self.raft.hashed(self.applied, 0);
                self.trace.push("proposes, reads and compacts".to_owned());
            }
            2..5 if !self.effects() => return false,
            2..5 => {}
            _ => {
                let from = NodeId(self.random.random_range(2..4));
                let term = (self.raft.term().0 + self.random.random_range(0..3)).saturating_sub(1);
                let said = message(term, self.body());
                self.trace.push(format!("{from:?} says {said:?}"));
                if matches!(self.raft.step(from, said), Err(Refused::SafetyViolation(_))) {
                    return false;
                }
            }
        }
        self.raft.check();
        true
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn nothing_that_peers_say_ends_a_server_by_panic() {
    let seeds = number("SEED").map_or(0..number("SEEDS").unwrap_or(5_000), |seed| seed..seed + 1);
    for seed in seeds {
        let mut run = Run::new(seed);
        let outcome = catch_unwind(AssertUnwindSafe(|| (0..STEPS).all(|_| run.step())));
        assert!(outcome.is_ok(), "replay with SEED={seed}: {:#?}", run.trace);
    }
}
