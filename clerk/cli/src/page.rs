//! `page`: the page of a cluster as one file, which needs no server any more.

use std::io::Read as _;

use clerk_survey::page::saved;
use serde_json::Value;

use crate::args;
use crate::context::Context;
use crate::failure::Failure;
use crate::survey::seen;

pub(crate) async fn page(context: &Context, page: &args::Page) -> Result<(), Failure> {
    let document = match &page.file {
        Some(file) => read(file)?,
        None => seen(context).await?,
    };
    context.output.bytes(saved(&document).as_bytes());
    Ok(())
}

/// The document in a file.
fn read(file: &std::path::Path) -> Result<Value, Failure> {
    let mut text = Vec::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().lock().read_to_end(&mut text).map(|_| ())
    } else {
        std::fs::read(file).map(|bytes| text = bytes)
    };
    let name = file.display();
    read.map_err(|error| Failure::new("io", format!("cannot read {name}: {error}")))?;
    let bad = |why: String| {
        Failure::new("bad_input", format!("{name}: {why}"))
            .next("clerk status -o json > FILE, or save what a controller shows as /v1/state")
    };
    let document: Value =
        serde_json::from_slice(&text).map_err(|error| bad(format!("this is no JSON: {error}")))?;
    let is_status = document.get("cluster").is_some() && document.get("groups").is_some();
    if is_status { Ok(document) } else { Err(bad("this is no status of a cluster".to_owned())) }
}
