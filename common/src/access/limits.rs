//! What one client may use at a time.

use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// What one client may use: a client is a token, or an address where no tokens are asked for.
///
/// Memory is not among them: what all queries together may use is bounded once, for the engine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// So many queries of a client are at work at once; one more is refused.
    pub queries: usize,
    /// A query is stopped after this long, and so is an answer that its client takes longer to read.
    #[serde(with = "humantime_serde")]
    pub time: Duration,
    /// An answer breaks off rather than have more rows,
    pub rows: u64,
    /// or a longer body.
    pub bytes: ByteSize,
    /// The longest SQL that is read: planning takes time by its length, and cannot be stopped.
    pub sql: ByteSize,
}

impl Default for Limits {
    /// Far above what people and dashboards ask for, and below what would keep others from their answers for long.
    fn default() -> Self {
        Self {
            queries: 32,
            time: Duration::from_secs(300),
            rows: 50_000_000,
            bytes: ByteSize::gib(4),
            sql: ByteSize::kib(64),
        }
    }
}
