//! Orders that hold cards, and what becomes of them: docs/orders.md.
//!
//! Every change has two halves. What a dealer has promised before it wrote the record (the order claimed in the index,
//! credits and claim bits) is the first; a replay makes the same promise from the record (`replay_…`). The second is the
//! same for both (`apply_…`): the index tells what the order has become, and what nobody got goes back to stock.

use std::sync::Arc;

use super::Promise;
use croupier_protocol::planted::{self, Bug};

use super::apply::{Orders, State, TWICE, check_cards, lock, share_of, slab_of, take_cards};
use super::catalog::{Catalog, SkuState, SlabState};
use super::digest::state_after;
use super::holders::Share;
use super::index::{Claimed, Hold, IndexView, Look, OrderState, ReleasedRow, Settled};
use super::record::{
    Credits, Ended, Extended, Issued, QUANTITY_LIMIT, Release, Released, Reserved, Run, Stamp, Way,
};
use super::replay::Hand;
use super::waiting::leave_line;
use crate::card::CardStatus;
use crate::slab::claim;

/// An order that holds cards or waits for some, as a plain value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldFact {
    pub order_id: u128,
    /// For whom it is; 0: nobody is named.
    pub holder: u128,
    /// Of its last record.
    pub lsn: u64,
    pub hold: Hold,
}

impl HeldFact {
    /// As a checkpoint keeps it and a digest takes it, but for its holder: docs/checkpoint-format.md.
    pub fn words(&self) -> [u64; HeldFact::WORDS] {
        let [first, second] = self.hold.credit_words();
        [
            (self.order_id >> 64) as u64,
            self.order_id as u64,
            self.lsn,
            self.hold.what_word(),
            first,
            second,
            self.hold.reserved_lsn,
            self.hold.reserved_unix_ms,
            u64::from(self.hold.ttl_ms) | u64::from(self.hold.extended_ttl_ms) << 32,
            self.hold.ends_unix_ms,
        ]
    }

    /// Words of one.
    pub const WORDS: usize = 10;

    /// From [`words`](Self::words); of nobody who is named.
    pub fn from_words(words: [u64; HeldFact::WORDS]) -> HeldFact {
        let (sku, extensions, mut waits, fewer, bound) = Hold::of_what_word(words[3]);
        let (credits, card) = Hold::of_credit_words([words[4], words[5]], &mut waits, bound);
        HeldFact {
            order_id: u128::from(words[0]) << 64 | u128::from(words[1]),
            holder: 0,
            lsn: words[2],
            hold: Hold {
                sku,
                extensions,
                waits,
                fewer,
                credits,
                card,
                reserved_lsn: words[6],
                reserved_unix_ms: words[7],
                ttl_ms: words[8] as u32,
                extended_ttl_ms: (words[8] >> 32) as u32,
                ends_unix_ms: words[9],
            },
        }
    }
}

/// The hold that a Reserved record makes.
pub fn hold_of(lsn: u64, stamp: Stamp, reserved: &Reserved) -> Hold {
    Hold {
        sku: reserved.sku,
        credits: reserved.credits,
        card: reserved.card,
        waits: None,
        fewer: reserved.fewer,
        reserved_lsn: lsn,
        reserved_unix_ms: stamp.unix_ms,
        ttl_ms: reserved.ttl_ms,
        extensions: 0,
        extended_ttl_ms: 0,
        ends_unix_ms: stamp.unix_ms + u64::from(reserved.ttl_ms),
    }
}

/// What an open hold, or an order that waits, takes from its holder's caps.
pub(super) fn share_of_hold(holder: u128, hold: &Hold) -> Share {
    Share {
        holder,
        sku: hold.sku,
        cards: hold.quantity(),
        is_open: true,
    }
}

/// What is left of credits when these cards have been taken for them; `None`: there were not so many.
fn left_over(catalog: &Catalog, mut credits: Credits, issued: &Issued<'_>) -> Option<Credits> {
    for run in issued.runs.iter() {
        let pool = catalog.slab(run.slab)?.pool.index;
        let part = credits.0.iter_mut().find(|(of, left)| {
            let enough = u32::from(*left) >= run.count;
            *of == pool && enough && *left > 0
        })?;
        part.1 -= run.count as u16;
    }
    Some(credits)
}

fn sku_of(catalog: &Catalog, sku: u32) -> &SkuState {
    catalog.sku(sku).expect("its cards were promised")
}

