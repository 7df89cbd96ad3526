//! Deletes the files that nobody can read any more: those of replaced batch view versions, and those that a writer left
//! behind without a commit.

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use common::{fault::chain, storage, view::ViewTable};
use futures::TryStreamExt;
use object_store::{ObjectStoreExt, path::Path};

use crate::Context;

const EVERY: Duration = Duration::from_secs(300);

/// Looks now and then, until it is told to stop.
pub(crate) async fn run(context: Arc<Context>) -> Result<(), Infallible> {
    let cancelled = context.supervisor.cancelled();
    loop {
        tokio::select! {
            () = cancelled.cancelled() => return Ok(()),
            () = tokio::time::sleep(EVERY) => {}
        }
        for view in context.catalog.views.values() {
            let swept = async { sweep(&context, &ViewTable::new(&context.storage, view)?).await };
            if let Err(error) = swept.await {
                tracing::warn!(view = view.name, "maintenance: {}", chain(&error));
            }
        }
    }
}

/// Deletes what no version names that was published within the retention time, and is itself older than that.
async fn sweep(context: &Context, table: &ViewTable) -> Result<(), storage::Error> {
    if !table.table().exists().await? {
        return Ok(());
    }
    let retention_ms = i64::try_from(context.settings.retention.as_millis()).unwrap_or(i64::MAX);
    let oldest_ms = context.clock.now_ms() - retention_ms;
    let mut named: BTreeSet<String> =
        table.table().load(None).await?.files().into_iter().map(|file| file.path).collect();
    // A version replaced a moment ago may be read by a query that began before: its successor says when that was.
    for version in table.history(usize::MAX).await? {
        named.extend(version.files.iter().map(|file| file.path.clone()));
        if version.published_at_ms < oldest_ms {
            break;
        }
    }
    let prefix = Path::from(table.table().path());
    let failed = |action, path: &Path| {
        let path = path.to_string();
        move |source| storage::Error::Object { action, path, source }
    };
    let objects = context.storage.objects();
    let listed: Vec<_> = objects.list(Some(&prefix)).try_collect().await.map_err(failed("list", &prefix))?;
    for object in listed {
        let Some(name) = object.location.filename() else { continue };
        let is_data = name.starts_with("part-") && !object.location.as_ref().contains("_delta_log");
        if is_data && !named.contains(name) && object.last_modified.timestamp_millis() < oldest_ms {
            objects.delete(&object.location).await.map_err(failed("delete", &object.location))?;
        }
    }
    Ok(())
}
