//! Orders that wait for stock, and what becomes of them: docs/orders.md. In halves, as [`held`](super::held) has it.

use super::apply::{Orders, Promise, State, TWICE, lock, share_of, take_cards};
use super::catalog::{Catalog, SkuState};
use super::held::{HeldFact, same_holder, share_of_hold};
use super::holders::Share;
use super::index::{Claimed, Hold, IndexView, OrderState, Settled, Waits};
use super::line::Waiter;
use super::record::{Backordered, Credits, Ended, Issued, Retried, Stamp, Tried};
use super::replay::Hand;

const NOT_WAITING: &str = "a record fills an order that does not wait";

const NOT_TRIED: &str = "a record tries an order that does not wait";

fn waits_of(lsn: u64, stamp: Stamp, backordered: &Backordered) -> Hold {
    Hold {
        sku: backordered.sku,
        credits: Credits::default(),
        card: None,
        fewer: 0,
        waits: Some(Waits {
            quantity: backordered.quantity,
            priority: backordered.priority,
            tag: backordered.tag,
            tried: Tried::default(),
        }),
        reserved_lsn: lsn,
        reserved_unix_ms: stamp.unix_ms,
        ttl_ms: backordered.ttl_ms,
        extensions: 0,
        extended_ttl_ms: 0,
        ends_unix_ms: backordered.ends_unix_ms,
    }
}

fn sku_of(catalog: &Catalog, sku: u32) -> Result<&SkuState, String> {
    let missing = || format!("an order waits for SKU {sku}, which is not there");
    catalog.sku(sku).map(|sku| &**sku).ok_or_else(missing)
}

/// The second halves.
impl State {
    /// Has the desk look at all lines.
    pub fn call_desk(&self) {
        for sku in &self.catalog.load().skus {
            let told = sku.line.stock_comes();
            sku.line.stock_came(told);
        }
    }

    /// An order that is counted among those that wait, and whose place has been taken, waits.
    pub fn apply_backordered(
        &self,
        catalog: &Catalog,
        lsn: u64,
        stamp: Stamp,
        backordered: &Backordered,
        promise: Promise,
        view: &mut IndexView,
    ) -> (Settled, Hold) {
        let hold = waits_of(lsn, stamp, backordered);
        let fact = HeldFact {
            order_id: backordered.order_id,
            holder: backordered.holder,
            lsn,
            hold,
        };
        (self.put_waiting(catalog, &fact, promise, view), hold)
    }

    fn put_waiting(
        &self,
        catalog: &Catalog,
        fact: &HeldFact,
        promise: Promise,
        view: &mut IndexView,
    ) -> Settled {
        let Promise { place, row } = promise;
        let (id, lsn, hold) = (fact.order_id, fact.lsn, &fact.hold);
        let settled = self.index.put_held(&mut view.places, row, id, lsn, hold);
        self.holders.begins(id, fact.holder, row);
        view.publish(place, row);
        let line = &catalog.sku(hold.sku).expect("it was counted there").line;
        line.join(Waiter { lsn, row });
        settled
    }

    /// A claimed order that waits was tried in vain, or is to be tried again; `hold` is what was claimed.
    pub fn apply_retried(&self, retried: &Retried, hold: &Hold, claimed: Claimed) {
        self.index.note_tried(claimed, &tried(hold, retried));
    }

    /// A claimed order that waited, and whose cards have been taken, gets them.
    pub fn apply_filled(
        &self,
        catalog: &Catalog,
        (lsn, unix_ms): (u64, u64),
        issued: &Issued<'_>,
        claimed: Claimed,
        view: &mut IndexView,
    ) -> Settled {
        let waited = Share {
            is_open: true,
            ..share_of(issued)
        };
        self.holders.ended(waited, issued.quantity, unix_ms);
        let cards: Vec<_> = issued.cards().collect();
        let settled = self.index.end_with(
            &mut view.places,
            claimed,
            lsn,
            OrderState::Issued,
            cards.into_iter(),
        );
        leave_line(catalog, issued.sku, issued.order_id);
        settled
    }

    /// A claimed order that waited, and whose credits have been taken, holds cards.
    pub fn apply_filled_hold(
        &self,
        catalog: &Catalog,
        lsn: u64,
        id: u128,
        hold: &Hold,
        claimed: Claimed,
    ) -> Settled {
        let settled = self.index.change_hold(claimed, lsn, hold);
        leave_line(catalog, hold.sku, id);
        settled
    }
}

fn tried(hold: &Hold, retried: &Retried) -> Hold {
    let waits = hold.waits.map(|waits| Waits {
        tried: retried.tried,
        ..waits
    });
    Hold { waits, ..*hold }
}

/// An order waits no longer.
pub(super) fn leave_line(catalog: &Catalog, sku: u32, id: u128) {
    let sku = catalog.sku(sku).expect("an order waited for it");
    sku.line.leave(id);
}

