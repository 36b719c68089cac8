//! Requests that cannot be served as they are, and the end of a service.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_request_for_another_group_or_of_impossible_size_is_refused() {
    let world = two_groups().await;
    world.publish([Some(A); 4]);
    world.settled(1).await;
    let service = world.service(A);
    assert!(matches!(service.handle(B, KvRequest::Status).await, Err(KvRefusal::Malformed(_))));
    let large = Bytes::from(vec![0; PARAMS.value_bytes_max as usize + 1]);
    let refused = service.handle(A, append(0, &large, None, 1)).await;
    assert!(matches!(refused, Err(KvRefusal::ValueTooLarge { .. })));
    let get = KvRequest::Get { key: Bytes::from(vec![b'k'; 65]), config: ConfigNum(1) };
    assert!(matches!(service.handle(A, get).await, Err(KvRefusal::InvalidKey { .. })));
    let open = KvRequest::Open { shard: ShardId(4), config: ConfigNum(1) };
    assert_eq!(service.handle(A, open).await, Err(KvRefusal::UnknownShard(ShardId(4))));
    let ticket = Some(Ticket { session: SessionId(99), seq: Seq(1) });
    let expired = service.handle(A, append(0, &Bytes::from_static(b"x"), ticket, 1)).await;
    assert_eq!(expired, Err(KvRefusal::SessionExpired));
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_what_needs_space_and_lets_deletes_reads_and_shards_go() {
    let world = two_groups().await;
    world.publish([Some(A); 4]);
    world.settled(1).await;
    let piece = Bytes::from_static(b"x");
    world.ask(A, append(0, &piece, None, 1)).await.expect("written");
    world.ask(A, append(1, &piece, None, 1)).await.expect("written");
    world.full.send_replace(true);
    clock::sleep(Duration::from_millis(100)).await;
    assert_eq!(world.ask(A, append(0, &piece, None, 1)).await, Err(KvRefusal::DiskFull));
    let delete = KvRequest::Write { key: key(1), write: Write::Delete, ticket: None, config: ConfigNum(1) };
    assert_eq!(world.ask(A, delete).await, Ok(KvReply::Written { version: Version(1) }));
    let open = KvRequest::Open { shard: ShardId(0), config: ConfigNum(1) };
    let opened = world.ask(A, open).await;
    assert!(matches!(opened, Ok(KvReply::Opened(_))), "a delete may need a session: {opened:?}");
    let get = |config| KvRequest::Get { key: key(0), config: ConfigNum(config) };
    let expected = Ok(KvReply::Value { value: Some(piece.clone()), version: Version(1) });
    assert_eq!(world.ask(A, get(1)).await, expected);
    world.publish([Some(B); 4]);
    world.settled(2).await;
    assert_eq!(world.ask(B, get(2)).await, expected);
    // Nothing can come back before there is space; then it does, by itself.
    world.publish([Some(A); 4]);
    clock::sleep(Duration::from_secs(5)).await;
    assert!(!world.status(B).await.settled);
    world.full.send_replace(false);
    world.settled(3).await;
    assert_eq!(world.ask(A, get(3)).await, expected);
}

#[tokio::test(start_paused = true)]
async fn everything_ends_with_stop() {
    let world = two_groups().await;
    world.publish([Some(A); 4]);
    world.settled(1).await;
    let service = world.service(A);
    service.stop().await;
    let get = KvRequest::Get { key: key(0), config: ConfigNum(1) };
    assert!(service.handle(A, get).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn the_future_of_a_request_is_of_moderate_size() {
    let world = two_groups().await;
    let service = world.service(A);
    let future = service.handle(A, KvRequest::Get { key: key(1), config: ConfigNum(1) });
    let bytes = std::mem::size_of_val(&future);
    assert!(bytes <= 2048, "each request in flight takes {bytes} bytes, and they are copied");
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_would_make_too_large_an_entry_is_refused_before_the_log() {
    let world = two_groups().await;
    world.publish([Some(A); 4]);
    world.settled(1).await;
    let shard = shard_of(&key(0), PARAMS.shard_count);
    let batch = |count| {
        let write = || (key(0), Write::Append { piece: Bytes::from(vec![b'x'; 5000]) });
        let writes = std::iter::repeat_with(write).take(count).collect();
        KvRequest::Batch { shard, writes, ticket: None, config: ConfigNum(1) }
    };
    let refused = world.ask(A, batch(220)).await;
    assert!(
        matches!(&refused, Err(KvRefusal::Malformed(why)) if why.contains("send it in parts")),
        "{refused:?}"
    );
    assert!(matches!(world.ask(A, batch(20)).await, Ok(KvReply::Batch { results }) if results.len() == 20));
}

#[tokio::test(start_paused = true)]
async fn a_chunk_that_would_make_too_large_an_entry_is_refused_before_the_log() {
    let world = two_groups().await;
    world.publish([Some(A); 4]);
    world.settled(1).await;
    let row = |it: usize| {
        let key = Bytes::from(format!("{{chunk}}{it:06}"));
        (rows::value_key(&key), Some(rows::value_row(Version(1), &[&[b'x'; 5000]])))
    };
    let chunk = |count: usize| PushRequest::Install {
        shard: shard_of(b"{chunk}", PARAMS.shard_count),
        config: world.place(1),
        from: B,
        after: Cursor::default(),
        to: Cursor { reach: Reach::End, ..Cursor::default() },
        rows: (0..count).map(row).collect(),
    };
    let refused = world.push_to(A, B, chunk(220)).await;
    assert!(
        matches!(&refused, Err(KvRefusal::Malformed(why)) if why.contains("exceeds the limit")),
        "{refused:?}"
    );
    // One that is small enough goes on to be judged by what the shard is: here served already.
    let judged = world.push_to(A, B, chunk(20)).await;
    assert_eq!(judged, Ok(PushReply::Refused { num: ConfigNum(1) }));
}
