//! The shards that are on their way, how far each is, and what it waits for: from what the groups say
//! at one moment.

use std::collections::BTreeMap;

use clerk::api::status::{CopyStatus, CopyStep, ShardPhase, ShardStatus};
use clerk::api::{ConfigNum, GroupId, ShardId};
use serde_json::{Value, json};

use crate::survey::{Survey, speaker};

/// A shard on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moving {
    pub shard: ShardId,
    /// The configuration that moves it.
    pub num: ConfigNum,
    pub from: Option<GroupId>,
    pub to: Option<GroupId>,
    pub phase: ShardPhase,
    /// How its copy goes, if the sender's leader says that.
    pub copy: Option<CopyStatus>,
    /// Keys that the receiver has, as far as anybody says.
    pub rows: u64,
    pub rows_total: u64,
    pub bytes_total: u64,
    pub waits_for: Option<String>,
}

/// Every shard that some group gives away or gets. What the group says that has the rows counts.
pub fn moving(survey: &Survey) -> Vec<Moving> {
    let mut found: BTreeMap<ShardId, Moving> = BTreeMap::new();
    let groups = survey.groups.iter().filter_map(|(group, answers)| Some((*group, speaker(answers)?)));
    for (group, status) in groups {
        for shard in &status.shards {
            let Some(num) = shard.num else { continue };
            let mut told = one(survey, group, num, shard);
            if let Some(mut other) = found.remove(&shard.shard) {
                // The first of the two is the one that has the rows.
                if told.phase == ShardPhase::Awaiting {
                    std::mem::swap(&mut told, &mut other);
                }
                if told.num == other.num {
                    told.rows = told.rows.max(other.rows);
                }
            }
            found.insert(shard.shard, told);
        }
    }
    found.into_values().collect()
}

/// A move as one of its two groups sees it.
fn one(survey: &Survey, group: GroupId, num: ConfigNum, shard: &ShardStatus) -> Moving {
    let (from, to) = match shard.phase {
        ShardPhase::Awaiting => (shard.peer, Some(group)),
        _ => (Some(group), shard.peer),
    };
    let waits_for = match shard.phase {
        ShardPhase::Awaiting => from.and_then(|from| silent(survey, from)),
        _ => to.and_then(|to| obstacle(survey, to, num)),
    };
    Moving {
        shard: shard.shard,
        num,
        from,
        to,
        phase: shard.phase,
        copy: shard.copy,
        rows: shard.progress.unwrap_or(0),
        rows_total: shard.rows,
        bytes_total: shard.bytes,
        waits_for,
    }
}

/// Why a group says nothing.
fn silent(survey: &Survey, group: GroupId) -> Option<String> {
    let speaks = survey.groups.get(&group).and_then(speaker).is_some();
    (!speaks).then(|| format!("group {group}: no server answers"))
}

/// Why a group does not take a shard by the move `num`.
fn obstacle(survey: &Survey, to: GroupId, num: ConfigNum) -> Option<String> {
    if let Some(why) = silent(survey, to) {
        return Some(why);
    }
    let answers = survey.groups.get(&to)?;
    let newest = answers.iter().filter_map(|(_, status)| Some(status.as_ref().ok()?.config)).max()?;
    let low = answers.iter().filter_map(|(_, status)| status.as_ref().ok()).find(|it| it.replica.disk.low);
    match low {
        _ if newest < num => Some(format!("group {to}: at configuration {newest}, not yet at {num}")),
        Some(status) => Some(format!("group {to}: the disk of {to}.{} is nearly full", status.replica.id)),
        None => None,
    }
}

/// What becomes of a shard, in a word or two.
pub fn word(moving: &Moving) -> &'static str {
    match (moving.phase, moving.copy.map(|copy| copy.step)) {
        (_, Some(CopyStep::Refused)) => "refused",
        (ShardPhase::Handing, _) => "sealed",
        (ShardPhase::Leaving, None | Some(CopyStep::Asks)) => "queued",
        (ShardPhase::Leaving, Some(CopyStep::Copies)) => "copying",
        (ShardPhase::Leaving, Some(CopyStep::CatchesUp)) => "catching up",
        (ShardPhase::Leaving, Some(CopyStep::Holds)) => "hold",
        _ => "awaited",
    }
}

/// Seconds until all rows have been copied, at the rate so far.
pub fn eta(moving: &Moving) -> Option<u64> {
    let copy = moving.copy.filter(|copy| copy.bytes_per_second > 0)?;
    Some(moving.bytes_total.saturating_sub(copy.bytes).div_ceil(copy.bytes_per_second))
}

/// A move as programs read it.
pub fn move_document(moving: &Moving) -> Value {
    let copy = moving.copy.unwrap_or_default();
    json!({
        "shard": moving.shard.0,
        "move": moving.num.0,
        "from": moving.from.map(|group| group.0),
        "to": moving.to.map(|group| group.0),
        "phase": word(moving),
        "served": moving.phase == ShardPhase::Leaving,
        "rows": moving.rows,
        "rows_total": moving.rows_total,
        "bytes": copy.bytes,
        "bytes_total": moving.bytes_total,
        "changed": copy.changed,
        "bytes_per_second": copy.bytes_per_second,
        "eta_seconds": eta(moving),
        "failed_holds": copy.failed_holds,
        "restarts": copy.restarts,
        "wipes": copy.wipes,
        "waits_for": moving.waits_for,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{answers, config, survey};

    #[test]
    fn a_move_is_told_once_by_the_group_that_has_the_rows_with_what_it_waits_for() {
        use ShardPhase::{Awaiting, Handing, Leaving, Serving};
        let to = config(2, &[Some(2), Some(2), Some(3), Some(1)]);
        let groups = vec![
            (1, answers(1, 2, &[(0, Handing), (1, Leaving), (2, Leaving), (3, Serving)])),
            (2, answers(2, 2, &[(0, Awaiting), (1, Awaiting)])),
            (3, Vec::new()),
        ];
        let found = moving(&survey(to, groups));
        let told: Vec<_> = found.iter().map(|it| (it.shard.0, word(it))).collect();
        assert_eq!(told, [(0, "sealed"), (1, "queued"), (2, "queued")]);
        assert_eq!(move_document(&found[1])["served"], json!(true));
        assert!(found.iter().all(|it| it.from == Some(GroupId(1)) && it.num == ConfigNum(2)));
    }

    #[test]
    fn what_a_receiver_lacks_is_said() {
        let to = config(3, &[Some(2)]);
        let late = survey(to.clone(), vec![(2, answers(2, 1, &[]))]);
        let why = obstacle(&late, GroupId(2), ConfigNum(3));
        assert_eq!(why.as_deref(), Some("group 2: at configuration 1, not yet at 3"));
        assert_eq!(obstacle(&late, GroupId(2), ConfigNum(1)), None);
        let down = survey(to, vec![(2, Vec::new())]);
        assert_eq!(obstacle(&down, GroupId(2), ConfigNum(3)).as_deref(), Some("group 2: no server answers"));
    }
}
