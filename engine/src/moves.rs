//! Moves: operators take cards out of sale, or put them back. The page is docs/cards.md.
//!
//! A move looks which cards can go, takes those that are free as a dealer would (credits, then bits), writes the record,
//! and only when that is durable does the state change. One move at a time: so a card that is suspended or void stays so
//! until its record is written, and only what is free is raced for.
//!
//! A card counts as issued once the index knows its order, whose record then is in the log; a claim bit alone may be the
//! promise of an order whose record would come behind that of the move.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use croupier_protocol::{CARDS_NAMED_MAX, CardMove, CardRef, OrderId, Refusal};

use crate::card::{CardStatus, Cause};
use crate::engine::{Engine, Refused, unknown_sku};
use crate::slab::claim;
use crate::state::record::{Fact, Moved, Run, Runs, moved_runs_max, moved_units};
use crate::state::{Catalog, SlabState};
use crate::uses::Named;

/// Which cards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Those of a SKU, or of one batch of it, that can go the way.
    Stock { sku: String, batch: Option<String> },
    /// These, all or none.
    Cards(Vec<CardRef>),
    /// Those of an order, all or none.
    Order(OrderId),
}

/// What has been done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Cards moved.
    pub moved: u64,
    /// Of the last record; 0 if no card was moved.
    pub lsn: u64,
}

/// How long a stop waits for a move.
const END_WAIT: Duration = Duration::from_secs(10);
/// How often a move looks again for cards that orders under way have promised to themselves and may give back.
const LOOKS_MAX: u32 = 100;
/// How often it does so when it may as well be holds that have them.
const HOLD_LOOKS: u32 = 3;
/// The same for orders that are just getting their cards, when each look reads the whole index.
const ISSUED_LOOKS_MAX: u32 = 20;

/// Where a move leads, from where cards may come, and why.
#[derive(Clone, Copy)]
pub(crate) struct Way {
    pub(crate) to: CardStatus,
    pub(crate) from: &'static [CardStatus],
    pub(crate) cause: Cause,
}

impl Way {
    fn of(card_move: CardMove, issued: bool) -> Way {
        use CardStatus::{Free, Issued, Suspended, Void};
        let (from, to): (&[CardStatus], _) = match (card_move, issued) {
            (CardMove::Suspend, _) => (&[Free], Suspended),
            (CardMove::Resume, _) => (&[Suspended], Free),
            (CardMove::Void, false) => (&[Free, Suspended], Void),
            (CardMove::Void, true) => (&[Free, Suspended, Issued], Void),
        };
        let cause = Cause::Operator;
        Way { to, from, cause }
    }
}

/// Slots of one slab that are of one status and may go; free ones have been taken.
pub(crate) struct Ready<'s> {
    pub(crate) slab: &'s SlabState,
    pub(crate) from: CardStatus,
    pub(crate) slots: Vec<u32>,
}

impl Ready<'_> {
    /// Puts free cards back that were taken and are not in any record.
    fn undo(&self) {
        if self.from == CardStatus::Free {
            for &slot in &self.slots {
                self.slab.give_back(slot);
            }
            self.slab.pool.reopened(self.slab.facts.slab);
            self.slab.pool.add_credits(self.slots.len() as u64);
        }
    }
}

