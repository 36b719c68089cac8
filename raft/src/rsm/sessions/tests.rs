use bytes::Bytes;
use proptest::prelude::*;

use super::{Check, REFUSALS, Sessions};
use crate::rsm::Rows;
use crate::rsm::overlay::Overlay;
use crate::storage::memory::MemoryDisk;
use crate::storage::{Applied, Read, ScanLimit, Table};

const PREFIX: &[u8] = b"\x02sessions";

fn load(rows: &dyn Read) -> Sessions {
    Sessions::load(Bytes::from_static(PREFIX), rows)
}

/// Runs `change` over fresh rows.
fn with_rows<T>(change: impl FnOnce(&mut dyn Rows, &mut Sessions) -> T) -> T {
    let (_, table) = MemoryDisk::new().open();
    let mut rows = Overlay::new(&*table, Applied::default());
    let mut sessions = load(&rows);
    let result = change(&mut rows, &mut sessions);
    assert_eq!(load(&rows), sessions, "the cache is what the rows say");
    result
}

fn reply(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// As a client does: retries until there is room.
fn open(sessions: &mut Sessions, rows: &mut dyn Rows, max: u32) -> u64 {
    (0..REFUSALS).find_map(|_| sessions.open(rows, max)).expect("nobody else writes")
}

#[test]
fn an_operation_is_fresh_once_then_repeated_then_stale() {
    with_rows(|rows, sessions| {
        let id = open(sessions, rows, 10);
        assert_eq!(sessions.check(id, 1), Check::Fresh);
        sessions.record(rows, id, 1, reply("one"));
        assert_eq!(sessions.check(id, 1), Check::Repeated(reply("one")));
        sessions.record(rows, id, 5, reply("five"));
        assert_eq!(sessions.check(id, 5), Check::Repeated(reply("five")));
        assert_eq!(sessions.check(id, 4), Check::Stale);
        assert_eq!(sessions.check(id, 0), Check::Stale);
        assert_eq!(sessions.check(id, 6), Check::Fresh);
    });
}

#[test]
fn sequence_zero_is_never_an_operation() {
    with_rows(|rows, sessions| {
        let id = open(sessions, rows, 10);
        assert_eq!(sessions.check(id, 0), Check::Stale);
    });
}

#[test]
fn the_session_used_longest_ago_is_dropped_and_its_name_never_comes_back() {
    with_rows(|rows, sessions| {
        let (one, two) = (open(sessions, rows, 2), open(sessions, rows, 2));
        sessions.record(rows, one, 1, reply("used"));
        let three = open(sessions, rows, 2);
        assert_eq!(sessions.check(two, 1), Check::Expired);
        assert_eq!(sessions.check(one, 1), Check::Repeated(reply("used")));
        let four = open(sessions, rows, 2);
        assert_eq!(sessions.check(one, 2), Check::Expired);
        assert_eq!(sessions.len(), 2);
        assert!(one < two && two < three && three < four);
    });
}

#[test]
fn an_expired_session_is_not_brought_back_by_recording() {
    with_rows(|rows, sessions| {
        let one = open(sessions, rows, 1);
        open(sessions, rows, 1);
        sessions.record(rows, one, 1, reply("late"));
        assert_eq!(sessions.check(one, 1), Check::Expired);
    });
}

#[test]
fn names_go_on_after_the_rows_moved_and_every_session_was_dropped() {
    with_rows(|rows, sessions| {
        let last = (0..3).map(|_| open(sessions, rows, 1)).last().unwrap();
        let mut moved = load(rows);
        assert!(open(&mut moved, rows, 1) > last);
        *sessions = moved;
    });
}

#[test]
fn scopes_do_not_see_each_other() {
    with_rows(|rows, sessions| {
        let mut other = Sessions::load(Bytes::from_static(b"\x02sessiont"), rows);
        let id = open(&mut other, rows, 10);
        assert!(sessions.is_empty());
        assert_eq!(sessions.check(id, 1), Check::Expired);
    });
}

/// Clients that write in turns; one that is refused a session misses some turns. Returns how many
/// sessions were opened, and how many writes done.
fn take_turns(
    rows: &mut dyn Rows,
    sessions: &mut Sessions,
    max: u32,
    clients: usize,
    turns: u64,
) -> (usize, usize) {
    let mut held: Vec<(Option<(u64, u64)>, u64)> = vec![(None, 0); clients];
    let (mut opened, mut written) = (0, 0);
    for turn in 0..turns {
        for (number, (session, next)) in (0..).zip(&mut held).filter(|(_, (_, next))| *next <= turn) {
            match *session {
                None => match sessions.open(rows, max) {
                    None => *next = turn + 30 + number % 20,
                    Some(id) => {
                        opened += 1;
                        *session = Some((id, 1));
                    }
                },
                Some((id, seq)) if sessions.check(id, seq) == Check::Fresh => {
                    sessions.record(rows, id, seq, reply("done"));
                    written += 1;
                    *session = Some((id, seq + 1));
                }
                Some(_) => *session = None,
            }
        }
    }
    (opened, written)
}

#[test]
fn more_clients_than_sessions_do_not_take_them_from_each_other() {
    with_rows(|rows, sessions| {
        let (opened, written) = take_turns(rows, sessions, 16, 100, 1000);
        assert!(opened < 200 && written > 15_000, "{opened} sessions, {written} writes");
    });
}

#[test]
fn clients_that_write_once_and_leave_find_room_at_once() {
    with_rows(|rows, sessions| {
        for _ in 0..100 {
            let id = sessions.open(rows, 8).expect("none of the others comes back");
            sessions.record(rows, id, 1, reply("done"));
        }
        assert_eq!(sessions.len(), 8);
    });
}

#[test]
fn sessions_of_clients_that_vanished_go_as_others_write() {
    with_rows(|rows, sessions| {
        take_turns(rows, sessions, 8, 8, 10);
        let (writer, mut seq, mut tries) = (8, 10, 0);
        while sessions.open(rows, 8).is_none() {
            for _ in 0..2 {
                seq += 1;
                sessions.record(rows, writer, seq, reply("done"));
            }
            tries += 1;
        }
        assert!((2..=8).contains(&tries), "{tries}");
        assert_eq!(sessions.check(writer, seq), Check::Repeated(reply("done")), "who writes stays");
    });
}

#[test]
fn where_hardly_anybody_writes_a_new_client_is_refused_a_few_times() {
    with_rows(|rows, sessions| {
        take_turns(rows, sessions, 1000, 1000, 3);
        let mut refusals = || (0..).find(|_| sessions.open(rows, 1000).is_some());
        // One that came in is no reason to let all come in.
        assert_eq!([refusals(), refusals()], [Some(REFUSALS - 1), Some(REFUSALS - 1)]);
        let rows_of_refusals = rows.get(&sessions.refused_key()).expect("they are counted");
        assert_eq!(Sessions::check_row(b"\x02", &rows_of_refusals), Ok(None));
    });
}

#[derive(Clone, Debug)]
enum Step {
    Open { max: u32 },
    Record { session: u64, seq: u64 },
    Write,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (1_u32..6).prop_map(|max| Step::Open { max }),
        6 => (1_u64..16, 1_u64..9).prop_map(|(session, seq)| Step::Record { session, seq }),
        1 => Just(Step::Write),
    ];
    proptest::collection::vec(step, 0..60)
}

