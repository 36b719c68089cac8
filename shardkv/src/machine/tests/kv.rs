//! What clients see of one group that serves everything.

use base::socket::Room;
use clerk::api::Incarnation;
use clerk::api::kv::BATCH_WRITES_MAX;
use clerk::api::status;

use super::*;

fn serving() -> Group {
    serving_with(PARAMS)
}

fn serving_with(params: Params) -> Group {
    let mut group = Group::new(A, params);
    for config in &history(params, &[&[Some(A), Some(A)]]) {
        assert!(group.adopt(config));
    }
    group
}

#[test]
fn versions_grow_with_each_write_and_never_return_after_a_delete() {
    let mut group = serving();
    let (key, other) = (key_in(ShardId(0), 0), key_in(ShardId(0), 1));
    assert_eq!(group.get(&key), missing());
    assert_eq!(group.write(&key, Write::Delete), written(0));
    assert_eq!(group.write(&key, append("a")), written(1));
    assert_eq!(group.write(&key, append("b")), written(2));
    assert_eq!(group.write(&key, put("c")), written(3));
    assert_eq!(group.get(&key), value("c", 3));
    assert_eq!(group.write(&key, Write::Delete), written(3));
    assert_eq!(group.get(&key), missing());
    assert_eq!(group.write(&key, put("d")), written(4));
    // The floor is the shard's: another key created there starts above it, too.
    assert_eq!(group.write(&other, put("x")), written(4));
    assert_eq!(group.write(&key_in(ShardId(1), 0), put("y")), written(1));
    group.check_cache();
}

#[test]
fn a_conditional_put_needs_exactly_the_version_and_zero_means_absent() {
    let mut group = serving();
    let key = key_in(ShardId(1), 0);
    let mismatch = |version| Err(KvRefusal::VersionMismatch { version: Version(version) });
    assert_eq!(group.write(&key, put_if("a", 1)), mismatch(0));
    assert_eq!(group.write(&key, put_if("a", 0)), written(1));
    assert_eq!(group.write(&key, put_if("b", 0)), mismatch(1));
    assert_eq!(group.write(&key, put_if("b", 1)), written(2));
    // A retransmission without a session: at most once by version alone.
    assert_eq!(group.write(&key, put_if("b", 1)), mismatch(2));
    assert_eq!(group.write(&key, Write::Delete), written(2));
    assert_eq!(group.write(&key, put_if("c", 2)), mismatch(0));
    assert_eq!(group.write(&key, put_if("c", 0)), written(3));
    assert_eq!(group.get(&key), value("c", 3));
}

#[test]
fn size_limits_hold_for_the_result() {
    let mut group = serving();
    let key = key_in(ShardId(0), 0);
    let large = "x".repeat(33);
    let too_large = |bytes| Err(KvRefusal::ValueTooLarge { bytes, limit: 32 });
    assert_eq!(group.write(&key, put(&large)), too_large(33));
    assert_eq!(group.write(&key, put(&large[..20])), written(1));
    assert_eq!(group.write(&key, append(&large[..13])), too_large(33));
    assert_eq!(group.write(&key, append(&large[..12])), written(2));
    assert_eq!(group.get(&key), value(&large[..32], 2));
    for bad in [Bytes::new(), Bytes::from(vec![b'k'; 17])] {
        let refused = Err(KvRefusal::InvalidKey { bytes: bad.len() as u64, limit: 16 });
        assert_eq!(group.write(&bad, put("v")), refused);
    }
}

