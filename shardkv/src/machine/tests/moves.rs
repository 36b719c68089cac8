//! Shards carried by hand between two groups, with everything a network can do to the messages.

use super::*;

const S: ShardId = ShardId(0);

/// Two groups; A serves both shards in configuration 1, and B gets shard 0 in configuration 2, and so on.
fn two_groups(owners: &[Option<GroupId>]) -> (Group, Group, Vec<Sealed>) {
    let owners: Vec<_> = owners.iter().map(|owner| [*owner, Some(A)]).collect();
    let owners: Vec<_> = owners.iter().map(|owners| &owners[..]).collect();
    let configs = history(PARAMS, &owners);
    let (mut a, mut b) = (Group::new(A, PARAMS), Group::new(B, PARAMS));
    for config in &configs[..2] {
        assert!(a.adopt(config) && b.adopt(config));
    }
    (a, b, configs)
}

/// Seals shard 0, carries it from one to the other in one chunk, and releases it.
fn carry(from: &mut Group, to: &mut Group, config: &Sealed) {
    let num = config.num.0;
    from.apply(seal(S, num));
    let rows = from.pushed(S);
    let at = cursor_after(&rows);
    if !rows.is_empty() {
        assert_eq!(cursor_in(to.apply(install(S, config, &Cursor::default(), &rows)).push(), num), at);
    }
    assert_eq!(to.apply(activate(S, config, &at, from.end(S))).push(), done(num));
    assert_eq!(from.apply(release(S, num)), Outcome::Changed(true));
}

#[test]
fn values_versions_floor_and_sessions_move_with_the_shard() {
    let (mut a, mut b, configs) = two_groups(&[Some(A), Some(B)]);
    let (key, gone, stays) = (key_in(S, 0), key_in(S, 1), key_in(ShardId(1), 0));
    let session = a.open(S);
    a.write(&stays, put("s")).expect("written");
    for piece in ["a", "b", "c"] {
        a.write(&gone, append(piece)).expect("written");
    }
    assert_eq!(a.write(&gone, Write::Delete), written(3));
    assert_eq!(a.write_at(1, &key, append("x"), ticket(session, 1)), written(4));
    assert!(a.adopt(&configs[2]) && b.adopt(&configs[2]));
    assert_eq!((a.state(S), b.state(S)), (leaving(B, 2), awaiting(2)));
    assert_eq!(a.write_at(2, &stays, append("t"), None), written(2), "served until it is sealed");
    assert_eq!(a.apply(seal(S, 2)), Outcome::Changed(true));
    // Frozen at one, not yet at the other; neither is recorded.
    let elsewhere = KvRefusal::WrongGroup { config: ConfigNum(2), ask: Some(B) };
    assert_eq!(a.write_at(2, &key, append("y"), ticket(session, 2)), Err(elsewhere));
    assert_eq!(b.write_at(2, &key, append("y"), ticket(session, 2)), Err(not_ready(2)));
    carry(&mut a, &mut b, &configs[2]);
    assert_eq!(b.write_at(2, &key, append("x"), ticket(session, 1)), written(4), "the session came along");
    assert_eq!(b.write_at(2, &key, append("y"), ticket(session, 2)), written(5));
    assert_eq!(b.get(&key), value("xy", 5));
    assert_eq!(b.write(&gone, put("new")), written(4), "the floor came along");
    assert_ne!(b.open(S), session, "the counter came along: a name is never used twice");
    assert!(a.pushed(S).is_empty(), "nothing is left at the source");
    assert_eq!(a.get(&stays), value("st", 2), "the other shard is undisturbed");
    assert_eq!(rows::meta(&b.rows, S).rows, 2);
    a.check_cache();
    b.check_cache();
}