impl Engine {
    /// Moves cards. `issued`: void also takes cards that orders have.
    ///
    /// Named cards go all or none; if one cannot, the refusal says which and why, and nothing has changed. Of a SKU or a
    /// batch those go that can. An error after a part of many has been written says how many that is.
    pub fn move_cards(
        &self,
        selection: &Selection,
        card_move: CardMove,
        issued: bool,
    ) -> Result<Done, Refused> {
        if issued && card_move != CardMove::Void {
            let text =
                "`issued` goes with void only: an issued card cannot be suspended or resumed";
            return Err(Refused::because(Refusal::SelectionInvalid, text));
        }
        let way = Way::of(card_move, issued);
        // Refused, not queued: a long move would hold one thread after the other.
        let _one_at_a_time = match self.moving.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                let text =
                    "another suspend, resume or void is under way: try again when it is done";
                return Err(Refused::because(Refusal::Busy, text));
            }
        };
        match selection {
            Selection::Stock { sku, batch } => self.move_stock(sku, batch.as_deref(), way),
            Selection::Cards(cards) if cards.is_empty() || cards.len() > CARDS_NAMED_MAX => {
                Err(Refused::plain(Refusal::SelectionInvalid))
            }
            Selection::Cards(cards) => {
                let catalog = self.state.catalog.load_full();
                let (uses, cards) = split(&catalog, cards)?;
                if !uses.is_empty() {
                    self.can_go(&catalog, &uses, way)?;
                }
                let named: HashSet<u32> = cards.iter().map(|card| card.slab).collect();
                let (dealt, _) = if way.from.contains(&CardStatus::Issued) && !cards.is_empty() {
                    self.state.dealt(|slab| named.contains(&slab.facts.slab))
                } else {
                    Default::default()
                };
                let mut done = self.move_named(&cards, way, |slab, slot| {
                    let words = dealt.get(&slab.facts.slab);
                    words.is_some_and(|words| claim::has(words, slot))
                })?;
                if !uses.is_empty() {
                    self.move_uses(&catalog, &uses, way, &mut done)?;
                }
                Ok(done)
            }
            Selection::Order(id) => {
                let index = &self.state.index;
                let settled = index
                    .get(index.hash(id.as_u128()))
                    .filter(|settled| settled.state.has_cards())
                    .ok_or_else(|| {
                        let text =
                            "no order of this id has cards: one that holds some has none yet";
                        Refused::because(Refusal::OrderNotFound, text)
                    })?;
                let cards = index.cards(settled).map(|(slab, slot)| CardRef {
                    slab,
                    slot,
                    generation: 0,
                });
                self.move_named(&cards.collect::<Vec<_>>(), way, |_, _| true)
            }
        }
    }

    /// Waits for the move and the pick that are under way, which end at their next record once the engine drains: half in the
    /// log and not in the state they would look like damage. Not for ever: a full disk may hold them up.
    pub fn end_moves(&self) {
        let begun = Instant::now();
        let is_busy = || {
            matches!(self.moving.try_lock(), Err(TryLockError::WouldBlock))
                || matches!(self.cold.try_lock(), Err(TryLockError::WouldBlock))
        };
        while is_busy() {
            if begun.elapsed() > END_WAIT {
                tracing::warn!("a move or a pick of cards does not end");
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn move_stock(&self, sku: &str, batch: Option<&str>, way: Way) -> Result<Done, Refused> {
        let number = self
            .state
            .sku_by_name(sku)
            .ok_or_else(|| unknown_sku(sku))?;
        let batches = batch.map(|label| self.batches(number, label)).transpose()?;
        let catalog = self.state.catalog.load_full();
        let slabs = catalog.slabs.iter().flatten().filter(|slab| {
            let of_batch = batches
                .as_ref()
                .is_none_or(|all| all.contains(&slab.facts.batch));
            slab.facts.sku == number && of_batch
        });
        let slabs: Vec<&Arc<SlabState>> = slabs.collect();
        let mut done = Done::default();
        for slab in &slabs {
            for &from in way.from {
                let slots = match from {
                    CardStatus::Free => {
                        let sku = catalog.sku(slab.facts.sku);
                        take_free(slab, sku.map_or(0, |sku| sku.promised()))
                    }
                    CardStatus::Suspended => claim::slots_in(slab.slots_that_are(from)).collect(),
                    CardStatus::Issued | CardStatus::Void => continue,
                };
                self.write(Ready { slab, from, slots }, way, &mut done)?;
            }
        }
        // Last: what was free is gone, so nothing is sold any more while these are looked for.
        if way.from.contains(&CardStatus::Issued) {
            for (slab, slots) in self.issued_of(&slabs) {
                let from = CardStatus::Issued;
                self.write(Ready { slab, from, slots }, way, &mut done)?;
            }
        }
        Ok(done)
    }

    /// Cards of these slabs that orders have. Waits a moment for orders that are just getting theirs.
    pub(crate) fn issued_of<'s>(
        &self,
        slabs: &[&'s Arc<SlabState>],
    ) -> Vec<(&'s SlabState, Vec<u32>)> {
        let numbers: HashSet<u32> = slabs.iter().map(|slab| slab.facts.slab).collect();
        let mut looks = 0;
        loop {
            // The bits after the index: whoever is in the index has its bits.
            let (dealt, _) = self.state.dealt(|slab| numbers.contains(&slab.facts.slab));
            // Nobody waits for those: a hold may last for long.
            let bound = self.state.bound();
            let mut all_dealt = true;
            let issued = slabs.iter().map(|&slab| {
                let taken = slab.slots_that_are(CardStatus::Issued);
                let dealt = &dealt[&slab.facts.slab];
                let bound = bound.get(&slab.facts.slab);
                let nobodys = |(at, (taken, dealt)): (usize, (&u64, &u64))| {
                    taken & !dealt & !bound.map_or(0, |words| words[at])
                };
                let mut left = taken.iter().zip(dealt).enumerate().map(nobodys);
                all_dealt &= left.all(|left| left == 0);
                let both = taken.iter().zip(dealt).map(|(taken, dealt)| taken & dealt);
                (&**slab, claim::slots_in(both).collect())
            });
            let issued = issued.collect();
            looks += 1;
            if all_dealt || looks == ISSUED_LOOKS_MAX {
                return issued;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The numbers of a SKU's batches of that label.
    pub(crate) fn batches(&self, sku: u32, label: &str) -> Result<HashSet<u32>, Refused> {
        let ledger = self.state.ledger();
        let ours = ledger.batches.values();
        let numbers: HashSet<u32> = ours
            .filter(|batch| batch.sku == sku && batch.label == label)
            .map(|batch| batch.batch)
            .collect();
        if numbers.is_empty() {
            return Err(Refused::because(
                Refusal::UnknownBatch,
                format!(
                    "the SKU has no batch {label:?}: the import that made it has said its label"
                ),
            ));
        }
        Ok(numbers)
    }

    /// `is_dealt`: whether an order has a card whose bit is set.
    fn move_named(
        &self,
        cards: &[CardRef],
        way: Way,
        is_dealt: impl Fn(&SlabState, u32) -> bool,
    ) -> Result<Done, Refused> {
        let catalog = self.state.catalog.load_full();
        let mut by_slab: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for card in cards {
            known(&catalog, card)?;
            by_slab.entry(card.slab).or_default().push(card.slot);
        }
        let slabs: Vec<&Arc<SlabState>> = by_slab
            .keys()
            .filter_map(|&slab| catalog.slab(slab))
            .collect();
        let mut ready: Vec<Ready<'_>> = Vec::new();
        for (slab, mut slots) in slabs.into_iter().zip(by_slab.into_values()) {
            slots.sort_unstable();
            slots.dedup();
            for from in [CardStatus::Free, CardStatus::Suspended, CardStatus::Issued] {
                ready.push(Ready {
                    slab,
                    from,
                    slots: Vec::new(),
                });
            }
            let last = ready.len() - 3;
            for slot in slots {
                if let Err(refused) = sort_in(slab, slot, way, &is_dealt, &mut ready[last..]) {
                    ready.iter().for_each(Ready::undo);
                    return Err(refused);
                }
            }
        }
        // They fit one append, so that all of them are written or none.
        let facts: Vec<(Ready<'_>, Vec<Run>)> = ready
            .into_iter()
            .filter(|ready| !ready.slots.is_empty())
            .map(|ready| {
                let runs = runs_of(ready.slab, &ready.slots);
                (ready, runs)
            })
            .collect();
        if facts.is_empty() {
            return Ok(Done::default());
        }
        self.write_all(&facts, way)
    }

    /// Writes named cards: as one append.
    fn write_all(&self, ready: &[(Ready<'_>, Vec<Run>)], way: Way) -> Result<Done, Refused> {
        let facts: Vec<Fact<'_>> = ready
            .iter()
            .map(|(ready, runs)| fact(ready, way, runs))
            .collect();
        let units: usize = ready.iter().map(|(_, runs)| moved_units(runs.len())).sum();
        self.log.tend();
        let begun = if units as u64 <= self.log.append_units_max() {
            self.begin(&facts)
        } else {
            let text = "the cards lie too scattered for one record of the log: name them in parts";
            Err(Refused::because(Refusal::SelectionInvalid, text))
        };
        let begun = match begun {
            Ok(begun) => begun,
            Err(refused) => {
                ready.iter().for_each(|(ready, _)| ready.undo());
                return Err(refused);
            }
        };
        let moved = ready
            .iter()
            .map(|(ready, _)| ready.slots.len() as u64)
            .sum();
        let lsn = self.finish(begun)?;
        Ok(Done { moved, lsn })
    }

    /// Writes cards of one slab and status, as many records as it takes.
    pub(crate) fn write(&self, ready: Ready<'_>, way: Way, done: &mut Done) -> Result<(), Refused> {
        let runs = runs_of(ready.slab, &ready.slots);
        let mut written = 0;
        for chunk in runs.chunks(moved_runs_max(self.log.append_units_max())) {
            let facts = [fact(&ready, way, chunk)];
            let cards: usize = chunk.iter().map(|run| run.count as usize).sum();
            // A server that is about to stop does not wait for all of them.
            self.log.tend();
            let may = self
                .cannot_record()
                .map_or(Ok(()), |no| Err(Refused::plain(no)));
            let begun = may.and_then(|()| self.begin(&facts)).inspect_err(|_| {
                let rest = Ready {
                    slots: ready.slots[written..].to_vec(),
                    ..ready
                };
                rest.undo();
            });
            let lsn = begun
                .and_then(|begun| self.finish(begun))
                .map_err(|refused| match done.moved {
                    0 => refused,
                    moved => Refused::because(
                        refused.refusal,
                        format!("{} ({moved} cards had been moved before)", refused.text),
                    ),
                })?;
            written += cards;
            done.moved += cards as u64;
            done.lsn = lsn;
        }
        Ok(())
    }
}

fn fact<'r>(ready: &Ready<'_>, way: Way, runs: &'r [Run]) -> Fact<'r> {
    Fact::CardsMoved(Moved {
        sku: ready.slab.facts.sku,
        from: ready.from,
        to: way.to,
        cause: way.cause,
        runs: Runs::Given(runs),
    })
}

/// Puts a named card among those of its status, and takes it if it is free.
fn sort_in(
    slab: &SlabState,
    slot: u32,
    way: Way,
    is_dealt: impl Fn(&SlabState, u32) -> bool,
    ready: &mut [Ready<'_>],
) -> Result<(), Refused> {
    let mut status = slab.status(slot);
    if status == CardStatus::Free && way.from.contains(&status) {
        // A credit first, as for an order; without one, all free cards are promised.
        if slab.pool.take_credits(1) == 0 {
            let text = format!(
                "all free cards are promised to orders and holds, so {} cannot be taken: try again when one has ended",
                name(slab, slot)
            );
            return Err(Refused::because(Refusal::CardIssued, text));
        }
        if !claim::set(slab.words(), slot) {
            slab.pool.add_credits(1);
            status = CardStatus::Issued;
        }
    }
    if status == CardStatus::Issued && !(way.from.contains(&status) && is_dealt(slab, slot)) {
        return Err(refusal_of(&name(slab, slot), status, way));
    }
    match ready.iter_mut().find(|ready| ready.from == status) {
        Some(ready) if way.from.contains(&status) => {
            ready.slots.push(slot);
            Ok(())
        }
        _ => Err(refusal_of(&name(slab, slot), status, way)),
    }
}

/// Why a card of that status does not go the way.
pub(crate) fn refusal_of(card: &str, status: CardStatus, way: Way) -> Refused {
    if status != CardStatus::Issued {
        let (is, to) = (status.name(), way.to.name());
        let text = format!("{card} is {is} and cannot become {to}");
        return Refused::because(Refusal::CardNotInState, text);
    }
    let text = if way.from.contains(&status) {
        format!("an order is just getting {card}: try again")
    } else {
        format!("an order has {card}: only void with `issued` takes it")
    };
    Refused::because(Refusal::CardIssued, text)
}

/// The slab of a card that is named.
fn known<'c>(catalog: &'c Catalog, card: &CardRef) -> Result<&'c Arc<SlabState>, Refused> {
    let slab = catalog.slab(card.slab);
    let slab = slab.filter(|slab| card.slot < slab.cards() && card.generation == 0);
    slab.ok_or_else(|| {
        let text = format!("there is no card {card}");
        Refused::because(Refusal::UnknownCard, text)
    })
}

/// Cards that are dealt more than once, of which all uses are meant, and the others.
fn split(catalog: &Catalog, cards: &[CardRef]) -> Result<(Named, Vec<CardRef>), Refused> {
    let (mut uses, mut others) = (Named::new(), Vec::new());
    for card in cards {
        let slab = known(catalog, card)?;
        if slab.is_reusable() {
            uses.entry(slab.card_id(card.slot)).or_insert(*card);
        } else {
            others.push(*card);
        }
    }
    Ok((uses, others))
}

fn name(slab: &SlabState, slot: u32) -> String {
    format!("card {}:{slot}.0", slab.facts.slab)
}

/// Takes the free cards of a slab, a credit and a bit each.
///
/// `promised`: cards of the SKU that holds have been promised; they may be any.
fn take_free(slab: &SlabState, promised: u64) -> Vec<u32> {
    let mut slots = Vec::new();
    for look in 0..LOOKS_MAX {
        let set = claim::count_set(slab.words());
        let free = u64::from(slab.facts.cards) - set;
        if free == 0 {
            break;
        }
        let credits = slab.pool.take_credits(free);
        let mut cursor = 0;
        let got = claim::take_in(
            slab.words(),
            slab.facts.cards,
            &mut cursor,
            slab.words().len(),
            credits as u32,
            |slot| slots.push(slot),
        );
        slab.pool.add_credits(credits - u64::from(got));
        let left = free - u64::from(got);
        if left == 0 || look >= HOLD_LOOKS && left <= promised {
            // The rest stays for holds, which may take minutes.
            break;
        }
        // The rest is promised to orders under way. They take it, or cards of another slab, in a moment.
        if look > 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    slots.sort_unstable();
    slots
}

fn runs_of(slab: &SlabState, slots: &[u32]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for &slot in slots {
        match runs.last_mut() {
            Some(run) if run.slot + run.count == slot => run.count += 1,
            _ => runs.push(Run {
                slab: slab.facts.slab,
                slot,
                count: 1,
                generation: 0,
            }),
        }
    }
    runs
}
