//! What every server reports about itself, gathered at one moment, and the conclusions.
//!
//! Nothing here is linearizable: it is for people, for `status`, and for waiting until something
//! has settled, which stays true once it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base::clock::{self, Instant};
use clerk::api::config::{AddressBook, Sealed};
use clerk::api::kv::{KvReply, KvRequest};
use clerk::api::placement::Placement;
use clerk::api::status::{CtrlStatus, History, KvStatus, Role, ShardPhase};
use clerk::api::{Address, ConfigNum, GroupId, ShardId};
use clerk::ctrl::CtrlClerk;
use clerk::group::Attempts;
use futures::future::{join, join_all, join3};

use crate::reach::Reach;

/// The controllers answer a question at once or not at all, and so do groups.
const QUERY: Duration = Duration::from_secs(2);
/// So does any server that is asked for its status.
const STATUS: Duration = Duration::from_secs(1);

/// A server's answer, or why there is none.
pub type Answers<T> = Vec<(Address, Result<T, String>)>;

/// What everybody said.
#[derive(Clone)]
pub struct Survey {
    /// The newest configuration known to anybody who answered.
    pub config: Option<Sealed>,
    /// Where the groups are.
    pub book: AddressBook,
    /// The weights and pins in force, if the controllers answered.
    pub placement: Option<Placement>,
    /// The controllers.
    pub controllers: Answers<CtrlStatus>,
    /// Of every group that ever joined, and of those that only run here.
    pub groups: BTreeMap<GroupId, Answers<KvStatus>>,
}

/// The time of one step, if more steps follow it: a part of what is left, and `most` at most.
fn share(until: Instant, most: Duration) -> Duration {
    (until.since(clock::now()) / 3).min(most)
}

/// Asks everybody, in about the time until `until`.
pub async fn survey(reach: &Reach, until: Instant) -> Survey {
    let controllers = reach.ctrl(until).statuses_within(share(until, STATUS)).await;
    let any_up = controllers.iter().any(|(_, status)| status.is_ok());
    let (known, placement) = if any_up {
        let ctrl = reach.ctrl(clock::now().after(share(until, QUERY)));
        let (known, placement) = join(ctrl.query(None), ctrl.placement()).await;
        (known.ok(), placement.ok())
    } else {
        (None, None)
    };
    let known = match known {
        Some(known) => Some(known),
        None => ask_others(reach, any_up, share(until, QUERY)).await,
    };
    let (config, book) = known.map_or((None, AddressBook::default()), |(config, book)| (Some(config), book));
    let limit = until.since(clock::now()).min(STATUS);
    let groups = ask_groups(reach, &book, limit).await;
    Survey { config, book, placement, controllers, groups }
}

/// Every server of every group that ever joined, and of those that only run here.
async fn ask_groups(
    reach: &Reach,
    book: &AddressBook,
    limit: Duration,
) -> BTreeMap<GroupId, Answers<KvStatus>> {
    let registered = book.groups.iter().map(|(group, registered)| (*group, registered.addresses.clone()));
    let mut places: BTreeMap<GroupId, Vec<Address>> = registered.collect();
    for (group, addresses) in reach.known.clone() {
        places.entry(group).or_insert(addresses);
    }
    let asked = places.into_iter().map(|(group, addresses)| async move {
        (group, reach.group(group, addresses).statuses_within(limit).await)
    });
    join_all(asked).await.into_iter().collect()
}

/// Asks everybody at once, so that a server that hangs costs `limit` and no more: for those who look
/// again and again. The groups are asked where `before` knew them. While the controllers do not answer,
/// the configuration stays the one of `before`.
pub async fn again(reach: &Reach, ctrl: &CtrlClerk, before: &Survey, limit: Duration) -> Survey {
    let ctrl = ctrl.clone().with_deadline(limit);
    let asked = join(ctrl.query(None), ctrl.placement());
    let groups = ask_groups(reach, &before.book, limit);
    let (controllers, (known, placement), groups) = join3(ctrl.statuses_within(limit), asked, groups).await;
    let (config, book) = match known {
        Ok((config, book)) => (Some(config), book),
        Err(_) => (before.config.clone(), before.book.clone()),
    };
    Survey { config, book, placement: placement.ok(), controllers, groups }
}

/// Without a leader of the controllers: the newest configuration of any controller, if one is up, and of the groups
/// whose place is known here.
async fn ask_others(reach: &Reach, any_up: bool, limit: Duration) -> Option<(Sealed, AddressBook)> {
    let until = clock::now().after(limit);
    let groups = reach.known.clone().into_iter();
    let asked = groups.map(|(group, addresses)| async move {
        let client = reach.group(group, addresses);
        match client.ask(&KvRequest::Config, until, &mut Attempts::repeatable()).await {
            Ok(KvReply::Config(config, book)) => Some((config, book)),
            _ => None,
        }
    });
    let ctrl = reach.ctrl(until);
    let hearsay =
        async { if any_up { clock::timeout(limit, ctrl.hearsay()).await.ok()?.ok() } else { None } };
    let (of_controllers, of_groups) = join(hearsay, join_all(asked)).await;
    of_groups.into_iter().flatten().chain(of_controllers).max_by_key(|(config, _)| config.num)
}

