//! The rows.

use anyhow::Result;
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use measure::load::{self, BATCH, Rows};
use measure::ours::Ours;

use crate::Line;
use crate::args::Args;
use crate::{pair, repair, watch};

/// Keys of every store that needs no more.
pub(crate) const KEYS: u64 = 10_000;
/// Bytes of their values.
pub(crate) const VALUE_BYTES: usize = 256;

#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
    pub(crate) measure: for<'a> fn(&'a Args) -> LocalBoxFuture<'a, Result<Vec<Line>>>,
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

pub(crate) const ROWS: [Row; 7] = [
    Row { name: "keys", text: "speed with many keys", measure: |args| keys(args).boxed_local() },
    Row { name: "shards", text: "speed with many shards", measure: |args| shards(args).boxed_local() },
    Row {
        name: "entries",
        text: "speed after many log entries",
        measure: |args| entries(args).boxed_local(),
    },
    Row {
        name: "configs",
        text: "speed after many configurations",
        measure: |args| configs(args).boxed_local(),
    },
    Row { name: "restart", text: "a follower starts", measure: |args| repair::restart(args).boxed_local() },
    Row {
        name: "catch-up",
        text: "a follower catches up",
        measure: |args| repair::catch_up(args).boxed_local(),
    },
    Row { name: "move", text: "a shard moves", measure: |args| repair::move_shard(args).boxed_local() },
];

async fn keys(args: &Args) -> Result<Vec<Line>> {
    let (small, large) = (Ours::start(), Ours::start());
    load::fill(&small, 0..KEYS, VALUE_BYTES).await?;
    load::fill(&large, 0..args.keys, VALUE_BYTES).await?;
    pair::compare(args, (&small, KEYS), (&large, args.keys)).await
}

async fn shards(args: &Args) -> Result<Vec<Line>> {
    let small = Ours::up(&["--groups", "1", "--shards", "10"]);
    let large = Ours::up(&["--groups", "1", "--shards", &args.shards.to_string()]);
    for ours in [&small, &large] {
        load::fill(ours, 0..KEYS, VALUE_BYTES).await?;
    }
    pair::compare(args, (&small, KEYS), (&large, KEYS)).await
}

async fn entries(args: &Args) -> Result<Vec<Line>> {
    /// Small ones: entries matter here, not bytes.
    const PUT_BYTES: usize = 16;
    let (small, large) = (Ours::start(), Ours::start());
    let commands = Rows {
        numbers: 0..args.entries,
        key: &|number| load::key(number % KEYS),
        value_bytes: PUT_BYTES,
        batch: 1,
    };
    load::put_rows(&large, &commands).await?;
    let commit = watch::leader(&large, 101).await?.commit;
    anyhow::ensure!(commit >= args.entries, "{} puts made only {commit} entries", args.entries);
    for ours in [&small, &large] {
        load::fill(ours, 0..KEYS, VALUE_BYTES).await?;
    }
    pair::compare(args, (&small, KEYS), (&large, KEYS)).await
}

async fn configs(args: &Args) -> Result<Vec<Line>> {
    let (small, large) = (Ours::up(&["--groups", "2"]), Ours::up(&["--groups", "2"]));
    for ours in [&small, &large] {
        load::fill(ours, 0..KEYS, VALUE_BYTES).await?;
    }
    watch::move_to_and_fro(&large, args.configs).await?;
    pair::compare(args, (&small, KEYS), (&large, KEYS)).await
}

/// Writes rows of about this many MiB under keys of one hash tag.
pub(crate) async fn fill_mib(ours: &Ours, tag: &str, args: &Args) -> Result<()> {
    let rows = (args.mib << 20) / u64::from(args.value_bytes);
    let key = |number| format!("{{{tag}}}{number:09}").into();
    let value_bytes = args.value_bytes as usize;
    load::put_rows(ours, &Rows { numbers: 0..rows, key: &key, value_bytes, batch: BATCH }).await
}
