//! Croupier's engine: deals cards exactly once, durably, fast.
#![allow(missing_docs)]

pub mod limits;

pub mod slab;
pub mod import;
pub mod cli;
