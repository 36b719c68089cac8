//! Every socket of the system is made here: one `dial`, one `listen`.
//!
//! A server has one TCP port. The first frame of a connection is a [`Hello`]: which cluster and
//! group the caller means, who calls whom, and for which [`Purpose`]. The server checks it once
//! (correctness rule 48, [`admit()`]) and answers [`Welcome`] or a refusal in words. Until then a
//! caller may send 4 KiB and take three seconds, so strangers cost nearly nothing. After that
//! clients and servers use tarpc, and peers one-way frames: a four-byte length and a checksum, then
//! the content, with an explicit limit ([`wire`]).
//!
//! Anything else that arrives (garbage, a frame above the limit, another format) closes its
//! connection and is counted in [`Counters`]; no handler sees it (correctness rule 49).
//!
//! The bytes that wait on connections are counted and bounded (correctness rule 103).
//!
//! Left out on purpose: encryption and authentication (they would go between [`Stream`] and TCP),
//! and compression.

mod admit;
mod crowd;
mod hello;
mod here;
mod ledger;
mod link;
mod listen;
mod owner;
mod refusals;
mod room;
pub mod wire;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

pub use admit::{Known, Refusal, admit, admit_answer, admit_server};
pub use crowd::{Kind, Places};
pub use hello::{Hello, LEVEL, Purpose, Welcome};
pub use here::{Here, Key};
pub use listen::{Arrival, BindError, Counters, Limits, Listener};
pub use refusals::{Reason, Refusals};
pub use room::{Reservation, Room};

use crate::clock;
use crowd::{Place, Seat};
use hello::Answer;
use here::Guard;

/// The default limit of one frame after the handshake: a value of the largest size that a cluster
/// may allow (32 MiB), twice, plus overhead.
pub const FRAME_BYTES_MAX: usize = 72 << 20;

/// Bytes of a frame of the handshake.
const HELLO_BYTES_MAX: usize = 4096;

/// Why there is no connection. In every case the server was asked nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// Nobody answered in time, or the connection broke.
    #[error("{0}")]
    Unreachable(String),
    /// The server has as many connections as it takes; try again later.
    #[error("{0}")]
    Busy(String),
    /// The server is another one, or uses another format; trying again changes nothing.
    #[error("{0}")]
    Refused(String),
}

/// Connects to `address` and sends `hello`, all within `limit`.
///
/// # Errors
/// [`DialError`].
pub async fn dial(address: &str, hello: &Hello, limit: Duration) -> Result<(Stream, Welcome), DialError> {
    match exchange(address, hello, limit).await? {
        (tcp, Answer::Welcome(welcome)) => Ok((Stream::dialed(tcp), welcome)),
        (_, Answer::Busy(why)) => Err(DialError::Busy(why)),
        (_, Answer::Refused(why)) => Err(DialError::Refused(why)),
        (_, Answer::Cluster { name, .. }) => Err(DialError::Refused(format!("this is cluster {name:?}"))),
    }
}

/// The name of the cluster of the server at `address`, and its key if that is known yet, for callers
/// that know only the address.
///
/// # Errors
/// [`DialError`].
pub async fn cluster_of(address: &str, limit: Duration) -> Result<(String, Option<u64>), DialError> {
    match exchange(address, &Hello::default(), limit).await?.1 {
        Answer::Cluster { name, key } => Ok((name, Key::from_wire(key).get())),
        Answer::Busy(why) => Err(DialError::Busy(why)),
        Answer::Refused(why) => Err(DialError::Refused(why)),
        Answer::Welcome(_) => Err(DialError::Refused("a server without a cluster".into())),
    }
}

/// Connects, sends `hello` and reads the answer.
async fn exchange(address: &str, hello: &Hello, limit: Duration) -> Result<(TcpStream, Answer), DialError> {
    let exchanging = async {
        let mut tcp = connect(address).await?;
        write_frame(&mut tcp, &hello.encode()).await?;
        let frame = read_frame(&mut tcp).await?;
        Ok((tcp, frame))
    };
    let late = |_| Err(io::Error::other(format!("no answer within {} ms", limit.as_millis())));
    match clock::timeout(limit, exchanging).await.unwrap_or_else(late) {
        Ok((tcp, frame)) => Ok((tcp, Answer::decode(&frame)?)),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(DialError::Refused(format!("what answers there is no server of this build: {error}")))
        }
        Err(error) => Err(DialError::Unreachable(error.to_string())),
    }
}

async fn connect(address: &str) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect(address).await?;
    // If a caller's own port happens to be the one it calls, it is connected to itself, and would
    // keep the server from getting its port back.
    if tcp.local_addr()? == tcp.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    tcp.set_nodelay(true)?;
    Ok(tcp)
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

/// A connection after its handshake. It becomes a transport for tarpc in [`wire`].
#[derive(Debug)]
pub struct Stream {
    tcp: TcpStream,
    frame_bytes_max: usize,
    counters: Arc<Counters>,
    /// For a caller's connection.
    guard: Option<Guard>,
    /// The same; released when the connection ends.
    place: Option<Place>,
}

impl Stream {
    fn dialed(tcp: TcpStream) -> Self {
        Self { tcp, frame_bytes_max: FRAME_BYTES_MAX, counters: Arc::default(), guard: None, place: None }
    }

    fn taken(tcp: TcpStream, frame_bytes_max: usize, counters: Arc<Counters>, place: Place) -> Self {
        Self { tcp, frame_bytes_max, counters, guard: None, place: Some(place) }
    }

    fn seat(&self) -> Option<Arc<Seat>> {
        self.place.as_ref().map(|place| Arc::clone(place.seat()))
    }

    /// The room for answers on this connection.
    pub fn room(&self) -> Room {
        Room::of(self.seat())
    }

    /// Sets the largest frame that this side sends and accepts.
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

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
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
