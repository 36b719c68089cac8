//! Which commands that wait for the applier are marked as saved.

use base::clock::Instant;

use super::channels::Item;
use super::marks::Step;
use super::waiter::Waiter;

/// Which of the items that wait for the applier have been marked as saved: all before this place.
#[derive(Debug, Default)]
pub(super) struct Saved(usize);

impl Saved {
    /// Marks the others, at the end of a save.
    pub(super) fn mark<P: Waiter, Q>(&mut self, items: &[Item<P, Q>], at: Instant) {
        for item in items.get(self.0..).unwrap_or_default() {
            if let Item::Proposed(_, waiter) = item {
                waiter.marks(|marks| marks.set_at(Step::Saved, at));
            }
        }
        self.0 = items.len();
    }

    /// The items are handed on.
    pub(super) fn clear(&mut self) {
        self.0 = 0;
    }
}
