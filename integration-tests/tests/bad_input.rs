//! What nobody should send, and starts that nobody should try: a clear error or a closed connection, and
//! the cluster goes on.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::socket::{Hello, Service, dial};
use bytes::Bytes;
use clerk::api::config::shard_of;
use clerk::api::kv::{KvRefusal, KvReply, KvRequest, Write};
use clerk::api::status::{KvStatus, Role};
use clerk::api::{ConfigNum, GroupId, ShardId};
use clerk::connection::CallError;
use clerk::group::{AskError, Attempts, GroupClient};
use integration_tests::real::{Client, Cluster, Place, Server, free_ports, together};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const KEY_BYTES_MAX: usize = 4096;
const VALUE_BYTES_MAX: usize = 1 << 20;
const BIG_FRAME: usize = 64 << 20;

/// Runs `attack` on a small cluster, which must come through it: same processes, same data, no panic.
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
            // A group that is not there, asked of a server that is.
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
            // Somebody who claims to be a peer, and is none.
            for service in [Service::PeerControl, Service::PeerBulk] {
                let cluster = status.cluster.clone();
                let hello =
                    Hello { cluster, service, group, from: 7, to: 1, incarnation: 7, ..Hello::default() };
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

/// A server of a group of one, by hand.
struct Hand {
    place: Place,
    listen: String,
    members: String,
}

impl Hand {
    fn new() -> Self {
        let listen = format!("127.0.0.1:{}", free_ports(1)[0]);
        let members = format!("1={listen},2=127.0.0.1:9,3=127.0.0.1:10");
        Self { place: Place::new(), listen, members }
    }

    fn path(&self) -> &Path {
        self.place.path()
    }

    fn arguments<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let mut arguments = vec!["--cluster", "hand", "--group", "101", "--members", &self.members];
        arguments.extend(["--controllers", "127.0.0.1:11"]);
        arguments.extend(more);
        arguments
    }

    fn start(&self, more: &[&str]) -> Server {
        Server::start(self.path(), "data", "shardkv", &self.listen, &self.arguments(more))
    }

    /// A start that must fail: one line, exit 1, these words in it.
    fn refused(&self, listen: &str, more: &[&str], words: &[&str]) {
        let answer = Server::refused(self.path(), "data", "shardkv", listen, &self.arguments(more));
        assert_eq!(answer.code, Some(1), "{more:?}: {}", answer.stderr);
        assert_eq!(answer.stderr.lines().count(), 1, "{more:?}: {}", answer.stderr);
        assert!(answer.stdout.is_empty(), "{more:?}: {}", answer.text());
        for word in words {
            assert!(answer.stderr.contains(word), "{word:?} in {:?}", answer.stderr);
        }
    }
}

#[test]
fn starts_that_must_not_succeed_say_why_in_one_line() {
    let _machine = together();
    let hand = Hand::new();
    let free = || format!("127.0.0.1:{}", free_ports(1)[0]);
    hand.refused(&hand.listen, &["--id", "1"], &["no server's data is here", "--new"]);
    hand.refused(&hand.listen, &["--id", "7"], &["--id 7", "not among --members"]);
    hand.refused(&hand.listen, &["--id", "1", "--colour", "red"], &["--colour"]);

    let server = hand.start(&["--id", "1", "--new"]);
    let process = format!("process {}", server.pid());
    hand.refused(&free(), &["--id", "1"], &["in use by", &process]);
    hand.refused(&hand.listen, &["--id", "1"], &["is in use by", &format!("pid {}", server.pid())]);
    server.kill();

    hand.refused(&hand.listen, &["--id", "1", "--new"], &["already here", "without --new"]);
    hand.refused(&hand.listen, &["--id", "2"], &["the data of server 1 of group 101", "not of server 2"]);
    let elsewhere = ["--id", "1", "--cluster", "other"];
    hand.refused(&hand.listen, &elsewhere, &["of cluster \"hand\"", "\"other\""]);
    hand.refused(&hand.listen, &["--id", "1", "--group", "102"], &["of group 101", "of group 102"]);

    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = busy.local_addr().unwrap().to_string();
    hand.refused(&taken, &["--id", "1"], &["in use by", &format!("pid {}", std::process::id())]);

    // The members are part of the data; their addresses may change.
    for ids in [&[1][..], &[1, 2], &[1, 2, 3, 4]] {
        let members: Vec<String> = ids.iter().map(|id| format!("{id}=127.0.0.1:{}", 20 + id)).collect();
        let other = ["--id", "1", "--members", &members.join(",")];
        hand.refused(
            &hand.listen,
            &other,
            &["the members 1,2,3", "nothing was started", "addresses may change"],
        );
    }
    let moved = format!("1={},2=127.0.0.1:29,3=127.0.0.1:30", hand.listen);
    hand.start(&["--id", "1", "--members", &moved]).kill();

    // None of that did any harm.
    hand.start(&["--id", "1"]).kill();
    let identity = hand.path().join("data/identity");
    let text = std::fs::read_to_string(&identity).unwrap();
    let with = |format: &str| std::fs::write(&identity, text.replace("format 3\n", format)).unwrap();
    with("format 99\n");
    hand.refused(&hand.listen, &["--id", "1"], &["format 99", "newer build"]);
    with("format 1\n");
    hand.refused(&hand.listen, &["--id", "1"], &["format 1", "the build that wrote it"]);
    std::fs::write(&identity, &text).unwrap();
    hand.start(&["--id", "1"]).kill();
    std::fs::remove_dir_all(hand.path().join("data/raft")).unwrap();
    hand.refused(&hand.listen, &["--id", "1"], &["data"]);
    std::fs::remove_dir_all(hand.path().join("data")).unwrap();
    std::fs::create_dir(hand.path().join("data")).unwrap();
    hand.refused(&hand.listen, &["--id", "1"], &["no server's data is here"]);
}

