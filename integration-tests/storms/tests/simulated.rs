//! The simulated runs. SEEDS and SEED in the environment choose how many seeds, and the first one;
//! SUITE skips all others.
//!

use storms::{campaign, seeds_asked, suites};

fn play(name: &str) {
    if std::env::var("SUITE").is_ok_and(|only| !only.is_empty() && only != name) {
        return;
    }
    let (first, count) = seeds_asked();
    match campaign(name, first, count) {
        Ok(total) => println!("{name}: {count} seeds from {first}: {total}"),
        Err(why) => panic!("{why}"),
    }
}

#[test]
fn a_group_survives_loss_reordering_partitions_crashes_and_power_cuts() {
    play("raft_faults");
}

#[test]
fn a_group_under_more_load_than_it_can_take_stays_within_its_bounds_and_recovers_at_once() {
    play("overload");
}

#[test]
fn writes_wait_for_a_slow_member_within_floors_and_one_that_cannot_keep_up_is_given_up() {
    play("slow_member");
}

#[test]
fn a_table_that_was_damaged_is_found_and_replaced_and_nothing_wrong_is_answered_after_that() {
    play("damaged_tables");
}

#[test]
fn shards_move_under_faults_and_every_operation_happens_exactly_once() {
    play("shard_moves");
}

#[test]
fn a_move_goes_on_after_everything_restarted_with_no_client_connected() {
    play("idle_restart");
}

#[test]
fn rings_of_groups_that_swap_all_shards_finish() {
    play("rings");
}

#[test]
fn what_is_lost_with_a_group_begins_anew_and_nothing_old_returns_beside_it() {
    play("lost_groups");
}

#[test]
fn scans_and_batches_of_a_moving_shard_miss_nothing() {
    play("moving_reads");
}

#[test]
fn strangers_are_listened_to_by_nobody_and_learn_nothing() {
    play("strangers");
}

#[test]
fn controllers_made_anew_and_groups_that_lost_their_data_lose_nothing_else() {
    play("other_histories");
}

/// The trace of `seed` as another process sees it.
fn trace_elsewhere(suite: &str, seed: u64) -> String {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_simulate"))
        .args([suite, &seed.to_string(), "1"])
        .output()
        .expect("the simulate binary was built with this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(|line| line.strip_prefix("trace ")).expect("a trace line").to_owned()
}

#[test]
fn a_seed_is_the_same_run_again_in_this_process_and_in_another() {
    if std::env::var_os("SUITE").is_some() {
        return;
    }
    for (name, play) in suites() {
        let (one, other) = (play(4711).unwrap(), play(4711).unwrap());
        assert_eq!(one, other, "{name}: the same seed twice in one process");
        assert_eq!(format!("{:016x}", one.trace), trace_elsewhere(name, 4711), "{name}: in another process");
        assert_ne!(one.trace, play(4712).unwrap().trace, "{name}: another seed");
    }
}
