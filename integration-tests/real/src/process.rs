//! What processes of this machine have used, from Linux's /proc.

use std::collections::BTreeMap;
use std::time::Duration;

/// Processor time of a process since it started, in user space and in the kernel; none if it is gone.
pub fn cpu_time(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks = ticks(&stat)?;
    Some(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// Processor time of all of them together; processes that are gone count nothing.
pub fn cpu_time_of(pids: &BTreeMap<String, u32>) -> Duration {
    pids.values().filter_map(|pid| cpu_time(*pid)).sum()
}

/// Fields 14 and 15 of `stat`, utime and stime. The name, field 2, may contain blanks and brackets.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{cpu_time, ticks};

    #[test]
    fn the_times_are_found_after_a_name_with_blanks_and_brackets() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 1 0 1 1 1 1";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("7 (cut off) S 1"), None);
    }

    #[test]
    fn a_process_that_works_spends_time_and_one_that_is_gone_has_none() {
        let me = std::process::id();
        let before = cpu_time(me).unwrap();
        let start = Instant::now();
        while cpu_time(me).unwrap() < before + Duration::from_millis(20) {
            assert!(start.elapsed() < Duration::from_secs(10), "nothing was counted");
        }
        assert_eq!(cpu_time(u32::MAX), None);
    }
}
