use super::Coordinator;
use crate::api::{Reply, Request};
use crate::files::{Directory, Input, Output, Run, Spec, reduced};
use crate::job::{Kind, Order, Task, Work};

const REDUCE: Task = Task { kind: Kind::Reduce, number: 0 };

fn job() -> (tempfile::TempDir, Directory, Spec) {
    let place = tempfile::tempdir().unwrap();
    let (run, input) = (Run::App("wc".into()), Input::Files(Vec::new()));
    let output = Some(Output { prefix: "wc/".to_owned(), add: true });
    let spec = Spec { id: 1, run, input, reduces: 2, output, controllers: Vec::new() };
    let directory = Directory::create(place.path(), &spec).unwrap();
    (place, directory, spec)
}

async fn order(coordinator: &Coordinator) -> u64 {
    match coordinator.handle(Request::Ask { worker: 5 }).await {
        Reply::Order(Order::Run { attempt, .. }) => attempt,
        other => panic!("{other:?}"),
    }
}

/// The next attempt finds the part's mark and means well: it must not end the job well.
#[tokio::test]
async fn a_result_that_the_store_lacks_ends_the_job_at_once_and_for_ever() {
    let (_place, directory, spec) = job();
    let coordinator = Coordinator::new(directory.clone(), &spec, 1).unwrap();
    let attempt = order(&coordinator).await;
    directory.lose("\"wc/a\" was changed").unwrap();
    coordinator.handle(Request::Failed { task: REDUCE, attempt, report: "lost".into() }).await;
    assert_eq!(coordinator.over().await.as_deref(), Some("\"wc/a\" was changed"));
    let next = Coordinator::new(directory.clone(), &spec, 2).unwrap();
    assert_eq!(next.over().await.as_deref(), Some("\"wc/a\" was changed"));
    directory.replace(&reduced(0, 9), b"a 1").unwrap();
    next.handle(Request::Done { task: REDUCE, attempt: 9, work: Work::default() }).await;
    assert_eq!(directory.marked(REDUCE).unwrap(), None);
}

#[tokio::test]
async fn a_winner_whose_output_had_no_name_yet_gets_it_from_the_next_coordinator() {
    let (_place, directory, spec) = job();
    directory.replace(&reduced(0, 7), b"a 1").unwrap();
    // Here the first one died.
    directory.mark(REDUCE, 7).unwrap();
    let next = Coordinator::new(directory.clone(), &spec, 2).unwrap();
    assert_eq!(std::fs::read(directory.output(0)).unwrap(), b"a 1");
    // A late twin is heard, and what it had is not read.
    directory.replace(&reduced(0, 8), b"a 2").unwrap();
    next.handle(Request::Done { task: REDUCE, attempt: 8, work: Work::default() }).await;
    assert_eq!(std::fs::read(directory.output(0)).unwrap(), b"a 1");
}
