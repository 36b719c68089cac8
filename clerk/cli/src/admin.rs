//! The verbs about configurations.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Instant;

use base::clock;
use clerk::api::config::{AddressBook, Config, Sealed};
use clerk::api::ctrl::Change;
use clerk::api::{Address, ConfigNum, Digest, GroupId, ShardId};
use clerk::ctrl::Changed;
use clerk_survey::changes::{changed_document, history_document, id, planned_document, with, with_moved};
use clerk_survey::forecast::{Forecast, MIB, forecast};
use clerk_survey::join::newcomers;
use serde_json::{Value, json};

use crate::args::{self, Waiting};
use crate::context::{Context, Reach};
use crate::failure::{Failure, on_interrupt};
use crate::output::table;
use crate::settle::{settle, shown};
use crate::survey::{speaker, survey};

pub(crate) async fn join(context: &Context, join: &args::Join) -> Result<(), Failure> {
    let reach = context.reach().await?;
    let groups = newcomers(&reach.asked(), &join.groups, join.partial, context.data_until()).await?;
    change(context, &reach, Change::Join(groups), BTreeSet::new(), join.waiting).await
}

pub(crate) async fn leave(context: &Context, leave: &args::Leave) -> Result<(), Failure> {
    let reach = context.reach().await?;
    let groups: BTreeSet<GroupId> = leave.groups.iter().copied().collect();
    let asked = Change::Leave { groups: groups.clone(), force: leave.force };
    // A group that left before and has been stopped since is not waited for.
    let before = survey(&reach, context.data_until()).await;
    let answers = |group: &GroupId| before.groups.get(group).and_then(speaker).is_some();
    let leaving = groups.into_iter().filter(|group| before.is_joined(*group) || answers(group)).collect();
    change(context, &reach, asked, leaving, leave.waiting).await
}

pub(crate) async fn give(context: &Context, give: &args::Give) -> Result<(), Failure> {
    let reach = context.reach().await?;
    let asked = Change::Move { shard: give.shard, group: give.group };
    change(context, &reach, asked, BTreeSet::new(), give.waiting).await
}

/// Makes a change and waits until it has settled.
pub(crate) async fn change(
    context: &Context,
    reach: &Reach,
    asked: Change,
    leaving: BTreeSet<GroupId>,
    waiting: Waiting,
) -> Result<(), Failure> {
    change_and_tell(context, reach, asked, leaving, waiting, (json!({}), String::new())).await
}

/// The same, with more to tell in front of what becomes of it.
pub(crate) async fn change_and_tell(
    context: &Context,
    reach: &Reach,
    asked: Change,
    leaving: BTreeSet<GroupId>,
    waiting: Waiting,
    (more, first): (Value, String),
) -> Result<(), Failure> {
    let (started, until) = (Instant::now(), context.settle_until());
    if waiting.dry_run {
        let plan = reach.ctrl(context.data_until()).plan(asked).await?;
        let forecast = forecast(&survey(reach, context.data_until()).await, &plan.moves);
        let document = with(planned_document(&plan, &forecast), more);
        context.output.answer(&document, || first + &planned_text(&plan, &forecast));
        return Ok(());
    }
    on_interrupt("interrupted: the change may have been made", "`clerk query` shows the configuration");
    let changed = reach.ctrl(context.data_until()).change(asked).await?;
    let num = changed.config;
    on_interrupt(
        format!("configuration {num} is made, and its moves continue without this command"),
        "`clerk status` shows their progress",
    );
    let settled =
        if waiting.no_wait { None } else { Some(settle(reach, num, &leaving, until, context.output).await) };
    let seconds = started.elapsed().as_secs_f64();
    let is_settled = matches!(settled, Some(Ok(())));
    let parked = if is_settled { parked(reach, &leaving, until).await } else { String::new() };
    context.output.answer(&with(changed_document(&changed, is_settled, seconds), more), || {
        let mut text = first + &moves_text(&changed, "moved", None);
        if is_settled {
            let _ = writeln!(text, "configuration {num} is settled after {seconds:.1} s");
        }
        text + &parked
    });
    match settled {
        Some(Err(pending)) => {
            let message = format!("configuration {num} is not settled in time: {}", shown(&pending));
            let failure =
                Failure::not_settled(message).next("it continues: `clerk status` shows its progress");
            Err(failure.answered())
        }
        _ => Ok(()),
    }
}

