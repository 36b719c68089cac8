//! Checks that what the pages name exists in the repository: links, paths, functions, tests, make
//! targets, verbs.
//!
//! Names change, and a page that names something that is gone leads nowhere. So this reads all
//! pages as text. It does not judge whether a sentence is true.
//!
//! Left out on purpose: addresses outside the repository, and what a page shows as output.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Pages that also name codes, words of the wire and outcomes, which are no names of the sources.
const PAGES_OF_CODES: [&str; 5] = [
    "docs/cli.md",
    "docs/correctness.md",
    "docs/limits.md",
    "docs/mapreduce.md",
    "integration-tests/README.md",
];

/// Where a short path may begin: `rsm/driver.rs` in correctness.md is `raft/src/rsm/driver.rs`.
const BASES: [&str; 16] = [
    "",
    "raft/src",
    "integration-tests/judge/src",
    "integration-tests/sim/src",
    "integration-tests/labs/src",
    "integration-tests/labs",
    "integration-tests/storms/src",
    "integration-tests/report/src",
    "integration-tests/real/src",
    "integration-tests/measure/src",
    "integration-tests",
    "shardkv/src",
    "mapreduce/src",
    "clerk/cli/src",
    "raft",
    "docs",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file below some folders, with its path from the root.
fn files(folders: &[&str], ending: &str) -> Vec<String> {
    let root = root();
    let (mut found, mut open) = (Vec::new(), folders.iter().map(|it| root.join(it)).collect::<Vec<_>>());
    while let Some(path) = open.pop() {
        if path.is_dir() && !path.ends_with("target") {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|it| it == ending) {
            found.push(path.strip_prefix(&root).unwrap().display().to_string());
        }
    }
    found.sort();
    found
}

fn sources() -> BTreeMap<String, String> {
    let crates =
        ["base", "clerk", "host", "integration-tests", "mapreduce", "raft", "shardctrler", "shardkv"];
    let found: BTreeMap<_, _> = files(&crates, "rs")
        .into_iter()
        .chain(files(&["ops"], "yml"))
        .map(|path| (path.clone(), read(&path)))
        .collect();
    assert!(found.len() > 100, "only {} files", found.len());
    found
}

fn pages() -> Vec<(String, String)> {
    let mut paths = files(&["docs"], "md");
    for page in ["README", "ARCHITECTURE", "CONTRIBUTING", "CHANGELOG", "SECURITY"] {
        paths.push(format!("{page}.md"));
    }
    paths.extend(["integration-tests/README.md".to_owned(), "demo/README.md".to_owned()]);
    assert!(paths.len() > 20, "only {} pages", paths.len());
    paths.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

/// The lines of a page with their numbers, and whether each is in a block of code.
fn lines(text: &str) -> Vec<(usize, &str, bool)> {
    let mut is_code = false;
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else {
            found.push((number + 1, line, is_code));
        }
    }
    found
}

/// The text of a page in pieces, with the line where each begins: a paragraph, a row of a table, a
/// point of a list. Blocks of code are left out.
fn pieces(text: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut last = 0;
    for (number, line, _) in lines(text).into_iter().filter(|(_, _, is_code)| !is_code) {
        let line = line.trim();
        let begins = ["|", "#", "- ", "* "].iter().any(|it| line.starts_with(it));
        match found.last_mut() {
            Some((_, piece)) if number == last + 1 && !begins && !piece.is_empty() && !line.is_empty() => {
                *piece = format!("{piece} {line}");
            }
            _ => found.push((number, line.to_owned())),
        }
        last = number;
    }
    found
}

/// What is between single backquotes.
fn spans(piece: &str) -> Vec<&str> {
    piece.split('`').skip(1).step_by(2).filter(|span| !span.is_empty()).collect()
}

/// `a/{b,c}.rs` as `a/b.rs` and `a/c.rs`.
fn expanded(path: &str) -> Vec<String> {
    let Some((before, rest)) = path.split_once('{') else { return vec![path.to_owned()] };
    let Some((inner, after)) = rest.split_once('}') else { return vec![path.to_owned()] };
    inner.split(',').flat_map(|part| expanded(&format!("{before}{part}{after}"))).collect()
}

/// Whether a span means a file or folder of the repository. (`x` stands for any name.)
fn is_path(span: &str) -> bool {
    const ENDINGS: [&str; 6] = [".rs", ".md", ".toml", ".yml", ".txt", "/"];
    const FOLDERS: [&str; 11] = [
        "base",
        "clerk",
        "demo",
        "docs",
        "host",
        "integration-tests",
        "mapreduce",
        "raft",
        "scripts",
        "shardctrler",
        "shardkv",
    ];
    let is_plain = |it: char| it.is_ascii_alphanumeric() || "/._-{},".contains(it);
    let Some((first, rest)) = span.split_once('/') else { return false };
    let is_known =
        ["scripts", ".ci", ".github"].contains(&first) || ENDINGS.iter().any(|it| span.ends_with(it));
    let is_ours = !rest.is_empty() && !span.ends_with('/') || FOLDERS.contains(&first);
    let is_open = span.contains("...") || span.contains("NNNN") || rest.ends_with("/x.txt");
    span.chars().all(is_plain) && !first.is_empty() && is_known && is_ours && !is_open
}

/// The file that a path on a page means.
fn resolved(path: &str) -> Option<String> {
    let bases = BASES.iter().map(|base| Path::new(base).join(path));
    bases.map(|it| it.display().to_string()).find(|it| root().join(it).exists())
}

fn is_word(text: &str, word: &str) -> bool {
    let part = |it: Option<char>| it.is_some_and(|it| it.is_alphanumeric() || it == '_');
    text.match_indices(word)
        .any(|(at, _)| !part(text[..at].chars().next_back()) && !part(text[at + word.len()..].chars().next()))
}

fn is_name(span: &str) -> bool {
    let mut first = span.chars();
    first.next().is_some_and(|it| it.is_ascii_alphabetic())
        && span.chars().all(|it| it.is_ascii_alphanumeric() || it == '_')
}

fn verdict(what: &str, wrong: &[String]) {
    assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
}

/// A heading as the anchor that leads to it.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|it| it.is_alphanumeric() || matches!(it, ' ' | '-' | '_'));
    kept.map(|it| if it == ' ' { '-' } else { it }).collect()
}

