//! `recover-controllers`: new controllers replace those that all lost their data.
//!
//! The groups also hold the history of configurations: each keeps what it adopted, as its maker
//! wrote it. So every group is asked, and new controllers continue from the newest configuration
//! that a group holds, with the same cluster key and the same chain of digests. The groups follow
//! them as they followed the old ones.
//!
//! Nothing changes before everything that is needed is there. A configuration that only a silent
//! group knows could be lost, so each group that the newest configuration names has to answer,
//! unless `--without` gives it up. Groups that hold two histories are never reconciled by guessing.
//!
//! Left out on purpose: controllers of which a majority is lost and the rest still has its data.

mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base::clock::{self, Instant};
use clerk::api::kv::{KvReply, KvRequest};
use clerk::api::{Address, Digest, GroupId};
use clerk::group::{AskError, Attempts};
use futures::future::join_all;
use serde_json::json;

use self::plan::{Heard, Plan, plan};
use clerk_survey::join::Joining;

use crate::args;
use crate::cluster;
use crate::context::{Context, Reach};
use crate::failure::{Failure, on_interrupt};
use crate::local::{Cluster, Directory};

/// How long the controllers may take to say that they are well.
const LOOK: Duration = Duration::from_secs(2);
/// Between questions to a group that has no leader yet.
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) async fn recover_controllers(
    context: &Context,
    recover: &args::RecoverControllers,
) -> Result<(), Failure> {
    let reach = context.reach().await?;
    let without: BTreeSet<GroupId> = recover.without.iter().copied().collect();
    let until = context.data_until();
    let mut places: BTreeMap<GroupId, Vec<Address>> =
        reach.local.iter().flat_map(|cluster| cluster.groups()).collect();
    for Joining { group, addresses } in &recover.groups {
        places.extend(addresses.clone().map(|addresses| (*group, addresses)));
    }
    if places.is_empty() {
        return Err(Failure::usage("name a group that runs: its servers know where the others are")
            .next("clerk --controllers ... recover-controllers 101=HOST:PORT,..."));
    }
    context.output.note(format!("asking {} groups for their configurations", places.len()));
    let heard = hear_all(&reach, &mut places, &without, until).await;
    let plan = plan(&heard, &places, &without)?;
    if works(&reach, &plan).await {
        if reach.local.as_ref().is_some_and(|cluster| cluster.recovering) {
            cluster::recovered(context).await?;
        }
        context.output.answer(&json!({"config": plan.newest.num.0, "recovered": false}), || {
            "the controllers answer and hold the groups' history: there is nothing to recover\n".to_owned()
        });
        return Ok(());
    }
    if let Some(cluster) = &reach.local {
        refuse_if_they_only_sleep(context, &reach, cluster, &plan).await?;
    }
    let aside = match &reach.local {
        Some(_) => start_anew(context).await?,
        None => Vec::new(),
    };
    let ctrl = reach.ctrl(context.settle_until());
    let place = ctrl.recover(plan.recovery.clone()).await.map_err(|error| {
        let failure = Failure::from(error);
        if failure.next.is_empty() && reach.local.is_none() {
            failure.next("start every controller with an empty directory, --new and --recover; then again")
        } else {
            failure
        }
    })?;
    if reach.local.is_some() {
        cluster::recovered(context).await?;
    }
    answer(context, &plan, place.digest, &aside);
    Ok(())
}

fn answer(context: &Context, plan: &Plan, digest: Digest, aside: &[String]) {
    let (num, key) = (plan.newest.num, Digest(plan.newest.key).to_string());
    let groups: Vec<u64> = plan.newest.groups.keys().map(|group| group.0).collect();
    let document = json!({
        "config": num.0, "recovered": true, "digest": digest.to_string(), "key": key, "groups": groups,
        "oldest": plan.recovery.configs.first().map(|config| config.num.0), "set_aside": aside,
    });
    context.output.answer(&document, || {
        let mut text =
            format!("the controllers are recovered at configuration {num} ({digest}), cluster {key}\n");
        for path in aside {
            text += &format!("the remains of the old ones are in {path}\n");
        }
        text + "weights, pins and the limit of moves are forgotten: set them again\nmore: clerk status\n"
    });
}