/// What to know before the servers of groups that left are stopped.
async fn parked(reach: &Reach, left: &BTreeSet<GroupId>, until: clock::Instant) -> String {
    if left.is_empty() {
        return String::new();
    }
    let survey = survey(reach, until).await;
    let line = |group: &GroupId| match survey.parked(*group) {
        0 => format!("group {group} may be stopped\n"),
        count => format!("group {group} holds {count} shards for the next group to join: keep it running\n"),
    };
    left.iter().map(line).collect()
}

fn planned_text(plan: &Changed, forecast: &Forecast) -> String {
    let mut text = moves_text(plan, "would move", Some(forecast));
    if !plan.moves.is_empty() {
        let (mib, seconds) = (forecast.total() as f64 / MIB, forecast.seconds.ceil());
        let rate = forecast.rate / MIB;
        let _ = writeln!(text, "{mib:.1} MiB, about {seconds} s if a group sends and receives {rate} MiB/s");
    }
    if !forecast.unknown.is_empty() {
        let shards: Vec<ShardId> = forecast.unknown.iter().copied().collect();
        let _ = writeln!(text, "no group says what it has of: {}", ranges(&shards));
    }
    text
}

fn moves_text(changed: &Changed, verb: &str, forecast: Option<&Forecast>) -> String {
    let mut routes: BTreeMap<(u64, u64), Vec<ShardId>> = BTreeMap::new();
    for moved in &changed.moves {
        routes.entry((id(moved.from), id(moved.to))).or_default().push(moved.shard);
    }
    let mut text = format!("configuration {}: {} shards {verb}\n", changed.config, changed.moves.len());
    for ((from, to), shards) in routes {
        let name = |group: u64| if group == 0 { "nobody".to_owned() } else { format!("group {group}") };
        let bytes = |forecast: &Forecast| -> u64 {
            shards.iter().filter_map(|shard| forecast.bytes.get(shard)).sum()
        };
        let size = forecast.map(|it| format!(" ({:.1} MiB)", bytes(it) as f64 / MIB)).unwrap_or_default();
        let _ = writeln!(text, "  {} -> {}: {}{size}", name(from), name(to), ranges(&shards));
    }
    text
}

/// Shards as people write them: `0-3, 7`.
pub(crate) fn ranges(shards: &[ShardId]) -> String {
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for shard in shards {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == shard.0 => *last = shard.0,
            _ => parts.push((shard.0, shard.0)),
        }
    }
    let part = |(first, last): &(u32, u32)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    parts.iter().map(part).collect::<Vec<_>>().join(", ")
}

pub(crate) async fn query(context: &Context, query: &args::Query) -> Result<(), Failure> {
    let ctrl = context.reach().await?.ctrl(context.data_until());
    let (config, book) = ctrl.query(query.num).await?;
    context.output.answer(&config_document(&config, &book), || config_text(&config, &book));
    Ok(())
}

fn config_document(config: &Sealed, book: &AddressBook) -> Value {
    let shards: Vec<u64> = config.shards.iter().map(|assignment| id(assignment.owner)).collect();
    let groups: BTreeMap<String, &[Address]> =
        config.groups.keys().map(|group| (group.to_string(), book.addresses(*group))).collect();
    let (digest, key) = (config.digest().to_string(), Digest(config.key).to_string());
    json!({"num": config.num.0, "digest": digest, "key": key, "shards": shards, "groups": groups})
}

fn owned(config: &Config, owner: Option<GroupId>) -> Vec<ShardId> {
    config.assignments().filter(|(_, it)| it.owner == owner).map(|(shard, _)| shard).collect()
}

