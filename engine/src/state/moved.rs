//! Cards that leave stock, or come back, by other ways than orders: docs/cards.md.

use std::collections::HashMap;

use croupier_protocol::planted::{self, Bug};

use super::apply::{State, slab_of, take_run};
use super::catalog::{Catalog, Marks, SlabState};
use super::record::{Moved, Run};
use super::reused::View;
use crate::card::CardStatus;
use crate::slab::claim;
use crate::sync::atomic::Ordering;

impl State {
    /// The part of [`apply`](Self::apply) for cards that are known to be what the record says they were, and, if they were
    /// free, have been taken: bits and credits.
    pub fn apply_moved(&self, moved: &Moved<'_>) {
        let catalog = self.catalog.load();
        let mut cards = 0u64;
        // The slab before, and how many of its cards have become free.
        let mut freed: Option<(&SlabState, u64)> = None;
        let reopen = |freed: Option<(&SlabState, u64)>| {
            if let Some((slab, cards)) = freed {
                // Behind the bits, which then certainly are there.
                slab.pool.reopened(slab.facts.slab);
                slab.pool.add_credits(cards);
            }
        };
        for run in moved.runs.iter() {
            let slab = catalog.slab(run.slab).expect("known before it moves");
            for slot in run.slot..run.slot + run.count {
                if let Some(marks) = slab.marks(moved.from) {
                    slab.unmark(marks, slot);
                }
                match slab.marks(moved.to) {
                    Some(marks) => slab.mark(marks, slot),
                    None => slab.give_back(slot),
                }
            }
            let is_unused = moved.from != CardStatus::Issued;
            if moved.to == CardStatus::Void && is_unused {
                close(&catalog, slab, &run);
            }
            if planted::is(Bug::SellVoid) && moved.to == CardStatus::Void {
                claim::give_back(slab.words(), run.slot);
                slab.pool.add_credits(1);
            }
            if moved.to == CardStatus::Free {
                freed = match freed {
                    Some((same, cards)) if same.facts.slab == run.slab => {
                        Some((same, cards + u64::from(run.count)))
                    }
                    other => {
                        reopen(other);
                        Some((slab, run.count.into()))
                    }
                };
            }
            cards += u64::from(run.count);
        }
        reopen(freed);
        let sku = catalog.sku(moved.sku).expect("known before it moves");
        // Relaxed: reports.
        if let Some(count) = sku.marked(moved.from) {
            count.fetch_sub(cards, Ordering::Relaxed);
        }
        if let Some(count) = sku.marked(moved.to) {
            count.fetch_add(cards, Ordering::Relaxed);
        }
    }
}

/// Unused cards have been made void: if they are dealt without end, there is an end now.
fn close(catalog: &Catalog, slab: &SlabState, run: &Run) {
    if slab.facts.view.is_some() {
        slab.close();
    } else if slab.is_reusable() {
        let slots = run.slot..run.slot + run.count;
        for view in catalog.slabs_with(run.slab) {
            let of_card = |of: View| of.unlimited && slots.contains(&of.first);
            if view.facts.view.is_some_and(of_card) {
                view.close();
            }
        }
    }
}

/// Cards that orders have, by slab: a bit for each slot.
pub type Dealt = HashMap<u32, Vec<u64>>;

impl State {
    /// The cards that orders have, of the slabs that are wanted, and how many they are, those of no slab and no slot included.
    /// Reads the whole index; an order whose record is not in the log yet is not in it.
    pub fn dealt(&self, wanted: impl Fn(&SlabState) -> bool) -> (Dealt, u64) {
        let catalog = self.catalog.load();
        let slabs = catalog.slabs.iter().flatten().filter(|slab| wanted(slab));
        let mut dealt: Dealt = slabs
            .map(|slab| (slab.facts.slab, vec![0; slab.words().len()]))
            .collect();
        let mut cards = 0;
        self.index.for_each(|_, settled| {
            for (slab, slot) in self.index.cards(settled) {
                let words = dealt.get_mut(&slab);
                cards += u64::from(words.is_some() || catalog.slab(slab).is_none());
                let at = (slot / claim::WORD_SLOTS) as usize;
                if let Some(word) = words.and_then(|words| words.get_mut(at)) {
                    *word |= 1 << (slot % claim::WORD_SLOTS);
                }
            }
        });
        (dealt, cards)
    }
}

