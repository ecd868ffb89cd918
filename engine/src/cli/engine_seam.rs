//! Where the command line meets the store: the only file of it that names the engine's modules.
//!
//! Everything here is thin: call, and turn what comes back into what a command prints.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;

use super::error::CliError;
use super::print::Facts;
use super::wal::Until;
use crate::config::Config;
use crate::error::EngineError;

fn not_built<T>(what: &str) -> Result<T, EngineError> {
    Err(EngineError::Config(format!("{what}: not built yet")))
}

/// Makes a data directory; the store's id as text.
pub(super) fn init(data: &Path, key_file: Option<&Path>) -> Result<String, EngineError> {
    let _ = (data, key_file);
    not_built("init")
}

/// Makes the data directory unless it is one; true if it was made.
pub(super) fn init_if_absent(data: &Path, key_file: Option<&Path>) -> Result<bool, EngineError> {
    match init(data, key_file) {
        Ok(_) => Ok(true),
        Err(EngineError::AlreadyAStore(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A server that listens.
pub(super) struct Running(Infallible);

/// Recovers the store and listens; blocks until both are done.
pub(super) fn start(config: Config) -> Result<Running, EngineError> {
    let _ = config;
    not_built("serve")
}

impl Running {
    pub(super) fn local_addr(&self) -> SocketAddr {
        match self.0 {}
    }

    pub(super) fn ops_addr(&self) -> SocketAddr {
        match self.0 {}
    }

    /// Reads the route table again; on error the one in force stays.
    pub(super) fn reload_routes(&self) -> Result<(), EngineError> {
        match self.0 {}
    }

    /// Drains, syncs, checkpoints; blocks until that is done. The report is for the log.
    pub(super) fn stop(&self) -> Result<String, EngineError> {
        match self.0 {}
    }

    /// Blocks until the log cannot be written any more, and says why.
    pub(super) fn wait_failed(&self) -> EngineError {
        match self.0 {}
    }
}

/// Reads a route table: its warnings, or what is wrong with it.
pub(super) fn routes_check(file: &Path, toml: &str) -> Result<Vec<String>, EngineError> {
    let _ = (file, toml);
    not_built("routes check")
}

/// One record of the log, as `wal dump` prints it.
pub(super) struct DumpRow {
    pub(super) lsn: u64,
    /// RFC 3339.
    pub(super) at: String,
    /// A word of docs/wal-format.md.
    pub(super) kind: String,
    /// The rest of it; never a secret.
    pub(super) text: String,
}

/// Gives every record from `from` to `until` to `put`, which may say that enough is enough.
pub(super) fn dump(
    data: &Path,
    key_file: Option<&Path>,
    from: u64,
    until: Option<Until>,
    put: &mut dyn FnMut(DumpRow) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let _ = (data, key_file, from, until, put);
    Ok(not_built("wal dump")?)
}

/// Checks everything; damage is an error (exit code 3), else what was found.
pub(super) fn verify(data: &Path, key_file: Option<&Path>) -> Result<Facts, EngineError> {
    let _ = (data, key_file);
    not_built("wal verify")
}

/// Rebuilds the state up to `until`: what it came to, with its digest.
pub(super) fn replay(
    data: &Path,
    key_file: Option<&Path>,
    until: Option<Until>,
    into: Option<&Path>,
) -> Result<Facts, EngineError> {
    let _ = (data, key_file, until, into);
    not_built("wal replay")
}
