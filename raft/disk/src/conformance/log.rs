//! What a log promises.

use proptest::prelude::*;

use super::{Disk, MemoryDisk, RealDisk, entries, entry, on_both_disks};
use raft::storage::{Log, Restored, Save};
use raft::types::{Entry, EntryId, HardState, Index, NodeId, Payload, Term};

on_both_disks!(
    an_empty_log_holds_nothing,
    what_was_saved_comes_back_after_a_crash,
    term_and_vote_alone_are_kept,
    a_truncation_inside_a_run_drops_its_tail,
    a_truncation_without_new_entries_holds,
    a_longer_old_run_never_shines_through,
    a_prefix_is_dropped_inside_a_run,
    a_marker_beyond_the_end_empties_the_log_which_continues_after_it,
    everything_at_once_takes_effect_in_order,
    a_snapshot_and_the_entries_after_it_are_saved_at_once,
    a_marker_that_replaces_the_log_leaves_nothing_of_it,
    every_save_is_one_synced_write,
);

pub(super) async fn save(log: &mut dyn Log, save: Save) {
    log.save(&save).await;
}

/// Term 9, so that entries of any term the cases use are allowed.
fn begin() -> Save {
    Save { hard_state: Some(HardState { term: Term(9), vote: Some(NodeId(2)) }), ..Save::default() }
}

fn append(entries: Vec<Entry>) -> Save {
    Save { entries, ..Save::default() }
}

fn truncate(from: u64, entries: Vec<Entry>) -> Save {
    Save { truncate_from: Some(Index(from)), entries, ..Save::default() }
}

fn compact(term: u64, index: u64) -> Save {
    Save { marker: Some(EntryId::new(term, index)), ..Save::default() }
}

/// Saves all in one life, crashes, and returns what the next life finds.
async fn kept(disk: &mut dyn Disk, saves: Vec<Save>) -> Restored {
    let (mut log, _table) = disk.open();
    log.load().unwrap();
    save(&mut *log, begin()).await;
    for each in &saves {
        save(&mut *log, each.clone()).await;
    }
    disk.crash();
    drop((log, _table));
    let (mut log, _table) = disk.open();
    log.load().unwrap()
}

async fn an_empty_log_holds_nothing(disk: &mut dyn Disk) {
    let (mut log, _table) = disk.open();
    assert_eq!(log.load().unwrap(), Restored::default());
}

async fn what_was_saved_comes_back_after_a_crash(disk: &mut dyn Disk) {
    let empty = Entry::new(EntryId::new(2, 4), Payload::Empty);
    let big = Entry::new(EntryId::new(2, 5), Payload::Command(vec![7; 3 << 20].into()));
    let saves = vec![append(entries(1, 1, 3)), append(vec![empty.clone()]), append(vec![big.clone()])];
    let restored = kept(disk, saves).await;
    assert_eq!(restored.hard_state, HardState { term: Term(9), vote: Some(NodeId(2)) });
    assert_eq!(restored.marker, EntryId::ZERO);
    assert_eq!(restored.entries, [entries(1, 1, 3), vec![empty, big]].concat());
}

async fn term_and_vote_alone_are_kept(disk: &mut dyn Disk) {
    let next = HardState { term: Term(12), vote: None };
    let restored = kept(disk, vec![Save { hard_state: Some(next), ..Save::default() }]).await;
    assert_eq!(restored, Restored { hard_state: next, ..Restored::default() });
}

async fn a_truncation_inside_a_run_drops_its_tail(disk: &mut dyn Disk) {
    let saves = vec![append(entries(1, 1, 3)), append(entries(1, 4, 9)), truncate(5, entries(2, 5, 6))];
    let restored = kept(disk, saves).await;
    assert_eq!(restored.entries, [entries(1, 1, 4), entries(2, 5, 6)].concat());
}

async fn a_truncation_without_new_entries_holds(disk: &mut dyn Disk) {
    let saves = vec![append(entries(1, 1, 9)), truncate(5, Vec::new())];
    assert_eq!(kept(disk, saves).await.entries, entries(1, 1, 4));
    let (mut log, _table) = disk.open();
    log.load().unwrap();
    save(&mut *log, append(entries(3, 5, 5))).await;
    disk.crash();
    drop((log, _table));
    let (mut log, _table) = disk.open();
    assert_eq!(log.load().unwrap().entries, [entries(1, 1, 4), entries(3, 5, 5)].concat());
}

async fn a_longer_old_run_never_shines_through(disk: &mut dyn Disk) {
    let saves = vec![
        append(entries(1, 1, 9)),
        truncate(4, entries(2, 4, 6)),
        truncate(5, entries(3, 5, 5)),
        truncate(3, entries(4, 3, 3)),
        compact(4, 3),
        append(entries(4, 4, 4)),
    ];
    let restored = kept(disk, saves).await;
    assert_eq!((restored.marker, restored.entries), (EntryId::new(4, 3), entries(4, 4, 4)));
}

async fn a_prefix_is_dropped_inside_a_run(disk: &mut dyn Disk) {
    let saves = vec![append(entries(1, 1, 4)), append(entries(1, 5, 9)), compact(1, 6)];
    let restored = kept(disk, saves).await;
    assert_eq!((restored.marker, restored.entries), (EntryId::new(1, 6), entries(1, 7, 9)));
}

async fn a_marker_beyond_the_end_empties_the_log_which_continues_after_it(disk: &mut dyn Disk) {
    let saves = vec![append(entries(1, 1, 4)), compact(3, 20), append(entries(3, 21, 22))];
    let restored = kept(disk, saves).await;
    assert_eq!((restored.marker, restored.entries), (EntryId::new(3, 20), entries(3, 21, 22)));
}

