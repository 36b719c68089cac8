//! Says whether what clients saw can have happened.
//!
//! [`history`]: the format in which every run is written down. [`linearizability`]: the judges. Knows nothing of the
//! product, so that nothing of the product can mislead it.

pub mod history;
pub mod linearizability;
