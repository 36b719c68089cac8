//! The admin token: who has it may change the cluster over HTTP. It is the text of a file that only its
//! owner may read.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The shortest token.
const TOKEN_BYTES_MIN: u64 = 16;
/// The longest one.
const TOKEN_BYTES_MAX: u64 = 1024;

/// Why a file is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("--admin-token {}: {error}; nothing was started", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: std::io::Error,
    },
    /// Others may read it.
    #[error(
        "--admin-token {}: its mode is {mode:04o}, so others could read it; nothing was started: chmod 0600 {0}",
        .path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It holds no token.
    #[error(
        "--admin-token {}: a token is one line of 16 to 1,024 letters, digits and marks without blanks; nothing \
         was started",
        .path.display()
    )]
    Odd {
        /// The file.
        path: PathBuf,
    },
}

/// The token.
#[derive(Clone)]
pub struct AdminToken(String);

impl AdminToken {
    /// Reads it from a file.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let failed = |error| TokenError::Io { path: path.to_owned(), error };
        let file = File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(TokenError::Open { path: path.to_owned(), mode });
        }
        let mut text = String::new();
        file.take(TOKEN_BYTES_MAX + 2).read_to_string(&mut text).map_err(failed)?;
        let token = text.trim_end_matches(['\n', '\r']);
        let bytes = token.len() as u64;
        let is_plain = token.bytes().all(|byte| byte.is_ascii_graphic());
        if !(TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&bytes) || !is_plain {
            return Err(TokenError::Odd { path: path.to_owned() });
        }
        Ok(Self(token.to_owned()))
    }

    /// Whether an `Authorization` header carries it. Takes as long for a wrong token of the same length
    /// as for the right one.
    pub fn is_in(&self, authorization: &str) -> bool {
        let Some((scheme, given)) = authorization.split_once(' ') else { return false };
        let (own, given) = (self.0.as_bytes(), given.trim().as_bytes());
        let differs = own.iter().zip(given).fold(0, |differs, (own, given)| differs | (own ^ given));
        scheme.eq_ignore_ascii_case("bearer")
            && own.len() == given.len()
            && std::hint::black_box(differs) == 0
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::AdminToken;

    fn read(text: &str, mode: u32) -> Result<AdminToken, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        AdminToken::read(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn a_token_that_others_may_read_is_refused_in_one_line() {
        for mode in [0o600, 0o400] {
            assert!(read("0123456789abcdef\n", mode).is_ok());
        }
        for mode in [0o640, 0o644, 0o604, 0o601, 0o620] {
            let said = read("0123456789abcdef\n", mode).err().unwrap();
            assert!(said.contains("chmod 0600") && !said.contains('\n'), "{said}");
        }
        for odd in ["", "\n", "short", "with a blank in it", "two\nlines of a token", &"x".repeat(1025)] {
            assert!(read(odd, 0o600).is_err_and(|said| said.contains("16 to 1,024")), "{odd}");
        }
    }

    #[test]
    fn only_the_token_itself_is_accepted() {
        let token = read("0123456789abcdef\n", 0o600).ok().unwrap();
        assert!(token.is_in("Bearer 0123456789abcdef") && token.is_in("bearer  0123456789abcdef "));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Basic 0123456789abcdef",
            "0123456789abcdef",
            "Bearer 0123456789abcdeF",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdeff",
        ] {
            assert!(!token.is_in(wrong), "{wrong}");
        }
    }
}
