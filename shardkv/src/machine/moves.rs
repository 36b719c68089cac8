//! How a shard changes hands, in rows: the verdicts of [`crate::machine::shard`], and what each
//! verdict does to the table.
//!
//! Three rules hold: no change after those that Seal names, serve after the receiver's log holds
//! Activate, and delete after the receiver's commit is acknowledged (correctness rule 38). All
//! changes of one command are one atomic batch, so a crash cannot separate a state from the rows
//! that belong to it.
//!
//! Left out on purpose: who sends what, and when (`mover`, `push`).

use clerk::api::config::{Place, Sealed};
use clerk::api::kv::KvRefusal;
use clerk::api::push::{Change, Copied, Cursor, End, Pos, PushReply, Reach};
use clerk::api::{ConfigNum, Digest, ShardId, Version};
use raft::rsm::Rows;
use raft::rsm::sessions::Sessions;
use raft::storage::{Read, unreadable};

use crate::machine::Machine;
use crate::machine::history::{self, Own, Unfit};
use crate::machine::rows::{Frozen, Meta};
use crate::machine::shard::{self, Activate, Here, Install, ShardState};
use crate::machine::{check, copy, rows};

/// Where the names and versions of the last of all lives of a shard begin: they still grow.
const LIVES_MAX: u64 = 1 << 61;

/// What a receiver knows of a shard when a push for it arrives.
struct Pushed {
    state: ShardState,
    taken: Option<ConfigNum>,
    copied: Copied,
    adopted: Option<ConfigNum>,
    digest: Option<Digest>,
}

impl Pushed {
    fn here(&self) -> Here<'_> {
        let Self { state, taken, ref copied, adopted, digest } = *self;
        Here { state, taken, cursor: &copied.cursor, adopted, digest }
    }
}

impl Machine {
    /// Adopts `config`, if it fits ([`history::fits`]).
    pub(crate) fn adopt(&mut self, rows: &mut dyn Rows, config: Sealed) -> bool {
        let own = Own { group: self.group, incarnation: self.incarnation, adopted: self.config.as_ref() };
        match history::fits(own, &config) {
            Ok(()) => {}
            Err(Unfit::NotNext) => return false,
            Err(why) => {
                tracing::error!(group = %self.group, config = %config.place(), ?why, "not adopted");
                return false;
            }
        }
        if !config.is_understood() {
            // A build that ignores a field would act differently from those that know it.
            let doing = format!("adopt configuration {}: run the build that made it", config.num);
            unreadable(&doing, &"it has a field that this build does not know");
        }
        tracing::info!(group = %self.group, config = %config.place(), "adopts");
        let (me, num) = (self.group, config.num);
        let assignments: Vec<_> = config.assignments().collect();
        let (before, lost) = (self.config.take(), config.lost.clone());
        self.set_config(rows, config);
        for (shard, now) in assignments {
            if lost.contains(&shard) {
                self.begin_anew(rows, shard, num, now.owner == Some(me));
                continue;
            }
            let owner = before.as_ref().and_then(|before| before.shards.get(shard.0 as usize)?.owner);
            let old = self.state(shard).unwrap_or_default();
            self.change_state(rows, shard, num, old.adopt(me, num, owner, now));
        }
        true
    }

    /// Ends the life of a shard that configuration `num` declares lost. Whatever is here of it is
    /// dropped, in any state, and its owner serves it empty. Names of sessions and versions begin
    /// above those of earlier lives. To the group, the shard counts as taken: an earlier move of it is
    /// told "done", because "refused" would let its sender serve the old life beside the new one
    /// (correctness rule 143).
    fn begin_anew(&mut self, rows: &mut dyn Rows, shard: ShardId, num: ConfigNum, is_mine: bool) {
        let before = self.state(shard).unwrap_or_default();
        rows::delete_copied(rows, shard);
        rows::delete_last_change(rows, shard);
        rows::delete_frozen(rows, shard);
        self.drop_rows(rows, shard);
        self.forget_served(shard);
        if !base::mutant!("lost-says-refused") {
            rows::put_taken(rows, shard, num);
        }
        if is_mine {
            let first = num.0.saturating_mul(1 << 32).min(LIVES_MAX);
            rows::put_meta(rows, shard, &Meta { floor: Version(first), ..Meta::default() });
            Sessions::skip(rows::sessions_prefix(shard), rows, first);
        }
        self.set_state(rows, shard, shard::begun(is_mine));
        tracing::warn!(group = %self.group, config = %num, %shard, ?before, is_mine, "declared lost");
    }

