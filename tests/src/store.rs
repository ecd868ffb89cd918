//! A data directory of a test: how it is made, served, copied, looked at and damaged.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::command::{Done, croupier};
use crate::server::Server;

/// Segments of a test's log: small, so that it rolls and folds while a test looks on. With them a ring of
/// [`RING_BYTES`] serves one to three cores.
pub const SEGMENT_BYTES: u64 = 2 << 20;
const RING_BYTES: u64 = 512 << 10;

/// What lies in a directory: path → length, hash of the bytes, mode.
pub type Tree = BTreeMap<PathBuf, (u64, u64, u32)>;

/// A data directory and the flags it is served with.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    flags: Vec<(String, Option<String>)>,
    /// Removed with the last who needs it.
    _root: Option<TempDir>,
}

impl Store {
    /// A new store in a temporary directory.
    pub fn new() -> Self {
        let root = TempDir::with_prefix("croupier-test-").expect("a temporary directory");
        let store = Self {
            _root: None,
            ..Self::at(root.path().join("data"))
        };
        Self {
            _root: Some(root),
            ..store.init()
        }
    }

    /// A directory that is somebody else's, not made yet.
    pub fn at(dir: PathBuf) -> Self {
        let flags = [
            ("--data", dir.display().to_string()),
            ("--listen", "127.0.0.1:0".to_owned()),
            ("--ops", "127.0.0.1:0".to_owned()),
            ("--cores", "2".to_owned()),
            ("--ring-bytes", RING_BYTES.to_string()),
            ("--checkpoint-segments", "1".to_owned()),
        ];
        let flags = flags
            .map(|(flag, value)| (flag.to_owned(), Some(value)))
            .into();
        Self {
            dir,
            flags,
            _root: None,
        }
    }

    /// Makes the store.
    ///
    /// # Panics
    /// If `croupier init` fails.
    #[must_use]
    pub fn init(self) -> Self {
        croupier(self.init_args(SEGMENT_BYTES)).ok();
        self
    }

    /// The command that makes it.
    pub(crate) fn init_args(&self, segment_bytes: u64) -> [String; 5] {
        let bytes = segment_bytes.to_string();
        let dir = self.dir.display().to_string();
        ["init", "--wal-segment-bytes", &bytes, "--data", &dir].map(str::to_owned)
    }

    /// Serves with another value of a flag.
    #[must_use]
    pub fn with(mut self, flag: &str, value: impl ToString) -> Self {
        self.set(flag, Some(value.to_string()));
        self
    }

    /// Serves with a flag that has no value.
    #[must_use]
    pub fn with_switch(mut self, flag: &str) -> Self {
        self.set(flag, None);
        self
    }

    /// As [`Store::with`], for a store that is kept.
    pub fn set(&mut self, flag: &str, value: Option<String>) {
        self.flags.retain(|(known, _)| known != flag);
        self.flags.push((flag.to_owned(), value));
    }

    /// Serves without a flag, so that the environment, the file or the default decides.
    #[must_use]
    pub fn without(mut self, flag: &str) -> Self {
        self.flags.retain(|(known, _)| known != flag);
        self
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path inside.
    pub fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        self.dir.join(inside)
    }

    /// The command that serves it.
    pub(crate) fn serve_args(&self) -> Vec<String> {
        let flags = self
            .flags
            .iter()
            .flat_map(|(flag, value)| [Some(flag.clone()), value.clone()]);
        ["serve".to_owned()]
            .into_iter()
            .chain(flags.flatten())
            .collect()
    }

    /// Starts a server on it.
    #[track_caller]
    pub fn serve(&self) -> Server {
        Server::start(self)
    }

    /// A start that is expected to be refused.
    pub fn serve_refused(&self) -> Done {
        croupier(self.serve_args())
    }

    /// `croupier wal WHAT … --json` on it.
    pub fn wal(&self, what: &str, more: &[&str]) -> Done {
        let dir = self.dir.display().to_string();
        let args = ["wal", what, "--json", "--data", &dir];
        croupier(args.iter().chain(more))
    }

    /// All records of the log that are not folded yet.
    pub fn records(&self) -> Vec<Value> {
        match self.wal("dump", &[]).ok().json() {
            Value::Array(records) => records,
            other => panic!("wal dump prints an array, not {other}"),
        }
    }

    /// A copy to be damaged, served with the same flags.
    pub fn copy(&self) -> Self {
        let root = TempDir::with_prefix("croupier-test-").expect("a temporary directory");
        let dir = root.path().join("data");
        copy_tree(&self.dir, &dir);
        let mut copy = Self {
            dir,
            flags: self.flags.clone(),
            _root: Some(root),
        };
        copy.set("--data", Some(copy.dir.display().to_string()));
        copy
    }

    /// The same store, for another thread; it goes with the first one.
    pub(crate) fn view(&self) -> Self {
        Self {
            dir: self.dir.clone(),
            flags: self.flags.clone(),
            _root: None,
        }
    }

    /// What lies in it, but for the lock.
    pub fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        if self.dir.exists() {
            look(&self.dir, &self.dir, &mut tree);
        }
        tree
    }

    /// Files of a directory inside whose names end like that, sorted.
    pub fn files(&self, inside: &str, end: &str) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.path(inside)) else {
            return Vec::new();
        };
        let paths = entries.map(|entry| entry.expect("a directory can be listed").path());
        let mut files: Vec<_> = paths
            .filter(|path| path.to_string_lossy().ends_with(end))
            .collect();
        files.sort();
        files
    }
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

pub(crate) fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory can be made");
    for entry in fs::read_dir(from).expect("a directory can be listed") {
        let path = entry.expect("a directory can be listed").path();
        let target = to.join(path.file_name().expect("an entry has a name"));
        if path.is_dir() {
            copy_tree(&path, &target);
        } else {
            fs::copy(&path, &target).expect("a file can be copied");
        }
    }
}

fn look(root: &Path, dir: &Path, tree: &mut Tree) {
    for entry in fs::read_dir(dir).expect("a directory can be listed") {
        let path = entry.expect("a directory can be listed").path();
        if path.is_dir() {
            look(root, &path, tree);
        } else if path.file_name().is_none_or(|name| name != "LOCK") {
            let bytes = fs::read(&path).expect("a file can be read");
            let mut hasher = DefaultHasher::new();
            bytes.hash(&mut hasher);
            let mode = fs::metadata(&path)
                .expect("a file has a mode")
                .permissions()
                .mode();
            let inside = path.strip_prefix(root).expect("it lies within").to_owned();
            tree.insert(inside, (bytes.len() as u64, hasher.finish(), mode));
        }
    }
}
