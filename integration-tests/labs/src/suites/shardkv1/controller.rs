//! The labs' controller, and how ours can be used like it: an admin who waits until a change is
//! done.
//!
//! The controllers only number configurations. A change is done when every group that gives or gets
//! a shard has adopted it and has nothing left to do for it. What any server of a group says about
//! that is committed, so one answer is enough.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{anyhow, ensure};
use base::clock;
use clerk::api::config::Config;
use clerk::api::status::ShardStatus;
use clerk::api::{ConfigNum, GroupId};
use clerk::ctrl::{Changed, CtrlClerk};
use clerk::group::GroupClient;

use crate::lab::{Change, Store, leave};
use sim::Name;

/// A running group, and its description for a Join.
#[derive(Clone)]
pub(super) struct Group {
    pub(super) id: u64,
    pub(super) joining: Change,
}

/// How often groups are asked for their progress.
const LOOK: Duration = Duration::from_millis(50);
const PAUSE_MS: u64 = 200;

/// An admin. Clones share its session and its name on the network.
#[derive(Clone)]
pub(super) struct Controller {
    store: Store,
    name: Name,
    clerk: CtrlClerk,
}

impl Controller {
    /// A new one. It does not know what others began.
    pub(super) fn new(store: &Store) -> Self {
        let name = store.lab.fresh_name("controller");
        Self { store: store.clone(), clerk: store.admin_named(&name), name: name.as_str().into() }
    }

    /// The labs' InitController: changes that others began and left are done when this returns.
    pub(super) async fn init(&self) -> anyhow::Result<()> {
        let now = self.query().await?;
        // A group adopts a configuration when it is done with the one before, so nothing older matters.
        let before = match now.num.0.checked_sub(1) {
            Some(num) => self.clerk.query(Some(ConfigNum(num))).await?.0.group_ids(),
            None => BTreeSet::new(),
        };
        self.done(now.num, &now.group_ids() | &before).await
    }

    /// The newest configuration.
    pub(super) async fn query(&self) -> anyhow::Result<Config> {
        Ok(self.clerk.query(None).await?.0.config().as_ref().clone())
    }

    /// The labs' ChangeConfigTo: makes a change and waits until it is done.
    pub(super) async fn change(&self, change: Change) -> anyhow::Result<ConfigNum> {
        let groups: BTreeSet<GroupId> = match &change {
            Change::Join(groups) => groups.keys().copied().collect(),
            Change::Leave { groups, .. } => groups.clone(),
            _ => BTreeSet::new(),
        };
        let Changed { config, moves } = self.clerk.change(change).await?;
        let moved = moves.iter().flat_map(|one| [one.from, one.to]).flatten();
        self.done(config, moved.chain(groups).collect()).await?;
        Ok(config)
    }

    /// The labs' joinGroups for one group that runs; the configuration it made, in which the group must own a
    /// shard.
    pub(super) async fn join(&self, group: &Group) -> anyhow::Result<ConfigNum> {
        self.store.lab.step(&format!("{} joins {}", self.name, group.id));
        let made = self.change(group.joining.clone()).await?;
        ensure!(owns(&self.query().await?, group.id), "group {} joined and owns no shard", group.id);
        self.pause().await;
        Ok(made)
    }

    /// The labs' leaveGroups for one group, which has then nothing left to do and may be stopped.
    pub(super) async fn leave(&self, group: u64) -> anyhow::Result<ConfigNum> {
        self.store.lab.step(&format!("{} leaves {group}", self.name));
        let made = self.change(leave(&[group])).await?;
        ensure!(!owns(&self.query().await?, group), "group {group} left and still owns a shard");
        self.pause().await;
        Ok(made)
    }

    /// The labs' pause after each join and leave.
    pub(super) async fn pause(&self) {
        self.store.lab.sleep(PAUSE_MS).await;
    }

    /// Waits until these groups are done with configuration `num`.
    async fn done(&self, num: ConfigNum, groups: BTreeSet<GroupId>) -> anyhow::Result<()> {
        for group in groups {
            while !self.is_done(num, group).await {
                clock::sleep(LOOK).await;
            }
        }
        Ok(())
    }

    async fn is_done(&self, num: ConfigNum, group: GroupId) -> bool {
        let servers = self.store.ground.addresses(&group.to_string());
        // Only a group that had left, and was done, is removed.
        if servers.is_empty() {
            return true;
        }
        let connection = self.store.ground.connection(&self.name);
        let client = GroupClient::new(connection, group, servers, self.store.lab.derive(&self.name));
        let statuses = client.statuses().await;
        let mut answers = statuses.iter().filter_map(|(_, status)| status.as_ref().ok());
        answers.any(|status| {
            let moves = |shard: &ShardStatus| shard.num.is_some_and(|move_| move_ <= num);
            status.config >= num && !status.shards.iter().any(moves)
        })
    }

    /// Cuts this admin off from every server, or ends that.
    ///
    /// # Errors
    /// On real processes.
    pub(super) fn set_reachable(&self, reachable: bool) -> anyhow::Result<()> {
        let cluster = self.store.ground.cluster().ok_or_else(|| anyhow!("this test needs the simulator"))?;
        for server in cluster.names() {
            cluster.network.link(&self.name, &server, reachable);
        }
        Ok(())
    }
}

/// Whether a group owns a shard.
pub(super) fn owns(config: &Config, group: u64) -> bool {
    config.assignments().any(|(_, assignment)| assignment.owner == Some(GroupId(group)))
}
