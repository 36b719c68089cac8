//! One replicated group as its clients see it: a request in, the leader's answer out.
//!
//! Only the leader answers most requests, and the leader changes. So the last leader is remembered,
//! another server's hint is followed, and a server that was not reached is passed over. When every
//! server was tried in vain, a pause with jitter begins the next round (correctness rule 44).
//!
//! The request is the same on every attempt, with its ticket if it has one (rule 26). [`Attempts`]
//! holds what the attempts may have done so far. It outlives this call: the same operation may turn
//! to another group, and a caller that gives up must know whether it may have been done (rule 27).
//!
//! Groups and controllers differ only in their messages, so one loop asks both (`Servers`).
//!
//! Left out on purpose: what a refusal means for a shard; that is for [`crate::kv`].

mod search;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::clock::{self, Instant};
use futures::future::{BoxFuture, join_all};
use rand::SeedableRng;
use rand::rngs::StdRng;

use self::search::Search;
pub(crate) use self::search::Step;
use crate::api::kv::{KvRefusal, KvReply, KvRequest};
use crate::api::status::KvStatus;
use crate::api::{Address, GroupId, Incarnation};
use crate::connection::{CallError, Called, Connection};
use crate::statuses;

/// After this time without a leader, the caller gets an error: the group may have left, or moved
/// elsewhere.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// Longest wait for the first attempt's answer; each lost one doubles it. It is longer for a group
/// that was slow lately: with many clients its queue is long, and retrying too early lengthens the
/// queue.
const CALL_MIN: Duration = Duration::from_secs(1);
const CALL_MAX: Duration = Duration::from_secs(8);
/// But not longer than this: it may have gone silent since.
const CALL_SLOW_MAX: Duration = Duration::from_secs(4);
/// Answer times that are older than this say nothing.
const LATELY: Duration = Duration::from_secs(10);
/// A status comes from a server's own rows, at once.
const STATUS: Duration = Duration::from_secs(1);

/// What the attempts at one operation may have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// An attempt left and its fate is not known.
    pub may_have_acted: bool,
    /// A second execution would do harm: after an attempt of unknown fate there is no other.
    pub only_once: bool,
}

impl Attempts {
    /// Of an operation that may be repeated: a read, or one with a ticket or a version that never returns.
    pub fn repeatable() -> Self {
        Self::default()
    }

    /// Of an operation that must not be executed twice and has nothing that prevents it.
    pub fn only_once() -> Self {
        Self { may_have_acted: false, only_once: true }
    }
}

/// Why a group gave no usable answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError<R: std::error::Error> {
    /// The leader refused.
    #[error("{0}")]
    Refused(R),
    /// An attempt left, its fate is unknown, and it must not be repeated.
    #[error("the request left and no answer came")]
    Unknown,
    /// No leader answered within the time given, or within a second.
    #[error("{why}")]
    NoLeader {
        /// What each server said.
        why: String,
    },
    /// Every server belongs to another cluster or group.
    #[error("{why}")]
    Foreign {
        /// In the words of one of them.
        why: String,
    },
}

/// What a call in a language brings.
pub(crate) type Heard<L> = Called<<L as Language>::Reply, <L as Language>::Refusal>;

/// The messages for the servers of a group.
pub(crate) trait Language: Send + Sync {
    type Request: Clone + Send + Sync;
    type Reply: Send;
    type Refusal: std::error::Error + Send;

    fn call<'a>(
        &'a self,
        connection: &'a dyn Connection,
        to: &'a Address,
        request: Self::Request,
        deadline: Duration,
    ) -> BoxFuture<'a, Heard<Self>>
    where
        Self: Sized;

    /// What a refusal means for the search for a leader.
    ///
    /// # Errors
    /// The refusal itself, if it is the answer.
    fn judge(refusal: Self::Refusal) -> Result<Step, Self::Refusal>;
}

/// The servers of one group.
pub(crate) struct Servers<L> {
    language: L,
    connection: Arc<dyn Connection>,
    addresses: Vec<Address>,
    place: Mutex<Place>,
}

/// What is remembered between requests.
struct Place {
    leader: Option<Address>,
    /// The longest recent answer time, or vain wait, and when it was learned; an eighth of it is
    /// forgotten with every answer.
    slow: Option<(Duration, Instant)>,
    random: StdRng,
}

impl Place {
    /// How long to wait for an answer.
    fn patience(&self) -> Duration {
        (self.lately() * 2).clamp(CALL_MIN, CALL_SLOW_MAX)
    }

    /// How slow the group was lately.
    fn lately(&self) -> Duration {
        let lately = self.slow.filter(|(_, when)| when.elapsed() < LATELY);
        lately.map_or(Duration::ZERO, |(slow, _)| slow)
    }

    fn answered(&mut self, took: Duration) {
        self.slow = Some((took.max(self.lately() * 7 / 8), clock::now()));
    }