async fn everything_at_once_takes_effect_in_order(disk: &mut dyn Disk) {
    let hard_state = HardState { term: Term(10), vote: Some(NodeId(3)) };
    let all = Save {
        hard_state: Some(hard_state),
        truncate_from: Some(Index(3)),
        entries: entries(2, 3, 8),
        marker: Some(EntryId::new(2, 5)),
        promised: Some(EntryId::new(2, 9)),
        ..Save::default()
    };
    let restored = kept(disk, vec![append(entries(1, 1, 6)), all]).await;
    let (marker, promised) = (EntryId::new(2, 5), EntryId::new(2, 9));
    let expected = Restored { hard_state, marker, entries: entries(2, 6, 8), promised };
    assert_eq!(restored, expected);
}

/// What a follower writes when it has installed a snapshot and the leader's next entries have
/// already arrived.
async fn a_snapshot_and_the_entries_after_it_are_saved_at_once(disk: &mut dyn Disk) {
    let jump = |from, term, index, entries| Save {
        truncate_from: Some(Index(from)),
        entries,
        marker: Some(EntryId::new(term, index)),
        ..Save::default()
    };
    let saves = vec![
        append(entries(1, 1, 4)),
        compact(1, 2),
        append(entries(1, 5, 7)),
        jump(3, 3, 20, entries(3, 21, 22)),
        append(entries(3, 23, 24)),
        jump(21, 3, 30, entries(4, 31, 31)),
        truncate(31, entries(5, 31, 33)),
    ];
    let restored = kept(disk, saves).await;
    assert_eq!((restored.marker, restored.entries), (EntryId::new(3, 30), entries(5, 31, 33)));
}

/// What the start rule writes when a process ended between a switch and the save that drops the log.
async fn a_marker_that_replaces_the_log_leaves_nothing_of_it(disk: &mut dyn Disk) {
    let replace = Save { truncate_from: Some(Index(3)), marker: Some(EntryId::new(5, 6)), ..Save::default() };
    let restored = kept(disk, vec![append(entries(1, 1, 9)), compact(1, 2), replace]).await;
    assert_eq!((restored.marker, restored.entries), (EntryId::new(5, 6), Vec::new()));
}

async fn every_save_is_one_synced_write(disk: &mut dyn Disk) {
    let (mut log, _table) = disk.open();
    log.load().unwrap();
    assert_eq!(log.syncs(), 0);
    save(&mut *log, begin()).await;
    save(&mut *log, append(entries(1, 1, 100))).await;
    assert_eq!(log.syncs(), 2);
}

/// A step of the model.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Append(u64),
    /// Cut off this many entries, then append this many.
    Truncate(u64, u64),
    /// Drop this many from the front.
    Compact(u64),
    /// Replace the log by a marker this far beyond its end, and append this many entries after it.
    Jump(u64, u64),
    Crash,
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1_u64..5).prop_map(Step::Append),
        3 => (1_u64..6, 0_u64..4).prop_map(|(cut, add)| Step::Truncate(cut, add)),
        2 => (1_u64..6).prop_map(Step::Compact),
        1 => (1_u64..4, 0_u64..3).prop_map(|(by, add)| Step::Jump(by, add)),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 1..30)
}

/// The save that `step` makes of the log `model`; the model after it.
pub(super) fn next(model: &mut Restored, step: &Step) -> Save {
    let term = model.hard_state.term.next();
    model.hard_state = HardState { term, vote: None };
    let mut save = Save { hard_state: Some(model.hard_state), ..Save::default() };
    if term.0.is_multiple_of(3) {
        model.promised =
            if term.0.is_multiple_of(2) { EntryId::ZERO } else { EntryId { term, index: Index(term.0) } };
        save.promised = Some(model.promised);
    }
    let mut add = 0;
    match *step {
        Step::Append(count) => add = count,
        Step::Truncate(cut, count) => {
            let left = model.entries.len().saturating_sub(cut as usize);
            if let Some(first) = model.entries.get(left) {
                save.truncate_from = Some(first.id.index);
            }
            model.entries.truncate(left);
            add = count;
        }
        Step::Compact(count) => {
            let count = (count as usize).min(model.entries.len());
            if let Some(last) = model.entries.drain(..count).last() {
                model.marker = last.id;
                save.marker = Some(last.id);
            }
        }
        Step::Jump(by, count) => {
            add = count;
            save.truncate_from = Some(model.marker.index.next()).filter(|_| count > 0);
            let last = model.entries.last().map_or(model.marker, |entry| entry.id);
            model.entries.clear();
            model.marker = EntryId { term, index: Index(last.index.0 + by) };
            save.marker = Some(model.marker);
        }
        Step::Crash => {}
    }
    let last = model.entries.last().map_or(model.marker, |entry| entry.id);
    save.entries = (1..=add).map(|at| entry(term.0, last.index.0 + at)).collect();
    model.entries.extend(save.entries.iter().cloned());
    save
}

async fn like_the_model(disk: &mut dyn Disk, steps: &[Step]) {
    let mut model = Restored::default();
    let mut stores = disk.open();
    assert_eq!(stores.0.load().unwrap(), model);
    for step in steps.iter().chain([&Step::Crash]) {
        save(&mut *stores.0, next(&mut model, step)).await;
        if matches!(step, Step::Crash) {
            disk.crash();
            drop(stores);
            stores = disk.open();
            assert_eq!(stores.0.load().unwrap(), model);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_sequence_of_saves_and_crashes_is_kept_exactly(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(like_the_model(&mut MemoryDisk::new(), &steps));
        runtime.block_on(like_the_model(&mut RealDisk::new(), &steps));
    }
}