#[test]
fn every_link_of_a_page_leads_somewhere() {
    let mut wrong = Vec::new();
    let mut links = 0;
    for (page, text) in pages() {
        let folder = Path::new(&page).parent().unwrap().to_owned();
        for (number, line, _) in lines(&text).into_iter().filter(|(_, _, is_code)| !is_code) {
            let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            for target in targets.filter(|it| !it.contains("://")) {
                links += 1;
                let (file, place) = target.split_once('#').unwrap_or((target, ""));
                let path = if file.is_empty() { PathBuf::from(&page) } else { folder.join(file) };
                let Ok(linked) = fs::read_to_string(root().join(&path)) else {
                    wrong.push(format!("{page}:{number}: {target}"));
                    continue;
                };
                let headings = lines(&linked);
                let mut headings =
                    headings.iter().filter(|(_, line, is_code)| !is_code && line.starts_with('#'));
                if !place.is_empty() && !headings.any(|(_, line, _)| anchor(line) == place) {
                    wrong.push(format!("{page}:{number}: no such heading: {target}"));
                }
            }
        }
    }
    verdict("links that lead nowhere", &wrong);
    assert!(links > 100, "only {links} links");
}

#[test]
fn every_path_that_a_page_names_exists() {
    let mut wrong = Vec::new();
    for (page, text) in pages() {
        for (number, piece) in pieces(&text) {
            for path in spans(&piece).into_iter().filter(|span| is_path(span)).flat_map(expanded) {
                if resolved(&path).is_none() {
                    wrong.push(format!("{page}:{number}: {path}"));
                }
            }
        }
    }
    verdict("paths that are gone", &wrong);
}

