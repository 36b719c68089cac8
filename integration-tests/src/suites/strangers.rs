//! Servers that do not belong where they are: one that lost its data, one that was made with another list of
//! members, a second process with a copy of a running server's disk.
//!
//! [`play`]: controllers and two groups with clients, under crashes and bad weather. Again and again a stranger
//! takes a server's place, or stands beside it. Nobody may listen to it, and it may hear nothing: what it has applied
//! stays what it began with. The history must be linearizable, and after the last stranger went every key
//! readable (correctness rules 32, 50, 53).
//!
//! Left out on purpose: a twin whose original is down. It is that server then, and where both copies went on one
//! after the other the group was set back, which nobody can tell.

use std::time::Duration;

use base::clock;
use base::socket::Reason;
use clerk::api::GroupId;
use raft::types::NodeId;
use rand::RngExt;

use super::shard_moves::Stage;
use super::{Report, at_least};
use crate::sim::cluster::Cluster;
use crate::sim::faults::{Fault, Nemesis, Plan};
use crate::sim::{Failure, Generator, Name, World, run};

const GROUPS: [&str; 4] = ["101", "102", "103", "ctrl"];
const ROUNDS: u64 = 12;
const ACKNOWLEDGED_MIN: u64 = 500;
/// No partitions: a twin whose original cannot be heard is that server.
const FAULTS: &[(Fault, u32)] = &[(Fault::Weather, 60), (Fault::SlowDisks, 40)];

/// What a stranger is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stranger {
    /// It lost its data and was started as new.
    Wiped,
    /// It was made with two members more.
    OtherMembers,
    /// It has a copy of a disk.
    Twin,
}

impl Stranger {
    const ALL: [Self; 3] = [Self::Wiped, Self::OtherMembers, Self::Twin];

    /// What the others say of it.
    fn reason(self) -> Reason {
        match self {
            Self::Wiped => Reason::OtherIncarnation,
            Self::OtherMembers => Reason::OtherFounders,
            Self::Twin => Reason::Twin,
        }
    }
}

/// One run of `seed`.
///
/// # Errors
/// What it violated.
pub fn play(seed: u64) -> Result<Report, Failure> {
    let done = run(seed, |world| async move { main(world).await })?;
    Ok(Report { trace: done.trace, events: done.events, ..done.output })
}

async fn main(world: World) -> Result<Report, String> {
    let stage = Stage::set(world).await?;
    stage.admin.change(stage.join(&[GroupId(101), GroupId(102), GroupId(103)])).await;
    let clients = stage.clients(&stage.mix(Duration::from_millis(50)));
    let nemesis = Nemesis::new(&stage.cluster, Plan::of(FAULTS));
    let trouble = tokio::spawn(nemesis.clone().run());
    let mut random = stage.world.generator("strangers");
    let mut refused = 0;
    for round in 0..ROUNDS {
        let kind = Stranger::ALL[round as usize % Stranger::ALL.len()];
        let group = GROUPS[random.random_range(0..GROUPS.len())];
        refused += u64::from(visit(&stage.cluster, kind, group, &mut random).await? > 0);
        clock::sleep(Duration::from_millis(random.random_range(200..800))).await;
    }
    nemesis.stop();
    let _ = trouble.await;
    nemesis.stop();
    clock::sleep(Duration::from_secs(1)).await;
    let report = stage.finish(clients, Some(&nemesis)).await?;
    at_least("strangers that were refused by name", refused, ROUNDS)?;
    at_least("acknowledged operations", report.acknowledged, ACKNOWLEDGED_MIN)?;
    Ok(report)
}

/// A stranger comes, and goes; how often it was refused.
async fn visit(
    cluster: &Cluster,
    kind: Stranger,
    group: &str,
    random: &mut Generator,
) -> Result<u64, String> {
    let member = |id: u64| -> Name { format!("{group}.{id}").into() };
    let id = random.random_range(1..=3);
    let original = member(id);
    let stranger = match kind {
        Stranger::Wiped => cluster.impersonate(&original, 0),
        Stranger::OtherMembers => cluster.impersonate(&original, 2),
        Stranger::Twin => cluster.add_twin(&original).ok_or("there is nobody to copy")?,
    };
    clock::sleep(Duration::from_millis(random.random_range(5..400))).await;
    let began = commit_of(cluster, &stranger);
    clock::sleep(Duration::from_millis(random.random_range(500..1500))).await;
    let others: Vec<Name> = (1..=3).filter(|other| *other != id).map(member).collect();
    let count = || -> u64 {
        let refusals = others.iter().filter_map(|name| cluster.refusals(name));
        refusals.map(|refusals| refusals.of(kind.reason())).sum()
    };
    let refused = count();
    if random.random_bool(0.6) {
        // What a group of two would not survive if the stranger counted.
        let victim = &others[random.random_range(0..others.len())];
        cluster.crash(victim);
        clock::sleep(Duration::from_millis(random.random_range(100..1500))).await;
        cluster.start(victim);
        clock::sleep(Duration::from_millis(random.random_range(100..1500))).await;
    }
    let (ended, leader) = (commit_of(cluster, &stranger), leader_of(cluster, &stranger));
    if leader.is_some() {
        return Err(format!("{stranger}, {kind:?}, has a leader: {leader:?}"));
    }
    if began.is_some() && ended > began {
        return Err(format!(
            "{stranger}, {kind:?}, was told what {group} has committed: {began:?}, then {ended:?}"
        ));
    }
    match kind {
        Stranger::Twin => cluster.remove_node(&stranger),
        Stranger::Wiped | Stranger::OtherMembers => cluster.unmask(&stranger),
    }
    Ok(refused.max(count()))
}

fn leader_of(cluster: &Cluster, name: &Name) -> Option<NodeId> {
    let seen = cluster.seen().into_iter().find(|seen| seen.name == *name)?;
    let leader = seen.probe.status.borrow().leader;
    leader
}

fn commit_of(cluster: &Cluster, name: &Name) -> Option<u64> {
    let seen = cluster.seen().into_iter().find(|seen| seen.name == *name)?;
    let commit = seen.probe.status.borrow().commit.0;
    Some(commit)
}
