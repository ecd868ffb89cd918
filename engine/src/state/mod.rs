//! What the store knows: SKUs, pools, slabs with their claim bits, orders; and how facts change it.
//!
//! Pure: no I/O of its own (slabs come through [`SlabSource`]), no clock, no randomness. The live system, recovery and
//! checkpoints all go through [`State::apply`] and [`State::apply_issued`] (DESIGN, rule 5), and [`State::digest`] proves
//! that they agree. Reading order: `record`, `catalog`, `index`, `apply`, `replay`, `digest`.

pub mod apply;
pub mod catalog;
pub mod digest;
pub mod index;
pub mod record;
pub mod replay;

pub use apply::{Promise, State, StateSeed};
pub use catalog::{Batch, Catalog, Pool, SkuState, SlabBody, SlabFacts, SlabSource, SlabState};
pub use digest::Digest;
pub use replay::Replay;
