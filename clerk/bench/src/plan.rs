//! What a run does: the options of the command line, a workload file and its phases, combined and
//! checked once, wherever a value came from.
//!
//! ```toml
//! keys = 100000
//! preload = true
//! reads = 95
//!
//! [[phase]]
//! name = "few"
//! clients = 4
//!
//! [[phase]]
//! name = "steady"
//! rate = 3000
//! ```

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use super::record::Op;
use crate::Error;
use crate::settings::{DistributionName, PhaseSpec, Settings, one_line};

const CLIENTS: u64 = 64;
const CLIENTS_MAX: u64 = 100_000;
const SECONDS: f64 = 10.0;
const SECONDS_MAX: f64 = 1e6;
const RATE_MAX: f64 = 1e7;
const READS: u32 = 50;
const VALUE_BYTES: u64 = 256;
const VALUE_BYTES_MAX: u64 = 64 << 20;
const BATCH_MAX: u64 = 10_000;
const KEYS: u64 = 10_000;
const SKEW: f64 = 0.99;
const SKEW_MAX: f64 = 10.0;
/// The default backlog holds the operations of so many seconds: longer than an election.
const BACKLOG_SECONDS: f64 = 5.0;
const BACKLOG_MAX: u64 = 10_000_000;

/// What a run does.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub keys: u64,
    pub preload: bool,
    pub warmup: Option<Duration>,
    pub label: Option<String>,
    /// Every operation goes into a history, which knows one of a client at a time.
    recorded: bool,
    /// At least one.
    pub phases: Vec<Phase>,
}

impl Plan {
    /// Every operation will be recorded.
    pub fn record(&mut self) -> Result<(), Error> {
        if let Some(phase) = self.phases.iter().find(|phase| phase.load.batch > 1) {
            let message =
                format!("phase {}: --history records single operations: leave out --batch", phase.name);
            return Err(Error::Usage(message));
        }
        self.recorded = true;
        Ok(())
    }

    /// Keys of a call of the preload, which only has to be quick.
    pub fn preload_batch(&self, load: &Load) -> u64 {
        const KEYS_MAX: u64 = 64;
        const BYTES_MAX: u64 = 1 << 18;
        if self.recorded { 1 } else { (BYTES_MAX / load.value_bytes.max(1)).clamp(1, KEYS_MAX) }
    }
}

/// A phase.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    pub name: String,
    pub length: Duration,
    pub load: Load,
}

/// What clients do in a phase. In results it is written as it is here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Load {
    pub clients: u64,
    /// Operations that begin each second; none: a closed loop.
    pub rate: Option<f64>,
    pub backlog: Option<u64>,
    pub reads: u32,
    pub appends: u32,
    pub cas: u32,
    pub deletes: u32,
    pub value_bytes: u64,
    /// Keys that a put writes in one call.
    #[serde(default = "without_batches")]
    pub batch: u64,
    pub distribution: DistributionName,
    /// Of a zipfian distribution.
    pub skew: Option<f64>,
}

/// Results of builds without batches.
fn without_batches() -> u64 {
    1
}

impl Load {
    /// The next operation. What is left of the hundred are puts.
    pub fn pick(&self, random: &mut StdRng) -> Op {
        let mut draw = random.random_range(0..100);
        for (op, share) in self.shares() {
            if draw < share {
                return op;
            }
            draw -= share;
        }
        Op::Put
    }

    fn shares(&self) -> [(Op, u32); 4] {
        [(Op::Get, self.reads), (Op::Append, self.appends), (Op::Cas, self.cas), (Op::Delete, self.deletes)]
    }
}

/// A workload file.
#[derive(Debug, Default, PartialEq)]
pub struct Workload {
    settings: Settings,
    phases: Vec<PhaseSpec>,
}

impl Workload {
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|error| Error::cannot("read", path, &error))?;
        Self::parse(&text).map_err(|why| Error::BadInput(format!("{}: {why}", path.display())))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let at_line = |error: toml::de::Error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            format!("line {}: {}", before.matches('\n').count() + 1, error.message())
        };
        let mut table: toml::Table = text.parse().map_err(at_line)?;
        let phases = table.remove("phase");
        let settings = table.try_into().map_err(|error| one_line(&error))?;
        let phases = match phases {
            None => Vec::new(),
            Some(toml::Value::Array(phases)) => phases.into_iter().map(phase).collect::<Result<_, _>>()?,
            Some(_) => return Err("phases are written as [[phase]]".to_owned()),
        };
        Ok(Self { settings, phases })
    }
}

