//! Takes newer versions of the catalog up while the layer runs: another engine is started beside the one that answers, and
//! takes its place once every view that is new in it, or another one now, can be answered. Until then, and for ever if it
//! never comes to that, the one before answers.

use std::{convert::Infallible, sync::Arc, time::Duration};

use common::{
    catalog::{Catalog, View, published},
    fault::chain,
    process::Failure,
    storage::Storage,
    supervisor::Supervisor,
};

use crate::{engine::Engine, http::Current};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the next engine may take to show that it can answer: the present views are asked for meanwhile, and the
/// speed layer keeps what is asked for.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// Follows the versions of the catalog above `version`, for `current`.
pub fn follow(current: Current, storage: Storage, version: u64, supervisor: &Supervisor) {
    let cancelled = supervisor.cancelled();
    let mut deploy = Deploy { current, storage, version, next: None, told: None };
    supervisor.spawn("serving layer's view of the catalog", async move {
        let following = async {
            loop {
                deploy.look().await;
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::select! {
            () = cancelled.cancelled() => Ok::<(), Infallible>(()),
            () = following => Ok(()),
        }
    });
}

struct Deploy {
    current: Current,
    storage: Storage,
    /// The newest version that has been looked at.
    version: u64,
    /// What is to take the present one's place.
    next: Option<Arc<Engine>>,
    /// Why it does not yet, as it was last told.
    told: Option<String>,
}

impl Deploy {
    async fn look(&mut self) {
        let reason = match self.step().await {
            Ok(reason) => reason,
            Err(error) => Some(chain(error.as_ref())),
        };
        if let Some(reason) = reason.as_ref().filter(|reason| self.told.as_ref() != Some(reason)) {
            tracing::info!(version = self.version, "the catalog before goes on answering: {reason}");
        }
        self.told = reason;
    }

    /// One step towards the newest catalog. Why it does not answer yet.
    async fn step(&mut self) -> Result<Option<String>, Failure> {
        let context = self.current.context();
        if let Some(newer) = published::newer(&self.storage, self.version).await? {
            let catalog = Arc::new(newer.catalog()?);
            self.next = Some(context.engine.succeeded_by(catalog).await?);
            self.version = newer.version;
        }
        let Some(next) = &self.next else { return Ok(None) };
        let new = published::changed(next.catalog(), &context.catalog);
        let old = published::changed(&context.catalog, next.catalog());
        let able = tokio::time::timeout(ANSWERS_WITHIN, able(&self.storage, next, &new));
        match tokio::join!(able, context.engine.answers(&old)) {
            (Ok(Ok(None)), _) => {}
            (Ok(waits), _) => return waits,
            (Err(_), _) => return Ok(Some("the speed layer does not have the states of what is new yet".to_owned())),
        }
        self.current.switch(next.clone());
        tracing::info!(version = self.version, "the catalog answers: {}", named(&new, next.catalog()));
        self.next = None;
        Ok(None)
    }
}

/// Why `views` cannot be answered yet.
async fn able(storage: &Storage, engine: &Engine, views: &[Arc<View>]) -> Result<Option<String>, Failure> {
    if !published::is_built(storage, views).await? {
        return Ok(Some("not every view that is new has a batch view version".to_owned()));
    }
    Ok(engine.answers(views).await.err())
}

fn named(new: &[Arc<View>], catalog: &Catalog) -> String {
    let names: Vec<String> = new.iter().map(|view| format!("`{}`", view.name)).collect();
    match names.is_empty() {
        true => format!("{} views, none of them new", catalog.views.len()),
        false => format!("{} views, new or changed {}", catalog.views.len(), names.join(", ")),
    }
}
