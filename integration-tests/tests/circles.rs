//! No modules of a crate import each other in a circle: each can be read after those that it
//! imports.
//!
//! A file and the folder of its children count as one module, and on each level only siblings are
//! compared: imports between a module and its own parent or children do not count. Tests are left
//! out. `tidy.rs` checks the imports between crates. And no crate or file is too long to be read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

const CRATES: [&str; 20] = [
    "base",
    "raft",
    "raft/disk",
    "clerk",
    "clerk/bench",
    "clerk/cli",
    "host",
    "shardctrler",
    "shardkv",
    "mapreduce",
    "mapreduce/cli",
    "integration-tests/judge",
    "integration-tests/sim",
    "integration-tests/report",
    "integration-tests/real",
    "integration-tests/measure",
    "integration-tests/move-model",
    "integration-tests/storms",
    "integration-tests/labs",
    "integration-tests/mutants",
];

/// Circles that are known and wait to be broken: crate, parent, and what lies in circles or between two of them.
const EXCEPTIONS: [(&str, &str); 0] = [];

/// A module's path from the root of its crate.
type Module = Vec<String>;

/// Imports of each module.
type Imports = BTreeMap<Module, BTreeSet<Module>>;

/// What a file names: paths as they are written.
#[derive(Default)]
struct Named(Vec<Vec<String>>);

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|it| {
        it.path().is_ident("cfg") && it.parse_args::<syn::Ident>().is_ok_and(|condition| condition == "test")
    })
}

impl Named {
    fn tree(&mut self, before: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.tree(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.0.push(with(&name.ident)),
            syn::UseTree::Rename(rename) => self.0.push(with(&rename.ident)),
            syn::UseTree::Glob(_) => self.0.push(before.to_vec()),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(before, tree)),
        }
    }
}

