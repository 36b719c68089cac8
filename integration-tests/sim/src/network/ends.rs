//! Client ends: which are enabled, one by one, for servers that are cut off, and for partitions.
//!
//! Ends that nobody named are enabled. A *cut* server has no enabled end to or from any of the
//! servers that it was cut from, nor to itself. It keeps that mark until it is connected:
//! connecting another server does not enable their ends. Partitions affect only servers: the ends
//! of clients stay as they are, and so do the marks, as in the labs.
//!
//! Left out on purpose: cuts of clients, which are single ends ([`Network::link`]).

use std::sync::Arc;

use super::{Name, Network, lock};
use crate::record::What;

impl Network {
    /// Enables or disables the client ends between two names, both ways.
    pub fn link(&self, one: &Name, other: &Name, enabled: bool) {
        self.direct(one, other, enabled);
        self.direct(other, one, enabled);
    }

    /// Enables or disables one client end.
    pub fn direct(&self, from: &Name, to: &Name, enabled: bool) {
        let end = (Arc::clone(from), Arc::clone(to));
        let changed = {
            let disabled = &mut lock(&self.state).disabled;
            if enabled { disabled.remove(&end) } else { disabled.insert(end) }
        };
        if changed {
            self.tell(from, to, enabled);
        }
    }

    /// Enables every client end; no server counts as cut off any more.
    pub fn heal(&self) {
        let disabled = {
            let mut state = lock(&self.state);
            state.disconnected.clear();
            std::mem::take(&mut state.disabled)
        };
        disabled.iter().for_each(|(from, to)| self.tell(from, to, true));
    }

    /// Cuts a server off from the servers `among`, itself included.
    pub fn disconnect(&self, name: &Name, among: &[Name]) {
        lock(&self.state).disconnected.insert(Arc::clone(name));
        self.direct(name, name, false);
        for other in among {
            self.link(name, other, false);
        }
    }

    /// Ends a cut: enables the ends to and from those of `among` that are not cut off themselves.
    pub fn connect(&self, name: &Name, among: &[Name]) {
        lock(&self.state).disconnected.remove(name);
        self.direct(name, name, true);
        for other in among.iter().filter(|other| self.is_connected(other)) {
            self.link(name, other, true);
        }
    }

    /// Whether a server is not cut off ([`Self::disconnect`]).
    pub fn is_connected(&self, name: &Name) -> bool {
        !lock(&self.state).disconnected.contains(name)
    }

    /// Disables the ends between two sides and enables those within each.
    pub fn partition(&self, one: &[Name], other: &[Name]) {
        let pairs = |one: &[Name], other: &[Name], enabled| {
            for (from, to) in one.iter().flat_map(|from| other.iter().map(move |to| (from, to))) {
                self.link(from, to, enabled);
            }
        };
        pairs(one, other, false);
        pairs(one, one, true);
        pairs(other, other, true);
    }

    pub(super) fn is_enabled(&self, from: &Name, to: &Name) -> bool {
        let state = lock(&self.state);
        state.disabled.is_empty() || !state.disabled.contains(&(Arc::clone(from), Arc::clone(to)))
    }

    fn tell(&self, from: &Name, to: &Name, up: bool) {
        if from != to {
            let what = || What::Link { from: from.to_string(), to: to.to_string(), up };
            self.world.record(None, None, what);
        }
    }
}

/// The two sides of a partition that leaves `leader` in the minority: first a bare majority without it, those
/// named first in `servers`, then the others with the leader at the end.
pub fn majority_without(leader: &Name, servers: &[Name]) -> (Vec<Name>, Vec<Name>) {
    let mut majority: Vec<Name> = servers.iter().filter(|server| *server != leader).cloned().collect();
    let mut minority = majority.split_off((servers.len() / 2 + 1).min(majority.len()));
    minority.push(Arc::clone(leader));
    (majority, minority)
}
