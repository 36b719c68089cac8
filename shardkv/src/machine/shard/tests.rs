//! Every state meets every event; what is not listed changes nothing.

use bytes::Bytes;
use clerk::api::config::{Assignment, Place};
use clerk::api::push::Cursor;
use clerk::api::{ConfigNum, Digest, GroupId};

use super::{
    Access, Activate, Install, ShardState, access, activate, install, may_adopt, moves_here, release,
};

const ME: GroupId = GroupId(1);
const OTHER: GroupId = GroupId(2);
const THIRD: GroupId = GroupId(3);
const STATES: [ShardState; 5] = [
    ShardState::Absent,
    ShardState::Awaiting,
    ShardState::Serving,
    ShardState::Handing { to: OTHER },
    ShardState::Parked,
];

fn at(num: u64) -> Option<ConfigNum> {
    Some(ConfigNum(num))
}

fn place(num: u64) -> Place {
    Place { num: ConfigNum(num), digest: Digest(num * 1000 + 7) }
}

fn cursor(rows: u64) -> Cursor {
    let last = (rows > 0).then(|| Bytes::from(vec![rows as u8]));
    Cursor { last, rows, hash: rows * 7 }
}

#[test]
fn adopting_moves_each_state_as_the_table_says() {
    use ShardState::{Absent, Awaiting, Handing, Parked, Serving};
    let owners = [None, Some(ME), Some(OTHER)];
    let lasts = [None, Some(ME), Some(THIRD)];
    for owner in owners {
        for last_owner in lasts {
            let next = Assignment { owner, last_owner };
            let mine_and_new = owner == Some(ME) && last_owner.is_none();
            let expected = [
                (
                    Absent,
                    if mine_and_new {
                        Serving
                    } else if owner == Some(ME) {
                        Awaiting
                    } else {
                        Absent
                    },
                ),
                (Awaiting, Awaiting),
                (
                    Serving,
                    match owner {
                        None => Parked,
                        Some(ME) => Serving,
                        Some(to) => Handing { to },
                    },
                ),
                (Handing { to: OTHER }, Handing { to: OTHER }),
                (
                    Parked,
                    match owner {
                        None => Parked,
                        Some(ME) => Serving,
                        Some(to) => Handing { to },
                    },
                ),
            ];
            for (before, after) in expected {
                assert_eq!(before.adopt(ME, next), after, "{before:?} adopts {next:?}");
            }
        }
    }
}

#[test]
fn only_the_next_configuration_is_adopted_and_only_when_all_shards_are_settled() {
    let settled = [ShardState::Absent, ShardState::Serving, ShardState::Parked];
    let here = Some(place(4));
    let may = |current: Option<Place>, next, shards: &[ShardState]| {
        let before = current.map(|current| current.digest).unwrap_or_default();
        may_adopt(current, ConfigNum(next), before, shards.iter().copied())
    };
    assert!(may(None, 0, &[]));
    assert!(!may(None, 1, &[]));
    assert!(may(here, 5, &settled));
    for next in [0, 3, 4, 6, 7, u64::MAX] {
        assert!(!may(here, next, &settled));
    }
    for unsettled in [ShardState::Awaiting, ShardState::Handing { to: OTHER }] {
        assert!(!may(here, 5, &[ShardState::Serving, unsettled]));
    }
}

#[test]
fn only_what_follows_the_own_history_is_adopted() {
    let may = |current, next, before| may_adopt(current, ConfigNum(next), before, std::iter::empty());
    assert!(may(Some(place(4)), 5, place(4).digest));
    for before in [place(3).digest, place(5).digest, Digest(0), Digest(1)] {
        assert!(!may(Some(place(4)), 5, before), "{before:?}");
    }
    assert!(!may(None, 0, Digest(1)), "nothing comes before configuration 0");
}

