//! Web pages and a Lamina that asks for no tokens: its own page works, and no other one gets anything of it.

use std::{process::Command, sync::Arc};

use batch_layer::service;
use common::{
    jobs::Job,
    operate,
    supervisor::Supervisor,
    web::{self, Front},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::security::{Bed, Options};

/// Headers that take the place of what a request has, and what comes of it: its status and the problem's name.
type Sent = (&'static [(&'static str, &'static str)], u16, &'static str);

/// What pages in a browser send unasked: to a name that was made to lead here, from another site, or in a form.
const PAGES: [Sent; 9] = [
    (&[("host", "evil.example")], 421, "foreign-host"),
    (&[("host", "localhost.evil.example:8787")], 421, "foreign-host"),
    (&[("host", "192.168.1.7:8787")], 421, "foreign-host"),
    (&[("origin", "http://evil.example")], 403, "foreign-site"),
    (&[("origin", "null")], 403, "foreign-site"),
    (&[("sec-fetch-site", "cross-site")], 403, "foreign-site"),
    (&[("sec-fetch-site", "same-site"), ("origin", "http://localhost:3000")], 403, "foreign-site"),
    (&[("content-type", "text/plain")], 415, "media-type"),
    (&[("content-type", "application/x-www-form-urlencoded")], 415, "media-type"),
];

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_sites_read_and_write_nothing() {
    let bed = Bed::start(Options::default()).await;
    let count = async || bed.sql("SELECT count(*) AS n FROM per_sale", None).await.1["rows"][0]["n"].clone();
    let before = count().await;
    let event = json!({"id": 1_000_000, "product": 1, "amount": 1}).to_string();
    for (headers, status, kind) in PAGES {
        for (method, path) in [
            (Method::POST, "/v1/datasets/sales/events"),
            (Method::POST, "/v1/views/per_sale/recompute"),
            (Method::GET, "/v1/sql?sql=SELECT+1"),
        ] {
            if status == 415 && method == Method::GET {
                continue;
            }
            let mut request = bed.request(method.clone(), path, None);
            if method == Method::POST {
                request = request.header("content-type", "application/json").body(event.clone());
            }
            // What is given here takes the place of what was there.
            let mut request = request.build().unwrap();
            for (name, value) in headers {
                request.headers_mut().insert(*name, value.parse().unwrap());
            }
            let response = bed.http.execute(request).await.unwrap();
            assert_eq!(response.status().as_u16(), status, "{method} {path} {headers:?}");
            assert_eq!(response.headers()["content-type"], "application/problem+json");
            let problem: Value = response.json().await.unwrap();
            assert_eq!(problem["type"], format!("/problems/{kind}"), "{problem}");
            assert!(["`hosts`", "content-type"].iter().any(|what| problem["hint"].as_str().unwrap().contains(what)));
        }
    }
    // A body that says nothing of its type is what a page sends for a file.
    let untyped = bed.request(Method::POST, "/v1/datasets/sales/events", None).body(event.clone());
    assert_eq!(untyped.send().await.unwrap().status(), 415);
    assert_eq!(count().await, before);

    // Its own page and programs are answered, by each of its names; a link to the page may be followed from anywhere.
    let own = bed.base.clone();
    let from_page = bed.request(Method::POST, "/v1/datasets/sales/events", None).header("origin", &own);
    let from_page = from_page.header("sec-fetch-site", "same-origin").json(&json!([])).send().await.unwrap();
    assert_eq!(from_page.status(), 200);
    for host in ["127.0.0.1:1", "[::1]", "localhost"] {
        let answered = bed.request(Method::GET, "/v1/views", None).header("host", host).send().await.unwrap();
        assert_eq!(answered.status(), 200, "{host}");
    }
    let link = bed.request(Method::GET, "/", None).header("sec-fetch-site", "cross-site");
    let link = link.header("sec-fetch-mode", "navigate").header("sec-fetch-dest", "document").send().await.unwrap();
    assert_eq!(link.status(), 200);
    for (name, value) in [("x-content-type-options", "nosniff"), ("x-frame-options", "DENY")] {
        assert_eq!(link.headers()[name], value);
    }
    let policy = link.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
    let plain = bed.request(Method::GET, "/v1/views", None).send().await.unwrap();
    assert_eq!(plain.headers()["content-security-policy"], "default-src 'none'; frame-ancestors 'none'");
    bed.stop().await;
}

/// The page in a browser: its policy lets it do all that it does, and it breaks none of it.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_works_in_a_browser() {
    let bed = Bed::start(Options::default()).await;
    let profile = tempfile::tempdir().unwrap();
    let url = format!("{}/", bed.base);
    let run = move || {
        Command::new("chromium")
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .args(["--timeout=20000", "--virtual-time-budget=8000", "--dump-dom", &url])
            .output()
    };
    match tokio::task::spawn_blocking(run).await.unwrap() {
        Ok(output) => {
            let (page, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(page.contains("per_product") && page.contains("salaries"), "{page}\n{said}");
            assert!(!said.contains("Content Security Policy"), "{said}");
        }
        Err(error) => println!("no browser to look at the page with: {error}"),
    }
    bed.stop().await;
}

/// A batch layer that would do what it is asked.
#[derive(Debug)]
struct Willing;

#[async_trait::async_trait]
impl operate::BatchLayer for Willing {
    async fn recompute(&self, view: &str) -> Result<Job, operate::Error> {
        Err(operate::Error::UnknownView { view: view.to_owned() })
    }

    async fn jobs(&self, _: usize) -> Result<Vec<Job>, operate::Error> {
        Ok(Vec::new())
    }

    async fn job(&self, id: &str) -> Result<Job, operate::Error> {
        Err(operate::Error::UnknownJob { id: id.to_owned() })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_batch_layers_service_answers_no_page() {
    let supervisor = Supervisor::new();
    let listener = web::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let url = format!("http://{}/v1/views/a/recompute", listener.local_addr().unwrap());
    web::serve(listener, Front::default(), service::router(Arc::new(Willing), None), &supervisor);
    let http = reqwest::Client::new();
    assert_eq!(http.post(&url).send().await.unwrap().status(), 404, "the layer is asked");
    for (headers, status, _) in PAGES {
        let mut request = http.post(&url).body("{}").build().unwrap();
        request.headers_mut().insert("content-type", "application/json".parse().unwrap());
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        assert_eq!(http.execute(request).await.unwrap().status().as_u16(), status, "{headers:?}");
    }
    supervisor.stop();
    supervisor.wait().await.unwrap();
}
