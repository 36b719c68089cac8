//! What differs between two looks at a cluster.

use std::collections::BTreeMap;

use clerk::api::status::{ReplicaStatus, Role};
use clerk::api::{Address, GroupId};

use crate::context::Reach;
use crate::survey::Survey;
use clerk_bench::result::{ClusterFacts, Mark, MarkKind};

/// So many looks in a row without an answer: the server is down. One may be lost in a crowd.
const MISSES: u32 = 2;

/// A cluster at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// The newest leader known of each group (0: the controllers), with its term.
    pub(super) leaders: BTreeMap<u64, (u64, String)>,
    /// The newest configuration's number, and the owner of each shard.
    pub(super) config: u64,
    pub(super) owners: Vec<Option<GroupId>>,
    pub(super) settled: bool,
    /// Looks in a row without an answer, by server.
    pub(super) misses: BTreeMap<String, u32>,
    /// Servers that answered: where, and as which process.
    pub(super) processes: BTreeMap<String, (Address, u32)>,
}

impl Seen {
    pub(super) fn of(reach: &Reach, survey: &Survey, before: Option<&Self>) -> Self {
        let mut seen = Self {
            leaders: before.map(|before| before.leaders.clone()).unwrap_or_default(),
            ..Self::default()
        };
        if let Some(config) = &survey.config {
            seen.config = config.num.0;
            seen.owners = config.shards.iter().map(|assignment| assignment.owner).collect();
            seen.settled = survey.pending(config.num, &Default::default()).is_empty();
        } else if let Some(before) = before {
            (seen.config, seen.owners) = (before.config, before.owners.clone());
        }
        for (place, (address, status)) in survey.controllers.iter().enumerate() {
            let status = status.as_ref().ok().map(|status| &status.replica);
            seen.server(reach, (0, place, address), status, before);
        }
        for (group, answers) in &survey.groups {
            for (place, (address, status)) in answers.iter().enumerate() {
                let status = status.as_ref().ok().map(|status| &status.replica);
                seen.server(reach, (group.0, place, address), status, before);
            }
        }
        seen
    }

    fn server(
        &mut self,
        reach: &Reach,
        (group, place, address): (u64, usize, &Address),
        status: Option<&ReplicaStatus>,
        before: Option<&Self>,
    ) {
        let name = reach.name_of(group, address, status.map(|status| status.id), place);
        let Some(status) = status else {
            let misses = before.and_then(|before| before.misses.get(&name)).map_or(1, |misses| misses + 1);
            self.misses.insert(name, misses);
            return;
        };
        self.misses.insert(name.clone(), 0);
        if status.role == Role::Leader {
            let newer = self.leaders.get(&group).is_none_or(|(term, _)| *term < status.term);
            if newer {
                self.leaders.insert(group, (status.term, name.clone()));
            }
        }
        self.processes.insert(name, (address.clone(), status.pid));
    }
}

/// What happened between two looks.
pub(super) fn between(before: &Seen, after: &Seen, at_s: f64) -> Vec<Mark> {
    let mut marks = Vec::new();
    let mut mark = |kind, text| marks.push(Mark { at_s, kind, text });
    for (name, misses) in &after.misses {
        let missed = before.misses.get(name).copied().unwrap_or(0);
        if *misses == MISSES {
            mark(MarkKind::Down, format!("{name} does not answer"));
        } else if *misses == 0 && missed >= MISSES {
            mark(MarkKind::Up, format!("{name} answers again"));
        }
    }
    for (group, (term, leader)) in &after.leaders {
        let who = if *group == GroupId::CONTROLLERS.0 {
            "the controllers".to_owned()
        } else {
            format!("group {group}")
        };
        let known = before.leaders.get(group);
        if known.is_some_and(|(known, _)| known < term) {
            mark(MarkKind::Election, format!("{who}: {leader} leads, term {term}"));
        }
    }
    if after.config > before.config {
        let pairs = before.owners.iter().zip(&after.owners);
        let moves = pairs.filter(|(old, new)| old != new).count();
        let text = format!("configuration {}: {moves} shards change their group", after.config);
        mark(MarkKind::Configuration, text);
    }
    if after.settled && !before.settled {
        mark(MarkKind::Settled, format!("configuration {} is settled", after.config));
    }
    marks
}

/// The cluster's sizes.
pub(super) fn facts(reach: &Reach, survey: &Survey) -> ClusterFacts {
    let joined = survey.groups.iter().filter(|(group, _)| survey.is_joined(**group));
    let sizes: Vec<usize> = joined.map(|(_, answers)| answers.len()).collect();
    ClusterFacts {
        id: reach.cluster.clone(),
        shards: survey.config.as_ref().map_or(0, |config| u64::from(config.params.shard_count)),
        groups: sizes.len() as u64,
        servers: sizes.iter().sum::<usize>() as u64,
    }
}

#[cfg(test)]
mod tests {
    use clerk::api::GroupId;

    use super::{Seen, between};
    use clerk_bench::result::MarkKind;

    fn kinds(before: &Seen, after: &Seen) -> Vec<MarkKind> {
        between(before, after, 1.0).into_iter().map(|mark| mark.kind).collect()
    }

    fn seen() -> Seen {
        let mut seen =
            Seen { config: 3, owners: vec![Some(GroupId(101)); 4], settled: true, ..Seen::default() };
        seen.leaders.insert(101, (5, "101.1".to_owned()));
        seen.misses.insert("101.1".to_owned(), 0);
        seen
    }

    #[test]
    fn where_nothing_happened_there_is_no_mark() {
        assert_eq!(kinds(&seen(), &seen()), []);
    }

    #[test]
    fn a_newer_term_is_an_election() {
        let mut after = seen();
        after.leaders.insert(101, (6, "101.2".to_owned()));
        let marks = between(&seen(), &after, 1.5);
        assert_eq!((marks[0].kind, marks[0].at_s), (MarkKind::Election, 1.5));
        assert_eq!(marks[0].text, "group 101: 101.2 leads, term 6");
        // A group that is seen for the first time has elected nobody just now.
        after = seen();
        after.leaders.insert(102, (1, "102.1".to_owned()));
        assert_eq!(kinds(&seen(), &after), []);
    }

    #[test]
    fn a_newer_configuration_and_its_end_are_marked() {
        let mut moving = Seen { config: 4, settled: false, ..seen() };
        moving.owners[1] = Some(GroupId(102));
        let marks = between(&seen(), &moving, 1.0);
        assert_eq!(marks[0].text, "configuration 4: 1 shards change their group");
        let done = Seen { settled: true, ..moving.clone() };
        assert_eq!(kinds(&moving, &done), [MarkKind::Settled]);
    }

    #[test]
    fn a_server_is_down_when_it_is_silent_twice_and_up_again_at_its_first_word() {
        let silent = |misses: u32| {
            let mut silent = seen();
            silent.misses.insert("101.1".to_owned(), misses);
            silent
        };
        assert_eq!(kinds(&seen(), &silent(1)), []);
        assert_eq!(kinds(&silent(1), &silent(2)), [MarkKind::Down]);
        assert_eq!(kinds(&silent(2), &silent(3)), []);
        assert_eq!(kinds(&silent(3), &seen()), [MarkKind::Up]);
        assert_eq!(kinds(&silent(1), &seen()), []);
    }
}