#[test]
fn chunks_that_are_doubled_reordered_or_cut_differently_are_harmless() {
    let (mut a, mut b, configs) = two_groups(&[Some(A), Some(B)]);
    for n in 0..10 {
        a.write(&key_in(S, n), put("value")).expect("written");
    }
    assert!(a.adopt(&configs[2]) && b.adopt(&configs[2]));
    a.apply(seal(S, 2));
    let rows = a.pushed(S);
    let at = |n: usize| cursor_after(&rows[..n]);
    let mut take = |after: usize, rows: &[Change]| {
        cursor_in(b.apply(install(S, &configs[2], &at(after), rows)).push(), 2)
    };
    assert_eq!(take(5, &rows[5..]), at(0), "too early");
    assert_eq!(take(0, &rows[..5]), at(5));
    assert_eq!(take(0, &rows[..5]), at(5), "doubled");
    assert_eq!(take(0, &rows[..7]), at(5), "cut differently");
    assert_eq!(take(5, &rows[5..6]), at(6));
    assert_eq!(cursor_in(b.ask(S, &configs[2]), 2), at(6), "a new mover asks");
    assert_eq!(cursor_in(b.apply(install(S, &configs[2], &at(6), &rows[6..])).push(), 2), at(rows.len()));
    assert_eq!(b.apply(activate(S, &configs[2], &at(rows.len()), a.end(S))).push(), done(2));
    assert_eq!(b.pushed(S), a.pushed(S));
    assert!(b.rows.get(&[0x01, b'u', 0, 0, 0, 0]).is_none(), "Activate deletes the cursor");
    // Whatever arrives late gets the acknowledgement, and changes nothing.
    let before = b.rows.clone();
    assert_eq!(b.apply(install(S, &configs[2], &at(0), &rows[..5])).push(), done(2));
    assert_eq!(b.apply(activate(S, &configs[2], &at(3), a.end(S))).push(), done(2));
    assert_eq!(b.ask(S, &configs[2]), done(2));
    assert_eq!(b.rows, before);
}

#[test]
fn an_activate_that_does_not_match_wipes_and_starts_over() {
    let (mut a, mut b, configs) = two_groups(&[Some(A), Some(B)]);
    for n in 0..4 {
        a.write(&key_in(S, n), put("value")).expect("written");
    }
    assert!(a.adopt(&configs[2]) && b.adopt(&configs[2]));
    a.apply(seal(S, 2));
    let rows = a.pushed(S);
    b.apply(install(S, &configs[2], &Cursor::default(), &rows[..3])).push().expect("a cursor");
    let wiped = b.apply(activate(S, &configs[2], &cursor_after(&rows[..3]), a.end(S))).push();
    let nothing = Copied { wipes: 1, ..Copied::default() };
    assert_eq!(wiped, Ok(PushReply::Copied { num: ConfigNum(2), copied: nothing, disk_full: false }));
    assert_eq!(b.state(S), awaiting(2));
    assert!(b.pushed(S).is_empty());
    assert_eq!(b.machine.standing().borrow().wipes, 1);
    carry(&mut a, &mut b, &configs[2]);
    assert_eq!(b.get(&key_in(S, 3)), value("value", 1));
}

#[test]
fn rows_of_another_shard_or_that_do_not_move_the_cursor_are_refused() {
    let (mut a, mut b, configs) = two_groups(&[Some(A), Some(B)]);
    a.write(&key_in(S, 0), put("value")).expect("written");
    a.write(&key_in(S, 1), put("value")).expect("written");
    assert!(a.adopt(&configs[2]) && b.adopt(&configs[2]));
    let none = Cursor::default();
    let some = |value: &'static [u8]| Some(Bytes::from_static(value));
    let of_other = vec![(rows::value_key(&key_in(ShardId(1), 0)), some(b"12345678"))];
    let of_group = vec![(Bytes::from_static(&[0x01, b'n']), some(b"x"))];
    let of_raft = vec![(Bytes::from_static(b"\0applied"), some(b"x"))];
    let gone_elsewhere = vec![(rows::value_key(&key_in(ShardId(1), 0)), None)];
    let before = b.rows.clone();
    for bad in [of_other, of_group, of_raft, gone_elsewhere] {
        assert!(matches!(b.apply(install(S, &configs[2], &none, &bad)).push(), Err(KvRefusal::Malformed(_))));
    }
    // Rows that do not move the cursor, or lie beyond it.
    let rows = a.pushed(S);
    let (place, to) = (configs[2].place(), cursor_after(&rows[..1]));
    let taken = |after: &Cursor, to: &Cursor| {
        let (after, to) = (after.clone(), to.clone());
        Command::Install { shard: S, config: place, after, to, rows: rows.clone() }
    };
    assert!(matches!(b.apply(taken(&none, &to)).push(), Err(KvRefusal::Malformed(_))));
    assert!(matches!(b.apply(taken(&none, &none)).push(), Err(KvRefusal::Malformed(_))));
    let unknown = b.apply(install(ShardId(9), &configs[2], &none, &[])).push();
    assert_eq!(unknown, Err(KvRefusal::UnknownShard(ShardId(9))));
    assert_eq!(b.rows, before);
}

