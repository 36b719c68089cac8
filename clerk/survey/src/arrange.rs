//! A balance: the moves that bring each group near its share, and why.

use std::collections::BTreeMap;
use std::str::FromStr;

use base::clock::Instant;
use clerk::api::config::Sealed;
use clerk::api::ctrl::Change;
use clerk::api::placement::Placement;
use clerk::api::{GroupId, ShardId};
use serde_json::{Value, json};

use crate::balance::{Item, Scales, Step, Sum, plan};
use crate::forecast::holders;
use crate::reach::Reach;
use crate::refused::Refused;
use crate::survey::{Survey, speaker, survey};

/// What is shared out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// The number of shards.
    #[default]
    Count,
    /// The bytes of their keys and values.
    Bytes,
    /// The reads and writes a second.
    Load,
}

impl By {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Bytes => "bytes",
            Self::Load => "load",
        }
    }
}

impl FromStr for By {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Count, Self::Bytes, Self::Load];
        let found = all.into_iter().find(|by| by.name() == text);
        found.ok_or_else(|| format!("`{text}`: what is shared out is count, bytes or load"))
    }
}

/// A plan.
pub struct Arranged {
    /// Makes it.
    pub change: Change,
    /// Explains it.
    pub told: Told,
}

/// Plans from what the controllers and the groups say now.
///
/// # Errors
/// A group that does not answer, controllers that do not, no group at all.
pub async fn arrange(reach: &Reach, by: By, until: Instant) -> Result<Arranged, Refused> {
    let ctrl = reach.ctrl(until);
    // The placement after the configuration: if one changes in between, the controllers refuse the plan.
    let (config, _) = ctrl.query(None).await?;
    let placement = ctrl.placement().await?;
    let survey = survey(reach, until).await;
    let items = items(&config, &placement, &survey, by)?;
    let weights = config.groups.keys().map(|group| (*group, placement.weight(*group))).collect();
    let mut scales = Scales::new(&items, &weights);
    let before = scales.sums().clone();
    let steps = plan(&mut scales);
    let told = Told { by, weights, steps, before, after: scales.sums().clone() };
    let moves = told.steps.iter().map(|step| (step.shard, step.to)).collect();
    let (made_from, placement) = (config.place(), placement.version);
    Ok(Arranged { change: Change::Arrange { made_from, placement, moves }, told })
}

/// What is shared out, and where it is.
fn items(config: &Sealed, placement: &Placement, survey: &Survey, by: By) -> Result<Vec<Item>, Refused> {
    if config.groups.is_empty() {
        return Err(Refused::new("no_groups", "no group has joined: there is nothing to balance")
            .next("clerk join GROUP"));
    }
    let silent = |group: &&GroupId| survey.groups.get(group).and_then(speaker).is_none();
    if let Some(group) = config.groups.keys().find(silent) {
        let message =
            format!("group {group} does not answer: what it has is not known, and nothing was moved");
        return Err(Refused::new("unavailable", message)
            .next("start its servers; or, if it is lost, let it leave: clerk leave"));
    }
    let holders = holders(survey);
    let size = |shard: ShardId| match (by, holders.get(&shard)) {
        (By::Count, _) => 1,
        (By::Bytes, Some((_, status))) => status.bytes,
        (By::Load, Some((_, status))) => status.load.reads + status.load.writes,
        (_, None) => 0,
    };
    let item = |(shard, assignment): (ShardId, clerk::api::config::Assignment)| {
        let is_pinned = placement.pin(shard).is_some();
        Some(Item { shard, owner: assignment.owner?, size: size(shard), is_pinned })
    };
    Ok(config.assignments().filter_map(item).collect())
}

/// A plan, as it is told.
pub struct Told {
    /// What was shared out.
    pub by: By,
    /// The weight of each group.
    pub weights: BTreeMap<GroupId, u32>,
    /// The moves.
    pub steps: Vec<Step>,
    /// What each group had.
    pub before: BTreeMap<GroupId, Sum>,
    /// What each group has after them.
    pub after: BTreeMap<GroupId, Sum>,
}

impl Told {
    /// What is counted.
    pub fn unit(&self) -> &'static str {
        match self.by {
            By::Count => "shards",
            By::Bytes => "bytes",
            By::Load => "operations a second",
        }
    }

    /// Why a shard moves.
    pub fn why(&self, step: &Step) -> String {
        let part = |group: GroupId, part: f64| match self.weights.get(&group) {
            Some(0) => format!("group {group} has weight 0"),
            _ => format!("group {group} has {:.0} % of its share", part * 100.0),
        };
        format!(
            "{}, {} {:.0} %; the shard has {} {}",
            part(step.from, step.before.0),
            format_args!("group {}", step.to),
            step.before.1 * 100.0,
            step.size,
            self.unit()
        )
    }

    /// What a group has before the plan, and after it.
    pub fn sums(&self, group: GroupId) -> (Sum, Sum) {
        let sum = |sums: &BTreeMap<GroupId, Sum>| sums.get(&group).copied().unwrap_or_default();
        (sum(&self.before), sum(&self.after))
    }

    fn is_balanced(&self) -> bool {
        self.after.values().all(|sum| sum.is_near())
    }

    /// As programs read it.
    pub fn document(&self) -> Value {
        let step = |step: &Step| {
            json!({"shard": step.shard.0, "from": step.from.0, "to": step.to.0, "size": step.size,
                   "why": self.why(step)})
        };
        let group = |(group, weight): (&GroupId, &u32)| {
            let (before, after) = self.sums(*group);
            json!({"gid": group.0, "weight": weight, "share": before.share, "before": before.has,
                   "after": after.has})
        };
        let by = self.by.name();
        json!({
            "by": by,
            "balanced": self.is_balanced(),
            "plan": self.steps.iter().map(step).collect::<Vec<_>>(),
            "groups": self.weights.iter().map(group).collect::<Vec<_>>(),
        })
    }
}