#[test]
fn sigterm_stops_a_server_cleanly_and_settings_come_from_a_file() {
    let _machine = together();
    let hand = Hand::new();
    let file = hand.path().join("server.toml");
    let text = format!(
        "cluster = \"hand\"\ngroup = 101\nid = 1\ncontrollers = [\"127.0.0.1:11\"]\nmembers = \"{}\"\n",
        hand.members
    );
    std::fs::write(&file, text).unwrap();
    let file = file.display().to_string();
    let server = Server::start(hand.path(), "data", "shardkv", &hand.listen, &["--config", &file, "--new"]);
    assert_eq!(server.terminate(), Some(0));
    let log = std::fs::read_to_string(hand.path().join("data/log")).unwrap();
    assert!(log.contains("stopped"), "{log}");
    hand.start(&["--id", "1"]).kill();
}

/// One controller and a group of one, by hand: servers of a cluster whose name is not its own alone.
struct Namesake {
    cluster: Cluster,
    group: u64,
    place: String,
    _servers: Vec<Server>,
}

impl Namesake {
    fn new(group: u64) -> Self {
        let place = Place::new();
        let ports = free_ports(2);
        let [ctrl, kv] = [0, 1].map(|at: usize| format!("127.0.0.1:{}", ports[at]));
        let (ctrl_members, kv_members, id) = (format!("1={ctrl}"), format!("1={kv}"), group.to_string());
        let both = ["--cluster", "prod", "--id", "1", "--new"];
        let arguments = [&both[..], &["--members", &ctrl_members]].concat();
        let controller = Server::start(place.path(), "ctrl", "shardctrler", &ctrl, &arguments);
        let more = ["--group", &id, "--members", &kv_members, "--controllers", &ctrl];
        let server = Server::start(place.path(), "kv", "shardkv", &kv, &[&both[..], &more].concat());
        let cluster = Cluster::by_hand(place, ctrl);
        cluster.ok(&["join", &format!("{group}={kv}")]);
        Self { cluster, group, place: kv, _servers: vec![controller, server] }
    }
}

#[test]
fn a_second_cluster_of_the_same_name_is_refused_and_nothing_changes_on_either_side() {
    let _machine = together();
    let (one, other) = (Namesake::new(101), Namesake::new(201));
    one.cluster.ok(&["put", "key", "of one"]);
    other.cluster.ok(&["put", "key", "of the other"]);
    let before = [one.cluster.json(&["query"]), other.cluster.json(&["query"])];
    assert_ne!(before[0]["key"], before[1]["key"], "{before:?}");
    // Its group under our controllers, from either side.
    for (here, there) in [(&one, &other), (&other, &one)] {
        let join = format!("{}={}", there.group, there.place);
        let answer = here.cluster.clerk(&["--timeout", "2", "-o", "json", "join", &join]);
        assert_eq!(answer.error(1), "unavailable");
        assert!(answer.text().contains("two clusters are named"), "{}", answer.text());
    }
    // A client that met the one first, and then gets the addresses of the other.
    let target = one.cluster.target();
    let client = Client::new(&target);
    client.run(async {
        let connection = target.connection();
        let limit = Duration::from_secs(5);
        let ask = |address: &str, group: u64| {
            let (connection, address) = (Arc::clone(&connection), address.to_owned());
            async move { connection.kv(&address, GroupId(group), KvRequest::Config, limit).await }
        };
        assert!(matches!(ask(&one.place, 101).await, Ok(Ok(_))));
        let refused = ask(&other.place, 201).await;
        assert!(matches!(refused, Err(CallError::Refused { .. })), "{refused:?}");
    });
    assert_eq!([one.cluster.json(&["query"]), other.cluster.json(&["query"])], before);
    assert_eq!(one.cluster.ok(&["get", "key"]), "of one\n");
    assert_eq!(other.cluster.ok(&["get", "key"]), "of the other\n");
    let status = other.cluster.status();
    let refused = status.group(201)[0].refused.clone().unwrap_or_default();
    assert!(refused.get("other_key").is_some_and(|count| *count > 0), "{refused:?}");
}

