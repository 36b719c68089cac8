//! The directory of a local cluster: its lock, its file, and how both go away.
//!
//! One command at a time starts or stops servers: it holds `cluster.lock`. A purge deletes that file too. A command
//! that waited for the lock may then hold the lock of a deleted file, while another command holds the lock of its
//! successor. So a command that gets a lock checks that the locked file is the one that is there now.
//!
//! A purge writes into `cluster.json` that it has begun, before it deletes the first directory. The next command that
//! takes the lock finishes a purge that was interrupted: half a cluster must not be started.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use base::clock::{self, Instant};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::file::{Cluster, FORMAT};
use super::token;
use crate::failure::Failure;

/// The longest wait for another command that works on the same cluster.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);
const LOCK_PERIOD: Duration = Duration::from_millis(50);

/// The place of a local cluster.
#[derive(Clone)]
pub(crate) struct Directory {
    path: PathBuf,
}

/// Keeps other commands from starting and stopping servers. If it is dropped where there is no
/// cluster, it leaves no file.
pub(crate) struct Lock {
    directory: Directory,
    /// The directory was made with it.
    made: bool,
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // After a purge another command may have begun anew here.
        if self.directory.exists() || !self.is_there().unwrap_or(false) {
            return;
        }
        if self.made { self.directory.vanish() } else { _ = std::fs::remove_file(self.directory.lock_file()) }
    }
}

impl Lock {
    /// Whether the file that is locked is the one that others find.
    fn is_there(&self) -> std::io::Result<bool> {
        let place = |data: std::fs::Metadata| (data.dev(), data.ino());
        let held = place(self.file.metadata()?);
        Ok(std::fs::metadata(self.directory.lock_file()).is_ok_and(|data| place(data) == held))
    }
}

/// A cluster as its file describes it: the checksum shows that nothing in it was damaged or edited
/// by hand (rule 60).
#[derive(Serialize, Deserialize)]
struct Checked {
    cluster: Cluster,
    checksum: u32,
}

fn checksum(cluster: &Cluster) -> Result<u32, serde_json::Error> {
    Ok(crc32fast::hash(&serde_json::to_vec(cluster)?))
}

impl Directory {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    fn file(&self) -> PathBuf {
        self.path.join("cluster.json")
    }

    fn lock_file(&self) -> PathBuf {
        self.path.join("cluster.lock")
    }

