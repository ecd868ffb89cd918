//! The log: where a promise becomes a fact.
//!
//! ```text
//! dealers ──► ring ──► committer ──► segment (durable) ──► durable LSN ──► every core that waits is woken once
//!                          │
//!                     segments (made ahead, zero-written)          reader ──► recovery, checkpoint, `croupier wal`
//! ```
//!
//! Knows bytes and LSNs, not what records mean: that is `state`. Reading order: `format`, `ring`, `bell`,
//! `segments`, `committer`, `log`, `reader`.

pub mod bell;
pub mod committer;
pub mod format;
pub mod log;
pub mod reader;
pub mod ring;
pub mod segments;

#[cfg(all(test, not(any(croupier_loom, croupier_shuttle))))]
mod reader_tests;

pub use log::{Log, LogOptions};
pub use reader::{BlockReader, Position, Tail};