fn phase(value: toml::Value) -> Result<PhaseSpec, String> {
    let toml::Value::Table(mut table) = value else {
        return Err("phases are written as [[phase]]".to_owned());
    };
    let Some(toml::Value::String(name)) = table.remove("name") else {
        return Err("every [[phase]] needs a name".to_owned());
    };
    let settings = table.try_into().map_err(|error| format!("phase {name}: {}", one_line(&error)))?;
    Ok(PhaseSpec { name, settings })
}

/// Puts a run together. Phases of the command line replace those of the file.
pub fn plan(settings: &Settings, phases: &[PhaseSpec], workload: Option<Workload>) -> Result<Plan, Error> {
    let workload = workload.unwrap_or_default();
    let settings = over(settings, &workload.settings);
    let specs = if phases.is_empty() { workload.phases } else { phases.to_vec() };
    let mut names = BTreeSet::new();
    let mut phases = Vec::new();
    for PhaseSpec { name, settings: own } in &specs {
        if own.keys.is_some() || own.preload || own.warmup.is_some() || own.label.is_some() {
            let message = format!("phase {name}: keys, preload, warmup and label are of the whole run");
            return Err(Error::Usage(message));
        }
        if !names.insert(name.clone()) {
            return Err(Error::Usage(format!("two phases are called {name}")));
        }
        let resolved = resolve(name, &over(own, &settings));
        phases.push(resolved.map_err(|why| Error::Usage(format!("phase {name}: {why}")))?);
    }
    if phases.is_empty() {
        phases.push(resolve("load", &settings).map_err(Error::Usage)?);
    }
    let warmup = settings.warmup.map(|seconds| duration("warmup", seconds)).transpose();
    Ok(Plan {
        keys: within("keys", settings.keys.unwrap_or(KEYS), u64::MAX).map_err(Error::Usage)?,
        preload: settings.preload,
        warmup: warmup.map_err(Error::Usage)?,
        label: settings.label,
        recorded: false,
        phases,
    })
}

/// `first`, and where it has no value, `then`. The kind of loop and the choice of keys are each two
/// values that belong together: they are taken from one source.
fn over(first: &Settings, then: &Settings) -> Settings {
    let (first, then) = (first.clone(), then.clone());
    Settings {
        clients: first.clients.or(then.clients),
        seconds: first.seconds.or(then.seconds),
        backlog: first.backlog.or(then.backlog.filter(|_| first.rate.is_none())),
        rate: first.rate.or(then.rate),
        reads: first.reads.or(then.reads),
        appends: first.appends.or(then.appends),
        cas: first.cas.or(then.cas),
        deletes: first.deletes.or(then.deletes),
        value_bytes: first.value_bytes.or(then.value_bytes),
        batch: first.batch.or(then.batch),
        skew: first.skew.or(then.skew.filter(|_| first.distribution.is_none())),
        distribution: first.distribution.or(then.distribution),
        keys: first.keys.or(then.keys),
        preload: first.preload || then.preload,
        warmup: first.warmup.or(then.warmup),
        label: first.label.or(then.label),
    }
}

