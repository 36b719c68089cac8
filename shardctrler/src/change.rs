//! What a Join, a Leave or a Move makes of a configuration: pure, so that a dry run (`plan`) and
//! the real change are one function (correctness rules 42, 43).
//!
//! A change is refused, or changes nothing, or makes exactly one next configuration, however many
//! groups it names. Refusals and no-ops leave no trace: the number does not grow.
//!
//! * Join: repeating the join of a joined group with the same data and servers is harmless. With
//!   other servers, only the address book changes: its data identifies the group, so a wrong list
//!   of servers can be corrected. An id whose first data is gone, or a group of another cluster, is
//!   refused. A group that left may return with its data, wherever it now is.
//! * Leave: repeating it for a group that left is harmless; a group that never joined is refused.
//!   The last group leaves only by force, which parks all shards.
//! * Move: pins nothing. The next Join or Leave balances as if there had been no Move.
//!
//! The address book has its own version and keeps groups that left: rows may still be there.

use std::collections::{BTreeMap, BTreeSet};

use base::codec::Skipped;
use clerk::api::config::{
    ADDRESS_BYTES_MAX, ADDRESSES_MAX, AddressBook, Assignment, Config, GROUPS_MAX, Move, NewGroup,
    Registered, Sealed,
};
use clerk::api::ctrl::{Change, CtrlRefusal};
use clerk::api::{Address, ConfigNum, GroupId, Incarnation, ShardId};

use crate::rebalance::{holder, rebalance};

/// The result of a change that changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// The configuration after the present one, or the present one if only the address book changes.
    pub config: Sealed,
    /// The address book, if it changes too.
    pub book: Option<AddressBook>,
    /// Group ids that are used for the first time.
    pub incarnations: BTreeMap<GroupId, Incarnation>,
}

/// The state before a change.
#[derive(Clone, Copy, Debug)]
pub struct Present<'a> {
    pub config: &'a Sealed,
    pub book: &'a AddressBook,
    /// The data that each group id was first used with.
    pub incarnations: &'a BTreeMap<GroupId, Incarnation>,
}

impl Present<'_> {
    /// The result of `change`; none if it is harmless.
    ///
    /// # Errors
    /// [`CtrlRefusal`] when the change cannot be made.
    pub fn decide(&self, change: &Change) -> Result<Option<Next>, CtrlRefusal> {
        match change {
            Change::Join(groups) => self.join(groups),
            Change::Leave { groups, force } => self.leave(groups, *force),
            Change::Move { shard, group } => self.give(*shard, *group),
        }
    }

    fn join(&self, named: &BTreeMap<GroupId, NewGroup>) -> Result<Option<Next>, CtrlRefusal> {
        if named.is_empty() {
            return Err(CtrlRefusal::NothingNamed);
        }
        for (group, new) in named {
            self.may_join(*group, new)?;
        }
        let joins = |group: &&GroupId| !self.config.groups.contains_key(group);
        let joining = named.keys().filter(joins).copied().collect::<BTreeSet<_>>();
        let first_time = |group: &&GroupId| !self.incarnations.contains_key(group);
        let incarnations = joining
            .iter()
            .filter(first_time)
            .map(|group| (*group, named[group].incarnation))
            .collect::<BTreeMap<_, _>>();
        if self.incarnations.len() + incarnations.len() > GROUPS_MAX as usize {
            return Err(CtrlRefusal::TooManyGroups { limit: GROUPS_MAX });
        }
        let mut book = self.book.clone();
        for (group, NewGroup { incarnation, addresses, .. }) in named {
            if !are_same_servers(self.book.addresses(*group), addresses) {
                book.groups.insert(*group, Registered::new(*incarnation, addresses.clone()));
            }
        }
        let version = self.book.version.saturating_add(1);
        let book = (book != *self.book).then_some(AddressBook { version, ..book });
        if joining.is_empty() {
            let corrected = |book| Next { book: Some(book), ..self.config_alone(self.config.clone()) };
            return Ok(book.map(corrected));
        }
        let joining = joining.iter().map(|group| (*group, named[group].incarnation));
        let groups = self.config.groups.iter().map(|(group, it)| (*group, *it)).chain(joining).collect();
        let owners = rebalance(&self.config.shards, &ids(&groups));
        Ok(Some(Next { config: self.succeed(groups, &owners), book, incarnations }))
    }

    fn may_join(&self, group: GroupId, new: &NewGroup) -> Result<(), CtrlRefusal> {
        check_group(group, &new.addresses)?;
        let (key, own) = (new.key, self.config.key);
        if key != own && !base::mutant!("join-ignores-cluster-key") {
            return Err(CtrlRefusal::OtherCluster { group, key, own });
        }
        if self.incarnations.get(&group).is_some_and(|first| *first != new.incarnation) {
            return Err(CtrlRefusal::OtherIncarnation(group));
        }
        Ok(())
    }

    fn leave(&self, named: &BTreeSet<GroupId>, force: bool) -> Result<Option<Next>, CtrlRefusal> {
        if named.is_empty() {
            return Err(CtrlRefusal::NothingNamed);
        }
        if let Some(unknown) = named.iter().find(|group| !self.incarnations.contains_key(group)) {
            return Err(CtrlRefusal::UnknownGroup(*unknown));
        }
        let mut groups = self.config.groups.clone();
        groups.retain(|group, _| !named.contains(group));
        if groups.len() == self.config.groups.len() {
            return Ok(None);
        }
        if groups.is_empty() && !force {
            return Err(CtrlRefusal::LastGroup);
        }
        let owners = rebalance(&self.config.shards, &ids(&groups));
        Ok(Some(self.config_alone(self.succeed(groups, &owners))))
    }

    fn give(&self, shard: ShardId, group: GroupId) -> Result<Option<Next>, CtrlRefusal> {
        let mut owners = self.config.shards.iter().map(|assignment| assignment.owner).collect::<Vec<_>>();
        let last = ShardId(self.config.params.shard_count.saturating_sub(1));
        let owner = owners.get_mut(shard.0 as usize).ok_or(CtrlRefusal::UnknownShard { shard, last })?;
        if !self.config.groups.contains_key(&group) {
            return Err(CtrlRefusal::UnknownGroup(group));
        }
        if owner.replace(group) == Some(group) {
            return Ok(None);
        }
        base::mutant!("move-undone", owners = rebalance(&self.config.shards, &self.config.group_ids()));
        Ok(Some(self.config_alone(self.succeed(self.config.groups.clone(), &owners))))
    }

    /// A next state in which the address book is as it is.
    fn config_alone(&self, config: Sealed) -> Next {
        Next { config, book: None, incarnations: BTreeMap::new() }
    }

    /// The next configuration. Each shard remembers its newest owner in any earlier one, even
    /// across configurations in which it has none.
    fn succeed(&self, groups: BTreeMap<GroupId, Incarnation>, owners: &[Option<GroupId>]) -> Sealed {
        let present = self.config;
        let next = |(old, owner): (&Assignment, &Option<GroupId>)| Assignment {
            owner: *owner,
            last_owner: if base::mutant!("last-owner-forgotten") { old.owner } else { holder(*old) },
        };
        Sealed::new(Config {
            num: ConfigNum(present.num.0.saturating_add(1)),
            key: present.key,
            before: present.digest(),
            params: present.params,
            shards: present.shards.iter().zip(owners).map(next).collect(),
            groups,
            more: Skipped::NONE,
        })
    }
}

