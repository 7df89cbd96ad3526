//! Follows the master dataset and the batch views: in a task of its own, so that the head never waits for the store.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{
    catalog::{Dataset, View},
    fault::chain,
    jobs::Announced,
    master,
    position::{Frontier, Partition},
    storage,
    view::{self, ViewTable},
};
use tokio::sync::mpsc;

use crate::Context;

/// What has happened to a table.
#[derive(Debug)]
pub(super) enum Update {
    /// The master dataset has a new version.
    Master(Box<master::Version>),
    /// A view has a new batch view version.
    Published {
        /// Which view.
        view: String,
        /// Its cut.
        cut: Frontier,
    },
    /// By view, the cuts that running recomputes work towards: these and no others.
    Announced(BTreeMap<String, Vec<Frontier>>),
}

/// The tables of one dataset and where they stand.
#[derive(Debug)]
pub(super) struct Following {
    dataset: String,
    master: master::Follower,
    views: BTreeMap<String, (view::Follower, Frontier)>,
    announced: Announced,
    /// Job records are looked at this often: well before a boundary that a job has announced may go.
    announced_every: Duration,
    announced_at: Option<Instant>,
}

impl Following {
    /// Opens all tables at their newest versions. The views first: their cuts are then never above the master version.
    pub(super) async fn open(
        context: &Context,
        dataset: &Dataset,
        views: &[Arc<View>],
        partitions: Partition,
    ) -> Result<Self, storage::Error> {
        let mut followed = BTreeMap::new();
        for view in views {
            let (follower, published) = view::Follower::open(ViewTable::new(&context.storage, view)?).await?;
            let cut = published.map(|published| published.cut).unwrap_or_default();
            followed.insert(view.name.clone(), (follower, cut));
        }
        let master = master::Follower::open(&context.storage, dataset, partitions).await?;
        Ok(Self {
            dataset: dataset.name.clone(),
            master,
            views: followed,
            announced: Announced::new(context.storage.clone()),
            announced_every: context.settings.keep_boundaries / 10,
            announced_at: None,
        })
    }

    /// The master version that it stands at.
    pub(super) fn master(&self) -> &master::Version {
        self.master.at()
    }

    /// The newest cut of a view, the empty one before the first.
    pub(super) fn cut(&self, view: &str) -> Frontier {
        self.views.get(view).map(|(_, cut)| cut.clone()).unwrap_or_default()
    }

    /// Tells what happens until nobody listens.
    pub(super) async fn run(mut self, updates: mpsc::Sender<Update>, every: Duration) {
        loop {
            if updates.is_closed() {
                return;
            }
            if let Err(error) = self.look(&updates).await {
                tracing::warn!(dataset = self.dataset, "speed layer cannot follow the tables: {}", chain(&error));
            }
            tokio::time::sleep(every).await;
        }
    }

    async fn look(&mut self, updates: &mpsc::Sender<Update>) -> Result<(), storage::Error> {
        while self.master.advance().await? {
            let version = Box::new(self.master.at().clone());
            if updates.send(Update::Master(version)).await.is_err() {
                return Ok(());
            }
        }
        // Before the views: what a job that is no longer announced has published is then told first.
        let announced = match self.announced_at {
            Some(at) if at.elapsed() < self.announced_every => None,
            _ => match self.announced.look().await {
                Ok(announced) => Some(announced),
                Err(error) => {
                    tracing::warn!(dataset = self.dataset, "speed layer cannot read the jobs: {}", chain(&error));
                    None
                }
            },
        };
        for (view, (follower, _)) in &mut self.views {
            while let Some(published) = follower.next().await? {
                let update = Update::Published { view: view.clone(), cut: published.cut };
                if updates.send(update).await.is_err() {
                    return Ok(());
                }
            }
        }
        if let Some(mut announced) = announced {
            self.announced_at = Some(Instant::now());
            announced.retain(|view, _| self.views.contains_key(view));
            // Nobody listens any more: the next look sees that.
            let _ = updates.send(Update::Announced(announced)).await;
        }
        Ok(())
    }
}
