//! The labs' apps that watch or disturb the workers which run them, and an app that panics.
//!
//! They sleep by [`base::clock`] and know their worker only as a `Host`, so they run in virtual time, too. On real
//! processes they are apps of the program `mr-trials`, which is `mr` with them in its table.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base::clock;
use mapreduce::{Fault, Groups, Made, Pairs, Program};
use mapreduce_cli::words;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The worker that runs a trial.
pub(super) struct Host {
    /// Its number: a process has its process id.
    pub(super) me: u64,
    /// Where trials leave marks for each other.
    pub(super) directory: PathBuf,
    /// Whether a worker is alive.
    pub(super) alive: Box<dyn Fn(u64) -> bool + Send + Sync>,
    /// Decides what happens.
    pub(super) random: Mutex<StdRng>,
}

impl Host {
    fn draw(&self, range: std::ops::Range<u64>) -> u64 {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).random_range(range)
    }
}

/// A trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trial {
    /// Maps tell how many run at once.
    MapTiming,
    /// Reduces do.
    ReduceTiming,
    /// Counts the maps that were run.
    JobCount,
    /// Some reduces take three seconds.
    EarlyExit,
    /// A third of all calls ends the worker, another third takes up to ten seconds.
    Crash,
    /// The same without.
    NoCrash,
    /// Panics on each text with the word "panic" in it.
    Panic,
    /// Draws its results, so no two attempts agree. Some take long.
    Dice,
    /// Counts words, and takes a moment for each text.
    Slow,
}

const TABLE: [(&str, Trial); 9] = [
    ("mtiming", Trial::MapTiming),
    ("rtiming", Trial::ReduceTiming),
    ("jobcount", Trial::JobCount),
    ("early_exit", Trial::EarlyExit),
    ("crash", Trial::Crash),
    ("nocrash", Trial::NoCrash),
    ("panic", Trial::Panic),
    ("dice", Trial::Dice),
    ("slow", Trial::Slow),
];

/// A trial by its name on a worker, or else an app of `mr`.
///
/// # Errors
/// The names of those.
pub(super) fn program(name: &str, host: Host) -> Result<Box<dyn Program>, String> {
    match TABLE.iter().find(|(other, _)| *other == name) {
        Some((_, trial)) => Ok(Box::new(OnHost { trial: *trial, host })),
        None => mapreduce_cli::find(name, &host.directory),
    }
}

/// The same for the program `mr-trials`: its workers are processes.
///
/// # Errors
/// As there.
pub fn find(name: &str, job: &Path) -> Result<Box<dyn Program>, String> {
    let alive = |process: u64| Path::new(&format!("/proc/{process}")).exists();
    let (me, random) = (u64::from(std::process::id()), Mutex::new(StdRng::seed_from_u64(rand::random())));
    program(name, Host { me, directory: job.to_owned(), alive: Box::new(alive), random })
}

struct OnHost {
    trial: Trial,
    host: Host,
}

impl Program for OnHost {
    fn map<'a>(&'a self, name: &'a str, text: &'a str) -> Made<'a> {
        Box::pin(self.trial.map(&self.host, name, text))
    }

    fn reduce<'a>(&'a self, groups: &'a Groups, record: &'a mut String) -> Made<'a> {
        Box::pin(async move {
            let mut pairs = Vec::with_capacity(groups.len());
            for (key, values) in groups {
                record.clone_from(key);
                pairs.push((key.clone(), self.trial.reduce(&self.host, key, values).await?));
            }
            Ok(pairs)
        })
    }
}

