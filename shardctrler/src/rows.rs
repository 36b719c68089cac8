//! How the controller's state is stored in rows, and how it is read: by the state machine, and by
//! watches, which any replica answers straight from its table.
//!
//! | key | value |
//! |---|---|
//! | 0x01 | number of the newest configuration |
//! | 0x02 | the address book |
//! | 0x03, group (u64, big-endian) | the data the group id was first used with |
//! | 0x04, number (u64, big-endian) | that configuration |
//! | 0x05... | sessions ([`raft::rsm::sessions`]) |
//! | 0x06 | number of the oldest configuration, if that is not 0: the controllers were recovered there |
//! | 0x07 | weights and pins, once one was set ([`Placement`]) |
//!
//! Every value is written by [`base::codec`]; a configuration is stored as its maker wrote it.
//! Configurations are never deleted: the history is the cluster's memory of where rows may be.

use std::collections::BTreeMap;

use bytes::Bytes;
use clerk::api::config::{AddressBook, Sealed};
use clerk::api::placement::Placement;
use clerk::api::{ConfigNum, Digest, GroupId, Incarnation};
use raft::rsm::Rows;
use raft::storage::{Read, ScanLimit, unreadable};
use serde::Serialize;
use serde::de::DeserializeOwned;

const NEWEST: &[u8] = &[0x01];
const BOOK: &[u8] = &[0x02];
const INCARNATION: u8 = 0x03;
const CONFIG: u8 = 0x04;
/// Where the session rows start.
pub const SESSIONS: &[u8] = &[0x05];
const OLDEST: &[u8] = &[0x06];
const PLACEMENT: &[u8] = &[0x07];

/// Configurations of one page.
pub const PAGE_CONFIGS: usize = 64;
/// A page ends after the configuration that reaches this many bytes: with 16,384 shards one
/// configuration has 300 KiB, and an answer must fit a frame.
const PAGE_BYTES: usize = 512 * 1024;

fn numbered(kind: u8, number: u64) -> [u8; 9] {
    let mut key = [kind; 9];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

/// A row that this build wrote and cannot read is a damaged store (correctness rule 29).
fn read<T: DeserializeOwned>(value: &Bytes) -> T {
    base::codec::decode(value, value.len())
        .unwrap_or_else(|error| unreadable("decode a row of the controller", &error))
}

fn put<T: Serialize>(rows: &mut dyn Rows, key: &[u8], value: &T) {
    rows.put(Bytes::copy_from_slice(key), base::codec::encode(value));
}

/// The number of the newest configuration; none before configuration 0.
pub fn newest(rows: &dyn Read) -> Option<ConfigNum> {
    rows.get(NEWEST).map(|value| read(&value))
}

/// The key of the cluster, from the first configuration on.
pub fn cluster_key(rows: &dyn Read) -> Option<u64> {
    newest(rows).and_then(|newest| config(rows, newest)).map(|config| config.key)
}

/// The number of the oldest configuration; 0, unless the controllers were recovered.
pub fn oldest(rows: &dyn Read) -> ConfigNum {
    rows.get(OLDEST).map_or(ConfigNum(0), |value| read(&value))
}

/// Sets the first configuration that the controllers know.
pub fn put_oldest(rows: &mut dyn Rows, num: ConfigNum) {
    put(rows, OLDEST, &num);
}

/// A row that this build wrote and cannot read is a damaged store (correctness rule 29).
fn unseal(value: &Bytes) -> Sealed {
    Sealed::read(value.clone()).unwrap_or_else(|error| unreadable("decode a configuration", &error))
}

/// The digest of a configuration.
pub fn digest(rows: &dyn Read, num: ConfigNum) -> Option<Digest> {
    rows.get(&numbered(CONFIG, num.0)).map(|value| Digest::of(&value))
}

/// A configuration.
pub fn config(rows: &dyn Read, num: ConfigNum) -> Option<Sealed> {
    rows.get(&numbered(CONFIG, num.0)).map(|value| unseal(&value))
}

/// A page of the configurations with larger numbers than `after` (all, if none), without a gap.
pub fn configs_after(rows: &dyn Read, after: Option<ConfigNum>) -> Vec<Sealed> {
    let Some(first) = after.map_or(Some(0), |after| after.0.checked_add(1)) else {
        return Vec::new();
    };
    let limit = ScanLimit { rows: PAGE_CONFIGS, bytes: PAGE_BYTES };
    let page = rows.scan(&numbered(CONFIG, first), Some(&[CONFIG + 1]), limit);
    page.iter().map(|(_, value)| unseal(value)).collect()
}

/// The newest address book.
pub fn book(rows: &dyn Read) -> AddressBook {
    rows.get(BOOK).map_or_else(AddressBook::default, |value| read(&value))
}

/// The version of the newest address book, without reading all of it: it may be megabytes.
pub fn book_version(rows: &dyn Read) -> u64 {
    // The first field, after the version byte of the row.
    let version = |value: &Bytes| value.get(1..9).and_then(|bytes| bytes.try_into().ok());
    rows.get(BOOK).as_ref().and_then(version).map_or(0, u64::from_le_bytes)
}

/// The newest address book, to be written again. A field that this build does not know is an error:
/// the written book would differ from that of other replicas.
pub fn whole_book(rows: &dyn Read) -> AddressBook {
    let book = book(rows);
    if rows.get(BOOK).is_some_and(|value| base::codec::encode(&book) != value) {
        unreadable(
            "decode the address book: run the build that wrote it",
            &"it has a field that this build does not know",
        );
    }
    book
}

/// The data each group id was first used with.
pub fn incarnations(rows: &dyn Read) -> BTreeMap<GroupId, Incarnation> {
    let limit = ScanLimit { rows: usize::MAX, bytes: usize::MAX };
    let found = rows.scan(&[INCARNATION], Some(&[INCARNATION + 1]), limit);
    let entry = |(key, value): &(Bytes, Bytes)| {
        let id = key.get(1..).and_then(|id| <[u8; 8]>::try_from(id).ok());
        let id = id
            .unwrap_or_else(|| unreadable("decode a row of the controller", &"a group id of another length"));
        (GroupId(u64::from_be_bytes(id)), read(value))
    };
    found.iter().map(entry).collect()
}

/// Adds the configuration that follows the newest.
pub fn put_config(rows: &mut dyn Rows, config: &Sealed) {
    rows.put(Bytes::copy_from_slice(&numbered(CONFIG, config.num.0)), config.bytes().clone());
    put(rows, NEWEST, &config.num);
}

/// Replaces the address book.
pub fn put_book(rows: &mut dyn Rows, book: &AddressBook) {
    put(rows, BOOK, book);
}

/// The weights and pins in force.
pub fn placement(rows: &dyn Read) -> Placement {
    rows.get(PLACEMENT).map_or_else(Placement::default, |value| read(&value))
}

/// Replaces the weights and pins.
pub fn put_placement(rows: &mut dyn Rows, placement: &Placement) {
    put(rows, PLACEMENT, placement);
}

/// Remembers the data a group id is first used with.
pub fn put_incarnation(rows: &mut dyn Rows, group: GroupId, incarnation: Incarnation) {
    put(rows, &numbered(INCARNATION, group.0), &incarnation);
}
