//! What new controllers continue from, decided from the groups' answers.

use std::collections::{BTreeMap, BTreeSet};

use clerk::api::config::{AddressBook, Registered, Sealed};
use clerk::api::ctrl::Recovery;
use clerk::api::{Address, ConfigNum, GroupId};

use crate::failure::Failure;

/// Bytes of configurations that are handed to the new controllers beyond those that a group needs.
const OLDER_BYTES: usize = 4 << 20;

/// What a group said.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    /// The configurations that it adopted, as its leader has them; else why there are none.
    pub(super) adopted: Result<Vec<Sealed>, String>,
    /// What its servers heard of besides.
    pub(super) known: Vec<Sealed>,
    pub(super) books: Vec<AddressBook>,
}

impl Default for Heard {
    fn default() -> Self {
        Self { adopted: Err("it was not asked".to_owned()), known: Vec::new(), books: Vec::new() }
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) newest: Sealed,
    pub(super) recovery: Recovery,
}

/// Decides; `without` are groups that are given up.
pub(super) fn plan(
    heard: &BTreeMap<GroupId, Heard>,
    places: &BTreeMap<GroupId, Vec<Address>>,
    without: &BTreeSet<GroupId>,
) -> Result<Plan, Failure> {
    let counted = || heard.iter().filter(|(group, _)| !without.contains(group));
    let held = one_history(counted())?;
    let Some(newest) = held.values().next_back().cloned() else {
        let why = counted().map(|(group, heard)| silent(*group, heard)).next().unwrap_or_default();
        let failure = Failure::new("nothing_to_recover", format!("no group holds a configuration: {why}"));
        return Err(failure.next("start the groups' servers; `clerk status` shows who is down"));
    };
    for group in newest.groups.keys().filter(|group| !without.contains(group)) {
        let nobody = Heard::default();
        let heard = heard.get(group).unwrap_or(&nobody);
        if heard.adopted.is_err() {
            let failure = Failure::new("unavailable", silent(*group, heard) + ": nothing was changed");
            return Err(failure.next(format!(
                "start its servers; if it is lost forever, add --without {group}: configurations that it alone \
                 knows are lost then"
            )));
        }
    }
    let adopted =
        |(group, heard): (&GroupId, &Heard)| Some((heard.adopted.as_ref().ok()?.last()?.num, *group));
    let slowest = counted().filter_map(adopted).min().unwrap_or((newest.num, GroupId(0)));
    let configs = end_of_history(&held, slowest)?;
    begins(counted(), &newest, &configs)?;
    let book = book(counted(), places, &newest, &configs)?;
    Ok(Plan { newest, recovery: Recovery { configs, book } })
}

fn silent(group: GroupId, heard: &Heard) -> String {
    let why = heard.adopted.as_ref().err().map_or("it holds none", String::as_str);
    format!("group {group} does not say what it adopted ({why})")
}

/// Every configuration that somebody holds, by its number.
fn one_history<'a>(
    heard: impl Iterator<Item = (&'a GroupId, &'a Heard)>,
) -> Result<BTreeMap<ConfigNum, Sealed>, Failure> {
    let mut held: BTreeMap<ConfigNum, (GroupId, Sealed)> = BTreeMap::new();
    for (group, heard) in heard {
        for config in heard.adopted.iter().flatten().chain(&heard.known) {
            let (first, known) = held.entry(config.num).or_insert_with(|| (*group, config.clone()));
            if known.place() != config.place() {
                let message = format!(
                    "groups {first} and {group} follow two histories: configuration {} of the one is {}, of the other \
                     {}; nothing was changed",
                    config.num,
                    known.digest(),
                    config.digest()
                );
                return Err(Failure::new("two_histories", message)
                    .next("add --without GROUP for each group of the history that is to be given up"));
            }
        }
    }
    Ok(held.into_iter().map(|(num, (_, config))| (num, config)).collect())
}

