//! A recording as a log in columns: the time at the left, then one column per server, then the
//! clients. Read downwards, a column is the life of its server; read across, a row is one moment of
//! the cluster.
//!
//! Events of no particular server (the test's own steps, the network) go across all columns. The
//! call and the return of each operation are lines of the clients' column.
//!
//! Left out on purpose: columns too narrow to read. If there are too many for the terminal, lines
//! are longer than it; choose servers, or read with `less -S`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use judge::history::Outcome;
use sim::record::{Event, Recording, TOPICS, What};

use super::story;
use super::words::{clean, describe, micros, shorten, stamp, topic};

/// The word by which `--server` chooses the clients' column.
pub const CLIENTS: &str = "clients";
/// The least width of a column.
const COLUMN_MIN: usize = 16;
/// A column of a log that is written to a file.
const COLUMN_OF_A_FILE: usize = 34;
/// The greatest width; more is not easier to read.
const COLUMN_MAX: usize = 60;
/// The time, and the space after it.
const TIME: usize = 12;
/// The space between two columns.
const GAP: usize = 2;
/// Longer values are cut to this length.
const VALUE_CHARS: usize = 48;

/// Which lines are wanted; an empty set selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Topics: those of [`TOPICS`].
    pub topics: BTreeSet<String>,
    /// Terms. A line without its own term is in its server's term; a line of no server is in all
    /// terms.
    pub terms: BTreeSet<u64>,
    /// Servers: by full name ("101.2"), by number in every group ("2"), by group ("101"), or "clients".
    pub servers: BTreeSet<String>,
}

impl Filter {
    /// A filter as written on a command line, each part with commas: "vote,commit", "1,2", "3".
    ///
    /// # Errors
    /// A topic that does not exist, or a term that is no number, in words.
    pub fn parse(topics: Option<&str>, servers: Option<&str>, terms: Option<&str>) -> Result<Self, String> {
        let parts = |text: Option<&str>| -> BTreeSet<String> {
            let parts = text.unwrap_or_default().split(',').map(str::trim);
            parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
        };
        let topics = parts(topics);
        if let Some(unknown) = topics.iter().find(|topic| !TOPICS.contains(&topic.as_str())) {
            return Err(format!("no topic \"{}\"; there are {}", clean(unknown), TOPICS.join(", ")));
        }
        let number =
            |term: String| term.parse().map_err(|_| format!("a term is a number, not \"{}\"", clean(&term)));
        let terms = parts(terms).into_iter().map(number).collect::<Result<_, _>>()?;
        Ok(Self { topics, terms, servers: parts(servers) })
    }

    fn wants_server(&self, name: &str) -> bool {
        let (group, number) = name.split_once('.').unwrap_or((name, name));
        self.servers.is_empty() || [name, group, number].iter().any(|part| self.servers.contains(*part))
    }

    fn wants_topic(&self, topic: &str) -> bool {
        self.topics.is_empty() || self.topics.contains(topic)
    }

    fn wants_term(&self, term: Option<u64>) -> bool {
        self.terms.is_empty() || term.is_some_and(|term| self.terms.contains(&term))
    }
}

/// The layout of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Characters per line; none: wide columns, as for a file.
    pub width: Option<usize>,
    /// Whether topics have colours, by the escapes of terminals.
    pub colour: bool,
}

/// The width of the terminal on standard output, if it is one.
pub fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|width| *width > 0)
}

/// One line of the log before layout.
struct Line {
    us: u64,
    /// None: across all columns.
    column: Option<usize>,
    topic: &'static str,
    text: String,
}

/// Writes the lines of `recording` that `filter` wants.
///
/// # Errors
/// Those of the writer.
pub fn write(mut to: impl Write, recording: &Recording, filter: &Filter, layout: Layout) -> io::Result<()> {
    let names = story::server_names(&recording.events);
    let mut columns: Vec<String> = names.into_iter().filter(|name| filter.wants_server(name)).collect();
    let lines = lines(recording, filter, &columns);
    if lines.iter().any(|line| line.column == Some(columns.len())) {
        columns.push(CLIENTS.to_owned());
    }
    let table = Table::new(columns.len(), layout);
    let header = &recording.header;
    let why = header.failure.lines().next().unwrap_or_default();
    let about = format!("{} · {} · seed {} · FAILED: {why}", header.test, header.title, header.seed);
    table.across(&mut to, "", "test", &clean(&about))?;
    if let Some(note) = story::messages::left_out(recording) {
        table.across(&mut to, "", "test", &note)?;
    }
    table.heads(&mut to, &columns)?;
    for line in &lines {
        let time = stamp(line.us);
        match line.column {
            None => table.across(&mut to, &time, line.topic, &line.text)?,
            Some(column) => table.within(&mut to, &time, column, line.topic, &line.text)?,
        }
    }
    to.flush()
}

