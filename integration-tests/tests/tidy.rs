//! The borders between modules that the compiler cannot guard.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// Every Rust file of the workspace's crates, with its path from the root.
fn sources() -> Vec<(String, String)> {
    const CRATES: [&str; 8] =
        ["base", "clerk", "host", "integration-tests", "mapreduce", "raft", "shardctrler", "shardkv"];
    let root = root();
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = CRATES.iter().map(|name| root.join(name)).collect();
    while let Some(path) = open.pop() {
        if path.is_dir() && !path.ends_with("target") {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(&root).unwrap().display().to_string();
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
    assert!(found.len() > 100, "only {} files", found.len());
    found.sort();
    found
}

/// Whether a file is a test or an example. (Tests inside other files are cut off elsewhere.)
fn is_test(name: &str) -> bool {
    let parts: Vec<&str> = name.split(['/', '.']).collect();
    name.starts_with("integration-tests/")
        || parts.iter().any(|part| matches!(*part, "tests" | "examples" | "conformance"))
}

/// Lines of code, without comments and a file's own tests.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line));
    lines
        .take_while(|(_, line)| line.trim() != "#[cfg(test)]")
        .map(|(number, line)| (number, line.split("//").next().unwrap_or_default()))
}

/// Whether `line` has `word` as a complete name.
fn names(line: &str, word: &str) -> bool {
    let part = |other: Option<char>| other.is_some_and(|other| other.is_alphanumeric() || other == '_');
    line.match_indices(word)
        .any(|(at, _)| !part(line[..at].chars().next_back()) && !part(line[at + word.len()..].chars().next()))
}

/// Fails if a file outside of `allowed` has one of the words in its code.
fn only_in(words: &[&str], allowed: impl Fn(&str) -> bool) {
    let mut wrong = Vec::new();
    for (name, text) in
        sources().iter().filter(|(name, _)| !allowed(name) && name != "integration-tests/tests/tidy.rs")
    {
        for (number, line) in code(text) {
            wrong.extend(
                words.iter().filter(|word| names(line, word)).map(|word| format!("{name}:{number}: {word}")),
            );
        }
    }
    assert!(wrong.is_empty(), "not allowed there:\n{}", wrong.join("\n"));
}

#[test]
fn only_the_storage_names_rocksdb() {
    only_in(&["rocksdb"], |name| {
        name.starts_with("raft/disk/src/") || name == "host/src/open.rs" || is_test(name)
    });
    // Code that builds a server names our module, never the library.
    only_in(&["rocksdb::DB", "rocksdb::Options", "use rocksdb", "extern crate rocksdb"], |name| {
        name.starts_with("raft/disk/src/")
    });
}

#[test]
fn only_the_codec_names_bincode() {
    only_in(&["bincode"], |name| name == "base/src/codec.rs");
}

#[test]
fn only_the_clock_names_the_time_of_tokio() {
    only_in(&["tokio::time"], |name| name == "base/src/clock.rs" || is_test(name));
}

#[test]
fn deterministic_code_reads_no_clock_of_the_system() {
    let is_program =
        |name: &str| name.ends_with("/main.rs") || name.contains("/bin/") || name.starts_with("clerk/cli/");
    // tarpc wants an Instant of the standard library for its deadlines.
    const WIRE: [&str; 3] =
        ["base/src/socket/wire.rs", "clerk/src/connection/pool.rs", "mapreduce/src/remote.rs"];
    let is_production_only = |name: &str| name.starts_with("base/src/process");
    only_in(&["Instant::now", "SystemTime"], |name| {
        name == "base/src/clock.rs"
            || is_test(name)
            || is_program(name)
            || WIRE.contains(&name)
            || is_production_only(name)
    });
}

#[test]
fn the_raft_core_is_a_pure_value() {
    let impure = [
        "tokio",
        "Instant",
        "SystemTime",
        "std::fs",
        "std::net",
        "std::thread",
        "std::sync",
        "base::clock",
        "rand::random",
    ];
    only_in(&impure, |name| !name.starts_with("raft/src/core/") && name != "raft/src/types.rs");
}

#[test]
fn the_two_services_never_name_each_other() {
    only_in(&["shardctrler"], |name| !name.starts_with("shardkv/"));
    only_in(&["shardkv"], |name| !name.starts_with("shardctrler/"));
    for (one, other) in [("shardkv", "shardctrler"), ("shardctrler", "shardkv")] {
        let manifest = fs::read_to_string(root().join(one).join("Cargo.toml")).unwrap();
        assert!(!manifest.contains(&format!("{other}.workspace")), "{one} depends on {other}");
    }
}

#[test]
fn clients_and_services_see_consensus_only_through_its_face() {
    // (The level of a log names all parts of a program.)
    only_in(&["raft"], |name| {
        name == "base/src/process/log/level.rs" || !(name.starts_with("clerk/") || name.starts_with("base/"))
    });
    let inner = ["raft::core", "raft::transport::Message"];
    only_in(&inner, |name| {
        is_test(name) || !(name.starts_with("shardkv/") || name.starts_with("shardctrler/"))
    });
}

/// What each crate may import of ours, beside `base`: nothing below it knows it.
const IMPORTS: [(&str, &[&str]); 22] = [
    ("base", &[]),
    ("raft", &[]),
    ("raft/disk", &["raft"]),
    ("clerk", &[]),
    ("clerk/bench", &["clerk"]),
    ("clerk/survey", &["clerk"]),
    ("clerk/cli", &["clerk", "clerk-bench", "clerk-survey"]),
    ("host", &["raft", "raft-disk", "clerk"]),
    ("shardctrler", &["raft", "raft-disk", "clerk", "clerk-survey", "host"]),
    ("shardkv", &["raft", "raft-disk", "clerk", "host"]),
    ("mapreduce", &["clerk"]),
    ("mapreduce/cli", &["mapreduce"]),
    ("integration-tests/judge", &[]),
    ("integration-tests/sim", &["raft", "raft-disk", "clerk", "host", "shardctrler", "shardkv", "judge"]),
    ("integration-tests/report", &["clerk", "judge", "sim"]),
    ("integration-tests/real", &["clerk", "judge", "sim"]),
    ("integration-tests/measure", &["raft", "raft-disk", "clerk", "real"]),
    ("integration-tests/move-model", &["raft", "clerk", "shardctrler", "shardkv"]),
    ("integration-tests/storms", &["raft", "clerk", "shardkv", "judge", "sim"]),
    (
        "integration-tests/labs",
        &[
            "raft",
            "clerk",
            "shardctrler",
            "shardkv",
            "mapreduce",
            "mapreduce-cli",
            "judge",
            "sim",
            "report",
            "real",
            "move-model",
            "storms",
        ],
    ),
    (
        "integration-tests/mutants",
        &["raft", "raft-disk", "clerk", "judge", "sim", "real", "move-model", "storms", "labs"],
    ),
    ("integration-tests", &["raft", "clerk", "judge", "real"]),
];

#[test]
fn crates_import_only_what_they_may() {
    let manifest = |path: &str| fs::read_to_string(root().join(path).join("Cargo.toml")).unwrap();
    let name = |path: &str| manifest(path).split('"').nth(1).unwrap().to_owned();
    let ours: Vec<String> = IMPORTS.iter().map(|(path, _)| name(path)).collect();
    for (path, allowed) in IMPORTS {
        let manifest = manifest(path);
        for line in manifest.lines() {
            let name = line.split(['.', ' ', '=']).next().unwrap();
            let is_dependency =
                line.contains("workspace = true") && ours.iter().any(|it| it == name) && name != "base";
            assert!(!is_dependency || allowed.contains(&name), "{path} imports {name}");
        }
    }
    let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let members = workspace.split_once("members = [").unwrap().1.split_once(']').unwrap().0;
    let members = members.split('"').skip(1).step_by(2);
    assert!(members.clone().all(|member| IMPORTS.iter().any(|(path, _)| *path == member)));
    assert_eq!(members.count(), IMPORTS.len());
}

/// The files at `path`, or below it.
fn below(sources: &[(String, String)], path: &str) -> Vec<String> {
    let inside = format!("{path}/");
    let found = sources.iter().filter(|(name, _)| name == path || name.starts_with(&inside));
    found.map(|(_, text)| text.clone()).collect()
}

/// Whether a target's manifest turns `what` off.
fn is_off(target: &toml::Value, what: &str) -> bool {
    target.get(what).and_then(toml::Value::as_bool) == Some(false)
}

/// A test program costs seconds of linking, and RocksDB's share of a disk. So there is none without tests.
#[test]
fn what_has_no_tests_is_not_linked_as_a_test() {
    let has_tests = |texts: &[String]| {
        texts.iter().any(|text| {
            let mut lines = text.lines().map(str::trim_start);
            lines.any(|line| ["#[test]", "#[tokio::test", "proptest!"].iter().any(|it| line.starts_with(it)))
        })
    };
    let has_doc_tests = |texts: &[String]| {
        let fences = texts.iter().flat_map(|text| text.lines()).map(str::trim_start);
        let fences = fences.filter_map(|line| line.strip_prefix("/// ```").or(line.strip_prefix("//! ```")));
        // What opens a block that is no Rust names its language, and what closes one names nothing.
        fences
            .enumerate()
            .any(|(number, language)| number % 2 == 0 && ["", "rust", "no_run"].contains(&language))
    };
    let sources = sources();
    for (path, _) in IMPORTS {
        let manifest = fs::read_to_string(root().join(path).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        let programs = manifest.get("bin").and_then(toml::Value::as_array).cloned().unwrap_or_default();
        let has_library = root().join(path).join("src/lib.rs").exists();
        let settings = |main: &str| {
            let mut found =
                programs.iter().filter(|it| it.get("path").is_some_and(|it| it.as_str() == Some(main)));
            found.next().cloned().unwrap_or(toml::Table::new().into())
        };
        let is_main = |name: &&str| match name.split('/').collect::<Vec<_>>()[..] {
            ["src", "main.rs"] | ["src", "bin", _, "main.rs"] => true,
            ["src", "bin", file] => file.ends_with(".rs"),
            _ => false,
        };
        let names = sources.iter().filter_map(|(name, _)| name.strip_prefix(&format!("{path}/")));
        for main in names.filter(is_main) {
            // A library has the other files in `src/` to itself; without one they are the program's.
            let is_alone = !has_library;
            let place = main.strip_suffix("/main.rs").filter(|it| is_alone || *it != "src").unwrap_or(main);
            let tested = has_tests(&below(&sources, &format!("{path}/{place}")));
            assert_eq!(is_off(&settings(main), "test"), !tested, "{path}/Cargo.toml: `test` of {main}");
        }
        if !has_library {
            continue;
        }
        let lib = manifest.get("lib").cloned().unwrap_or(toml::Table::new().into());
        let texts: Vec<String> = below(&sources, &format!("{path}/src"));
        assert_eq!(is_off(&lib, "doctest"), !has_doc_tests(&texts), "{path}/Cargo.toml: `doctest`");
        assert_eq!(is_off(&lib, "test"), !has_tests(&texts), "{path}/Cargo.toml: `test` of the library");
    }
}

/// The texts of the errors that a file declares, each as the pieces between what is filled in.
fn error_texts(file: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join(file)).unwrap();
    let declared = text.split("#[error(").skip(1).filter_map(|rest| {
        let literal = rest.trim_start().strip_prefix('"')?;
        let end = literal.match_indices('"').find(|(at, _)| !literal[..*at].ends_with('\\'))?.0;
        let joined = literal[..end].replace("\\\n", "");
        let words = joined.split_whitespace().collect::<Vec<_>>().join(" ");
        let pieces = words.split('{').enumerate().map(|(number, piece)| match number {
            0 => piece,
            _ => piece.split_once('}').map_or(piece, |(_, piece)| piece),
        });
        Some(pieces.map(str::to_owned).collect())
    });
    declared.collect()
}

/// Who meets a refusal looks for its words.
#[test]
fn each_refusal_of_a_start_and_of_a_connection_is_explained() {
    let page = fs::read_to_string(root().join("docs/when-it-refuses.md")).unwrap();
    let quoted: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("> ")).collect();
    let mut texts = 0;
    for file in ["raft/src/storage/error.rs", "base/src/socket/admit.rs"] {
        for pieces in error_texts(file) {
            texts += 1;
            let shown = pieces.join("...");
            assert!(quoted.contains(&shown.as_str()), "{file}: not in docs/when-it-refuses.md:\n> {shown}");
        }
    }
    assert!(texts > 15, "only {texts} texts");
}

