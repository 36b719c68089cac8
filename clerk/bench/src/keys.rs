//! The key of an operation.
//!
//! A zipfian distribution chooses rank k in proportion to 1 / k^skew. It is drawn by
//! rejection-inversion (Hörmann and Derflinger 1996): an integral with a closed form replaces the
//! sum over ranks, so that neither the start nor a draw depends on the number of keys. A
//! permutation then scatters ranks over the keys, so that frequent keys are not neighbours and are
//! in many shards.

use rand::RngExt;
use rand::rngs::StdRng;

use super::plan::Load;

/// How keys are chosen, in a phase.
#[derive(Clone, Debug)]
pub enum Keys {
    Uniform { count: u64 },
    Zipfian { ranks: Zipfian, scatter: Scatter },
}

impl Keys {
    pub fn new(load: &Load, count: u64) -> Self {
        match load.skew {
            None => Self::Uniform { count },
            Some(skew) => Self::Zipfian { ranks: Zipfian::new(count, skew), scatter: Scatter::new(count) },
        }
    }

    /// A key, from 0.
    pub fn pick(&self, random: &mut StdRng) -> u64 {
        match self {
            Self::Uniform { count } => random.random_range(0..*count),
            Self::Zipfian { ranks, scatter } => scatter.place(ranks.draw(random) - 1),
        }
    }
}

/// Ranks from 1 to `count`, rank k in proportion to 1 / k^skew.
#[derive(Clone, Debug)]
pub struct Zipfian {
    count: f64,
    skew: f64,
    /// The integral up to the left end of the first rank's share, and up to the right end of the last.
    from: f64,
    to: f64,
    /// Draws this close to a rank's middle are accepted without a second look.
    sure: f64,
}

impl Zipfian {
    pub fn new(count: u64, skew: f64) -> Self {
        let mut this = Self { count: count as f64, skew, from: 0.0, to: 0.0, sure: 0.0 };
        this.from = this.integral(1.5) - 1.0;
        this.to = this.integral(this.count + 0.5);
        this.sure = 2.0 - this.inverse(this.integral(2.5) - this.weight(2.0));
        this
    }

    fn weight(&self, x: f64) -> f64 {
        (-self.skew * x.ln()).exp()
    }

    /// The integral of [`Self::weight`] from 1 to `x`.
    fn integral(&self, x: f64) -> f64 {
        let power = 1.0 - self.skew;
        if power.abs() < 1e-9 { x.ln() } else { (power * x.ln()).exp_m1() / power }
    }

    fn inverse(&self, y: f64) -> f64 {
        let power = 1.0 - self.skew;
        if power.abs() < 1e-9 { y.exp() } else { ((y * power).max(-1.0).ln_1p() / power).exp() }
    }

    pub fn draw(&self, random: &mut StdRng) -> u64 {
        loop {
            let y = self.from + random.random::<f64>() * (self.to - self.from);
            let x = self.inverse(y);
            let rank = x.round().clamp(1.0, self.count);
            if rank - x <= self.sure || y >= self.integral(rank + 0.5) - self.weight(rank) {
                return rank as u64;
            }
        }
    }
}

/// A permutation of 0 to `count`: a step that shares no factor with the count.
#[derive(Clone, Debug)]
pub struct Scatter {
    count: u64,
    step: u64,
}

impl Scatter {
    pub fn new(count: u64) -> Self {
        /// The golden ratio: its multiples fall evenly.
        const SHARE: f64 = 0.618_033_988_749_895;
        let first = ((count as f64 * SHARE) as u64).max(1);
        let step = (first..=first.saturating_add(count)).find(|step| divisor(*step, count) == 1);
        Self { count, step: step.unwrap_or(1) }
    }

    pub fn place(&self, rank: u64) -> u64 {
        let product = u128::from(rank) * u128::from(self.step) % u128::from(self.count.max(1));
        u64::try_from(product).unwrap_or(0)
    }
}

fn divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clerk::api::config::shard_of;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::{Scatter, Zipfian};

    /// The share of each rank by the definition itself.
    fn shares(count: u64, skew: f64) -> Vec<f64> {
        let weights: Vec<f64> = (1..=count).map(|rank| (rank as f64).powf(-skew)).collect();
        let sum: f64 = weights.iter().sum();
        weights.into_iter().map(|weight| weight / sum).collect()
    }

    #[test]
    fn ranks_come_as_often_as_the_definition_says() {
        const DRAWS: usize = 400_000;
        for (count, skew) in [(1, 0.99), (2, 1.0), (10, 0.5), (100, 0.99), (100, 1.0), (1000, 2.0)] {
            let zipfian = Zipfian::new(count, skew);
            let mut random = StdRng::seed_from_u64(7);
            let mut counts = vec![0_usize; count as usize];
            for _ in 0..DRAWS {
                counts[zipfian.draw(&mut random) as usize - 1] += 1;
            }
            for (rank, (count_of, share)) in counts.iter().zip(shares(count, skew)).enumerate() {
                let expected = share * DRAWS as f64;
                // Five standard deviations: by chance one in millions.
                let allowed = 5.0 * (expected * (1.0 - share)).sqrt() + 1.0;
                let off = (*count_of as f64 - expected).abs();
                assert!(off <= allowed, "{count} {skew}: rank {}: {count_of}, not {expected:.1}", rank + 1);
            }
        }
    }

    #[test]
    fn very_many_keys_cost_no_more_than_few() {
        let zipfian = Zipfian::new(u64::MAX, 0.99);
        let mut random = StdRng::seed_from_u64(7);
        assert!((0..1000).map(|_| zipfian.draw(&mut random)).max().unwrap() > 1_000_000);
    }

    #[test]
    fn scattering_loses_no_key_and_doubles_none() {
        for count in [1, 2, 3, 10, 64, 1000, 10_000] {
            let scatter = Scatter::new(count);
            let places: BTreeSet<u64> = (0..count).map(|rank| scatter.place(rank)).collect();
            assert_eq!(places, (0..count).collect(), "{count}");
        }
        Scatter::new(u64::MAX).place(u64::MAX - 1);
    }

    #[test]
    fn the_most_frequent_keys_lie_in_many_shards() {
        let scatter = Scatter::new(10_000);
        let shards: BTreeSet<u32> =
            (0..32).map(|rank| shard_of(format!("run-{}", scatter.place(rank)).as_bytes(), 64).0).collect();
        // Thrown at random, 32 keys meet 25 of 64 shards on average.
        assert!(shards.len() >= 18, "{shards:?}");
    }
}
