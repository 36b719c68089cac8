//! Rules 133 and 134: a leader, a follower that takes everything at once, and one that does not.
//! (`raft/src/core/pace/tests.rs` tests the law itself.)

mod common;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use raft::config::{Config, Law};
use raft::core::Raft;
use raft::core::message::{Body, Chunk, Envelope, TableReport, Verdict};
use raft::core::pace::Standing;
use raft::core::ready::{Apply, StreamOrder};
use raft::core::role::Role;
use raft::storage::Restored;
use raft::types::{EntryId, Index, Membership, NodeId, Term};

use common::message;

const KIB: u64 = 1 << 10;
const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
const SLOW: NodeId = NodeId(3);
/// Bytes of a command.
const WRITE: usize = 4 << 10;

/// Server 1, which leads, and what its followers have.
struct Group {
    raft: Raft,
    config: Config,
    two: Index,
    /// Entries that came to the slow follower and that it has not taken.
    coming: VecDeque<(Index, u64)>,
    slow: Index,
    /// Bytes that it may take now.
    budget: u64,
    orders: Vec<StreamOrder>,
    /// Chunks that were read for it.
    read: u32,
    /// Chunks that were sent to it.
    chunks: usize,
}

fn three() -> Membership {
    Membership::of([ONE, TWO, SLOW])
}

impl Group {
    fn new(log_bytes_max: usize) -> Self {
        let pace = Law {
            recent: Duration::from_millis(250),
            window: Duration::from_millis(200),
            patience: Duration::from_secs(2),
            calm: Duration::from_secs(1),
            retry: Duration::from_secs(20),
            level_bytes: 4096 * KIB,
            least: 1,
        };
        let config =
            Config { pace, quiet_start: false, ..Config::default() }.with_log_bytes_max(log_bytes_max);
        let raft = Raft::new(ONE, three(), config.clone(), Restored::default(), EntryId::ZERO);
        let coming = VecDeque::new();
        let (two, slow) = (Index(0), Index(0));
        let orders = Vec::new();
        let mut group = Self { raft, config, two, coming, slow, budget: 0, orders, read: 0, chunks: 0 };
        group.raft.set_room(1 << 30, 0);
        (0..group.config.election_ticks_max).for_each(|_| group.raft.tick());
        group.effects();
        group.says(TWO, Body::PreVoteReply { asked: Term(1), granted: true });
        group.says(TWO, Body::VoteReply { granted: true });
        assert!(matches!(group.raft.role(), Role::Leader(_)));
        group
    }

    fn says(&mut self, from: NodeId, body: Body) {
        self.raft.step(from, message(self.raft.term().0, body)).unwrap();
        self.effects();
    }

    fn effects(&mut self) {
        loop {
            let ready = self.raft.take_ready();
            self.raft.saved();
            if ready.is_empty() {
                return;
            }
            self.orders.extend(ready.streams.into_iter().filter(|order| order.to == SLOW));
            for Envelope { to, message } in ready.appends.into_iter().chain(ready.send) {
                match message.body {
                    Body::Append { prev, entries, .. } if to == TWO => {
                        self.two = Index(prev.index.0 + entries.len() as u64);
                    }
                    Body::Append { entries, .. } if to == SLOW => {
                        self.coming
                            .extend(entries.iter().map(|entry| (entry.id.index, entry.weight() as u64)));
                    }
                    Body::Chunk(_) if to == SLOW => self.chunks += 1,
                    _ => {}
                }
            }
            let applied = ready.apply.iter().filter_map(|item| match item {
                Apply::Entry(entry) => Some(entry.weight()),
                _ => None,
            });
            self.raft.applied_bytes(applied.sum());
        }
    }

    /// Reads the rows that were ordered, of a table that has no end.
    fn read_rows(&mut self) {
        while let Some(order) = self.orders.pop() {
            self.read += 1;
            let snapshot = order.snapshot.unwrap_or(EntryId { term: Term(1), index: self.raft.commit() });
            let row = (Bytes::from(format!("{:08}", self.read)), Bytes::from_static(b"value"));
            self.raft.chunk_read(SLOW, Chunk::new(snapshot, three(), order.after, vec![row], false));
            self.effects();
        }
    }

    fn matched(&mut self, from: NodeId, index: Index) {
        let (verdict, table) = (Verdict::Matched(index), TableReport::default());
        let body =
            Body::AppendReply { verdict, round: 0, disk_low: false, owes: false, table, room: u64::MAX };
        self.says(from, body);
    }

    /// A tick: clients write as much as they want and may, and the slow follower takes its share.
    /// Returns what was written.
    fn step(&mut self, writes_per_second: u64, takes_per_second: u64) -> u64 {
        let in_a_tick = |speed: u64| speed * self.config.tick.as_millis() as u64 / 1000;
        let (mut wanted, takes) = (in_a_tick(writes_per_second), in_a_tick(takes_per_second));
        self.raft.tick();
        self.effects();
        let mut written = 0;
        while wanted >= WRITE as u64 && !self.raft.is_held_back() {
            self.raft.propose(Bytes::from(vec![0; WRITE]), false).unwrap();
            (wanted, written) = (wanted - WRITE as u64, written + WRITE as u64);
        }
        self.effects();
        self.matched(TWO, self.two);
        self.budget = (self.budget + takes).min(4 * takes);
        while let Some((index, bytes)) =
            self.coming.front().copied().filter(|(_, bytes)| *bytes <= self.budget)
        {
            self.coming.pop_front();
            (self.budget, self.slow) = (self.budget - bytes, index);
        }
        self.matched(SLOW, self.slow);
        self.raft.compact(self.raft.commit());
        self.effects();
        written
    }

