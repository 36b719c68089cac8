use bytes::Bytes;
use clerk::api::push::Pos;
use clerk::api::{ConfigNum, ShardId};
use raft::rsm::{MapRows, Rows};
use raft::types::Index;

use super::{Changes, Lag, Limits, Missing, Noting, cost};
use crate::machine::rows;

const S: ShardId = ShardId(0);
const M: ConfigNum = ConfigNum(5);

fn key(n: u8) -> Bytes {
    Bytes::copy_from_slice(&[n])
}

fn at(index: u64, change: u32) -> Pos {
    Pos { index, change }
}

fn leaving(limits: Limits) -> Changes {
    let changes = Changes::with(limits);
    changes.start(S, M, Pos::end_of(10));
    changes
}

/// The keys that changed after the first and up to the second.
fn missing(changes: &Changes, after: Pos, upto: Pos) -> Option<Vec<u8>> {
    changes.missing(S, M, after, upto, 100).map(|it| it.keys.iter().map(|(_, key)| key[0]).collect())
}

#[test]
fn a_row_is_missing_until_the_position_of_its_last_change() {
    let changes = leaving(Limits::default());
    for (n, index) in [(1, 11), (2, 12), (1, 13), (3, 14)] {
        assert!(changes.note(S, &key(n), 10, at(index, 1)));
    }
    let all = Pos::end_of(14);
    assert_eq!(missing(&changes, Pos::end_of(10), all), Some(vec![2, 1, 3]));
    assert_eq!(missing(&changes, Pos::end_of(12), all), Some(vec![1, 3]));
    assert_eq!(missing(&changes, at(13, 1), all), Some(vec![3]));
    assert_eq!(missing(&changes, Pos::end_of(10), Pos::end_of(12)), Some(vec![2]), "1 changed later");
    assert_eq!(missing(&changes, all, all), Some(vec![]));
    let cut = changes.missing(S, M, Pos::end_of(10), all, 1);
    assert_eq!(cut, Some(Missing { keys: vec![(at(12, 1), key(2))], more: true }));
    // At most: each change counts.
    assert_eq!(changes.lag(S, M, Pos::end_of(10)), Some(Lag { rows: 3, bytes: 30 }));
    assert_eq!(changes.lag(S, M, at(13, 1)), Some(Lag { rows: 1, bytes: 10 }));
    assert_eq!(changes.lag(S, M, all), Some(Lag::default()));
}

#[test]
fn what_is_not_known_is_not_said() {
    let changes = leaving(Limits::default());
    assert_eq!(missing(&changes, Pos::end_of(9), Pos::end_of(20)), None, "from before it left");
    assert_eq!(changes.missing(S, ConfigNum(6), Pos::end_of(10), Pos::end_of(20), 1), None, "another move");
    assert_eq!(changes.lag(ShardId(1), M, Pos::end_of(10)), None, "another shard");
    assert!(!changes.note(ShardId(1), &key(1), 1, at(11, 1)));
    changes.note(S, &key(1), 1, at(11, 1));
    changes.start(S, M, Pos::end_of(12));
    assert_eq!(missing(&changes, Pos::end_of(11), Pos::end_of(20)), None, "it begins anew");
    assert_eq!(changes.bytes(), 0);
    changes.stop(S);
    assert_eq!(missing(&changes, Pos::end_of(12), Pos::end_of(20)), None);
    assert!(changes.is_idle());
}

#[test]
fn the_oldest_changes_go_first_and_what_they_were_is_not_known() {
    let changes = leaving(Limits { rows: 3, ..Limits::default() });
    for n in 1..=5 {
        changes.note(S, &key(n), 10, at(10 + u64::from(n), 1));
    }
    let all = Pos::end_of(15);
    assert_eq!(missing(&changes, Pos::end_of(11), all), None);
    assert_eq!(missing(&changes, at(12, 1), all), Some(vec![3, 4, 5]));
    assert_eq!(changes.lag(S, M, at(12, 1)), Some(Lag { rows: 3, bytes: 30 }));
    assert_eq!(changes.bytes(), 3 * cost(&key(1)));
}

#[test]
fn all_shards_together_are_bounded_and_the_oldest_changes_of_all_go_first() {
    let bytes = 100 * cost(&key(1));
    let changes = leaving(Limits { bytes, ..Limits::default() });
    let other = ShardId(1);
    changes.start(other, M, Pos::end_of(10));
    for n in 0..150_u8 {
        let shard = if n < 100 { other } else { S };
        changes.note(shard, &key(n), 1, at(11 + u64::from(n), 1));
        assert!(changes.bytes() <= bytes);
    }
    assert!(changes.lag(S, M, Pos::end_of(10)).is_some(), "the newer changes are known");
    assert!(changes.lag(other, M, Pos::end_of(10)).is_none());
}

#[test]
fn every_change_of_a_command_is_noted_with_its_row_about_the_last_one() {
    let changes = Changes::default();
    let (mut table, last) = (MapRows::default(), |table: &MapRows| rows::last_change(table, S));
    let value = |n: u8| rows::value_key(&key(n));
    let put = |rows: &mut dyn Rows| rows.put(value(1), Bytes::new());
    Noting::apply(&mut table, &changes, 1, Index(9), put);
    assert_eq!(last(&table), 0, "no shard leaves");
    changes.start(S, M, Pos::end_of(10));
    Noting::apply(&mut table, &changes, 1, Index(11), |rows| {
        rows.put(value(1), Bytes::new());
        rows.delete(&value(2));
        rows.put(rows::sessions_prefix(S), Bytes::new());
        // The group's own rows do not travel.
        rows.put(Bytes::from_static(&[0x01, b'n']), Bytes::new());
    });
    assert_eq!(last(&table), 11);
    let found = changes.missing(S, M, Pos::end_of(10), Pos::end_of(11), 9).expect("all is known");
    let expected = [value(1), value(2), rows::sessions_prefix(S)];
    assert_eq!(found.keys.iter().map(|(_, key)| key.clone()).collect::<Vec<_>>(), expected);
    Noting::apply(&mut table, &changes, 1, Index(12), |_| ());
    assert_eq!(last(&table), 11, "it changed nothing");
    let (start, end) = rows::values_range(S, 1);
    Noting::apply(&mut table, &changes, 1, Index(13), |rows| rows.delete_range(&start, &end));
    assert_eq!(last(&table), 13);
    assert_eq!(missing(&changes, Pos::end_of(12), Pos::end_of(13)), None, "every copy starts over");
}