/// Whether the controllers lead, with the groups' history.
async fn works(reach: &Reach, plan: &Plan) -> bool {
    let Ok((config, _)) = reach.ctrl(clock::now().after(LOOK)).query(None).await else { return false };
    let held = plan.recovery.configs.iter().find(|held| held.num == config.num);
    match held {
        Some(held) => held.place() == config.place() && config.num == plan.newest.num,
        // They made more than any group has adopted or heard of.
        None => config.num > plan.newest.num && config.key == plan.newest.key && descends(reach, plan).await,
    }
}

/// Controllers that are merely stopped have lost nothing: a majority that has its data has to be
/// started, not replaced. If they lead, and contradict the groups, they were set back or newly
/// made.
async fn refuse_if_they_only_sleep(
    context: &Context,
    reach: &Reach,
    cluster: &Cluster,
    plan: &Plan,
) -> Result<(), Failure> {
    let whole = cluster::controllers_with_data(context, plan.newest.key)?;
    let leads = reach.ctrl(clock::now().after(LOOK)).query(None).await.is_ok();
    if leads || whole.len() * 2 <= cluster.addresses(GroupId::CONTROLLERS.0).len() {
        return Ok(());
    }
    let message = format!("{} have their data, which is a majority: nothing was changed", whole.join(" "));
    Err(Failure::new("not_lost", message).next("clerk start ctrl"))
}

async fn descends(reach: &Reach, plan: &Plan) -> bool {
    let asked = reach.ctrl(clock::now().after(LOOK)).query(Some(plan.newest.num)).await;
    asked.is_ok_and(|(config, _)| config.place() == plan.newest.place())
}

/// Replaces the local controllers by new ones that wait; returns where the remains of the old ones
/// are now.
async fn start_anew(context: &Context) -> Result<Vec<String>, Failure> {
    on_interrupt(
        "interrupted: the controllers may be replaced already, and wait to be recovered",
        "run clerk recover-controllers again",
    );
    let directory = Directory::new(&context.directory);
    cluster::controllers_anew(context, &directory, context.settle_until()).await
}

/// Asks every group that is known and not given up, and those that they know.
async fn hear_all(
    reach: &Reach,
    places: &mut BTreeMap<GroupId, Vec<Address>>,
    without: &BTreeSet<GroupId>,
    until: Instant,
) -> BTreeMap<GroupId, Heard> {
    let mut heard: BTreeMap<GroupId, Heard> = BTreeMap::new();
    loop {
        let fresh: Vec<(GroupId, Vec<Address>)> = (places.iter())
            .filter(|(group, _)| !heard.contains_key(group) && !without.contains(group))
            .map(|(group, addresses)| (*group, addresses.clone()))
            .collect();
        if fresh.is_empty() {
            return heard;
        }
        let asked = fresh
            .into_iter()
            .map(|(group, addresses)| async move { (group, hear(reach, group, addresses, until).await) });
        heard.extend(join_all(asked).await);
        for book in heard.values().flat_map(|heard| &heard.books) {
            for (group, registered) in &book.groups {
                places.entry(*group).or_insert_with(|| registered.addresses.clone());
            }
        }
    }
}

/// What a group says: what it adopted from its leader, what is newer than that from any of its servers.
async fn hear(reach: &Reach, group: GroupId, addresses: Vec<Address>, until: Instant) -> Heard {
    let mut heard = Heard::default();
    let client = reach.group(group, addresses.clone());
    let mut attempts = Attempts::repeatable();
    let adopted = async {
        loop {
            match client.ask(&KvRequest::History, until, &mut attempts).await {
                // Servers that were just started elect a leader first.
                Err(AskError::NoLeader { .. }) if clock::now() < until => clock::sleep(PAUSE).await,
                answer => return answer,
            }
        }
    };
    let others = addresses.iter().map(|address| reach.connection.kv(address, group, KvRequest::Config, LOOK));
    let (adopted, others) = futures::join!(adopted, join_all(others));
    heard.adopted = match adopted {
        Ok(KvReply::Adopted(adopted)) => Ok(adopted.configs),
        Ok(_) => Err("it answered another question".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    for answer in others {
        if let Ok(Ok(KvReply::Config(config, book))) = answer {
            heard.known.push(config);
            heard.books.push(book);
        }
    }
    heard
}
