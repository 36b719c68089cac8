//! The directory of a failure: everything needed to look at it, today or next year.
//!
//! | file | what |
//! |---|---|
//! | `failure.txt` | why, when, with which seed, how to repeat it, where to look first |
//! | `page.html` | the run in pictures |
//! | `log.txt` | the run in columns; of a long run the end |
//! | `recording.json` | the run itself, from which the other three are made; of a long one the end of its messages |
//!
//! Left out on purpose: the disks of the servers.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write as _};
use std::path::Path;

use super::columns::{self, Filter, Layout};
use super::story::{Story, messages};
use super::words::{clean, micros, seconds};
use super::{Verdict, page};
use sim::record::Recording;

/// The limit of events in a directory's log.
const LOG_EVENTS_MAX: usize = 40_000;

/// The recording's file.
pub const RECORDING: &str = "recording.json";
/// The log's.
pub const LOG: &str = "log.txt";
/// The page's.
pub const PAGE: &str = "page.html";
/// The text's file, which people read first.
pub const FAILURE: &str = "failure.txt";

/// Writes the directory of a failure, and makes it if needed.
///
/// # Errors
/// Those of the file system.
pub fn write(directory: &Path, recording: &Recording, verdicts: &[Verdict]) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let file = |name| File::create(directory.join(name)).map(BufWriter::new);
    let mut to = file(RECORDING)?;
    serde_json::to_writer(&mut to, recording)?;
    to.flush()?;
    write_log(directory, file(LOG)?, recording)?;
    fs::write(directory.join(PAGE), page::render(recording, verdicts)?)?;
    fs::write(directory.join(FAILURE), text(directory, recording, verdicts))
}

/// The log, or its end if it is too long to open in an editor.
fn write_log(directory: &Path, mut to: impl io::Write, recording: &Recording) -> io::Result<()> {
    let events = &recording.events;
    let Some(first) = events.len().checked_sub(LOG_EVENTS_MAX).map(|first| &events[first]) else {
        return columns::write(to, recording, &Filter::default(), Layout::default());
    };
    writeln!(
        to,
        "From {} on: the last {LOG_EVENTS_MAX} of {} events. All: grade log {}",
        seconds(micros(first.at_ns)),
        events.len(),
        directory.display()
    )?;
    let end = Recording {
        header: recording.header.clone(),
        events: events[events.len() - LOG_EVENTS_MAX..].to_vec(),
        left_out: recording.left_out,
        history: recording.history.iter().filter(|one| one.call_ns >= first.at_ns).cloned().collect(),
    };
    columns::write(to, &end, &Filter::default(), Layout::default())
}

/// Reads the recording of a failure's directory.
///
/// # Errors
/// Those of the file system, and a file that is not a recording.
pub fn read(directory: &Path) -> io::Result<Recording> {
    let path = directory.join(RECORDING);
    let about = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let file = File::open(&path).map_err(about)?;
    serde_json::from_reader(BufReader::new(file)).map_err(|error| about(error.into()))
}

/// Several lines, one below the other.
fn lines(text: &str) -> String {
    text.lines().map(clean).collect::<Vec<_>>().join("\n          ")
}

/// The text that people read first.
fn text(directory: &Path, recording: &Recording, verdicts: &[Verdict]) -> String {
    let header = &recording.header;
    let story = Story::of(recording, verdicts);
    let mut text = String::new();
    let mut line = |line: String| {
        let _ = writeln!(text, "{line}");
    };
    line(format!("{} failed: {}", clean(&header.test), clean(&header.title)));
    line(String::new());
    line(format!("why       {}", lines(&header.failure)));
    line(format!("when      {} of virtual time", seconds(micros(header.failed_at_ns))));
    line(format!("seed      {}", header.seed));
    for (name, value) in &header.options {
        line(format!("option    {}: {}", clean(name), clean(value)));
    }
    line(format!("again     {}", clean(&header.replay)));
    for verdict in verdicts {
        let of_operations = verdict.unplaced.iter().map(|one| &one.words);
        for words in of_operations.chain(&verdict.words).filter(|words| !header.failure.contains(*words)) {
            line(format!("key       {}: {}", clean(&verdict.key), lines(words)));
        }
    }
    line(String::new());
    line("Where to look first".to_owned());
    line(format!("  {}", clean(&story.focus.what)));
    for sentence in &story.focus.context {
        line(format!("  {}", clean(sentence)));
    }
    line(String::new());
    line("What is here".to_owned());
    line(format!("  {PAGE}       the run in pictures; open it in any browser, it needs no network"));
    line(format!("  {LOG}         the run as text, a column per server; to select lines:"));
    line(format!("                  grade log {} --topic role,vote,test", directory.display()));
    line(format!(
        "  {RECORDING}  {} events and {} operations",
        recording.events.len(),
        recording.history.len()
    ));
    if let Some(note) = messages::left_out(recording) {
        line(format!("                  {note}"));
    }
    text
}
