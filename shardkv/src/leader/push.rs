//! Pushes one shard to its new group, from the leader of the group that has it.
//!
//! While the shard is served here (`Leaving`), the push offers it to the new owner again and again.
//! Once the new owner awaits it, the shard is sealed; from then on it is frozen (`Handing`). Then
//! the push asks for the receiver's cursor and sends the rows after it. Several chunks are under
//! way at the same time, each after the cursor that the previous one makes, so one travels while
//! another is synced. The receiver takes a chunk that continues its cursor. It answers every other
//! chunk with its cursor, and the push continues from there. When all rows have arrived, the push
//! sends Activate with the cursor of its own rows.
//!
//! "Done(m)" ends the push: then, and only then, Release(m) goes through this group's log.
//! "Refused(m)" also ends it: the receiver will never take the shard by this move, so Reopen(m)
//! goes through this group's log, and the shard is served here again (correctness rules 37, 38). A
//! push remembers no rows, only how far it has counted them; nobody changes them while the shard is
//! sealed. Each chunk is read after the state that permits sending it, and a new leader continues
//! by asking (rule 41). The address is always from the newest book, whatever configuration moves
//! the shard.
//!
//! Left out on purpose: an earlier check of the rows that have arrived (Activate compares all of
//! them), and copying rows while the shard is still served.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::clock;
use bytes::Bytes;
use clerk::api::config::Place;
use clerk::api::kv::KvRefusal;
use clerk::api::push::{Cursor, PushReply, PushRequest, Sender};
use clerk::api::{Address, ConfigNum, GroupId, ShardId};
use clerk::connection::{CallError, Connection};
use futures::StreamExt as _;
use futures::stream::FuturesOrdered;
use raft::rsm::Replica;
use raft::storage::{Read, Row, Table};
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use crate::leader::configs::Knowledge;
use crate::leader::progress::Progress;
use crate::machine::Machine;
use crate::machine::command::Command;
use crate::machine::rows;
use crate::machine::shard::ShardState;

/// Bytes of Installs under way to one group, all shards together.
pub(crate) const IN_FLIGHT_BYTES_MAX: usize = 1 << 20;
/// Time for an answer. It is short, because a message may be lost and repeating it is harmless. It
/// grows with the bytes, because a single row may be large.
const CALL: Duration = Duration::from_secs(1);
const CALL_BYTES_PER_SECOND: usize = 8 << 20;
const BACK_OFF_MIN: Duration = Duration::from_millis(20);
const BACK_OFF_MAX: Duration = Duration::from_millis(80);
const EXECUTE_DEADLINE: Duration = Duration::from_secs(5);

/// State that all pushes to one group share.
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
    /// Whether a chunk of the usual size may leave now.
    fn has_room(&self) -> bool {
        self.in_flight.available_permits() >= rows::CHUNK_BYTES
    }

    /// Reserves room for a chunk, now or when its turn comes. A row that is larger than all the
    /// room travels alone.
    async fn room(&self, weight: usize, wait: bool) -> Option<SemaphorePermit<'_>> {
        let permits = u32::try_from(weight.min(IN_FLIGHT_BYTES_MAX)).unwrap_or(u32::MAX);
        match wait {
            true => self.in_flight.acquire_many(permits).await.ok(),
            false => self.in_flight.try_acquire_many(permits).ok(),
        }
    }

    /// Time for the answer to a chunk. The receiver handles the bytes under way in order.
    fn time(&self, weight: usize) -> Duration {
        let ahead = IN_FLIGHT_BYTES_MAX - self.in_flight.available_permits();
        CALL + Duration::from_secs(1).mul_f64(ahead.max(weight) as f64 / CALL_BYTES_PER_SECOND as f64)
    }

    fn leader(&self) -> Option<Address> {
        self.leader.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_leader(&self, leader: Option<Address>) {
        *self.leader.lock().unwrap_or_else(PoisonError::into_inner) = leader;
    }
}

/// A push of (`config`, `shard`).
pub(crate) struct Push {
    pub(crate) replica: Replica<Machine>,
    pub(crate) connection: Arc<dyn Connection>,
    pub(crate) knowledge: watch::Receiver<Knowledge>,
    pub(crate) progress: Progress,
    pub(crate) receiver: Arc<Receiver>,
    pub(crate) me: Sender,
    pub(crate) shard: ShardId,
    pub(crate) config: Place,
    pub(crate) to: GroupId,
    /// An unexpected refusal is reported once.
    pub(crate) complained: AtomicBool,
    pub(crate) shard_count: u32,
    pub(crate) random: StdRng,
}

/// How far a move is at its source.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Served here.
    Offered,
    /// Frozen.
    Sealed,
}

/// How far the move `num` of `shard` to that group is; none if it is over. Read this before the
/// rows, never after.
fn stage(table: &dyn Read, num: ConfigNum, shard: ShardId, to: GroupId) -> Option<Stage> {
    match rows::state(table, shard) {
        ShardState::Leaving { to: there, num: move_ } if (there, move_) == (to, num) => Some(Stage::Offered),
        ShardState::Handing { to: there, num: move_, .. } if (there, move_) == (to, num) => {
            Some(Stage::Sealed)
        }
        _ => None,
    }
}

