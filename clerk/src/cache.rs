//! What a process knows of configurations and addresses: the newest it has seen, never an older one
//! (correctness rule 44).
//!
//! Any number of clerks share one cache. However many of their operations meet a newer number, one
//! question is in flight at a time, and all wait for its answer. It goes to the controllers'
//! leader. If that does not answer soon, any controller and any group are asked as well: each knows
//! some configuration, and the groups that it names correct a clerk whose configuration is old. So
//! a new clerk works as long as one controller, or one server of a group whose address it was
//! given, answers. If a shard has no owner, the cache watches the controllers, again with one watch
//! for all.
//!
//! Each question runs in its own short-lived task, so that an operation that gives up does not take
//! the answer from the others.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::clock::{self, Instant};
use futures::future::{join, join_all};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use tokio::sync::watch;

use crate::api::config::{AddressBook, Place, Sealed};
use crate::api::kv::{KvReply, KvRequest};
use crate::api::{Address, ConfigNum, GroupId};
use crate::connection::Connection;
use crate::ctrl::{CtrlClerk, Error};

/// How long the controllers' leader is asked.
const QUERY: Duration = Duration::from_secs(2);
/// How long it is asked alone.
const ALONE: Duration = Duration::from_millis(150);
const ASK_GROUP: Duration = Duration::from_millis(500);
/// Servers of groups that are asked at the same time.
const GROUP_SERVERS: usize = 4;
/// The pause between two questions of one operation that brought nothing new.
const PAUSE: Duration = Duration::from_millis(50);

/// A configuration and the addresses of the groups.
#[derive(Clone, Debug)]
pub struct View {
    /// The newest configuration known.
    pub config: Sealed,
    /// The newest addresses known.
    pub book: Arc<AddressBook>,
}

impl View {
    /// Whether it is known where a group is.
    pub(crate) fn knows(&self, group: GroupId) -> bool {
        !self.book.addresses(group).is_empty()
    }
}

/// The cache. Clones share it.
#[derive(Clone)]
pub struct ConfigCache {
    shared: Arc<Shared>,
}

struct Shared {
    connection: Arc<dyn Connection>,
    ctrl: CtrlClerk,
    view: watch::Sender<Option<View>>,
    query: Flight,
    watch: Flight,
    random: Mutex<StdRng>,
    /// Where groups are, as far as is known before anything is asked.
    groups: BTreeMap<GroupId, Vec<Address>>,
    /// Why the last question failed, for the error of an operation that is out of time.
    why: Mutex<Option<Error>>,
}

/// At most one question of its kind.
struct Flight {
    under_way: AtomicBool,
    landed: watch::Sender<u64>,
}

impl Default for Flight {
    fn default() -> Self {
        Self { under_way: AtomicBool::new(false), landed: watch::Sender::new(0) }
    }
}

/// Ends a flight, also when its task is dropped.
struct Landing {
    shared: Arc<Shared>,
    flight: fn(&Shared) -> &Flight,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let flight = (self.flight)(&self.shared);
        flight.under_way.store(false, Ordering::Relaxed);
        flight.landed.send_modify(|landed| *landed += 1);
    }
}

impl ConfigCache {
    /// An empty cache, to be filled from these controllers.
    pub fn new(connection: Arc<dyn Connection>, controllers: Vec<Address>, seed: u64) -> Self {
        Self::with_groups(connection, controllers, BTreeMap::new(), seed)
    }

    /// The same, also from these groups while no controller answers.
    pub fn with_groups(
        connection: Arc<dyn Connection>,
        controllers: Vec<Address>,
        groups: BTreeMap<GroupId, Vec<Address>>,
        seed: u64,
    ) -> Self {
        let ctrl = CtrlClerk::new(Arc::clone(&connection), controllers, seed).with_deadline(QUERY);
        let shared = Shared {
            connection,
            ctrl,
            view: watch::Sender::new(None),
            query: Flight::default(),
            watch: Flight::default(),
            random: Mutex::new(StdRng::seed_from_u64(base::seed::derive(seed, "configurations"))),
            groups,
            why: Mutex::new(None),
        };
        Self { shared: Arc::new(shared) }
    }

    /// What is known now.
    pub fn current(&self) -> Option<View> {
        self.shared.view.borrow().clone()
    }

    /// What is known; asks if nothing is, until `until`.
    ///
    /// # Errors
    /// Why nothing came.
    pub async fn any(&self, until: Instant) -> Result<View, Error> {
        loop {
            if let Some(view) = self.current() {
                return Ok(view);
            }
            let asked = self.fly(|shared| &shared.query, Shared::ask, None);
            let late = clock::timeout(until.since(clock::now()), asked).await.is_err();
            if let Some(view) = self.current() {
                return Ok(view);
            }
            let why = self.shared.why.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match why {
                Some(error @ (Error::Foreign { .. } | Error::Refused(_))) => return Err(error),
                why if late || clock::now() >= until => return Err(why.unwrap_or_else(|| self.silence())),
                _ => clock::sleep(PAUSE.min(until.since(clock::now()))).await,
            }
        }
    }

    /// Nobody answered, and no question has ended.
    fn silence(&self) -> Error {
        let controllers = self.shared.ctrl.addresses().join(", ");
        Error::Unavailable { why: format!("no answer in time from {controllers}") }
    }

    /// Asks for something newer than `than`; returns when it has arrived, when the answer brought
    /// nothing new, or at `until`.
    pub async fn refresh(&self, than: ConfigNum, until: Instant) {
        let asked = self.fly(|shared| &shared.query, Shared::ask, Some(than));
        let _ = clock::timeout(until.since(clock::now()), asked).await;
    }