    /// Changes the state to `after`, with the rows that belong to it.
    fn change_state(&mut self, rows: &mut dyn Rows, shard: ShardId, num: ConfigNum, after: ShardState) {
        let before = self.state(shard).unwrap_or_default();
        if before == after {
            return;
        }
        match before {
            ShardState::Awaiting { .. } => {
                if rows::copied(rows, shard).cursor.reach != Reach::Start {
                    self.drop_rows(rows, shard);
                }
                rows::delete_copied(rows, shard);
            }
            ShardState::Leaving { .. } => rows::delete_last_change(rows, shard),
            // A configuration that is adopted meanwhile changes only what comes next.
            ShardState::Handing { .. } if !matches!(after, ShardState::Handing { .. }) => {
                rows::delete_frozen(rows, shard);
            }
            _ => {}
        }
        // Each time the shard is awaited here, its copy starts anew.
        if let ShardState::Awaiting { .. } = after {
            rows::put_copied(rows, shard, &Copied::default());
        }
        self.set_state(rows, shard, after);
        tracing::info!(group = %self.group, config = %num, %shard, ?before, ?after, "shard");
    }

    /// The answer to an Offer.
    pub(crate) fn cursor(
        &self,
        rows: &dyn Read,
        shard: ShardId,
        config: Place,
    ) -> Result<PushReply, KvRefusal> {
        let pushed = self.pushed(rows, shard, config.num)?;
        match shard::install(pushed.here(), config, &pushed.copied.cursor) {
            Install::Elsewhere | Install::Accept => Ok(at(config.num, pushed.copied)),
            verdict => self.not_awaited(verdict, config.num, pushed.digest),
        }
    }

    pub(crate) fn install(
        &mut self,
        rows: &mut dyn Rows,
        shard: ShardId,
        config: Place,
        (after, to): (&Cursor, Cursor),
        changes: Vec<Change>,
    ) -> Result<PushReply, KvRefusal> {
        let pushed = self.pushed(rows, shard, config.num)?;
        match shard::install(pushed.here(), config, after) {
            Install::Elsewhere => Ok(at(config.num, pushed.copied)),
            Install::Accept => {
                let params = self.params().unwrap_or_default();
                let before = pushed.copied;
                check::chunk(shard, params, &before.cursor, &to, &changes).map_err(KvRefusal::Malformed)?;
                let copied = if to.reach == Reach::Start {
                    self.drop_rows(rows, shard);
                    Copied { wipes: before.wipes, ..Copied::default() }
                } else {
                    let end = copy::end_with(rows, shard, &before, &changes);
                    copy::write(rows, changes);
                    Copied { cursor: to, rows: end.rows, bytes: end.bytes, ..before }
                };
                rows::put_copied(rows, shard, &copied);
                Ok(at(config.num, copied))
            }
            verdict => self.not_awaited(verdict, config.num, pushed.digest),
        }
    }

    pub(crate) fn activate(
        &mut self,
        rows: &mut dyn Rows,
        shard: ShardId,
        config: Place,
        after: &Cursor,
        (changes, end): (Vec<Change>, End),
    ) -> Result<PushReply, KvRefusal> {
        let (pushed, num) = (self.pushed(rows, shard, config.num)?, config.num);
        let counted = copy::end_with(rows, shard, &pushed.copied, &changes);
        let verdict = match shard::activate(pushed.here(), config, after, counted, end) {
            Activate::Early => Install::Early,
            Activate::OtherHistory => Install::OtherHistory,
            Activate::Done => Install::Done,
            Activate::Refused => Install::Refused,
            Activate::Elsewhere => return Ok(at(num, pushed.copied)),
            Activate::Serve => {
                let params = self.params().unwrap_or_default();
                check::last(shard, params, &changes).map_err(KvRefusal::Malformed)?;
                copy::write(rows, changes);
                rows::delete_copied(rows, shard);
                rows::put_taken(rows, shard, num);
                self.set_state(rows, shard, ShardState::Serving);
                tracing::info!(group = %self.group, config = %num, %shard, rows = end.rows, "shard arrived");
                Install::Done
            }
            Activate::Wipe => {
                self.drop_rows(rows, shard);
                let wipes = pushed.copied.wipes.saturating_add(1);
                let copied = Copied { wipes, ..Copied::default() };
                rows::put_copied(rows, shard, &copied);
                self.count_wipe();
                tracing::error!(
                    group = %self.group, config = %num, %shard, copied = ?pushed.copied, ?counted, ?end,
                    "a bug: the pushed rows are not the sender's; starting over"
                );
                return Ok(at(num, copied));
            }
        };
        self.not_awaited(verdict, num, pushed.digest)
    }

