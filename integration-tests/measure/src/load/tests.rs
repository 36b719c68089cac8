//! The loop, on a store that is a map.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use clerk::api::config::slot_of;
use futures::future::{self, LocalBoxFuture};

use super::{BATCH, Scale, Work, fill, key, on_one_thread, run};
use crate::store::{Client, Done, System};

#[derive(Clone, Default)]
struct Map {
    rows: Rc<RefCell<BTreeMap<Bytes, Bytes>>>,
    calls: Rc<Cell<u64>>,
    broken: bool,
}

impl System for Map {
    fn name(&self) -> &'static str {
        "map"
    }

    fn version(&self) -> String {
        "1".to_owned()
    }

    fn promise(&self) -> &'static str {
        "nothing"
    }

    fn pids(&self) -> BTreeMap<String, u32> {
        BTreeMap::from([("map".to_owned(), std::process::id())])
    }

    fn connect(&self, clients: usize) -> LocalBoxFuture<'_, Done<Vec<Box<dyn Client>>>> {
        Box::pin(future::ok((0..clients).map(|_| Box::new(self.clone()) as Box<dyn Client>).collect()))
    }
}

impl Map {
    /// A call takes a millisecond; if the store is broken, one in four fails.
    async fn call<T>(&self, act: impl FnOnce(&mut BTreeMap<Bytes, Bytes>) -> T) -> Done<T> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.calls.set(self.calls.get() + 1);
        anyhow::ensure!(!self.broken || !self.calls.get().is_multiple_of(4), "broken");
        Ok(act(&mut self.rows.borrow_mut()))
    }
}

impl Client for Map {
    fn put(&mut self, key: Bytes, value: Bytes) -> LocalBoxFuture<'_, Done> {
        Box::pin(self.call(move |rows| drop(rows.insert(key, value))))
    }

    fn get(&mut self, key: Bytes) -> LocalBoxFuture<'_, Done<bool>> {
        Box::pin(self.call(move |rows| rows.contains_key(&key)))
    }

    fn put_batch(&mut self, pairs: Vec<(Bytes, Bytes)>) -> LocalBoxFuture<'_, Done> {
        Box::pin(self.call(move |rows| rows.extend(pairs)))
    }
}

fn scale() -> Scale {
    let (warm_up, time) = (Duration::from_millis(10), Duration::from_millis(200));
    Scale { keys: 100, value_bytes: 32, warm_up, time }
}

#[test]
fn keys_of_a_batch_share_a_slot_and_others_do_not() {
    let slots: Vec<u16> = (0..3 * BATCH).map(|number| slot_of(&key(number))).collect();
    assert!(slots.chunks(BATCH as usize).all(|batch| batch.iter().all(|slot| *slot == batch[0])));
    assert_ne!(slots[0], slots[BATCH as usize]);
    assert_eq!(key(35), "{0000002}03");
}

#[test]
fn a_filled_store_has_every_key_once_and_is_read_without_failures() {
    let map = Map::default();
    let work = Work { clients: 4, reads: 100, batch: 1 };
    let measured = on_one_thread(async {
        fill(&map, 0..100, 32).await?;
        assert_eq!(map.calls.get(), 7);
        run(&map, work, scale()).await
    });
    let measured = measured.unwrap();
    assert_eq!(map.rows.borrow().len(), 100);
    assert!(map.rows.borrow().values().all(|value| value.len() == 32));
    assert_eq!(measured.failed, 0);
    // Four clients whose calls take a millisecond, and on a busy machine longer.
    assert!((50.0..4_100.0).contains(&measured.rate), "{measured:?}");
    assert!(measured.p50_ms >= 1.0 && measured.p99_ms >= measured.p50_ms, "{measured:?}");
}

#[test]
fn every_put_of_a_batch_counts_and_failures_are_told() {
    let map = Map { broken: true, ..Map::default() };
    let work = Work { clients: 1, reads: 0, batch: BATCH };
    let measured = on_one_thread(run(&map, work, scale())).unwrap();
    let done = measured.rate * 0.2 / BATCH as f64;
    assert!(measured.failed > 0 && measured.rate > 0.0, "{measured:?}");
    assert!(done < map.calls.get() as f64, "{done} of {} calls", map.calls.get());
    assert!(done * BATCH as f64 > map.calls.get() as f64 / 2.0, "batches count as one: {measured:?}");
}

#[test]
fn a_store_without_the_keys_is_an_error_and_no_figure() {
    let work = Work { clients: 2, reads: 100, batch: 1 };
    let error = on_one_thread(run(&Map::default(), work, scale())).unwrap_err();
    assert!(error.to_string().ends_with("is missing"), "{error}");
}