/// What a source says of a limit: the value of a constant, or of a field by default.
fn value_of(text: &str, name: &str) -> Option<String> {
    let constant = text.lines().find_map(|line| {
        let (_, rest) = line.split_once(&format!("const {name}: "))?;
        rest.split_once(" = ")?.1.strip_suffix(';').map(str::to_owned)
    });
    let field = || {
        let defaults = text.find("fn default()").or_else(|| text.find("pub fn of("))?;
        let (_, rest) = text[defaults..].split_once(&format!(" {name}: "))?;
        let end = rest.find([',', '\n', '}'])?;
        Some(rest[..end].trim().to_owned())
    };
    constant.or_else(field)
}

/// The limits that the sources declare, by file and name.
fn declared_limits(sources: &[(String, String)]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (file, text) in sources {
        if is_test(file) || file.contains("/bench/") {
            continue;
        }
        for (_, line) in code(text) {
            let line = line.trim();
            let constant = line.split_once("const ").and_then(|(_, rest)| rest.split_once(": "));
            let constant = constant.map(|(name, _)| name).filter(|name| {
                name.ends_with("_MAX") || name.ends_with("_LIMIT") && !name.contains(char::is_lowercase)
            });
            // Settings hand these on, and a status shows them.
            let handed_on = ["host/src/args.rs", "rsm/status.rs"].iter().any(|name| file.ends_with(name));
            let field = line.strip_prefix("pub ").and_then(|rest| rest.split_once(": "));
            let field = field
                .map(|(name, _)| name)
                .filter(|name| name.ends_with("_max") && !name.contains(' ') && !handed_on);
            let names = constant.into_iter().chain(field);
            found.extend(names.map(|name| (file.clone(), name.to_owned())));
        }
    }
    found
}

