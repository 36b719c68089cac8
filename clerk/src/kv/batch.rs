//! Many writes at once: one request per shard, all shards at once. Each request is one write with
//! one ticket, so it is exactly once like any other.
//!
//! Left out on purpose: atomicity over several requests.

use std::collections::BTreeMap;

use base::clock::Instant;
use bytes::Bytes;
use futures::future::{BoxFuture, join_all};

use super::{Clerk, Error, note_odd, refused};
use crate::api::config::shard_of;
use crate::api::kv::{BATCH_BYTES_MAX, BATCH_WRITES_MAX, KvReply, KvRequest, Write, check_key};
use crate::api::{ShardId, Version};

/// Writes of a batch that go to one shard in one request.
#[derive(Default)]
struct Part {
    writes: Vec<(Bytes, Write)>,
    /// The position of each write in the batch.
    places: Vec<usize>,
    bytes: usize,
}

/// Adds a write to the last part, or to a new one if that is full.
fn add_to_parts(parts: &mut Vec<Part>, place: usize, key: Bytes, write: Write) {
    let bytes = key.len() + write.bytes();
    let full = |part: &Part| part.writes.len() == BATCH_WRITES_MAX || part.bytes + bytes > BATCH_BYTES_MAX;
    if parts.last().is_none_or(full) {
        parts.push(Part::default());
    }
    if let Some(part) = parts.last_mut() {
        part.bytes += bytes;
        part.places.push(place);
        part.writes.push((key, write));
    }
}

impl Clerk {
    /// Many writes in few requests: one per shard (more if they are many or large), all shards at
    /// once. Returns the outcome of each, in the order of `writes`.
    ///
    /// The writes to one shard keep their order. Those of one request take effect together, each
    /// judged separately, and together they are exactly once; requests to several shards are
    /// independent of each other. Keys that share a `{hash tag}` share a shard.
    ///
    /// # Errors
    /// For each write as if it had been alone.
    pub async fn batch(
        &self,
        writes: impl IntoIterator<Item = (Bytes, Write)>,
    ) -> Vec<Result<Version, Error>> {
        let until = self.until();
        let writes: Vec<_> = writes.into_iter().collect();
        let params = match self.params(until).await {
            Ok(params) => params,
            Err(error) => return vec![Err(error); writes.len()],
        };
        let mut results = vec![Ok(Version(0)); writes.len()];
        let mut by_shard: BTreeMap<ShardId, Vec<Part>> = BTreeMap::new();
        for (place, (key, write)) in writes.into_iter().enumerate() {
            match check_key(&key, params).and_then(|()| write.check(params)) {
                Ok(()) => {
                    let shard = shard_of(&key, params.shard_count);
                    add_to_parts(by_shard.entry(shard).or_default(), place, key, write);
                }
                Err(refusal) => results[place] = Err(refused(refusal)),
            }
        }
        let shards = by_shard.into_iter().map(|(shard, parts)| async move {
            let mut done = Vec::new();
            for part in parts {
                done.extend(part.places.into_iter().zip(self.write_part(shard, until, part.writes).await));
            }
            done
        });
        for (place, result) in join_all(shards).await.into_iter().flatten() {
            results[place] = result;
        }
        results
    }

    /// Sends a part of a batch to its shard, in halves if it would make too much there; returns the
    /// outcome of each write.
    fn write_part(
        &self,
        shard: ShardId,
        until: Instant,
        writes: Vec<(Bytes, Write)>,
    ) -> BoxFuture<'_, Vec<Result<Version, Error>>> {
        Box::pin(async move {
            let count = writes.len();
            let results = self.write_together(shard, until, &writes).await;
            match results.first() {
                Some(Err(Error::BatchTooLarge { .. })) if count > 1 => {
                    let mut first = writes;
                    let second = first.split_off(count / 2);
                    let mut done = self.write_part(shard, until, first).await;
                    done.extend(self.write_part(shard, until, second).await);
                    done
                }
                _ => results,
            }
        })
    }

    async fn write_together(
        &self,
        shard: ShardId,
        until: Instant,
        writes: &[(Bytes, Write)],
    ) -> Vec<Result<Version, Error>> {
        let count = writes.len();
        let request = |ticket, config| KvRequest::Batch { shard, writes: writes.to_vec(), ticket, config };
        match self.change(shard, until, false, request).await {
            Ok(KvReply::Batch { results }) if results.len() == count => {
                results.into_iter().map(|result| result.map_err(refused)).collect()
            }
            Ok(reply) => {
                note_odd(&reply);
                vec![Err(Error::Unknown); count]
            }
            Err(error) => vec![Err(error); count],
        }
    }
}
