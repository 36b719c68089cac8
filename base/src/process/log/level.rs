//! What a level of the log may say: a level, or a part of the program and its level, or several of
//! both.
//!
//! The library that filters would take more: spans, fields, patterns; and it takes a level that is
//! mistyped for the name of a module, of which it then writes everything.

/// The parts of the program that write lines, as the log names them.
const PARTS: [&str; 9] =
    ["base", "clerk", "clerk_survey", "host", "raft", "raft_disk", "shardctrler", "shardkv", "tarpc"];
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// Bytes of a text.
const TEXT_MAX: usize = 200;

/// Why a text is no level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LevelError {
    /// It names no level.
    #[error("{0:?} is no level; use off, error, warn, info, debug or trace")]
    Unknown(String),
    /// It names something else than a part of the program.
    #[error("no part of this program is named {0:?}; there are {parts}", parts = PARTS.join(", "))]
    Part(String),
    /// It is too long, or empty.
    #[error("a level has 1 to {TEXT_MAX} bytes")]
    Length,
    /// The filter does not take it.
    #[error("{0}")]
    Other(String),
}

/// Whether `text` is a level: `debug`, or `raft=debug,info`, or `raft::rsm=trace`.
///
/// # Errors
/// [`LevelError`].
pub fn check(text: &str) -> Result<(), LevelError> {
    if text.is_empty() || text.len() > TEXT_MAX {
        return Err(LevelError::Length);
    }
    for one in text.split(',') {
        let level = match one.split_once('=') {
            Some((module, level)) => {
                let part = module.split("::").next().unwrap_or_default();
                let is_path = module.bytes().all(|it| it.is_ascii_alphanumeric() || b"_:".contains(&it));
                if !PARTS.contains(&part) || !is_path {
                    return Err(LevelError::Part(module.to_owned()));
                }
                level
            }
            None => one,
        };
        if !LEVELS.contains(&level) {
            return Err(LevelError::Unknown(level.to_owned()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{LevelError, check};

    #[test]
    fn a_level_is_a_word_or_a_part_and_its_word() {
        for text in ["info", "raft=debug", "raft=debug,info", "raft::rsm=trace,shardkv=off,warn"] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    /// The filter would take most of these, and do something that nobody meant.
    #[test]
    fn a_mistyped_level_is_refused_and_not_taken_for_a_module() {
        let unknown = |text: &str| Err(LevelError::Unknown(text.to_owned()));
        let part = |text: &str| Err(LevelError::Part(text.to_owned()));
        assert_eq!(check("inof"), unknown("inof"));
        assert_eq!(check("INFO"), unknown("INFO"));
        assert_eq!(check("raft"), unknown("raft"));
        assert_eq!(check("raft=degub"), unknown("degub"));
        assert_eq!(check("info,"), unknown(""));
        assert_eq!(check("rfat=debug"), part("rfat"));
        assert_eq!(check("raft[x]=debug"), part("raft[x]"));
        assert_eq!(check("[{key=.*}]=trace"), part("[{key"));
        assert_eq!(
            (check(""), check(&"info,".repeat(50))),
            (Err(LevelError::Length), Err(LevelError::Length))
        );
    }
}
