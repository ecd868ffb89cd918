//! Views: slabs without a file, whose slots are cards of another slab once more. docs/cards.md, docs/wal-format.md.
//!
//! A use is to all others what a card is: it has a slab, a slot and a claim bit. Only here, and where a secret is opened, is it
//! told which card that is.

use std::sync::Arc;

use croupier_protocol::planted::{self, Bug};

use super::apply::{State, Unfit};
use super::catalog::{Catalog, SlabBody, SlabFacts, SlabState};
use crate::sync::zeroed_words;

/// Most slots of a view: 8 MiB of claim bits.
pub const VIEW_SLOTS_MAX: u32 = 1 << 26;

/// Which cards of which slab, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// The slab that has the cards, and a file.
    pub of: u32,
    /// Slot of the first of them there.
    pub first: u32,
    /// How many, side by side.
    pub cards: u32,
    /// How often each may be dealt from the view.
    pub uses: u32,
    /// The card may be dealt without end: more views of it may follow.
    pub unlimited: bool,
    /// An unused use has been made void, so none follows.
    pub closed: bool,
}

impl View {
    /// How many slots it has; `None` if that cannot be.
    pub fn slots(&self) -> Option<u32> {
        let slots = self.cards.checked_mul(self.uses)?;
        (1..=VIEW_SLOTS_MAX).contains(&slots).then_some(slots)
    }

    /// Where the card of a slot lies in the slab that has it.
    #[inline]
    pub fn card(&self, slot: u32) -> u32 {
        self.first + slot % self.cards
    }

    /// The slots from `from` on that are a card, which lies in that slot of the slab that has it.
    fn slots_of(&self, card: u32, from: u32) -> impl Iterator<Item = u32> + use<> {
        let is_ours = (self.first..self.first + self.cards).contains(&card);
        let (first, end) = match is_ours {
            true => (card - self.first, self.cards * self.uses),
            false => (0, 0),
        };
        // Whoever asks may name any number.
        let rows = from.min(end).saturating_sub(first).div_ceil(self.cards);
        (first + rows * self.cards..end).step_by(self.cards as usize)
    }
}

impl View {
    /// As a checkpoint holds it, and as it goes into a digest.
    pub(crate) fn words(&self, slab: u32) -> [u32; 6] {
        let flags = u32::from(self.unlimited) | u32::from(self.closed) << 1;
        [slab, self.of, self.first, self.cards, self.uses, flags]
    }

    /// The view of those words, and its slab.
    pub(crate) fn of_words(words: [u32; 6]) -> Result<(u32, View), String> {
        let [slab, of, first, cards, uses, flags] = words;
        if flags > 3 {
            return Err(format!("view {slab} has flags {flags:#x}"));
        }
        let view = View {
            of,
            first,
            cards,
            uses,
            unlimited: flags & 1 != 0,
            closed: flags & 2 != 0,
        };
        Ok((slab, view))
    }
}

/// The views among slabs, with their numbers.
pub(crate) fn views_of<'f>(
    slabs: impl Iterator<Item = &'f SlabFacts>,
) -> impl Iterator<Item = (u32, View)> {
    slabs.filter_map(|facts| Some((facts.slab, facts.view?)))
}

/// What a `SlabReused` record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reused {
    /// Its own number.
    pub slab: u32,
    pub sku: u32,
    pub batch: u32,
    pub pool: u16,
    /// Of the slab that has the cards.
    pub class_bytes: u32,
    pub view: View,
}

impl Reused {
    /// As they lie in a record, but for whether it is unlimited.
    pub(super) fn words(&self) -> [u32; 9] {
        let View {
            of,
            first,
            cards,
            uses,
            ..
        } = self.view;
        let (slab, sku, batch, pool) = (self.slab, self.sku, self.batch, self.pool.into());
        [
            slab,
            sku,
            batch,
            pool,
            of,
            first,
            cards,
            uses,
            self.class_bytes,
        ]
    }

    /// What those words say.
    pub(super) fn of_words(words: [u32; 9], unlimited: bool) -> Reused {
        let [slab, sku, batch, pool, of, first, cards, uses, class_bytes] = words;
        Reused {
            slab,
            sku,
            batch,
            pool: pool as u16,
            class_bytes,
            view: View {
                of,
                first,
                cards,
                uses,
                unlimited,
                closed: false,
            },
        }
    }

    /// As facts of a slab; `None` if there is no such view.
    pub fn facts(&self) -> Option<SlabFacts> {
        Some(SlabFacts {
            slab: self.slab,
            sku: self.sku,
            batch: self.batch,
            pool: self.pool,
            cards: self.view.slots()?,
            class_bytes: self.class_bytes,
            header_hash: [0; 32],
            view: Some(self.view),
            grown: None,
        })
    }
}

