//! What a start would make of a log.

use std::path::Path;

use super::manifest::Manifest;
use super::{repair, survey};
use crate::lines::corrupt;
use raft::storage::{OpenError, Restored, Save};

/// The result of a start with this log.
#[derive(Debug)]
pub struct Judged {
    /// Its content, or its content once it is repaired.
    pub restored: Restored,
    /// The damage, if there is any: a start repairs it (correctness rule 62).
    pub damage: Option<String>,
}

/// Judges the log in the directory `path` as a start would, and changes nothing.
///
/// # Errors
/// The error of a start.
pub fn judge(path: &Path) -> Result<Judged, OpenError> {
    let path = &repair::place(path);
    let manifest = Manifest::read(path)?.ok_or_else(|| corrupt(path, "the log that belongs here is gone"))?;
    let damage = match survey::survey(path, &manifest) {
        Ok(survey) => return Ok(Judged { restored: survey.restored, damage: None }),
        Err(damage @ OpenError::Corrupt { .. }) => damage,
        Err(error) => return Err(error),
    };
    let what = match &damage {
        OpenError::Corrupt { path, what } => format!("{path}: {what}"),
        error => error.to_string(),
    };
    let Save { hard_state, entries, marker, promised, .. } = repair::salvage(path, &manifest, damage)?;
    let restored = Restored {
        hard_state: hard_state.unwrap_or_default(),
        marker: marker.unwrap_or_default(),
        entries,
        promised: promised.unwrap_or_default(),
    };
    Ok(Judged { restored, damage: Some(what) })
}
