//! How a shard changes hands, in rows: the verdicts of [`crate::shard`] and what each does to the table.
//!
//! Freeze before copy, serve after the own log holds Activate, delete after the receiver's commit is
//! acknowledged (correctness rule 38). All changes of one command are one atomic batch, so a state and
//! the rows that belong to it cannot be told apart by a crash.
//!
//! Left out on purpose: who sends what when (`mover`, `push`).

use clerk::api::config::Config;
use clerk::api::kv::{Cursor, KvRefusal, KvReply};
use clerk::api::{ConfigNum, ShardId};
use raft::rsm::Rows;
use raft::storage::{Read, Row};

use crate::rows;
use crate::shard::{self, Activate, Install, ShardState};
use crate::state_machine::Machine;

impl Machine {
    /// Goes on to `config`, if it is the next one, every shard is settled, and it is of this cluster.
    pub(crate) fn adopt(&mut self, rows: &mut dyn Rows, config: Config) -> bool {
        let fits = config.shards.len() == config.params.shard_count as usize
            && (1..=clerk::api::config::SLOTS).contains(&config.params.shard_count)
            && self.params().is_none_or(|params| params == config.params);
        if !fits || !shard::may_adopt(self.num(), config.num, self.shards().iter().copied()) {
            return false;
        }
        tracing::info!(group = %self.group, config = %config.num, "adopts");
        let (me, num) = (self.group, config.num);
        let assignments: Vec<_> = config.assignments().collect();
        self.set_config(rows, config);
        for (shard, next) in assignments {
            let before = self.state(shard).unwrap_or_default();
            let after = before.adopt(me, next);
            if before == after {
                continue;
            }
            if after == ShardState::Awaiting {
                // Every life of the shard here starts with an empty cursor.
                rows::put_cursor(rows, shard, &Cursor::default());
            }
            self.set_state(rows, shard, after);
            tracing::info!(group = %me, config = %num, %shard, ?before, ?after, "shard");
        }
        true
    }

    /// Where the cursor is: the answer to a question, and to Installs that do not continue it.
    pub(crate) fn cursor(
        &self,
        rows: &dyn Read,
        shard: ShardId,
        num: ConfigNum,
    ) -> Result<KvReply, KvRefusal> {
        let state = self.pushed(shard)?;
        let cursor = rows::cursor(rows, shard);
        match shard::install(state, self.num(), num, &cursor, &cursor) {
            Install::Behind => Err(self.behind()),
            Install::AlreadyDone => Ok(KvReply::AlreadyDone { num }),
            Install::Elsewhere | Install::Accept => Ok(KvReply::Cursor { num, cursor }),
        }
    }

    pub(crate) fn install(
        &mut self,
        rows: &mut dyn Rows,
        shard: ShardId,
        num: ConfigNum,
        after: &Cursor,
        chunk: Vec<Row>,
    ) -> Result<KvReply, KvRefusal> {
        let state = self.pushed(shard)?;
        let cursor = rows::cursor(rows, shard);
        match shard::install(state, self.num(), num, &cursor, after) {
            Install::Behind => Err(self.behind()),
            Install::AlreadyDone => Ok(KvReply::AlreadyDone { num }),
            Install::Elsewhere => Ok(KvReply::Cursor { num, cursor }),
            Install::Accept => {
                let count = self.params().map_or(1, |params| params.shard_count);
                if !rows::continues(shard, count, &cursor, &chunk) {
                    let why = "the rows do not ascend behind the cursor, or belong to another shard";
                    return Err(KvRefusal::Malformed(why.to_owned()));
                }
                let cursor = rows::advance(cursor, &chunk);
                for (key, value) in chunk {
                    rows.put(key, value);
                }
                rows::put_cursor(rows, shard, &cursor);
                Ok(KvReply::Cursor { num, cursor })
            }
        }
    }

    pub(crate) fn activate(
        &mut self,
        rows: &mut dyn Rows,
        shard: ShardId,
        num: ConfigNum,
        end: &Cursor,
    ) -> Result<KvReply, KvRefusal> {
        let state = self.pushed(shard)?;
        let cursor = rows::cursor(rows, shard);
        match shard::activate(state, self.num(), num, &cursor, end) {
            Activate::Behind => Err(self.behind()),
            Activate::AlreadyDone => Ok(KvReply::AlreadyDone { num }),
            Activate::Serve => {
                rows::delete_cursor(rows, shard);
                self.set_state(rows, shard, ShardState::Serving);
                tracing::info!(group = %self.group, config = %num, %shard, rows = end.rows, "shard arrived");
                Ok(KvReply::AlreadyDone { num })
            }
            Activate::Wipe => {
                self.drop_rows(rows, shard);
                rows::put_cursor(rows, shard, &Cursor::default());
                self.count_wipe();
                tracing::error!(
                    group = %self.group, config = %num, %shard, ?cursor, ?end,
                    "a bug: the pushed rows are not the sender's; starting over"
                );
                Ok(KvReply::Cursor { num, cursor: Cursor::default() })
            }
        }
    }

    /// Drops a shard and, in the same batch, its rows.
    pub(crate) fn release(&mut self, rows: &mut dyn Rows, shard: ShardId, num: ConfigNum) -> bool {
        let state = self.state(shard).unwrap_or_default();
        if !shard::release(state, self.num(), num) {
            return false;
        }
        self.drop_rows(rows, shard);
        self.set_state(rows, shard, ShardState::Absent);
        tracing::info!(group = %self.group, config = %num, %shard, "shard released");
        true
    }

    fn drop_rows(&self, rows: &mut dyn Rows, shard: ShardId) {
        base::mutant!("release-keeps-rows", return);
        if let Some(params) = self.params() {
            rows::delete_shard(rows, shard, params.shard_count);
        }
    }

    /// The state of a shard that is pushed here. A group that knows no configuration yet is behind.
    fn pushed(&self, shard: ShardId) -> Result<ShardState, KvRefusal> {
        match self.config {
            None => Err(self.behind()),
            Some(_) => self.state(shard).ok_or(KvRefusal::UnknownShard(shard)),
        }
    }

    fn behind(&self) -> KvRefusal {
        KvRefusal::NotReady { config: self.num().unwrap_or_default() }
    }
}
