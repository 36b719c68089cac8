//! Redis's protocol: a connection that many clients share.
//!
//! Requests are sent in the order in which they are made, all waiting ones in one write, and
//! replies come back in that order. So a server gets the requests of many clients together, and
//! syncs its file once for all of them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Text(String),
    Number(i64),
    /// None: there is no such key.
    Bytes(Option<Bytes>),
    List(Vec<Reply>),
    Refused(String),
}

impl Reply {
    /// The answer, unless it is a refusal.
    pub(super) fn accepted(self) -> Result<Self> {
        match self {
            Self::Refused(why) => Err(anyhow!(why)),
            reply => Ok(reply),
        }
    }
}

/// One or more requests, and the caller that waits for the replies.
struct Asked {
    encoded: BytesMut,
    replies: usize,
    answer: oneshot::Sender<Vec<Reply>>,
}

/// A caller that waits for replies, and the replies so far.
struct Waiter {
    wanted: usize,
    replies: Vec<Reply>,
    answer: oneshot::Sender<Vec<Reply>>,
}

type Waiting = Rc<RefCell<VecDeque<Waiter>>>;

/// A connection. Clones share it; it lives on the thread that opened it.
#[derive(Clone)]
pub(super) struct Connection {
    requests: mpsc::UnboundedSender<Asked>,
}

impl Connection {
    pub(super) async fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| address.to_owned())?;
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        let (requests, queue) = mpsc::unbounded_channel();
        let waiting = Waiting::default();
        tokio::task::spawn_local(write_all(write, queue, Rc::clone(&waiting)));
        tokio::task::spawn_local(read_all(read, waiting));
        Ok(Self { requests })
    }

    /// Sends commands together; returns their replies.
    pub(super) async fn ask(&self, commands: &[&[&[u8]]]) -> Result<Vec<Reply>> {
        let mut encoded = BytesMut::new();
        commands.iter().for_each(|command| encode(&mut encoded, command));
        let (answer, answered) = oneshot::channel();
        let asked = Asked { encoded, replies: commands.len(), answer };
        self.requests.send(asked).map_err(|_| anyhow!("the connection broke"))?;
        answered.await.context("the connection broke")
    }

    /// Sends one command of plain words; returns its reply, if it is not a refusal.
    pub(super) async fn command(&self, words: &[&str]) -> Result<Reply> {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        self.ask(&[&words[..]]).await?.pop().context("no reply")?.accepted()
    }
}

async fn write_all(mut write: OwnedWriteHalf, mut queue: mpsc::UnboundedReceiver<Asked>, waiting: Waiting) {
    while let Some(first) = queue.recv().await {
        let mut bytes = BytesMut::new();
        let mut next = Some(first);
        while let Some(asked) = next {
            bytes.extend_from_slice(&asked.encoded);
            let waiter = Waiter { wanted: asked.replies, replies: Vec::new(), answer: asked.answer };
            waiting.borrow_mut().push_back(waiter);
            next = queue.try_recv().ok();
        }
        if write.write_all(&bytes).await.is_err() {
            waiting.borrow_mut().clear();
            return;
        }
    }
}

/// When the connection ends, the end of the channel tells all waiting callers.
async fn read_all(mut read: OwnedReadHalf, waiting: Waiting) {
    let mut buffer = BytesMut::with_capacity(1 << 16);
    while read.read_buf(&mut buffer).await.is_ok_and(|bytes| bytes > 0) {
        while let Ok(Some((reply, used))) = parse(&buffer) {
            buffer.advance(used);
            let mut waiting = waiting.borrow_mut();
            let Some(waiter) = waiting.front_mut() else { return };
            waiter.replies.push(reply);
            if waiter.replies.len() == waiter.wanted
                && let Some(waiter) = waiting.pop_front()
            {
                // A caller that no longer waits misses nothing.
                let _ = waiter.answer.send(waiter.replies);
            }
        }
    }
    waiting.borrow_mut().clear();
}

fn encode(into: &mut BytesMut, command: &[&[u8]]) {
    into.extend_from_slice(format!("*{}\r\n", command.len()).as_bytes());
    for word in command {
        into.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        into.extend_from_slice(word);
        into.extend_from_slice(b"\r\n");
    }
}

/// The first reply and its length, if all of it is there.
fn parse(bytes: &[u8]) -> Result<Option<(Reply, usize)>> {
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
    let (kind, line) = (bytes[0], std::str::from_utf8(&bytes[1..end])?);
    let body = end + 2;
    let reply = match kind {
        b'+' => Reply::Text(line.to_owned()),
        b'-' => Reply::Refused(line.to_owned()),
        b':' => Reply::Number(line.parse()?),
        b'$' if line.starts_with('-') => Reply::Bytes(None),
        b'$' => {
            let length: usize = line.parse()?;
            let Some(content) = bytes.get(body..body + length) else { return Ok(None) };
            let used = body + length + 2;
            let whole = bytes.len() >= used;
            return Ok(whole.then(|| (Reply::Bytes(Some(Bytes::copy_from_slice(content))), used)));
        }
        b'*' => return parse_list(bytes, body, line.parse()?),
        kind => bail!("a reply of kind {kind}"),
    };
    Ok(Some((reply, body)))
}

fn parse_list(bytes: &[u8], body: usize, count: usize) -> Result<Option<(Reply, usize)>> {
    let (mut items, mut at) = (Vec::new(), body);
    for _ in 0..count {
        let Some((item, used)) = parse(&bytes[at..])? else { return Ok(None) };
        items.push(item);
        at += used;
    }
    Ok(Some((Reply::List(items), at)))
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};

    use super::{Reply, encode, parse};

    #[test]
    fn a_command_is_encoded_as_the_protocol_says() {
        let mut bytes = BytesMut::new();
        encode(&mut bytes, &[b"GET", b"key"]);
        assert_eq!(bytes, "*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n");
    }

    #[test]
    fn replies_are_taken_whole_or_not_at_all() {
        let text = b"*4\r\n+OK\r\n:-7\r\n$2\r\nv\n\r\n$-1\r\n-ERR no\r\n";
        let list = Reply::List(vec![
            Reply::Text("OK".to_owned()),
            Reply::Number(-7),
            Reply::Bytes(Some(Bytes::from_static(b"v\n"))),
            Reply::Bytes(None),
        ]);
        let length = text.len() - b"-ERR no\r\n".len();
        assert_eq!(parse(text).unwrap(), Some((list, length)));
        for cut in 0..length {
            assert_eq!(parse(&text[..cut]).unwrap(), None, "{cut}");
        }
        let (refusal, _) = parse(&text[length..]).unwrap().unwrap();
        assert_eq!(refusal.accepted().unwrap_err().to_string(), "ERR no");
        assert!(parse(b"?\r\n").is_err());
    }
}
