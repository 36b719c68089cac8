//! A survey in a sentence: what is wrong, the worst first, or that nothing is.

use std::collections::BTreeMap;

use clerk::api::status::{CtrlStatus, ReplicaStatus, Role, Standing};
use serde_json::{Value, json};

use crate::document::{Server, controllers, newest, replicas};
use crate::moves::moving;
use crate::reach::Reach;
use crate::survey::{Survey, speaker, trouble};

/// A member that lacks more entries than this is told of.
const LACKS_MAX: u64 = 10_000;
/// Whether a server that does not answer did so before, and how many seconds ago.
pub type Ages = BTreeMap<String, Option<f64>>;

fn silent(server: &Server<'_>, ages: &Ages) -> String {
    match ages.get(&server.name).copied().flatten() {
        Some(age) => format!("{} has not answered for {age:.0} s.", server.name),
        None => format!("{} does not answer.", server.name),
    }
}

/// What is wrong with one server that answers.
fn of_server(name: &str, status: &ReplicaStatus) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(alarm) = &status.last_alarm {
        found.push(format!("{name} has an alarm: {alarm}."));
    }
    if status.table_bad {
        found.push(format!("{name} waits for another table: its own is wrong."));
    }
    if status.disk.low {
        found.push(format!("{name} has {} bytes free on its disk.", status.disk.free_bytes));
    }
    let group = name.split_once('.').map_or(name, |(group, _)| group);
    for (id, follower) in &status.followers {
        if follower.standing == Standing::GivenUp {
            found.push(format!("{group}.{id} cannot keep up with its leader."));
        } else if follower.lacks > LACKS_MAX {
            found.push(format!("{group}.{id} lacks {} entries.", follower.lacks));
        }
    }
    found
}

/// The silent ones first: that one of them lacks entries is then no news.
fn of_servers(servers: &[Server<'_>], ages: &Ages) -> Vec<String> {
    let mute = servers.iter().filter(|server| server.status.is_none()).map(|server| silent(server, ages));
    let heard = servers.iter().filter_map(|server| Some((&server.name, server.status?)));
    mute.chain(heard.flat_map(|(name, status)| of_server(name, status))).collect()
}

fn leads(servers: &[Server<'_>]) -> bool {
    servers.iter().any(|server| server.status.is_some_and(|status| status.role == Role::Leader))
}

/// What is wrong, in whole sentences.
pub fn problems(reach: &Reach, survey: &Survey, ages: &Ages) -> Vec<String> {
    let (mut worst, mut found) = (Vec::new(), Vec::new());
    let servers = controllers(reach, survey);
    let recovering = |(_, status): &(_, Result<CtrlStatus, _>)| status.as_ref().is_ok_and(|it| it.recovering);
    if survey.controllers.iter().any(recovering) {
        worst.push("The controllers wait for clerk recover-controllers.".to_owned());
    } else if !leads(&servers) {
        worst.push("The controllers have no leader: nothing can be changed.".to_owned());
    }
    found.extend(of_servers(&servers, ages));
    for (group, answers) in &survey.groups {
        let servers = replicas(reach, survey, *group);
        let joined = survey.is_joined(*group);
        let holds = speaker(answers).is_some_and(|status| !status.shards.is_empty());
        // A group that left may be stopped.
        if !joined && !holds {
            continue;
        }
        if speaker(answers).is_none() {
            worst.push(format!("Group {group}: no server answers."));
        } else if !leads(&servers) {
            worst.push(format!("Group {group} has no leader."));
        }
        worst.extend(trouble(*group, answers).map(|trouble| format!("{}.", capital(&trouble))));
        found.extend(of_servers(&servers, ages));
    }
    let waits = moving(survey).into_iter().filter_map(|it| Some((it.shard, it.waits_for?)));
    found.extend(waits.map(|(shard, why)| format!("Shard {shard} waits: {why}.")));
    worst.into_iter().chain(found).collect()
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// All of it as programs read it.
pub fn health(reach: &Reach, survey: &Survey, ages: &Ages, pending: usize) -> Value {
    let problems = problems(reach, survey, ages);
    let num = newest(survey);
    let (servers, groups) =
        (ages.len(), survey.groups.keys().filter(|group| survey.is_joined(**group)).count());
    let text = match (problems.first(), groups, pending) {
        (Some(first), _, _) => match problems.len() {
            1 => first.clone(),
            count => format!("{first} And {} more.", count - 1),
        },
        (None, 0, _) => format!("All {servers} servers answer, and no group has joined yet."),
        (None, _, 0) => {
            format!("All {servers} servers answer, every group has a leader, configuration {num} is settled.")
        }
        (None, _, _) => {
            format!(
                "All {servers} servers answer, every group has a leader, configuration {num} is on its way."
            )
        }
    };
    json!({"ok": problems.is_empty(), "text": text, "problems": problems})
}

#[cfg(test)]
mod tests {
    use clerk::api::status::{Role, ShardPhase};
    use serde_json::json;

    use super::{Ages, health, problems};
    use crate::sample::{answers, config, reach, survey};

    #[test]
    fn what_is_wrong_is_told_and_the_worst_first() {
        let mut one = answers(1, 1, &[(0, ShardPhase::Serving)]);
        if let Some(Ok(status)) = one.first_mut().map(|(_, status)| status.as_mut()) {
            status.replica.role = Role::Follower;
            status.replica.disk.low = true;
        }
        let seen = survey(config(1, &[Some(1), Some(2)]), vec![(1, one), (2, Vec::new())]);
        let ages: Ages = [("1.2".to_owned(), Some(12.3))].into();
        let told = problems(&reach(), &seen, &ages);
        assert_eq!(
            told,
            [
                "The controllers have no leader: nothing can be changed.",
                "Group 1 has no leader.",
                "Group 2: no server answers.",
                "1.2 has not answered for 12 s.",
                "1.1 has 0 bytes free on its disk.",
            ]
        );
        let health = health(&reach(), &seen, &ages, 0);
        assert_eq!(
            (&health["ok"], &health["text"]),
            (&json!(false), &json!("The controllers have no leader: nothing can be changed. And 4 more."))
        );
    }
}
