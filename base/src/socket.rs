//! Every socket of the system is made here: one `dial`, one `listen`.
//!
//! A server has one TCP port. The first frame of a connection is a [`Hello`]: which cluster and group
//! the caller means, who calls whom, and for which [`Service`]. The server looks at it once
//! (correctness rule 48, [`admit()`]) and answers [`Welcome`] or a refusal in words. Until then a caller may send
//! 4 KiB and take three seconds, so strangers cost nearly nothing. After that both sides speak tarpc:
//! frames with a four-byte length and a checksum in front and an explicit limit ([`wire`]).
//!
//! Whatever arrives that is not this (garbage, a frame above the limit, another format) closes its
//! connection and is counted in [`Counters`]; nothing of it reaches a handler (correctness rule 49).
//!
//! Left out on purpose: encryption and authentication (they come between [`Stream`] and TCP), a bound on
//! the bytes of all frames of a connection together, compression.

mod admit;
mod hello;
mod here;
mod owner;
mod refusals;
pub mod wire;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

pub use admit::{Known, Refusal, admit, admit_answer, admit_server};
pub use hello::{Hello, LEVEL, Service, Welcome};
pub use here::{Here, Key};
pub use refusals::{Reason, Refusals};

use crate::clock;
use hello::{Answer, NoHello};
use here::Guard;

/// Bytes of one frame after the handshake, unless told otherwise: a value of the largest size a cluster
/// may allow (32 MiB), twice, with room around it.
pub const FRAME_BYTES_MAX: usize = 72 << 20;

/// Bytes of a frame of the handshake.
const HELLO_BYTES_MAX: usize = 4096;

/// Longest text of a refusal; it must fit the frame of the answer.
const REFUSAL_BYTES_MAX: usize = 1024;

/// Why there is no connection. In every case nothing was asked of the server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// Nobody answered in time, or the connection broke.
    #[error("{0}")]
    Unreachable(String),
    /// The server has as many connections as it takes; try again later.
    #[error("{0}")]
    Busy(String),
    /// The server is not the one meant, or speaks another format; trying again changes nothing.
    #[error("{0}")]
    Refused(String),
}

/// Connects to `address` and says `hello`, all within `limit`.
///
/// # Errors
/// [`DialError`].
pub async fn dial(address: &str, hello: &Hello, limit: Duration) -> Result<(Stream, Welcome), DialError> {
    let unreachable = |error: io::Error| DialError::Unreachable(error.to_string());
    let greeting = async {
        let mut tcp = connect(address).await.map_err(unreachable)?;
        match exchange(&mut tcp, hello).await? {
            Answer::Welcome(welcome) => Ok((Stream::dialed(tcp), welcome)),
            Answer::Busy(why) => Err(DialError::Busy(why)),
            Answer::Refused(why) => Err(DialError::Refused(why)),
            Answer::Cluster { name, .. } => Err(DialError::Refused(format!("this is cluster {name:?}"))),
        }
    };
    clock::timeout(limit, greeting)
        .await
        .unwrap_or_else(|_| Err(DialError::Unreachable(format!("no answer within {} ms", limit.as_millis()))))
}

/// The name and the key (0: not known yet) of the cluster that the server at `address` belongs to, for people who know
/// only where it is.
///
/// # Errors
/// [`DialError`].
pub async fn cluster_of(address: &str, limit: Duration) -> Result<(String, u64), DialError> {
    let unreachable = |error: io::Error| DialError::Unreachable(error.to_string());
    let asking = async {
        let mut tcp = connect(address).await.map_err(unreachable)?;
        match exchange(&mut tcp, &Hello::default()).await? {
            Answer::Cluster { name, key } => Ok((name, key)),
            Answer::Busy(why) => Err(DialError::Busy(why)),
            Answer::Refused(why) => Err(DialError::Refused(why)),
            Answer::Welcome(_) => Err(DialError::Refused("a server without a cluster".into())),
        }
    };
    let late = |_| Err(DialError::Unreachable(format!("no answer within {} ms", limit.as_millis())));
    clock::timeout(limit, asking).await.unwrap_or_else(late)
}

async fn connect(address: &str) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect(address).await?;
    // A caller whose own port happens to be the one it calls is connected to itself, and would
    // keep the server from getting its port back.
    if tcp.local_addr()? == tcp.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

