//! Apps by name. To write one: implement [`App`], add it to the table.

use std::collections::BTreeSet;

/// A map and a reduce. Both are functions of what they are given: any attempt gives the same.
pub trait App: Sync {
    /// Emits pairs of key and value for a record: a file with its name, or a row of the store with its key.
    fn map(&self, name: &str, text: &str, emit: &mut dyn FnMut(String, String));
    /// One value of all values of a key.
    fn reduce(&self, key: &str, values: &[String]) -> String;
}

const TABLE: [(&str, &dyn App); 2] = [("indexer", &Indexer), ("wc", &WordCount)];

/// The app of this name.
pub fn find(name: &str) -> Option<&'static dyn App> {
    TABLE.iter().find(|(other, _)| *other == name).map(|(_, app)| *app)
}

/// The names that there are.
pub fn names() -> Vec<&'static str> {
    TABLE.iter().map(|(name, _)| *name).collect()
}

/// Words: runs of letters.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
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
