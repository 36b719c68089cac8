//! MapReduce (MIT lab 1): a coordinator hands out tasks, workers do them, and any of them may die.
//!
//! A job is a directory that everybody sees ([`files`]): its description, what maps wrote for reducers, which attempts
//! won, and the output. Workers on other machines need it as a shared file system. A map task reads one file, or one
//! shard of the store, and writes a file for each reducer; a reduce task reads its file of every map. Every file
//! appears whole, by a rename. The first attempt that is done wins its task for ever, by a mark that can be made once.
//! So attempts may run twice, side by side and late: nobody reads what a loser wrote.
//!
//! [`job`] decides who does what, a pure value. [`coordinator`] puts it behind a socket, [`api`] is what is said there,
//! [`worker`] does tasks. [`program`] is what is run: an [`apps`] of the table, a [`trials`] of the labs' tests, or
//! two commands. [`input`] reads records, [`store`] adds the results to the key/value store exactly once.
//!
//! Left out on purpose: files served over RPC (hence the shared directory), synced files (a job that loses its machine
//! is run again), a sort on disk (a task's pairs fit in memory, and one that does not says so), combiners.

pub mod api;
pub mod apps;
pub mod coordinator;
pub mod files;
pub mod input;
pub mod job;
pub mod program;
pub mod remote;
pub mod store;
pub mod trials;
pub mod worker;
