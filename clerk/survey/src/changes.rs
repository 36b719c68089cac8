//! Changes of the configuration, made or planned, and the history of them, as programs read them.

use clerk::api::GroupId;
use clerk::api::config::{Move, Sealed};
use clerk::ctrl::Changed;
use serde_json::{Value, json};

use crate::forecast::Forecast;

/// A group in JSON: its id, or 0 for none.
pub fn id(group: Option<GroupId>) -> u64 {
    group.map_or(0, |group| group.0)
}

/// A change that was made.
pub fn changed_document(changed: &Changed, settled: bool, seconds: f64) -> Value {
    let one = |moved: &Move| json!({"shard": moved.shard.0, "from": id(moved.from), "to": id(moved.to)});
    let moves: Vec<Value> = changed.moves.iter().map(one).collect();
    json!({"config": changed.config.0, "moves": moves, "settled": settled, "seconds": seconds})
}

/// A document with the fields of another one.
pub fn with(mut document: Value, more: Value) -> Value {
    if let (Some(fields), Value::Object(more)) = (document.as_object_mut(), more) {
        fields.extend(more);
    }
    document
}

/// A change that was only planned.
pub fn planned_document(plan: &Changed, forecast: &Forecast) -> Value {
    let shards: Vec<u32> = forecast.unknown.iter().map(|shard| shard.0).collect();
    let more = json!({
        "dry_run": true, "bytes": forecast.total(), "estimated_seconds": forecast.seconds, "unknown": shards,
    });
    with(changed_document(plan, false, 0.0), more)
}

/// Configurations in their order, each with what it changed.
pub fn history_document(configs: &[Sealed]) -> Vec<Value> {
    with_moved(configs)
        .map(|(config, moved)| {
            let shards: Vec<u64> = config.shards.iter().map(|assignment| id(assignment.owner)).collect();
            let groups: Vec<u64> = config.groups.keys().map(|group| group.0).collect();
            let digest = config.digest().to_string();
            let lost: Vec<u32> = config.lost.iter().map(|shard| shard.0).collect();
            json!({"num": config.num.0, "digest": digest, "shards": shards, "groups": groups, "moved": moved,
                   "lost": lost})
        })
        .collect()
}

/// Each configuration with the number of shards that changed hands in it.
pub fn with_moved(configs: &[Sealed]) -> impl Iterator<Item = (&Sealed, usize)> {
    let before = std::iter::once(None).chain(configs.iter().map(Some));
    configs.iter().zip(before).map(|(config, before)| {
        let moved = before.map_or(0, |before| {
            let pairs = before.shards.iter().zip(&config.shards);
            pairs.filter(|(old, new)| old.owner != new.owner).count()
        });
        (config, moved)
    })
}
