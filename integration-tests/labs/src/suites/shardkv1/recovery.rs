//! Labs 5B and 5C: changes that wait for groups that are down, controllers that die or are cut off in
//! mid-change and come back, and several at once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::ensure;
use base::clock;
use clerk::api::{ConfigNum, GroupId};
use tokio::task::JoinHandle;

use super::clerks::{check_puts, put_for};
use super::controller::{Controller, Group, owns};
use super::stage::{FIRST, Stage};
use crate::lab::{Lab, Store};
use crate::suites::versioned::Done;
use sim::{Name, lock};

/// A change must not end before its group is up, and must end within this time after that.
const WITHIN: Duration = Duration::from_secs(2);

/// The running change must still run `WITHIN` from now, and end `WITHIN` after the restart of
/// `group`.
async fn waits_for(
    stage: &Stage,
    group: u64,
    mut change: JoinHandle<anyhow::Result<ConfigNum>>,
    what: &str,
) -> anyhow::Result<()> {
    if let Ok(ended) = clock::timeout(WITHIN, &mut change).await {
        anyhow::bail!("{what} was done by {:?} although group {group} is down", ended?);
    }
    let start = clock::now();
    stage.restart(group).await?;
    match clock::timeout(WITHIN.saturating_sub(start.elapsed()), change).await {
        Ok(ended) => ended?.map(drop),
        Err(_) => anyhow::bail!("{what} is not done {WITHIN:?} after the restart of group {group}"),
    }
}

/// N15.
pub(super) async fn join_leave(lab: Lab) -> anyhow::Result<()> {
    let mut stage = Stage::with_keys(&lab).await?;
    let two = stage.new_group().await?;
    let before = stage.controller.query().await?.num.0;
    stage.shut(FIRST).await?;
    let controller = stage.controller.clone();
    let joining = two.clone();
    let join = tokio::spawn(async move { controller.join(&joining).await });
    waits_for(&stage, FIRST, join, "the join").await?;
    let after = stage.controller.query().await?.num.0;
    ensure!(after == before + 1, "a join turned configuration {before} into {after}");
    stage.shut(two.id).await?;
    let controller = stage.controller.clone();
    let leave = tokio::spawn(async move { controller.leave(FIRST).await });
    waits_for(&stage, two.id, leave, "the leave").await?;
    stage.check_all().await
}

/// What a controller is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Start,
    Joining,
    Leaving,
}

/// A controller that joins and leaves a group until it is told to stop, or finds that another one
/// interfered.
struct Restless {
    controller: Controller,
    at: Arc<Mutex<At>>,
    done: Done,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Restless {
    async fn start(store: &Store, group: &Group) -> anyhow::Result<Self> {
        let controller = Controller::new(store);
        controller.init().await?;
        let (at, done) = (Arc::new(Mutex::new(At::Start)), Done::default());
        let task = tokio::spawn(Self::work(controller.clone(), group.clone(), Arc::clone(&at), done.clone()));
        Ok(Self { controller, at, done, task })
    }

    async fn work(
        controller: Controller,
        group: Group,
        at: Arc<Mutex<At>>,
        done: Done,
    ) -> anyhow::Result<()> {
        while !done.is_over() {
            *lock(&at) = At::Joining;
            controller.change(group.joining.clone()).await?;
            if done.is_over() || !owns(&controller.query().await?, group.id) {
                break;
            }
            controller.pause().await;
            *lock(&at) = At::Leaving;
            controller.leave(group.id).await?;
        }
        Ok(())
    }
}

/// What happens to the controllers' leader when the admin is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It dies, and the admin never comes back (5B).
    Dies,
    /// It is cut off from the other controllers, and both come back (5C).
    CutOff,
}

impl Fate {
    /// Hits the present leader of the controllers.
    async fn strike(self, store: &Store) -> anyhow::Result<Name> {
        let leader = store.leader("ctrl").await?;
        store.lab.step(&format!("the controller {leader}: {self:?}"));
        match self {
            Self::Dies => store.ground.kill(&leader).await?,
            Self::CutOff => store.network()?.disconnect(&leader, &store.ground.servers("ctrl")),
        }
        Ok(leader)
    }

    /// Brings it back.
    async fn undo(self, store: &Store, leader: &Name) -> anyhow::Result<()> {
        match self {
            Self::Dies => store.ground.start(leader).await?,
            Self::CutOff => store.network()?.connect(leader, &store.ground.servers("ctrl")),
        }
        Ok(())
    }
}

