//! Groups and shards in `status`: what they carry, and what operators want of them.

use std::fmt::Write as _;

use clerk::api::GroupId;
use clerk::api::status::{ShardPhase, ShardStatus};
use clerk_survey::document::{hex, weight};

use crate::output::table;
use crate::survey::{Survey, speaker};

/// Shards that are shown as the busiest.
const BUSIEST: usize = 5;

/// The pinned shards and the limit of moves, if there are some.
pub(super) fn wishes(survey: &Survey) -> String {
    let Some(placement) = &survey.placement else { return String::new() };
    let mut text = String::new();
    let pins: Vec<String> =
        placement.pins.iter().map(|(shard, group)| format!("{shard} to group {group}")).collect();
    if !pins.is_empty() {
        let _ = writeln!(text, "\npinned: shard {}", pins.join(", "));
    }
    if let Some(mib) = placement.move_rate {
        let _ = writeln!(text, "\neach group sends at most {mib} MiB a second of shards that move");
    }
    text
}

/// The shards that clients ask most for, if they ask for any.
pub(super) fn busiest(survey: &Survey) -> String {
    let groups = survey.groups.iter().filter_map(|(group, answers)| Some((*group, speaker(answers)?)));
    let shards = groups.flat_map(|(group, status)| status.shards.iter().map(move |shard| (group, shard)));
    let asked = |shard: &ShardStatus| shard.load.reads + shard.load.writes;
    let mut busy: Vec<(GroupId, &ShardStatus)> = shards.filter(|(_, shard)| asked(shard) > 0).collect();
    busy.sort_by_key(|(_, shard)| (std::cmp::Reverse(asked(shard)), shard.shard));
    let row = |(group, shard): &(GroupId, &ShardStatus)| {
        let numbers = [shard.load.reads, shard.load.writes, shard.load.bytes, shard.rows, shard.bytes];
        let head = [shard.shard.to_string(), group.to_string()];
        head.into_iter().chain(numbers.map(|number| number.to_string())).collect()
    };
    let mut text = String::new();
    if !busy.is_empty() {
        let head = ["BUSIEST SHARDS", "GROUP", ">READS/S", ">WRITES/S", ">BYTES/S", ">KEYS", ">BYTES"];
        let _ = write!(text, "\n{}", table(&head, busy.iter().take(BUSIEST).map(row)));
    }
    text
}

pub(super) fn group_row(survey: &Survey, group: GroupId) -> Vec<String> {
    let weight = weight(survey, group).map(|weight| weight.to_string()).unwrap_or_default();
    let joined = if survey.is_joined(group) { "joined" } else { "not joined" }.to_owned();
    let Some(status) = survey.groups.get(&group).and_then(speaker) else {
        return vec![group.to_string(), joined, weight, "?".to_owned()];
    };
    let served: Vec<&ShardStatus> = status.shards.iter().filter(|shard| shard.phase.serves()).collect();
    let count = |wanted: ShardPhase| status.shards.iter().filter(|shard| shard.phase == wanted).count();
    let moving = [ShardPhase::Awaiting, ShardPhase::Leaving, ShardPhase::Handing, ShardPhase::Parked]
        .into_iter()
        .filter(|wanted| count(*wanted) > 0)
        .map(|wanted| format!("{} {}", count(wanted), wanted.name()))
        .collect::<Vec<_>>();
    vec![
        group.to_string(),
        joined,
        weight,
        status.config.to_string(),
        status.digest.map(|digest| digest.to_string()).unwrap_or_default(),
        status.incarnation.map(|incarnation| hex(incarnation.0)).unwrap_or_default(),
        served.len().to_string(),
        served.iter().map(|shard| shard.rows).sum::<u64>().to_string(),
        served.iter().map(|shard| shard.bytes).sum::<u64>().to_string(),
        moving.join(", "),
    ]
}

#[cfg(test)]
mod tests {
    use clerk::api::status::{ShardLoad, ShardPhase};

    use super::busiest;
    use clerk_survey::sample::{answers, config, survey};

    #[test]
    fn the_busiest_shards_are_shown_first_and_idle_ones_not_at_all() {
        let mut one =
            answers(1, 1, &[(0, ShardPhase::Serving), (1, ShardPhase::Serving), (2, ShardPhase::Serving)]);
        let survey = |one| survey(config(1, &[Some(1); 3]), vec![(1, one)]);
        assert_eq!(busiest(&survey(one.clone())), "");
        if let Some(Ok(status)) = one.first_mut().map(|(_, status)| status.as_mut()) {
            status.shards[0].load.reads = 5;
            status.shards[2].load = ShardLoad { reads: 3, writes: 30, bytes: 100 };
        }
        let text = busiest(&survey(one));
        let shown: Vec<&str> = text.lines().skip(2).map(|line| &line[..1]).collect();
        assert_eq!(shown, ["2", "0"], "{text}");
    }
}
