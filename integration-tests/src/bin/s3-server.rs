//! A server of the S3 protocol for tests: `s3-server ADDRESS FOLDER`.

use std::path::Path;

use anyhow::{Context, Result};
use integration_tests::sandbox::s3;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().context("usage: s3-server ADDRESS FOLDER")?.parse()?;
    let folder = arguments.next().context("usage: s3-server ADDRESS FOLDER")?;
    s3::serve(address, Path::new(&folder)).await
}