    /// Asks for something newer without waiting for it.
    pub fn refresh_later(&self) {
        self.start(|shared| &shared.query, Shared::ask);
    }

    /// Waits for something newer than `than`, for about two seconds or until `until`.
    pub async fn wait_newer(&self, than: ConfigNum, until: Instant) {
        let asked = self.fly(|shared| &shared.watch, Shared::watch, Some(than));
        let _ = clock::timeout(until.since(clock::now()), asked).await;
    }

    /// Takes in what a server reported; an older configuration, or one of another cluster, changes
    /// nothing.
    pub fn learn(&self, config: Sealed, book: AddressBook) {
        self.shared.learn(Some(config), book, false);
    }

    /// Starts a question if none of its kind is in flight, and waits until it ends, or a view newer
    /// than `than` is there.
    async fn fly<F>(&self, flight: fn(&Shared) -> &Flight, ask: fn(Arc<Shared>) -> F, than: Option<ConfigNum>)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut view = self.shared.view.subscribe();
        let mut landed = flight(&self.shared).landed.subscribe();
        self.start(flight, ask);
        let newer = |view: &Option<View>| view.as_ref().map(|view| view.config.num) > than;
        tokio::select! {
            biased;
            _ = view.wait_for(newer) => {}
            _ = landed.changed() => {}
        }
    }

    fn start<F>(&self, flight: fn(&Shared) -> &Flight, ask: fn(Arc<Shared>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if !flight(&self.shared).under_way.swap(true, Ordering::Relaxed) {
            let landing = Landing { shared: Arc::clone(&self.shared), flight };
            tokio::spawn(async move {
                ask(Arc::clone(&landing.shared)).await;
                drop(landing);
            });
        }
    }
}

impl Shared {
    async fn ask(self: Arc<Self>) {
        let mut leader = pin!(self.ctrl.query(None));
        let answer = match clock::timeout(ALONE, &mut leader).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                self.ask_others().await;
                Err(error)
            }
            Err(_) => join(leader, self.ask_others()).await.0,
        };
        let error = match answer {
            Ok((config, book)) => {
                self.learn(Some(config), book, true);
                None
            }
            Err(error) => {
                tracing::debug!(%error, "no configuration from the controllers");
                Some(error)
            }
        };
        *self.why.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    /// Takes what any controller and any group knows: better than nothing, and never older than
    /// what is known.
    async fn ask_others(&self) {
        let _ = clock::timeout(QUERY, join(self.ask_controllers(), self.ask_groups())).await;
    }

    async fn ask_controllers(&self) {
        if let Ok((config, book)) = self.ctrl.hearsay().await {
            self.learn(Some(config), book, false);
        }
    }

    /// Asks servers of groups until one has answered.
    async fn ask_groups(&self) {
        for servers in self.servers().chunks(GROUP_SERVERS) {
            let asked = servers.iter().map(|(group, address)| async move {
                match self.connection.kv(address, *group, KvRequest::Config, ASK_GROUP).await {
                    Ok(Ok(KvReply::Config(config, book))) => {
                        self.learn(Some(config), book, false);
                        true
                    }
                    _ => false,
                }
            });
            if join_all(asked).await.contains(&true) {
                return;
            }
        }
    }

    /// All servers of groups that are known, in any order.
    fn servers(&self) -> Vec<(GroupId, Address)> {
        let known = self.view.borrow().as_ref().map(|view| Arc::clone(&view.book));
        let mut servers: Vec<(GroupId, Address)> = match known {
            Some(book) => flat(book.groups.iter().map(|(group, at)| (*group, &at.addresses))),
            None => flat(self.groups.iter().map(|(group, at)| (*group, at))),
        };
        servers.shuffle(&mut *self.random.lock().unwrap_or_else(PoisonError::into_inner));
        servers
    }

    async fn watch(self: Arc<Self>) {
        let (after, book) = match &*self.view.borrow() {
            Some(view) => (view.config.place(), view.book.version),
            None => (Place::default(), 0),
        };
        match self.ctrl.watch(after, book).await {
            Ok(news) => {
                let newest = news.configs.into_iter().max_by_key(|config| config.num);
                self.learn(newest, news.book, false);
            }
            Err(error) => {
                tracing::debug!(%error, "no configuration from a watch");
                clock::sleep(PAUSE).await;
            }
        }
    }

    /// The present answer of the controllers' leader also replaces another configuration of the
    /// same number, which was made before the controllers lost their data.
    fn learn(&self, config: Option<Sealed>, book: AddressBook, of_leader: bool) {
        self.view.send_if_modified(|view| match (view, config) {
            (None, None) => false,
            (view @ None, Some(config)) => {
                *view = Some(View { config, book: Arc::new(book) });
                true
            }
            (Some(view), config) => {
                let (present, key) = (view.config.place(), view.config.key);
                let replaces = |it: &Sealed| it.num == present.num && it.place() != present && of_leader;
                let newer = |it: &Sealed| it.num > present.num || replaces(it);
                let config = config.filter(|config| config.key == key && newer(config));
                let ours = |book: &AddressBook| book.key == key || book.key == 0;
                let book = Some(book).filter(|book| book.version > view.book.version && ours(book));
                let changed = config.is_some() || book.is_some();
                if let Some(config) = config {
                    view.config = config;
                }
                if let Some(book) = book {
                    view.book = Arc::new(book);
                }
                changed
            }
        });
    }
}

fn flat<'a>(groups: impl Iterator<Item = (GroupId, &'a Vec<Address>)>) -> Vec<(GroupId, Address)> {
    groups.flat_map(|(group, at)| at.iter().map(move |address| (group, address.clone()))).collect()
}

#[cfg(test)]
mod tests;
