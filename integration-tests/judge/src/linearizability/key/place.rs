//! Places everything in one order and checks that order against real time.
//!
//! Positions, ascending: slot 0 (absent from the start), then for each version its write, the reads
//! that saw it, its delete, and the slot after it, where the key may be absent until the next
//! version.

use std::ops::Range;

use super::super::Anomaly;
use super::versions::{Before, Version, Versions};
use crate::history::{Op, Operation};

/// The state between two versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    /// The key was absent: at the start, or because an acknowledged delete says so.
    Absent,
    /// It must have been absent, through a delete of unknown outcome.
    MustBreak,
    /// It may have been absent, through such a delete.
    MayBreak,
    /// It was not absent: the next version overwrote this one.
    Closed,
}

struct Place<'a> {
    versions: &'a Versions<'a>,
    numbers: Vec<u64>,
    slots: Vec<Slot>,
    /// For each slot: the latest call of any operation before it, and that operation.
    latest_call: Vec<(u64, Option<&'a Operation>)>,
    /// For each slot: the earliest end of any operation after it, and that operation.
    earliest_end: Vec<(u64, Option<&'a Operation>)>,
    /// The slot of each operation of `versions.absent`.
    absent_slots: Vec<usize>,
    /// Slots whose gap is explained by writes of unknown outcome.
    filled: Vec<bool>,
}

/// Checks that an order exists. An error is certain. Deletes and writes of unknown outcome may
/// explain gaps and absences. Which of them explains which is chosen greedily, in two ways; if both
/// fail, the result is a suspicion.
pub(super) fn check(versions: &Versions<'_>) -> Result<Option<Anomaly>, Anomaly> {
    let attempt = |gaps_first: bool| {
        let mut place = Place::new(versions);
        place.check_sweep(&place.written())?;
        let mut open = place.explain_unwritten()?;
        if gaps_first {
            place.fill_gaps(&mut open);
        }
        place.place_absent()?;
        place.fill_gaps(&mut open);
        Ok(place)
    };
    let suspicion = |place: Place<'_>| {
        let mut items = place.written();
        for (operation, slot) in versions.absent.iter().zip(&place.absent_slots) {
            items.push((slot * 4, operation));
        }
        place.match_deletes().and_then(|()| place.check_sweep(&items)).err()
    };
    match suspicion(attempt(true)?) {
        None => Ok(None),
        Some(anomaly) => Ok(suspicion(attempt(false)?).map(|_| anomaly)),
    }
}

impl<'a> Place<'a> {
    fn new(versions: &'a Versions<'a>) -> Self {
        let numbers: Vec<u64> = versions.known.keys().copied().collect();
        let mut place = Self {
            versions,
            slots: vec![Slot::Absent],
            latest_call: vec![(0, None)],
            earliest_end: vec![(u64::MAX, None)],
            absent_slots: Vec::new(),
            filled: vec![false; numbers.len() + 1],
            numbers,
        };
        let slots: Vec<Slot> = (1..=place.numbers.len()).map(|slot| place.slot(slot)).collect();
        place.slots.extend(slots);
        place.bounds();
        place
    }

    fn version(&self, position: usize) -> &'a Version<'a> {
        &self.versions.known[&self.numbers[position]]
    }

    /// The state before the version at position `slot`.
    fn slot(&self, slot: usize) -> Slot {
        if self.version(slot - 1).deleted.is_some() {
            return Slot::Absent;
        }
        match self.numbers.get(slot).map(|number| self.versions.known[number].before) {
            Some(Before::Absent) => Slot::MustBreak,
            Some(Before::Present) => Slot::Closed,
            Some(Before::Unknown) | None => Slot::MayBreak,
        }
    }

