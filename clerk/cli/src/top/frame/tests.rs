use serde_json::{Value, json};

use super::{Frame, Order, View, frame, whole};
use crate::top::line::Line;

fn server(name: &str, role: &str, commit: u64, more: &Value) -> Value {
    let mut server = json!({
        "name": name, "up": true, "role": role, "term": 3, "commit": commit, "behind": 0,
        "disk": {"free_bytes": 50_000_000_000_u64, "low": false}, "followers": {},
    });
    for (field, value) in more.as_object().unwrap() {
        server[field] = value.clone();
    }
    server
}

/// A cluster with a move that waits, a server that is silent and one that lags.
fn document() -> Value {
    let member =
        |lacks: u64, silent: u64| json!({"lacks": lacks, "silent_seconds": silent, "standing": "level"});
    let down = |name: &str| json!({"name": name, "up": false, "role": null, "term": null});
    let shards: Vec<Value> = (0..32).map(|shard| json!({"shard": shard, "rows": 1000})).collect();
    json!({
        "cluster": "demo", "config": 4, "settled": false,
        "controllers": [
            server("ctrl.1", "leader", 120, &json!({"followers": {"ctrl.2": member(0, 0), "ctrl.3": member(0, 0)}})),
            server("ctrl.2", "follower", 120, &json!({})),
            server("ctrl.3", "follower", 120, &json!({})),
        ],
        "groups": [
            {"gid": 101, "joined": true, "shards": shards, "replicas": [
                server("101.1", "leader", 90_210, &json!({"followers": {"101.2": member(2345, 0), "101.3": member(812, 12)}})),
                server("101.2", "follower", 90_210, &json!({"behind": 17, "disk": {"free_bytes": 9_000_000, "low": true}})),
                down("101.3"),
            ]},
            {"gid": 102, "joined": true, "shards": [], "replicas": [down("102.1"), down("102.2"), down("102.3")]},
        ],
        "health": {"ok": false, "text": "Group 102: no server answers. And 3 more.", "problems": [
            "Group 102: no server answers.", "101.3 has not answered for 12 s.",
            "101.2 has 9000000 bytes free on its disk.", "Shard 7 waits: group 102: no server answers.",
        ]},
        "pending": ["shard 7: group 101 -> group 102, 100 of 4000 rows"],
        "moves": [
            {"shard": 9, "from": 101, "to": 102, "phase": "copying", "served": true, "rows": 3000, "rows_total": 4000,
             "rows_per_second": 250.0, "seconds_left": 4.0, "waits_for": null},
            {"shard": 7, "from": 101, "to": 102, "phase": "queued", "served": true, "rows": 0, "rows_total": 4000,
             "rows_per_second": null, "seconds_left": null, "waits_for": "group 102: no server answers"},
        ],
        "ages": {"ctrl.1": 0.0, "ctrl.2": 0.0, "ctrl.3": 0.0, "101.1": 0.0, "101.2": 0.0, "101.3": 12.4,
                 "102.1": 3.0, "102.2": 3.0, "102.3": null},
        "last": {
            "servers": {"101.3": server("101.3", "follower", 89_000, &json!({})), "102.1": server("102.1", "leader", 7, &json!({}))},
            "groups": {"102": {"age": 3.0, "group": {"gid": 102, "shards": [{"shard": 40, "rows": 77}]}}},
            "config": null,
        },
        "rates": {"seconds": 1.0, "servers": {}, "groups": {
            "101": {"requests": 312.0, "outcomes": {"ok": 310.0, "busy": 2.0}, "p50": 0.0004, "p99": 0.0021, "p999": 0.012},
            "102": {"requests": 0.0, "outcomes": {}, "p50": null, "p99": null, "p999": null},
        }, "shards": {"7": {"group": 101, "reads": 200, "writes": 20, "bytes": 90_000},
                      "9": {"group": 101, "reads": 5, "writes": 400, "bytes": 300}}},
    })
}

fn view(document: &Value) -> View<'_> {
    View { document: Some(document), ..View::default() }
}

fn text(frame: &Frame) -> String {
    frame.lines.iter().map(|line| line.text() + "\n").collect()
}

fn golden(name: &str, shown: &str, expected: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let path = format!("{}/src/top/frame/golden/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::write(path, shown).unwrap();
    } else {
        assert_eq!(shown, expected, "{name}: see it with UPDATE_GOLDEN=1");
    }
}

#[test]
fn a_common_terminal_shows_what_is_wrong_and_what_moves() {
    let document = document();
    let shown = frame(&view(&document), 80, 24, 0);
    assert_eq!(shown.lines.len(), 24);
    golden("80x24.txt", &text(&shown), include_str!("golden/80x24.txt"));
    golden("whole.txt", &whole(&view(&document), 120), include_str!("golden/whole.txt"));
}

