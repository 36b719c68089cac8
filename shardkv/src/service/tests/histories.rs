//! Groups beside controllers and data that are not the ones they know.

use super::*;

/// The controllers are made anew, with this key: they know configuration 0 and what `owners` make of it.
fn remade(world: &World, key: u64, owners: &[[Option<GroupId>; 4]]) {
    let params = Params { sessions_max: 9, ..PARAMS };
    world.configs.send_replace(vec![Sealed::new(Config::zero(key, params))]);
    world.book.lock().expect("no panic").key = key;
    owners.iter().for_each(|owners| world.publish(*owners));
}

#[tokio::test(start_paused = true)]
async fn a_group_does_not_follow_controllers_that_were_made_anew_and_says_so() {
    for key in [KEY, KEY + 1] {
        let world = two_groups().await;
        world.publish([Some(A); 4]);
        world.settled(1).await;
        let piece = Bytes::from_static(b"x");
        world.ask(A, append(0, &piece, None, 1)).await.expect("written");
        // They would move everything to group B, and group A would drop it.
        remade(&world, key, &[[Some(B); 4], [Some(B); 4]]);
        until(&world, A, |status| status.history.word() == "other").await;
        clock::sleep(Duration::from_secs(20)).await;
        let status = world.status(A).await;
        assert_eq!((status.config, status.shards.len()), (ConfigNum(1), 4), "{status:?}");
        let get = KvRequest::Get { key: key_of_first(), config: ConfigNum(2) };
        let expected = Ok(KvReply::Value { value: Some(piece.clone()), version: Version(1) });
        assert_eq!(world.ask(A, get).await, expected, "it serves what it serves");
    }
}

fn key_of_first() -> Bytes {
    key(0)
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_ahead_of_the_controllers_serves_on_and_says_so_until_they_are_back() {
    let world = two_groups().await;
    world.publish([Some(A); 4]);
    world.publish([Some(B); 4]);
    world.settled(2).await;
    let all = world.configs.borrow().clone();
    world.configs.send_replace(all[..2].to_vec());
    until(&world, B, |status| status.history.word() == "ahead").await;
    let write = append(0, &Bytes::from_static(b"x"), None, 2);
    assert_eq!(world.ask(B, write).await, Ok(KvReply::Written { version: Version(1) }));
    world.configs.send_replace(all);
    until(&world, B, |status| status.history.word() == "ok").await;
    world.publish([Some(A); 4]);
    world.settled(3).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_heard_of_lost_controllers_and_not_adopted_is_forgotten() {
    let world = two_groups().await;
    world.publish([Some(A); 4]);
    world.settled(1).await;
    // It hears of one more configuration, which it does not adopt: by its name that means other data.
    world.publish([Some(B); 4]);
    world.settled(2).await;
    world.configs.send_modify(|configs| {
        let before = configs.last().expect("configuration 2").clone();
        let groups = [(A, Incarnation(9)), (B, Incarnation(9))].into_iter().collect();
        let (num, digest) = (ConfigNum(3), before.digest());
        let next = Config { num, groups, before: digest, ..before.config().as_ref().clone() };
        configs.push(Sealed::new(next));
    });
    let held = |world: &World| world.service(A).knowledge.borrow().newest.as_ref().map(|it| it.num);
    while held(&world) != Some(ConfigNum(3)) {
        clock::sleep(Duration::from_millis(10)).await;
    }
    let known = world.configs.borrow()[..3].to_vec();
    world.configs.send_replace(known);
    world.publish([Some(A); 4]);
    let here = world.place(3);
    for _ in 0..2000 {
        let newest = world.service(A).knowledge.borrow().newest.as_ref().map(Sealed::place);
        if newest == Some(here) {
            assert_eq!(world.status(A).await.history.word(), "ok");
            return;
        }
        clock::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never hears of {here}");
}

#[tokio::test(start_paused = true)]
async fn a_group_that_lost_its_data_answers_nothing_but_that() {
    let world = two_groups().await;
    world.publish([Some(A), Some(A), Some(B), Some(B)]);
    world.settled(1).await;
    let registered = world.life(B);
    // Both servers are one here: its disk is replaced by an empty one.
    let service = world.groups.lock().expect("no panic").remove(&B).expect("it runs");
    service.replica().kill();
    drop(service);
    world.disks.lock().expect("no panic").insert(B, MemoryDisk::new());
    world.start(B).await;
    until(&world, B, |status| status.lost == Some(registered)).await;
    let own = world.life(B);
    assert_ne!(own, registered);
    let lost = KvRefusal::LostData { group: B, registered, own };
    let get = |n| KvRequest::Get { key: key(n), config: ConfigNum(1) };
    for request in (0..20).map(get).chain([KvRequest::Config, KvRequest::History]) {
        assert_eq!(world.service(B).handle(B, request).await, Err(lost.clone()));
    }
    let question = PushRequest::Offer { shard: ShardId(2), config: world.place(1), from: A };
    let answer = world.service(B).handle_push(B, world.sender(A), question).await;
    assert_eq!(answer, Err(lost));
    // Nor does it push anything to others.
    let (shard, config, rows) = (ShardId(0), world.place(1), Vec::new());
    let (after, end) = (Cursor::default(), End::default());
    let from_wiped = PushRequest::Activate { shard, config, from: B, after, rows, end };
    let answer = world.service(A).handle_push(A, world.sender(B), from_wiped).await;
    assert!(matches!(&answer, Err(KvRefusal::Malformed(why)) if why.contains("other data")), "{answer:?}");
    assert_eq!(world.status(B).await.shards, []);
}
