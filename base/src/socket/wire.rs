//! What is sent over a [`Stream`]: tarpc's requests and answers, or one-way frames.
//!
//! tarpc's own messages are translated into `Call` and `Reply`, for three reasons: a deadline is
//! capped before tarpc adds it to the clock (a peer's `u64::MAX` seconds would panic there;
//! correctness rule 49), tracing contexts that nobody reads cost no bytes, and tarpc's types can
//! change without changing the wire format. The deadline is sent as the remaining time, so clocks
//! need not agree.
//!
//! An answer too long for a frame becomes a failure that says so; the connection stays open. A
//! request too long fails at its sender.
//!
//! [`FrameWriter`] and [`FrameReader`] carry values of one type from one end to the other, without
//! answers, with the same four-byte length in front.

use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tarpc::server::limits::requests_per_channel::MaxRequests;
use tarpc::server::{BaseChannel, Channel, Serve};
use tarpc::tokio_util::codec::{FramedRead, LengthDelimitedCodec};
use tarpc::{ChannelError, ClientMessage, Request, RequestName, Response, ServerError, context};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_serde::{Deserializer, Serializer};

use super::crowd::{Holding, Seat, Work};
use super::here::Guard;
use super::ledger::What;
pub use super::link::Link;
use super::{Counters, Reason, SUM_BYTES, Stream};
use crate::clock;
use crate::codec::{Skipped, wire};

/// For the log filter of every process: tarpc opens a span and formats a date for each request, and
/// logs each late one as an error. Switched off it costs nothing.
pub const LOG_DIRECTIVE: &str = "tarpc=off";

/// The longest wait for one answer, whatever a caller asks for.
const DEADLINE_MAX: Duration = Duration::from_secs(600);

#[derive(Serialize, Deserialize)]
enum Call<M> {
    Request { id: u64, deadline_ms: u32, message: M, more: Skipped },
    Cancel { id: u64 },
}

#[derive(Serialize, Deserialize)]
struct Reply<M> {
    id: u64,
    outcome: Result<M, Failure>,
    more: Skipped,
}

#[derive(Serialize, Deserialize)]
enum Failure {
    /// Definitely not executed.
    Busy(String),
    /// The answer does not fit a frame.
    TooLong(String),
    Other(String),
}

impl From<&ServerError> for Failure {
    fn from(error: &ServerError) -> Self {
        match error.kind {
            io::ErrorKind::WouldBlock => Self::Busy(error.detail.clone()),
            io::ErrorKind::FileTooLarge => Self::TooLong(error.detail.clone()),
            _ => Self::Other(error.detail.clone()),
        }
    }
}

impl From<Failure> for ServerError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Busy(detail) => Self::new(io::ErrorKind::WouldBlock, detail),
            Failure::TooLong(detail) => Self::new(io::ErrorKind::FileTooLarge, detail),
            Failure::Other(detail) => Self::new(io::ErrorKind::Other, detail),
        }
    }
}

/// Encodes tarpc's messages as frames, and decodes them.
#[derive(Debug)]
pub struct Codec {
    bytes_max: usize,
}

impl Codec {
    fn read<T: DeserializeOwned>(&self, bytes: &[u8]) -> io::Result<T> {
        unseal(bytes, self.bytes_max)
    }
}

/// A frame's content: the checksum of the body, and the body.
fn seal<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = wire::encode_after(SUM_BYTES, value);
    sum(&mut bytes);
    bytes
}

/// Writes the checksum of everything after it into its place.
fn sum(bytes: &mut [u8]) {
    let sum = crc32fast::hash(&bytes[SUM_BYTES..]);
    bytes[..SUM_BYTES].copy_from_slice(&sum.to_be_bytes());
}

/// The inverse of [`seal`].
fn unseal<T: DeserializeOwned>(bytes: &[u8], bytes_max: usize) -> io::Result<T> {
    let invalid =
        |error: Box<dyn std::error::Error + Send + Sync>| io::Error::new(io::ErrorKind::InvalidData, error);
    let (sum, body) =
        bytes.split_first_chunk::<SUM_BYTES>().ok_or_else(|| invalid("a frame without a checksum".into()))?;
    // A flipped bit that TCP let pass must not become a log entry.
    if u32::from_be_bytes(*sum) != crc32fast::hash(body) {
        return Err(invalid("the checksum of a frame is wrong".into()));
    }
    wire::decode(body, bytes_max).map_err(|error| invalid(error.into()))
}

