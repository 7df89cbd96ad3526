//! Uploads in parts of what is to be sealed: it is kept until its end is there.

use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use object_store::{
    MultipartUpload, ObjectStore, PutOptions, PutPayload, PutPayloadMut, PutResult, Result, UploadPart, path::Path,
};

/// Collects the parts of an object and puts it as a whole.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) path: Path,
    pub(super) options: PutOptions,
    pub(super) parts: PutPayloadMut,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        for part in data {
            self.parts.push(part);
        }
        async { Ok(()) }.boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let whole = std::mem::take(&mut self.parts).freeze();
        self.store.put_opts(&self.path, whole, self.options.clone()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.parts = PutPayloadMut::default();
        Ok(())
    }
}
