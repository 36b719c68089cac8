use base::codec;
use bytes::Bytes;
use clerk::api::config::{Params, shard_of};
use clerk::api::push::{Change, Cursor, Pos, Reach};
use clerk::api::{ShardId, Version};
use raft::storage::Row;

use super::{cursor, last};
use crate::machine::rows::{self, Meta};

const PARAMS: Params = Params { shard_count: 2, key_bytes_max: 16, value_bytes_max: 32, sessions_max: 3 };

fn shard() -> ShardId {
    shard_of(b"k", PARAMS.shard_count)
}

fn judged(key: &[u8], value: &[u8]) -> Result<(), String> {
    let row = (Bytes::copy_from_slice(key), Some(Bytes::copy_from_slice(value)));
    last(shard(), PARAMS, &[row])
}

/// The same as changes.
fn changes(rows: &[Row]) -> Vec<Change> {
    rows.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect()
}

fn meta_key() -> Vec<u8> {
    [&[0x10][..], &shard().0.to_be_bytes()].concat()
}

fn session_key(rest: &[u8]) -> Vec<u8> {
    [&[0x11][..], &shard().0.to_be_bytes(), rest].concat()
}

fn value_row(version: u64, value: &[u8]) -> Bytes {
    rows::value_row(Version(version), &[value])
}

/// A row of each kind as a shard has it, written by the product.
fn good() -> Vec<Row> {
    use raft::rsm::MapRows;
    use raft::rsm::sessions::Sessions;

    let mut table = MapRows::default();
    rows::put_meta(&mut table, shard(), &Meta { rows: 1, ..Meta::default() });
    let mut sessions = Sessions::load(rows::sessions_prefix(shard()), &table);
    let used = sessions.open(&mut table, 3).expect("room");
    let other = sessions.open(&mut table, 3).expect("room");
    let reply = crate::machine::kv::Recorded::of_batch_for_tests(&[Version(1), Version(7)]);
    sessions.record(&mut table, used, 1, reply.clone());
    sessions.record(&mut table, other, 1, reply);
    assert_eq!(sessions.open(&mut table, 2), None, "both were used lately");
    raft::rsm::Rows::put(&mut table, rows::value_key(b"k"), value_row(7, b"v"));
    table.0.into_iter().collect()
}

#[test]
fn rows_that_the_product_writes_are_taken() {
    let good = good();
    assert_eq!(good.len(), 6, "meta, counter, two sessions, a refusal, a value: {good:?}");
    assert_eq!(last(shard(), PARAMS, &changes(&good)), Ok(()));
}

#[test]
fn rows_of_a_shard_that_does_not_exist_are_refused() {
    for shard in [PARAMS.shard_count, u32::MAX] {
        assert!(last(ShardId(shard), PARAMS, &changes(&good())).is_err(), "shard {shard}");
    }
}

#[test]
fn rows_of_no_kind_that_travels_are_refused() {
    for key in [&b"\0applied"[..], b"", &[0x01, b'n'], &[0x01, b's', 0, 0, 0, 0], &[0x13], &[0xff; 9]] {
        assert!(judged(key, b"x").is_err(), "{key:?}");
    }
    let longer = [&meta_key()[..], b"x"].concat();
    assert!(judged(&longer, &codec::encode(&Meta::default())).is_err());
    for rest in [&b""[..], b"\0x", b"\x01", b"\x01short", b"\x01too long by one", b"\x02"] {
        assert!(judged(&session_key(rest), b"").is_err(), "{rest:?}");
    }
    let slot = rows::value_key(b"k");
    assert!(judged(&slot[..3], &value_row(1, b"v")).is_err(), "an empty key");
    let mut elsewhere = slot.to_vec();
    elsewhere[2] ^= 1;
    assert!(judged(&elsewhere, &value_row(1, b"v")).is_err(), "a key in another slot");
}

#[test]
fn counters_and_versions_that_could_overflow_are_refused() {
    let meta = |meta: Meta| judged(&meta_key(), &codec::encode(&meta));
    assert_eq!(meta(Meta { floor: Version(9), rows: 1, bytes: 2, ..Meta::default() }), Ok(()));
    for wrong in [
        Meta { floor: Version(u64::MAX), ..Meta::default() },
        Meta { rows: u64::MAX, ..Meta::default() },
        Meta { rows: 1 << 48, ..Meta::default() },
        Meta { bytes: 1 << 48, ..Meta::default() },
    ] {
        assert!(meta(wrong).is_err(), "{wrong:?}");
    }
    let value = |row: Bytes| judged(&rows::value_key(b"k"), &row);
    assert_eq!(value(value_row(1, b"v")), Ok(()));
    assert!(value(value_row(0, b"v")).is_err() && value(value_row(u64::MAX, b"v")).is_err());
    assert!(value(value_row(1, &[0; 33])).is_err(), "a value that is too long");
    let counter = |names: u64, operations: u64| {
        let bytes = codec::encode(&(names, operations, codec::Denied::NONE));
        judged(&session_key(&[0]), &bytes)
    };
    assert_eq!(counter(3, 4), Ok(()));
    assert!(counter(u64::MAX, 0).is_err() && counter(0, u64::MAX).is_err());
    let session = |seq: u64, used: u64, reply: &[u8]| {
        let bytes = codec::encode(&(seq, used, Bytes::copy_from_slice(reply), codec::Denied::NONE));
        judged(&session_key(&[1, 0, 0, 0, 0, 0, 0, 0, 9]), &bytes)
    };
    assert_eq!(session(0, 1, b""), Ok(()));
    assert!(session(0, u64::MAX, b"").is_err());
    assert!(session(1, 1, b"").is_err() && session(0, 1, b"x").is_err());
    assert!(session(1, 1, b"no reply").is_err());
}