fn resolve(name: &str, settings: &Settings) -> Result<Phase, String> {
    let zipfian = settings.distribution == Some(DistributionName::Zipfian);
    if settings.skew.is_some() && !zipfian {
        return Err("--skew belongs to --distribution zipfian".to_owned());
    }
    let skew = settings.skew.unwrap_or(SKEW);
    if !(skew > 0.0 && skew <= SKEW_MAX) {
        return Err(format!("--skew {skew}: above 0, up to {SKEW_MAX}"));
    }
    let load = Load {
        clients: within("clients", settings.clients.unwrap_or(CLIENTS), CLIENTS_MAX)?,
        rate: settings.rate.map(rate).transpose()?,
        backlog: backlog(settings)?,
        reads: settings.reads.unwrap_or(READS),
        appends: settings.appends.unwrap_or(0),
        cas: settings.cas.unwrap_or(0),
        deletes: settings.deletes.unwrap_or(0),
        value_bytes: settings.value_bytes.unwrap_or(VALUE_BYTES),
        batch: within("batch", settings.batch.unwrap_or(1), BATCH_MAX)?,
        distribution: settings.distribution.unwrap_or_default(),
        skew: zipfian.then_some(skew),
    };
    if load.value_bytes > VALUE_BYTES_MAX {
        return Err(format!("--value-bytes {}: at most {VALUE_BYTES_MAX}", load.value_bytes));
    }
    if load.shares().iter().map(|(_, share)| u64::from(*share)).sum::<u64>() > 100 {
        return Err("--reads, --appends, --cas and --deletes are more than 100 together".to_owned());
    }
    if load.batch > 1 && load.appends + load.cas + load.deletes > 0 {
        return Err("--batch is of puts: --appends, --cas and --deletes are single operations".to_owned());
    }
    let length = duration("seconds", settings.seconds.unwrap_or(SECONDS))?;
    Ok(Phase { name: name.to_owned(), length, load })
}

fn within(name: &str, value: u64, max: u64) -> Result<u64, String> {
    if (1..=max).contains(&value) {
        Ok(value)
    } else if max == u64::MAX {
        Err(format!("--{name} {value}: at least 1"))
    } else {
        Err(format!("--{name} {value}: from 1 to {max}"))
    }
}

fn rate(rate: f64) -> Result<f64, String> {
    if rate > 0.0 && rate <= RATE_MAX {
        Ok(rate)
    } else {
        Err(format!("--rate {rate}: operations a second are above 0, up to {RATE_MAX}"))
    }
}

fn backlog(settings: &Settings) -> Result<Option<u64>, String> {
    match (settings.rate, settings.backlog) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err("--backlog belongs to --rate".to_owned()),
        (Some(_), Some(backlog)) => Ok(Some(within("backlog", backlog, BACKLOG_MAX)?)),
        (Some(rate), None) => Ok(Some(((rate * BACKLOG_SECONDS) as u64).clamp(1, BACKLOG_MAX))),
    }
}

