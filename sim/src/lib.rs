//! A whole Croupier in one thread, from one seed.
//!
//! ```text
//! callers (the client's retries) ─► network ─► lanes ─► dealers ─► ring ─► committer ─► disk in memory
//!    ▲                                                  └── answers once durable ◄──┘      │
//!    └───────────────── the one oracle judges every answer, and every crash ◄─────────────┘
//! ```
//!
//! What runs is the real thing: lanes, turns, dealers, order index, ring, committer, segments, recovery, checkpointer, and
//! the client's decisions about retries. Simulated are the disk (it forgets, tears and reorders what was not synced, fails
//! and fills up), the clock (it jumps), the network (it delays and resets) and the scheduler (any core may be next, at any
//! step). Cards are stand-ins with the secrets that the oracle expects, because sealing needs mapped files; the frames'
//! bytes are left out, because the fuzzers have them.
//!
//! Before every change of the disk an image of it is kept, and a crash at that moment is tried on a copy: recovery must
//! come to a state that the oracle accepts. Some of these copies start for real, and crash again while they do.
//!
//! Reading order: [`plan`] (what a seed may do), [`world`] (who acts next), [`node`] (the server), [`callers`], [`network`],
//! [`imports`], [`holders`] (who may have how much), [`crash`] (images, recovery and judgement), [`run`] (a seed from begin to end, shrinking).
#![allow(missing_docs)] // of inner parts: the module pages explain them
#![forbid(unsafe_code)]

pub mod plan;
pub mod world;

pub mod callers;
pub mod holders;
pub mod imports;
pub mod network;
pub mod node;

pub mod crash;
pub mod run;
