//! The steps of a save and a repair, for tests that look at the files in between. Nothing of it is
//! left in a normal build.

/// Something was just done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A record was written.
    Written,
    /// It is durable.
    Synced,
    /// Its mark was written.
    Marked,
    /// A repair has begun to make a new log.
    RepairBegun,
    /// The new log is whole and durable.
    RepairWritten,
    /// The damaged log has gone out of its place.
    RepairHalfway,
    /// The new log is in its place.
    Repaired,
}

#[cfg(not(any(test, feature = "mutants")))]
pub(super) fn step(_step: Step) {}

#[cfg(any(test, feature = "mutants"))]
pub(super) use watched::step;
#[cfg(any(test, feature = "mutants"))]
pub use watched::watch;

#[cfg(any(test, feature = "mutants"))]
mod watched {
    use std::cell::RefCell;

    use super::Step;

    type Watcher = Box<dyn FnMut(Step)>;

    thread_local! {
        static WATCHER: RefCell<Option<Watcher>> = const { RefCell::new(None) };
    }

    /// From now on `watcher` is called at each step on this thread; none ends that.
    pub fn watch(watcher: Option<Watcher>) {
        WATCHER.set(watcher);
    }

    pub(in super::super) fn step(step: Step) {
        // It may open logs itself: then it is not called.
        let Some(mut watcher) = WATCHER.take() else { return };
        watcher(step);
        WATCHER.set(Some(watcher));
    }
}
