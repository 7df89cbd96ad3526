//! Time, handed in, so that a simulation can drive it.

use std::{fmt::Debug, time::Duration};

/// Where the layers read the time.
pub trait Clock: Send + Sync + Debug {
    /// Microseconds since 1970-01-01T00:00:00Z.
    fn now_us(&self) -> i64;

    /// Milliseconds since 1970-01-01T00:00:00Z.
    fn now_ms(&self) -> i64 {
        self.now_us().div_euclid(1000)
    }
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Clock for System {
    #[allow(clippy::disallowed_methods, reason = "this is the clock that is handed in everywhere else")]
    fn now_us(&self) -> i64 {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        i64::try_from(since_epoch.unwrap_or(Duration::ZERO).as_micros()).unwrap_or(i64::MAX)
    }
}
