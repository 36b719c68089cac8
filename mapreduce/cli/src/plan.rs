//! Makes a job from the command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use clap::Args;

use mapreduce::{Directory, Input, Output, Run, Spec, Store, TASKS_MAX, check, is_reserved};

use crate::apps::Find;
use crate::serve::Serve;
use crate::{DIRECTORY, Usage};

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The app (wc, indexer) and then the input files; only the files with --map and --reduce.
    #[arg(value_name = "APP FILE")]
    words: Vec<PathBuf>,
    /// Your own map: a shell command.
    #[arg(long, value_name = "CMD", requires = "reduce")]
    map: Option<String>,
    /// Your own reduce: a shell command.
    #[arg(long, value_name = "CMD", requires = "map")]
    reduce: Option<String>,
    /// The number of reducers.
    #[arg(long, default_value_t = 10, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    reduces: u32,
    /// The job's directory.
    #[arg(long, default_value = DIRECTORY)]
    dir: PathBuf,
    /// Read the rows of the store whose keys begin with this, instead of files. Each row is a
    /// record.
    #[arg(long, value_name = "PREFIX")]
    from_store: Option<String>,
    /// Also write the results into the store, each at PREFIX followed by its key.
    #[arg(long, value_name = "PREFIX")]
    into_store: Option<String>,
    /// Add them to the numbers that are there, instead of replacing those.
    #[arg(long, requires = "into_store")]
    add: bool,
    /// The controllers of the store.
    #[arg(long, env = "CLERK_CONTROLLERS", value_name = "HOST:PORT,...", value_delimiter = ',')]
    controllers: Vec<String>,
    /// The directory of a local store.
    #[arg(long, env = "CLERK_DIR", value_name = "DIR", default_value = "clerk-data")]
    store: PathBuf,
    #[command(flatten)]
    serve: Serve,
}

/// Makes the job that the arguments describe.
pub(super) async fn make(args: RunArgs, find: Find) -> anyhow::Result<(Directory, Spec, Serve)> {
    let wrong = |why: String| Err(anyhow::Error::from(Usage(why)));
    let mut words = args.words.into_iter();
    let run = match (args.map, args.reduce, &args.from_store, &args.into_store) {
        (_, _, Some(from), Some(into)) if from.starts_with(into) || into.starts_with(from) => {
            return wrong(format!("the job would read what it writes: {from:?} and {into:?} overlap"));
        }
        (_, _, _, Some(into)) if is_reserved(into.as_bytes()) => {
            return wrong(format!("{into:?} is where `mr` keeps its own books: write under another prefix"));
        }
        (Some(map), Some(reduce), ..) => Run::Commands(map, reduce),
        _ => {
            let app = words.next().ok_or_else(|| Usage("no app: `mr run wc FILE...`".into()))?;
            Run::App(app.to_string_lossy().into_owned())
        }
    };
    if let Run::App(name) = &run {
        find(name, Path::new(".")).map_err(Usage)?;
    }
    let uses_store = args.from_store.is_some() || args.into_store.is_some();
    let controllers = match (uses_store, args.controllers.is_empty()) {
        (false, _) => Vec::new(),
        (true, false) => args.controllers,
        (true, true) => controllers_of(&args.store)?,
    };
    let (mut shards, mut cluster) = (0, String::new());
    if uses_store {
        let (store, name) = Store::connect(&controllers, None, Duration::ZERO).await?;
        (shards, cluster) = (store.limits().await?.shard_count, name);
    }
    let input = match args.from_store {
        None => Input::Files(files(words.collect())?),
        Some(_) if words.next().is_some() => return wrong("files or --from-store, not both".into()),
        Some(prefix) => Input::Store { prefix, shards },
    };
    let output = args.into_store.map(|prefix| Output { prefix, add: args.add });
    let (id, reduces) = (rand::random(), args.reduces);
    let spec = Spec { id, run, input, reduces, output, controllers, cluster };
    let maps = spec.maps();
    ensure!(maps as usize <= TASKS_MAX, "{maps} inputs are more than {TASKS_MAX}: join some");
    Ok((Directory::create(&args.dir, &spec)?, spec, args.serve))
}

/// The files that can be read: their names and their paths.
pub(super) fn files(paths: Vec<PathBuf>) -> anyhow::Result<Vec<(String, PathBuf)>> {
    if paths.is_empty() {
        bail!(Usage("no input files".into()));
    }
    let one = |path: PathBuf| -> anyhow::Result<(String, PathBuf)> {
        let name = path.to_str().with_context(|| format!("{}: its name is not UTF-8", path.display()))?;
        check(&path).map_err(|why| anyhow!("{name}: {why}"))?;
        Ok((name.to_owned(), path.canonicalize()?))
    };
    paths.into_iter().map(one).collect()
}

/// The controllers of a local cluster, as `clerk up` wrote them down.
fn controllers_of(directory: &Path) -> anyhow::Result<Vec<String>> {
    let path = directory.join("cluster.json");
    let named = |next| {
        format!("{}: {next}`clerk up` makes a store here, --controllers names one elsewhere", path.display())
    };
    let text = std::fs::read(&path).with_context(|| named(""))?;
    let document: serde_json::Value = serde_json::from_slice(&text).with_context(|| named(""))?;
    let servers = document["cluster"]["servers"].as_object().into_iter().flatten();
    let controllers = servers.filter(|(_, server)| server["group"] == 0);
    let addresses = controllers.filter_map(|(_, server)| Some(server["address"].as_str()?.to_owned()));
    let addresses: Vec<String> = addresses.collect();
    ensure!(!addresses.is_empty(), named("it names no controllers: "));
    Ok(addresses)
}
