//! The data directory: where everything of one store lies, who may serve it, and how one begins.
//!
//! ```text
//! DIR/ store            what store this is         CURRENT      the checkpoint in force
//!      store.key        root key (mode 0600)       checkpoints/ orders/
//!      LOCK             held while served          wal/         slabs/
//! ```

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::unix_ms;
use crate::disk::Disk;
use crate::error::{EngineError, IoContext as _};
use crate::slab::{ExpectSlab, KeyFile, Slab, SlabError, StoreFile, Vault, slab_file_name};
use crate::state::{SlabBody, SlabFacts, SlabSource};
use crate::wal::format::StoreId;
use crate::wal::segments::make_segment;

/// Names inside a data directory.
#[derive(Clone, Debug)]
pub struct Paths {
    pub root: PathBuf,
}

impl Paths {
    pub fn wal(&self) -> PathBuf {
        self.root.join("wal")
    }

    pub fn slabs(&self) -> PathBuf {
        self.root.join("slabs")
    }

    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    pub fn orders(&self) -> PathBuf {
        self.root.join("orders")
    }

    pub fn current(&self) -> PathBuf {
        self.root.join("CURRENT")
    }

    fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    fn key(&self) -> PathBuf {
        self.root.join("store.key")
    }
}

/// An opened and locked data directory.
pub struct Store {
    pub paths: Paths,
    pub disk: Disk,
    pub vault: Arc<Vault>,
    pub store_id: StoreId,
    /// Released when dropped. Other disks than the operating system's have one user anyway.
    _lock: Option<File>,
}

impl Store {
    /// Opens and locks the store in `dir`. `key_file`: where the key is, when it is not in the directory.
    pub fn open(dir: &Path, key_file: Option<&Path>) -> Result<Store, EngineError> {
        let paths = Paths { root: dir.into() };
        if !paths.store().exists() {
            return Err(EngineError::NotAStore(dir.into()));
        }
        let lock = lock(dir)?;
        let store = StoreFile::load(&paths.store())?;
        let key = KeyFile::load(key_file.unwrap_or(&paths.key()))?;
        let vault = Vault::new(&key);
        store.check(&vault)?;
        Ok(Store {
            paths,
            disk: Disk::real(),
            vault: Arc::new(vault),
            store_id: store.store_id,
            _lock: Some(lock),
        })
    }

    /// The store in `root` on another disk, whose files for identity and key do not matter: for simulations.
    #[cfg(any(test, feature = "testing"))]
    pub fn on(disk: Disk, root: &Path, vault: Arc<Vault>) -> Store {
        Store {
            paths: Paths { root: root.into() },
            disk,
            store_id: vault.store_id(),
            vault,
            _lock: None,
        }
    }

    /// Where slabs come from when a record names them: mapped files.
    pub fn mapped_slabs(&self) -> Box<dyn SlabSource> {
        Box::new(MappedSlabs {
            dir: self.paths.slabs(),
            vault: self.vault.clone(),
            read_whole_bytes: SLABS_READ_WHOLE_BYTES_MAX.into(),
        })
    }
}

fn lock(dir: &Path) -> Result<File, EngineError> {
    let path = dir.join("LOCK");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .at("open", &path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(EngineError::Locked(dir.into())),
        Err(TryLockError::Error(error)) => Err(error).at("lock", &path),
    }
}

/// A start checks every byte of the slabs while they have no more bytes than this in all: a fraction of a second. Of those
/// that come later it checks the headers; `croupier wal verify` checks the rest.
pub const SLABS_READ_WHOLE_BYTES_MAX: u64 = 64 << 20;

struct MappedSlabs {
    dir: PathBuf,
    vault: Arc<Vault>,
    /// What is left of [`SLABS_READ_WHOLE_BYTES_MAX`].
    read_whole_bytes: AtomicU64,
}

impl MappedSlabs {
    /// Whether a slab of so many bytes is to be read whole.
    fn reads_whole(&self, bytes: u64) -> bool {
        // Relaxed: a budget, not a guard.
        self.read_whole_bytes
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(bytes)
            })
            .is_ok()
    }
}

