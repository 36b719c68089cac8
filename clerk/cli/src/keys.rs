//! The verbs about one key.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;

use anyhow::Context as _;
use bytes::Bytes;
use clerk::api::Version;
use clerk::kv::Clerk;
use serde_json::json;

use crate::args;
use crate::context::Context;
use crate::failure::{Failure, on_interrupt};
use crate::output::json_bytes;

pub(crate) async fn get(context: &Context, get: &args::Get) -> Result<(), Failure> {
    let key = bytes(&get.key);
    let got = context.clerk().await?.get(key.clone()).await?;
    let Some(value) = got.value else {
        let shown = String::from_utf8_lossy(&key).into_owned();
        return Err(Failure::new("not_found", format!("there is no key {shown:?}")));
    };
    if context.output.is_json() {
        let document =
            json!({"key": json_bytes(&key), "value": json_bytes(&value), "version": got.version.0});
        context.output.answer(&document, String::new);
    } else {
        let mut text = value.to_vec();
        if !get.raw {
            text.push(b'\n');
        }
        context.output.bytes(&text);
    }
    Ok(())
}

pub(crate) async fn put(context: &Context, put: &args::Put) -> Result<(), Failure> {
    before_a_write();
    let (key, clerk) = (bytes(&put.key), context.clerk().await?);
    let value = value(&put.value, put.literal, &clerk).await?;
    during_a_write();
    let version = match put.if_version {
        Some(expected) => clerk.put_if(key.clone(), value, Version(expected)).await?,
        None => clerk.put(key.clone(), value).await?,
    };
    written(context, &key, version);
    Ok(())
}

pub(crate) async fn append(context: &Context, append: &args::Append) -> Result<(), Failure> {
    before_a_write();
    let (key, clerk) = (bytes(&append.key), context.clerk().await?);
    let piece = value(&append.value, append.literal, &clerk).await?;
    during_a_write();
    let version = clerk.append(key.clone(), piece).await?;
    written(context, &key, version);
    Ok(())
}

/// Deleting a missing key succeeds too: version 0 shows it.
pub(crate) async fn delete(context: &Context, delete: &args::Delete) -> Result<(), Failure> {
    before_a_write();
    let (key, clerk) = (bytes(&delete.key), context.clerk().await?);
    during_a_write();
    let version = clerk.delete(key.clone()).await?;
    written(context, &key, version);
    Ok(())
}

fn written(context: &Context, key: &[u8], version: Version) {
    let document = json!({"key": json_bytes(key), "version": version.0});
    context.output.answer(&document, || format!("version {version}\n"));
}

/// Ctrl-C tells whether the write may have been done.
fn before_a_write() {
    on_interrupt("interrupted: nothing was written", "");
}

fn during_a_write() {
    on_interrupt(
        "interrupted: the write may have been done, or may still be",
        "read the key before writing it again",
    );
}

/// The argument itself; `-`: standard input, up to the limit of a value, unless the argument is
/// meant literally.
async fn value(argument: &OsString, literal: bool, clerk: &Clerk) -> Result<Bytes, Failure> {
    if literal || argument != "-" {
        return Ok(bytes(argument));
    }
    let limit = clerk.limits().await?.value_bytes_max;
    // On a separate thread: input may never come, and Ctrl-C has to work.
    let read = tokio::task::spawn_blocking(move || read_at_most(std::io::stdin().lock(), limit));
    let value = read.await.context("cannot read standard input")?;
    value.context("cannot read standard input")?.ok_or_else(|| {
        let message =
            format!("standard input has more bytes than this cluster's limit of {limit} for a value");
        Failure::new("value_too_large", message)
    })
}

/// All of it; none: it has more than `limit` bytes, and only one byte more than that was read.
fn read_at_most(reader: impl Read, limit: u32) -> std::io::Result<Option<Bytes>> {
    let mut value = Vec::new();
    reader.take(u64::from(limit) + 1).read_to_end(&mut value)?;
    Ok((value.len() as u64 <= u64::from(limit)).then(|| Bytes::from(value)))
}

fn bytes(argument: &OsString) -> Bytes {
    Bytes::from(argument.clone().into_vec())
}

#[cfg(test)]
mod tests {
    use super::read_at_most;

    #[test]
    fn no_more_is_read_than_a_value_may_have() {
        assert_eq!(read_at_most(&b"four"[..], 4).unwrap().as_deref(), Some(&b"four"[..]));
        // Without a limit this would not end.
        assert_eq!(read_at_most(std::io::repeat(b'x'), 4).unwrap(), None);
    }
}
