//! What can go wrong in a bench run, and which exit code it becomes.

use std::io;
use std::path::PathBuf;

use croupier_protocol::{BodyError, FrameError, Refusal};

/// Exit code of a run that was refused, failed, or whose answers were wrong.
pub const EXIT_FAILED: u8 = 1;
/// Exit code of flags that make no sense.
pub const EXIT_USAGE: u8 = 2;
/// Exit code when no server could be reached.
pub const EXIT_UNREACHABLE: u8 = 4;

/// Everything that ends a bench run early.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Flags that contradict each other or the server's limits.
    #[error("{0}")]
    Usage(String),
    /// Nobody listens, or nobody answers.
    #[error("cannot reach {address}: {source}; is a server running there?")]
    Unreachable {
        /// The host and port that were tried.
        address: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The server binary that the bench starts is missing.
    #[error("no croupier binary at {}: build it (cargo build --release), or say --croupier PATH or --server URL", .path.display())]
    NoServerBinary {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A server or peer that the bench starts did not come up.
    #[error("{program} did not start: {detail}")]
    NotStarted {
        /// Its name.
        program: String,
        /// Its last words.
        detail: String,
    },
    /// A server that the bench started did not stop in good order.
    #[error("{program} did not stop in good order: {detail}")]
    NotStopped {
        /// Its name.
        program: String,
        /// Exit status and last words.
        detail: String,
    },
    /// A connection broke in the middle of a run.
    #[error("connection {connection} failed during the run: {source}")]
    ConnectionLost {
        /// Its number, from 0.
        connection: usize,
        /// What the operating system said.
        source: io::Error,
    },
    /// The server closed a connection with a reason.
    #[error("the server closed connection {connection} with a fault: {text}")]
    Fault {
        /// Its number, from 0.
        connection: usize,
        /// The fault's name and text.
        text: String,
    },
    /// A control request was refused.
    #[error("the server refused {request}: {refusal} {text}")]
    Refused {
        /// What was asked.
        request: &'static str,
        /// The reason.
        refusal: Refusal,
        /// The server's words.
        text: String,
    },
    /// Bytes that are no frame of this protocol version.
    #[error("the server sent a broken frame: {0}")]
    Frame(#[from] FrameError),
    /// A frame whose body is not what its kind says.
    #[error("the server sent a broken body: {0}")]
    Body(#[from] BodyError),
    /// An answer that does not fit the question.
    #[error("unexpected answer to {request}: {detail}")]
    Unexpected {
        /// What was asked.
        request: &'static str,
        /// What came.
        detail: String,
    },
    /// A peer answered with an error of its own.
    #[error("{peer}: {detail}")]
    Peer {
        /// Its name.
        peer: String,
        /// What it said.
        detail: String,
    },
    /// An operating system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// What the operating system said.
        source: io::Error,
    },
}

impl BenchError {
    /// Wraps an I/O error with what was being done.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// The exit code this error ends the process with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => EXIT_USAGE,
            Self::Unreachable { .. } => EXIT_UNREACHABLE,
            _ => EXIT_FAILED,
        }
    }
}