/// The replica that speaks for its group: the leader of the newest term, or else the most advanced one whose table is
/// not known to be wrong.
pub fn speaker(answers: &Answers<KvStatus>) -> Option<&KvStatus> {
    let answered = answers.iter().filter_map(|(_, status)| status.as_ref().ok());
    answered.max_by_key(|status| {
        let leads = status.replica.role == Role::Leader;
        let sound = !status.replica.table_bad;
        (leads, if leads { status.replica.term } else { 0 }, sound, status.config, status.replica.applied)
    })
}

impl Survey {
    /// Whether a group serves.
    pub fn is_joined(&self, group: GroupId) -> bool {
        self.config.as_ref().is_some_and(|config| config.groups.contains_key(&group))
    }

    /// What must still happen until configuration `num` (or a later one) is settled, in words, the
    /// most telling first; empty: it is settled. `leaving`: groups that have to be drained and
    /// heard.
    pub fn pending(&self, num: ConfigNum, leaving: &BTreeSet<GroupId>) -> Vec<String> {
        let Some(config) = self.config.as_ref().filter(|config| config.num >= num) else {
            return vec![format!("configuration {num} is not known yet: do the controllers have a leader?")];
        };
        // Causes that block everything else come first.
        let (mut causes, mut pending) = (Vec::new(), Vec::new());
        let mut controllers =
            self.controllers.iter().filter_map(|(_, status)| status.as_ref().ok()).peekable();
        if controllers.peek().is_some() && controllers.all(|status| status.recovering) {
            causes.push("the controllers wait to be recovered: clerk recover-controllers".to_owned());
        }
        for (group, answers) in &self.groups {
            let joined = config.groups.contains_key(group);
            let Some(status) = speaker(answers) else {
                // A group that left may be stopped; one that is to be stopped has to say that it may.
                if joined || leaving.contains(group) {
                    causes.push(format!("group {group}: no server answers"));
                }
                continue;
            };
            if !joined && status.config < num && status.shards.is_empty() && !leaving.contains(group) {
                // Started, but never joined, or left long ago: it has nothing to do with this.
                continue;
            }
            causes.extend(trouble(*group, answers));
            let before = pending.len();
            pending_of_group(config, num, *group, status, &mut pending);
            if status.replica.role != Role::Leader && pending.len() > before {
                let up = answers.iter().filter(|(_, status)| status.is_ok()).count();
                causes.push(format!("group {group}: no leader, {up} of {} servers answer", answers.len()));
            }
        }
        for group in config.groups.keys().filter(|group| !self.groups.contains_key(group)) {
            causes.push(format!("group {group}: its servers are not known"));
        }
        causes.extend(pending);
        causes
    }

    /// Shards that wait at a group for a next owner.
    pub fn parked(&self, group: GroupId) -> usize {
        let status = self.groups.get(&group).and_then(speaker);
        let parked = |status: &KvStatus| {
            status.shards.iter().filter(|shard| shard.phase == ShardPhase::Parked).count()
        };
        status.map_or(0, parked)
    }
}

/// Why a group adopts nothing, in words: it lost its data, or follows another history than the controllers.
pub fn trouble(group: GroupId, answers: &Answers<KvStatus>) -> Option<String> {
    let mut answered = answers.iter().filter_map(|(_, status)| status.as_ref().ok());
    let place = |status: &KvStatus| match status.digest {
        Some(digest) => format!("configuration {} ({digest})", status.config),
        None => "no configuration".to_owned(),
    };
    answered.find_map(|status| match (&status.lost, &status.history) {
        (Some(registered), _) => {
            let own = status.incarnation.unwrap_or_default();
            let (joined, now) = (registered.0, own.0);
            Some(format!(
                "group {group} LOST ITS DATA: it joined as {joined:016x} and is now {now:016x}; it serves nothing"
            ))
        }
        (None, History::Same) => None,
        (None, history) => Some(format!("group {group} at {} is {history}", place(status))),
    })
}

