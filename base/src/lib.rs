//! The foundation of `raft` and `clerk`, which cannot import each other:
//!
//! * [`clock`]: the only access to time, so that a simulation can own it;
//! * [`codec`]: the only place that names bincode, with limits and a version byte;
//! * [`socket`]: the one `dial`/`listen` pair that makes every socket;
//! * [`backoff`]: pauses between retries;
//! * [`seed`]: generators derived from (seed, name), so that runs can be replayed;
//! * [`html`]: text as HTML, and the head of a page;
//! * [`mutants`]: planted bugs, disabled in every normal build;
//! * [`process`]: settings, log, signals and the end of a program.
//!
//! ```
//! // What is encoded begins with the version of its format, and is read with a limit.
//! let bytes = base::codec::encode(&("key", 7_u64));
//! let (key, count): (String, u64) = base::codec::decode(&bytes, bytes.len()).expect("our own bytes");
//! assert_eq!((key.as_str(), count), ("key", 7));
//!
//! // One seed replays a run, and each name in it has luck of its own.
//! assert_eq!(base::seed::derive(1, "node 1"), base::seed::derive(1, "node 1"));
//! assert_ne!(base::seed::derive(1, "node 1"), base::seed::derive(1, "node 2"));
//! ```
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
pub mod times;
