//! Apps by name. To write one, implement [`App`]. Then give it a name in [`find`], or write your
//! own program that calls [`crate::main`] with its own such function.

use std::collections::BTreeSet;
use std::path::Path;

use mapreduce::{App, Program};

/// Finds the program with a name, for a job whose files are at this path. If there is none, the
/// error lists the names that exist.
pub type Find = fn(&str, &Path) -> Result<Box<dyn Program>, String>;

/// The apps of `mr`.
///
/// # Errors
/// Lists the names that exist.
pub fn find(name: &str, _job: &Path) -> Result<Box<dyn Program>, String> {
    match name {
        "indexer" => Ok(Box::new(Indexer)),
        "wc" => Ok(Box::new(WordCount)),
        _ => Err(format!("no app is called {name:?}; there are indexer, wc")),
    }
}

/// Words: runs of letters.
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_alphabetic()).filter(|word| !word.is_empty())
}

/// How often each word occurs.
struct WordCount;

impl App for WordCount {
    fn map(&self, _name: &str, text: &str, emit: &mut dyn FnMut(String, String)) {
        words(text).for_each(|word| emit(word.to_owned(), "1".to_owned()));
    }

    fn reduce(&self, _key: &str, values: &[String]) -> String {
        values.len().to_string()
    }
}

/// In how many records each word occurs, and in which.
struct Indexer;

impl App for Indexer {
    fn map(&self, name: &str, text: &str, emit: &mut dyn FnMut(String, String)) {
        let distinct: BTreeSet<&str> = words(text).collect();
        distinct.into_iter().for_each(|word| emit(word.to_owned(), name.to_owned()));
    }

    fn reduce(&self, _key: &str, values: &[String]) -> String {
        let names: BTreeSet<&str> = values.iter().map(String::as_str).collect();
        format!("{} {}", names.len(), names.into_iter().collect::<Vec<_>>().join(","))
    }
}