/// A reply that contains itself, as deep as a chunk is long, must not cause a recursion.
#[test]
fn a_reply_that_nests_ends_nothing() {
    let mut reply = vec![codec::DISK];
    for _ in 0..20_000 {
        reply.extend_from_slice(&1_u32.to_le_bytes());
        reply.extend_from_slice(&1_u64.to_le_bytes());
    }
    assert!(crate::machine::kv::Recorded::check(&reply).is_err());
}

/// A late repeat of rows that move nothing would put them over newer ones.
#[test]
fn a_chunk_moves_the_cursor_forward_or_starts_over() {
    let at = |key: u8, pos: u64| Cursor {
        reach: Reach::Key(Bytes::copy_from_slice(&[key])),
        pos: Pos::end_of(pos),
    };
    let moves = |after: &Cursor, to: &Cursor| super::chunk(shard(), PARAMS, after, to, &[]).is_ok();
    let (start, end) = (Cursor::default(), Cursor { reach: Reach::End, pos: Pos::end_of(9) });
    for (after, to) in
        [(&start, &at(1, 5)), (&at(1, 5), &at(2, 5)), (&at(1, 5), &at(1, 6)), (&at(1, 5), &end)]
    {
        assert!(moves(after, to) && !moves(after, after), "{after:?} {to:?}");
        assert!(moves(to, &start) && (*after == start || !moves(to, after)), "{after:?} {to:?}");
    }
    assert!(!moves(&at(1, 5), &at(2, 4)) && !moves(&at(2, 4), &at(1, 5)), "forward and back");
    assert!(!moves(&at(1, 5), &Cursor { pos: Pos::end_of(6), ..Cursor::default() }), "rows of no copy");
    let row = [(rows::value_key(b"k"), Some(value_row(1, b"v")))];
    assert!(super::chunk(shard(), PARAMS, &at(1, 5), &start, &row).is_err(), "rows of a copy that starts");
}

#[test]
fn a_cursor_is_no_longer_than_a_key() {
    let at = |bytes: usize| Cursor { reach: Reach::Key(vec![0; bytes].into()), ..Cursor::default() };
    assert_eq!(cursor(&Cursor::default(), PARAMS), Ok(()));
    assert_eq!(cursor(&at(19), PARAMS), Ok(()));
    assert!(cursor(&at(1 << 20), PARAMS).is_err());
}

/// What is taken is read back later: by the caches of a shard that is served, by a get, by a status.
fn read_back(rows: &[Row]) {
    let table = raft::rsm::MapRows(rows.iter().cloned().collect());
    rows::meta(&table, shard());
    let mut sessions = raft::rsm::sessions::Sessions::load(rows::sessions_prefix(shard()), &table);
    for session in 0..4 {
        for seq in 0..4 {
            if let raft::rsm::sessions::Check::Repeated(reply) = sessions.check(session, seq) {
                assert_eq!(crate::machine::kv::Recorded::check(&reply), Ok(()));
            }
        }
    }
    let mut table = table;
    sessions.open(&mut table, 3);
    for (key, value) in rows.iter().filter(|(key, _)| key.first() == Some(&0x12)) {
        rows::parse_value(value);
        assert!(!rows::key_of(key).is_empty());
    }
}

/// Every way to spoil some bytes a little: each bit flipped, each cut, a byte inserted anywhere.
fn spoiled(bytes: &[u8]) -> Vec<Bytes> {
    let mut all = Vec::new();
    for at in 0..bytes.len() {
        all.push(Bytes::copy_from_slice(&bytes[..at]));
        for bit in 0..8 {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 1 << bit;
            all.push(flipped.into());
        }
    }
    for at in 0..=bytes.len() {
        for byte in [0, 1, 0xff] {
            let mut longer = bytes.to_vec();
            longer.insert(at, byte);
            all.push(longer.into());
        }
    }
    all
}

#[test]
fn a_row_that_went_bad_anywhere_is_refused_or_can_be_read() {
    let (mut taken, mut refused) = (0, 0);
    for row in 0..good().len() {
        for in_key in [false, true] {
            let original = good();
            let bytes = if in_key { &original[row].0 } else { &original[row].1 };
            for bad in spoiled(bytes) {
                let mut rows = good();
                let (key, value) = &mut rows[row];
                *(if in_key { key } else { value }) = bad;
                match last(shard(), PARAMS, &changes(&rows)) {
                    Ok(()) => {
                        read_back(&rows);
                        taken += 1;
                    }
                    Err(_) => refused += 1,
                }
            }
        }
    }
    assert!(taken > 100 && refused > 1000, "vacuous: {taken} taken, {refused} refused");
}
