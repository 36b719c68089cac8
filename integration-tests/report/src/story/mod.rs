//! The events of a recording, turned into the contents of a picture.
//!
//! [`servers`]: spans of roles and cuts, steps of progress. [`shards`]: who serves each shard.
//! [`clients`]: lanes of operations, and a point in time for each operation in the order found.
//! [`messages`]: both ends of each message together, and fewer of them. [`moments`]: what a person
//! would report of the run. [`focus`]: where to look first, and what happened there.
//!
//! Times are microseconds since the start of the run.
//!
//! Left out on purpose: what was written to disks; the log has it.

pub(super) mod clients;
pub(super) mod focus;
pub(super) mod messages;
pub(super) mod moments;
pub(super) mod servers;
pub(super) mod shards;

use std::collections::BTreeSet;

use serde::Serialize;

use super::Verdict;
use super::words::micros;
use sim::record::{Event, Recording, What};

/// Everything that the page draws, except messages.
#[derive(Debug, Serialize)]
pub(super) struct Story {
    /// The time of the first event: 0, except for histories of other clocks.
    pub(super) begin: u64,
    /// When the run was over.
    pub(super) end: u64,
    pub(super) servers: Vec<servers::Server>,
    pub(super) shards: Vec<shards::Row>,
    pub(super) weather: Vec<Stretch>,
    pub(super) steps: Vec<Stretch>,
    pub(super) moments: Vec<moments::Moment>,
    pub(super) focus: focus::Focus,
}

/// Something that lasts until the next of its kind.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Stretch {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) text: String,
}

impl Story {
    /// The story of `recording`.
    pub(super) fn of(recording: &Recording, verdicts: &[Verdict]) -> Self {
        let (begin, end) = ends(recording);
        let servers = servers::of(&recording.events, end);
        let shards = shards::of(&recording.events, end);
        let moments = moments::of(recording, verdicts, &shards);
        let weather = stretches(&recording.events, end, |what| match what {
            What::Weather { text } => Some(text),
            _ => None,
        });
        let steps = stretches(&recording.events, end, |what| match what {
            What::Step { text } => Some(text),
            _ => None,
        });
        let mut story =
            Self { begin, end, servers, shards, weather, steps, moments, focus: focus::Focus::default() };
        story.focus = focus::of(recording, verdicts, &story);
        story
    }
}

/// The time of the first event, and a little after the last.
fn ends(recording: &Recording) -> (u64, u64) {
    let events = recording.events.iter().map(|event| event.at_ns);
    let calls = recording.history.iter().map(|one| one.call_ns);
    let returns = recording.history.iter().map(|one| one.return_ns.unwrap_or(one.call_ns));
    let failed_at = recording.header.failed_at_ns;
    let first = micros(events.clone().chain(calls).min().unwrap_or_default());
    let last = micros(events.chain(returns).chain([failed_at]).max().unwrap_or_default());
    // The clock of a simulation starts with the run.
    let begin = if first > last / 2 { first } else { 0 };
    (begin, last + ((last - begin) / 100).max(1000))
}

fn stretches<'a>(
    events: &'a [Event],
    end: u64,
    text: impl Fn(&'a What) -> Option<&'a String>,
) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    for event in events {
        let Some(text) = text(&event.what) else { continue };
        let at = micros(event.at_ns);
        if let Some(last) = stretches.last_mut() {
            last.to = at;
        }
        stretches.push(Stretch { from: at, to: end, text: text.clone() });
    }
    stretches
}

/// The part of a server's name that it shares with its group; a name without one is a separate
/// group.
pub(super) fn group_of(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// Numbers as numbers, so that 10 comes after 9, and the controllers first.
fn natural(name: &str) -> (bool, Vec<(u64, &str)>) {
    let part = |part| (str::parse(part).unwrap_or(u64::MAX), part);
    (group_of(name) != "ctrl", name.split('.').map(part).collect())
}

/// Everyone who did what only servers do, group by group.
pub(super) fn server_names(events: &[Event]) -> Vec<String> {
    let is_servers = |what: &What| {
        use What::{Crash, Progress, Role, Saved, Shard, Start};
        matches!(
            what,
            Start { .. } | Crash { .. } | Role { .. } | Progress { .. } | Saved { .. } | Shard { .. }
        )
    };
    let names: BTreeSet<&str> = events
        .iter()
        .filter(|event| is_servers(&event.what))
        .filter_map(|event| event.at.as_deref())
        .collect();
    let mut names: Vec<String> = names.into_iter().map(str::to_owned).collect();
    names.sort_by(|one, other| natural(one).cmp(&natural(other)));
    names
}

#[cfg(test)]
mod tests {
    use super::natural;

    #[test]
    fn servers_stand_in_the_order_of_their_numbers() {
        let mut names = ["102.1", "101.10", "101.9", "ctrl.1", "raft.2"];
        names.sort_by(|one, other| natural(one).cmp(&natural(other)));
        assert_eq!(names, ["ctrl.1", "101.9", "101.10", "102.1", "raft.2"]);
    }
}
