//! File systems of a test's own: one so small that it can be filled, one that can do little.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

/// A mounted file system in memory. Dropped, it is unmounted.
#[derive(Debug)]
struct Mounted {
    root: TempDir,
}

impl Mounted {
    /// `None`, and a note, where that is not allowed.
    fn new(kind: &str, options: &str) -> Option<Self> {
        let root = TempDir::with_prefix("croupier-disk-").expect("a temporary directory");
        let options = CString::new(options).expect("no zero byte");
        match mount(
            kind,
            root.path(),
            kind,
            MountFlags::empty(),
            options.as_c_str(),
        ) {
            Ok(()) => Some(Self { root }),
            Err(error) => {
                eprintln!("SKIPPED: no {kind} can be mounted here ({error}); it needs root");
                None
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = unmount(self.root.path(), UnmountFlags::DETACH) {
            eprintln!("{} stays mounted: {error}", self.root.path().display());
        }
    }
}

/// A file system that knows neither `O_DIRECT` nor `fallocate`, as some do.
#[derive(Debug)]
pub struct Ramfs(Mounted);

impl Ramfs {
    /// Mounts one; `None`, and a note, where that is not allowed.
    pub fn mount() -> Option<Self> {
        Mounted::new("ramfs", "").map(Self)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.0.root.path()
    }
}

/// A tmpfs of a given size.
#[derive(Debug)]
pub struct Tmpfs(Mounted);

impl Tmpfs {
    /// Mounts one of so many bytes; `None`, and a note, where that is not allowed.
    pub fn mount(bytes: u64) -> Option<Self> {
        Mounted::new("tmpfs", &format!("size={bytes}")).map(Self)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.0.root.path()
    }

    /// Takes all room but `left` bytes, also what was given back since the last time; the file to remove afterwards.
    ///
    /// # Panics
    /// If there was less than that to begin with.
    pub fn fill(&self, left: u64) -> PathBuf {
        let path = self.path().join("filler");
        let options = File::options().create(true).append(true).open(&path);
        let mut file = options.expect("room for a name");
        let page = vec![1; 4096];
        while file.write_all(&page).is_ok() {}
        let full = file.metadata().expect("it has a length").len();
        let kept = full
            .checked_sub(left)
            .expect("there was more room than is to be left");
        file.set_len(kept).expect("a file can be cut");
        path
    }

    /// Gives the room of [`Tmpfs::fill`] back.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn free(&self, filler: &Path) {
        fs::remove_file(filler).expect("the filler is there");
    }
}
