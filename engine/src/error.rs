//! What can stop the engine from doing what an operator asked, with what to do about it.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::slab::{SlabError, VaultError};

/// An error of the store or the server as a whole. Refusals of single requests are
/// [`croupier_protocol::Refusal`].
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Something on disk is not what was written there. Nothing was changed.
    #[error("{}: {what} (offset {offset}). {advice}", path.display())]
    Damage {
        /// The damaged file.
        path: PathBuf,
        /// Where in the file, in bytes.
        offset: u64,
        /// What is wrong.
        what: String,
        /// What to do.
        advice: String,
    },
    /// The operating system refused.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        op: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// No store there.
    #[error("{}: not a data directory. `croupier init --data {}` makes one", .0.display(), .0.display())]
    NotAStore(PathBuf),
    /// `init` on a store.
    #[error("{}: already a data directory; nothing was changed. Serve it, or name another directory", .0.display())]
    AlreadyAStore(PathBuf),
    /// `init` or `replay --into` on a directory with other things in it.
    #[error("{}: not empty; nothing was changed. Name a new or empty directory", .0.display())]
    NotEmpty(PathBuf),
    /// Another process has it.
    #[error("{}: in use by another croupier (it holds the lock). Stop that one first", .0.display())]
    Locked(PathBuf),
    /// The port is taken, or the address is not of this machine.
    #[error(
        "cannot listen on {addr}: {source}. Choose another address with {flag}, or stop what listens there"
    )]
    Listen {
        /// The address asked for.
        addr: SocketAddr,
        /// The flag that changes it.
        flag: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// A setting that cannot be.
    #[error("{0}")]
    Config(String),
    /// The route table was not accepted.
    #[error("route table {}: {what}; the table in force stays", path.display())]
    Routes {
        /// The file.
        path: PathBuf,
        /// Line and reason.
        what: String,
    },
    /// The writer failed and the store must be restarted.
    #[error(
        "the log could not be written: {0}. Orders since then were not acknowledged; free or mend the disk and start again"
    )]
    WriterFailed(String),
    /// Key or store file.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// A slab.
    #[error(transparent)]
    Slab(#[from] SlabError),
}

impl EngineError {
    /// The exit code of DESIGN part 7: 3 for damage found, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            EngineError::Damage { .. } => 3,
            // The system refused, which says nothing about what is on the disk.
            EngineError::Slab(SlabError::Io(_)) => 1,
            EngineError::Slab(_) => 3,
            EngineError::Vault(VaultError::Damaged { .. }) => 3,
            _ => 1,
        }
    }

    pub fn damage(path: &Path, offset: u64, what: impl Into<String>) -> EngineError {
        EngineError::Damage {
            path: path.into(),
            offset,
            what: what.into(),
            advice: "Nothing was changed. Restore this file from a copy made while the store was stopped, \
                     or see docs/operations.md, \"Damage\""
                .into(),
        }
    }
}

/// Adds path and deed to an I/O error.
pub(crate) trait IoContext<T> {
    fn at(self, op: &'static str, path: &Path) -> Result<T, EngineError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, op: &'static str, path: &Path) -> Result<T, EngineError> {
        self.map_err(|source| EngineError::Io {
            path: path.into(),
            op,
            source,
        })
    }
}