/// The second halves.
impl State {
    /// An order whose place and credits have been taken holds its cards.
    pub fn apply_reserved(
        &self,
        lsn: u64,
        stamp: Stamp,
        reserved: &Reserved,
        promise: Promise,
        view: &mut IndexView,
    ) -> (Settled, Hold) {
        let hold = hold_of(lsn, stamp, reserved);
        let places = &mut view.places;
        let settled = self
            .index
            .put_held(places, promise.row, reserved.order_id, lsn, &hold);
        self.holders
            .begins(reserved.order_id, reserved.holder, promise.row);
        view.publish(promise.place, promise.row);
        (settled, hold)
    }

    /// A claimed order, whose cards have been taken, gets them. `hold`: none of one that had expired.
    pub fn apply_commit(
        &self,
        catalog: &Catalog,
        (lsn, unix_ms): (u64, u64),
        issued: &Issued<'_>,
        claimed: Claimed,
        hold: Option<&Hold>,
        view: &mut IndexView,
    ) -> Settled {
        if issued.holder != 0 {
            let held = match hold {
                Some(hold) => share_of_hold(issued.holder, hold),
                None => share_of(issued),
            };
            self.holders.ended(held, issued.quantity, unix_ms);
        }
        let (state, _) = state_after(&Ended::Issued(*issued));
        let mut one = issued.cards();
        let settled = match (issued.quantity, one.next()) {
            // Most orders: nothing is gathered.
            (1, Some(card)) => {
                let cards = [card].into_iter();
                self.index
                    .end_with(&mut view.places, claimed, lsn, state, cards)
            }
            _ => {
                let cards: Vec<_> = issued.cards().collect();
                let cards = cards.into_iter();
                self.index
                    .end_with(&mut view.places, claimed, lsn, state, cards)
            }
        };
        if let Some(hold) = hold {
            let mut back =
                left_over(catalog, hold.credits, issued).expect("taken for these credits");
            if planted::is(Bug::GiveHoldBack) {
                back = hold.credits;
            }
            sku_of(catalog, issued.sku).keep_promise(hold.credits, back);
        }
        settled
    }

    /// A claimed order holds its cards longer.
    pub fn apply_extended(
        &self,
        lsn: u64,
        stamp: Stamp,
        extended: &Extended,
        claimed: Claimed,
        hold: &Hold,
    ) -> (Settled, Hold) {
        let hold = hold.extended(stamp.unix_ms, extended.ttl_ms);
        (self.index.change_hold(claimed, lsn, &hold), hold)
    }

    /// A claimed order holds nothing any more, or waits no longer.
    pub fn apply_released(
        &self,
        catalog: &Catalog,
        lsn: u64,
        released: &Released,
        claimed: Claimed,
        hold: &Hold,
        view: &mut IndexView,
    ) -> Settled {
        let held = share_of_hold(released.holder, hold);
        self.holders.ended(held, 0, 0);
        let (state, _) = state_after(&Ended::Released(*released));
        let places = &mut view.places;
        let what = row_of(released);
        let settled = self.index.end_without(places, claimed, lsn, state, what);
        if hold.waits.is_some() {
            leave_line(catalog, released.sku, released.order_id);
        } else {
            give_back(catalog, hold);
        }
        settled
    }
}

/// What a hold has goes back to stock: behind the record that says so.
fn give_back(catalog: &Catalog, hold: &Hold) {
    if let Some((slab, slot)) = hold.card {
        let slab = catalog.slab(slab).expect("its card was bound");
        slab.give_back(slot);
        // Behind the bit, before the credit.
        slab.pool.reopened(slab.facts.slab);
    }
    sku_of(catalog, hold.sku).keep_promise(hold.credits, hold.credits);
}

fn row_of(released: &Released) -> ReleasedRow {
    ReleasedRow {
        sku: released.sku,
        was_issue: released.was_issue,
    }
}

/// The error: a record names another holder than the order has that it is about.
pub(super) fn same_holder(named: u128, known: u128) -> Result<(), String> {
    match named == known {
        true => Ok(()),
        false => Err("a record names another holder than its order".into()),
    }
}

const NOT_HELD: &str = "a record changes an order that holds nothing";

