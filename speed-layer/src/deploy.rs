//! Takes newer versions of the catalog up while the layer runs. What is replaced or removed is held until what takes its
//! place is built, and nobody has asked for it for a while: the serving layer asks as long as it has not switched.

use std::{convert::Infallible, sync::Arc, time::Duration};

use common::{catalog::published, fault::chain, process::Failure, resources};
use tokio_util::sync::CancellationToken;

use crate::SpeedLayer;

const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Follows the versions above `version`, until it is told to stop.
pub(crate) async fn follow(
    layer: Arc<SpeedLayer>,
    version: u64,
    cancelled: CancellationToken,
) -> Result<(), Infallible> {
    let mut version = version;
    let following = async {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if let Err(error) = look(&layer, &mut version).await {
                tracing::warn!("speed layer cannot follow the catalog: {}", chain(error.as_ref()));
            }
        }
    };
    tokio::select! {
        () = cancelled.cancelled() => Ok(()),
        () = following => Ok(()),
    }
}

async fn look(layer: &SpeedLayer, version: &mut u64) -> Result<(), Failure> {
    if let Some(newer) = published::newer(&layer.context.storage, *version).await? {
        *version = newer.version;
        match newer.catalog() {
            Ok(catalog) => {
                let catalog = Arc::new(catalog);
                resources::partitions(layer.context.log.as_ref(), &catalog).await;
                tracing::info!(version, "speed layer takes a catalog up");
                layer.take_up(catalog);
            }
            Err(faults) => {
                tracing::warn!(version, "speed layer cannot use a catalog, the one before goes on: {faults}")
            }
        }
    }
    layer.settle().await?;
    Ok(())
}
