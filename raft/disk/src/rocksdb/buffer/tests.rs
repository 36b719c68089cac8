use bytes::Bytes;

use super::{Buffer, Found};
use raft::storage::Change;

fn put(key: &'static str, value: &'static str) -> Change {
    Change::Put(Bytes::from_static(key.as_bytes()), Bytes::from_static(value.as_bytes()))
}

fn row(buffer: &Buffer, key: &str) -> Option<Option<Bytes>> {
    match buffer.get(key.as_bytes()) {
        Found::Row(value) => Some(value),
        Found::Elsewhere(_) => None,
    }
}

fn read(buffer: &mut Buffer, key: &[u8], value: &Bytes) {
    let Found::Elsewhere(writes) = buffer.get(key) else { panic!("it is known") };
    buffer.read(key, value, writes);
}

/// Sends off what waits; how many rows that were.
fn go(buffer: &mut Buffer) -> Option<usize> {
    let rows = buffer.send_off().map(|rows| rows.batch(1).len());
    buffer.arrived();
    rows
}

#[test]
fn a_row_that_changed_often_goes_once_and_what_went_is_still_known() {
    let mut buffer = Buffer::new(1 << 20, 1 << 20);
    for value in ["1", "2", "3"] {
        buffer.write(vec![put("b", value), put("a", value)]);
    }
    assert_eq!(go(&mut buffer), Some(2));
    assert_eq!(go(&mut buffer), None);
    assert_eq!(row(&buffer, "a"), Some(Some("3".into())));
    buffer.write(vec![Change::Delete("a".into())]);
    assert_eq!(row(&buffer, "a"), Some(None), "a deleted row is not looked for elsewhere");
    assert_eq!(row(&buffer, "c"), None);
}

#[test]
fn while_rows_go_they_are_known_and_newer_ones_win() {
    let mut buffer = Buffer::new(150, 1 << 20);
    buffer.write(vec![put("a", "1")]);
    assert!(!buffer.is_full());
    buffer.write(vec![put("b", "1")]);
    assert!(buffer.is_full() && !buffer.is_crowded() && !buffer.is_going());
    let going = buffer.send_off().unwrap();
    assert!(!buffer.is_full() && buffer.is_going());
    buffer.write(vec![put("b", "2"), put("c", "2")]);
    assert_eq!(row(&buffer, "a"), Some(Some("1".into())));
    assert_eq!(row(&buffer, "b"), Some(Some("2".into())));
    buffer.write(vec![put("d", "2")]);
    assert!(buffer.is_crowded());
    assert_eq!(going.batch(1).len(), 2);
    buffer.arrived();
    for (key, value) in [("a", "1"), ("b", "2"), ("c", "2")] {
        assert_eq!(row(&buffer, key), Some(Some(value.into())), "{key}");
    }
    assert_eq!(go(&mut buffer), Some(3));
    assert_eq!(row(&buffer, "b"), Some(Some("2".into())));
}

#[test]
fn what_is_read_while_a_range_is_deleted_is_not_remembered() {
    let mut buffer = Buffer::new(1 << 20, 1 << 20);
    let Found::Elsewhere(before) = buffer.get(b"a") else { panic!("it is known") };
    buffer.step_aside();
    read(&mut buffer, b"a", &"1".into());
    assert_eq!(row(&buffer, "a"), None);
    let Found::Elsewhere(meanwhile) = buffer.get(b"a") else { panic!("it is known") };
    buffer.clear();
    for writes in [before, meanwhile] {
        buffer.read(b"a", &"1".into(), writes);
        assert_eq!(row(&buffer, "a"), None);
    }
    read(&mut buffer, b"a", &"2".into());
    assert_eq!(row(&buffer, "a"), Some(Some("2".into())));
}

#[test]
fn what_was_read_is_older_than_what_went_afterwards() {
    for waiting_max in [1, 1 << 20] {
        let mut buffer = Buffer::new(waiting_max, 1 << 20);
        read(&mut buffer, b"a", &"1".into());
        buffer.write(vec![put("a", "2")]);
        assert_eq!(go(&mut buffer), Some(1));
        assert_eq!(row(&buffer, "a"), Some(Some("2".into())), "with {waiting_max}");
        read(&mut buffer, b"b", &"1".into());
        buffer.write(vec![Change::Delete("b".into())]);
        assert_eq!(go(&mut buffer), Some(1));
        assert_eq!(row(&buffer, "b"), Some(None), "with {waiting_max}");
    }
}

