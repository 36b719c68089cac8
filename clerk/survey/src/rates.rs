//! What happened in a second: the difference of two surveys.
//!
//! Everything that servers count, they count from their start. A server that was restarted in between
//! has no rates, and so has one that is missing in one of the two.

use std::collections::BTreeMap;

use base::times::BOUNDS_MICROS;
use clerk::api::GroupId;
use clerk::api::status::{ReplicaStatus, Requests};
use serde_json::{Map, Value, json};

use crate::document::{controllers, replicas};
use crate::reach::Reach;
use crate::survey::{Survey, speaker};

/// Verbs by which servers look after themselves and each other: they are no work that clients ask for.
const OWN_VERBS: [&str; 6] = ["status", "config", "history", "watch", "push", "server"];

/// What was counted between two surveys.
#[derive(Clone, Debug, Default, PartialEq)]
struct Counted {
    ended: BTreeMap<String, u64>,
    count: u64,
    at_most: Vec<u64>,
}

impl Counted {
    fn add(&mut self, before: Option<&Requests>, after: &Requests) {
        let none = Requests::default();
        let before = before.unwrap_or(&none);
        let count = |requests: &Requests, name: &str| requests.ended.get(name).copied().unwrap_or(0);
        for name in after.ended.keys() {
            let more = count(after, name).saturating_sub(count(before, name));
            if more > 0 {
                *self.ended.entry(name.clone()).or_default() += more;
            }
        }
        self.count += after.count.saturating_sub(before.count);
        self.at_most.resize(self.at_most.len().max(after.at_most.len()), 0);
        for (bucket, (sum, now)) in self.at_most.iter_mut().zip(&after.at_most).enumerate() {
            *sum += now.saturating_sub(before.at_most.get(bucket).copied().unwrap_or(0));
        }
    }

    fn merge(&mut self, other: &Self) {
        for (name, count) in &other.ended {
            *self.ended.entry(name.clone()).or_default() += count;
        }
        self.count += other.count;
        self.at_most.resize(self.at_most.len().max(other.at_most.len()), 0);
        for (sum, count) in self.at_most.iter_mut().zip(&other.at_most) {
            *sum += count;
        }
    }

    /// The time, in seconds, that this part of them took at most: between the bounds of its bucket, in
    /// proportion. None: there are none, or it lies beyond the last bound.
    fn quantile(&self, part: f64) -> Option<f64> {
        let rank = self.count as f64 * part;
        let bucket = self.at_most.iter().position(|count| self.count > 0 && *count as f64 >= rank)?;
        let lower = |values: &[u64]| bucket.checked_sub(1).map_or(0, |before| values[before]) as f64;
        let (from, to) = (lower(&BOUNDS_MICROS), *BOUNDS_MICROS.get(bucket)? as f64);
        let (below, within) = (lower(&self.at_most), self.at_most[bucket] as f64);
        let place = if within > below { (rank - below) / (within - below) } else { 1.0 };
        Some((from + (to - from) * place) / 1e6)
    }

    fn document(&self, seconds: f64) -> Map<String, Value> {
        let outcomes = self.ended.iter().map(|(name, count)| (name.clone(), json!(*count as f64 / seconds)));
        let mut document = Map::new();
        document.insert("requests".to_owned(), json!(self.count as f64 / seconds));
        document.insert("outcomes".to_owned(), Value::Object(outcomes.collect()));
        for (name, part) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)] {
            document.insert(name.to_owned(), json!(self.quantile(part)));
        }
        document
    }
}

/// The requests of clients that ended at a server between two of its reports, by verb.
fn counted(before: &ReplicaStatus, after: &ReplicaStatus) -> BTreeMap<String, Counted> {
    let mut found: BTreeMap<String, Counted> = BTreeMap::new();
    for (verb, requests) in after.requests.iter().filter(|(verb, _)| !OWN_VERBS.contains(&verb.as_str())) {
        let mut counted = Counted::default();
        counted.add(before.requests.get(verb), requests);
        if counted.count > 0 {
            found.insert(verb.clone(), counted);
        }
    }
    found
}

fn all(verbs: &BTreeMap<String, Counted>) -> Counted {
    let mut sum = Counted::default();
    verbs.values().for_each(|counted| sum.merge(counted));
    sum
}

/// A server's name with what it says.
fn reports<'a>(reach: &Reach, survey: &'a Survey) -> BTreeMap<String, (u64, &'a ReplicaStatus)> {
    let groups = survey.groups.keys().map(|group| (group.0, replicas(reach, survey, *group)));
    let servers = std::iter::once((0, controllers(reach, survey))).chain(groups);
    let named = servers.flat_map(|(group, servers)| {
        servers.into_iter().filter_map(move |server| Some((server.name, (group, server.status?))))
    });
    named.collect()
}

fn server(before: &ReplicaStatus, after: &ReplicaStatus, requests: &Counted, seconds: f64) -> Value {
    let rate = |value: fn(&ReplicaStatus) -> u64| value(after).saturating_sub(value(before)) as f64 / seconds;
    let mut document = requests.document(seconds);
    document.insert("commits".to_owned(), json!(rate(|it| it.commit)));
    document.insert("applied".to_owned(), json!(rate(|it| it.applied)));
    document.insert("syncs".to_owned(), json!(rate(|it| it.wal_syncs)));
    Value::Object(document)
}

