//! SKUs, pools and slabs as dealers see them: immutable lists that are swapped whole, with atomic counters inside.

use std::sync::Arc;

use arc_swap::ArcSwap;
use croupier_protocol::StockRow;

use crate::slab::{Slab, claim};
use crate::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// What a `SlabAdded` record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlabFacts {
    pub slab: u32,
    pub sku: u32,
    pub batch: u32,
    pub pool: u16,
    pub cards: u32,
    pub class_bytes: u32,
    pub header_hash: [u8; 32],
}

/// Where the claim bits, and for a live store the cards, of a slab are.
pub enum SlabBody {
    /// A mapped slab file.
    Mapped(Arc<Slab>),
    /// Bits only: for checkpoints and verification, which need no card.
    Bits(Box<[AtomicU64]>),
}

/// Gives the body for a slab that a record names.
pub trait SlabSource: Send + Sync {
    /// The error says what is wrong with the slab, for people.
    fn body(&self, facts: &SlabFacts) -> Result<SlabBody, crate::error::EngineError>;
}

/// A slab with its claim bits.
pub struct SlabState {
    pub facts: SlabFacts,
    pub body: SlabBody,
    pub pool: Arc<Pool>,
    /// The next region to lease to a core.
    next_region: AtomicUsize,
}

impl SlabState {
    pub(super) fn new(facts: SlabFacts, body: SlabBody, pool: Arc<Pool>) -> SlabState {
        let state = SlabState {
            facts,
            body,
            pool,
            next_region: AtomicUsize::new(0),
        };
        assert_eq!(
            state.words().len(),
            claim::words_for(facts.cards),
            "as many bits as cards"
        );
        state
    }

    /// The claim bits.
    pub fn words(&self) -> &[AtomicU64] {
        match &self.body {
            SlabBody::Mapped(slab) => slab.claim_words(),
            SlabBody::Bits(words) => words,
        }
    }

    /// The mapped file, in a live store.
    pub fn mapped(&self) -> Option<&Arc<Slab>> {
        match &self.body {
            SlabBody::Mapped(slab) => Some(slab),
            SlabBody::Bits(_) => None,
        }
    }

    /// Leases the next region of words to a core; `None` when all are given out.
    pub fn lease_region(&self) -> Option<(usize, usize)> {
        // Relaxed: a hint that keeps cores apart; the bits decide.
        let from = self.next_region.fetch_add(1, Ordering::Relaxed) * claim::REGION_WORDS;
        let words = self.words().len();
        if from >= words {
            // Keeps the counter from running away while the slab stays first in its pool.
            self.next_region.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some((from, (from + claim::REGION_WORDS).min(words)))
    }
}

/// The slabs of one SKU that are sold from together, with one count of what is free.
pub struct Pool {
    pub sku: u32,
    /// Index within the SKU; 0 is the pool `main`.
    pub index: u16,
    pub name: String,
    /// Dense number over all pools of the store: dealers keep their cursors by it.
    pub number: u32,
    /// Free cards not promised to anyone. Taken from first; only then a bit, which then certainly exists.
    available: AtomicU64,
    /// Sealed slabs in the order they became sellable.
    pub slabs: ArcSwap<Vec<Arc<SlabState>>>,
    /// Slabs before this one are known to be used up.
    first: AtomicUsize,
}

impl Pool {
    pub(super) fn new(sku: u32, index: u16, name: &str, number: u32) -> Arc<Pool> {
        Arc::new(Pool {
            sku,
            index,
            name: name.into(),
            number,
            available: AtomicU64::new(0),
            slabs: ArcSwap::default(),
            first: AtomicUsize::new(0),
        })
    }

    /// Free cards.
    pub fn available(&self) -> u64 {
        // Relaxed: a report.
        self.available.load(Ordering::Relaxed)
    }

    /// Takes up to `want` credits; each stands for a free bit somewhere in the pool.
    pub fn take_credits(&self, want: u64) -> u64 {
        let mut now = self.available.load(Ordering::Relaxed);
        while now > 0 {
            let take = now.min(want);
            // Acquire pairs with the Release of add_credits: the bits behind the credits are there.
            match self.available.compare_exchange_weak(
                now,
                now - take,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return take,
                Err(seen) => now = seen,
            }
        }
        0
    }

    /// Gives credits (back). What they stand for must be there already.
    pub fn add_credits(&self, count: u64) {
        // Release pairs with the Acquire of take_credits.
        self.available.fetch_add(count, Ordering::Release);
    }

    /// Index of the first slab that may have a free card.
    pub fn first(&self) -> usize {
        self.first.load(Ordering::Relaxed)
    }

    /// Says that every slab before `index` is used up.
    pub fn used_up_before(&self, index: usize) {
        // Relaxed: a hint.
        self.first.fetch_max(index, Ordering::Relaxed);
    }
}

/// One SKU.
pub struct SkuState {
    pub sku: u32,
    pub name: String,
    pub pools: ArcSwap<Vec<Arc<Pool>>>,
    /// Cards ever made sellable.
    pub(super) imported: AtomicU64,
    pub(super) class_bytes_max: AtomicU32,
}

/// A row of the stock report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StockCounts {
    pub free: u64,
    pub issued: u64,
    pub imported: u64,
}

impl SkuState {
    /// The longest size class among its slabs, in bytes; 0 without stock. Tells how large an answer can be.
    pub fn class_bytes_max(&self) -> u32 {
        // Relaxed: set before the cards can be dealt.
        self.class_bytes_max.load(Ordering::Relaxed)
    }

    /// The counts as they are told to callers.
    pub fn row(&self) -> StockRow {
        let counts = self.stock();
        StockRow {
            sku: self.sku,
            name: self.name.clone(),
            free: counts.free,
            held: 0,
            issued: counts.issued,
            void: 0,
            imported: counts.imported,
        }
    }

    /// Free, issued, imported; `issued` is what is imported and not free, so it includes orders in flight.
    pub fn stock(&self) -> StockCounts {
        // `imported` first: a batch sealed in between may only raise `free`.
        let free: u64 = self.pools.load().iter().map(|pool| pool.available()).sum();
        let imported = self.imported.load(Ordering::Relaxed).max(free);
        StockCounts {
            free,
            issued: imported - free,
            imported,
        }
    }
}

/// A sealed import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub batch: u32,
    pub sku: u32,
    pub pool: u16,
    pub cards: u64,
    pub label: String,
    pub sealed_unix_ms: u64,
}

/// All SKUs and slabs by number, as one immutable value.
#[derive(Clone, Default)]
pub struct Catalog {
    /// SKU n is at n − 1.
    pub skus: Vec<Arc<SkuState>>,
    /// Slab n is at n; holes are numbers of imports that failed.
    pub slabs: Vec<Option<Arc<SlabState>>>,
    /// Grows whenever a dealer must forget what it resolved before.
    pub version: u64,
}

impl Catalog {
    /// A SKU by number.
    pub fn sku(&self, sku: u32) -> Option<&Arc<SkuState>> {
        self.skus.get((sku as usize).checked_sub(1)?)
    }

    /// A slab by number.
    pub fn slab(&self, slab: u32) -> Option<&Arc<SlabState>> {
        self.slabs.get(slab as usize)?.as_ref()
    }
}
