//! The moments that a person would report: steps of the test, crashes, new leaders, cuts, moves of
//! shards, and errors.
//!
//! Left out on purpose: most of the moments of a run that has thousands. The first and the last
//! stay.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{group_of, server_names, shards};
use crate::Verdict;
use crate::words::{clean, list, micros, seconds, shorten};
use judge::history::Operation;
use sim::record::{Event, Recording, What};

/// The first moments that are kept,
const FIRST_MAX: usize = 40;
/// and the last ones.
const LAST_MAX: usize = 360;
/// Longer values are cut to this length.
const VALUE_CHARS: usize = 40;

/// One moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Moment {
    pub(crate) at: u64,
    pub(crate) kind: Kind,
    pub(crate) text: String,
    /// The server, if the moment belongs to one.
    pub(crate) server: Option<String>,
    /// The operation, if the moment belongs to one.
    pub(crate) operation: Option<usize>,
}

/// How a moment is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// The test tells where it is.
    Step,
    /// The network changed for everybody.
    Weather,
    /// A server died.
    Crash,
    /// A server came back.
    Start,
    /// A server becomes leader, or stops being one.
    Leader,
    /// Links were cut.
    Cut,
    /// Links work again.
    Heal,
    /// A shard changed hands.
    Shard,
    /// Something that must never happen.
    Wrong,
    /// The test noticed the failure.
    Failed,
    /// Moments that were left out.
    Gap,
}

fn moment(at: u64, kind: Kind, text: String) -> Moment {
    Moment { at, kind, text, server: None, operation: None }
}

/// The moments of a run, in order.
pub(super) fn of(recording: &Recording, verdicts: &[Verdict], shards: &[shards::Row]) -> Vec<Moment> {
    let mut moments = of_test(&recording.events);
    moments.extend(of_servers(&recording.events));
    moments.extend(of_links(&recording.events));
    moments.extend(of_shards(shards, &steps(&recording.events)));
    moments.extend(of_verdicts(&recording.history, verdicts));
    if !moments.iter().any(|one| one.kind == Kind::Failed) {
        let at = micros(recording.header.failed_at_ns);
        moments.push(moment(at, Kind::Failed, first_line(&recording.header.failure)));
    }
    moments.sort_by_key(|one| one.at);
    thin(moments)
}

fn of_test(events: &[Event]) -> Vec<Moment> {
    let told = events.iter().filter_map(|event| {
        let (kind, text) = match &event.what {
            What::Step { text } => (Kind::Step, text.clone()),
            What::Weather { text } => (Kind::Weather, format!("The network is {text}")),
            What::Failed { text } => (Kind::Failed, first_line(text)),
            _ => return None,
        };
        Some(moment(micros(event.at_ns), kind, text))
    });
    told.collect()
}

/// The reason, shortened; the page has it in full elsewhere.
fn first_line(text: &str) -> String {
    shorten(text.lines().next().unwrap_or_default(), 240)
}

fn of_servers(events: &[Event]) -> Vec<Moment> {
    let mut moments = Vec::new();
    let mut leading: BTreeMap<&str, Option<u64>> = BTreeMap::new();
    let mut leaders: BTreeMap<(&str, u64), BTreeSet<&str>> = BTreeMap::new();
    for event in events {
        let Some(at) = event.at.as_deref() else { continue };
        let term = event.term.map(|term| format!(" of term {term}")).unwrap_or_default();
        let (kind, text) = match &event.what {
            What::Crash { .. } => {
                let led = if leading.remove(at).is_some() { ", the leader," } else { "" };
                (Kind::Crash, format!("Server {at}{led} crashes"))
            }
            What::Start { life } if *life > 1 => (Kind::Start, format!("Server {at} starts again")),
            What::Role { role, .. } if role == "leader" => {
                leading.insert(at, event.term);
                let known = leaders.entry((group_of(at), event.term.unwrap_or_default())).or_default();
                known.insert(at);
                match known.len() {
                    1 => (Kind::Leader, format!("Server {at} becomes leader{term}")),
                    _ => {
                        let known: Vec<&str> = known.iter().copied().collect();
                        (Kind::Wrong, format!("Two leaders{term}, which must never happen: {}", list(&known)))
                    }
                }
            }
            What::Role { .. } => match leading.remove(at) {
                Some(Some(term)) => (Kind::Leader, format!("Server {at} stops leading (term {term})")),
                Some(None) => (Kind::Leader, format!("Server {at} stops leading")),
                None => continue,
            },
            _ => continue,
        };
        moments.push(Moment { server: Some(at.to_owned()), ..moment(micros(event.at_ns), kind, text) });
    }
    moments
}

