//! The two small files of a store: `store.key` with its root key, and `store`, which tells whose key it is.
//!
//! Format: `docs/slab-format.md`. Knows files and checks; what the root key is good for is [`crate::slab::vault`].

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::mem::offset_of;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use thiserror::Error;
use uuid::Uuid;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::durable::{IoFault, write_new};
use super::layout::{KEY_BYTES, crc32c};
use super::vault::{KeyBytes, Vault, random_key};

const KEY_MAGIC: [u8; 8] = *b"CRPRKEY1";
const STORE_MAGIC: [u8; 8] = *b"CRPRSTOR";
/// Version of the store file.
pub const STORE_VERSION: u16 = 1;
/// Bytes of the key file and of the store file.
const FILE_BYTES: usize = 64;
const CRC_OFFSET: usize = 60;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Zeroize, ZeroizeOnDrop)]
#[repr(C)]
struct RawKeyFile {
    magic: [u8; 8],
    store_id: [u8; 16],
    root_key: [u8; KEY_BYTES],
    #[zeroize(skip)]
    reserved: U32,
    #[zeroize(skip)]
    crc: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawStoreFile {
    magic: [u8; 8],
    version: U16,
    reserved_10: [u8; 6],
    store_id: [u8; 16],
    created_unix_ms: U64,
    key_check: [u8; 16],
    reserved_56: U32,
    crc: U32,
}

const _: () = {
    assert!(
        size_of::<RawKeyFile>() == FILE_BYTES,
        "every key file would be misread"
    );
    assert!(offset_of!(RawKeyFile, root_key) == 24);
    assert!(offset_of!(RawKeyFile, crc) == CRC_OFFSET);
    assert!(
        size_of::<RawStoreFile>() == FILE_BYTES,
        "every store would be refused"
    );
    assert!(offset_of!(RawStoreFile, created_unix_ms) == 32);
    assert!(offset_of!(RawStoreFile, key_check) == 40);
    assert!(offset_of!(RawStoreFile, crc) == CRC_OFFSET);
};

/// The root key and the store it belongs to. Wiped when dropped.
pub struct KeyFile {
    store_id: [u8; 16],
    pub(super) root_key: KeyBytes,
}

impl KeyFile {
    /// Makes a new random root key and writes it to `path`, which must not exist, with mode 0600.
    pub fn create(path: &Path, store_id: [u8; 16]) -> Result<Self, VaultError> {
        let root_key = random_key()?;
        let mut raw = RawKeyFile {
            magic: KEY_MAGIC,
            store_id,
            root_key: [0; KEY_BYTES],
            reserved: 0.into(),
            crc: 0.into(),
        };
        raw.root_key.copy_from_slice(&root_key[..]);
        raw.crc = crc32c(&raw.as_bytes()[..CRC_OFFSET]).into();
        write_new(path, raw.as_bytes(), 0o600).map_err(VaultError::of_create)?;
        Ok(Self { store_id, root_key })
    }

    /// A key that is on no disk, for simulations.
    #[cfg(any(test, feature = "testing"))]
    pub fn unsaved(store_id: [u8; 16]) -> Self {
        let mut root_key = KeyBytes::default();
        root_key.copy_from_slice(&[7; KEY_BYTES]);
        Self { store_id, root_key }
    }

    /// Reads a key file. One that others than its owner may read or write is refused, as ssh does.
    pub fn load(path: &Path) -> Result<Self, VaultError> {
        let mut bytes = Zeroizing::new([0; FILE_BYTES]);
        let file = open_file("key file", path)?;
        let mode = file
            .metadata()
            .map_err(IoFault::at("look at", path))?
            .permissions()
            .mode();
        if mode & 0o077 != 0 {
            return Err(VaultError::BadMode {
                path: path.to_owned(),
                mode: mode & 0o7777,
            });
        }
        read_whole(file, path, &mut bytes)?;
        let damaged = |offset, what| VaultError::Damaged {
            path: path.to_owned(),
            offset,
            what,
        };
        let raw = RawKeyFile::ref_from_bytes(&bytes[..]).expect("both are 64 bytes");
        if raw.magic != KEY_MAGIC {
            return Err(damaged(0, "the magic is not that of a key file"));
        }
        if raw.crc.get() != crc32c(&bytes[..CRC_OFFSET]) {
            return Err(damaged(CRC_OFFSET, "the checksum does not match"));
        }
        if raw.reserved.get() != 0 {
            return Err(damaged(56, "the reserved bytes are not zero"));
        }
        let mut root_key = KeyBytes::default();
        root_key.copy_from_slice(&raw.root_key);
        Ok(Self {
            store_id: raw.store_id,
            root_key,
        })
    }

    /// The store whose key it is.
    pub fn store_id(&self) -> [u8; 16] {
        self.store_id
    }
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyFile({}, redacted)", Uuid::from_bytes(self.store_id))
    }
}

/// The file that makes a directory a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreFile {
    /// Random, made by `init`.
    pub store_id: [u8; 16],
    /// When `init` ran.
    pub created_unix_ms: u64,
    /// See [`Vault::check`].
    pub key_check: [u8; 16],
}

