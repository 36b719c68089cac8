//! Every state meets every event; what is not listed changes nothing.

use bytes::Bytes;
use clerk::api::config::Assignment;
use clerk::api::kv::Cursor;
use clerk::api::{ConfigNum, GroupId};

use super::{Access, Activate, Install, ShardState, access, activate, install, may_adopt, release};

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
    let may =
        |current, next, shards: &[ShardState]| may_adopt(current, ConfigNum(next), shards.iter().copied());
    assert!(may(None, 0, &[]));
    assert!(!may(None, 1, &[]));
    assert!(may(at(4), 5, &settled));
    for next in [0, 3, 4, 6, 7, u64::MAX] {
        assert!(!may(at(4), next, &settled));
    }
    for unsettled in [ShardState::Awaiting, ShardState::Handing { to: OTHER }] {
        assert!(!may(at(4), 5, &[ShardState::Serving, unsettled]));
    }
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
        // A group without any configuration, or one that is behind, knows nothing about (n, s) yet.
        for mine in [None, at(0), at(4)] {
            assert_eq!(install(state, mine, ConfigNum(5), &here, &here), Install::Behind);
            assert_eq!(activate(state, mine, ConfigNum(5), &here, &end), Activate::Behind);
        }
        // One that is past it answers "already done", whatever the shard is doing by then.
        for mine in [at(6), at(100)] {
            assert_eq!(install(state, mine, ConfigNum(5), &here, &here), Install::AlreadyDone);
            assert_eq!(activate(state, mine, ConfigNum(5), &here, &end), Activate::AlreadyDone);
        }
        let awaited = state == ShardState::Awaiting;
        let install_here = |after: &Cursor| install(state, at(5), ConfigNum(5), &here, after);
        let activate_here = |end: &Cursor| activate(state, at(5), ConfigNum(5), &here, end);
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
