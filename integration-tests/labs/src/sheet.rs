//! A graded test, and the sheets that contain it.
//!
//! The table `catalogue.txt` has a row for each test; the suites have its scenario, under the same
//! id.
//!
//! A [`Test`] is one scenario with one set of parameters. A [`Sheet`] is one course and year: the
//! tests that were handed out then, under their original names. One function of a sheet can be
//! several of our tests (the classic controller's TestBasic is six scenarios), and a scenario whose
//! parameters changed over the years is several tests ("R27", "R27-reliable").

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::lab::{Lab, Net};

/// A course and year whose tests can be graded together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sheet {
    /// MIT 6.824 or 6.5840 of a year.
    Mit(u16),
    /// SJTU CSE 2021, Lab 3.
    Sjtu,
    /// GWU's leader election assignment.
    Gwu,
}

impl Sheet {
    /// All sheets.
    pub fn all() -> impl Iterator<Item = Self> {
        (2020..=2026).map(Self::Mit).chain([Self::Sjtu, Self::Gwu])
    }

    /// How often each test is run for one grade: all runs must pass.
    pub fn repeats(self) -> u64 {
        if self == Self::Sjtu { 3 } else { 1 }
    }
}

impl fmt::Display for Sheet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mit(year) => write!(f, "{year}"),
            Self::Sjtu => f.write_str("sjtu"),
            Self::Gwu => f.write_str("gwu"),
        }
    }
}

impl FromStr for Sheet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::all().find(|sheet| sheet.to_string() == text).ok_or_else(|| {
            let known: Vec<String> = Self::all().map(|sheet| sheet.to_string()).collect();
            format!("no sheet is called {text:?}; there are {}", known.join(", "))
        })
    }
}

/// A test as one sheet contains it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub sheet: Sheet,
    /// Its part of the sheet: "3B", "part2".
    pub part: &'static str,
    /// The original name: "TestBackup3B".
    pub name: &'static str,
    /// Points, where the sheet has points.
    pub points: Option<u32>,
}

type Play = Arc<dyn Fn(Lab) -> BoxFuture<'static, anyhow::Result<()>> + Send + Sync>;

/// One test.
#[derive(Clone)]
pub struct Test {
    /// Its id: "R12", "R15-classic".
    pub id: &'static str,
    /// The package it comes from: "raft", "kvraft1", "shardkv", "network", ...
    pub suite: &'static str,
    /// Its subject, as the labs print it.
    pub title: &'static str,
    pub net: Net,
    pub entries: Vec<Entry>,
    /// Whether it can also run on real processes.
    pub real: bool,
    pub(crate) play: Play,
}

impl fmt::Debug for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id)
    }
}

/// A scenario of a suite.
pub(crate) struct Scenario {
    /// The id of its test in the catalogue.
    pub(crate) id: &'static str,
    play: Play,
}

/// The scenario of the test `id`.
pub(crate) fn scenario<F>(id: &'static str, play: impl Fn(Lab) -> F + Send + Sync + 'static) -> Scenario
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    Scenario { id, play: Arc::new(move |lab| Box::pin(play(lab))) }
}

