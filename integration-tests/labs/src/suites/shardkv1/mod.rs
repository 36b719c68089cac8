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

use crate::sheet::{Scenario, scenario};

/// The scenarios of this folder.
pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario("N00", basic::shardcfg),
        scenario("N01", basic::init_query),
        scenario("N02", basic::static_one_group),
        scenario("N03", basic::join_basic),
        scenario("N04", basic::delete_basic),
        scenario("N05", basic::join_leave_basic),
        scenario("N06", basic::many_join_leave),
        scenario("N07", basic::many_join_leave),
        scenario("N08", basic::shutdown),
        scenario("N09", basic::progress_shutdown),
        scenario("N10", basic::progress_join),
        scenario("N11", |lab| clerks::concurrent(lab, 1)),
        scenario("N12", |lab| clerks::concurrent(lab, 10)),
        scenario("N13", |lab| clerks::concurrent(lab, 1)),
        scenario("N14", |lab| clerks::concurrent(lab, 10)),
        scenario("N15", recovery::join_leave),
        scenario("N16", recovery::recover_controller),
        scenario("N17", recovery::concurrent_controllers),
        scenario("N18", recovery::concurrent_controllers),
        scenario("N19", recovery::partition_join),
        scenario("N20", |lab| recovery::partition_recovery(lab, 5)),
        scenario("N21", |lab| recovery::partition_recovery(lab, 3)),
        scenario("N22", |lab| recovery::partition_recovery_with_clerks(lab, 5)),
        scenario("N23", |lab| recovery::partition_recovery_with_clerks(lab, 3)),
    ]
}
