//! A small service for runs of a single group: keys with versions, without sessions or shards.
//!
//! It uses the product's requests, so the same workload and the same network serve it. Without
//! sessions nothing may be sent twice: if a client cannot know what became of a write, it says so.

use std::sync::Arc;
use std::time::Duration;

use base::clock;
use bytes::{BufMut, Bytes, BytesMut};
use clerk::api::kv::{KvRefusal, KvReply, KvRequest, Write};
use clerk::api::{Address, ConfigNum, GroupId, Version};
use clerk::connection::{CallError, Connection};
use futures::future::BoxFuture;
use raft::rsm::{ExecuteError, Replica, Rows, StateMachine};
use raft::storage::Read;
use raft::types::{EntryId, NodeId};
use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::network::{Reply, Request};
use super::{Generator, Name};
use crate::workload::{self, Answer, Store};
use judge::history::Op;

/// The time limit of a replica for a request.
const DEADLINE: Duration = Duration::from_secs(3);
/// The time limit of a client for an operation.
const PATIENCE: Duration = Duration::from_secs(4);
/// A try lasts between these. Some clients turn to the next leader while others still wait for the
/// old one. Only so does a test catch a leader that answers although it no longer leads.
const TRY_MIN: Duration = Duration::from_millis(100);
const TRY_MAX: Duration = Duration::from_secs(3);
/// The longest a client waits before it tries again.
const BACK_OFF_MAX: Duration = Duration::from_millis(60);
/// Key of the row with the highest version that was deleted.
const FLOOR: &[u8] = b"floor";

/// The state machine.
#[derive(Debug, Default)]
pub struct Toy;

/// A logged change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Change {
    key: Bytes,
    write: Write,
}

/// The result: the new version, or the version in the way.
type Verdict = Result<u64, u64>;

/// The key of the row of a key.
pub fn row_key(key: &[u8]) -> Vec<u8> {
    [b"k", key].concat()
}

