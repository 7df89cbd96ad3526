//! Connections that nothing comes of: they end, and shut nobody out meanwhile.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use common::{
    access::Limits,
    web::{Bodies, Front, Patience},
};
use reqwest::Method;

use crate::security::{Bed, Options};

const SMALL: &str = "SELECT sum(n) AS n FROM per_product";

fn short(front: Front) -> Front {
    let (moment, while_) = (Duration::from_millis(400), Duration::from_millis(900));
    let bodies = Bodies::new(64 << 20, 16 << 20, moment);
    Front { patience: Patience { first: moment, idle: while_, body: moment, stalled: moment }, bodies, ..front }
}

/// A connection that has sent something, and what came until it ended.
fn said(address: &str, text: &str) -> (Duration, String) {
    let began = Instant::now();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut answer = Vec::new();
    let ended = stream.read_to_end(&mut answer);
    assert!(!ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "{text:?} is still open");
    (began.elapsed(), String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_say_no_more_are_let_go() {
    let limits = Limits { queries: 1, ..Limits::default() };
    let bed = Bed::start(Options { front: short(Front::default()), limits, ..Options::default() }).await;
    let address = bed.base.trim_start_matches("http://").to_owned();
    let head = "POST /v1/datasets/sales/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    for (text, answer) in [
        (String::new(), ""),
        ("GET /healthz HT".to_owned(), ""),
        ("GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: ".to_owned(), ""),
        (format!("{head}content-length: 1000\r\n\r\n[{{\"id\":"), "HTTP/1.1 408"),
        (format!("{head}transfer-encoding: chunked\r\n\r\n4\r\n[{{\"i\r\n"), "HTTP/1.1 408"),
        // It is answered, and kept for the next one for a while.
        ("GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned(), "HTTP/1.1 200"),
    ] {
        let (address, sent) = (address.clone(), text.clone());
        let (took, got) = tokio::task::spawn_blocking(move || said(&address, &sent)).await.unwrap();
        assert!(got.starts_with(answer) && (answer.is_empty() == got.is_empty()), "{text:?}: {got}");
        assert!(took > Duration::from_millis(300) && took < Duration::from_secs(5), "{text:?} took {took:?}");
    }
    // An answer that nobody reads, of a query that would be at work for hours: its client may have no other one.
    let large = "GET /v1/sql?format=csv&sql=SELECT+a.id,b.id+FROM+per_sale+a,per_sale+b,per_sale+c HTTP/1.1\r\n";
    let mut stalled = TcpStream::connect(&address).unwrap();
    stalled.write_all(format!("{large}host: localhost\r\n\r\n").as_bytes()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while bed.sql(SMALL, None).await.0 != 429 {
        assert!(Instant::now() < deadline, "the query was not at work");
    }
    let began = Instant::now();
    while bed.sql(SMALL, None).await.0 == 429 {
        assert!(began.elapsed() < Duration::from_secs(20), "nobody reads the answer, and it is still at work");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(stalled);
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_shut_nobody_out() {
    assert!(common::process::open_files() > 3_000, "the test itself has as many connections");
    for connections in [16, 1024] {
        let front = Front { connections, ..Front::default() };
        let bed = Bed::start(Options { front, ..Options::default() }).await;
        let address = bed.base.trim_start_matches("http://").to_owned();
        // Some say nothing, some half a head, some have been answered.
        let idle = tokio::task::spawn_blocking(move || {
            let connect = |i: usize| {
                let mut stream = TcpStream::connect(&address).unwrap();
                let text = ["", "GET /healthz HT", "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"][i % 3];
                // One that has made place for another one may be gone already.
                let _ = stream.write_all(text.as_bytes());
                stream
            };
            (0..1_100).map(connect).collect::<Vec<_>>()
        });
        let idle = idle.await.unwrap();
        for _ in 0..20 {
            let began = Instant::now();
            // Each time from a connection of its own.
            let request = reqwest::Client::new().get(format!("{}/v1/views", bed.base));
            let answered = tokio::time::timeout(Duration::from_secs(5), request.send()).await;
            assert_eq!(answered.expect("it is shut out").unwrap().status(), 200, "{connections} connections");
            assert!(began.elapsed() < Duration::from_secs(5));
        }
        drop(idle);
        bed.stop().await;
    }
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

/// 150 bodies of nearly 16 MB that do not end, which took 3 GB.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_do_not_end_are_bounded_together() {
    let bodies = Bodies::new(64 << 20, 16 << 20, Duration::from_secs(6));
    let front = Front { bodies, ..Front::default() };
    let bed = Bed::start(Options { front, ..Options::default() }).await;
    bed.sql(SMALL, None).await;
    let before = resident();
    let address = bed.base.trim_start_matches("http://").to_owned();
    let part = std::sync::Arc::new(vec![b' '; 1 << 20]);
    let senders: Vec<_> = (0..150)
        .map(|_| {
            let (address, part) = (address.clone(), part.clone());
            std::thread::spawn(move || {
                let mut stream = TcpStream::connect(&address).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
                let head = "POST /v1/datasets/sales/events HTTP/1.1\r\nhost: localhost\r\n\
                            content-type: application/json\r\ncontent-length: 16777216\r\n\r\n";
                // One that is refused may be gone before all is sent.
                let sent =
                    stream.write_all(head.as_bytes()).and_then(|()| (0..15).try_for_each(|_| stream.write_all(&part)));
                let mut answer = String::new();
                let _ = stream.read_to_string(&mut answer);
                (sent.is_ok(), answer.get(9..12).unwrap_or_default().to_owned())
            })
        })
        .collect();
    let mut most = 0;
    let began = Instant::now();
    while senders.iter().any(|sender| !sender.is_finished()) {
        most = most.max(resident().saturating_sub(before));
        assert!(began.elapsed() < Duration::from_secs(90), "somebody still sends");
        // Those that send one event are answered or told to send it again, at once.
        let one = bed.request(Method::POST, "/v1/datasets/sales/events", None).json(&serde_json::json!([]));
        let status = one.send().await.unwrap().status().as_u16();
        assert!([200, 503].contains(&status), "{status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ended: Vec<_> = senders.into_iter().map(|sender| sender.join().unwrap().1).collect();
    let count = |status: &str| ended.iter().filter(|ended| *ended == status).count();
    println!("{} given up, {} refused, at most {} MiB more", count("408"), count("503"), most >> 20);
    assert!(most < 512 << 20, "{} MiB", most >> 20);
    assert!(count("408") >= 1 && count("408") <= 5 && count("200") == 0, "{ended:?}");
    // All is free again.
    let one = bed.request(Method::POST, "/v1/datasets/sales/events", None).json(&serde_json::json!([]));
    assert_eq!(one.send().await.unwrap().status(), 200);
    bed.stop().await;
}
