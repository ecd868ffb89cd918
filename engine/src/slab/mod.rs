//! Slabs: immutable, memory-mapped files of sealed cards, and everything that touches them.
//!
//! ```text
//! rows ─► ingest ─► slab file ─► Slab (mapped) ─► claim words ─► claim        who gets which slot
//!            │                       └─► open_secret ─► the secret, at the end of an order's way
//!         vault: the store's keys · sealing: one slab's slots
//! ```
//!
//! Specification of the bytes: `docs/slab-format.md`. Nothing here knows the log: a slab counts only once a record
//! names it, and which of its cards are sold stands in the log alone.

pub mod layout;

pub mod header;

pub mod durable;

mod keyfile;

pub mod vault;

pub mod sealing;

pub mod mapped;

mod prints;

pub mod file;

pub mod claim;

pub mod growing;

pub mod ingest;

#[cfg(test)]
mod fixture;

pub use durable::IoFault;
pub use file::{ExpectSlab, Slab, SlabError, SlotEntry, slab_file_name, slab_of_file_name};
pub use growing::{Added, Grower, Grown, NewCard, growing_cards_max};
pub use header::{HeaderFault, SlabHeader};
pub use ingest::{
    Ingest, IngestError, IngestLimits, IngestPlan, IngestTimes, Ingested, IsDelivered,
    remove_leftovers,
};
pub use layout::{PrintEntry, SlabLayout};
pub use sealing::SealError;
pub use vault::{Fingerprint, KeyFile, StoreFile, Vault, VaultError};