/// Tests are named by sentences: five words and more.
#[test]
fn every_test_that_a_page_names_exists() {
    let sources = sources();
    let scripts: BTreeSet<String> = files(&["raft/tests/golden"], "txt").into_iter().collect();
    let (mut wrong, mut tests) = (Vec::new(), 0);
    for (page, text) in pages() {
        for (number, piece) in pieces(&text) {
            let sentence = |span: &&str| {
                span.matches('_').count() >= 4
                    && span.chars().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '_')
            };
            for name in spans(&piece).into_iter().filter(sentence) {
                tests += 1;
                let declared = [format!("fn {name}("), format!(" {name}:")];
                let is_script = scripts.contains(&format!("raft/tests/golden/{name}.txt"));
                if !is_script && !sources.values().any(|text| declared.iter().any(|it| text.contains(it))) {
                    wrong.push(format!("{page}:{number}: {name}"));
                }
            }
        }
    }
    verdict("tests that are gone", &wrong);
    assert!(tests > 150, "only {tests} tests");
}

/// Functions, types and fields that a page names after a file, in a row of a table, are in that file; elsewhere they are
/// somewhere in the sources.
#[test]
fn every_name_in_code_that_a_page_names_exists() {
    const NAMES_OF_OTHERS: [&str; 9] = [
        "CHANGELOG.md",
        "README.md",
        "demo/README.md",
        "docs/formats.md",
        "docs/grading.md",
        "docs/labs.md",
        "docs/performance.md",
        "docs/running.md",
        "docs/when-it-refuses.md",
    ];
    let sources = sources();
    let everywhere: Vec<&String> = sources.values().collect();
    let (mut wrong, mut names) = (Vec::new(), 0);
    for (page, text) in pages() {
        if PAGES_OF_CODES.contains(&&page[..]) || NAMES_OF_OTHERS.contains(&&page[..]) {
            continue;
        }
        for (number, piece) in pieces(&text) {
            let mut files: Vec<&String> = Vec::new();
            for span in spans(&piece) {
                if is_path(span) {
                    files.extend(resolved(span).and_then(|path| sources.get(&path)));
                    continue;
                }
                let head = span.split(['{', '(', ' ']).next().unwrap_or_default();
                let is_function = head.starts_with(|it: char| it.is_ascii_lowercase()) && is_name(head);
                let is_in_row = piece.starts_with('|') && !files.is_empty();
                let places = if is_function && is_in_row { &files } else { &everywhere };
                for name in head.split("::").filter(|name| is_name(name) && name.len() > 2) {
                    names += 1;
                    if !places.iter().any(|text| is_word(text, name)) {
                        wrong.push(format!("{page}:{number}: {span}"));
                    }
                }
            }
        }
    }
    verdict("names that are gone", &wrong);
    assert!(names > 300, "only {names} names");
}

/// The words after each occurrence of a program's name that begins a command.
fn commands<'a>(line: &'a str, program: &str) -> Vec<Vec<&'a str>> {
    let starts = line.match_indices(program).filter(|(at, _)| {
        let before = line[..*at].chars().next_back();
        before.is_none_or(|it| matches!(it, '`' | ' ' | '(' | '/'))
    });
    starts.map(|(at, _)| line[at + program.len()..].split_whitespace().collect()).collect()
}

/// Only what is certainly a command: blocks of code, and spans that begin with it.
fn command_lines(text: &str) -> Vec<(usize, String)> {
    let code = lines(text).into_iter().filter(|(_, _, is_code)| *is_code);
    let mut found: Vec<(usize, String)> = code
        .map(|(number, line, _)| (number, line.split('#').next().unwrap_or_default().trim().to_owned()))
        .collect();
    for (number, piece) in pieces(text) {
        found.extend(spans(&piece).into_iter().map(|span| (number, span.to_owned())));
    }
    found
}

