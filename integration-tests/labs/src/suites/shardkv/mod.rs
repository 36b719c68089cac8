//! The sharded store of 6.824 2020 to 6.5840 2024 (Lab 4B; 5A and 5B in 2024): three controllers,
//! three groups of three servers, ten shards, clerks whose writes are exactly once.
//!
//! All groups run from the start; Join and Leave only tell the controllers, as in the labs: a group
//! that joined has nothing until its shards arrive, and a group that left still has to hand over.
//!
//! `stage`: the base of all scenarios. `moves`: shards that move while clients work. `challenges`:
//! what the labs set as challenges: deleting what was handed over, and serving while other shards
//! move.
//!
//! Adapted: keys. The labs' first byte of a key is its shard's number; ours are found by trying.
//!
//! Left out on purpose: the controller's own tests, which are in [`super::shardctrler`].

mod challenges;
mod moves;
mod stage;
mod still;

use crate::sheet::{Scenario, scenario};

/// The scenarios of this folder.
pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario("H01", still::static_shards),
        scenario("H02", still::rejection),
        scenario("H03", moves::join_leave),
        scenario("H04", moves::snapshot),
        scenario("H05", moves::miss_change),
        scenario("H06", moves::concurrent_1),
        scenario("H07", moves::concurrent_2),
        scenario("H08", moves::concurrent_3),
        scenario("H09", moves::unreliable_1),
        scenario("H10", moves::unreliable_2),
        scenario("H11", moves::unreliable_3),
        scenario("H12", challenges::delete),
        scenario("H13", challenges::unaffected),
        scenario("H14", challenges::partial),
    ]
}
