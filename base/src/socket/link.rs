//! One end of a connection that uses tarpc: frames in, frames out, and their bytes counted.
//!
//! No memory is reserved for bytes that may come: a frame's memory grows with the bytes that have
//! arrived, whatever its length claims, and an idle connection has small buffers, however large its
//! last frame was.
//!
//! Left out on purpose: the meaning of frames ([`super::wire`]).

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{Sink, Stream};
use tarpc::tokio_util::codec::{Decoder, FramedRead};
use tokio::io::AsyncWrite;
use tokio_serde::{Deserializer, Serializer};

use super::Stream as Socket;
use super::crowd::Seat;
use crate::clock;

/// A reader that takes nothing for this long is gone, or does harm.
const STALL: Duration = Duration::from_secs(60);

/// The size of the write buffer: frames made together are sent together.
const WRITE_BUFFER_BYTES: usize = 64 << 10;

/// Smaller frames are copied one after another; a larger one is written from where it is.
const COPIED_BYTES_MAX: usize = 16 << 10;

/// At most this many waiting parts are passed to the system at once.
const SLICES: usize = 16;

/// A buffer that a frame made larger is not kept.
const KEPT_BYTES: usize = 64 << 10;

/// Room of the buffer that takes its place.
const FRESH_BYTES: usize = 8 << 10;

/// Cuts what arrives into frames.
#[derive(Debug)]
pub(super) struct Frames {
    bytes_max: usize,
    seat: Option<Arc<Seat>>,
    /// Counted bytes of an incomplete frame.
    unread: usize,
}

impl Frames {
    fn new(bytes_max: usize, seat: Option<Arc<Seat>>) -> Self {
        Self { bytes_max, seat, unread: 0 }
    }

    /// Usually frames arrive complete, and there is nothing to count.
    fn unread(&mut self, bytes: usize) {
        if self.unread != bytes
            && let Some(seat) = &self.seat
        {
            seat.unread(bytes);
        }
        self.unread = bytes;
    }
}

