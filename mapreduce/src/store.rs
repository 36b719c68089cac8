//! Writes results into the store, exactly once.
//!
//! The pairs of a reducer are divided into parts. A part has keys of one shard, and a mark for the
//! job, the reducer and the part. The mark is in the same shard: a fitting `{tag}` is searched for
//! its key. A part is written in three steps:
//!
//! 1. Read all its keys, with their versions.
//! 2. Then read its mark. If the mark exists, the part was written before.
//! 3. Write one batch: each key on condition of the version that was read, and the mark on
//!    condition that it is absent. The writes of a batch to one shard take effect together, and
//!    each is checked separately.
//!
//! Between 1 and 3 only another attempt at the same part can write these keys: a job has its prefix
//! for itself, and reducers of a job have different keys. If another attempt did so, every version
//! differs and the mark exists, so this batch changes nothing. If another attempt wrote before 1,
//! then 2 finds the mark. So a part takes effect once, even if it is sent often or late, or by
//! workers that were stopped in between. For that, every attempt must send the same pairs: the
//! worker sends the pairs of the first attempt that made its file of results.
//!
//! A key that somebody else changed between 1 and 3 is refused, but the mark is made. So the mark
//! holds a checksum of all values of the part. An attempt that finds the mark compares: a value
//! that is missing is not reported as written (rule 122).
//!
//! One row holds the prefixes of the running jobs. A job adds its own on condition of the row's
//! version, if no other prefix overlaps with it (rule 121). The row names the job, so any
//! coordinator of the job holds the prefix.
//!
//! Left out on purpose: keys that others write or delete while a job runs, and keys that are
//! deleted later while a worker of the job is still stopped. An absent key has version 0 again, and
//! that worker's batch would write it.

use std::collections::BTreeMap;
use std::future::Future;
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
use futures::{StreamExt, TryStreamExt, future, stream};
use xxhash_rust::xxh3::xxh3_64;

use crate::files::Output;

/// Keys of a part. With the mark they are fewer than one batch takes.
const PART_KEYS: usize = 200;
/// Bytes of a part, far below what one batch takes.
const PART_BYTES: usize = BATCH_BYTES_MAX / 2;
/// The digits of the longest sum.
const NUMBER_BYTES: usize = 40;
/// Rows of a page.
const PAGE: u32 = 250;
/// Parts that are sent concurrently.
const AT_ONCE: usize = 8;
/// How long to wait for a store that does not answer.
pub const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);
/// The key of the row with the running jobs.
const JOBS: &str = "mr/jobs";

/// The running jobs, and the prefix of each.
type Jobs = BTreeMap<String, String>;

/// Why results are not in the store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Store(#[from] Error),
    #[error("no controller answers: {0}: check --controllers")]
    NoController(String),
    #[error("{0} is a server of {1:?}, and the job belongs to {2:?}: start that cluster, or make a new job")]
    OtherCluster(String, String, String),
    /// A value is to be added, but one of the two is not a number: the key, and that value.
    #[error("{0:?} is {1:?}, not a whole number: nothing can be added to it")]
    NotANumber(String, String),
    /// The key, and the bytes of key and value together.
    #[error("{0:?} and its value have {1} bytes: too many for this store")]
    TooLarge(String, usize),
    #[error("{0:?} is a key of this program's own books: write under another prefix")]
    Reserved(String),
    /// One such key, or the first of several.
    #[error(
        "somebody else wrote where the job writes, at {0:?} or near it: what the job had is missing there"
    )]
    Changed(String),
    /// Another job: its id, its prefix, and the prefix that was asked for.
    #[error(
        "job {0} writes under {1:?}, which overlaps with {2:?}: wait for it, or `mr clean` its directory"
    )]
    Locked(String, String, String),
}

/// Access to the store through a clerk, whose writes are exactly once.
#[derive(Clone)]
pub struct Store(pub Clerk);

/// Keys of one shard, the values for them, and the mark that says that they were written.
struct Part {
    pairs: Vec<(Bytes, String)>,
    bytes: usize,
    mark: Bytes,
}

/// Tries again while the store does not answer, or if the outcome is unknown.
async fn patiently<T, F: Future<Output = Result<T, StoreError>>>(
    mut call: impl FnMut() -> F,
) -> Result<T, StoreError> {
    let until = clock::now().after(PATIENCE);
    loop {
        match call().await {
            Err(StoreError::Store(Error::Unavailable { .. } | Error::Unknown)) if clock::now() < until => {
                clock::sleep(PAUSE).await;
            }
            result => return result,
        }
    }
}

