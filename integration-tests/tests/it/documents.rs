//! What the documents and the demo print works as printed: every command, every catalog and every program in them is run.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use common::{catalog::Catalog, settings::Settings};
use integration_tests::sandbox::{self, browser::Browser, process::free_port, s3::binary};

/// What is not run here, by how it begins or by what is in it, and why.
const ELSEWHERE: &[(&str, &str)] = &[
    ("cargo ", "it builds what this test runs"),
    ("./test.sh", "it runs this test"),
    ("examples/produce.sh", "it needs Kafka"),
    ("kcat ", "it needs Kafka"),
    ("kafka-configs.sh ", "it needs Kafka"),
    ("--dataset sales_2", "it is for a catalog that has a second dataset"),
    ("pip install ", "integration-tests/install.sh has done that"),
    ("…", "it is a shape, not a command"),
];

/// Programs that go on: that they take these flags is looked at, and that they run in other tests.
const SERVERS: &[&str] =
    &["lamina up", "lamina demo", "batch-layer", "speed-layer", "serving-layer", "lamina record-lost"];

/// What begins a line that is no command of Lamina's, but of the cloud that docs/deploy.md is about, or a file or a drawing.
const NO_COMMANDS: &[&str] = &[
    "aws ",
    "terraform ",
    "layer ",
    "layer() ",
    "docker ",
    "push ",
    "push() ",
    "export ",
    "openssl ",
    "mkdir ",
    "cd ",
    "for ",
    "done",
    "local ",
    "}",
    "env=",
    "version=",
    "account=",
    "state=",
    "domain=",
    "secret=",
    "token=",
    "hash=",
    "registry=",
    "name=",
    "certificate=",
    "dashboards = ",
    "# ",
    "producers ",
    "│",
    "▼",
    "batch layer: ",
    "└",
    "curl https://$name",
];

/// The repository's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// The paragraphs of a document that stand indented, line by line without that; and the code in its fences, by language.
fn printed(document: &str) -> (Vec<Vec<String>>, BTreeMap<String, String>) {
    let (mut paragraphs, mut fences) = (vec![Vec::<String>::new()], BTreeMap::<String, String>::new());
    let mut fence: Option<String> = None;
    for line in document.lines() {
        match (line.strip_prefix("```"), &fence) {
            (Some(language), None) => fence = Some(language.to_owned()),
            (Some(_), Some(_)) => fence = None,
            (None, Some(language)) => fences.entry(language.clone()).or_default().push_str(&format!("{line}\n")),
            (None, None) => match (line.strip_prefix("    "), paragraphs.last_mut()) {
                (Some(line), Some(last)) => match last.last_mut().filter(|before| before.ends_with('\\')) {
                    Some(before) => {
                        before.pop();
                        before.push_str(line.trim_start());
                    }
                    None => last.push(line.to_owned()),
                },
                (None, _) => paragraphs.push(Vec::new()),
                (Some(_), None) => {}
            },
        }
    }
    paragraphs.retain(|paragraph| !paragraph.is_empty());
    (paragraphs, fences)
}

/// A demo that runs, and a folder like the one that a reader stands in.
struct Bed {
    folder: tempfile::TempDir,
    address: String,
    demo: Child,
    /// The commands that it has printed.
    tries: Vec<String>,
}

impl Bed {
    async fn start() -> Self {
        let (folder, address) = (tempfile::tempdir().unwrap(), format!("127.0.0.1:{}", free_port().unwrap()));
        let here = |name: &str| folder.path().join(name);
        std::os::unix::fs::symlink(root().join("examples"), here("examples")).unwrap();
        std::os::unix::fs::symlink(root().join("examples/sales"), here("catalog")).unwrap();
        std::os::unix::fs::symlink(root().join("examples/sales/sales.ndjson"), here("events.ndjson")).unwrap();
        let mut demo = Command::new(binary("lamina").unwrap())
            .args(["demo", "--rate", "200", "--listen", &address])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(demo.stdout.take().unwrap()).lines().map(Result::unwrap);
        let said: Vec<String> = lines.take_while(|line| !line.starts_with("Ctrl-C")).collect();
        let tries = said.iter().filter_map(|line| line.strip_prefix("  ")).map(str::to_owned).collect();
        let bed = Self { folder, address, demo, tries };
        // An answer of the archive too is wanted, and that takes a first commit.
        let (deadline, query) = (
            Instant::now() + Duration::from_secs(90),
            "lamina query 'SELECT count(*) AS n FROM sales' | grep -v '\"n\":0'",
        );
        while bed.run(query).is_err() {
            assert!(Instant::now() < deadline, "the demo archives nothing: {said:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        bed
    }

    /// Runs a command, once what the demo recomputes by itself at the moment is done.
    async fn run_soon(&self, command: &str) -> Result<String, String> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match self.run(command) {
                Err(error) if error.contains("already") && Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                done => return done,
            }
        }
    }