#[test]
fn the_page_of_limits_says_what_the_code_says() {
    let page = fs::read_to_string(root().join("docs/limits.md")).unwrap();
    let sources = sources();
    let mut listed = Vec::new();
    for row in page.lines().filter(|line| line.starts_with("| ") && line.contains(".rs` `")) {
        let columns: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [_, _, default, _, _, place] = columns[..] else { panic!("not six columns: {row}") };
        let quoted = |text: &str, number: usize| text.split('`').nth(number).map(str::to_owned);
        let (file, name) = (quoted(place, 1).unwrap(), quoted(place, 3).unwrap());
        let (_, text) = sources.iter().find(|(path, _)| *path == file).expect("a file that is there");
        assert_eq!(value_of(text, &name), quoted(default, 1), "docs/limits.md: {file} {name}");
        listed.push((file, name));
    }
    for limit in declared_limits(&sources) {
        // Numbers that never end are no limits.
        assert!(listed.contains(&limit) || limit.1 == "JUMP_MAX", "not in docs/limits.md: {limit:?}");
    }
    assert!(listed.len() > 70, "only {} limits", listed.len());
}

#[test]
fn nothing_of_ours_is_unsafe() {
    only_in(&["unsafe"], |_| false);
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(manifest.contains("unsafe_code = \"forbid\""));
    for (name, _) in sources().iter().filter(|(name, _)| name.ends_with("src/lib.rs")) {
        let manifest = root().join(name).parent().unwrap().parent().unwrap().join("Cargo.toml");
        let text = fs::read_to_string(&manifest).unwrap();
        assert!(
            text.contains("[lints]\nworkspace = true"),
            "{} takes no part in the lints",
            manifest.display()
        );
    }
}

