//! Cards that come one by one, into slabs that grow: docs/cards.md, docs/wal-format.md.
//!
//! A slot that is not there yet has its claim bit set, so that nobody can take it. Cards that come are therefore given to
//! stock just as cards that come back are: bits before credits, and the line of the SKU first.

use super::apply::State;
use super::catalog::SlabFacts;
use crate::slab::{Added, Grown};
use crate::sync::atomic::Ordering;

impl State {
    /// Cards that follow on those that a slab has are there, and for sale.
    pub(super) fn apply_added(&self, added: &Added) -> Result<(), String> {
        let catalog = self.catalog.load();
        let slab = catalog.slab(added.slab);
        let slab =
            slab.ok_or_else(|| format!("cards of slab {}, which is not there", added.slab))?;
        let fault = |what: &str| format!("cards of slab {} that {what}", added.slab);
        let was = slab.grown().ok_or_else(|| fault("it does not grow by"))?;
        if (added.sku, added.batch) != (slab.facts.sku, slab.facts.batch) {
            return Err(fault("are of another SKU or batch"));
        }
        if added.first != was.cards {
            return Err(fault("do not follow on those it has"));
        }
        let room = slab.facts.cards - was.cards;
        if !(1..=room).contains(&added.cards) {
            return Err(fault("it has no room for"));
        }
        let sku = catalog.sku(slab.facts.sku).ok_or("cards of no SKU")?;
        let mut ledger = self.ledger();
        let batch = ledger.batches.get_mut(&slab.facts.batch);
        let batch = batch.ok_or_else(|| fault("are of no batch"))?;
        batch.cards += u64::from(added.cards);
        drop(ledger);
        let end = added.first + added.cards;
        slab.grow_to(Grown {
            cards: end,
            crcs: added.crcs,
        });
        // Relaxed: a report; before the credits, so that there are never more free than there are.
        sku.imported
            .fetch_add(added.cards.into(), Ordering::Relaxed);
        for slot in added.first..end {
            slab.may_expire(slot);
            slab.give_back(slot);
        }
        slab.pool.came(slab.facts.slab);
        self.arrange_if_due(sku, &slab.pool, added.cards);
        slab.pool.add_credits(added.cards.into());
        Ok(())
    }
}

/// As a checkpoint holds it, and as it goes into a digest.
pub(crate) fn grown_words(slab: u32, grown: &Grown) -> [u32; 5] {
    let [slots, sealed, prints] = grown.crcs;
    [slab, grown.cards, slots, sealed, prints]
}

/// How far those of the slabs that grow have come, with their numbers.
pub(crate) fn grown_of<'f>(
    slabs: impl Iterator<Item = &'f SlabFacts>,
) -> impl Iterator<Item = (u32, Grown)> {
    slabs.filter_map(|facts| Some((facts.slab, facts.grown?)))
}

#[cfg(all(test, not(any(croupier_loom, croupier_shuttle))))]
mod tests;
