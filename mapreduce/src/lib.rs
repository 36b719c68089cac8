//! MapReduce (MIT lab 1): a coordinator hands out tasks, workers do them, and any of them may die.
//!
//! A job is a directory that everybody sees (`files`): its description, what maps wrote for reducers, which attempts
//! won, and the output. Workers on other machines need it as a shared file system. A map task reads one file, or one
//! shard of the store, and writes a file for each reducer; a reduce task reads its file of every map. Every file
//! appears whole, by a rename. The first attempt that is done wins its task forever, by a mark that can be made once.
//! So attempts may run twice, side by side and late: nobody reads what a loser wrote.
//!
//! `job` decides who does what, a pure value. `coordinator` puts it behind a socket, `api` is what is said there,
//! `worker` does tasks. `program` is what is run. `input` reads records, `store` adds the results to the key/value store
//! exactly once. The program `mr` (package mapreduce-cli) has the verbs, the apps and the commands.
//!
//! Left out on purpose: files served over RPC (hence the shared directory), synced files (a job that loses its machine
//! is run again), a sort on disk (a task's pairs fit in memory, and one that does not says so), combiners.

mod api;
mod coordinator;
mod files;
mod input;
mod job;
mod program;
mod remote;
mod store;
mod worker;

pub use api::{Coordinate, Reply, Request};
pub use coordinator::{Coordinator, listen};
pub use files::{Directory, Input, Output, Run, Spec};
pub use input::check;
pub use job::{Attempt, End, Job, Kind, SILENT, State, TASKS_MAX, Task};
pub use program::{App, Fault, Groups, Made, PAIRS_BYTES_MAX, Pairs, Program};
pub use remote::Remote;
pub use store::{PATIENCE, Store, is_reserved};
pub use worker::{Worker, sequential};
