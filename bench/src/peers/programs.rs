//! The peers' programs: where they are, and how they are started in a corner of their own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::BenchError;

/// Why a peer does not take part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotInstalled(pub String);

/// Finds a program in `PATH` or in one of the other directories.
pub fn find(program: &str, other_directories: &[PathBuf]) -> Result<PathBuf, NotInstalled> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(other_directories.iter().cloned())
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| NotInstalled(format!("{program} is not installed")))
}

/// Directories whose name is a version, newest first: `/usr/lib/postgresql/15/bin`, …
pub fn versioned(parent: &Path, below: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse().ok()?,
                entry.path().join(below),
            ))
        })
        .collect();
    versions.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    versions.into_iter().map(|(_, path)| path).collect()
}

/// What a program says about its version, in one line.
pub fn version_of(program: &Path) -> String {
    let output = Command::new(program).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_string());
    text.unwrap_or_else(|_| "unknown".into())
}

/// A port of 127.0.0.1 that nobody uses at the moment, for programs that cannot choose one themselves.
pub fn free_port() -> Result<u16, BenchError> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(BenchError::io("find a free port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_comes_first() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for name in ["9", "15", "13", "common"] {
            std::fs::create_dir(directory.path().join(name)).expect("it is empty");
        }
        let found = versioned(directory.path(), "bin");
        let expected = ["15", "13", "9"].map(|name| directory.path().join(name).join("bin"));
        assert_eq!(found, expected);
        assert!(versioned(Path::new("/nowhere"), "bin").is_empty());
    }

    #[test]
    fn what_is_missing_is_named() {
        let missing = find("no-such-database", &[]);
        assert_eq!(
            missing,
            Err(NotInstalled("no-such-database is not installed".into()))
        );
    }
}
