//! Every state meets every event; what is not listed changes nothing.

use bytes::Bytes;
use clerk::api::config::{Assignment, Place};
use clerk::api::push::{Cursor, End, Pos, Reach};
use clerk::api::{ConfigNum, Digest, GroupId, Version};

use super::ShardState::{Absent, Awaiting, Handing, Leaving, Parked, Serving};
use super::{
    Access, Activate, Here, Install, Next, ShardState, access, activate, install, may_adopt, release, reopen,
    seal,
};

const ME: GroupId = GroupId(1);
const OTHER: GroupId = GroupId(2);
const THIRD: GroupId = GroupId(3);

const fn num(num: u64) -> ConfigNum {
    ConfigNum(num)
}

fn handing(next: Next) -> ShardState {
    Handing { to: OTHER, num: num(5), next }
}

/// Every state, of a move by configuration 5.
fn states() -> Vec<ShardState> {
    let nexts =
        [Next::Unchanged, Next::Mine { num: num(6) }, Next::Others { to: THIRD, num: num(6) }, Next::Nobodys];
    let mut states =
        vec![Absent, Awaiting { num: num(5) }, Serving, Leaving { to: OTHER, num: num(5) }, Parked];
    states.extend(nexts.map(handing));
    states
}

fn place(num: u64) -> Place {
    Place { num: ConfigNum(num), digest: Digest(num * 1000 + 7) }
}

fn cursor(rows: u64) -> Cursor {
    let reach = if rows > 0 { Reach::Key(Bytes::from(vec![rows as u8])) } else { Reach::Start };
    Cursor { reach, pos: Pos::end_of(rows * 7) }
}

fn end(rows: u64) -> End {
    End { rows, bytes: rows * 10, ..End::default() }
}

