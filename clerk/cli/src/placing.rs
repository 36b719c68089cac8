//! The verbs about weights, pins, and plans of many moves.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use clap::ValueEnum;
use clerk::api::config::Sealed;
use clerk::api::ctrl::Change;
use clerk::api::placement::Placement;
use clerk::api::{GroupId, ShardId};
use serde_json::{Value, json};

use crate::admin::{change, change_and_tell};
use crate::args::{self, By, Waiting};
use crate::balance::{Item, Scales, Step, Sum, plan};
use crate::context::Context;
use crate::failure::Failure;
use crate::forecast::holders;
use crate::output::table;
use crate::survey::{Survey, speaker, survey};

pub(crate) async fn weight(context: &Context, weight: &args::Weight) -> Result<(), Failure> {
    let reach = context.reach().await?;
    let asked = Change::Weigh { group: weight.group, weight: weight.weight };
    change(context, &reach, asked, BTreeSet::new(), weight.waiting).await
}

pub(crate) async fn pin(context: &Context, pin: &args::Pin) -> Result<(), Failure> {
    let reach = context.reach().await?;
    let asked = Change::Pin { shard: pin.shard, group: pin.group };
    change(context, &reach, asked, BTreeSet::new(), pin.waiting).await
}

pub(crate) async fn unpin(context: &Context, unpin: &args::Unpin) -> Result<(), Failure> {
    let reach = context.reach().await?;
    let waiting = Waiting { dry_run: false, no_wait: true };
    change(context, &reach, Change::Unpin { shard: unpin.shard }, BTreeSet::new(), waiting).await
}

pub(crate) async fn move_rate(context: &Context, verb: &args::MoveRate) -> Result<(), Failure> {
    let ctrl = context.reach().await?.ctrl(context.data_until());
    let mib = verb.rate.0;
    let changed = ctrl.change(Change::MoveRate { mib }).await?;
    context.output.answer(&json!({"config": changed.config.0, "move_rate": mib}), || match mib {
        Some(mib) => format!("each group sends at most {mib} MiB a second of shards that move\n"),
        None => "moves are not limited\n".to_owned(),
    });
    Ok(())
}

pub(crate) async fn balance(context: &Context, balance: &args::Balance) -> Result<(), Failure> {
    let reach = context.reach().await?;
    let ctrl = reach.ctrl(context.data_until());
    // The placement after the configuration: if one changes in between, the controllers refuse the plan.
    let (config, _) = ctrl.query(None).await?;
    let placement = ctrl.placement().await?;
    let survey = survey(&reach, context.data_until()).await;
    let items = items(&config, &placement, &survey, balance.by)?;
    let weights = config.groups.keys().map(|group| (*group, placement.weight(*group))).collect();
    let mut scales = Scales::new(&items, &weights);
    let before = scales.sums().clone();
    let steps = plan(&mut scales);
    let told = Told { by: balance.by, weights, steps, before, after: scales.sums().clone() };
    let moves = told.steps.iter().map(|step| (step.shard, step.to)).collect();
    let (made_from, placement) = (config.place(), placement.version);
    let asked = Change::Arrange { made_from, placement, moves };
    let (document, text) = (told.document(), told.text());
    change_and_tell(context, &reach, asked, BTreeSet::new(), balance.waiting, (document, text)).await
}

/// What is shared out, and where it is.
fn items(config: &Sealed, placement: &Placement, survey: &Survey, by: By) -> Result<Vec<Item>, Failure> {
    if config.groups.is_empty() {
        return Err(Failure::new("no_groups", "no group has joined: there is nothing to balance")
            .next("clerk join GROUP"));
    }
    let silent = |group: &&GroupId| survey.groups.get(group).and_then(speaker).is_none();
    if let Some(group) = config.groups.keys().find(silent) {
        let message =
            format!("group {group} does not answer: what it has is not known, and nothing was moved");
        return Err(Failure::new("unavailable", message)
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
struct Told {
    by: By,
    weights: BTreeMap<GroupId, u32>,
    steps: Vec<Step>,
    before: BTreeMap<GroupId, Sum>,
    after: BTreeMap<GroupId, Sum>,
}

impl Told {
    fn unit(&self) -> &'static str {
        match self.by {
            By::Count => "shards",
            By::Bytes => "bytes",
            By::Load => "operations a second",
        }
    }

    fn why(&self, step: &Step) -> String {
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
    fn sums(&self, group: GroupId) -> (Sum, Sum) {
        let sum = |sums: &BTreeMap<GroupId, Sum>| sums.get(&group).copied().unwrap_or_default();
        (sum(&self.before), sum(&self.after))
    }

    fn is_balanced(&self) -> bool {
        self.after.values().all(|sum| sum.is_near())
    }

    fn document(&self) -> Value {
        let step = |step: &Step| {
            json!({"shard": step.shard.0, "from": step.from.0, "to": step.to.0, "size": step.size,
                   "why": self.why(step)})
        };
        let group = |(group, weight): (&GroupId, &u32)| {
            let (before, after) = self.sums(*group);
            json!({"gid": group.0, "weight": weight, "share": before.share, "before": before.has,
                   "after": after.has})
        };
        let by = self.by.to_possible_value().map(|value| value.get_name().to_owned());
        json!({
            "by": by,
            "balanced": self.is_balanced(),
            "plan": self.steps.iter().map(step).collect::<Vec<_>>(),
            "groups": self.weights.iter().map(group).collect::<Vec<_>>(),
        })
    }

    fn text(&self) -> String {
        let row = |(group, weight): (&GroupId, &u32)| {
            let (before, after) = self.sums(*group);
            vec![
                group.to_string(),
                weight.to_string(),
                format!("{:.0}", before.share),
                format!("{:.0}", before.has),
                format!("{:.0}", after.has),
            ]
        };
        let head = ["GROUP", ">WEIGHT", ">SHARE", ">BEFORE", ">AFTER"];
        let mut text = format!("by {}\n{}", self.unit(), table(&head, self.weights.iter().map(row)));
        for step in &self.steps {
            let Step { shard, from, to, .. } = step;
            let _ = writeln!(text, "shard {shard}: group {from} -> group {to}, because {}", self.why(step));
        }
        for (group, sum) in self.after.iter().filter(|(_, sum)| !sum.is_near()) {
            let part = sum.part() * 100.0;
            let _ =
                writeln!(text, "group {group} stays at {part:.0} % of its share: no move brings it nearer");
        }
        text
    }
}
