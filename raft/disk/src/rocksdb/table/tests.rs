use std::sync::atomic::AtomicBool;

use super::*;

#[test]
fn a_generation_is_not_named_before_all_its_rows_are_durable() {
    let root = tempfile::tempdir().unwrap();
    let table = open_rocks(root.path(), &TableOptions::default()).unwrap();
    let named = || read_names(root.path(), &table.durable(NAMES_KEY).unwrap()).unwrap().live;
    table.stage_start();
    let entrance = lock(&table.inner).staged.as_ref().unwrap().entrance.clone();
    std::thread::scope(|scope| {
        let switch = scope.spawn(|| table.switch_now(EntryId::new(1, 1)));
        // As long as rows may be added it is not complete.
        std::thread::sleep(std::time::Duration::from_millis(100));
        let before = (switch.is_finished(), named());
        entrance.send(vec![(Bytes::from("row"), Bytes::from("1"))]).unwrap();
        drop(entrance);
        assert_eq!(before, (false, 1));
    });
    assert_eq!((named(), table.get(b"row")), (2, Some(Bytes::from("1"))));
}

#[test]
fn a_view_has_whole_loads_however_they_come_in() {
    let root = tempfile::tempdir().unwrap();
    let options = TableOptions { waiting_bytes: 1000, file_bytes_min: 400, ..TableOptions::default() };
    let table = open_rocks(root.path(), &options).unwrap();
    let over = AtomicBool::new(false);
    // Like a view that was delayed after its draining.
    let look = || {
        // None is there when files come in.
        std::thread::sleep(std::time::Duration::from_millis(1));
        let snapshot = table.store.snapshot(&table.store.db);
        let last = snapshot.get(row_key(1, b"last")).unwrap();
        let last = last.map_or(0, |bytes| u64::from_be_bytes(bytes[..].try_into().unwrap()));
        // While more comes in.
        std::thread::sleep(std::time::Duration::from_millis(2));
        let rows = bounds(1, b"new", None).map(|options| snapshot.raw_iterator_opt(options)).unwrap();
        (4 * last, collect(rows, ScanLimit { rows: usize::MAX, bytes: usize::MAX }).len() as u64)
    };
    let torn = std::thread::scope(|scope| {
        let viewer = scope.spawn(|| {
            let mut looks = std::iter::repeat_with(look).take_while(|_| !over.load(Ordering::SeqCst));
            looks.find(|(expected, rows)| expected != rows)
        });
        for at in 1..=600_u64 {
            let new =
                (0..4).map(|row| Change::Put(Bytes::from(format!("new {at:05} {row}")), Bytes::from("1")));
            let last = Change::Put(Bytes::from("last"), Bytes::from(at.to_be_bytes().to_vec()));
            table.write(new.chain([last]).collect());
        }
        over.store(true, Ordering::SeqCst);
        viewer.join().unwrap()
    });
    assert_eq!(torn, None, "rows expected, and rows found");
}

/// Compactions and commands want the same processors at the same time.
#[test]
#[cfg(target_os = "linux")]
fn rocksdb_s_own_threads_let_others_go_before() {
    // proc_pid_stat(5): the name, which may have spaces, and field 19; the first after the name is the third.
    let name_and_nice = |stat: &str| {
        let (name, fields) = stat.split_once('(').unwrap().1.rsplit_once(") ").unwrap();
        (name.to_owned(), fields.split(' ').nth(16).unwrap().parse::<i32>().unwrap())
    };
    let root = tempfile::tempdir().unwrap();
    let _table = open_rocks(root.path(), &TableOptions::default()).unwrap();
    let (_, mine) = name_and_nice(&std::fs::read_to_string("/proc/thread-self/stat").unwrap());
    // A thread of another test may be gone by the time it is looked at.
    let stats = std::fs::read_dir("/proc/self/task").unwrap().filter_map(|task| {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).ok()?;
        Some(name_and_nice(&stat))
    });
    // A thread of a test begins with the name of its module, `rocksdb::`.
    let is_rocksdb_s = |name: &str| name.starts_with("rocksdb:") && !name.starts_with("rocksdb::");
    let rocksdb_s: Vec<_> = stats.filter(|(name, _)| is_rocksdb_s(name)).collect();
    assert!(!rocksdb_s.is_empty());
    assert!(rocksdb_s.iter().all(|(_, nice)| *nice > mine), "{mine}, {rocksdb_s:?}");
}

#[test]
fn draining_waits_for_earlier_writes_and_not_for_later_ones() {
    let root = tempfile::tempdir().unwrap();
    let table = open_rocks(root.path(), &TableOptions::default()).unwrap();
    let put = || vec![Change::Put(Bytes::from("row"), Bytes::from("1"))];
    lock(&table.store.buffer).write(put());
    assert!(lock(&table.store.buffer).send_off().is_some());
    lock(&table.store.buffer).write(put());
    let waited = std::thread::scope(|scope| {
        let drain = scope.spawn(|| table.store.drain(Way::Memory));
        // One load follows the other without a gap in which nothing is going.
        let next = || {
            std::thread::sleep(std::time::Duration::from_millis(5));
            let mut buffer = lock(&table.store.buffer);
            buffer.arrived();
            buffer.send_off();
            buffer.write(put());
            drop(buffer);
            table.store.tell_arrival();
        };
        let loads = (0..400).take_while(|_| !drain.is_finished()).map(|_| next()).count();
        let waited = !drain.is_finished();
        lock(&table.store.buffer).arrived();
        table.store.tell_arrival();
        (waited, loads)
    });
    assert!(!waited.0, "still waiting after {} loads", waited.1);
    assert!(waited.1 >= 2, "what was written before had not arrived");
}