#[test]
fn a_receiver_that_is_behind_takes_nothing_and_acknowledges_nothing() {
    let (mut a, mut b, configs) = two_groups(&[Some(A), Some(B)]);
    a.write(&key_in(S, 0), put("value")).expect("written");
    assert!(a.adopt(&configs[2]));
    a.apply(seal(S, 2));
    let rows = a.pushed(S);
    let (at, end) = (cursor_after(&rows), a.end(S));
    let late: PushVerdict = Err(not_ready(1));
    let before = b.rows.clone();
    assert_eq!(b.ask(S, &configs[2]), late);
    assert_eq!(b.apply(install(S, &configs[2], &Cursor::default(), &rows)).push(), late);
    assert_eq!(b.apply(activate(S, &configs[2], &at, end)).push(), late);
    assert_eq!(b.rows, before);
    for entry in [release(S, 1), reopen(S, 1), seal(S, 2), seal(S, 1)] {
        assert_eq!(a.apply(entry), Outcome::Changed(false), "another move's, or done already");
    }
    assert_eq!(a.state(S), handing(B, 2, Next::Unchanged));
}

#[test]
fn adopting_waits_for_no_shard_that_is_on_its_way() {
    let (mut a, mut b, configs) = two_groups(&[Some(A), Some(B), Some(B), Some(A), Some(B)]);
    let key = key_in(S, 0);
    a.write(&key, put("value")).expect("written");
    assert!(a.adopt(&configs[2]) && b.adopt(&configs[2]));
    assert!(a.adopt(&configs[3]) && b.adopt(&configs[3]));
    assert_eq!((a.state(S), b.state(S)), (leaving(B, 2), awaiting(2)), "their owner did not change");
    a.apply(seal(S, 2));
    assert!(a.adopt(&configs[4]) && a.adopt(&configs[5]));
    assert_eq!(a.state(S), handing(B, 2, Next::Others { to: B, num: ConfigNum(5) }));
    let rows = a.pushed(S);
    b.apply(install(S, &configs[2], &Cursor::default(), &rows)).push().expect("taken");
    assert_eq!(b.apply(activate(S, &configs[2], &cursor_after(&rows), a.end(S))).push(), done(2));
    assert!(b.adopt(&configs[4]));
    assert_eq!(b.state(S), leaving(A, 4), "it serves until A awaits the shard");
    assert!(b.adopt(&configs[5]));
    assert_eq!(b.state(S), ShardState::Serving, "and is to keep it");
    assert_eq!(a.apply(release(S, 2)), Outcome::Changed(true));
    assert_eq!(a.state(S), ShardState::Absent);
    assert_eq!(b.get(&key), value("value", 1));
    assert_eq!(b.ask(S, &configs[5]), refused(5), "nobody has anything to send");
}

