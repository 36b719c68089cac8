//! The verbs about one key.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;

use anyhow::Context as _;
use bytes::Bytes;
use clerk::api::Version;
use serde_json::json;

use crate::args;
use crate::context::Context;
use crate::failure::Failure;
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
    let (key, value) = (bytes(&put.key), value(&put.value).await?);
    let clerk = context.clerk().await?;
    let version = match put.if_version {
        Some(expected) => clerk.put_if(key.clone(), value, Version(expected)).await?,
        None => clerk.put(key.clone(), value).await?,
    };
    written(context, &key, version);
    Ok(())
}

pub(crate) async fn append(context: &Context, append: &args::Append) -> Result<(), Failure> {
    let (key, piece) = (bytes(&append.key), value(&append.value).await?);
    let version = context.clerk().await?.append(key.clone(), piece).await?;
    written(context, &key, version);
    Ok(())
}

/// Deleting what is not there is done, too: version 0 tells.
pub(crate) async fn delete(context: &Context, delete: &args::Delete) -> Result<(), Failure> {
    let key = bytes(&delete.key);
    let version = context.clerk().await?.delete(key.clone()).await?;
    written(context, &key, version);
    Ok(())
}

fn written(context: &Context, key: &[u8], version: Version) {
    let document = json!({"key": json_bytes(key), "version": version.0});
    context.output.answer(&document, || format!("version {version}\n"));
}

/// The argument itself; `-`: standard input, all of it.
async fn value(argument: &OsString) -> Result<Bytes, Failure> {
    if argument != "-" {
        return Ok(bytes(argument));
    }
    // On a thread of its own: nothing may come for ever, and Ctrl-C has to be heard.
    let read = tokio::task::spawn_blocking(|| {
        let mut value = Vec::new();
        std::io::stdin().lock().read_to_end(&mut value).map(|_| Bytes::from(value))
    });
    let value = read.await.context("cannot read standard input")?;
    Ok(value.context("cannot read standard input")?)
}

fn bytes(argument: &OsString) -> Bytes {
    Bytes::from(argument.clone().into_vec())
}
