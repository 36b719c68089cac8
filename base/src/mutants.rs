//! Planted bugs: they prove that the tests would notice.
//!
//! Tests are trusted when they catch bugs that were planted on purpose. Such a bug is a condition
//! on one line of the product, `base::mutant!("vote-twice")`. It is the constant `false` in every
//! normal build, where nothing of it remains. With the feature `mutants` it asks whether this bug
//! is the chosen one: chosen by `choose` for a thread (a simulation runs on one thread), or else by
//! the environment variable `MUTANT` for the process. So one build has all bugs, and one at a time
//! is enabled.
//!
//! The program `mutants` in `integration-tests` says what each bug breaks and which test catches
//! it; it refuses a name that is not planted anywhere.
//!
//! Left out on purpose: the names, because this crate knows nothing of votes and shards; and bugs
//! of more than one line.

/// Whether the planted bug of this name is the chosen one: `false` in every normal build. With a second
/// argument, a statement that does only what the bug does.
#[cfg(not(feature = "mutants"))]
#[macro_export]
macro_rules! mutant {
    ($name:literal) => {
        false
    };
    ($name:literal, $bug:expr) => {
        if false {
            $bug;
        }
    };
}

/// Whether the planted bug of this name is the chosen one: `false` in every normal build. With a second
/// argument, a statement that does only what the bug does.
#[cfg(feature = "mutants")]
#[macro_export]
macro_rules! mutant {
    ($name:literal) => {
        $crate::mutants::is_chosen($name)
    };
    ($name:literal, $bug:expr) => {
        if $crate::mutants::is_chosen($name) {
            $bug;
        }
    };
}

#[cfg(feature = "mutants")]
pub use choice::{choose, is_chosen, reached};

#[cfg(feature = "mutants")]
mod choice {
    use std::cell::Cell;
    use std::sync::OnceLock;

    thread_local! {
        static CHOSEN: Cell<Option<&'static str>> = Cell::new(of_environment());
        static REACHED: Cell<u64> = const { Cell::new(0) };
    }

    fn of_environment() -> Option<&'static str> {
        static MUTANT: OnceLock<Option<String>> = OnceLock::new();
        MUTANT.get_or_init(|| std::env::var("MUTANT").ok().filter(|name| !name.is_empty())).as_deref()
    }

    /// Enables this bug and no other on this thread; none: disables all.
    pub fn choose(name: Option<&'static str>) {
        CHOSEN.set(name);
        REACHED.set(0);
    }

    /// Whether the bug is the chosen one.
    pub fn is_chosen(name: &str) -> bool {
        let chosen = CHOSEN.get() == Some(name);
        if chosen {
            REACHED.set(REACHED.get() + 1);
        }
        chosen
    }

    /// How often this thread has reached the chosen bug.
    pub fn reached() -> u64 {
        REACHED.get()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_bug_sleeps_until_it_is_chosen() {
        let value = || {
            let mut value = u32::from(crate::mutant!("of-this-test"));
            crate::mutant!("of-this-test", value += 10);
            crate::mutant!("another", value += 100);
            value
        };
        assert_eq!(value(), 0);
        #[cfg(feature = "mutants")]
        {
            super::choose(Some("of-this-test"));
            assert_eq!((value(), super::reached()), (11, 2));
            super::choose(None);
            assert_eq!((value(), super::reached()), (0, 0));
        }
    }
}
