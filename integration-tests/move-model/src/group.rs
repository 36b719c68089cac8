//! A group's state machine: the verdicts of the product's functions, and what each verdict does to
//! the shard.
//!
//! This is the part of `shardkv::moves` around the verdicts, over rows that can be counted. A
//! comparison with the product's own state machine checks that both do the same (`machine`).
//!
//! Left out on purpose: sessions, which are rows like others, and batches of several shards.

use std::collections::BTreeMap;

use clerk::api::config::{Assignment, Place};
use clerk::api::push::Cursor;
use clerk::api::{ConfigNum, Digest, GroupId};
use shardkv::shard::{self, Access, Activate, Here, Install, Next, ShardState};

use super::bugs::Bug;
use super::histories::History;
use super::messages::{Body, Message, Messages, Sets};
use super::values::{Group, Library, NO_ROWS, RowsId, Shard, group_id};
use super::{Mover, Options};

/// One owner history with everything that was met while it was searched.
pub(super) struct Model {
    pub(super) options: Options,
    pub(super) groups: usize,
    pub(super) shards: usize,
    /// The assignments of configuration 0, 1, ... as the groups hear of them.
    pub(super) configs: Vec<Vec<Assignment>>,
    /// As they should be.
    pub(super) true_configs: Vec<Vec<Assignment>>,
    /// The configuration from which on each group owns nothing.
    pub(super) left: Vec<ConfigNum>,
    pub(super) library: Library,
    pub(super) messages: Messages,
    pub(super) sets: Sets,
}

/// A configuration of the history that all groups follow, or of another one.
fn place(num: ConfigNum, other: bool) -> Place {
    // Both begin with the same configuration 0.
    Place { num, digest: Digest(num.0 * 2 + u64::from(other && num > ConfigNum(0))) }
}

/// The digest of a group's own configuration of a number, which it keeps.
fn own_digest(mine: Option<ConfigNum>, num: ConfigNum) -> Option<Digest> {
    mine.filter(|mine| *mine >= num).map(|_| place(num, false).digest)
}

/// What a mover may want of its own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verb {
    Seal,
    Release,
    Reopen,
}

impl Verb {
    pub(super) const ALL: [Self; 3] = [Self::Seal, Self::Release, Self::Reopen];
}

/// What a request does to the shard it is about.
pub(super) struct Applied {
    pub(super) shard: Shard,
    /// The answer, unless it is "not yet".
    pub(super) answer: Option<Body>,
    /// The rows were not the sender's.
    pub(super) wiped: bool,
}

impl Applied {
    fn unchanged(shard: Shard, answer: Option<Body>) -> Self {
        Self { shard, answer, wiped: false }
    }
}

impl Model {
    pub(super) fn new(history: &History, options: Options) -> Self {
        let owners = || history.0.iter().flatten().flatten().copied();
        let groups = owners().max().map_or(1, |last| last + 1);
        let true_configs = history.configs();
        let configs = match options.bug {
            Some(Bug::LastOwnerForgottenWhileOwnerIsNone) => history.assignments(|before| before.owner),
            _ => true_configs.clone(),
        };
        let owns = |group, owners: &Vec<Assignment>| owners.iter().any(|it| it.owner == Some(group));
        let left = (0..groups).map(|group| {
            let last = true_configs.iter().rposition(|owners| owns(group_id(group), owners));
            ConfigNum(last.map_or(0, |last| last as u64 + 1))
        });
        Self {
            options,
            groups,
            shards: true_configs[0].len(),
            left: left.collect(),
            configs,
            true_configs,
            library: Library::new(),
            messages: Messages::default(),
            sets: Sets::new(),
        }
    }

    pub(super) fn has(&self, bug: Bug) -> bool {
        self.options.bug == Some(bug)
    }

    /// The newest configuration.
    pub(super) fn newest(&self) -> ConfigNum {
        ConfigNum(self.configs.len() as u64 - 1)
    }

    pub(super) fn assignment(&self, num: ConfigNum, shard: usize) -> Assignment {
        self.configs[num.0 as usize][shard]
    }

