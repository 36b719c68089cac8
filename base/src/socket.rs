//! Every socket of the system is made here: one `dial`, one `listen`.
//!
//! A server has one TCP port. The first frame of a connection is a [`Hello`]: which cluster and group
//! the caller means, who calls whom, and for which [`Service`]. The server looks at it once
//! (correctness rule 48) and answers [`Welcome`] or a refusal in words. Until then a caller may send
//! 4 KiB and take three seconds, so strangers cost nearly nothing. After that both sides speak tarpc:
//! frames with a four-byte length and a checksum in front and an explicit limit ([`wire`]).
//!
//! Whatever arrives that is not this (garbage, a frame above the limit, another format) closes its
//! connection and is counted in [`Counters`]; nothing of it reaches a handler (correctness rule 49).
//!
//! Left out on purpose: encryption and authentication (they come between [`Stream`] and TCP), a bound on
//! the bytes of all frames of a connection together, compression.

mod hello;
mod owner;
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

pub use hello::{Hello, LEVEL, Service, Welcome};

use crate::clock;
use hello::{Answer, NoHello};

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
            Answer::Cluster(name) => Err(DialError::Refused(format!("this is cluster {name:?}"))),
        }
    };
    clock::timeout(limit, greeting)
        .await
        .unwrap_or_else(|_| Err(DialError::Unreachable(format!("no answer within {} ms", limit.as_millis()))))
}

/// The name of the cluster that the server at `address` belongs to, for people who know only where it is.
///
/// # Errors
/// [`DialError`].
pub async fn cluster_of(address: &str, limit: Duration) -> Result<String, DialError> {
    let unreachable = |error: io::Error| DialError::Unreachable(error.to_string());
    let asking = async {
        let mut tcp = connect(address).await.map_err(unreachable)?;
        match exchange(&mut tcp, &Hello::default()).await? {
            Answer::Cluster(name) => Ok(name),
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
    refused: AtomicU64,
    malformed: AtomicU64,
    turned_away: AtomicU64,
}

impl Counters {
    /// Connections whose Hello was taken.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections refused because they meant somebody else (correctness rules 32, 48).
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
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

/// The key of a cluster (correctness rule 51), once it is known; 0 until then. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Key(Arc<AtomicU64>);

impl Key {
    /// A key that is known already (0: not yet).
    pub fn new(key: u64) -> Self {
        Self(Arc::new(AtomicU64::new(key)))
    }

    /// The key; 0 while it is not known.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes note of the key unless one is known; returns the one that is known then.
    pub fn learn(&self, key: u64) -> u64 {
        match self.0.compare_exchange(0, key, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => key,
            Err(known) => known,
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for Key {}

/// Who a server is, to be compared with whom a Hello means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Here {
    /// Its cluster.
    pub cluster: String,
    /// The key of its cluster.
    pub key: Key,
    /// Its group; 0: the controllers.
    pub group: u64,
    /// Itself.
    pub node: u64,
    /// The life of its data.
    pub incarnation: u64,
    /// Drawn at the start of its process.
    pub boot: u64,
    /// Digest of the members that founded its group.
    pub founders: u64,
}

impl Here {
    /// Why `hello` means somebody else (correctness rule 48).
    pub fn mismatch(&self, hello: &Hello) -> Option<String> {
        let of = |group: u64| match group {
            0 => "the controllers".to_owned(),
            group => format!("group {group}"),
        };
        let key = self.key.get();
        if hello.cluster != self.cluster {
            Some(format!("this is cluster {:?}, not {:?}", self.cluster, hello.cluster))
        } else if hello.key != 0 && key != 0 && hello.key != key {
            Some(format!(
                "this is another cluster {:?}: its key is {key:016x}, not {:016x}",
                self.cluster, hello.key
            ))
        } else if hello.group != self.group {
            Some(format!("this server belongs to {}, not {}", of(self.group), of(hello.group)))
        } else if hello.to != 0 && hello.to != self.node {
            Some(format!("this is server {} of {}, not {}", self.node, of(self.group), hello.to))
        } else {
            None
        }
    }
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

    /// Answers [`Welcome`] if the caller means this server; else refuses, and there is no stream.
    /// A client that names no cluster is told the name, and gets no stream either.
    pub async fn admit(mut self, here: &Here) -> Option<Stream> {
        if self.hello.cluster.is_empty() && self.hello.service == Service::Client {
            let _ = answer(&mut self.stream.tcp, &Answer::Cluster(here.cluster.clone())).await;
            return None;
        }
        if let Some(why) = here.mismatch(&self.hello) {
            self.refuse(why).await;
            return None;
        }
        let welcome = Answer::Welcome(Welcome {
            level: LEVEL,
            key: here.key.get(),
            incarnation: here.incarnation,
            boot: here.boot,
            founders: here.founders,
        });
        answer(&mut self.stream.tcp, &welcome).await.ok()?;
        count(&self.stream.counters.accepted);
        Some(self.stream)
    }

    /// Refuses the caller in words, and counts it.
    pub async fn refuse(mut self, mut why: String) {
        count(&self.stream.counters.refused);
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
    /// Given back when the connection ends.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Stream {
    fn dialed(tcp: TcpStream) -> Self {
        Self { tcp, frame_bytes_max: FRAME_BYTES_MAX, counters: Arc::default(), _permit: None }
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