fn ids(groups: &BTreeMap<GroupId, Incarnation>) -> BTreeSet<GroupId> {
    groups.keys().copied().collect()
}

/// Refuses changes that are wrong in any state. It also runs before the change goes through the
/// log: an entry that is larger than any frame could be logged and never be replicated (correctness
/// rule 49).
///
/// # Errors
/// [`CtrlRefusal`].
pub fn check(change: &Change) -> Result<(), CtrlRefusal> {
    let too_many = Err(CtrlRefusal::TooManyGroups { limit: GROUPS_MAX });
    match change {
        Change::Join(groups) if groups.len() > GROUPS_MAX as usize => too_many,
        Change::Leave { groups, .. } if groups.len() > GROUPS_MAX as usize => too_many,
        Change::Join(groups) => {
            groups.iter().try_for_each(|(group, new)| check_group(*group, &new.addresses))
        }
        Change::Leave { .. } | Change::Move { .. } => Ok(()),
    }
}

/// Whether a group may have this id and these servers.
pub(crate) fn check_group(group: GroupId, addresses: &[Address]) -> Result<(), CtrlRefusal> {
    let fits = |address: &String| !address.is_empty() && address.len() <= ADDRESS_BYTES_MAX;
    if group != GroupId(0) && (1..=ADDRESSES_MAX).contains(&addresses.len()) && addresses.iter().all(fits) {
        Ok(())
    } else {
        Err(CtrlRefusal::InvalidGroup(group))
    }
}

/// Order does not matter: any server of a group may be asked first.
fn are_same_servers(known: &[String], named: &[String]) -> bool {
    let sorted = |addresses: &[String]| addresses.iter().cloned().collect::<BTreeSet<_>>();
    sorted(known) == sorted(named)
}

/// The shards whose owner differs between two configurations.
pub fn moves(before: &Config, after: &Config) -> Vec<Move> {
    let pairs = before.shards.iter().zip(after.assignments());
    let changed = |(old, (shard, new)): (&Assignment, (ShardId, Assignment))| {
        (old.owner != new.owner).then(|| Move { shard, from: holder(*old), to: new.owner })
    };
    pairs.filter_map(changed).collect()
}
