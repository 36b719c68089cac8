//! At most one group serves a shard, judged on the most advanced state that any replica of each group has
//! ever applied. What was applied is committed, so a crash takes nothing of it back. A group that was
//! taken away serves nothing any more.

use std::collections::BTreeMap;

use raft::types::Index;
use shardkv::shard::ShardState;

use super::{Invariant, Turn};
use crate::Name;

#[derive(Default)]
pub(super) struct ShardOwner {
    groups: BTreeMap<Name, (Index, Vec<ShardState>)>,
}

impl Invariant for ShardOwner {
    fn observe(&mut self, turn: &Turn<'_>) -> Result<(), String> {
        let Some(standing) = turn.standing else { return Ok(()) };
        self.groups.retain(|name, _| turn.groups.contains(name));
        let best = self.groups.entry(turn.seen.group.clone()).or_default();
        if standing.changed < best.0 || standing.shards == best.1 {
            return Ok(());
        }
        *best = (standing.changed, standing.shards.clone());
        let group = &turn.seen.group;
        for (shard, state) in standing.shards.iter().enumerate() {
            let serves = |(_, shards): &(Index, Vec<ShardState>)| {
                shards.get(shard).is_some_and(|state| state.serves())
            };
            if !state.serves() {
                continue;
            }
            let other = self.groups.iter().find(|(name, known)| *name != group && serves(known));
            if let Some((other, _)) = other {
                return Err(format!("shard {shard} is served by groups {other} and {group} at once"));
            }
        }
        Ok(())
    }
}
