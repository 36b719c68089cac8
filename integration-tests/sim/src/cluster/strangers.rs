//! The identity of a node, and servers that are not what they seem: empty ones in a node's place,
//! and copies.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use base::socket::Key;
use raft::types::{EntryId, NodeId};
use raft_disk::directory;

use super::{Cluster, Kind, Node};
use crate::disk::Disk;
use crate::{Name, World, lock};

/// What a node's data directory holds besides its stores.
#[derive(Clone)]
pub(super) struct Passport {
    pub(super) cluster: String,
    pub(super) group: u64,
    pub(super) incarnation: u64,
    pub(super) founders: u64,
    /// Of the cluster, once the group knows it.
    pub(super) key: Key,
    /// The incarnations of its peers' data.
    pub(super) met: Arc<Mutex<BTreeMap<NodeId, u64>>>,
}

impl Passport {
    /// That of a new directory.
    pub(super) fn new(
        world: &World,
        cluster: &str,
        kind: &Kind,
        name: &str,
        id: NodeId,
        peers: &BTreeMap<NodeId, Name>,
    ) -> Self {
        let group = match kind {
            Kind::Ctrl => 0,
            Kind::Kv(group) => group.0,
            Kind::Toy | Kind::Bare(_) => 1,
        };
        let members = peers.keys().copied().collect();
        let identity = directory::Identity { cluster: cluster.to_owned(), group, node: id, members };
        Self {
            cluster: cluster.to_owned(),
            group,
            incarnation: world.derive(&format!("incarnation of {name}")),
            founders: identity.founders(),
            key: Key::default(),
            met: Arc::default(),
        }
    }
}

impl Cluster {
    /// Kills a node and starts a server with an empty disk in its place, as with `--new`, with
    /// `more` members in addition to those that the group was founded with.
    pub fn impersonate(&self, name: &Name, more: u64) -> Name {
        self.crash(name);
        let mut nodes = lock(&self.nodes);
        let Some(node) = nodes.remove(name) else { return Arc::clone(name) };
        let mut peers = node.peers.clone();
        let last = peers.keys().last().map_or(0, |id| id.0);
        peers.extend((last + 1..=last + more).map(|id| (NodeId(id), format!("nobody.{id}").into())));
        // A new stranger each time.
        let unique = format!("{name} instead of life {}", node.life);
        let stranger = Node {
            passport: Passport::new(&self.world, &self.name, &node.kind, &unique, node.id, &peers),
            kind: node.kind.clone(),
            config: node.config.clone(),
            id: node.id,
            peers,
            disk: Disk::new(&self.world, name, self.shape.disks),
            life: node.life,
            floor: EntryId::ZERO,
            starting: None,
            running: None,
        };
        nodes.insert(Arc::clone(name), stranger);
        lock(&self.aside).insert(Arc::clone(name), node);
        drop(nodes);
        self.start(name);
        Arc::clone(name)
    }

    /// Kills the stranger in a node's place, and starts the node again.
    pub fn unmask(&self, name: &Name) {
        self.crash(name);
        if let Some(node) = lock(&self.aside).remove(name) {
            let mut nodes = lock(&self.nodes);
            let life = nodes.get(name).map_or(node.life, |stranger| stranger.life);
            nodes.insert(Arc::clone(name), Node { life, ..node });
        }
        self.start(name);
    }

    /// Starts another process with a copy of a node's disk, under a separate name that only it
    /// knows.
    pub fn add_twin(&self, of: &Name) -> Option<Name> {
        let name: Name = format!("{of}x").into();
        let mut nodes = lock(&self.nodes);
        let node = nodes.get(of)?;
        let mut peers = node.peers.clone();
        peers.insert(node.id, Arc::clone(&name));
        let key = Key::new(node.passport.key.get());
        let met = Arc::new(Mutex::new(lock(&node.passport.met).clone()));
        let twin = Node {
            passport: Passport { key, met, ..node.passport.clone() },
            kind: node.kind.clone(),
            config: node.config.clone(),
            id: node.id,
            peers,
            disk: node.disk.copied(&name),
            life: 0,
            floor: EntryId::ZERO,
            starting: None,
            running: None,
        };
        nodes.insert(Arc::clone(&name), twin);
        drop(nodes);
        self.start(&name);
        Some(name)
    }
}
