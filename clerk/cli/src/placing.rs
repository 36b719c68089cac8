//! The verbs about weights, pins, and plans of many moves.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use clerk::api::GroupId;
use clerk::api::ctrl::Change;
use clerk_survey::arrange::{Told, arrange};
use clerk_survey::balance::Step;
use serde_json::json;

use crate::admin::{change, change_and_tell};
use crate::args::{self, Waiting};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::table;

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
    let arranged = arrange(&reach.asked(), balance.by.into(), context.data_until()).await?;
    let (document, text) = (arranged.told.document(), text(&arranged.told));
    change_and_tell(context, &reach, arranged.change, BTreeSet::new(), balance.waiting, (document, text))
        .await
}

fn text(told: &Told) -> String {
    let row = |(group, weight): (&GroupId, &u32)| {
        let (before, after) = told.sums(*group);
        vec![
            group.to_string(),
            weight.to_string(),
            format!("{:.0}", before.share),
            format!("{:.0}", before.has),
            format!("{:.0}", after.has),
        ]
    };
    let head = ["GROUP", ">WEIGHT", ">SHARE", ">BEFORE", ">AFTER"];
    let mut text = format!("by {}\n{}", told.unit(), table(&head, told.weights.iter().map(row)));
    for step in &told.steps {
        let Step { shard, from, to, .. } = step;
        let _ = writeln!(text, "shard {shard}: group {from} -> group {to}, because {}", told.why(step));
    }
    for (group, sum) in told.after.iter().filter(|(_, sum)| !sum.is_near()) {
        let part = sum.part() * 100.0;
        let _ = writeln!(text, "group {group} stays at {part:.0} % of its share: no move brings it nearer");
    }
    text
}