#[test]
fn a_move_that_is_taken_back_before_the_seal_costs_nothing() {
    let (mut a, mut b, configs) = two_groups(&[Some(A), Some(B), Some(A), None, Some(B)]);
    let (key, n) = (key_in(S, 0), |n: usize| &[2, 3, 4, 5][n]);
    let session = a.open(S);
    assert_eq!(a.write_at(1, &key, append("a"), ticket(session, 1)), written(1));
    for at in 0..4 {
        assert!(a.adopt(&configs[*n(at)]) && b.adopt(&configs[*n(at)]));
        let expected = [leaving(B, 2), ShardState::Serving, ShardState::Parked, leaving(B, 5)];
        assert_eq!(a.state(S), expected[at]);
        let expected = [awaiting(2), ShardState::Absent, ShardState::Absent, awaiting(5)];
        assert_eq!(b.state(S), expected[at]);
        a.check_cache();
        b.check_cache();
    }
    assert_eq!(a.write_at(5, &key, append("b"), ticket(session, 2)), written(2));
    assert_eq!(b.ask(S, &configs[2]), refused(2));
    carry(&mut a, &mut b, &configs[5]);
    assert_eq!(b.get(&key), value("ab", 2));
}

#[test]
fn what_its_receiver_refuses_is_served_again_and_goes_where_the_newest_configuration_wants_it() {
    let owners = [Some(A), Some(B), Some(A), Some(B), None, Some(B)];
    let next_of = |count| match count {
        0 => (Next::Unchanged, leaving(B, 2)),
        1 => (Next::Mine { num: ConfigNum(3) }, ShardState::Serving),
        2 => (Next::Others { to: B, num: ConfigNum(4) }, leaving(B, 4)),
        _ => (Next::Nobodys, ShardState::Parked),
    };
    for count in 0..4 {
        let (mut a, mut b, configs) = two_groups(&owners);
        let key = key_in(S, 0);
        a.write(&key, put("value")).expect("written");
        assert!(a.adopt(&configs[2]) && b.adopt(&configs[2]));
        a.apply(seal(S, 2));
        let rows = a.pushed(S);
        b.apply(install(S, &configs[2], &Cursor::default(), &rows)).push().expect("taken");
        assert!(b.adopt(&configs[3]));
        assert!(b.pushed(S).is_empty(), "what came is dropped with the assignment");
        let late = activate(S, &configs[2], &cursor_after(&rows), a.end(S));
        assert_eq!(b.apply(late).push(), refused(2));
        for config in &configs[3..3 + count] {
            assert!(a.adopt(config));
        }
        let (next, after) = next_of(count);
        assert_eq!(a.state(S), handing(B, 2, next));
        assert_eq!(a.apply(reopen(S, 2)), Outcome::Changed(true));
        assert_eq!(a.state(S), after);
        for (n, config) in configs.iter().enumerate().skip(3) {
            // Those that are adopted already are refused.
            assert_eq!(a.adopt(config), n >= 3 + count);
            assert_eq!(b.adopt(config), n > 3);
        }
        assert_eq!(a.state(S), leaving(B, 6));
        carry(&mut a, &mut b, &configs[6]);
        assert_eq!(b.get(&key), value("value", 1));
        a.check_cache();
        b.check_cache();
    }
}

#[test]
fn a_shard_that_returns_while_it_is_handed_over_is_awaited_once_its_rows_are_gone() {
    let (mut a, mut b, configs) = two_groups(&[Some(A), Some(B), Some(A)]);
    let key = key_in(S, 0);
    a.write(&key, put("value")).expect("written");
    assert!(a.adopt(&configs[2]) && b.adopt(&configs[2]));
    a.apply(seal(S, 2));
    assert!(a.adopt(&configs[3]));
    assert_eq!(a.ask(S, &configs[3]), Err(not_ready(3)), "it cannot know yet");
    carry(&mut a, &mut b, &configs[2]);
    assert_eq!(a.state(S), awaiting(3));
    assert!(b.adopt(&configs[3]));
    assert_eq!(b.write(&key, put("newer")), written(2));
    carry(&mut b, &mut a, &configs[3]);
    assert_eq!(a.get(&key), value("newer", 2));
    // What is true once stays true.
    assert_eq!((a.ask(S, &configs[3]), b.ask(S, &configs[2])), (done(3), done(2)));
}

