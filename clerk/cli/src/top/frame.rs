//! What is on the screen: a document as lines. A pure function, so that a test can look at it.
//!
//! The head stays; the rest scrolls. Long lists end after a while and say how much is missing, so that
//! the others stay near.

use serde_json::Value;

use super::figures::{bar, bytes, count, list, millis, or_none, rate, span, text};
use super::line::{Line, Look, Piece, wrapped};
use super::servers::{self, answering};
use super::table::{Column, left, right, table};

const PROBLEMS_MAX: usize = 5;
const MOVES_MAX: usize = 12;
const SHARDS_MAX: usize = 10;
const PENDING_MAX: usize = 3;
const MARKS: usize = 10;
/// Figures that are older show their age.
const OLD: f64 = 2.5;
/// A terminal with fewer lines has no blank one below its head.
const LOW: usize = 16;
/// Lines of the sentence of health.
const SENTENCE_MAX: usize = 3;

/// What groups are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Order {
    #[default]
    Id,
    Requests,
    Slow,
}

impl Order {
    pub(super) fn next(self) -> Self {
        match self {
            Self::Id => Self::Requests,
            Self::Requests => Self::Slow,
            Self::Slow => Self::Id,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Requests => "op/s",
            Self::Slow => "p99",
        }
    }
}

/// What there is to see.
#[derive(Clone, Copy, Default)]
pub(super) struct View<'a> {
    pub(super) document: Option<&'a Value>,
    /// Why there is none.
    pub(super) why: Option<&'a str>,
    /// How many seconds ago it was seen.
    pub(super) age: f64,
    pub(super) order: Order,
}

/// A screen full of it.
pub(super) struct Frame {
    pub(super) lines: Vec<Line>,
    pub(super) scroll: usize,
    pub(super) scroll_max: usize,
    /// Lines that scroll.
    pub(super) page: usize,
}

/// The part that begins at `scroll`, in exactly this size.
pub(super) fn frame(view: &View<'_>, width: usize, height: usize, scroll: usize) -> Frame {
    let mut lines = head(view, width);
    lines.truncate(height.saturating_sub(2).max(1));
    if height >= LOW {
        lines.push(Line::default());
    }
    let body = body(view, width);
    let page = height.saturating_sub(lines.len() + 1);
    let scroll_max = body.len().saturating_sub(page);
    let scroll = scroll.min(scroll_max);
    let more = scroll_max - scroll;
    lines.extend(body.into_iter().skip(scroll).take(page));
    lines.resize(height.saturating_sub(1).max(1), Line::default());
    if height > 1 {
        lines.push(foot(view.order, scroll, more));
    }
    let lines = lines.into_iter().map(|line| line.cut(width)).collect();
    Frame { lines, scroll, scroll_max, page }
}

/// All of it as text.
pub(super) fn whole(view: &View<'_>, width: usize) -> String {
    let lines = head(view, width).into_iter().chain([Line::default()]).chain(body(view, width));
    lines.map(|line| format!("{}\n", line.cut(width).text())).collect()
}

fn foot(order: Order, scroll: usize, more: usize) -> Line {
    let place = match (scroll, more) {
        (0, 0) => String::new(),
        (above, 0) => format!("{above} lines above  "),
        (_, below) => format!("{below} more lines  "),
    };
    let line = Line::of(Look::Warn, place);
    line.with(Look::Dim, format!("q quit  arrows scroll  s sort (by {})", order.word()))
}

fn head(view: &View<'_>, width: usize) -> Vec<Line> {
    let Some(document) = view.document else {
        let why = view.why.map_or("Looking at the cluster ...".to_owned(), |why| {
            format!("Nobody answers: {why}. Trying again.")
        });
        return wrapped(Look::Bad, &why, 0, width);
    };
    let last = &document["last"]["config"];
    let (config, age) = match last["age"].as_f64() {
        Some(age) => (&last["document"]["config"], format!(" (as of {} ago)", span(age))),
        None => (&document["config"], String::new()),
    };
    let settled = if document["settled"] == true { "settled" } else { "not settled" };
    let groups = list(&document["groups"]);
    let requests: Vec<f64> = groups.iter().filter_map(|it| of_group(document, it, "requests")).collect();
    let requests = (!requests.is_empty()).then(|| requests.iter().sum());
    let all = || {
        std::iter::once(list(&document["controllers"])).chain(groups.iter().map(|it| list(&it["replicas"])))
    };
    let (up, servers): (usize, usize) = (all().map(answering).sum(), all().map(<[Value]>::len).sum());
    let line = Line::of(Look::Head, text(&document["cluster"]))
        .with(Look::Plain, format!("  configuration {}, {settled}{age}", text(config)));
    let servers_look = if up < servers { Look::Bad } else { Look::Plain };
    let seen = if view.age > OLD { format!("  seen {} ago", span(view.age)) } else { String::new() };
    let speed = Line::of(Look::Plain, format!("{} op/s", or_none(requests, rate)))
        .with(servers_look, format!("  {up} of {servers} servers"))
        .with(Look::Warn, seen);
    let first = line.beside(speed, width);
    let look = if document["health"]["ok"] == true { Look::Good } else { Look::Bad };
    let sentence = wrapped(look, &text(&document["health"]["text"]), 0, width);
    first.into_iter().chain(sentence.into_iter().take(SENTENCE_MAX)).collect()
}

