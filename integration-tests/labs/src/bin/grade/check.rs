//! `grade check HISTORY`.

use std::fs::File;
use std::io::BufReader;

use anyhow::Context;
use judge::history;
use judge::linearizability;
use serde_json::json;

use super::args::{Check, Format};

pub(super) fn check(args: &Check) -> anyhow::Result<bool> {
    let shown = args.history.display();
    let operations = match args.history.to_str() {
        Some("-") => history::read(std::io::stdin().lock()),
        _ => {
            let file = File::open(&args.history).with_context(|| format!("cannot open {shown}"))?;
            history::read(BufReader::new(file))
        }
    };
    let operations = operations.with_context(|| format!("{shown} is not a history (docs/cli.md)"))?;
    let verdict = linearizability::check(&operations);
    let clients: std::collections::BTreeSet<_> = operations.iter().map(|one| &one.client).collect();
    let keys: std::collections::BTreeSet<_> = operations.iter().map(|one| &one.key).collect();
    match args.output {
        Format::Json => {
            let anomaly = verdict.as_ref().err().map(
                |anomaly| json!({"key": anomaly.key, "what": anomaly.what, "operations": anomaly.operations}),
            );
            let (operations, clients, keys) = (operations.len(), clients.len(), keys.len());
            println!(
                "{}",
                json!({
                    "linearizable": verdict.is_ok(),
                    "operations": operations,
                    "clients": clients,
                    "keys": keys,
                    "anomaly": anomaly,
                })
            );
        }
        Format::Text => match &verdict {
            Ok(()) => println!(
                "linearizable: {} operations of {} clients on {} keys",
                operations.len(),
                clients.len(),
                keys.len()
            ),
            Err(anomaly) => println!("{anomaly}"),
        },
    }
    Ok(verdict.is_ok())
}
