//! `growth`: what happens to the store as it grows.
//!
//! Each row starts its own clusters, on real disks. For "the same speed", a small store and a large
//! one run side by side and are measured alternately, so that changes of the machine's speed hit
//! both. Results go to standard output as soon as a row is done, progress to standard error.
//!
//! Exit 0: measured (with `--strict`: and every limit kept); 1: something failed; 2: wrong usage.

mod args;
mod pair;
mod repair;
mod rows;
mod watch;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use measure::load::on_one_thread;
use measure::summary::{figure, table};
use real::check_binaries;

use self::args::Args;
use self::rows::ROWS;

/// A figure of a row, and its limit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    /// What was measured.
    pub(crate) what: String,
    pub(crate) measured: f64,
    pub(crate) unit: &'static str,
    pub(crate) limit: Limit,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

impl Line {
    fn passed(&self) -> bool {
        match self.limit {
            Limit::AtLeast(limit) => self.measured >= limit,
            Limit::AtMost(limit) => self.measured <= limit,
        }
    }

    fn cells(&self, row: &str) -> Vec<String> {
        let (word, limit) = match self.limit {
            Limit::AtLeast(limit) => ("at least", limit),
            Limit::AtMost(limit) => ("at most", limit),
        };
        let verdict = if self.passed() { "pass" } else { "MISS" };
        let limit = format!("{word} {}", figure(limit));
        vec![row.into(), self.what.clone(), figure(self.measured), self.unit.into(), limit, verdict.into()]
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    match on_one_thread(grow(&args)) {
        Ok(missed) if args.strict && missed > 0 => ExitCode::FAILURE,
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("growth: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures every requested row; returns how many limits were missed.
async fn grow(args: &Args) -> Result<usize> {
    let rows = if args.rows.is_empty() { ROWS.to_vec() } else { args.rows.clone() };
    check_binaries()?;
    let mut missed = 0;
    for row in rows {
        eprintln!("{}: {}", row.name, row.text);
        let start = Instant::now();
        let lines = (row.measure)(args).await.with_context(|| row.name)?;
        missed += lines.iter().filter(|line| !line.passed()).count();
        let cells = lines.iter().map(|line| line.cells(row.name));
        print!("{}", table(&["row", "what", ">measured", "unit", "limit", ""], cells));
        eprintln!("{}: took {} s", row.name, start.elapsed().as_secs());
    }
    Ok(missed)
}

#[cfg(test)]
mod tests {
    use super::{Limit, Line};

    #[test]
    fn a_line_tells_whether_its_limit_is_kept() {
        let line = |measured, limit| Line { what: "it".into(), measured, unit: "s", limit };
        assert!(line(5.0, Limit::AtMost(5.0)).passed() && !line(5.1, Limit::AtMost(5.0)).passed());
        assert!(line(100.0, Limit::AtLeast(100.0)).passed() && !line(99.0, Limit::AtLeast(100.0)).passed());
        let cells = line(5.1, Limit::AtMost(5.0)).cells("restart");
        assert_eq!(cells, ["restart", "it", "5.10", "s", "at most 5.00", "MISS"]);
    }
}
