//! Pushes one shard to its new group, from the leader of the group that has it.
//!
//! The push offers the shard to the new owner again and again. Once that awaits it, it answers how
//! far its copy is, and the push sends what is next ([`plan`](crate::machine::plan)): rows, then
//! changes, while clients are served (`Leaving`). Several chunks are under way at the same time, each
//! after the cursor that the previous one makes, so one travels while another is synced. The receiver
//! takes a chunk that continues its copy. It answers every other chunk with its cursor, and the push
//! continues from there.
//!
//! When little is missing, the push *holds* the shard for some milliseconds: writes wait, and the
//! Seal goes through this group's log (`Handing`). From then on the rows are frozen. Activate
//! carries the last of them, and the receiver serves the shard.
//!
//! "Done(m)" ends the push: then, and only then, Release(m) goes through this group's log.
//! "Refused(m)" for a sealed shard also ends it: the receiver will never take the shard by this move,
//! so Reopen(m) goes through this group's log, and the shard is served here again (correctness rules
//! 37, 38). A push remembers no rows. What it sends is read after the state that permits sending it,
//! and a new leader continues by asking (rule 41). The address is always from the newest book,
//! whatever configuration moves the shard.
//!
//! Left out on purpose: which rows are sent when (`plan`).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::clock;
use clerk::api::config::Place;
use clerk::api::kv::KvRefusal;
use clerk::api::push::{Change, Copied, Cursor, End, PushReply, PushRequest, Reach, Sender};
use clerk::api::status::CopyStep;
use clerk::api::{Address, ShardId};
use clerk::connection::{CallError, Connection};
use futures::StreamExt as _;
use futures::stream::FuturesOrdered;
use raft::rsm::Replica;
use raft::storage::Table;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::watch;

use crate::leader::configs::Knowledge;
use crate::leader::gate::{Gate, Gates};
use crate::leader::holds::{HOLD_MIN, Holds};
use crate::leader::pace::Pace;
use crate::leader::progress::Progress;
use crate::leader::receiver::{CALL, Receiver};
use crate::machine::Machine;
use crate::machine::changes::Changes;
use crate::machine::command::{Command, Outcome};
use crate::machine::copy;
use crate::machine::plan::{Move, Next, Sealing, Stage};

const BACK_OFF_MIN: Duration = Duration::from_millis(20);
const BACK_OFF_MAX: Duration = Duration::from_millis(80);
const EXECUTE_DEADLINE: Duration = Duration::from_secs(5);
/// A pause of clients that is reported as too long.
const PAUSE_ALARM: Duration = Duration::from_secs(1);

/// A push of (`config`, `shard`).
pub(crate) struct Push {
    pub(crate) replica: Replica<Machine>,
    pub(crate) changes: Arc<Changes>,
    pub(crate) gates: Arc<Gates>,
    pub(crate) connection: Arc<dyn Connection>,
    pub(crate) knowledge: watch::Receiver<Knowledge>,
    pub(crate) progress: Progress,
    pub(crate) receiver: Arc<Receiver>,
    pub(crate) pace: Arc<Pace>,
    pub(crate) me: Sender,
    pub(crate) config: Place,
    pub(crate) what: Move,
    /// An unexpected refusal is reported once.
    pub(crate) complained: AtomicBool,
    pub(crate) random: StdRng,
}

/// The receiver's answer.
enum Answer {
    /// It awaits the shard and has this of it. It may have no room on its disks.
    At(Copied, bool),
    /// It has the shard: release it.
    Done,
    /// It will never take the shard: reopen it.
    Refused,
    /// Ask another server of the group.
    Elsewhere(Option<Address>),
    /// Ask later.
    Wait,
}

/// How sending ended.
enum Sent {
    /// With an answer that was not expected, or the last one.
    Answer(Answer),
    /// So little is missing that the shard may be sealed.
    Hold(Copied),
    /// This replica has not applied yet what the receiver has.
    Lags(Copied),
}

/// Where a push is.
struct Course {
    /// The server that is asked next.
    at: usize,
    /// What the receiver has, if that is known.
    copied: Option<Copied>,
    back_off: Duration,
    holds: Holds,
}