#[test]
fn a_small_terminal_shows_the_worst_and_the_rest_by_scrolling() {
    let document = document();
    let view = view(&document);
    let shown = frame(&view, 40, 10, 0);
    golden("40x10.txt", &text(&shown), include_str!("golden/40x10.txt"));
    // Each line of the body is seen, and the end is the end.
    let last = frame(&view, 40, 10, 1000);
    assert_eq!((last.scroll, shown.scroll), (shown.scroll_max, 0));
    assert!(text(&last).contains("lines above"), "{}", text(&last));
    let all = whole(&view, 40);
    let mut seen = String::new();
    (0..=shown.scroll_max).for_each(|at| seen += &text(&frame(&view, 40, 10, at)));
    all.lines().for_each(|line| assert!(seen.contains(line), "{line}"));
}

#[test]
fn every_size_is_filled_and_never_exceeded() {
    let document = document();
    for (width, height) in (0..100).flat_map(|width| (1..40).map(move |height| (width, height))) {
        let shown = frame(&view(&document), width, height, 3);
        assert_eq!(shown.lines.len(), height, "{width} x {height}");
        assert!(shown.lines.iter().all(|line| line.text().chars().count() <= width), "{width} x {height}");
    }
}

#[test]
fn groups_are_sorted_by_what_is_asked_for() {
    let mut document = document();
    document["rates"]["groups"]["102"]["requests"] = json!(500.0);
    let first = |order| {
        let all = whole(&View { order, ..view(&document) }, 100);
        let mut lines = all.lines().skip_while(|line| !line.starts_with("GROUP"));
        lines.nth(1).unwrap()[..3].to_owned()
    };
    assert_eq!([Order::Id, Order::Requests, Order::Slow].map(first), ["101", "102", "101"]);
    assert_eq!(Order::Id.next().next().next(), Order::Id);
}

#[test]
fn long_lists_end_and_say_how_much_is_missing() {
    let mut document = document();
    let one = document["moves"][0].clone();
    document["moves"] = Value::Array(vec![one; 19]);
    document["health"]["problems"] = json!(vec!["Something."; 20]);
    let all = whole(&view(&document), 80);
    assert!(
        all.contains("19 shards on the way") && all.contains("and 7 more") && all.contains("and 14 more"),
        "{all}"
    );
}

#[test]
fn names_that_a_terminal_would_obey_are_shown_without_that() {
    // Every text of the document, one after the other.
    fn texts(value: &mut Value, change: &mut dyn FnMut(&mut String)) {
        match value {
            Value::String(text) => change(text),
            Value::Array(values) => values.iter_mut().for_each(|it| texts(it, change)),
            Value::Object(fields) => fields.values_mut().for_each(|it| texts(it, change)),
            _ => {}
        }
    }
    let mut document = document();
    texts(&mut document, &mut |text| text.push_str("\x1b]0;owned\x07\r\n\u{9b}2J\u{202e}\u{200d}"));
    document["rates"]["shards"]["7\x1b[2J"] = json!({"group": 1, "reads": 9, "writes": 0, "bytes": 0});
    document["groups"][0]["gid"] = json!("\x1b[31m");
    let is_hostile =
        |letter: char| (letter.is_control() && letter != '\n') || ('\u{200b}'..='\u{202f}').contains(&letter);
    let all = whole(&view(&document), 200);
    assert!(all.contains("owned") && !all.contains(is_hostile), "{all:?}");
    let why = View { why: Some("\x1b[2J"), ..View::default() };
    for shown in [frame(&view(&document), 80, 24, 0), frame(&why, 80, 24, 0)] {
        assert!(!text(&shown).contains(is_hostile));
        // What is drawn has our own colours, and nothing else.
        let drawn: String = shown.lines.iter().map(|line: &Line| line.drawn(false)).collect();
        let rest = drawn.replace("\x1b[1m", "").replace("\x1b[2m", "").replace("\x1b[0m", "");
        assert!(!rest.contains(is_hostile), "{rest:?}");
    }
}

#[test]
fn a_document_of_which_parts_are_missing_or_wrong_is_shown_as_far_as_it_goes() {
    let full = document();
    for field in full.as_object().unwrap().keys() {
        for wrong in [Value::Null, json!(-1), json!("x"), json!([null]), json!({"x": null})] {
            let mut document = full.clone();
            document[field] = wrong;
            frame(&view(&document), 80, 24, 0);
        }
    }
    whole(&view(&json!({})), 80);
}

#[test]
fn old_figures_and_a_cluster_that_nobody_reaches_show_it() {
    let mut document = document();
    let late = View { age: 5.0, ..view(&document) };
    assert!(whole(&late, 120).contains("seen 5 s ago"));
    let why = View { why: Some("a:1: connection refused"), ..View::default() };
    assert!(text(&frame(&why, 80, 24, 0)).contains("Nobody answers: a:1: connection refused."));
    document["last"]["config"] = json!({"age": 90.0, "document": {"config": 3}});
    assert!(whole(&view(&document), 120).contains("configuration 3, not settled (as of 90 s ago)"));
}
