//! What a newcomer waits for: the first release build.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use super::report::line;
use crate::sandbox::process::cpu_of_children;

/// Builds the `lamina` program in an empty target folder.
pub fn measure(folder: &Path) -> Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace")?;
    let (began, cpu) = (Instant::now(), cpu_of_children()?);
    let built = Command::new("cargo")
        .args(["build", "--release", "--locked", "-p", "lamina", "--target-dir"])
        .arg(folder.join("target"))
        .current_dir(workspace)
        .stdout(Stdio::null())
        .status()
        .context("start cargo")?;
    ensure!(built.success(), "the build failed: {built}");
    let program = folder.join("target/release/lamina");
    let bytes = std::fs::metadata(&program).with_context(|| format!("look at {}", program.display()))?.len();
    let minutes = |time: std::time::Duration| format!("{:.1} min", time.as_secs_f64() / 60.0);
    line("clean release build, CPU", &minutes(cpu_of_children()? - cpu), "40 min");
    line("the `lamina` program", &format!("{:.0} MB", bytes as f64 / 1e6), "");
    line("clean release build, from start to end", &minutes(began.elapsed()), "");
    Ok(())
}
