//! What kind of failure an error is: HTTP status, exit code and whether to try again follow from it.

use std::error::Error;

/// Whose failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// The caller's: the same request fails again.
    User,
    /// Something outside Lamina (broker, object store): it may pass.
    External,
    /// Lamina's own: a defect.
    Internal,
}

/// An error that says what kind of failure it is.
pub trait Fault: Error {
    /// Whose failure it is.
    fn domain(&self) -> Domain;

    /// Whether the same call may succeed later.
    fn retryable(&self) -> bool {
        self.domain() == Domain::External
    }
}

/// The error and everything beneath it, in one line, each cause once.
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}