#[test]
fn a_repeated_ticket_gets_the_recorded_result_and_changes_nothing() {
    let mut group = serving();
    let key = key_in(ShardId(0), 0);
    let session = group.open(ShardId(0));
    assert_eq!(group.write_at(0, &key, append("a"), ticket(session, 1)), written(1));
    assert_eq!(group.write_at(0, &key, append("a"), ticket(session, 1)), written(1));
    assert_eq!(group.get(&key), value("a", 1));
    // Refusals that depend on the rows are results, too.
    let mismatch = Err(KvRefusal::VersionMismatch { version: Version(1) });
    assert_eq!(group.write_at(0, &key, put_if("b", 9), ticket(session, 2)), mismatch);
    assert_eq!(group.write(&key, append("c")), written(2));
    assert_eq!(group.write_at(0, &key, put_if("b", 9), ticket(session, 2)), mismatch);
    let too_large = Err(KvRefusal::ValueTooLarge { bytes: 40, limit: 32 });
    assert_eq!(group.write_at(0, &key, put(&"x".repeat(40)), ticket(session, 3)), too_large);
    assert_eq!(group.write_at(0, &key, put(&"x".repeat(40)), ticket(session, 3)), too_large);
    assert_eq!(group.write_at(0, &key, append("a"), ticket(session, 1)), Err(KvRefusal::StaleSeq));
    assert_eq!(group.get(&key), value("ac", 2));
    // A restart reads sessions from the rows.
    group.machine.load(&group.rows);
    assert_eq!(group.write_at(0, &key, put(&"x".repeat(40)), ticket(session, 3)), too_large);
    assert_eq!(group.write_at(0, &key, append("d"), ticket(session, 4)), written(3));
    group.check_cache();
}

#[test]
fn a_batch_is_one_command_whose_writes_are_judged_in_order_and_remembered_together() {
    let mut group = serving();
    let shard = ShardId(0);
    let (key, other) = (key_in(shard, 0), key_in(shard, 1));
    let session = group.open(shard);
    let large = "x".repeat(40);
    let writes = || {
        vec![
            (key.clone(), append("a")),
            (key.clone(), put_if("b", 1)),
            (other.clone(), put_if("c", 9)),
            (other.clone(), put(&large)),
            (key.clone(), append("d")),
        ]
    };
    let results = vec![
        Ok(Version(1)),
        Ok(Version(2)),
        Err(KvRefusal::VersionMismatch { version: Version(0) }),
        Err(KvRefusal::ValueTooLarge { bytes: 40, limit: 32 }),
        Ok(Version(3)),
    ];
    let answer = Ok(KvReply::Batch { results });
    assert_eq!(group.batch(shard, writes(), ticket(session, 1)), answer);
    assert_eq!(group.batch(shard, writes(), ticket(session, 1)), answer, "the recorded results");
    assert_eq!(group.get(&key), value("bd", 3));
    assert_eq!(group.get(&other), missing());
    group.machine.load(&group.rows);
    assert_eq!(group.batch(shard, writes(), ticket(session, 1)), answer, "even after a restart");
    assert_eq!(group.batch(shard, writes(), ticket(session, 0)), Err(KvRefusal::StaleSeq));
    // A number used for something else before answers that; nothing breaks, and nothing is executed.
    assert_eq!(group.write_at(0, &key, append("e"), ticket(session, 1)), answer);
    assert_eq!(group.get(&key), value("bd", 3));
    group.check_cache();
}

/// Rule 105: a batch of some bytes appends to values of megabytes.
#[test]
fn a_batch_that_would_make_too_much_is_refused_as_a_whole_and_remembered() {
    let mut group = serving_with(Params { value_bytes_max: 1 << 20, ..PARAMS });
    let shard = ShardId(0);
    let keys: Vec<Bytes> = (0..10).map(|number| key_in(shard, number)).collect();
    let large = "x".repeat(1_000_000);
    for key in &keys {
        assert_eq!(group.write(key, put(&large)), written(1));
    }
    let session = group.open(shard);
    let appends =
        |count: usize| keys[..count].iter().map(|key| (key.clone(), append("y"))).collect::<Vec<_>>();
    let refused = group.batch(shard, appends(5), ticket(session, 1));
    let Err(KvRefusal::BatchTooLarge { bytes, limit }) = refused else { panic!("{refused:?}") };
    assert!(bytes > limit && limit == 4 << 20, "{bytes} {limit}");
    assert_eq!(group.batch(shard, appends(10), None), refused, "no more is counted than is too much");
    assert_eq!(group.batch(shard, appends(1), ticket(session, 1)), refused, "remembered");
    assert_eq!(group.get(&keys[0]), value(&large, 1));
    // The same key again and again writes its value again and again.
    let same = vec![(keys[0].clone(), append("y")); 5];
    assert!(matches!(group.batch(shard, same, None), Err(KvRefusal::BatchTooLarge { .. })));
    // And a value that the batch itself makes, whether it is put or appended to nothing.
    let new = key_in(shard, 10);
    for first in [put(&large), append(&large)] {
        let mut writes = vec![(new.clone(), first)];
        writes.extend(vec![(new.clone(), append("y")); 4]);
        assert!(matches!(group.batch(shard, writes, None), Err(KvRefusal::BatchTooLarge { .. })));
    }
    let conditional = Write::Put { value: Bytes::from_static(b"x"), expected: Some(Version(7)) };
    let mut writes = vec![(keys[0].clone(), conditional)];
    writes.extend(vec![(keys[0].clone(), append("y")); 4]);
    assert!(matches!(group.batch(shard, writes, None), Err(KvRefusal::BatchTooLarge { .. })));
    assert_eq!((group.get(&new), group.get(&keys[0])), (missing(), value(&large, 1)));
    let deleted = vec![(keys[0].clone(), Write::Delete), (keys[0].clone(), append("y"))];
    assert!(matches!(group.batch(shard, deleted, None), Ok(KvReply::Batch { .. })));
    assert!(matches!(group.batch(shard, appends(4), ticket(session, 2)), Ok(KvReply::Batch { .. })));
    group.check_cache();
}