#[test]
fn what_was_read_before_a_write_is_not_believed() {
    let mut buffer = Buffer::new(1 << 20, 1 << 20);
    let Found::Elsewhere(writes) = buffer.get(b"a") else { panic!("empty") };
    buffer.write(vec![put("b", "1")]);
    buffer.read(b"a", &"stale, perhaps".into(), writes);
    assert_eq!(row(&buffer, "a"), None);
    read(&mut buffer, b"a", &"fresh".into());
    assert_eq!(row(&buffer, "a"), Some(Some("fresh".into())));
    go(&mut buffer);
    let Found::Elsewhere(writes) = buffer.get(b"c") else { panic!("never read") };
    buffer.clear();
    buffer.read(b"c", &"of another generation".into(), writes);
    assert_eq!(row(&buffer, "a"), None);
    assert_eq!(row(&buffer, "c"), None);
}

#[test]
fn large_rows_are_not_kept_when_they_were_read_or_went() {
    let mut buffer = Buffer::new(1000, 1 << 20);
    let large = Bytes::from(vec![0; 5000]);
    read(&mut buffer, b"a", &large);
    assert_eq!(row(&buffer, "a"), None);
    buffer.write(vec![put("a", "old"), put("b", "old")]);
    go(&mut buffer);
    buffer.write(vec![Change::Put("a".into(), large.clone())]);
    assert_eq!(row(&buffer, "a"), Some(Some(large.clone())), "it waits");
    go(&mut buffer);
    assert_eq!((row(&buffer, "a"), row(&buffer, "b")), (None, None), "and nothing old is believed");
    buffer.write(vec![Change::Put("a".into(), large), put("a", "small again"), put("b", "1")]);
    buffer.write((0..100_u32).map(|it| Change::Delete(Bytes::from(it.to_be_bytes().to_vec()))).collect());
    go(&mut buffer);
    assert_eq!(row(&buffer, "a"), Some(Some("small again".into())));
}

#[test]
fn a_scan_need_not_wait_for_rows_that_begin_otherwise() {
    let mut buffer = Buffer::new(1 << 20, 1 << 20);
    assert!(!buffer.holds_back(b"", None));
    buffer.write(vec![put("b111", "1"), put("d11", "1")]);
    let held_back =
        |buffer: &Buffer, start: &str, end: &str| buffer.holds_back(start.as_bytes(), Some(end.as_bytes()));
    for (start, end, held) in [
        ("", "b", false),
        ("", "b11", false),
        ("a", "b110", true),
        ("b", "b2", true),
        ("b112", "c", true),
        ("b12", "c", false),
        ("b12", "d", false),
        ("c", "d11", false),
        ("d11", "d110", true),
        ("d110", "d2", true),
        ("e", "z", false),
        ("b", "", false),
    ] {
        assert_eq!(held_back(&buffer, start, end), held, "{start:?} to {end:?}");
    }
    assert!(buffer.holds_back(b"c", None) && !buffer.holds_back(b"e", None));
    buffer.send_off();
    assert!(held_back(&buffer, "a", "z"), "on their way");
    buffer.arrived();
    assert!(!held_back(&buffer, "a", "z"));
    buffer.write(vec![put("b", "1")]);
    assert!(held_back(&buffer, "a", "b0"), "a key that is only a beginning");
}

#[test]
fn the_oldest_is_forgotten_and_what_waits_never_is() {
    let mut buffer = Buffer::new(1 << 20, 4000);
    buffer.write(vec![put("waits", "1")]);
    for number in 0..100_u32 {
        read(&mut buffer, &number.to_be_bytes(), &"v".into());
    }
    assert_eq!(row(&buffer, "waits"), Some(Some("1".into())));
    go(&mut buffer);
    for number in 100..200_u32 {
        read(&mut buffer, &number.to_be_bytes(), &"v".into());
    }
    assert_eq!(row(&buffer, "waits"), None);
    let known = |buffer: &Buffer| {
        let generations: usize = buffer.generations.iter().map(|rows| rows.map.len()).sum();
        generations + buffer.read.map.len()
    };
    assert!((10..45).contains(&known(&buffer)), "{} rows of about 130 bytes fit 4,000", known(&buffer));
    for number in 200..300_u32 {
        buffer.write(vec![Change::Put(Bytes::from(number.to_be_bytes().to_vec()), "v".into())]);
        // A scan after each.
        go(&mut buffer);
    }
    assert!((10..45).contains(&known(&buffer)), "{} rows of about 130 bytes fit 4,000", known(&buffer));
}
