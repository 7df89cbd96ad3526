//! A process of Lamina's and what it uses.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::s3::binary;

/// A running program, ended when dropped.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    /// Where it answers.
    pub url: String,
}

impl Program {
    /// Starts `lamina up` with more arguments, its output in a file, and waits until it answers.
    pub async fn lamina(port: u16, arguments: &[&str], output: &Path) -> Result<Self> {
        let mut lamina = Self::start("lamina", port, &[&["up"], arguments].concat(), output)?;
        lamina.answers(output).await?;
        Ok(lamina)
    }

    /// Starts one of Lamina's programs at a port, its output in a file.
    pub fn start(name: &str, port: u16, arguments: &[&str], output: &Path) -> Result<Self> {
        let log = std::fs::File::options().create(true).append(true).open(output)?;
        let listen = format!("127.0.0.1:{port}");
        let child = Command::new(binary(name)?)
            .args(arguments)
            .args(["--listen", &listen])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        Ok(Self { name: name.to_owned(), child, url: format!("http://{listen}") })
    }

    /// Waits until it answers.
    pub async fn answers(&mut self, output: &Path) -> Result<()> {
        let deadline = std::time::Instant::now() + Duration::from_secs(120);
        let health = format!("{}/healthz", self.url);
        loop {
            // While it starts it is well, and answers nothing else.
            if let Ok(answer) = reqwest::get(&health).await
                && answer.status().is_success()
                && !answer.text().await.unwrap_or_default().contains("starting")
            {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}:\n{}", self.name, std::fs::read_to_string(output).unwrap_or_default());
            }
            if std::time::Instant::now() > deadline {
                bail!("{} does not answer:\n{}", self.name, std::fs::read_to_string(output).unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Processor time used so far.
    pub fn cpu(&self) -> Result<Duration> {
        cpu(&self.child.id().to_string())
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
        let kib: u64 = line.split_whitespace().nth(1).context("a number")?.parse()?;
        Ok(kib << 10)
    }

    /// `kill -9`.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to stop in order, and waits. Whether it ended well.
    pub async fn stop(mut self) -> Result<bool> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status()?;
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.success());
            }
            if std::time::Instant::now() > deadline {
                bail!("{} does not stop", self.name);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processor time that a process has used so far, by its id or `self`.
pub fn cpu(id: &str) -> Result<Duration> {
    ticks(id, [11, 12])
}

/// Processor time of all programs that this process has started and waited for, with what those have.
pub fn cpu_of_children() -> Result<Duration> {
    ticks("self", [13, 14])
}

fn ticks(id: &str, places: [usize; 2]) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let mut ticks = 0;
    for place in places {
        ticks += fields.get(place).context("a number")?.parse::<u64>()?;
    }
    // Linux counts in hundredths of a second for programs.
    Ok(Duration::from_millis(ticks * 10))
}

/// A port that nobody uses at the moment.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