impl Decoder for Frames {
    type Item = BytesMut;
    type Error = io::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> io::Result<Option<BytesMut>> {
        let Some(length) = bytes.first_chunk::<4>() else {
            self.unread(bytes.len());
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > self.bytes_max {
            let text = format!("a frame of {length} bytes exceeds the limit of {}", self.bytes_max);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        if bytes.len() < 4 + length {
            // No room is reserved for the rest: the reader doubles a full buffer.
            self.unread(bytes.capacity());
            return Ok(None);
        }
        self.unread(0);
        bytes.advance(4);
        let frame = bytes.split_to(length);
        if length > KEPT_BYTES {
            let mut fresh = BytesMut::with_capacity(bytes.len().max(FRESH_BYTES));
            fresh.extend_from_slice(bytes);
            *bytes = fresh;
        }
        Ok(Some(frame))
    }
}

/// The bytes to be written.
#[derive(Debug, Default)]
struct Outgoing {
    parts: VecDeque<Bytes>,
    last: BytesMut,
    bytes: usize,
}

impl Outgoing {
    fn push(&mut self, frame: Bytes) {
        self.bytes += 4 + frame.len();
        self.last.put_u32(u32::try_from(frame.len()).unwrap_or(u32::MAX));
        if frame.len() <= COPIED_BYTES_MAX {
            self.last.extend_from_slice(&frame);
        } else {
            self.parts.push_back(std::mem::take(&mut self.last).freeze());
            self.parts.push_back(frame);
        }
    }

    /// What to write next, in one call.
    fn next(&self) -> [IoSlice<'_>; SLICES] {
        let mut waiting = self.parts.iter().map(|part| &part[..]).chain([&self.last[..]]);
        std::array::from_fn(|_| IoSlice::new(waiting.next().unwrap_or_default()))
    }

    fn written(&mut self, mut bytes: usize) {
        self.bytes -= bytes;
        while let Some(part) = self.parts.front_mut() {
            let taken = bytes.min(part.len());
            part.advance(taken);
            bytes -= taken;
            if !part.is_empty() {
                break;
            }
            self.parts.pop_front();
        }
        self.last.advance(bytes);
        if self.bytes == 0 && self.last.capacity() > KEPT_BYTES {
            self.last = BytesMut::new();
        }
    }
}

/// A connection that sends `Out` and receives `In`.
pub struct Link<In, Out, Codec> {
    frames: FramedRead<Socket, Frames>,
    outgoing: Outgoing,
    codec: Codec,
    seat: Option<Arc<Seat>>,
    /// Runs while the other end of a caller's connection reads nothing.
    stall: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    ghost: PhantomData<fn(Out) -> In>,
}

impl<In, Out, Codec: Unpin> Link<In, Out, Codec> {
    pub(super) fn new(socket: Socket, codec: Codec) -> Self {
        let (bytes_max, seat) = (socket.frame_bytes_max, socket.seat());
        let frames = FramedRead::new(socket, Frames::new(bytes_max, seat.clone()));
        Self { frames, outgoing: Outgoing::default(), codec, seat, stall: None, ghost: PhantomData }
    }

    /// Writes until at most `left` bytes wait.
    fn poll_write(&mut self, cx: &mut Context<'_>, left: usize) -> Poll<io::Result<()>> {
        while self.outgoing.bytes > left {
            let socket = Pin::new(self.frames.get_mut());
            let Poll::Ready(written) = socket.poll_write_vectored(cx, &self.outgoing.next())? else {
                return self.poll_stall(cx);
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.stall = None;
            self.outgoing.written(written);
            if let Some(seat) = &self.seat {
                seat.written(written);
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.seat.is_none() {
            return Poll::Pending;
        }
        let stall = self.stall.get_or_insert_with(|| Box::pin(clock::sleep(STALL)));
        ready!(stall.as_mut().poll(cx));
        tracing::warn!("connection closed: its answers were not taken");
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<In, Out, Codec> Stream for Link<In, Out, Codec>
where
    Codec: Deserializer<In, Error = io::Error> + Unpin,
{
    type Item = io::Result<In>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<In>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.frames).poll_next(cx));
        Poll::Ready(frame.map(|frame| Pin::new(&mut this.codec).deserialize(&frame?)))
    }
}

impl<In, Out, Codec> Sink<Out> for Link<In, Out, Codec>
where
    Codec: Serializer<Out, Error = io::Error> + Unpin,
{
    type Error = io::Error;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.outgoing.bytes < WRITE_BUFFER_BYTES {
            Poll::Ready(Ok(()))
        } else {
            self.get_mut().poll_write(cx, WRITE_BUFFER_BYTES - 1)
        }
    }

    fn start_send(self: Pin<&mut Self>, item: Out) -> io::Result<()> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.codec).serialize(&item)?;
        // It must not be counted twice: as a made answer, and as bytes to write.
        drop(item);
        if let Some(seat) = &this.seat {
            seat.unwritten(4 + frame.len());
        }
        this.outgoing.push(frame);
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_write(cx, 0)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_write(cx, 0))?;
        Pin::new(this.frames.get_mut()).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::pin::Pin;
    use std::sync::Arc;

    use bytes::{BufMut, Bytes, BytesMut};
    use futures::SinkExt;
    use tarpc::tokio_util::codec::Decoder;
    use tokio::net::{TcpListener, TcpStream};
    use tokio_serde::Serializer;

    use super::{COPIED_BYTES_MAX, FRESH_BYTES, Frames, Link, Outgoing};
    use crate::clock;
    use crate::socket::crowd::{Crowd, Holding, Kind};
    use crate::socket::ledger::{Bounds, What};
    use crate::socket::{Counters, Stream};

    /// Makes a frame of the bytes of an answer that is counted.
    struct Plain;

    impl Serializer<(Bytes, Holding)> for Plain {
        type Error = io::Error;

        fn serialize(self: Pin<&mut Self>, (bytes, _): &(Bytes, Holding)) -> io::Result<Bytes> {
            Ok(bytes.clone())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_counted_once() {
        const BYTES: usize = 100_000;
        let crowd = Crowd::new(|_| 9, Bounds { connection: 1 << 20, server: BYTES + 1000 });
        let enter = || crowd.enter(Kind::Clients).expect("a place");
        // It would make room if there were too much.
        let keeper = enter();
        keeper.seat().unread(500);
        clock::sleep(std::time::Duration::from_secs(5)).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let tcp = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
        let place = enter();
        let seat = Arc::clone(place.seat());
        let stream = Stream::taken(tcp, 1 << 20, Arc::new(Counters::default()), place);
        let mut link: Link<(), (Bytes, Holding), Plain> = Link::new(stream, Plain);
        let answer = (Bytes::from(vec![1; BYTES]), seat.hold(What::Answer, BYTES));
        assert_eq!(crowd.waiting_bytes(), 500 + BYTES);
        link.start_send_unpin(answer).expect("it fits");
        assert_eq!((crowd.waiting_bytes(), crowd.made_room()), (500 + 4 + BYTES, 0));
        link.flush().await.expect("the system takes it");
        assert_eq!(crowd.waiting_bytes(), 500);
    }

    /// What a reader's buffer has room for when nothing was read yet.
    fn buffer() -> BytesMut {
        BytesMut::with_capacity(FRESH_BYTES)
    }

    #[test]
    fn a_length_that_is_only_claimed_takes_nothing_and_what_is_there_at_most_twice_its_bytes() {
        let (mut frames, mut bytes) = (Frames::new(64 << 20, None), buffer());
        bytes.put_u32(60 << 20);
        assert_eq!(frames.decode(&mut bytes).expect("may be so long"), None);
        assert_eq!(bytes.capacity(), FRESH_BYTES);
        while bytes.len() < 4 << 20 {
            // As a reader does it.
            bytes.reserve(1);
            let room = (bytes.capacity() - bytes.len()).min(64 << 10);
            bytes.put_bytes(7, room);
            assert_eq!(frames.decode(&mut bytes).expect("may be so long"), None);
            assert!(bytes.capacity() <= 2 * bytes.len().max(FRESH_BYTES), "{}", bytes.capacity());
        }
    }

    #[test]
    fn a_buffer_that_begins_anew_has_room_for_usual_frames() {
        let (mut frames, mut bytes) = (Frames::new(64 << 20, None), buffer());
        bytes.put_u32(1 << 20);
        bytes.put_bytes(7, 1 << 20);
        bytes.put_slice(&[0, 0, 0, 9]);
        assert_eq!(frames.decode(&mut bytes).expect("whole").map(|frame| frame.len()), Some(1 << 20));
        assert_eq!((&bytes[..], bytes.capacity()), (&[0, 0, 0, 9][..], FRESH_BYTES));
    }

    #[test]
    fn frames_large_and_small_leave_in_one_go_and_in_order() {
        let (mut expected, lengths) = (Vec::new(), [3, COPIED_BYTES_MAX + 1, 0, COPIED_BYTES_MAX + 2, 7]);
        let frames = || (1_u8..).zip(lengths).map(|(byte, length)| Bytes::from(vec![byte; length]));
        for frame in frames() {
            expected.put_u32(u32::try_from(frame.len()).expect("small"));
            expected.extend_from_slice(&frame);
        }
        for taken in [1, 4, 7, 11, COPIED_BYTES_MAX + 12, expected.len()] {
            let mut outgoing = Outgoing::default();
            frames().for_each(|frame| outgoing.push(frame));
            let mut written = Vec::<u8>::new();
            while outgoing.bytes > 0 {
                let (next, taken) = (outgoing.next(), taken.min(outgoing.bytes));
                let all: usize = next.iter().map(|part| part.len()).sum();
                assert_eq!(all, outgoing.bytes, "all of it is handed over at once");
                written.extend(next.iter().flat_map(|part| part.iter()).take(taken));
                outgoing.written(taken);
            }
            assert!(written == expected, "{taken} bytes at a time");
        }
    }
}
