//! Atomics, locks and threads as the lock-free parts take them: those of the machine, or those of a checker.
//!
//! `--cfg croupier_loom` gives loom's (every interleaving of a small part, relaxed orderings included), `--cfg
//! croupier_shuttle` gives shuttle's (many interleavings of dealers, index and committer together, orderings taken as
//! SeqCst). Without either these are names of the standard library and nothing else. The switches have names of our own
//! because dependencies react to `cfg(loom)` and `cfg(shuttle)`.
//!
//! `Arc` is the standard library's everywhere: no algorithm of ours depends on when a count falls.

#[cfg(not(any(croupier_loom, croupier_shuttle)))]
pub use std::{
    hint,
    sync::{Condvar, Mutex, MutexGuard, atomic, mpsc},
    thread,
};

#[cfg(croupier_shuttle)]
pub use shuttle::{
    hint,
    sync::{Condvar, Mutex, MutexGuard, atomic, mpsc},
    thread,
};

#[cfg(all(croupier_loom, not(croupier_shuttle)))]
pub use loom::{
    hint,
    sync::{Condvar, Mutex, MutexGuard, atomic, mpsc},
};

#[cfg(all(croupier_loom, not(croupier_shuttle)))]
pub mod thread {
    //! Loom's threads, for which there is no time.

    pub use loom::thread::*;

    /// Lets others go first.
    pub fn sleep(_: std::time::Duration) {
        yield_now();
    }
}

/// So many words, all zero. The system's own zeros where it has some: large pieces cost nothing until they are touched.
#[cfg(not(any(croupier_loom, croupier_shuttle)))]
pub fn zeroed_words(words: usize) -> Box<[atomic::AtomicU64]> {
    use zerocopy::FromZeros as _;
    <[atomic::AtomicU64]>::new_box_zeroed_with_elems(words).expect("there is memory for it")
}

/// So many words, all zero.
#[cfg(any(croupier_loom, croupier_shuttle))]
pub fn zeroed_words(words: usize) -> Box<[atomic::AtomicU64]> {
    (0..words).map(|_| atomic::AtomicU64::new(0)).collect()
}

/// Runs a model and prints how many interleavings there were. `preemptions_max`: `None` for what the environment says.
#[cfg(all(test, croupier_loom))]
pub fn model(
    name: &str,
    preemptions_max: Option<usize>,
    interleaving: impl Fn() + Send + Sync + 'static,
) {
    use std::sync::atomic::{AtomicU64, Ordering};
    // Not one of loom's: it counts over all interleavings.
    let count = std::sync::Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions_max.or(builder.preemption_bound);
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        interleaving();
    });
    println!("{name}: {} interleavings", count.load(Ordering::Relaxed));
}