#[test]
fn a_batch_of_impossible_size_or_with_a_key_of_another_shard_is_refused_as_a_whole() {
    let mut group = serving();
    let key = key_in(ShardId(0), 0);
    let many = vec![(key.clone(), append("a")); BATCH_WRITES_MAX + 1];
    let stray = vec![(key.clone(), append("a")), (key_in(ShardId(1), 0), append("a"))];
    for writes in [Vec::new(), many, stray] {
        assert!(matches!(group.batch(ShardId(0), writes, None), Err(KvRefusal::Malformed(_))));
    }
    assert_eq!(group.get(&key), missing());
}

#[test]
fn a_session_that_was_dropped_or_never_opened_is_expired_and_not_executed() {
    let mut group = serving();
    let key = key_in(ShardId(0), 0);
    let expired = Err(KvRefusal::SessionExpired);
    assert_eq!(group.write_at(0, &key, put("a"), ticket(SessionId(77), 1)), expired);
    let first = group.open(ShardId(0));
    let second = group.open(ShardId(0));
    assert_eq!(group.write_at(0, &key, put("a"), ticket(first, 1)), written(1));
    group.open(ShardId(0));
    let counted = |group: &Group| group.machine.sessions.read();
    assert_eq!(counted(&group), status::Sessions { open: 3, evicted: 0, refused: 0 });
    // The limit is three: the fourth drops the one used longest ago, which is the second.
    group.open(ShardId(0));
    assert_eq!((counted(&group).open, counted(&group).evicted), (3, 1));
    assert_eq!(group.write_at(0, &key, put("b"), ticket(second, 1)), expired);
    assert_eq!(group.write_at(0, &key, put("a"), ticket(first, 1)), written(1));
    // A session belongs to its shard.
    assert_eq!(group.write_at(0, &key_in(ShardId(1), 0), put("b"), ticket(first, 2)), expired);
    assert_eq!(group.get(&key), value("a", 1));
}

#[test]
fn a_session_never_holds_a_value() {
    let mut group = serving();
    let key = key_in(ShardId(0), 0);
    let session = group.open(ShardId(0));
    group.write_at(0, &key, put("a-long-unmistakable-value"), ticket(session, 1)).expect("written");
    let prefix = rows::sessions_prefix(ShardId(0));
    let sessions: Vec<_> = group.rows.0.iter().filter(|(row, _)| row.starts_with(&prefix)).collect();
    assert!(!sessions.is_empty());
    assert!(sessions.iter().all(|(_, value)| !value.windows(12).any(|part| part == b"unmistakable")));
}

#[test]
fn pages_of_a_scan_hold_every_row_of_the_shard_once_and_in_order() {
    let mut group = serving();
    let shard = ShardId(1);
    let keys: Vec<_> = (0..25).map(|n| key_in(shard, n)).collect();
    for key in &keys {
        group.write(key, put("v")).expect("written");
    }
    group.write(&key_in(ShardId(0), 0), put("of the other shard")).expect("written");
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let Ok(KvReply::Page { items, done }) = group.scan(shard, after, 10) else { panic!("no page") };
        seen.extend(items.into_iter().map(|item| item.key));
        after = seen.last().cloned();
        if done {
            break;
        }
    }
    let order = |key: &Bytes| (clerk::api::config::slot_of(key), key.clone());
    assert!(seen.is_sorted_by_key(order));
    seen.sort();
    let mut keys = keys;
    keys.sort();
    assert_eq!(seen, keys);
    assert!(matches!(group.scan(shard, Some(key_in(ShardId(0), 0)), 1), Err(KvRefusal::Malformed(_))));
    assert_eq!(group.scan(ShardId(2), None, 1), Err(KvRefusal::UnknownShard(ShardId(2))));
}

