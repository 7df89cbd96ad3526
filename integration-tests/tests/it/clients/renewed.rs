//! Tokens and certificates change while it runs, and what it says shows nothing that is not for those who ask.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use common::access::{Request, Role, issue};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    security::{Bed, Keys, Options},
    signals::{ended, signal, start},
};

fn catalog(folder: &Path) {
    std::fs::create_dir(folder.join("catalog")).unwrap();
    let sql = "CREATE TABLE sales (id BIGINT NOT NULL) WITH (partitions = 1);
        CREATE MATERIALIZED VIEW total WITH (refresh = '1 second') AS SELECT count(*) AS n FROM sales;";
    std::fs::write(folder.join("catalog/a.sql"), sql).unwrap();
}

/// Asks until the answer has a status, or no answer comes where none is expected.
async fn becomes(http: &reqwest::Client, url: &str, token: &str, expected: Option<u16>) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let asked = http.get(url).bearer_auth(token).send().await;
        let status = asked.as_ref().ok().map(|answer| answer.status().as_u16());
        if status == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{expected:?} but {asked:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_token_is_revoked_and_a_certificate_replaced_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    catalog(folder.path());
    let token = |id: &str| {
        issue(&Request { id: Some(id.to_owned()), roles: [Role::Admin].into(), ..Request::default() }).unwrap()
    };
    let (stolen, other) = (token("stolen"), token("other"));
    let tokens = folder.path().join("tokens.toml");
    std::fs::write(&tokens, format!("{}\n{}\n", stolen.line, other.line)).unwrap();
    let certify = || {
        let issued = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(folder.path().join("key.pem"), issued.signing_key.serialize_pem()).unwrap();
        std::fs::write(folder.path().join("certificate.pem"), issued.cert.pem()).unwrap();
        let trusted = reqwest::Certificate::from_pem(issued.cert.pem().as_bytes()).unwrap();
        // Each request over a connection of its own: a certificate is shown once a connection.
        let client = reqwest::Client::builder().tls_built_in_root_certs(false).add_root_certificate(trusted);
        client.http1_only().pool_max_idle_per_host(0).build().unwrap()
    };
    let before = certify();
    let settings = "tokens = 'tokens.toml'\n[tls]\ncertificate = 'certificate.pem'\nkey = 'key.pem'\n";
    std::fs::write(folder.path().join("settings.toml"), settings).unwrap();
    let (mut child, url) = start("lamina", &["up", "--settings", "settings.toml"], folder.path());
    let url = format!("{}/v1/views", url.replace("http", "https"));
    becomes(&before, &url, &stolen.token, Some(200)).await;
    becomes(&before, &url, &other.token, Some(200)).await;

    std::fs::write(&tokens, format!("{}\n", other.line)).unwrap();
    becomes(&before, &url, &stolen.token, Some(401)).await;
    becomes(&before, &url, &other.token, Some(200)).await;
    // What cannot be used changes nothing, and is said.
    std::fs::write(&tokens, "stolen = {").unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !std::fs::read_to_string(folder.path().join("said")).unwrap().contains("tokens are not taken up") {
        assert!(Instant::now() < deadline, "it is not said");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    becomes(&before, &url, &other.token, Some(200)).await;

    let after = certify();
    becomes(&after, &url, &other.token, Some(200)).await;
    becomes(&before, &url, &other.token, None).await;
    signal(&child);
    ended(&mut child, folder.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_show_a_scoped_token_its_own_names() {
    let keys = Keys::default().make("shop", &[Role::Operate], &["per_product"], &["sales"], None).make(
        "operator",
        &[Role::Operate],
        &[],
        &[],
        None,
    );
    let bed = Bed::start(Options { tokens: Some(keys.document.clone()), ..Options::default() }).await;
    let metrics = async |token: &str| {
        let response = bed.request(Method::GET, "/metrics", Some(&keys.tokens[token])).send().await.unwrap();
        assert_eq!(response.status(), 200);
        response.text().await.unwrap()
    };
    let (all, own) = (metrics("operator").await, metrics("shop").await);
    assert!(all.contains("\"salaries\"") && all.contains("\"sales\""), "{all}");
    assert!(!own.contains("salaries") && own.contains("dataset=\"sales\""), "{own}");
    assert!(own.contains("lamina_serving_http_requests_total"), "{own}");
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_show_no_folders_and_long_names_are_no_failures() {
    let folder = tempfile::tempdir().unwrap();
    catalog(folder.path());
    let (mut child, url) = start("lamina", &["up"], folder.path());
    let http = reqwest::Client::new();
    let ready = format!("{url}/readyz");
    while !http.get(&ready).send().await.is_ok_and(|answer| answer.status().is_success()) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for (kind, name) in [("jobs", "a".repeat(300)), ("jobs", "%2e%2e%2f".repeat(5)), ("views", "a".repeat(300))] {
        let asked = http.get(format!("{url}/v1/{kind}/{name}")).send().await.unwrap();
        assert_eq!(asked.status(), 404, "{kind} {name}: {}", asked.text().await.unwrap());
    }
    let sent = http.post(format!("{url}/v1/datasets/sales/events")).json(&json!({"id": 1})).send().await.unwrap();
    assert_eq!(sent.status(), 200);
    // A store that is gone from where it was.
    let store = folder.path().join("data/store");
    std::fs::rename(&store, folder.path().join("data/away")).unwrap();
    std::fs::write(&store, "").unwrap();
    let place = folder.path().canonicalize().unwrap();
    let (place, mut told) = (place.to_str().unwrap().to_owned(), 0);
    for path in ["/v1/datasets/sales/dead_letters", "/v1/jobs", "/v1/views/total", "/v1/sql?sql=SELECT+*+FROM+sales"] {
        let asked = http.get(format!("{url}{path}")).send().await.unwrap();
        let (status, body) = (asked.status().as_u16(), asked.text().await.unwrap());
        assert!(!body.contains(&place), "{path}: {body}");
        if status >= 500 {
            let problem: Value = serde_json::from_str(&body).unwrap();
            println!("{path}: {}", problem["detail"]);
            told += 1;
        }
    }
    assert!(told > 0, "nothing failed");
    std::fs::remove_file(&store).unwrap();
    std::fs::rename(folder.path().join("data/away"), &store).unwrap();
    signal(&child);
    ended(&mut child, folder.path()).await;
}
