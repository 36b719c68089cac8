//! A small service for runs of a single group, over [`raft::rsm::toy`]: keys with versions, without
//! sessions or shards.
//!
//! It uses the product's requests, so the same workload and the same network serve it. Without
//! sessions nothing may be sent twice: if a client cannot know what became of a write, it says so.

use std::sync::Arc;
use std::time::Duration;

use base::clock;
use bytes::Bytes;
use clerk::api::kv::{KvRefusal, KvReply, KvRequest, Write};
use clerk::api::{Address, ConfigNum, GroupId, Version};
use clerk::connection::{CallError, Connection};
use futures::future::BoxFuture;
use raft::rsm::toy::{Change, Command, Toy};
use raft::{ExecuteError, NodeId, Replica};
use rand::RngExt;

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
/// The toy's change for a write of the product.
fn change(write: Write) -> Change {
    match write {
        Write::Put { value, expected } => Change::Put { value, expected: expected.map(|version| version.0) },
        Write::Append { piece } => Change::Append(piece),
        Write::Delete => Change::Delete,
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
            Ok(None) => Ok(KvReply::Value { value: None, version: Version(0) }),
            Ok(Some(cell)) => Ok(KvReply::Value { value: Some(cell.value), version: Version(cell.version) }),
            Err(error) => Err(refusal(error)),
        },
        KvRequest::Write { key, write, .. } => {
            match replica.execute(&Command::new(key, change(write)), DEADLINE).await {
                Ok(Ok(outcome)) => {
                    // A delete is answered with the version that it removed.
                    let cell = outcome.after.or(outcome.before);
                    Ok(KvReply::Written { version: Version(cell.map_or(0, |cell| cell.version)) })
                }
                Ok(Err(mismatch)) => Err(KvRefusal::VersionMismatch { version: Version(mismatch.version) }),
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
