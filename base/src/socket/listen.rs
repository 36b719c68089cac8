//! The port of a server. A Hello says what kind of connection arrives ([`Kind`]); each kind has its
//! own places.
//!
//! A connection counts as a stranger until its Hello was judged, and strangers make room for each
//! other, the oldest first: callers that say nothing, or mean another server, keep nobody out and
//! take nobody's place. The number of open sockets never exceeds the number of places, so callers
//! cannot take the stores' file descriptors (correctness rule 101).

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::admit::{Known, Refusal, admit};
use super::crowd::{Crowd, Kind, Place, Places};
use super::hello::{Answer, Hello, LEVEL, NoHello, Purpose, Welcome};
use super::here::{Guard, Here};
use super::ledger::Bounds;
use super::refusals::{Reason, Refusals};
use super::{FRAME_BYTES_MAX, Stream, owner, read_frame, write_frame};
use crate::clock;

/// Longest text of a refusal; it must fit the frame of the answer.
const REFUSAL_BYTES_MAX: usize = 1024;

/// What happened to connections since the start.
#[derive(Debug, Default)]
pub struct Counters {
    accepted: AtomicU64,
    refusals: Arc<Refusals>,
    malformed: AtomicU64,
    turned_away: AtomicU64,
    crowd: Arc<Crowd>,
}

impl Counters {
    /// Connections whose Hello was accepted.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections refused for any reason (correctness rule 48).
    pub fn refused(&self) -> u64 {
        self.refusals.sum()
    }

    /// The same by reason.
    pub fn refusals(&self) -> &Arc<Refusals> {
        &self.refusals
    }

    /// Connections closed because of invalid bytes (correctness rule 49).
    pub fn malformed(&self) -> u64 {
        self.malformed.load(Ordering::Relaxed)
    }

    /// Connections closed because there were too many, or because no Hello came in time.
    pub fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }

    /// Connections closed to make room for others.
    pub fn made_room(&self) -> u64 {
        self.crowd.made_room()
    }

    /// Bytes that wait on connections: of incomplete frames, of requests in progress, of unread
    /// answers.
    pub fn waiting_bytes(&self) -> usize {
        self.crowd.waiting_bytes()
    }

    /// Connections of a kind that are open, and their limit.
    pub fn places(&self, kind: Kind) -> Places {
        self.crowd.places(kind)
    }

    pub(super) fn count_malformed(&self) {
        count(&self.malformed);
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Bounds of a [`Listener`]. Together they bound the sockets that it opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time for a Hello. Default 3 s.
    pub handshake: Duration,
    /// Connections without a Hello yet. Default 64.
    pub strangers_max: usize,
    /// Connections of clients. Default 512.
    pub clients_max: usize,
    /// Connections on which clients wait for new configurations. Default 64.
    pub watchers_max: usize,
    /// Connections of servers of other groups. Default 64.
    pub groups_max: usize,
    /// Connections of members of the same group. Default 64.
    pub peers_max: usize,
    /// Bytes of a frame. Default [`FRAME_BYTES_MAX`].
    pub frame_bytes_max: usize,
    /// Bytes that the other end of a connection may keep waiting (correctness rule 103); beyond,
    /// its requests are busy. Default 8 MiB.
    pub connection_bytes_max: usize,
    /// Bytes that others may keep waiting on all of them; beyond, some are closed, except the last.
    /// The same limit holds for requests in progress, half of it for one connection; beyond,
    /// requests are busy. Default 48 MiB.
    pub server_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(3),
            strangers_max: 64,
            clients_max: 512,
            watchers_max: 64,
            groups_max: 64,
            peers_max: 64,
            frame_bytes_max: FRAME_BYTES_MAX,
            connection_bytes_max: 8 << 20,
            server_bytes_max: 48 << 20,
        }
    }
}

impl Limits {
    /// Connections of a kind.
    pub fn of(&self, kind: Kind) -> usize {
        match kind {
            Kind::Strangers => self.strangers_max,
            Kind::Clients => self.clients_max,
            Kind::Watchers => self.watchers_max,
            Kind::Groups => self.groups_max,
            Kind::Peers => self.peers_max,
        }
    }