#[test]
fn an_answer_is_made_only_if_there_is_room_for_it() {
    let mut group = serving();
    let (shard, key, config) = (ShardId(0), key_in(ShardId(0), 0), ConfigNum(0));
    let text = "x".repeat(32);
    assert_eq!(group.write(&key, put(&text)), written(1));
    // Of a connection on which nobody takes answers.
    let room = Room::bounded(80);
    let asked = |room: &Reservation| {
        [
            group
                .machine
                .query(&group.rows, Query::Get { shard, key: key.clone(), config, room: Clone::clone(room) }),
            group.machine.query(
                &group.rows,
                Query::Scan { shard, after: None, limit: 9, config, room: Clone::clone(room) },
            ),
        ]
    };
    let (first, second, third) = (room.reservation(), room.reservation(), room.reservation());
    let [value_of_key, page] = asked(&first).map(Outcome::reply);
    assert_eq!(value_of_key, value(&text, 1));
    assert!(matches!(page, Ok(KvReply::Page { items, .. }) if items.len() == 1));
    assert_eq!(asked(&second).map(Outcome::reply), [Err(KvRefusal::Busy), Err(KvRefusal::Busy)]);
    drop((first, second));
    assert_eq!(asked(&third).map(Outcome::reply)[0], value(&text, 1), "they were taken");
}

#[test]
fn counters_follow_the_rows() {
    let mut group = serving();
    let key = key_in(ShardId(0), 0);
    for write in [put("four"), append("five5"), put("1"), append("22"), Write::Delete, put("77")] {
        group.write(&key, write).expect("written");
    }
    group.write(&key_in(ShardId(0), 1), put("333")).expect("written");
    let meta = rows::meta(&group.rows, ShardId(0));
    let keys = (key.len() + key_in(ShardId(0), 1).len()) as u64;
    assert_eq!((meta.rows, meta.bytes), (2, keys + 5));
}

#[test]
fn a_group_without_a_configuration_is_not_ready_and_keeps_its_first_name() {
    let mut group = Group::unnamed(A, PARAMS);
    let key = key_in(ShardId(0), 0);
    let not_ready = Err(not_ready(0));
    assert_eq!(group.write(&key, put("a")), not_ready);
    assert_eq!(group.get(&key), not_ready);
    assert_eq!(group.apply(Command::Init { incarnation: Incarnation(5) }), Outcome::Changed(true));
    assert_eq!(group.apply(Command::Init { incarnation: Incarnation(6) }), Outcome::Changed(false));
    assert_eq!(rows::incarnation(&group.rows), Some(Incarnation(5)));
    let configs = history(PARAMS, &[&[Some(A), Some(B)]]);
    assert!(!group.adopt(&configs[1]), "the first one that names it is not the first of all");
    assert!(group.adopt(&configs[0]));
    assert_eq!(group.write(&key, put("a")), Err(KvRefusal::WrongGroup { config: ConfigNum(0), ask: None }));
    // A clerk that knows more: this group is behind.
    assert_eq!(group.write_at(1, &key, put("a"), None), not_ready);
    group.check_cache();
}

#[test]
fn a_configuration_of_another_cluster_is_not_adopted() {
    let mut group = serving();
    let good = history(PARAMS, &[&[Some(A), Some(A)], &[Some(A), Some(B)]]).remove(2);
    let bent = |bend: fn(&mut Config)| {
        let mut next = good.config().as_ref().clone();
        bend(&mut next);
        Sealed::new(next)
    };
    assert!(!group.adopt(&bent(|next| next.params.value_bytes_max += 1)));
    assert!(!group.adopt(&bent(|next| next.key += 1)));
    assert!(!group.adopt(&bent(|next| next.before.0 += 1)));
    assert!(group.adopt(&good));
}
