//! Results of many runs, summed up over days: one line per test and call, keyed by the commit.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use labs::grading::Outcome;
use serde::{Deserialize, Serialize};

/// Runs of one test.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) commit: String,
    pub(super) test: String,
    pub(super) mode: String,
    pub(super) first_seed: u64,
    pub(super) runs: u64,
    pub(super) passed: u64,
    pub(super) failed_seeds: Vec<u64>,
    pub(super) virtual_s: f64,
    pub(super) wall_s: f64,
}

impl Line {
    pub(super) fn add(&mut self, run: &Outcome) {
        self.runs += 1;
        if run.passed() {
            self.passed += 1;
        } else {
            self.failed_seeds.push(run.seed);
        }
        self.virtual_s += run.virtual_time.as_secs_f64();
        self.wall_s += run.wall_time.as_secs_f64();
    }

    fn add_line(&mut self, other: &Self) {
        self.runs += other.runs;
        self.passed += other.passed;
        self.failed_seeds.extend(&other.failed_seeds);
        self.virtual_s += other.virtual_s;
        self.wall_s += other.wall_s;
    }
}

/// The commit that is being graded, with a "+" if files differ from it.
pub(super) fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output =
            Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".to_owned() };
    let differs =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|text| !text.is_empty());
    if differs { commit + "+" } else { commit }
}

pub(super) fn append(path: &Path, line: &Line) -> anyhow::Result<()> {
    let shown = path.display();
    let file = OpenOptions::new().create(true).append(true).open(path);
    let mut file = file.with_context(|| format!("cannot write {shown}"))?;
    writeln!(file, "{}", serde_json::to_string(line)?).with_context(|| format!("cannot write {shown}"))
}

/// Everything the file knows of `commit`, by test and mode.
pub(super) fn totals(path: &Path, commit: &str) -> anyhow::Result<BTreeMap<(String, String), Line>> {
    let mut totals: BTreeMap<(String, String), Line> = BTreeMap::new();
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line?;
        let line: Line = serde_json::from_str(&line)
            .with_context(|| format!("{} line {} is no result", path.display(), number + 1))?;
        if line.commit == commit {
            totals.entry((line.test.clone(), line.mode.clone())).or_default().add_line(&line);
        }
    }
    Ok(totals)
}
