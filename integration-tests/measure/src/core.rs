//! The Raft core alone: three of them in memory, connected directly, without disk, network or
//! runtime.
//!
//! Each takes its turn as the driver gives it: it steps all messages that arrived, then carries out
//! every [`Ready`] in the required order. A save is durable at once, a message arrives at the
//! receiver's next turn, and applying costs nothing. So this measures the cost of the algorithm
//! itself, on all three servers together, and is an upper bound for everything built around it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use raft::config::Config;
use raft::core::Raft;
use raft::core::message::{Envelope, Message};
use raft::core::ready::{Apply, Ready};
use raft::core::role::Role;
use raft::storage::Restored;
use raft::types::{EntryId, Membership, NodeId, Payload};

const MEMBERS: u64 = 3;
/// Bytes of a command: a put of 256 bytes and its overhead.
const COMMAND_BYTES: usize = 300;

#[derive(Debug)]
pub struct Trio {
    nodes: Vec<Node>,
    leader: usize,
    in_flight: usize,
    command: Bytes,
}

#[derive(Debug)]
struct Node {
    raft: Raft,
    log_bytes_max: usize,
    inbox: Vec<(NodeId, Message)>,
}

impl Trio {
    /// Three servers, one of which leads.
    ///
    /// # Panics
    /// When none does.
    pub fn elected() -> Self {
        let members: Vec<NodeId> = (1..=MEMBERS).map(NodeId).collect();
        let node = |me: &NodeId| {
            let config = Config { seed: me.0, ..Config::default() };
            let log_bytes_max = config.log_bytes_max;
            let membership = Membership::of(members.iter().copied());
            let raft = Raft::new(*me, membership, config, Restored::default(), EntryId::ZERO);
            Node { raft, log_bytes_max, inbox: Vec::new() }
        };
        let command = Bytes::from(vec![b'.'; COMMAND_BYTES]);
        let mut trio = Self { nodes: members.iter().map(node).collect(), leader: 0, in_flight: 0, command };
        for _ in 0..1000 {
            trio.nodes.iter_mut().for_each(|node| node.raft.tick());
            trio.turn();
            let leads = |node: &Node| matches!(node.raft.role(), Role::Leader(_));
            if let Some(leader) = trio.nodes.iter().position(leads) {
                trio.leader = leader;
                trio.turn();
                trio.in_flight = 0;
                return trio;
            }
        }
        panic!("three servers that hear each other elect a leader");
    }

    /// Commits at least `count` commands, with at most `in_flight_max` proposals in flight; returns
    /// how many were committed.
    ///
    /// # Panics
    /// When the leader refuses, or no longer leads.
    pub fn commit(&mut self, count: u64, in_flight_max: usize) -> u64 {
        let mut committed = 0;
        while committed < count {
            let leader = &mut self.nodes[self.leader].raft;
            for _ in self.in_flight..in_flight_max {
                leader.propose(self.command.clone(), false).expect("the leader takes a proposal");
            }
            self.in_flight = self.in_flight.max(in_flight_max);
            let before = self.in_flight;
            self.turn();
            committed += (before - self.in_flight) as u64;
        }
        committed
    }

    /// Every server has its turn.
    fn turn(&mut self) {
        for at in 0..self.nodes.len() {
            let node = &mut self.nodes[at];
            let me = node.raft.me();
            for (from, message) in std::mem::take(&mut node.inbox) {
                node.raft.step(from, message).expect("nothing impossible is said");
            }
            loop {
                let ready = self.nodes[at].raft.take_ready();
                if ready.is_empty() {
                    break;
                }
                self.carry_out(at, me, ready);
            }
            self.nodes[at].maybe_compact();
        }
    }

    fn carry_out(&mut self, at: usize, me: NodeId, ready: Ready) {
        self.deliver(me, ready.appends);
        if ready.save.is_some() {
            self.nodes[at].raft.saved();
        }
        self.deliver(me, ready.send);
        let mut applied_bytes = 0;
        for apply in ready.apply {
            if let Apply::Entry(entry) = apply {
                applied_bytes += entry.weight();
                if at == self.leader && matches!(entry.payload, Payload::Command(_)) {
                    self.in_flight -= 1;
                }
            }
        }
        self.nodes[at].raft.applied_bytes(applied_bytes);
    }

    fn deliver(&mut self, from: NodeId, envelopes: Vec<Envelope>) {
        for Envelope { to, message } in envelopes {
            let node = self.nodes.iter_mut().find(|node| node.raft.me() == to);
            node.expect("a member").inbox.push((from, message));
        }
    }

    /// The committed position of each server.
    pub fn commits(&self) -> BTreeMap<u64, u64> {
        self.nodes.iter().map(|node| (node.raft.me().0, node.raft.commit().0)).collect()
    }
}

impl Node {
    fn maybe_compact(&mut self) {
        if self.raft.log().bytes() > self.log_bytes_max {
            self.raft.compact(self.raft.commit());
        }
    }
}

/// Entries per second that three cores commit with `in_flight` proposals in flight, measured for
/// about `time`.
pub fn entries_per_second(in_flight: usize, time: Duration) -> f64 {
    const PIECE: u64 = 10_000;
    let mut trio = Trio::elected();
    trio.commit(PIECE, in_flight);
    let (start, mut done) = (Instant::now(), 0);
    while start.elapsed() < time {
        done += trio.commit(PIECE, in_flight);
    }
    done as f64 / start.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::Trio;

    #[test]
    fn three_cores_commit_what_is_proposed_and_compact_after_it() {
        let mut trio = Trio::elected();
        let committed = trio.commit(200_000, 256);
        assert!((200_000..200_256).contains(&committed), "{committed}");
        let commits = trio.commits();
        assert_eq!(commits.len(), 3);
        let leader = commits.values().max().copied().unwrap();
        // The entry that opens the term is committed as well.
        assert_eq!(leader, committed + 1);
        assert!(commits.values().all(|commit| leader - commit <= 512), "{commits:?}");
        let bytes = trio.nodes.iter().map(|node| node.raft.log().bytes()).max().unwrap();
        assert!(bytes < 2 * trio.nodes[0].log_bytes_max, "{bytes}");
    }
}
