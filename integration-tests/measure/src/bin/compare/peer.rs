//! Processes of another store: on free ports of loopback, with their data in a temporary directory.
//! They are gone when this program ends, however it ends.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use real::Place;

/// The time limit for a server to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// The processes of one store.
pub(crate) struct Peer {
    children: BTreeMap<String, Child>,
    place: Place,
}

impl Peer {
    pub(crate) fn new() -> Self {
        Self { children: BTreeMap::new(), place: Place::new() }
    }

    /// The directory of a server's data, made if need be.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf> {
        let directory = self.place.path().join(name);
        fs::create_dir_all(&directory)?;
        Ok(directory)
    }

    /// Starts a server. Its output goes to a file in its directory.
    pub(crate) fn start(&mut self, name: &str, command: &mut Command) -> Result<()> {
        let directory = self.directory(name)?;
        let said = File::create(directory.join("out"))?;
        let command = command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
        let child = command.spawn().with_context(|| format!("{name} does not start"))?;
        // The reaper of the place finds the process by this file if this one is killed.
        fs::write(directory.join("lock"), child.id().to_string())?;
        self.children.insert(name.to_owned(), child);
        Ok(())
    }

    pub(crate) fn pids(&self) -> BTreeMap<String, u32> {
        self.children.iter().map(|(name, child)| (name.clone(), child.id())).collect()
    }

    /// Retries until it succeeds; on time-out the error has the output of the servers.
    pub(crate) async fn until<T>(
        &mut self,
        what: &str,
        mut attempt: impl AsyncFnMut() -> Result<T>,
    ) -> Result<T> {
        let until = Instant::now() + PATIENCE;
        loop {
            let error = match attempt().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            for (name, child) in &mut self.children {
                if let Some(status) = child.try_wait()? {
                    bail!("{name} ended ({status}): {}", said(&self.place.path().join(name)));
                }
            }
            if Instant::now() >= until {
                return Err(error.context(format!("{what}: not within {} s", PATIENCE.as_secs())));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        for child in self.children.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The last lines of a server's output.
fn said(directory: &Path) -> String {
    const LINES: usize = 5;
    let text = fs::read_to_string(directory.join("out")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// The first line that a program prints about its version.
pub(crate) fn version(program: &str) -> Result<String> {
    let output = Command::new(program).arg("--version").output();
    let output = output.with_context(|| format!("{program} is missing: run scripts/compare-setup"))?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
}
