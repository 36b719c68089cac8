//! Limits on the processor time of single processes, through Linux's control groups.
//!
//! Both versions are supported: version 1, where the processor controller has its own tree, and
//! version 2, where one tree has all controllers. A group for each process is made below this
//! program's own, or below the nearest of its ancestors where that is allowed. In version 2 a group
//! that holds processes may not divide its resources, so there it is often the parent. Only the
//! named processes are limited, and every group is removed at the end.
//!
//! A limit of a tenth is two of every twenty milliseconds: short enough that a pause is not a
//! missed heartbeat.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::failure::Failure;

const PERIOD_US: u64 = 20_000;
/// The kernel takes no shorter share of a period, and no longer period.
const QUOTA_US_MIN: u64 = 1_000;
const PERIOD_US_MAX: u64 = 1_000_000;
/// A group can be removed when its last process is gone, which the kernel may notice a moment later.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Where groups may be made.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tree {
    version: Version,
    /// This program's group, and its ancestors, the nearest first.
    places: Vec<PathBuf>,
}

/// Limits in force, until this is dropped.
pub(super) struct Caps {
    version: Version,
    place: PathBuf,
    period_us: u64,
    quota_us: u64,
    groups: Vec<PathBuf>,
}

/// How often a process had used up its share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Throttled {
    pub(super) periods: u64,
    pub(super) throttled: u64,
}

impl Throttled {
    /// Of a hundred periods since `earlier`, those in which the share was used up.
    pub(super) fn percent_since(self, earlier: Self) -> f64 {
        let periods = self.periods.saturating_sub(earlier.periods);
        let throttled = self.throttled.saturating_sub(earlier.throttled);
        if periods > 0 { throttled as f64 * 100.0 / periods as f64 } else { 0.0 }
    }
}

impl Caps {
    /// Finds out where limits of `share` processors may be set, by setting one.
    pub(super) fn find(share: f64) -> Result<Self, Failure> {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let tree = Tree::of(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
        let tree = tree.ok_or_else(|| refused("no control groups for processors are mounted here"))?;
        Self::within(&tree, share)
    }

    fn within(tree: &Tree, share: f64) -> Result<Self, Failure> {
        let (quota_us, period_us) = limits(share);
        let mut why = "no place was found".to_owned();
        for place in &tree.places {
            let version = tree.version;
            let mut caps = Self { version, place: place.clone(), period_us, quota_us, groups: Vec::new() };
            match caps.make("probe") {
                Ok(_) => {
                    caps.remove();
                    return Ok(caps);
                }
                // The first place is the one that a reader would expect.
                Err(error) if place == &tree.places[0] => why = error.to_string(),
                Err(_) => {}
            }
        }
        Err(refused(&why))
    }

    /// Limits process `pid`, which is called `name`.
    pub(super) fn limit(&mut self, name: &str, pid: u32) -> Result<(), Failure> {
        let limited = self.make(name).and_then(|group| write(&group.join("cgroup.procs"), &pid.to_string()));
        limited.map_err(|error| refused(&format!("{name}: {error}")))
    }

    /// Makes a group with its limit.
    fn make(&mut self, name: &str) -> std::io::Result<PathBuf> {
        if self.version == Version::Two {
            divide(&self.place)?;
        }
        let group = self.place.join(format!("clerk-bench-{}-{name}", std::process::id()));
        std::fs::create_dir(&group).map_err(|error| said(&group, &error))?;
        self.groups.push(group.clone());
        let (quota, period) = (self.quota_us, self.period_us);
        match self.version {
            Version::One => {
                write(&group.join("cpu.cfs_period_us"), &period.to_string())?;
                write(&group.join("cpu.cfs_quota_us"), &quota.to_string())?;
            }
            Version::Two => write(&group.join("cpu.max"), &format!("{quota} {period}"))?,
        }
        Ok(group)
    }

    /// How often each of the processes had used up its share.
    pub(super) fn throttled(&self) -> Vec<Throttled> {
        let of = |group: &PathBuf| {
            let text = std::fs::read_to_string(group.join("cpu.stat")).unwrap_or_default();
            let number = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
                line.and_then(|number| number.trim().parse::<u64>().ok()).unwrap_or(0)
            };
            Throttled { periods: number("nr_periods"), throttled: number("nr_throttled") }
        };
        self.groups.iter().map(of).collect()
    }