/// From records.
impl State {
    pub(super) fn replay_reserved(
        &self,
        lsn: u64,
        stamp: Stamp,
        reserved: &Reserved,
        hand: &mut Hand,
    ) -> Result<(), String> {
        let sum = reserved.credits.sum();
        if sum == 0 || sum != u64::from(reserved.quantity) {
            let quantity = reserved.quantity;
            return Err(format!("an order of {quantity} cards holds {sum}"));
        }
        if sum + u64::from(reserved.fewer) > QUANTITY_LIMIT.into() {
            return Err(format!(
                "an order of {sum} cards holds {} fewer than it asked for",
                reserved.fewer
            ));
        }
        take_credits(hand.catalog(), reserved.sku, reserved.credits)?;
        if let Some((slab, slot)) = reserved.card {
            let slab = bound_slab(hand.catalog(), reserved.sku, reserved.credits, (slab, slot))?;
            if !claim::set(slab.words(), slot) {
                return Err(format!(
                    "card {}:{slot} goes to two orders",
                    slab.facts.slab
                ));
            }
        }
        if reserved.filled {
            // Its holder is that of the order that waited.
            same_holder(reserved.holder, 0)?;
            let hold = hold_of(lsn, stamp, reserved);
            return self.replay_filled_hold(lsn, reserved.order_id, &hold, hand);
        }
        match &self.orders {
            Orders::Indexed => {
                let promise = hand.promise(self, reserved.order_id);
                let promise = promise.ok_or("an order is dealt twice")?;
                let hold = hold_of(lsn, stamp, reserved);
                self.holders.promised(share_of_hold(reserved.holder, &hold));
                self.apply_reserved(lsn, stamp, reserved, promise, &mut hand.view);
            }
            Orders::Counted(counted) => {
                let fact = HeldFact {
                    order_id: reserved.order_id,
                    holder: reserved.holder,
                    lsn,
                    hold: hold_of(lsn, stamp, reserved),
                };
                let held = &mut lock(counted).held;
                if held.insert(reserved.order_id, fact).is_some() {
                    return Err("an order is dealt twice".into());
                }
            }
        }
        Ok(())
    }

    pub(super) fn replay_commit(
        &self,
        lsn: u64,
        unix_ms: u64,
        issued: &Issued<'_>,
        hand: &mut Hand,
    ) -> Result<(), String> {
        if issued.way == Way::LateCommit {
            take_cards(hand.catalog(), issued)?;
            match &self.orders {
                Orders::Indexed => {
                    same_holder(issued.holder, self.holders.of(issued.order_id))?;
                    let (claimed, _) = hand.claim(self, issued.order_id, is_expired)?;
                    let (catalog, view) = hand.parts();
                    self.holders.promised(share_of(issued));
                    self.apply_commit(catalog, (lsn, unix_ms), issued, claimed, None, view);
                }
                Orders::Counted(counted) => lock(counted).ended.add(lsn, &Ended::Issued(*issued)),
            }
            return Ok(());
        }
        check_cards(issued)?;
        for run in issued.runs.iter() {
            slab_of(hand.catalog(), issued.sku, &run)?;
        }
        let fits = |catalog: &Catalog, hold: &Hold| {
            let held = u32::from(issued.quantity) + u32::from(issued.fewer);
            let same = hold.sku == issued.sku && u32::from(hold.quantity()) == held;
            let bound = hold.card.is_none_or(|card| issued.cards().eq([card]));
            same && bound && left_over(catalog, hold.credits, issued).is_some()
        };
        let other = || "an order gets cards that it does not hold".to_owned();
        match &self.orders {
            Orders::Indexed => {
                let (claimed, hold) = hand.claim(self, issued.order_id, is_held)?;
                let hold = hold.filter(|hold| fits(hand.catalog(), hold));
                let hold = hold.ok_or_else(other)?;
                same_holder(issued.holder, self.holders.of(issued.order_id))?;
                bind(hand.catalog(), &hold, issued)?;
                let (catalog, view) = hand.parts();
                let when = (lsn, unix_ms);
                self.apply_commit(catalog, when, issued, claimed, Some(&hold), view);
            }
            Orders::Counted(counted) => {
                let mut counted = lock(counted);
                let fact = counted.held.remove(&issued.order_id).ok_or(NOT_HELD)?;
                if !fits(hand.catalog(), &fact.hold) {
                    return Err(other());
                }
                same_holder(issued.holder, fact.holder)?;
                bind(hand.catalog(), &fact.hold, issued)?;
                counted.ended.add(lsn, &Ended::Issued(*issued));
                let credits = fact.hold.credits;
                let back = left_over(hand.catalog(), credits, issued).ok_or_else(other)?;
                sku_of(hand.catalog(), issued.sku).keep_promise(credits, back);
            }
        }
        Ok(())
    }

