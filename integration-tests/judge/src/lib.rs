//! Decides whether a recorded history can have happened.
//!
//! ```
//! use judge::{history, linearizability};
//!
//! // Client 1 writes, and its write is over at 2 ns. Client 2 asks at 3 ns and is told that nothing is there.
//! let lines = r#"
//! {"client":1,"op":"put","key":"k","value":"a","version":1,"call_ns":1,"return_ns":2,"outcome":"ok"}
//! {"client":2,"op":"get","key":"k","version":0,"call_ns":3,"return_ns":4,"outcome":"ok"}
//! "#;
//! let operations = history::read(lines.trim().as_bytes())?;
//! let anomaly = linearizability::check(&operations).unwrap_err();
//! assert!(anomaly.to_string().starts_with("not linearizable: key k"), "{anomaly}");
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! [`history`] is the format in which every run is recorded. [`linearizability`] holds the judges.
//! This crate knows nothing of the product, so the product cannot mislead it.

pub mod history;
pub mod linearizability;
