//! How runs are shown: the labs' lines, the table of parts, JSON and JUnit.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Outcome, Verdict};
use crate::lab::Net;
use crate::sheet::{Entry, Sheet, Test};

/// The labs' limit for one suite.
pub const SUITE_LIMIT: Duration = Duration::from_secs(600);

/// A test that was run, once or several times; all runs count.
#[derive(Clone, Debug)]
pub struct Graded {
    pub test: Test,
    /// Its runs, by seed.
    pub runs: Vec<Outcome>,
    /// The command that repeats its first failure, or its first run.
    pub replay: String,
}

impl Graded {
    /// The worst of the verdicts.
    pub fn verdict(&self) -> &Verdict {
        let bad = |kind: fn(&Verdict) -> bool| self.runs.iter().map(|run| &run.verdict).find(|one| kind(one));
        bad(|verdict| matches!(verdict, Verdict::Failed(_)))
            .or_else(|| bad(|verdict| matches!(verdict, Verdict::Unknown(_))))
            .unwrap_or(&Verdict::Passed)
    }

    fn word(&self) -> &'static str {
        match self.verdict() {
            Verdict::Passed => "passed",
            Verdict::Failed(_) => "failed",
            Verdict::Unknown(_) => "unknown",
        }
    }

    fn seconds(&self, time: fn(&Outcome) -> Duration) -> f64 {
        self.runs.iter().map(|run| time(run).as_secs_f64()).sum()
    }
}

fn entry(test: &Test, sheet: Option<Sheet>) -> Option<&Entry> {
    match sheet {
        Some(sheet) => test.on(sheet),
        None => test.newest(),
    }
}

/// The part under which a test is shown.
pub fn part(test: &Test, sheet: Option<Sheet>) -> &'static str {
    entry(test, sheet).map_or(test.suite, |entry| entry.part)
}

/// The network in the labs' words.
pub fn net(test: &Test) -> &'static str {
    match test.net {
        Net::Reliable => "reliable network",
        Net::Unreliable => "unreliable network",
    }
}

/// The labs' two lines about one run.
pub fn lines(test: &Test, sheet: Option<Sheet>, run: &Outcome, real: bool) -> String {
    let kind = if real { "real processes" } else { net(test) };
    let mut text = format!("Test ({}): {} ({kind})...\n", part(test, sheet), test.title);
    let (time, wall) = (run.virtual_time.as_secs_f64(), run.wall_time.as_secs_f64());
    let numbers = format!(
        "time {time:.1}s #peers {} #RPCs {} #Ops {}  (wall {wall:.2}s, {} seed {})",
        run.tally.peers, run.tally.rpcs, run.tally.ops, test.id, run.seed
    );
    let _ = match &run.verdict {
        Verdict::Passed => write!(text, "  ... Passed -- {numbers}"),
        Verdict::Failed(why) => write!(text, "  ... FAILED -- {numbers}\n  {}", indented(why)),
        Verdict::Unknown(why) => write!(text, "  ... UNKNOWN -- {numbers}\n  {}", indented(why)),
    };
    text
}

fn indented(text: &str) -> String {
    text.replace('\n', "\n  ")
}

/// The result of one part.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed.
    pub failed: usize,
    /// Tests that could not be decided.
    pub unknown: usize,
    /// Points earned, and points possible.
    pub points: Option<(u32, u32)>,
    /// Virtual seconds.
    pub virtual_s: f64,
    /// Wall seconds of all threads together.
    pub wall_s: f64,
}

impl Part {
    fn add(&mut self, graded: &Graded, points: Option<u32>) {
        match graded.verdict() {
            Verdict::Passed => self.passed += 1,
            Verdict::Failed(_) => self.failed += 1,
            Verdict::Unknown(_) => self.unknown += 1,
        }
        if let Some(points) = points {
            let (earned, all) = self.points.get_or_insert((0, 0));
            *earned += if *graded.verdict() == Verdict::Passed { points } else { 0 };
            *all += points;
        }
        self.virtual_s += graded.seconds(|run| run.virtual_time);
        self.wall_s += graded.seconds(|run| run.wall_time);
    }
}

/// The parts in the order of their first test, and everything together.
pub fn parts(all: &[Graded], sheet: Option<Sheet>) -> (Vec<(String, Part)>, Part) {
    let mut parts: Vec<(String, Part)> = Vec::new();
    let mut total = Part::default();
    for graded in all {
        let points = entry(&graded.test, sheet).filter(|_| sheet.is_some()).and_then(|entry| entry.points);
        let name = match part(&graded.test, sheet) {
            name if name == graded.test.suite => name.to_owned(),
            name => format!("{name} {}", graded.test.suite),
        };
        let place = parts.iter().position(|(other, _)| *other == name).unwrap_or_else(|| {
            parts.push((name, Part::default()));
            parts.len() - 1
        });
        parts[place].1.add(graded, points);
        total.add(graded, points);
    }
    (parts, total)
}

