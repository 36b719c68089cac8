//! Decides whether a recorded history can have happened.
//!
//! [`history`] is the format in which every run is recorded. [`linearizability`] holds the judges.
//! This crate knows nothing of the product, so the product cannot mislead it.

pub mod history;
pub mod linearizability;
