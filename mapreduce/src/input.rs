//! The records of a map task: a file is one record, a shard of the store one for each row.

use std::path::Path;

use bytes::Bytes;
use clerk::api::ShardId;
use clerk::api::kv::Item;

use crate::files::{Input, Spec};
use crate::program::Fault;
use crate::store::{Store, is_reserved};

/// Bytes of a file.
pub const FILE_BYTES_MAX: u64 = 256 << 20;
/// Rows of a page.
const PAGE: u32 = 250;

/// Names and texts of records.
pub type Records = Vec<(String, String)>;

/// The records of map task `number` behind a key: a page, which may be empty, and the key behind which the next one begins;
/// none: that was all.
///
/// # Errors
/// The record, and in words what is wrong with it.
pub async fn page(
    spec: &Spec,
    store: Option<&Store>,
    number: u32,
    after: Option<&Bytes>,
) -> Result<(Records, Option<Bytes>), Fault> {
    match (&spec.input, store) {
        (Input::Files(files), _) => {
            let file = files.get(usize::try_from(number).unwrap_or(usize::MAX));
            let (name, path) = file.ok_or_else(|| Fault::of("the job", "it has no such input"))?;
            let text = read(path).map_err(|why| Fault::of(name, why))?;
            Ok((vec![(name.clone(), text)], None))
        }
        (Input::Store { .. }, None) => Err(Fault::of("the job", "it names no store")),
        (Input::Store { prefix, .. }, Some(store)) => {
            let page = store.scan(ShardId(number), after, PAGE).await;
            let page = page.map_err(|error| Fault::of("a page of the store", error))?;
            let is_meant = |key: &[u8]| key.starts_with(prefix.as_bytes()) && !is_reserved(key);
            let items = page.items.iter().filter(|item| is_meant(&item.key));
            let record = |item: &Item| -> Result<_, Fault> {
                Ok((text(&item.key, &item.key)?, text(&item.key, &item.value)?))
            };
            let last = page.items.last().filter(|_| !page.done);
            Ok((items.map(record).collect::<Result<_, _>>()?, last.map(|item| item.key.clone())))
        }
    }
}

fn text(key: &[u8], bytes: &[u8]) -> Result<String, Fault> {
    let not = |error| Fault::of(String::from_utf8_lossy(key), utf8_error(&error));
    std::str::from_utf8(bytes).map(str::to_owned).map_err(not)
}

fn utf8_error(error: &std::str::Utf8Error) -> String {
    format!("not UTF-8 from byte {} on: convert it, with iconv for instance", error.valid_up_to())
}

/// Whether a file can be read, without waiting for one that is a pipe.
///
/// # Errors
/// In words.
pub fn check(path: &Path) -> Result<(), String> {
    let file = std::fs::metadata(path).map_err(|error| error.to_string())?;
    match file.len() {
        _ if !file.is_file() => Err("not a file".to_owned()),
        bytes if bytes > FILE_BYTES_MAX => {
            Err(format!("{bytes} bytes exceed the limit of {FILE_BYTES_MAX}: split it"))
        }
        _ => std::fs::File::open(path).map(drop).map_err(|error| error.to_string()),
    }
}

/// Reads a file as text.
///
/// # Errors
/// In words.
pub fn read(path: &Path) -> Result<String, String> {
    check(path)?;
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|error| utf8_error(&error.utf8_error()))
}
