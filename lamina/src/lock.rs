//! The data folder is held by one process at a time, through a file lock that the system frees when the process dies.

use std::{
    fs::{File, TryLockError},
    io::{Read, Seek, Write},
    path::Path,
};

use anyhow::{Context, Result, bail};

/// The hold on a data folder; let go when dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes a data folder, or says who has it.
pub fn take(folder: &Path, address: std::net::SocketAddr) -> Result<Lock> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("could not create the data folder `{}`", folder.display()))?;
    let path = folder.join("lock");
    let mut file = File::options().create(true).truncate(false).read(true).write(true).open(&path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder)?;
            bail!(
                "the data folder `{}` is held by {}: stop that process first, or choose another folder with --data",
                folder.display(),
                if holder.is_empty() { "another process" } else { holder.trim() }
            );
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("could not lock `{}`", path.display()));
        }
    }
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "process {} (answering at {address})", std::process::id())?;
    file.flush()?;
    Ok(Lock { _file: file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_is_told_who_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let address = "127.0.0.1:8787".parse().unwrap();
        let lock = take(folder.path(), address).unwrap();
        let error = take(folder.path(), address).unwrap_err().to_string();
        assert!(error.contains(&format!("process {} (answering at 127.0.0.1:8787)", std::process::id())), "{error}");
        drop(lock);
        take(folder.path(), address).unwrap();
    }
}