/// The tests of a catalogue, each with its scenario. The first line names the columns:
///
/// ```text
/// id   | suite  | network    | real | title        | sheets
/// KR04 | kvraft | unreliable |      | many clients | 2020-2023 3A TestUnreliable3A; 2024 4A TestUnreliable4A
/// ```
///
/// A sheet of SJTU has points: `sjtu:10 part1 part1.leader_election`.
///
/// # Errors
/// A row that is not of this form, a row without scenario, or a scenario without row.
pub(crate) fn catalogue(rows: &'static str, scenarios: Vec<Scenario>) -> Result<Vec<Test>, String> {
    let mut plays: BTreeMap<&str, Play> = BTreeMap::new();
    for Scenario { id, play } in scenarios {
        if plays.insert(id, play).is_some() {
            return Err(format!("{id} has two scenarios"));
        }
    }
    let mut tests = Vec::new();
    for row in rows.lines().skip(1) {
        let columns: Vec<&'static str> = row.split('|').map(str::trim).collect();
        let [id, suite, network, real, title, sheets] = columns[..] else {
            return Err(format!("not six columns: {row}"));
        };
        let play = plays.remove(id).ok_or_else(|| format!("{id} has no scenario, or two rows"))?;
        let net = match network {
            "reliable" => Net::Reliable,
            "unreliable" => Net::Unreliable,
            _ => return Err(format!("{id}: {network:?} is no network")),
        };
        let real = match real {
            "real" => true,
            "" => false,
            _ => return Err(format!("{id}: {real:?} is neither \"real\" nor nothing")),
        };
        let mut entries = Vec::new();
        for sheet in sheets.split("; ").filter(|sheet| !sheet.is_empty()) {
            entries.extend(self::entries(sheet).ok_or_else(|| format!("{id}: {sheet:?} is no sheet"))?);
        }
        tests.push(Test { id, suite, title, net, entries, real, play });
    }
    match plays.keys().next() {
        None => Ok(tests),
        Some(id) => Err(format!("{id} has a scenario and no row")),
    }
}

/// Reads `2020-2023 3A TestSpeed3A`, which is an entry for each year.
fn entries(text: &'static str) -> Option<Vec<Entry>> {
    let (sheet, rest) = text.split_once(' ')?;
    let (part, name) = rest.split_once(' ')?;
    let (sheet, points) = match sheet.split_once(':') {
        Some((sheet, points)) => (sheet, Some(points.parse().ok()?)),
        None => (sheet, None),
    };
    let (first, last) = sheet.split_once('-').unwrap_or((sheet, sheet));
    let (first, last): (Sheet, Sheet) = (first.parse().ok()?, last.parse().ok()?);
    let sheets = Sheet::all().filter(|sheet| (first..=last).contains(sheet));
    Some(sheets.map(|sheet| Entry { sheet, part, name, points }).collect())
}

impl Test {
    /// The entry of `sheet`.
    pub fn on(&self, sheet: Sheet) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.sheet == sheet)
    }

    /// The newest sheet's entry, which is shown when no sheet was asked for.
    pub fn newest(&self) -> Option<&Entry> {
        let is_mit = |entry: &&Entry| matches!(entry.sheet, Sheet::Mit(_));
        self.entries.iter().filter(is_mit).max_by_key(|entry| entry.sheet).or(self.entries.first())
    }
}

#[cfg(test)]
mod tests {
    use super::{Scenario, Sheet, catalogue, scenario};

    fn of(ids: &[&'static str]) -> Vec<Scenario> {
        ids.iter().map(|id| scenario(id, |_| async { Ok(()) })).collect()
    }

    #[test]
    fn a_row_is_a_test() {
        let rows = "columns\nX | s | unreliable | real | a title | 2020-2021 1 wc test; sjtu:5 part2 x";
        let tests = catalogue(rows, of(&["X"])).unwrap();
        let [test] = &tests[..] else { panic!("{tests:?}") };
        let on = |sheet: &str| {
            let sheet: Sheet = sheet.parse().unwrap();
            test.on(sheet).map(|entry| (entry.part, entry.name, entry.points))
        };
        assert!(test.real);
        assert_eq!(on("2021"), Some(("1", "wc test", None)));
        assert_eq!((on("2022"), on("sjtu")), (None, Some(("part2", "x", Some(5)))));
    }

    #[test]
    fn rows_and_scenarios_belong_together() {
        let wrong = |rows, ids: &[&'static str]| catalogue(rows, of(ids)).unwrap_err();
        assert_eq!(wrong("columns\nX | s | reliable | | t |", &[]), "X has no scenario, or two rows");
        assert_eq!(wrong("columns", &["X"]), "X has a scenario and no row");
        assert_eq!(wrong("columns", &["X", "X"]), "X has two scenarios");
        assert_eq!(wrong("columns\nX | s | slow | | t |", &["X"]), "X: \"slow\" is no network");
        assert_eq!(
            wrong("columns\nX | s | reliable | | t | 1999 1 x", &["X"]),
            "X: \"1999 1 x\" is no sheet"
        );
    }
}
