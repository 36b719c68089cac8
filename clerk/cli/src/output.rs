//! What the command line prints, and how it ends.
//!
//! A reader that goes away (`clerk dump | head`) is not a failure: the program ends quietly.
//! Nothing here is coloured; the help and `top` are, on terminals, unless NO_COLOR is set.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::time::Duration;

use clap::ValueEnum;
use clap::error::ErrorKind;
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use crate::failure::Failure;

/// How answers are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: one document.
    Json,
}

/// The way to standard output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    format: Format,
    /// Without progress lines: another part of the program shows one.
    quiet: bool,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        Self { format, quiet: false }
    }

    /// The same without progress lines.
    pub(crate) fn quiet(self) -> Self {
        Self { quiet: true, ..self }
    }

    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Prints the answer: the document for programs, or the text for people.
    pub(crate) fn answer(self, document: &Value, text: impl FnOnce() -> String) {
        match self.format {
            Format::Json => write_all(format!("{document}\n").as_bytes()),
            Format::Table => write_all(text().as_bytes()),
        }
    }

    /// Prints bytes as they are.
    pub(crate) fn bytes(self, bytes: &[u8]) {
        write_all(bytes);
    }

    /// Prints a note for the person who waits; programs read only standard output.
    pub(crate) fn note(self, text: impl AsRef<str>) {
        // Nothing helps where standard error is closed.
        let _ = writeln!(io::stderr(), "{}", text.as_ref());
    }

    /// Prints a failure; its exit code.
    pub(crate) fn failure(self, failure: &Failure) -> i32 {
        let Failure { code, message, next, exit, answered } = failure;
        match self.format {
            Format::Json if *answered => {}
            Format::Json => {
                let error = json!({"error": {"code": code, "message": message, "next": next}});
                write_all(format!("{error}\n").as_bytes());
            }
            Format::Table => {
                self.note(format!("clerk: {message}"));
                if !next.is_empty() {
                    self.note(format!("       {next}"));
                }
            }
        }
        *exit
    }

    /// A line that tells what is going on, on a terminal; elsewhere it is hidden.
    pub(crate) fn spinner(self) -> ProgressBar {
        let target = if self.quiet { ProgressDrawTarget::hidden() } else { target() };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(style("{spinner} {wide_msg}"));
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    }

    /// A bar over `length` steps (0: not known), on a terminal; elsewhere it is hidden.
    pub(crate) fn bar(self, length: u64) -> ProgressBar {
        match length {
            0 => {
                let bar = ProgressBar::with_draw_target(None, target());
                bar.with_style(style("{spinner} {human_pos} records, {per_sec}"))
            }
            length => {
                let bar = ProgressBar::with_draw_target(Some(length), target());
                bar.with_style(style("{bar:40} {percent}% {msg}"))
            }
        }
    }
}

fn target() -> ProgressDrawTarget {
    if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// Standard output for a long answer. Errors of its reader end the program as [`write_all`] does.
pub(crate) struct Stream(BufWriter<io::StdoutLock<'static>>);

impl Stream {
    pub(crate) fn new() -> Self {
        Self(BufWriter::with_capacity(1 << 16, io::stdout().lock()))
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        ended(self.0.write_all(bytes));
    }

    pub(crate) fn finish(mut self) {
        ended(self.0.flush());
    }
}

fn write_all(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    ended(out.write_all(bytes).and_then(|()| out.flush()));
}

fn ended(result: io::Result<()>) {
    match result {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            let _ = writeln!(io::stderr(), "clerk: cannot write the answer: {error}");
            std::process::exit(1)
        }
    }
}

/// Ends the program after help, version, or a call that is not understood.
pub(crate) fn end_with_usage(error: &clap::Error) -> ! {
    let shown = matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    if shown || !asked_for_json() {
        error.exit()
    }
    let text = error.render().to_string();
    let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    let failure = Failure::usage(message).next("clerk help");
    std::process::exit(Output::new(Format::Json).failure(&failure))
}

/// Whether the call that was not understood asked for JSON.
fn asked_for_json() -> bool {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    let pair = |pair: &[String]| matches!(&*pair[0], "-o" | "--output") && pair[1] == "json";
    arguments.windows(2).any(pair)
        || arguments.iter().any(|argument| matches!(&**argument, "-ojson" | "-o=json" | "--output=json"))
}

/// A table with a head; columns whose head begins with `>` are aligned to the right.
pub(crate) fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(head.iter().map(|name| name.trim_start_matches('>')));
    for row in rows {
        table.add_row(row);
    }
    for (index, name) in head.iter().enumerate() {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, 2));
            if name.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    let text = table.to_string();
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Bytes in JSON: a string if they are one, else `{"base64": ...}`.
pub(crate) fn json_bytes(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => json!({"base64": base64(bytes)}),
    }
}

/// Standard base64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for position in 0..4 {
            let digit = (group >> (18 - 6 * position)) & 63;
            text.push(if position <= chunk.len() { char::from(ALPHABET[digit as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{base64, json_bytes, table};

    #[test]
    fn base64_is_that_of_the_standard() {
        for (plain, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
        ] {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfd]), "//79");
    }

    #[test]
    fn bytes_that_are_text_are_text() {
        assert_eq!(json_bytes("größe".as_bytes()), json!("größe"));
        assert_eq!(json_bytes(&[0xff]), json!({"base64": "/w=="}));
    }

    #[test]
    fn tables_have_aligned_columns_and_no_trailing_blanks() {
        let text = table(&["NAME", ">ROWS"], [vec!["a".into(), "1".into()], vec!["bcd".into(), "22".into()]]);
        assert_eq!(text, "NAME  ROWS\na        1\nbcd     22\n");
    }
}
