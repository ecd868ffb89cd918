//! Files that are there whole or not at all: write, sync, rename, sync the directory.
//!
//! Knows paths and bytes, not what is in them. Every failure says what was being done to which path.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use thiserror::Error;

/// Ends the name of a file that is still being written.
pub const PARTIAL_SUFFIX: &str = ".partial";

/// An operation on a path that the system refused.
#[derive(Debug, Error)]
#[error("cannot {op} {}: {source}", path.display())]
pub struct IoFault {
    /// What was tried, as a verb.
    pub op: &'static str,
    /// On what.
    pub path: PathBuf,
    /// The system's answer.
    pub source: io::Error,
}

impl IoFault {
    /// For `map_err`: `IoFault::at("open", path)`.
    pub fn at(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self {
            op,
            path: path.to_owned(),
            source,
        }
    }

    /// Whether the disk or the quota is used up.
    pub fn is_disk_full(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        )
    }
}

/// The name `path` has until it is finished.
pub fn partial_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(PARTIAL_SUFFIX);
    name.into()
}

/// Writes a small new file durably. An existing one is never replaced: that is an `AlreadyExists`.
///
/// `mode` holds from the first byte on. What an earlier, interrupted attempt left under the partial name is dropped.
pub fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), IoFault> {
    let partial = partial_path(path);
    if let Err(fault) = write_and_rename(path, &partial, bytes, mode) {
        // The first failure is the one to tell; a partial file that stays is dropped by the next attempt.
        let _ = fs::remove_file(&partial);
        return Err(fault);
    }
    sync_dir(parent(path))
}

fn write_and_rename(path: &Path, partial: &Path, bytes: &[u8], mode: u32) -> Result<(), IoFault> {
    match fs::remove_file(partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(IoFault::at("remove", partial)(error));
        }
        _ => {}
    }
    let mut file = create_new(partial, mode)?;
    file.write_all(bytes)
        .map_err(IoFault::at("write", partial))?;
    file.sync_all().map_err(IoFault::at("sync", partial))?;
    rename_new(partial, path)
}

/// Creates a file that must not exist, for reading and writing.
pub fn create_new(path: &Path, mode: u32) -> Result<File, IoFault> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(mode);
    options.open(path).map_err(IoFault::at("create", path))
}

/// Renames, but never over something that exists.
pub fn rename_new(from: &Path, to: &Path) -> Result<(), IoFault> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // A file system that does not know the flag. The directory is ours and locked, so looking first is enough.
        Err(Errno::INVAL | Errno::NOSYS) => {
            if to.symlink_metadata().is_ok() {
                let exists = io::Error::from(io::ErrorKind::AlreadyExists);
                return Err(IoFault::at("rename to", to)(exists));
            }
            fs::rename(from, to).map_err(IoFault::at("rename to", to))
        }
        Err(errno) => Err(IoFault::at("rename to", to)(errno.into())),
    }
}

/// Makes the names in a directory durable.
pub fn sync_dir(dir: &Path) -> Result<(), IoFault> {
    let synced = File::open(dir).and_then(|file| file.sync_all());
    synced.map_err(IoFault::at("sync the directory", dir))
}

/// The directory a path is in.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_new_file_is_whole_and_has_its_mode_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("thing");
        fs::write(partial_path(&path), "of an interrupted attempt").unwrap();
        write_new(&path, b"bytes", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"bytes");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
            0o600
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_exists_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("thing"), dir.path().join("other"));
        fs::write(&path, "first").unwrap();
        fs::write(&other, "other").unwrap();
        let faults = [
            write_new(&path, b"second", 0o600),
            rename_new(&other, &path),
        ];
        for fault in faults.map(Result::unwrap_err) {
            assert_eq!(fault.source.kind(), io::ErrorKind::AlreadyExists);
            assert!(fault.to_string().contains("thing"), "{fault}");
        }
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read(&other).unwrap(), b"other");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_full_disk_is_told_from_other_faults() {
        for (errno, full) in [
            (Errno::NOSPC, true),
            (Errno::DQUOT, true),
            (Errno::IO, false),
        ] {
            let fault = IoFault::at("write", Path::new("x"))(errno.into());
            assert_eq!(fault.is_disk_full(), full, "{fault}");
        }
    }
}
