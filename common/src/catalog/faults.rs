//! What is wrong with a catalog: all of it, at once.

use std::fmt;

use sqlparser::tokenizer::Location;

use crate::fault::{Domain, Fault, visible};

/// Everything that is wrong with a catalog. Displays one line for each flaw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// The flaws, in the order of their places; at least one.
    pub flaws: Vec<Flaw>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flaw {
    /// The file, by its name in the catalog's folder.
    pub file: String,
    /// Its line, from 1; 0 when it is the file as a whole.
    pub line: u64,
    /// The column in that line, from 1.
    pub column: u64,
    /// What is wrong.
    pub reason: String,
    /// What to write instead.
    pub hint: String,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}; {}", self.file, self.reason, self.hint),
            line => write!(f, "{}:{line}:{}: {}; {}", self.file, self.column, self.reason, self.hint),
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, flaw) in self.flaws.iter().enumerate() {
            let newline = if i == 0 { "" } else { "\n" };
            write!(f, "{newline}{flaw}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

impl Fault for Faults {
    fn domain(&self) -> Domain {
        Domain::User
    }
}

impl Faults {
    pub(super) fn of_folder(folder: &std::path::Path, reason: String, hint: &str) -> Self {
        let file = folder.display().to_string();
        Self { flaws: vec![Flaw { file, line: 0, column: 0, reason, hint: hint.to_owned() }] }
    }
}

/// Collects the flaws of one file.
#[derive(Debug)]
pub(super) struct Report<'a> {
    pub(super) file: &'a str,
    pub(super) flaws: &'a mut Vec<Flaw>,
}

impl Report<'_> {
    /// Notes a flaw. Gives `None`, for the caller to go on without what is wrong.
    pub(super) fn flaw<T>(&mut self, at: Location, reason: impl Into<String>, hint: impl Into<String>) -> Option<T> {
        let Location { line, column } = at;
        // A flaw is one line, whoever worded it.
        let (reason, hint) = (reason.into().replace('\n', " "), hint.into().replace('\n', " "));
        let reason = visible(&reason).into_owned();
        self.flaws.push(Flaw { file: self.file.to_owned(), line, column, reason, hint });
        None
    }
}