fn body(view: &View<'_>, width: usize) -> Vec<Line> {
    let Some(document) = view.document else { return Vec::new() };
    let groups = sorted(document, view.order);
    let parts = [
        problems(document, width),
        moves(document, width),
        group_lines(document, &groups, width),
        servers::lines(document, &groups, width),
        hottest(document, width),
    ];
    let parts = parts.into_iter().filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join(&Line::default())
}

fn and_more(lines: &mut Vec<Line>, count: usize, max: usize) {
    if count > max {
        lines.push(Line::of(Look::Warn, format!("and {} more", count - max)));
    }
}

/// All but the worst, which the head tells.
fn problems(document: &Value, width: usize) -> Vec<Line> {
    let others = list(&document["health"]["problems"]).get(1..).unwrap_or(&[]);
    let shown = others.iter().take(PROBLEMS_MAX);
    let mut lines: Vec<Line> = shown.flat_map(|it| wrapped(Look::Bad, &text(it), 0, width)).collect();
    and_more(&mut lines, others.len(), PROBLEMS_MAX);
    lines
}

const MOVE_COLUMNS: [Column; 9] = [
    right("SHARD", 0),
    left("FROM", 0),
    left("TO", 0),
    left("PHASE", 2),
    left("DONE", 3),
    right("", 1),
    right("KEYS", 5),
    right("KEYS/S", 4),
    right("LEFT", 1),
];

fn one_move(it: &Value) -> Vec<Piece> {
    let (rows, total) = (it["rows"].as_f64().unwrap_or(0.0), it["rows_total"].as_f64().unwrap_or(0.0));
    let share = if total > 0.0 { (rows / total).min(1.0) } else { 0.0 };
    let of = |field: &str, shown: fn(f64) -> String| or_none(it[field].as_f64(), shown);
    let group = |field: &str| if it[field].is_null() { "?".to_owned() } else { text(&it[field]) };
    let plain = |text: String| (Look::Plain, text);
    vec![
        plain(text(&it["shard"])),
        plain(group("from")),
        plain(group("to")),
        (if it["served"] == true { Look::Plain } else { Look::Warn }, text(&it["phase"])),
        plain(bar(share, MARKS)),
        plain(format!("{:.0} %", (share * 100.0).floor())),
        plain(format!("{} of {}", count(rows), count(total))),
        plain(of("rows_per_second", rate)),
        plain(of("seconds_left", span)),
    ]
}

/// What waits comes first, then what is under way.
fn moves(document: &Value, width: usize) -> Vec<Line> {
    let mut moves: Vec<&Value> = list(&document["moves"]).iter().collect();
    let is_under_way = |it: &Value| it["rows"].as_u64().unwrap_or(0) > 0;
    moves.sort_by_key(|it| (it["waits_for"].is_null(), !is_under_way(it), it["shard"].as_u64()));
    if moves.is_empty() {
        let pending = list(&document["pending"]);
        let shown = pending.iter().take(PENDING_MAX);
        let mut lines: Vec<Line> = shown.flat_map(|it| wrapped(Look::Warn, &text(it), 0, width)).collect();
        and_more(&mut lines, pending.len(), PENDING_MAX);
        return lines;
    }
    let shown = &moves[..moves.len().min(MOVES_MAX)];
    let rows: Vec<Vec<Piece>> = shown.iter().map(|it| one_move(it)).collect();
    let mut rows = table(&MOVE_COLUMNS, &rows, width).into_iter();
    let mut lines = vec![Line::of(Look::Head, format!("{} shards on the way", moves.len()))];
    lines.extend(rows.next());
    for (row, it) in rows.zip(shown) {
        lines.push(row);
        if !it["waits_for"].is_null() {
            lines.extend(wrapped(Look::Bad, &format!("waits: {}", text(&it["waits_for"])), 2, width));
        }
    }
    and_more(&mut lines, moves.len(), MOVES_MAX);
    lines
}