    /// Stops serving a shard that leaves, unless it was changed after what `frozen` names.
    pub(crate) fn seal(
        &mut self,
        rows: &mut dyn Rows,
        shard: ShardId,
        num: ConfigNum,
        frozen: &Frozen,
    ) -> bool {
        let last = rows::last_change(rows, shard);
        let state = self.state(shard).unwrap_or_default();
        let Some(after) = shard::seal(state, num, last, frozen.upto) else { return false };
        self.change_state(rows, shard, num, after);
        rows::put_frozen(rows, shard, frozen);
        true
    }

    /// Drops a shard that another group has now and, in the same batch, its rows.
    pub(crate) fn release(&mut self, rows: &mut dyn Rows, shard: ShardId, num: ConfigNum) -> bool {
        let Some(after) = shard::release(self.state(shard).unwrap_or_default(), num) else { return false };
        self.drop_rows(rows, shard);
        self.change_state(rows, shard, num, after);
        true
    }

    /// Takes back a sealed shard that its new owner refused.
    pub(crate) fn reopen(&mut self, rows: &mut dyn Rows, shard: ShardId, num: ConfigNum) -> bool {
        let after = shard::reopen(self.state(shard).unwrap_or_default(), num);
        after.map(|after| self.change_state(rows, shard, num, after)).is_some()
    }

    fn drop_rows(&self, rows: &mut dyn Rows, shard: ShardId) {
        base::mutant!("release-keeps-rows", return);
        if let Some(params) = self.params() {
            rows::delete_shard(rows, shard, params.shard_count);
        }
    }

    /// What is known here of a shard that is pushed by the move `num`. A group that knows no
    /// configuration yet has not reached any move.
    fn pushed(&self, rows: &dyn Read, shard: ShardId, num: ConfigNum) -> Result<Pushed, KvRefusal> {
        if self.config.is_none() {
            return Err(self.early());
        }
        Ok(Pushed {
            state: self.state(shard).ok_or(KvRefusal::UnknownShard(shard))?,
            taken: rows::taken(rows, shard),
            copied: rows::copied(rows, shard),
            adopted: self.num(),
            digest: rows::digest(rows, num),
        })
    }

    /// The answer to a push of a shard that is not awaited for that move.
    fn not_awaited(
        &self,
        verdict: Install,
        num: ConfigNum,
        here: Option<Digest>,
    ) -> Result<PushReply, KvRefusal> {
        match verdict {
            Install::Done => Ok(PushReply::Done { num }),
            Install::Refused => Ok(PushReply::Refused { num }),
            Install::OtherHistory => {
                Err(KvRefusal::OtherHistory { here: Place { num, digest: here.unwrap_or_default() } })
            }
            Install::Early | Install::Elsewhere | Install::Accept => Err(self.early()),
        }
    }

    /// Starts or ends the memory of changes with the state that a shard gets.
    pub(crate) fn note_changes(&self, shard: ShardId, after: ShardState, since: u64) {
        match (self.state(shard).unwrap_or_default(), after) {
            (before, after) if before == after => {}
            (_, ShardState::Leaving { num, .. }) => self.changes.start(shard, num, Pos::end_of(since)),
            (ShardState::Leaving { .. }, _) => self.changes.stop(shard),
            _ => {}
        }
    }

    fn early(&self) -> KvRefusal {
        KvRefusal::NotReady { config: self.num().unwrap_or_default(), ask: None }
    }
}

/// The answer while a shard is awaited. Whether the disks are full the service adds.
fn at(num: ConfigNum, copied: Copied) -> PushReply {
    PushReply::Copied { num, copied, disk_full: false }
}