/// Texts that people read, and programs that have no ending, with their paths from the root.
fn texts() -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    let mut open = vec![root.clone()];
    while let Some(path) = open.pop() {
        let name = path.strip_prefix(&root).unwrap().display().to_string();
        if path.is_dir() {
            let is_ours = !name.starts_with('.') && !name.ends_with("target") && name != "demo/sotu";
            let inside = is_ours.then(|| fs::read_dir(&path).unwrap());
            open.extend(inside.into_iter().flatten().map(|entry| entry.unwrap().path()));
            continue;
        }
        let is_text = path
            .extension()
            .is_some_and(|it| ["rs", "md", "txt", "js", "golden", "toml"].iter().any(|text| it == *text));
        if is_text || name.starts_with("scripts/") || name == "Makefile" {
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
    assert!(found.len() > 200, "only {} files", found.len());
    found.sort();
    found
}

/// The first word that sends a reader back to the start of the sentence. Only what lags is "behind"; for time
/// and order there is "after".
fn hard_word(line: &str) -> Option<&'static str> {
    const HARD: [&str; 3] = ["whoever", "for ever", "the mission"];
    // A replica, a clerk or a group lags; the status and the protocol of moves have a name for it.
    const LAGS: [&str; 12] = [
        "is behind",
        "are behind",
        "was behind",
        "merely behind",
        "far behind",
        "fall behind",
        "falls behind",
        "fell behind",
        "lag behind",
        "lags behind",
        "left behind",
        "behind says done",
    ];
    const NAMES: [&str; 9] = [
        "\"behind\"",
        "`behind`",
        "`Behind`",
        "pub behind:",
        ">BEHIND",
        "fn behind(",
        ".behind()",
        "::Behind",
        "    Behind,",
    ];
    let words: Vec<String> = line
        .split(|it: char| !it.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    let plain = format!(" {} ", words.join(" "));
    if let Some(hard) = HARD.iter().find(|hard| plain.contains(&format!(" {hard} "))) {
        return Some(hard);
    }
    let is_name = NAMES.iter().any(|name| line.contains(name));
    let lags: usize = LAGS.iter().map(|it| plain.matches(&format!(" {it} ")).count()).sum();
    let all = words.iter().filter(|word| *word == "behind").count();
    (all > lags && !is_name).then_some("behind")
}

#[test]
fn texts_are_in_plain_words() {
    // These hold the words themselves.
    let holds = |name: &str| name.ends_with("tests/tidy.rs") || name.ends_with("tests/pages.rs");
    let mut wrong = Vec::new();
    for (name, text) in texts().iter().filter(|(name, _)| !holds(name)) {
        for (number, line) in text.lines().enumerate() {
            wrong.extend(hard_word(line).map(|word| format!("{name}:{}: {word}", number + 1)));
        }
    }
    assert!(wrong.is_empty(), "say it in plain words:\n{}", wrong.join("\n"));
}

#[test]
fn the_search_itself_finds_what_it_should() {
    assert!(names("let x = tokio::time::sleep();", "tokio::time"));
    assert!(!names("let x = my_bincode;", "bincode"));
    let text = "a // unsafe\nb\n#[cfg(test)]\nunsafe\n";
    assert_eq!(code(text).collect::<Vec<_>>(), [(1, "a "), (2, "b")]);
    assert_eq!(hard_word("fn keep_for_ever() {"), Some("for ever"));
    assert_eq!(hard_word("rows behind a server that is behind"), Some("behind"));
    assert_eq!(hard_word("for every server that is behind"), None);
}
