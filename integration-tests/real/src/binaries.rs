//! The programs under test: where cargo puts them, in the parent directory of the tests.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

const NAMES: [&str; 5] = ["clerk", "mr", "mr-trials", "shardctrler", "shardkv"];

/// The path of the program `name`.
///
/// # Panics
/// When one of the programs is missing, or older than one of its sources: a test that ignored that
/// would prove nothing.
pub fn binary(name: &str) -> PathBuf {
    match found() {
        Ok(found) => found.get(name).unwrap_or_else(|| panic!("{name} is not one of our programs")).clone(),
        Err(why) => panic!("{why}"),
    }
}

/// Whether all programs exist, and none is older than its sources.
///
/// # Errors
/// What is wrong, and what to do about it.
pub fn check_binaries() -> anyhow::Result<()> {
    found().as_ref().map(|_| ()).map_err(anyhow::Error::msg)
}

/// Searched once: edits during a measurement do not matter.
fn found() -> &'static Result<BTreeMap<&'static str, PathBuf>, String> {
    static FOUND: OnceLock<Result<BTreeMap<&str, PathBuf>, String>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let all = NAMES.iter().map(|name| Ok((*name, find(&directory()?, name)?))).collect();
        let all: Result<_, String> = all;
        all.map_err(|why| format!("{why}: run `make build` first"))
    })
}

fn directory() -> Result<PathBuf, String> {
    let test = std::env::current_exe().map_err(|error| format!("where is this test? {error}"))?;
    // Tests are in a directory below the programs; the grader is beside them.
    let beside =
        test.parent().map(|beside| if beside.ends_with("deps") { beside.parent() } else { Some(beside) });
    let directory = beside.flatten().map(Path::to_owned);
    directory.ok_or_else(|| format!("{} is in no target directory", test.display()))
}

fn find(directory: &Path, name: &str) -> Result<PathBuf, String> {
    let path = directory.join(name);
    let built = modified(&path).ok_or_else(|| format!("{} is missing", path.display()))?;
    let list = directory.join(format!("{name}.d"));
    let text = fs::read_to_string(&list)
        .map_err(|error| format!("{}, the list of the sources of {name}: {error}", list.display()))?;
    for source in sources(&text) {
        match modified(&source) {
            Some(when) if when <= built => {}
            Some(_) => return Err(format!("{} is older than {}", path.display(), source.display())),
            None => {
                return Err(format!("{} was built from {}, which is gone", path.display(), source.display()));
            }
        }
    }
    Ok(path)
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|data| data.modified()).ok()
}

/// The files that cargo's list names: "program: source source ...", blanks in names escaped.
fn sources(list: &str) -> Vec<PathBuf> {
    let line = list.lines().next().unwrap_or_default();
    let named = line.split_once(": ").map_or("", |(_, named)| named);
    let names = named.replace("\\ ", "\0");
    names.split_whitespace().map(|name| PathBuf::from(name.replace('\0', " "))).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::time::{Duration, SystemTime};

    use super::{find, sources};

    #[test]
    fn a_list_of_sources_is_read() {
        let found = sources("/t/debug/clerk: /a/b.rs /with\\ blank/c.rs\n");
        assert_eq!(found, [PathBuf::from("/a/b.rs"), PathBuf::from("/with blank/c.rs")]);
    }

    #[test]
    fn a_missing_or_stale_program_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let missing = find(directory.path(), "clerk").unwrap_err();
        assert!(missing.ends_with("clerk is missing"), "{missing}");
        let source = at("main.rs");
        fs::write(&source, "").unwrap();
        fs::write(at("clerk"), "").unwrap();
        fs::write(at("clerk.d"), format!("clerk: {}\n", source.display())).unwrap();
        let touched = |when| fs::File::open(&source).unwrap().set_modified(when).unwrap();
        touched(SystemTime::now() - Duration::from_secs(60));
        assert_eq!(find(directory.path(), "clerk"), Ok(at("clerk")));
        touched(SystemTime::now() + Duration::from_secs(60));
        assert!(find(directory.path(), "clerk").unwrap_err().contains("is older than"));
        fs::remove_file(&source).unwrap();
        assert!(find(directory.path(), "clerk").unwrap_err().contains("which is gone"));
    }
}
