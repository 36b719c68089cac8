//! Rows on their way from group to group.

use host::{Moves, Observed as _};

use super::*;

/// Group A serves everything, with `count` rows of 100 kB in one shard; what is sent of it is watched.
async fn a_large_shard(count: usize) -> Arc<World> {
    let world = two_groups().await;
    world.publish([Some(A); 4]);
    world.settled(1).await;
    for n in 0..count {
        world.ask(A, large(n, Some(Bytes::from(vec![b'x'; 100_000])))).await.expect("written");
    }
    world.installs(|_| {});
    world
}

/// A row of the large shard: written, or read.
fn large(n: usize, value: Option<Bytes>) -> KvRequest {
    let key = Bytes::from(format!("{{large}}{n}"));
    match value {
        Some(piece) => {
            KvRequest::Write { key, write: Write::Append { piece }, ticket: None, config: ConfigNum(1) }
        }
        None => KvRequest::Get { key, config: ConfigNum(2) },
    }
}

async fn all_arrived(world: &World, count: usize) {
    world.settled(2).await;
    for n in 0..count {
        let expected = Ok(KvReply::Value { value: Some(vec![b'x'; 100_000].into()), version: Version(1) });
        assert_eq!(world.ask(B, large(n, None)).await, expected);
    }
    assert_eq!(world.service(B).wipes(), 0);
}

/// Chunks of two rows each, and what is on its way at most.
const CHUNKS: usize = 60;
const CHUNKS_UNDER_WAY: usize = IN_FLIGHT_BYTES_MAX / 200_000;

#[tokio::test(start_paused = true)]
async fn chunks_of_a_shard_are_on_their_way_together_within_a_bound_and_sent_once() {
    let world = a_large_shard(2 * CHUNKS).await;
    world.publish([Some(B); 4]);
    all_arrived(&world, 2 * CHUNKS).await;
    world.installs(|installs| {
        let at_once = IN_FLIGHT_BYTES_MAX / 2..=IN_FLIGHT_BYTES_MAX;
        assert!(at_once.contains(&installs.bytes_under_way_max), "{} at once", installs.bytes_under_way_max);
        // The shards' own rows travel, too.
        assert!(installs.sent <= CHUNKS + 4, "{} sent", installs.sent);
    });
}

#[tokio::test(start_paused = true)]
async fn a_chunk_lost_in_the_middle_is_sent_again_with_those_after_it_and_once() {
    let world = a_large_shard(2 * CHUNKS).await;
    world.installs(|installs| installs.lost = 30..31);
    world.publish([Some(B); 4]);
    all_arrived(&world, 2 * CHUNKS).await;
    let sent = world.installs(|installs| installs.sent);
    assert!(sent > CHUNKS + 4 && sent <= CHUNKS + 5 + CHUNKS_UNDER_WAY, "{sent} sent");
}

#[tokio::test(start_paused = true)]
async fn a_busy_receiver_is_sent_one_chunk_at_a_time_with_pauses() {
    let world = a_large_shard(2 * CHUNKS).await;
    world.publish([Some(B); 4]);
    while world.installs(|installs| installs.sent) < 30 {
        clock::sleep(Duration::from_millis(1)).await;
    }
    world.installs(|installs| installs.busy = true);
    clock::sleep(Duration::from_secs(1)).await;
    let refused = world.installs(|installs| std::mem::take(&mut installs.busy).then_some(installs.refused));
    // Another one every ten milliseconds at most, after those that were in flight.
    assert!(refused.is_some_and(|refused| refused <= CHUNKS_UNDER_WAY + 100), "{refused:?} refused");
    all_arrived(&world, 2 * CHUNKS).await;
}

/// What the metrics of a group say of shards that move.
fn moves(world: &World, group: GroupId) -> Moves {
    world.service(group).moves().expect("a group has shards")
}

