//! Input that nobody should send, and starts that nobody should try: the result is a clear error or
//! a closed connection, and the cluster works on.

mod identities;
mod starts;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::socket::{Hello, Purpose, dial};
use bytes::Bytes;
use clerk::api::config::shard_of;
use clerk::api::kv::{KvRefusal, KvReply, KvRequest, Write};
use clerk::api::status::{KvStatus, Role};
use clerk::api::{ConfigNum, GroupId, ShardId};
use clerk::connection::CallError;
use clerk::group::{AskError, Attempts, GroupClient};
use real::{Client, Cluster, Place, Server, free_ports, together};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const KEY_BYTES_MAX: usize = 4096;
const VALUE_BYTES_MAX: usize = 1 << 20;
const BIG_FRAME: usize = 64 << 20;

/// Runs `attack` on a small cluster, which must survive it: same processes, same data, no panic.
fn survives(attack: impl FnOnce(&Cluster)) {
    let _machine = together();
    let cluster = Cluster::up(&["--groups", "2", "--replicas", "1"]);
    cluster.ok(&["put", "before", "1"]);
    let pids = cluster.pids();
    attack(&cluster);
    assert_eq!(cluster.ok(&["get", "before"]), "1\n");
    cluster.ok(&["put", "after", "2"]);
    let status = cluster.await_health();
    assert_eq!(cluster.pids(), pids, "a server died: {status:#?}");
    for name in pids.keys() {
        let log = std::fs::read_to_string(cluster.path().join(name).join("log")).unwrap();
        assert!(!log.contains("panic"), "{name} panicked: {log}");
    }
}

fn ports(cluster: &Cluster) -> Vec<String> {
    cluster.status().replicas().map(|replica| replica.address.clone()).collect()
}

#[test]
fn keys_and_values_beyond_the_limits_are_refused_by_name() {
    survives(|cluster| {
        let longest = "k".repeat(KEY_BYTES_MAX);
        cluster.ok(&["put", &longest, "v"]);
        assert_eq!(cluster.fails(1, &["put", &format!("{longest}k"), "v"]), "invalid_key");
        assert_eq!(cluster.fails(1, &["get", &format!("{longest}k")]), "invalid_key");
        assert_eq!(cluster.fails(1, &["put", "", "v"]), "invalid_key");
        let put = |bytes| cluster.clerk_reading(&["put", "big", "-", "-o", "json"], vec![b'v'; bytes]);
        assert_eq!(put(VALUE_BYTES_MAX).json()["version"], 1);
        assert_eq!(put(VALUE_BYTES_MAX + 1).error(1), "value_too_large");
        // The resulting value counts, and servers judge it, whatever a client thinks.
        assert_eq!(cluster.fails(1, &["append", "big", "v"]), "value_too_large");
        assert_eq!(cluster.json(&["get", "big"])["version"], 1);
    });
}

#[test]
fn requests_that_no_client_of_ours_would_send_are_refused() {
    survives(|cluster| {
        let target = cluster.target();
        let client = Client::new(&target);
        let status = cluster.status();
        let query = cluster.json(&["query"]);
        client.run(async {
            let connection = target.connection();
            let ask = |gid: u64, request: KvRequest| {
                let addresses = status.group(gid).iter().map(|replica| replica.address.clone()).collect();
                let group = GroupClient::new(Arc::clone(&connection), GroupId(gid), addresses, 1);
                async move {
                    let until = base::clock::now().after(Duration::from_secs(5));
                    match group.ask(&request, until, &mut Attempts::repeatable()).await {
                        Err(AskError::Refused(refusal)) => refusal,
                        answer => panic!("{request:?}: {answer:?}"),
                    }
                }
            };
            let owner =
                |key: &str| query["shards"][shard_of(key.as_bytes(), 64).0 as usize].as_u64().unwrap();
            let config = ConfigNum(1);
            let put = |key: Bytes, value: Bytes| KvRequest::Write {
                key,
                write: Write::Put { value, expected: None },
                ticket: None,
                config,
            };
            let large = Bytes::from(vec![0; VALUE_BYTES_MAX + 1]);
            let refusal = ask(owner("k"), put(Bytes::from("k"), large)).await;
            assert!(matches!(refusal, KvRefusal::ValueTooLarge { .. }), "{refusal:?}");
            for key in [Vec::new(), vec![b'k'; KEY_BYTES_MAX + 1]] {
                let key = Bytes::from(key);
                let place = owner(std::str::from_utf8(&key).unwrap());
                let refusal = ask(place, put(key, Bytes::from("v"))).await;
                assert!(matches!(refusal, KvRefusal::InvalidKey { .. }), "{refusal:?}");
            }
            let (shard, after) = (ShardId(9999), None);
            let refusal = ask(101, KvRequest::Scan { shard, after, limit: 1, config }).await;
            assert!(matches!(refusal, KvRefusal::UnknownShard(_)), "{refusal:?}");
            let refusal = ask(101, KvRequest::Open { shard, config }).await;
            assert!(matches!(refusal, KvRefusal::UnknownShard(_)), "{refusal:?}");
            // A group that does not exist, asked of a server that does.
            let address = &status.group(101)[0].address;
            let answer =
                connection.kv(address, GroupId(999), KvRequest::Config, Duration::from_secs(5)).await;
            match answer {
                Err(CallError::Refused { why, .. }) => assert!(why.contains("belongs to group 101"), "{why}"),
                answer => panic!("{answer:?}"),
            }
        });
    });
}