/// The body of a view. The error says why there can be no such view.
pub(super) fn body_of(
    catalog: &Catalog,
    facts: &SlabFacts,
    view: &View,
) -> Result<SlabBody, String> {
    let fault = |what: &str| format!("view {} of slab {} {what}", facts.slab, view.of);
    let of = catalog
        .slab(view.of)
        .ok_or_else(|| fault("comes before it"))?;
    let whole = &of.facts;
    let same = (whole.sku, whole.batch, whole.pool, whole.class_bytes)
        == (facts.sku, facts.batch, facts.pool, facts.class_bytes);
    let within = u64::from(view.first) + u64::from(view.cards) <= u64::from(whole.cards);
    if whole.view.is_some() || whole.grown.is_some() || !same || !within || whole.slab >= facts.slab
    {
        return Err(fault("has cards that the slab does not have"));
    }
    if view.slots() != Some(facts.cards) || view.unlimited && view.cards != 1 {
        return Err(fault("has more slots than uses, or fewer"));
    }
    of.has_views();
    let words = zeroed_words(crate::slab::claim::words_for(facts.cards));
    Ok(SlabBody::View(words, of.clone()))
}

/// When the first card of a view expires, in Unix seconds; 0 = none does. `from_s`: when the first card of the slab does.
pub(super) fn expires_from_s(of: &SlabState, view: &View, from_s: u64) -> u64 {
    if from_s == 0 || view.cards == of.facts.cards {
        return from_s;
    }
    let all = (view.first..view.first + view.cards).map(|card| of.expires_at_s(card));
    all.filter(|&expires_s| expires_s != 0).min().unwrap_or(0)
}

impl SlabState {
    /// The slab that has the card of a slot, and its slot there: the slab itself, but of a view.
    #[inline]
    pub fn card_of(&self, slot: u32) -> (&SlabState, u32) {
        match (&self.body, &self.facts.view) {
            (SlabBody::View(_, of), Some(view)) => (of, view.card(slot)),
            _ => (self, slot),
        }
    }

    /// Which card that is, for all of its uses: slab and slot of the first.
    pub fn card_id(&self, slot: u32) -> (u32, u32) {
        let (of, card) = self.card_of(slot);
        (of.facts.slab, card)
    }

    /// The slots here, from `from` on, that are uses of a card.
    pub fn slots_of(&self, (of, card): (u32, u32), from: u32) -> impl Iterator<Item = u32> + use<> {
        let view = self.facts.view.filter(|view| view.of == of);
        let is_here = self.facts.view.is_none() && self.facts.slab == of && from <= card;
        let here = is_here.then_some(card).into_iter();
        let there = view.into_iter();
        here.chain(there.flat_map(move |view| view.slots_of(card, from)))
    }
}

impl Catalog {
    /// The slabs that have uses of a card, which lies in that slab.
    pub fn slabs_with(&self, of: u32) -> impl Iterator<Item = &Arc<SlabState>> {
        let is_of = move |slab: &&Arc<SlabState>| match &slab.facts.view {
            None => slab.facts.slab == of,
            Some(view) => view.of == of,
        };
        self.slabs.iter().flatten().filter(is_of)
    }
}

impl State {
    /// A view becomes known: for sale if its batch is, else when that is sealed.
    pub(super) fn apply_reused(&self, reused: &Reused) -> Result<(), Unfit> {
        let facts = reused.facts();
        let facts = facts.ok_or_else(|| format!("view {} has no slots", reused.slab))?;
        let mut ledger = self.ledger();
        ledger.slab_max = ledger.slab_max.max(facts.slab);
        ledger.batch_max = ledger.batch_max.max(facts.batch);
        let Some(batch) = ledger.batches.get(&facts.batch).cloned() else {
            ledger.unsealed.push(facts);
            return Ok(());
        };
        let catalog = self.catalog.load();
        let pools = catalog.sku(batch.sku).map(|sku| sku.pools.load());
        let pool = pools
            .as_ref()
            .and_then(|pools| pools.get(usize::from(batch.pool)));
        let name = pool.map(|pool| pool.name.clone());
        let name = name.ok_or("a view of a pool that is not there")?;
        self.seal_slabs(&mut ledger, &batch, vec![facts], &name, |_| None)?;
        let batch = ledger.batches.get_mut(&facts.batch);
        batch.expect("it was there").cards += u64::from(facts.cards);
        Ok(())
    }
}

/// The uses that a view of an import gives each card, besides the first.
pub fn uses_besides(max_uses: u32) -> u32 {
    if planted::is(Bug::UseOnceMore) {
        return max_uses;
    }
    max_uses - 1
}

#[cfg(all(test, not(any(croupier_loom, croupier_shuttle))))]
mod tests;
