//! The program `mr`: MapReduce from the command line.
//!
//! It is also a library: your own program calls [`main`] with its own [`apps`](find).
//!
//! ```no_run
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() {
//!     std::process::exit(mapreduce_cli::main(mapreduce_cli::find).await)
//! }
//! ```

mod apps;
mod commands;
mod plan;
mod serve;
mod show;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use base::clock;
use clap::{Parser, Subcommand};

use mapreduce::{Directory, Fault, Job, PATIENCE, Remote, Run, Spec, Store, Worker, sequential};

use commands::Commands;

pub use apps::{Find, find, words};

const DIRECTORY: &str = "mr-data";

/// Wrong usage: exit 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// MapReduce on files or on the store, with workers that may die.
#[derive(Debug, Parser)]
#[command(
    name = "mr",
    version,
    after_help = "Examples:
  mr run wc book/*.txt                                  counts words: mr-data/mr-out-0 and so on
  mr run wc book/*.txt --into-store wc/ --add           adds the counts to wc/WORD in the store of ./clerk-data
  mr run wc --from-store ''                             counts the words of all values of the store
  mr run --map 'cut -f1' --reduce 'uniq -c' log.tsv     your own programs: lines key TAB value
  mr status"
)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Makes a job and runs it: a coordinator here, and workers.
    Run(plan::RunArgs),
    /// Continues a job whose coordinator is gone.
    #[command(visible_alias = "coordinator")]
    Resume {
        /// The job's directory.
        #[arg(default_value = DIRECTORY)]
        dir: PathBuf,
        #[command(flatten)]
        serve: serve::Serve,
    },
    /// Works for a job, here or on another machine that sees its directory.
    Worker {
        /// The job's directory.
        #[arg(default_value = DIRECTORY)]
        dir: PathBuf,
        /// Ends when standard input ends.
        #[arg(long, hide = true)]
        tied: bool,
    },
    /// Shows the tasks of a job.
    Status {
        /// The job's directory.
        #[arg(default_value = DIRECTORY)]
        dir: PathBuf,
        /// One JSON document.
        #[arg(long)]
        json: bool,
        /// Writes a page with bars instead: which worker did what, and when.
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
    },
    /// Deletes the files of a job, and frees its lock in the store. The job's marks in the store
    /// stay: they keep a worker that still runs from counting twice.
    Clean {
        /// The job's directory.
        #[arg(default_value = DIRECTORY)]
        dir: PathBuf,
    },
    /// Runs an app in one process without workers, and prints the sorted output.
    Sequential {
        /// The app.
        app: String,
        /// The inputs.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

/// Runs the program `mr` with these apps, and returns its exit code.
pub async fn main(find: Find) -> i32 {
    perform(Args::parse().verb, find).await.unwrap_or_else(|error| {
        eprintln!("mr: {error:#}");
        if error.is::<Usage>() { 2 } else { 1 }
    })
}

async fn perform(verb: Verb, find: Find) -> anyhow::Result<i32> {
    match verb {
        Verb::Run(run) => {
            let (directory, spec, serve) = plan::make(run, find).await?;
            return serve::serve(directory, spec, &serve).await;
        }
        Verb::Resume { dir, serve } => {
            let (directory, spec) = Directory::open(&dir)?;
            return serve::serve(directory, spec, &serve).await;
        }
        Verb::Worker { dir, tied } => work(&dir, tied, find).await?,
        Verb::Status { dir, json, html } => {
            let (directory, spec) = Directory::open(&dir)?;
            let (job, note) = match Remote::new(directory.clone(), spec.id).view().await {
                Ok(job) => (job, String::new()),
                Err(why) => show::of_marks(&directory, &spec, &why)?,
            };
            match html {
                Some(path) => write_page(&path, &job)?,
                None if json => print(&format!("{}\n", serde_json::to_string(&job)?))?,
                None => print(&format!("{}{note}\n", show::table(&job)))?,
            }
        }
        Verb::Clean { dir } => clean(&dir).await?,
        Verb::Sequential { app, files } => alone(&app, files, find).await?,
    }
    Ok(0)
}

/// The job's store, if it is the cluster that the job began with.
async fn store(spec: &Spec, within: Duration) -> anyhow::Result<Store> {
    Ok(Store::connect(&spec.controllers, Some(&spec.cluster), within).await?.0)
}

async fn work(dir: &Path, is_tied: bool, find: Find) -> anyhow::Result<()> {
    if is_tied {
        std::thread::spawn(end_with_input);
    }
    let (directory, spec) = Directory::open(dir)?;
    let program = match &spec.run {
        Run::App(name) => find(name, &directory.own).map_err(Usage)?,
        Run::Commands(map, reduce) => Box::new(Commands::new(map.clone(), reduce.clone())?),
    };
    let there = if spec.controllers.is_empty() { None } else { Some(store(&spec, PATIENCE).await?) };
    // Another machine may have the same process ids. Numbers in a JSON document have 53 bits.
    let me = rand::random_range(0..1_u64 << 21) << 32 | u64::from(std::process::id());
    let coordinator = &Remote::new(directory.clone(), spec.id);
    let (directory, spec, program, store) = (&directory, &spec, &*program, there.as_ref());
    Worker { coordinator, directory, spec, program, store, me }.run().await
}

/// Ends this process when the coordinator that started it is gone, however that ended. The app
/// may be busy, so a separate thread watches.
fn end_with_input() {
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    std::process::exit(1);
}

async fn clean(dir: &Path) -> anyhow::Result<()> {
    let (directory, spec) = Directory::open(dir)?;
    let answer = Remote::new(directory.clone(), spec.id).view().await;
    ensure!(answer.is_err(), "the job is running: stop its coordinator first");
    if spec.output.is_some() {
        let free = async { anyhow::Ok(store(&spec, Duration::ZERO).await?.hold(spec.id, None).await?) };
        free.await.with_context(|| {
            format!(
                "nothing was cleaned, for the job's prefix could not be given back to the store (is that gone for good? \
                 delete {} by hand)",
                dir.display()
            )
        })?;
    }
    Ok(directory.clean(&spec)?)
}

async fn alone(app: &str, files: Vec<PathBuf>, find: Find) -> anyhow::Result<()> {
    let program = find(app, Path::new(".")).map_err(Usage)?;
    let files = plan::files(files)?;
    let start = clock::now();
    let pairs = sequential(&*program, &files).await.map_err(|fault| match fault {
        Fault::Failed(record, text) => anyhow!("{record}: {text}"),
        Fault::Exit => anyhow!("the app ended its process"),
    })?;
    eprintln!("mr: sequential: {} keys in {:.2} s", pairs.len(), start.elapsed().as_secs_f64());
    print(&pairs.iter().map(|(key, value)| format!("{key} {value}\n")).collect::<String>())
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("standard output")
}

fn write_page(path: &Path, job: &Job) -> anyhow::Result<()> {
    std::fs::write(path, show::page(job)).with_context(|| format!("the page {}", path.display()))
}
