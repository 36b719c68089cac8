//! Disks that lose stored data.

use std::sync::atomic::Ordering;
use std::time::Duration;

use base::clock;
use rand::RngExt;

use super::{Nemesis, group_of};
use crate::{Generator, Name};

/// Every earlier fault has ended after this time, so an existing leader stays.
const QUIET: Duration = Duration::from_millis(3300);
/// A server runs at most this long before it is set back to its older state.
const AHEAD_MAX: Duration = Duration::from_millis(900);
/// A living leader has spoken to a server within this time.
const HEARD_WITHIN: Duration = Duration::from_secs(2);

impl Nemesis {
    /// Crashes a server and removes saves from its log: usually few, sometimes as many as possible.
    pub(super) fn damage_tail(&self, name: &Name, random: &mut Generator) {
        let saves =
            if random.random_bool(0.2) { random.random_range(1..65) } else { random.random_range(1..5) };
        self.crash(name, random);
        if self.cluster.damage(name, saves) {
            self.counts.damaged.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A server comes back with an older disk. Its leader has heard from it since, in its own term.
    /// The leader is not disturbed until it has told the server: without such a leader nobody can
    /// see a loss that left no trace.
    pub(super) async fn set_back(&self, any: &Name, random: &mut Generator) {
        clock::sleep(QUIET).await;
        let group = group_of(any);
        let leads =
            || self.cluster.leader(&group).map(|leader| (leader.name, leader.probe.status.borrow().term));
        let Some((leader, term)) = leads().filter(|_| !self.is_over()) else { return };
        let others =
            self.cluster.names().into_iter().filter(|name| group_of(name) == group && *name != leader);
        let up: Vec<Name> = others.filter(|name| self.cluster.is_up(name)).collect();
        if up.is_empty() {
            return;
        }
        let name = &up[random.random_range(0..up.len())];
        let Some(past) = self.cluster.past(name) else { return };
        clock::sleep(AHEAD_MAX.mul_f64(random.random())).await;
        if leads() != Some((leader.clone(), term)) || self.is_over() {
            return;
        }
        self.cluster.set_back(name, past);
        self.counts.crashes.fetch_add(1, Ordering::Relaxed);
        self.counts.set_back.fetch_add(1, Ordering::Relaxed);
        clock::sleep(Duration::from_millis(random.random_range(0..200))).await;
        self.cluster.start(name);
        let start = clock::now();
        while start.elapsed() < HEARD_WITHIN && !self.hears(name) {
            clock::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Whether a node runs and follows a leader.
    fn hears(&self, name: &Name) -> bool {
        let seen = self.cluster.seen().into_iter().find(|seen| seen.name == *name);
        seen.is_some_and(|seen| seen.probe.status.borrow().leader.is_some())
    }
}
