//! The load of `clerk bench`, its figures, and their pages.
//!
//! [`settings`] is what people ask for, [`plan`] what is done. [`client`] makes the operations, with
//! keys from [`keys`], in a closed loop or by the schedule of [`pace`]. [`measure`] counts,
//! [`record`] writes down every operation, [`process`] reads what processes use. [`result`] is the
//! one document of a run, from which [`html`] makes a page.
//!
//! ```
//! use clerk_bench::plan::plan;
//! use clerk_bench::settings::Settings;
//!
//! let asked = Settings { clients: Some(8), seconds: Some(2.0), ..Settings::default() };
//! let plan = plan(&asked, &[], None)?;
//! assert_eq!(plan.phases[0].load.clients, 8);
//! # Ok::<(), clerk_bench::Error>(())
//! ```
//!
//! Left out on purpose: which cluster, and what happens to it meanwhile. That is for the program
//! (`clerk/cli/src/bench.rs`).

pub mod client;
pub mod html;
pub mod keys;
pub mod measure;
pub mod pace;
pub mod plan;
pub mod process;
pub mod record;
pub mod result;
pub mod run;
pub mod settings;
pub mod words;

use std::path::Path;

/// Why a run is not planned, recorded or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The settings contradict each other.
    #[error("{0}")]
    Usage(String),
    /// A workload file is not as it should be.
    #[error("{0}")]
    BadInput(String),
    /// A file is no saved result.
    #[error("{0}")]
    NoResult(String),
    /// A file cannot be read or written.
    #[error("{0}")]
    Io(String),
}

impl Error {
    fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Self {
        Self::Io(format!("cannot {what} {}: {error}", path.display()))
    }
}