impl<T: Serialize> Serializer<ClientMessage<T>> for Codec {
    type Error = io::Error;

    fn serialize(self: Pin<&mut Self>, message: &ClientMessage<T>) -> io::Result<Bytes> {
        let bytes = match message {
            ClientMessage::Request(request) => {
                let remaining = request.context.deadline.saturating_duration_since(Instant::now());
                let deadline_ms = u32::try_from(remaining.as_millis()).unwrap_or(u32::MAX).max(1);
                let (id, message, more) = (request.id, &request.message, Skipped::default());
                seal(&Call::Request { id, deadline_ms, message, more })
            }
            ClientMessage::Cancel { request_id, .. } => seal(&Call::<&T>::Cancel { id: *request_id }),
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        if bytes.len() > self.bytes_max {
            let text = format!("a request of {} bytes exceeds the limit of {}", bytes.len(), self.bytes_max);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        Ok(bytes.into())
    }
}

impl<T: DeserializeOwned> Deserializer<ClientMessage<T>> for Codec {
    type Error = io::Error;

    fn deserialize(self: Pin<&mut Self>, bytes: &BytesMut) -> io::Result<ClientMessage<T>> {
        Ok(match self.read::<Call<T>>(bytes)? {
            Call::Request { id, deadline_ms, message, more: _ } => {
                let remaining = Duration::from_millis(u64::from(deadline_ms)).min(DEADLINE_MAX);
                let mut context = context::current();
                context.deadline = Instant::now() + remaining;
                ClientMessage::Request(Request { context, id, message })
            }
            Call::Cancel { id } => {
                ClientMessage::Cancel { trace_context: tarpc::trace::Context::default(), request_id: id }
            }
        })
    }
}

impl<T: Serialize> Serializer<Response<T>> for Codec {
    type Error = io::Error;

    fn serialize(self: Pin<&mut Self>, response: &Response<T>) -> io::Result<Bytes> {
        let outcome = response.message.as_ref().map_err(Failure::from);
        let (id, more) = (response.request_id, Skipped::default());
        let bytes = seal(&Reply { id, outcome, more });
        if bytes.len() <= self.bytes_max {
            return Ok(bytes.into());
        }
        let text = format!("an answer of {} bytes exceeds the limit of {}", bytes.len(), self.bytes_max);
        Ok(seal(&Reply::<&T> { id, outcome: Err(Failure::TooLong(text)), more }).into())
    }
}

impl<T: DeserializeOwned> Deserializer<Response<T>> for Codec {
    type Error = io::Error;

    fn deserialize(self: Pin<&mut Self>, bytes: &BytesMut) -> io::Result<Response<T>> {
        let Reply { id, outcome, more: _ } = self.read::<Reply<T>>(bytes)?;
        Ok(Response { request_id: id, message: outcome.map_err(ServerError::from) })
    }
}

/// A caller's end: sends `Req`, takes `Resp`.
pub type ClientTransport<Req, Resp> = Link<Response<Resp>, ClientMessage<Req>, Codec>;

/// A server's end.
type ServerTransport<Req, Resp> = Link<ClientMessage<Held<Req>>, Response<Held<Resp>>, ServerCodec>;

/// The cost of a request in progress, besides its bytes.
const REQUEST_BYTES: usize = 4096;

/// A request or an answer, counted as long as it exists.
struct Held<T> {
    value: T,
    holding: Option<Holding>,
}

impl<T: RequestName> RequestName for Held<T> {
    fn name(&self) -> &str {
        self.value.name()
    }
}

/// The same as [`Codec`], for a server, which counts waiting bytes.
struct ServerCodec {
    codec: Codec,
    seat: Option<Arc<Seat>>,
}

impl<T: DeserializeOwned> Deserializer<ClientMessage<Held<T>>> for ServerCodec {
    type Error = io::Error;

    fn deserialize(mut self: Pin<&mut Self>, bytes: &BytesMut) -> io::Result<ClientMessage<Held<T>>> {
        let message: ClientMessage<T> = Pin::new(&mut self.codec).deserialize(bytes)?;
        Ok(match message {
            ClientMessage::Request(Request { context, id, message: value }) => {
                let holding =
                    self.seat.as_ref().map(|seat| seat.hold(What::Request, REQUEST_BYTES + bytes.len()));
                ClientMessage::Request(Request { context, id, message: Held { value, holding } })
            }
            ClientMessage::Cancel { trace_context, request_id } => {
                ClientMessage::Cancel { trace_context, request_id }
            }
            _ => return Err(io::ErrorKind::Unsupported.into()),
        })
    }
}

impl<T: Serialize> Serializer<Response<Held<T>>> for ServerCodec {
    type Error = io::Error;

    fn serialize(mut self: Pin<&mut Self>, response: &Response<Held<T>>) -> io::Result<Bytes> {
        let message = match &response.message {
            Ok(held) => Ok(&held.value),
            Err(error) => Err(error.clone()),
        };
        Pin::new(&mut self.codec).serialize(&Response { request_id: response.request_id, message })
    }
}

fn codec(stream: &Stream) -> Codec {
    Codec { bytes_max: stream.frame_bytes_max }
}

/// Makes a stream the caller's end of a connection.
pub fn client<Req, Resp>(stream: Stream) -> ClientTransport<Req, Resp>
where
    Req: Serialize,
    Resp: DeserializeOwned,
{
    let codec = codec(&stream);
    Link::new(stream, codec)
}

type Throttled<Req, Resp> = MaxRequests<BaseChannel<Held<Req>, Held<Resp>, ServerTransport<Req, Resp>>>;

/// Serves the requests of one connection until it ends or was silent for `idle`. They are handled
/// concurrently within this one task, so answers that are ready together leave together. Requests
/// beyond `in_flight_max` are answered "busy" without being executed. Invalid bytes end the
/// connection, and are counted.
pub async fn serve<S>(stream: Stream, in_flight_max: usize, idle: Duration, service: S)
where
    S: Serve + Clone,
    S::Req: RequestName + DeserializeOwned,
    S::Resp: Serialize,
{
    let (guard, seat) = (stream.guard.clone(), stream.seat());
    let counters = Arc::clone(&stream.counters);
    let config = tarpc::server::Config { pending_response_buffer: in_flight_max.clamp(1, 1024) };
    let codec = ServerCodec { codec: codec(&stream), seat: seat.clone() };
    let transport: ServerTransport<S::Req, S::Resp> = Link::new(stream, codec);
    let channel: Throttled<S::Req, S::Resp> =
        BaseChannel::new(config, transport).max_concurrent_requests(in_flight_max);
    // It also writes the answers, so it must be polled while handlers run.
    let mut requests = Box::pin(channel.requests());
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(()) = running.next(), if !running.is_empty() => {}
            next = clock::timeout(idle, requests.next()) => match next {
                Ok(Some(Ok(request))) if still_lets_in(guard.as_ref(), &counters) => {
                    let (seat, work) = (seat.clone(), seat.as_ref().map(Seat::work));
                    running.push(request.execute(Worked { service: service.clone(), seat, work }));
                }
                Ok(Some(Err(error))) => {
                    if is_malformed(&error) {
                        counters.count_malformed();
                        tracing::warn!(?error, "connection closed: invalid bytes arrived");
                    }
                    return;
                }
                Ok(Some(Ok(_)) | None) | Err(_) => return,
            },
        }
    }
}

