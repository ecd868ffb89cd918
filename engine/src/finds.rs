//! Who got this card? Look-ups of cards by their secret, by their place, by SKU and by batch: docs/cards.md.
//!
//! A secret is found through the keyed fingerprints of the slabs. Which order has a card is kept nowhere on the order's way: it
//! is gathered here, from the rows of the index, when somebody asks, and each row is looked at once.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use croupier_protocol::{
    BatchRow, CARDS_NAMED_MAX, CardList, CardPlace, CardRow, FindSecret, ListCards, Refusal,
    SECRET_BYTES_MAX,
};

use crate::card::CardStatus;
use crate::engine::{Engine, Refused, unknown_sku};
use crate::slab::claim;
use crate::state::index::OrderState;
use crate::state::{Catalog, SkuState, SlabState, State};

/// Rows of a page: they fit the smallest frame.
const ROWS_PER_PAGE: usize = 100;
/// Words of claim bits that are looked at for a page, so that none takes long.
const WORDS_PER_PAGE: usize = 1 << 16;

/// Uses of a view that get room at a time.
const OWNERS_AT_ONCE: usize = 4096;

/// Which order has which card, as far as it has been gathered. Eight bytes for each card of the slabs that any order has cards of.
#[derive(Default)]
pub(crate) struct Owners {
    /// Rows of the index that have been looked at.
    rows: u64,
    /// Those of them that may still get cards.
    undecided: Vec<u64>,
    /// The row of each card's order, plus one; 0: nobody's.
    by_slab: HashMap<u32, Vec<u64>>,
}

impl Owners {
    /// Looks at what has come since.
    fn catch_up(&mut self, state: &State) {
        let mut undecided = std::mem::take(&mut self.undecided);
        undecided.retain(|&row| !self.take_in(state, row));
        let end = state.index.rows_taken();
        undecided.extend((self.rows..end).filter(|&row| !self.take_in(state, row)));
        (self.rows, self.undecided) = (end, undecided);
    }

    /// False if the row's order may still get cards.
    fn take_in(&mut self, state: &State, row: u64) -> bool {
        let Some((_, settled)) = state.index.order_of(row) else {
            return false;
        };
        match settled.state {
            OrderState::Cancelled => true,
            // An expired hold may be committed late.
            OrderState::Held | OrderState::Expired | OrderState::Waiting => false,
            OrderState::Issued
            | OrderState::IssuedPart
            | OrderState::Committed
            | OrderState::CommittedPart => {
                for (slab, slot) in state.index.cards(settled) {
                    let cards = self.by_slab.entry(slab).or_insert_with(|| {
                        let catalog = state.catalog.load();
                        let cards = catalog.slab(slab).map(|slab| match slab.facts.view {
                            None => slab.facts.cards as usize,
                            // It has many slots, and the first go first.
                            Some(_) => 0,
                        });
                        vec![0; cards.unwrap_or(0)]
                    });
                    let at = slot as usize;
                    if cards.len() <= at {
                        cards.resize((at + 1).next_multiple_of(OWNERS_AT_ONCE), 0);
                    }
                    cards[at] = row + 1;
                }
                true
            }
        }
    }

    /// The order that has a card: its id and the LSN of its record.
    fn of(&self, state: &State, slab: u32, slot: u32) -> Option<(u128, u64)> {
        let row = self
            .by_slab
            .get(&slab)?
            .get(slot as usize)?
            .checked_sub(1)?;
        let (id, settled) = state.index.order_of(row)?;
        Some((id, settled.lsn))
    }
}

impl Engine {
    /// The cards that have a secret: one for each SKU that it was imported into.
    pub fn find_secret(&self, asked: &FindSecret<'_>) -> Result<CardList, Refused> {
        if asked.secret.is_empty() || asked.secret.len() > SECRET_BYTES_MAX {
            let text = format!("a secret has 1 to {SECRET_BYTES_MAX} bytes");
            return Err(Refused::because(Refusal::SelectionInvalid, text));
        }
        let catalog = self.state.catalog.load_full();
        let skus: Vec<&Arc<SkuState>> = match asked.sku.0 {
            0 => catalog.skus.iter().collect(),
            sku => vec![
                catalog
                    .sku(sku)
                    .ok_or_else(|| Refused::plain(Refusal::UnknownSku))?,
            ],
        };
        let mut found = Vec::new();
        for sku in skus {
            let print = self.store.vault.fingerprint(sku.sku, asked.secret);
            for pool in sku.pools.load().iter() {
                for slab in pool.slabs.load().iter() {
                    let slot = slab.mapped().and_then(|mapped| mapped.find(print));
                    found.extend(slot.map(|slot| (slab.clone(), slot)));
                }
            }
        }
        let uses = further_uses(&catalog, &found);
        // They fit a page, or are read by place.
        let next =
            (uses.len() > ROWS_PER_PAGE.saturating_sub(found.len())).then(CardPlace::default);
        if next.is_none() {
            found.extend(uses);
        }
        Ok(CardList {
            rows: self.card_rows(&found)?,
            next,
        })
    }

