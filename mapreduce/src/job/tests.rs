use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::{End, Job, Kind, Order, SILENT, Task, Work};

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn run(order: Order) -> (Task, u64) {
    let Order::Run { task, attempt, .. } = order else { panic!("{order:?}") };
    (task, attempt)
}

const fn map(number: u32) -> Task {
    Task { kind: Kind::Map, number }
}

#[test]
fn a_worker_that_asks_again_is_told_the_same_again() {
    let mut job = Job::new(2, 1, 1);
    let first = job.ask(1, s(0));
    assert_eq!(job.ask(1, s(1)), first);
    assert_ne!(run(job.ask(2, s(1))).0, run(first).0);
    assert_eq!(job.ask(3, s(1)), Order::Wait);
}

#[test]
fn a_twin_starts_after_ten_seconds_and_the_first_that_is_done_wins() {
    let mut job = Job::new(1, 1, 1);
    let (task, first) = run(job.ask(1, s(0)));
    assert_eq!(job.ask(2, SILENT - Duration::from_nanos(1)), Order::Wait);
    let (same, twin) = run(job.ask(2, SILENT));
    assert!(same == task && twin != first);
    // The next twin waits as long again, and no worker is its own twin.
    assert_eq!(job.ask(3, s(19)), Order::Wait);
    job.done(task, twin, Work::default(), s(20));
    job.done(task, first, Work::default(), s(21));
    assert_eq!(job.maps[0].winner, Some(twin));
    let ends: Vec<_> = job.maps[0].attempts.iter().map(|one| one.ended.unwrap().1).collect();
    assert_eq!(ends, [End::Late, End::Won]);
    let Order::Run { task, maps, .. } = job.ask(3, s(21)) else { panic!("no reduce") };
    assert_eq!((task.kind, maps), (Kind::Reduce, vec![(0, twin)]));
}

#[test]
fn a_backup_waits_for_three_medians() {
    let mut job = Job::new(4, 1, 1);
    let orders: Vec<_> = (1..=4).map(|worker| run(job.ask(worker, s(0)))).collect();
    for (task, attempt) in &orders[..3] {
        job.done(*task, *attempt, Work::default(), s(20));
    }
    assert_eq!(job.ask(1, s(59)), Order::Wait);
    assert_eq!(run(job.ask(1, s(60))).0, orders[3].0);
}

#[test]
fn what_a_gone_worker_had_is_free_at_once_and_three_reports_of_one_task_end_the_job() {
    let mut job = Job::new(1, 1, 1);
    for worker in 0..20 {
        let (task, attempt) = run(job.ask(worker, s(0)));
        job.gone(worker, s(0));
        // Later messages of the attempt are not reports.
        job.failed(task, attempt, "late".into(), s(0));
    }
    for worker in 20..23 {
        assert!(!job.is_over());
        let (task, attempt) = run(job.ask(worker, s(1)));
        job.failed(task, attempt, "app panicked".into(), s(1));
        job.failed(task, attempt, "app panicked".into(), s(1));
    }
    assert_eq!(job.failure.as_deref(), Some("app panicked"));
    assert_eq!(job.ask(1, s(1)), Order::Exit);
}

#[test]
fn another_coordinator_goes_on_from_what_was_won() {
    let mut job = Job::new(2, 1, 1 << 32);
    job.won(map(0), 7);
    assert_eq!(run(job.ask(1, s(0))), (map(1), 1 << 32));
    job.done(map(1), 1 << 32, Work::default(), s(1));
    let Order::Run { maps, .. } = job.ask(1, s(1)) else { panic!("no reduce") };
    assert_eq!(maps, [(0, 7), (1, 1 << 32)]);
}

#[derive(Clone, Debug)]
enum Step {
    Ask(u64),
    Done(usize),
    Failed(usize),
    Gone(u64),
    Sleep(u64),
    Nonsense(Task, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kind = prop_oneof![Just(Kind::Map), Just(Kind::Reduce)];
    vec(
        prop_oneof![
            6 => (0..5_u64).prop_map(Step::Ask),
            4 => any::<usize>().prop_map(Step::Done),
            1 => any::<usize>().prop_map(Step::Failed),
            1 => (0..5_u64).prop_map(Step::Gone),
            2 => (0..6_u64).prop_map(Step::Sleep),
            1 => (kind, 0..9_u32, 0..40_u64)
                .prop_map(|(kind, number, attempt)| Step::Nonsense(Task { kind, number }, attempt + 1000)),
        ],
        0..120,
    )
}

proptest! {
    /// Whatever workers do, these hold: no reduce starts before the last map ends, no attempt
    /// number occurs twice, and no task gets a second attempt while a live one is younger than ten
    /// seconds. Then, once workers are healthy, everything gets done.
    #[test]
    fn every_job_ends_and_nothing_is_given_out_too_early(
        maps in 1..5_u32, reduces in 1..4_u32, steps in steps(),
    ) {
        let mut job = Job::new(maps, reduces, 1);
        let mut now = s(0);
        let mut given: Vec<(Task, u64, u64)> = Vec::new();
        let mut live: BTreeMap<u64, (Task, u64, Duration)> = BTreeMap::new();
        let mut won: BTreeSet<Task> = BTreeSet::new();
        for step in steps {
            match step {
                Step::Sleep(seconds) => now += s(seconds),
                Step::Gone(worker) => {
                    job.gone(worker, now);
                    live.retain(|_, (_, by, _)| *by != worker);
                }
                Step::Done(which) if !given.is_empty() => {
                    let (task, attempt, _) = given[which % given.len()];
                    job.done(task, attempt, Work::default(), now);
                    live.remove(&attempt);
                    won.insert(task);
                }
                Step::Failed(which) if !given.is_empty() => {
                    let (task, attempt, _) = given[which % given.len()];
                    job.failed(task, attempt, "bad record".into(), now);
                    if !won.contains(&task) {
                        live.remove(&attempt);
                    }
                }
                // A report about another coordinator's attempt changes nothing.
                Step::Nonsense(task, attempt) => job.failed(task, attempt, "who?".into(), now),
                Step::Ask(worker) => match job.ask(worker, now) {
                    Order::Run { task, attempt, maps: inputs } => {
                        prop_assert!(!won.contains(&task));
                        if task.kind == Kind::Reduce {
                            prop_assert_eq!(inputs.len(), maps as usize);
                        }
                        if given.iter().all(|(_, other, _)| *other != attempt) {
                            let others = live.values().filter(|(other, ..)| *other == task);
                            for (_, by, since) in others {
                                prop_assert!(*by != worker && now - *since >= SILENT);
                            }
                            given.push((task, attempt, worker));
                            live.insert(attempt, (task, worker, now));
                        } else {
                            prop_assert!(given.contains(&(task, attempt, worker)));
                        }
                    }
                    Order::Wait => prop_assert!(!job.is_over()),
                    Order::Exit => prop_assert!(job.is_over()),
                },
                Step::Done(_) | Step::Failed(_) => {}
            }
        }
        // One healthy worker and no other: it waits until the silent ones are given up.
        for _ in 0..200 {
            match job.ask(99, now) {
                Order::Run { task, attempt, .. } => job.done(task, attempt, Work::default(), now),
                Order::Wait => now += s(1),
                Order::Exit => break,
            }
        }
        prop_assert!(job.is_over());
        if job.failure.is_none() {
            prop_assert!(job.maps.iter().chain(&job.reduces).all(|state| state.winner.is_some()));
        }
    }
}
