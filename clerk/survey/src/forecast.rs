//! What moves will carry, and about how long they take: from what the groups say at one moment.

use std::collections::{BTreeMap, BTreeSet};

use clerk::api::config::Move;
use clerk::api::status::{ShardPhase, ShardStatus};
use clerk::api::{GroupId, ShardId};

use crate::survey::{Survey, speaker};

/// What a group is assumed to send or to receive in a second. (An idle machine of two cores: 55 MiB.)
const MOVE_BYTES_PER_SECOND: f64 = 50.0 * MIB;

pub const MIB: f64 = 1_048_576.0;

/// The figures of planned moves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Forecast {
    /// Bytes of keys and values of each shard that moves, as far as a group says.
    pub bytes: BTreeMap<ShardId, u64>,
    /// Shards that have rows somewhere, but whose group does not answer.
    pub unknown: BTreeSet<ShardId>,
    /// If each group sends and receives `rate` bytes a second at the same time.
    pub seconds: f64,
    pub rate: f64,
}

impl Forecast {
    pub fn total(&self) -> u64 {
        self.bytes.values().sum()
    }
}

/// Each shard as the group says that has its rows.
pub fn holders(survey: &Survey) -> BTreeMap<ShardId, (GroupId, &ShardStatus)> {
    let mut found: BTreeMap<ShardId, (GroupId, &ShardStatus)> = BTreeMap::new();
    for (group, status) in survey.groups.iter().filter_map(|(group, it)| Some((group, speaker(it)?))) {
        for shard in status.shards.iter().filter(|shard| shard.phase != ShardPhase::Awaiting) {
            // After the copy both may say that they have it: the one that serves counts.
            let is_better = found.get(&shard.shard).is_none_or(|(_, known)| !known.phase.serves());
            if is_better {
                found.insert(shard.shard, (*group, shard));
            }
        }
    }
    found
}

pub fn forecast(survey: &Survey, moves: &[Move]) -> Forecast {
    let holders = holders(survey);
    let mut forecast = Forecast::default();
    let mut carried: BTreeMap<GroupId, (u64, u64)> = BTreeMap::new();
    // A shard that nobody had moves for free.
    for moved in moves.iter().filter(|moved| moved.from.is_some()) {
        let Some((holder, shard)) = holders.get(&moved.shard) else {
            forecast.unknown.insert(moved.shard);
            continue;
        };
        // A shard whose rows are at its new owner already, or that is parked, travels nowhere.
        let Some(to) = moved.to.filter(|to| to != holder) else { continue };
        forecast.bytes.insert(moved.shard, shard.bytes);
        carried.entry(*holder).or_default().0 += shard.bytes;
        carried.entry(to).or_default().1 += shard.bytes;
    }
    let most = carried.values().map(|(sent, received)| *sent.max(received)).max().unwrap_or(0);
    let limit = survey.placement.as_ref().and_then(|placement| placement.move_rate);
    forecast.rate = limit.map_or(f64::INFINITY, |mib| f64::from(mib) * MIB).min(MOVE_BYTES_PER_SECOND);
    forecast.seconds = most as f64 / forecast.rate;
    forecast
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{answers, config, survey};

    #[test]
    fn what_moves_is_counted_where_its_rows_are() {
        use ShardPhase::{Awaiting, Serving};
        let mut one = answers(1, 1, &[(0, Serving), (1, Serving)]);
        if let Some(Ok(status)) = one.first_mut().map(|(_, status)| status.as_mut()) {
            status.shards.iter_mut().for_each(|shard| shard.bytes = 50 << 20);
        }
        let owners = config(1, &[Some(1), Some(1), Some(2), Some(3), None]);
        let groups = vec![(1, one), (2, answers(2, 1, &[(2, Awaiting)])), (3, Vec::new())];
        let survey = survey(owners, groups);
        let moved = |shard, from: u64, to| Move {
            shard: ShardId(shard),
            from: (from > 0).then_some(GroupId(from)),
            to: Some(GroupId(to)),
        };
        let moves = [moved(0, 1, 2), moved(1, 1, 3), moved(3, 3, 1), moved(4, 0, 1)];
        let forecast = forecast(&survey, &moves);
        assert_eq!(forecast.total(), 100 << 20);
        assert_eq!(forecast.unknown, [ShardId(3)].into(), "its group is down");
        assert!((forecast.seconds - 2.0).abs() < 1e-9, "group 1 sends both: {forecast:?}");
        assert_eq!(
            super::forecast(&survey, &[moved(0, 2, 1)]).total(),
            0,
            "it comes back, and was never away"
        );
    }
}