    /// What became of cards, a page at a time.
    pub fn list_cards(&self, asked: &ListCards) -> Result<CardList, Refused> {
        let status = match asked.status {
            0 => None,
            number => Some(
                u8::try_from(number)
                    .ok()
                    .and_then(|number| number.try_into().ok())
                    .ok_or_else(|| {
                        let text = "a status is 1 free, 2 issued, 3 suspended or 4 void; 0 is any";
                        Refused::because(Refusal::SelectionInvalid, text)
                    })?,
            ),
        };
        match (&asked.sku, asked.cards.len()) {
            (Some(sku), 0) => self.list_stock(sku, asked, status),
            (None, 1..=CARDS_NAMED_MAX) if asked.batch.is_none() => self.list_named(asked, status),
            _ => {
                let text = format!(
                    "say which cards: a SKU, a SKU and one of its batches, or at most {CARDS_NAMED_MAX} cards"
                );
                Err(Refused::because(Refusal::SelectionInvalid, text))
            }
        }
    }

    fn list_named(
        &self,
        asked: &ListCards,
        status: Option<CardStatus>,
    ) -> Result<CardList, Refused> {
        let catalog = self.state.catalog.load_full();
        let mut named = Vec::new();
        // Cards that are dealt more than once, by the slab and slot of the first use.
        let mut cards: BTreeSet<(u32, u32)> = BTreeSet::new();
        for card in &asked.cards {
            let slab = catalog.slab(card.slab);
            match slab {
                Some(slab) if card.slot < slab.cards() && card.generation == 0 => {
                    if slab.is_reusable() {
                        cards.insert(slab.card_id(card.slot));
                    } else if is_behind(card, asked.after.as_ref()) {
                        named.push((slab.clone(), card.slot));
                    }
                }
                _ => {
                    let text = format!(
                        "there is no card {}:{}.{}",
                        card.slab, card.slot, card.generation
                    );
                    return Err(Refused::because(Refusal::UnknownCard, text));
                }
            }
        }
        let is_wanted =
            |slab: &SlabState, slot| status.is_none_or(|status| slab.status(slot) == status);
        named.retain(|(slab, slot)| is_wanted(slab, *slot));
        let slabs: BTreeMap<u32, &Arc<SlabState>> = cards
            .iter()
            .flat_map(|&(of, _)| catalog.slabs_with(of))
            .map(|slab| (slab.facts.slab, slab))
            .collect();
        let mut uses = Vec::new();
        for slab in slabs.into_values() {
            if uses.len() > ROWS_PER_PAGE {
                break;
            }
            let from = match &asked.after {
                Some(after) if after.slab > slab.facts.slab => continue,
                Some(after) if after.slab == slab.facts.slab => after.slot.saturating_add(1),
                _ => 0,
            };
            let before = uses.len();
            for &card in &cards {
                let slots = slab.slots_of(card, from);
                let slots = slots.filter(|&slot| is_wanted(slab, slot));
                // One more tells that there are more.
                let slots = slots.take(ROWS_PER_PAGE + 1);
                uses.extend(slots.map(|slot| (slab.clone(), slot)));
            }
            uses[before..].sort_unstable_by_key(|(_, slot)| *slot);
            uses.truncate(ROWS_PER_PAGE + 1);
        }
        named.append(&mut uses);
        named.sort_unstable_by_key(|(slab, slot)| (slab.facts.slab, *slot));
        named.dedup_by_key(|(slab, slot)| (slab.facts.slab, *slot));
        let next = (named.len() > ROWS_PER_PAGE).then(|| place(&named[ROWS_PER_PAGE - 1]));
        named.truncate(ROWS_PER_PAGE);
        Ok(CardList {
            rows: self.card_rows(&named)?,
            next,
        })
    }

    fn list_stock(
        &self,
        name: &str,
        asked: &ListCards,
        status: Option<CardStatus>,
    ) -> Result<CardList, Refused> {
        let sku = self
            .state
            .sku_by_name(name)
            .ok_or_else(|| unknown_sku(name))?;
        let batches = asked.batch.as_deref();
        let batches = batches.map(|label| self.batches(sku, label)).transpose()?;
        let catalog = self.state.catalog.load_full();
        let (after_slab, after_slot) = match &asked.after {
            Some(after) => (after.slab, Some(after.slot)),
            None => (0, None),
        };
        let slabs = catalog.slabs.iter().flatten().filter(|slab| {
            let facts = &slab.facts;
            let of_batch = batches
                .as_ref()
                .is_none_or(|all| all.contains(&facts.batch));
            facts.sku == sku && of_batch && facts.slab >= after_slab
        });
        let (mut found, mut words_left) = (Vec::new(), WORDS_PER_PAGE);
        for slab in slabs {
            let from = match after_slot {
                Some(slot) if slab.facts.slab == after_slab => slot.saturating_add(1),
                _ => 0,
            };
            let mut slot = from;
            while slot < slab.cards() {
                if slot.is_multiple_of(claim::WORD_SLOTS) || slot == from {
                    words_left -= 1;
                }
                if status.is_none_or(|status| slab.status(slot) == status) {
                    found.push((slab.clone(), slot));
                }
                if found.len() == ROWS_PER_PAGE || words_left == 0 {
                    let next = Some(place(&(slab.clone(), slot)));
                    let rows = self.card_rows(&found)?;
                    return Ok(CardList { rows, next });
                }
                slot += 1;
            }
        }
        Ok(CardList {
            rows: self.card_rows(&found)?,
            next: None,
        })
    }

