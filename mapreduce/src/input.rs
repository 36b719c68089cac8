//! The records of a map task. A file is one record; a shard of the store has one record for each
//! row.

use std::path::Path;

use bytes::Bytes;
use clerk::api::ShardId;
use clerk::api::kv::Item;

use crate::files::{Input, Spec};
use crate::program::{Fault, Pairs};
use crate::store::{Store, is_reserved};

/// Bytes of a file.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// The records of map task `number` after a key, as names and texts: one page, which may be
/// empty, and the key after which the next page begins. Without such a key this page is the last
/// one.
pub(crate) async fn page(
    spec: &Spec,
    store: Option<&Store>,
    number: u32,
    after: Option<&Bytes>,
) -> Result<(Pairs, Option<Bytes>), Fault> {
    match (&spec.input, store) {
        (Input::Files(files), _) => {
            let file = files.get(number as usize);
            let (name, path) = file.ok_or_else(|| Fault::of("the job", "it has no such input"))?;
            let text = read(path).map_err(|why| Fault::of(name, why))?;
            Ok((vec![(name.clone(), text)], None))
        }
        (Input::Store { .. }, None) => Err(Fault::of("the job", "it names no store")),
        (Input::Store { prefix, .. }, Some(store)) => {
            let page = store.scan(ShardId(number), after).await;
            let page = page.map_err(|error| Fault::of("a page of the store", error))?;
            let is_meant = |key: &[u8]| key.starts_with(prefix.as_bytes()) && !is_reserved(key);
            let items = page.items.iter().filter(|item| is_meant(&item.key));
            let text = |item: &Item, bytes: &Bytes| {
                let text = text(bytes.to_vec());
                text.map_err(|why| Fault::of(String::from_utf8_lossy(&item.key), why))
            };
            let record = |item: &Item| Ok((text(item, &item.key)?, text(item, &item.value)?));
            let last = page.items.last().filter(|_| !page.done);
            Ok((items.map(record).collect::<Result<_, _>>()?, last.map(|item| item.key.clone())))
        }
    }
}

fn text(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|error| {
        let place = error.utf8_error().valid_up_to();
        format!("not UTF-8 from byte {place} on: convert it, with iconv for instance")
    })
}

/// Whether a file can be read as input; otherwise the reason. Does not wait if the file is a
/// pipe.
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
pub(crate) fn read(path: &Path) -> Result<String, String> {
    check(path)?;
    text(std::fs::read(path).map_err(|error| error.to_string())?)
}
