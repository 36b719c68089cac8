//! Small files of text, replaced as a whole: a first line that names the format, then lines "key value".

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::OpenError;

/// Keys and values, in order.
pub(super) type Lines = Vec<(String, String)>;

/// The lines of a file behind its first one, which must name `format`. None if there is no such file.
pub(super) fn read(path: &Path, name: &str, format: u32) -> Result<Option<(PathBuf, Lines)>, OpenError> {
    let at = path.join(name);
    let text = match fs::read_to_string(&at) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(corrupt(&at, "not text")),
        Err(error) => return Err(unavailable(&at, &error)),
    };
    let pairs = text.lines().map(|line| line.split_once(' ').map(|(key, value)| (key.into(), value.into())));
    let lines: Option<Lines> = pairs.collect();
    let mut lines = lines.ok_or_else(|| corrupt(&at, "a line has no value"))?.into_iter();
    let shown = || at.display().to_string();
    match lines.next() {
        Some((key, found)) if key == "format" => match found.parse() {
            Ok(found) if found == format => Ok(Some((at, lines.collect()))),
            Ok(found) if found > format => {
                Err(OpenError::NewerFormat { path: shown(), found, supported: format })
            }
            Ok(found) if found > 0 => Err(OpenError::OlderFormat { path: shown(), found, supported: format }),
            _ => Err(corrupt(&at, format!("format {found:?}"))),
        },
        _ => Err(corrupt(&at, "it does not begin with its format")),
    }
}

/// Replaces a file as a whole, durably.
pub(super) fn replace(directory: &Path, name: &str, text: &str) -> io::Result<()> {
    let partial = directory.join(format!("{name}.partial"));
    let mut file = File::create(&partial)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&partial, directory.join(name))?;
    sync_directory(directory)
}

/// Makes durable which files a directory holds.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// The operating system's words about `path`.
pub(super) fn unavailable(path: &Path, error: &dyn fmt::Display) -> OpenError {
    OpenError::Unavailable { path: path.display().to_string(), what: error.to_string() }
}

/// What is wrong with `path`.
pub(super) fn corrupt(path: &Path, what: impl ToString) -> OpenError {
    OpenError::Corrupt { path: path.display().to_string(), what: what.to_string() }
}