    pub(super) fn replay_extended(
        &self,
        lsn: u64,
        stamp: Stamp,
        extended: &Extended,
        hand: &mut Hand,
    ) -> Result<(), String> {
        let fits = |hold: &Hold| {
            let next = hold.extensions + 1 == extended.nth && hold.waits.is_none();
            next && hold.sku == extended.sku
        };
        let other = || format!("extension {} is not the next one of its hold", extended.nth);
        match &self.orders {
            Orders::Indexed => {
                let (claimed, hold) = hand.claim(self, extended.order_id, is_held)?;
                let hold = hold.filter(fits).ok_or_else(other)?;
                self.apply_extended(lsn, stamp, extended, claimed, &hold);
            }
            Orders::Counted(counted) => {
                let held = &mut lock(counted).held;
                let fact = held.get_mut(&extended.order_id).ok_or(NOT_HELD)?;
                if !fits(&fact.hold) {
                    return Err(other());
                }
                fact.lsn = lsn;
                fact.hold = fact.hold.extended(stamp.unix_ms, extended.ttl_ms);
            }
        }
        Ok(())
    }

    pub(super) fn replay_released(
        &self,
        lsn: u64,
        released: &Released,
        hand: &mut Hand,
    ) -> Result<(), String> {
        let fits = |hold: &Hold| {
            let was_issue = hold.waits.is_some() && hold.is_issue();
            let same = hold.sku == released.sku && hold.quantity() == released.quantity;
            same && was_issue == released.was_issue
        };
        let other = || "an order gives back what it does not hold".to_owned();
        match &self.orders {
            Orders::Indexed => {
                let (claimed, hold) = hand.claim(self, released.order_id, OrderState::has_hold)?;
                let hold = hold.filter(fits).ok_or_else(other)?;
                same_holder(released.holder, self.holders.of(released.order_id))?;
                let (catalog, view) = hand.parts();
                self.apply_released(catalog, lsn, released, claimed, &hold, view);
            }
            Orders::Counted(counted) => {
                let mut counted = lock(counted);
                let fact = counted.held.remove(&released.order_id).ok_or(NOT_HELD)?;
                if !fits(&fact.hold) {
                    return Err(other());
                }
                same_holder(released.holder, fact.holder)?;
                counted.ended.add(lsn, &Ended::Released(*released));
                give_back(hand.catalog(), &fact.hold);
            }
        }
        Ok(())
    }

    /// Puts back an order that ended otherwise than by an issue. Of one that expired and was committed late the order files
    /// have both, and several threads may bring them in either order.
    pub(super) fn restore_ended(
        &self,
        lsn: u64,
        unix_ms: u64,
        ended: &Ended<'_>,
        hand: &mut Hand,
    ) -> Result<(), String> {
        let id = ended.order_id();
        let (state, quantity) = state_after(ended);
        if let Some(promise) = hand.promise(self, id) {
            match ended {
                Ended::Issued(issued) => {
                    let cards: Vec<(u32, u32)> = issued.cards().collect();
                    let cards = cards.into_iter();
                    self.index.put_many(promise.row, id, lsn, state, cards);
                    self.holders.promised(share_of(issued));
                    self.holders
                        .ended(share_of(issued), issued.quantity, unix_ms);
                }
                Ended::Released(released) => {
                    let settled = Settled::released(lsn, quantity, state);
                    self.index
                        .put_released(promise.row, id, row_of(released), settled);
                }
            }
            self.holders.begins(id, ended.holder(), promise.row);
            hand.view.publish(promise.place, promise.row);
            return Ok(());
        }
        match ended {
            Ended::Issued(issued) if issued.way == Way::LateCommit => {
                let (claimed, _) = hand.claim(self, id, is_expired)?;
                let (catalog, view) = hand.parts();
                self.holders.promised(share_of(issued));
                self.apply_commit(catalog, (lsn, unix_ms), issued, claimed, None, view);
                Ok(())
            }
            // Its late commit came first.
            Ended::Released(released) if released.why == Release::Expired => {
                match hand.view.look(self.index.hash(id)) {
                    Look::Known(there) if there.state.has_cards() && there.lsn > lsn => Ok(()),
                    _ => Err(TWICE.into()),
                }
            }
            _ => Err(TWICE.into()),
        }
    }

    /// Orders that hold cards or wait for some, by id. Only when none is in flight.
    pub(super) fn held(&self) -> Vec<HeldFact> {
        let mut all: Vec<HeldFact> = match &self.orders {
            Orders::Counted(_) if planted::is(Bug::ForgetHolds) => Vec::new(),
            Orders::Counted(counted) => lock(counted).held.values().cloned().collect(),
            Orders::Indexed => {
                let open = self.index.open_holds();
                open.map(|(order_id, settled, hold)| HeldFact {
                    order_id,
                    holder: self.holders.of(order_id),
                    lsn: settled.lsn,
                    hold,
                })
                .collect()
            }
        };
        all.sort_unstable_by_key(|fact| fact.order_id);
        all
    }

