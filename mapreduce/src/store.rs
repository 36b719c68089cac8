//! Results into the store, exactly once.
//!
//! A reducer's pairs are dealt into parts: keys of one shard, and a mark of the job, the reducer and the part that lies
//! in the same shard (a `{tag}` is searched for that). A part is written so:
//!
//! 1. read all its keys and their versions;
//! 2. then read its mark: if it is there, the part was written before;
//! 3. write, as one batch, each key on condition of the version that was read, and the mark on condition that it is
//!    absent. The writes of a batch to one shard take effect together, each judged by itself.
//!
//! Between 1 and 3 only another attempt at this part writes these keys, because one job at a time holds the lock of
//! the prefix, and reducers of a job have different keys. If it did, every version differs and the mark is there, so
//! this batch changes nothing. If it did before 1, then 2 finds the mark. So a part takes effect once, however
//! often it is sent, late, or by workers that were stopped in between. For that every attempt must send the same pairs:
//! the worker sends those of the first attempt that made its file of results.
//!
//! The lock's token is a function of the job, so another coordinator of the same job holds what the first one held.
//!
//! Left out on purpose: keys that others write or delete while a job runs. A key that was changed is told as an error.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::clock;
use base::socket::{self, Key};
use bytes::Bytes;
use clerk::api::config::{Params, shard_of};
use clerk::api::kv::{BATCH_BYTES_MAX, Write};
use clerk::api::{ShardId, Version};
use clerk::connection::{Options, TarpcConnection};
use clerk::kv::{self, Clerk, Error, Got, Page};
use clerk::lock::{Held, Lock, LockError};
use futures::{StreamExt, TryStreamExt, future, stream};

use crate::files::Output;

/// Keys of a part: with the mark, fewer than one batch takes.
const PART_KEYS: usize = 200;
/// Bytes of a part, far below what one batch takes.
const PART_BYTES: usize = BATCH_BYTES_MAX / 2;
/// No sum has more digits.
const NUMBER_BYTES: usize = 40;
/// Parts on their way at once.
const AT_ONCE: usize = 8;
/// A part that is not written within this fails the task.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

/// Why results are not in the store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store's words.
    #[error(transparent)]
    Store(#[from] Error),
    /// No controller answers.
    #[error("no controller answers: {0}: check --controllers")]
    NoController(String),
    /// A value is to be added, and one of both is no number.
    #[error("{key:?} is {found:?}, not a whole number: nothing can be added to it")]
    NotANumber {
        /// The key.
        key: String,
        /// Its value, or the one to be added.
        found: String,
    },
    /// Key and value together.
    #[error("{key:?} and its value have {bytes} bytes: too many for this store")]
    TooLarge {
        /// The key.
        key: String,
        /// Its size.
        bytes: usize,
    },
    /// Somebody else writes there.
    #[error(
        "{0:?} was changed by somebody else while the job wrote it: its value lacks what the job had for it"
    )]
    Changed(String),
    /// Another job.
    #[error("the lock of {0:?} is held, by another job: wait for it, or `mr clean` its directory")]
    Locked(String),
    /// The lock's words.
    #[error(transparent)]
    Lock(#[from] LockError),
}

/// A way to the store.
#[derive(Clone)]
pub struct Store {
    clerk: Clerk,
}

/// Keys of one shard, what is written there, and the mark that says that it was.
struct Part {
    pairs: Vec<(Bytes, String)>,
    bytes: usize,
    mark: Bytes,
}

impl Store {
    /// By a clerk whose writes are exactly once.
    pub fn new(clerk: Clerk) -> Self {
        Self { clerk }
    }

    /// The store of these controllers.
    ///
    /// # Errors
    /// [`StoreError::NoController`].
    pub async fn connect(controllers: &[String]) -> Result<Self, StoreError> {
        let mut why = "no address is given".to_owned();
        for address in controllers {
            match socket::cluster_of(address, Duration::from_secs(1)).await {
                Ok((cluster, key)) => {
                    let options = Options { key: Key::new(key), ..Options::of(cluster) };
                    let connection = Arc::new(TarpcConnection::new(options));
                    let options = kv::Options { seed: rand::random(), ..kv::Options::default() };
                    return Ok(Self::new(Clerk::new(connection, controllers.to_vec(), options)));
                }
                Err(error) => why = format!("{address}: {error}"),
            }
        }
        Err(StoreError::NoController(why))
    }