/// Runs `steps` on `table`; `each` sees cache and rows after every step.
fn run(table: &dyn Table, steps: &[Step], mut each: impl FnMut(&Sessions, &dyn Read)) -> Sessions {
    let mut sessions = load(table);
    let mut rows = Overlay::new(table, Applied::default());
    for step in steps {
        match *step {
            Step::Open { max } => {
                sessions.open(&mut rows, max);
            }
            Step::Record { session, seq } => {
                if sessions.check(session, seq) == Check::Fresh {
                    sessions.record(&mut rows, session, seq, Bytes::from(seq.to_string()));
                }
            }
            Step::Write => {
                table.write(
                    std::mem::replace(&mut rows, Overlay::new(table, Applied::default())).into_batch(),
                );
            }
        }
        each(&sessions, &rows);
    }
    table.write(rows.into_batch());
    sessions
}

proptest! {
    #[test]
    fn the_cache_always_equals_what_the_rows_say(steps in steps()) {
        let (_, table) = MemoryDisk::new().open();
        let sessions = run(&*table, &steps, |cache, rows| assert_eq!(&load(rows), cache));
        prop_assert_eq!(load(&*table), sessions);
    }

    #[test]
    fn replicas_drop_the_same_sessions_also_when_one_restarted(steps in steps(), at in 0_usize..60) {
        let ((_, one), (_, two)) = (MemoryDisk::new().open(), MemoryDisk::new().open());
        let sessions = run(&*one, &steps, |_, _| ());
        let (before, after) = steps.split_at(at.min(steps.len()));
        run(&*two, before, |_, _| ());
        prop_assert_eq!(run(&*two, after, |_, _| ()), sessions);
        let all = ScanLimit { rows: usize::MAX, bytes: usize::MAX };
        prop_assert_eq!(one.scan(b"", None, all), two.scan(b"", None, all));
    }
}
