//! Picks: the caller says which card. The page is docs/orders.md.
//!
//! Picks are rare, so they run on the cold path, among the other cold deeds and one at a time, and cost dealers nothing. The
//! deeds for one pick stand in a dealer's order, for its reasons: look-up, credit, claim bit, id, record, index. Two things
//! are other: the bit is that of one card, so it may be gone although there is a credit; and the id is claimed last, when
//! there certainly is room in the log, so that nothing can refuse the order any more.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use croupier_protocol::{Hold as Told, LABEL_BYTES_MAX, OrderId, Pick, Priority, Refusal};

use crate::card::CardStatus;
use crate::engine::{Engine, ROOM_WAIT, Refused};
use crate::order::{Outcome, Ticket, Verdict};
use crate::slab::claim;
use crate::state::holders::{Limits, Share};
use crate::state::index::{self, Claim, Hashed, IndexView, Look, OrderState, Settled};
use crate::state::record::{
    Credits, Issued, Reserved, Run, Runs, Stamp, Way, put_issued, put_reserved,
};
use crate::state::{Promise, SkuState, SlabState};

/// How often a pick looks again when somebody else is just dealing its id, or has taken the cards of its label.
const LOOKS_MAX: u32 = 20;
/// How long it waits before it does.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// Free cards of a label that are kept from one look at the slabs: others may take the first of them.
const CANDIDATES_MAX: usize = 16;

/// A card, by its slab and slot.
type Place = (Arc<SlabState>, u32);

/// A pick that can be meant.
struct Wish<'a> {
    id: u128,
    sku: &'a SkuState,
    which: Which<'a>,
    /// Of the hold that it is to become; none: it is to be issued.
    ttl_ms: Option<u32>,
    /// For whom it is; 0: nobody is named.
    holder: u128,
}

enum Which<'a> {
    Card(Place),
    /// Any card that has it.
    Label(&'a str),
}

impl Wish<'_> {
    /// Whether it would have had this card.
    fn is_for(&self, slab: &SlabState, slot: u32) -> bool {
        let same_sku = slab.facts.sku == self.sku.sku;
        same_sku
            && match &self.which {
                // Any use of the card.
                Which::Card((picked, at)) => picked.card_id(*at) == slab.card_id(slot),
                Which::Label(label) => label_of(slab, slot) == Some(label),
            }
    }
}

/// What a look has come to.
enum Step {
    Told(Verdict),
    /// Somebody else is at it just now: come again.
    Later,
}

impl Engine {
    /// Deals the card that a caller picks, or binds it to a hold. What is told is durable.
    ///
    /// The error is a refusal that has changed nothing.
    pub fn pick(&self, asked: &Pick) -> Result<Outcome, Refused> {
        let id = OrderId::from_bytes(asked.order).as_u128();
        let label = check(asked)?;
        let catalog = self.state.catalog.load_full();
        let sku = catalog
            .sku(asked.sku)
            .ok_or_else(|| Refused::plain(Refusal::UnknownSku))?;
        let which = match (&asked.card, label) {
            (Some(card), _) => {
                let slab = catalog.slab(card.slab).filter(|slab| {
                    slab.facts.sku == sku.sku && card.slot < slab.cards() && card.generation == 0
                });
                let slab = slab.ok_or_else(|| {
                    let text = format!(
                        "SKU {:?} has no card {}:{}.{}",
                        sku.name, card.slab, card.slot, card.generation
                    );
                    Refused::because(Refusal::UnknownCard, text)
                })?;
                Which::Card((slab.clone(), card.slot))
            }
            (None, label) => Which::Label(label),
        };
        let ttl_ms = asked.ttl_ms;
        let wish = Wish {
            id,
            sku,
            which,
            ttl_ms,
            holder: asked.holder.0.map_or(0, u128::from_be_bytes),
        };
        for look in 0..LOOKS_MAX {
            if look > 0 {
                thread::sleep(LOOK_AGAIN);
            }
            if let Step::Told(verdict) = self.look(&wish)? {
                let outcome = Outcome {
                    ticket: Ticket::single(0, 0),
                    id,
                    sku: sku.sku,
                    verdict,
                };
                self.log
                    .wait_durable(outcome.lsn())
                    .map_err(|error| Refused::because(Refusal::StoreFailed, error))?;
                return Ok(outcome);
            }
        }
        let text = "somebody else is just dealing this order or this card: try again";
        Err(Refused::because(Refusal::Busy, text))
    }

