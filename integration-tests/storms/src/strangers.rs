//! Servers and clients in the wrong place: a server that lost its data, one that was made with
//! another list of members, a second process with a copy of a running server's disk, and a second
//! cluster of the same name whose clients and groups got the first one's addresses.
//!
//! [`play`]: controllers and three groups with clients, under crashes and bad weather. Again and
//! again a stranger takes a server's place, or runs beside it. Nobody may listen to it, and it may
//! learn nothing: its applied state stays what it began with. The history must be linearizable, and
//! after the last stranger every key readable (correctness rules 32, 50, 51, 53).
//!
//! Left out on purpose: a twin whose original is down. It is that server then. If both copies ran
//! one after the other, the group was set back, which nobody can notice.

use std::time::Duration;

use base::clock;
use base::socket::Reason;
use clerk::api::GroupId;
use clerk::api::ctrl::CtrlRequest;
use clerk::api::kv::KvRequest;
use clerk::connection::Connection;
use raft::types::NodeId;
use rand::RngExt;

use super::shard_moves::Stage;
use super::{Report, at_least};
use sim::cluster::{Cluster, Kind, Shape, group_of};
use sim::faults::{Fault, Nemesis, Plan};
use sim::network::Calls;
use sim::{Failure, Generator, Name, World, run};

const GROUPS: [&str; 4] = ["101", "102", "103", "ctrl"];
const ROUNDS: u64 = 12;
const ACKNOWLEDGED_MIN: u64 = 500;
/// No partitions: a twin whose original cannot be heard is that server.
const FAULTS: &[(Fault, u32)] = &[(Fault::Weather, 60), (Fault::SlowDisks, 40)];

/// The kind of a stranger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stranger {
    /// It lost its data and was started as new.
    Wiped,
    /// It was made with two members more.
    OtherMembers,
    /// It has a copy of a disk.
    Twin,
    /// Clients of another cluster of this name.
    OtherCluster,
}

impl Stranger {
    const ALL: [Self; 4] = [Self::Wiped, Self::OtherMembers, Self::Twin, Self::OtherCluster];

    /// The reason with which others refuse it.
    fn reason(self) -> Reason {
        match self {
            Self::Wiped => Reason::OtherIncarnation,
            Self::OtherMembers => Reason::OtherFounders,
            Self::Twin => Reason::Twin,
            Self::OtherCluster => Reason::OtherKey,
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
    let rival = Rival::set(&stage.cluster).await?;
    let clients = stage.clients(&stage.mix(Duration::from_millis(50)));
    let nemesis = Nemesis::new(&stage.cluster, Plan::of(FAULTS));
    let trouble = tokio::spawn(nemesis.clone().run());
    let mut random = stage.world.generator("strangers");
    let mut refused = 0;
    for round in 0..ROUNDS {
        let kind = Stranger::ALL[round as usize % Stranger::ALL.len()];
        let group = GROUPS[random.random_range(0..GROUPS.len())];
        refused += u64::from(match kind {
            Stranger::OtherCluster => rival.trespass(&stage.cluster, group).await? > 0,
            _ => visit(&stage.cluster, kind, group, &mut random).await? > 0,
        });
        clock::sleep(Duration::from_millis(random.random_range(200..800))).await;
    }
    nemesis.stop();
    let _ = trouble.await;
    nemesis.stop();
    clock::sleep(Duration::from_secs(1)).await;
    rival.is_as_before()?;
    let report = stage.finish(clients, Some(&nemesis)).await?;
    at_least("strangers that were refused by name", refused, ROUNDS)?;
    at_least("acknowledged operations", report.acknowledged, ACKNOWLEDGED_MIN)?;
    Ok(report)
}

/// A stranger comes, and goes; returns how often it was refused.
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
        Stranger::OtherCluster => return Ok(0),
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
        // A group of two would not survive this if the stranger counted.
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
        _ => cluster.unmask(&stranger),
    }
    Ok(refused.max(count()))
}

