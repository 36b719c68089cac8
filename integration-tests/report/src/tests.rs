//! The complete report on an invented run.
//!
//! With `REPORT_DIR` in the environment the directories are written there and kept, so that you can
//! look at the pages in a browser.

use std::path::PathBuf;
use std::{env, fs};

use super::columns::{self, Filter, Layout};
use super::sample::{BIG, KEY, SMALL, make};
use super::{Verdict, directory, page};
use sim::record::{Event, Recording, What};

/// A directory to write into, and what deletes it.
fn place(name: &str) -> (PathBuf, Option<tempfile::TempDir>) {
    if let Some(kept) = env::var_os("REPORT_DIR") {
        return (PathBuf::from(kept).join(name), None);
    }
    let temporary = tempfile::tempdir().unwrap();
    (temporary.path().join(name), Some(temporary))
}

fn log(recording: &Recording, filter: &Filter, layout: Layout) -> String {
    let mut bytes = Vec::new();
    columns::write(&mut bytes, recording, filter, layout).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// The block of JSON in a page.
fn data(page: &str) -> serde_json::Value {
    let (_, rest) = page.split_once("<script type=\"application/json\" id=\"data\">").unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

#[test]
fn a_directory_holds_all_that_one_needs() {
    let (recording, verdicts) = make(SMALL);
    let (directory, _guard) = place("small");
    directory::write(&directory, &recording, &verdicts).unwrap();
    let mut names: Vec<_> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["failure.txt", "log.txt", "page.html", "recording.json"]);
    assert_eq!(directory::read(&directory).unwrap(), recording);

    let text = fs::read_to_string(directory.join(directory::FAILURE)).unwrap();
    let header = &recording.header;
    let why = header.failure.lines().next().unwrap();
    let lines = [why, &header.replay, "8812734551", "network: unreliable", "5.200 s"];
    for wanted in lines.into_iter().chain([
        "From 3.420 s to 3.426 s: client 4 reads x3",
        "The answer came from server 101.1",
        "Its key is in shard",
        "It contradicts this, from 1.626 s on: client 3 sets x3 to",
        "several servers took themselves for the leader: 101.1 (term 1) and 101.2 (term 2)",
        "Server 101.1 was cut off from 101.2 and 101.3 and reached only 1 of 3",
    ]) {
        assert!(text.contains(wanted), "{wanted}\nis not in\n{text}");
    }
    let log = fs::read_to_string(directory.join(directory::LOG)).unwrap();
    assert!(log.lines().count() > recording.events.len());
}

#[test]
fn the_page_holds_the_story() {
    let (recording, verdicts) = make(SMALL);
    let page = page::render(&recording, &verdicts).unwrap();
    let data = data(&page);
    let names = |list: &str, field: &str| -> Vec<String> {
        data[list].as_array().unwrap().iter().map(|one| one[field].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("servers", "name")[..4], ["ctrl.1", "ctrl.2", "ctrl.3", "101.1"]);
    let lanes = names("lanes", "label");
    assert_eq!(lanes.len(), 5, "a client that goes on under a new id keeps its lane: {lanes:?}");
    assert!(lanes.iter().any(|label| label.starts_with("clients ")), "{lanes:?}");
    assert_eq!(data["shards"].as_array().unwrap().len(), 10);
    let moments = names("moments", "text");
    for wanted in [
        "Server 102.3 crashes",
        "Server 102.3 starts again",
        "The network splits group 101: 101.1 | 101.2 101.3",
        "Server 101.2 becomes leader of term 2",
        "Shard 3 is served by groups 101 and 102 at the same time, for 0.140 s",
        "Shards 0 to 4 are served by group 101",
        "Shard 4 moved from group 101 to group 102",
        "All servers of group 101 can talk to each other again",
    ] {
        assert!(moments.iter().any(|moment| moment == wanted), "{wanted}\nis not in\n{}", moments.join("\n"));
    }
    let of_key = &data["verdicts"].as_array().unwrap()[2];
    assert_eq!((of_key["key"].as_str(), of_key["unplaced"].as_array().unwrap().len()), (Some(KEY), 1));
    let times: Vec<u64> =
        of_key["points"].as_array().unwrap().iter().map(|point| point[1].as_u64().unwrap()).collect();
    assert!(times.len() > 10 && times.is_sorted());
}

#[test]
fn two_leaders_of_a_term_are_named() {
    let (mut recording, verdicts) = make(SMALL);
    let what = What::Role { role: "leader".to_owned(), leader: Some(3) };
    recording.events.push(Event { at_ns: 4_900_000_000, at: Some("101.3".to_owned()), term: Some(2), what });
    let page = page::render(&recording, &verdicts).unwrap();
    assert!(page.contains("Two leaders of term 2, which must never happen: 101.2 and 101.3"));
}

#[test]
fn hostile_text_stays_text() {
    let (mut recording, mut verdicts) = make(SMALL);
    let hostile = "</script><script>alert(1)</script>{{scripts}}<!--\u{2028}\u{1b}[2J&lt;'\"";
    recording.header.title = hostile.to_owned();
    recording.header.failure = hostile.to_owned();
    for operation in &mut recording.history {
        operation.key = operation.key.replace(KEY, hostile);
        operation.value = operation.value.as_ref().map(|value| format!("{hostile}{value}"));
    }
    verdicts[2].key = hostile.to_owned();
    verdicts[2].unplaced[0].words = hostile.to_owned();
    verdicts[2].words = Some(hostile.to_owned());
    let page = page::render(&recording, &verdicts).unwrap();
    assert!(!page.contains("<script>alert"), "the page runs what a key says");
    let (plain, _) = make(SMALL);
    let elements = |page: &str| page.matches("<script").count() + page.matches("</script").count();
    assert_eq!(elements(&page), elements(&page::render(&plain, &verdicts[..2]).unwrap()));
    assert_eq!(data(&page)["verdicts"][2]["key"].as_str(), Some(hostile));
    let log = log(&recording, &Filter::default(), Layout::default());
    assert!(log.contains("alert(1)") && !log.contains('\u{1b}'));
}

#[test]
fn a_log_is_filtered_by_topic_term_and_server() {
    let (recording, _) = make(SMALL);
    let rows = |topics, servers, terms| -> Vec<String> {
        let filter = Filter::parse(topics, servers, terms).unwrap();
        let log = log(&recording, &filter, Layout::default());
        // A row that begins with spaces continues the one before it.
        let rows = log.lines().skip_while(|row| !row.starts_with("---")).skip(1);
        rows.filter(|row| !row.starts_with(' ')).map(str::to_owned).collect()
    };
    let votes = rows(Some("vote"), None, None);
    assert!(votes.len() > 20 && votes.iter().all(|row| row.contains("vote")), "{votes:#?}");
    let of_term = rows(Some("vote"), None, Some("2"));
    let expected = ["-> 101.3 vote", "<- 101.2 vote", "-> 101.2 vote reply", "<- 101.3 vote reply"];
    assert_eq!(of_term.len(), expected.len(), "{of_term:#?}");
    assert!(of_term.iter().zip(expected).all(|(row, wanted)| row.contains(wanted)), "{of_term:#?}");
    let heads = |servers| {
        let filter = Filter::parse(Some("role"), Some(servers), None).unwrap();
        let log = log(&recording, &filter, Layout::default());
        let heads = log.lines().find(|line| line.starts_with("seconds")).unwrap().split_whitespace();
        heads.skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(heads("101"), ["101.1", "101.2", "101.3"]);
    assert_eq!(heads("2"), ["ctrl.2", "101.2", "102.2"]);
    assert_eq!(heads("101.3,1"), ["ctrl.1", "101.1", "101.3", "102.1"]);
    let clients = rows(Some("client"), Some("clients"), None);
    assert!(clients.iter().any(|row| row.contains("client 4: get x3")));
    assert!(!clients.iter().any(|row| row.contains("<- clerk")), "servers' lines without their columns");
    for (topics, terms) in [(Some("votes"), None), (None, Some("two"))] {
        assert!(Filter::parse(topics, None, terms).is_err());
    }
}

#[test]
fn a_log_fits_its_terminal_and_each_line_its_column() {
    let (recording, _) = make(SMALL);
    let filter = Filter::parse(None, Some("101"), None).unwrap();
    for width in [72, 100, 200] {
        let log = log(&recording, &filter, Layout { width: Some(width), colour: false });
        let longest = log.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(longest <= width, "{longest} of {width}");
    }
    let log = log(&recording, &filter, Layout { width: Some(100), colour: true });
    let heads = log.lines().find(|line| line.starts_with("seconds")).unwrap();
    let second = heads.find("101.2").unwrap();
    let leads = log.lines().find(|line| line.contains("LEADER, term 2")).unwrap();
    assert_eq!(leads.find("\u{1b}[1;32mLEADER").unwrap(), second, "{heads}\n{leads}");
}

#[test]
fn a_long_run_makes_a_page_of_bounded_size() {
    let (recording, verdicts) = make(BIG);
    assert!(recording.events.len() > 190_000, "{}", recording.events.len());
    let (directory, _guard) = place("big");
    directory::write(&directory, &recording, &verdicts).unwrap();
    let page = fs::read_to_string(directory.join(directory::PAGE)).unwrap();
    assert!(page.len() < 8 << 20, "{} bytes", page.len());
    let log = fs::read_to_string(directory.join(directory::LOG)).unwrap();
    assert!(log.len() < 32 << 20, "{} bytes", log.len());
    assert!(log.starts_with("From 4") && log.contains("FAILED: not linearizable"), "{}", &log[..200]);
    let note = data(&page)["messages"]["note"].as_str().unwrap().to_owned();
    assert!(note.contains("all of the last 3.000 s before the failure"), "{note}");
}

#[test]
fn runs_without_servers_clients_or_verdicts_have_a_page_too() {
    let (recording, verdicts) = make(SMALL);
    let bare = |events: bool, history: bool| Recording {
        header: recording.header.clone(),
        events: if events { recording.events.clone() } else { Vec::new() },
        left_out: recording.left_out,
        history: if history { recording.history.clone() } else { Vec::new() },
    };
    for (name, events, history) in
        [("no-clients", true, false), ("no-servers", false, true), ("nothing", false, false)]
    {
        let (directory, _guard) = place(name);
        let verdicts: &[Verdict] = if history { &verdicts } else { &[] };
        directory::write(&directory, &bare(events, history), verdicts).unwrap();
        let page = fs::read_to_string(directory.join(directory::PAGE)).unwrap();
        assert_eq!(data(&page)["moments"].as_array().unwrap().last().unwrap()["kind"], "failed");
    }
}