#[test]
fn every_make_target_that_a_page_names_exists() {
    let makefile = read("Makefile");
    let targets: BTreeSet<&str> = makefile
        .lines()
        .filter(|line| line.starts_with(|it: char| it.is_ascii_lowercase()))
        .filter_map(|line| line.split_once(':').map(|(target, _)| target))
        .collect();
    let (mut wrong, mut named) = (Vec::new(), 0);
    for (page, text) in pages() {
        for (number, line) in command_lines(&text).into_iter().filter(|(_, line)| line.starts_with("make ")) {
            named += 1;
            let target = line.split_whitespace().nth(1).unwrap_or_default();
            if !targets.contains(target) {
                wrong.push(format!("{page}:{number}: {line}"));
            }
        }
    }
    verdict("make targets that are gone", &wrong);
    assert!(named > 30, "only {named} named");
}

/// The verbs that an enum of clap declares.
fn verbs(file: &str) -> BTreeSet<String> {
    let text = read(file);
    let (_, rest) = text.split_once("enum Verb {").unwrap_or_else(|| panic!("{file} declares no verbs"));
    let variants = rest.lines().take_while(|line| *line != "}").filter_map(|line| {
        let name = line.strip_prefix("    ")?;
        let name = name.split(['(', ',', ' ', '{']).next()?;
        (name.starts_with(|it: char| it.is_ascii_uppercase()) && is_name(name)).then_some(name)
    });
    let kebab = |name: &str| {
        let mut verb = String::new();
        for letter in name.chars() {
            if letter.is_ascii_uppercase() && !verb.is_empty() {
                verb.push('-');
            }
            verb.push(letter.to_ascii_lowercase());
        }
        verb
    };
    variants.map(kebab).chain(["help".to_owned()]).collect()
}

#[test]
fn every_verb_that_a_page_names_exists() {
    let verbs = verbs("clerk/cli/src/args.rs");
    assert!(verbs.contains("recover-controllers") && verbs.len() > 20, "{verbs:?}");
    let (mut wrong, mut named) = (Vec::new(), 0);
    for (page, text) in pages() {
        for (number, line) in command_lines(&text) {
            let begins = ["clerk ", "bin/clerk ", "$ clerk ", "$ bin/clerk "];
            if !begins.iter().any(|it| line.starts_with(it)) {
                continue;
            }
            for words in commands(&line, "clerk ") {
                let mut words = words.into_iter().skip_while(|word| word.starts_with('-'));
                let Some(verb) =
                    words.next().filter(|verb| verb.starts_with(|it: char| it.is_ascii_lowercase()))
                else {
                    continue;
                };
                let verb = verb.trim_end_matches([',', ';', '.', ')']);
                named += 1;
                if verb.chars().all(|it| it.is_ascii_lowercase() || it == '-') && !verbs.contains(verb) {
                    wrong.push(format!("{page}:{number}: {line}"));
                }
            }
        }
    }
    verdict("verbs that are gone", &wrong);
    assert!(named > 60, "only {named} named");
}

#[test]
fn every_dependency_has_its_reason() {
    let (manifest, page) = (read("Cargo.toml"), read("docs/dependencies.md"));
    let (_, rest) = manifest.split_once("[workspace.dependencies]").expect("dependencies");
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
    let listed: BTreeSet<&str> =
        rows.iter().flat_map(|row| spans(row.split(" | ").next().unwrap())).collect();
    let ours = |line: &&str| !line.contains("path = ");
    let named = rest.lines().take_while(|line| !line.starts_with('[')).filter(ours);
    let named: BTreeSet<&str> =
        named.filter_map(|line| line.split_once(" = ").map(|(name, _)| name)).collect();
    assert_eq!(listed, named);
}