/// A service with requests in progress. Bytes that wait to be written do not count as work: their
/// reader may never read them.
struct Worked<S> {
    service: S,
    seat: Option<Arc<Seat>>,
    work: Option<Work>,
}

impl<S: Serve> Serve for Worked<S>
where
    S::Resp: Serialize,
{
    type Req = Held<S::Req>;
    type Resp = Held<S::Resp>;

    async fn serve(
        self,
        context: context::Context,
        request: Held<S::Req>,
    ) -> Result<Held<S::Resp>, ServerError> {
        let Self { service, seat, work } = self;
        let own = request.holding.as_ref().map_or(0, |holding| holding.bytes);
        if seat.as_ref().is_some_and(|seat| seat.is_full_beside(own)) {
            let text = "too many bytes wait on connections: take the answers, and ask again";
            return Err(ServerError::new(io::ErrorKind::WouldBlock, text.to_owned()));
        }
        let value = service.serve(context, request.value).await?;
        drop((request.holding, work));
        let holding = seat.map(|seat| seat.hold(What::Answer, wire::size(&value)));
        Ok(Held { value, holding })
    }
}

/// Bytes that are passed to the system at once.
const PIECE_BYTES: usize = 256 << 10;

/// A buffer that grew beyond this for one large frame is not kept.
const BUFFER_BYTES_MAX: usize = 1 << 20;

/// The end of a connection that only writes.
#[derive(Debug)]
pub struct FrameWriter {
    stream: Stream,
    stall: Duration,
    buffer: Vec<u8>,
}

