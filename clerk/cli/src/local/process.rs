//! Server processes: started independently, found by the lock of their data directory, and
//! signalled without any risk of hitting another process.

use std::fs::OpenOptions;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use clerk::api::GroupId;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Resource, Signal, getrlimit, pidfd_open, pidfd_send_signal};

use super::file::{Cluster, Server};
use super::token;
use crate::failure::Failure;

/// Standard input, output and error: the descriptors below this one.
const STANDARD_FILES: i32 = 3;

/// The process that holds a data directory.
pub(crate) fn holder(data: &Path) -> Option<u32> {
    let lock = data.join("lock");
    let inode = std::fs::metadata(&lock).ok()?.ino();
    let named = std::fs::read_to_string(&lock).ok()?.trim().parse::<u32>().ok()?;
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().any(|line| holds(line, named, inode)).then_some(named)
}

/// Whether a line of /proc/locks says that `pid` holds a lock (flock) on the file `inode`: `1:
/// FLOCK  ADVISORY  WRITE 4127 00:1a:4563 0 EOF`. The device is not compared: stacked file systems
/// show two. The lock's text names the same process, which makes up for it.
fn holds(line: &str, pid: u32, inode: u64) -> bool {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, "FLOCK", _, _, holder, file, ..] = fields[..] else { return false };
    let found = file.rsplit(':').next().and_then(|found| found.parse::<u64>().ok());
    holder.parse() == Ok(pid) && found == Some(inode)
}

