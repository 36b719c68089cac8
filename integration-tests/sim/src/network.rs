//! The labs' network, number for number.
//!
//! A *client end* is an ordered pair (from, to). Each is enabled or disabled separately (`ends`:
//! also cut servers and partitions). A call whose end is disabled, or whose server is dead or
//! unknown, fails after 0 to 99 ms, with *long delays* after 0 to 6,999 ms; this is decided when
//! the call starts. Otherwise, while the network is *reliable*, it takes 0.2 to 0.5 ms each way.
//! While it is *unreliable*: 0 to 26 ms more before the handler, one request in ten lost (which the
//! caller learns at once), one reply in ten lost. With *long reordering*, two in three of the
//! replies that are not lost come 200 to 2,199 ms later, usually little more than 200. While the
//! handler runs, every 100 ms, and after it, the end and the server are checked again: a server
//! that died or was cut off delivers no late reply. A call lasts as long as its handler; only
//! callers have deadlines.
//!
//! Raft's messages are one-way. A Raft request (for a vote, an Append, a chunk) is treated as the
//! first half of a call. The message that answers it is treated as a reply, and its end is checked
//! again when it arrives. A lost message is not reported. A message into a cut or to a dead server
//! is reported as unreachable after the delay of a failing call.
//!
//! *Chaos*, which the labs do not have: lost messages arrive after all, and duplicated ones too, up
//! to a second late. One copy of a duplicated request may be refused and the other one executed,
//! which no caller can know (over TCP, where nothing arrives twice, a refusal is final). So the
//! network remembers whose requests it duplicated ([`Network::doubled`]), and a recorder of
//! histories asks it.
//!
//! Counted are requests that were tried ([`Network::rpcs`]), of clients and of Raft, whether or not
//! they could arrive; their bytes, and those of replies and answers that arrived
//! ([`Network::bytes`]); and for each life of a server the requests that it got
//! ([`Network::served`]).
//!
//! All messages are encoded and decoded by the production codec: nothing is shared. In a recorded
//! run every message is recorded twice: when it leaves, with its fate, and when it arrives
//! (`words`).
//!
//! `ways`: how replicas and clients use the network. `doors`: who is let in.
//!
//! Left out on purpose: the labs' ends that wait to be enabled (ours are enabled until somebody
//! disables them), and the network that is destroyed during calls (a run ends as a whole).

mod doors;
mod ends;
mod server;
mod ways;
mod weather;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::{clock, codec};
use bytes::Bytes;
use clerk::connection::CallError;
use raft::core::message::{Body, Message};
use raft::types::{NodeId, Term};
use tokio::sync::oneshot;

pub use doors::{Identity, KeyOf, Pass};
pub use ends::majority_without;
pub use server::{Handler, Reply, Request, Server};
pub use ways::{Calls, PeerTransport};
use weather::Fate;
pub use weather::Weather;

use super::{Generator, Label, Name, World, lock};
use crate::record::What;

/// Frames are limited as in production.
const FRAME_BYTES_MAX: usize = 64 << 20;
/// How often a running call checks whether its server still exists.
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Default)]
struct State {
    servers: BTreeMap<Name, Arc<Server>>,
    disabled: BTreeSet<(Name, Name)>,
    disconnected: BTreeSet<Name>,
    weather: Weather,
    links: BTreeMap<(Name, Name), Generator>,
    rpcs: u64,
    bytes: u64,
    doubled: BTreeMap<Name, u64>,
    /// Each server's last vote.
    votes: BTreeMap<Name, (Term, NodeId)>,
}

/// The network. Clones share it.
#[derive(Clone)]
pub struct Network {
    world: World,
    state: Arc<Mutex<State>>,
}

/// A Raft message in flight to one life of a server.
#[derive(Clone)]
struct Letter {
    from: Name,
    sender: NodeId,
    to: Name,
    server: Arc<Server>,
    is_answer: bool,
    bytes: Bytes,
}

