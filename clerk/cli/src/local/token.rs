//! The admin token of a local cluster: a file that only its owner may read. Who has its text may change
//! the cluster on the page (docs/operations.md).

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::failure::Failure;

/// Where the token of the cluster in a directory is.
pub(crate) fn path(directory: &Path) -> PathBuf {
    directory.join("admin-token")
}

/// Makes the token unless there is one.
pub(crate) fn make(directory: &Path) -> Result<(), Failure> {
    let path = path(directory);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let write = match file {
        Ok(mut file) => {
            let token: String = (0..4).map(|_| format!("{:016x}", rand::random::<u64>())).collect();
            writeln!(file, "{token}").and_then(|()| file.sync_all())
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    };
    Ok(write.with_context(|| format!("cannot write {}", path.display()))?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_token_is_made_once_and_only_its_owner_may_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let text = || {
            super::make(directory.path()).unwrap();
            std::fs::read_to_string(super::path(directory.path())).unwrap()
        };
        let token = text();
        assert_eq!((token.trim_end().len(), text()), (64, token));
        let mode = std::fs::metadata(super::path(directory.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