    fn operations(version: &'a Version<'a>) -> impl Iterator<Item = &'a Operation> {
        version.writer.into_iter().chain(version.seen.iter().copied()).chain(version.deleted)
    }

    fn bounds(&mut self) {
        for position in 0..self.numbers.len() {
            let latest = Self::operations(self.version(position)).map(|one| (one.call_ns, Some(one)));
            let bound = latest.fold(self.latest_call[position], |a, b| if b.0 > a.0 { b } else { a });
            self.latest_call.push(bound);
        }
        self.earliest_end = vec![(u64::MAX, None); self.numbers.len() + 1];
        for position in (0..self.numbers.len()).rev() {
            let earliest = Self::operations(self.version(position)).map(|one| (one.end_ns(), Some(one)));
            let start = self.earliest_end[position + 1];
            self.earliest_end[position] = earliest.fold(start, |a, b| if b.0 < a.0 { b } else { a });
        }
    }

    /// All operations except those that found the key missing, with their positions.
    fn written(&self) -> Vec<(usize, &'a Operation)> {
        let mut items = Vec::new();
        for position in 0..self.numbers.len() {
            let version = self.version(position);
            items.extend(version.writer.map(|write| (position * 4 + 1, write)));
            items.extend(version.seen.iter().map(|read| (position * 4 + 2, *read)));
            items.extend(version.deleted.map(|delete| (position * 4 + 3, delete)));
        }
        items
    }

    /// Gives a slot to every operation that found the key missing. Both ends of the range of
    /// possible slots grow with time, so the slots that need a delete of unknown outcome are a
    /// smallest set of points that stabs all ranges.
    fn place_absent(&mut self) -> Result<(), Anomaly> {
        let mut ranges = Vec::new();
        for operation in &self.versions.absent {
            let low = self.earliest_end.partition_point(|bound| bound.0 < operation.call_ns);
            let high = self.latest_call.partition_point(|bound| bound.0 <= operation.end_ns());
            if low >= high {
                let before = self.latest_call[low].1.into_iter();
                let later = low.checked_sub(1).and_then(|slot| self.earliest_end[slot].1).into_iter();
                let involved: Vec<_> = std::iter::once(*operation).chain(later).chain(before).collect();
                let what = "the key was found missing although it had been written before and was not deleted in time";
                return Err(Anomaly::new(what, &involved));
            }
            ranges.push((high - 1, low, *operation));
        }
        ranges.sort_by_key(|(high, low, _)| (*high, *low));
        for (high, low, operation) in &ranges {
            let is_absent = |slot: &usize| matches!(self.slots[*slot], Slot::Absent | Slot::MustBreak);
            if (*low..=*high).any(|slot| is_absent(&slot)) {
                continue;
            }
            match (*low..=*high).rev().find(|slot| self.slots[*slot] == Slot::MayBreak) {
                Some(slot) => self.slots[slot] = Slot::MustBreak,
                None => {
                    let what = "the key was found missing although nobody can have deleted it";
                    let near = self.latest_call[*high].1.into_iter();
                    let involved: Vec<_> = std::iter::once(*operation).chain(near).collect();
                    return Err(Anomaly::new(what, &involved));
                }
            }
        }
        for operation in &self.versions.absent {
            let low = self.earliest_end.partition_point(|bound| bound.0 < operation.call_ns);
            let is_absent = |slot: &usize| matches!(self.slots[*slot], Slot::Absent | Slot::MustBreak);
            let slot = (low..self.slots.len()).find(is_absent).unwrap_or(low);
            self.absent_slots.push(slot);
        }
        Ok(())
    }

    /// Versions that somebody saw and whose writer is unknown need one write of unknown outcome
    /// each. The latest write that was called in time is taken: earlier ones fit in more places.
    fn explain_unwritten(&self) -> Result<Vec<&'a Operation>, Anomaly> {
        let mut open = self.versions.open_writes.clone();
        open.sort_by_key(|write| write.call_ns);
        for slot in 0..self.numbers.len() {
            let (number, version) = (self.numbers[slot], self.version(slot));
            if version.writer.is_some() {
                continue;
            }
            let deadline = self.earliest_end[slot].0;
            if take_latest(&mut open, 1, deadline, number - 1..number).is_none() {
                let follower = self.numbers.get(slot + 1).and_then(|next| self.versions.known[next].writer);
                let involved: Vec<_> = Self::operations(version).chain(follower).collect();
                return Err(Anomaly::new(format!("nobody can have written version {number}"), &involved));
            }
        }
        Ok(open)
    }

    /// A gap in the version numbers is explained by writes of unknown outcome or by a delete (a key
    /// that is created again may start anywhere above). The smallest gaps come first, to save
    /// deletes.
    fn fill_gaps(&mut self, open: &mut Vec<&'a Operation>) {
        let gap = |slot: usize| self.numbers[slot] - self.numbers[slot - 1] - 1;
        let mut gaps: Vec<(u64, usize)> = (1..self.numbers.len())
            .filter(|slot| self.slots[*slot] == Slot::MayBreak && gap(*slot) > 0 && !self.filled[*slot])
            .map(|slot| (gap(slot), slot))
            .collect();
        gaps.sort_unstable();
        for (need, slot) in gaps {
            let between = self.numbers[slot - 1]..self.numbers[slot] - 1;
            match take_latest(open, need, self.earliest_end[slot].0, between) {
                Some(()) => self.filled[slot] = true,
                None => self.slots[slot] = Slot::MustBreak,
            }
        }
    }

    /// Each break that no acknowledged delete explains needs its own delete of unknown outcome,
    /// called before anything after it had ended.
    fn match_deletes(&self) -> Result<(), Anomaly> {
        let mut deadlines: Vec<(u64, usize)> = (1..self.slots.len())
            .filter(|slot| self.slots[*slot] == Slot::MustBreak)
            .map(|slot| (self.deadline(slot), slot))
            .collect();
        deadlines.sort_unstable();
        let mut deletes = self.versions.open_deletes.clone();
        deletes.sort_by_key(|delete| delete.call_ns);
        for (position, (deadline, slot)) in deadlines.iter().enumerate() {
            if deletes.get(position).is_none_or(|delete| delete.call_ns > *deadline) {
                let (from, to) = (self.numbers[slot - 1], self.numbers.get(*slot));
                let what = match to {
                    Some(to) if to - from > 1 => {
                        format!("nothing explains the gap between versions {from} and {to}: writes were lost")
                    }
                    Some(to) => format!("version {to} starts anew although nobody deleted version {from}"),
                    None => format!("the key was found missing although nobody deleted version {from}"),
                };
                let later = self.earliest_end[*slot].1.or(self.latest_call[*slot].1);
                let seat = self.absent_slots.iter().position(|seat| seat == slot);
                let involved = later.into_iter().chain(seat.map(|at| self.versions.absent[at]));
                return Err(Anomaly::new(what, &involved.collect::<Vec<_>>()));
            }
        }
        Ok(())
    }

    fn deadline(&self, slot: usize) -> u64 {
        let seated = self.versions.absent.iter().zip(&self.absent_slots);
        let absent = seated.filter(|(_, seat)| **seat == slot).map(|(operation, _)| operation.end_ns());
        absent.fold(self.earliest_end[slot].0, u64::min)
    }

    /// No operation may come after one that began after it had returned.
    fn check_sweep(&self, items: &[(usize, &'a Operation)]) -> Result<(), Anomaly> {
        let mut items = items.to_vec();
        items.sort_by_key(|(position, operation)| (*position, operation.call_ns));
        let mut latest: Option<&Operation> = None;
        for group in items.chunk_by(|a, b| a.0 == b.0) {
            for (_, operation) in group {
                if let Some(earlier) = latest.filter(|earlier| operation.end_ns() < earlier.call_ns) {
                    return Err(Anomaly::new(against_time(earlier, operation), &[operation, earlier]));
                }
            }
            let newest = group.iter().map(|(_, operation)| *operation).max_by_key(|one| one.call_ns);
            latest = latest.into_iter().chain(newest).max_by_key(|one| one.call_ns);
        }
        Ok(())
    }
}

/// Takes `need` of the `open` writes that fit there and were called by `deadline`; none if there
/// are not enough. It takes conditional puts that expect a version in `expected` first, because
/// they fit nowhere else, then the latest ones.
fn take_latest(open: &mut Vec<&Operation>, need: u64, deadline: u64, expected: Range<u64>) -> Option<()> {
    let pinned = |at: &usize| open[*at].op == Op::Cas && open[*at].expected_version.unwrap_or_default() > 0;
    let fits = |at: &usize| expected.contains(&open[*at].expected_version.unwrap_or_default());
    let need = usize::try_from(need).ok().filter(|need| *need <= open.len())?;
    let (cas, free): (Vec<usize>, Vec<usize>) =
        (0..open.len()).rev().filter(|at| open[*at].call_ns <= deadline).partition(pinned);
    let mut chosen: Vec<usize> = cas.into_iter().filter(fits).chain(free).take(need).collect();
    if chosen.len() < need {
        return None;
    }
    chosen.sort_unstable();
    for at in chosen.into_iter().rev() {
        open.remove(at);
    }
    Some(())
}

/// By its version, `earlier` comes before `later`, but it began when `later` had returned.
fn against_time(earlier: &Operation, later: &Operation) -> String {
    let shown = |operation: &Operation| operation.version.unwrap_or_default();
    match (earlier.op, later.op) {
        (Op::Get, _) if shown(earlier) >= shown(later) => {
            format!(
                "a stale read: it saw version {} although that had been deleted before it began",
                shown(earlier)
            )
        }
        (Op::Get, _) => format!(
            "a stale read: it saw version {} although version {} existed before it began",
            shown(earlier),
            shown(later)
        ),
        (_, Op::Get) => format!("a read saw version {} before the write that led to it began", shown(later)),
        _ => format!(
            "the later write has the smaller version: {} after {} had been acknowledged",
            shown(earlier),
            shown(later)
        ),
    }
}
