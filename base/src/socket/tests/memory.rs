//! Connections that would take the memory of a server (correctness rule 103).

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::{FRAME_BYTES_MAX, LIMIT, Server, call, channel, closed, dial, hello, server, until};
use crate::clock;
use crate::socket::{Limits, Stream};

const CONNECTION: usize = 256 << 10;
const ALL: usize = 1 << 20;

async fn small() -> Server {
    server(Limits { connection_bytes_max: CONNECTION, server_bytes_max: ALL, ..Limits::default() }).await
}

async fn stranger(server: &Server) -> Stream {
    dial(&server.address, &hello(), LIMIT).await.expect("welcome").0
}

/// As long as allowed, and half of it.
async fn send_half_a_frame(server: &Server) -> Stream {
    let mut stream = stranger(server).await;
    let length = u32::try_from(FRAME_BYTES_MAX).expect("small");
    stream.tcp.write_all(&length.to_be_bytes()).await.expect("written");
    let _ = stream.tcp.write_all(&vec![0; FRAME_BYTES_MAX / 2]).await;
    stream
}

/// Asks for much, in the form of docs/formats.md, and reads nothing.
async fn ask_and_read_nothing(server: &Server) -> Stream {
    let mut stream = stranger(server).await;
    rustix::net::sockopt::set_socket_recv_buffer_size(&stream.tcp, 4096).expect("set");
    let text = format!("double{}", "x".repeat(FRAME_BYTES_MAX / 2 - 1000));
    for id in 0..400_u64 {
        let mut body = vec![2, 0, 0, 0, 0];
        body.extend_from_slice(&id.to_le_bytes());
        body.extend_from_slice(&60_000_u32.to_le_bytes());
        body.extend_from_slice(&(text.len() as u64).to_le_bytes());
        body.extend_from_slice(text.as_bytes());
        body.push(0);
        let length = u32::try_from(4 + body.len()).expect("small");
        let frame = [&length.to_be_bytes()[..], &crc32fast::hash(&body).to_be_bytes(), &body].concat();
        let written = clock::timeout(Duration::from_millis(20), stream.tcp.write_all(&frame)).await;
        if !matches!(written, Ok(Ok(()))) {
            break;
        }
    }
    stream
}

#[tokio::test]
async fn frames_that_never_end_take_no_more_than_the_bound() {
    let server = small().await;
    let honest = channel(&server.address).await;
    assert_eq!(call(&honest, "before").await.expect("an answer"), "before");
    let mut held = Vec::new();
    for _ in 0..64 {
        held.push(send_half_a_frame(&server).await);
        assert!(server.counters.waiting_bytes() <= ALL, "{}", server.counters.waiting_bytes());
    }
    until(|| server.counters.made_room(), 30).await;
    assert_eq!(call(&honest, "after").await.expect("an answer"), "after");
    assert!(closed(held.swap_remove(63).tcp).await, "the last one made room");
    clock::sleep(Duration::from_secs(1)).await;
    while server.counters.made_room() < 33 {
        held.push(send_half_a_frame(&server).await);
    }
    assert!(closed(held.swap_remove(0).tcp).await, "who keeps the rest for a second goes first");
    drop(held);
    let gone = async {
        while server.counters.waiting_bytes() > 0 {
            clock::sleep(Duration::from_millis(2)).await;
        }
    };
    clock::timeout(LIMIT, gone).await.expect("nothing is counted of connections that are gone");
}

#[tokio::test]
async fn answers_that_nobody_takes_are_bounded_and_others_are_served() {
    let server = small().await;
    let honest = channel(&server.address).await;
    assert_eq!(call(&honest, "before").await.expect("an answer"), "before");
    let mut slow = Vec::new();
    for _ in 0..24 {
        slow.push(ask_and_read_nothing(&server).await);
        let waiting = server.counters.waiting_bytes();
        // A request that is in progress when the bound is reached is answered.
        assert!(waiting <= 2 * ALL + FRAME_BYTES_MAX, "{waiting}");
        assert_eq!(call(&honest, "between").await.expect("an answer"), "between");
    }
}

#[tokio::test]
async fn a_reader_that_takes_nothing_for_a_minute_is_closed() {
    let server = small().await;
    let _slow = ask_and_read_nothing(&server).await;
    clock::sleep(Duration::from_millis(100)).await;
    assert!(server.counters.waiting_bytes() > 0, "nobody takes it");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    let gone = async {
        while server.counters.waiting_bytes() > 0 {
            clock::sleep(Duration::from_millis(2)).await;
        }
    };
    clock::timeout(LIMIT, gone).await.expect("it is closed");
}