fn number(bytes: &[u8]) -> u64 {
    bytes.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// Version and value of a key; version 0 if there is none.
fn look(rows: &(impl Read + ?Sized), key: &[u8]) -> (u64, Bytes) {
    rows.get(&row_key(key)).map_or((0, Bytes::new()), |row| (number(&row), row.slice(8..)))
}

fn set(rows: &mut dyn Rows, key: &[u8], before: u64, value: &[u8]) -> u64 {
    let floor = if before == 0 { rows.get(FLOOR).map_or(0, |row| number(&row)) } else { before };
    let mut row = BytesMut::with_capacity(8 + value.len());
    row.put_u64(floor + 1);
    row.put_slice(value);
    rows.put(row_key(key).into(), row.freeze());
    floor + 1
}

impl StateMachine for Toy {
    type Command = Change;
    type Output = Verdict;
    type Query = Bytes;
    type Answer = (u64, Bytes);

    fn load(&mut self, _rows: &dyn Read) {}

    fn apply(&mut self, rows: &mut dyn Rows, _id: EntryId, command: Change) -> Verdict {
        let Change { key, write } = command;
        let (version, value) = look(rows, &key);
        match write {
            Write::Put { expected: Some(expected), .. } if expected.0 != version => Err(version),
            Write::Put { value, .. } => Ok(set(rows, &key, version, &value)),
            Write::Append { piece } => Ok(set(rows, &key, version, &[&value[..], &piece].concat())),
            Write::Delete => {
                if version > 0 {
                    let floor = rows.get(FLOOR).map_or(0, |row| number(&row)).max(version);
                    rows.put(Bytes::from_static(FLOOR), Bytes::copy_from_slice(&floor.to_be_bytes()));
                    rows.delete(&row_key(&key));
                }
                Ok(version)
            }
        }
    }

    fn query(&self, rows: &dyn Read, key: Bytes) -> (u64, Bytes) {
        look(rows, &key)
    }
}

/// Answers one request at a replica.
pub async fn serve(replica: Replica<Toy>, members: Arc<Vec<(NodeId, Address)>>, request: Request) -> Reply {
    let Request::Kv(_, request) = request else { return Reply::Refused("this is a toy".to_owned()) };
    let refusal = |error: ExecuteError| match error {
        ExecuteError::NotLeader { hint } => {
            let member = |id: NodeId| members.iter().find(|(node, _)| *node == id);
            let hint = hint.and_then(member).map(|(_, address)| address.clone());
            KvRefusal::NotLeader { hint }
        }
        ExecuteError::Unknown => KvRefusal::Unknown,
        ExecuteError::NotExecuted => KvRefusal::NotExecuted,
        ExecuteError::Busy => KvRefusal::Busy,
        ExecuteError::DiskFull => KvRefusal::DiskFull,
    };
    let answer = match request {
        KvRequest::Get { key, .. } => match replica.query(key, DEADLINE).await {
            Ok((0, _)) => Ok(KvReply::Value { value: None, version: Version(0) }),
            Ok((version, value)) => Ok(KvReply::Value { value: Some(value), version: Version(version) }),
            Err(error) => Err(refusal(error)),
        },
        KvRequest::Write { key, write, .. } => {
            match replica.execute(&Change { key, write }, DEADLINE).await {
                Ok(Ok(version)) => Ok(KvReply::Written { version: Version(version) }),
                Ok(Err(version)) => Err(KvRefusal::VersionMismatch { version: Version(version) }),
                Err(error) => Err(refusal(error)),
            }
        }
        other => Err(KvRefusal::Malformed(format!("{other:?} is not for a toy"))),
    };
    Reply::Kv(answer)
}

/// The product's request for a workload's request.
fn translate(request: &workload::Request) -> KvRequest {
    let key = Bytes::from(request.key.clone());
    let value = Bytes::from(request.value.clone().unwrap_or_default());
    let config = ConfigNum(0);
    let write = match request.op {
        Op::Get => return KvRequest::Get { key, config },
        Op::Put => Write::Put { value, expected: None },
        Op::Cas => Write::Put { value, expected: request.expected.map(Version) },
        Op::Append => Write::Append { piece: value },
        Op::Delete => Write::Delete,
    };
    KvRequest::Write { key, write, ticket: None, config }
}

/// A client of a toy group.
pub struct ToyStore {
    pub calls: super::network::Calls,
    /// The group's servers.
    pub servers: Vec<Name>,
    /// The client's random numbers.
    pub random: Generator,
    /// The server to ask first.
    pub at: usize,
}

/// One try.
enum Try {
    Over(Answer),
    /// Definitely not done; the leader may be at this address.
    Again(Option<Address>),
    Unknown,
}

impl ToyStore {
    async fn attempt(&self, request: KvRequest, left: Duration) -> Try {
        let to = self.servers[self.at].to_string();
        match self.calls.kv(&to, GroupId(1), request, left).await {
            Ok(Ok(KvReply::Value { value, version })) => {
                Try::Over(Answer::Done { output: value, version: version.0 })
            }
            Ok(Ok(KvReply::Written { version })) => {
                Try::Over(Answer::Done { output: None, version: version.0 })
            }
            Ok(Err(KvRefusal::VersionMismatch { version })) => Try::Over(Answer::Mismatch(version.0)),
            Ok(Err(KvRefusal::NotLeader { hint })) => Try::Again(hint),
            Ok(Err(KvRefusal::NotExecuted | KvRefusal::Busy)) | Err(CallError::NotSent { .. }) => {
                Try::Again(None)
            }
            Ok(_) | Err(_) => Try::Unknown,
        }
    }
}

impl Store for ToyStore {
    fn run<'a>(&'a mut self, request: &'a workload::Request) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            let start = clock::now();
            loop {
                let left = PATIENCE.saturating_sub(start.elapsed());
                if left.is_zero() {
                    return Answer::Refused;
                }
                let left = left.min(TRY_MAX.mul_f64(self.random.random()).max(TRY_MIN));
                let hint = match self.attempt(translate(request), left).await {
                    Try::Over(answer) => return answer,
                    Try::Unknown if request.op != Op::Get => return Answer::Unknown,
                    Try::Unknown => None,
                    Try::Again(hint) => hint,
                };
                let hinted = hint.and_then(|hint| self.servers.iter().position(|name| **name == *hint));
                self.at = hinted.unwrap_or((self.at + 1) % self.servers.len());
                clock::sleep(BACK_OFF_MAX.mul_f64(self.random.random())).await;
            }
        })
    }
}