/// Who can talk to whom, group by group, at every change.
fn of_links(events: &[Event]) -> Vec<Moment> {
    let names = server_names(events);
    let mut disabled: BTreeSet<(&str, &str)> = BTreeSet::new();
    let mut touched: BTreeSet<&str> = BTreeSet::new();
    let mut moments = Vec::new();
    let mut links = events.iter().filter(|event| matches!(event.what, What::Link { .. })).peekable();
    let mut said: BTreeMap<&str, (Kind, String)> = BTreeMap::new();
    while let Some(event) = links.next() {
        let What::Link { from, to, up } = &event.what else { continue };
        if *up {
            disabled.remove(&(from.as_str(), to.as_str()));
        } else {
            disabled.insert((from, to));
        }
        if group_of(from) == group_of(to) {
            touched.insert(group_of(from));
        }
        if links.peek().is_some_and(|next| next.at_ns == event.at_ns) {
            continue;
        }
        for group in std::mem::take(&mut touched) {
            let members: Vec<&str> =
                names.iter().map(String::as_str).filter(|name| group_of(name) == group).collect();
            let (kind, text) = split(group, &members, &disabled);
            if said.insert(group, (kind, text.clone())).is_none_or(|before| before.1 != text) {
                moments.push(moment(micros(event.at_ns), kind, text));
            }
        }
    }
    moments
}

/// How the servers of a group are divided while these client ends are disabled.
pub(super) fn split(group: &str, members: &[&str], disabled: &BTreeSet<(&str, &str)>) -> (Kind, String) {
    let cut = |one: &str, other: &str| disabled.contains(&(one, other)) || disabled.contains(&(other, one));
    let mut parts: Vec<Vec<&str>> = Vec::new();
    for member in members {
        let joined = |part: &Vec<&str>| part.iter().any(|other| !cut(member, other));
        let (with, without): (Vec<_>, Vec<_>) = parts.into_iter().partition(joined);
        parts = without;
        parts.push(with.into_iter().flatten().chain([*member]).collect());
    }
    for part in &mut parts {
        part.sort_by_key(|name| members.iter().position(|member| member == name));
    }
    parts.sort_by_key(|part| members.iter().position(|member| part.first() == Some(member)));
    if parts.len() > 1 {
        let parts: Vec<String> = parts.iter().map(|part| part.join(" ")).collect();
        return (Kind::Cut, format!("The network splits group {group}: {}", parts.join(" | ")));
    }
    let within = |(from, to): &&(&str, &str)| members.contains(from) && members.contains(to);
    let pairs: Vec<String> =
        disabled.iter().filter(within).map(|(from, to)| format!("{from} to {to}")).collect();
    match pairs.len() {
        0 => (Kind::Heal, format!("All servers of group {group} can talk to each other again")),
        1..=4 => (Kind::Cut, format!("Links of group {group} are cut: {}", list(&pairs))),
        many => (Kind::Cut, format!("{many} links of group {group} are cut, yet nobody is cut off")),
    }
}

/// Changes of the same kind within this time are one moment.
const TOGETHER: u64 = 50_000;

/// The times at which the test went on to its next step.
fn steps(events: &[Event]) -> Vec<u64> {
    let steps = events.iter().filter(|event| matches!(event.what, What::Step { .. }));
    steps.map(|event| micros(event.at_ns)).collect()
}

/// Shards that move the same way within a short time are one moment, unless the test did something
/// in between.
fn of_shards(rows: &[shards::Row], steps: &[u64]) -> Vec<Moment> {
    let step = |at: u64| steps.partition_point(|step| *step <= at);
    let mut moments = Vec::new();
    let mut changes: Vec<(u64, Option<&str>, &str, u32)> = Vec::new();
    for row in rows {
        let mut owner: Option<&str> = None;
        for part in &row.parts {
            match &part.owners[..] {
                [] => {}
                [one] => {
                    if owner != Some(one) {
                        changes.push((part.from, owner, one, row.shard));
                    }
                    owner = Some(one);
                }
                several => {
                    let (shard, groups, time) = (row.shard, list(several), seconds(part.to - part.from));
                    let text =
                        format!("Shard {shard} is served by groups {groups} at the same time, for {time}");
                    moments.push(moment(part.from, Kind::Wrong, text));
                }
            }
        }
    }
    changes.sort_unstable();
    let mut together: Vec<(u64, Option<&str>, &str, Vec<u32>)> = Vec::new();
    for (at, before, now, shard) in changes {
        let same = |one: &&mut (u64, Option<&str>, &str, Vec<u32>)| {
            at - one.0 <= TOGETHER && step(one.0) == step(at) && (one.1, one.2) == (before, now)
        };
        match together.iter_mut().rev().take(8).find(same) {
            Some(one) => one.3.push(shard),
            None => together.push((at, before, now, vec![shard])),
        }
    }
    moments.extend(together.into_iter().map(|(at, before, now, shards)| {
        let (name, is) = if shards.len() == 1 { ("Shard", "is") } else { ("Shards", "are") };
        let shards = ranges(shards);
        let text = match before {
            None => format!("{name} {shards} {is} served by group {now}"),
            Some(before) => format!("{name} {shards} moved from group {before} to group {now}"),
        };
        moment(at, Kind::Shard, text)
    }));
    moments
}

