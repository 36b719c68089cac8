//! MapReduce (MIT lab 1): a coordinator hands out tasks, workers do them, and any of them may
//! die.
//!
//! ```
//! use mapreduce::{App, sequential};
//!
//! /// Counts words.
//! struct Count;
//!
//! impl App for Count {
//!     fn map(&self, _file: &str, text: &str, emit: &mut dyn FnMut(String, String)) {
//!         text.split_whitespace().for_each(|word| emit(word.to_owned(), "1".to_owned()));
//!     }
//!
//!     fn reduce(&self, _word: &str, ones: &[String]) -> String {
//!         ones.len().to_string()
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let file = std::env::temp_dir().join(format!("words-{}", std::process::id()));
//! std::fs::write(&file, "to be or not to be")?;
//! // Without workers. `mr run` gives the same job to many: see mapreduce/cli/.
//! let counts = sequential(&Count, &[("words".to_owned(), file.clone())]).await.expect("it reads");
//! assert_eq!(counts[0], ("be".to_owned(), "2".to_owned()));
//! # std::fs::remove_file(file)
//! # }
//! ```
//!
//! A job is a directory that all of them see (`files`). It holds the job's description, the files
//! that maps wrote for reducers, the marks of the attempts that won, and the output. Workers on
//! other machines need it as a shared file system. A map task reads one file, or one shard of the
//! store, and writes a file for each reducer. A reduce task reads its file of every map. A rename
//! makes each file appear complete. The first attempt that is done wins its task forever, by a mark
//! that can be made only once. So attempts may run twice, at the same time and late: nobody reads
//! the files of a loser.
//!
//! `job` decides who does what; it is a pure value. `coordinator` serves it on a socket, `api` has
//! the messages, and `worker` does tasks. `program` is what a job runs. `input` reads records, and
//! `store` adds the results to the key/value store exactly once. The program `mr` (package
//! mapreduce-cli) has the verbs, the apps and the commands.
//!
//! Left out on purpose: files served over RPC (the directory is shared instead), synced files (a
//! job that loses its machine is run again), a sort on disk (the pairs of a task must fit in
//! memory, and a task whose pairs do not says so), and combiners.

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
