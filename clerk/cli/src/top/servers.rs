//! The servers of a document: a row for each. One that does not answer keeps what it said last, dim, with
//! its age.

use serde_json::Value;

use super::figures::{NONE, bar, bytes, count, list, or_none, span, text};
use super::line::{Line, Look, Piece};
use super::table::{Column, left, right, table};

const COLUMNS: [Column; 9] = [
    left("SERVER", 0),
    left("ROLE", 0),
    right("TERM", 7),
    right("COMMIT", 4),
    right("TO APPLY", 5),
    left("LAG", 2),
    right("SILENT", 3),
    right("DISK FREE", 6),
    left("HEARD", 1),
];
/// Marks of a bar.
const MARKS: usize = 5;
/// A member that lacks more is late, and more still is wrong.
const LATE: f64 = 1_000.0;
const LATE_BAD: f64 = 10_000.0;
/// A leader hears from everybody ten times a second.
const SILENT: f64 = 2.0;

fn is_up(server: &Value) -> bool {
    server["up"] == true
}

/// The leader of these, if one of them answers.
pub(super) fn leader(servers: &[Value]) -> Option<&Value> {
    let leads = servers.iter().filter(|it| is_up(it) && it["role"] == "leader");
    leads.max_by_key(|it| it["term"].as_u64())
}

/// How many of these answer.
pub(super) fn answering(servers: &[Value]) -> usize {
    servers.iter().filter(|it| is_up(it)).count()
}

fn row(document: &Value, server: &Value, leader: Option<&Value>) -> Vec<Piece> {
    let name = text(&server["name"]);
    let up = is_up(server);
    let said = if up { Some(server) } else { document["last"]["servers"].get(&name) };
    let said = said.unwrap_or(&Value::Null);
    let base = if up { Look::Plain } else { Look::Dim };
    let figure = |field: &str| (base, or_none(said[field].as_f64(), count));
    let role = match (up, text(&server["role"])) {
        (false, _) => (Look::Bad, "no answer".to_owned()),
        (true, role) => (if role == "leader" { Look::Good } else { Look::Plain }, role),
    };
    let unapplied = said["behind"].as_f64().filter(|it| *it > 0.0).map_or_else(String::new, count);
    let seen = leader.map_or(&Value::Null, |leader| &leader["followers"][&name]);
    let lag = lag(seen, up, leader.is_some_and(|leader| leader["name"] == server["name"]), leader.is_some());
    let silent = seen["silent_seconds"].as_f64().filter(|it| *it >= SILENT);
    let disk = &said["disk"];
    let free = or_none(disk["free_bytes"].as_f64(), bytes);
    let disk = if disk["low"] == true { (Look::Bad, format!("{free} low")) } else { (base, free) };
    let heard = match (up, document["ages"][&name].as_f64()) {
        (true, _) => String::new(),
        (false, Some(age)) => format!("{} ago", span(age)),
        (false, None) => "never".to_owned(),
    };
    vec![
        (Look::Plain, name),
        role,
        figure("term"),
        figure("commit"),
        (base, unapplied),
        lag,
        (Look::Warn, silent.map_or_else(String::new, span)),
        disk,
        (Look::Warn, heard),
    ]
}

/// Bars grow with the number of digits: ten entries are seen, and a hundred thousand still fit.
fn lag(seen: &Value, up: bool, leads: bool, is_led: bool) -> Piece {
    let lacks = seen["lacks"].as_f64();
    match lacks {
        _ if leads => (Look::Plain, "leads".to_owned()),
        Some(lacks) if lacks > 0.0 => {
            let look = match lacks {
                it if it > LATE_BAD => Look::Bad,
                it if it > LATE => Look::Warn,
                _ => Look::Plain,
            };
            let given_up = if seen["standing"] == "given_up" { ", given up" } else { "" };
            (look, format!("{} {}{given_up}", bar((1.0 + lacks).log10() / MARKS as f64, MARKS), count(lacks)))
        }
        Some(_) if up => (Look::Plain, "level".to_owned()),
        None if up && !is_led => (Look::Warn, "no leader".to_owned()),
        _ => (Look::Dim, NONE.to_owned()),
    }
}

/// A table of the servers, those of `groups` in this order.
pub(super) fn lines(document: &Value, groups: &[&Value], width: usize) -> Vec<Line> {
    let all = std::iter::once(list(&document["controllers"]));
    let all = all.chain(groups.iter().map(|group| list(&group["replicas"])));
    let rows = all.flat_map(|servers| {
        let leader = leader(servers);
        servers.iter().map(move |server| row(document, server, leader))
    });
    table(&COLUMNS, &rows.collect::<Vec<_>>(), width)
}
