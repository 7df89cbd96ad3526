//! The command line, against a Lamina that runs.

use std::{
    io::Read,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use integration_tests::sandbox::{
    process::{Program, free_port},
    s3::binary,
};

/// What a command came to.
#[derive(Debug)]
struct Done {
    well: bool,
    out: String,
    err: String,
}

/// Runs `lamina`, with `LAMINA_URL` set.
fn lamina(url: &str, arguments: &[&str]) -> Done {
    let mut command = Command::new(binary("lamina").unwrap());
    let output = command.args(arguments).env("LAMINA_URL", url).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Done { well: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// Starts `lamina up` with one dataset of events and a count of them.
async fn up(folder: &Path) -> Program {
    let catalog = folder.join("catalog");
    std::fs::create_dir_all(&catalog).unwrap();
    let sql = "CREATE TABLE events (id BIGINT NOT NULL, body TEXT);
               CREATE MATERIALIZED VIEW counts AS
               SELECT count(*) AS events, count(DISTINCT id) AS ids, max(body) AS body FROM events;";
    std::fs::write(catalog.join("events.sql"), sql).unwrap();
    let (catalog, data) = (catalog.display().to_string(), folder.join("data").display().to_string());
    let arguments = ["--catalog", catalog.as_str(), "--data", data.as_str()];
    Program::lamina(free_port().unwrap(), &arguments, &folder.join("output")).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn doing_what_ingest_says_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = up(folder.path()).await;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let ingest = |arguments: &[&str]| lamina(&server.url, &[&["ingest"], arguments].concat());

    // Blank lines among them, as editors and shells leave them, and one that cannot be used.
    let mut lines: Vec<String> = (0..12_000).map(|id| format!("{{\"id\": {id}}}")).collect();
    (0..12_000).step_by(1_000).for_each(|line| lines.insert(line, String::new()));
    let right = std::mem::replace(&mut lines[11_002], "{\"id\": \"x\"}".to_owned());
    let file = path("events.ndjson");
    std::fs::write(&file, lines.join("\n")).unwrap();
    let done = ingest(&[&file]);
    assert!(!done.well && done.err.contains(&format!("line 11003 of `{file}` was not taken")), "{done:?}");
    assert!(done.err.contains("in: lines 1 to 10011 (10000 events)"), "{done:?}");
    assert!(!done.err.contains("send all of them again"), "{done:?}");
    // What it says is done, to the letter.
    lines[11_002] = right;
    std::fs::write(&file, lines.join("\n")).unwrap();
    let (_, next) = done.err.split_once("`lamina ingest ").unwrap();
    let next: Vec<&str> = next.split_once('`').unwrap().0.split(' ').collect();
    let done = ingest(&next);
    assert!(done.well && done.out.starts_with("2000 events accepted"), "{done:?}");
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let count = lamina(&server.url, &["query", "--format", "csv", "SELECT events, ids FROM counts"]);
        if count.out == "events,ids\r\n12000,12000\r\n" {
            break;
        }
        assert!(Instant::now() < deadline, "{count:?}");
    }

    // A long line is no matter for the others.
    let long = format!("{{\"id\": 20000, \"body\": \"{}\"}}", "x".repeat(13 << 20));
    let short: Vec<String> =
        (12_000..12_010).map(|id| format!("{{\"id\": {id}, \"body\": \"{}\"}}", "y".repeat(400_000))).collect();
    std::fs::write(&file, format!("{}\n{long}\n", short.join("\n"))).unwrap();
    let done = ingest(&[&file]);
    assert!(done.well && done.out.starts_with("11 events accepted"), "{done:?}");
    std::fs::write(&file, format!("{{\"id\": 1}}\n{{\"body\": \"{}\"}}\n", "x".repeat(17 << 20))).unwrap();
    let done = ingest(&[&file]);
    assert!(done.err.contains("line 2 of") && done.err.contains("in: lines 1 to 1 (1 events)"), "{done:?}");
    assert!(server.stop().await.unwrap());
}

/// A server that is gone before it has answered may have taken what it was sent.
#[tokio::test(flavor = "multi_thread")]
async fn ingest_says_what_may_be_in() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.ndjson");
    std::fs::write(&file, "{\"id\": 1}\n\n{\"id\": 2}\n").unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let dying = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let _ = connection.read(&mut [0; 4096]);
    });
    let file = file.display().to_string();
    let arguments = ["ingest", "--dataset", "events", &file];
    let done = lamina(&url, &arguments);
    dying.join().unwrap();
    assert!(
        done.err.contains("may be in: lines 1 to 3\n") && done.err.contains("not in: all after line 3"),
        "{done:?}"
    );
    assert!(done.err.contains("doubles those that are"), "{done:?}");
    // Nobody is there any more: nothing was sent.
    let done = lamina(&url, &arguments);
    assert!(done.err.contains("not in: line 1 and all after it") && done.err.contains("is it running?"), "{done:?}");
}