/// Says `hello` and hears the answer.
async fn exchange(tcp: &mut TcpStream, hello: &Hello) -> Result<Answer, DialError> {
    let unreachable = |error: io::Error| DialError::Unreachable(error.to_string());
    write_frame(tcp, &hello.encode()).await.map_err(unreachable)?;
    match read_frame(tcp).await {
        Ok(frame) => Answer::decode(&frame),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(DialError::Refused(format!("what answers there is no server of this build: {error}")))
        }
        Err(error) => Err(unreachable(error)),
    }
}

/// Bytes of the checksum in front of each frame's body.
const SUM_BYTES: usize = 4;

async fn write_frame(tcp: &mut TcpStream, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(SUM_BYTES + body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut frame = Vec::with_capacity(4 + SUM_BYTES + body.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&crc32fast::hash(body).to_be_bytes());
    frame.extend_from_slice(body);
    tcp.write_all(&frame).await
}

async fn read_frame(tcp: &mut TcpStream) -> io::Result<Vec<u8>> {
    let invalid = |text| Err(io::Error::new(io::ErrorKind::InvalidData, text));
    let length = tcp.read_u32().await? as usize;
    if !(SUM_BYTES..=HELLO_BYTES_MAX).contains(&length) {
        return invalid("not a frame of a handshake");
    }
    let sum = tcp.read_u32().await?;
    let mut body = vec![0; length - SUM_BYTES];
    tcp.read_exact(&mut body).await?;
    if sum != crc32fast::hash(&body) {
        return invalid("the checksum of a frame of the handshake is wrong");
    }
    Ok(body)
}

/// What happened to connections since the start.
#[derive(Debug, Default)]
pub struct Counters {
    accepted: AtomicU64,
    refusals: Arc<Refusals>,
    malformed: AtomicU64,
    turned_away: AtomicU64,
}

impl Counters {
    /// Connections whose Hello was taken.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections refused for any reason (correctness rule 48).
    pub fn refused(&self) -> u64 {
        self.refusals.sum()
    }

    /// The same by reason.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Connections closed because of bytes that make no sense here (correctness rule 49).
    pub fn malformed(&self) -> u64 {
        self.malformed.load(Ordering::Relaxed)
    }

    /// Connections closed because there were too many, or because no Hello came in time.
    pub fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Bounds of a [`Listener`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time for a Hello. Default 3 s.
    pub handshake: Duration,
    /// Connections without a Hello yet. Default 64.
    pub handshakes_max: usize,
    /// Connections of clients and other groups. Default 512, so that with the stores' own files the
    /// usual limit of 1,024 open files is enough.
    pub clients_max: usize,
    /// Connections of peers, which clients thus cannot crowd out. Default 64.
    pub peers_max: usize,
    /// Bytes of a frame. Default [`FRAME_BYTES_MAX`].
    pub frame_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(3),
            handshakes_max: 64,
            clients_max: 512,
            peers_max: 64,
            frame_bytes_max: FRAME_BYTES_MAX,
        }
    }
}

/// Why a port cannot be listened on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// Somebody listens there already.
    #[error("{address} is in use by {owner}: stop that, or listen elsewhere")]
    InUse {
        /// The address asked for.
        address: String,
        /// Who has it, as far as /proc tells.
        owner: String,
    },
    /// Anything else.
    #[error("cannot listen on {address}: {why}")]
    Other {
        /// The address asked for.
        address: String,
        /// The system's words.
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
    handshakes: Arc<Semaphore>,
    clients: Arc<Semaphore>,
    peers: Arc<Semaphore>,
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
        let permits = |max: usize| Arc::new(Semaphore::new(max));
        let gate = Gate {
            limits,
            handshakes: permits(limits.handshakes_max),
            clients: permits(limits.clients_max),
            peers: permits(limits.peers_max),
            counters: Arc::default(),
        };
        Ok(Self { tcp, address: local, gate: Arc::new(gate) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What happened to its connections.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.gate.counters)
    }

    /// What is refused at its door; its owner counts there, too.
    pub fn refusals(&self) -> Arc<Refusals> {
        Arc::clone(&self.gate.counters.refusals)
    }

    /// Takes connections and gives each to `handle`, in a task of its own, once its Hello is there.
    /// Dropping this future closes the port and ends every one of those tasks.
    pub async fn run<F, Fut>(self, handle: F) -> Infallible
    where
        F: Fn(Arrival) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                Some(ended) = connections.join_next(), if !connections.is_empty() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a connection's task failed");
                    }
                }
                accepted = self.tcp.accept() => match accepted {
                    Ok((tcp, from)) => {
                        let (gate, handle) = (Arc::clone(&self.gate), handle.clone());
                        connections.spawn(async move {
                            if let Some(arrival) = gate.greet(tcp, from).await {
                                handle(arrival).await;
                            }
                        });
                    }
                    Err(error) => {
                        // Mostly: no file descriptors left. Waiting is all that helps.
                        tracing::warn!(%error, "cannot take a connection");
                        clock::sleep(Duration::from_millis(50)).await;
                    }
                },
            }
        }
    }
}

