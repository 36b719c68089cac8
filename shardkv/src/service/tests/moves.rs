//! Shards follow the configurations.

use super::*;

#[tokio::test(start_paused = true)]
async fn shards_follow_the_configurations_with_their_rows_and_sessions() {
    let world = two_groups().await;
    world.publish([Some(A); 4]);
    world.settled(1).await;
    let shard = shard_of(&key(0), PARAMS.shard_count);
    let Ok(KvReply::Opened(session)) = world.ask(A, KvRequest::Open { shard, config: ConfigNum(1) }).await
    else {
        panic!("no session")
    };
    let ticket = Some(Ticket { session, seq: Seq(1) });
    // Four shards of about a megabyte each: several chunks.
    let piece = Bytes::from(vec![b'x'; 100_000]);
    let written = |version| Ok(KvReply::Written { version: Version(version) });
    assert_eq!(world.ask(A, append(0, &piece, ticket, 1)).await, written(1));
    for n in 1..40 {
        assert_eq!(world.ask(A, append(n, &piece, None, 1)).await, written(1));
    }
    world.publish([Some(B); 4]);
    // The clerk asks the new owner at once; the answer comes when the shard is there.
    assert_eq!(world.ask(B, append(0, &piece, ticket, 2)).await, written(1), "executed once");
    world.settled(2).await;
    for n in 0..40 {
        let get = KvRequest::Get { key: key(n), config: ConfigNum(2) };
        let expected = Ok(KvReply::Value { value: Some(piece.clone()), version: Version(1) });
        assert_eq!(world.ask(B, get).await, expected);
    }
    let (a, b) = (world.status(A).await, world.status(B).await);
    assert!(a.shards.is_empty());
    assert_eq!(b.shards.iter().map(|shard| shard.rows).sum::<u64>(), 40);
    assert!(b.shards.iter().all(|shard| shard.phase == ShardPhase::Serving));
    assert!(a.incarnation.is_some() && b.incarnation.is_some() && a.incarnation != b.incarnation);
    assert_eq!(world.service(A).wipes() + world.service(B).wipes(), 0);
    assert_eq!(
        world.service(A).handle(A, append(1, &piece, None, 2)).await,
        Err(KvRefusal::WrongGroup { config: ConfigNum(2), ask: None })
    );
}

#[tokio::test(start_paused = true)]
async fn many_configurations_at_once_are_adopted_one_by_one_and_rings_do_not_block() {
    let world = two_groups().await;
    let (a, b) = (Some(A), Some(B));
    for n in 0..40 {
        world.publish(if n % 2 == 0 { [a, b, a, b] } else { [b, a, b, a] });
    }
    world.publish([None; 4]);
    world.publish([b, b, b, a]);
    world.settled(42).await;
    assert_eq!(world.status(B).await.shards.len(), 3);
    let Ok(KvReply::Config(config, book)) = world.ask(B, KvRequest::Config).await else {
        panic!("no config")
    };
    assert_eq!((config.num, book.version), (ConfigNum(42), 1));
}

#[tokio::test(start_paused = true)]
async fn a_move_goes_on_after_a_power_cut_without_any_client() {
    let world = two_groups().await;
    world.publish([Some(A); 4]);
    world.settled(1).await;
    let piece = Bytes::from(vec![b'x'; 200_000]);
    for n in 0..40 {
        world.ask(A, append(n, &piece, None, 1)).await.expect("written");
    }
    world.publish([Some(B); 4]);
    let mut interrupted = 0;
    for _ in 0..6 {
        clock::sleep(Duration::from_millis(600)).await;
        interrupted += u32::from(!world.status(A).await.settled);
        world.power_cut().await;
    }
    assert!(interrupted > 1, "the cuts must fall into the move");
    world.settled(2).await;
    for n in 0..40 {
        let get = KvRequest::Get { key: key(n), config: ConfigNum(2) };
        let expected = Ok(KvReply::Value { value: Some(piece.clone()), version: Version(1) });
        assert_eq!(world.ask(B, get).await, expected);
    }
    assert_eq!(world.service(B).wipes(), 0);
}

/// Reads a key at a group, without asking again.
async fn get(world: &World, group: GroupId, n: usize) -> KvResult {
    let request = KvRequest::Get { key: key(n), config: world.newest() };
    world.service(group).handle(group, request).await
}

#[tokio::test(start_paused = true)]
async fn a_shard_is_served_until_its_new_owner_awaits_it_and_has_room() {
    let world = two_groups().await;
    world.publish([Some(B); 4]);
    world.settled(1).await;
    let piece = Bytes::from_static(b"x");
    world.ask(B, append(0, &piece, None, 1)).await.expect("written");
    world.full.send_replace(true);
    clock::sleep(Duration::from_millis(100)).await;
    world.publish([Some(A); 4]);
    for version in 2..100 {
        let written = world.service(B).handle(B, append(0, &piece, None, 2)).await;
        assert_eq!(written, Ok(KvReply::Written { version: Version(version) }));
        clock::sleep(Duration::from_millis(50)).await;
    }
    let status = world.status(B).await;
    assert_eq!((status.config, status.settled, status.shards.len()), (ConfigNum(2), false, 4));
    assert!(status.shards.iter().all(|shard| shard.phase == ShardPhase::Leaving));
    assert!(status.shards.iter().all(|shard| shard.num == Some(ConfigNum(2))));
    // Who asks the new owner is sent to the group that has the shard.
    let elsewhere = KvRefusal::NotReady { config: ConfigNum(2), ask: Some(B) };
    assert_eq!(get(&world, A, 0).await, Err(elsewhere));
    world.full.send_replace(false);
    world.settled(2).await;
    let expected = Ok(KvReply::Value { value: Some("x".repeat(99).into()), version: Version(99) });
    assert_eq!(get(&world, A, 0).await, expected);
}