#[test]
fn what_a_seal_names_is_known_until_the_move_ends_whatever_is_adopted_meanwhile() {
    let (mut a, _, configs) = two_groups(&[Some(A), Some(B), Some(A), None, Some(B)]);
    let key = key_in(S, 0);
    a.write(&key, put("value")).expect("written");
    assert!(a.adopt(&configs[2]));
    let frozen = Frozen { from: Pos::end_of(100), upto: 200, keys: vec![rows::value_key(&key)] };
    let sealed = Command::Seal { shard: S, num: ConfigNum(2), frozen: frozen.clone() };
    assert_eq!(a.apply(sealed), Outcome::Changed(true));
    for config in &configs[3..] {
        assert!(a.adopt(config));
        assert_eq!(rows::frozen(&a.rows, S), frozen, "adopted {}", config.num);
    }
    a.apply(release(S, 2));
    assert_eq!(rows::frozen(&a.rows, S), Frozen::default());
}

#[test]
fn a_parked_shard_keeps_its_rows_and_returns_or_moves_on() {
    let (mut a, mut b, configs) = two_groups(&[Some(A), None, Some(A), None, Some(B)]);
    let key = key_in(S, 0);
    a.write(&key, put("value")).expect("written");
    assert!(a.adopt(&configs[2]) && b.adopt(&configs[2]));
    assert_eq!((a.state(S), b.state(S)), (ShardState::Parked, ShardState::Absent));
    assert_eq!(a.get(&key), Err(not_ready(2)));
    assert_eq!(a.write(&key, put("other")), Err(not_ready(2)));
    assert!(a.adopt(&configs[3]) && b.adopt(&configs[3]));
    assert_eq!(a.get(&key), value("value", 1));
    for config in &configs[4..] {
        assert!(a.adopt(config) && b.adopt(config));
    }
    assert_eq!((a.state(S), b.state(S)), (leaving(B, 5), awaiting(5)));
    carry(&mut a, &mut b, &configs[5]);
    assert_eq!(b.get(&key), value("value", 1));
}

#[test]
fn messages_delayed_over_a_chain_a_b_a_are_refused() {
    let (mut a, mut b, configs) = two_groups(&[Some(A), Some(B), Some(A), Some(B)]);
    let key = key_in(S, 0);
    a.write(&key, put("first")).expect("written");
    assert!(a.adopt(&configs[2]) && b.adopt(&configs[2]));
    a.apply(seal(S, 2));
    let old = a.pushed(S);
    let (old_at, old_end) = (cursor_after(&old), a.end(S));
    carry(&mut a, &mut b, &configs[2]);
    b.write(&key, put("second")).expect("written");
    assert!(a.adopt(&configs[3]) && b.adopt(&configs[3]));
    carry(&mut b, &mut a, &configs[3]);
    a.write(&key, put("third")).expect("written");
    assert!(a.adopt(&configs[4]) && b.adopt(&configs[4]));
    // B awaits the shard again: what was sent in configuration 2 must not fill it, and its
    // acknowledgement must not release the rows of configuration 4.
    let anew = cursor_in(b.ask(S, &configs[4]), 4);
    assert_eq!(anew, Cursor::default(), "every life starts with an empty cursor");
    assert_eq!(b.apply(install(S, &configs[2], &Cursor::default(), &old)).push(), done(2));
    assert_eq!(b.apply(activate(S, &configs[2], &old_at, old_end)).push(), done(2));
    for late in [seal(S, 2), release(S, 2), reopen(S, 2)] {
        assert_eq!(a.apply(late), Outcome::Changed(false));
    }
    assert_eq!(b.state(S), awaiting(4));
    carry(&mut a, &mut b, &configs[4]);
    assert_eq!(b.get(&key), value("third", 3));
    assert_eq!(b.apply(release(S, 2)), Outcome::Changed(false));
    assert_eq!(b.apply(release(S, 4)), Outcome::Changed(false));
}

