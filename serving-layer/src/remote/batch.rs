//! The batch layer as a process elsewhere. Jobs are read from the object store, where their records are: that goes on
//! while the batch layer is down.

use std::time::Duration;

use async_trait::async_trait;
use common::{
    jobs::{Job, Jobs},
    operate::{BatchLayer, Error, Refusal},
    storage::Storage,
};

use super::Connect;

const WITHIN: Duration = Duration::from_secs(10);

/// The batch layer, reached over HTTP.
#[derive(Debug)]
pub struct RemoteBatch {
    jobs: Jobs,
    url: url::Url,
    client: reqwest::Client,
    authorization: Option<String>,
}

impl RemoteBatch {
    /// The batch layer at `url`, such as `http://127.0.0.1:8788`.
    pub fn new(url: url::Url, connect: &Connect, storage: &Storage) -> Result<Self, reqwest::Error> {
        let mut client = reqwest::Client::builder().timeout(WITHIN).no_proxy();
        if let Some(tls) = &connect.tls {
            client = client.use_preconfigured_tls(tls.clone());
        }
        let authorization = connect.secret.as_ref().map(common::access::Shared::authorization);
        Ok(Self { jobs: Jobs::new(storage.clone()), url, client: client.build()?, authorization })
    }
}

#[async_trait]
impl BatchLayer for RemoteBatch {
    async fn recompute(&self, view: &str) -> Result<Job, Error> {
        let unavailable = |error: Box<dyn std::error::Error + Send + Sync>| Error::Unavailable(error);
        let mut url = self.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["v1", "views", view, "recompute"]);
        }
        let mut request = self.client.post(url);
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let answer = request.send().await.map_err(|error| unavailable(error.into()))?;
        if answer.status().is_success() {
            return answer.json().await.map_err(|error| unavailable(error.into()));
        }
        let status = answer.status();
        match answer.json::<Refusal>().await {
            Ok(refusal) => Err(refusal.into()),
            Err(_) => Err(unavailable(format!("it answered {status}").into())),
        }
    }

    async fn jobs(&self, limit: usize) -> Result<Vec<Job>, Error> {
        self.jobs.list(limit).await.map_err(|error| Error::Unavailable(Box::new(error)))
    }

    async fn job(&self, id: &str) -> Result<Job, Error> {
        let job = self.jobs.get(id).await.map_err(|error| Error::Unavailable(Box::new(error)))?;
        job.ok_or_else(|| Error::UnknownJob { id: id.to_owned() })
    }
}
