//! Starts that nobody should try, and how a server is stopped.

use super::*;

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
