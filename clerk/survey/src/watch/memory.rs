//! What is remembered of servers that are silent now, and of the last minutes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base::clock::{self, Instant};
use clerk::api::GroupId;
use serde_json::{Map, Value, json};

use crate::document::{
    controllers, group_document, hex, newest, placement_document, replicas, server_document,
};
use crate::health::Ages;
use crate::reach::Reach;
use crate::survey::{Survey, speaker};

/// Moments that are remembered: ten minutes, a moment a second.
const MOMENTS_MAX: usize = 600;
/// Figures of a group that are remembered.
const FIGURES: [&str; 4] = ["requests", "p50", "p99", "p999"];
/// Groups whose figures are remembered: of more, those with the smallest ids.
const GROUPS_MAX: usize = 32;

/// The figures of each group at a moment.
type Figures = BTreeMap<u64, [Option<f64>; FIGURES.len()]>;
/// An answer, and when it came.
type Heard = (Instant, Value);

#[derive(Default)]
pub(super) struct Memory {
    servers: BTreeMap<String, Heard>,
    groups: BTreeMap<GroupId, Heard>,
    config: Option<Heard>,
    moments: VecDeque<(u64, Figures)>,
}

/// Every server of a survey: its name, its group, and what it says.
fn servers(reach: &Reach, survey: &Survey) -> Vec<(String, Option<Value>)> {
    let groups = survey.groups.keys().map(|group| (group.0, replicas(reach, survey, *group)));
    let all = std::iter::once((0, controllers(reach, survey))).chain(groups);
    let one = |(group, servers): (u64, Vec<crate::document::Server<'_>>)| {
        let one = |server: &crate::document::Server<'_>| {
            (server.name.clone(), server.status.is_some().then(|| server_document(group, server)))
        };
        servers.iter().map(one).collect::<Vec<_>>()
    };
    all.flat_map(one).collect()
}

/// Seconds, to a tenth.
fn age(at: Instant) -> f64 {
    (at.elapsed().as_secs_f64() * 10.0).round() / 10.0
}

impl Memory {
    /// Remembers a survey, and forgets servers that are no longer part of the cluster.
    pub(super) fn note(&mut self, reach: &Reach, survey: &Survey, rates: Option<&Value>) {
        let now = clock::now();
        let servers = servers(reach, survey);
        let names: BTreeSet<&String> = servers.iter().map(|(name, _)| name).collect();
        self.servers.retain(|name, _| names.contains(name));
        for (name, document) in &servers {
            if let Some(document) = document {
                self.servers.insert(name.clone(), (now, document.clone()));
            }
        }
        self.groups.retain(|group, _| survey.groups.contains_key(group));
        for (group, answers) in &survey.groups {
            if speaker(answers).is_some() {
                self.groups.insert(*group, (now, group_document(reach, survey, *group)));
            }
        }
        if let (Some(placement), Some(config)) = (&survey.placement, &survey.config) {
            let document = json!({
                "config": newest(survey).0,
                "digest": config.digest().to_string(),
                "key": hex(config.key),
                "params": config.params,
                "placement": placement_document(placement),
            });
            self.config = Some((now, document));
        }
        let of_group = |group: &GroupId| {
            let figure = |name: &str| rates?.pointer(&format!("/groups/{group}/{name}"))?.as_f64();
            (group.0, FIGURES.map(figure))
        };
        let figures = survey.groups.keys().take(GROUPS_MAX).map(of_group).collect();
        self.moments.push_back((clock::unix_millis(), figures));
        if self.moments.len() > MOMENTS_MAX {
            self.moments.pop_front();
        }
    }

    /// How long ago each server answered: 0 if it does now, none if it never did.
    pub(super) fn ages(&self, reach: &Reach, survey: &Survey) -> Ages {
        let heard = |name: &String| self.servers.get(name).map(|(at, _)| age(*at));
        let one = |(name, document): (String, Option<Value>)| {
            let age = if document.is_some() { Some(0.0) } else { heard(&name) };
            (name, age)
        };
        servers(reach, survey).into_iter().map(one).collect()
    }

    /// What those said last that do not answer now.
    pub(super) fn last(&self, reach: &Reach, survey: &Survey) -> Value {
        let silent = servers(reach, survey).into_iter().filter(|(_, document)| document.is_none());
        let said = silent.filter_map(|(name, _)| Some((name.clone(), self.servers.get(&name)?.1.clone())));
        let servers: Map<String, Value> = said.collect();
        let silent = survey.groups.iter().filter(|(_, answers)| speaker(answers).is_none());
        let said = silent.filter_map(|(group, _)| {
            let (at, document) = self.groups.get(group)?;
            Some((group.to_string(), json!({"age": age(*at), "group": document})))
        });
        let groups: Map<String, Value> = said.collect();
        let config = self.config.as_ref().filter(|_| survey.placement.is_none());
        let config = config.map(|(at, document)| json!({"age": age(*at), "document": document}));
        json!({"servers": servers, "groups": groups, "config": config})
    }

    /// The figures of the last minutes.
    pub(super) fn past(&self) -> Value {
        let groups: BTreeSet<u64> =
            self.moments.iter().flat_map(|(_, groups)| groups.keys().copied()).collect();
        let column = |group: u64, figure: usize| -> Vec<Option<f64>> {
            self.moments.iter().map(|(_, groups)| groups.get(&group)?[figure]).collect()
        };
        let one = |group: &u64| {
            let columns = FIGURES.iter().enumerate();
            let columns = columns.map(|(place, name)| ((*name).to_owned(), json!(column(*group, place))));
            (group.to_string(), Value::Object(columns.collect()))
        };
        let at: Vec<u64> = self.moments.iter().map(|(at, _)| *at).collect();
        json!({"past": {"at": at, "groups": groups.iter().map(one).collect::<Map<_, _>>()}})
    }
}
