//! Apache Kafka: one node in KRaft mode, on free ports, with its data in a folder of its own.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};

use super::cache;
use super::process::free_port;

const READY_WITHIN: Duration = Duration::from_secs(60);

/// A broker; it stops when dropped.
#[derive(Debug)]
pub struct Kafka {
    folder: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
}

impl Kafka {
    /// Starts a broker and waits until it answers.
    pub fn start() -> Result<Self> {
        let lib = cache().join("kafka-4.1.0/lib");
        ensure!(lib.is_dir(), "`{}` is missing: run integration-tests/install.sh first", lib.display());
        let folder = tempfile::tempdir()?;
        let (port, controller) = (free_port()?, free_port()?);
        let data = folder.path().join("data");
        let properties = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\ncontroller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n\
             inter.broker.listener.name=PLAINTEXT\nlog.dirs={}\nnum.partitions=1\n\
             offsets.topic.replication.factor=1\noffsets.topic.num.partitions=1\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=1\nshare.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\ngroup.initial.rebalance.delay.ms=0\n\
             auto.create.topics.enable=false\nbroker.session.timeout.ms=2000\nbroker.heartbeat.interval.ms=500\n\
             controller.quorum.election.timeout.ms=300\ncontroller.quorum.fetch.timeout.ms=1000\n",
            data.display()
        );
        std::fs::write(folder.path().join("server.properties"), properties)?;
        let mut kafka = Self { folder, port, child: None };
        let formatted = kafka
            .java(&["kafka.tools.StorageTool", "format", "-t", "4L6g3nShT-eMCtK--X86sw", "-c"])
            .arg(kafka.properties())
            .output()
            .context("run Java")?;
        ensure!(
            formatted.status.success(),
            "Kafka's storage could not be formatted:\n{}",
            String::from_utf8_lossy(&formatted.stderr)
        );
        kafka.run()?;
        Ok(kafka)
    }

    fn properties(&self) -> PathBuf {
        self.folder.path().join("server.properties")
    }

    fn java(&self, arguments: &[&str]) -> Command {
        let mut java = Command::new("java");
        java.args(["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-cp"])
            .arg(format!("{}/*", cache().join("kafka-4.1.0/lib").display()))
            .args(arguments)
            .stdin(Stdio::null());
        java
    }

    /// Starts the broker on what its folder has: after [`Kafka::kill`].
    pub fn run(&mut self) -> Result<()> {
        let output = std::fs::File::options().create(true).append(true).open(self.folder.path().join("output"))?;
        let child = self
            .java(&["kafka.Kafka"])
            .arg(self.properties())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("start Kafka")?;
        self.child = Some(child);
        let asking: BaseConsumer = ClientConfig::new().set("bootstrap.servers", self.brokers()).create()?;
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if asking.fetch_metadata(None, Duration::from_secs(1)).is_ok_and(|metadata| !metadata.brokers().is_empty())
            {
                return Ok(());
            }
            let ended = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            if ended.is_some() || Instant::now() > deadline {
                let output = std::fs::read_to_string(self.folder.path().join("output")).unwrap_or_default();
                bail!("Kafka did not start:\n{output}");
            }
        }
    }

    /// Where clients find it.
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