impl Network {
    /// A network without servers.
    pub fn new(world: &World) -> Self {
        Self { world: world.clone(), state: Arc::default() }
    }

    /// Puts a server on the network, replacing any server of its name.
    pub fn attach(&self, name: &Name, server: Arc<Server>) {
        lock(&self.state).servers.insert(Arc::clone(name), server);
    }

    /// Takes a server off the network; from then on it can neither be reached nor send.
    pub fn detach(&self, name: &Name) -> Option<Arc<Server>> {
        lock(&self.state).servers.remove(name)
    }

    /// Changes the weather.
    pub fn set_weather(&self, weather: Weather) {
        lock(&self.state).weather = weather;
        self.world.record(None, None, || What::Weather { text: weather.to_string() });
    }

    pub fn weather(&self) -> Weather {
        lock(&self.state).weather
    }

    /// Requests that were tried, including those into cuts and to dead servers: calls of clients
    /// and of servers, and Raft's requests. Raft's answers and duplicated messages do not count.
    pub fn rpcs(&self) -> u64 {
        lock(&self.state).rpcs
    }

    /// Bytes of those requests, and of the replies and answers that arrived.
    pub fn bytes(&self) -> u64 {
        lock(&self.state).bytes
    }

    /// The number of a caller's requests that were duplicated so far.
    pub fn doubled(&self, from: &Name) -> u64 {
        lock(&self.state).doubled.get(from).copied().unwrap_or_default()
    }

    /// Requests that the present life of a server got; 0 if it is not on the network.
    pub fn served(&self, name: &Name) -> u64 {
        self.attached(name).map_or(0, |server| server.served())
    }

    fn count_request(&self, bytes: &Bytes) {
        let mut state = lock(&self.state);
        state.rpcs += 1;
        state.bytes += bytes.len() as u64;
    }

    fn count_reply(&self, bytes: &Bytes) {
        lock(&self.state).bytes += bytes.len() as u64;
    }

    fn attached(&self, name: &Name) -> Option<Arc<Server>> {
        lock(&self.state).servers.get(name).cloned()
    }

    /// Whether that life of the server still exists.
    fn is_alive(&self, name: &Name, server: &Arc<Server>) -> bool {
        lock(&self.state).servers.get(name).is_some_and(|now| Arc::ptr_eq(now, server))
    }

    /// The server, if a message can leave for it now.
    fn reach(&self, from: &Name, to: &Name) -> Option<Arc<Server>> {
        self.is_enabled(from, to).then(|| self.attached(to)).flatten()
    }

    /// Whether that life of the server still exists and the end is still enabled.
    fn still(&self, from: &Name, to: &Name, server: &Arc<Server>) -> bool {
        self.reach(from, to).is_some_and(|now| Arc::ptr_eq(&now, server))
    }

    fn draw<T>(&self, from: &Name, to: &Name, draw: impl FnOnce(&mut Generator, Weather) -> T) -> T {
        let mut state = lock(&self.state);
        let weather = state.weather;
        let world = &self.world;
        let link = state
            .links
            .entry((Arc::clone(from), Arc::clone(to)))
            .or_insert_with(|| world.generator(&format!("link {from} -> {to}")));
        draw(link, weather)
    }

    fn fate(&self, from: &Name, to: &Name, is_request: bool) -> Fate {
        self.draw(from, to, |random, weather| weather.fate(random, is_request))
    }

    fn unreachable_delay(&self, from: &Name, to: &Name) -> Duration {
        self.draw(from, to, |random, weather| weather.unreachable_delay(random))
    }

    fn sent(&self, from: &Name, to: &Name, what: &impl words::Said, fate: Option<&str>) {
        self.world.record(Some(from), what.term(), || What::Sent {
            kind: what.kind().to_owned(),
            to: to.to_string(),
            text: what.text(),
            fate: fate.map(str::to_owned),
        });
    }

