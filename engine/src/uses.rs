//! Cards that are dealt more than once: the views of an import, more uses for cards that are dealt without end, and moves of
//! cards with all their uses. The page is docs/cards.md.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use croupier_protocol::{CardRef, MaxUses, Refusal, UNLIMITED_CARDS_MAX, USES_MAX};

use crate::card::CardStatus;
use crate::engine::{Engine, Refused};
use crate::expiry::take_some;
use crate::moves::{Done, Ready, Way, refusal_of};
use crate::slab::claim;
use crate::state::record::Fact;
use crate::state::reused::{VIEW_SLOTS_MAX, uses_besides};
use crate::state::{Catalog, Reused, SlabState, View};

/// The slabs of an import, as its views are made of them.
#[derive(Clone, Copy, Debug)]
pub struct Imported {
    pub sku: u32,
    pub batch: u32,
    pub pool: u16,
}

/// What an import says before it begins.
pub fn check_max_uses(max_uses: MaxUses) -> Result<(), Refused> {
    match max_uses {
        MaxUses::Unlimited | MaxUses::Times(1..=USES_MAX) => Ok(()),
        MaxUses::Times(_) => Err(Refused::plain(Refusal::MaxUsesInvalid)),
    }
}

/// The views that an import needs besides its slabs, each of a number, so many cards and bytes of class. `ahead`: uses that a
/// card without end gets at first. `number` gives the next number of a slab. The error: it is too much for so many cards.
pub fn views_of(
    imported: Imported,
    max_uses: MaxUses,
    slabs: &[(u32, u32, u32)],
    ahead: u32,
    mut number: impl FnMut() -> u32,
) -> Result<Vec<Reused>, Refused> {
    let Imported { sku, batch, pool } = imported;
    let mut views = Vec::new();
    let mut add = |class_bytes, view: View| {
        let slots = view.slots().ok_or_else(|| {
            let text = format!(
                "{} cards of one slab cannot have {} uses each: {VIEW_SLOTS_MAX} in all are the most; import fewer at a time",
                view.cards, view.uses
            );
            Refused::because(Refusal::MaxUsesInvalid, text)
        });
        slots.map(|_| {
            views.push(Reused {
                slab: 0,
                sku,
                batch,
                pool,
                class_bytes,
                view,
            });
        })
    };
    let view = |of, first, cards, uses| View {
        of,
        first,
        cards,
        uses,
        unlimited: max_uses == MaxUses::Unlimited,
        closed: false,
    };
    match max_uses {
        MaxUses::Times(1) => {}
        MaxUses::Times(times) => {
            for &(slab, cards, class_bytes) in slabs {
                add(class_bytes, view(slab, 0, cards, uses_besides(times)))?;
            }
        }
        MaxUses::Unlimited => {
            let all: u64 = slabs.iter().map(|&(_, cards, _)| u64::from(cards)).sum();
            if all > UNLIMITED_CARDS_MAX {
                let text = format!(
                    "an import has at most {UNLIMITED_CARDS_MAX} cards that are dealt without end, and this one {all}"
                );
                return Err(Refused::because(Refusal::MaxUsesInvalid, text));
            }
            for &(slab, cards, class_bytes) in slabs {
                for card in 0..cards {
                    add(class_bytes, view(slab, card, 1, ahead))?;
                }
            }
        }
    }
    // Only now: nothing is used up by an import that is refused.
    for view in &mut views {
        view.slab = number();
    }
    Ok(views)
}

/// How each SKU was when nothing more had to be done: while it stays so, nothing has to be done.
pub(crate) type Looked = HashMap<u32, Glance>;

/// What changes when something is dealt, or a card may be dealt again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Glance {
    catalog: u64,
    free: u64,
    promised: u64,
    open: usize,
}

/// A card that is dealt without end.
struct Endless<'c> {
    /// The view that was added last.
    last: &'c Arc<SlabState>,
    /// It may be dealt from.
    is_open: bool,
}

impl Endless<'_> {
    fn is_short(&self) -> bool {
        let slots = u64::from(self.last.facts.cards);
        self.is_open && (slots - claim::count_set(self.last.words())) * 2 < slots
    }
}

/// Cards that are dealt without end, by slab and slot. `until_s`: what expires by then is not dealt any more.
fn endless(catalog: &Catalog, until_s: u64) -> BTreeMap<(u32, u32), Endless<'_>> {
    let mut all: BTreeMap<(u32, u32), Endless<'_>> = BTreeMap::new();
    for slab in catalog.slabs.iter().flatten() {
        let Some(view) = slab.facts.view.filter(|view| view.unlimited) else {
            continue;
        };
        let (of, card) = slab.card_of(0);
        let card = all.entry((view.of, card)).or_insert_with(|| Endless {
            last: slab,
            is_open: !of.suspended.has(card) && !(1..=until_s).contains(&of.expires_at_s(card)),
        });
        // They come in the order of their numbers.
        card.last = slab;
        card.is_open &= !slab.is_closed() && !slab.suspended.any();
    }
    all
}

