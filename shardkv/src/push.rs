//! One shard's way to its new group, from the leader of the group that hands it over.
//!
//! It asks where the receiver's cursor is, sends the rows behind it, and so on; when nothing is behind the
//! cursor it says Activate with the cursor that all its rows make. "Already done(n, s)" ends it: then, and
//! only then, Release(n, s) goes through the own log (correctness rules 37, 38). It remembers no rows and
//! no hash: each chunk is read after the state that permits sending it, and a new leader goes on by asking
//! (rule 41). The address is always that of the newest book, whatever configuration is being settled.
//!
//! Left out on purpose: sending several chunks of one shard at once (shards go in parallel), and the check
//! of what is there already before the end (Activate compares everything).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::clock;
use clerk::api::kv::{Cursor, KvRefusal, KvReply, KvRequest};
use clerk::api::{Address, ConfigNum, GroupId, ShardId};
use clerk::connection::Connection;
use raft::rsm::Replica;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::{Semaphore, watch};

use crate::command::Command;
use crate::configs::Knowledge;
use crate::mover::Progress;
use crate::rows;
use crate::shard::ShardState;
use crate::state_machine::Machine;

/// Bytes of Installs on their way to one group, all shards together.
pub(crate) const IN_FLIGHT_BYTES_MAX: usize = 1 << 20;
/// Time for an answer: short, for a message may be lost and repeating one is harmless; and more for each
/// byte, since a single row may be large.
const CALL: Duration = Duration::from_secs(1);
const CALL_BYTES_PER_SECOND: usize = 8 << 20;
const BACK_OFF_MIN: Duration = Duration::from_millis(20);
const BACK_OFF_MAX: Duration = Duration::from_millis(80);
const RELEASE_DEADLINE: Duration = Duration::from_secs(5);

/// What all pushes to one group share.
pub(crate) struct Receiver {
    /// Bytes in flight to it.
    in_flight: Semaphore,
    /// The server that answered last, or that was named as the leader.
    leader: Mutex<Option<Address>>,
}

impl Default for Receiver {
    fn default() -> Self {
        Self { in_flight: Semaphore::new(IN_FLIGHT_BYTES_MAX), leader: Mutex::default() }
    }
}

impl Receiver {
    fn leader(&self) -> Option<Address> {
        self.leader.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_leader(&self, leader: Option<Address>) {
        *self.leader.lock().unwrap_or_else(PoisonError::into_inner) = leader;
    }
}

/// A push of (`num`, `shard`).
pub(crate) struct Push {
    pub(crate) replica: Replica<Machine>,
    pub(crate) connection: Arc<dyn Connection>,
    pub(crate) knowledge: watch::Receiver<Knowledge>,
    pub(crate) progress: Progress,
    pub(crate) receiver: Arc<Receiver>,
    pub(crate) me: GroupId,
    pub(crate) shard: ShardId,
    pub(crate) num: ConfigNum,
    pub(crate) to: GroupId,
    pub(crate) shard_count: u32,
    pub(crate) random: StdRng,
}

/// What the receiver said.
enum Answer {
    /// Awaited, and so far.
    At(Cursor),
    /// Release.
    Done,
    /// Another server of the group may know more.
    Elsewhere(Option<Address>),
    /// Later.
    Wait,
}

impl Push {
    /// Pushes until the shard is released, or is no longer to be pushed.
    pub(crate) async fn run(mut self) -> ShardId {
        let mut at = 0;
        let mut cursor: Option<Cursor> = None;
        let mut back_off = BACK_OFF_MIN;
        while let Some((request, weight)) = self.request(cursor.take()).await {
            let Some(address) = self.receiver.leader().or_else(|| self.address(at)) else {
                self.pause(&mut back_off).await;
                continue;
            };
            match self.ask(&address, request, weight).await {
                Answer::At(reached) => {
                    back_off = BACK_OFF_MIN;
                    self.receiver.set_leader(Some(address));
                    self.progress.set(self.shard, self.num, reached.rows);
                    cursor = Some(reached);
                    continue;
                }
                Answer::Done => {
                    self.receiver.set_leader(Some(address));
                    if self.release().await {
                        break;
                    }
                }
                Answer::Elsewhere(leader) => {
                    self.receiver.set_leader(leader.filter(|leader| *leader != address));
                    at += 1;
                }
                // Whoever does not lead says so; but a server that says "later" for long is worth a doubt.
                Answer::Wait if back_off >= BACK_OFF_MAX => {
                    self.receiver.set_leader(None);
                    at += 1;
                }
                Answer::Wait => {}
            }
            self.pause(&mut back_off).await;
        }
        self.progress.forget(self.shard);
        self.shard
    }

