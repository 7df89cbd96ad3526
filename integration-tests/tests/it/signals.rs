//! Starting and stopping: a program answers what it is about from its first moment on, and stops at the first signal.

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use integration_tests::sandbox::{process::free_port, s3::binary};
use serde_json::Value;

/// A program that is started with few open files, in its own folder. A file that may not grow is an error to it and no
/// signal.
pub(crate) fn start(name: &str, arguments: &[&str], folder: &Path) -> (Child, String) {
    let address = format!("127.0.0.1:{}", free_port().unwrap());
    let command = "trap '' XFSZ; ulimit -Sn 300; exec \"$@\"";
    let child = Command::new("sh")
        .args(["-c", command, "sh"])
        .arg(binary(name).unwrap())
        .args(arguments)
        .args(["--listen", &address])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(folder.join("said")).unwrap())
        .spawn();
    (child.unwrap(), format!("http://{address}"))
}

pub(crate) fn signal(child: &Child) {
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
}

/// How long it took to end.
pub(crate) async fn ended(child: &mut Child, folder: &Path) -> Duration {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            let said = std::fs::read_to_string(folder.join("said")).unwrap();
            assert!(status.success(), "{status}: {said}");
            return began.elapsed();
        }
        assert!(began.elapsed() < Duration::from_secs(60), "it goes on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What is asked within a second, from when it listens.
pub(crate) async fn ask(url: &str, path: &str) -> (u16, Value) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let asked = reqwest::Client::new().get(format!("{url}{path}")).timeout(Duration::from_secs(1)).send().await;
        match asked {
            Ok(answer) => return (answer.status().as_u16(), answer.json().await.unwrap()),
            Err(error) => assert!(error.is_connect() && Instant::now() < deadline, "{path}: {error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Each layer while it waits for a Kafka that takes connections and says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_says_what_it_waits_for_and_stops_at_the_first_signal() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let kafka = silent.local_addr().unwrap().to_string();
    for (name, more) in [("batch-layer", &[][..]), ("speed-layer", &[]), ("serving-layer", &[]), ("lamina", &["up"])] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("catalog")).unwrap();
        std::fs::write(folder.path().join("catalog/a.sql"), "CREATE TABLE sales (id BIGINT);").unwrap();
        let (mut child, url) = start(name, &[more, &["--kafka", &kafka]].concat(), folder.path());
        let (status, body) = ask(&url, "/healthz").await;
        assert_eq!((status, body["status"].as_str()), (200, Some("starting")), "{name}: {body}");
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let (status, body) = ask(&url, "/readyz").await;
            assert_eq!((status, &body["starting"]), (503, &Value::Bool(true)), "{name}: {body}");
            let detail = body["detail"].as_str().unwrap();
            if detail.contains("Kafka") || name == "lamina" && detail.contains("log") {
                break;
            }
            assert!(Instant::now() < deadline, "{name}: {body}");
        }
        // As many files as the system lets it have.
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
        let files: Vec<_> =
            limits.lines().find(|line| line.starts_with("Max open files")).unwrap().split_whitespace().collect();
        assert_eq!(files[3], files[4], "{name}: {limits}");
        signal(&child);
        let took = ended(&mut child, folder.path()).await;
        println!("{name} stopped within {took:?}");
        assert!(took < Duration::from_secs(7), "{name} took {took:?}");
    }
    drop(silent);
}

/// One that is at work stops at the first signal too, whatever its queries do.
#[tokio::test(flavor = "multi_thread")]
async fn queries_that_do_not_end_hold_up_no_stop() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("catalog")).unwrap();
    std::fs::write(folder.path().join("catalog/a.sql"), "CREATE TABLE sales (id BIGINT);").unwrap();
    let (mut child, url) = start("lamina", &["up"], folder.path());
    while ask(&url, "/healthz").await.1["status"] != "ok" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let sql = "SELECT levenshtein(repeat('a', 1000000), repeat('b', 1000000))";
    let http = reqwest::Client::new();
    let frozen: Vec<_> = (0..2)
        .map(|_| tokio::spawn(http.post(format!("{url}/v1/sql")).json(&serde_json::json!({"sql": sql})).send()))
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    signal(&child);
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(began.elapsed() < Duration::from_secs(40), "it goes on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    println!("stopped with {status} after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    for asked in frozen {
        asked.abort();
    }
}
