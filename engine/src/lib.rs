//! Croupier's engine: deals cards exactly once, durably, fast.
//!
//! The order's way, and where each step lives:
//!
//! ```text
//! socket ─► frame ─► order ─► lane ─► dealer ─► route ─► claim ─► log ─► (durable) ─► open secret ─► frame ─► socket
//! server::connection  order   lanes   dealer    route    slab::claim wal              slab::sealing  server::translate
//!                                       │
//!                                   state::index: has this id been dealt? join it
//! ```
//!
//! Around it: `engine`, `intake`, `moves`, `uses` and `picks` (the cold path), `recovery` and `checkpoint` (the way back), `store` (the data
//! directory), `import` and `cli` (what operators type).
#![allow(missing_docs)] // of the engine's inner parts: the module pages explain them; the public crates document all
#![allow(rustdoc::private_intra_doc_links)] // the pages are for those who read the source

pub mod card;
pub mod limits;

pub mod dealer;
pub mod lanes;
pub mod linked;
pub mod order;
pub mod route;
pub mod server;
pub mod slab;
pub mod state;
pub mod timers;
pub mod turns;
pub mod wal;

mod ahead;
pub mod canary;
pub mod channels;
pub mod checkpoint;
pub mod clock;
pub mod config;
pub mod delivery;
pub mod disk;
pub mod engine;
pub mod error;
pub mod expiry;
pub mod feed;
pub mod finds;
pub mod holders;
pub mod intake;
pub mod moves;
pub mod picks;
pub mod recovery;
pub mod retries;
mod routing;
pub mod store;
pub mod sync;
pub mod tables;
pub mod uses;
pub mod whatif;

pub mod cli;
pub mod import;

#[cfg(all(test, croupier_shuttle))]
mod models;
