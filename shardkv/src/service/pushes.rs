//! Requests of groups that push shards.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use clerk::api::config::Params;
use clerk::api::kv::{BATCH_BYTES_MAX, KvRefusal};
use clerk::api::push::{Change, PushReply, PushRequest};
use clerk::api::{ConfigNum, GroupId, ShardId};
use host::Trace;

use super::{DEADLINE, Service};
use crate::machine::command::{Command, Query};
use crate::machine::{check, copy};

impl Service {
    pub(super) async fn answer_push(
        &self,
        trace: &Trace,
        request: PushRequest,
    ) -> Result<PushReply, KvRefusal> {
        match request {
            PushRequest::Offer { shard, config, from } => {
                trace.about(shard);
                let answer = self.query(trace, Query::Cursor { shard, config }).await?.push()?;
                Ok(match answer {
                    PushReply::Copied { num, copied, .. } => {
                        self.offers.note(shard, num, from);
                        PushReply::Copied { num, copied, disk_full: self.replica.status().disk_full }
                    }
                    answer => answer,
                })
            }
            PushRequest::Install { shard, config, after, to, rows, .. } => {
                trace.about(shard);
                self.leading()?;
                let params = self.params()?;
                check_chunk(&rows, params)?;
                let cursors = [&after, &to].into_iter().try_for_each(|it| check::cursor(it, params));
                cursors.map_err(KvRefusal::Malformed)?;
                check::chunk(shard, params, &after, &to, &rows).map_err(KvRefusal::Malformed)?;
                let status = self.replica.status();
                if status.uncommitted_bytes >= status.uncommitted_bytes_max / 2 {
                    return Err(KvRefusal::Busy);
                }
                let (count, wanted) = (rows.len(), to.clone());
                let command = Command::Install { shard, config, after, to, rows };
                let done = self.replica.execute_marked(&command, false, DEADLINE, trace.marks()).await;
                let answer = self.run(done)?.push();
                if matches!(&answer, Ok(PushReply::Copied { copied, .. }) if copied.cursor == wanted) {
                    self.rows_taken.fetch_add(count as u64, Ordering::Relaxed);
                }
                answer
            }
            PushRequest::Activate { shard, config, after, rows, end, .. } => {
                trace.about(shard);
                self.leading()?;
                let params = self.params()?;
                check_chunk(&rows, params)?;
                check::cursor(&after, params).map_err(KvRefusal::Malformed)?;
                check::last(shard, params, &rows).map_err(KvRefusal::Malformed)?;
                let count = rows.len();
                let command = Command::Activate { shard, config, after, rows, end };
                let done = self.replica.execute_marked(&command, true, DEADLINE, trace.marks()).await;
                let answer = self.run(done)?.push();
                if matches!(answer, Ok(PushReply::Done { .. })) {
                    self.rows_taken.fetch_add(count as u64, Ordering::Relaxed);
                }
                answer
            }
        }
    }
}

/// Which groups have the shards that are awaited here, as far as they have offered them: one for
/// each shard, of its newest move.
#[derive(Default)]
pub(super) struct Offers(std::sync::Mutex<BTreeMap<ShardId, (ConfigNum, GroupId)>>);

impl Offers {
    /// A group offered a shard that is awaited by the move `num`.
    pub(super) fn note(&self, shard: ShardId, num: ConfigNum, from: GroupId) {
        self.lock().insert(shard, (num, from));
    }

    /// The group that has a shard which is awaited by the move `num`.
    pub(super) fn of(&self, shard: ShardId, num: ConfigNum) -> Option<GroupId> {
        self.lock().get(&shard).filter(|(offered, _)| *offered == num).map(|(_, from)| *from)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ShardId, (ConfigNum, GroupId)>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Refuses a chunk of a shard that would make an entry larger than any that a client can make.
/// Senders cut chunks far below that.
fn check_chunk(chunk: &[Change], params: Params) -> Result<(), KvRefusal> {
    let bytes: usize = chunk.iter().map(copy::weight).sum();
    let largest_row = params.value_bytes_max as usize + params.key_bytes_max as usize + 64;
    let limit = BATCH_BYTES_MAX.max(largest_row);
    if bytes > limit {
        return Err(KvRefusal::Malformed(format!("a chunk of {bytes} bytes exceeds the limit of {limit}")));
    }
    Ok(())
}