/// The receiver's answer.
enum Answer {
    /// It awaits the shard and has the rows up to here.
    At(Cursor),
    /// It has the shard: release it.
    Done,
    /// It will never take the shard: reopen it.
    Refused,
    /// Ask another server of the group.
    Elsewhere(Option<Address>),
    /// Ask later.
    Wait,
}

impl Push {
    /// Pushes until the shard is released, or served here again, or must no longer be pushed.
    pub(crate) async fn run(mut self) -> ShardId {
        let mut at = 0;
        let mut cursor: Option<Cursor> = None;
        let mut counted = Cursor::default();
        let mut back_off = BACK_OFF_MIN;
        while let Some(stage) = self.stage() {
            let Some(address) = self.receiver.leader().or_else(|| self.address(at)) else {
                self.pause(&mut back_off).await;
                continue;
            };
            let answer = match (stage, cursor.take()) {
                (Stage::Offered, _) => Some(self.offer(&address).await),
                (Stage::Sealed, None) => Some(self.question(&address).await),
                (Stage::Sealed, Some(cursor)) => self.send(&address, cursor, &mut counted).await,
            };
            match answer {
                None => break,
                Some(Answer::At(reached)) => {
                    back_off = BACK_OFF_MIN;
                    self.arrived(&address, &reached);
                    match stage {
                        Stage::Offered if !self.execute(self.seal()).await => self.pause(&mut back_off).await,
                        Stage::Offered => {}
                        Stage::Sealed => cursor = Some(reached),
                    }
                    continue;
                }
                Some(Answer::Done) => {
                    self.receiver.set_leader(Some(address));
                    match stage {
                        Stage::Offered => self.complain(&"it says that it has the shard"),
                        Stage::Sealed if self.execute(self.release()).await => break,
                        Stage::Sealed => {}
                    }
                }
                // While the shard is served here, the next configuration decides about it.
                Some(Answer::Refused) => {
                    self.receiver.set_leader(Some(address));
                    if stage == Stage::Sealed && self.execute(self.reopen()).await {
                        break;
                    }
                }
                Some(Answer::Elsewhere(leader)) => {
                    self.receiver.set_leader(leader.filter(|leader| *leader != address));
                    at = self.after(&address, at);
                }
                // A server that does not lead says so. But a server that answers "later" for long
                // may be wrong: ask another one.
                Some(Answer::Wait) if back_off >= BACK_OFF_MAX => {
                    self.receiver.set_leader(None);
                    at = self.after(&address, at);
                }
                Some(Answer::Wait) => {}
            }
            self.pause(&mut back_off).await;
        }
        self.progress.forget(self.shard);
        self.shard
    }

    /// How far the move is.
    fn stage(&self) -> Option<Stage> {
        stage(&**self.replica.table(), self.config.num, self.shard, self.to)
    }

    /// The rows after `after`; none if the shard must no longer be pushed.
    async fn chunk(&self, after: Option<Bytes>) -> Option<Vec<Row>> {
        let (num, shard, to, shard_count) = (self.config.num, self.shard, self.to, self.shard_count);
        let read = move |table: &dyn Table| {
            let sealed = stage(table, num, shard, to) == Some(Stage::Sealed);
            sealed.then(|| rows::chunk(table, shard, shard_count, after.as_ref()))
        };
        self.replica.read(read).await
    }

    fn arrived(&self, address: &Address, reached: &Cursor) {
        self.receiver.set_leader(Some(address.clone()));
        self.progress.set(self.shard, self.config.num, reached.rows);
    }

    /// Asks whether the receiver would take the shard now.
    async fn offer(&self, address: &Address) -> Answer {
        let (shard, config, from) = (self.shard, self.config, self.me.group);
        self.ask(address, PushRequest::Offer { shard, config, from }, CALL).await
    }

    /// Asks for the cursor.
    async fn question(&self, address: &Address) -> Answer {
        let (shard, config, from) = (self.shard, self.config, self.me.group);
        let (after, rows) = (Cursor::default(), Vec::new());
        self.ask(address, PushRequest::Install { shard, config, from, after, rows }, CALL).await
    }

