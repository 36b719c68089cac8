use std::fs;
use std::path::Path;

use super::{Directory, FINISHED, Input, Run, Spec, reduced};
use crate::job::{Kind, Task};

const REDUCE: Task = Task { kind: Kind::Reduce, number: 0 };

fn spec(id: u64) -> Spec {
    let input = Input::Files(Vec::new());
    let run = Run::App("wc".into());
    Spec { id, run, input, reduces: 4, output: None, controllers: Vec::new(), cluster: String::new() }
}

fn names(path: &Path) -> Vec<String> {
    let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn a_job_is_made_only_where_it_overwrites_nothing() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("mr-out-3"), "mine").unwrap();
    let refused = Directory::create(place.path(), &spec(1)).unwrap_err().to_string();
    assert!(refused.contains("mr-out-3 is there already"), "{refused}");
    assert_eq!(names(place.path()), ["mr-out-3"]);
    fs::remove_file(place.path().join("mr-out-3")).unwrap();
    Directory::create(place.path(), &spec(1)).unwrap();
    let made = names(place.path());
    let again = Directory::create(place.path(), &spec(2)).unwrap_err().to_string();
    assert!(again.contains("holds another job"), "{again}");
    assert_eq!(names(place.path()), made);
}

#[test]
fn clean_deletes_what_the_job_made_and_nothing_else() {
    let place = tempfile::tempdir().unwrap();
    let mine = ["finished", "mr-0-1.7", "mr-notes", "mr-out-4", "won-map-of-the-town"];
    mine.iter().for_each(|name| fs::write(place.path().join(name), "mine").unwrap());
    let directory = Directory::create(place.path(), &spec(1)).unwrap();
    directory.mark(REDUCE, 7).unwrap();
    directory.replace(&reduced(0, 7), b"x").unwrap();
    directory.publish(0, 7).unwrap();
    directory.replace(FINISHED, b"").unwrap();
    directory.clean(&spec(1)).unwrap();
    assert_eq!(names(place.path()), mine);
    // An interrupted clean can be done again.
    directory.clean(&spec(1)).unwrap();
}

#[cfg(unix)]
#[test]
fn a_path_that_is_no_text_is_an_error() {
    use std::os::unix::ffi::OsStrExt as _;
    let place = tempfile::tempdir().unwrap();
    let odd = place.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9"));
    let spec = Spec { input: Input::Files(vec![("x".to_owned(), odd.join("x"))]), ..spec(1) };
    let refused = format!("{:#}", Directory::create(&odd, &spec).unwrap_err());
    assert!(refused.contains("UTF-8"), "{refused}");
}

/// Rule 120.
#[test]
fn what_wakes_up_beside_another_job_changes_nothing_there() {
    let place = tempfile::tempdir().unwrap();
    let old = Directory::create(place.path(), &spec(1)).unwrap();
    old.replace(&reduced(0, 7), b"old").unwrap();
    old.clean(&spec(1)).unwrap();
    let new = Directory::create(place.path(), &spec(2)).unwrap();
    assert!(new.exists() && !old.exists());
    new.replace(&reduced(0, 7), b"new").unwrap();
    new.publish(0, 7).unwrap();
    assert!(old.mark(REDUCE, 7).is_err());
    assert!(old.replace(&reduced(0, 7), b"old").is_err());
    assert!(old.make_once("results-0", b"old").is_err());
    assert!(old.publish(0, 7).is_err());
    assert_eq!(fs::read(new.output(0)).unwrap(), b"new");
    assert_eq!((new.marked(REDUCE).unwrap(), new.text(FINISHED)), (None, None));
}

#[test]
fn only_what_the_winner_had_becomes_the_output() {
    let place = tempfile::tempdir().unwrap();
    let directory = Directory::create(place.path(), &spec(1)).unwrap();
    directory.replace(&reduced(0, 7), b"late").unwrap();
    directory.replace(&reduced(0, 8), b"winner's").unwrap();
    assert!(directory.publish(1, 8).is_err(), "nobody wrote that");
    directory.publish(0, 8).unwrap();
    directory.publish(0, 8).unwrap();
    assert_eq!(fs::read(directory.output(0)).unwrap(), b"winner's");
}
