//! A group's state machine: the verdicts of the product's functions, and what each does to the
//! shard.
//!
//! This models the part of `shardkv::moves` around the verdicts, over rows that can be counted.
//! `machine` checks against the product's state machine that both do the same.
//!
//! Left out on purpose: sessions, which are rows like others, and batches of several shards.

use std::collections::BTreeMap;

use clerk::api::config::{Assignment, Place};
use clerk::api::{ConfigNum, Digest};
use shardkv::shard::{self, Access, Activate, Install, ShardState};

use super::bugs::Bug;
use super::histories::History;
use super::messages::{Body, Message, Messages, Sets};
use super::values::{Group, Library, NO_ROWS, RowsId, Shard, group_id};
use super::{Mover, Options};

/// One owner history with everything that was met during its search.
pub(super) struct Model {
    pub(super) options: Options,
    pub(super) groups: usize,
    pub(super) shards: usize,
    /// The assignments of configuration 0, 1, ... as the groups hear of them.
    pub(super) configs: Vec<Vec<Assignment>>,
    /// The correct assignments.
    pub(super) true_configs: Vec<Vec<Assignment>>,
    /// For each group, the configuration from which on it owns nothing.
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

/// The digest of a group's own configuration of a number, which the group keeps forever.
fn here(mine: Option<ConfigNum>, num: ConfigNum) -> Option<Digest> {
    mine.filter(|mine| *mine >= num).map(|_| place(num, false).digest)
}

/// What a request does to the shard it is about.
pub(super) struct Applied {
    pub(super) shard: Shard,
    /// The answer, unless it is "not yet".
    pub(super) answer: Option<Body>,
    /// The rows were not the sender's.
    pub(super) wiped: bool,
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

    /// The group after a leader, possibly an old one, proposed to adopt configuration `next`; none
    /// if nothing happens. `other`: the configuration is of another history.
    pub(super) fn adopt(&self, me: usize, group: &Group, next: ConfigNum, other: bool) -> Option<Group> {
        let states = group.shards[..self.shards].iter().map(|shard| match shard.state {
            ShardState::Handing { .. } if self.has(Bug::AdoptWhileHanding) => ShardState::Absent,
            ShardState::Awaiting if self.has(Bug::AdoptWhileAwaiting) => ShardState::Absent,
            state => state,
        });
        let current = match group.num {
            Some(num) if self.has(Bug::AdoptSkipsConfigs) && num < next => Some(ConfigNum(next.0 - 1)),
            num => num,
        };
        let other = other && !self.has(Bug::AdoptIgnoresTheDigest);
        let before = match next.0.checked_sub(1) {
            Some(before) => place(ConfigNum(before), other).digest,
            None => Digest::default(),
        };
        if !shard::may_adopt(current.map(|num| place(num, false)), next, before, states) {
            return None;
        }
        let mut after = Group { num: Some(next), ..*group };
        for (number, shard) in after.shards[..self.shards].iter_mut().enumerate() {
            let mut assignment = self.assignment(next, number);
            if shard.state == ShardState::Parked && self.has(Bug::ParkedCountsAsAbsent) {
                *shard = Shard::default();
            }
            if shard.state == ShardState::Absent && self.has(Bug::AbsentServesWheneverMine) {
                assignment.last_owner = None;
            }
            let state = shard.state.adopt(group_id(me), assignment);
            if state == ShardState::Awaiting && shard.state != state && !self.has(Bug::CursorSurvivesTheLife)
            {
                shard.cursor = NO_ROWS;
            }
            shard.state = state;
        }
        Some(after)
    }

    /// The effect of a request on the group that receives it.
    pub(super) fn apply(&mut self, message: Message, group: &Group) -> Applied {
        self.apply_from(message, group, false)
    }

    /// The effect of a request whose sender may follow another history.
    pub(super) fn apply_from(&mut self, message: Message, group: &Group, other: bool) -> Applied {
        let other = other && !self.has(Bug::PushIgnoresTheDigest);
        let config = place(message.num, other);
        let shard = group.shards[usize::from(message.shard)];
        let mut applied = match message.body {
            Body::Install { after, rows } => self.install(config, group.num, shard, after, rows),
            Body::Activate { end } => self.activate(config, group.num, shard, end),
            Body::Cursor(_) | Body::Done => Applied { shard, answer: None, wiped: false },
        };
        let past = group.num > Some(message.num);
        let silent = match applied.answer {
            Some(Body::Done) if applied.shard == shard => {
                self.has(Bug::NoAnswerOnceSettled)
                    || (self.has(Bug::DoneAnsweredOnlyWhileTheShardIsSettled)
                        && past
                        && !shard.state.settled())
            }
            None if self.has(Bug::DoneAnsweredByAReceiverThatIsBehind) => {
                applied.answer = Some(Body::Done);
                false
            }
            _ => false,
        };
        if silent {
            applied.answer = None;
        }
        applied
    }

    /// The number that a push is compared with: a bug compares the push with itself.
    fn compared(&self, mine: Option<ConfigNum>, num: ConfigNum, bug: Bug) -> Option<ConfigNum> {
        if self.has(bug) && mine > Some(num) { Some(num) } else { mine }
    }