#[test]
fn a_shard_without_rows_moves_too() {
    let (mut a, mut b, configs) = two_groups(&[Some(A), Some(B)]);
    assert!(a.adopt(&configs[2]) && b.adopt(&configs[2]));
    carry(&mut a, &mut b, &configs[2]);
    assert_eq!(b.write(&key_in(S, 0), put("v")), written(1));
}

#[test]
fn chunks_end_at_their_limit_or_after_one_large_row() {
    let params = Params { shard_count: 1, value_bytes_max: 1 << 20, ..PARAMS };
    let mut group = Group::new(A, params);
    for config in &history(params, &[&[Some(A)]]) {
        assert!(group.adopt(config));
    }
    let sizes = [100_000, 100_000, 100_000, 700_000, 10, 10, 200_000];
    for (n, size) in sizes.into_iter().enumerate() {
        group.write(&Bytes::from(format!("{{same slot}}{n}")), put(&"x".repeat(size))).expect("written");
    }
    let mut chunks = Vec::new();
    let mut reach = Reach::Start;
    let limit = ScanLimit { rows: copy::CHUNK_ROWS, bytes: copy::CHUNK_BYTES };
    loop {
        let (chunk, is_last) = copy::chunk(&group.rows, ShardId(0), 1, &reach, limit);
        let bytes: usize = chunk.iter().map(copy::weight).sum();
        assert!(bytes <= copy::CHUNK_BYTES || chunk.len() == 1, "{bytes} bytes in {} rows", chunk.len());
        if let Some((last, _)) = chunk.last() {
            reach = Reach::Key(last.clone());
        }
        chunks.push(chunk);
        if is_last {
            break;
        }
    }
    let all: Vec<_> = chunks.concat();
    assert!(all.is_sorted());
    assert_eq!(all.len(), 1 + sizes.len(), "the meta row and every value");
}

#[test]
fn a_configuration_of_another_history_is_not_adopted() {
    let (mut a, _, configs) = two_groups(&[Some(A), Some(B)]);
    let others = history(PARAMS, &[&[Some(A), Some(B)], &[Some(B), Some(B)]]);
    assert_eq!(others[0].digest(), configs[0].digest(), "both begin with the same configuration 0");
    let before = a.rows.clone();
    assert!(!a.adopt(&others[2]), "it has the next number, and follows another configuration 1");
    assert_eq!(a.rows, before);
    assert!(a.adopt(&configs[2]));
}

#[test]
fn a_group_that_is_meant_with_other_data_adopts_nothing() {
    let configs = history(PARAMS, &[&[Some(A), Some(A)]]);
    let mut wiped = Group::unnamed(A, PARAMS);
    wiped.apply(Command::Init { incarnation: Incarnation(5) });
    assert!(wiped.adopt(&configs[0]));
    assert!(!wiped.adopt(&configs[1]), "group A is named there with the data that it had");
    assert!(!wiped.machine.standing().borrow().joined);
    let mut nameless = Group::unnamed(A, PARAMS);
    assert!(nameless.adopt(&configs[0]) && !nameless.adopt(&configs[1]));
}

#[test]
fn a_push_of_another_history_changes_nothing_and_is_not_done() {
    let (mut a, mut b, configs) = two_groups(&[Some(A), Some(B), Some(B)]);
    a.write(&key_in(S, 0), put("value")).expect("written");
    assert!(a.adopt(&configs[2]) && b.adopt(&configs[2]));
    let others = history(PARAMS, &[&[Some(A), Some(B)], &[Some(B), Some(B)], &[Some(B), Some(B)]]);
    let rows = a.pushed(S);
    let (at, end) = (cursor_after(&rows), a.end(S));
    let before = b.rows.clone();
    let other = |verdict: PushVerdict| matches!(verdict, Err(KvRefusal::OtherHistory { .. }));
    assert!(other(b.ask(S, &others[2])));
    assert!(other(b.apply(install(S, &others[2], &Cursor::default(), &rows)).push()));
    assert!(other(b.apply(activate(S, &others[2], &at, end)).push()));
    assert_eq!(b.rows, before);
    carry(&mut a, &mut b, &configs[2]);
    assert!(b.adopt(&configs[3]));
    // Past it, too: "already done" would let a group of another history drop its rows.
    assert!(other(b.ask(S, &others[2])) && other(b.apply(activate(S, &others[2], &at, end)).push()));
    assert_eq!(b.ask(S, &configs[2]), done(2));
}

