//! The records of a map task: a file is one record, a shard of the store one for each row.

use std::path::Path;

use bytes::Bytes;
use clerk::api::ShardId;

use crate::files::{Input, Spec};
use crate::store::Store;

/// Bytes of a file.
pub const FILE_BYTES_MAX: u64 = 256 << 20;
/// Rows of a page.
const PAGE: u32 = 1000;

/// A record: its name, and its text.
pub type Record = (String, String);

/// The records of one task, page by page.
pub enum Records<'a> {
    /// A file that was not read yet.
    File(&'a (String, std::path::PathBuf)),
    /// What follows a key of a shard.
    Shard {
        /// The store.
        store: &'a Store,
        /// The shard.
        shard: ShardId,
        /// What keys begin with.
        prefix: &'a str,
        /// The last key of the page before.
        after: Option<Bytes>,
    },
    /// Nothing more.
    Over,
}

impl<'a> Records<'a> {
    /// Those of map task `number`.
    ///
    /// # Errors
    /// In words.
    pub fn of(spec: &'a Spec, store: Option<&'a Store>, number: u32) -> Result<Self, String> {
        match &spec.input {
            Input::Files(files) => {
                let place = usize::try_from(number).unwrap_or(usize::MAX);
                files.get(place).map(Self::File).ok_or_else(|| format!("the job has no input {number}"))
            }
            Input::Store { prefix, .. } => {
                let store = store.ok_or("the job names no store")?;
                Ok(Self::Shard { store, shard: ShardId(number), prefix, after: None })
            }
        }
    }

    /// The next page; an empty one may be followed by others, none by nothing.
    ///
    /// # Errors
    /// The record, and in words what is wrong with it.
    pub async fn next(&mut self) -> Result<Option<Vec<Record>>, (String, String)> {
        match self {
            Self::Over => Ok(None),
            Self::File((name, path)) => {
                let text = read(path).map_err(|why| (name.clone(), why))?;
                let record = (name.clone(), text);
                *self = Self::Over;
                Ok(Some(vec![record]))
            }
            Self::Shard { store, shard, prefix, after } => {
                let page = store.scan(*shard, after.clone(), PAGE).await;
                let page = page.map_err(|error| (format!("shard {shard}"), error.to_string()))?;
                let mut records = Vec::new();
                for item in &page.items {
                    if item.key.starts_with(prefix.as_bytes()) {
                        records.push((text(&item.key, &item.key)?, text(&item.key, &item.value)?));
                    }
                }
                match page.items.last().filter(|_| !page.done) {
                    Some(last) => *after = Some(last.key.clone()),
                    None => *self = Self::Over,
                }
                Ok(Some(records))
            }
        }
    }
}

fn text(key: &[u8], bytes: &[u8]) -> Result<String, (String, String)> {
    let not = |error| (String::from_utf8_lossy(key).into_owned(), utf8_error(&error));
    std::str::from_utf8(bytes).map(str::to_owned).map_err(not)
}

fn utf8_error(error: &std::str::Utf8Error) -> String {
    format!("not UTF-8 from byte {} on: convert it, with iconv for instance", error.valid_up_to())
}

/// Reads a file as text.
///
/// # Errors
/// In words.
pub fn read(path: &Path) -> Result<String, String> {
    let bytes = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(format!("{bytes} bytes exceed the limit of {FILE_BYTES_MAX}: split it"));
    }
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|error| utf8_error(&error.utf8_error()))
}