impl Trial {
    async fn map(self, host: &Host, name: &str, text: &str) -> Result<Pairs, Fault> {
        let mut pairs = Pairs::new();
        let mut emit = |key: &str, value: String| pairs.push((key.to_owned(), value));
        match self {
            Self::MapTiming => {
                let started = clock::now().as_nanos();
                let together = together(host, "map").await?;
                emit(&format!("times-{}", host.me), started.to_string());
                emit(&format!("parallel-{}", host.me), together.to_string());
            }
            Self::ReduceTiming => {
                ('a'..='j').for_each(|letter| emit(&letter.to_string(), "1".to_owned()));
            }
            Self::JobCount => {
                let mark = format!("mr-worker-jobcount-{}-{:016x}", host.me, host.draw(0..u64::MAX));
                std::fs::write(host.directory.join(mark), "x").map_err(|error| io_fault(name, &error))?;
                clock::sleep(Duration::from_millis(2000 + host.draw(0..3000))).await;
                emit("a", "x".to_owned());
            }
            Self::EarlyExit => emit(name, "1".to_owned()),
            Self::Crash | Self::NoCrash => {
                self.maybe_crash(host).await?;
                emit("a", name.to_owned());
                emit("b", name.len().to_string());
                emit("c", text.len().to_string());
                emit("d", "xyzzy".to_owned());
            }
            Self::Panic => {
                assert!(!text.contains("panic"), "the text says so");
                emit(name, "1".to_owned());
            }
            Self::Dice => {
                let long = if host.draw(0..4) == 0 { host.draw(8_000..16_000) } else { 10 };
                clock::sleep(Duration::from_millis(long)).await;
                let drawn = host.draw(1..1000).to_string();
                (0..60).for_each(|key| emit(&format!("{name}-{key}"), drawn.clone()));
            }
            Self::Slow => {
                clock::sleep(Duration::from_millis(host.draw(0..4))).await;
                words(text).for_each(|word| emit(word, "1".to_owned()));
            }
        }
        Ok(pairs)
    }

    async fn reduce(self, host: &Host, key: &str, values: &[String]) -> Result<String, Fault> {
        match self {
            Self::MapTiming => {
                let mut values = values.to_vec();
                values.sort();
                Ok(values.join(" "))
            }
            Self::ReduceTiming => Ok(together(host, "reduce").await?.to_string()),
            Self::JobCount => Ok(marks(host, "mr-worker-jobcount")
                .map_err(|error| io_fault(key, &error))?
                .len()
                .to_string()),
            Self::Dice => {
                let long = if host.draw(0..50) == 0 { host.draw(0..2_000) } else { 0 };
                clock::sleep(Duration::from_millis(long)).await;
                Ok(format!("{}{:03}", values.first().map_or("", String::as_str), host.draw(0..1000)))
            }
            Self::Slow => Ok(values.len().to_string()),
            Self::EarlyExit => {
                if key.contains("sherlock") || key.contains("tom") {
                    clock::sleep(Duration::from_secs(3)).await;
                }
                Ok(values.len().to_string())
            }
            Self::Crash | Self::NoCrash | Self::Panic => {
                self.maybe_crash(host).await?;
                let mut values = values.to_vec();
                values.sort();
                Ok(values.join(" "))
            }
        }
    }

    async fn maybe_crash(self, host: &Host) -> Result<(), Fault> {
        if self != Self::Crash {
            return Ok(());
        }
        match host.draw(0..1000) {
            0..330 => Err(Fault::Exit),
            330..660 => {
                clock::sleep(Duration::from_millis(host.draw(0..10_000))).await;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn io_fault(record: &str, error: &std::io::Error) -> Fault {
    Fault::Failed(record.to_owned(), error.to_string())
}

fn marks(host: &Host, prefix: &str) -> std::io::Result<Vec<String>> {
    let names = std::fs::read_dir(&host.directory)?.flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    Ok(names.filter(|name| name.starts_with(prefix)).collect())
}

/// Marks this worker as busy for a second; how many living workers are so marked then.
async fn together(host: &Host, phase: &str) -> Result<usize, Fault> {
    let prefix = format!("mr-worker-{phase}-");
    let mine = host.directory.join(format!("{prefix}{}", host.me));
    let count = || -> std::io::Result<usize> {
        std::fs::write(&mine, "x")?;
        let number = |name: &String| name[prefix.len()..].parse().ok();
        let marked: Vec<u64> = marks(host, &prefix)?.iter().filter_map(number).collect();
        Ok(marked.into_iter().filter(|other| (host.alive)(*other)).count())
    };
    let count = count().map_err(|error| io_fault(phase, &error))?;
    clock::sleep(Duration::from_secs(1)).await;
    std::fs::remove_file(&mine).map_err(|error| io_fault(phase, &error))?;
    Ok(count)
}