    /// One look: a repeat is answered before anything is looked for.
    fn look(&self, wish: &Wish<'_>) -> Result<Step, Refused> {
        let index = &self.state.index;
        match index.look(index.hash(wish.id)) {
            Look::Known(settled) => return Ok(self.again(wish, settled)),
            Look::InFlight => return Ok(Step::Later),
            Look::Absent(_) => {}
        }
        // Before the other cold deeds have to wait: a slab may be long.
        let cards = match &wish.which {
            Which::Card((slab, slot)) if slab.is_reusable() => self.uses_to_pick(slab, *slot),
            Which::Card(card) => vec![card.clone()],
            Which::Label(label) => labelled(wish.sku, label),
        };
        // A log that is driven in steps finds out here that the disk is full.
        self.log.tend();
        let mut view = self.lock(&self.cold);
        self.deal(wish, &cards, &mut view)
    }

    /// As the only cold deed.
    fn deal(
        &self,
        wish: &Wish<'_>,
        cards: &[Place],
        view: &mut IndexView,
    ) -> Result<Step, Refused> {
        let hashed = self.state.index.hash(wish.id);
        // Again: no pick of the same id is under way now, so a refusal is the last word.
        let seen = match view.look(hashed) {
            Look::Known(settled) => return Ok(self.again(wish, settled)),
            Look::InFlight => return Ok(Step::Later),
            Look::Absent(seen) => seen,
        };
        if wish
            .ttl_ms
            .is_some_and(|ttl_ms| ttl_ms > self.config.hold_ttl_max_ms)
        {
            return Err(Refused::plain(Refusal::TtlInvalid));
        }
        self.wait_for_room()?;
        // Where not all may be held: counted twice until the hold is there.
        let share = wish.ttl_ms.and_then(|_| wish.sku.promise_share(1));
        if share == Some(0) {
            return Err(Refused::plain(Refusal::HoldShareReached));
        }
        let dealt = self.take_cap(wish).and_then(|cap| {
            let dealt = self.deal_one(wish, cards, (hashed, seen), view);
            let is_new = matches!(
                dealt,
                Ok(Step::Told(
                    Verdict::Issued { repeat: false, .. } | Verdict::Held { repeat: false, .. }
                ))
            );
            if let Some(cap) = cap.filter(|_| !is_new) {
                self.state.holders.give_back(cap);
            }
            dealt
        });
        if let Some(granted) = share {
            wish.sku.unpromise(granted);
        }
        dealt
    }

    /// Takes the card from the caps of its holder, if one is named.
    fn take_cap(&self, wish: &Wish<'_>) -> Result<Option<Share>, Refused> {
        if wish.holder == 0 {
            return Ok(None);
        }
        let share = Share {
            holder: wish.holder,
            sku: wish.sku.sku,
            cards: 1,
            is_open: wish.ttl_ms.is_some(),
        };
        let limits = Limits {
            cap: wish.sku.cap(),
            open_max: self.config.holder_holds_max,
        };
        let now = self.store.disk.unix_ms();
        let taken = self.state.holders.take(&share, &limits, now);
        match taken {
            Ok(_) => Ok(Some(share)),
            Err((refusal, _)) => Err(Refused::plain(refusal)),
        }
    }

