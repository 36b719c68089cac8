use std::path::Path;
use std::sync::Mutex;

use futures::future::BoxFuture;

use super::{Worker, check_keys};
use crate::api::{Coordinate, Reply, Request};
use crate::files::{Directory, Input, Run, Spec};
use crate::job::{Kind, Order, Task};
use crate::program::{App, part_of};

/// One of the two values would be missing in the store, though the mark says that all are there
/// (rule 92).
#[test]
fn a_key_that_is_printed_twice_or_by_another_reducer_does_not_go_into_the_store() {
    let pair = |key: &str| (key.to_owned(), "1".to_owned());
    let mine = part_of("total", 10);
    assert_eq!(check_keys(&[pair("total")], mine, 10), Ok(()));
    assert!(check_keys(&[pair("total"), pair("total")], mine, 10).is_err());
    assert!(check_keys(&[pair("total")], (mine + 1) % 10, 10).is_err());
}

/// Gives one order, and keeps the requests that it gets.
///
struct Once(Mutex<Vec<Order>>, Mutex<Vec<Request>>);

impl Coordinate for Once {
    fn call(&self, request: Request) -> BoxFuture<'_, anyhow::Result<Reply>> {
        let reply = match &request {
            Request::Ask(_) => Reply::Order(self.0.lock().unwrap().pop().unwrap_or(Order::Exit)),
            _ => Reply::Noted,
        };
        self.1.lock().unwrap().push(request);
        Box::pin(async { Ok(reply) })
    }
}

struct Panics;

impl App for Panics {
    fn map(&self, _: &str, text: &str, _: &mut dyn FnMut(String, String)) {
        assert!(text != "bad", "the text says so");
    }

    fn reduce(&self, key: &str, _: &[String]) -> String {
        panic!("{key}")
    }
}

fn spec(path: &Path) -> Spec {
    let input = Input::Files(vec![("in".to_owned(), path.join("in"))]);
    let (run, controllers, cluster) = (Run::App("x".into()), Vec::new(), String::new());
    Spec { id: 1, run, input, reduces: 1, output: None, controllers, cluster }
}

#[tokio::test]
async fn a_panic_is_reported_with_file_record_and_text() {
    let place = tempfile::tempdir().unwrap();
    let spec = spec(place.path());
    std::fs::write(place.path().join("in"), "bad").unwrap();
    let directory = Directory::create(&place.path().join("job"), &spec).unwrap();
    let task = Task { kind: Kind::Map, number: 0 };
    let orders = Mutex::new(vec![Order::Run { task, attempt: 7, maps: Vec::new() }]);
    let coordinator = Once(orders, Mutex::default());
    let (coordinator, directory, spec) = (&coordinator, &directory, &spec);
    let worker = Worker { coordinator, directory, spec, program: &Panics, store: None, me: 5 };
    worker.run().await.unwrap();
    let told = coordinator.1.lock().unwrap().clone();
    let [Request::Ask(5), Request::Failed(_, 7, report), Request::Ask(5)] = &told[..] else {
        panic!("{told:?}")
    };
    let expected =
        format!("{}/in, record \"in\": the app panicked: the text says so", place.path().display());
    assert_eq!(*report, expected);
    let mut record = String::new();
    let groups = [("key".to_owned(), Vec::new())].into();
    let work = futures::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(
        crate::program::Program::reduce(&Panics, &groups, &mut record),
    ));
    assert!(work.await.is_err() && record == "key");
}