    /// Runs a command as it is printed, with the demo's address for the one that is printed.
    fn run(&self, command: &str) -> Result<String, String> {
        let bin = binary("lamina").unwrap();
        let path = format!("{}:{}", bin.parent().unwrap().display(), std::env::var("PATH").unwrap());
        let command = command.replace("127.0.0.1:8787", &self.address).replace("serving:8787", &self.address);
        let script = format!("set -euo pipefail; curl() {{ command curl -sS --fail-with-body \"$@\"; }}\n{command}");
        let done = Command::new("bash")
            .args(["-c", &script])
            .current_dir(self.folder.path())
            .env("PATH", path)
            .env("LAMINA_URL", format!("http://{}", self.address))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let [out, err] = [&done.stdout, &done.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
        if done.status.success() { Ok(out) } else { Err(format!("`{command}`: {}\n{out}{err}", done.status)) }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = self.demo.kill();
        let _ = self.demo.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_printed_works() {
    let bed = Bed::start().await;
    let (mut faults, mut ran) = (Vec::new(), 0);
    assert!(bed.tries.len() >= 3, "{:?}", bed.tries);
    for command in &bed.tries {
        ran += 1;
        faults.extend(bed.run(command).err());
    }
    let mut documents = vec![root().join("README.md")];
    documents.extend(std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path()));
    for document in documents {
        let name = document.strip_prefix(root()).unwrap().display().to_string();
        let (paragraphs, fences) = printed(&std::fs::read_to_string(&document).unwrap());
        let mut sql = String::new();
        for paragraph in &paragraphs {
            let text = paragraph.join("\n");
            let first = paragraph[0].as_str();
            if first.starts_with("CREATE ") {
                sql.push_str(&text);
            } else if first.starts_with("# lamina.toml") {
                let file = bed.folder.path().join("lamina.toml");
                std::fs::write(&file, &text).unwrap();
                let flags = common::settings::Flags { settings: Some(file), ..Default::default() };
                faults.extend(Settings::read(&flags).err().map(|error| format!("{name}: {error}")));
            } else if first.starts_with("const ") {
                faults.extend(in_a_browser(&bed, &text).await.err().map(|error| format!("{name}: {error}")));
            } else {
                for line in paragraph.iter().map(|line| line.trim_start()) {
                    let command = line.strip_prefix("$ ").unwrap_or(line);
                    let is_output = first.starts_with("$ ") && !line.starts_with("$ ");
                    let is_none = NO_COMMANDS.iter().any(|none| command.starts_with(none));
                    let is_elsewhere = ELSEWHERE
                        .iter()
                        .any(|(of, _)| command.starts_with(of) || !of.ends_with(' ') && command.contains(of));
                    if is_output || is_none || is_elsewhere {
                        continue;
                    }
                    let is_server = SERVERS.iter().any(|server| command.starts_with(server));
                    let command = match (is_server, command.split_once(" #")) {
                        (true, parts) => format!("{} --help", parts.map_or(command, |(command, _)| command)),
                        (false, _) => command.to_owned(),
                    };
                    ran += 1;
                    faults.extend(bed.run_soon(&command).await.err().map(|error| format!("{name}: {error}")));
                }
            }
        }
        if !sql.is_empty() {
            let catalog = Catalog::parse(&[(name.clone(), sql)]);
            faults.extend(catalog.err().map(|error| error.to_string()));
        }
        for (language, code) in fences {
            assert_eq!(language, "python", "{name} has code that nothing runs");
            faults.extend(python(&bed, &code).err().map(|error| format!("{name}: {error}")));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
    assert!(ran > 15, "{ran} commands were found");
}

async fn in_a_browser(bed: &Bed, code: &str) -> Result<(), String> {
    let browser = Browser::start().await.map_err(|error| error.to_string())?;
    browser.open(&format!("http://{}/", bed.address)).await.map_err(|error| error.to_string())?;
    let answer = browser.run(&format!("return (async () => {{ {code}; return answer }})()")).await;
    let answer = answer.map_err(|error| error.to_string())?;
    // Sums of decimals have come as text.
    let first = &answer["rows"][0]["total_amount"];
    if first.is_string() { Ok(()) } else { Err(format!("{answer}")) }
}

fn python(bed: &Bed, code: &str) -> Result<(), String> {
    let code = code.replace("127.0.0.1:8787", &bed.address);
    let done = Command::new(sandbox::cache().join("python/bin/python"))
        .args(["-c", &code])
        .current_dir(bed.folder.path())
        .output()
        .unwrap();
    if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stderr).into_owned()) }
}

/// The example's events are those that the demo's generator prints, and can all be used.
#[test]
fn the_examples_events_are_the_generators() {
    let lamina = |arguments: &[&str]| {
        Command::new(binary("lamina").unwrap()).current_dir(root()).args(arguments).output().unwrap()
    };
    let events = std::fs::read_to_string(root().join("examples/sales/sales.ndjson")).unwrap();
    let count = events.lines().count().to_string();
    assert_eq!(String::from_utf8(lamina(&["demo", "--print", &count]).stdout).unwrap(), events);
    let checked = lamina(&["check", "examples/sales", "--sample", "examples/sales/sales.ndjson"]);
    let said = String::from_utf8(checked.stdout).unwrap();
    assert!(said.ends_with(&format!("{count} events can be used\n")), "{said}");
}
