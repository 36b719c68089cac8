//! Small text files, replaced as a whole: a first line that names the format, then lines "key
//! value", last the checksum of everything before it. A file that was damaged, truncated or edited
//! by hand is refused (rule 60).

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use raft::storage::OpenError;

/// Keys and values, in order.
pub(super) type Lines = Vec<(String, String)>;

/// The lines of a file between its first one, which must name `format`, and its checksum. None if there is no such file.
pub(super) fn read(path: &Path, name: &str, format: u32) -> Result<Option<(PathBuf, Lines)>, OpenError> {
    let at = path.join(name);
    let text = match fs::read_to_string(&at) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(corrupt(&at, "not text")),
        Err(error) => return Err(unavailable(&at, &error)),
    };
    // First the format: another one may end differently.
    check_format(&at, text.lines().next().unwrap_or_default(), format)?;
    let body = checked(&text).ok_or_else(|| {
        corrupt(&at, "its checksum does not match what stands before it: it went bad, was cut short or changed by hand")
    })?;
    let pair = |line: &str| line.split_once(' ').map(|(key, value)| (key.into(), value.into()));
    let lines: Option<Lines> = body.lines().skip(1).map(pair).collect();
    let lines = lines.ok_or_else(|| corrupt(&at, "a line has no value"))?;
    Ok(Some((at, lines)))
}

fn check_format(at: &Path, line: &str, format: u32) -> Result<(), OpenError> {
    let found =
        line.strip_prefix("format ").ok_or_else(|| corrupt(at, "it does not begin with its format"))?;
    let path = at.display().to_string();
    match found.parse() {
        Ok(found) if found == format => Ok(()),
        Ok(found) if found > format => Err(OpenError::NewerFormat { path, found, supported: format }),
        Ok(found) if found > 0 => Err(OpenError::OlderFormat { path, found, supported: format }),
        _ => Err(corrupt(at, format!("format {found:?}"))),
    }
}

/// The text before the checksum, if that is right and nothing follows it.
fn checked(text: &str) -> Option<&str> {
    let end = text.strip_suffix('\n')?.rfind('\n')? + 1;
    (text[end..] == checksum_line(&text[..end])).then_some(&text[..end])
}

fn checksum_line(text: &str) -> String {
    format!("checksum {}\n", crc32fast::hash(text.as_bytes()))
}

/// Replaces a file as a whole, durably: with its format, these lines and their checksum.
pub(super) fn replace(directory: &Path, name: &str, format: u32, lines: &str) -> io::Result<()> {
    let text = format!("format {format}\n{lines}");
    let partial = directory.join(format!("{name}.partial"));
    let mut file = File::create(&partial)?;
    file.write_all((text.clone() + &checksum_line(&text)).as_bytes())?;
    file.sync_all()?;
    fs::rename(&partial, directory.join(name))?;
    sync_directory(directory)
}

/// Makes durable which files a directory holds.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// The operating system's error about `path`.
pub(super) fn unavailable(path: &Path, error: &dyn fmt::Display) -> OpenError {
    OpenError::Unavailable { path: path.display().to_string(), what: error.to_string() }
}

/// What is wrong with `path`.
pub(super) fn corrupt(path: &Path, what: impl ToString) -> OpenError {
    OpenError::Corrupt { path: path.display().to_string(), what: what.to_string() }
}
