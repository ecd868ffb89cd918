//! The whole log of a store whose folded segments go: each segment is kept by another name of its file, so that in the end
//! all of history can be replayed from its first record.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::Store;

/// Much shorter than a segment lives.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Keeps segments until it is dropped.
#[derive(Debug)]
pub struct KeptLog {
    dir: PathBuf,
    over: Arc<AtomicBool>,
    keeper: Option<JoinHandle<()>>,
}

impl KeptLog {
    /// Keeps the segments of a store in a new directory of the same file system.
    ///
    /// # Panics
    /// If that cannot be made.
    pub fn begin(store: &Store, dir: PathBuf) -> Self {
        fs::create_dir_all(dir.join("wal")).expect("a directory can be made");
        let over = Arc::new(AtomicBool::new(false));
        let (from, to, stop) = (store.path("wal"), dir.join("wal"), over.clone());
        let keeper = thread::spawn(move || {
            let mut kept = BTreeMap::new();
            while !stop.load(Ordering::Relaxed) {
                keep(&from, &to, &mut kept);
                thread::sleep(LOOK_EVERY);
            }
            keep(&from, &to, &mut kept);
        });
        Self {
            dir,
            over,
            keeper: Some(keeper),
        }
    }

    /// Ends, and makes a store of a log that was never folded: nothing of it comes from a checkpoint. `None`: a segment was
    /// gone before it was seen.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn unfolded(mut self, store: &Store) -> Option<Store> {
        self.end();
        for name in ["store", "store.key"] {
            fs::copy(store.path(name), self.dir.join(name)).expect("a file can be copied");
        }
        for name in ["slabs", "orders", "checkpoints"] {
            fs::create_dir_all(self.dir.join(name)).expect("a directory can be made");
        }
        let whole = Store::at(self.dir.clone());
        let numbers = whole.files("wal", ".seg").into_iter().map(|path| {
            let name = path.file_stem().and_then(|name| name.to_str());
            let number = name.and_then(|name| name.strip_prefix("wal-"));
            number.and_then(|number| u64::from_str_radix(number, 16).ok())
        });
        let gapless = (1..).map(Some).zip(numbers).all(|(due, is)| is == due);
        gapless.then_some(whole)
    }

    fn end(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

impl Drop for KeptLog {
    fn drop(&mut self) {
        self.end();
    }
}

/// Keeps what is there. A segment that was made ahead and never used may be made again under its name.
fn keep(from: &Path, to: &Path, kept: &mut BTreeMap<PathBuf, u64>) {
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), PathBuf::from(entry.file_name()));
        let Ok(inode) = entry.metadata().map(|facts| facts.ino()) else {
            continue;
        };
        let is_segment = path.extension().is_some_and(|end| end == "seg");
        if !is_segment || kept.get(&name) == Some(&inode) {
            continue;
        }
        let _ = fs::remove_file(to.join(&name));
        if fs::hard_link(&path, to.join(&name)).is_ok() {
            kept.insert(name, inode);
        }
    }
}
