//! How long the log's saves take, second by second: whether members that catch up disturb them.
//!
//! What a member that catches up is sent is read from the disk on which the log is written, and on
//! one machine even written to the same disk. So the leader compares: if the slowest saves of a
//! second take over three times as long as before somebody began to catch up, it sends half as
//! much at once (correctness rule 134).

use std::time::Duration;

use base::clock::{self, Instant};

/// A second with fewer saves says nothing.
const SAVES_MIN: usize = 20;
/// Saves of a second that are looked at.
const SAVES_MAX: usize = 4096;
/// The slowest saves may take this many times as long.
const TIMES: u32 = 3;
const SECOND: Duration = Duration::from_secs(1);

/// The saves of the last second, and how long they usually take.
#[derive(Debug)]
pub(super) struct Saves {
    begun: Instant,
    took: Vec<Duration>,
    usual: Option<Duration>,
}

impl Default for Saves {
    fn default() -> Self {
        Self { begun: clock::now(), took: Vec::new(), usual: None }
    }
}

impl Saves {
    /// A save took so long.
    pub(super) fn note(&mut self, took: Duration) {
        if self.took.len() < SAVES_MAX {
            self.took.push(took);
        }
    }

    /// Time passed. Once a second: whether saves are disturbed, while somebody catches up.
    pub(super) fn tick(&mut self, is_beside: bool) -> Option<bool> {
        if self.begun.elapsed() < SECOND {
            return None;
        }
        self.begun = clock::now();
        let mut took = std::mem::take(&mut self.took);
        if took.len() < SAVES_MIN {
            return None;
        }
        let at = took.len() * 99 / 100;
        let slowest = *took.select_nth_unstable(at).1;
        self.judge(slowest, is_beside)
    }

    fn judge(&mut self, slowest: Duration, is_beside: bool) -> Option<bool> {
        if is_beside {
            return self.usual.map(|usual| slowest > usual * TIMES);
        }
        // One slow second does not change much of what is usual.
        self.usual = Some(self.usual.map_or(slowest, |usual| (usual * 3 + slowest) / 4));
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Saves;

    #[test]
    fn saves_are_compared_with_those_before_somebody_caught_up() {
        let ms = Duration::from_millis;
        let mut saves = Saves::default();
        assert_eq!(saves.judge(ms(50), true), None, "nothing to compare with");
        for _ in 0..20 {
            assert_eq!(saves.judge(ms(2), false), None);
        }
        assert_eq!(saves.judge(ms(40), false), None);
        assert_eq!(saves.judge(ms(6), true), Some(false));
        assert_eq!(saves.judge(ms(40), true), Some(true));
        assert_eq!(saves.judge(ms(40), true), Some(true), "what is beside never becomes usual");
    }

    #[tokio::test(start_paused = true)]
    async fn the_slowest_saves_of_a_second_count_and_few_say_nothing() {
        let mut saves = Saves::default();
        let mut second = async |slow: usize, all: usize, is_beside| {
            for save in 0..all {
                saves.note(Duration::from_millis(if save < slow { 50 } else { 1 }));
            }
            assert_eq!(saves.tick(is_beside), None, "it is not over");
            base::clock::sleep(Duration::from_secs(1)).await;
            saves.tick(is_beside)
        };
        assert_eq!(second(0, 200, false).await, None);
        assert_eq!(second(1, 200, true).await, Some(false), "one of two hundred");
        assert_eq!(second(4, 200, true).await, Some(true));
        assert_eq!(second(4, 10, true).await, None);
    }
}
