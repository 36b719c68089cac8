use std::future::pending;

use super::Coordinator;
use crate::api::Request;
use crate::files::{Directory, FINISHED, Input, Run, Spec, reduced};
use crate::job::{Kind, Task, Work};

const REDUCE: Task = Task { kind: Kind::Reduce, number: 0 };

fn job() -> (tempfile::TempDir, Directory, Spec) {
    let place = tempfile::tempdir().unwrap();
    let (run, input) = (Run::App("wc".into()), Input::Files(Vec::new()));
    let (controllers, cluster) = (Vec::new(), String::new());
    let spec = Spec { id: 1, run, input, reduces: 2, output: None, controllers, cluster };
    let directory = Directory::create(place.path(), &spec).unwrap();
    (place, directory, spec)
}

async fn begin(directory: &Directory, spec: &Spec, life: u32) -> Coordinator {
    Coordinator::begin(directory.clone(), spec.clone(), None, life).await.unwrap()
}

#[tokio::test]
async fn a_winner_whose_output_had_no_name_yet_gets_it_from_the_next_coordinator() {
    let (_place, directory, spec) = job();
    directory.replace(&reduced(0, 7), b"a 1").unwrap();
    // Here the first coordinator dies.
    directory.mark(REDUCE, 7).unwrap();
    let next = begin(&directory, &spec, 2).await;
    assert_eq!(std::fs::read(directory.output(0)).unwrap(), b"a 1");
    // A late twin is heard, but its output is not read.
    directory.replace(&reduced(0, 8), b"a 2").unwrap();
    next.handle(Request::Done(REDUCE, 8, Work::default())).await;
    assert_eq!(std::fs::read(directory.output(0)).unwrap(), b"a 1");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_nobody_does_any_more_ends_with_the_reason_and_can_be_resumed() {
    let (_place, directory, spec) = job();
    let first = begin(&directory, &spec, 1).await;
    let why = first.end(async { "no workers".to_owned() }).await.unwrap_err().to_string();
    assert_eq!(why, "the job failed with 0 of 2 tasks done: no workers");
    assert_eq!(directory.text(FINISHED).as_deref(), Some("no workers"));
    let next = begin(&directory, &spec, 2).await;
    assert_eq!(directory.text(FINISHED), None);
    for number in 0..2 {
        directory.replace(&reduced(number, 7), b"").unwrap();
        next.handle(Request::Done(Task { number, ..REDUCE }, 7, Work::default())).await;
    }
    assert!(next.end(pending()).await.unwrap(), "ended elsewhere");
    assert_eq!(directory.text(FINISHED).as_deref(), Some(""));
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_ends_as_another_one_of_its_job_did() {
    for (ending, well) in [("", true), ("bad", false)] {
        let (_place, directory, spec) = job();
        let slow = begin(&directory, &spec, 1).await;
        directory.replace(FINISHED, ending.as_bytes()).unwrap();
        assert_eq!(slow.end(pending()).await.is_ok_and(|here| !here), well, "{ending}");
    }
}
