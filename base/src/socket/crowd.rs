//! The connections of a server, by kind: how many of each there may be, and which one makes room.
//!
//! Each [`Kind`] has its own places, so that clients cannot crowd out peers, nor silent callers
//! clients. When all places of a kind are taken, the connection that is missed least is closed for
//! the new one: first one that never asked anything, then the least recently used one. A connection
//! with a request in progress is not closed, unless it has kept the server waiting for a second. If
//! no connection can be closed, the new one is turned away (rule 101).
//!
//! Left out on purpose: a share for each address. Many callers may share one address, and one
//! caller may have many.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use super::ledger::{Account, Bounds, Ledger, What};
use super::{Hello, Purpose};
use crate::clock;

/// A connection that has kept the rest of a frame, or an unread answer, waiting for this long is
/// not protected by its requests.
const STUCK: Duration = Duration::from_secs(1);

/// A connection that keeps no more than this waiting takes little room; such amounts are in flight
/// at any time.
const LITTLE: usize = 64 << 10;

/// The kind under which a connection is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Its Hello has not arrived yet.
    Strangers,
    /// Clients that ask for something.
    Clients,
    /// Clients that wait for a new configuration.
    Watchers,
    /// Servers of other groups, whatever they ask for.
    Groups,
    /// Members of the same group.
    Peers,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Strangers, Self::Clients, Self::Watchers, Self::Groups, Self::Peers];

    /// Its name in a status.
    pub fn name(self) -> &'static str {
        match self {
            Self::Strangers => "strangers",
            Self::Clients => "clients",
            Self::Watchers => "watchers",
            Self::Groups => "groups",
            Self::Peers => "peers",
        }
    }

    /// The kind of the connection that `hello` begins.
    pub(super) fn of(hello: &Hello) -> Self {
        match hello.purpose {
            Purpose::PeerControl | Purpose::PeerBulk => Self::Peers,
            Purpose::Push => Self::Groups,
            Purpose::Client if hello.from_group != 0 => Self::Groups,
            Purpose::Client if hello.watches => Self::Watchers,
            Purpose::Client => Self::Clients,
        }
    }
}

/// The number of connections of a kind, and their limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// Taken.
    pub open: usize,
    /// The limit.
    pub max: usize,
}

/// The connections of a server.
#[derive(Debug)]
pub(super) struct Crowd {
    max: [usize; Kind::ALL.len()],
    seats: Mutex<Seats>,
    ledger: Arc<Ledger>,
    made_room: AtomicU64,
}

impl Default for Crowd {
    fn default() -> Self {
        let bounds = Bounds { connection: usize::MAX, server: usize::MAX };
        let (max, made_room) = (Default::default(), AtomicU64::new(0));
        Self { max, seats: Mutex::default(), ledger: Ledger::new(bounds), made_room }
    }
}

#[derive(Debug, Default)]
struct Seats {
    next: u64,
    taken: [BTreeMap<u64, Arc<Seat>>; Kind::ALL.len()],
}

impl Seats {
    /// The connection to close when too much is kept waiting: the one that has kept something
    /// waiting longest, if that is too long; otherwise the last one that began to keep much, so
    /// that nearly complete frames can finish. None if only one connection keeps anything: a frame
    /// of the largest size has room when no other keeps anything.
    fn keeper(&self) -> Option<u64> {
        let keeps =
            |(id, seat): (&u64, &Arc<Seat>)| seat.account.keeps().map(|(since, bytes)| (since, *id, bytes));
        let keepers: Vec<_> = self.taken.iter().flatten().filter_map(keeps).collect();
        let (since, oldest, _) = *keepers.iter().min().filter(|_| keepers.len() > 1)?;
        if since.elapsed() >= STUCK {
            return Some(oldest);
        }
        let last = keepers.iter().max_by_key(|(since, id, bytes)| (*bytes > LITTLE, *since, *id));
        last.map(|(_, id, _)| *id)
    }
}