    /// Shards of the store.
    ///
    /// # Errors
    /// The store's.
    pub async fn shards(&self) -> Result<u32, StoreError> {
        Ok(self.clerk.limits().await?.shard_count)
    }

    /// A page of a shard. Tries for a while.
    ///
    /// # Errors
    /// The store's.
    pub async fn scan(&self, shard: ShardId, after: Option<Bytes>, limit: u32) -> Result<Page, StoreError> {
        let until = clock::now().after(PATIENCE);
        loop {
            match self.clerk.scan(shard, after.clone(), limit).await {
                Err(Error::Unavailable { .. }) if clock::now() < until => clock::sleep(PAUSE).await,
                page => return Ok(page?),
            }
        }
    }

    /// Writes the pairs of a reducer, unless that was done before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn send(
        &self,
        job: u64,
        reduce: u32,
        output: &Output,
        pairs: &[(String, String)],
    ) -> Result<(), StoreError> {
        let parts = deal(job, reduce, output, pairs, self.clerk.limits().await?)?;
        let sending = stream::iter(parts).map(|part| self.send_part(part, output.add));
        sending.buffer_unordered(AT_ONCE).try_collect::<()>().await
    }

    async fn send_part(&self, part: Part, add: bool) -> Result<(), StoreError> {
        let until = clock::now().after(PATIENCE);
        loop {
            match self.try_part(&part, add).await {
                Ok(true) => return Ok(()),
                // Of unknown outcome, or a twin was faster: the next look at the mark tells.
                Ok(false) | Err(StoreError::Store(Error::Unavailable { .. } | Error::Unknown))
                    if clock::now() < until =>
                {
                    clock::sleep(PAUSE).await;
                }
                Ok(false) => return Err(StoreError::Store(Error::Unknown)),
                Err(error) => return Err(error),
            }
        }
    }

    /// One try: whether the part is surely written.
    async fn try_part(&self, part: &Part, add: bool) -> Result<bool, StoreError> {
        base::mutant!("mark-read-first", {
            if self.clerk.get(part.mark.clone()).await?.value.is_some() {
                return Ok(true);
            }
        });
        let reads = part.pairs.iter().map(|(key, _)| self.clerk.get(key.clone()));
        let seen: Vec<Got> = future::try_join_all(reads).await?;
        let mark = self.clerk.get(part.mark.clone()).await?;
        let mut is_written = mark.value.is_some();
        base::mutant!("mark-skipped", is_written = false);
        base::mutant!("mark-read-first", is_written = false);
        if is_written {
            return Ok(true);
        }
        let mut writes = Vec::with_capacity(part.pairs.len() + 1);
        for ((key, value), seen) in part.pairs.iter().zip(&seen) {
            let value = if add { sum(key, seen.value.as_deref(), value)? } else { value.clone() };
            writes.push((key.clone(), put(value, seen.version)));
        }
        writes.push((part.mark.clone(), put(String::new(), Version(0))));
        let mut results = self.clerk.batch(writes).await;
        match results.pop() {
            Some(Ok(_)) => {}
            Some(Err(Error::VersionMismatch { .. })) => return Ok(false),
            Some(Err(error)) => return Err(error.into()),
            None => return Ok(false),
        }
        for ((key, _), result) in part.pairs.iter().zip(results) {
            match result {
                Err(Error::VersionMismatch { .. }) => return Err(StoreError::Changed(shown(key))),
                result => drop(result?),
            }
        }
        Ok(true)
    }

    /// The lock of a prefix, as this job holds it, whichever coordinator asks.
    ///
    /// # Errors
    /// [`StoreError::Locked`], and the store's.
    pub async fn lock(&self, job: u64, prefix: &str, within: Duration) -> Result<Held, StoreError> {
        match self.lock_of(job, prefix).acquire(within).await {
            Err(LockError::TimedOut { .. }) => Err(StoreError::Locked(prefix.to_owned())),
            held => Ok(held?),
        }
    }

    /// Gives the lock of a prefix back.
    ///
    /// # Errors
    /// The lock's.
    pub async fn unlock(&self, job: u64, prefix: &str, held: Held) -> Result<(), StoreError> {
        Ok(self.lock_of(job, prefix).release(held, PATIENCE).await?)
    }

    fn lock_of(&self, job: u64, prefix: &str) -> Lock {
        Lock::new(self.clerk.clone(), format!("mr/lock/{prefix}"), job)
    }
}