    fn arrived(&self, from: &Name, to: &Name, what: &impl words::Said) {
        self.world.record(Some(to), what.term(), || What::Arrived {
            kind: what.kind().to_owned(),
            from: from.to_string(),
            text: what.text(),
        });
    }

    /// A call, step by step as in the labs.
    async fn call(
        &self,
        from: &Name,
        pass: Option<&Pass>,
        to: &Name,
        request: &Request,
    ) -> Result<Reply, CallError> {
        let label = |kind| Label { kind, from: Arc::clone(from), at: Arc::clone(to) };
        let lost = |why: String| CallError::Lost { address: to.to_string(), why };
        let bytes = codec::wire::encode(request);
        self.count_request(&bytes);
        let Some(server) = self.reach(from, to) else {
            self.sent(from, to, request, Some("unreachable"));
            self.world.pause(self.unreachable_delay(from, to), label("call fails")).await;
            return Err(CallError::NotSent { address: to.to_string(), why: "unreachable".to_owned() });
        };
        let fate = self.fate(from, to, true);
        self.sent(from, to, request, fate.word());
        self.travel(fate.delay, label("request"), bytes.clone()).await;
        if fate.lost {
            return Err(lost("request lost".to_owned()));
        }
        if !self.is_alive(to, &server) {
            return Err(lost("server died".to_owned()));
        }
        if let Some(Err(why)) = pass.map(|pass| pass.enter(&server, request.group())) {
            let refused = Reply::Refused(why);
            return self.carry_back(from, to, &refused).await.map_err(lost);
        }
        let answer = self.dispatch(from, to, &server, &bytes).map_err(lost)?;
        if let Some(late) = fate.again.filter(|_| self.weather().chaos_requests) {
            let (network, from, to) = (self.clone(), Arc::clone(from), Arc::clone(to));
            let (pass, group) = (pass.cloned(), request.group());
            *lock(&self.state).doubled.entry(Arc::clone(&from)).or_default() += 1;
            self.world.after(late, label("request again"), bytes.clone(), move || {
                let lets_in = |server: &Server| pass.is_none_or(|pass| pass.enter(server, group).is_ok());
                if let Some(server) = network.reach(&from, &to).filter(|server| lets_in(server)) {
                    let _ = network.dispatch(&from, &to, &server, &bytes);
                }
            });
        }
        let reply = self.handled(from, to, &server, answer).await.map_err(lost)?;
        self.carry_back(from, to, &reply).await.map_err(lost)
    }

    /// Waits for the handler, and regularly checks whether that still makes sense.
    async fn handled(
        &self,
        from: &Name,
        to: &Name,
        server: &Arc<Server>,
        mut answer: oneshot::Receiver<Reply>,
    ) -> Result<Reply, String> {
        let reply = loop {
            tokio::select! {
                biased;
                reply = &mut answer => break reply.map_err(|_| "server died".to_owned())?,
                () = clock::sleep(LOOK_EVERY) => {}
            }
            if !self.still(from, to, server) {
                return Err("cut off".to_owned());
            }
        };
        if !self.still(from, to, server) {
            self.sent(to, from, &reply, Some("unreachable"));
            return Err("cut off".to_owned());
        }
        Ok(reply)
    }

    async fn carry_back(&self, from: &Name, to: &Name, reply: &Reply) -> Result<Reply, String> {
        let fate = self.fate(to, from, false);
        let bytes = codec::wire::encode(reply);
        self.sent(to, from, reply, fate.word());
        let label = Label { kind: "reply", from: Arc::clone(to), at: Arc::clone(from) };
        self.travel(fate.delay, label, bytes.clone()).await;
        if fate.lost {
            return Err("reply lost".to_owned());
        }
        self.count_reply(&bytes);
        let reply = codec::wire::decode(&bytes, FRAME_BYTES_MAX).map_err(|error| error.to_string())?;
        self.arrived(to, from, &reply);
        Ok(reply)
    }

