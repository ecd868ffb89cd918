//! What the store knows: SKUs, pools, slabs with their claim bits, orders; and the one function that changes it.
//!
//! Pure: no I/O of its own (slabs come through [`SlabSource`]), no clock, no randomness. The live system, recovery and
//! checkpoints all go through [`State::apply`] (DESIGN, rule 5), and [`State::digest`] proves that they agree. Reading order:
//! `record`, `catalog`, `line`, `holders`, `index`, `apply`, `held`, `waiting`, `moved`, `reused`, `added`, `routes`, `channels`, `replay`, `digest`.

pub mod added;
pub mod apply;
pub mod canary;
pub mod catalog;
pub mod channels;
pub mod digest;
pub mod held;
pub mod holders;
pub mod index;
pub mod line;
pub mod moved;
pub mod record;
pub mod replay;
pub mod reused;
pub mod routes;
pub mod selection;
pub mod waiting;

pub use apply::{Promise, State, StateSeed};
pub use canary::{Canaries, Canary};
pub use catalog::{
    Batch, Catalog, NEVER, Pool, SkuState, SlabBody, SlabFacts, SlabSource, SlabState, StockCounts,
};
pub use channels::{Channels, Known};
pub use digest::Digest;
pub use replay::{Hand, Replay};
pub use reused::{Reused, View};
pub use routes::{RouteTables, TableFact};
