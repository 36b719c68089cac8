//! `declare-lost`: gives up what is left of shards whose rows nobody has any more.
//!
//! A group that is lost forever takes the rows of its shards along, and their new owners wait for
//! them in vain. This begins such shards anew, empty (correctness rule 143). It looks at every group
//! first and refuses while one of them still has the shard, or may have it.
//!
//! Left out on purpose: saving a part of the rows from a server that is left.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use clerk::api::config::Config;
use clerk::api::ctrl::Change;
use clerk::api::status::{KvStatus, Role, ShardPhase};
use clerk::api::{GroupId, ShardId};
use serde_json::json;

use crate::admin::{change_and_tell, ranges};
use crate::args;
use crate::context::Context;
use crate::failure::Failure;
use crate::survey::{Answers, Survey, speaker, survey};

pub(crate) async fn declare_lost(context: &Context, verb: &args::DeclareLost) -> Result<(), Failure> {
    if !verb.accept_data_loss && !verb.waiting.dry_run {
        let message = "this begins the shards anew, empty: whatever they had is given up forever";
        return Err(Failure::usage(message).next("add --accept-data-loss if you mean that, or --dry-run"));
    }
    let reach = context.reach().await?;
    let (config, _) = reach.ctrl(context.data_until()).query(None).await?;
    let survey = survey(&reach, context.data_until()).await;
    let shards: BTreeSet<ShardId> = verb.shards.iter().copied().collect();
    let silent = judge(&config, &survey, &shards)?;
    let named: Vec<ShardId> = shards.iter().copied().collect();
    let more = json!({
        "lost": named.iter().map(|shard| shard.0).collect::<Vec<_>>(),
        "silent": silent.iter().map(|group| group.0).collect::<Vec<_>>(),
    });
    let mut text = format!("shards {} begin anew, empty, at their owners\n", ranges(&named));
    for group in &silent {
        let _ = writeln!(text, "group {group} is given up: if it returns, it drops what it has of them");
    }
    let asked = Change::DeclareLost { shards, made_from: config.place() };
    change_and_tell(context, &reach, asked, BTreeSet::new(), verb.waiting, (more, text)).await
}

/// Whether nobody who answers has these shards, and their owners wait for them; returns the groups
/// that do not answer, or have lost their data.
fn judge(config: &Config, survey: &Survey, shards: &BTreeSet<ShardId>) -> Result<BTreeSet<GroupId>, Failure> {
    let mut silent = BTreeSet::new();
    for (group, answers) in &survey.groups {
        let Some(status) = alive(*group, answers)? else {
            silent.insert(*group);
            continue;
        };
        let has = |phase: ShardPhase| phase.serves() || phase == ShardPhase::Parked;
        let held = status.shards.iter().find(|it| shards.contains(&it.shard) && has(it.phase));
        if let Some(held) = held {
            let message = format!("group {group} has shard {}, nothing was changed", held.shard);
            return Err(Failure::new("not_lost", message).next("`clerk moves` shows what it waits for"));
        }
    }
    for shard in shards {
        let owner = config.owner(*shard).filter(|owner| silent.contains(owner));
        if let Some(owner) = owner {
            let message =
                format!("shard {shard} belongs to group {owner}, which does not serve, nothing was changed");
            return Err(Failure::new("unavailable", message).next(format!(
                "give it to another group first: clerk leave {owner}, or clerk move {shard} GROUP"
            )));
        }
    }
    if silent.is_empty() {
        return Err(Failure::new("not_lost", "every group answers, nothing was changed")
            .next("the shards are on their way: `clerk moves` shows them"));
    }
    Ok(silent)
}

/// The leader of a group; none if no server answers, or the data is lost.
///
/// # Errors
/// Servers that answer without a leader may have any shard.
fn alive(group: GroupId, answers: &Answers<KvStatus>) -> Result<Option<&KvStatus>, Failure> {
    match speaker(answers) {
        Some(status) if status.lost.is_some() => Ok(None),
        Some(status) if status.replica.role == Role::Leader => Ok(Some(status)),
        Some(_) => {
            let message = format!(
                "servers of group {group} run without a leader, and may have any shard, nothing was changed"
            );
            Err(Failure::new("unavailable", message)
                .next("start the others; or, if these are all that is left, stop them"))
        }
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clerk_survey::sample::{answers, config, survey};

    fn judged(
        owners: &[Option<u64>],
        groups: Vec<(u64, Answers<KvStatus>)>,
    ) -> Result<Vec<u64>, &'static str> {
        let config = config(2, owners);
        let survey = survey(config.clone(), groups);
        let silent = judge(&config, &survey, &[ShardId(0)].into()).map_err(|failure| failure.code);
        silent.map(|groups| groups.into_iter().map(|group| group.0).collect())
    }

    #[test]
    fn only_what_nobody_has_can_be_declared_lost() {
        use ShardPhase::{Awaiting, Handing, Leaving, Parked, Serving};
        let down = || (3, Vec::new());
        let one = |phase| vec![(1, answers(1, 2, &[(0, phase)])), (2, answers(2, 2, &[])), down()];
        for phase in [Serving, Leaving, Parked] {
            assert_eq!(judged(&[Some(2)], one(phase)), Err("not_lost"), "{phase:?}");
        }
        // Sealed for a group that is gone: those rows are given up, too.
        assert_eq!(judged(&[Some(1)], one(Handing)), Ok(vec![3]));
        assert_eq!(judged(&[Some(1)], one(Awaiting)), Ok(vec![3]));
        assert_eq!(judged(&[Some(3)], one(Awaiting)), Err("unavailable"), "its owner is down");
        let all_up = vec![(1, answers(1, 2, &[(0, Awaiting)])), (2, answers(2, 2, &[]))];
        assert_eq!(judged(&[Some(1)], all_up), Err("not_lost"));
        let mut leaderless = answers(2, 2, &[]);
        if let Some(Ok(status)) = leaderless.first_mut().map(|(_, status)| status.as_mut()) {
            status.replica.role = Role::Follower;
        }
        let groups = vec![(1, answers(1, 2, &[(0, Awaiting)])), (2, leaderless), down()];
        assert_eq!(judged(&[Some(1)], groups), Err("unavailable"));
    }
}