    /// Puts back an order that a checkpoint holds as holding cards, or waiting for some.
    pub(super) fn restore_held(&self, fact: &HeldFact, hand: &mut Hand) -> Result<(), String> {
        if fact.hold.waits.is_some() {
            return self.restore_waiting(fact, hand);
        }
        let (sku, credits) = (fact.hold.sku, fact.hold.credits);
        match fact.hold.card {
            None => take_credits(hand.catalog(), sku, credits)?,
            // Its bit is among those that were restored, so it is not counted as free.
            Some(card) => {
                let slab = bound_slab(hand.catalog(), sku, credits, card)?;
                if slab.status(card.1) != CardStatus::Issued {
                    return Err(format!("card {}:{} is held and is not", card.0, card.1));
                }
                sku_of(hand.catalog(), sku).promise(1);
            }
        }
        match &self.orders {
            Orders::Indexed => {
                let promise = hand.promise(self, fact.order_id).ok_or(TWICE)?;
                let places = &mut hand.view.places;
                self.index
                    .put_held(places, promise.row, fact.order_id, fact.lsn, &fact.hold);
                self.holders
                    .promised(share_of_hold(fact.holder, &fact.hold));
                self.holders.begins(fact.order_id, fact.holder, promise.row);
                hand.view.publish(promise.place, promise.row);
            }
            Orders::Counted(counted) => {
                lock(counted).held.insert(fact.order_id, fact.clone());
            }
        }
        Ok(())
    }
}

fn is_held(state: OrderState) -> bool {
    state == OrderState::Held
}

fn is_expired(state: OrderState) -> bool {
    state == OrderState::Expired
}

/// Takes the credits of a hold, as the dealer that made it has.
fn take_credits(catalog: &Catalog, number: u32, credits: Credits) -> Result<(), String> {
    let missing = || format!("a record holds cards of SKU {number}, which is not there");
    let sku = catalog.sku(number).ok_or_else(missing)?;
    let pools = sku.pools.load();
    for (pool, cards) in credits.iter() {
        let pool = pools.get(usize::from(pool)).ok_or_else(missing)?;
        if pool.take_credits(cards.into()) != u64::from(cards) {
            return Err(format!(
                "the count of free cards of SKU {number} falls below zero"
            ));
        }
    }
    sku.promise(credits.sum());
    Ok(())
}

/// Sets the bits of the cards that a commit binds, unless its hold had its card before.
fn bind(catalog: &Catalog, hold: &Hold, issued: &Issued<'_>) -> Result<(), String> {
    if hold.card.is_some() {
        return Ok(());
    }
    for run in issued.runs.iter() {
        let slab = slab_of(catalog, issued.sku, &run)?;
        for slot in run.slot..run.slot + run.count {
            if !claim::set(slab.words(), slot) {
                return Err(format!("card {}:{slot} goes to two orders", run.slab));
            }
        }
    }
    Ok(())
}

/// The slab of a bound card, which must be of the SKU and of the pool that the hold has its credit of.
fn bound_slab(
    catalog: &Catalog,
    sku: u32,
    credits: Credits,
    (slab, slot): (u32, u32),
) -> Result<&Arc<SlabState>, String> {
    let run = Run {
        slab,
        slot,
        count: 1,
        generation: 0,
    };
    let slab = slab_of(catalog, sku, &run)?;
    match credits.iter().eq([(slab.pool.index, 1)]) {
        true => Ok(slab),
        false => Err(format!(
            "card {}:{slot} is held from another pool",
            run.slab
        )),
    }
}

impl Hand {
    /// Claims an order that is as wanted, and reads its hold if it has one. Alone: nobody else changes it.
    pub(super) fn claim(
        &mut self,
        state: &State,
        id: u128,
        is_wanted: impl Fn(OrderState) -> bool,
    ) -> Result<(Claimed, Option<Hold>), String> {
        let Look::Known(settled) = self.view.look(state.index.hash(id)) else {
            return Err(NOT_HELD.into());
        };
        if !is_wanted(settled.state) {
            return Err(NOT_HELD.into());
        }
        let hold = match settled.state.has_hold() {
            true => state.index.hold(settled),
            false => None,
        };
        let claimed = state.index.claim_order(settled).ok_or(NOT_HELD)?;
        Ok((claimed, hold))
    }
}
