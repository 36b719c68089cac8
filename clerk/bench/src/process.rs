//! Processor time and memory of processes on this machine, from Linux's /proc.
//!
//! A server reports its process id, but that process may be on another machine. So a process counts
//! as a server only if its program is one of ours, it listens at the server's address, and that
//! address belongs to this machine.
//!
//! Left out on purpose: other systems, which report such things differently.

use std::collections::BTreeSet;
use std::net::{TcpListener, ToSocketAddrs};
use std::path::PathBuf;

const PROGRAMS: [&str; 2] = ["shardkv", "shardctrler"];
/// "Listens", in /proc/net/tcp.
const LISTENS: &str = "0A";

/// The place where the kernel tells about processes.
pub struct Proc {
    root: PathBuf,
    ticks_per_second: f64,
}

/// A process at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// When it began, in ticks: a process that took over its number differs in this.
    pub began: u64,
    /// User and system time of all its threads.
    pub cpu_seconds: f64,
    pub memory_bytes: u64,
    /// The most it ever had.
    pub memory_bytes_max: u64,
}

impl Default for Proc {
    fn default() -> Self {
        let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
        Self { root: PathBuf::from("/proc"), ticks_per_second }
    }
}

impl Proc {
    pub fn read(&self, pid: u32) -> Option<Reading> {
        let file = |name: &str| std::fs::read_to_string(self.root.join(pid.to_string()).join(name)).ok();
        let (began, ticks) = times(&file("stat")?)?;
        let status = file("status")?;
        let memory = |name: &str| Some(kib(&status, name)? * 1024);
        Some(Reading {
            began,
            cpu_seconds: ticks as f64 / self.ticks_per_second,
            memory_bytes: memory("VmRSS:")?,
            memory_bytes_max: memory("VmHWM:")?,
        })
    }

    /// Memory of the machine.
    pub fn machine_memory_bytes(&self) -> Option<u64> {
        let text = std::fs::read_to_string(self.root.join("meminfo")).ok()?;
        Some(kib(&text, "MemTotal:")? * 1024)
    }

    /// Whether process `pid` of this machine is the server at `address`; if not, why.
    pub fn serves(&self, pid: u32, address: &str) -> Result<(), String> {
        if !self.root.join("self").exists() {
            return Err("it is known on Linux only".to_owned());
        }
        let mut places =
            address.to_socket_addrs().map_err(|error| format!("{address} is not found: {error}"))?;
        // Only addresses of this machine can be listened at.
        let place = places.find(|place| TcpListener::bind((place.ip(), 0)).is_ok());
        let Some(place) = place else { return Err(format!("{address} is on another machine")) };
        let process = self.root.join(pid.to_string());
        let denied = |error: std::io::Error| format!("process {pid} cannot be looked at: {error}");
        let program = std::fs::read_link(process.join("exe")).map_err(denied)?;
        let program = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // A program that was built anew since.
        let program = program.trim_end_matches(" (deleted)");
        if !PROGRAMS.contains(&program) {
            return Err(format!("process {pid} is no server here"));
        }
        let sockets = self.listening(place.port());
        let files = std::fs::read_dir(process.join("fd")).map_err(denied)?;
        let listens = files.flatten().filter_map(|file| std::fs::read_link(file.path()).ok()).any(|link| {
            let link = link.to_string_lossy();
            let inode = link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
            inode.is_some_and(|inode| sockets.contains(inode))
        });
        if listens {
            Ok(())
        } else {
            Err(format!("process {pid} does not listen at {address} on this machine"))
        }
    }

    /// Sockets that listen at a port.
    fn listening(&self, port: u16) -> BTreeSet<String> {
        let read = |name: &str| std::fs::read_to_string(self.root.join("net").join(name)).unwrap_or_default();
        let (four, six) = (read("tcp"), read("tcp6"));
        four.lines().chain(six.lines()).filter_map(|line| listener(line, port)).collect()
    }
}

/// When a process began, and its user and system time, in ticks. Its name may contain anything, so
/// the fields are counted from its end.
fn times(stat: &str) -> Option<(u64, u64)> {
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some((number(19)?, number(11)? + number(12)?))
}

/// A line like `VmRSS:    1234 kB`.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The socket of a line of /proc/net/tcp, if it listens at `port`.
fn listener(line: &str, port: u16) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, local, _, state, _, _, _, _, _, inode, ..] = fields[..] else { return None };
    let at = local.rsplit(':').next().and_then(|at| u16::from_str_radix(at, 16).ok());
    (state == LISTENS && at == Some(port)).then(|| inode.to_owned())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::{Proc, kib, listener, times};

    #[test]
    fn the_kernels_lines_are_understood() {
        let stat =
            "7 (a) b) (c) S 1 7 7 0 -1 4194560 2 0 0 0 150 25 0 0 20 0 4 0 9876 1 1 18446744073709551615";
        assert_eq!(times(stat), Some((9876, 175)));
        assert_eq!(times("7 (cut"), None);
        assert_eq!(kib("VmHWM:\t  900 kB\nVmRSS:\t   12 kB\n", "VmRSS:"), Some(12));
        let line = "   1: 0100007F:4E20 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1";
        assert_eq!(listener(line, 20_000), Some("4711".to_owned()));
        assert_eq!(listener(line, 20_001), None);
        assert_eq!(listener(&line.replace(" 0A ", " 01 "), 20_000), None, "connected, not listening");
    }

    #[test]
    fn this_process_has_time_and_memory_but_is_no_server() {
        let (proc, pid) = (Proc::default(), std::process::id());
        let reading = proc.read(pid).unwrap();
        assert!(reading.memory_bytes > 100_000 && reading.memory_bytes_max >= reading.memory_bytes);
        assert!(proc.machine_memory_bytes().unwrap() > reading.memory_bytes);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(proc.listening(port).len(), 1);
        let why = proc.serves(pid, &format!("127.0.0.1:{port}")).unwrap_err();
        assert!(why.contains("no server here"), "{why}");
        // An address of documentation, which no machine has (RFC 5737).
        assert!(proc.serves(pid, "192.0.2.1:7101").unwrap_err().contains("another machine"));
    }
}