impl Gate {
    /// Reads the Hello; none if the connection was closed instead.
    async fn greet(self: Arc<Self>, mut tcp: TcpStream, from: SocketAddr) -> Option<Arrival> {
        let Ok(_handshake) = Arc::clone(&self.handshakes).try_acquire_owned() else {
            count(&self.counters.turned_away);
            return None;
        };
        tcp.set_nodelay(true).ok()?;
        let frame = match clock::timeout(self.limits.handshake, read_frame(&mut tcp)).await {
            Ok(Ok(frame)) => frame,
            Ok(Err(error)) => {
                if error.kind() == io::ErrorKind::InvalidData {
                    tracing::warn!(%from, "closed: what arrived is no handshake");
                    count(&self.counters.malformed);
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
                count(&self.counters.malformed);
                if let NoHello::Other(why) = no_hello {
                    self.counters.refusals.count(Reason::OtherVersion);
                    let _ = answer(&mut tcp, &Answer::Refused(why)).await;
                }
                return None;
            }
        };
        let permits = if hello.service == Service::Client { &self.clients } else { &self.peers };
        let Ok(permit) = Arc::clone(permits).try_acquire_owned() else {
            count(&self.counters.turned_away);
            let _ = answer(&mut tcp, &Answer::Busy("this server has too many connections".into())).await;
            return None;
        };
        let stream = Stream {
            tcp,
            frame_bytes_max: self.limits.frame_bytes_max,
            counters: Arc::clone(&self.counters),
            guard: None,
            _permit: Some(permit),
        };
        Some(Arrival { hello, from, stream })
    }
}

async fn answer(tcp: &mut TcpStream, answer: &Answer) -> io::Result<()> {
    let bytes = answer.encode();
    clock::timeout(Duration::from_secs(1), write_frame(tcp, &bytes))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// A connection whose Hello is there and waits for its answer. Dropped, it is closed.
#[derive(Debug)]
pub struct Arrival {
    hello: Hello,
    from: SocketAddr,
    stream: Stream,
}

impl Arrival {
    /// What the caller said.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Where the caller is.
    pub fn from(&self) -> SocketAddr {
        self.from
    }

    /// Lets a client in if it means this server ([`admit()`]); else refuses, and there is no stream.
    /// A client that names no cluster is told the name, and gets no stream either.
    pub async fn admit(mut self, here: &Here) -> Option<Stream> {
        if self.hello.cluster.is_empty() && self.hello.service == Service::Client {
            let told = Answer::Cluster { name: here.cluster.clone(), key: here.key.get() };
            let _ = answer(&mut self.stream.tcp, &told).await;
            return None;
        }
        if let Err(refusal) = admit(&self.hello, here, &Known::default()) {
            self.refuse(&refusal).await;
            return None;
        }
        self.welcome(here).await
    }

    /// Lets a caller in that was judged.
    pub async fn welcome(mut self, here: &Here) -> Option<Stream> {
        let key = here.key.get();
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

/// A connection after its handshake. It becomes a transport for tarpc in [`wire`].
#[derive(Debug)]
pub struct Stream {
    tcp: TcpStream,
    frame_bytes_max: usize,
    counters: Arc<Counters>,
    /// Of a caller's connection.
    guard: Option<Guard>,
    /// Given back when the connection ends.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Stream {
    fn dialed(tcp: TcpStream) -> Self {
        Self { tcp, frame_bytes_max: FRAME_BYTES_MAX, counters: Arc::default(), guard: None, _permit: None }
    }

    /// Sets the largest frame that this side sends and takes.
    #[must_use]
    pub fn with_frame_bytes_max(mut self, bytes: usize) -> Self {
        self.frame_bytes_max = bytes;
        self
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