impl Crowd {
    pub(super) fn new(max: impl Fn(Kind) -> usize, bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { max: Kind::ALL.map(max), ledger: Ledger::new(bounds), ..Self::default() })
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more connection of `kind`; none if all are taken by connections with
    /// requests in progress.
    pub(super) fn enter(self: &Arc<Self>, kind: Kind) -> Option<Place> {
        self.admit(kind, Arc::new(Seat::new(self)))
    }

    fn admit(self: &Arc<Self>, kind: Kind, seat: Arc<Seat>) -> Option<Place> {
        let mut seats = self.seats();
        let taken = &mut seats.taken[kind as usize];
        if taken.len() >= self.max[kind as usize] {
            let idle = taken.iter().filter(|(_, seat)| seat.is_idle());
            let (&least, _) = idle.min_by_key(|(_, seat)| seat.worth())?;
            taken.remove(&least)?.dismiss();
            self.made_room.fetch_add(1, Ordering::Relaxed);
        }
        seats.next += 1;
        let id = seats.next;
        seats.taken[kind as usize].insert(id, Arc::clone(&seat));
        drop(seats);
        Some(Place { crowd: Arc::clone(self), kind, id, seat })
    }

    pub(super) fn places(&self, kind: Kind) -> Places {
        Places { open: self.seats().taken[kind as usize].len(), max: self.max[kind as usize] }
    }

    /// Closes connections until there is room for `bytes` more.
    fn relieve(&self, bytes: usize) {
        let mut seats = self.seats();
        while !self.ledger.has_room(bytes) {
            let Some(id) = seats.keeper() else { return };
            for seat in seats.taken.iter_mut().filter_map(|taken| taken.remove(&id)) {
                seat.dismiss();
            }
            self.made_room.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Bytes that wait on all connections.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.ledger.total()
    }

    pub(super) fn made_room(&self) -> u64 {
        self.made_room.load(Ordering::Relaxed)
    }
}

/// What is known of one connection.
#[derive(Debug)]
pub(super) struct Seat {
    used: AtomicU64,
    has_asked: AtomicBool,
    running: AtomicUsize,
    leave: Notify,
    account: Account,
    crowd: Weak<Crowd>,
}

impl Seat {
    pub(super) fn new(crowd: &Arc<Crowd>) -> Self {
        Self {
            used: AtomicU64::new(clock::now().as_nanos()),
            has_asked: AtomicBool::new(false),
            running: AtomicUsize::new(0),
            leave: Notify::new(),
            account: Account::new(&crowd.ledger),
            crowd: Arc::downgrade(crowd),
        }
    }

    /// The connection has to make room.
    fn dismiss(&self) {
        self.account.close();
        self.leave.notify_one();
    }

    fn relieve(&self, bytes: usize) {
        if let Some(crowd) = self.crowd.upgrade() {
            crowd.relieve(bytes);
        }
    }

    fn relieve_if(&self, is_over: bool) {
        if is_over {
            self.relieve(0);
        }
    }

    /// This much of an incomplete frame has arrived.
    pub(super) fn unread(&self, bytes: usize) {
        self.relieve_if(self.account.unread(bytes));
    }

    /// This much more is to be written.
    pub(super) fn unwritten(&self, bytes: usize) {
        self.relieve_if(self.account.unwritten(bytes));
    }

    /// This much was written.
    pub(super) fn written(&self, bytes: usize) {
        self.account.written(bytes);
    }

    /// Whether so much would wait, here or in total, that a request must be refused.
    pub(super) fn is_full_beside(&self, bytes: usize) -> bool {
        self.account.is_full_beside(bytes)
    }

    /// Counts a request or an answer, until the returned value is dropped.
    pub(super) fn hold(self: &Arc<Self>, what: What, bytes: usize) -> Holding {
        self.relieve_if(self.account.add(what, bytes));
        Holding { seat: Arc::clone(self), what, bytes }
    }

    /// Whether making an answer is worthwhile.
    pub(super) fn awaits_answers(&self) -> bool {
        self.account.awaits_answers()
    }

    /// Takes `bytes` for an answer, if there is room or others make it.
    pub(super) fn take(&self, bytes: usize) -> bool {
        self.account.take(bytes) || {
            self.relieve(bytes);
            self.account.take(bytes)
        }
    }