    /// An answer takes longer than this, or never comes.
    fn waited_in_vain(&mut self, time: Duration) {
        self.slow = Some((time.max(self.lately()), clock::now()));
    }
}

impl<L: Language> Servers<L> {
    pub(crate) fn new(
        language: L,
        connection: Arc<dyn Connection>,
        addresses: Vec<Address>,
        seed: u64,
    ) -> Self {
        let place = Mutex::new(Place { leader: None, slow: None, random: StdRng::seed_from_u64(seed) });
        Self { language, connection, addresses, place }
    }

    pub(crate) fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    pub(crate) fn connection(&self) -> &dyn Connection {
        &*self.connection
    }

    /// Asks until the leader answers, at most until `until`. Begins no new round after `patience`.
    pub(crate) async fn ask(
        &self,
        request: &L::Request,
        until: Instant,
        patience: Duration,
        attempts: &mut Attempts,
    ) -> Result<L::Reply, AskError<L::Refusal>> {
        let mut search = self.search()?;
        let give_up = until.min(clock::now().after(patience));
        let mut call_limit = self.with_place(|place| place.patience());
        loop {
            let asked = clock::now();
            let left = until.since(asked);
            if left.is_zero() {
                return Err(search.in_vain());
            }
            // A short remaining time may be too short for an answer, and is no reason to doubt the
            // server.
            search.hurries = left < call_limit;
            let target = search.target().clone();
            let answer = self.call(&target, request.clone(), left.min(call_limit)).await;
            let step = match answer {
                Ok(Ok(reply)) => {
                    self.remember(target, asked.elapsed());
                    return Ok(reply);
                }
                Ok(Err(refusal)) => match L::judge(refusal) {
                    Err(refusal) => {
                        self.remember(target, asked.elapsed());
                        return Err(AskError::Refused(refusal));
                    }
                    Ok(step) => {
                        attempts.may_have_acted |= matches!(step, Step::Unfinished);
                        step
                    }
                },
                Err(error) => {
                    if let CallError::Lost { .. } = error {
                        attempts.may_have_acted |= !base::mutant!("lost-is-not-done");
                        self.with_place(|place| place.waited_in_vain(asked.elapsed()));
                        call_limit = (call_limit * 2).min(CALL_MAX);
                    }
                    Step::from(&error)
                }
            };
            if attempts.may_have_acted && attempts.only_once && !base::mutant!("bare-write-repeated") {
                return Err(AskError::Unknown);
            }
            if !matches!(step, Step::Again(_) | Step::Unfinished | Step::Busy(_)) {
                self.forget(&target);
            }
            if let Some(pause) = self.with_place(|place| search.go_on(step, &mut place.random)) {
                if search.is_foreign() || clock::now().after(pause) >= give_up {
                    // A leader that is busy for this long may have lost its leadership.
                    self.forget(&target);
                    return Err(search.in_vain());
                }
                clock::sleep(pause).await;
            }
        }
    }

    /// The next request begins with another server than the last one: a leader whose disk hangs
    /// does not hear of its successor, and still refuses as if it led.
    pub(crate) fn doubt(&self) {
        self.with_place(|place| {
            let others: Vec<&Address> =
                self.addresses.iter().filter(|address| place.leader.as_ref() != Some(address)).collect();
            if let Some(other) = others.get(search::draw(&mut place.random, others.len())) {
                place.leader = Some(Address::clone(other));
            }
        });
    }

    /// Asks the servers one after the other until one answers at all, beginning with any: for
    /// requests that every replica answers.
    pub(crate) async fn ask_any(
        &self,
        request: &L::Request,
        call_limit: Duration,
        until: Instant,
    ) -> Result<L::Reply, AskError<L::Refusal>> {
        let mut search = self.search()?;
        search.start_anywhere(self.with_place(|place| search::draw(&mut place.random, self.addresses.len())));
        loop {
            let left = until.since(clock::now());
            if left.is_zero() {
                return Err(search.in_vain());
            }
            let target = search.target().clone();
            let step = match self.call(&target, request.clone(), left.min(call_limit)).await {
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(refusal)) => Step::Unreached(format!("{target}: {refusal}")),
                Err(error) => Step::from(&error),
            };
            if self.with_place(|place| search.go_on(step, &mut place.random)).is_some() {
                return Err(search.in_vain());
            }
        }
    }

    /// Asks one server.
    pub(crate) async fn call(&self, to: &Address, request: L::Request, limit: Duration) -> Heard<L> {
        self.language.call(&*self.connection, to, request, limit).await
    }

    fn search(&self) -> Result<Search<'_>, AskError<L::Refusal>> {
        if self.addresses.is_empty() {
            return Err(AskError::NoLeader { why: "no server's address is known".to_owned() });
        }
        Ok(self.with_place(|place| {
            let first = search::draw(&mut place.random, self.addresses.len());
            Search::new(&self.addresses, first, place.leader.clone())
        }))
    }

    fn remember(&self, leader: Address, took: Duration) {
        self.with_place(|place| {
            place.answered(took);
            if place.leader.as_ref() != Some(&leader) {
                place.leader = Some(leader);
            }
        });
    }

    fn forget(&self, server: &Address) {
        self.with_place(|place| place.leader = place.leader.take().filter(|leader| leader != server));
    }

    fn with_place<T>(&self, act: impl FnOnce(&mut Place) -> T) -> T {
        act(&mut self.place.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The words of the sharded store.
pub(crate) struct Kv(GroupId);

impl Language for Kv {
    type Request = KvRequest;
    type Reply = KvReply;
    type Refusal = KvRefusal;

    fn call<'a>(
        &'a self,
        connection: &'a dyn Connection,
        to: &'a Address,
        request: KvRequest,
        deadline: Duration,
    ) -> BoxFuture<'a, Called<KvReply, KvRefusal>> {
        connection.kv(to, self.0, request, deadline)
    }

    fn judge(refusal: KvRefusal) -> Result<Step, KvRefusal> {
        match refusal {
            KvRefusal::NotLeader { hint } => Ok(Step::Hinted(hint)),
            KvRefusal::Unknown => Ok(Step::Unfinished),
            KvRefusal::NotExecuted | KvRefusal::Busy => Ok(Step::Again(refusal.to_string())),
            refusal => Err(refusal),
        }
    }
}