impl Store {
    /// Connects to the store of these controllers, and returns the name of its cluster. If a name
    /// is given, it must be this cluster. Waits for so long until a controller answers.
    ///
    /// # Errors
    /// None answers, or one of another cluster does.
    pub async fn connect(
        controllers: &[String],
        meant: Option<&str>,
        within: Duration,
    ) -> Result<(Self, String), StoreError> {
        let until = clock::now().after(within);
        let mut why = "no address is given".to_owned();
        loop {
            for address in controllers {
                match socket::cluster_of(address, Duration::from_secs(1)).await {
                    Ok((cluster, _)) if meant.is_some_and(|meant| meant != cluster) => {
                        let meant = meant.unwrap_or_default().to_owned();
                        return Err(StoreError::OtherCluster(address.clone(), cluster, meant));
                    }
                    Ok((cluster, key)) => {
                        let options = Options { key: Key::new(key), ..Options::of(cluster.clone()) };
                        let connection = Arc::new(TarpcConnection::new(options));
                        let options = kv::Options { seed: rand::random(), ..kv::Options::default() };
                        return Ok((Self(Clerk::new(connection, controllers.to_vec(), options)), cluster));
                    }
                    Err(error) => why = format!("{address}: {error}"),
                }
            }
            if clock::now() >= until {
                return Err(StoreError::NoController(why));
            }
            clock::sleep(PAUSE).await;
        }
    }

    /// The limits of the store.
    pub async fn limits(&self) -> Result<Params, StoreError> {
        patiently(|| async { Ok(self.0.limits().await?) }).await
    }

    /// A page of a shard.
    pub(crate) async fn scan(&self, shard: ShardId, after: Option<&Bytes>) -> Result<Page, StoreError> {
        patiently(|| async { Ok(self.0.scan(shard, after.cloned(), PAGE).await?) }).await
    }

    /// Writes the pairs of a reducer, unless that was done before.
    pub async fn send(
        &self,
        job: u64,
        reduce: u32,
        output: &Output,
        pairs: &[(String, String)],
    ) -> Result<(), StoreError> {
        let parts = deal(job, reduce, output, pairs, self.limits().await?)?;
        let send = async |part| patiently(|| self.try_part(&part, output.add)).await;
        stream::iter(parts).map(send).buffer_unordered(AT_ONCE).try_collect::<()>().await
    }

    /// One try. If a twin was faster, the outcome is unknown here: the next read of the mark
    /// tells it.
    async fn try_part(&self, part: &Part, add: bool) -> Result<(), StoreError> {
        base::mutant!("mark-read-first", {
            if self.0.get(part.mark.clone()).await?.value.is_some() {
                return Ok(());
            }
        });
        let seen = self.read(part).await?;
        let mut mark = self.0.get(part.mark.clone()).await?.value;
        base::mutant!("mark-skipped", mark = None);
        base::mutant!("mark-read-first", mark = None);
        if let Some(meant) = mark.take() {
            let values = self.read(part).await?.into_iter().map(|got| got.value.unwrap_or_default());
            let is_whole = digest(&values.collect()) == meant || base::mutant!("loss-forgotten");
            let one = shown(&part.pairs[0].0);
            return if is_whole { Ok(()) } else { Err(StoreError::Changed(one)) };
        }
        let value = |((key, value), seen): (&(Bytes, String), &Got)| {
            if add { sum(key, seen.value.as_deref(), value) } else { Ok(value.clone()) }
        };
        let values = part.pairs.iter().zip(&seen).map(value).map(|value| Ok(Bytes::from(value?)));
        let values = values.collect::<Result<Vec<Bytes>, StoreError>>()?;
        let mark = (part.mark.clone(), put(digest(&values).into(), Version(0)));
        let keys = part.pairs.iter().zip(seen).map(|((key, _), seen)| (key.clone(), seen.version));
        let writes = keys.zip(values).map(|((key, version), value)| (key, put(value, version)));
        let mut results = self.0.batch(writes.chain([mark])).await;
        match results.pop() {
            Some(Ok(_)) => {}
            Some(Err(Error::VersionMismatch { .. })) | None => return Err(Error::Unknown.into()),
            Some(Err(error)) => return Err(error.into()),
        }
        // The mark exists: a value that is not written now never will be.
        match results.iter().position(Result::is_err) {
            Some(place) => Err(StoreError::Changed(shown(&part.pairs[place].0))),
            None => Ok(()),
        }
    }