    /// Gives taken bytes back.
    pub(super) fn give_back(&self, bytes: usize) {
        self.account.remove(What::Answer, bytes);
    }

    fn is_idle(&self) -> bool {
        let keeps_waiting = || self.account.keeps().is_some_and(|(since, _)| since.elapsed() >= STUCK);
        self.running.load(Ordering::Relaxed) == 0 || keeps_waiting()
    }

    fn worth(&self) -> (bool, u64) {
        (self.has_asked.load(Ordering::Relaxed), self.used.load(Ordering::Relaxed))
    }

    /// Completes when the connection has to make room.
    pub(super) async fn told_to_leave(&self) {
        self.leave.notified().await;
    }

    /// A valid frame arrived.
    pub(super) fn heard(&self) {
        self.used.store(clock::now().as_nanos(), Ordering::Relaxed);
        self.has_asked.store(true, Ordering::Relaxed);
    }

    /// Marks a request as in progress until the returned value is dropped.
    pub(super) fn work(self: &Arc<Self>) -> Work {
        self.heard();
        self.running.fetch_add(1, Ordering::Relaxed);
        Work(Arc::clone(self))
    }
}

/// A request in progress.
#[derive(Debug)]
pub(super) struct Work(Arc<Seat>);

impl Drop for Work {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request or an answer that is counted.
#[derive(Debug)]
pub(super) struct Holding {
    seat: Arc<Seat>,
    what: What,
    pub(super) bytes: usize,
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.seat.account.remove(self.what, self.bytes);
    }
}

/// The place of one connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    crowd: Arc<Crowd>,
    kind: Kind,
    id: u64,
    seat: Arc<Seat>,
}

impl Place {
    pub(super) fn seat(&self) -> &Arc<Seat> {
        &self.seat
    }

