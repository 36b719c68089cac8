//! The page of a cluster, as programs ask for it: what a controller shows over HTTP, and how changes
//! are asked for there.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use super::*;

/// A controller's port.
struct Site {
    address: String,
    token: String,
}

/// An answer: its status, and its body.
type Shown = (u16, String);

impl Site {
    fn of(cluster: &Cluster, name: &str) -> Self {
        let up = cluster.json(&["up"]);
        let file = up["admin_token"].as_str().expect("a file");
        let token = fs::read_to_string(file).unwrap();
        let mode = fs::metadata(file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "only its owner may read it");
        let controllers = up["controllers"].as_array().unwrap();
        let found = controllers.iter().find(|it| it["name"] == name).unwrap();
        let address = found["http"].as_str().unwrap().to_owned();
        Self { address, token: token.trim_end().to_owned() }
    }

    fn send(&self, head: &str, body: &str) -> Shown {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let (address, length) = (&self.address, body.len());
        let rest = format!("Host: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(format!("{head}\r\n{rest}").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        // Long answers without a known length come in pieces.
        let is_chunked = head.to_lowercase().contains("transfer-encoding: chunked");
        assert!(!is_chunked, "{head}");
        (status, body.to_owned())
    }

    fn get(&self, path: &str) -> Shown {
        self.send(&format!("GET {path} HTTP/1.1"), "")
    }

    fn state(&self) -> Value {
        let (status, body) = self.get("/v1/state");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    fn post(&self, path: &str, token: &str, change: &Value) -> (u16, Value) {
        let head = format!(
            "POST {path} HTTP/1.1\r\nContent-Type: application/json\r\nOrigin: http://{}\r\n\
             Authorization: Bearer {token}",
            self.address
        );
        let (status, body) = self.send(&head, &change.to_string());
        (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
    }

    /// Looks until `see` is content, and returns how long that took.
    fn await_state(&self, what: &str, see: impl Fn(&Value) -> bool) -> (Value, Duration) {
        let begun = Instant::now();
        loop {
            let state = self.state();
            if see(&state) {
                return (state, begun.elapsed());
            }
            assert!(begun.elapsed() < LIMIT, "{what}: {state}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The names of all fields, at every depth.
fn shape(document: &Value, at: &str, found: &mut Vec<String>) {
    match document {
        Value::Object(fields) => {
            for (name, value) in fields {
                found.push(format!("{at}/{name}"));
                shape(value, &format!("{at}/{name}"), found);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| shape(value, &format!("{at}/*"), found)),
        _ => {}
    }
}

#[test]
fn a_controller_shows_what_status_says_and_more() {
    let _machine = together();
    let cluster = Cluster::up(&["--groups", "2", "--replicas", "1", "--shards", "12"]);
    let site = Site::of(&cluster, "ctrl.2");
    assert!(cluster.ok(&["status"]).contains("the page: http://"));
    let status = cluster.json(&["status"]);
    let state = site.state();
    for (name, value) in status.as_object().unwrap() {
        let (mut expected, mut shown) = (Vec::new(), Vec::new());
        shape(value, "", &mut expected);
        shape(&state[name], "", &mut shown);
        assert_eq!(shown, expected, "{name}");
    }
    for name in ["cluster", "config", "digest", "key", "params", "placement", "settled"] {
        assert_eq!(state[name], status[name], "{name}");
    }
    assert_eq!((&state["seen_by"], &state["writable"]), (&json!("ctrl.2"), &json!(true)));
    assert_eq!(state["health"]["ok"], true, "{}", state["health"]);
    let text = "All 5 servers answer, every group has a leader, configuration 1 is settled.";
    assert_eq!(state["health"]["text"], text);
    assert_eq!(state["history"].as_array().map(Vec::len), Some(2));
    assert_eq!(state["history"][1]["owners"].as_array().map(Vec::len), Some(12));
    cluster.ok(&["put", "a", "one"]);
    let counted = |state: &Value| state["rates"]["groups"]["101"]["requests"].is_f64();
    let (state, _) = site.await_state("rates", counted);
    assert_eq!(keys_of(&state["ages"]), ["101.1", "102.1", "ctrl.1", "ctrl.2", "ctrl.3"]);

    let (status, page) = site.get("/");
    assert!(status == 200 && page.contains("id=\"document\""), "{page}");
    // A saved page has the document inside, whichever it is.
    let file = cluster.path().join("state.json");
    fs::write(&file, state.to_string()).unwrap();
    let saved = cluster.ok(&["page", &file.display().to_string()]);
    assert!(saved.contains(&format!("\"cluster\":{}", state["cluster"])), "{saved}");
    assert!(cluster.ok(&["page"]).contains("\"rates\":{"), "of the cluster as it is now");
    fs::write(&file, "{}").unwrap();
    assert_eq!(cluster.fails(1, &["page", &file.display().to_string()]), "bad_input");
}

/// Rule 150.
#[test]
fn a_change_on_the_page_is_the_one_of_the_command_line_and_needs_the_token() {
    let _machine = together();
    let cluster = Cluster::up(&["--groups", "2", "--replicas", "1", "--shards", "12"]);
    let site = Site::of(&cluster, "ctrl.1");
    cluster.json(&["add-group", "103", "--replicas", "1"]);
    let servers = cluster.json(&["status"])["groups"][2]["replicas"][0]["address"].clone();
    let join = json!({"verb": "join", "groups": [{"gid": 103, "servers": [servers]}]});
    let (status, plan) = site.post("/v1/plan", "", &join);
    let dry = cluster.json(&["join", "103", "--dry-run"]);
    assert_eq!((status, &plan), (200, &dry));
    assert_eq!(plan["moves"].as_array().map(Vec::len), Some(4));

    let (status, refused) = site.post("/v1/act", "0123456789abcdef", &join);
    assert_eq!((status, &refused["error"]["code"]), (401, &json!("token")));
    assert_eq!(cluster.json(&["query"])["num"], 1, "nothing was done");
    // Only who watches can tell when a configuration was new.
    site.state();
    let (status, made) = site.post("/v1/act", &site.token, &join);
    assert_eq!((status, &made["config"], &made["moves"]), (200, &json!(2), &dry["moves"]), "{made}");
    let settled = |state: &Value| state["config"] == 2 && state["settled"] == true;
    let (state, _) = site.await_state("the join", settled);
    assert!(state["history"][2]["seen_at"].is_u64(), "{}", state["history"]);

    let act = |change: Value| site.post("/v1/act", &site.token, &change);
    let of = |group: u64| json!({"verb": "pin", "shard": 0, "group": group});
    assert_eq!(act(of(101)).0, 200);
    let (status, refused) = act(json!({"verb": "move", "shard": 0, "group": 102}));
    assert_eq!((status, &refused["error"]["code"]), (409, &json!("pinned")), "{refused}");
    assert_eq!(act(json!({"verb": "unpin", "shard": 0})).0, 200);
    assert_eq!(act(json!({"verb": "weight", "group": 103, "weight": 200})).0, 200);
    let (status, plan) = site.post("/v1/plan", "", &json!({"verb": "balance", "by": "count"}));
    let dry = cluster.json(&["balance", "--dry-run"]);
    assert_eq!((status, &plan["groups"], &plan["plan"]), (200, &dry["groups"], &dry["plan"]));
    assert_eq!(act(json!({"verb": "leave", "groups": [103]})).0, 200);
    assert_eq!(act(json!({"verb": "leave", "groups": [104]})).1["error"]["code"], "unknown_group");
}

#[test]
fn what_stops_or_hangs_shows_on_the_page_with_its_age() {
    let _machine = together();
    let cluster = Cluster::up(&["--groups", "2", "--replicas", "1", "--shards", "12"]);
    let site = Site::of(&cluster, "ctrl.1");
    site.state();
    let is_down = |group: usize| move |state: &Value| state["groups"][group]["replicas"][0]["up"] == false;
    let pid = Pid::from_raw(i32::try_from(cluster.pids()["101.1"]).unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let (state, took) = site.await_state("a server that hangs", is_down(0));
    // Two seconds, and what a busy machine adds.
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!(state["last"]["servers"]["101.1"]["up"], true);
    assert_eq!(state["last"]["groups"]["101"]["group"]["shards"].as_array().map(Vec::len), Some(6));
    assert_eq!(state["health"]["problems"][0], "Group 101: no server answers.");
    kill_process(pid, Signal::CONT).unwrap();
    site.await_state("it goes on", |state| state["groups"][0]["replicas"][0]["up"] == true);

    cluster.ok(&["kill", "102.1"]);
    let (state, took) = site.await_state("a server that was killed", is_down(1));
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert!(state["ages"]["102.1"].as_f64().is_some_and(|age| age > 0.0), "{}", state["ages"]);

    // A controller without a leader still shows the groups, and the configuration that it knew.
    cluster.ok(&["kill", "ctrl.2", "ctrl.3"]);
    let (state, _) = site.await_state("no leader", |state| !state["last"]["config"].is_null());
    assert_eq!((&state["config"], &state["placement"]), (&json!(1), &json!(null)));
    assert_eq!(state["groups"][0]["replicas"][0]["up"], true);
    let (status, refused) = site.post("/v1/act", &site.token, &json!({"verb": "unpin", "shard": 0}));
    assert_eq!(status, 503, "{refused}");
}

#[test]
fn a_token_that_others_may_read_keeps_a_controller_from_starting() {
    let _machine = together();
    let cluster = Cluster::up(&["--groups", "1", "--replicas", "1"]);
    let token = cluster.path().join("admin-token");
    cluster.ok(&["down", "ctrl.1"]);
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
    let answer = cluster.clerk(&["start", "ctrl.1", "-o", "json"]);
    assert_eq!(answer.error(1), "start_failed");
    assert!(answer.text().contains("chmod 0600"), "{}", answer.text());
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    cluster.ok(&["start", "ctrl.1"]);
}