/// The labs' partitionCtrler: a controller is stuck in a join or a leave, because the first group
/// is down, and is cut off there. The next one finds what it began, and finishes it; the old one
/// must not disturb it.
async fn partition_controller(stage: &mut Stage, fate: Fate) -> anyhow::Result<()> {
    let group = stage.new_group().await?;
    let before = stage.controller.query().await?.num;
    let old = Restless::start(&stage.store, &group).await?;
    let runs_ms = 1000 + stage.random_ms(400);
    stage.lab.sleep(runs_ms).await;
    stage.shut(FIRST).await?;
    stage.lab.sleep(1000).await;
    old.controller.set_reachable(false)?;
    old.done.tell();
    let leader = fate.strike(&stage.store).await?;
    if fate == Fate::CutOff {
        stage.lab.sleep(1000).await;
    }
    ensure!(!old.task.is_finished(), "the old controller was not stuck although group {FIRST} is down");
    stage.restart(FIRST).await?;
    let new = Controller::new(&stage.store);
    new.init().await?;
    let config = new.query().await?;
    let (num, at) = (config.num, *lock(&old.at));
    ensure!(num > before, "the configuration is still {num} after what the old controller began");
    let is_member = config.groups.contains_key(&GroupId(group.id));
    ensure!(
        is_member == (at == At::Joining),
        "the old controller was at {at:?} group {}; is it a member of {num}: {is_member}",
        group.id
    );
    if is_member {
        new.leave(group.id).await?;
    }
    fate.undo(&stage.store, &leader).await?;
    match fate {
        Fate::Dies => old.task.abort(),
        Fate::CutOff => comes_back(stage, old, &new).await?,
    }
    stage.remove(&group).await
}

/// The old controller is connected again; it ends, and changes nothing more.
async fn comes_back(stage: &Stage, old: Restless, new: &Controller) -> anyhow::Result<()> {
    let before = new.query().await?.num;
    old.controller.set_reachable(true)?;
    stage.lab.sleep(100).await;
    old.task.await??;
    let after = new.query().await?.num;
    ensure!(after == before, "the old controller made configuration {after} after {before}");
    Ok(())
}

/// N16.
pub(super) async fn recover_controller(lab: Lab) -> anyhow::Result<()> {
    let mut stage = Stage::with_keys(&lab).await?;
    for _ in 0..5 {
        partition_controller(&mut stage, Fate::Dies).await?;
        stage.check_all().await?;
    }
    Ok(())
}

/// Joins and leaves a group with a new controller each time, until it is told to stop; returns the
/// configurations made.
async fn join_and_leave(store: Store, group: Group, done: Done) -> anyhow::Result<Vec<ConfigNum>> {
    let mut made = Vec::new();
    while !done.is_over() {
        let controller = Controller::new(&store);
        controller.init().await?;
        made.push(controller.join(&group).await?);
        made.push(controller.leave(group.id).await?);
    }
    Ok(made)
}

/// N17, N18: four controllers at once. Each configuration is made by exactly one of them.
pub(super) async fn concurrent_controllers(lab: Lab) -> anyhow::Result<()> {
    const CONTROLLERS: u64 = 4;
    const LASTS_MS: u64 = 2000;
    let mut stage = Stage::with_keys(&lab).await?;
    let mut groups = Vec::new();
    for _ in 0..CONTROLLERS {
        groups.push(stage.new_group().await?);
    }
    let before = stage.controller.query().await?.num;
    let done = Done::default();
    let start = |group| tokio::spawn(join_and_leave(stage.store.clone(), group, done.clone()));
    let tasks: Vec<_> = groups.into_iter().map(start).collect();
    lab.sleep(LASTS_MS).await;
    done.tell();
    let mut made = BTreeSet::new();
    for task in tasks {
        for num in task.await?? {
            ensure!(made.insert(num), "configuration {num} was made by two changes");
        }
    }
    let after = stage.controller.query().await?.num;
    let expected = after.0 - before.0;
    ensure!(made.len() as u64 == expected, "{} changes made {expected} configurations", made.len());
    stage.check_all().await
}

/// N19.
pub(super) async fn partition_join(lab: Lab) -> anyhow::Result<()> {
    let mut stage = Stage::with_keys(&lab).await?;
    let group = stage.new_group().await?;
    stage.shut(group.id).await?;
    let old = Controller::new(&stage.store);
    old.init().await?;
    let (joining, change) = (old.clone(), group.joining.clone());
    let join = tokio::spawn(async move { joining.change(change).await });
    lab.sleep(1000).await;
    old.set_reachable(false)?;
    let leader = Fate::CutOff.strike(&stage.store).await?;
    lab.sleep(1000).await;
    ensure!(!join.is_finished(), "the join is done although group {} is down", group.id);
    stage.restart(group.id).await?;
    let new = Controller::new(&stage.store);
    new.init().await?;
    ensure!(owns(&new.query().await?, group.id), "group {} was joined and owns no shard", group.id);
    old.set_reachable(true)?;
    Fate::CutOff.undo(&stage.store, &leader).await?;
    join.await??;
    lab.sleep(1000).await;
    stage.check_all().await
}

/// N20, N21.
pub(super) async fn partition_recovery(lab: Lab, times: u32) -> anyhow::Result<()> {
    let mut stage = Stage::with_keys(&lab).await?;
    for _ in 0..times {
        partition_controller(&mut stage, Fate::CutOff).await?;
        stage.check_all().await?;
    }
    Ok(())
}

/// N22, N23: the same while five clients put at one key for a minute.
pub(super) async fn partition_recovery_with_clerks(lab: Lab, times: u32) -> anyhow::Result<()> {
    const CLIENTS: u64 = 5;
    const LASTS_MS: u64 = 60_000;
    let mut stage = Stage::up(&lab, None).await?;
    let putting = tokio::spawn(put_for(stage.store.clone(), CLIENTS, LASTS_MS));
    for _ in 0..times {
        partition_controller(&mut stage, Fate::CutOff).await?;
    }
    let puts = putting.await??;
    // Servers were killed before they could send their answers.
    check_puts(&mut stage, puts, false).await
}