/// From records.
impl State {
    pub(super) fn replay_backordered(
        &self,
        lsn: u64,
        stamp: Stamp,
        backordered: &Backordered,
        hand: &mut Hand,
    ) -> Result<(), String> {
        self.restore_waiting(
            &HeldFact {
                order_id: backordered.order_id,
                holder: backordered.holder,
                lsn,
                hold: waits_of(lsn, stamp, backordered),
            },
            hand,
        )
    }

    pub(super) fn replay_retried(&self, retried: &Retried, hand: &mut Hand) -> Result<(), String> {
        let fits = |hold: &Hold| hold.waits.is_some() && hold.sku == retried.sku;
        match &self.orders {
            Orders::Indexed => {
                let id = retried.order_id;
                let (claimed, hold) = hand.claim(self, id, |state| state == OrderState::Waiting)?;
                let hold = hold.filter(fits).ok_or(NOT_TRIED)?;
                self.apply_retried(retried, &hold, claimed);
            }
            Orders::Counted(counted) => {
                let held = &mut lock(counted).held;
                let fact = held.get_mut(&retried.order_id);
                let fact = fact.filter(|fact| fits(&fact.hold)).ok_or(NOT_TRIED)?;
                fact.hold = tried(&fact.hold, retried);
            }
        }
        Ok(())
    }

    pub(super) fn replay_filled(
        &self,
        lsn: u64,
        unix_ms: u64,
        issued: &Issued<'_>,
        hand: &mut Hand,
    ) -> Result<(), String> {
        take_cards(hand.catalog(), issued)?;
        let fits = |hold: &Hold| {
            let same = hold.sku == issued.sku && hold.quantity() == issued.quantity;
            same && hold.waits.is_some() && hold.is_issue()
        };
        match &self.orders {
            Orders::Indexed => {
                let (claimed, hold) =
                    hand.claim(self, issued.order_id, |state| state == OrderState::Waiting)?;
                hold.filter(fits).ok_or(NOT_WAITING)?;
                same_holder(issued.holder, self.holders.of(issued.order_id))?;
                let (catalog, view) = hand.parts();
                self.apply_filled(catalog, (lsn, unix_ms), issued, claimed, view);
            }
            Orders::Counted(counted) => {
                let mut counted = lock(counted);
                let fact = counted.held.remove(&issued.order_id);
                let fact = fact.filter(|fact| fits(&fact.hold)).ok_or(NOT_WAITING)?;
                same_holder(issued.holder, fact.holder)?;
                counted.ended.add(lsn, &Ended::Issued(*issued));
            }
        }
        Ok(())
    }

    /// `hold`, whose credits have been taken, is what an order that waited becomes.
    pub(super) fn replay_filled_hold(
        &self,
        lsn: u64,
        id: u128,
        hold: &Hold,
        hand: &mut Hand,
    ) -> Result<(), String> {
        let fits = |waited: &Hold| {
            let same = waited.sku == hold.sku && waited.quantity() == hold.quantity();
            same && waited.waits.is_some() && waited.ttl_ms == hold.ttl_ms
        };
        match &self.orders {
            Orders::Indexed => {
                let (claimed, waited) =
                    hand.claim(self, id, |state| state == OrderState::Waiting)?;
                waited.filter(fits).ok_or(NOT_WAITING)?;
                let (catalog, _) = hand.parts();
                self.apply_filled_hold(catalog, lsn, id, hold, claimed);
            }
            Orders::Counted(counted) => {
                let held = &mut lock(counted).held;
                let fact = held.get_mut(&id).filter(|fact| fits(&fact.hold));
                let fact = fact.ok_or(NOT_WAITING)?;
                fact.lsn = lsn;
                fact.hold = *hold;
            }
        }
        Ok(())
    }

    /// An order waits: by its record, or as a checkpoint holds it.
    pub(super) fn restore_waiting(&self, fact: &HeldFact, hand: &mut Hand) -> Result<(), String> {
        sku_of(hand.catalog(), fact.hold.sku)?;
        if fact.hold.quantity() == 0 {
            return Err("an order waits for no card".into());
        }
        match &self.orders {
            Orders::Indexed => {
                let promise = hand.promise(self, fact.order_id).ok_or(TWICE)?;
                let (catalog, view) = hand.parts();
                // As the dealer that had it wait has counted it; nobody looks while a log is read.
                sku_of(catalog, fact.hold.sku)?.line.count_again();
                self.holders
                    .promised(share_of_hold(fact.holder, &fact.hold));
                self.put_waiting(catalog, fact, promise, view);
            }
            Orders::Counted(counted) => {
                let held = &mut lock(counted).held;
                if held.insert(fact.order_id, fact.clone()).is_some() {
                    return Err(TWICE.into());
                }
            }
        }
        Ok(())
    }
}
