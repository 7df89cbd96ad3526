//! What the functions of one query know of it: whether it is still wanted, and what its constants come to.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use datafusion::{
    common::config::{ConfigEntry, ConfigExtension, ExtensionOptions},
    error::{DataFusionError, Result},
};

/// Whether a query is still wanted. Clones speak of one query. It goes with the options of the query's session.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    is_stopped: AtomicBool,
    constant_bytes: AtomicU64,
}

impl Stop {
    /// A guard: once it is dropped, the query is not wanted any more.
    pub fn on_drop(&self) -> StopOnDrop {
        StopOnDrop(Some(self.clone()))
    }

    /// An error once the query is not wanted any more.
    pub fn check(&self) -> Result<()> {
        match self.0.is_stopped.load(Ordering::Relaxed) {
            true => Err(DataFusionError::Execution("the query was stopped".to_owned())),
            false => Ok(()),
        }
    }

    /// Counts a constant that is made. Gives what all of them come to.
    pub(super) fn constant(&self, bytes: u64) -> u64 {
        self.0.constant_bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes)
    }
}

/// Stops a query when it is dropped.
#[derive(Debug)]
pub struct StopOnDrop(Option<Stop>);

impl StopOnDrop {
    /// Lets the query go on: somebody else stops it.
    pub fn let_go(mut self) {
        self.0 = None;
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        if let Some(Stop(shared)) = &self.0 {
            shared.is_stopped.store(true, Ordering::Relaxed);
        }
    }
}

/// It is none that anybody could set.
impl ConfigExtension for Stop {
    const PREFIX: &'static str = "lamina";
}

impl ExtensionOptions for Stop {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, _: &str) -> Result<()> {
        Err(DataFusionError::Configuration(format!("`{key}` cannot be set")))
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        Vec::new()
    }
}
