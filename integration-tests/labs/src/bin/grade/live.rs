//! The table of a campaign, redrawn in place while it runs if a terminal shows it.

use std::io::{IsTerminal, Write as _};
use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, Table, presets};

use super::results::Line;

const EVERY: Duration = Duration::from_millis(500);
/// Rows that fit most terminals; a longer table is shown at the end only.
const ROWS_MAX: usize = 30;

/// Shows how far a campaign is.
pub(super) struct Live {
    start: Instant,
    shown: Option<Instant>,
    /// The number of lines to go up before drawing again.
    height: usize,
    watched: bool,
}

impl Live {
    pub(super) fn new() -> Self {
        let watched = std::io::stderr().is_terminal();
        Self { start: Instant::now(), shown: None, height: 0, watched }
    }

    /// Draws if it is time to.
    pub(super) fn update(&mut self, lines: &[Line], all: u64) {
        let every = if self.watched { EVERY } else { EVERY * 60 };
        if self.shown.is_some_and(|shown| shown.elapsed() < every) {
            return;
        }
        self.shown = Some(Instant::now());
        let runs: u64 = lines.iter().map(|line| line.runs).sum();
        let failed: u64 = lines.iter().map(|line| line.runs - line.passed).sum();
        let status =
            format!("{runs}/{all} runs, {failed} failed, {:.0} s", self.start.elapsed().as_secs_f64());
        if !self.watched {
            eprintln!("{status}");
            return;
        }
        let running: Vec<Line> = lines.iter().filter(|line| line.runs > 0).cloned().collect();
        let from = running.len().saturating_sub(ROWS_MAX);
        let text = format!("{}\n{status}", table(&running[from..]));
        let mut stderr = std::io::stderr().lock();
        let up = if self.height > 0 { format!("\x1b[{}A", self.height) } else { String::new() };
        let _ = writeln!(stderr, "{up}\x1b[J{text}");
        self.height = text.lines().count();
    }

    /// Clears what was drawn.
    pub(super) fn end(&mut self) {
        if self.height > 0 {
            eprint!("\x1b[{}A\x1b[J", self.height);
        }
    }
}

/// Runs, passes, failures, virtual and wall seconds of each test.
pub(super) fn table(lines: &[Line]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["test", "runs", "passed", "failed", "virtual s", "wall s", "failed seeds"]);
    for line in lines {
        let seeds: Vec<String> = line.failed_seeds.iter().take(5).map(u64::to_string).collect();
        let more = if line.failed_seeds.len() > 5 { ", ..." } else { "" };
        table.add_row([
            line.test.clone(),
            line.runs.to_string(),
            line.passed.to_string(),
            (line.runs - line.passed).to_string(),
            format!("{:.1}", line.virtual_s),
            format!("{:.1}", line.wall_s),
            format!("{}{more}", seeds.join(", ")),
        ]);
    }
    for column in 1..=5 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
