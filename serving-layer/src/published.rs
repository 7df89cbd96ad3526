//! Which batch view versions there are: the newest of each view, and some before it, which the speed layer may still
//! complete when it cannot yet complete the newest.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, PoisonError, RwLock, Weak},
    time::Duration,
};

use common::{
    catalog::{Catalog, View},
    fault::chain,
    storage::{self, Storage},
    supervisor::Supervisor,
    view::{Follower, Published, ViewTable},
};

use crate::touched::Touched;

/// So many versions of a view are offered to the speed layer: it may be a while until it can complete the newest, and
/// meanwhile others are published.
const OFFERED: usize = 4;

/// A batch view version, and what has been read of it.
#[derive(Debug)]
pub(crate) struct Version {
    /// `None` for the empty one, before the first is published.
    pub(crate) published: Option<Published>,
    /// States of the groups that the speed layer has touched.
    pub(crate) touched: Touched,
}

impl Version {
    fn new(published: Option<Published>) -> Arc<Self> {
        Arc::new(Self { published, touched: Touched::default() })
    }

    /// Its cut.
    pub(crate) fn cut(&self) -> common::position::Frontier {
        self.published.as_ref().map(|published| published.cut.clone()).unwrap_or_default()
    }
}

/// The versions of all views.
#[derive(Debug)]
pub struct Versions {
    views: BTreeMap<String, RwLock<Vec<Arc<Version>>>>,
}

impl Versions {
    /// Opens all views' tables and follows them for as long as somebody holds what it gives.
    pub async fn follow(
        storage: &Storage,
        catalog: &Catalog,
        every: Duration,
        supervisor: &Supervisor,
    ) -> Result<Arc<Self>, storage::Error> {
        let (mut views, mut followers) = (BTreeMap::new(), Vec::new());
        for view in catalog.views.values() {
            let (follower, published) = Follower::open(ViewTable::new(storage, view)?).await?;
            views.insert(view.name.clone(), RwLock::new(vec![Version::new(published)]));
            followers.push((view.clone(), follower));
        }
        let versions = Arc::new(Self { views });
        let cancelled = supervisor.cancelled();
        let following = Arc::downgrade(&versions);
        supervisor.spawn("serving layer's view of the batch views", async move {
            tokio::select! {
                () = cancelled.cancelled() => {}
                () = Self::run(following, followers, every) => {}
            }
            Ok::<(), Infallible>(())
        });
        Ok(versions)
    }

    async fn run(this: Weak<Self>, mut followers: Vec<(Arc<View>, Follower)>, every: Duration) {
        while let Some(versions) = this.upgrade() {
            for (view, follower) in &mut followers {
                loop {
                    match follower.next().await {
                        Ok(Some(published)) => versions.add(&view.name, published),
                        Ok(None) => break,
                        Err(error) => {
                            tracing::warn!(view = view.name, "serving layer cannot follow the view: {}", chain(&error));
                            break;
                        }
                    }
                }
            }
            drop(versions);
            tokio::time::sleep(every).await;
        }
    }

    fn add(&self, view: &str, published: Published) {
        if let Some(versions) = self.views.get(view) {
            let mut versions = versions.write().unwrap_or_else(PoisonError::into_inner);
            versions.insert(0, Version::new(Some(published)));
            versions.truncate(OFFERED);
        }
    }

    /// The versions of a view, newest first.
    pub(crate) fn of(&self, view: &str) -> Vec<Arc<Version>> {
        let versions =
            self.views.get(view).map(|versions| versions.read().unwrap_or_else(PoisonError::into_inner).clone());
        versions.unwrap_or_default()
    }

    /// The newest batch view version of a view.
    pub fn newest(&self, view: &str) -> Option<Published> {
        self.of(view).first().and_then(|version| version.published.clone())
    }
}
