//! `moves`: the shards that are on their way, how far each is, and what it waits for.
//!
//! Everything is what the groups say about themselves at one moment, like `status`.
//!
//! Left out on purpose: stopping a move. Moving the shard back does that.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use base::clock;
use clerk::api::status::{ShardPhase, ShardStatus};
use clerk::api::{ConfigNum, GroupId, ShardId};
use serde_json::{Value, json};

use crate::args::Moves;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::table;
use crate::settle::shown;
use crate::survey::{Survey, speaker, survey};

/// How often `--watch` looks.
const PERIOD: Duration = Duration::from_secs(1);

/// A shard on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Moving {
    shard: ShardId,
    /// The configuration that moves it.
    num: ConfigNum,
    from: Option<GroupId>,
    to: Option<GroupId>,
    phase: ShardPhase,
    /// Rows that the receiver has, as far as anybody says.
    rows: u64,
    rows_total: u64,
    bytes_total: u64,
    waits_for: Option<String>,
}

pub(crate) async fn moves(context: &Context, verb: &Moves) -> Result<(), Failure> {
    let reach = context.reach_what_runs().await?;
    loop {
        // Each look has its time. (Before, a watch of more than ten seconds asked nobody any more.)
        let until = clock::now().after(context.operation_timeout());
        let survey = survey(&reach, until).await;
        let moving = moving(&survey);
        let newest = survey.config.as_ref().map(|config| config.num).unwrap_or_default();
        let pending = survey.pending(newest, &BTreeSet::new());
        let document = json!({
            "config": newest.0,
            "settled": pending.is_empty(),
            "moves": moving.iter().map(document).collect::<Vec<_>>(),
        });
        context.output.answer(&document, || text(newest, &moving, &pending));
        if !verb.watch || pending.is_empty() {
            return Ok(());
        }
        clock::sleep(PERIOD).await;
    }
}

/// Every shard that some group gives away or gets. What the group says that has the rows counts.
fn moving(survey: &Survey) -> Vec<Moving> {
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

fn word(phase: ShardPhase) -> &'static str {
    match phase {
        ShardPhase::Leaving => "offered",
        ShardPhase::Handing => "sealed",
        _ => "awaited",
    }
}

fn document(moving: &Moving) -> Value {
    json!({
        "shard": moving.shard.0,
        "move": moving.num.0,
        "from": moving.from.map(|group| group.0),
        "to": moving.to.map(|group| group.0),
        "phase": word(moving.phase),
        "served": moving.phase == ShardPhase::Leaving,
        "rows": moving.rows,
        "rows_total": moving.rows_total,
        "bytes_total": moving.bytes_total,
        "waits_for": moving.waits_for,
    })
}

fn text(newest: ConfigNum, moving: &[Moving], pending: &[String]) -> String {
    let mut text = match (moving.is_empty(), pending.is_empty()) {
        (_, true) => format!("configuration {newest} is settled: no shard moves\n"),
        (true, false) => format!("configuration {newest}: {}\n", shown(pending)),
        (false, false) => String::new(),
    };
    if !moving.is_empty() {
        let name = |group: Option<GroupId>| group.map_or_else(|| "?".to_owned(), |group| group.to_string());
        let row = |it: &Moving| {
            vec![
                it.shard.to_string(),
                name(it.from),
                name(it.to),
                it.num.to_string(),
                word(it.phase).to_owned(),
                it.rows.to_string(),
                it.rows_total.to_string(),
                it.bytes_total.to_string(),
                it.waits_for.clone().unwrap_or_default(),
            ]
        };
        let head = ["SHARD", "FROM", "TO", ">MOVE", "PHASE", ">ROWS", ">OF", ">BYTES", "WAITS FOR"];
        let _ = write!(text, "{}", table(&head, moving.iter().map(row)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::tests::{answers, config, survey};

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
        let told: Vec<_> = found.iter().map(|it| (it.shard.0, word(it.phase))).collect();
        assert_eq!(told, [(0, "sealed"), (1, "offered"), (2, "offered")]);
        assert_eq!(document(&found[1])["served"], json!(true));
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