/// "0 to 4, 7 and 9".
fn ranges(mut numbers: Vec<u32>) -> String {
    numbers.sort_unstable();
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some(last) if number == last.1 + 1 => last.1 = number,
            _ => ranges.push((number, number)),
        }
    }
    let text = |(from, to): (u32, u32)| match to - from {
        0 => vec![from.to_string()],
        1 => vec![from.to_string(), to.to_string()],
        _ => vec![format!("{from} to {to}")],
    };
    list(&ranges.into_iter().flat_map(text).collect::<Vec<_>>())
}

fn of_verdicts(history: &[Operation], verdicts: &[Verdict]) -> Vec<Moment> {
    let places = verdicts.iter().flat_map(|verdict| &verdict.unplaced).map(|one| one.operation);
    let told = places.filter_map(|place| {
        let operation = history.get(place)?;
        let at = micros(operation.return_ns.unwrap_or(operation.call_ns));
        let text = format!("{}; this answer fits nowhere in the order of operations", said(operation));
        Some(Moment { operation: Some(place), ..moment(at, Kind::Wrong, text) })
    });
    told.collect()
}

/// An operation and its reply as a sentence's beginning.
pub(super) fn said(operation: &Operation) -> String {
    use judge::history::Op;
    let shown = |text: &str| format!("\"{}\"", shorten(&clean(text), VALUE_CHARS));
    let value = operation.value.as_deref().map(shown).unwrap_or_default();
    let key = clean(&operation.key);
    let asked = match operation.op {
        Op::Get => format!("reads {key}"),
        Op::Put => format!("sets {key} to {value}"),
        Op::Append => format!("appends {value} to {key}"),
        Op::Delete => format!("deletes {key}"),
        Op::Cas => format!(
            "sets {key} to {value} if its version is {}",
            operation.expected_version.unwrap_or_default()
        ),
    };
    let got = match (operation.op, &operation.output) {
        (Op::Get, Some(output)) => format!(" and gets {}", shown(output)),
        (Op::Get, None) if operation.return_ns.is_some() => " and finds nothing".to_owned(),
        _ => String::new(),
    };
    let version = operation.version.map(|version| format!(", version {version}")).unwrap_or_default();
    format!("{} {asked}{got}{version}", clean(&operation.client.to_string()))
}

/// Keeps the first and the last moments, and every error.
fn thin(moments: Vec<Moment>) -> Vec<Moment> {
    let total = moments.len();
    if total <= FIRST_MAX + LAST_MAX {
        return moments;
    }
    let middle = FIRST_MAX..total - LAST_MAX;
    let (mut kept, mut left_out) = (Vec::new(), 0);
    for (place, one) in moments.into_iter().enumerate() {
        if middle.contains(&place) && (one.kind != Kind::Wrong || kept.len() > FIRST_MAX + LAST_MAX) {
            left_out += 1;
            continue;
        }
        if place == middle.end {
            kept.push(moment(one.at, Kind::Gap, format!("{left_out} moments are left out here")));
        }
        kept.push(one);
    }
    kept
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Kind, Moment, moment, ranges, split, thin};

    #[test]
    fn a_split_is_told_by_its_sides_and_single_links_by_their_ends() {
        let members = ["1.1", "1.2", "1.3"];
        let both = |one, other| [(one, other), (other, one)];
        let mut disabled: BTreeSet<_> = both("1.1", "1.2").into_iter().chain(both("1.1", "1.3")).collect();
        assert_eq!(split("1", &members, &disabled).1, "The network splits group 1: 1.1 | 1.2 1.3");
        disabled = both("1.1", "1.2").into_iter().collect();
        assert_eq!(split("1", &members, &disabled).1, "Links of group 1 are cut: 1.1 to 1.2 and 1.2 to 1.1");
        disabled.clear();
        assert_eq!(split("1", &members, &disabled).0, Kind::Heal);
    }

    #[test]
    fn numbers_that_follow_each_other_are_a_range() {
        assert_eq!(ranges(vec![3, 0, 1, 2, 9, 7, 6]), "0 to 3, 6, 7 and 9");
    }

    #[test]
    fn of_too_many_moments_the_ends_and_what_is_wrong_stay() {
        let mut moments: Vec<Moment> = (0..10_000).map(|at| moment(at, Kind::Crash, String::new())).collect();
        moments[5000].kind = Kind::Wrong;
        let kept = thin(moments);
        assert_eq!(kept.len(), 40 + 1 + 1 + 360);
        assert!(kept.iter().any(|one| one.kind == Kind::Wrong));
        assert_eq!(kept[41].text, "9599 moments are left out here");
    }
}
