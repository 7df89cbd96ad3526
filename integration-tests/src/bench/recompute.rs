//! A full recompute beside the same query by plain DataFusion and by DuckDB, on the same files, sorted and written to
//! Parquet with the same settings.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use common::{
    catalog::Catalog,
    storage::parquet::{File, Layout},
};
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use futures::StreamExt;
use serde_json::Value;

use super::report::line;
use crate::sandbox::cache;

/// Asks for a recompute of a view and waits for its end.
pub(super) async fn recompute(url: &str, view: &str) -> Result<Duration> {
    let client = reqwest::Client::new();
    let mut job: Value = client.post(format!("{url}/v1/views/{view}/recompute")).send().await?.json().await?;
    let id = job["id"].as_str().context("a job")?.to_owned();
    let began = Instant::now();
    while matches!(job["state"].as_str(), Some("queued" | "running")) {
        ensure!(began.elapsed() < Duration::from_secs(300), "{job}");
        tokio::time::sleep(Duration::from_millis(5)).await;
        job = client.get(format!("{url}/v1/jobs/{id}")).send().await?.json().await?;
    }
    ensure!(job["state"] == "succeeded", "{job}");
    Ok(began.elapsed())
}

/// The view's query by plain DataFusion, sorted by its group keys and written.
async fn plain(catalog: &Catalog, view: &str, keys: &str, master: &Path, folder: &Path) -> Result<Duration> {
    let parallelism = std::thread::available_parallelism()?.get();
    let mut config = SessionConfig::new().with_target_partitions(parallelism);
    config.options_mut().execution.parquet.schema_force_view_types = false;
    let context = SessionContext::new_with_config(config);
    let sql = &catalog.views.get(view).context("the view")?.sql;
    let began = Instant::now();
    context.register_parquet("sales", &master.display().to_string(), ParquetReadOptions::default()).await?;
    let mut rows = context.sql(&format!("{sql} ORDER BY {keys}")).await?.execute_stream().await?;
    let mut file = File::new(&rows.schema(), Layout::View)?;
    while let Some(batch) = rows.next().await {
        file.write(&batch?)?;
    }
    let (bytes, _) = file.finish("plain.parquet".to_owned())?;
    std::fs::write(folder.join(format!("{view}.parquet")), bytes)?;
    Ok(began.elapsed())
}

fn duckdb(sql: &str, keys: &str, master: &Path, folder: &Path) -> Result<Duration> {
    let script = "
import sys, time, duckdb
sql, master, out = sys.argv[1:]
connection = duckdb.connect()
connection.execute('set threads = 2')
began = time.time()
connection.execute(f\"create view sales as select * from read_parquet('{master}/*.parquet')\")
connection.execute(f\"copy ({sql}) to '{out}' (format parquet, compression zstd)\")
print(time.time() - began)
";
    let sql = format!("{} ORDER BY {keys}", sql.replace("approx_distinct", "approx_count_distinct"));
    let out = folder.join("duckdb.parquet");
    let output = Command::new(cache().join("python/bin/python"))
        .args(["-c", script, &sql])
        .args([master, &out])
        .output()
        .context("run Python; integration-tests/install.sh brings it")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(Duration::from_secs_f64(String::from_utf8(output.stdout)?.trim().parse()?))
}

/// All three views, each way.
pub async fn measure(url: &str, catalog: &Catalog, master: &Path, folder: &Path) -> Result<()> {
    let show = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    for (view, keys) in [("a", "1"), ("b", "1, 2"), ("c", "1")] {
        let ours = recompute(url, view).await?;
        let plain = plain(catalog, view, keys, master, folder).await?;
        let sql = &catalog.views.get(view).context("the view")?.sql;
        let duckdb = duckdb(sql, keys, master, folder)?;
        line(&format!("recompute view {view}"), &show(ours), "");
        line("  the same by plain DataFusion", &show(plain), "");
        line("  the same by DuckDB", &show(duckdb), "");
        let ratio = ours.as_secs_f64() / plain.as_secs_f64();
        line("  recompute beside plain DataFusion", &format!("{ratio:.2} ×"), "1.3 ×");
    }
    Ok(())
}
