//! What a leader measures of its members, in bytes.
//!
//! At each tick a leader notes how many bytes it has written, and up to which entry. So it knows
//! roughly how many bytes a member lacks, also of entries that are in files.

use std::collections::{BTreeMap, VecDeque};

use super::pace::{Bucket, Demand, Member};
use crate::types::{Index, NodeId};

/// Places that are remembered; when there are more, every second one is forgotten.
const PLACES_MAX: usize = 4096;

/// A leader's measures.
#[derive(Debug)]
pub(super) struct Pacing {
    /// Bytes of entries that were appended, with those that were in memory at first.
    pub(super) written: u64,
    /// Ends of the log, and how many bytes were written up to there.
    places: VecDeque<(Index, u64)>,
    /// The same at the last ticks.
    pub(super) recent: VecDeque<Index>,
    pub(super) demand: Demand,
    pub(super) members: BTreeMap<NodeId, Member>,
    /// Only while a pace holds.
    pub(super) bucket: Option<Bucket>,
    /// How often what is sent at once to members that catch up is halved.
    pub(super) halvings: u32,
}

impl Pacing {
    /// Of a new leader, whose log has so many bytes after the marker.
    pub(super) fn new(marker: Index, last: Index, bytes: usize) -> Self {
        let written = bytes as u64;
        Self {
            written,
            places: VecDeque::from([(marker, 0), (last, written)]),
            recent: VecDeque::new(),
            demand: Demand::default(),
            members: BTreeMap::new(),
            bucket: None,
            halvings: 0,
        }
    }

    /// Bytes that were written up to a position, roughly.
    pub(super) fn written_up_to(&self, index: Index) -> u64 {
        let at = self.places.partition_point(|(place, _)| *place <= index);
        let before = at.checked_sub(1).and_then(|at| self.places.get(at));
        match (before, self.places.get(at)) {
            (Some((from, low)), Some((to, high))) => {
                let part = u128::from(high - low) * u128::from(index.0 - from.0) / u128::from(to.0 - from.0);
                low + u64::try_from(part).unwrap_or(0)
            }
            (Some(_), None) => self.written,
            (None, _) => 0,
        }
    }

    /// The log ends here now.
    pub(super) fn note(&mut self, last: Index, recent_ticks: usize) {
        self.recent.push_back(last);
        while self.recent.len() > recent_ticks {
            self.recent.pop_front();
        }
        if self.places.back().is_none_or(|(place, _)| *place < last) {
            self.places.push_back((last, self.written));
        }
        if self.places.len() > PLACES_MAX {
            let (mut number, count) = (0, self.places.len());
            self.places.retain(|_| {
                number += 1;
                number % 2 == 1 || number == count
            });
        }
    }

    /// A command was appended.
    pub(super) fn note_written(&mut self, bytes: usize, is_paced: bool) {
        self.written += bytes as u64;
        if let Some(bucket) = self.bucket.as_mut().filter(|_| is_paced) {
            bucket.take(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{PLACES_MAX, Pacing};
    use crate::types::Index;

    #[test]
    fn bytes_up_to_a_position_are_known_roughly_however_long_a_leader_leads() {
        let mut pacing = Pacing::new(Index(10), Index(20), 1000);
        assert_eq!([5, 10, 15, 20, 21].map(|at| pacing.written_up_to(Index(at))), [0, 0, 500, 1000, 1000]);
        for tick in 1..=100_000_u64 {
            pacing.written += 100;
            pacing.note(Index(20 + 2 * tick), 10);
        }
        assert!(pacing.places.len() <= PLACES_MAX);
        for at in [5555, 100_000, 199_999, 200_020] {
            let (found, exact) = (pacing.written_up_to(Index(at)), 1000 + (at - 20) * 50);
            // The first entries are twice as long as the others.
            assert!(found.abs_diff(exact) <= exact / 100, "{found} instead of {exact}");
        }
    }
}
