//! A server of the S3 protocol over a folder.
//!
//! The library that it is made of looks before it writes, without a lock in between, so of two conditional puts both
//! could succeed. Here requests for one object take turns: writers alone, readers together.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use hyper::{
    Method, Request,
    body::Incoming,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use tokio::{net::TcpListener, sync::RwLock};

use super::process::free_port;

const STRIPES: usize = 1024;
const KEY: &str = "lamina";
const SECRET: &str = "lamina-secret";
/// The one bucket that there is.
pub const BUCKET: &str = "bucket";

/// Serves until the process ends.
pub async fn serve(address: SocketAddr, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder.join(BUCKET))?;
    let files = s3s_fs::FileSystem::new(folder).map_err(|error| anyhow!("{error:?}"))?;
    let mut builder = S3ServiceBuilder::new(files);
    builder.set_auth(SimpleAuth::from_single(KEY, SECRET));
    let service = builder.build();
    let locks: Arc<Vec<RwLock<()>>> = Arc::new((0..STRIPES).map(|_| RwLock::new(())).collect());
    let hasher = Arc::new(RandomState::new());
    let listener = TcpListener::bind(address).await?;
    loop {
        // A client that has gone in the meantime is no reason to end.
        let Ok((socket, _)) = listener.accept().await else { continue };
        let _ = socket.set_nodelay(true);
        let (service, locks, hasher) = (service.clone(), locks.clone(), hasher.clone());
        let in_turn = service_fn(move |request: Request<Incoming>| {
            let (service, locks) = (service.clone(), locks.clone());
            let stripe = usize::try_from(hasher.hash_one(request.uri().path()) % STRIPES as u64).unwrap_or(0);
            async move {
                if matches!(*request.method(), Method::GET | Method::HEAD) {
                    let _turn = locks[stripe].read().await;
                    Service::call(&service, request).await
                } else {
                    let _turn = locks[stripe].write().await;
                    Service::call(&service, request).await
                }
            }
        });
        #[allow(clippy::disallowed_methods, reason = "a server for tests that ends with its process")]
        tokio::spawn(async move {
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), in_turn).await;
        });
    }
}

/// A server in a process of its own, so that it can be killed; it stops when dropped.
#[derive(Debug)]
pub struct S3 {
    folder: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
}

impl S3 {
    /// Starts a server on an empty folder.
    pub fn start() -> Result<Self> {
        let mut server = Self { folder: tempfile::tempdir()?, port: free_port()?, child: None };
        server.run()?;
        Ok(server)
    }

    /// Starts it on what its folder has: after [`S3::kill`].
    pub fn run(&mut self) -> Result<()> {
        let binary = binary("s3-server")?;
        let address = format!("127.0.0.1:{}", self.port);
        let child = Command::new(binary).arg(&address).arg(self.folder.path()).stdin(Stdio::null()).spawn()?;
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(&address).is_err() {
            ensure!(Instant::now() < deadline, "the S3 server did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// A root in it.
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}")
    }

    /// What a client must know, as `object_store` names it.
    pub fn options(&self) -> BTreeMap<String, String> {
        let options = [
            ("aws_endpoint", format!("http://127.0.0.1:{}", self.port)),
            ("aws_access_key_id", KEY.to_owned()),
            ("aws_secret_access_key", SECRET.to_owned()),
            ("aws_region", "us-east-1".to_owned()),
            ("aws_allow_http", "true".to_owned()),
        ];
        options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// A binary of this workspace, beside the one that runs.
pub fn binary(name: &str) -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let folder = this.parent().context("this binary's folder")?;
    // Test binaries stand one folder deeper.
    let found = [folder.join(name), folder.join("..").join(name)].into_iter().find(|path| path.exists());
    found
        .with_context(|| format!("there is no `{name}` beside this binary: run `cargo build --workspace --bins` first"))
}
