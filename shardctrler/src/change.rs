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
//! * Weigh: sets the weight of a group and rebalances. Pin: gives one shard to a group, where it stays.
//!   Some group always has a weight above 0, and no shard is pinned to one of weight 0. A group that
//!   leaves takes its weight and its pins with it.
//! * DeclareLost: shards whose rows nobody has begin anew at their owners.
//! * Arrange: several moves by a plan. Two operators may plan at the same time, so it is refused if
//!   anything that the plan was made from has changed.
//!
//! The address book has its own version and keeps groups that left: rows may still be there.

use std::collections::{BTreeMap, BTreeSet};

use base::codec::Skipped;
use clerk::api::config::{
    ADDRESS_BYTES_MAX, ADDRESSES_MAX, AddressBook, Assignment, Config, GROUPS_MAX, Move, NewGroup, Place,
    Registered, Sealed,
};
use clerk::api::ctrl::{Change, CtrlRefusal};
use clerk::api::placement::{MOVE_RATE_MAX, Placement, WEIGHT_MAX};
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
    /// The weights and pins, if they change.
    pub placement: Option<Placement>,
}

/// The state before a change.
#[derive(Clone, Copy, Debug)]
pub struct Present<'a> {
    pub config: &'a Sealed,
    pub book: &'a AddressBook,
    /// The data that each group id was first used with.
    pub incarnations: &'a BTreeMap<GroupId, Incarnation>,
    /// The weights and pins in force.
    pub placement: &'a Placement,
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
            Change::Weigh { group, weight } => self.weigh(*group, *weight),
            Change::Pin { shard, group } => self.pin(*shard, *group),
            Change::Unpin { shard } => self.unpin(*shard),
            Change::Arrange { made_from, placement, moves } => self.arrange(*made_from, *placement, moves),
            Change::MoveRate { mib } => {
                let wanted = Placement { move_rate: *mib, ..self.placement.clone() };
                Ok(self.placed(wanted, &self.owners()))
            }
            Change::DeclareLost { shards, made_from } => self.declare_lost(shards, *made_from),
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
            let corrected = |book| Next { book: Some(book), ..self.only(self.config.clone()) };
            return Ok(book.map(corrected));
        }
        let joining = joining.iter().map(|group| (*group, named[group].incarnation));
        let groups = self.config.groups.iter().map(|(group, it)| (*group, *it)).chain(joining).collect();
        let owners = rebalance(&self.config.shards, &ids(&groups), self.placement);
        let config = self.succeed(groups, &owners);
        Ok(Some(Next { book, incarnations, ..self.only(config) }))
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
        let staying = ids(&groups);
        let placement = self.placement.of(&staying);
        if !groups.is_empty() && !placement.weighs(&staying) {
            return Err(CtrlRefusal::NothingWeighs);
        }
        let owners = rebalance(&self.config.shards, &staying, &placement);
        let placement = self.placement_after(placement);
        Ok(Some(Next { placement, ..self.only(self.succeed(groups, &owners)) }))
    }

    fn give(&self, shard: ShardId, group: GroupId) -> Result<Option<Next>, CtrlRefusal> {
        let mut owners = self.owners();
        if !self.give_one(&mut owners, shard, group)? {
            return Ok(None);
        }
        base::mutant!(
            "move-undone",
            owners = rebalance(&self.config.shards, &self.config.group_ids(), self.placement)
        );
        Ok(Some(self.only(self.succeed(self.config.groups.clone(), &owners))))
    }

    fn owners(&self) -> Vec<Option<GroupId>> {
        self.config.shards.iter().map(|assignment| assignment.owner).collect()
    }

    /// Gives a shard to a group, unless it is pinned to another one. Returns whether it moves.
    fn give_one(
        &self,
        owners: &mut [Option<GroupId>],
        shard: ShardId,
        group: GroupId,
    ) -> Result<bool, CtrlRefusal> {
        self.is_shard(shard)?;
        self.is_joined(group)?;
        match self.placement.pin(shard).filter(|pinned| *pinned != group) {
            Some(group) => Err(CtrlRefusal::Pinned { shard, group }),
            None => Ok(owners[shard.0 as usize].replace(group) != Some(group)),
        }
    }

    fn is_joined(&self, group: GroupId) -> Result<(), CtrlRefusal> {
        if !self.config.groups.contains_key(&group) {
            return Err(CtrlRefusal::UnknownGroup(group));
        }
        Ok(())
    }

    fn is_shard(&self, shard: ShardId) -> Result<(), CtrlRefusal> {
        let count = self.config.params.shard_count;
        if shard.0 >= count {
            return Err(CtrlRefusal::UnknownShard { shard, last: ShardId(count.saturating_sub(1)) });
        }
        Ok(())
    }

    fn weigh(&self, group: GroupId, weight: u32) -> Result<Option<Next>, CtrlRefusal> {
        self.is_joined(group)?;
        let ids = self.config.group_ids();
        let wanted = self.placement.weighed(group, weight);
        let mut pinned = self.placement.pinned_to(group);
        if let Some(first) = pinned.next().filter(|_| weight == 0) {
            return Err(CtrlRefusal::HasPins { group, first, count: 1 + pinned.count() as u32 });
        }
        if !wanted.weighs(&ids) {
            return Err(CtrlRefusal::NothingWeighs);
        }
        let owners = rebalance(&self.config.shards, &ids, &wanted);
        Ok(self.placed(wanted, &owners))
    }

    fn pin(&self, shard: ShardId, group: GroupId) -> Result<Option<Next>, CtrlRefusal> {
        self.is_shard(shard)?;
        self.is_joined(group)?;
        if self.placement.weight(group) == 0 {
            return Err(CtrlRefusal::Drained(group));
        }
        let (mut wanted, mut owners) = (self.placement.clone(), self.owners());
        wanted.pins.insert(shard, group);
        owners[shard.0 as usize] = Some(group);
        Ok(self.placed(wanted, &owners))
    }

    fn unpin(&self, shard: ShardId) -> Result<Option<Next>, CtrlRefusal> {
        self.is_shard(shard)?;
        let mut wanted = self.placement.clone();
        wanted.pins.remove(&shard);
        Ok(self.placed(wanted, &self.owners()))
    }

    fn arrange(
        &self,
        made_from: Place,
        placement: u64,
        moves: &BTreeMap<ShardId, GroupId>,
    ) -> Result<Option<Next>, CtrlRefusal> {
        let same = made_from == self.config.place() && placement == self.placement.version;
        if !same && !base::mutant!("outdated-plan-accepted") {
            return Err(CtrlRefusal::Outdated { made_from: made_from.num, newest: self.config.num });
        }
        let mut owners = self.owners();
        for (shard, group) in moves {
            self.give_one(&mut owners, *shard, *group)?;
            if self.placement.weight(*group) == 0 {
                return Err(CtrlRefusal::Drained(*group));
            }
        }
        Ok(self.placed(self.placement.clone(), &owners))
    }

    /// The owners stay: they begin these shards anew.
    fn declare_lost(
        &self,
        shards: &BTreeSet<ShardId>,
        made_from: Place,
    ) -> Result<Option<Next>, CtrlRefusal> {
        if shards.is_empty() {
            return Err(CtrlRefusal::NothingNamed);
        }
        if made_from != self.config.place() {
            return Err(CtrlRefusal::Outdated { made_from: made_from.num, newest: self.config.num });
        }
        for shard in shards {
            self.is_shard(*shard)?;
            self.config.owner(*shard).ok_or(CtrlRefusal::Unowned(*shard))?;
        }
        let next = self.succeed(self.config.groups.clone(), &self.owners());
        let config = Config { lost: shards.clone(), ..next.config().as_ref().clone() };
        Ok(Some(self.only(Sealed::new(config))))
    }

    /// What follows if the weights and pins become `placement` and the shards go to `owners`; none if
    /// nothing changes. The groups stay.
    fn placed(&self, placement: Placement, owners: &[Option<GroupId>]) -> Option<Next> {
        let moves = owners != self.owners();
        let config =
            if moves { self.succeed(self.config.groups.clone(), owners) } else { self.config.clone() };
        let placement = self.placement_after(placement);
        (moves || placement.is_some()).then(|| Next { placement, ..self.only(config) })
    }

    /// The same with a new version, if it is another one than that in force.
    fn placement_after(&self, wanted: Placement) -> Option<Placement> {
        let version = self.placement.version.saturating_add(1);
        (wanted != *self.placement).then_some(Placement { version, ..wanted })
    }

    fn only(&self, config: Sealed) -> Next {
        Next { config, book: None, incarnations: BTreeMap::new(), placement: None }
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
            lost: BTreeSet::new(),
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
        Change::Weigh { weight, .. } if *weight > WEIGHT_MAX => {
            Err(CtrlRefusal::WeightTooLarge { weight: *weight, limit: WEIGHT_MAX })
        }
        Change::MoveRate { mib: Some(mib) } if !(1..=MOVE_RATE_MAX).contains(mib) => {
            Err(CtrlRefusal::InvalidRate { mib: *mib, limit: MOVE_RATE_MAX })
        }
        _ => Ok(()),
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