    /// Deals one of the cards.
    fn deal_one(
        &self,
        wish: &Wish<'_>,
        cards: &[Place],
        (hashed, seen): (Hashed, Option<index::Place>),
        view: &mut IndexView,
    ) -> Result<Step, Refused> {
        // Others may take what was found, and there is more.
        let by_label = match &wish.which {
            Which::Label(_) => true,
            Which::Card(_) => cards.len() > 1,
        };
        let now_s = self.store.disk.unix_ms() / 1000;
        let Some((slab, slot)) = take_one(cards, by_label, now_s)? else {
            return Ok(Step::Later);
        };
        let place = match view.claim(hashed, seen) {
            Claim::Ours(place) => place,
            other => {
                put_back(slab, slot);
                return Ok(match other {
                    Claim::Known(settled) => self.again(wish, settled),
                    _ => Step::Later,
                });
            }
        };
        let stamp = Stamp {
            unix_ms: self.store.disk.unix_ms(),
            route_table: self.routes.load().version(),
        };
        let run = [Run {
            slab: slab.facts.slab,
            slot,
            count: 1,
            generation: 0,
        }];
        let mut words = Vec::new();
        let issued = issued(wish, &run);
        let reserved = wish.ttl_ms.map(|ttl_ms| reserved(wish, ttl_ms, slab, slot));
        match &reserved {
            None => put_issued(&mut words, stamp, &issued),
            Some(reserved) => put_reserved(&mut words, stamp, reserved),
        };
        let Some(lsn) = self.log.append(&words) else {
            // There was room for it. The id is claimed and would be for ever: better a restart than that.
            self.log.fail("a pick finds no room that was there");
            return Err(Refused::plain(Refusal::StoreFailed));
        };
        let row = self.state.index.take_rows(1);
        let promise = Promise { place, row };
        let verdict = match &reserved {
            None => Verdict::Issued {
                settled: self
                    .state
                    .apply_issued(lsn, stamp.unix_ms, &issued, promise, view),
                repeat: false,
            },
            Some(reserved) => {
                wish.sku.promise(1);
                let (settled, hold) = self
                    .state
                    .apply_reserved(lsn, stamp, reserved, promise, view);
                self.state.desk.keep_end(hold.ends_unix_ms, row);
                Verdict::Held {
                    lsn: settled.lsn,
                    quantity: settled.quantity,
                    hold: Told {
                        ends_unix_ms: hold.ends_unix_ms,
                        extensions: 0,
                    },
                    repeat: false,
                }
            }
        };
        self.state.index.call_keeper_if_short();
        Ok(Step::Told(verdict))
    }

    /// The use that is picked, and behind it others of its card that are free.
    fn uses_to_pick(&self, slab: &Arc<SlabState>, slot: u32) -> Vec<Place> {
        let mut found = vec![(slab.clone(), slot)];
        let card = slab.card_id(slot);
        for other in self.state.catalog.load().slabs_with(card.0) {
            let uses = other.slots_of(card, 0);
            let free = uses.filter(|&slot| other.status(slot) == CardStatus::Free);
            let free = free.take(CANDIDATES_MAX - found.len());
            found.extend(free.map(|slot| (other.clone(), slot)));
        }
        found.dedup_by(|(a, at), (b, before)| (a.facts.slab, at) == (b.facts.slab, before));
        found
    }

    /// Waits until the log has room for a record. It stays there: nobody else appends as a cold deed.
    fn wait_for_room(&self) -> Result<(), Refused> {
        let begun = Instant::now();
        loop {
            if let Some(no) = self.cannot_record() {
                return Err(Refused::plain(no));
            }
            if self.log.has_room() {
                return Ok(());
            }
            if begun.elapsed() > ROOM_WAIT || !self.log.wait_for_progress() {
                return Err(Refused::plain(Refusal::Busy));
            }
        }
    }