fn of_group(document: &Value, group: &Value, figure: &str) -> Option<f64> {
    document["rates"]["groups"][text(&group["gid"])][figure].as_f64()
}

fn sorted(document: &Value, order: Order) -> Vec<&Value> {
    let mut groups: Vec<&Value> = list(&document["groups"]).iter().collect();
    let figure = match order {
        Order::Id => return groups,
        Order::Requests => "requests",
        Order::Slow => "p99",
    };
    let key = |it: &&Value| of_group(document, it, figure).unwrap_or(-1.0);
    groups.sort_by(|a, b| key(b).total_cmp(&key(a)));
    groups
}

const GROUP_COLUMNS: [Column; 10] = [
    left("GROUP", 0),
    left("LEADER", 4),
    right("SHARDS", 5),
    right("KEYS", 6),
    right("OP/S", 0),
    right("P50 MS", 2),
    right("P99 MS", 0),
    right("P99.9", 3),
    right("NOT OK/S", 2),
    left("HEARD", 1),
];

fn group_row(document: &Value, group: &Value) -> Vec<Piece> {
    let gid = text(&group["gid"]);
    // A group of which nobody answers keeps what it said.
    let last = &document["last"]["groups"][&gid];
    let (said, look) = match last["age"].as_f64() {
        Some(_) => (&last["group"], Look::Dim),
        None => (group, Look::Plain),
    };
    let shards = list(&said["shards"]);
    let keys: f64 = shards.iter().filter_map(|it| it["rows"].as_f64()).sum();
    let of =
        |name: &str, shown: fn(f64) -> String| (Look::Plain, or_none(of_group(document, group, name), shown));
    let outcomes = document["rates"]["groups"][&gid]["outcomes"].as_object();
    let failed = |it: &serde_json::Map<String, Value>| -> f64 {
        it.iter().filter(|(name, _)| *name != "ok").filter_map(|(_, it)| it.as_f64()).sum()
    };
    let failed = outcomes.map(failed);
    let leader = match servers::leader(list(&group["replicas"])) {
        Some(leader) => (Look::Good, text(&leader["name"])),
        None => (Look::Bad, "none".to_owned()),
    };
    vec![
        (Look::Plain, if group["joined"] == false { format!("{gid} (not joined)") } else { gid }),
        leader,
        (look, count(shards.len() as f64)),
        (look, count(keys)),
        of("requests", rate),
        of("p50", millis),
        of("p99", millis),
        of("p999", millis),
        (if failed > Some(0.0) { Look::Warn } else { Look::Plain }, or_none(failed, rate)),
        (Look::Warn, last["age"].as_f64().map_or_else(String::new, |age| format!("{} ago", span(age)))),
    ]
}

fn group_lines(document: &Value, groups: &[&Value], width: usize) -> Vec<Line> {
    let rows: Vec<Vec<Piece>> = groups.iter().map(|group| group_row(document, group)).collect();
    if rows.is_empty() { Vec::new() } else { table(&GROUP_COLUMNS, &rows, width) }
}

const SHARD_COLUMNS: [Column; 5] = [
    right("HOTTEST SHARD", 0),
    left("GROUP", 0),
    right("READS/S", 1),
    right("WRITES/S", 1),
    right("BYTES/S", 2),
];

fn hottest(document: &Value, width: usize) -> Vec<Line> {
    let figure = |it: &Value, field: &str| it[field].as_f64().unwrap_or(0.0);
    let load = |it: &Value| figure(it, "reads") + figure(it, "writes");
    let shards = document["rates"]["shards"].as_object();
    let mut shards: Vec<(&String, &Value)> = shards.into_iter().flatten().collect();
    shards.sort_by(|a, b| load(b.1).total_cmp(&load(a.1)).then_with(|| a.0.cmp(b.0)));
    let row = |(shard, it): &(&String, &Value)| -> Vec<Piece> {
        let plain = |text: String| (Look::Plain, text);
        vec![
            plain((*shard).clone()),
            plain(text(&it["group"])),
            plain(rate(figure(it, "reads"))),
            plain(rate(figure(it, "writes"))),
            plain(bytes(figure(it, "bytes"))),
        ]
    };
    let rows: Vec<Vec<Piece>> = shards.iter().take(SHARDS_MAX).map(row).collect();
    if rows.is_empty() {
        return Vec::new();
    }
    let mut lines = table(&SHARD_COLUMNS, &rows, width);
    and_more(&mut lines, shards.len(), SHARDS_MAX);
    lines
}

#[cfg(test)]
mod tests;