#[test]
fn a_push_of_another_history_is_neither_taken_nor_done() {
    let (config, nothing) = (place(5), Cursor::default());
    for state in STATES {
        for other in [None, Some(Digest(1)), Some(place(4).digest)] {
            for mine in [at(5), at(6), at(100)] {
                let judged = install(state, mine, config, other, &nothing, &nothing);
                assert_eq!(judged, Install::OtherHistory, "{state:?} {mine:?}");
                let judged = activate(state, mine, config, other, &nothing, &nothing);
                assert_eq!(judged, Activate::OtherHistory, "{state:?} {mine:?}");
            }
            // Who is not there yet cannot know.
            assert_eq!(install(state, at(4), config, other, &nothing, &nothing), Install::Behind);
        }
    }
}

#[test]
fn a_shard_comes_from_its_last_owner_only() {
    let coming = Assignment { owner: Some(ME), last_owner: Some(OTHER) };
    assert!(moves_here(coming, ME, OTHER));
    assert!(!moves_here(coming, ME, THIRD) && !moves_here(coming, OTHER, OTHER));
    assert!(!moves_here(Assignment { last_owner: None, ..coming }, ME, OTHER));
}

#[test]
fn a_served_shard_serves_any_number_and_otherwise_the_number_decides_before_the_table() {
    for state in STATES {
        for asked in 0..10 {
            let expected = match state {
                ShardState::Serving => Access::Serve,
                _ if asked > 5 => Access::NotReady,
                ShardState::Absent | ShardState::Handing { .. } => Access::WrongGroup,
                ShardState::Awaiting | ShardState::Parked => Access::NotReady,
            };
            assert_eq!(access(state, ConfigNum(5), ConfigNum(asked)), expected, "{state:?} asked {asked}");
        }
    }
}

#[test]
fn a_push_is_handled_only_by_the_group_that_is_there_and_waits_for_it() {
    for state in STATES {
        let (here, end) = (cursor(3), cursor(3));
        let (config, same) = (place(5), Some(place(5).digest));
        // A group without any configuration, or one that is behind, knows nothing about (n, s) yet.
        for mine in [None, at(0), at(4)] {
            assert_eq!(install(state, mine, config, same, &here, &here), Install::Behind);
            assert_eq!(activate(state, mine, config, same, &here, &end), Activate::Behind);
        }
        // One that is past it answers "already done", whatever the shard is doing by then.
        for mine in [at(6), at(100)] {
            assert_eq!(install(state, mine, config, same, &here, &here), Install::AlreadyDone);
            assert_eq!(activate(state, mine, config, same, &here, &end), Activate::AlreadyDone);
        }
        let awaited = state == ShardState::Awaiting;
        let install_here = |after: &Cursor| install(state, at(5), config, same, &here, after);
        let activate_here = |end: &Cursor| activate(state, at(5), config, same, &here, end);
        assert_eq!(install_here(&here), if awaited { Install::Accept } else { Install::AlreadyDone });
        assert_eq!(activate_here(&end), if awaited { Activate::Serve } else { Activate::AlreadyDone });
        for other in [
            Cursor::default(),
            cursor(2),
            cursor(4),
            Cursor { hash: 1, ..cursor(3) },
            Cursor { rows: 4, ..cursor(3) },
            Cursor { last: None, ..cursor(3) },
        ] {
            assert_eq!(install_here(&other), if awaited { Install::Elsewhere } else { Install::AlreadyDone });
            assert_eq!(activate_here(&other), if awaited { Activate::Wipe } else { Activate::AlreadyDone });
        }
    }
}

#[test]
fn a_shard_is_released_only_while_handed_over_and_only_for_that_configuration() {
    for state in STATES {
        let handing = matches!(state, ShardState::Handing { .. });
        assert_eq!(release(state, at(5), ConfigNum(5)), handing);
        for num in [0, 4, 6] {
            assert!(!release(state, at(5), ConfigNum(num)));
        }
        assert!(!release(state, None, ConfigNum(0)));
    }
}
