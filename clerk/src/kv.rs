//! The clerk: keys in, outcomes out.
//!
//! An operation looks up its shard's owner in the cached configuration, asks that group's leader, and
//! goes where refusals send it until the deadline. `WrongGroup` with a newer number: refresh once, go
//! to the new owner. `NotReady`: the shard is on its way there; ask the group that has it, and then the owner
//! again. No owner: watch the controllers. No leader for a second: ask for a newer configuration, for the group may have left.
//! Settled shards are served without any controller.
//!
//! With sessions (the default) every write is exactly once: its (session, number) stays the same on
//! every attempt, even in another group, because sessions move with their shard (correctness rules
//! 26, 39). A clerk holds a pool of sessions for each shard, so its clones may be used by many
//! tasks at once; a session has one write in flight at a time. If the session expired and no
//! attempt may have been executed, a new session is opened; otherwise the outcome is unknown.
//!
//! Without sessions a conditional put is executed at most once through its version alone, because
//! no version returns. When one of its attempts was lost and a later one meets another version, the
//! first may have been the reason: [`Error::Maybe`]. Other writes are sent again only if they were
//! definitely not executed. A create (version 0) is one of them: a delete makes the key absent
//! again.
//!
//! A time-out is never called a failure (rule 27): [`Error::Unknown`] if any attempt may have been
//! executed, [`Error::Unavailable`] if definitely none was.
//!
//! Left out on purpose: transactions over several keys; a scan over several shards is several pages
//! that are not one atomic read (rule 45).

mod batch;
mod route;
mod sessions;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::clock::{self, Instant};
use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;

use self::sessions::{Lease, Sessions};
use crate::api::config::{Params, shard_of};
use crate::api::kv::{Item, KvRefusal, KvReply, KvRequest, Write, check_key};
use crate::api::{Address, ConfigNum, GroupId, ShardId, Ticket, Version};
use crate::cache::ConfigCache;
use crate::connection::{self, Connection, TarpcConnection};
use crate::ctrl;
use crate::group::{Attempts, GroupClient};

/// Settings of a [`Clerk`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Seed of its jitter. Clerks of one process should use different seeds.
    pub seed: u64,
    /// Total time of an operation. Default 10 s.
    pub deadline: Duration,
    /// Exactly-once writes. Default true.
    pub sessions: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { seed: 0, deadline: Duration::from_secs(10), sessions: true }
    }
}

/// Why an operation has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It may have been done, once, or not.
    #[error("whether it was done is not known")]
    Unknown,
    /// A conditional put without a session met another version after an attempt was lost: its own
    /// attempt may have made that version.
    #[error("the version differs, perhaps because an earlier attempt of this very put was done")]
    Maybe,
    /// The key has another version: not done.
    #[error("the key's version is {version}, not the expected one")]
    VersionMismatch {
        /// The key's version; 0: it is absent.
        version: Version,
    },
    /// The values that a batch would make are too large together: nothing of it was done. (A clerk
    /// splits its own batches instead.)
    #[error(
        "the values that this batch would make have {bytes} bytes or more, allowed are {limit}: send it in parts"
    )]
    BatchTooLarge {
        /// Bytes that they would have up to the write that is too much.
        bytes: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// The value would be too large: not done.
    #[error("a value of {bytes} bytes exceeds this cluster's limit of {limit}")]
    ValueTooLarge {
        /// Bytes it would have.
        bytes: u64,
        /// Bytes allowed.
        limit: u32,
    },
    /// The key is empty or too long: not done.
    #[error("a key of {bytes} bytes is not allowed: keys have 1 to {limit} bytes in this cluster")]
    InvalidKey {
        /// Its length.
        bytes: u64,
        /// Bytes allowed.
        limit: u32,
    },
    /// The disk of the key's group is nearly full: not done.
    #[error("a disk of the key's group is nearly full; reads and deletes still work")]
    DiskFull,
    /// No such shard.
    #[error("shard {0} does not exist in this cluster")]
    UnknownShard(ShardId),
    /// Nobody did it within the deadline: definitely not done.
    #[error("not done in time: {why}")]
    Unavailable {
        /// What was heard last.
        why: String,
        /// The group that was asked last, if no leader of it answered.
        silent: Option<GroupId>,
    },
    /// Refused for a reason that trying again does not change: not done.
    #[error("{why}")]
    Refused {
        /// In the server's words.
        why: String,
    },
}

