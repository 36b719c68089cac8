//! What a replica knows of the cluster around its group.

use std::collections::BTreeMap;
use std::sync::Arc;

use clerk::api::config::{AddressBook, Place, Sealed};
use clerk::api::ctrl::CtrlRequest;
use clerk::api::status::History;
use clerk::api::{ConfigNum, Incarnation};

/// Assignments kept in configurations that wait for their turn: bounds their memory.
const KEPT_ASSIGNMENTS_MAX: usize = 65_536;
pub(super) const KEPT_CONFIGS_MAX: usize = 64;

/// What a replica knows of the cluster around its group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Knowledge {
    /// The newest configuration.
    pub(crate) newest: Option<Sealed>,
    /// Configurations from the next one to adopt on.
    pub(super) upcoming: BTreeMap<ConfigNum, Sealed>,
    /// Where a group that adopted nothing yet begins: 0, unless recovered controllers know nothing older.
    pub(super) first: ConfigNum,
    /// The newest addresses.
    pub(crate) book: Arc<AddressBook>,
    /// How what the group adopted compares with the controllers'.
    pub(crate) history: History,
    /// The life of the group's data that the cluster knows, and the one that is here, if they differ.
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

    /// The question that brings what is missing.
    pub(super) fn question(&self, adopted: Option<Place>) -> CtrlRequest {
        let book = self.book.version;
        let newest = self.newest.as_ref().map(Sealed::place);
        let gap =
            newest.map(|newest| newest.num) >= Some(self.next_num(adopted)) && self.next(adopted).is_none();
        match (adopted, newest) {
            (Some(after), None) => watch(after, book),
            (Some(after), _) if gap => watch(after, book),
            (None, None) => CtrlRequest::Query(Some(self.first)),
            (None, _) if gap => CtrlRequest::Query(Some(self.first)),
            (_, Some(newest)) => watch(newest, book),
        }
    }

    /// Forgets every configuration that was not adopted.
    pub(super) fn forget(&mut self, adopted: Option<Place>) {
        self.upcoming.clear();
        self.newest = self.newest.take().filter(|newest| Some(newest.place()) == adopted);
    }

    /// Takes in an answer; whether anything is new.
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
        let assignments = self.newest.as_ref().map_or(1, |config| config.shards.len().max(1));
        let kept = (KEPT_ASSIGNMENTS_MAX / assignments).clamp(2, KEPT_CONFIGS_MAX);
        while self.upcoming.len() > kept {
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