    /// The group after a leader, maybe an old one, wanted configuration `next`; nothing, if nothing happens.
    /// `other`: it is one of another history.
    pub(super) fn adopt(&self, me: usize, group: &Group, next: ConfigNum, other: bool) -> Option<Group> {
        let current = match group.num {
            Some(num) if self.has(Bug::AdoptSkipsConfigs) && num < next => Some(ConfigNum(next.0 - 1)),
            num => num,
        };
        let other = other && !self.has(Bug::AdoptIgnoresTheDigest);
        let before = match next.0.checked_sub(1) {
            Some(before) => place(ConfigNum(before), other).digest,
            None => Digest::default(),
        };
        if !shard::may_adopt(current.map(|num| place(num, false)), next, before) {
            return None;
        }
        let waits = group.shards.iter().any(|shard| !shard.state.settled());
        if waits && self.has(Bug::AdoptWaits) {
            return None;
        }
        let mut after = Group { num: Some(next), ..*group };
        for (number, shard) in after.shards[..self.shards].iter_mut().enumerate() {
            let before = group.num.and_then(|num| self.assignment(num, number).owner);
            *shard = self.adopted(group_id(me), next, before, self.assignment(next, number), *shard);
        }
        Some(after)
    }

    /// A shard after its group `me` adopted `num`.
    fn adopted(
        &self,
        me: GroupId,
        num: ConfigNum,
        before: Option<GroupId>,
        mut now: Assignment,
        mut shard: Shard,
    ) -> Shard {
        if shard.state == ShardState::Parked && self.has(Bug::ParkedCountsAsAbsent) {
            shard = Shard { taken: shard.taken, ..Shard::default() };
        }
        if shard.state == ShardState::Absent && self.has(Bug::AbsentServesWheneverMine) {
            now.last_owner = None;
        }
        let old = shard.state;
        let after = match (old, old.adopt(me, num, before, now)) {
            (_, state) if before == now.owner => state,
            (ShardState::Awaiting { .. }, _) if self.has(Bug::AwaitingSurvivesItsLoss) => match now.owner {
                Some(owner) if owner == me => ShardState::Awaiting { num },
                _ => old,
            },
            (ShardState::Leaving { .. }, ShardState::Leaving { .. })
                if self.has(Bug::LeavingDroppedWhenRetargeted) =>
            {
                ShardState::Absent
            }
            (ShardState::Leaving { num, .. }, ShardState::Leaving { to, .. })
                if self.has(Bug::RetargetKeepsTheNumber) =>
            {
                ShardState::Leaving { to, num }
            }
            (ShardState::Handing { next: Next::Mine { .. }, .. }, _)
                if self.has(Bug::NextIsNeverTakenBack) =>
            {
                old
            }
            (ShardState::Handing { next, .. }, _)
                if next != Next::Unchanged && self.has(Bug::NextKeepsTheFirst) =>
            {
                old
            }
            (_, state) => state,
        };
        if let ShardState::Awaiting { num } = old
            && after == ShardState::Absent
            && self.has(Bug::LostAssignmentCountsAsTaken)
        {
            shard.taken = Some(num);
        }
        self.changed(shard, after)
    }

    /// A shard that goes on to another state, with the rows that belong to it.
    fn changed(&self, mut shard: Shard, after: ShardState) -> Shard {
        let fresh = matches!(after, ShardState::Absent | ShardState::Awaiting { .. });
        if shard.state != after && fresh {
            shard.rows = NO_ROWS;
            if !self.has(Bug::CursorSurvivesTheLife) {
                shard.cursor = NO_ROWS;
            }
        }
        Shard { state: after, ..shard }
    }

    /// What a request does at the group it is sent to.
    pub(super) fn apply(&mut self, message: Message, group: &Group) -> Applied {
        self.apply_from(message, group, false)
    }

    /// What a request does whose sender may follow another history.
    pub(super) fn apply_from(&mut self, message: Message, group: &Group, other: bool) -> Applied {
        let other = other && !self.has(Bug::PushIgnoresTheDigest);
        let config = place(message.num, other);
        let shard = group.shards[usize::from(message.shard)];
        let mut applied = match message.body {
            Body::Offer => self.offer(config, group.num, shard),
            Body::Install { after, rows } => self.install(config, group.num, shard, after, rows),
            Body::Activate { after, end } => self.activate(config, group.num, shard, (after, end)),
            Body::Awaited | Body::Cursor(_) | Body::Done | Body::Refused => Applied::unchanged(shard, None),
        };
        if applied.shard == shard {
            let lags = group.num < Some(message.num);
            applied.answer = self.bent(applied.answer, shard.state, lags);
        }
        applied
    }