    /// The answer under an id that is known: the same again, or a refusal when it was another order.
    fn again(&self, wish: &Wish<'_>, settled: Settled) -> Step {
        let index = &self.state.index;
        let refuse = |refusal| {
            Step::Told(Verdict::Refused {
                refusal,
                retry_after_ms: 0,
                lsn: settled.lsn,
            })
        };
        if self.state.holders.of(wish.id) != wish.holder {
            return refuse(Refusal::OrderIdReused);
        }
        let is_picked = |(slab, slot)| {
            let catalog = self.state.catalog.load();
            let slab = catalog.slab(slab);
            slab.is_some_and(|slab| wish.is_for(slab, slot))
        };
        match (settled.state, wish.ttl_ms) {
            (OrderState::Issued, None)
                if settled.quantity == 1 && index.cards(settled).all(is_picked) =>
            {
                Step::Told(Verdict::Issued {
                    settled,
                    repeat: true,
                })
            }
            (OrderState::Held, Some(ttl_ms)) => {
                let Some(hold) = index.hold(settled) else {
                    return Step::Later;
                };
                if hold.ttl_ms != ttl_ms || !hold.card.is_some_and(is_picked) {
                    return refuse(Refusal::OrderIdReused);
                }
                // As it was told first, whatever extensions have made of it.
                Step::Told(Verdict::Held {
                    lsn: hold.reserved_lsn,
                    quantity: settled.quantity,
                    hold: Told {
                        ends_unix_ms: hold.first_end_unix_ms(),
                        extensions: 0,
                    },
                    repeat: true,
                })
            }
            (OrderState::Committed | OrderState::CommittedPart, Some(_)) => {
                refuse(Refusal::AlreadyCommitted)
            }
            (OrderState::Cancelled | OrderState::Expired, _) => match index.released(settled) {
                None => Step::Later,
                Some(row) if row.was_issue != wish.ttl_ms.is_none() => {
                    refuse(Refusal::OrderIdReused)
                }
                Some(_) if settled.state == OrderState::Cancelled => {
                    refuse(Refusal::AlreadyCancelled)
                }
                Some(_) => refuse(Refusal::Expired),
            },
            _ => refuse(Refusal::OrderIdReused),
        }
    }
}

/// Checks what can be told from the request alone; its label, or none.
fn check(asked: &Pick) -> Result<&str, Refused> {
    let invalid = |text: &str| Err(Refused::because(Refusal::PickInvalid, text));
    if asked.order == [0; 16] {
        return Err(Refused::plain(Refusal::OrderIdZero));
    }
    if asked.quantity != 1 {
        return invalid("a pick is of one card: give each its order");
    }
    if asked.holder.0 == Some([0; 16]) {
        return Err(Refused::plain(Refusal::HolderInvalid));
    }
    if asked.ttl_ms == Some(0) {
        return Err(Refused::plain(Refusal::TtlInvalid));
    }
    match (&asked.card, &asked.label) {
        (Some(_), None) => Ok(""),
        (None, Some(label)) if (1..=LABEL_BYTES_MAX).contains(&label.len()) => Ok(label),
        (None, Some(_)) => invalid("a label to pick by has 1 to 256 bytes"),
        _ => invalid("say which card: by its place, or by its label, and not both"),
    }
}

fn label_of(slab: &SlabState, slot: u32) -> Option<&str> {
    let (mapped, slot) = slab.sealed(slot)?;
    let entry = mapped.entry(slot).ok()?;
    Some(entry.label)
}

/// Some free cards of a label.
fn labelled(sku: &SkuState, label: &str) -> Vec<Place> {
    let mut found = Vec::new();
    for pool in sku.pools.load().iter() {
        for slab in pool.slabs.load().iter() {
            // A card that is dealt without end has many slots and one label.
            if slab.facts.view.is_some_and(|view| view.cards == 1)
                && label_of(slab, 0) != Some(label)
            {
                continue;
            }
            for slot in claim::slots_in(slab.slots_that_are(CardStatus::Free)) {
                if label_of(slab, slot) == Some(label) {
                    found.push((slab.clone(), slot));
                    if found.len() == CANDIDATES_MAX {
                        return found;
                    }
                }
            }
        }
    }
    found
}

