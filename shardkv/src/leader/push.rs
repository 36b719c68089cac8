//! One shard's way to its new group, from the leader of the group that has it.
//!
//! While the shard is served here (`Leaving`) it is offered to the new owner, again and again. Only when that one
//! awaits it is it sealed, and from then on frozen (`Handing`). Then the push asks where the receiver's cursor is and
//! sends the rows after it: several chunks at once, each after the cursor that the one before it makes, so that one
//! travels while another is synced. The receiver takes what continues its cursor and answers everything else with
//! where that is; the push then goes on from there. When all rows have arrived it says Activate with the cursor that
//! its own rows make.
//!
//! "Done(m)" ends it: then, and only then, Release(m) goes through the own log. "Refused(m)" ends it, too: the
//! receiver will never take the shard by this move, so Reopen(m) goes through the own log, and the shard is served
//! here again (correctness rules 37, 38). A push remembers no rows, only how far it has counted them, which nobody
//! changes while the shard is sealed: each chunk is read after the state that permits sending it, and a new leader
//! goes on by asking (rule 41). The address is always that of the newest book, whatever configuration moves the shard.
//!
//! Left out on purpose: the check of what is there already before the end (Activate compares everything), and copying
//! rows while the shard is still served.

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

/// Bytes of Installs on their way to one group, all shards together.
pub(crate) const IN_FLIGHT_BYTES_MAX: usize = 1 << 20;
/// Time for an answer: short, for a message may be lost and repeating one is harmless; and more for each
/// byte, since a single row may be large.
const CALL: Duration = Duration::from_secs(1);
const CALL_BYTES_PER_SECOND: usize = 8 << 20;
const BACK_OFF_MIN: Duration = Duration::from_millis(20);
const BACK_OFF_MAX: Duration = Duration::from_millis(80);
const EXECUTE_DEADLINE: Duration = Duration::from_secs(5);

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
    /// Whether a chunk of the usual size may leave at once.
    fn has_room(&self) -> bool {
        self.in_flight.available_permits() >= rows::CHUNK_BYTES
    }

    /// Room for a chunk: now, or when its turn comes. A row that is larger than all of it travels alone.
    async fn room(&self, weight: usize, wait: bool) -> Option<SemaphorePermit<'_>> {
        let permits = u32::try_from(weight.min(IN_FLIGHT_BYTES_MAX)).unwrap_or(u32::MAX);
        match wait {
            true => self.in_flight.acquire_many(permits).await.ok(),
            false => self.in_flight.try_acquire_many(permits).ok(),
        }
    }

    /// Time for the answer to a chunk: what is on its way is dealt with in turn.
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
    /// A refusal that nobody expects is told once.
    pub(crate) complained: AtomicBool,
    pub(crate) shard_count: u32,
    pub(crate) random: StdRng,
}

/// Where a move stands at its source.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Served here.
    Offered,
    /// Frozen.
    Sealed,
}

/// Where the move `num` of `shard` to that group stands; none: it is over. Asked before rows are read, never after.
fn stage(table: &dyn Read, num: ConfigNum, shard: ShardId, to: GroupId) -> Option<Stage> {
    match rows::state(table, shard) {
        ShardState::Leaving { to: there, num: move_ } if (there, move_) == (to, num) => Some(Stage::Offered),
        ShardState::Handing { to: there, num: move_, .. } if (there, move_) == (to, num) => {
            Some(Stage::Sealed)
        }
        _ => None,
    }
}

/// What the receiver said.
enum Answer {
    /// Awaited, and so far.
    At(Cursor),
    /// Release.
    Done,
    /// Reopen.
    Refused,
    /// Another server of the group may know more.
    Elsewhere(Option<Address>),
    /// Later.
    Wait,
}

impl Push {
    /// Pushes until the shard is released or served here again, or is no longer to be pushed.
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
                // While the shard is served here, the next configuration will say what becomes of it.
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
                // Whoever does not lead says so; but a server that says "later" for long is worth a doubt.
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

    /// Where the move stands.
    fn stage(&self) -> Option<Stage> {
        stage(&**self.replica.table(), self.config.num, self.shard, self.to)
    }

    /// The rows after `after`; none if the shard is not to be pushed any more.
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

    /// Asks where the cursor is.
    async fn question(&self, address: &Address) -> Answer {
        let (shard, config, from) = (self.shard, self.config, self.me.group);
        let (after, rows) = (Cursor::default(), Vec::new());
        self.ask(address, PushRequest::Install { shard, config, from, after, rows }, CALL).await
    }

    /// Sends the rows behind `next`, and Activate when all have arrived. Returns the first answer that is not the
    /// one expected, as soon as nothing is on its way any more; none when the shard is not to be pushed any more.
    /// `counted` is the cursor of this shard's own first rows, up to where that is known.
    ///
    /// It begins with one chunk, and each that is taken lets one more be on its way: where nothing is taken, one
    /// chunk at a time is sent in vain, not all that may be on its way.
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
                // Only who has nothing on its way waits for the other shards' chunks to arrive.
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
                    // What follows a chunk that was not taken is not taken either.
                    while under_way.next().await.is_some() {}
                    return Some(answer);
                }
                None => {
                    // Should it not do, all are counted anew.
                    let end = self.end(std::mem::take(counted)).await?;
                    let activate = PushRequest::Activate { shard, config, from, end };
                    return Some(self.ask(address, activate, CALL).await);
                }
            }
        }
    }

    /// The cursor that all rows make: `end` of those that are counted already, and the others, read page by page.
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

    /// The `at`-th server of the receiving group in the newest book.
    fn address(&self, at: usize) -> Option<Address> {
        let book = Arc::clone(&self.knowledge.borrow().book);
        let servers = book.addresses(self.to);
        servers.get(at.checked_rem(servers.len())?).cloned()
    }

    /// Whose turn it is after `address` was asked in vain. That one may have been remembered: it must not be asked
    /// again because its turn comes, for a silent one costs a second each time.
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
            // The receiver's own clients go first, or it has not come to this configuration yet.
            Ok(Err(KvRefusal::Busy | KvRefusal::DiskFull | KvRefusal::NotReady { .. })) => Answer::Wait,
            // It stays refused until somebody mends it. The rows stay here.
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

    /// Brings a command through the own log. Whether its fate is known; if not, the rows will tell.
    async fn execute(&self, command: Command) -> bool {
        self.replica.execute_freeing(&command, EXECUTE_DEADLINE).await.is_ok()
    }

    async fn pause(&mut self, back_off: &mut Duration) {
        let share = self.random.random_range(0.5..1.0);
        clock::sleep(back_off.mul_f64(share)).await;
        *back_off = (*back_off * 2).min(BACK_OFF_MAX);
    }
}