    /// Sockets that are open at once at most.
    pub fn sockets(&self) -> usize {
        Kind::ALL.into_iter().map(|kind| self.of(kind)).sum()
    }
}

/// Why a port cannot be listened on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// The port is in use.
    #[error("{address} is in use by {owner}: stop that, or listen elsewhere")]
    InUse {
        /// The requested address.
        address: String,
        /// The process that uses it, if /proc shows it.
        owner: String,
    },
    /// Anything else.
    #[error("cannot listen on {address}: {why}")]
    Other {
        /// The requested address.
        address: String,
        /// The system's error text.
        why: String,
    },
}

/// A port that is listened on.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
    gate: Arc<Gate>,
}

#[derive(Debug)]
struct Gate {
    limits: Limits,
    crowd: Arc<Crowd>,
    counters: Arc<Counters>,
}

impl Listener {
    /// Listens on `address` (`host:port`; port 0: any free one).
    ///
    /// # Errors
    /// [`BindError`], which names the owner of a busy port where it can.
    pub async fn bind(address: &str, limits: Limits) -> Result<Self, BindError> {
        let other = |error: io::Error| BindError::Other { address: address.into(), why: error.to_string() };
        let tcp = TcpListener::bind(address).await.map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => {
                let port = address.rsplit(':').next().and_then(|port| port.parse().ok());
                let owner = port.and_then(owner::of_port).unwrap_or_else(|| "another process".into());
                BindError::InUse { address: address.into(), owner }
            }
            _ => other(error),
        })?;
        let local = tcp.local_addr().map_err(other)?;
        let bounds = Bounds { connection: limits.connection_bytes_max, server: limits.server_bytes_max };
        let crowd = Crowd::new(|kind| limits.of(kind), bounds);
        let counters = Arc::new(Counters { crowd: Arc::clone(&crowd), ..Counters::default() });
        let gate = Gate { limits, crowd, counters };
        Ok(Self { tcp, address: local, gate: Arc::new(gate) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.gate.counters)
    }

    /// What is refused at its door; its owner counts there, too.
    pub fn refusals(&self) -> Arc<Refusals> {
        Arc::clone(&self.gate.counters.refusals)
    }

    /// Accepts connections and passes each to `handle`, in its own task, once its Hello has
    /// arrived. Dropping this future closes the port and ends all these tasks.
    pub async fn run<F, Fut>(self, handle: F) -> Infallible
    where
        F: Fn(Arrival) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let mut connections = JoinSet::new();
        // A connection that was told to leave keeps its socket for another moment.
        let sockets = Arc::new(Semaphore::new(self.gate.limits.sockets()));
        let accept = async || {
            let socket = Arc::clone(&sockets).acquire_owned().await.map_err(io::Error::other)?;
            self.tcp.accept().await.map(|(tcp, from)| (socket, tcp, from))
        };
        loop {
            tokio::select! {
                biased;
                Some(ended) = connections.join_next(), if !connections.is_empty() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a connection's task failed");
                    }
                }
                accepted = accept() => match accepted {
                    Ok((socket, tcp, from)) => {
                        let Some(place) = self.gate.crowd.enter(Kind::Strangers) else { continue };
                        let (gate, handle) = (Arc::clone(&self.gate), handle.clone());
                        connections.spawn(async move {
                            let _socket = socket;
                            gate.serve(tcp, from, place, handle).await;
                        });
                        // A caller that has sent its Hello is judged before the next one takes a
                        // stranger's place.
                        tokio::task::yield_now().await;
                    }
                    Err(error) => {
                        // Usually no file descriptors are left. Only waiting helps.
                        tracing::warn!(%error, "cannot take a connection");
                        clock::sleep(Duration::from_millis(50)).await;
                    }
                },
            }
        }
    }
}

impl Gate {
    /// Serves a connection until it ends, or has to make room for another one.
    async fn serve<F, Fut>(&self, tcp: TcpStream, from: SocketAddr, place: Place, handle: F)
    where
        F: FnOnce(Arrival) -> Fut,
        Fut: Future<Output = ()>,
    {
        let seat = Arc::clone(place.seat());
        let serving = async move {
            if let Some(arrival) = self.greet(tcp, from, place).await {
                handle(arrival).await;
            }
        };
        tokio::select! {
            biased;
            () = seat.told_to_leave() => {}
            () = serving => {}
        }
    }

