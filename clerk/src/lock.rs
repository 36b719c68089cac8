//! A lock over the store, built on conditional puts alone (6.5840 2025 and 2026, Lab 2).
//!
//! The lock is one key. Free: it is absent or its value is empty. Held: the value is the token of
//! one acquisition, which nobody else ever writes. [`Lock::acquire`] puts its token on condition of
//! the version at which it saw the lock free, so only one of many gets it. A put of unknown outcome
//! is settled by reading: the token is there, or it is not. If not, the next try carries the same
//! token, so it does no harm if both arrive.
//!
//! What a lock cannot do: stop a holder that was so slow that an operator gave its lock to another.
//! [`Held::fence`] is for that: it is the version that the acquisition made, and it grows with
//! every acquisition, even across deletes. A client that stores something under the lock should
//! store the fence with it and refuse smaller ones.
//!
//! Left out on purpose: time limits on holding (a store cannot tell a dead holder from a slow one),
//! and fairness.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base::clock::{self, Instant};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::api::Version;
use crate::kv::{Clerk, Error};

/// The pause between two looks at a lock that another client holds.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(60);

/// Why a lock was not acquired or not released.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// Another client held it all the time, or nobody answered; it is not held now and will not be.
    #[error("the lock was not acquired in time: {why}")]
    TimedOut {
        /// What was seen last.
        why: String,
    },
    /// Time ran out while the outcome of a put was open: the lock may be held by this acquisition, and
    /// nobody else gets it then until [`Lock::clear`].
    #[error("whether the lock was acquired is not known; if it was, only clearing it frees it")]
    Unknown,
    /// The lock is no longer this holder's: somebody cleared it.
    #[error("the lock is not held any more: somebody cleared it")]
    NotHeld,
    /// The store refuses, for a reason that trying again does not change.
    #[error(transparent)]
    Store(Error),
}

/// An acquisition. Give it back with [`Lock::release`].
#[derive(Debug)]
#[must_use = "a lock that is not released stays held"]
pub struct Held {
    token: Bytes,
    fence: Version,
}

impl Held {
    /// The number of this acquisition: later ones have larger numbers.
    pub fn fence(&self) -> Version {
        self.fence
    }
}

/// A lock by its key. Any number of processes may use the same.
pub struct Lock {
    clerk: Clerk,
    key: Bytes,
    random: Mutex<StdRng>,
}

impl Lock {
    /// The lock kept at `key`, which nothing else may write. `seed` decides tokens and pauses:
    /// every user of a lock needs a different one. The first token is a function of the seed, so a
    /// user that restarts with its old seed acquires a lock that it still holds.
    pub fn new(clerk: Clerk, key: impl Into<Bytes>, seed: u64) -> Self {
        let random = Mutex::new(StdRng::seed_from_u64(base::seed::derive(seed, "lock")));
        Self { clerk, key: key.into(), random }
    }

    /// Acquires the lock, and waits for at most `within` while others hold it.
    ///
    /// # Errors
    /// [`LockError`]; only after [`LockError::Unknown`] the lock may still be held.
    pub async fn acquire(&self, within: Duration) -> Result<Held, LockError> {
        let until = clock::now().after(within);
        let token = Bytes::from(format!("{:032x}", self.draw(|random| random.random::<u128>())));
        // The version for which a put of unknown outcome was made, while it may still take effect.
        let mut open: Option<Version> = None;
        loop {
            let look = self.look().await?;
            if let Look::At(_, version) = &look {
                open = open.filter(|at| version == at);
            }
            let why = match look {
                Look::At(value, fence) if value == token => return Ok(Held { token, fence }),
                Look::At(value, version) if value.is_empty() => match self.put(&token, version).await? {
                    Done::Version(fence) => return Ok(Held { token, fence }),
                    Done::Not => "others were faster".to_owned(),
                    Done::Unknown => {
                        open = Some(version);
                        "no answer".to_owned()
                    }
                },
                Look::At(..) => "somebody holds it".to_owned(),
                Look::Unavailable(why) => why,
            };
            if !self.pause(until).await {
                return Err(if open.is_some() { LockError::Unknown } else { LockError::TimedOut { why } });
            }
        }
    }

    /// Releases the lock. Retries until it is certainly released or `within` is over.
    ///
    /// # Errors
    /// [`LockError`]: after [`LockError::Unknown`] it may still be held.
    pub async fn release(&self, held: Held, within: Duration) -> Result<(), LockError> {
        let until = clock::now().after(within);
        let mut tried = false;
        loop {
            match self.look().await? {
                Look::At(value, version) if value == held.token && version == held.fence => {
                    match self.put(&Bytes::new(), version).await? {
                        Done::Version(_) => return Ok(()),
                        Done::Not | Done::Unknown => tried = true,
                    }
                }
                // An earlier try of ours did it, or somebody cleared the lock.
                Look::At(..) if tried => return Ok(()),
                Look::At(..) => return Err(LockError::NotHeld),
                Look::Unavailable(_) => {}
            }
            if !self.pause(until).await {
                return Err(LockError::Unknown);
            }
        }
    }

    /// Frees the lock, no matter who holds it: for operators who know that the holder is gone. The
    /// next fence is larger than the holder's.
    ///
    /// # Errors
    /// [`LockError::Store`].
    pub async fn clear(&self) -> Result<(), LockError> {
        self.clerk.put(self.key.clone(), Bytes::new()).await.map(drop).map_err(LockError::Store)
    }

    async fn look(&self) -> Result<Look, LockError> {
        match self.clerk.get(self.key.clone()).await {
            Ok(got) => Ok(Look::At(got.value.unwrap_or_default(), got.version)),
            Err(Error::Unavailable { why, .. }) => Ok(Look::Unavailable(why)),
            Err(error) => Err(LockError::Store(error)),
        }
    }

    async fn put(&self, value: &Bytes, at: Version) -> Result<Done, LockError> {
        match self.clerk.put_if(self.key.clone(), value.clone(), at).await {
            Ok(version) => Ok(Done::Version(version)),
            Err(Error::VersionMismatch { .. } | Error::Unavailable { .. }) => Ok(Done::Not),
            Err(Error::Maybe | Error::Unknown) => Ok(Done::Unknown),
            Err(error) => Err(LockError::Store(error)),
        }
    }

    /// Waits a little; false: there is no time left.
    async fn pause(&self, until: Instant) -> bool {
        let pause = self.draw(|random| random.random_range(PAUSE_MIN..PAUSE_MAX));
        let left = until.since(clock::now());
        clock::sleep(pause.min(left)).await;
        left > pause
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What the key holds.
enum Look {
    At(Bytes, Version),
    Unavailable(String),
}

/// What became of a put.
enum Done {
    Version(Version),
    Not,
    Unknown,
}