    fn install(
        &mut self,
        config: Place,
        mine: Option<ConfigNum>,
        shard: Shard,
        after: RowsId,
        rows: RowsId,
    ) -> Applied {
        let num = config.num;
        let mine = self.compared(mine, num, Bug::InstallAcceptedForAnotherConfig);
        let late = self.has(Bug::InstallAcceptedByAServingShard)
            && shard.state == ShardState::Serving
            && rows != NO_ROWS;
        let state = if late { ShardState::Awaiting } else { shard.state };
        let cursor = self.library.cursor(shard.cursor);
        let anywhere = rows == NO_ROWS || late || self.has(Bug::InstallIgnoresTheCursor);
        let after = if anywhere { cursor } else { self.library.cursor(after) };
        let unchanged = |answer| Applied { shard, answer, wiped: false };
        match shard::install(state, mine, config, here(mine, num), cursor, after) {
            Install::Behind | Install::OtherHistory => unchanged(None),
            Install::AlreadyDone => unchanged(Some(Body::Done)),
            Install::Elsewhere => unchanged(Some(Body::Cursor(shard.cursor))),
            Install::Accept if rows == NO_ROWS => unchanged(Some(Body::Cursor(shard.cursor))),
            Install::Accept if late => {
                let rows = self.merged(shard.rows, rows);
                Applied { shard: Shard { rows, ..shard }, answer: None, wiped: false }
            }
            Install::Accept => self.accept(shard, rows),
        }
    }

    /// Adds rows after the cursor; rows that do not ascend after it are refused.
    fn accept(&mut self, shard: Shard, chunk: RowsId) -> Applied {
        let last = self.library.rows(shard.cursor).last();
        let first = self.library.rows(chunk).first();
        if last.zip(first).is_some_and(|(last, first)| first.0 <= last.0) {
            return Applied { shard, answer: None, wiped: false };
        }
        let so_far = [self.library.rows(shard.cursor), self.library.rows(chunk)].concat();
        let (cursor, rows) = (self.library.id(&so_far), self.merged(shard.rows, chunk));
        Applied { shard: Shard { rows, cursor, ..shard }, answer: Some(Body::Cursor(cursor)), wiped: false }
    }

    /// Rows overwritten by others.
    fn merged(&mut self, rows: RowsId, over: RowsId) -> RowsId {
        let mut merged: BTreeMap<u8, u8> = self.library.rows(rows).iter().copied().collect();
        merged.extend(self.library.rows(over).iter().copied());
        self.library.id(&merged.into_iter().collect::<Vec<_>>())
    }

    fn activate(&self, config: Place, mine: Option<ConfigNum>, shard: Shard, end: RowsId) -> Applied {
        let num = config.num;
        let mine = self.compared(mine, num, Bug::ActivateAcceptedForAnotherConfig);
        let end = if self.has(Bug::ActivateDoesNotCompare) { shard.cursor } else { end };
        let (cursor, end) = (self.library.cursor(shard.cursor), self.library.cursor(end));
        let unchanged = |answer| Applied { shard, answer, wiped: false };
        match shard::activate(shard.state, mine, config, here(mine, num), cursor, end) {
            Activate::Behind | Activate::OtherHistory => unchanged(None),
            Activate::AlreadyDone => unchanged(Some(Body::Done)),
            Activate::Serve => {
                let cursor = if self.has(Bug::CursorSurvivesTheLife) { shard.cursor } else { NO_ROWS };
                let shard = Shard { state: ShardState::Serving, cursor, ..shard };
                Applied { shard, answer: Some(Body::Done), wiped: false }
            }
            Activate::Wipe => {
                let cursor = if self.has(Bug::WipeKeepsTheCursor) { shard.cursor } else { NO_ROWS };
                let shard = Shard { rows: NO_ROWS, cursor, ..shard };
                Applied { shard, answer: Some(Body::Cursor(cursor)), wiped: true }
            }
        }
    }

    /// The shard after a Release for `num`, if it drops the shard.
    pub(super) fn release(&self, group: &Group, shard: usize, num: ConfigNum) -> Option<Shard> {
        let before = group.shards[shard];
        let mine = if self.has(Bug::ReleaseForAnotherConfig) { Some(num) } else { group.num };
        shard::release(before.state, mine, num).then_some(Shard {
            state: ShardState::Absent,
            rows: NO_ROWS,
            ..before
        })
    }

    /// Whether a client's write is served, whatever configuration the client knows.
    pub(super) fn takes_writes(&self, group: &Group, shard: usize) -> bool {
        match group.shards[shard].state {
            ShardState::Handing { .. } if self.has(Bug::WritesServedWhileHanding) => true,
            _ => self.serves(group, shard),
        }
    }

    /// Whether a client is served, whatever configuration it knows.
    pub(super) fn serves(&self, group: &Group, shard: usize) -> bool {
        let Some(mine) = group.num.filter(|_| group.running) else { return false };
        let state = group.shards[shard].state;
        (0..=self.newest().0).any(|asked| shard::access(state, mine, ConfigNum(asked)) == Access::Serve)
    }

    /// Whether movers send without asking.
    pub(super) fn early(&self) -> bool {
        self.options.mover == Mover::Early
    }
}