/// What a get found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    /// The value; none: the key is absent.
    pub value: Option<Bytes>,
    /// Its version; 0: the key is absent.
    pub version: Version,
}

/// A page of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The rows, in the order (slot, key).
    pub items: Vec<Item>,
    /// Nothing follows.
    pub done: bool,
}

/// A client of the store. Clones share sessions, configurations and what is known of leaders.
#[derive(Clone)]
pub struct Clerk {
    shared: Arc<Shared>,
}

struct Shared {
    connection: Arc<dyn Connection>,
    cache: ConfigCache,
    options: Options,
    groups: Mutex<BTreeMap<GroupId, Arc<GroupClient>>>,
    /// Which group serves a shard, where that is not its owner (yet).
    routes: Mutex<BTreeMap<ShardId, GroupId>>,
    sessions: Sessions,
    random: Mutex<StdRng>,
}

/// What came of a request: a reply, a refusal of the group that answered, or neither.
type Routed = Result<Result<KvReply, KvRefusal>, Error>;

impl Clerk {
    /// A clerk of the cluster that `controllers` belong to, over TCP. Must be used inside a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no controller answers within the time of an operation.
    pub async fn connect(controllers: Vec<Address>, options: Options) -> Result<Self, Error> {
        let found = connection::find(&controllers, clock::now().after(options.deadline)).await;
        let (cluster, key) =
            found.map_err(|error| Error::Unavailable { why: error.to_string(), silent: None })?;
        let way = connection::Options { key, ..connection::Options::of(cluster) };
        Ok(Self::new(Arc::new(TarpcConnection::new(way)), controllers, options))
    }

    /// A clerk with configurations of its own. Must be used inside a tokio runtime.
    pub fn new(connection: Arc<dyn Connection>, controllers: Vec<Address>, options: Options) -> Self {
        let cache = ConfigCache::new(Arc::clone(&connection), controllers, options.seed);
        Self::with_cache(connection, cache, options)
    }

    /// A clerk that shares a cache of configurations with others: the way to have many in a
    /// process.
    pub fn with_cache(connection: Arc<dyn Connection>, cache: ConfigCache, options: Options) -> Self {
        let random = StdRng::seed_from_u64(base::seed::derive(options.seed, "clerk"));
        let shared = Shared {
            connection,
            cache,
            options,
            groups: Mutex::default(),
            routes: Mutex::default(),
            sessions: Sessions::default(),
            random: Mutex::new(random),
        };
        Self { shared: Arc::new(shared) }
    }

    /// What this clerk knows of configurations.
    pub fn cache(&self) -> &ConfigCache {
        &self.shared.cache
    }

