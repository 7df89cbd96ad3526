//! Has views made anew whose files are damaged: a query that meets one fails and says so, and the batch layer, which alone
//! writes, is asked to see to it. Nobody has to be told first.

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use common::{
    fault::chain,
    operate::{BatchLayer, Error},
    storage::Storage,
    supervisor::Supervisor,
};

/// While the batch layer is away, it is asked again after this.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Asks `batch` for the views that damaged objects of `storage` are of, as they are met.
pub fn follow(storage: &Storage, batch: Arc<dyn BatchLayer>, supervisor: &Supervisor) {
    let (damaged, cancelled) = (storage.damaged().clone(), supervisor.cancelled());
    supervisor.spawn("mending of damaged views", async move {
        let mut met = damaged.subscribe();
        let mending = async {
            while let Ok(views) = met.wait_for(|paths| !views(paths).is_empty()).await.map(|paths| views(&paths)) {
                for view in views {
                    match batch.recompute(view.as_str()).await {
                        Ok(job) => tracing::warn!(view, job = job.id, "files of the view are damaged: it is made anew"),
                        // It is at work, or by another catalog: who meets the damage again asks again.
                        Err(Error::Running { .. } | Error::UnknownView { .. }) => {}
                        Err(error) => {
                            tracing::warn!(
                                view,
                                "files of the view are damaged, and it is not made anew: {}",
                                chain(&error)
                            );
                            continue;
                        }
                    }
                    damaged.send_modify(|paths| paths.retain(|path| view_of(path) != Some(&view)));
                }
                tokio::time::sleep(ASK_AGAIN).await;
            }
        };
        tokio::select! {
            () = cancelled.cancelled() => {}
            () = mending => {}
        }
        Ok::<(), Infallible>(())
    });
}

fn views(paths: &BTreeSet<String>) -> BTreeSet<String> {
    paths.iter().filter_map(|path| view_of(path)).map(str::to_owned).collect()
}

/// The view that an object is of; entries of its table's log cannot be made anew by it.
fn view_of(path: &str) -> Option<&str> {
    let (view, rest) = path.strip_prefix("views/")?.split_once('/')?;
    (!rest.contains("_delta_log/")).then_some(view)
}
