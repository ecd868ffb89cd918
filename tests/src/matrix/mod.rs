//! The crash matrix: the real binary is killed in front of every system call of the write path, in every phase of a store's
//! life, and each of these calls is failed with `EIO` and with `ENOSPC`; after every single fault the store is started
//! again and the one [`Oracle`](crate::Oracle) judges it.
//!
//! Reading order: [`scene`] (what is done), [`stage`] (to which stores), [`trace`] (system calls, and how one is found
//! again), [`strace`] (how a fault is put in), [`play`] (one run), [`judge`] (what must hold), [`run`] (all of them),
//! [`report`].

pub mod scene;

pub mod stage;

pub mod trace;

pub mod strace;

pub mod play;

pub mod judge;

pub mod run;

pub mod report;

use clap::ValueEnum;

/// The store's directory, below the root of a run.
pub const DATA_DIR: &str = "data";

/// A part of a store's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Phase {
    /// A store is made.
    Init,
    /// Cards come in.
    Import,
    /// Orders are dealt.
    Load,
    /// The log goes on in its next segment.
    Roll,
    /// Sealed segments are folded while orders are dealt.
    Checkpoint,
    /// A stop in good order.
    Shutdown,
    /// A start after a crash.
    Recovery,
}

/// What is done to a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Fault {
    /// The process is killed in front of it.
    Kill,
    /// It fails as on a broken disk.
    Eio,
    /// It fails as on a full disk.
    Enospc,
}

/// How the log's blocks are made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Log {
    /// One write to a file opened with `O_DIRECT | O_DSYNC`; on the file system of temporary files.
    Direct,
    /// A write, then `fdatasync`; on a file system that knows no `O_DIRECT`, which needs root.
    Fdatasync,
}

impl Phase {
    /// As it is typed.
    pub fn name(self) -> String {
        name(self)
    }
}

impl Fault {
    /// As it is typed.
    pub fn name(self) -> String {
        name(self)
    }
}

impl Log {
    /// As it is typed.
    pub fn name(self) -> String {
        name(self)
    }
}

fn name(value: impl ValueEnum) -> String {
    let typed = value.to_possible_value();
    typed.expect("no value is hidden").get_name().to_owned()
}

/// Why the matrix cannot be run. What it finds wrong with the store is no problem of this kind.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// There is no strace, or it cannot be talked to.
    #[error("strace cannot be run ({0}): install the package of that name")]
    NoStrace(#[source] std::io::Error),
    /// strace may not trace.
    #[error("strace does not attach to the server; it says: {0}")]
    NotAttached(String),
    /// The server is built otherwise than the matrix knows.
    #[error("the server has no thread called {0}: the matrix aims at threads by their names")]
    NoThread(String),
}