fn config_text(config: &Config, book: &AddressBook) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for group in config.groups.keys() {
        let shards = owned(config, Some(*group));
        let servers = book.addresses(*group).join(" ");
        rows.push(vec![group.to_string(), shards.len().to_string(), ranges(&shards), servers]);
    }
    let free = owned(config, None);
    if !free.is_empty() {
        rows.push(vec!["none".to_owned(), free.len().to_string(), ranges(&free), String::new()]);
    }
    format!("configuration {}\n{}", config.num, table(&["GROUP", ">COUNT", "SHARDS", "SERVERS"], rows))
}

pub(crate) async fn history(context: &Context) -> Result<(), Failure> {
    let reach = context.reach().await?;
    let mut configs: Vec<Sealed> = Vec::new();
    loop {
        let after: Option<ConfigNum> = configs.last().map(|config| config.num);
        let page = reach.ctrl(context.data_until()).history(after).await?;
        if page.is_empty() {
            break;
        }
        configs.extend(page);
    }
    context.output.answer(&json!({"configs": history_document(&configs)}), || history_text(&configs));
    Ok(())
}

fn history_text(configs: &[Sealed]) -> String {
    let rows: Vec<Vec<String>> = with_moved(configs)
        .map(|(config, moved)| {
            let groups: Vec<String> = config.groups.keys().map(GroupId::to_string).collect();
            let groups = if groups.is_empty() { "none".to_owned() } else { groups.join(" ") };
            let lost: Vec<ShardId> = config.lost.iter().copied().collect();
            vec![config.num.to_string(), moved.to_string(), groups, ranges(&lost)]
        })
        .collect();
    table(&[">NUM", ">MOVED", "GROUPS", "LOST"], rows)
}

#[cfg(test)]
mod tests {
    use clerk::api::config::{AddressBook, Assignment, Config, Move, Params, Registered, Sealed};
    use clerk::api::{ConfigNum, GroupId, Incarnation, ShardId};
    use clerk::ctrl::Changed;
    use serde_json::json;

    use super::{config_document, moves_text, ranges};
    use clerk_survey::changes::changed_document;

    #[test]
    fn shards_are_written_as_ranges() {
        let shards = |numbers: &[u32]| ranges(&numbers.iter().copied().map(ShardId).collect::<Vec<_>>());
        assert_eq!(shards(&[0, 1, 2, 3, 7, 9, 10]), "0-3, 7, 9-10");
        assert_eq!(shards(&[]), "");
    }

    #[test]
    fn a_change_has_the_shape_of_the_contract() {
        let moved = Move { shard: ShardId(7), from: None, to: Some(GroupId(101)) };
        let changed = Changed { config: ConfigNum(3), moves: vec![moved] };
        let expected = json!({
            "config": 3, "moves": [{"shard": 7, "from": 0, "to": 101}], "settled": true, "seconds": 0.5,
        });
        assert_eq!(changed_document(&changed, true, 0.5), expected);
        let text = moves_text(&changed, "moved", None);
        assert_eq!(text, "configuration 3: 1 shards moved\n  nobody -> group 101: 7\n");
    }

    #[test]
    fn a_configuration_has_the_shape_of_the_contract() {
        let mut config = Config::zero(0xabc, Params { shard_count: 2, ..Params::default() });
        config.num = ConfigNum(4);
        config.shards[1] = Assignment { owner: Some(GroupId(101)), last_owner: None };
        config.groups.insert(GroupId(101), Incarnation(1));
        let mut book = AddressBook::default();
        for (group, address) in [(101, "a:1"), (102, "b:1")] {
            let registered = Registered::new(Incarnation(group), vec![address.into()]);
            book.groups.insert(GroupId(group), registered);
        }
        let config = Sealed::new(config);
        let expected = json!({
            "num": 4, "digest": config.digest().to_string(), "key": "0000000000000abc", "shards": [0, 101],
            "groups": {"101": ["a:1"]},
        });
        assert_eq!(config_document(&config, &book), expected);
    }
}