/// A shard of some megabytes moves while clients write to it without a pause; what they wrote is there
/// afterwards, each time once, and they never waited longer than a hold and a few messages.
#[tokio::test(start_paused = true)]
async fn a_shard_is_copied_while_clients_write_to_it() {
    let world = two_groups().await;
    world.publish([Some(A); 4]);
    world.settled(1).await;
    let (filler, piece) = (Bytes::from(vec![b'x'; 100_000]), Bytes::from_static(b"y"));
    for n in 0..200 {
        world.ask(A, append(n, &filler, None, 1)).await.expect("written");
    }
    world.installs(|_| {});
    world.publish([Some(B); 4]);
    let (mut written, mut at_a, mut longest) = (0, 0, Duration::ZERO);
    let (key_count, mut b_serves) = (20, false);
    while written < 400 || !b_serves {
        let started = clock::now();
        let n = 1000 + written % key_count;
        loop {
            let group = if b_serves { B } else { A };
            match world.service(group).handle(group, append(n, &piece, None, 2)).await {
                Ok(_) => break,
                Err(KvRefusal::WrongGroup { .. } | KvRefusal::NotReady { .. }) => b_serves = !b_serves,
                other => panic!("{other:?}"),
            }
            clock::sleep(Duration::from_millis(1)).await;
        }
        longest = longest.max(started.elapsed());
        at_a += usize::from(!b_serves);
        written += 1;
        clock::sleep(Duration::from_millis(2)).await;
    }
    world.settled(2).await;
    for n in 0..key_count {
        let times = (written + key_count - 1 - n) / key_count;
        let got = get(&world, B, 1000 + n).await;
        let expected =
            Ok(KvReply::Value { value: Some("y".repeat(times).into()), version: Version(times as u64) });
        assert_eq!(got, expected, "key {n}");
    }
    assert!(at_a > 5, "only {at_a} of {written} writes came before the shards were sealed");
    assert!(longest < Duration::from_millis(100), "a client waited {longest:?}");
    assert_eq!(world.service(A).wipes() + world.service(B).wipes(), 0);
    assert_eq!(world.service(A).standing.borrow().changes.bytes(), 0, "nothing is remembered of what moved");
}

/// Rule 145.
#[tokio::test(start_paused = true)]
async fn a_limit_holds_for_moves_that_are_under_way() {
    let world = two_groups().await;
    world.publish([Some(A); 4]);
    world.settled(1).await;
    let piece = Bytes::from(vec![b'x'; 100_000]);
    for n in 0..200 {
        world.ask(A, append(n, &piece, None, 1)).await.expect("written");
    }
    let limit = |mib| *world.move_rate.lock().expect("no panic") = mib;
    limit(Some(1));
    world.installs(|_| {});
    world.publish([Some(B); 4]);
    let started = clock::now();
    clock::sleep(Duration::from_secs(8)).await;
    let arrived: u64 = world.status(B).await.shards.iter().filter_map(|shard| shard.progress).sum();
    assert!((40..100).contains(&arrived), "{arrived} of 200 values of 100 kB in 8 s at 1 MiB/s");
    // Clients are served meanwhile, and do not wait for the limit.
    let asked = clock::now();
    assert!(world.service(A).handle(A, append(0, &piece, None, 2)).await.is_ok());
    assert!(asked.elapsed() < Duration::from_millis(100), "{:?}", asked.elapsed());
    limit(None);
    world.settled(2).await;
    assert!(started.elapsed() < Duration::from_secs(14), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_dead_receiver_holds_up_nothing_but_its_own_shards() {
    let world = two_groups().await;
    let (a, b, dead) = (Some(A), Some(B), Some(GroupId(103)));
    world.publish([a; 4]);
    world.settled(1).await;
    let piece = Bytes::from_static(b"x");
    for n in 0..40 {
        world.ask(A, append(n, &piece, None, 1)).await.expect("written");
    }
    world.publish([dead, dead, a, a]);
    world.publish([dead, dead, b, a]);
    let served = |status: &KvStatus| -> Vec<(u32, ShardPhase)> {
        status.shards.iter().map(|shard| (shard.shard.0, shard.phase)).collect()
    };
    until(&world, B, |status| served(status) == [(2, ShardPhase::Serving)]).await;
    let leaving = [(0, ShardPhase::Leaving), (1, ShardPhase::Leaving), (3, ShardPhase::Serving)];
    until(&world, A, |status| served(status) == leaving).await;
    for n in 0..40 {
        let group = if shard_of(&key(n), 4) == ShardId(2) { B } else { A };
        let expected = Ok(KvReply::Value { value: Some(piece.clone()), version: Version(1) });
        assert_eq!(get(&world, group, n).await, expected, "key {n} at group {group}");
    }
    // One is given to a group that lives, and one is taken back.
    world.publish([b, a, b, a]);
    world.settled(4).await;
    assert_eq!(served(&world.status(A).await), [(1, ShardPhase::Serving), (3, ShardPhase::Serving)]);
    assert_eq!(world.service(A).wipes() + world.service(B).wipes(), 0);
}
