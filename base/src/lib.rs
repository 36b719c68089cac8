//! The foundation of `raft` and `clerk`, which cannot import each other:
//!
//! * [`clock`]: the only access to time, so that a simulation can own it;
//! * [`codec`]: the only place that names bincode, with limits and a version byte;
//! * [`socket`]: the one `dial`/`listen` pair that makes every socket;
//! * [`backoff`]: pauses between tries that failed;
//! * [`seed`]: generators derived from (seed, name), so that runs can be replayed;
//! * [`html`]: text as HTML, and the head of a page;
//! * [`mutants`]: planted bugs, asleep in every normal build;
//! * [`process`]: settings, log, signals and the end of a program.
//!
//! Left out on purpose: anything that knows what a log entry, a shard or a key is.

pub mod backoff;
pub mod clock;
pub mod codec;
pub mod html;
pub mod mutants;
pub mod process;
pub mod seed;
pub mod socket;
