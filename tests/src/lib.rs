//! The harness of the black-box tests: it starts the real binary, kills it, reopens it, and keeps the books.
//!
//! But for [`corrupt`] nothing in here knows the engine: tests see what users see, the wire, the command line and the
//! files. Reading order:
//! [`Store`] (a data directory and how it is served), [`Server`] (a running binary), [`Oracle`] (what must be true, for
//! every test), [`Wire`] (a raw connection for those who misbehave).
//!
//! `CROUPIER_BIN` names the binary under test; without it the one of this build's profile is built once.
//! `CROUPIER_TEST_SCALE=full` makes the rounds as long as a release wants them. `CROUPIER_TEST_SEED` repeats a run.
#![allow(rustdoc::private_intra_doc_links)] // the pages are for those who read the source
#![forbid(unsafe_code)]

mod binary;
mod command;
mod server;
mod store;

mod oracle;

mod cards;
mod dice;
mod scale;
mod tmpfs;
mod wire;

pub mod corrupt;
pub mod history;
pub mod matrix;
pub mod power_cut;

pub use binary::{use_binary, use_binary_given};
pub use cards::{Mint, leaked};
pub use command::{Done, croupier, croupier_under};
pub use dice::{Dice, unix_ms};

pub use oracle::{Ask, DiskReport, Glance, Oracle, OutOfSale, Standing, StateView, judge_chain};
pub use scale::scaled;
pub use server::{Server, eventually};
pub use store::{SEGMENT_BYTES, Store, Tree};
pub use tmpfs::{Ramfs, Tmpfs};
pub use wire::{Wire, frame, frame_with_flags, issue_frame, item, step_frame};

use std::time::Duration;

/// Nothing in these tests may take longer than this: a wait that does is a failure, never a measurement.
pub const PATIENCE: Duration = Duration::from_secs(60);
