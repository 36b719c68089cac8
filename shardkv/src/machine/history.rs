//! Whether a configuration continues the history that a group follows (correctness rules 55, 57).
//!
//! The same function is called twice: by the mover, so that nothing goes through the log in vain,
//! and when the command is applied, with only the rows. A configuration fits if it is of this
//! cluster, follows exactly the configuration that was adopted last, and means the data that is
//! here by this group's id.
//!
//! Left out on purpose: a reaction to a configuration that does not fit. There is none; `configs`
//! reports it.

use clerk::api::config::{AddressBook, Sealed};
use clerk::api::{ConfigNum, GroupId, Incarnation};

use crate::machine::Standing;
use crate::machine::shard;

/// Why a group does not adopt a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It is from another cluster, or has other limits.
    OtherCluster,
    /// It is not the next one of the group's history.
    NotNext,
    /// It means other data by this group's id.
    OtherData,
}

/// A group, as far as its rows describe it.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    pub group: GroupId,
    /// The incarnation of its data.
    pub incarnation: Option<Incarnation>,
    /// The configuration that it adopted last.
    pub adopted: Option<&'a Sealed>,
}

/// Whether a group may adopt `next`.
///
/// # Errors
/// [`Unfit`].
pub fn fits(own: Own<'_>, next: &Sealed) -> Result<(), Unfit> {
    let same_cluster = |adopted: &Sealed| adopted.key == next.key && adopted.params == next.params;
    let named = next.groups.get(&own.group);
    if !own.adopted.is_none_or(same_cluster) {
        Err(Unfit::OtherCluster)
    } else if !shard::may_adopt(own.adopted.map(Sealed::place), next.num, next.before)
        && !may_begin(own, next)
    {
        Err(Unfit::NotNext)
    } else if named.is_some_and(|named| own.incarnation != Some(*named))
        && !base::mutant!("adopt-ignores-incarnation")
    {
        Err(Unfit::OtherData)
    } else {
        Ok(())
    }
}

/// Whether a group that has adopted nothing yet may begin with a later configuration than the
/// first, because recovered controllers may know no older one. The configuration must assign
/// nothing to the group, so that nothing has to move.
fn may_begin(own: Own<'_>, next: &Sealed) -> bool {
    let mine = |group: Option<GroupId>| group == Some(own.group);
    let is_there = next.groups.contains_key(&own.group)
        || next.shards.iter().any(|assignment| mine(assignment.owner) || mine(assignment.last_owner));
    own.adopted.is_none() && next.num > ConfigNum(0) && !is_there
}

/// The incarnation that the cluster knows for this group, and the one that is here, if the group
/// lost its data. Then the data here is not the data that joined, and the group answers no
/// requests. A group that adopted a configuration which names it has the right data, even if a book
/// from other controllers says otherwise.
pub(crate) fn lost(
    group: GroupId,
    own: Option<Incarnation>,
    standing: &Standing,
    book: &AddressBook,
) -> Option<(Incarnation, Incarnation)> {
    base::mutant!("book-incarnation-ignored", return None);
    let (registered, own) = (book.incarnation(group)?, own?);
    (registered != own && !standing.joined).then_some((registered, own))
}

#[cfg(test)]
mod tests {
    use clerk::api::Digest;
    use clerk::api::config::{Assignment, Config, Params, Registered};

    use super::*;

    const ME: GroupId = GroupId(101);
    const MINE: Incarnation = Incarnation(5);

    fn zero() -> Sealed {
        Sealed::new(Config::zero(7, Params { shard_count: 1, ..Params::default() }))
    }

    /// The configuration after `before`, which names the group with this incarnation.
    fn next(before: &Sealed, named: Option<Incarnation>) -> Config {
        let groups = named.map(|it| (ME, it)).into_iter().collect();
        let shards = vec![Assignment { owner: named.map(|_| ME), last_owner: None }];
        let num = ConfigNum(before.num.0 + 1);
        Config { num, before: before.digest(), groups, shards, ..before.config().as_ref().clone() }
    }

    fn judged(adopted: Option<&Sealed>, next: Config) -> Result<(), Unfit> {
        let own = Own { group: ME, incarnation: Some(MINE), adopted };
        fits(own, &Sealed::new(next))
    }

    #[test]
    fn only_what_follows_the_own_history_and_means_the_own_data_is_adopted() {
        let zero = zero();
        assert_eq!(judged(None, zero.config().as_ref().clone()), Ok(()));
        assert_eq!(judged(Some(&zero), next(&zero, Some(MINE))), Ok(()));
        assert_eq!(judged(Some(&zero), next(&zero, None)), Ok(()));
        let other = Config { before: Digest(1), ..next(&zero, None) };
        assert_eq!(judged(Some(&zero), other), Err(Unfit::NotNext));
        let other = Config { key: 8, ..next(&zero, None) };
        assert_eq!(judged(Some(&zero), other), Err(Unfit::OtherCluster));
        let params = Params { sessions_max: 9, ..zero.params };
        let other = Config { params, ..next(&zero, None) };
        assert_eq!(judged(Some(&zero), other), Err(Unfit::OtherCluster));
        assert_eq!(judged(Some(&zero), next(&zero, Some(Incarnation(6)))), Err(Unfit::OtherData));
        assert_eq!(judged(None, next(&zero, Some(MINE))), Err(Unfit::NotNext));
    }

    #[test]
    fn a_group_begins_later_only_where_nothing_is_its_own() {
        let one = next(&zero(), None);
        assert_eq!(judged(None, one.clone()), Ok(()));
        let parked = Assignment { owner: None, last_owner: Some(ME) };
        assert_eq!(judged(None, Config { shards: vec![parked], ..one.clone() }), Err(Unfit::NotNext));
        let groups = [(ME, MINE)].into_iter().collect();
        assert_eq!(judged(None, Config { groups, ..one }), Err(Unfit::NotNext));
    }

    #[test]
    fn a_group_is_lost_when_the_cluster_knows_other_data_and_it_never_joined_with_its_own() {
        let mut book = AddressBook { version: 1, key: 7, ..AddressBook::default() };
        let fresh = Standing::default();
        assert_eq!(lost(ME, Some(MINE), &fresh, &book), None);
        let registered = |incarnation| Registered::new(incarnation, Vec::new());
        book.groups.insert(ME, registered(MINE));
        assert_eq!(lost(ME, Some(MINE), &fresh, &book), None);
        book.groups.insert(ME, registered(Incarnation(6)));
        assert_eq!(lost(ME, Some(MINE), &fresh, &book), Some((Incarnation(6), MINE)));
        assert_eq!(lost(ME, None, &fresh, &book), None);
        let joined = Standing { joined: true, ..Standing::default() };
        assert_eq!(lost(ME, Some(MINE), &joined, &book), None);
    }
}