/// The rates between two surveys that are so far apart.
pub fn rates(reach: &Reach, before: &Survey, after: &Survey, seconds: f64) -> Value {
    let seconds = seconds.max(1e-3);
    let (old, new) = (reports(reach, before), reports(reach, after));
    let mut servers = Map::new();
    let mut of_groups: BTreeMap<u64, BTreeMap<String, Counted>> = BTreeMap::new();
    for (name, (group, now)) in new {
        let Some((_, then)) = old.get(&name).filter(|(_, then)| then.pid == now.pid) else { continue };
        let verbs = counted(then, now);
        servers.insert(name, server(then, now, &all(&verbs), seconds));
        let sums = of_groups.entry(group).or_default();
        for (verb, counted) in verbs {
            sums.entry(verb).or_default().merge(&counted);
        }
    }
    let (mut groups, mut shards) = (Map::new(), Map::new());
    for (group, answers) in &after.groups {
        let verbs = of_groups.remove(&group.0).unwrap_or_default();
        let mut document = all(&verbs).document(seconds);
        let verbs = verbs.into_iter().map(|(verb, counted)| (verb, Value::Object(counted.document(seconds))));
        document.insert("verbs".to_owned(), Value::Object(verbs.collect()));
        let held = speaker(answers).map_or(&[][..], |status| &status.shards);
        let sum = |value: fn(&clerk::api::status::ShardLoad) -> u64| -> u64 {
            held.iter().map(|shard| value(&shard.load)).sum()
        };
        document.insert("reads".to_owned(), json!(sum(|load| load.reads)));
        document.insert("writes".to_owned(), json!(sum(|load| load.writes)));
        document.insert("bytes".to_owned(), json!(sum(|load| load.bytes)));
        groups.insert(group.to_string(), Value::Object(document));
        let busy = held.iter().filter(|it| it.load.reads + it.load.writes > 0);
        shards.extend(busy.map(|it| (it.shard.to_string(), shard(*group, it.load))));
    }
    json!({"seconds": seconds, "servers": servers, "groups": groups, "shards": shards})
}

fn shard(group: GroupId, load: clerk::api::status::ShardLoad) -> Value {
    json!({"group": group.0, "reads": load.reads, "writes": load.writes, "bytes": load.bytes})
}

#[cfg(test)]
mod tests {
    use clerk::api::status::{KvStatus, Requests, ShardPhase};
    use serde_json::json;

    use super::rates;
    use crate::sample::{answers, config, reach, survey};
    use crate::survey::Survey;

    fn requests(count: u64, at_most: &[u64]) -> Requests {
        let mut all = at_most.to_vec();
        all.resize(base::times::BOUNDS_MICROS.len(), count);
        Requests { ended: [("ok".to_owned(), count)].into(), count, micros: 0, at_most: all }
    }

    fn seen(change: impl Fn(&mut KvStatus)) -> Survey {
        let mut one = answers(1, 1, &[(0, ShardPhase::Serving)]);
        if let Some(Ok(status)) = one.first_mut().map(|(_, status)| status.as_mut()) {
            status.replica.pid = 7;
            change(status);
        }
        survey(config(1, &[Some(1)]), vec![(1, one)])
    }

    #[test]
    fn what_was_counted_between_two_surveys_is_told_a_second() {
        let before = seen(|it| _ = it.replica.requests.insert("get".to_owned(), requests(10, &[0, 10])));
        let after = seen(|it| {
            it.replica.commit = 40;
            it.replica.requests.insert("get".to_owned(), requests(30, &[10, 30]));
            it.replica.requests.insert("status".to_owned(), requests(500, &[500]));
            it.shards[0].load.reads = 5;
        });
        let told = rates(&reach(), &before, &after, 2.0);
        assert_eq!(told["servers"]["1.1"]["commits"], json!(20.0));
        let group = &told["groups"]["1"];
        assert_eq!(group["requests"], json!(10.0), "what servers ask each other is no work of clients");
        assert_eq!(group["outcomes"], json!({"ok": 10.0}));
        // Half of the twenty took up to 0.1 ms, the others up to 0.2 ms.
        assert_eq!((&group["p50"], &group["verbs"]["get"]["p99"]), (&json!(0.0001), &json!(0.000_198)));
        assert_eq!(told["shards"]["0"], json!({"group": 1, "reads": 5, "writes": 0, "bytes": 0}));
    }

    #[test]
    fn a_restarted_server_and_one_that_is_missing_have_no_rates() {
        let before = seen(|it| it.replica.commit = 100);
        let restarted = seen(|it| it.replica.pid = 8);
        assert_eq!(rates(&reach(), &before, &restarted, 1.0)["servers"], json!({}));
        let gone = survey(config(1, &[Some(1)]), vec![(1, Vec::new())]);
        let told = rates(&reach(), &before, &gone, 1.0);
        assert_eq!((&told["servers"], &told["groups"]["1"]["p50"]), (&json!({}), &json!(null)));
    }
}
