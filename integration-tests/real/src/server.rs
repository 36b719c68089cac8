//! Servers started by hand, as on separate machines.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use super::binaries::binary;
use super::cluster::{Answer, run};

/// Ports that nobody listens on now, outside the range that systems give to callers and `clerk up`
/// uses.
///
/// # Panics
/// When there are none.
pub fn free_ports(count: usize) -> Vec<u16> {
    const FIRST: u16 = 12_000;
    const PORTS: u16 = 4_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % u32::from(PORTS)) as u16;
    let candidates =
        (0..PORTS).map(|_| FIRST + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS);
    let free = candidates.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).take(count);
    let ports: Vec<u16> = free.collect();
    assert_eq!(ports.len(), count, "no free ports");
    ports
}

/// A server; killed when it is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    address: String,
    errors: PathBuf,
}

impl Server {
    /// Starts the program `program` in the directory `place`/`name` and waits until it serves.
    ///
    /// # Panics
    /// When it does not.
    pub fn start(place: &Path, name: &str, program: &str, listen: &str, arguments: &[&str]) -> Self {
        let errors = place.join(format!("{name}.stderr"));
        let stderr = std::fs::File::create(&errors).expect("a file for what it says");
        let child = command(place, name, program, listen, arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("a server starts");
        let mut server = Self { child, address: listen.to_owned(), errors };
        server.await_serving(name);
        server
    }

    /// Starts a server that must not come up; returns its exit code and output.
    pub fn refused(place: &Path, name: &str, program: &str, listen: &str, arguments: &[&str]) -> Answer {
        run(&mut command(place, name, program, listen, arguments), None, Duration::from_secs(20))
    }

    fn await_serving(&mut self, name: &str) {
        let until = Instant::now() + Duration::from_secs(20);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        while runtime.block_on(base::socket::cluster_of(&self.address, Duration::from_secs(1))).is_err() {
            let ended = self.child.try_wait().expect("its state");
            let said = || std::fs::read_to_string(&self.errors).unwrap_or_default();
            assert!(ended.is_none(), "{name} ended with {ended:?}: {}", said());
            assert!(Instant::now() < until, "{name} does not serve on {}: {}", self.address, said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.end();
    }

    /// SIGTERM; returns its exit code.
    ///
    /// # Panics
    /// When it does not stop.
    pub fn terminate(mut self) -> Option<i32> {
        let pid = i32::try_from(self.pid()).ok().and_then(rustix::process::Pid::from_raw).expect("a process");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait().expect("its state") {
                return status.code();
            }
            assert!(Instant::now() < until, "it does not stop");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn command(place: &Path, name: &str, program: &str, listen: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary(program));
    command.args(["--listen", listen, "--data-dir"]).arg(place.join(name)).args(arguments);
    command
}
