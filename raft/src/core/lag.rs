//! Members that lag: a leader measures them, slows down writes for those that can arrive, and sends
//! less at once to those that disturb it (correctness rules 133 and 134). The law of pace is in
//! [`pace`](super::pace).
//!
//! The pace is kept where commands come to the core: [`Raft::is_held_back`] says whether the next
//! one is to wait.

use super::Raft;
use super::pace::{Around, Bucket, Lack, Look, Standing};
use super::pacing::Pacing;
use super::progress::{Feed, Progress};
use super::role::Role;
use crate::types::{Index, NodeId};

/// From eight chunks to one.
const HALVINGS_MAX: u32 = 3;

/// Bytes on a server's own disk.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Room {
    /// How much log may be kept for members that lag.
    kept_bytes_max: u64,
    /// How large the table is, roughly.
    table_bytes: u64,
}

impl Raft {
    /// How much log may be kept on disk for members that lag, and how large the table is.
    pub fn set_room(&mut self, kept_bytes_max: u64, table_bytes: u64) {
        self.room_on_disk = Room { kept_bytes_max, table_bytes };
    }

    /// Whether the next command is to wait. (One that frees space never has to.)
    pub fn is_held_back(&self) -> bool {
        match &self.role {
            Role::Leader(leader) => leader.pacing.bucket.is_some_and(|bucket| !bucket.is_open()),
            _ => false,
        }
    }

    /// The pace of writes, in bytes per second; none: no limit.
    pub fn pace(&self) -> Option<u64> {
        let Role::Leader(leader) = &self.role else { return None };
        leader.pacing.bucket.map(|bucket| bucket.pace())
    }

    /// Whether a member is sent rows, or entries that are not in memory.
    pub fn is_somebody_catching_up(&self) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        let marker = self.log.marker().index;
        let is_behind =
            |it: &Progress| it.next <= marker || it.repair.is_some() || matches!(it.feed, Feed::Snapshot(_));
        leader.followers.values().any(|it| it.silent_ticks < self.config.election_ticks_min && is_behind(it))
    }

    /// The last second's saves were disturbed by members that catch up, or not: they get half as
    /// much at once, or twice as much again (correctness rule 134).
    pub fn catch_up_with_less(&mut self, is_disturbed: bool) {
        let Role::Leader(leader) = &mut self.role else { return };
        let halvings = &mut leader.pacing.halvings;
        *halvings = if is_disturbed { (*halvings + 1).min(HALVINGS_MAX) } else { halvings.saturating_sub(1) };
    }

    /// How a member stands, what it takes per second, and what clients want to write.
    pub fn standing(&self, member: NodeId) -> Option<(Standing, Option<u64>, Option<u64>)> {
        let Role::Leader(leader) = &self.role else { return None };
        let pacing = &leader.pacing;
        let member = pacing.members.get(&member)?;
        let wanted = pacing.demand.most().max(pacing.demand.present());
        Some((member.standing(), member.takes(), wanted))
    }

    /// A tick of a leader.
    pub(super) fn tick_pacing(&mut self) {
        let last = self.log.last().index;
        let room = self.room_on_disk.kept_bytes_max.max(self.config.log_bytes_hard_max as u64);
        let (config, table_bytes) = (&self.config, self.room_on_disk.table_bytes);
        let Role::Leader(leader) = &mut self.role else { return };
        let pacing = &mut *leader.pacing;
        let recent_ticks = config.pace.recent.as_micros() / config.tick.as_micros().max(1);
        pacing.note(last, usize::try_from(recent_ticks).unwrap_or(0).max(1));
        pacing.demand.tick(&config.pace, config.tick, pacing.written, pacing.bucket.is_some());
        let mut pace: Option<u64> = None;
        for (id, follower) in &mut leader.followers {
            // (Without space for a snapshot it takes nothing, like one that is silent.)
            let takes_none = matches!(follower.feed, Feed::Snapshot(_)) && follower.is_disk_low();
            let look = Look {
                is_heard: follower.silent_ticks < config.election_ticks_min && !takes_none,
                lack: lack_of(pacing, follower, table_bytes),
                taken: follower.taken,
            };
            let around = Around { law: &config.pace, tick: config.tick, demand: &pacing.demand, room };
            let member = pacing.members.entry(*id).or_default();
            let before = member.standing();
            member.tick(&around, &look);
            let standing = member.standing();
            if standing != before && [before, standing].contains(&Standing::GivenUp) {
                tracing::warn!(member = %id, ?standing, takes = member.takes(), wanted = pacing.demand.most(), "a member that lags");
            }
            follower.is_given_up = standing == Standing::GivenUp;
            pace = pace.into_iter().chain(member.pace()).min();
        }
        pacing.bucket = pace.map(|pace| {
            let mut bucket = pacing.bucket.unwrap_or(Bucket::of(pace));
            bucket.fill(pace, config.tick);
            bucket
        });
    }
}

fn lack_of(pacing: &Pacing, follower: &Progress, table_bytes: u64) -> Lack {
    /// The least that counts as left of a snapshot: the table's size is an estimate.
    const ROWS_MIN: u64 = 1 << 20;
    let since = |index: Index| pacing.written.saturating_sub(pacing.written_up_to(index));
    if let Feed::Snapshot(stream) = &follower.feed
        && !base::mutant!("pace-ignores-the-stream")
    {
        let since = stream.snapshot.map_or(0, |snapshot| since(snapshot.index));
        return Lack::Rows { left: table_bytes.saturating_sub(stream.taken).max(ROWS_MIN), since };
    }
    let is_recent = pacing.recent.front().is_none_or(|recent| follower.matched >= *recent);
    Lack::Entries { bytes: since(follower.matched), is_recent }
}