impl State {
    /// The cards that are bound to open holds, as [`dealt`](Self::dealt) tells those that orders have.
    pub fn bound(&self) -> Dealt {
        let catalog = self.catalog.load();
        let mut bound = Dealt::new();
        for (slab, slot) in self.index.open_holds().filter_map(|(.., hold)| hold.card) {
            let Some(state) = catalog.slab(slab) else {
                continue;
            };
            let blank = || vec![0; state.words().len()];
            let words = bound.entry(slab).or_insert_with(blank);
            words[(slot / claim::WORD_SLOTS) as usize] |= 1 << (slot % claim::WORD_SLOTS);
        }
        bound
    }
}

/// Checks that cards are what a record says they were; takes those that were free, as the deed that wrote it had.
pub(super) fn take_moved(catalog: &Catalog, moved: &Moved<'_>) -> Result<(), String> {
    if moved.runs.is_empty() || catalog.sku(moved.sku).is_none() {
        return Err("a move without cards, or of a SKU that is not there".into());
    }
    let mut behind = (0, 0);
    for run in moved.runs.iter() {
        if run.count == 0 || (run.slab, run.slot) < behind {
            return Err("the cards of a move are not in their order".into());
        }
        behind = (run.slab, run.slot.saturating_add(run.count));
        let slab = slab_of(catalog, moved.sku, &run)?;
        let other = |slot| {
            let (was, is) = (moved.from.name(), slab.status(slot).name());
            format!(
                "card {}:{slot} is {is} and moves as if it were {was}",
                run.slab
            )
        };
        if moved.from == CardStatus::Free {
            take_run(slab, &run, other)?;
        } else if let Some(slot) =
            (run.slot..run.slot + run.count).find(|&slot| slab.status(slot) != moved.from)
        {
            return Err(other(slot));
        }
    }
    Ok(())
}

/// The statuses that are kept as marks.
const MARKED: [CardStatus; 2] = [CardStatus::Suspended, CardStatus::Void];

/// Marks of a status of one slab: its number, the status, a bit for each card.
pub type SlabMarks = (u32, CardStatus, Vec<u64>);

pub(super) fn marks_of(catalog: &Catalog) -> Vec<SlabMarks> {
    let mut all = Vec::new();
    if planted::is(Bug::ForgetMarks) {
        return all;
    }
    for slab in catalog.slabs.iter().flatten() {
        for status in MARKED {
            if let Some(words) = slab.marks(status).and_then(Marks::words) {
                all.push((slab.facts.slab, status, words));
            }
        }
    }
    all
}

pub(super) fn restore_marks(
    catalog: &Catalog,
    slab: u32,
    status: CardStatus,
    words: &[u64],
) -> Result<(), String> {
    let slab = catalog
        .slab(slab)
        .ok_or_else(|| format!("marks of slab {slab}, which is not there"))?;
    let sku = catalog
        .sku(slab.facts.sku)
        .ok_or("marks of a SKU that is not there")?;
    let fault = || format!("slab {} has marks that cannot be", slab.facts.slab);
    let (marks, count) = slab
        .marks(status)
        .zip(sku.marked(status))
        .ok_or_else(fault)?;
    let mut cards = 0;
    for slot in claim::slots_in(words.iter().copied()) {
        if slot >= slab.cards() || slab.status(slot) != CardStatus::Issued {
            return Err(fault());
        }
        slab.mark(marks, slot);
        cards += 1;
    }
    count.fetch_add(cards, Ordering::Relaxed);
    Ok(())
}