fn duration(name: &str, seconds: f64) -> Result<Duration, String> {
    let duration = Duration::try_from_secs_f64(seconds).ok();
    let duration = duration.filter(|duration| !duration.is_zero() && seconds <= SECONDS_MAX);
    duration.ok_or_else(|| format!("--{name} {seconds}: seconds are a number above 0"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::{Plan, Workload, plan};
    use crate::record::Op;
    use crate::settings::{DistributionName, PhaseSpec, Settings};

    fn planned(settings: &Settings, phases: &[&str], file: &str) -> Result<Plan, String> {
        let phases: Vec<PhaseSpec> = phases.iter().map(|phase| phase.parse().unwrap()).collect();
        let workload = Workload::parse(file)?;
        plan(settings, &phases, Some(workload)).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_left_of_the_hundred_are_puts() {
        let settings = Settings { reads: Some(50), cas: Some(20), ..Settings::default() };
        let load = planned(&settings, &[], "").unwrap().phases.remove(0).load;
        let mut random = StdRng::seed_from_u64(1);
        let picks: Vec<Op> = (0..10_000).map(|_| load.pick(&mut random)).collect();
        let count = |op: Op| picks.iter().filter(|pick| **pick == op).count();
        assert!((4500..5500).contains(&count(Op::Get)));
        assert!((2500..3500).contains(&count(Op::Put)));
        assert!((1500..2500).contains(&count(Op::Cas)));
        assert_eq!(count(Op::Append) + count(Op::Delete), 0);
    }

    #[test]
    fn a_phase_counts_more_than_the_command_line_and_that_more_than_the_file() {
        let file = "clients = 1\nreads = 1\nvalue-bytes = 1\nkeys = 7\npreload = true\n\
                    [[phase]]\nname = \"a\"\nclients = 3\n[[phase]]\nname = \"b\"\n";
        let settings = Settings { clients: Some(2), reads: Some(2), ..Settings::default() };
        let plan = planned(&settings, &[], file).unwrap();
        assert_eq!((plan.keys, plan.preload, plan.phases.len()), (7, true, 2));
        let (a, b) = (&plan.phases[0].load, &plan.phases[1].load);
        assert_eq!((a.clients, a.reads, a.value_bytes), (3, 2, 1));
        assert_eq!(b.clients, 2);
        let replaced = planned(&settings, &["c,seconds=0.5"], file).unwrap();
        assert_eq!(replaced.phases.len(), 1);
        assert_eq!((&*replaced.phases[0].name, replaced.phases[0].length), ("c", Duration::from_millis(500)));
    }

    #[test]
    fn the_defaults_are_those_of_the_help() {
        let plan = planned(&Settings::default(), &[], "").unwrap();
        let load = &plan.phases[0].load;
        assert_eq!((load.clients, load.reads, load.value_bytes, plan.keys), (64, 50, 256, 10_000));
        assert_eq!((load.rate, load.distribution, load.batch), (None, DistributionName::Uniform, 1));
        assert_eq!((plan.phases[0].length, plan.warmup), (Duration::from_secs(10), None));
        let open = planned(&Settings { rate: Some(100.0), ..Settings::default() }, &[], "").unwrap();
        assert_eq!(open.phases[0].load.backlog, Some(500));
    }

    #[test]
    fn what_is_recorded_is_done_one_by_one() {
        let mut plan = planned(&Settings::default(), &["a", "b,batch=16"], "").unwrap();
        assert_eq!((plan.phases[0].load.batch, plan.phases[1].load.batch), (1, 16));
        assert_eq!(plan.preload_batch(&plan.phases[0].load), 64);
        assert!(plan.record().unwrap_err().to_string().contains("phase b: --history"));
        plan.phases.truncate(1);
        plan.record().unwrap();
        assert_eq!(plan.preload_batch(&plan.phases[0].load), 1);
        let large =
            planned(&Settings { value_bytes: Some(1 << 20), ..Settings::default() }, &[], "").unwrap();
        assert_eq!(large.preload_batch(&large.phases[0].load), 1);
    }

    #[test]
    fn a_phase_that_chooses_anew_takes_no_half_of_the_old_choice() {
        let settings = Settings {
            distribution: Some(DistributionName::Zipfian),
            skew: Some(1.5),
            ..Settings::default()
        };
        let plan = planned(&settings, &["hot", "flat,distribution=uniform"], "").unwrap();
        assert_eq!((plan.phases[0].load.skew, plan.phases[1].load.skew), (Some(1.5), None));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_reason() {
        let none = Settings::default();
        let with = |change: fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            planned(&settings, &[], "").unwrap_err()
        };
        assert!(with(|settings| settings.rate = Some(0.0)).contains("--rate 0"));
        assert!(with(|settings| settings.rate = Some(f64::NAN)).contains("--rate"));
        assert!(with(|settings| settings.clients = Some(0)).contains("--clients 0"));
        assert!(with(|settings| settings.keys = Some(0)).contains("--keys 0"));
        assert!(with(|settings| settings.seconds = Some(-1.0)).contains("--seconds"));
        assert!(with(|settings| settings.warmup = Some(0.0)).contains("--warmup"));
        assert!(with(|settings| settings.reads = Some(101)).contains("more than 100"));
        assert!(with(|settings| settings.skew = Some(1.0)).contains("zipfian"));
        assert!(with(|settings| settings.backlog = Some(1)).contains("--rate"));
        assert!(with(|settings| settings.batch = Some(0)).contains("--batch 0"));
        assert!(with(|settings| (settings.batch, settings.cas) = (Some(2), Some(1))).contains("of puts"));
        assert!(planned(&none, &["a", "a"], "").unwrap_err().contains("two phases"));
        assert!(planned(&none, &["a,keys=5"], "").unwrap_err().contains("whole run"));
        assert!(planned(&none, &["a,rate=0"], "").unwrap_err().contains("phase a: --rate 0"));
        for (file, why) in [
            ("colour = 1", "colour"),
            ("clients = \"x\"", "invalid type"),
            ("[[phase]]\nclients = 1", "needs a name"),
            ("phase = 1", "[[phase]]"),
            ("[[phase]]\nname = \"a\"\ncolour = 1", "phase a"),
            ("keys = 5\n=", "line 2"),
        ] {
            let error = planned(&none, &[], file).unwrap_err();
            assert!(error.contains(why) && !error.contains('\n'), "{file}: {error}");
        }
    }
}