impl SlabSource for MappedSlabs {
    fn body(&self, facts: &SlabFacts) -> Result<SlabBody, EngineError> {
        let path = self.dir.join(slab_file_name(facts.slab));
        let expect = ExpectSlab {
            id: facts.slab,
            header_hash: facts.header_hash,
        };
        let slab = match Slab::open(&path, &self.vault, Some(expect)) {
            Err(SlabError::Io(fault)) if fault.source.kind() == std::io::ErrorKind::NotFound => {
                let what = "it is missing, though the log names it";
                return Err(EngineError::damage(&path, 0, what));
            }
            opened => opened?,
        };
        let grows = slab.grows() != facts.grown.is_some();
        if grows
            || slab.cards() != facts.cards
            || slab.sku() != facts.sku
            || slab.batch() != facts.batch
        {
            return Err(EngineError::damage(
                &path,
                32,
                "the slab is not the one that the log names",
            ));
        }
        // How far one has grown is known behind the log: see `recovery`.
        if !slab.grows() && self.reads_whole(slab.header().layout.file_bytes) {
            slab.verify_sections()?;
        }
        Ok(SlabBody::Mapped(Arc::new(slab)))
    }
}

/// Claim bits without cards: for checkpoints and verification.
pub struct BitsOnly;

impl SlabSource for BitsOnly {
    fn body(&self, facts: &SlabFacts) -> Result<SlabBody, EngineError> {
        Ok(SlabBody::bits(facts.cards))
    }
}

/// Makes a new store in `dir` (which is made, or must be empty) and returns its id. With `key_file` the key goes there.
/// When something fails, what was made is left without its store file, so it is not a store and can be removed.
pub fn init(
    dir: &Path,
    key_file: Option<&Path>,
    segment_bytes: u64,
) -> Result<StoreId, EngineError> {
    let id = uuid::Uuid::new_v4().into_bytes();
    let key_path = key_file.map_or_else(|| Paths { root: dir.into() }.key(), Path::to_path_buf);
    init_with(dir, id, segment_bytes, || {
        Ok(KeyFile::create(&key_path, id)?)
    })
}

/// As [`init`], with the identity of another store: for `wal replay --into`.
pub fn init_copy(
    dir: &Path,
    of: &Store,
    key_file: Option<&Path>,
    segment_bytes: u64,
) -> Result<(), EngineError> {
    let to = Paths { root: dir.into() }.key();
    let from = of.paths.key();
    init_with(dir, of.store_id, segment_bytes, || {
        if let Some(outside) = key_file {
            return Ok(KeyFile::load(outside)?);
        }
        std::fs::copy(&from, &to).at("copy the key file to", &to)?;
        Ok(KeyFile::load(&to)?)
    })
    .map(|_| ())
}

fn init_with(
    dir: &Path,
    id: StoreId,
    segment_bytes: u64,
    key: impl FnOnce() -> Result<KeyFile, EngineError>,
) -> Result<StoreId, EngineError> {
    let paths = Paths { root: dir.into() };
    if paths.store().exists() {
        return Err(EngineError::AlreadyAStore(dir.into()));
    }
    std::fs::create_dir_all(dir).at("make", dir)?;
    if std::fs::read_dir(dir).at("list", dir)?.next().is_some() {
        return Err(EngineError::NotEmpty(dir.into()));
    }
    restrict(dir)?;
    for sub in [
        paths.wal(),
        paths.slabs(),
        paths.checkpoints(),
        paths.orders(),
    ] {
        std::fs::create_dir(&sub).at("make", &sub)?;
    }
    let vault = Vault::new(&key()?);
    let disk = Disk::real();
    make_segment(&disk, &paths.wal(), id, 1, segment_bytes)
        .at("make the first log segment in", &paths.wal())?;
    disk.sync_dir(dir).at("sync", dir)?;
    // Last: with it the directory is a store.
    StoreFile::create(&paths.store(), &vault, unix_ms())?;
    disk.sync_dir(dir).at("sync", dir)?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        disk.sync_dir(parent).at("sync", parent)?;
    }
    Ok(id)
}

fn restrict(dir: &Path) -> Result<(), EngineError> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).at("restrict", dir)
}