impl Push {
    /// Pushes until the shard is released, or served here again, or must no longer be pushed.
    pub(crate) async fn run(mut self) -> ShardId {
        let shard = self.what.shard;
        let gate = self.gates.put(shard);
        let mut course = Course { at: 0, copied: None, back_off: BACK_OFF_MIN, holds: Holds::new() };
        while let Some(stage) = self.stage() {
            let Some(address) = self.receiver.leader().or_else(|| self.address(course.at)) else {
                self.pause(&mut course.back_off).await;
                continue;
            };
            let sent = match course.copied.take() {
                None => {
                    self.shows(CopyStep::Asks);
                    Some(Sent::Answer(self.offer(&address).await))
                }
                Some(copied) => self.send(&address, copied).await,
            };
            match sent {
                None => break,
                Some(Sent::Answer(answer)) => {
                    if self.on_answer(&mut course, stage, address, answer).await {
                        break;
                    }
                }
                Some(Sent::Lags(reached)) => {
                    clock::sleep(BACK_OFF_MIN).await;
                    course.copied = Some(reached);
                }
                Some(Sent::Hold(reached)) => {
                    course.copied = self.hold(&address, &gate, &mut course.holds, reached).await;
                }
            }
        }
        self.progress.forget(shard);
        shard
    }

    /// Does what an answer permits. Returns whether the push is over.
    async fn on_answer(&mut self, course: &mut Course, stage: Stage, from: Address, answer: Answer) -> bool {
        match answer {
            // Its disks are full, and this group can serve the shard.
            Answer::At(_, true) if stage == Stage::Served => {}
            Answer::At(reached, _) => {
                course.back_off = BACK_OFF_MIN;
                self.arrived(&from, &reached);
                course.copied = Some(reached);
                return false;
            }
            Answer::Done => {
                self.receiver.set_leader(Some(from));
                match stage {
                    Stage::Served => self.complain(&"it says that it has the shard"),
                    Stage::Sealed => {
                        self.report_pause(&mut course.holds);
                        if self.execute(self.release()).await.is_some() {
                            return true;
                        }
                    }
                }
            }
            // While the shard is served here, the next configuration decides about it.
            Answer::Refused => {
                self.shows(CopyStep::Refused);
                self.receiver.set_leader(Some(from));
                if stage == Stage::Sealed && self.execute(self.reopen()).await.is_some() {
                    return true;
                }
            }
            Answer::Elsewhere(leader) => {
                self.receiver.set_leader(leader.filter(|leader| *leader != from));
                course.at = self.after(&from, course.at);
            }
            // A server that does not lead says so. But a server that answers "later" for long may be
            // wrong: ask another one.
            Answer::Wait if course.back_off >= BACK_OFF_MAX => {
                self.receiver.set_leader(None);
                course.at = self.after(&from, course.at);
            }
            Answer::Wait => {}
        }
        self.pause(&mut course.back_off).await;
        false
    }

    /// How far the move is.
    fn stage(&self) -> Option<Stage> {
        self.what.stage(&**self.replica.table())
    }

    /// Whether operators have limited how fast shards move.
    fn is_paced(&self) -> bool {
        self.knowledge.borrow().move_rate.is_some()
    }