/// What people meet in a terminal: names without a scheme, pipes, files, formats, a stamp that can be read.
#[tokio::test(flavor = "multi_thread")]
async fn the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let server = up(folder.path()).await;
    let bare = server.url.strip_prefix("http://").unwrap();
    let check = |arguments: &[&str], out: &str, err: &str| {
        let done = lamina(bare, arguments);
        assert!(done.well && done.out.contains(out) && done.err.contains(err), "{arguments:?}: {done:?}");
    };
    let events = folder.path().join("events.ndjson").display().to_string();
    std::fs::write(&events, "\u{feff}{\"id\": 1, \"body\": \"\"}\n").unwrap();
    let done = lamina(bare, &["ingest", &events]);
    assert!(done.well, "{done:?}");
    let deadline = Instant::now() + Duration::from_secs(30);
    while !lamina(bare, &["query", "SELECT events FROM counts"]).out.contains("\"events\":1") {
        assert!(Instant::now() < deadline, "the event does not come in");
    }
    let sql = "SELECT body, CAST(NULL AS INT) AS nothing FROM counts";
    check(&["query", sql, "--format", "table"], "|      | NULL    |", "-- events below 0:");
    check(&["query", sql, "--format", "json"], "\"stamp\":{\"head\"", "");
    check(&["query", sql, "--format", "ndjson", "--stamp", "json"], "{\"body\":\"\",\"nothing\":null}\n", "{\"head\"");
    check(&["query", sql, "--format", "csv", "--stamp", "none"], "\"\",\r\n", "");
    check(&["query", sql, "--format", "arrow"], "nothing", "");
    let file = folder.path().join("query.sql").display().to_string();
    std::fs::write(&file, format!("{sql};\n")).unwrap();
    check(&["query", "--file", &file], "\"nothing\":null", "");
    check(&["status"], "freshness 0 ms", "");
    check(&["completions", "bash"], "_lamina", "");
    check(&["--help"], "Lamina answers SQL over event streams", "");
    let help = lamina(bare, &["record-lost", "--help"]).out;
    assert!(help.contains("--kafka") && !help.contains("--listen") && !help.contains("--tokens"), "{help}");

    // Standard input, and a reader that has seen enough.
    let program = binary("lamina").unwrap().display().to_string();
    let shell = |script: String| {
        let done =
            Command::new("bash").args(["-o", "pipefail", "-c", &script]).env("LAMINA_URL", bare).output().unwrap();
        (
            done.status.success(),
            String::from_utf8_lossy(&done.stdout).into_owned(),
            String::from_utf8_lossy(&done.stderr).into_owned(),
        )
    };
    let (well, out, _) = shell(format!("echo '{sql}' | {program} query -"));
    assert!(well && out.contains("\"nothing\":null"), "{out}");
    let many = "SELECT * FROM generate_series(1, 3000000)";
    let (_, out, err) = shell(format!("{program} query --format ndjson --stamp none '{many}' | head -n 1"));
    assert!(out.contains("1") && err.is_empty(), "{out} {err}");

    let place = |name: &str| folder.path().join(name).display().to_string();
    let (catalog, data) = (place("catalog"), place("data-of-another"));
    let arguments = ["up", "--catalog", &catalog, "--data", &data, "--listen", "localhost:0", "--store", "gs://b/p"];
    let refused = lamina(bare, &arguments);
    assert!(!refused.well && refused.err.contains("not at `gs:`"), "{refused:?}");
    assert!(server.stop().await.unwrap());
}