    async fn travel(&self, delay: Duration, label: Label, bytes: Bytes) {
        let (arrived, arrival) = oneshot::channel();
        self.world.after(delay, label, bytes, move || {
            let _ = arrived.send(());
        });
        let _ = arrival.await;
    }

    /// Gives a request to a server.
    fn dispatch(
        &self,
        from: &Name,
        to: &Name,
        server: &Server,
        bytes: &Bytes,
    ) -> Result<oneshot::Receiver<Reply>, String> {
        let request = codec::wire::decode(bytes, FRAME_BYTES_MAX).map_err(|error| error.to_string())?;
        self.arrived(from, to, &request);
        let (sender, receiver) = oneshot::channel();
        server.serve(request, sender);
        Ok(receiver)
    }

    /// One vote in a term (correctness rule 1): a later life of the server knows what an earlier
    /// one promised.
    fn note_vote(&self, from: &Name, peer: NodeId, message: &Message) {
        if !matches!(message.body, Body::VoteReply { granted: true }) {
            return;
        }
        let before = lock(&self.state).votes.insert(Arc::clone(from), (message.term, peer));
        if let Some((term, other)) = before.filter(|(term, other)| *term == message.term && *other != peer) {
            self.world
                .fail(format!("one vote in a term: {from} voted for {other} and {peer} in term {term}"));
        }
    }

    /// The server now has another disk, older or empty: it does not know its last vote.
    pub fn forget_vote(&self, name: &Name) {
        lock(&self.state).votes.remove(name);
    }

    /// Sends a message of Raft.
    fn post(&self, from: &Name, me: NodeId, to: &Name, peer: NodeId, message: &Message) {
        let label = |kind| Label { kind, from: Arc::clone(from), at: Arc::clone(to) };
        // The last messages of a server that was just cut off are not even tried.
        let Some(sender) = self.attached(from) else { return };
        self.note_vote(from, peer, message);
        let is_answer = is_answer(&message.body);
        let bytes = codec::wire::encode(message);
        if !is_answer {
            self.count_request(&bytes);
        }
        let server = self.reach(from, to);
        let fits = |server: &Arc<Server>| self.introduce((from, me, &sender), (to, peer, server)).is_ok();
        let Some(server) = server.filter(fits) else {
            self.sent(from, to, message, Some("unreachable"));
            let Some(inbox) = sender.inbox.clone() else { return };
            let delay = self.unreachable_delay(from, to);
            self.world.after(delay, label("unreachable"), Bytes::new(), move || inbox.unreachable(peer));
            return;
        };
        let fate = self.fate(from, to, !is_answer);
        self.sent(from, to, message, fate.word());
        if fate.lost {
            return;
        }
        let (from, to) = (Arc::clone(from), Arc::clone(to));
        let letter = Letter { from, sender: me, to, server, is_answer, bytes };
        let arrivals = std::iter::once(fate.delay).chain(fate.again.map(|late| fate.delay + late));
        for delay in arrivals {
            let (network, letter) = (self.clone(), letter.clone());
            let (label, bytes) = (label(words::kind_of(&message.body)), letter.bytes.clone());
            self.world.after(delay, label, bytes, move || network.deliver(&letter));
        }
    }

    fn deliver(&self, letter: &Letter) {
        let Letter { from, sender, to, server, is_answer, bytes } = letter;
        if !self.is_alive(to, server) || (*is_answer && !self.is_enabled(from, to)) {
            return;
        }
        let Ok(message) = codec::wire::decode::<Message>(bytes, FRAME_BYTES_MAX) else { return };
        if *is_answer {
            self.count_reply(bytes);
        }
        self.arrived(from, to, &message);
        server.take(*sender, message, *is_answer);
    }
}

/// Whether a message of Raft is the second half of an exchange.
fn is_answer(body: &Body) -> bool {
    matches!(
        body,
        Body::PreVoteReply { .. }
            | Body::VoteReply { .. }
            | Body::AppendReply { .. }
            | Body::ChunkReply { .. }
    )
}

#[cfg(test)]
mod tests;