/// Signals the process that holds `data`; whether there was one.
pub(crate) fn signal(data: &Path, signal: Signal) -> Result<bool, Failure> {
    let Some(pid) = holder(data) else { return Ok(false) };
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let Some(number) = number else { return Ok(false) };
    // From here on the handle means this process, even if another one gets its number; if it no
    // longer holds the directory, it is left alone.
    let failed = |error: Errno| Failure::new("io", format!("cannot signal process {pid}: {error}"));
    let handle = match pidfd_open(number, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(Errno::SRCH) => return Ok(false),
        Err(error) => return Err(failed(error)),
    };
    if holder(data) != Some(pid) {
        return Ok(false);
    }
    match pidfd_send_signal(&handle, signal) {
        Ok(()) => Ok(true),
        Err(Errno::SRCH) => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

/// The server programs: beside this one, wherever links to it are.
pub(crate) fn program(name: &str) -> Result<PathBuf, Failure> {
    let here = std::env::current_exe().and_then(|path| path.canonicalize());
    let here = here.context("cannot find this program itself")?;
    let path = here.with_file_name(name);
    if path.is_file() {
        Ok(path)
    } else {
        let message = format!("{} is missing: it must be in the same directory as clerk", path.display());
        Err(Failure::new("missing_program", message).next("make build"))
    }
}

/// Starts a server in its own process group, so that Ctrl-C here does not reach it.
pub(crate) fn spawn(cluster: &Cluster, server: &Server, data: &Path) -> Result<Child, Failure> {
    std::fs::create_dir_all(data).with_context(|| format!("cannot make {}", data.display()))?;
    let data = data.canonicalize().with_context(|| format!("cannot find {}", data.display()))?;
    let out = data.join("out");
    let open = || OpenOptions::new().create(true).write(true).truncate(true).open(&out);
    let out_file = open().with_context(|| format!("cannot write {}", out.display()))?;
    let err_file = out_file.try_clone().context("cannot write what a server prints")?;
    let path = program(if server.group == GroupId::CONTROLLERS.0 { "shardctrler" } else { "shardkv" })?;
    let mut command = Command::new(&path);
    command.args(arguments(cluster, server)).arg("--data-dir").arg(&data);
    // A cluster without the file was made by hand, or by a clerk that knew of no page.
    let token = data.parent().map(token::path).filter(|token| server.group == 0 && token.exists());
    if let Some(token) = token.filter(|_| shows_over_http(server)) {
        command.arg("--admin-token").arg(token);
    }
    if is_new(server, &data) {
        command.arg("--new");
    }
    // A server inherits only its three standard files. Anything else, such as the lock or pipe of
    // the program that started this process, would stay open as long as the server runs. (Files
    // opened here close on their own when another program starts.)
    close_fds::set_fds_cloexec(STANDARD_FILES, &[]);
    command.stdin(Stdio::null()).stdout(out_file).stderr(err_file).current_dir("/").process_group(0);
    Ok(command.spawn().with_context(|| format!("cannot start {}", path.display()))?)
}

/// Whether this is a first start: the server has never made its directory, neither to our knowledge nor
/// to that of the directory.
fn is_new(server: &Server, data: &Path) -> bool {
    !server.made && !is_made(data)
}

/// Whether a server has made this directory.
pub(crate) fn is_made(data: &Path) -> bool {
    data.join("identity").exists()
}

/// The key of the cluster that a data directory belongs to, if its server has learned it.
pub(crate) fn key_of(data: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(data.join("identity")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("key ")?.parse().ok())
}

/// Where processes may have fewer file descriptors, the store needs all of them.
const HTTP_DESCRIPTORS_MIN: u64 = 256;

fn has_descriptors_for_http() -> bool {
    getrlimit(Resource::Nofile).maximum.is_none_or(|maximum| maximum >= HTTP_DESCRIPTORS_MIN)
}

/// Whether a server gets a port for HTTP.
fn shows_over_http(server: &Server) -> bool {
    server.http.is_some() && has_descriptors_for_http()
}

fn arguments(cluster: &Cluster, server: &Server) -> Vec<String> {
    let members: Vec<String> =
        cluster.of(server.group).map(|member| format!("{}={}", member.id, member.address)).collect();
    let mut arguments = vec![
        "--cluster".to_owned(),
        cluster.cluster.clone(),
        "--id".to_owned(),
        server.id.to_string(),
        "--members".to_owned(),
        members.join(","),
        "--listen".to_owned(),
        server.address.clone(),
    ];
    let http = server.http.filter(|_| shows_over_http(server));
    arguments.extend(http.into_iter().flat_map(|port| ["--http".to_owned(), port.to_string()]));
    match server.group {
        0 => {
            arguments.extend(["--shards".to_owned(), cluster.shards.to_string()]);
            let sessions_max = cluster.sessions_max.map(|sessions| sessions.to_string());
            arguments.extend(
                sessions_max.into_iter().flat_map(|sessions| ["--sessions-max".to_owned(), sessions]),
            );
            arguments.extend(cluster.recovering.then(|| "--recover".to_owned()));
        }
        group => arguments.extend([
            "--group".to_owned(),
            group.to_string(),
            "--controllers".to_owned(),
            cluster.addresses(GroupId::CONTROLLERS.0).join(","),
        ]),
    }
    arguments
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use rustix::fs::{FlockOperation, flock};
    use rustix::process::Signal;

    use super::{arguments, holder, holds, is_new, key_of, signal};
    use crate::local::file::tests::up;
    use crate::local::file::{Cluster, Server};

    #[test]
    fn a_line_of_the_kernels_locks_is_understood() {
        let line = "1: FLOCK  ADVISORY  WRITE 4127 00:1a:4563 0 EOF";
        assert!(holds(line, 4127, 4563));
        assert!(!holds(line, 4128, 4563));
        assert!(!holds(line, 4127, 4564));
        assert!(!holds("1: -> FLOCK  ADVISORY  WRITE 4127 00:1a:4563 0 EOF", 4127, 4563), "waits for it");
        assert!(!holds("2: POSIX  ADVISORY  WRITE 4127 00:1a:4563 0 EOF", 4127, 4563));
    }

    #[test]
    fn only_a_process_that_holds_the_directory_counts() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join("lock");
        assert_eq!(holder(data.path()), None);
        let mut lock = File::create(&path).unwrap();
        writeln!(lock, "{}", std::process::id()).unwrap();
        assert_eq!(holder(data.path()), None, "nobody holds it, whatever it says");
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert_eq!(holder(data.path()), Some(std::process::id()));
        // A pid that was reused names a process that does not hold the lock.
        std::fs::write(&path, "1\n").unwrap();
        assert_eq!(holder(data.path()), None);
        assert_eq!(signal(data.path(), Signal::KILL), Ok(false));
    }

    #[test]
    fn controllers_of_a_new_cluster_are_told_its_limits() {
        let cluster = Cluster::plan(&up("--groups 1 --replicas 1 --shards 9 --sessions-max 10")).unwrap();
        let told = |server: &str| arguments(&cluster, &cluster.servers[server]).join(" ");
        assert!(told("ctrl.1").ends_with("--shards 9 --sessions-max 10"), "{}", told("ctrl.1"));
        assert!(!told("101.1").contains("sessions"), "{}", told("101.1"));
    }

    #[test]
    fn a_directory_tells_the_key_of_its_cluster() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(key_of(data.path()), None);
        std::fs::write(data.path().join("identity"), "format 3\ncluster c\nkey 77\nchecksum 1\n").unwrap();
        assert_eq!(key_of(data.path()), Some(77));
    }

    #[test]
    fn a_server_is_new_only_until_it_has_made_its_directory() {
        let data = tempfile::tempdir().unwrap();
        let server = Server { group: 101, id: 1, address: "127.0.0.1:1".into(), http: None, made: false };
        assert!(is_new(&server, data.path()));
        std::fs::write(data.path().join("identity"), "").unwrap();
        assert!(!is_new(&server, data.path()));
        let made = Server { made: true, ..server };
        assert!(!is_new(&made, &data.path().join("deleted")), "its data are lost, which is not new");
    }
}