/// Takes one of some cards, a credit and a bit; `None`: others have taken them, and there may be more. The error: there is
/// none, or it cannot be had.
fn take_one(
    cards: &[Place],
    by_label: bool,
    now_s: u64,
) -> Result<Option<(&SlabState, u32)>, Refused> {
    let mut why = Refused::because(
        Refusal::OutOfStock,
        "no free card of this SKU has this label",
    );
    let mut is_lost = false;
    for (slab, slot) in cards {
        match take(slab, *slot, now_s) {
            Ok(()) => return Ok(Some((slab, *slot))),
            Err(refused) => {
                let gone = matches!(
                    refused.refusal,
                    Refusal::CardIssued | Refusal::CardNotInState
                );
                is_lost |= gone;
                why = refused;
            }
        }
    }
    if is_lost && by_label {
        return Ok(None);
    }
    Err(why)
}

/// Takes a free card: a credit first, as for every order.
fn take(slab: &SlabState, slot: u32, now_s: u64) -> Result<(), Refused> {
    let card = format!("card {}:{slot}.0", slab.facts.slab);
    let issued = || {
        let text = format!("{card} is not free: an order has it, or holds it");
        Err(Refused::because(Refusal::CardIssued, text))
    };
    let busy = || {
        let text = "orders that wait for stock of this SKU come first: try again";
        Err(Refused::because(Refusal::Busy, text))
    };
    match slab.status(slot) {
        CardStatus::Free => {}
        CardStatus::Issued => return issued(),
        status @ (CardStatus::Suspended | CardStatus::Void) => {
            let text = format!("{card} is {}", status.name());
            return Err(Refused::because(Refusal::CardNotInState, text));
        }
    }
    // Its pool may have to be swept; whether others of it have expired does not matter here.
    if (1..=now_s).contains(&slab.expires_at_s(slot)) {
        let text = format!("{card} has expired");
        return Err(Refused::because(Refusal::CardNotInState, text));
    }
    if slab.pool.line.is_first() {
        return busy();
    }
    if slab.pool.take_credits(1) == 0 {
        let text = format!("all free cards of the pool of {card} are promised to orders and holds");
        return Err(Refused::because(Refusal::OutOfStock, text));
    }
    // Again, behind the credit: see `Dealer::take_credits_in_line`.
    if slab.pool.line.is_first() {
        slab.pool.add_credits(1);
        return busy();
    }
    if !claim::set(slab.words(), slot) {
        slab.pool.add_credits(1);
        return issued();
    }
    Ok(())
}

/// Puts a card back that was taken and is in no record.
fn put_back(slab: &SlabState, slot: u32) {
    slab.give_back(slot);
    slab.pool.reopened(slab.facts.slab);
    slab.pool.add_credits(1);
}

fn issued<'r>(wish: &Wish<'_>, run: &'r [Run; 1]) -> Issued<'r> {
    Issued {
        order_id: wish.id,
        holder: wish.holder,
        sku: wish.sku.sku,
        principal: 0,
        quantity: 1,
        priority: Priority::Standard as u8,
        lane: Priority::Standard as u8,
        way: Way::Issue,
        fewer: 0,
        runs: Runs::Given(run),
    }
}

fn reserved(wish: &Wish<'_>, ttl_ms: u32, slab: &SlabState, slot: u32) -> Reserved {
    let mut credits = Credits::default();
    credits.0[0] = (slab.pool.index, 1);
    Reserved {
        order_id: wish.id,
        holder: wish.holder,
        sku: wish.sku.sku,
        principal: 0,
        quantity: 1,
        priority: Priority::Standard as u8,
        lane: Priority::Standard as u8,
        ttl_ms,
        filled: false,
        fewer: 0,
        credits,
        card: Some((slab.facts.slab, slot)),
    }
}
