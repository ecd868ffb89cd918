//! A disk so small that a test can fill it.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

/// A mounted tmpfs. Dropped, it is unmounted.
#[derive(Debug)]
pub struct Tmpfs {
    root: TempDir,
}

impl Tmpfs {
    /// Mounts one of so many bytes; `None`, and a note, where that is not allowed.
    pub fn mount(bytes: u64) -> Option<Self> {
        let root = TempDir::with_prefix("croupier-tmpfs-").expect("a temporary directory");
        let options = std::ffi::CString::new(format!("size={bytes}")).expect("no zero byte");
        match mount(
            "tmpfs",
            root.path(),
            "tmpfs",
            MountFlags::empty(),
            options.as_c_str(),
        ) {
            Ok(()) => Some(Self { root }),
            Err(error) => {
                eprintln!("SKIPPED: no tmpfs can be mounted here ({error}); it needs root");
                None
            }
        }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// Takes all room but `left` bytes, also what was given back since the last time; the file to remove afterwards.
    ///
    /// # Panics
    /// If there was less than that to begin with.
    pub fn fill(&self, left: u64) -> PathBuf {
        let path = self.root.path().join("filler");
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

impl Drop for Tmpfs {
    fn drop(&mut self) {
        if let Err(error) = unmount(self.root.path(), UnmountFlags::DETACH) {
            eprintln!("{} stays mounted: {error}", self.root.path().display());
        }
    }
}