#[tokio::test(start_paused = true)]
async fn rows_are_counted_at_both_ends_and_a_move_that_gets_nowhere_is_seen() {
    let world = a_large_shard(10).await;
    world.installs(|installs| installs.busy = true);
    world.publish([Some(B); 4]);
    clock::sleep(Duration::from_secs(20)).await;
    world.ask(A, large(77, Some(Bytes::from_static(b"x")))).await.expect("written");
    let stuck = moves(&world, A);
    assert_eq!((stuck.newest, stuck.dirty_rows), (ConfigNum(2), 2), "the value, and the shard's counters");
    assert!(stuck.stalled > Duration::from_secs(15), "{stuck:?}");
    assert!(stuck.rows_out < 10 && moves(&world, B).stalled.is_zero(), "{stuck:?}");

    world.installs(|installs| installs.busy = false);
    all_arrived(&world, 10).await;
    let (from, to) = (moves(&world, A), moves(&world, B));
    // The shards' own rows travel, too.
    assert!(from.rows_out >= 11 && from.rows_out == to.rows_in, "{from:?} {to:?}");
    assert_eq!((from.stalled, from.dirty_rows), (Duration::ZERO, 0));
    assert_eq!((from.rows_in, to.rows_out), (0, 0));
}

/// A second is lost for each question to a server whose disk hangs.
#[tokio::test(start_paused = true)]
async fn a_receiver_that_went_silent_is_asked_once_and_then_the_others() {
    let world = two_groups().await;
    world.publish([Some(A); 4]);
    world.settled(1).await;
    let (first, second) = (B.to_string(), format!("{B}, too"));
    world.installs(|installs| installs.hints = Some((first, second.clone())));
    world.publish([Some(B), Some(A), Some(A), Some(A)]);
    world.settled(2).await;
    // The leader of group B is remembered: the second server. Now another one leads.
    world.installs(|installs| (installs.hints, installs.silent) = (None, Some(second)));
    let started = clock::now();
    world.publish([Some(B), Some(B), Some(A), Some(A)]);
    world.settled(3).await;
    assert_eq!(world.installs(|installs| installs.in_vain), 1);
    assert!(started.elapsed() < Duration::from_millis(1300), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_group_pushes_in_no_other_groups_name() {
    let world = two_groups().await;
    world.publish([Some(A); 4]);
    world.settled(1).await;
    let of_c = PushRequest::Activate {
        shard: ShardId(0),
        config: world.place(1),
        from: GroupId(9),
        after: Cursor::default(),
        rows: Vec::new(),
        end: End::default(),
    };
    let answer = world.push_to(A, B, of_c).await;
    assert!(matches!(&answer, Err(KvRefusal::Malformed(why)) if why.contains("of group 9")), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn rows_that_are_none_are_refused_before_the_log() {
    let world = two_groups().await;
    world.publish([Some(A); 4]);
    world.settled(1).await;
    let before = world.service(A).replica().status().commit;
    let shard = ShardId(0);
    let key = Bytes::from([&[0x10][..], &shard.0.to_be_bytes()].concat());
    let install = PushRequest::Install {
        shard,
        config: world.place(1),
        from: B,
        after: Cursor::default(),
        to: Cursor { reach: Reach::End, ..Cursor::default() },
        rows: vec![(key, Some(Bytes::from_static(b"garbage")))],
    };
    let answer = world.push_to(A, B, install).await;
    assert!(matches!(answer, Err(KvRefusal::Malformed(_))), "{answer:?}");
    assert_eq!(world.service(A).replica().status().commit, before);
    let after = Cursor { reach: Reach::Key(vec![0; 1 << 20].into()), ..Cursor::default() };
    let (config, rows, end) = (world.place(1), Vec::new(), End::default());
    let activate = PushRequest::Activate { shard, config, from: B, after, rows, end };
    assert!(matches!(world.push_to(A, B, activate).await, Err(KvRefusal::Malformed(_))));
}
