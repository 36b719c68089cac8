//! Shards that are declared lost (rule 143).

use super::*;

const S: ShardId = ShardId(0);

/// `config`, followed by one that declares shard 0 lost and leaves it to its owner.
fn lost_after(config: &Sealed) -> Sealed {
    let shards = config.shards.iter().map(|it| Assignment { last_owner: it.owner.or(it.last_owner), ..*it });
    Sealed::new(Config {
        num: ConfigNum(config.num.0 + 1),
        before: config.digest(),
        shards: shards.collect(),
        lost: [S].into(),
        ..config.config().as_ref().clone()
    })
}

/// Groups A and B in configurations 1 to n. Shard 0 has these owners, shard 1 is A's. A has written.
fn groups(owners: &[Option<GroupId>]) -> (Group, Group, Vec<Sealed>) {
    let owners: Vec<_> = owners.iter().map(|owner| [*owner, Some(A)]).collect();
    let owners: Vec<_> = owners.iter().map(|owners| &owners[..]).collect();
    let configs = history(PARAMS, &owners);
    let (mut a, mut b) = (Group::new(A, PARAMS), Group::new(B, PARAMS));
    for config in &configs[..2] {
        assert!(a.adopt(config) && b.adopt(config));
    }
    for (shard, number) in [(S, 0), (S, 1), (ShardId(1), 0)] {
        a.write(&key_in(shard, number), put("old")).expect("it is served");
    }
    (a, b, configs)
}

#[test]
fn a_lost_shard_begins_empty_with_names_and_versions_that_never_were() {
    let (mut a, mut b, configs) = groups(&[Some(A), Some(B)]);
    let (key, kept) = (key_in(S, 0), key_in(ShardId(1), 0));
    let old = a.open(S);
    assert_eq!(a.write_at(1, &key, append("x"), ticket(old, 1)), written(2));
    // A never hears of it again; B waits for the shard.
    assert!(b.adopt(&configs[2]));
    assert_eq!(b.state(S), awaiting(2));
    let lost = lost_after(&configs[2]);
    assert!(b.adopt(&lost));
    assert_eq!((b.state(S), b.get(&key)), (ShardState::Serving, missing()));
    let floor = 3 << 32;
    assert_eq!(b.write(&key, put("new")), written(floor + 1), "above every version of the old life");
    assert!(b.open(S).0 > floor, "and so are the names of sessions");
    assert_eq!(b.write_at(3, &key, append("x"), ticket(old, 2)), Err(KvRefusal::SessionExpired));
    assert_eq!(rows::meta(&b.rows, S).rows, 1);
    b.check_cache();
    // What is lost for one shard is not lost for the others.
    assert_eq!(a.get(&kept), value("old", 1));
}

#[test]
fn every_group_drops_what_it_has_in_any_state() {
    type Prepare = fn(&mut Group, &mut Group, &[Sealed]);
    let cases: [(&[Option<GroupId>], Prepare, ShardState); 5] = [
        (&[Some(A), Some(A)], |_, _, _| {}, ShardState::Serving),
        (&[Some(A), Some(B)], |_, _, _| {}, leaving(B, 2)),
        (&[Some(A), Some(B)], |a, _, _| drop(a.apply(seal(S, 2))), handing(B, 2, Next::Unchanged)),
        (&[Some(A), None, Some(B)], |_, _, _| {}, leaving(B, 3)),
        (&[Some(A), Some(B), Some(A)], |a, _, _| drop(a.apply(seal(S, 2))), ShardState::Serving),
    ];
    for (owners, prepare, expected) in cases {
        let (mut a, mut b, configs) = groups(owners);
        for config in &configs[2..] {
            assert!(a.adopt(config) && b.adopt(config));
        }
        prepare(&mut a, &mut b, &configs);
        assert_eq!(a.state(S), expected, "{owners:?}");
        let newest = configs.last().expect("some");
        let lost = lost_after(newest);
        assert!(a.adopt(&lost) && b.adopt(&lost));
        let (owner, other) = if newest.owner(S) == Some(A) { (&mut a, &mut b) } else { (&mut b, &mut a) };
        assert_eq!((owner.state(S), other.state(S)), (ShardState::Serving, ShardState::Absent));
        assert!(other.pushed(S).is_empty(), "{owners:?}");
        assert_eq!(owner.get(&key_in(S, 0)), missing(), "{owners:?}");
        let num = lost.num.0;
        assert_eq!(owner.write_at(num, &key_in(S, 0), put("new"), None), written((num << 32) + 1));
        owner.check_cache();
        other.check_cache();
        assert_eq!(a.get(&key_in(ShardId(1), 0)), value("old", 1), "the other shard is undisturbed");
    }
}

#[test]
fn an_older_move_is_told_done_so_the_old_life_never_returns_beside_the_new_one() {
    let (mut a, mut b, configs) = groups(&[Some(A), Some(B)]);
    assert!(a.adopt(&configs[2]) && b.adopt(&configs[2]));
    a.apply(seal(S, 2));
    // A is cut off. The shard is declared lost, and B begins it anew.
    let lost = lost_after(&configs[2]);
    assert!(b.adopt(&lost));
    assert_eq!(b.write(&key_in(S, 0), put("new")), written((3 << 32) + 1));
    // A returns, and asks for its move: it must not take the shard back.
    let rows = a.pushed(S);
    let (end, counts) = (cursor_after(&rows), a.end(S));
    assert_eq!(b.ask(S, &configs[2]), done(2));
    assert_eq!(b.apply(install(S, &configs[2], &Cursor::default(), &rows)).push(), done(2));
    assert_eq!(b.apply(activate(S, &configs[2], &end, counts)).push(), done(2));
    assert_eq!(a.apply(release(S, 2)), Outcome::Changed(true));
    assert!(a.adopt(&lost));
    assert_eq!(a.state(S), ShardState::Absent);
    assert_eq!(b.get(&key_in(S, 0)), value("new", (3 << 32) + 1), "nothing of it arrived");
    // A says the same of older moves: it is not the owner, and counts the shard as taken, too.
    assert_eq!(a.ask(S, &configs[2]), done(2));
}