    /// Reads all keys of a part.
    async fn read(&self, part: &Part) -> Result<Vec<Got>, StoreError> {
        let reads = part.pairs.iter().map(|(key, _)| self.0.get(key.clone()));
        Ok(future::try_join_all(reads).await?)
    }

    /// Takes a prefix for this job alone, whichever of its coordinators asks. Without a prefix,
    /// gives it back. Repeating this is harmless.
    ///
    /// # Errors
    /// Another job has the prefix, or an error of the store.
    pub async fn hold(&self, job: u64, prefix: Option<&str>) -> Result<(), StoreError> {
        let name = format!("{job:016x}");
        patiently(|| async {
            let row = self.0.get(JOBS).await?;
            let text = row.value.as_deref().unwrap_or(b"{}");
            let mut jobs: Jobs = serde_json::from_slice(text)
                .map_err(|error| Error::Refused { why: format!("the row {JOBS} is damaged: {error}") })?;
            if !change_jobs(&mut jobs, &name, prefix)? {
                return Ok(());
            }
            let text = serde_json::to_vec(&jobs).unwrap_or_default();
            match self.0.put_if(JOBS, text, row.version).await {
                // The next read of the row tells.
                Err(Error::VersionMismatch { .. }) => Err(Error::Unknown.into()),
                result => Ok(result.map(drop)?),
            }
        })
        .await
    }
}

/// Adds the prefix of a job, or removes it. Returns whether that changes anything.
fn change_jobs(jobs: &mut Jobs, name: &str, prefix: Option<&str>) -> Result<bool, StoreError> {
    let Some(prefix) = prefix else { return Ok(jobs.remove(name).is_some()) };
    let overlaps = |other: &str| {
        (other.starts_with(prefix) || prefix.starts_with(other)) && !base::mutant!("prefix-shared")
    };
    match jobs.iter().find(|(job, other)| *job != name && overlaps(other)) {
        Some((job, other)) => Err(StoreError::Locked(job.clone(), other.clone(), prefix.to_owned())),
        None => Ok(jobs.insert(name.to_owned(), prefix.to_owned()).is_none()),
    }
}

/// Whether a key is one of those that jobs need for themselves: `mr/...` and `{tag}mr/...`.
pub fn is_reserved(key: &[u8]) -> bool {
    let tagged = key.strip_prefix(b"{").and_then(|key| key.splitn(2, |byte| *byte == b'}').nth(1));
    tagged.unwrap_or(key).starts_with(b"mr/")
}

fn put(value: Bytes, at: Version) -> Write {
    Write::Put { value, expected: Some(at) }
}

/// The content of a mark: a checksum of the values of its part.
fn digest(values: &Vec<Bytes>) -> String {
    format!("{:016x}", xxh3_64(&base::codec::encode(values)))
}

fn shown(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

fn sum(key: &[u8], there: Option<&[u8]>, more: &str) -> Result<String, StoreError> {
    let number = |text: &[u8]| {
        let parsed = std::str::from_utf8(text).ok().and_then(|text| text.parse::<i128>().ok());
        parsed.ok_or_else(|| StoreError::NotANumber(shown(key), shown(text)))
    };
    let (old, new) = (there.map_or(Ok(0), number)?, number(more.as_bytes())?);
    let sum =
        old.checked_add(new).ok_or_else(|| StoreError::NotANumber(shown(key), format!("{old} + {new}")))?;
    Ok(sum.to_string())
}

/// Divides pairs into parts: the same pairs give the same parts.
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
        // A value that is refused for its size would be missing while the mark exists.
        let (long, longest) = (key.len(), value.len().max(NUMBER_BYTES));
        let bytes = long + longest;
        let fits = |bytes: usize, limit: u32| bytes as u64 <= u64::from(limit);
        if bytes > PART_BYTES || !fits(long, limits.key_bytes_max) || !fits(longest, limits.value_bytes_max) {
            return Err(StoreError::TooLarge(shown(&key), bytes));
        }
        if is_reserved(&key) {
            return Err(StoreError::Reserved(shown(&key)));
        }
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

/// The first tag whose keys belong to `shard`.
fn tag(shard: ShardId, shards: u32) -> String {
    let mut tags = (0_u64..).map(|number| format!("{{{number}}}"));
    tags.find(|tag| shard_of(tag.as_bytes(), shards) == shard).unwrap_or_default()
}

#[cfg(test)]
mod tests;
