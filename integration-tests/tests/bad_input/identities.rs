//! Servers, clusters and copies that are not who they seem to be.

use super::*;

/// One controller and a group of one, by hand: servers of a cluster that shares its name with
/// another.
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
    // A client that first met one cluster, and then gets the addresses of the other.
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
    // The first one continues: it is one of the two that are needed now.
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
    // A restart is not a second process: it is let in at once.
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