/// The selected lines, in order of time. The clients' column comes after the servers'.
fn lines(recording: &Recording, filter: &Filter, columns: &[String]) -> Vec<Line> {
    let places: BTreeMap<&str, usize> =
        columns.iter().enumerate().map(|(place, name)| (name.as_str(), place)).collect();
    let all: BTreeSet<String> = story::server_names(&recording.events).into_iter().collect();
    let with_clients = filter.servers.is_empty() || filter.servers.contains(CLIENTS);
    let mut terms: BTreeMap<&str, u64> = BTreeMap::new();
    let mut lines = Vec::new();
    for event in &recording.events {
        if let (What::Role { .. }, Some(at), Some(term)) = (&event.what, &event.at, event.term) {
            terms.insert(at, term);
        }
        let term = event.term.or_else(|| terms.get(event.at.as_deref()?).copied());
        let column = match event.at.as_deref() {
            None if concerns(event, filter) => None,
            None => continue,
            Some(at) => match places.get(at) {
                Some(place) => Some(*place),
                None if with_clients && !all.contains(at) => Some(columns.len()),
                None => continue,
            },
        };
        let is_client = column == Some(columns.len());
        if filter.wants_topic(topic(&event.what)) && (event.at.is_none() || filter.wants_term(term)) {
            let who = event.at.as_deref().filter(|_| is_client).map(|at| format!("{}: ", clean(at)));
            let text = format!("{}{}", who.unwrap_or_default(), describe(&event.what, event.term));
            lines.push(Line { us: micros(event.at_ns), column, topic: topic(&event.what), text });
        }
    }
    if with_clients && filter.wants_topic("client") && filter.terms.is_empty() {
        lines.extend(operations(recording, columns.len()));
    }
    lines.sort_by_key(|line| line.us);
    lines
}

/// A cut between two unselected servers is not shown.
fn concerns(event: &Event, filter: &Filter) -> bool {
    match &event.what {
        What::Link { from, to, .. } => filter.wants_server(from) || filter.wants_server(to),
        _ => true,
    }
}

fn operations(recording: &Recording, column: usize) -> Vec<Line> {
    let line = |ns, text: String| Line { us: micros(ns), column: Some(column), topic: "client", text };
    let shown = |text: &str| format!("\"{}\"", shorten(&clean(text), VALUE_CHARS));
    let mut lines = Vec::new();
    for operation in &recording.history {
        let op = format!("{:?}", operation.op).to_lowercase();
        let who = format!("{}: {op} {}", operation.client, clean(&operation.key));
        let value = operation.value.as_ref().map(|value| format!(" {}", shown(value)));
        let expected = operation.expected_version.map(|version| format!(" if version {version}"));
        let asked = format!("{who}{}{}", value.unwrap_or_default(), expected.unwrap_or_default());
        lines.push(line(operation.call_ns, format!("{asked} ...")));
        if let Some(return_ns) = operation.return_ns {
            let outcome = match operation.outcome {
                Outcome::Ok => "done",
                Outcome::Fail => "not done",
                Outcome::Unknown => "unknown",
            };
            let output = operation.output.as_ref().map(|output| format!(" {}", shown(output)));
            let version = operation.version.map(|version| format!(", version {version}"));
            let (output, version) = (output.unwrap_or_default(), version.unwrap_or_default());
            lines.push(line(return_ns, format!("... {asked}: {outcome}{output}{version}")));
        }
    }
    lines
}

/// The widths of the columns.
struct Table {
    columns: usize,
    width: usize,
    colour: bool,
}

impl Table {
    fn new(columns: usize, layout: Layout) -> Self {
        let share = |width: usize| width.saturating_sub(TIME) / columns.max(1);
        let width = layout.width.map_or(COLUMN_OF_A_FILE + GAP, share);
        Self { columns, width: width.clamp(COLUMN_MIN + GAP, COLUMN_MAX + GAP), colour: layout.colour }
    }

