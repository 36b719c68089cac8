//! Owner histories: who owns each shard in configurations 1, 2, ... Two that differ only in the names of
//! groups, or in the order of shards, are one class, and one of them is searched.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use clerk::api::GroupId;
use clerk::api::config::Assignment;
use shardctrler::rebalance::holder;

use super::values::group_id;

/// Owners of each shard in configurations 1, 2, ...: positions of groups.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct History(pub(super) Vec<Vec<Option<usize>>>);

impl History {
    /// The assignments of configurations 0, 1, ..., with the last owner as `last` makes it of the
    /// assignment before.
    pub(super) fn assignments(&self, last: fn(Assignment) -> Option<GroupId>) -> Vec<Vec<Assignment>> {
        let shards = self.0.first().map_or(1, Vec::len);
        let mut configs = vec![vec![Assignment::default(); shards]];
        for owners in &self.0 {
            let before = &configs[configs.len() - 1];
            let next = before
                .iter()
                .zip(owners)
                .map(|(before, owner)| Assignment { owner: owner.map(group_id), last_owner: last(*before) });
            configs.push(next.collect());
        }
        configs
    }

    /// As the controller makes them.
    pub(super) fn configs(&self) -> Vec<Vec<Assignment>> {
        self.assignments(holder)
    }

    /// The groups in it; if there are none, the one that a world has at least.
    pub(super) fn groups(&self) -> BTreeSet<usize> {
        let groups: BTreeSet<usize> = self.0.iter().flatten().flatten().copied().collect();
        if groups.is_empty() { BTreeSet::from([0]) } else { groups }
    }

    /// The same with other names, if they make it smaller.
    fn renamed(&self, groups: &[usize], shards: &[usize]) -> Self {
        let name = |owner: Option<usize>| owner.map(|owner| groups[owner]);
        let config = |owners: &Vec<Option<usize>>| shards.iter().map(|shard| name(owners[*shard])).collect();
        Self(self.0.iter().map(config).collect())
    }
}

/// `X Y -` is: first group X, then Y, then nobody; `X/Y` are two shards.
impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (num, owners) in self.0.iter().enumerate() {
            for (shard, owner) in owners.iter().enumerate() {
                let before = match (num, shard) {
                    (0, 0) => "",
                    (_, 0) => " ",
                    _ => "/",
                };
                write!(f, "{before}{}", owner.map_or("-", name))?;
            }
        }
        Ok(())
    }
}

/// What a group is called here.
pub(super) fn name(position: usize) -> &'static str {
    ["X", "Y", "Z"][position]
}

/// All orders of 0, 1, ...
fn orders(count: usize) -> Vec<Vec<usize>> {
    let Some(last) = count.checked_sub(1) else { return vec![Vec::new()] };
    let longer = |order: Vec<usize>| {
        (0..count).map(move |at| [&order[..at], &[last], &order[at..]].concat()).collect::<Vec<_>>()
    };
    orders(last).into_iter().flat_map(longer).collect()
}

/// One history of each class of `length` configurations, with how many there are in the class.
pub fn classes(length: usize, groups: usize, shards: usize) -> BTreeMap<History, usize> {
    let (group_orders, shard_orders) = (orders(groups), orders(shards));
    let choices = groups + 1;
    let mut classes = BTreeMap::new();
    for number in 0..choices.pow((length * shards) as u32) {
        let mut rest = number;
        let mut owner = || {
            let choice = rest % choices;
            rest /= choices;
            choice.checked_sub(1)
        };
        let history = History((0..length).map(|_| (0..shards).map(|_| owner()).collect()).collect());
        let names = group_orders.iter().flat_map(|groups| shard_orders.iter().map(move |it| (groups, it)));
        let all = names.map(|(groups, shards)| history.renamed(groups, shards));
        *classes.entry(all.min().unwrap_or(history)).or_default() += 1;
    }
    classes
}
