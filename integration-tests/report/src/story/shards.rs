//! Which group serves each shard, and when none or two do.
//!
//! A group's servers apply the same transitions one after another, so the group's state is that of
//! its *furthest* server; the others only follow. Of two states the further one has the higher
//! configuration, and within a configuration the one that the protocol reaches later. A server that
//! goes back within one life is believed too: the protocol never does that, so people need to see
//! it.
//!
//! Left out on purpose: whether the group has a leader at the time; its servers' lanes show that.

use std::collections::BTreeMap;

use serde::Serialize;

use super::group_of;
use crate::words::{list, micros};
use sim::record::{Event, What};

/// One row.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Row {
    pub(crate) shard: u32,
    pub(crate) parts: Vec<Part>,
}

/// A time in which nothing changes.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Part {
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// The groups that serve it.
    pub(crate) owners: Vec<String>,
    /// What all groups report of it.
    pub(crate) text: String,
}

/// How far a state is: the configuration, and how late the state comes in it.
type Rank = (u64, u8);

#[derive(Default)]
struct Group {
    rank: Rank,
    state: String,
}

/// The rows of all shards that some group ever had.
pub(super) fn of(events: &[Event], end: u64) -> Vec<Row> {
    let mut rows: BTreeMap<u32, Vec<Part>> = BTreeMap::new();
    let mut groups: BTreeMap<(u32, &str), Group> = BTreeMap::new();
    let mut servers: BTreeMap<(&str, u32), Rank> = BTreeMap::new();
    for event in events {
        let Some(at) = event.at.as_deref() else { continue };
        match &event.what {
            What::Start { .. } => servers.retain(|(name, _), _| *name != at),
            What::Shard { shard, state, config } => {
                let rank = rank(*config, state);
                let before = servers.insert((at, *shard), rank);
                let group = groups.entry((*shard, group_of(at))).or_default();
                let is_news = rank >= group.rank || before.is_some_and(|before| rank < before);
                if is_news && *state != group.state {
                    *group = Group { rank, state: state.clone() };
                    let part = part(*shard, &groups, micros(event.at_ns), end);
                    push(rows.entry(*shard).or_default(), part);
                }
            }
            _ => {}
        }
    }
    rows.into_iter()
        .map(|(shard, mut parts)| {
            parts.retain(|part| part.from < part.to);
            Row { shard, parts }
        })
        .filter(|row| row.parts.iter().any(|part| !part.owners.is_empty()))
        .collect()
}

fn rank(config: u64, state: &str) -> Rank {
    (config, u8::from(matches!(state, "serving" | "absent")))
}

fn part(shard: u32, groups: &BTreeMap<(u32, &str), Group>, from: u64, to: u64) -> Part {
    let of_it = groups.range((shard, "")..).take_while(|((other, _), _)| *other == shard);
    let mut owners = Vec::new();
    let mut said = Vec::new();
    for ((_, name), group) in of_it {
        if group.state == "serving" {
            owners.push((*name).to_owned());
        } else if group.state != "absent" {
            said.push(format!("group {name}: {}", group.state));
        }
    }
    let serving = match &owners[..] {
        [] => "nobody serves it".to_owned(),
        [one] => format!("group {one} serves it"),
        several => format!("groups {} serve it at the same time", list(several)),
    };
    said.insert(0, serving);
    Part { from, to, owners, text: said.join("; ") }
}

fn push(parts: &mut Vec<Part>, part: Part) {
    if let Some(last) = parts.last_mut() {
        last.to = part.from;
    } else if part.owners.is_empty() {
        return;
    }
    parts.push(part);
}

#[cfg(test)]
mod tests {
    use super::of;
    use sim::record::{Event, What};

    fn shard(at_us: u64, at: &str, state: &str, config: u64) -> Event {
        let what = What::Shard { shard: 3, state: state.to_owned(), config };
        Event { at_ns: at_us * 1000, at: Some(at.to_owned()), term: None, what }
    }

    fn owners(events: &[Event]) -> Vec<(u64, u64, Vec<String>)> {
        let rows = of(events, 1000);
        rows[0].parts.iter().map(|part| (part.from, part.to, part.owners.clone())).collect()
    }

    #[test]
    fn a_move_has_a_gap_and_followers_that_lag_are_not_believed() {
        let events = [
            shard(10, "101.1", "serving", 1),
            shard(15, "101.2", "serving", 1),
            shard(100, "101.1", "handing to 102", 2),
            shard(105, "102.1", "awaiting", 2),
            shard(200, "102.1", "serving", 2),
            // This server lags.
            shard(250, "101.2", "handing to 102", 2),
            shard(300, "101.1", "absent", 2),
        ];
        let (one, two) = (vec!["101".to_owned()], vec!["102".to_owned()]);
        let expected = [
            (10, 100, one),
            (100, 105, vec![]),
            (105, 200, vec![]),
            (200, 300, two.clone()),
            (300, 1000, two),
        ];
        assert_eq!(owners(&events), expected);
    }

    #[test]
    fn two_owners_at_a_time_are_seen() {
        let events = [
            shard(10, "101.1", "serving", 1),
            shard(100, "102.1", "serving", 2),
            shard(200, "101.1", "absent", 2),
        ];
        assert_eq!(owners(&events)[1], (100, 200, vec!["101".to_owned(), "102".to_owned()]));
        assert!(of(&events, 1000)[0].parts[1].text.contains("101 and 102 serve it at the same time"));
    }

    #[test]
    fn a_server_that_goes_back_in_one_life_is_believed_and_one_that_starts_again_is_not() {
        let mut events = vec![
            shard(10, "101.1", "serving", 1),
            shard(100, "101.1", "absent", 2),
            shard(200, "101.1", "serving", 1),
        ];
        assert_eq!(owners(&events).last().unwrap().2, ["101"]);
        let start =
            Event { at_ns: 150_000, at: Some("101.1".to_owned()), term: None, what: What::Start { life: 2 } };
        events.insert(2, start);
        assert!(owners(&events).last().unwrap().2.is_empty());
    }
}