    fn heads(&self, to: &mut impl Write, names: &[String]) -> io::Result<()> {
        let mut line = format!("{:TIME$}", "seconds");
        for name in names {
            line.push_str(&fit(&clean(name), self.width - GAP));
            line.push_str(&" ".repeat(GAP));
        }
        writeln!(to, "{}", line.trim_end())?;
        writeln!(to, "{}", "-".repeat(TIME + self.width * self.columns - GAP.min(self.width * self.columns)))
    }

    fn across(&self, to: &mut impl Write, time: &str, topic: &str, text: &str) -> io::Result<()> {
        let width = (self.width * self.columns).saturating_sub(GAP).max(COLUMN_MIN);
        self.rows(to, time, 0, topic, &wrap(text, width))
    }

    fn within(
        &self,
        to: &mut impl Write,
        time: &str,
        column: usize,
        topic: &str,
        text: &str,
    ) -> io::Result<()> {
        self.rows(to, time, self.width * column, topic, &wrap(text, self.width - GAP))
    }

    fn rows(
        &self,
        to: &mut impl Write,
        time: &str,
        indent: usize,
        topic: &str,
        rows: &[String],
    ) -> io::Result<()> {
        for (number, row) in rows.iter().enumerate() {
            let time = if number == 0 { time } else { "" };
            let (on, off) = if self.colour { (colour(topic), "\u{1b}[0m") } else { ("", "") };
            writeln!(to, "{time:TIME$}{:indent$}{on}{row}{off}", "")?;
        }
        Ok(())
    }
}

/// Colours that are distinct on light and dark terminals.
fn colour(topic: &str) -> &'static str {
    match topic {
        "test" => "\u{1b}[1;31m",
        "life" => "\u{1b}[31m",
        "role" => "\u{1b}[1;32m",
        "vote" => "\u{1b}[33m",
        "append" => "\u{1b}[34m",
        "commit" => "\u{1b}[32m",
        "snapshot" | "shard" => "\u{1b}[35m",
        "network" => "\u{1b}[1;33m",
        "client" => "\u{1b}[36m",
        _ => "\u{1b}[90m",
    }
}

/// `text`, padded or cut to exactly `width` characters.
fn fit(text: &str, width: usize) -> String {
    let cut: String = text.chars().take(width).collect();
    format!("{cut:width$}")
}

/// Breaks `text` between words into rows of at most `width` characters; a longer word is broken.
/// All rows but the first are indented.
fn wrap(text: &str, width: usize) -> Vec<String> {
    const INDENT: &str = "  ";
    let mut rows = Vec::new();
    let mut row = String::new();
    let mut used = 0;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let letters: Vec<char> = word.chars().collect();
        let space = usize::from(used > 0 && row.as_str() != INDENT);
        if used + space + letters.len() <= width {
            row.push_str(&" ".repeat(space));
            row.extend(&letters);
            used += space + letters.len();
            continue;
        }
        if used > 0 && row.as_str() != INDENT {
            rows.push(std::mem::replace(&mut row, INDENT.to_owned()));
            used = INDENT.len();
        }
        for letter in letters {
            if used == width {
                rows.push(std::mem::replace(&mut row, INDENT.to_owned()));
                used = INDENT.len();
            }
            row.push(letter);
            used += 1;
        }
    }
    rows.push(row);
    rows
}

#[cfg(test)]
mod tests {
    use super::{fit, wrap};

    #[test]
    fn text_is_wrapped_between_words_and_long_words_are_broken() {
        assert_eq!(wrap("one two three", 9), ["one two", "  three"]);
        assert_eq!(wrap("abcdefghijkl mn", 5), ["abcde", "  fgh", "  ijk", "  l", "  mn"].map(String::from));
        assert_eq!(wrap("", 5), [""]);
        for width in [4, 7, 16] {
            let rows = wrap("-> 101.2 append prev 12 term 3, entries 13 to 2000000000000000", width);
            assert!(rows.iter().all(|row| row.chars().count() <= width), "{rows:?}");
        }
    }

    #[test]
    fn letters_of_several_bytes_are_whole() {
        assert_eq!(wrap("äöüäöü", 4), ["äöüä", "  öü"]);
        assert_eq!(fit("äöü", 2), "äö");
    }
}
