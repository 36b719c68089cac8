//! `moves`: the shards that are on their way, how far each is, and what it waits for.
//!
//! Everything is what the groups say about themselves at one moment, like `status`.
//!
//! Left out on purpose: stopping a move. Moving the shard back does that.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use base::clock;
use clerk::api::{ConfigNum, GroupId};
use clerk_survey::moves::{Moving, eta, move_document, moving, word};
use serde_json::{Value, json};

use crate::args::Moves;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::table;
use crate::settle::shown;
use crate::survey::{Survey, survey};

/// How often `--watch` looks.
const PERIOD: Duration = Duration::from_secs(1);

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
            "moves": moving.iter().map(move_document).collect::<Vec<_>>(),
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
    use clerk::api::status::{CopyStatus, CopyStep, ShardPhase};
    use clerk_survey::sample::{answers, config, survey};

    use super::*;

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
}
