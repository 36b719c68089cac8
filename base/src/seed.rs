//! Seeds derived from (seed, name): one printed number replays a run, and adding a node, a link or
//! a client does not change the random numbers of the others.

/// A seed for `name` in the run of `seed` (FNV-1a over both, then a finisher).
pub fn derive(seed: u64, name: &str) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325_u64;
    let hash = seed
        .to_le_bytes()
        .iter()
        .chain(name.as_bytes())
        .fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use super::derive;

    #[test]
    fn names_and_seeds_both_matter() {
        assert_ne!(derive(1, "node 1"), derive(1, "node 2"));
        assert_ne!(derive(1, "node 1"), derive(2, "node 1"));
        assert_eq!(derive(7, "x"), derive(7, "x"));
    }
}