fn put(value: String, at: Version) -> Write {
    Write::Put { value: value.into(), expected: Some(at) }
}

fn shown(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

fn sum(key: &[u8], there: Option<&[u8]>, more: &str) -> Result<String, StoreError> {
    let number = |text: &[u8]| {
        let parsed = std::str::from_utf8(text).ok().and_then(|text| text.parse::<i128>().ok());
        parsed.ok_or_else(|| StoreError::NotANumber { key: shown(key), found: shown(text) })
    };
    let (there, more) = (there.map_or(Ok(0), number)?, number(more.as_bytes())?);
    Ok(there.saturating_add(more).to_string())
}

/// Deals pairs into parts: the same parts for the same pairs.
fn deal(
    job: u64,
    reduce: u32,
    output: &Output,
    pairs: &[(String, String)],
    limits: Params,
) -> Result<Vec<Part>, StoreError> {
    let shards = limits.shard_count;
    let mut dealt: BTreeMap<ShardId, Vec<Part>> = BTreeMap::new();
    for (key, value) in pairs {
        let key = Bytes::from(format!("{}{key}", output.prefix));
        // What is refused for its size would be missing, and the mark would be there.
        let (long, longest) = (key.len(), value.len().max(NUMBER_BYTES));
        let too_long = |bytes: usize, limit: u32| bytes as u64 > u64::from(limit);
        if long + longest > PART_BYTES
            || too_long(long, limits.key_bytes_max)
            || too_long(longest, limits.value_bytes_max)
        {
            return Err(StoreError::TooLarge { key: shown(&key), bytes: long + longest });
        }
        let bytes = long + longest;
        let shard = shard_of(&key, shards);
        let parts = dealt.entry(shard).or_default();
        let is_full = |part: &Part| part.pairs.len() == PART_KEYS || part.bytes + bytes > PART_BYTES;
        if parts.last().is_none_or(is_full) {
            let mark = format!("{}mr/{job:016x}/{reduce}/{}", tag(shard, shards), parts.len());
            parts.push(Part { pairs: Vec::new(), bytes: 0, mark: mark.into() });
        }
        if let Some(part) = parts.last_mut() {
            part.bytes += bytes;
            part.pairs.push((key, value.clone()));
        }
    }
    Ok(dealt.into_values().flatten().collect())
}

/// The first tag whose keys lie in `shard`.
fn tag(shard: ShardId, shards: u32) -> String {
    let tags = (0_u64..).map(|number| format!("{{{number}}}"));
    tags.into_iter().find(|tag| shard_of(tag.as_bytes(), shards) == shard).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use clerk::api::config::{Params, shard_of};

    use super::{PART_KEYS, StoreError, deal, sum};
    use crate::files::Output;

    #[test]
    fn a_part_and_its_mark_lie_in_one_shard_and_no_two_marks_are_the_same() {
        let pairs: Vec<_> = (0..3000).map(|word| (format!("word{word}"), "1".to_owned())).collect();
        let output = Output { prefix: "wc/".to_owned(), add: true };
        let limits = Params::default();
        for shards in [1, 7, 64, 1024] {
            let parts = deal(9, 3, &output, &pairs, Params { shard_count: shards, ..limits }).unwrap();
            let keys: usize = parts.iter().map(|part| part.pairs.len()).sum();
            assert_eq!(keys, pairs.len());
            for part in &parts {
                let shard = shard_of(&part.mark, shards);
                assert!(part.pairs.len() <= PART_KEYS);
                assert!(part.pairs.iter().all(|(key, _)| shard_of(key, shards) == shard));
            }
            let marks: std::collections::BTreeSet<_> = parts.iter().map(|part| &part.mark).collect();
            assert_eq!(marks.len(), parts.len());
        }
    }

    #[test]
    fn only_whole_numbers_are_added() {
        assert_eq!(sum(b"k", None, "3"), Ok("3".to_owned()));
        assert_eq!(sum(b"k", Some(b"-4"), "3"), Ok("-1".to_owned()));
        assert_eq!(sum(b"k", Some(b"9223372036854775807"), "1"), Ok("9223372036854775808".to_owned()));
        let not = StoreError::NotANumber { key: "k".to_owned(), found: "x".to_owned() };
        assert_eq!(sum(b"k", Some(b"x"), "3"), Err(not));
    }
}