impl FrameWriter {
    /// The connection fails if the other end reads nothing for `stall`, or its machine acknowledges
    /// nothing for that long.
    pub fn new(stream: Stream, stall: Duration) -> Self {
        #[cfg(target_os = "linux")]
        {
            // Without it a machine that vanished silently is noticed only after minutes.
            let ms = u32::try_from(stall.as_millis()).unwrap_or(u32::MAX);
            if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(&stream.tcp, ms) {
                tracing::debug!(%error, "no time-out for what is not acknowledged");
            }
        }
        Self { stream, stall, buffer: Vec::new() }
    }

    /// Writes `value` as one frame. Completes when the system has taken it, which proves nothing
    /// about the other end.
    ///
    /// # Errors
    /// The connection failed, or the frame is larger than the connection's limit; either way it
    /// must not be used again.
    pub async fn write<T: Serialize>(&mut self, value: &T) -> io::Result<()> {
        self.buffer.clear();
        self.buffer.extend_from_slice(&[0; 4 + SUM_BYTES]);
        wire::encode_into(&mut self.buffer, value);
        sum(&mut self.buffer[4..]);
        let bytes = self.buffer.len() - 4;
        let length = u32::try_from(bytes).ok().filter(|_| bytes <= self.stream.frame_bytes_max);
        let Some(length) = length else {
            let limit = self.stream.frame_bytes_max;
            let text = format!("a frame of {bytes} bytes exceeds the limit of {limit}");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        };
        self.buffer[..4].copy_from_slice(&length.to_be_bytes());
        for piece in self.buffer.chunks(PIECE_BYTES) {
            let written = clock::timeout(self.stall, self.stream.write_all(piece)).await;
            written.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        }
        if self.buffer.capacity() > BUFFER_BYTES_MAX {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    /// Completes when the other end has closed the connection, or it broke.
    pub async fn closed(&mut self) {
        // Nothing is ever sent in this direction: whatever a read returns, the connection is over.
        let _ = self.stream.read_u8().await;
    }
}

/// The end of a connection that only reads.
#[derive(Debug)]
pub struct FrameReader<T> {
    frames: FramedRead<Stream, LengthDelimitedCodec>,
    bytes_max: usize,
    counters: Arc<Counters>,
    guard: Option<Guard>,
    seat: Option<Arc<Seat>>,
    ghost: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> FrameReader<T> {
    /// Reads frames of `T` of at most the connection's limit.
    pub fn new(stream: Stream) -> Self {
        let (bytes_max, counters) = (stream.frame_bytes_max, Arc::clone(&stream.counters));
        let (guard, seat) = (stream.guard.clone(), stream.seat());
        let codec = LengthDelimitedCodec::builder().max_frame_length(bytes_max).new_codec();
        Self { frames: FramedRead::new(stream, codec), bytes_max, counters, guard, seat, ghost: PhantomData }
    }

    /// The next frame; none when the connection ended or was silent for `idle`. Invalid bytes end
    /// it too, and are counted.
    pub async fn next(&mut self, idle: Duration) -> Option<T> {
        let frame = clock::timeout(idle, self.frames.next()).await.ok()??;
        let malformed = |error: &dyn std::fmt::Display| {
            self.counters.count_malformed();
            tracing::warn!(%error, "connection closed: invalid bytes arrived");
        };
        if !still_lets_in(self.guard.as_ref(), &self.counters) {
            return None;
        }
        if let Some(seat) = &self.seat {
            seat.heard();
        }
        match frame {
            Ok(bytes) => unseal(&bytes, self.bytes_max).inspect_err(|error| malformed(error)).ok(),
            Err(error) => {
                if is_invalid(&error) {
                    malformed(&error);
                }
                None
            }
        }
    }
}

/// Whether a caller would still be let in: the key of a cluster may become known while its
/// connection is open.
fn still_lets_in(guard: Option<&Guard>, counters: &Counters) -> bool {
    let lets_in = guard.is_none_or(Guard::holds);
    if !lets_in {
        counters.refusals().count(Reason::OtherKey);
        tracing::warn!("connection closed: the caller means another cluster of this name");
    }
    lets_in
}

/// Whether `error`, or an error inside it, is about invalid bytes.
fn is_malformed(error: &ChannelError<io::Error>) -> bool {
    let ChannelError::Read(error) = error else { return false };
    is_invalid(error)
}

fn is_invalid(error: &io::Error) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.kind() == io::ErrorKind::InvalidData {
            return true;
        }
        next = error.get_ref().and_then(|inner| inner.downcast_ref());
    }
    false
}