/// A client of one replica group.
pub struct GroupClient {
    group: GroupId,
    servers: Servers<Kv>,
}

impl GroupClient {
    /// A client of `group`, whose servers are at `addresses`. `seed` decides its jitter.
    pub fn new(connection: Arc<dyn Connection>, group: GroupId, addresses: Vec<Address>, seed: u64) -> Self {
        Self { group, servers: Servers::new(Kv(group), connection, addresses, seed) }
    }

    /// The group.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Where its servers are.
    pub fn addresses(&self) -> &[Address] {
        self.servers.addresses()
    }

    /// Asks until the leader answers, at most until `until`, and gives up after a second without any.
    ///
    /// # Errors
    /// [`AskError`]; `attempts` tells whether the request may have been done all the same.
    pub async fn ask(
        &self,
        request: &KvRequest,
        until: Instant,
        attempts: &mut Attempts,
    ) -> Result<KvReply, AskError<KvRefusal>> {
        self.servers.ask(request, until, PATIENCE, attempts).await
    }

    /// Asks each server at most once, as far as needed.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn ask_once(
        &self,
        request: &KvRequest,
        until: Instant,
        attempts: &mut Attempts,
    ) -> Result<KvReply, AskError<KvRefusal>> {
        self.servers.ask(request, until, Duration::ZERO, attempts).await
    }

    /// Begins the next request with another server than the one that answered last, whose answer
    /// may be old.
    pub fn doubt(&self) {
        self.servers.doubt();
    }

    /// The status of each server, all asked at the same time.
    pub async fn statuses(&self) -> Vec<(Address, Result<KvStatus, String>)> {
        self.statuses_within(STATUS).await
    }

    /// The same, from those that answer within `limit`.
    pub async fn statuses_within(&self, limit: Duration) -> Vec<(Address, Result<KvStatus, String>)> {
        let asked = self.addresses().iter().map(|address| async move {
            let status = statuses::of_replica(self.servers.connection(), self.group, address, limit).await;
            (address.clone(), status.map_err(|error| error.to_string()))
        });
        join_all(asked).await
    }

    /// The incarnation of the group's data and the key of its cluster, from any server that knows
    /// both. Waits for a new group to draw the one and learn the other.
    ///
    /// # Errors
    /// The last answers of the servers.
    pub async fn data(&self, until: Instant) -> Result<(Incarnation, u64), String> {
        const PAUSE: Duration = Duration::from_millis(100);
        let mut why = "no server's address is known".to_owned();
        let mut is_told = false;
        loop {
            let left = until.since(clock::now());
            // A short time left may be too short for an answer, and is no reason to be told.
            let hurries = is_told && left < STATUS;
            for (_, status) in self.statuses_within(left.min(STATUS)).await {
                match status {
                    Ok(KvStatus { lost: Some(registered), .. }) => {
                        let group = self.group;
                        return Err(format!(
                            "group {group} has other data than the group that joined ({:016x})",
                            registered.0
                        ));
                    }
                    Ok(KvStatus { incarnation: Some(incarnation), key: Some(key), .. }) => {
                        return Ok((incarnation, key));
                    }
                    Ok(KvStatus { incarnation: Some(_), .. }) => {
                        why = format!("group {} has not heard from its controllers yet", self.group);
                    }
                    Ok(_) => why = format!("group {} has no leader yet", self.group),
                    Err(_) if hurries => {}
                    Err(error) => why = error,
                }
                is_told = true;
            }
            let left = until.since(clock::now());
            if left.is_zero() {
                return Err(why);
            }
            clock::sleep(left.min(PAUSE)).await;
        }
    }
}

#[cfg(test)]
mod tests;