    /// Reads the Hello; none if the connection was closed instead.
    async fn greet(&self, mut tcp: TcpStream, from: SocketAddr, place: Place) -> Option<Arrival> {
        tcp.set_nodelay(true).ok()?;
        let frame = match clock::timeout(self.limits.handshake, read_frame(&mut tcp)).await {
            Ok(Ok(frame)) => frame,
            Ok(Err(error)) => {
                if error.kind() == io::ErrorKind::InvalidData {
                    tracing::warn!(%from, "closed: what arrived is no handshake");
                    self.counters.count_malformed();
                }
                return None;
            }
            Err(_) => {
                count(&self.counters.turned_away);
                return None;
            }
        };
        let hello = match Hello::decode(&frame) {
            Ok(hello) => hello,
            Err(no_hello) => {
                tracing::warn!(%from, ?no_hello, "closed: what arrived is no handshake");
                self.counters.count_malformed();
                if let NoHello::Other(why) = no_hello {
                    self.counters.refusals.count(Reason::OtherVersion);
                    let _ = answer(&mut tcp, &Answer::Refused(why)).await;
                }
                return None;
            }
        };
        let stream = Stream::taken(tcp, self.limits.frame_bytes_max, Arc::clone(&self.counters), place);
        Some(Arrival { hello, from, stream })
    }
}

async fn answer(tcp: &mut TcpStream, answer: &Answer) -> io::Result<()> {
    let bytes = answer.encode();
    clock::timeout(Duration::from_secs(1), write_frame(tcp, &bytes))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// A connection whose Hello has arrived and waits for its answer. Dropping it closes it.
#[derive(Debug)]
pub struct Arrival {
    hello: Hello,
    from: SocketAddr,
    stream: Stream,
}

impl Arrival {
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    pub fn from(&self) -> SocketAddr {
        self.from
    }

    /// Lets a client in if it means this server ([`admit()`]); otherwise refuses it, and there is
    /// no stream. A client that names no cluster is told the name, and gets no stream either.
    pub async fn admit(mut self, here: &Here) -> Option<Stream> {
        if self.hello.cluster.is_empty() && self.hello.purpose == Purpose::Client {
            let told = Answer::Cluster { name: here.cluster.clone(), key: here.key.on_wire() };
            let _ = answer(&mut self.stream.tcp, &told).await;
            return None;
        }
        crate::mutant!("refused-callers-take-places", {
            let kind = Kind::of(&self.hello);
            self.stream.place = self.stream.place.take().and_then(|place| place.become_one_of(kind));
        });
        if let Err(refusal) = admit(&self.hello, here, &Known::default()) {
            self.refuse(&refusal).await;
            return None;
        }
        self.welcome(here).await
    }

    /// Lets a caller in that was judged: only now it takes a place of its kind, possibly from
    /// another one.
    pub async fn welcome(mut self, here: &Here) -> Option<Stream> {
        let kind = Kind::of(&self.hello);
        self.stream.place = self.stream.place.and_then(|place| place.become_one_of(kind));
        if self.stream.place.is_none() {
            count(&self.stream.counters.turned_away);
            let busy = Answer::Busy("this server has too many connections".into());
            let _ = answer(&mut self.stream.tcp, &busy).await;
            return None;
        }
        let key = here.key.on_wire();
        let Here { incarnation, boot, founders, .. } = *here;
        let welcome = Answer::Welcome(Welcome { level: LEVEL, key, incarnation, boot, founders });
        answer(&mut self.stream.tcp, &welcome).await.ok()?;
        count(&self.stream.counters.accepted);
        self.stream.guard = Some(Guard { here: here.key.clone(), said: self.hello.key });
        Some(self.stream)
    }

    /// Refuses the caller in words, and counts it.
    pub async fn refuse(mut self, refusal: &Refusal) {
        self.stream.counters.refusals.count(refusal.reason());
        let mut why = refusal.to_string();
        why.truncate(why.floor_char_boundary(REFUSAL_BYTES_MAX));
        tracing::warn!(from = %self.from, hello = ?self.hello, why, "connection refused");
        let _ = answer(&mut self.stream.tcp, &Answer::Refused(why)).await;
    }
}
