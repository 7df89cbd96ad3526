//! Tasks that nobody forgets: named, cancelled together, and none fails without a word.

use std::{fmt::Debug, future::Future, sync::Arc};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Starts tasks and stops them in order. Clones share one set of tasks.
///
/// The first task that fails cancels all the others; its name and error are what [`Supervisor::wait`] returns.
#[derive(Clone, Debug, Default)]
pub struct Supervisor {
    tasks: TaskTracker,
    cancel: CancellationToken,
    failure: Arc<std::sync::Mutex<Option<String>>>,
}

impl Supervisor {
    /// No tasks yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A supervisor whose tasks are told to stop when this one's are, and that can be stopped before.
    pub fn child(&self) -> Self {
        Self { tasks: TaskTracker::new(), cancel: self.cancel.child_token(), failure: self.failure.clone() }
    }

    /// Told when the tasks should stop.
    pub fn cancelled(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// Starts a task. An error that it returns, or a panic, cancels all tasks of this supervisor.
    #[allow(clippy::disallowed_methods, reason = "this is the one place that spawns")]
    pub fn spawn<E: Debug + std::fmt::Display + Send + 'static>(
        &self,
        name: impl Into<String>,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let name = name.into();
        let this = self.clone();
        let inner = tokio::spawn(task);
        self.tasks.spawn(async move {
            let failure = match inner.await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => format!("{name}: {error}"),
                Err(panic) => format!("{name} died: {panic}"),
            };
            tracing::error!(task = name, "{failure}");
            if let Ok(mut first) = this.failure.lock() {
                first.get_or_insert(failure);
            }
            this.cancel.cancel();
        });
    }

    /// Tells all tasks to stop.
    pub fn stop(&self) {
        self.cancel.cancel();
    }

    /// Waits until all tasks have ended. Gives the first failure, if there was one.
    pub async fn wait(&self) -> Result<(), String> {
        self.tasks.close();
        self.tasks.wait().await;
        match self.failure.lock().ok().and_then(|mut failure| failure.take()) {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }
}