impl Engine {
    /// Gives cards that are dealt without end more uses where there are few; tells how many. Not while one is suspended, nor when
    /// it is void or about to expire. An error says why some have few still; the next look goes on with them.
    pub fn add_uses(&self, now_unix_ms: u64) -> Result<u64, Refused> {
        let until_s = self.sweep_until_s(now_unix_ms);
        let catalog = self.state.catalog.load_full();
        let short = self.look_for_short(&catalog, until_s);
        if short.is_empty() {
            return Ok(0);
        }
        // No move is under way then, which would not know of the new uses.
        let _one_at_a_time = self.lock(&self.moving);
        let catalog = self.state.catalog.load_full();
        let cards = endless(&catalog, until_s);
        let short = cards.values().filter(|card| card.is_short());
        let longer = short.map(|card| {
            let facts = &card.last.facts;
            let view = facts.view.expect("an endless card has views");
            let uses = view.uses.saturating_mul(2).min(self.config.uses_ahead_max);
            Fact::SlabReused(Reused {
                slab: self.next_slab(),
                sku: facts.sku,
                batch: facts.batch,
                pool: facts.pool,
                class_bytes: facts.class_bytes,
                view: View {
                    uses,
                    closed: false,
                    ..view
                },
            })
        });
        let longer: Vec<Fact<'_>> = longer.collect();
        let mut uses = 0;
        // One append each: what is in the log must become part of the state. A record is one unit.
        for facts in longer.chunks(self.log.append_units_max() as usize) {
            self.log.tend();
            self.record(facts)?;
            let slots = facts.iter().map(|fact| match fact {
                Fact::SlabReused(reused) => u64::from(reused.view.uses),
                _ => 0,
            });
            uses += slots.sum::<u64>();
        }
        Ok(uses)
    }

    /// SKUs of which a card has few uses left. Says to dealers which pools may get more.
    fn look_for_short(&self, catalog: &Catalog, until_s: u64) -> BTreeSet<u32> {
        let mut looked = self.lock(&self.looked);
        let cards = endless(catalog, until_s);
        let skus: BTreeSet<u32> = cards.values().map(|card| card.last.facts.sku).collect();
        let mut short = BTreeSet::new();
        for sku in skus.iter().filter_map(|&sku| catalog.sku(sku)) {
            let ours = || {
                let ours = cards.values();
                ours.filter(|card| card.last.facts.sku == sku.sku)
            };
            let pools = sku.pools.load();
            for pool in pools.iter() {
                let mut of_pool = ours().filter(|card| card.last.facts.pool == pool.index);
                pool.set_grows(of_pool.any(|card| card.is_open));
            }
            // Counting bits is for those of whom something was dealt since.
            let now = Glance {
                catalog: catalog.version,
                free: pools.iter().map(|pool| pool.available()).sum(),
                promised: sku.promised(),
                open: ours().filter(|card| card.is_open).count(),
            };
            if looked.get(&sku.sku) == Some(&now) {
                continue;
            }
            looked.remove(&sku.sku);
            if ours().any(Endless::is_short) {
                short.insert(sku.sku);
            } else {
                looked.insert(sku.sku, now);
            }
        }
        short
    }
}

/// A card that is named, by the slab and slot of its first use, and the use that it was named by.
pub(crate) type Named = BTreeMap<(u32, u32), CardRef>;

impl Engine {
    /// Moves cards with all their uses: those that can go the way go. `done`: what has gone of others that were named with them. The
    /// error: nothing has gone, or the log fails.
    pub(crate) fn move_uses(
        &self,
        catalog: &Catalog,
        named: &Named,
        way: Way,
        done: &mut Done,
    ) -> Result<(), Refused> {
        let slabs: BTreeMap<u32, &Arc<SlabState>> = named
            .keys()
            .flat_map(|&(of, _)| catalog.slabs_with(of))
            .map(|slab| (slab.facts.slab, slab))
            .collect();
        for slab in slabs.values() {
            let mut slots: Vec<u32> = named
                .keys()
                .flat_map(|&card| slab.slots_of(card, 0))
                .collect();
            slots.sort_unstable();
            for &from in way.from {
                let slots = match from {
                    CardStatus::Free => take_some(slab, &mut slots.clone()),
                    CardStatus::Suspended => {
                        let suspended = slots.iter().copied();
                        suspended.filter(|&slot| slab.suspended.has(slot)).collect()
                    }
                    CardStatus::Issued | CardStatus::Void => continue,
                };
                self.write(Ready { slab, from, slots }, way, done)?;
            }
        }
        // Last: what was free is gone, so nothing is sold any more while these are looked for.
        if way.from.contains(&CardStatus::Issued) {
            let slabs: Vec<&Arc<SlabState>> = slabs.into_values().collect();
            for (slab, mut slots) in self.issued_of(&slabs) {
                slots.retain(|&slot| named.contains_key(&slab.card_id(slot)));
                let from = CardStatus::Issued;
                self.write(Ready { slab, from, slots }, way, done)?;
            }
        }
        // Of other cards that were named with them, none has gone either.
        if done.moved == 0 {
            let text = "all uses that could go are promised to orders and holds: try again when one has ended";
            return Err(Refused::because(Refusal::CardIssued, text));
        }
        Ok(())
    }

    /// Whether of each card some use can go the way, as far as can be seen; the refusal is about the use that was named.
    pub(crate) fn can_go(&self, catalog: &Catalog, named: &Named, way: Way) -> Result<(), Refused> {
        for (&card, by) in named {
            let mut uses = catalog
                .slabs_with(card.0)
                .flat_map(|slab| slab.slots_of(card, 0).map(move |slot| (slab, slot)));
            if uses.any(|(slab, slot)| way.from.contains(&slab.status(slot))) {
                continue;
            }
            let slab = catalog.slab(by.slab);
            let status = slab.map_or(CardStatus::Void, |slab| slab.status(by.slot));
            return Err(refusal_of(&format!("card {by}"), status, way));
        }
        Ok(())
    }
}
