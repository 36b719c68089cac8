//! What must hold in every state of the world, and where it is to end.

use clerk::api::{ConfigNum, GroupId};
use shardkv::shard::{Next, ShardState};

use super::group::Model;
use super::values::{GROUPS_MAX, Group, NO_ROWS, RowsId, World, group_id};

impl Model {
    /// What is wrong with a state, if anything is.
    pub(super) fn wrong(&self, world: &World) -> Option<&'static str> {
        let groups = self.unpack(&world.groups);
        (0..self.shards).find_map(|shard| {
            let truth = world.truth(shard);
            let inner = || {
                self.nobody_holds(&groups, shard, truth)
                    .or_else(|| (0..self.groups).find_map(|group| self.wrong_rows(&groups, group, shard)))
            };
            self.wrongly_served(&groups, shard, truth).or_else(|| inner().filter(|_| self.options.inner))
        })
    }

    /// What a client could see.
    fn wrongly_served(
        &self,
        groups: &[Group; GROUPS_MAX],
        shard: usize,
        truth: Option<RowsId>,
    ) -> Option<&'static str> {
        let mut serving = (0..self.groups).filter(|group| self.serves(&groups[*group], shard));
        let (first, second) = (serving.next()?, serving.next());
        if second.is_some() {
            return Some("two groups serve a shard");
        }
        (Some(groups[first].shards[shard].rows) != truth)
            .then_some("a group serves other rows than were written")
    }

    /// Acknowledged writes lie with a group that may not drop them.
    fn nobody_holds(
        &self,
        groups: &[Group; GROUPS_MAX],
        shard: usize,
        truth: Option<RowsId>,
    ) -> Option<&'static str> {
        let truth = truth?;
        let holds = |group: &Group| {
            let Group { shards, .. } = group;
            !matches!(shards[shard].state, ShardState::Absent | ShardState::Awaiting { .. })
                && shards[shard].rows == truth
        };
        (!groups[..self.groups].iter().any(holds)).then_some("nobody holds the newest rows")
    }

    fn wrong_rows(&self, groups: &[Group; GROUPS_MAX], me: usize, shard: usize) -> Option<&'static str> {
        let mine = groups[me].shards[shard];
        let sends = |group: &&Group, awaited: ConfigNum| match group.shards[shard].state {
            ShardState::Handing { to, num, .. } => (to, num) == (group_id(me), awaited),
            _ => false,
        };
        if !self.follows(&groups[me], me, shard) {
            return Some("a state that is not what the newest configuration wants");
        }
        match mine.state {
            ShardState::Absent if mine.rows != NO_ROWS => Some("rows of a shard that is not here"),
            ShardState::Awaiting { .. } if mine.cursor != mine.rows => {
                Some("the rows are not those of the cursor")
            }
            ShardState::Awaiting { num } if mine.cursor != NO_ROWS => {
                let sender = groups[..self.groups].iter().find(|group| sends(group, num));
                let begins = |sender: &Group| self.library.begins(sender.shards[shard].rows, mine.cursor);
                (!sender.is_some_and(begins))
                    .then_some("the rows so far are not the beginning of the sender's")
            }
            _ => None,
        }
    }

    /// Whether a shard's state is one that its group's newest configuration wants.
    fn follows(&self, group: &Group, me: usize, shard: usize) -> bool {
        let Some(adopted) = group.num else { return group.shards[shard].state == ShardState::Absent };
        let owner = |num: u64| self.true_configs[num as usize][shard].owner;
        let now = owner(adopted.0);
        // The configuration that changed the owner last.
        let change = (1..=adopted.0).rev().find(|num| owner(*num) != owner(num - 1)).map(ConfigNum);
        let me = group_id(me);
        let by = |to: GroupId, num: ConfigNum| now == Some(to) && change == Some(num);
        match group.shards[shard].state {
            ShardState::Absent => now != Some(me),
            ShardState::Serving => now == Some(me),
            ShardState::Parked => now.is_none(),
            ShardState::Awaiting { num } => by(me, num),
            ShardState::Leaving { to, num } => by(to, num),
            ShardState::Handing { to, num, next } => match next {
                Next::Unchanged => by(to, num),
                Next::Mine { num } => by(me, num),
                Next::Others { to, num } => by(to, num),
                Next::Nobodys => now.is_none(),
            },
        }
    }

    /// Whether the death of a group reached a shard: it alone had the rows, or it was about to get them, or it was to
    /// make the first ones. What is only on its way to it is served where it is.
    fn touched(&self, world: &World, groups: &[Group; GROUPS_MAX], shard: usize) -> bool {
        let Some(dead) = world.dead() else { return false };
        let has = |group: &Group| {
            !matches!(group.shards[shard].state, ShardState::Absent | ShardState::Awaiting { .. })
        };
        let had =
            has(&groups[dead]) && !groups[..self.groups].iter().any(|group| group.running && has(group));
        // A group that never reached a move never said that it awaits the shard by it.
        let handed = groups[..self.groups].iter().any(|group| match group.shards[shard].state {
            ShardState::Handing { to, num, .. } => to == group_id(dead) && groups[dead].num >= Some(num),
            _ => false,
        });
        let first = self.true_configs.iter().find_map(|config| config[shard].owner);
        had || handed || (world.truth(shard).is_none() && first == Some(group_id(dead)))
    }

    /// Whether every running group has come to the newest configuration and every shard to its place, but for those
    /// that the death of a group reached.
    pub(super) fn settled(&self, world: &World) -> bool {
        let newest = self.newest();
        let groups = self.unpack(&world.groups);
        let running = || groups[..self.groups].iter().enumerate().filter(|(_, group)| group.running);
        if running().any(|(_, group)| group.num != Some(newest)) {
            return false;
        }
        (0..self.shards).filter(|shard| !self.touched(world, &groups, *shard)).all(|shard| {
            let assignment = self.true_configs[newest.0 as usize][shard];
            let dead = world.dead().map(group_id).filter(|dead| assignment.owner == Some(*dead));
            let mut at_place = 0;
            let settled = running().all(|(me, group)| {
                let place = match (group.shards[shard].state, assignment.owner) {
                    (ShardState::Absent, _) => return true,
                    (ShardState::Serving, owner) => owner == Some(group_id(me)),
                    (ShardState::Parked, owner) => owner.is_none(),
                    (ShardState::Leaving { to, .. }, _) => dead == Some(to),
                    _ => false,
                };
                at_place += usize::from(place);
                place
            });
            let owned = self.true_configs.iter().any(|config| config[shard].owner.is_some());
            settled && at_place == usize::from(owned)
        })
    }
}