/// Another cluster of the same name on the same network, with a group of the same number.
struct Rival {
    cluster: Cluster,
    calls: Calls,
}

impl Rival {
    const CONTROLLERS: &str = "rival";
    const GROUP: &str = "rival101";

    async fn set(first: &Cluster) -> Result<Self, String> {
        let shape = Shape::drawn(&first.world);
        let raft = shape.raft.clone();
        let cluster = Cluster::on(&first.network, &first.world, shape);
        cluster.set_key(first.world.derive("key of the rival").max(1));
        cluster.add_named(Self::CONTROLLERS, Kind::Ctrl, 3, raft.clone());
        cluster.set_controllers(cluster.addresses(Self::CONTROLLERS));
        cluster.add_named(Self::GROUP, Kind::Kv(GroupId(101)), 3, raft);
        cluster.ready(Duration::from_secs(10)).await?;
        let rival = Self { calls: cluster.client("client of the rival"), cluster };
        let start = clock::now();
        while rival.key() == 0 || !rival.group_knows_its_cluster() {
            if start.elapsed() > Duration::from_secs(10) {
                return Err("the rival cluster does not come up".to_owned());
            }
            for address in rival.cluster.addresses(Self::CONTROLLERS) {
                let _ = rival.calls.ctrl(&address, CtrlRequest::Status, Duration::from_secs(1)).await;
            }
            clock::sleep(Duration::from_millis(50)).await;
        }
        // From now on its group asks the wrong controllers.
        rival.cluster.set_controllers(first.addresses("ctrl"));
        for name in rival.cluster.names().iter().filter(|name| group_of(name) == Self::GROUP.into()) {
            rival.cluster.crash(name);
            rival.cluster.start(name);
        }
        Ok(rival)
    }

    fn key(&self) -> u64 {
        self.calls.pass.as_ref().map_or(0, |pass| pass.key.on_wire())
    }

    fn group_knows_its_cluster(&self) -> bool {
        self.group().any(|key| key == self.key())
    }

    /// The keys that the servers of the group know.
    fn group(&self) -> impl Iterator<Item = u64> {
        let seen = self.cluster.seen().into_iter().filter(|seen| *seen.group == *Self::GROUP);
        seen.map(|seen| shardkv::cluster_key(&*seen.probe.table).unwrap_or(0))
    }

    /// Its clients ask the servers of a group of the first cluster; returns how often they were
    /// refused.
    async fn trespass(&self, first: &Cluster, group: &str) -> Result<u64, String> {
        let limit = Duration::from_secs(2);
        for address in first.addresses(group) {
            let answer = match group.parse() {
                Ok(id) => self.calls.kv(&address, GroupId(id), KvRequest::Config, limit).await.map(drop),
                Err(_) => self.calls.ctrl(&address, CtrlRequest::Query(None), limit).await.map(drop),
            };
            if answer.is_ok() {
                return Err(format!("{address} answers a client of another cluster"));
            }
        }
        let refusals =
            first.addresses(group).into_iter().filter_map(|name| first.refusals(&name.as_str().into()));
        Ok(refusals.map(|refusals| refusals.of(Reason::OtherKey)).sum())
    }

    fn is_as_before(&self) -> Result<(), String> {
        match self.group().find(|key| *key != self.key()) {
            None => Ok(()),
            Some(key) => Err(format!("a group of the cluster {:x} belongs to {key:x} now", self.key())),
        }
    }
}

fn leader_of(cluster: &Cluster, name: &Name) -> Option<NodeId> {
    let seen = cluster.seen().into_iter().find(|seen| seen.name == *name)?;
    seen.probe.status.borrow().leader
}

fn commit_of(cluster: &Cluster, name: &Name) -> Option<u64> {
    let seen = cluster.seen().into_iter().find(|seen| seen.name == *name)?;
    let commit = seen.probe.status.borrow().commit.0;
    Some(commit)
}