    /// Lets the processes go, and removes the groups.
    fn remove(&mut self) {
        let home = self.place.join("cgroup.procs");
        for group in self.groups.drain(..) {
            let until = std::time::Instant::now() + PATIENCE;
            loop {
                for pid in std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default().lines() {
                    // It ended just now, or may not be moved: then the group stays, as an empty name.
                    let _ = write(&home, pid);
                }
                let removed = std::fs::remove_dir(&group);
                if removed.is_ok() || !group.exists() || std::time::Instant::now() >= until {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

impl Drop for Caps {
    fn drop(&mut self) {
        self.remove();
    }
}

/// So many microseconds of how many.
fn limits(share: f64) -> (u64, u64) {
    let period_us = PERIOD_US.max((QUOTA_US_MIN as f64 / share).ceil() as u64).min(PERIOD_US_MAX);
    (((share * period_us as f64).round() as u64).max(QUOTA_US_MIN), period_us)
}

fn refused(why: &str) -> Failure {
    let message = format!("--replica-cpu: processes cannot be limited here: {why}");
    Failure::new("not_permitted", message)
        .next("leave --replica-cpu out, or run as a user who may make control groups (often root)")
}

fn said(path: &Path, error: &std::io::Error) -> std::io::Error {
    std::io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    std::fs::write(path, text).map_err(|error| said(path, &error))
}

/// Sees to it that the groups below `place` can have limits (version 2).
fn divide(place: &Path) -> std::io::Result<()> {
    let has = |name: &str| {
        let text = std::fs::read_to_string(place.join(name)).unwrap_or_default();
        text.split_whitespace().any(|controller| controller == "cpu")
    };
    if has("cgroup.subtree_control") {
        Ok(())
    } else if has("cgroup.controllers") {
        write(&place.join("cgroup.subtree_control"), "+cpu")
    } else {
        let error = std::io::Error::other("has no processor controller");
        Err(said(place, &error))
    }
}

impl Tree {
    /// From the kernel's words on what is mounted, and on where this program is.
    fn of(mounts: &str, own: &str) -> Option<Self> {
        let mounted = |version: Version| {
            mounts.lines().find_map(|line| {
                let (before, rest) = line.split_once(" - ")?;
                let before: Vec<&str> = before.split(' ').collect();
                let rest: Vec<&str> = rest.split(' ').collect();
                let ([_, _, _, root, point, ..], [kind, _, options]) = (&before[..], &rest[..]) else {
                    return None;
                };
                let meant = match version {
                    Version::One => *kind == "cgroup" && options.split(',').any(|option| option == "cpu"),
                    Version::Two => *kind == "cgroup2",
                };
                meant.then(|| (version, *root, PathBuf::from(point)))
            })
        };
        let (version, root, point) = mounted(Version::One).or_else(|| mounted(Version::Two))?;
        let path = own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let meant = match version {
                Version::One => controllers.split(',').any(|controller| controller == "cpu"),
                Version::Two => controllers.is_empty(),
            };
            meant.then_some(path)
        })?;
        // What is mounted may begin somewhere below the root of the tree.
        let below = path.strip_prefix(root.trim_end_matches('/')).unwrap_or("/");
        let own = point.join(below.trim_start_matches('/'));
        let places = own.ancestors().take_while(|place| place.starts_with(&point)).map(Path::to_owned);
        Some(Self { version, places: places.collect() })
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{Caps, Throttled, Tree, Version, limits};

    #[test]
    fn trees_of_both_versions_are_found() {
        let one = "30 20 0:26 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n";
        let two = "31 20 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let own = "4:memory:/m\n3:cpu,cpuacct:/a/b\n0::/user/c\n";
        let tree = Tree::of(&format!("{two}{one}"), own).unwrap();
        let place = |path: &str| PathBuf::from(path);
        assert_eq!(tree.version, Version::One);
        let cpu = "/sys/fs/cgroup/cpu";
        assert_eq!(tree.places, [place(&format!("{cpu}/a/b")), place(&format!("{cpu}/a")), place(cpu)]);
        let tree = Tree::of(two, own).unwrap();
        assert_eq!((tree.version, tree.places.len()), (Version::Two, 3));
        assert_eq!(tree.places[0], place("/sys/fs/cgroup/unified/user/c"));
        // A container sees its own part only.
        let inside = "31 20 0:27 /user /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(Tree::of(inside, own).unwrap().places[0], place("/sys/fs/cgroup/c"));
        assert_eq!(Tree::of("1 1 0:1 / / rw - ext4 /dev/vda rw\n", own), None);
    }

    fn group(name: &str) -> String {
        format!("clerk-bench-{}-{name}", std::process::id())
    }

    #[test]
    fn a_limit_is_written_in_the_words_of_its_version() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().to_owned();
        let read = |name: &str, file: &str| {
            std::fs::read_to_string(place.join(group(name)).join(file)).unwrap_or_default()
        };
        let caps = |version| Caps {
            version,
            place: place.clone(),
            period_us: 20_000,
            quota_us: 2_000,
            groups: Vec::new(),
        };
        let mut one = caps(Version::One);
        one.limit("101.1", 7).unwrap();
        assert_eq!(
            (read("101.1", "cpu.cfs_period_us"), read("101.1", "cpu.cfs_quota_us")),
            ("20000".into(), "2000".into())
        );
        assert_eq!(read("101.1", "cgroup.procs"), "7");
        std::fs::write(place.join(group("101.1")).join("cpu.stat"), "nr_periods 10\nnr_throttled 4\n")
            .unwrap();
        assert_eq!(one.throttled(), [Throttled { periods: 10, throttled: 4 }]);
        let mut two = caps(Version::Two);
        assert!(two.limit("101.2", 8).is_err(), "the place has no processor controller");
        std::fs::write(place.join("cgroup.controllers"), "cpu io").unwrap();
        two.limit("101.2", 8).unwrap();
        assert_eq!(read("101.2", "cpu.max"), "2000 20000");
        assert_eq!(std::fs::read_to_string(place.join("cgroup.subtree_control")).unwrap(), "+cpu");
        // Ordinary files are not control groups: those cannot be removed, so nobody waits for them.
        (one.groups, two.groups) = (Vec::new(), Vec::new());
    }

    #[test]
    fn where_limits_are_not_permitted_it_is_said() {
        let tree = Tree { version: Version::One, places: vec![PathBuf::from("/proc/nowhere")] };
        let failure = Caps::within(&tree, 0.1).err().unwrap();
        assert_eq!((failure.code, failure.exit), ("not_permitted", 1));
        assert!(failure.message.contains("/proc/nowhere"), "{}", failure.message);
    }

    #[test]
    fn how_often_a_share_was_used_up_counts_from_a_moment() {
        let throttled = |periods, throttled| Throttled { periods, throttled };
        assert_eq!(throttled(30, 14).percent_since(throttled(10, 4)), 50.0);
        assert_eq!(throttled(10, 4).percent_since(throttled(10, 4)), 0.0);
    }

    #[test]
    fn small_shares_have_longer_periods() {
        for (share, quota, period) in [(0.1, 2_000, 20_000), (2.0, 40_000, 20_000), (0.01, 1_000, 100_000)] {
            assert_eq!(limits(share), (quota, period), "{share}");
        }
    }
}
