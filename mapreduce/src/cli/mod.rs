//! The verbs.

mod coordinate;
mod page;
mod plan;
mod status;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use base::clock;
use clap::{Parser, Subcommand};
use mapreduce::files::{Directory, Run};
use mapreduce::program::{Fault, Program};
use mapreduce::remote::Remote;
use mapreduce::store::{PATIENCE, Store};
use mapreduce::trials::Host;
use mapreduce::worker::{Ended, Worker, sequential};
use rand::SeedableRng;

/// Called wrongly: exit 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

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
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Makes a job and does it: a coordinator here, and workers.
    Run(plan::RunArgs),
    /// Goes on with a job whose coordinator is gone.
    #[command(visible_alias = "coordinator")]
    Resume {
        /// The job's directory.
        #[arg(default_value = plan::DIRECTORY)]
        dir: PathBuf,
        #[command(flatten)]
        serve: coordinate::Serve,
    },
    /// Works for a job, here or on another machine that sees its directory.
    Worker {
        /// The job's directory.
        #[arg(default_value = plan::DIRECTORY)]
        dir: PathBuf,
        /// Ends when standard input ends.
        #[arg(long, hide = true)]
        tied: bool,
    },
    /// Shows the tasks of a job.
    Status(status::StatusArgs),
    /// Deletes the files of a job, and frees its lock in the store. Its marks there stay: they keep a worker that still
    /// runs from counting twice.
    Clean {
        /// The job's directory.
        #[arg(default_value = plan::DIRECTORY)]
        dir: PathBuf,
    },
    /// Does an app in one process without workers, and prints the sorted output.
    Sequential {
        /// The app.
        app: String,
        /// The inputs.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

pub(crate) async fn perform(args: Args) -> anyhow::Result<i32> {
    match args.verb {
        Verb::Run(run) => {
            let (directory, spec, serve) = plan::make(run).await?;
            coordinate::coordinate(directory, spec, &serve).await
        }
        Verb::Resume { dir, serve } => {
            let (directory, spec) = Directory::open(&dir)?;
            directory.reopen()?;
            coordinate::coordinate(directory, spec, &serve).await
        }
        Verb::Worker { dir, tied } => work(&dir, tied).await,
        Verb::Status(args) => status::status(&args).await,
        Verb::Clean { dir } => clean(&dir).await,
        Verb::Sequential { app, files } => alone(app, files).await,
    }
}

fn host(directory: &Path) -> Host {
    // Process ids repeat on other machines. Documents have numbers of 53 bits.
    let me = rand::random_range(0..1_u64 << 21) << 32 | u64::from(std::process::id());
    let alive = |worker: u64| Path::new(&format!("/proc/{}", worker & u64::from(u32::MAX))).exists();
    let random = Mutex::new(rand::rngs::StdRng::seed_from_u64(rand::random()));
    Host { me, directory: directory.to_owned(), alive: Box::new(alive), random }
}

async fn work(dir: &Path, is_tied: bool) -> anyhow::Result<i32> {
    if is_tied {
        std::thread::spawn(end_with_input);
    }
    let (directory, spec) = Directory::open(dir)?;
    let program = Program::of(&spec.run).map_err(anyhow::Error::msg)?;
    let store = match spec.controllers.is_empty() {
        true => None,
        false => Some(Store::connect(&spec.controllers, PATIENCE).await?),
    };
    let host = host(directory.own());
    let remote = Remote::new(directory.clone(), spec.id);
    let (coordinator, directory, spec) = (&remote, &directory, &spec);
    let worker =
        Worker { coordinator, directory, spec, program: &program, store: store.as_ref(), host: &host };
    match worker.run().await {
        Ended::Over => Ok(0),
        Ended::Exit => Ok(1),
        Ended::Unreachable(why) => Err(why.into()),
    }
}

/// Ends this process and the commands that it runs when the coordinator that started it is gone, however it went. The
/// app may be busy, so a thread of its own watches.
fn end_with_input() {
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    let _ = rustix::process::kill_current_process_group(rustix::process::Signal::KILL);
}

async fn clean(dir: &Path) -> anyhow::Result<i32> {
    let (directory, spec) = Directory::open(dir)?;
    if status::ask(&directory, &spec).await.is_ok() {
        bail!("the job is running: stop its coordinator first");
    }
    if spec.output.is_some() {
        let free = async { Store::connect(&spec.controllers, Duration::ZERO).await?.release(spec.id).await };
        free.await.with_context(|| {
            format!(
                "nothing was cleaned, for the job's prefix could not be given back to the store (is that gone for good? \
                 delete {} by hand)",
                dir.display()
            )
        })?;
    }
    directory.clean(&spec)?;
    Ok(0)
}

async fn alone(app: String, files: Vec<PathBuf>) -> anyhow::Result<i32> {
    let program = Program::of(&Run::App(app)).map_err(Usage)?;
    let files = plan::files(files)?;
    let start = clock::now();
    let pairs = sequential(&program, &host(Path::new(".")), &files).await;
    let pairs = pairs.map_err(|fault| match fault {
        Fault::Failed(record, text) => anyhow!("{record}: {text}"),
        Fault::Exit => anyhow!("the app ended its process"),
    })?;
    eprintln!("mr: sequential: {} keys in {:.2} s", pairs.len(), start.elapsed().as_secs_f64());
    let text: String = pairs.iter().map(|(key, value)| format!("{key} {value}\n")).collect();
    std::io::stdout().write_all(text.as_bytes()).context("standard output")?;
    Ok(0)
}
