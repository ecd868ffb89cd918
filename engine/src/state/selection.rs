//! How a SKU is sold: in which order its cards are dealt, and how many may be held. docs/cards.md.
//!
//! Which card goes next is a hint and nothing else: the claim bits decide. Where no order is set, cores go through the slabs
//! region by region. Where one is, each pool has the list of its cards in that order, made on the cold path by an import, by the
//! setting and at the start; who needs cards goes along it. Cards that are not in the list, because they came back since, are found
//! as always, behind those that are.

use std::sync::Arc;

use croupier_protocol::DealOrder;

use super::apply::State;
use super::catalog::{Catalog, NEVER, Pool, SkuState, SlabState};
use super::record::SkuSet;
use crate::card::CardStatus;
use crate::slab::claim;
use crate::sync::atomic::{AtomicUsize, Ordering};

/// The cards of a pool in the order in which they are dealt.
pub struct Arranged {
    slabs: Arc<Vec<Arc<SlabState>>>,
    /// Which of the slabs, and which slot.
    cards: Box<[(u32, u32)]>,
    /// Those before it are taken.
    next: AtomicUsize,
}

impl Arranged {
    /// `None` of a pool that needs no list. `mixed`: another number for each number, in no order that anybody knows.
    pub(super) fn of(
        pool: &Pool,
        order: DealOrder,
        mixed: impl Fn(u64) -> u64,
    ) -> Option<Arranged> {
        if order == DealOrder::Fifo {
            return None;
        }
        let slabs = pool.slabs.load_full();
        let mut cards = Vec::new();
        for (at, slab) in (0..).zip(slabs.iter()) {
            // Suspended ones may be back before the next list.
            let free = slab.slots_that_are(CardStatus::Free);
            let suspended = slab.slots_that_are(CardStatus::Suspended);
            let both = free.iter().zip(suspended).map(|(free, other)| free | other);
            cards.extend(claim::slots_in(both).map(|slot| (at, slot)));
        }
        let place = |&(at, slot): &(u32, u32)| {
            let slab = slabs[at as usize].facts.slab;
            u64::from(slab) << 32 | u64::from(slot)
        };
        match order {
            DealOrder::Fifo => {}
            DealOrder::Lifo => cards.reverse(),
            DealOrder::Random => cards.sort_by_cached_key(|card| mixed(place(card))),
            DealOrder::ExpiryFirst => cards.sort_by_cached_key(|&(at, slot)| {
                match slabs[at as usize].expires_at_s(slot) {
                    0 => NEVER,
                    expires_s => expires_s,
                }
            }),
        }
        Some(Arranged {
            slabs,
            cards: cards.into(),
            next: AtomicUsize::new(0),
        })
    }

    /// Claims up to `want` cards, the first ones that are free, and appends them. Returns how many.
    pub fn take(&self, want: u32, taken: &mut Vec<(u32, u32)>) -> u32 {
        // Relaxed: a hint.
        let mut at = self.next.load(Ordering::Relaxed);
        let mut got = 0;
        while got < want
            && let Some(&(nth, slot)) = self.cards.get(at)
        {
            let slab = &self.slabs[nth as usize];
            if !claim::is_set(slab.words(), slot) && claim::set(slab.words(), slot) {
                taken.push((slab.facts.slab, slot));
                got += 1;
            }
            at += 1;
        }
        // Whoever came here meanwhile has taken what is before it as well.
        self.next.fetch_max(at, Ordering::Relaxed);
        got
    }

    /// Cards that nobody has looked at yet.
    pub(super) fn left(&self) -> usize {
        let next = self.next.load(Ordering::Relaxed);
        self.cards.len().saturating_sub(next)
    }

    /// Some card of the pool is free again.
    pub(super) fn again(&self) {
        self.next.store(0, Ordering::Relaxed);
    }
}

impl State {
    /// From here on cards are dealt in the order that is set for their SKUs. Once everything is known.
    pub fn begin_arranging(&self) {
        self.arranges.store(true, Ordering::Relaxed);
        for sku in &self.catalog.load().skus {
            sku.pools
                .load()
                .iter()
                .for_each(|pool| self.arrange(sku, pool));
        }
    }

    /// Makes a pool's list anew.
    pub(super) fn arrange(&self, sku: &SkuState, pool: &Pool) {
        // Relaxed: set before anything is dealt.
        if self.arranges.load(Ordering::Relaxed) {
            let order = sku.settings().deal_order;
            pool.arrange(Arranged::of(pool, order, |place| self.index.mixed(place)));
        }
    }

    /// As [`arrange`](Self::arrange), when cards have come one by one: not for each of them. Those that are not in the list go
    /// behind it.
    pub(super) fn arrange_if_due(&self, sku: &SkuState, pool: &Pool, cards: u32) {
        let is_fifo = sku.settings().deal_order == DealOrder::Fifo;
        if !is_fifo && pool.is_list_due(cards) {
            self.arrange(sku, pool);
        }
    }

    pub(super) fn apply_settings(&self, set: &SkuSet) -> Result<(), String> {
        let catalog = self.catalog.load();
        let sku = catalog
            .sku(set.sku)
            .ok_or_else(|| format!("settings of SKU {}, which is not there", set.sku))?;
        sku.set(set);
        sku.pools
            .load()
            .iter()
            .for_each(|pool| self.arrange(sku, pool));
        Ok(())
    }
}

/// What a checkpoint keeps of them.
pub(super) fn settings_of(catalog: &Catalog) -> Vec<SkuSet> {
    let all = catalog.skus.iter().map(|sku| sku.settings());
    all.filter(|set| *set != SkuSet::default_of(set.sku))
        .collect()
}