    /// Reads rows, and the memory of changes, on another thread.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Move, &dyn Table, &Changes) -> T + Send + 'static,
    ) -> T {
        let (what, changes) = (self.what, Arc::clone(&self.changes));
        self.replica.read(move |table| read(&what, table, &changes)).await
    }

    fn arrived(&self, address: &Address, reached: &Copied) {
        self.receiver.set_leader(Some(address.clone()));
        let Move { shard, num, .. } = self.what;
        let changed = self.changes.lag(shard, num, reached.cursor.pos).map_or(0, |lag| lag.rows);
        self.progress.reached(shard, num, reached, changed);
    }

    fn shows(&self, step: CopyStep) {
        self.progress.step(self.what.shard, self.what.num, step);
    }

    /// Offers the shard, and asks for the cursor.
    async fn offer(&self, address: &Address) -> Answer {
        let (shard, config, from) = (self.what.shard, self.config, self.me.group);
        self.ask(address, PushRequest::Offer { shard, config, from }, CALL).await
    }

    async fn install(&self, address: &Address, after: Cursor, to: Cursor, rows: Vec<Change>) -> Answer {
        let (shard, config, from) = (self.what.shard, self.config, self.me.group);
        let (time, count) = (self.receiver.time(rows.iter().map(copy::weight).sum()), rows.len());
        let install = PushRequest::Install { shard, config, from, after, to: to.clone(), rows };
        let answer = self.ask(address, install, time).await;
        if matches!(&answer, Answer::At(reached, _) if reached.cursor == to) {
            self.progress.sent(count);
        }
        answer
    }

    async fn activate(&self, address: &Address, after: Cursor, rows: Vec<Change>, end: End) -> Answer {
        let (shard, config, from) = (self.what.shard, self.config, self.me.group);
        let (time, count) = (self.receiver.time(rows.iter().map(copy::weight).sum()), rows.len());
        let activate = PushRequest::Activate { shard, config, from, after, rows, end };
        let answer = self.ask(address, activate, time).await;
        if matches!(answer, Answer::Done) {
            self.progress.sent(count);
        }
        answer
    }

    /// Sends what is next, until all is sent. Returns the first unexpected answer, as soon as
    /// nothing is under way any more. Returns none if the shard must no longer be pushed.
    ///
    /// It begins with one chunk, and each chunk that is taken permits one more under way. So if
    /// nothing is taken, only one chunk at a time is sent in vain.
    async fn send(&self, address: &Address, mut next: Copied) -> Option<Sent> {
        let mut under_way = FuturesOrdered::new();
        let mut taken = 0;
        loop {
            while under_way.is_empty() || under_way.len() <= taken && self.receiver.has_room() {
                let from = next.clone();
                let (to, rows) =
                    match self.read(move |what, table, changes| what.next(table, changes, &from)).await? {
                        Next::Install { to, rows } => (to, rows),
                        _ if !under_way.is_empty() => break,
                        Next::Lags => return Some(Sent::Lags(next)),
                        Next::Hold => return Some(Sent::Hold(next)),
                        Next::Activate { rows, end } => {
                            return Some(Sent::Answer(self.activate(address, next.cursor, rows, end).await));
                        }
                    };
                match &to.reach {
                    Reach::Start => self.progress.starts_over(self.what.shard, self.what.num),
                    Reach::Key(_) => self.shows(CopyStep::Copies),
                    Reach::End => self.shows(CopyStep::CatchesUp),
                }
                let weight = rows.iter().map(copy::weight).sum();
                // Changes are not held up: clients make them, and the copy would not end.
                if to.reach != next.cursor.reach && self.stage() == Some(Stage::Served) {
                    // What is under way is not looked at meanwhile.
                    if self.is_paced() && !under_way.is_empty() {
                        break;
                    }
                    self.pace.pass(weight, &self.knowledge).await;
                }
                // Only a push with nothing under way waits for the chunks of other shards.
                let Some(room) = self.receiver.room(weight, under_way.is_empty()).await else { break };
                let after = std::mem::replace(&mut next.cursor, to.clone());
                under_way.push_back(async move {
                    let answer = self.install(address, after, to.clone(), rows).await;
                    drop(room);
                    (answer, to)
                });
            }
            match under_way.next().await {
                Some((Answer::At(reached, false), expected)) if reached.cursor == expected => {
                    taken += 1;
                    self.arrived(address, &reached);
                }
                Some((answer, _)) => {
                    // If a chunk was not taken, those after it are not taken either.
                    while under_way.next().await.is_some() {}
                    return Some(Sent::Answer(answer));
                }
                None => return Some(Sent::Answer(Answer::Wait)),
            }
        }
    }

    /// Seals the shard while nobody writes to it, if that is quick. Otherwise all go on. Returns what
    /// the receiver has, if that is known.
    async fn hold(
        &self,
        address: &Address,
        gate: &Gate,
        holds: &mut Holds,
        mut copied: Copied,
    ) -> Option<Copied> {
        if !holds.is_due() {
            clock::sleep(BACK_OFF_MIN).await;
            return Some(copied);
        }
        if !self.receiver.is_awake() {
            let asked = clock::now();
            match self.offer(address).await {
                Answer::At(reached, false) => copied = reached,
                _ => {
                    holds.failed();
                    return None;
                }
            }
            if asked.elapsed() > HOLD_MIN {
                holds.failed();
                return Some(copied);
            }
        }
        self.shows(CopyStep::Holds);
        let started = clock::now();
        let left = |limit: Duration| limit.saturating_sub(started.elapsed());
        let held = clock::timeout(holds.limit, Arc::clone(&gate.gate).write_owned()).await;
        while let (Ok(_), false) = (&held, left(holds.limit).is_zero()) {
            let at = copied.cursor.clone();
            match self.read(move |what, table, changes| what.sealing(table, changes, &at)).await {
                Sealing::Seal(frozen) => {
                    let Move { shard, num, .. } = self.what;
                    let sealing = self.execute(Command::Seal { shard, num, frozen });
                    let _ = clock::timeout(left(holds.limit), sealing).await;
                    break;
                }
                Sealing::First(to, rows) => {
                    let sending = self.install(address, copied.cursor.clone(), to, rows);
                    match clock::timeout(left(holds.limit), sending).await {
                        Ok(Answer::At(reached, false)) => copied = reached,
                        _ => break,
                    }
                }
                Sealing::Not => break,
            }
        }
        match self.stage() {
            Some(Stage::Sealed) => holds.since = Some(started),
            _ => {
                self.progress.hold_failed(self.what.shard, self.what.num);
                holds.failed();
            }
        }
        Some(copied)
    }

    /// Reports how long clients were not served.
    fn report_pause(&self, holds: &mut Holds) {
        let Some(pause) = holds.since.take().map(|since| since.elapsed()) else { return };
        self.progress.moved(pause);
        let Move { shard, num, to, .. } = self.what;
        let ms = pause.as_secs_f64() * 1000.0;
        if pause > PAUSE_ALARM {
            tracing::warn!(%shard, config = %num, %to, ms, "a shard moved, and its clients waited long");
        } else {
            tracing::info!(%shard, config = %num, %to, ms, "a shard moved; its clients waited");
        }
    }

    /// Server number `at` of the receiving group in the newest book.
    fn address(&self, at: usize) -> Option<Address> {
        let book = Arc::clone(&self.knowledge.borrow().book);
        let servers = book.addresses(self.what.to);
        servers.get(at.checked_rem(servers.len())?).cloned()
    }

    /// The number of the server to ask after `address` was asked in vain. `address` may have been
    /// remembered. It must not be asked again when its turn comes, because a silent server costs a
    /// second each time.
    fn after(&self, address: &Address, at: usize) -> usize {
        let book = Arc::clone(&self.knowledge.borrow().book);
        let place = book.addresses(self.what.to).iter().position(|it| it == address);
        place.unwrap_or(at) + 1
    }

    async fn ask(&self, address: &Address, request: PushRequest, deadline: Duration) -> Answer {
        let ours = self.config.num;
        let (asked, to, shard) = (clock::now(), self.what.to, self.what.shard);
        let answer = self.connection.push(address, to, self.me, request, deadline).await;
        if let Ok(Ok(_)) = answer {
            self.receiver.answered(asked);
        }
        match answer {
            Ok(Ok(PushReply::Copied { num, copied, disk_full })) if num == ours => {
                Answer::At(copied, disk_full)
            }
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
                tracing::debug!(%shard, config = %ours, %to, ?answer, "push");
                Answer::Wait
            }
            Err(_) if base::mutant!("release-unacknowledged") => Answer::Done,
            Err(CallError::Busy { .. }) => Answer::Wait,
            Err(error) => {
                if let CallError::Refused { .. } = error {
                    self.complain(&error);
                }
                tracing::debug!(%shard, config = %ours, %to, %error, "push");
                Answer::Elsewhere(None)
            }
        }
    }

    fn complain(&self, why: &dyn fmt::Display) {
        if !self.complained.swap(true, Ordering::Relaxed) {
            tracing::error!(
                shard = %self.what.shard, config = %self.config, to = %self.what.to, %why,
                "the new owner does not take a shard: its rows stay here"
            );
        }
    }

    fn release(&self) -> Command {
        Command::Release { shard: self.what.shard, num: self.what.num }
    }

    fn reopen(&self) -> Command {
        Command::Reopen { shard: self.what.shard, num: self.what.num }
    }

    /// Sends a command through this group's log. Returns its outcome if that is known; if not, the
    /// rows will show it.
    async fn execute(&self, command: Command) -> Option<Outcome> {
        self.replica.execute_freeing(&command, EXECUTE_DEADLINE).await.ok()
    }

    async fn pause(&mut self, back_off: &mut Duration) {
        let share = self.random.random_range(0.5..1.0);
        clock::sleep(back_off.mul_f64(share)).await;
        *back_off = (*back_off * 2).min(BACK_OFF_MAX);
    }
}
