//! `moves`: the shards that are on their way, how far each is, and what it waits for.
//!
//! Everything is what the groups say about themselves at one moment, like `status`.
//!
//! Left out on purpose: stopping a move. Moving the shard back does that.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use base::clock;
use clerk::api::status::{CopyStatus, CopyStep, ShardPhase, ShardStatus};
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
    /// How its copy goes, if the sender's leader says that.
    copy: Option<CopyStatus>,
    /// Keys that the receiver has, as far as anybody says.
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
        let pauses = pauses(&survey);
        let document = json!({
            "config": newest.0,
            "settled": pending.is_empty(),
            "moves": moving.iter().map(document).collect::<Vec<_>>(),
            "pauses": pauses.iter().map(Pause::document).collect::<Vec<_>>(),
        });
        context.output.answer(&document, || text(newest, &moving, &pending) + &pauses_text(&pauses));
        if !verb.watch || pending.is_empty() {
            return Ok(());
        }
        clock::sleep(PERIOD).await;
    }
}

/// How long shards were not served that a server gave away, since it started.
#[derive(Clone, Debug, PartialEq)]
struct Pause {
    server: String,
    shards: u64,
    last_ms: f64,
    longest_ms: f64,
}

impl Pause {
    fn document(&self) -> Value {
        let Self { server, shards, last_ms, longest_ms } = self;
        json!({"server": server, "shards": shards, "last_ms": last_ms, "longest_ms": longest_ms})
    }
}

fn pauses(survey: &Survey) -> Vec<Pause> {
    let answers = survey.groups.iter().flat_map(|(group, answers)| answers.iter().map(move |it| (group, it)));
    let statuses = answers.filter_map(|(group, (_, status))| Some((group, status.as_ref().ok()?)));
    let moved = statuses.filter(|(_, status)| status.moved.shards > 0);
    let ms = |micros: u64| micros as f64 / 1000.0;
    moved
        .map(|(group, status)| Pause {
            server: format!("{group}.{}", status.replica.id),
            shards: status.moved.shards,
            last_ms: ms(status.moved.last_pause_micros),
            longest_ms: ms(status.moved.longest_pause_micros),
        })
        .collect()
}

fn pauses_text(pauses: &[Pause]) -> String {
    let one = |it: &Pause| {
        let Pause { server, shards, last_ms, longest_ms } = it;
        format!(
            "{server} gave {shards} shards away: the last paused {last_ms:.1} ms, the longest {longest_ms:.1} ms\n"
        )
    };
    pauses.iter().map(one).collect()
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
fn word(moving: &Moving) -> &'static str {
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
fn eta(moving: &Moving) -> Option<u64> {
    let copy = moving.copy.filter(|copy| copy.bytes_per_second > 0)?;
    Some(moving.bytes_total.saturating_sub(copy.bytes).div_ceil(copy.bytes_per_second))
}

fn document(moving: &Moving) -> Value {
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

fn text(newest: ConfigNum, moving: &[Moving], pending: &[String]) -> String {
    let mut text = match (moving.is_empty(), pending.is_empty()) {
        (_, true) => format!("configuration {newest} is settled: no shard moves\n"),
        (true, false) => format!("configuration {newest}: {}\n", shown(pending)),
        (false, false) => String::new(),
    };
    if !moving.is_empty() {
        let name = |group: Option<GroupId>| group.map_or_else(|| "?".to_owned(), |group| group.to_string());
        let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
        let row = |it: &Moving| {
            vec![
                it.shard.to_string(),
                name(it.from),
                name(it.to),
                it.num.to_string(),
                word(it).to_owned(),
                mib(it.copy.map_or(0, |copy| copy.bytes)),
                mib(it.bytes_total),
                it.copy.map_or_else(String::new, |copy| copy.changed.to_string()),
                it.copy.map_or_else(String::new, |copy| mib(copy.bytes_per_second)),
                eta(it).map_or_else(String::new, |seconds| format!("{seconds} s")),
                it.waits_for.clone().unwrap_or_default(),
            ]
        };
        let head = [
            "SHARD",
            "FROM",
            "TO",
            ">MOVE",
            "PHASE",
            ">MIB",
            ">OF",
            ">CHANGED",
            ">MIB/S",
            ">ETA",
            "WAITS FOR",
        ];
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
        let told: Vec<_> = found.iter().map(|it| (it.shard.0, word(it))).collect();
        assert_eq!(told, [(0, "sealed"), (1, "queued"), (2, "queued")]);
        assert_eq!(document(&found[1])["served"], json!(true));
        assert!(found.iter().all(|it| it.from == Some(GroupId(1)) && it.num == ConfigNum(2)));
    }

    #[test]
    fn a_copy_is_told_with_what_it_has_and_when_it_ends() {
        let to = config(2, &[Some(2)]);
        let mut groups = vec![(1, answers(1, 2, &[(0, ShardPhase::Leaving)])), (2, answers(2, 2, &[]))];
        for (_, status) in &mut groups[0].1 {
            let Ok(status) = status else { continue };
            let copy =
                CopyStatus { bytes: 2 << 20, changed: 7, bytes_per_second: 1 << 20, ..CopyStatus::default() };
            status.shards[0].bytes = 5 << 20;
            status.shards[0].copy = Some(CopyStatus { step: CopyStep::Copies, ..copy });
            status.moved =
                clerk::api::status::Moved { shards: 3, last_pause_micros: 1500, longest_pause_micros: 9000 };
        }
        let survey = survey(to, groups);
        let found = moving(&survey);
        assert_eq!((word(&found[0]), eta(&found[0])), ("copying", Some(3)));
        let told = text(ConfigNum(2), &found, &["it".to_owned()]);
        assert!(told.contains("copying") && told.contains("2.0") && told.contains("3 s"), "{told}");
        let told = pauses_text(&pauses(&survey));
        assert!(told.contains("gave 3 shards away: the last paused 1.5 ms, the longest 9.0 ms"), "{told}");
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