    /// What became of these cards. What is told of orders is durable.
    fn card_rows(&self, cards: &[(Arc<SlabState>, u32)]) -> Result<Vec<CardRow>, Refused> {
        if cards.is_empty() {
            return Ok(Vec::new());
        }
        let mut owners = self.lock(&self.owners);
        owners.catch_up(&self.state);
        let row = |(slab, slot): &(Arc<SlabState>, u32)| {
            // The status first: whoever has an order then has it in the index, or is just getting it.
            let status = slab.status(*slot);
            let owner = owners.of(&self.state, slab.facts.slab, *slot);
            CardRow {
                slab: slab.facts.slab,
                slot: *slot,
                generation: 0,
                sku: slab.facts.sku,
                batch: slab.facts.batch,
                status: status as u16,
                expires_at_s: slab.expires_at_s(*slot),
                order: owner.map(|(id, _)| id.to_be_bytes()),
                lsn: owner.map_or(0, |(_, lsn)| lsn),
            }
        };
        let rows: Vec<CardRow> = cards.iter().map(row).collect();
        drop(owners);
        let last = rows.iter().map(|row| row.lsn).max().unwrap_or(0);
        self.log
            .wait_durable(last)
            .map_err(|error| Refused::because(Refusal::StoreFailed, error))?;
        Ok(rows)
    }

    /// The batches of a SKU, or of all, by number.
    pub fn list_batches(&self, name: Option<&str>) -> Result<Vec<BatchRow>, Refused> {
        let only = match name {
            Some(name) => Some(
                self.state
                    .sku_by_name(name)
                    .ok_or_else(|| unknown_sku(name))?,
            ),
            None => None,
        };
        let catalog = self.state.catalog.load_full();
        let batches: Vec<_> = {
            let ledger = self.state.ledger();
            let all = ledger.batches.values();
            all.filter(|batch| only.is_none_or(|only| batch.sku == only))
                .cloned()
                .collect()
        };
        let numbers: HashSet<u32> = batches.iter().map(|batch| batch.batch).collect();
        let mut by_batch: HashMap<u32, [u64; 4]> = HashMap::new();
        let ours = |slab: &&Arc<SlabState>| numbers.contains(&slab.facts.batch);
        for slab in catalog.slabs.iter().flatten().filter(ours) {
            let counts = by_batch.entry(slab.facts.batch).or_default();
            for (count, status) in counts.iter_mut().zip(STATUSES) {
                let words = slab.slots_that_are(status);
                *count += words
                    .iter()
                    .map(|word| u64::from(word.count_ones()))
                    .sum::<u64>();
            }
        }
        let rows = batches.into_iter().map(|batch| {
            let [free, suspended, issued, void] =
                by_batch.get(&batch.batch).copied().unwrap_or_default();
            let pools = catalog.sku(batch.sku).map(|sku| sku.pools.load_full());
            let pool = pools
                .as_ref()
                .and_then(|pools| pools.get(usize::from(batch.pool)));
            BatchRow {
                batch: batch.batch,
                sku: batch.sku,
                label: batch.label,
                pool: pool.map(|pool| pool.name.clone()).unwrap_or_default(),
                cards: batch.cards,
                sealed_unix_ms: batch.sealed_unix_ms,
                free,
                suspended,
                issued,
                void,
            }
        });
        Ok(rows.collect())
    }
}

/// In the order in which a batch's counts stand.
const STATUSES: [CardStatus; 4] = [
    CardStatus::Free,
    CardStatus::Suspended,
    CardStatus::Issued,
    CardStatus::Void,
];

fn place((slab, slot): &(Arc<SlabState>, u32)) -> CardPlace {
    CardPlace {
        slab: slab.facts.slab,
        slot: *slot,
        generation: 0,
    }
}

fn is_behind(card: &CardPlace, after: Option<&CardPlace>) -> bool {
    after.is_none_or(|after| (card.slab, card.slot) > (after.slab, after.slot))
}

/// All uses of these cards but the first, as many as a page has rows and one.
fn further_uses(catalog: &Catalog, cards: &[(Arc<SlabState>, u32)]) -> Vec<(Arc<SlabState>, u32)> {
    let mut uses = Vec::new();
    for (first, card) in cards.iter().filter(|(first, _)| first.is_reusable()) {
        let views = catalog.slabs_with(first.facts.slab);
        for view in views.filter(|slab| slab.facts.view.is_some()) {
            let slots = view.slots_of((first.facts.slab, *card), 0);
            let slots = slots.take(ROWS_PER_PAGE + 1 - uses.len());
            uses.extend(slots.map(|slot| (view.clone(), slot)));
        }
    }
    uses
}