    /// An answer that changes nothing, as a bug makes it.
    fn bent(&self, answer: Option<Body>, state: ShardState, lags: bool) -> Option<Body> {
        let has = |bug| self.has(bug);
        match (answer, state) {
            (None, _) if lags && has(Bug::BehindSaysDone) => Some(Body::Done),
            (None, _) if lags && has(Bug::BehindSaysRefused) => Some(Body::Refused),
            (Some(Body::Refused), _) if has(Bug::PastSaysDone) => Some(Body::Done),
            (Some(Body::Refused), ShardState::Leaving { .. } | ShardState::Parked)
                if has(Bug::LeavingOrParkedSaysDone) =>
            {
                Some(Body::Done)
            }
            (Some(Body::Refused), ShardState::Awaiting { .. }) if has(Bug::NewerAwaitingSaysDone) => {
                Some(Body::Done)
            }
            (Some(Body::Done), ShardState::Serving) if has(Bug::ServingSaysRefused) => Some(Body::Refused),
            (Some(Body::Done | Body::Refused), _) if has(Bug::NoAnswerOnceSettled) => None,
            (Some(Body::Done), _) if has(Bug::DoneAnsweredOnlyWhileTheShardIsSettled) && !state.settled() => {
                None
            }
            (answer, _) => answer,
        }
    }

