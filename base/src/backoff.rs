//! Pauses between retries: each up to twice as long as the one before, and with jitter, so that
//! callers who failed together do not return together.

use std::time::Duration;

use rand::{Rng, RngExt};

/// The pauses of one caller.
#[derive(Clone, Copy, Debug)]
pub struct BackOff {
    shortest: Duration,
    longest: Duration,
    next: Duration,
}

impl BackOff {
    /// Pauses of up to `shortest` at first and up to `longest` later.
    pub const fn new(shortest: Duration, longest: Duration) -> Self {
        Self { shortest, longest, next: shortest }
    }

    /// The next pause: between half its bound and all of it.
    pub fn pause(&mut self, random: &mut impl Rng) -> Duration {
        let pause = self.next.mul_f64(random.random_range(0.5..1.0));
        self.next = (self.next * 2).min(self.longest);
        pause
    }

    /// Whether the next pause is one of the longest.
    pub fn is_longest(&self) -> bool {
        self.next >= self.longest
    }

    /// A try succeeded: the next pause is short again.
    pub fn reset(&mut self) {
        self.next = self.shortest;
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest_and_are_short_again_after_a_success() {
        let ms = Duration::from_millis;
        let mut random = StdRng::seed_from_u64(1);
        let mut back_off = BackOff::new(ms(10), ms(40));
        for bound in [10, 20, 40, 40] {
            assert_eq!(back_off.is_longest(), bound == 40);
            let pause = back_off.pause(&mut random);
            assert!(ms(bound) / 2 <= pause && pause <= ms(bound), "{pause:?} of {bound}");
        }
        back_off.reset();
        assert!(back_off.pause(&mut random) <= ms(10));
    }
}
