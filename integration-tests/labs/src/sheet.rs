//! A graded test as a suite declares it, and the sheets that contain it.
//!
//! A [`Test`] is one scenario with one set of parameters. A [`Sheet`] is one course and year: the
//! tests that were handed out then, under their original names. One function of a sheet can be
//! several of our tests (the classic controller's TestBasic is six scenarios), and a scenario whose
//! parameters changed over the years is several tests ("R27", "R27-reliable").

use std::fmt;
use std::ops::RangeInclusive;
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

/// Declares the test `id` of `suite`, on a reliable network.
pub fn test<F>(
    id: &'static str,
    suite: &'static str,
    title: &'static str,
    play: impl Fn(Lab) -> F + Send + Sync + 'static,
) -> Test
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let play: Play = Arc::new(move |lab| Box::pin(play(lab)));
    Test { id, suite, title, net: Net::Reliable, entries: Vec::new(), real: false, play }
}

impl Test {
    /// Puts it on an unreliable network.
    #[must_use]
    pub fn unreliable(mut self) -> Self {
        self.net = Net::Unreliable;
        self
    }

    /// Allows it on real processes as well.
    #[must_use]
    pub fn real(mut self) -> Self {
        self.real = true;
        self
    }

    /// Puts it on the MIT sheets of these years, in this part, under this name.
    #[must_use]
    pub fn mit(mut self, years: RangeInclusive<u16>, part: &'static str, name: &'static str) -> Self {
        let entry = |year| Entry { sheet: Sheet::Mit(year), part, name, points: None };
        self.entries.extend(years.map(entry));
        self
    }

    /// Puts it on SJTU's sheet.
    #[must_use]
    pub fn sjtu(mut self, part: &'static str, name: &'static str, points: u32) -> Self {
        self.entries.push(Entry { sheet: Sheet::Sjtu, part, name, points: Some(points) });
        self
    }

    /// Puts it on GWU's sheet.
    #[must_use]
    pub fn gwu(mut self, part: &'static str, name: &'static str) -> Self {
        self.entries.push(Entry { sheet: Sheet::Gwu, part, name, points: None });
        self
    }

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
