//! The requested tests: by suite, part, id or original name.

use std::collections::BTreeMap;

use crate::sheet::{Sheet, Test};

/// A word that names no test.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} names no suite, part, test id or original test name{place}; {hint}")]
pub struct NoSuchTest {
    word: String,
    place: String,
    hint: String,
}

/// The tests that one of `words` names, or all; only those of `sheet`, if one is given. Without a
/// sheet a part means that of the newest sheet that has such a part: "3B" is 2026's.
///
/// # Errors
/// The first word that names nothing.
pub fn select(tests: Vec<Test>, words: &[String], sheet: Option<Sheet>) -> Result<Vec<Test>, NoSuchTest> {
    let on_sheet = |test: &Test| sheet.is_none_or(|sheet| test.on(sheet).is_some());
    let tests: Vec<Test> = tests.into_iter().filter(on_sheet).collect();
    if words.is_empty() {
        return Ok(tests);
    }
    let mut wanted = vec![false; tests.len()];
    for word in words {
        let matching = named(&tests, word, sheet);
        if matching.is_empty() {
            return Err(unknown(&tests, word, sheet));
        }
        matching.into_iter().for_each(|position| wanted[position] = true);
    }
    Ok(tests.into_iter().zip(wanted).filter_map(|(test, wanted)| wanted.then_some(test)).collect())
}

/// Positions of the tests that `word` names. The first kind of name that matches counts.
fn named(tests: &[Test], word: &str, sheet: Option<Sheet>) -> Vec<usize> {
    let word = word.to_lowercase();
    let find = |matches: &dyn Fn(&Test) -> bool| -> Vec<usize> {
        (0..tests.len()).filter(|position| matches(&tests[*position])).collect()
    };
    let is_variant = |test: &Test| {
        let id = test.id.to_lowercase();
        id == word || id.strip_prefix(&word).is_some_and(|rest| rest.starts_with('-'))
    };
    let in_part =
        |test: &Test, sheet: Sheet| test.on(sheet).is_some_and(|entry| entry.part.to_lowercase() == word);
    let has_name = |test: &Test| {
        let mut entries = test.entries.iter().filter(|entry| sheet.is_none_or(|sheet| entry.sheet == sheet));
        entries.any(|entry| {
            let name = entry.name.to_lowercase();
            name == word || name.strip_suffix(&entry.part.to_lowercase()) == Some(word.as_str())
        })
    };
    let mut sheets: Vec<Sheet> = sheet.map_or_else(|| Sheet::all().collect(), |sheet| vec![sheet]);
    sheets.sort_by_key(|sheet| match sheet {
        Sheet::Mit(year) => std::cmp::Reverse(*year),
        Sheet::Sjtu | Sheet::Gwu => std::cmp::Reverse(0),
    });
    let parts = sheets.iter().map(|sheet| find(&|test| in_part(test, *sheet)));
    let ways = [find(&is_variant), find(&|test| test.suite == word), find(&has_name)];
    ways.into_iter().chain(parts).find(|found| !found.is_empty()).unwrap_or_default()
}

fn unknown(tests: &[Test], word: &str, sheet: Option<Sheet>) -> NoSuchTest {
    let mut suites: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for test in tests {
        let (_, last) = suites.entry(test.suite).or_insert((test.id, test.id));
        *last = test.id;
    }
    let suites: Vec<String> =
        suites.iter().map(|(suite, (first, last))| format!("{suite} ({first} to {last})")).collect();
    NoSuchTest {
        word: word.to_owned(),
        place: sheet.map_or_else(String::new, |sheet| format!(" of sheet {sheet}")),
        hint: format!("`grade list` shows all; the suites are {}", suites.join(", ")),
    }
}
