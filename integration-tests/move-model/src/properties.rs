//! What must hold in every state of the world, and the state in which it must end.

use shardkv::shard::ShardState;

use super::group::Model;
use super::values::{GROUPS_MAX, Group, NO_ROWS, RowsId, World, group_id};

impl Model {
    /// What is wrong with a state, if anything.
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
        let num = groups[first].num.unwrap_or_default();
        if self.true_configs[num.0 as usize][shard].owner != Some(group_id(first)) {
            return Some("a group serves a shard that its configuration does not give it");
        }
        (Some(groups[first].shards[shard].rows) != truth)
            .then_some("a group serves other rows than were written")
    }

    /// Acknowledged writes are held by a group that may not drop them.
    fn nobody_holds(
        &self,
        groups: &[Group; GROUPS_MAX],
        shard: usize,
        truth: Option<RowsId>,
    ) -> Option<&'static str> {
        let truth = truth?;
        let holds = |group: &Group| {
            let Group { shards, .. } = group;
            !matches!(shards[shard].state, ShardState::Absent | ShardState::Awaiting)
                && shards[shard].rows == truth
        };
        (!groups[..self.groups].iter().any(holds)).then_some("nobody holds the newest rows")
    }

    fn wrong_rows(&self, groups: &[Group; GROUPS_MAX], me: usize, shard: usize) -> Option<&'static str> {
        let num = groups[me].num;
        let mine = groups[me].shards[shard];
        let sends = |group: &&Group| {
            group.num == num && group.shards[shard].state == (ShardState::Handing { to: group_id(me) })
        };
        match mine.state {
            ShardState::Absent if mine.rows != NO_ROWS => Some("rows of a shard that is not here"),
            ShardState::Awaiting if mine.cursor != mine.rows => Some("the rows are not those of the cursor"),
            ShardState::Awaiting if mine.cursor != NO_ROWS => {
                let sender = groups[..self.groups].iter().find(sends);
                let begins = |sender: &Group| self.library.begins(sender.shards[shard].rows, mine.cursor);
                (!sender.is_some_and(begins))
                    .then_some("the rows so far are not the beginning of the sender's")
            }
            _ => None,
        }
    }

    /// Whether every running group has come to the newest configuration and every shard to its place.
    pub(super) fn settled(&self, world: &World) -> bool {
        let newest = self.newest();
        let groups = self.unpack(&world.groups);
        groups[..self.groups].iter().enumerate().filter(|(_, group)| group.running).all(|(me, group)| {
            let me = Some(group_id(me));
            let shards = self.true_configs[newest.0 as usize].iter().zip(&group.shards);
            group.num == Some(newest)
                && shards.into_iter().all(|(assignment, shard)| {
                    let place = match assignment.owner {
                        owner if owner == me => ShardState::Serving,
                        None if assignment.last_owner == me => ShardState::Parked,
                        _ => ShardState::Absent,
                    };
                    shard.state == place
                })
        })
    }
}
