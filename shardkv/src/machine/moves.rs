//! How a shard changes hands, in rows: the verdicts of [`crate::machine::shard`] and what each does to the table.
//!
//! Freeze before copy, serve after the own log holds Activate, delete after the receiver's commit is
//! acknowledged (correctness rule 38). All changes of one command are one atomic batch, so a state and
//! the rows that belong to it cannot be told apart by a crash.
//!
//! Left out on purpose: who sends what when (`mover`, `push`).

use clerk::api::config::{Place, Sealed};
use clerk::api::kv::KvRefusal;
use clerk::api::push::{Cursor, PushReply};
use clerk::api::{ConfigNum, Digest, GroupId, ShardId};
use raft::rsm::Rows;
use raft::storage::{Read, Row, unreadable};

use crate::machine::Machine;
use crate::machine::history::{self, Own, Unfit};
use crate::machine::shard::{self, Activate, Install, ShardState};
use crate::machine::{check, rows};

/// What a push says about the move that it belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    /// The configuration that moves the shard.
    pub(crate) config: Place,
    /// The group that hands it over.
    pub(crate) from: GroupId,
}

impl Machine {
    /// Goes on to `config`, if it fits ([`history::fits`]).
    pub(crate) fn adopt(&mut self, rows: &mut dyn Rows, config: Sealed) -> bool {
        let own = Own { group: self.group, incarnation: self.incarnation, adopted: self.config.as_ref() };
        match history::fits(own, &config, self.shards().iter().copied()) {
            Ok(()) => {}
            Err(Unfit::NotNext) => return false,
            Err(why) => {
                tracing::error!(group = %self.group, config = %config.place(), ?why, "not adopted");
                return false;
            }
        }
        if !config.is_understood() {
            // A build that passes over a field would act otherwise than those that know it.
            let doing = format!("adopt configuration {}: run the build that made it", config.num);
            unreadable(&doing, &"it has a field that this build does not know");
        }
        tracing::info!(group = %self.group, config = %config.place(), "adopts");
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
        claim: Claim,
    ) -> Result<PushReply, KvRefusal> {
        let (state, here) = self.pushed(rows, shard, claim)?;
        let (cursor, num) = (rows::cursor(rows, shard), claim.config.num);
        match shard::install(state, self.num(), claim.config, here, &cursor, &cursor) {
            Install::Behind => Err(self.behind()),
            Install::OtherHistory => Err(other_history(num, here)),
            Install::AlreadyDone => Ok(PushReply::AlreadyDone { num }),
            Install::Elsewhere | Install::Accept => Ok(PushReply::Cursor { num, cursor }),
        }
    }

    pub(crate) fn install(
        &mut self,
        rows: &mut dyn Rows,
        shard: ShardId,
        claim: Claim,
        after: &Cursor,
        chunk: Vec<Row>,
    ) -> Result<PushReply, KvRefusal> {
        let (state, here) = self.pushed(rows, shard, claim)?;
        let (cursor, num) = (rows::cursor(rows, shard), claim.config.num);
        match shard::install(state, self.num(), claim.config, here, &cursor, after) {
            Install::Behind => Err(self.behind()),
            Install::OtherHistory => Err(other_history(num, here)),
            Install::AlreadyDone => Ok(PushReply::AlreadyDone { num }),
            Install::Elsewhere => Ok(PushReply::Cursor { num, cursor }),
            Install::Accept => {
                let params = self.params().unwrap_or_default();
                check::chunk(shard, params, &cursor, &chunk).map_err(KvRefusal::Malformed)?;
                let cursor = rows::advance(cursor, &chunk);
                for (key, value) in chunk {
                    rows.put(key, value);
                }
                rows::put_cursor(rows, shard, &cursor);
                Ok(PushReply::Cursor { num, cursor })
            }
        }
    }

    pub(crate) fn activate(
        &mut self,
        rows: &mut dyn Rows,
        shard: ShardId,
        claim: Claim,
        end: &Cursor,
    ) -> Result<PushReply, KvRefusal> {
        let (state, here) = self.pushed(rows, shard, claim)?;
        let (cursor, num) = (rows::cursor(rows, shard), claim.config.num);
        match shard::activate(state, self.num(), claim.config, here, &cursor, end) {
            Activate::Behind => Err(self.behind()),
            Activate::OtherHistory => Err(other_history(num, here)),
            Activate::AlreadyDone => Ok(PushReply::AlreadyDone { num }),
            Activate::Serve => {
                rows::delete_cursor(rows, shard);
                self.set_state(rows, shard, ShardState::Serving);
                tracing::info!(group = %self.group, config = %num, %shard, rows = end.rows, "shard arrived");
                Ok(PushReply::AlreadyDone { num })
            }
            Activate::Wipe => {
                self.drop_rows(rows, shard);
                rows::put_cursor(rows, shard, &Cursor::default());
                self.count_wipe();
                tracing::error!(
                    group = %self.group, config = %num, %shard, ?cursor, ?end,
                    "a bug: the pushed rows are not the sender's; starting over"
                );
                Ok(PushReply::Cursor { num, cursor: Cursor::default() })
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

    /// The state of a shard that is pushed here, and the digest of the own configuration that the push names. A
    /// group that knows no configuration yet is behind. The configuration in force must say what the sender says:
    /// that it moves this shard from there to here (correctness rule 58).
    fn pushed(
        &self,
        rows: &dyn Read,
        shard: ShardId,
        Claim { config, from }: Claim,
    ) -> Result<(ShardState, Option<Digest>), KvRefusal> {
        let Some(mine) = &self.config else { return Err(self.behind()) };
        let state = self.state(shard).ok_or(KvRefusal::UnknownShard(shard))?;
        let here = rows::digest(rows, config.num);
        let assignment = mine.shards.get(shard.0 as usize).copied().unwrap_or_default();
        if mine.place() == config
            && state == ShardState::Awaiting
            && !shard::moves_here(assignment, self.group, from)
        {
            let why =
                format!("configuration {} does not move shard {shard} from group {from} to here", mine.num);
            return Err(KvRefusal::Malformed(why));
        }
        Ok((state, here))
    }

    fn behind(&self) -> KvRefusal {
        KvRefusal::NotReady { config: self.num().unwrap_or_default() }
    }
}

fn other_history(num: ConfigNum, here: Option<Digest>) -> KvRefusal {
    KvRefusal::OtherHistory { here: Place { num, digest: here.unwrap_or_default() } }
}
