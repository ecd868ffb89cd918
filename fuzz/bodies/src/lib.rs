//! What is fuzzed, as plain functions over bytes. Each feeds its bytes to a reader of bytes from outside and panics when
//! the reader breaks a promise; that the reader itself must not panic goes without saying.
//!
//! Checksums stop a fuzzer at the first door, so most functions go in twice: with the bytes as they are, and with the
//! bytes behind correct checksums.
//!
//! The fuzz targets of `fuzz/` call these, and `tests/corpus.rs` replays the seeds and everything that was ever found.
#![forbid(unsafe_code)]

mod edits;

mod frame;
mod import;
mod routes;

mod checkpoint;
mod orders;
mod slab;
mod wal;

pub mod seeds;

pub use checkpoint::checkpoint;
pub use frame::frame;
pub use import::import;
pub use orders::orders;
pub use routes::routes;
pub use slab::slab;
pub use wal::wal;

/// A target: its name, and what is done with the bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 7] = [
    ("frame", frame),
    ("wal", wal),
    ("checkpoint", checkpoint),
    ("orders", orders),
    ("slab", slab),
    ("import", import),
    ("routes", routes),
];