#[test]
fn adopting_moves_each_state_as_the_table_says() {
    let seven = num(7);
    for before in [Some(ME), Some(OTHER), Some(THIRD), None] {
        for owner in [Some(ME), Some(OTHER), Some(THIRD), None] {
            for last_owner in [None, Some(THIRD)] {
                let now = Assignment { owner, last_owner };
                for state in states() {
                    let wanted = match owner {
                        Some(ME) => Serving,
                        Some(to) => Leaving { to, num: seven },
                        None => Parked,
                    };
                    let expected = match (state, owner) {
                        // Whose owner stays, stays.
                        _ if before == owner => state,
                        (Absent, Some(ME)) if last_owner.is_none() => Serving,
                        (Absent, Some(ME)) => Awaiting { num: seven },
                        (Absent | Awaiting { .. }, _) => Absent,
                        (Serving | Leaving { .. } | Parked, _) => wanted,
                        (Handing { .. }, Some(ME)) => handing(Next::Mine { num: seven }),
                        (Handing { .. }, Some(to)) => handing(Next::Others { to, num: seven }),
                        (Handing { .. }, None) => handing(Next::Nobodys),
                    };
                    assert_eq!(
                        state.adopt(ME, seven, before, now),
                        expected,
                        "{state:?}: {before:?} {now:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn only_what_follows_the_own_history_is_adopted_and_it_waits_for_nothing() {
    let may = |current, next, before| may_adopt(current, ConfigNum(next), before);
    assert!(may(None, 0, Digest(0)));
    assert!(!may(None, 1, Digest(0)));
    assert!(may(Some(place(4)), 5, place(4).digest));
    for next in [0, 3, 4, 6, 7, u64::MAX] {
        assert!(!may(Some(place(4)), next, place(4).digest));
    }
    for before in [place(3).digest, place(5).digest, Digest(0), Digest(1)] {
        assert!(!may(Some(place(4)), 5, before), "{before:?}");
    }
    assert!(!may(None, 0, Digest(1)), "nothing comes before configuration 0");
}

#[test]
fn a_served_shard_serves_any_number_and_otherwise_the_number_decides_before_the_table() {
    for state in states() {
        for asked in 0..10 {
            let expected = match state {
                Serving | Leaving { .. } => Access::Serve,
                Handing { to, .. } => Access::WrongGroup { ask: Some(to) },
                _ if asked > 5 => Access::NotReady,
                Absent => Access::WrongGroup { ask: None },
                Awaiting { .. } | Parked => Access::NotReady,
            };
            assert_eq!(access(state, num(5), ConfigNum(asked)), expected, "{state:?} asked {asked}");
        }
    }
}

/// The verdict on a push of move `config` at a group in this state that adopted configuration `adopted`.
fn judged(state: ShardState, taken: Option<u64>, adopted: Option<u64>, config: Place) -> (Install, Activate) {
    let here = cursor(3);
    let digest = Some(place(config.num.0).digest);
    let (taken, adopted) = (taken.map(ConfigNum), adopted.map(ConfigNum));
    let here = Here { state, taken, cursor: &here, adopted, digest };
    (install(here, config, &cursor(3)), activate(here, config, &cursor(3), end(3), end(3)))
}

#[test]
fn a_push_is_answered_by_what_the_group_took_and_by_what_it_still_awaits() {
    for state in states() {
        for taken in [None, Some(3), Some(4), Some(5), Some(6), Some(9)] {
            for adopted in [None, Some(0), Some(4)] {
                let early = (Install::Early, Activate::Early);
                assert_eq!(judged(state, taken, adopted, place(5)), early, "{state:?}");
            }
            for adopted in [Some(5), Some(6), Some(100)] {
                let expected = match state {
                    Awaiting { .. } => (Install::Accept, Activate::Serve),
                    _ if taken >= Some(5) => (Install::Done, Activate::Done),
                    _ => (Install::Refused, Activate::Refused),
                };
                assert_eq!(judged(state, taken, adopted, place(5)), expected, "{state:?} took {taken:?}");
            }
        }
    }
}

#[test]
fn a_push_of_another_move_than_the_awaited_one_is_not_taken() {
    let awaiting = Awaiting { num: num(7) };
    assert_eq!(judged(awaiting, None, Some(7), place(5)), (Install::Refused, Activate::Refused));
    assert_eq!(judged(awaiting, Some(5), Some(7), place(5)), (Install::Done, Activate::Done));
    assert_eq!(judged(awaiting, Some(5), Some(7), place(6)), (Install::Refused, Activate::Refused));
    // It may return here: that is known when the present move is over.
    let returning = handing(Next::Mine { num: num(6) });
    assert_eq!(judged(returning, None, Some(6), place(6)), (Install::Early, Activate::Early));
    assert_eq!(judged(returning, Some(4), Some(6), place(4)), (Install::Done, Activate::Done));
}

#[test]
fn a_push_of_another_history_is_neither_taken_nor_done_nor_refused() {
    let nothing = Cursor::default();
    for state in states() {
        for digest in [None, Some(Digest(1)), Some(place(4).digest)] {
            for adopted in [5, 6, 100] {
                let here = Here {
                    state,
                    taken: Some(num(9)),
                    cursor: &nothing,
                    adopted: Some(ConfigNum(adopted)),
                    digest,
                };
                assert_eq!(install(here, place(5), &nothing), Install::OtherHistory, "{state:?}");
                let judged = activate(here, place(5), &nothing, end(0), end(0));
                assert_eq!(judged, Activate::OtherHistory, "{state:?}");
            }
            // Who is not there yet cannot know.
            let here = Here { state, taken: None, cursor: &nothing, adopted: Some(num(4)), digest };
            assert_eq!(install(here, place(5), &nothing), Install::Early);
        }
    }
}

#[test]
fn rows_are_taken_only_where_they_continue_and_served_only_when_all_are_there() {
    let (mine, state) = (cursor(3), Awaiting { num: num(5) });
    let digest = Some(place(5).digest);
    let here = Here { state, taken: None, cursor: &mine, adopted: Some(num(5)), digest };
    for other in [
        Cursor::default(),
        cursor(2),
        cursor(4),
        Cursor { pos: Pos::end_of(20), ..cursor(3) },
        Cursor { pos: Pos { index: 21, change: 1 }, ..cursor(3) },
        Cursor { reach: Reach::End, ..cursor(3) },
        Cursor { reach: Reach::Start, ..cursor(3) },
    ] {
        assert_eq!(install(here, place(5), &other), Install::Elsewhere);
        assert_eq!(activate(here, place(5), &other, end(3), end(3)), Activate::Elsewhere);
    }
    let floor = End { floor: Version(1), ..end(3) };
    for counted in [end(2), floor, End { bytes: 1, ..end(3) }] {
        assert_eq!(activate(here, place(5), &mine, counted, end(3)), Activate::Wipe);
    }
}

#[test]
fn a_move_is_sealed_released_and_reopened_only_in_its_state_and_by_its_number() {
    for state in states() {
        for asked in [0, 4, 5, 6] {
            let exact = asked == 5;
            let sealed = match state {
                Leaving { .. } if exact => Some(handing(Next::Unchanged)),
                _ => None,
            };
            assert_eq!(seal(state, num(asked), 8, 8), sealed, "{state:?}");
            assert_eq!(seal(state, num(asked), 8, 7), None, "a change that it does not name: {state:?}");
            let (released, reopened) = match state {
                Handing { next, .. } if exact => match next {
                    Next::Unchanged => (Some(Absent), Some(Leaving { to: OTHER, num: num(5) })),
                    Next::Mine { num } => (Some(Awaiting { num }), Some(Serving)),
                    Next::Others { to, num } => (Some(Absent), Some(Leaving { to, num })),
                    Next::Nobodys => (Some(Absent), Some(Parked)),
                },
                _ => (None, None),
            };
            assert_eq!(release(state, num(asked)), released, "{state:?}");
            assert_eq!(reopen(state, num(asked)), reopened, "{state:?}");
        }
    }
}