    /// Whether the shard is (still) to be pushed. Asked before its rows are read, never after.
    fn handing(&self) -> bool {
        let table = self.replica.table();
        rows::config_num(&**table) == Some(self.num)
            && rows::state(&**table, self.shard) == (ShardState::Handing { to: self.to })
    }

    /// The next request and the bytes it is counted with: a question, rows behind the cursor, or Activate.
    /// None when the shard is not to be pushed any more.
    async fn request(&self, cursor: Option<Cursor>) -> Option<(KvRequest, usize)> {
        if !self.handing() {
            return None;
        }
        let (shard, num, from) = (self.shard, self.num, self.me);
        let Some(after) = cursor else {
            let question =
                KvRequest::Install { shard, num, from, after: Cursor::default(), rows: Vec::new() };
            return Some((question, 0));
        };
        let table = self.replica.table();
        let chunk = rows::chunk(&**table, shard, self.shard_count, after.last.as_ref());
        if !chunk.is_empty() && !base::mutant!("activate-before-rows") {
            let weight = chunk.iter().map(rows::weight).sum();
            return Some((KvRequest::Install { shard, num, from, after, rows: chunk }, weight));
        }
        let end = self.end().await?;
        Some((KvRequest::Activate { shard, num, from, end }, 0))
    }

    /// The cursor that all rows make, read page by page.
    async fn end(&self) -> Option<Cursor> {
        let mut end = Cursor::default();
        loop {
            if !self.handing() {
                return None;
            }
            let chunk = rows::chunk(&**self.replica.table(), self.shard, self.shard_count, end.last.as_ref());
            if chunk.is_empty() {
                return Some(end);
            }
            end = rows::advance(end, &chunk);
            tokio::task::yield_now().await;
        }
    }

    /// The `at`-th server of the receiving group in the newest book.
    fn address(&self, at: usize) -> Option<Address> {
        let book = Arc::clone(&self.knowledge.borrow().book);
        let servers = book.groups.get(&self.to)?;
        servers.get(at.checked_rem(servers.len())?).cloned()
    }

    async fn ask(&self, address: &Address, request: KvRequest, weight: usize) -> Answer {
        let permits = u32::try_from(weight.min(IN_FLIGHT_BYTES_MAX)).unwrap_or(u32::MAX);
        let Ok(_in_flight) = self.receiver.in_flight.acquire_many(permits).await else { return Answer::Wait };
        let deadline = CALL + Duration::from_secs(1).mul_f64(weight as f64 / CALL_BYTES_PER_SECOND as f64);
        match self.connection.kv(address, self.to, request, deadline).await {
            Ok(Ok(KvReply::Cursor { num, cursor })) if num == self.num => Answer::At(cursor),
            Ok(Ok(KvReply::AlreadyDone { num })) if num == self.num => Answer::Done,
            Ok(Err(KvRefusal::NotLeader { hint })) => Answer::Elsewhere(hint),
            // The receiver's own clients go first, or it has not come to this configuration yet.
            Ok(Err(KvRefusal::Busy | KvRefusal::DiskFull | KvRefusal::NotReady { .. })) => Answer::Wait,
            Ok(answer) => {
                tracing::debug!(shard = %self.shard, config = %self.num, to = %self.to, ?answer, "push");
                Answer::Wait
            }
            Err(_) if base::mutant!("release-unacknowledged") => Answer::Done,
            Err(error) => {
                tracing::debug!(shard = %self.shard, config = %self.num, to = %self.to, %error, "push");
                Answer::Elsewhere(None)
            }
        }
    }

    /// Drops the shard here. Whether the command's fate is known; if not, the rows will tell.
    async fn release(&self) -> bool {
        let command = Command::Release { shard: self.shard, num: self.num };
        self.replica.execute_freeing(&command, RELEASE_DEADLINE).await.is_ok()
    }

    async fn pause(&mut self, back_off: &mut Duration) {
        let share = self.random.random_range(0.5..1.0);
        clock::sleep(back_off.mul_f64(share)).await;
        *back_off = (*back_off * 2).min(BACK_OFF_MAX);
    }
}