impl<'ast> Visit<'ast> for Named {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_test(&item.attrs) {
            self.tree(&[], &item.tree);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.0.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// Every module of a crate's library, with its text.
fn modules(source: &Path) -> BTreeMap<Module, String> {
    let (mut found, mut open) = (BTreeMap::new(), vec![source.to_owned()]);
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let relative = path.strip_prefix(source).unwrap().with_extension("");
            let mut module: Module =
                relative.iter().map(|part| part.to_str().expect("a plain name").to_owned()).collect();
            if module.last().is_some_and(|last| matches!(last.as_str(), "mod" | "lib" | "main")) {
                module.pop();
            }
            let is_left_out = module.first().is_some_and(|first| first == "bin")
                || module.iter().any(|part| matches!(part.as_str(), "tests" | "conformance"));
            if !is_left_out {
                found.insert(module, fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

/// What each module imports: the deepest module on each path that it names.
fn imports(modules: &BTreeMap<Module, String>) -> Imports {
    let deepest = |path: &[String]| {
        (0..=path.len()).rev().map(|length| path[..length].to_vec()).find(|it| modules.contains_key(it))
    };
    let of = |module: &Module, text: &str| {
        let mut named = Named::default();
        named.visit_file(&syn::parse_file(text).expect("it compiles"));
        let absolute = named.0.into_iter().filter_map(|path| {
            let first = path.first()?.as_str();
            let ups = path.iter().take_while(|part| *part == "super").count();
            match first {
                "crate" => Some(path[1..].to_vec()),
                "self" => Some([module.as_slice(), &path[1..]].concat()),
                "super" if ups <= module.len() => {
                    Some([&module[..module.len() - ups], &path[ups..]].concat())
                }
                _ => {
                    let child = [module.as_slice(), &path].concat();
                    modules.contains_key(&child[..=module.len()]).then_some(child)
                }
            }
        });
        absolute.filter_map(|path| deepest(&path)).collect::<BTreeSet<_>>()
    };
    modules.iter().map(|(module, text)| (module.clone(), of(module, text))).collect()
}

/// Which children of `parent` import which others, each with all that lies below it.
fn siblings(imports: &Imports, parent: &[String]) -> BTreeMap<String, BTreeSet<String>> {
    let child = |module: &Module| {
        (module.len() > parent.len() && module.starts_with(parent)).then(|| module[parent.len()].clone())
    };
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, imported) in imports {
        let Some(one) = child(module) else { continue };
        let others = imported.iter().filter_map(child).filter(|other| *other != one);
        found.entry(one.clone()).or_default().extend(others);
    }
    found
}

/// Drops what imports nothing, and what nobody imports, until only circles are left.
fn circles(mut edges: BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    loop {
        let imported: BTreeSet<String> = edges.values().flatten().cloned().collect();
        let before = edges.len();
        let known: BTreeSet<String> = edges.keys().cloned().collect();
        edges.values_mut().for_each(|others| others.retain(|other| known.contains(other)));
        edges.retain(|one, others| !others.is_empty() && imported.contains(one));
        if edges.len() == before {
            return edges.into_keys().collect();
        }
    }
}

#[test]
fn no_modules_of_a_crate_import_each_other_in_a_circle() {
    let mut found = Vec::new();
    for name in CRATES {
        let modules = modules(&root().join(name).join("src"));
        assert!(modules.len() > 5, "{name} has only {} modules", modules.len());
        let imports = imports(&modules);
        let parents: BTreeSet<Module> =
            imports.keys().filter_map(|it| it.split_last()).map(|it| it.1.to_vec()).collect();
        for parent in parents {
            let circle = circles(siblings(&imports, &parent)).into_iter().collect::<Vec<_>>().join(", ");
            if !circle.is_empty() {
                found.push((name, format!("{}: {circle}", parent.join("::"))));
            }
        }
    }
    let known: Vec<_> = EXCEPTIONS.iter().map(|(name, circle)| (*name, (*circle).to_owned())).collect();
    assert_eq!(found, known, "on the left: what imports each other now; on the right: what is known");
}

/// The layers of raft: what each may import of the others.
const RAFT_LAYERS: [(&str, &[&str]); 6] = [
    ("types", &[]),
    ("config", &["types"]),
    ("core", &["types", "config"]),
    ("storage", &["types", "core"]),
    ("transport", &["types", "core"]),
    ("rsm", &["types", "config", "core", "storage", "transport"]),
];

#[test]
fn the_layers_of_raft_import_only_those_below_them() {
    let found = siblings(&imports(&modules(&root().join("raft/src"))), &[]);
    for (layer, allowed) in RAFT_LAYERS {
        let wrong: Vec<_> = found[layer].iter().filter(|other| !allowed.contains(&other.as_str())).collect();
        assert!(wrong.is_empty(), "{layer} imports {wrong:?}");
    }
    assert_eq!(found.len(), RAFT_LAYERS.len(), "{found:?}");
}

/// The most lines of Rust in a crate's `src/`, and in a file, tests included.
const CRATE_LINES: usize = 12_000;
const FILE_LINES: usize = 500;

/// Adds the lines of every Rust file below `path`.
fn lines(path: &Path, found: &mut BTreeMap<PathBuf, usize>) {
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| lines(&entry.unwrap().path(), found));
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        found.insert(path.to_owned(), fs::read_to_string(path).unwrap().lines().count());
    }
}

#[test]
fn no_crate_and_no_file_is_too_long() {
    let mut wrong = Vec::new();
    for name in CRATES.iter().chain(&["integration-tests"]) {
        let (crate_path, mut all, mut source) = (root().join(name), BTreeMap::new(), BTreeMap::new());
        if crate_path.join("src").exists() {
            lines(&crate_path.join("src"), &mut source);
        }
        let sum: usize = source.values().sum();
        if sum > CRATE_LINES {
            wrong.push(format!("{name} has {sum} lines"));
        }
        for folder in ["src", "tests", "examples", "benches"].map(|folder| crate_path.join(folder)) {
            if folder.exists() {
                lines(&folder, &mut all);
            }
        }
        assert!(all.len() > 3, "{name} has only {} files", all.len());
        let long = all.iter().filter(|(_, lines)| **lines > FILE_LINES);
        wrong.extend(long.map(|(path, lines)| format!("{} has {lines} lines", path.display())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_circle_is_found() {
    let text = |module: &str, text: &str| (module.split("::").map(str::to_owned).collect(), text.to_owned());
    let modules: BTreeMap<Module, String> = [
        text("one", "use super::two::{self, Thing};"),
        text("two", "mod inner;"),
        text("two::inner", "fn here() { crate::three::there() }"),
        text("three", "use crate::one; #[cfg(test)] mod tests { use super::super::four; }"),
        text("four", "use crate::one;"),
    ]
    .into();
    let imports = imports(&modules);
    let circle = circles(siblings(&imports, &[]));
    assert_eq!(circle.into_iter().collect::<Vec<_>>(), ["one", "three", "two"]);
}
