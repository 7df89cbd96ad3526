//! A disk that is full: it is said, and everything goes on by itself once there is room.

use std::{
    process::{Child, Command},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::signals::{ask, ended, signal, start};

/// Lets no file grow, or all of them, as a full disk and one that is not do.
fn room(child: &Child, bytes: &str) {
    let limit = format!("--fsize={bytes}:unlimited");
    assert!(Command::new("prlimit").args(["--pid", &child.id().to_string(), &limit]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_and_passes_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("catalog")).unwrap();
    let sql = "CREATE TABLE sales (id BIGINT NOT NULL) WITH (partitions = 1);
        CREATE MATERIALIZED VIEW total WITH (refresh = '1 second') AS SELECT count(*) AS n FROM sales;";
    std::fs::write(folder.path().join("catalog/a.sql"), sql).unwrap();
    std::fs::write(folder.path().join("settings.toml"), "[batch]\nflush_age = '200ms'\n").unwrap();
    let (mut child, url) = start("lamina", &["up", "--settings", "settings.toml"], folder.path());
    let http = reqwest::Client::new();
    let send = async || {
        let sent = http.post(format!("{url}/v1/datasets/sales/events")).json(&json!({"id": 1})).send().await.unwrap();
        sent.status().as_u16()
    };
    let ready = async |expected: u16, said: &str| {
        let began = Instant::now();
        loop {
            let (status, body) = ask(&url, "/readyz").await;
            if status == expected && body.to_string().contains(said) {
                return began.elapsed();
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{status} {body}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    ready(200, "ready").await;
    let (mut acknowledged, mut sent) = (0, 0);
    for _ in 0..2 {
        for _ in 0..20 {
            assert_eq!(send().await, 200);
            (acknowledged, sent) = (acknowledged + 1, sent + 1);
        }
        room(&child, "0");
        assert_eq!(send().await, 503);
        sent += 1;
        println!("said after {:?}", ready(503, "the log cannot be written").await);
        // The master's is told as well, and what there is is still answered.
        assert_eq!(ask(&url, "/healthz").await.0, 200);
        assert_eq!(ask(&url, "/v1/sql?sql=SELECT+n+FROM+total").await.0, 200);
        room(&child, "unlimited");
        println!("over after {:?}", ready(200, "ready").await);
        assert_eq!(send().await, 200);
        (acknowledged, sent) = (acknowledged + 1, sent + 1);
    }
    // What was acknowledged is there once; of what was not, some may be.
    let deadline = Instant::now() + Duration::from_secs(60);
    let archived = loop {
        let (_, total) = ask(&url, "/v1/sql?sql=SELECT+n+FROM+total").await;
        let (_, master) = ask(&url, "/v1/sql?sql=SELECT+count(*)+AS+n+FROM+sales").await;
        let n = |body: &Value| body["rows"][0]["n"].as_i64();
        if n(&master).is_some() && n(&master) == n(&total) && n(&total) >= Some(acknowledged) {
            break n(&total).unwrap();
        }
        assert!(Instant::now() < deadline, "{total} {master}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!((acknowledged..=sent).contains(&archived), "{acknowledged} {archived} {sent}");
    signal(&child);
    ended(&mut child, folder.path()).await;
}