/// What a group has still to do until configuration `num` is settled: it adopted that one or a later one, and no shard
/// takes part in its move or an older one. This comes true once and stays. `config`: the newest one.
fn pending_of_group(
    config: &Sealed,
    num: ConfigNum,
    group: GroupId,
    status: &KvStatus,
    pending: &mut Vec<String>,
) {
    for shard in status.shards.iter().filter(|shard| shard.num.is_some_and(|move_| move_ <= num)) {
        let peer = shard.peer.map_or_else(|| "nobody".to_owned(), |peer| format!("group {peer}"));
        let rows = shard.progress.unwrap_or(0);
        let (of, shard, phase) = (shard.rows, shard.shard, shard.phase);
        match phase {
            ShardPhase::Awaiting => {
                pending.push(format!("shard {shard}: {peer} -> group {group}, {rows} rows there"));
            }
            ShardPhase::Leaving => {
                pending.push(format!("shard {shard}: group {group} -> {peer}, offered and served meanwhile"));
            }
            ShardPhase::Handing => {
                pending.push(format!("shard {shard}: group {group} -> {peer}, {rows} of {of} rows"));
            }
            ShardPhase::Serving | ShardPhase::Parked => {}
        }
    }
    if status.config < num {
        pending.push(format!("group {group}: at configuration {}, not yet at {num}", status.config));
    }
    if status.config == config.num {
        let holds = |shard: ShardId| {
            status.shards.iter().any(|held| held.shard == shard && held.phase != ShardPhase::Parked)
        };
        let missing = config
            .assignments()
            .find(|(shard, assignment)| assignment.owner == Some(group) && !holds(*shard));
        if let Some((shard, _)) = missing {
            pending.push(format!("shard {shard}: group {group} does not serve it yet"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clerk::api::config::Place;
    use clerk::api::status::{History, KvStatus, ShardPhase};
    use clerk::api::{ConfigNum, Digest, GroupId, Incarnation};

    use crate::sample::{answers, config, survey};

    const NONE: BTreeSet<GroupId> = BTreeSet::new();

    #[test]
    fn settled_is_when_every_owner_serves_and_nobody_hands_over() {
        use ShardPhase::{Awaiting, Handing, Serving};
        let to = config(2, &[Some(1), Some(2)]);
        let pending = |groups| survey(to.clone(), groups).pending(ConfigNum(2), &NONE);
        let done = vec![(1, answers(1, 2, &[(0, Serving)])), (2, answers(2, 2, &[(1, Serving)]))];
        assert_eq!(pending(done), Vec::<String>::new());
        let moving =
            vec![(1, answers(1, 2, &[(0, Serving), (1, Handing)])), (2, answers(2, 2, &[(1, Awaiting)]))];
        assert!(pending(moving)[0].starts_with("shard 1: group 1 ->"));
        let late = vec![(1, answers(1, 2, &[(0, Serving)])), (2, answers(2, 1, &[]))];
        assert_eq!(pending(late), ["group 2: at configuration 1, not yet at 2"]);
        let down = vec![(1, answers(1, 2, &[(0, Serving)])), (2, Vec::new())];
        assert_eq!(pending(down), ["group 2: no server answers"]);
    }

    #[test]
    fn an_older_configuration_than_the_one_waited_for_settles_nothing() {
        let survey = survey(config(1, &[None]), Vec::new());
        assert_eq!(survey.pending(ConfigNum(2), &NONE).len(), 1);
    }

    #[test]
    fn a_group_that_lost_its_data_or_follows_another_history_is_never_settled() {
        let here = config(0, &[None]);
        let pending = |change: fn(&mut KvStatus)| {
            let mut one = answers(1, 0, &[]);
            if let Some(Ok(status)) = one.first_mut().map(|(_, status)| status.as_mut()) {
                change(status);
            }
            survey(here.clone(), vec![(1, one)]).pending(ConfigNum(0), &NONE)
        };
        assert!(pending(|_| {}).is_empty());
        let lost = pending(|status| status.lost = Some(Incarnation(5)));
        assert!(lost[0].contains("LOST ITS DATA"), "{lost:?}");
        let ahead = pending(|status| status.history = History::Ahead { newest: ConfigNum(0) });
        assert!(ahead[0].contains("ahead of the controllers"), "{ahead:?}");
        let theirs = Place { num: ConfigNum(0), digest: Digest(9) };
        let other = pending(move |status| {
            status.history =
                History::Other { theirs: Place { num: ConfigNum(0), digest: Digest(9) }, key: 8 };
        });
        assert!(other[0].contains(&theirs.to_string()), "{other:?}");
    }

    #[test]
    fn a_group_that_left_is_waited_for_only_if_it_is_to_be_stopped() {
        use ShardPhase::{Handing, Parked, Serving};
        let to = config(3, &[Some(1)]);
        let one = || (1, answers(1, 3, &[(0, Serving)]));
        let leaving = BTreeSet::from([GroupId(2)]);
        let stopped = survey(to.clone(), vec![one(), (2, Vec::new())]);
        assert!(stopped.pending(ConfigNum(3), &NONE).is_empty());
        assert_eq!(stopped.pending(ConfigNum(3), &leaving).len(), 1);
        let lagging = survey(to.clone(), vec![one(), (2, answers(2, 2, &[]))]);
        assert!(lagging.pending(ConfigNum(3), &NONE).is_empty());
        assert_eq!(lagging.pending(ConfigNum(3), &leaving).len(), 1);
        let draining = survey(to, vec![one(), (2, answers(2, 3, &[(0, Handing)]))]);
        assert!(!draining.pending(ConfigNum(3), &NONE).is_empty());
        let parked = survey(config(4, &[None]), vec![(1, answers(1, 4, &[(0, Parked)]))]);
        assert!(parked.pending(ConfigNum(4), &BTreeSet::from([GroupId(1)])).is_empty());
        assert_eq!(parked.parked(GroupId(1)), 1);
    }
}