impl StoreFile {
    /// Writes the store file of the store that `vault` is the key of. `path` must not exist.
    pub fn create(path: &Path, vault: &Vault, created_unix_ms: u64) -> Result<Self, VaultError> {
        let store = Self {
            store_id: vault.store_id(),
            created_unix_ms,
            key_check: vault.check(),
        };
        let mut raw = RawStoreFile {
            magic: STORE_MAGIC,
            version: STORE_VERSION.into(),
            reserved_10: [0; 6],
            store_id: store.store_id,
            created_unix_ms: created_unix_ms.into(),
            key_check: store.key_check,
            reserved_56: 0.into(),
            crc: 0.into(),
        };
        raw.crc = crc32c(&raw.as_bytes()[..CRC_OFFSET]).into();
        write_new(path, raw.as_bytes(), 0o644).map_err(VaultError::of_create)?;
        Ok(store)
    }

    /// Reads a store file.
    pub fn load(path: &Path) -> Result<Self, VaultError> {
        let mut bytes = [0; FILE_BYTES];
        read_whole(open_file("store file", path)?, path, &mut bytes)?;
        let damaged = |offset, what| VaultError::Damaged {
            path: path.to_owned(),
            offset,
            what,
        };
        let raw = RawStoreFile::ref_from_bytes(&bytes).expect("both are 64 bytes");
        if raw.magic != STORE_MAGIC {
            return Err(damaged(0, "the magic is not that of a store"));
        }
        if raw.version.get() != STORE_VERSION {
            let found = raw.version.get();
            return Err(VaultError::UnsupportedVersion {
                path: path.to_owned(),
                found,
            });
        }
        if raw.crc.get() != crc32c(&bytes[..CRC_OFFSET]) {
            return Err(damaged(CRC_OFFSET, "the checksum does not match"));
        }
        if raw.reserved_10 != [0; 6] || raw.reserved_56.get() != 0 {
            return Err(damaged(10, "reserved bytes are not zero"));
        }
        Ok(Self {
            store_id: raw.store_id,
            created_unix_ms: raw.created_unix_ms.get(),
            key_check: raw.key_check,
        })
    }

    /// Whether `vault` is the key of this store. To be asked before anything is opened.
    pub fn check(&self, vault: &Vault) -> Result<(), VaultError> {
        if vault.store_id() != self.store_id {
            return Err(VaultError::OtherStore {
                store: self.store_id,
                key: vault.store_id(),
            });
        }
        if vault.check() != self.key_check {
            return Err(VaultError::WrongKey {
                store: self.store_id,
            });
        }
        Ok(())
    }
}

fn open_file(what: &'static str, path: &Path) -> Result<File, VaultError> {
    File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => VaultError::Missing {
            what,
            path: path.to_owned(),
        },
        _ => IoFault::at("open", path)(error).into(),
    })
}

/// Reads exactly the 64 bytes that these files have.
fn read_whole(mut file: File, path: &Path, bytes: &mut [u8; FILE_BYTES]) -> Result<(), VaultError> {
    let found_bytes = file.metadata().map_err(IoFault::at("look at", path))?.len();
    if found_bytes != FILE_BYTES as u64 {
        let what = "it is not 64 bytes long";
        let offset = found_bytes.min(FILE_BYTES as u64) as usize;
        return Err(VaultError::Damaged {
            path: path.to_owned(),
            offset,
            what,
        });
    }
    file.read_exact(bytes).map_err(IoFault::at("read", path))?;
    Ok(())
}

/// Why a key or store file cannot be made or used.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum VaultError {
    #[error("{what} {} is missing: give its place, or make a store with `croupier init`", path.display())]
    Missing { what: &'static str, path: PathBuf },
    #[error("{} exists already: a store is not made twice; choose another directory", path.display())]
    Exists { path: PathBuf },
    #[error("{}: damaged at offset {offset}: {what}; restore it from a copy", path.display())]
    Damaged {
        path: PathBuf,
        offset: usize,
        what: &'static str,
    },
    #[error(
        "{}: store version {found}, this build knows version {STORE_VERSION}: use the build that wrote it",
        path.display()
    )]
    UnsupportedVersion { path: PathBuf, found: u16 },
    #[error("key file {} can be read by others (mode {mode:04o}): run `chmod 600` on it", path.display())]
    BadMode { path: PathBuf, mode: u32 },
    #[error(
        "the key file belongs to store {}, this is store {}: give the right one with --key-file",
        Uuid::from_bytes(*key), Uuid::from_bytes(*store)
    )]
    OtherStore { store: [u8; 16], key: [u8; 16] },
    #[error(
        "the key file names store {} but holds another key than its cards were sealed with: give the right one with --key-file",
        Uuid::from_bytes(*store)
    )]
    WrongKey { store: [u8; 16] },
    #[error("the system gives no random numbers: no key can be made")]
    NoRandomness,
    #[error(transparent)]
    Io(#[from] IoFault),
}

impl VaultError {
    fn of_create(fault: IoFault) -> Self {
        match fault.source.kind() {
            io::ErrorKind::AlreadyExists => Self::Exists { path: fault.path },
            _ => Self::Io(fault),
        }
    }
}

#[cfg(test)]
mod tests;
