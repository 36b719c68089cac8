//! What a replica knows of the cluster around its group.

use std::collections::BTreeMap;
use std::sync::Arc;

use clerk::api::config::{AddressBook, Assignment, Place, Sealed};
use clerk::api::ctrl::CtrlRequest;
use clerk::api::status::History;
use clerk::api::{ConfigNum, Incarnation};

/// Assignments in the configurations that wait to be adopted: bounds their memory.
const KEPT_ASSIGNMENTS_MAX: usize = 65_536;
pub(super) const KEPT_CONFIGS_MAX: usize = 64;
/// Bytes of configurations that go through the log together.
const RUN_BYTES_MAX: usize = 1 << 20;

/// What a replica knows of the cluster around its group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Knowledge {
    /// The newest configuration.
    pub(crate) newest: Option<Sealed>,
    /// Configurations, from the next one to adopt on.
    pub(super) upcoming: BTreeMap<ConfigNum, Sealed>,
    /// The number where a group begins that has adopted nothing yet: 0, unless recovered
    /// controllers know nothing older.
    pub(super) first: ConfigNum,
    /// The newest addresses.
    pub(crate) book: Arc<AddressBook>,
    /// MiB a second that this group may send of shards that move; none: no limit.
    pub(crate) move_rate: Option<u32>,
    /// How the group's history compares with the controllers'.
    pub(crate) history: History,
    /// The incarnation that the cluster knows for the group, and the one that is here, if they
    /// differ.
    pub(crate) lost: Option<(Incarnation, Incarnation)>,
}

/// Whether a configuration, if it has the number `next`, follows the adopted one.
fn follows(adopted: Option<Place>, next: ConfigNum, config: &Sealed) -> bool {
    let same = adopted.is_none_or(|adopted| config.before == adopted.digest);
    config.num != next || same || base::mutant!("adopt-ignores-digest")
}

impl Knowledge {
    /// The number to adopt next.
    fn next_num(&self, adopted: Option<Place>) -> ConfigNum {
        adopted.map_or(self.first, |adopted| ConfigNum(adopted.num.0.saturating_add(1)))
    }

    /// The configuration to adopt next, if it is known.
    pub(crate) fn next(&self, adopted: Option<Place>) -> Option<Sealed> {
        base::mutant!("skip-configuration", return self.upcoming.values().next_back().cloned());
        let next = self.next_num(adopted);
        self.upcoming.get(&next).filter(|config| follows(adopted, next, config)).cloned()
    }

    /// The configurations to adopt now: the next one and those that follow it, up to a number of
    /// bytes.
    pub(crate) fn run(&self, adopted: Option<Place>) -> Vec<Sealed> {
        let (mut run, mut last, mut bytes) = (Vec::new(), adopted, 0);
        // The caller judges the first one. A configuration that this build does not understand must
        // not be applied.
        while let Some(config) = self.next(last).filter(|next| run.is_empty() || next.is_understood()) {
            bytes += config.shards.len() * size_of::<Assignment>();
            last = Some(config.place());
            run.push(config);
            if bytes >= RUN_BYTES_MAX || run.len() >= KEPT_CONFIGS_MAX {
                break;
            }
        }
        run
    }

    /// The last of the configurations that may be adopted in sequence.
    fn last(&self, adopted: Option<Place>) -> Option<Place> {
        let next = self.next_num(adopted);
        let run = self.upcoming.range(next..).zip(next.0..);
        let run =
            run.take_while(|((num, config), expected)| num.0 == *expected && follows(adopted, next, config));
        run.last().map(|((_, config), _)| config.place()).or(adopted)
    }

    /// Whether to ask now for the configurations between the kept ones and the newest. The group
    /// adopts them quickly, and would wait for an answer each time.
    pub(super) fn runs_dry(&self, adopted: Option<Place>) -> bool {
        let Some(newest) = &self.newest else { return false };
        let next = self.next_num(adopted);
        let last = self.last(adopted).map_or(next.0, |last| last.num.0.saturating_add(1));
        newest.num.0 >= last && last.saturating_sub(next.0) <= self.kept() as u64 / 4
    }

    /// The number of configurations that wait to be adopted.
    fn kept(&self) -> usize {
        let assignments = self.newest.as_ref().map_or(1, |config| config.shards.len().max(1));
        (KEPT_ASSIGNMENTS_MAX / assignments).clamp(2, KEPT_CONFIGS_MAX)
    }

    /// The request for the configurations that are missing.
    pub(super) fn question(&self, adopted: Option<Place>) -> CtrlRequest {
        let book = self.book.version;
        let newest = self.newest.as_ref().map(Sealed::place).or(adopted);
        let after = if self.runs_dry(adopted) { self.last(adopted) } else { newest };
        after.map_or(CtrlRequest::Query(Some(self.first)), |after| watch(after, book))
    }

    /// Forgets every configuration that was not adopted.
    pub(super) fn forget(&mut self, adopted: Option<Place>) {
        self.upcoming.clear();
        self.newest = self.newest.take().filter(|newest| Some(newest.place()) == adopted);
    }

    /// Stores an answer, and returns whether anything in it is new.
    pub(super) fn learn(&mut self, adopted: Option<Place>, configs: Vec<Sealed>, book: AddressBook) -> bool {
        let (mut changed, next) = (false, self.next_num(adopted));
        self.upcoming.retain(|num, config| *num >= next && follows(adopted, next, config));
        for config in configs {
            if self.newest.as_ref().is_none_or(|newest| newest.num < config.num) {
                self.newest = Some(config.clone());
                changed = true;
            }
            let awaited = config.num >= next && follows(adopted, next, &config);
            if awaited && !self.upcoming.contains_key(&config.num) {
                self.upcoming.insert(config.num, config);
                changed = true;
            }
        }
        while self.upcoming.len() > self.kept() {
            self.upcoming.pop_last();
        }
        if book.version > self.book.version || self.book.key == 0 && book.key != 0 {
            self.book = Arc::new(book);
            changed = true;
        }
        changed
    }
}

fn watch(Place { num: after, digest }: Place, book: u64) -> CtrlRequest {
    CtrlRequest::Watch { after, digest, book }
}