    /// The least that was written in half a second of so many.
    fn play(&mut self, seconds: u64, writes: u64, takes: u64) -> u64 {
        let ticks = |time: Duration| (time.as_millis() / self.config.tick.as_millis()) as u64;
        let (half, all) = (ticks(Duration::from_millis(500)), ticks(Duration::from_secs(seconds)));
        (0..all / half)
            .map(|_| (0..half).map(|_| self.step(writes, takes)).sum::<u64>() * 2)
            .min()
            .unwrap_or(0)
    }

    fn standing(&self) -> Standing {
        self.raft.standing(SLOW).unwrap().0
    }
}

const W: u64 = 8000 * KIB;

#[test]
fn writes_wait_for_a_member_that_can_arrive_and_no_longer_than_that() {
    let mut group = Group::new(256 << 20);
    let least = group.play(4, W, 2 * W);
    assert!((group.standing(), group.raft.pace()) == (Standing::Level, None) && least > W * 9 / 10);
    // It was level, and takes a little less than is written.
    let least = group.play(4, W, W * 8 / 10);
    assert_eq!(group.standing(), Standing::Arriving);
    let pace = group.raft.pace().expect("it is slowed down for it");
    assert!((W * 7 / 10..W * 8 / 10).contains(&pace) && least > W * 6 / 10, "{pace} {least}");
    while !group.raft.is_held_back() {
        group.raft.propose(Bytes::from(vec![0; WRITE]), false).unwrap();
    }
    // What frees space does not wait.
    group.raft.propose(Bytes::from("delete"), true).unwrap();
    let least = group.play(20, W, W * 8 / 10);
    assert!(least > W * 6 / 10, "a quarter at most: {least}");
    group.play(3, W / 2, W * 8 / 10);
    assert_eq!((group.standing(), group.raft.pace()), (Standing::Level, None));
}

#[test]
fn a_member_that_cannot_keep_up_is_named_and_given_up_and_comes_back_when_it_can() {
    let mut group = Group::new(256 << 20);
    group.play(4, W, 2 * W);
    let least = group.play(4, W, W / 10);
    assert!(least > W * 6 / 10, "the floor held: {least}");
    let (standing, takes, wanted) = group.raft.standing(SLOW).unwrap();
    assert_eq!((standing, group.raft.pace()), (Standing::GivenUp, None));
    assert!((W / 12..W / 6).contains(&takes.unwrap()), "it takes {takes:?}");
    assert!((W * 9 / 10..W * 11 / 10).contains(&wanted.unwrap()), "{wanted:?} are wanted");
    assert!(group.play(2, W, W / 10) > W * 9 / 10, "nobody waits");
    // Less is written than half of what it took.
    group.play(3, W / 40, W / 10);
    assert_eq!(group.standing(), Standing::Arriving);
    group.play(8, W / 40, W * 2);
    assert_eq!(group.standing(), Standing::Level);
}

/// A member that takes nothing any more, and now needs a snapshot.
fn at_its_snapshot() -> Group {
    let mut group = Group::new(1 << 20);
    group.play(4, W, 2 * W);
    group.play(1, W, 0);
    group.raft.set_room(1, 1000 * KIB);
    group.raft.set_kept(Index::NEVER);
    while group.orders.is_empty() {
        // A log beyond its hard limit waits for nobody.
        group.step(10 * W, 0);
    }
    group
}

#[test]
fn a_member_that_takes_no_rows_is_sent_none_until_it_is_tried_again() {
    let mut group = at_its_snapshot();
    group.read_rows();
    group.play(4, W, 0);
    assert_eq!(group.standing(), Standing::GivenUp);
    group.read_rows();
    let (tried, read) = (group.chunks, group.read);
    assert!(tried > 0 && group.raft.wanted() >= group.two, "no log is kept for it");
    group.play(3, W, 0);
    group.read_rows();
    assert_eq!((group.chunks, group.read), (tried, read), "it is sent nothing");
    assert_eq!((group.standing(), group.raft.pace()), (Standing::GivenUp, None));
    // Nothing is written: perhaps because it is needed.
    group.play(1, 0, 0);
    assert_eq!(group.standing(), Standing::Arriving);
    group.read_rows();
    assert!(group.chunks > tried, "it is tried again");
}

#[test]
fn a_stream_that_disturbs_saves_has_fewer_chunks_on_their_way() {
    // How many chunks are on their way after ten were staged.
    let on_their_way = |disturbed: u32| {
        let mut group = at_its_snapshot();
        assert!(group.raft.is_somebody_catching_up());
        (0..disturbed).for_each(|_| group.raft.catch_up_with_less(true));
        let snapshot = EntryId { term: Term(1), index: group.raft.commit() };
        group.read_rows();
        for staged in 1..=10 {
            let cursor = Some(Bytes::from(format!("{staged:08}")));
            group.says(SLOW, Body::ChunkReply { snapshot, cursor, resume: false });
            group.read_rows();
        }
        group.chunks - 10
    };
    assert_eq!([0, 1, 2, 3, 9].map(on_their_way), [8, 4, 2, 1, 1]);
}