    /// A place of `kind` for the same connection; none if there is none.
    pub(super) fn become_one_of(self, kind: Kind) -> Option<Self> {
        self.crowd.admit(kind, Arc::clone(&self.seat))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.seats().taken[self.kind as usize].remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt;

    use super::{Bounds, Crowd, Kind, Place, STUCK, What};
    use crate::clock;
    use crate::socket::{Hello, Purpose, Room};

    fn crowd(clients: usize) -> Arc<Crowd> {
        let bounds = Bounds { connection: 1000, server: 3000 };
        Crowd::new(|kind| if kind == Kind::Clients { clients } else { 1 }, bounds)
    }

    fn is_told_to_leave(place: &Place) -> bool {
        place.seat().told_to_leave().now_or_never().is_some()
    }

    #[test]
    fn the_connection_that_is_missed_least_makes_room() {
        let crowd = crowd(3);
        let enter = || crowd.enter(Kind::Clients).expect("a place");
        let (asked_first, silent, asked_last) = (enter(), enter(), enter());
        asked_first.seat().heard();
        asked_last.seat().heard();
        let places: Vec<Place> = (0..3).map(|_| enter()).inspect(|place| place.seat().heard()).collect();
        // Each newcomer took the place of the next one in this order.
        assert!(is_told_to_leave(&silent) && is_told_to_leave(&asked_first) && is_told_to_leave(&asked_last));
        assert!(!places.iter().any(is_told_to_leave));
        assert_eq!((crowd.places(Kind::Clients).open, crowd.made_room()), (3, 3));
        drop((silent, asked_first, asked_last));
        assert_eq!(crowd.places(Kind::Clients).open, 3, "they left before");
        drop(places);
        assert_eq!(crowd.places(Kind::Clients).open, 0);
    }

    #[test]
    fn a_connection_that_is_worked_for_stays() {
        let crowd = crowd(1);
        let busy = crowd.enter(Kind::Clients).expect("a place");
        let (one, other) = (busy.seat().work(), busy.seat().work());
        assert!(crowd.enter(Kind::Clients).is_none());
        drop(one);
        assert!(crowd.enter(Kind::Clients).is_none());
        assert!(crowd.enter(Kind::Peers).is_some(), "kinds do not take each other's places");
        drop(other);
        assert!(crowd.enter(Kind::Clients).is_some() && is_told_to_leave(&busy));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_takes_no_answers_does_not_stay_for_its_requests() {
        let crowd = crowd(1);
        let slow = crowd.enter(Kind::Clients).expect("a place");
        let _work = slow.seat().work();
        slow.seat().unwritten(10);
        assert!(crowd.enter(Kind::Clients).is_none());
        clock::sleep(STUCK).await;
        assert!(crowd.enter(Kind::Clients).is_some() && is_told_to_leave(&slow));
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_that_has_kept_something_waiting_for_the_longest_time_makes_room() {
        let crowd = crowd(9);
        let places: Vec<Place> = (0..4).map(|_| crowd.enter(Kind::Clients).expect("a place")).collect();
        let [slow, slower, honest, working] = &places[..] else { panic!("four") };
        let work = working.seat().hold(What::Request, 500);
        slower.seat().unread(100);
        clock::sleep(STUCK / 2).await;
        slow.seat().unwritten(800);
        clock::sleep(STUCK).await;
        // A part of each frame and answer is in flight at some time, and does not wait for long.
        honest.seat().unread(900);
        honest.seat().unread(0);
        let room = Room::of(Some(Arc::clone(honest.seat())));
        let answers: Vec<_> = (0..3).map(|_| room.reservation()).collect();
        assert!(answers[0].take(900));
        assert!(!answers[1].take(200), "more than a connection may have");
        assert!(!places.iter().any(is_told_to_leave), "there is room for all");
        drop(answers);
        honest.seat().unwritten(900);
        working.seat().unread(1250);
        assert!(is_told_to_leave(slower) && !is_told_to_leave(honest) && !is_told_to_leave(slow));
        assert_eq!(crowd.waiting_bytes(), 500 + 800 + 900 + 1250);
        // An answer finds room too: a connection that keeps answers waiting makes it.
        let answer = room.reservation();
        assert!(answer.take(60) && is_told_to_leave(slow));
        drop((answer, work, room, places));
        assert_eq!((crowd.waiting_bytes(), crowd.made_room()), (0, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_nearly_whole_goes_on_while_nobody_keeps_it_waiting_for_long() {
        let crowd = Crowd::new(|_| 9, Bounds { connection: 1 << 20, server: 3 << 20 });
        let places: Vec<Place> = (0..4).map(|_| crowd.enter(Kind::Clients).expect("a place")).collect();
        let [upload, flood, later_flood, honest] = &places[..] else { panic!("four") };
        for (keeper, bytes) in [(upload, 1500 << 10), (flood, 700 << 10), (later_flood, 700 << 10)] {
            keeper.seat().unread(bytes);
            clock::sleep(STUCK / 4).await;
        }
        honest.seat().unwritten(10);
        upload.seat().unread(2000 << 10);
        assert!(is_told_to_leave(later_flood), "the last one of those that keep much");
        assert!(![upload, flood, honest].into_iter().any(is_told_to_leave));
    }

    #[test]
    fn a_connection_without_a_hello_becomes_what_its_hello_says() {
        let crowd = crowd(1);
        let stranger = crowd.enter(Kind::Strangers).expect("a place");
        let client = stranger.become_one_of(Kind::Clients).expect("a place");
        let open = Kind::ALL.map(|kind| crowd.places(kind).open);
        assert_eq!(open, [0, 1, 0, 0, 0]);
        drop(client);
        let of = |purpose, watches, from_group| {
            Kind::of(&Hello { purpose, watches, from_group, ..Hello::default() })
        };
        assert_eq!(of(Purpose::Client, false, 0), Kind::Clients);
        assert_eq!(of(Purpose::Client, true, 0), Kind::Watchers);
        assert_eq!(of(Purpose::Client, true, 101), Kind::Groups);
        assert_eq!(of(Purpose::Push, false, 101), Kind::Groups);
        assert_eq!(of(Purpose::PeerBulk, false, 0), Kind::Peers);
    }
}