#[test]
fn prose_is_at_most_100_columns_wide() {
    let mut wrong = Vec::new();
    for (page, text) in pages() {
        for (number, line, is_code) in lines(&text) {
            let is_table = line.trim_start().starts_with('|');
            // Quotes are compared line by line. One word, such as a link, cannot be wrapped.
            let is_prose = !is_code && !is_table && !line.starts_with('>') && line.trim().contains(' ');
            if is_prose && line.chars().count() > 100 {
                wrong.push(format!("{page}:{number}: {} columns", line.chars().count()));
            }
        }
    }
    verdict("too wide", &wrong);
}

/// Words that send a reader back to the start of the sentence. The house style has others for them.
#[test]
fn prose_is_in_plain_words() {
    const HARD: [&str; 5] = ["whoever", "for ever", "the mission", "as a rule", "by itself"];
    let mut wrong = Vec::new();
    for (page, text) in pages() {
        for (number, piece) in pieces(&text).into_iter().filter(|(_, piece)| !piece.starts_with('>')) {
            let piece = piece.to_lowercase();
            let found = HARD.iter().filter(|word| is_word(&piece, word));
            wrong.extend(found.map(|word| format!("{page}:{number}: {word}")));
        }
    }
    verdict("say it in plain words", &wrong);
}

/// Markdown numbers the points of a list itself, so a rule is a paragraph that begins with its
/// number.
#[test]
fn every_rule_is_shown_with_its_own_number() {
    let page = read("docs/correctness.md");
    let number = |line: &str| line.split_once('.').map(|(number, _)| number.to_owned());
    let is_number = |it: &String| it.starts_with(|it: char| it.is_ascii_digit()) && !it.contains(' ');
    let (mut rules, mut before) = (Vec::new(), "");
    for line in page.lines() {
        let in_list = number(line.trim_start()).filter(is_number);
        assert!(in_list.is_none(), "a point of a list, write \"**N. ...**\": {line}");
        if let Some(rule) = line.strip_prefix("**").and_then(number).filter(is_number) {
            assert!(before.is_empty(), "not a paragraph: {line}");
            assert!(!rules.contains(&rule), "twice: {line}");
            rules.push(rule);
        }
        before = line;
    }
    assert!(rules.len() > 80, "only {} rules", rules.len());
}

#[test]
fn the_architecture_fits_a_few_screens() {
    assert!(read("ARCHITECTURE.md").lines().count() <= 130);
}

#[test]
fn the_book_has_every_page() {
    let summary = read("docs/SUMMARY.md");
    for (page, _) in pages() {
        let path = page.strip_prefix("docs/").map_or_else(|| format!("../{page}"), str::to_owned);
        let is_listed = summary.contains(&format!("]({path})"));
        assert!(is_listed || page == "docs/SUMMARY.md", "docs/SUMMARY.md lacks {page}");
    }
}

#[test]
fn the_search_itself_finds_what_it_should() {
    assert_eq!(spans("a `b` c `d::e`"), ["b", "d::e"]);
    assert_eq!(expanded("a/{b,c}.rs"), ["a/b.rs", "a/c.rs"]);
    assert_eq!(anchor("## What a *scan* adds"), "what-a-scan-adds");
    let paths = ["raft/src/lib.rs", "scripts/demo", "raft/src/core/", "core/{log,mod}.rs"];
    assert!(paths.iter().all(|it| is_path(it)));
    assert!(
        !["driver.rs", "a / b", "/proc", "raft/manifest", "a/b", ".../storm.rs"].iter().any(|it| is_path(it))
    );
    assert_eq!(
        pieces("a `b\nc` d\n| e |\n\n- f"),
        [(1, "a `b c` d".into()), (3, "| e |".into()), (4, String::new()), (5, "- f".into())]
    );
    assert!(is_word("fn on_append(", "on_append") && !is_word("fn on_append_reply(", "on_append"));
    assert_eq!(commands("bin/clerk up", "clerk "), [vec!["up"]]);
    assert!(lines("a\n```\nb\n```\nc").iter().map(|(_, line, is_code)| (*line, *is_code)).eq([
        ("a", false),
        ("b", true),
        ("c", false)
    ]));
}