/// The newest configurations without a gap, at least from the one after `slowest` on.
fn end_of_history(
    held: &BTreeMap<ConfigNum, Sealed>,
    (slowest, group): (ConfigNum, GroupId),
) -> Result<Vec<Sealed>, Failure> {
    let mut end: Vec<Sealed> = Vec::new();
    let mut bytes = 0;
    for config in held.values().rev() {
        let is_next = end.last().is_none_or(|next| next.num.0 == config.num.0 + 1);
        if is_next && end.last().is_some_and(|next| next.before != config.digest()) {
            let message = format!(
                "configuration {} that somebody holds does not follow the configuration before it that somebody else \
                 holds: nothing was changed",
                config.num.0 + 1
            );
            return Err(Failure::new("two_histories", message)
                .next("add --without GROUP for each group of the history that is to be given up"));
        }
        bytes += config.bytes().len();
        if !is_next || config.num <= slowest && !end.is_empty() && bytes > OLDER_BYTES {
            break;
        }
        end.push(config.clone());
    }
    end.reverse();
    let first = end.first().map(|config| config.num).unwrap_or_default();
    if first.0 > slowest.0 + 1 {
        let message = format!(
            "group {group} is at configuration {slowest} and needs the next one, and no group holds those before {first}: \
             nothing was changed"
        );
        return Err(Failure::new("gap", message)
            .next(format!("start all servers of all groups; or give it up: --without {group}")));
    }
    Ok(end)
}

/// A group that joined and adopted nothing yet can begin only with configuration 0, or with one that does not name it.
fn begins<'a>(
    mut heard: impl Iterator<Item = (&'a GroupId, &'a Heard)>,
    newest: &Sealed,
    configs: &[Sealed],
) -> Result<(), Failure> {
    let first = configs.first().filter(|first| first.num.0 > 0);
    let is_stuck = |(group, heard): &(&GroupId, &Heard)| {
        let named = |config: &Sealed| config.groups.contains_key(group);
        named(newest) && heard.adopted.as_ref().is_ok_and(Vec::is_empty) && first.is_some_and(named)
    };
    let Some((group, _)) = heard.find(is_stuck) else { return Ok(()) };
    let message = format!(
        "group {group} has adopted nothing yet, and no group holds a configuration with which it could begin: \
         nothing was changed"
    );
    Err(Failure::new("gap", message).next(format!("give it up: --without {group}")))
}

/// The newest address book, including every group that one of the configurations names: a lagging
/// group adopts each of them, and may send rows to groups that left since.
fn book<'a>(
    heard: impl Iterator<Item = (&'a GroupId, &'a Heard)>,
    places: &BTreeMap<GroupId, Vec<Address>>,
    newest: &Sealed,
    configs: &[Sealed],
) -> Result<AddressBook, Failure> {
    let books = heard.flat_map(|(_, heard)| &heard.books).filter(|book| book.key == newest.key);
    let mut book = books.max_by_key(|book| book.version).cloned().unwrap_or_default();
    book.key = newest.key;
    for (group, incarnation) in configs.iter().flat_map(|config| &config.groups) {
        if book.incarnation(*group) == Some(*incarnation) {
            continue;
        }
        let Some(addresses) = places.get(group) else {
            let message = format!("the servers of group {group} are not known: nothing was changed");
            return Err(Failure::new("unknown_group", message)
                .next(format!("name its servers: clerk recover-controllers {group}=HOST:PORT,...")));
        };
        book.groups.insert(*group, Registered::new(*incarnation, addresses.clone()));
    }
    Ok(book)
}

#[cfg(test)]
mod tests {
    use clerk::api::Incarnation;
    use clerk::api::config::{Config, Params};

    use super::*;

    /// Configurations 0 to `end` of a history; from 1 on `groups` are joined.
    fn history(end: u64, groups: &[u64]) -> Vec<Sealed> {
        let params = Params { shard_count: 2, ..Params::default() };
        let mut all = vec![Sealed::new(Config::zero(7, params))];
        for num in 1..=end {
            let before = all[all.len() - 1].digest();
            let groups = groups.iter().map(|group| (GroupId(*group), Incarnation(*group))).collect();
            all.push(Sealed::new(Config { num: ConfigNum(num), before, groups, ..Config::zero(7, params) }));
        }
        all
    }

