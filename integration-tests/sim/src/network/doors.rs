//! Who is let in on the simulated network: judged by the product's own functions
//! ([`base::socket::admit`](fn@base::socket::admit)), as on real sockets.
//!
//! A connection is not simulated, so every message that leaves introduces the two sides to each
//! other. A process counts as heard as long as it lives and its end is enabled: real processes send
//! something all the time.
//!
//! Left out on purpose: refusals that travel. A refused caller knows it at once; the delay is that
//! of a failing call.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, Weak};

use base::socket::{
    Hello, Here, Key, Known, Purpose, Refusal, Refusals, Welcome, admit, admit_answer, admit_server,
};
use raft::types::NodeId;

use super::{Name, Network, Server, lock};

/// Returns the key of the cluster, 0 until it is known.
pub type KeyOf = Box<dyn Fn() -> u64 + Send + Sync>;

/// The identity of one life of a server, and what it knows of its peers.
pub struct Identity {
    /// The identity that it is compared by. The key outlives the process.
    pub here: Here,
    /// The members of its group, itself included.
    pub members: BTreeSet<NodeId>,
    /// The incarnation of each peer's data that it met; outlives the process.
    pub met: Arc<Mutex<BTreeMap<NodeId, u64>>>,
    /// Where the key of its cluster comes from.
    pub key_of: Option<KeyOf>,
    pub refusals: Arc<Refusals>,
    /// The processes it heard last.
    heard: Mutex<BTreeMap<NodeId, Heard>>,
}

/// A process that sent something: its boot number, its name on the network, and whether it lives.
type Heard = (u64, Name, Weak<Server>);

impl Identity {
    /// A process that has met nobody.
    pub fn new(here: Here, members: BTreeSet<NodeId>, met: Arc<Mutex<BTreeMap<NodeId, u64>>>) -> Self {
        let (refusals, heard) = (Arc::default(), Mutex::default());
        Self { here, members, met, key_of: None, refusals, heard }
    }

    /// Checks whether the key is known by now.
    fn refresh(&self) {
        if let Some(key_of) = self.key_of.as_ref().filter(|_| self.here.key.get().is_none()) {
            self.here.key.learn(key_of());
        }
    }

    fn welcome(&self) -> Welcome {
        let Here { incarnation, boot, founders, .. } = self.here;
        Welcome { key: self.here.key.on_wire(), incarnation, boot, founders, ..Welcome::default() }
    }

    fn hello(&self, to: NodeId) -> Hello {
        let Here { incarnation, boot, founders, group, node, .. } = self.here;
        Hello {
            cluster: self.here.cluster.clone(),
            key: self.here.key.on_wire(),
            purpose: Purpose::PeerControl,
            group,
            from: node,
            to: to.0,
            incarnation,
            boot,
            founders,
            ..Hello::default()
        }
    }

    /// What it knows of `peer`; `is_open`: whether a process that it heard at a place still lives
    /// and is heard.
    fn known(&self, peer: NodeId, is_open: impl Fn(&Name, &Weak<Server>) -> bool) -> Known {
        let heard = lock(&self.heard).get(&peer).cloned();
        Known {
            is_member: peer.0 != self.here.node && self.members.contains(&peer),
            incarnation: lock(&self.met).get(&peer).copied(),
            boot: heard.filter(|(_, name, server)| is_open(name, server)).map(|(boot, ..)| boot),
        }
    }

    fn meet(&self, peer: NodeId, incarnation: u64) {
        lock(&self.met).entry(peer).or_insert(incarnation);
    }

    fn judged(&self, verdict: Result<(), Refusal>) -> Result<(), String> {
        verdict.map_err(|refusal| {
            self.refusals.count(refusal.reason());
            refusal.to_string()
        })
    }
}

/// The cluster that a caller means.
#[derive(Clone, Debug)]
pub struct Pass {
    pub cluster: String,
    pub key: Key,
    /// Whether the first key that is met is kept; a server has its own.
    pub keeps_key: bool,
}

impl Pass {
    /// That of a client that knows only the name.
    pub fn of(cluster: &str) -> Self {
        Self { cluster: cluster.to_owned(), key: Key::default(), keeps_key: true }
    }

    /// Judges a caller at a server of `group`, and the server's answer.
    ///
    /// # Errors
    /// The refusal of either, in words.
    pub(super) fn enter(&self, server: &Server, group: u64) -> Result<(), String> {
        let Some(identity) = &server.identity else { return Ok(()) };
        identity.refresh();
        let hello =
            Hello { cluster: self.cluster.clone(), key: self.key.on_wire(), group, ..Hello::default() };
        identity.judged(admit(&hello, &identity.here, &Known::default()))?;
        let welcome = identity.welcome();
        admit_server(&self.cluster, &self.key, self.keeps_key, &welcome)
            .map_err(|refusal| refusal.to_string())
    }
}

impl Network {
    /// Introduces two replicas to each other before something is sent.
    ///
    /// # Errors
    /// The refusal of either, in words.
    pub(super) fn introduce(
        &self,
        (from, me, sender): (&Name, NodeId, &Arc<Server>),
        (to, peer, server): (&Name, NodeId, &Arc<Server>),
    ) -> Result<(), String> {
        let (Some(caller), Some(called)) = (&sender.identity, &server.identity) else { return Ok(()) };
        caller.refresh();
        called.refresh();
        let is_heard = |at: &Name| {
            let at = Arc::clone(at);
            move |name: &Name, server: &Weak<Server>| {
                let alive = server.upgrade().is_some_and(|server| self.is_alive(name, &server));
                alive && self.is_enabled(name, &at)
            }
        };
        let hello = caller.hello(peer);
        called.judged(admit(&hello, &called.here, &called.known(me, is_heard(to))))?;
        let welcome = called.welcome();
        caller.judged(admit_answer(&hello, &welcome, &caller.here, &caller.known(peer, is_heard(from))))?;
        caller.meet(peer, welcome.incarnation);
        called.meet(me, hello.incarnation);
        lock(&called.heard).insert(me, (hello.boot, Arc::clone(from), Arc::downgrade(sender)));
        Ok(())
    }

    /// A replica that has started says so to its peers; that is how they know that it runs.
    pub fn greet(&self, from: &Name, peers: &BTreeMap<NodeId, Name>) {
        let Some(sender) = self.attached(from) else { return };
        let Some(me) = sender.identity.as_ref().map(|identity| NodeId(identity.here.node)) else { return };
        for (peer, to) in peers.iter().filter(|(peer, _)| **peer != me) {
            if let Some(server) = self.reach(from, to) {
                let _ = self.introduce((from, me, &sender), (to, *peer, &server));
            }
            if let Some(server) = self.attached(to).filter(|_| self.is_enabled(to, from)) {
                let _ = self.introduce((to, *peer, &server), (from, me, &sender));
            }
        }
    }
}
