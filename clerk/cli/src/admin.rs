//! The verbs about configurations.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Instant;

use base::clock;
use clerk::api::config::{AddressBook, Config, Move, NewGroup, Sealed};
use clerk::api::ctrl::Change;
use clerk::api::status::KvStatus;
use clerk::api::{Address, ConfigNum, Digest, GroupId, Incarnation, ShardId};
use clerk::ctrl::{Changed, CtrlClerk};
use serde_json::{Value, json};

use crate::args::{self, Joining, Waiting};
use crate::context::{Context, Reach};
use crate::failure::{Failure, on_interrupt};
use crate::forecast::{Forecast, MIB, forecast};
use crate::output::table;
use crate::settle::{settle, shown};
use crate::survey::{Answers, speaker, survey};

pub(crate) async fn join(context: &Context, join: &args::Join) -> Result<(), Failure> {
    let reach = context.reach().await?;
    let groups = newcomers(context, &reach, &join.groups, join.partial).await?;
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

/// The addresses of the joining groups, and their data.
pub(crate) async fn newcomers(
    context: &Context,
    reach: &Reach,
    joining: &[Joining],
    partial: bool,
) -> Result<BTreeMap<GroupId, NewGroup>, Failure> {
    let until = context.data_until();
    let mut groups = BTreeMap::new();
    for Joining { group, addresses } in joining {
        let is_named = addresses.is_some();
        let local = reach.local.as_ref().map(|cluster| cluster.addresses(group.0)).unwrap_or_default();
        let addresses = match addresses {
            Some(addresses) => addresses.clone(),
            None if !local.is_empty() => local,
            None => known_addresses(&reach.ctrl(until), *group).await?,
        };
        let client = reach.group(*group, addresses.clone());
        let (incarnation, key) = client.data(until).await.map_err(|why| {
            Failure::new("unavailable", format!("group {group} does not answer: {why}"))
                .next("a group joins when its servers run and know its cluster: check them, and their --controllers")
        })?;
        if is_named && !partial {
            let answers = client.statuses().await;
            check_servers(*group, incarnation, &answers).map_err(|why| {
                Failure::new("wrong_servers", format!("the list does not name exactly the servers of group {group}: {why}"))
                    .next("name every server of the group, all of them running; or add --partial to use the list anyway")
            })?;
        }
        groups.insert(*group, NewGroup { key, incarnation, addresses });
    }
    Ok(groups)
}

/// Checks that a list names all servers of the group and no others, as far as they report. An
/// incomplete list would work until the servers in it are down.
fn check_servers(
    group: GroupId,
    incarnation: Incarnation,
    answers: &Answers<KvStatus>,
) -> Result<(), String> {
    let mut missing: BTreeMap<u64, &Address> = BTreeMap::new();
    let mut seen: BTreeMap<u64, &Address> = BTreeMap::new();
    for (address, answer) in answers {
        let status =
            answer.as_ref().map_err(|why| format!("no server of group {group} answers there: {why}"))?;
        if status.incarnation != Some(incarnation) {
            return Err(format!("{address} has the data of another group {group}"));
        }
        if let Some(other) = seen.insert(status.replica.id, address) {
            return Err(format!("{other} and {address} are one server"));
        }
        missing.extend(status.members.iter().map(|(id, address)| (*id, address)));
    }
    missing.retain(|id, _| !seen.contains_key(id));
    let shown: Vec<String> =
        missing.iter().map(|(id, address)| format!("{group}.{id} at {address}")).collect();
    if shown.is_empty() { Ok(()) } else { Err(format!("missing: {}", shown.join(", "))) }
}

/// The address book knows every group that ever joined.
async fn known_addresses(ctrl: &CtrlClerk, group: GroupId) -> Result<Vec<Address>, Failure> {
    let (_, mut book) = ctrl.query(None).await?;
    book.groups.remove(&group).map(|group| group.addresses).ok_or_else(|| {
        Failure::new("unknown_group", format!("the servers of group {group} are not known")).next(format!(
            "name its servers: clerk join {group}=HOST:PORT,...  (or start it: clerk add-group)"
        ))
    })
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
    context.output.answer(&with(document(&changed, is_settled, seconds), more), || {
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

/// A group in JSON: its id, or 0 for none.
fn id(group: Option<GroupId>) -> u64 {
    group.map_or(0, |group| group.0)
}

fn document(changed: &Changed, settled: bool, seconds: f64) -> Value {
    let one = |moved: &Move| json!({"shard": moved.shard.0, "from": id(moved.from), "to": id(moved.to)});
    let moves: Vec<Value> = changed.moves.iter().map(one).collect();
    json!({"config": changed.config.0, "moves": moves, "settled": settled, "seconds": seconds})
}

/// A document with the fields of another one.
fn with(mut document: Value, more: Value) -> Value {
    if let (Some(fields), Value::Object(more)) = (document.as_object_mut(), more) {
        fields.extend(more);
    }
    document
}

fn planned_document(plan: &Changed, forecast: &Forecast) -> Value {
    let shards: Vec<u32> = forecast.unknown.iter().map(|shard| shard.0).collect();
    let more = json!({
        "dry_run": true, "bytes": forecast.total(), "estimated_seconds": forecast.seconds, "unknown": shards,
    });
    with(document(plan, false, 0.0), more)
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
    let documents: Vec<Value> = with_moved(&configs)
        .map(|(config, moved)| {
            let shards: Vec<u64> = config.shards.iter().map(|assignment| id(assignment.owner)).collect();
            let groups: Vec<u64> = config.groups.keys().map(|group| group.0).collect();
            let digest = config.digest().to_string();
            let lost: Vec<u32> = config.lost.iter().map(|shard| shard.0).collect();
            json!({"num": config.num.0, "digest": digest, "shards": shards, "groups": groups, "moved": moved,
                   "lost": lost})
        })
        .collect();
    context.output.answer(&json!({"configs": documents}), || history_text(&configs));
    Ok(())
}

/// Each configuration with the number of shards that changed hands in it.
fn with_moved(configs: &[Sealed]) -> impl Iterator<Item = (&Sealed, usize)> {
    let before = std::iter::once(None).chain(configs.iter().map(Some));
    configs.iter().zip(before).map(|(config, before)| {
        let moved = before.map_or(0, |before| {
            let pairs = before.shards.iter().zip(&config.shards);
            pairs.filter(|(old, new)| old.owner != new.owner).count()
        });
        (config, moved)
    })
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
    use clerk::api::{Address, ConfigNum, GroupId, Incarnation, ShardId};
    use clerk::ctrl::Changed;
    use serde_json::json;

    use super::{check_servers, config_document, document, moves_text, ranges};
    use crate::survey::tests::answers;

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
        assert_eq!(document(&changed, true, 0.5), expected);
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

    #[test]
    fn a_list_of_servers_has_to_name_each_member_once_and_nobody_else() {
        let members = [(1, "a:1"), (2, "b:1"), (3, "c:1")].map(|(id, at)| (id, at.to_owned()));
        let answer = |address: &str, id: u64, data: u64| {
            let mut status = answers(103, 1, &[]).remove(0).1.unwrap();
            status.replica.id = id;
            status.incarnation = Some(Incarnation(data));
            status.members = members.clone().into();
            (address.to_owned(), Ok(status))
        };
        let check = |answers: Vec<(Address, _)>| check_servers(GroupId(103), Incarnation(7), &answers);
        let all = || vec![answer("a:1", 1, 7), answer("b:1", 2, 7), answer("c:1", 3, 7)];
        assert_eq!(check(all()), Ok(()));
        assert!(check(all()[1..].to_vec()).unwrap_err().contains("missing: 103.1 at a:1"));
        let with = |other| [all(), vec![other]].concat();
        assert!(check(with(answer("d:1", 3, 8))).unwrap_err().contains("d:1 has the data of another group"));
        assert!(check(with(answer("d:1", 3, 7))).unwrap_err().contains("c:1 and d:1 are one server"));
        assert!(
            check(with(("d:1".to_owned(), Err("d:1: gone".to_owned())))).unwrap_err().contains("d:1: gone")
        );
    }
}