    /// What a receiver knows of a shard.
    fn here<'a>(
        &self,
        config: Place,
        mine: Option<ConfigNum>,
        shard: Shard,
        cursor: &'a Cursor,
        any_move: bool,
    ) -> Here<'a> {
        let num = config.num;
        let state = match shard.state {
            ShardState::Awaiting { .. } if any_move => ShardState::Awaiting { num },
            ShardState::Handing { to, num: sealed, next: Next::Mine { num: next } }
                if next == num && self.has(Bug::NextSaysRefused) =>
            {
                ShardState::Handing { to, num: sealed, next: Next::Unchanged }
            }
            state => state,
        };
        let taken = shard.taken.filter(|taken| *taken == num || !self.has(Bug::TakenComparedByEquality));
        Here { state, taken, cursor, adopted: mine, digest: own_digest(mine, num) }
    }

    fn offer(&self, config: Place, mine: Option<ConfigNum>, shard: Shard) -> Applied {
        let cursor = self.library.cursor(shard.cursor);
        let here = self.here(config, mine, shard, cursor, false);
        let answer = match shard::install(here, config, cursor) {
            Install::Early | Install::OtherHistory => None,
            Install::Done => Some(Body::Done),
            Install::Refused => Some(Body::Refused),
            Install::Elsewhere | Install::Accept => Some(Body::Awaited),
        };
        Applied::unchanged(shard, answer)
    }

    fn install(
        &mut self,
        config: Place,
        mine: Option<ConfigNum>,
        shard: Shard,
        after: RowsId,
        rows: RowsId,
    ) -> Applied {
        let late = self.has(Bug::InstallAcceptedByAServingShard)
            && shard.state == ShardState::Serving
            && rows != NO_ROWS;
        let seen = if late { ShardState::Awaiting { num: config.num } } else { shard.state };
        let cursor = self.library.cursor(shard.cursor);
        let anywhere = rows == NO_ROWS || late || self.has(Bug::InstallIgnoresTheCursor);
        let after = if anywhere { cursor } else { self.library.cursor(after) };
        let any_move = self.has(Bug::InstallAcceptedForAnotherMove);
        let here = self.here(config, mine, Shard { state: seen, ..shard }, cursor, any_move);
        match shard::install(here, config, after) {
            Install::Early | Install::OtherHistory => Applied::unchanged(shard, None),
            Install::Done => Applied::unchanged(shard, Some(Body::Done)),
            Install::Refused => Applied::unchanged(shard, Some(Body::Refused)),
            Install::Elsewhere => Applied::unchanged(shard, Some(Body::Cursor(shard.cursor))),
            Install::Accept if rows == NO_ROWS => Applied::unchanged(shard, Some(Body::Cursor(shard.cursor))),
            Install::Accept if late => {
                let rows = self.merged(shard.rows, rows);
                Applied::unchanged(Shard { rows, ..shard }, None)
            }
            Install::Accept => self.accept(shard, rows),
        }
    }

    /// Adds rows after the cursor. Rows that do not ascend after it are refused.
    fn accept(&mut self, shard: Shard, chunk: RowsId) -> Applied {
        let last = self.library.rows(shard.cursor).last();
        let first = self.library.rows(chunk).first();
        if last.zip(first).is_some_and(|(last, first)| first.0 <= last.0) {
            return Applied::unchanged(shard, None);
        }
        let so_far = [self.library.rows(shard.cursor), self.library.rows(chunk)].concat();
        let (cursor, rows) = (self.library.id(&so_far), self.merged(shard.rows, chunk));
        Applied { shard: Shard { rows, cursor, ..shard }, answer: Some(Body::Cursor(cursor)), wiped: false }
    }

    /// Rows with others written over them.
    fn merged(&mut self, rows: RowsId, over: RowsId) -> RowsId {
        let mut merged: BTreeMap<u8, u8> = self.library.rows(rows).iter().copied().collect();
        merged.extend(self.library.rows(over).iter().copied());
        self.library.id(&merged.into_iter().collect::<Vec<_>>())
    }

    fn activate(
        &self,
        config: Place,
        mine: Option<ConfigNum>,
        shard: Shard,
        (after, end): (RowsId, RowsId),
    ) -> Applied {
        let counted = self.library.counted(shard.cursor);
        let end = if self.has(Bug::ActivateDoesNotCompare) { counted } else { self.library.said(end) };
        let (cursor, after) = (self.library.cursor(shard.cursor), self.library.cursor(after));
        let here = self.here(config, mine, shard, cursor, self.has(Bug::ActivateAcceptedForAnotherMove));
        match shard::activate(here, config, after, counted, end) {
            Activate::Early | Activate::OtherHistory => Applied::unchanged(shard, None),
            Activate::Done => Applied::unchanged(shard, Some(Body::Done)),
            Activate::Refused => Applied::unchanged(shard, Some(Body::Refused)),
            Activate::Elsewhere => Applied::unchanged(shard, Some(Body::Cursor(shard.cursor))),
            Activate::Serve => {
                let cursor = if self.has(Bug::CursorSurvivesTheLife) { shard.cursor } else { NO_ROWS };
                let taken = Some(config.num);
                let shard = Shard { state: ShardState::Serving, taken, cursor, ..shard };
                Applied { shard, answer: Some(Body::Done), wiped: false }
            }
            Activate::Wipe => {
                let cursor = if self.has(Bug::WipeKeepsTheCursor) { shard.cursor } else { NO_ROWS };
                let shard = Shard { rows: NO_ROWS, cursor, ..shard };
                Applied { shard, answer: Some(Body::Cursor(cursor)), wiped: true }
            }
        }
    }

    /// The shard after an entry of its group's own mover, if that does anything.
    pub(super) fn entry(&self, verb: Verb, shard: Shard, num: ConfigNum) -> Option<Shard> {
        let any_move = match verb {
            Verb::Seal => Bug::SealForAnotherMove,
            Verb::Release => Bug::ReleaseForAnotherMove,
            Verb::Reopen => Bug::ReopenForAnotherMove,
        };
        let num = if self.has(any_move) { shard.state.moving().unwrap_or(num) } else { num };
        let after = match verb {
            Verb::Seal => shard::seal(shard.state, num, 0, 0)?,
            Verb::Release => shard::release(shard.state, num)?,
            Verb::Reopen => shard::reopen(shard.state, num)?,
        };
        let forgets = verb == Verb::Release && self.has(Bug::TakenDroppedWithTheRows);
        let taken = shard.taken.filter(|_| !forgets);
        Some(Shard { taken, ..self.changed(shard, after) })
    }

    /// Whether a client's write is served, whatever configuration the client knows.
    pub(super) fn takes_writes(&self, group: &Group, shard: usize) -> bool {
        match group.shards[shard].state {
            ShardState::Handing { .. } if self.has(Bug::WritesServedWhileHanding) => true,
            _ => self.serves(group, shard),
        }
    }

    /// Whether a client is served, whatever configuration it knows. Who seems dead may serve on.
    pub(super) fn serves(&self, group: &Group, shard: usize) -> bool {
        let Some(mine) = group.num else { return false };
        let state = group.shards[shard].state;
        (0..=self.newest().0).any(|asked| shard::access(state, mine, ConfigNum(asked)) == Access::Serve)
    }

    /// Whether movers send without asking.
    pub(super) fn early(&self) -> bool {
        self.options.mover == Mover::Early
    }
}
