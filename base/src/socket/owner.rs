//! Finds the process that listens on a port, from Linux's /proc. Not known elsewhere, or for
//! processes of other users.

use std::fs;
use std::path::Path;

/// The process that listens on `port`: its program and its pid.
pub(super) fn of_port(port: u16) -> Option<String> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| listener(table, port))?;
    let link = format!("socket:[{inode}]");
    let pid = fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .find(|pid| holds(*pid, &link))?;
    let program = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(format!("{} (pid {pid})", program.trim()))
}

/// The inode of the socket in state LISTEN (0A) with this local port.
fn listener(table: &str, port: u16) -> Option<u64> {
    let text = fs::read_to_string(table).ok()?;
    text.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let local = fields.get(1)?.rsplit(':').next()?;
        let found = u16::from_str_radix(local, 16).ok()? == port && *fields.get(3)? == "0A";
        if found { fields.get(9)?.parse().ok() } else { None }
    })
}

fn holds(pid: u32, link: &str) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|target| target == Path::new(link)))
}