    /// The data directory of a server.
    pub(crate) fn of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Renames a server's data directory, if there is one, to an unused name; returns that name.
    pub(crate) fn set_aside(&self, name: &str) -> Result<Option<PathBuf>, Failure> {
        let data = self.of(name);
        if !data.exists() {
            return Ok(None);
        }
        let mut names = (1_u32..).map(|number| self.of(&format!("{name}.lost-{number}")));
        let Some(aside) = names.find(|path| !path.exists()) else { return Ok(None) };
        std::fs::rename(&data, &aside)
            .with_context(|| format!("cannot rename {} to {}", data.display(), aside.display()))?;
        Ok(Some(aside))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn exists(&self) -> bool {
        self.file().exists()
    }

    /// The cluster in the directory.
    ///
    /// # Errors
    /// `no_cluster`, also for one that is being deleted; `bad_cluster_file`.
    pub(crate) fn load(&self) -> Result<Cluster, Failure> {
        let cluster = self.read()?;
        if cluster.purging {
            let message = format!("the cluster in {} is being deleted", self.path.display());
            Err(Failure::new("no_cluster", message).next("clerk down --purge finishes what was interrupted"))
        } else {
            Ok(cluster)
        }
    }

    fn read(&self) -> Result<Cluster, Failure> {
        let path = self.file();
        let text = match std::fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let failure =
                    Failure::new("no_cluster", format!("there is no cluster in {}", self.path.display()));
                return Err(failure.next("clerk up starts one; --dir or --controllers name another"));
            }
            Err(error) => return Err(Failure::new("io", format!("cannot read {}: {error}", path.display()))),
        };
        let bad = |what: &dyn std::fmt::Display| {
            let message = format!("{}: {what}; nothing was done", path.display());
            Failure::new("bad_cluster_file", message).next(
                "put back the text that clerk wrote, from a copy; the servers' data beside it is not touched by this",
            )
        };
        // First the format: another one may have other fields.
        let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| bad(&error))?;
        let format = value.pointer("/cluster/format").or_else(|| value.get("format"));
        let format = format.and_then(serde_json::Value::as_u64);
        if format.is_some_and(|format| format != u64::from(FORMAT)) {
            let format = format.unwrap_or_default();
            return Err(bad(&format!("format {format}, this build reads {FORMAT}")));
        }
        let Checked { cluster, checksum: wanted } =
            serde_json::from_value(value).map_err(|error| bad(&format!("damaged: {error}")))?;
        if checksum(&cluster).map_err(|error| bad(&error))? != wanted {
            return Err(bad(&"its checksum does not match: it was damaged, or edited by hand"));
        }
        cluster.consistent().map_err(|what| bad(&what))?;
        Ok(cluster)
    }

    /// Writes the file anew beside the old one, and then in its place.
    pub(crate) fn save(&self, cluster: &Cluster) -> Result<(), Failure> {
        let write = || -> anyhow::Result<()> {
            let draft = self.path.join("cluster.json.new");
            let checked = Checked { cluster: cluster.clone(), checksum: checksum(cluster)? };
            let text = serde_json::to_string_pretty(&checked)? + "\n";
            std::fs::write(&draft, text)?;
            File::open(&draft)?.sync_all()?;
            std::fs::rename(&draft, self.file())?;
            Ok(())
        };
        Ok(write().with_context(|| format!("cannot write {}", self.file().display()))?)
    }

    /// Keeps other commands from starting and stopping servers here, and finishes a purge that was interrupted. Makes
    /// the directory.
    pub(crate) async fn lock(&self, until: Instant) -> Result<Lock, Failure> {
        let until = until.min(clock::now().after(LOCK_PATIENCE));
        loop {
            let lock = self.try_lock().with_context(|| format!("cannot use {}", self.path.display()))?;
            if let Some(mut lock) = lock {
                if let Ok(cluster) = self.read()
                    && cluster.purging
                {
                    self.purge(cluster)?;
                    lock.made = true;
                }
                return Ok(lock);
            }
            if clock::now() >= until {
                let failure = Failure::new("busy", "another command starts or stops servers of this cluster");
                return Err(failure.next("wait for its end, or name a longer --timeout"));
            }
            clock::sleep(LOCK_PERIOD.min(until.since(clock::now()))).await;
        }
    }

    /// The lock, unless another command has it.
    fn try_lock(&self) -> std::io::Result<Option<Lock>> {
        let made = !self.path.exists();
        std::fs::create_dir_all(&self.path)?;
        let path = self.lock_file();
        let file = match OpenOptions::new().create(true).truncate(false).write(true).open(&path) {
            Ok(file) => file,
            // Deleted with its directory since: there will be another one.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(None);
        }
        let lock = Lock { directory: self.clone(), made, file };
        Ok(lock.is_there()?.then_some(lock))
    }

    /// Deletes the data of a cluster whose servers are stopped. If it is interrupted, the next
    /// [`Self::lock`] finishes it.
    pub(crate) fn purge(&self, cluster: Cluster) -> Result<(), Failure> {
        let names = cluster.names();
        self.save(&Cluster { purging: true, ..cluster })?;
        for name in names {
            let path = self.of(&name);
            if path.exists() {
                std::fs::remove_dir_all(&path)
                    .with_context(|| format!("cannot delete {}", path.display()))?;
            }
        }
        match std::fs::remove_file(token::path(&self.path)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).context("cannot delete the admin token")?;
            }
            _ => {}
        }
        std::fs::remove_file(self.file())
            .with_context(|| format!("cannot delete {}", self.file().display()))?;
        Ok(())
    }

    /// Deletes what is left where no cluster is: the lock, and the directory if nothing else is in it.
    pub(crate) fn vanish(&self) {
        // What is not there is deleted already; anything else shows when the directory is used again.
        let _ = std::fs::remove_file(self.path.join("cluster.json.new"));
        let _ = std::fs::remove_file(self.lock_file());
        let _ = std::fs::remove_dir(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use base::clock;
    use serde_json::{Value, json};

    use super::Directory;
    use crate::local::file::{Cluster, name, tests::up};

    fn soon() -> clock::Instant {
        clock::now().after(Duration::from_millis(200))
    }

    fn small() -> Cluster {
        Cluster::plan(&up("--groups 1 --replicas 1")).unwrap()
    }

    #[tokio::test]
    async fn a_cluster_is_found_again_and_purged_without_a_trace() {
        let parent = tempfile::tempdir().unwrap();
        let directory = Directory::new(&parent.path().join("d"));
        assert_eq!(directory.load().unwrap_err().code, "no_cluster");
        let cluster = small();
        let lock = directory.lock(soon()).await.unwrap();
        directory.save(&cluster).unwrap();
        assert_eq!(directory.load().unwrap(), cluster);
        std::fs::create_dir(directory.of(&name(101, 1))).unwrap();
        crate::local::token::make(directory.path()).unwrap();
        directory.purge(cluster).unwrap();
        drop(lock);
        assert!(!directory.path().exists());

        // What was there before stays.
        std::fs::create_dir(directory.path()).unwrap();
        drop(directory.lock(soon()).await.unwrap());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_purge_that_was_killed_is_finished_by_the_next_command_that_takes_the_lock() {
        let parent = tempfile::tempdir().unwrap();
        let directory = Directory::new(parent.path());
        let cluster = small();
        // As it stands after the first of its directories is gone.
        directory.save(&Cluster { purging: true, ..cluster.clone() }).unwrap();
        let left = directory.of(&name(101, 1));
        std::fs::create_dir(&left).unwrap();
        assert_eq!(directory.load().unwrap_err().code, "no_cluster", "nobody uses it any more");
        let _lock = directory.lock(soon()).await.unwrap();
        assert!(!left.exists() && !directory.exists());
    }

    #[tokio::test]
    async fn a_lock_that_was_deleted_while_somebody_waited_for_it_is_no_lock() {
        let parent = tempfile::tempdir().unwrap();
        let directory = Directory::new(&parent.path().join("d"));
        let first = directory.lock(soon()).await.unwrap();
        let waiting = std::fs::OpenOptions::new().write(true).open(directory.lock_file()).unwrap();
        drop(first);
        assert!(!directory.path().exists(), "no cluster: nothing is left");
        let second = directory.lock(soon()).await.unwrap();
        rustix::fs::flock(&waiting, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
        assert_eq!(directory.lock(soon()).await.map(drop).unwrap_err().code, "busy");
        drop(second);
    }

    fn loaded(directory: &Directory, bad: &[u8]) -> Result<Cluster, &'static str> {
        std::fs::write(directory.file(), bad).unwrap();
        directory.load().map_err(|failure| failure.code)
    }

    #[test]
    fn a_file_that_was_cut_damaged_or_changed_by_hand_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let directory = Directory::new(parent.path());
        let cluster = small();
        directory.save(&cluster).unwrap();
        let good = std::fs::read(directory.file()).unwrap();
        for cut in 0..good.len() - 2 {
            assert!(loaded(&directory, &good[..cut]).is_err(), "cut at {cut}");
        }
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            // White space may go bad: it says nothing.
            let loaded = loaded(&directory, &bad);
            assert!(loaded.is_err() || loaded == Ok(cluster.clone()), "bit {bit}");
        }
        let edited = String::from_utf8(good.clone()).unwrap().replace("\"shards\": 64", "\"shards\": 65");
        assert_eq!(loaded(&directory, edited.as_bytes()), Err("bad_cluster_file"));
        assert_eq!(loaded(&directory, &[0xff, 0xfe]), Err("bad_cluster_file"), "no text at all");
        assert_eq!(loaded(&directory, &good), Ok(cluster));
    }

    /// Somebody edits the file and the checksum.
    fn edited(directory: &Directory, path: &str, value: Value) -> Result<Cluster, &'static str> {
        let mut document = serde_json::to_value(small()).unwrap();
        *document.pointer_mut(path).unwrap() = value;
        let Ok(cluster) = serde_json::from_value::<Cluster>(document) else { return Err("bad_cluster_file") };
        directory.save(&cluster).unwrap();
        directory.load().map_err(|failure| failure.code)
    }

    #[test]
    fn a_file_whose_parts_contradict_each_other_is_refused_whatever_its_checksum() {
        let parent = tempfile::tempdir().unwrap();
        let directory = Directory::new(Path::new(parent.path()));
        assert!(edited(&directory, "/shards", json!(7)).is_ok());
        for (path, value) in [
            ("/shards", json!(0)),
            ("/groups", json!(u64::MAX)),
            ("/replicas", json!(0)),
            ("/servers/101.1/id", json!(2)),
            ("/servers/101.1/group", json!(0)),
            ("/servers/101.1/address", json!("nowhere")),
            ("/servers/101.1/address", json!("127.0.0.1:70000")),
            ("/servers", json!({})),
        ] {
            assert_eq!(edited(&directory, path, value.clone()), Err("bad_cluster_file"), "{path} {value}");
        }
    }
}