/// Suites whose tests together took longer than the labs allow. Only one run of each test counts,
/// and only tests of one sheet together: the sheet that was asked for, or the newest one that has
/// the test.
pub fn over_time(all: &[Graded], sheet: Option<Sheet>) -> Vec<(String, Duration)> {
    let mut suites: BTreeMap<(&str, Option<Sheet>), Duration> = BTreeMap::new();
    for graded in all {
        let sheet = entry(&graded.test, sheet).map(|entry| entry.sheet);
        let longest = graded.runs.iter().map(|run| run.virtual_time).max().unwrap_or_default();
        *suites.entry((graded.test.suite, sheet)).or_default() += longest;
    }
    let over = suites.into_iter().filter(|(_, time)| *time > SUITE_LIMIT);
    over.map(|((suite, _), time)| (suite.to_owned(), time)).collect()
}

#[derive(Serialize)]
struct Listed {
    id: &'static str,
    title: &'static str,
    names: Map<String, Value>,
    suite: &'static str,
    part: Option<&'static str>,
    sheets: Vec<String>,
    points: Option<u32>,
    network: &'static str,
    real: bool,
}

/// Tests for programs.
pub fn list_json(tests: &[Test], sheet: Option<Sheet>) -> Value {
    let listed = tests.iter().map(|test| Listed {
        id: test.id,
        title: test.title,
        names: test.entries.iter().map(|entry| (entry.sheet.to_string(), entry.name.into())).collect(),
        suite: test.suite,
        part: entry(test, sheet).map(|entry| entry.part),
        sheets: test.entries.iter().map(|entry| entry.sheet.to_string()).collect(),
        points: test.entries.iter().find_map(|entry| entry.points),
        network: match test.net {
            Net::Reliable => "reliable",
            Net::Unreliable => "unreliable",
        },
        real: test.real,
    });
    json!(listed.collect::<Vec<_>>())
}

/// Results for programs.
pub fn results_json(all: &[Graded], seed: u64) -> Value {
    let count = |word| all.iter().filter(|graded| graded.word() == word).count();
    let test = |graded: &Graded| {
        let last = graded.runs.last();
        json!({
            "id": graded.test.id,
            "outcome": graded.word(),
            "virtual_s": graded.seconds(|run| run.virtual_time),
            "wall_s": graded.seconds(|run| run.wall_time),
            "peers": last.map(|run| run.tally.peers),
            "rpcs": last.map(|run| run.tally.rpcs),
            "ops": last.map(|run| run.tally.ops),
            "replay": graded.replay,
        })
    };
    json!({
        "seed": seed,
        "passed": count("passed"),
        "failed": count("failed"),
        "unknown": count("unknown"),
        "tests": all.iter().map(test).collect::<Vec<_>>(),
    })
}

/// Results for continuous integration.
///
/// # Errors
/// When they cannot be written as XML.
pub fn junit(all: &[Graded], sheet: Option<Sheet>) -> anyhow::Result<String> {
    let mut report = Report::new("grade");
    let mut suites: Vec<TestSuite> = Vec::new();
    for graded in all {
        let status = match graded.verdict() {
            Verdict::Passed => TestCaseStatus::success(),
            Verdict::Failed(why) => failure(NonSuccessKind::Failure, why, &graded.replay),
            Verdict::Unknown(why) => failure(NonSuccessKind::Error, why, &graded.replay),
        };
        let name = entry(&graded.test, sheet).map_or(graded.test.title, |entry| entry.name);
        let mut case = TestCase::new(format!("{} {name}", graded.test.id), status);
        case.set_classname(graded.test.suite);
        case.set_time(Duration::from_secs_f64(graded.seconds(|run| run.wall_time)));
        let place = suites.iter().position(|suite| suite.name.as_str() == graded.test.suite);
        let place = place.unwrap_or_else(|| {
            suites.push(TestSuite::new(graded.test.suite));
            suites.len() - 1
        });
        suites[place].add_test_case(case);
    }
    report.add_test_suites(suites);
    Ok(report.to_string()?)
}

fn failure(kind: NonSuccessKind, why: &str, replay: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(kind);
    status.set_message(why.lines().next().unwrap_or_default());
    status.set_description(format!("{why}\nreplay: {replay}"));
    status
}