    /// The value and version of a key. Linearizable.
    ///
    /// # Errors
    /// [`Error`]; never one of unknown outcome.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Got, Error> {
        let (key, until) = (key.into(), self.until());
        let params = self.params(until).await?;
        check_key(&key, params).map_err(refused)?;
        let shard = shard_of(&key, params.shard_count);
        let request = |config| KvRequest::Get { key: key.clone(), config };
        match self.read(shard, until, request).await? {
            KvReply::Value { value, version } => Ok(Got { value, version }),
            reply => Err(odd(&reply)),
        }
    }

    /// Sets the value of a key; returns its new version.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<Version, Error> {
        self.write(key.into(), Write::Put { value: value.into(), expected: None }).await
    }

    /// Sets the value of a key if its version is `expected` (0: if it is absent); returns its new
    /// version.
    ///
    /// A caller that reads and retries after a faster writer should wait a random moment first:
    /// writers that race in step lose to the same one each time.
    ///
    /// # Errors
    /// [`Error`], among them [`Error::VersionMismatch`].
    pub async fn put_if(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        expected: Version,
    ) -> Result<Version, Error> {
        self.write(key.into(), Write::Put { value: value.into(), expected: Some(expected) }).await
    }

    /// Appends to a key's value; for a missing key, sets it. Returns the new version.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn append(&self, key: impl Into<Bytes>, piece: impl Into<Bytes>) -> Result<Version, Error> {
        self.write(key.into(), Write::Append { piece: piece.into() }).await
    }

    /// Removes a key; returns the version that was deleted, 0 if there was nothing.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<Version, Error> {
        self.write(key.into(), Write::Delete).await
    }

    /// At most `limit` rows of a shard after the key `after`, in the order (slot, key). Each page
    /// on its own is linearizable; several are not one atomic read (correctness rule 45).
    ///
    /// # Errors
    /// [`Error`]; never one of unknown outcome.
    pub async fn scan(&self, shard: ShardId, after: Option<Bytes>, limit: u32) -> Result<Page, Error> {
        let until = self.until();
        let request = |config| KvRequest::Scan { shard, after: after.clone(), limit, config };
        match self.read(shard, until, request).await? {
            KvReply::Page { items, done } => Ok(Page { items, done }),
            reply => Err(odd(&reply)),
        }
    }

    /// The limits of this cluster.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and [`Error::Refused`].
    pub async fn limits(&self) -> Result<Params, Error> {
        self.params(self.until()).await
    }

    fn until(&self) -> Instant {
        clock::now().after(self.shared.options.deadline)
    }

    async fn params(&self, until: Instant) -> Result<Params, Error> {
        let view = self.shared.cache.any(until).await.map_err(controllers)?;
        Ok(view.config.params)
    }

    async fn read(
        &self,
        shard: ShardId,
        until: Instant,
        request: impl Fn(ConfigNum) -> KvRequest,
    ) -> Result<KvReply, Error> {
        let mut attempts = Attempts::repeatable();
        match self.route(shard, until, &mut attempts, request).await {
            Ok(reply) => reply.map_err(refused),
            // A read has no effect, so nothing about it is unknown.
            Err(Error::Unknown) => Err(Error::Unavailable { why: "no answer".to_owned(), silent: None }),
            Err(error) => Err(error),
        }
    }

    async fn write(&self, key: Bytes, write: Write) -> Result<Version, Error> {
        let until = self.until();
        let params = self.params(until).await?;
        check_key(&key, params).and_then(|()| write.check(params)).map_err(refused)?;
        let shard = shard_of(&key, params.shard_count);
        // A deleted key is absent again: a create that was done, and deleted by somebody, could be
        // done again.
        let at_most_once = matches!(write, Write::Put { expected: Some(version), .. } if version.0 > 0);
        let request =
            |ticket, config| KvRequest::Write { key: key.clone(), write: write.clone(), ticket, config };
        match self.change(shard, until, at_most_once, request).await? {
            KvReply::Written { version } => Ok(version),
            reply => {
                note_odd(&reply);
                Err(Error::Unknown)
            }
        }
    }

    async fn change(
        &self,
        shard: ShardId,
        until: Instant,
        at_most_once: bool,
        request: impl Fn(Option<Ticket>, ConfigNum) -> KvRequest,
    ) -> Result<KvReply, Error> {
        if self.shared.options.sessions {
            self.change_exactly_once(shard, until, request).await
        } else {
            self.change_bare(shard, until, at_most_once, |config| request(None, config)).await
        }
    }

    async fn change_exactly_once(
        &self,
        shard: ShardId,
        until: Instant,
        request: impl Fn(Option<Ticket>, ConfigNum) -> KvRequest,
    ) -> Result<KvReply, Error> {
        let mut attempts = Attempts::repeatable();
        loop {
            let mut lease = self.lease(shard, until).await?;
            let ticket = Some(lease.next_ticket());
            match self.route(shard, until, &mut attempts, |config| request(ticket, config)).await {
                Ok(Err(KvRefusal::SessionExpired | KvRefusal::StaleSeq)) => {
                    lease.forget();
                    if attempts.may_have_acted {
                        return Err(Error::Unknown);
                    }
                    if clock::now() >= until {
                        let why = "sessions expire too quickly".to_owned();
                        return Err(Error::Unavailable { why, silent: None });
                    }
                }
                Err(Error::Unavailable { .. })
                    if base::mutant!("new-number-on-retry") && clock::now() < until => {}
                result => return written(result, attempts),
            }
        }
    }

    async fn change_bare(
        &self,
        shard: ShardId,
        until: Instant,
        at_most_once: bool,
        request: impl Fn(ConfigNum) -> KvRequest,
    ) -> Result<KvReply, Error> {
        let mut attempts = if at_most_once { Attempts::repeatable() } else { Attempts::only_once() };
        match self.route(shard, until, &mut attempts, request).await {
            Ok(Err(KvRefusal::VersionMismatch { .. }))
                if attempts.may_have_acted && !base::mutant!("maybe-is-mismatch") =>
            {
                Err(Error::Maybe)
            }
            result => written(result, attempts),
        }
    }

    /// A session nobody uses, opened if need be.
    async fn lease(&self, shard: ShardId, until: Instant) -> Result<Lease<'_>, Error> {
        if let Some(lease) = self.shared.sessions.lease(shard) {
            return Ok(lease);
        }
        // Opened twice, the first session is merely never used.
        match self.read(shard, until, |config| KvRequest::Open { shard, config }).await? {
            KvReply::Opened(session) => Ok(self.shared.sessions.opened(shard, session)),
            reply => Err(odd(&reply)),
        }
    }
}