#[test]
fn rows_that_could_not_be_read_later_are_refused_when_they_are_applied() {
    let (mut a, mut b, configs) = two_groups(&[Some(A), Some(B)]);
    assert!(a.adopt(&configs[2]) && b.adopt(&configs[2]));
    let some = |value: &'static [u8]| Some(Bytes::from_static(value));
    let meta = (Bytes::from_static(&[0x10, 0, 0, 0, 0]), some(b"garbage"));
    let session = (Bytes::from_static(&[0x11, 0, 0, 0, 0, 0]), some(b"garbage"));
    let value = (rows::value_key(&key_in(S, 0)), some(b"short"));
    let before = b.rows.clone();
    for bad in [meta, session, value] {
        let answer = b.apply(install(S, &configs[2], &Cursor::default(), &[bad])).push();
        assert!(matches!(answer, Err(KvRefusal::Malformed(_))), "{answer:?}");
    }
    assert_eq!(b.rows, before);
    carry(&mut a, &mut b, &configs[2]);
    b.check_cache();
}

#[test]
fn a_group_keeps_the_digest_of_each_configuration_and_the_newest_ones_whole() {
    let owners = [[Some(A), Some(A)]; 100];
    let owners: Vec<&[Option<GroupId>]> = owners.iter().map(|owners| &owners[..]).collect();
    let configs = history(PARAMS, &owners);
    let mut group = Group::new(A, PARAMS);
    for config in &configs {
        assert!(group.adopt(config));
    }
    let digests = |num: u64| rows::digest(&group.rows, ConfigNum(num));
    assert!((0..=100).all(|num| digests(num) == Some(configs[num as usize].digest())));
    assert_eq!(digests(101), None);
    assert_eq!(rows::configs(&group.rows), configs[97..], "the newest 4");
    assert_eq!(rows::place(&group.rows), Some(configs[100].place()));
    group.check_cache();
}

/// Rows that count how often a range of them is deleted.
#[derive(Default)]
struct Counting(MapRows, usize);

impl Read for Counting {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.0.get(key)
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, limit: ScanLimit) -> Vec<(Bytes, Bytes)> {
        self.0.scan(start, end, limit)
    }
}

impl Rows for Counting {
    fn put(&mut self, key: Bytes, value: Bytes) {
        self.0.put(key, value);
    }

    fn delete(&mut self, key: &[u8]) {
        self.0.delete(key);
    }

    fn delete_range(&mut self, start: &[u8], end: &[u8]) {
        self.1 += 1;
        self.0.delete_range(start, end);
    }
}

#[test]
fn only_a_large_shard_is_deleted_by_range() {
    for (count, size, ranges) in [(0, 1, 0), (256, 1, 0), (257, 1, 1), (3, 60_000, 0), (5, 60_000, 1)] {
        let mut rows = Counting::default();
        for n in 0..count {
            rows.put(rows::value_key(&key_in(S, n)), Bytes::from(vec![1; size]));
        }
        rows.put(rows::value_key(&key_in(ShardId(1), 0)), Bytes::new());
        rows::put_meta(&mut rows, S, &rows::Meta::default());
        rows::delete_shard(&mut rows, S, PARAMS.shard_count);
        assert_eq!((rows.1, rows.0.0.len()), (ranges, 1), "{count} rows of {size} bytes");
    }
}
