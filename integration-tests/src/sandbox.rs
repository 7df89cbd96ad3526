//! The real services, started for a test on loopback and stopped with it.

pub mod browser;
pub mod kafka;
pub mod process;
pub mod s3;

use std::path::PathBuf;

/// Where `integration-tests/install.sh` keeps what it brought.
#[allow(clippy::disallowed_methods, reason = "the same place that the script chose")]
pub fn cache() -> PathBuf {
    match std::env::var("XDG_CACHE_HOME") {
        Ok(folder) => PathBuf::from(folder),
        Err(_) => PathBuf::from(std::env::var("HOME").unwrap_or_default()).join(".cache"),
    }
    .join("lamina")
}