/// The outcome of a write.
fn written(result: Routed, attempts: Attempts) -> Result<KvReply, Error> {
    match result {
        Ok(Ok(reply)) => Ok(reply),
        // Results that are not recorded: they say nothing about earlier attempts.
        Ok(Err(KvRefusal::DiskFull | KvRefusal::LostData { .. })) if attempts.may_have_acted => {
            Err(Error::Unknown)
        }
        Ok(Err(refusal)) => Err(refused(refusal)),
        Err(_) if attempts.may_have_acted => Err(Error::Unknown),
        Err(error) => Err(error),
    }
}

fn refused(refusal: KvRefusal) -> Error {
    match refusal {
        KvRefusal::VersionMismatch { version } => Error::VersionMismatch { version },
        KvRefusal::ValueTooLarge { bytes, limit } => Error::ValueTooLarge { bytes, limit },
        KvRefusal::InvalidKey { bytes, limit } => Error::InvalidKey { bytes, limit },
        KvRefusal::BatchTooLarge { bytes, limit } => Error::BatchTooLarge { bytes, limit },
        KvRefusal::DiskFull => Error::DiskFull,
        KvRefusal::UnknownShard(shard) => Error::UnknownShard(shard),
        refusal => Error::Refused { why: refusal.to_string() },
    }
}

fn controllers(error: ctrl::Error) -> Error {
    match error {
        ctrl::Error::Refused(refusal) => Error::Refused { why: refusal.to_string() },
        ctrl::Error::Foreign { why } => Error::Refused { why },
        ctrl::Error::Unknown | ctrl::Error::Unavailable { .. } => {
            Error::Unavailable { why: error.to_string(), silent: None }
        }
    }
}

/// A server of another build, or broken: its answer is refused (correctness rule 49).
fn odd(reply: &KvReply) -> Error {
    note_odd(reply);
    Error::Refused { why: "a server answered another question: is it of this build?".to_owned() }
}

fn note_odd(reply: &KvReply) {
    tracing::debug!(?reply, "an answer to another question");
}

#[cfg(test)]
mod tests;