/// The command line of a server of a local cluster, with other members and another place to listen.
fn by_hand(cluster: &Cluster, members: &str) -> Vec<String> {
    let status = cluster.status();
    let controllers: Vec<&str> = status.controllers.iter().map(|replica| replica.address.as_str()).collect();
    let arguments = [
        "--cluster",
        &status.cluster,
        "--group",
        "101",
        "--id",
        "3",
        "--controllers",
        &controllers.join(","),
    ];
    arguments
        .iter()
        .map(|text| (*text).to_owned())
        .chain(["--members".to_owned(), members.to_owned()])
        .collect()
}

fn server_status(cluster: &Cluster, address: &str) -> KvStatus {
    let target = cluster.target();
    let client = Client::new(&target);
    let asked = async {
        let connection = target.connection();
        connection.kv(&address.to_owned(), GroupId(101), KvRequest::Status, Duration::from_secs(5)).await
    };
    match client.run(asked) {
        Ok(Ok(KvReply::Status(status))) => *status,
        answer => panic!("{answer:?}"),
    }
}

/// A cloned disk, a restored image, `cp -a`.
#[test]
fn a_second_process_with_a_copy_of_a_servers_data_is_refused_by_name() {
    let _machine = together();
    let cluster = Cluster::up(&["--groups", "1"]);
    cluster.ok(&["put", "key", "before"]);
    cluster.await_health();
    cluster.ok(&["down", "101.3"]);
    let (data, copy) = (cluster.path().join("101.3"), cluster.path().join("copy"));
    let copied = std::process::Command::new("cp").arg("-a").args([&data, &copy]).status().unwrap();
    assert!(copied.success());
    cluster.ok(&["start", "101.3"]);
    let before = cluster.await_health();
    let listen = format!("127.0.0.1:{}", free_ports(1)[0]);
    let place = |id: usize| before.group(101)[id - 1].address.clone();
    let members = format!("1={},2={},3={listen}", place(1), place(2));
    let arguments = by_hand(&cluster, &members);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let twin = Server::start(cluster.path(), "copy", "shardkv", &listen, &arguments);
    // It says so itself, and the others count it.
    let until = Instant::now() + Duration::from_secs(10);
    let told = loop {
        let status = server_status(&cluster, &listen).replica;
        if status.refused_by.len() == 2 {
            break status.refused_by;
        }
        assert!(Instant::now() < until, "{status:?}");
        std::thread::sleep(Duration::from_millis(50));
    };
    for why in told.values() {
        assert!(why.contains("two processes run as server 3 of group 101"), "{why}");
    }
    std::thread::sleep(Duration::from_secs(3));
    let status = cluster.await_health();
    let twins = |name: &str| {
        let replica = status.replicas().find(|replica| replica.name == name).unwrap();
        replica.refused.as_ref().unwrap().get("twin").copied().unwrap_or(0)
    };
    assert!(twins("101.1") > 0 && twins("101.2") > 0, "{status:#?}");
    // The first one goes on: it is one of the two that are needed now.
    let other = if cluster.leader(101) == "101.1" { "101.2" } else { "101.1" };
    cluster.ok(&["kill", other]);
    cluster.ok(&["put", "key", "after"]);
    assert_eq!(cluster.ok(&["get", "key"]), "after\n");
    let copied = server_status(&cluster, &listen);
    // It may ask whether it could win (pre-vote), and nobody answers.
    assert_ne!(copied.replica.role, Role::Leader, "{copied:?}");
    let log = std::fs::read_to_string(copy.join("log")).unwrap();
    assert!(log.contains("two processes run as server 3"), "{log}");
    twin.kill();
    cluster.ok(&["start", other]);
    // A restart is no second process: it is let in at once.
    cluster.ok(&["kill", "101.3"]);
    let started = Instant::now();
    cluster.ok(&["start", "101.3"]);
    cluster.await_health();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn a_server_with_a_shorter_list_of_members_does_not_lead_alone() {
    let _machine = together();
    let cluster = Cluster::up(&["--groups", "1"]);
    cluster.ok(&["put", "key", "value"]);
    let address = cluster.await_health().group(101)[2].address.clone();
    cluster.ok(&["down", "101.3"]);
    let arguments = by_hand(&cluster, &format!("3={address}"));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let refused = Server::refused(cluster.path(), "101.3", "shardkv", &address, &arguments);
    assert_eq!((refused.code, refused.stderr.lines().count()), (Some(1), 1), "{}", refused.stderr);
    assert!(refused.stderr.contains("the members 1,2,3, and --members names 3"), "{}", refused.stderr);
    cluster.ok(&["start", "101.3"]);
    cluster.await_health();
    assert_eq!(cluster.ok(&["get", "key"]), "value\n");
}

#[test]
fn a_member_that_lost_its_data_is_not_let_in_again() {
    let _machine = together();
    let cluster = Cluster::up(&["--groups", "1"]);
    cluster.ok(&["put", "key", "value"]);
    cluster.await_health();
    cluster.ok(&["kill", "101.3"]);
    let data = cluster.path().join("101.3");
    std::fs::remove_dir_all(&data).unwrap();
    // The command line knows that this server is not new.
    assert_eq!(cluster.fails(1, &["start", "101.3"]), "start_failed");
    assert_eq!(cluster.ok(&["get", "key"]), "value\n");
}
