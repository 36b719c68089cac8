//! The sharded store of 6.5840 2025 and 2026 (Lab 5): groups that are made and removed while the
//! store is used, versioned puts without sessions, twelve shards, sixty keys.
//!
//! The labs' controller is a library that admins use: it moves the shards itself, keeps the
//! configurations on a server that never fails, and is recovered by the next admin if it dies. Ours
//! is a replicated service, and groups push their shards themselves. So:
//!
//! Adapted: "the controller dies, or is cut off, in mid-change" means the controllers' leader, and
//! with it the admin who asked for the change and waits for it. "Concurrent controllers" are admins
//! who want different changes at the same time. An admin that recovers finds the change made, and
//! waits until it is done (`controller`). The final conditions are those of the labs.
//!
//! Adapted: a group runs, and has a leader, before it joins, and an id stays with its data: where
//! the labs make a new group for each of many joins, one group joins and leaves again and again.
//!
//! `basic`: Lab 5A without clients beside the scenario, `clerks`: with them; `recovery`: Labs 5B
//! and 5C.
//!
//! Left out on purpose: the labs' extension 5D, which has no tests.

mod basic;
mod clerks;
mod controller;
mod recovery;
mod stage;

use crate::sheet::{Test, test};

const SUITE: &str = "shardkv1";

/// The tests of this file.
#[expect(clippy::too_many_lines, reason = "a table, one row a test")]
pub fn tests() -> Vec<Test> {
    let five = |test: Test, part, name| test.mit(2025..=2026, part, name);
    vec![
        five(
            test("N00", "shardcfg", "groups join and leave, shards stay balanced", basic::shardcfg),
            "5A",
            "TestBasic",
        ),
        five(
            test("N01", SUITE, "the first configuration can be read", basic::init_query),
            "5A",
            "TestInitQuery5A",
        )
        .real(),
        five(
            test("N02", SUITE, "one group without its leader", basic::static_one_group),
            "5A",
            "TestStaticOneShardGroup5A",
        )
        .real(),
        five(test("N03", SUITE, "a group joins", basic::join_basic), "5A", "TestJoinBasic5A").real(),
        five(
            test("N04", SUITE, "what was handed over is deleted", basic::delete_basic),
            "5A",
            "TestDeleteBasic5A",
        )
        .real(),
        five(
            test("N05", SUITE, "a group joins, another leaves and joins again", basic::join_leave_basic),
            "5A",
            "TestJoinLeaveBasic5A",
        )
        .real(),
        five(
            test("N06", SUITE, "many groups join and leave", basic::many_join_leave),
            "5A",
            "TestManyJoinLeaveReliable5A",
        )
        .real(),
        five(
            test("N07", SUITE, "many groups join and leave", basic::many_join_leave),
            "5A",
            "TestManyJoinLeaveUnreliable5A",
        )
        .unreliable(),
        five(test("N08", SUITE, "all groups restart", basic::shutdown), "5A", "TestShutdown5A").real(),
        five(
            test("N09", SUITE, "groups that are down delay nobody else", basic::progress_shutdown),
            "5A",
            "TestProgressShutdown5A",
        )
        .real(),
        five(
            test("N10", SUITE, "shards that stay are served while others move", basic::progress_join),
            "5A",
            "TestProgressJoin5A",
        ),
        five(
            test("N11", SUITE, "one client while groups join and leave", |lab| clerks::concurrent(lab, 1)),
            "5A",
            "TestOneConcurrentClerkReliable5A",
        )
        .real(),
        five(
            test("N12", SUITE, "many clients while groups join and leave", |lab| clerks::concurrent(lab, 10)),
            "5A",
            "TestManyConcurrentClerkReliable5A",
        )
        .real(),
        five(
            test("N13", SUITE, "one client while groups join and leave", |lab| clerks::concurrent(lab, 1)),
            "5A",
            "TestOneConcurrentClerkUnreliable5A",
        )
        .unreliable(),
        five(
            test("N14", SUITE, "many clients while groups join and leave", |lab| clerks::concurrent(lab, 10)),
            "5A",
            "TestManyConcurrentClerkUnreliable5A",
        )
        .unreliable(),
        five(
            test("N15", SUITE, "a join and a leave wait for a group that is down", recovery::join_leave),
            "5B",
            "TestJoinLeave5B",
        ),
        five(
            test("N16", SUITE, "the controller dies in mid-change", recovery::recover_controller),
            "5B",
            "TestRecoverCtrler5B",
        ),
        five(
            test("N17", SUITE, "concurrent controllers", recovery::concurrent_controllers),
            "5C",
            "TestConcurrentReliable5C",
        )
        .real(),
        five(
            test("N18", SUITE, "concurrent controllers", recovery::concurrent_controllers),
            "5C",
            "TestAcquireLockConcurrentUnreliable5C",
        )
        .unreliable(),
        five(
            test("N19", SUITE, "the controller is cut off in a join", recovery::partition_join),
            "5C",
            "TestPartitionControllerJoin5C",
        ),
        five(
            test("N20", SUITE, "controllers that were cut off come back", |lab| {
                recovery::partition_recovery(lab, 5)
            }),
            "5C",
            "TestPartitionRecoveryReliableNoClerk5C",
        ),
        five(
            test("N21", SUITE, "controllers that were cut off come back", |lab| {
                recovery::partition_recovery(lab, 3)
            }),
            "5C",
            "TestPartitionRecoveryUnreliableNoClerk5C",
        )
        .unreliable(),
        five(
            test("N22", SUITE, "controllers that were cut off come back, with clients", |lab| {
                recovery::partition_recovery_with_clerks(lab, 5)
            }),
            "5C",
            "TestPartitionRecoveryReliableClerks5C",
        ),
        five(
            test("N23", SUITE, "controllers that were cut off come back, with clients", |lab| {
                recovery::partition_recovery_with_clerks(lab, 3)
            }),
            "5C",
            "TestPartitionRecoveryUnreliableClerks5C",
        )
        .unreliable(),
    ]
}