    fn says(configs: &[Sealed]) -> Heard {
        Heard { adopted: Ok(configs.to_vec()), ..Heard::default() }
    }

    fn planned(heard: Vec<(u64, Heard)>, without: &[u64]) -> Result<Plan, Failure> {
        let heard = heard.into_iter().map(|(group, heard)| (GroupId(group), heard)).collect();
        let places = [101, 102].map(|group| (GroupId(group), vec![format!("host:{group}")]));
        plan(&heard, &BTreeMap::from(places), &without.iter().copied().map(GroupId).collect())
    }

    fn numbers(plan: Result<Plan, Failure>) -> Vec<u64> {
        plan.unwrap().recovery.configs.iter().map(|config| config.num.0).collect()
    }

    fn code(plan: Result<Plan, Failure>) -> &'static str {
        plan.unwrap_err().code
    }

    #[test]
    fn the_newest_configuration_that_anybody_holds_wins_and_reaches_back_to_the_slowest_group() {
        let all = history(6, &[101, 102]);
        let heard = || vec![(101, says(&all[3..7])), (102, says(&all[2..4]))];
        assert_eq!(numbers(planned(heard(), &[])), [2, 3, 4, 5, 6]);
        // What a server only heard of counts, too.
        let mut more = vec![(101, says(&all[3..6])), (102, says(&all[3..6]))];
        more[1].1.known.push(all[6].clone());
        assert_eq!(numbers(planned(more, &[])), [3, 4, 5, 6]);
        let book = planned(heard(), &[]).unwrap().recovery.book;
        assert_eq!((book.key, book.addresses(GroupId(102))), (7, &["host:102".to_owned()][..]));
    }

    #[test]
    fn a_group_that_is_named_and_silent_stops_it_unless_it_is_given_up() {
        let all = history(2, &[101, 102]);
        let heard = || vec![(101, says(&all)), (102, Heard::default())];
        assert_eq!(code(planned(heard(), &[])), "unavailable");
        assert_eq!(numbers(planned(heard(), &[102])), [0, 1, 2]);
        assert_eq!(code(planned(vec![(101, Heard::default())], &[])), "nothing_to_recover");
        // One that is not named may be silent: it left, and was switched off.
        let all = history(2, &[101]);
        assert_eq!(numbers(planned(vec![(101, says(&all)), (102, Heard::default())], &[])), [0, 1, 2]);
    }

    #[test]
    fn two_histories_are_not_reconciled_by_guessing() {
        let (one, other) = (history(3, &[101, 102]), history(2, &[101]));
        let heard = || vec![(101, says(&one)), (102, says(&other))];
        assert_eq!(code(planned(heard(), &[])), "two_histories");
        assert_eq!(numbers(planned(heard(), &[102])), [0, 1, 2, 3]);
        // The numbers need not be the same: what a server only heard of follows something else.
        let other = history(4, &[101]);
        let mut heard = vec![(101, says(&one)), (102, says(&one))];
        heard[1].1.known.push(other[4].clone());
        assert_eq!(code(planned(heard, &[])), "two_histories");
    }

    #[test]
    fn a_group_that_could_begin_with_no_configuration_stops_it() {
        let all = history(6, &[101, 102]);
        let heard = |from: usize| vec![(101, says(&all[from..])), (102, says(&[]))];
        assert_eq!(code(planned(heard(3), &[])), "gap");
        assert_eq!(numbers(planned(heard(3), &[102])), [3, 4, 5, 6]);
        assert_eq!(numbers(planned(heard(0), &[])), [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_gap_that_a_group_would_fall_into_is_refused() {
        let all = history(6, &[101, 102]);
        let heard = || vec![(101, says(&all[5..7])), (102, says(&all[1..3]))];
        assert_eq!(code(planned(heard(), &[])), "gap");
        assert_eq!(numbers(planned(heard(), &[102])), [5, 6]);
    }
}
