//! What job is meant.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use mapreduce::files::{Directory, Input, Output, Run, Spec};
use mapreduce::input;
use mapreduce::job::TASKS_MAX;
use mapreduce::program::Program;
use mapreduce::store::{Store, is_reserved};

use super::Usage;
use super::coordinate::Serve;

pub(crate) const DIRECTORY: &str = "mr-data";
const STORE: &str = "clerk-data";

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The app (wc, indexer), unless --map and --reduce are given; then the input files.
    #[arg(value_name = "APP FILE")]
    words: Vec<PathBuf>,
    /// Your own map: a command for the shell.
    #[arg(long, value_name = "CMD", requires = "reduce")]
    map: Option<String>,
    /// Your own reduce.
    #[arg(long, value_name = "CMD", requires = "map")]
    reduce: Option<String>,
    /// Reducers.
    #[arg(long, default_value_t = 10, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    reduces: u32,
    /// The job's directory.
    #[arg(long, default_value = DIRECTORY)]
    dir: PathBuf,
    /// Read the rows of the store whose keys begin so, instead of files: a record a row.
    #[arg(long, value_name = "PREFIX")]
    from_store: Option<String>,
    /// Write the results into the store, too: at PREFIX and the key.
    #[arg(long, value_name = "PREFIX")]
    into_store: Option<String>,
    /// Add them to the numbers that are there.
    #[arg(long, requires = "into_store")]
    add: bool,
    /// The controllers of the store.
    #[arg(long, env = "CLERK_CONTROLLERS", value_name = "HOST:PORT,...", value_delimiter = ',')]
    controllers: Vec<String>,
    /// The directory of a local store [default: ./clerk-data].
    #[arg(long, env = "CLERK_DIR", value_name = "DIR")]
    store: Option<PathBuf>,
    #[command(flatten)]
    serve: Serve,
}

/// Makes the job that is asked for.
pub(crate) async fn make(args: RunArgs) -> anyhow::Result<(Directory, Spec, Serve)> {
    let mut words = args.words.into_iter();
    let run = match (args.map, args.reduce) {
        (Some(map), Some(reduce)) => Run::Commands { map, reduce },
        _ => {
            let app = words.next().ok_or_else(|| Usage("no app: `mr run wc FILE...`".into()))?;
            Run::App(app.to_string_lossy().into_owned())
        }
    };
    Program::of(&run).map_err(Usage)?;
    let uses_store = args.from_store.is_some() || args.into_store.is_some();
    let controllers = match (uses_store, args.controllers.is_empty()) {
        (false, _) => Vec::new(),
        (true, false) => args.controllers,
        (true, true) => controllers_of(&args.store.unwrap_or_else(|| STORE.into()))?,
    };
    if let (Some(from), Some(into)) = (&args.from_store, &args.into_store)
        && (from.starts_with(into.as_str()) || into.starts_with(from.as_str()))
    {
        bail!(Usage(format!("the job would read what it writes: {from:?} and {into:?} overlap")));
    }
    if let Some(into) = args.into_store.as_ref().filter(|into| is_reserved(into.as_bytes())) {
        bail!(Usage(format!("{into:?} is where `mr` keeps its own books: write under another prefix")));
    }
    let shards = match uses_store {
        true => Store::connect(&controllers, Duration::ZERO).await?.limits().await?.shard_count,
        false => 0,
    };
    let input = match &args.from_store {
        None => Input::Files(files(words.collect())?),
        Some(_) if words.next().is_some() => bail!(Usage("files or --from-store, not both".into())),
        Some(prefix) => Input::Store { prefix: prefix.clone(), shards },
    };
    let output = args.into_store.map(|prefix| Output { prefix, add: args.add });
    let spec = Spec { id: rand::random(), run, input, reduces: args.reduces, output, controllers };
    if spec.maps() as usize > TASKS_MAX {
        bail!("{} inputs are more than {TASKS_MAX}: join some", spec.maps());
    }
    let directory = Directory::create(&args.dir, &spec)?;
    Ok((directory, spec, args.serve))
}

/// Files that can be read: their names, and their paths.
pub(crate) fn files(paths: Vec<PathBuf>) -> anyhow::Result<Vec<(String, PathBuf)>> {
    if paths.is_empty() {
        bail!(Usage("no input files".into()));
    }
    let one = |path: PathBuf| -> anyhow::Result<(String, PathBuf)> {
        let name = path.to_str().with_context(|| format!("{}: its name is not UTF-8", path.display()))?;
        input::check(&path).map_err(|why| anyhow!("{name}: {why}"))?;
        Ok((name.to_owned(), path.canonicalize()?))
    };
    paths.into_iter().map(one).collect()
}

/// The controllers of a local cluster, as `clerk up` wrote them down.
fn controllers_of(directory: &Path) -> anyhow::Result<Vec<String>> {
    let path = directory.join("cluster.json");
    let next = "`clerk up` makes a store here, --controllers names one elsewhere";
    let text = std::fs::read(&path).with_context(|| format!("{}: {next}", path.display()))?;
    let document: serde_json::Value = serde_json::from_slice(&text).context("cluster.json")?;
    let servers = document["cluster"]["servers"].as_object().into_iter().flatten();
    let controllers = servers.filter(|(_, server)| server["group"] == 0);
    let addresses: Vec<String> =
        controllers.filter_map(|(_, server)| Some(server["address"].as_str()?.to_owned())).collect();
    if addresses.is_empty() {
        bail!("{} names no controllers: {next}", path.display());
    }
    Ok(addresses)
}