    /// Sends the rows after `next`, and Activate when all have arrived. Returns the first
    /// unexpected answer, as soon as nothing is under way any more. Returns none if the shard must
    /// no longer be pushed. `counted` is the cursor of this shard's own first rows, as far as it is
    /// known.
    ///
    /// It begins with one chunk, and each chunk that is taken permits one more under way. So if
    /// nothing is taken, only one chunk at a time is sent in vain.
    async fn send(&self, address: &Address, mut next: Cursor, counted: &mut Cursor) -> Option<Answer> {
        let (shard, config, from) = (self.shard, self.config, self.me.group);
        let mut under_way = FuturesOrdered::new();
        let mut taken = 0;
        loop {
            while under_way.is_empty() || under_way.len() <= taken && self.receiver.has_room() {
                let rows = self.chunk(next.last.clone()).await?;
                if rows.is_empty() || base::mutant!("activate-before-rows") {
                    break;
                }
                let weight = rows.iter().map(rows::weight).sum();
                // Only a push with nothing under way waits for the chunks of other shards.
                let Some(room) = self.receiver.room(weight, under_way.is_empty()).await else { break };
                let expected = rows::advance(next.clone(), &rows);
                let after = std::mem::replace(&mut next, expected.clone());
                if *counted == after {
                    *counted = expected.clone();
                }
                let request = PushRequest::Install { shard, config, from, after, rows };
                under_way.push_back(async move {
                    let answer = self.ask(address, request, self.receiver.time(weight)).await;
                    drop(room);
                    (answer, expected)
                });
            }
            match under_way.next().await {
                Some((Answer::At(reached), expected)) if reached == expected => {
                    taken += 1;
                    self.arrived(address, &reached);
                }
                Some((answer, _)) => {
                    // If a chunk was not taken, those after it are not taken either.
                    while under_way.next().await.is_some() {}
                    return Some(answer);
                }
                None => {
                    // If that does not match, all rows are counted again.
                    let end = self.end(std::mem::take(counted)).await?;
                    let activate = PushRequest::Activate { shard, config, from, end };
                    return Some(self.ask(address, activate, CALL).await);
                }
            }
        }
    }

    /// The cursor that all rows make: `end` covers those that are counted already, and the others
    /// are read page by page.
    async fn end(&self, mut end: Cursor) -> Option<Cursor> {
        loop {
            let chunk = self.chunk(end.last.clone()).await?;
            if chunk.is_empty() {
                return Some(end);
            }
            end = rows::advance(end, &chunk);
            tokio::task::yield_now().await;
        }
    }

    /// Server number `at` of the receiving group in the newest book.
    fn address(&self, at: usize) -> Option<Address> {
        let book = Arc::clone(&self.knowledge.borrow().book);
        let servers = book.addresses(self.to);
        servers.get(at.checked_rem(servers.len())?).cloned()
    }

    /// The number of the server to ask after `address` was asked in vain. `address` may have been
    /// remembered. It must not be asked again when its turn comes, because a silent server costs a
    /// second each time.
    fn after(&self, address: &Address, at: usize) -> usize {
        let book = Arc::clone(&self.knowledge.borrow().book);
        let place = book.addresses(self.to).iter().position(|it| it == address);
        place.unwrap_or(at) + 1
    }

    async fn ask(&self, address: &Address, request: PushRequest, deadline: Duration) -> Answer {
        let ours = self.config.num;
        match self.connection.push(address, self.to, self.me, request, deadline).await {
            Ok(Ok(PushReply::Cursor { num, cursor })) if num == ours => Answer::At(cursor),
            Ok(Ok(PushReply::Done { num })) if num == ours => Answer::Done,
            Ok(Ok(PushReply::Refused { num })) if num == ours => Answer::Refused,
            Ok(Err(KvRefusal::NotLeader { hint })) => Answer::Elsewhere(hint),
            // The receiver serves its own clients first, or it has not reached this configuration
            // yet.
            Ok(Err(KvRefusal::Busy | KvRefusal::DiskFull | KvRefusal::NotReady { .. })) => Answer::Wait,
            // It stays refused until an operator repairs it. The rows stay here.
            Ok(Err(
                why @ (KvRefusal::OtherHistory { .. } | KvRefusal::LostData { .. } | KvRefusal::Malformed(_)),
            )) => {
                self.complain(&why);
                Answer::Wait
            }
            Ok(answer) => {
                tracing::debug!(shard = %self.shard, config = %ours, to = %self.to, ?answer, "push");
                Answer::Wait
            }
            Err(_) if base::mutant!("release-unacknowledged") => Answer::Done,
            Err(CallError::Busy { .. }) => Answer::Wait,
            Err(error) => {
                if let CallError::Refused { .. } = error {
                    self.complain(&error);
                }
                tracing::debug!(shard = %self.shard, config = %ours, to = %self.to, %error, "push");
                Answer::Elsewhere(None)
            }
        }
    }

    fn complain(&self, why: &dyn fmt::Display) {
        if !self.complained.swap(true, Ordering::Relaxed) {
            tracing::error!(
                shard = %self.shard, config = %self.config, to = %self.to, %why,
                "the new owner does not take a shard: its rows stay here"
            );
        }
    }

    fn seal(&self) -> Command {
        Command::Seal { shard: self.shard, num: self.config.num }
    }

    fn release(&self) -> Command {
        Command::Release { shard: self.shard, num: self.config.num }
    }

    fn reopen(&self) -> Command {
        Command::Reopen { shard: self.shard, num: self.config.num }
    }

    /// Sends a command through this group's log. Returns whether its outcome is known; if not, the
    /// rows will show it.
    async fn execute(&self, command: Command) -> bool {
        self.replica.execute_freeing(&command, EXECUTE_DEADLINE).await.is_ok()
    }

    async fn pause(&mut self, back_off: &mut Duration) {
        let share = self.random.random_range(0.5..1.0);
        clock::sleep(back_off.mul_f64(share)).await;
        *back_off = (*back_off * 2).min(BACK_OFF_MAX);
    }
}