/// Waits until the other side has closed the connection.
fn assert_closed(mut stream: TcpStream, what: &str) {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut bytes = [0; 1024];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("{what}: still open")
            }
            Err(_) => return,
        }
    }
}

#[test]
fn garbage_and_oversized_frames_close_their_connection() {
    survives(|cluster| {
        for address in ports(cluster) {
            let connect = || TcpStream::connect(&address).unwrap();
            // A stranger's protocol, and noise.
            for bytes in [
                &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
                &[0xff; 4096],
                &[0, 0, 0, 8, 9, 9, 9, 9, 9, 9, 9, 9],
            ] {
                let mut stream = connect();
                // The server may close while we still write.
                let _ = stream.write_all(bytes);
                assert_closed(stream, &format!("{address}: {bytes:?}"));
            }
            // A first frame of 64 MiB: closed by its length alone, long before its end.
            let mut stream = connect();
            let started = Instant::now();
            let _ = stream.write_all(&(BIG_FRAME as u32).to_be_bytes());
            let sent = (0..BIG_FRAME >> 16).take_while(|_| stream.write_all(&[7; 1 << 16]).is_ok()).count();
            assert!(sent < BIG_FRAME >> 16, "{address} took {sent} pieces");
            assert!(started.elapsed() < Duration::from_secs(5));
        }
    });
}

#[test]
fn nonsense_after_a_good_handshake_closes_the_connection() {
    survives(|cluster| {
        let status = cluster.status();
        let client = Client::new(&cluster.target());
        let groups =
            status.groups.iter().map(|group| (group.gid, &group.replicas)).chain([(0, &status.controllers)]);
        for (group, address) in
            groups.flat_map(|(gid, group)| group.iter().map(move |one| (gid, &one.address)))
        {
            let length = |bytes: u32| bytes.to_be_bytes().to_vec();
            let nonsense = [
                ("garbage", [length(4096), vec![0xaa; 4096]].concat()),
                ("64 MiB", [length(BIG_FRAME as u32), vec![0x01; BIG_FRAME]].concat()),
                ("4 GiB", length(u32::MAX)),
            ];
            for (what, bytes) in nonsense {
                let hello = Hello { cluster: status.cluster.clone(), group, ..Hello::default() };
                client.run(async {
                    let (mut stream, _) = dial(address, &hello, Duration::from_secs(5)).await.unwrap();
                    let _ = stream.write_all(&bytes).await;
                    let mut rest = Vec::new();
                    let end = base::clock::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest));
                    assert!(end.await.is_ok(), "{address}: {what}: still open");
                });
            }
            // A caller that claims to be a peer, and is not.
            for purpose in [Purpose::PeerControl, Purpose::PeerBulk] {
                let cluster = status.cluster.clone();
                let hello =
                    Hello { cluster, purpose, group, from: 7, to: 1, incarnation: 7, ..Hello::default() };
                let refused = client.run(dial(address, &hello, Duration::from_secs(5)));
                assert!(refused.is_err(), "{address} took a peer that it does not know");
            }
        }
    });
}

#[test]
fn connections_that_stay_half_open_keep_nobody_out() {
    survives(|cluster| {
        let mut open = Vec::new();
        for address in ports(cluster) {
            for number in 0..80 {
                let mut stream = TcpStream::connect(&address).unwrap();
                // Some say nothing at all, some begin a frame and never end it.
                if number % 2 == 0 {
                    let _ = stream.write_all(&[0, 0, 1]);
                }
                open.push(stream);
            }
        }
        cluster.ok(&["put", "meanwhile", "3"]);
        for stream in open {
            assert_closed(stream, "half open");
        }
    });
}

#[test]
fn unknown_groups_and_shards_are_named_and_change_nothing() {
    survives(|cluster| {
        let before = cluster.json(&["query"]);
        assert_eq!(cluster.fails(1, &["leave", "999"]), "unknown_group");
        assert_eq!(cluster.fails(1, &["join", "999"]), "unknown_group");
        assert_eq!(cluster.fails(1, &["move", "5", "999"]), "unknown_group");
        assert_eq!(cluster.fails(1, &["move", "64", "101"]), "unknown_shard");
        assert_eq!(cluster.fails(1, &["query", "77"]), "unknown_config");
        assert_eq!(cluster.fails(1, &["leave", "101", "102"]), "last_group");
        assert_eq!(cluster.json(&["query"]), before);
    });
}
