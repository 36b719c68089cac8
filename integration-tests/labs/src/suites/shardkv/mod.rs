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

use crate::sheet::{Test, test};

/// The tests of this file.
pub fn tests() -> Vec<Test> {
    let suite = "shardkv";
    // 2020 to 2023 have one part, 2024 two.
    let classic = |test: Test, name| test.mit(2020..=2023, "4B", name).mit(2024..=2024, "5B", name);
    vec![
        test("H01", suite, "static shards", still::static_shards)
            .mit(2020..=2023, "4B", "TestStaticShards")
            .mit(2024..=2024, "5A", "TestStaticShards")
            .real(),
        test("H02", suite, "rejection of shards of other groups", still::rejection).mit(
            2024..=2024,
            "5A",
            "TestRejection5A",
        ),
        classic(test("H03", suite, "join then leave", moves::join_leave), "TestJoinLeave").real(),
        classic(test("H04", suite, "snapshots, join, and leave", moves::snapshot), "TestSnapshot").real(),
        classic(
            test("H05", suite, "servers miss configuration changes", moves::miss_change),
            "TestMissChange",
        )
        .real(),
        classic(
            test("H06", suite, "concurrent appends and configuration changes", moves::concurrent_1),
            "TestConcurrent1",
        )
        .real(),
        classic(
            test("H07", suite, "more concurrent appends and changes", moves::concurrent_2),
            "TestConcurrent2",
        )
        .real(),
        test("H08", suite, "concurrent changes and restarts of all groups", moves::concurrent_3)
            .mit(2020..=2021, "4B", "TestChallenge1Concurrent")
            .mit(2022..=2023, "4B", "TestConcurrent3")
            .mit(2024..=2024, "5B", "TestConcurrent3")
            .real(),
        classic(test("H09", suite, "sequential appends and changes", moves::unreliable_1), "TestUnreliable1")
            .unreliable(),
        classic(test("H10", suite, "concurrent appends and changes", moves::unreliable_2), "TestUnreliable2")
            .unreliable(),
        classic(
            test("H11", suite, "concurrent puts, gets, appends and changes", moves::unreliable_3),
            "TestUnreliable3",
        )
        .unreliable(),
        classic(
            test("H12", suite, "what was handed over is deleted", challenges::delete),
            "TestChallenge1Delete",
        )
        .real(),
        classic(
            test("H13", suite, "unaffected shards are served", challenges::unaffected),
            "TestChallenge2Unaffected",
        )
        .unreliable(),
        classic(
            test("H14", suite, "shards that arrived are served", challenges::partial),
            "TestChallenge2Partial",
        )
        .unreliable(),
    ]
}
