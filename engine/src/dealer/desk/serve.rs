//! The desk goes over a line: who of it can be filled, and in which order. docs/orders.md.

use croupier_protocol::{Priority, Step};

use super::Spare;
use super::lots::{Alike, Queue, pop};
use crate::dealer::holds::{Change, To};
use crate::dealer::{Dealer, cursor_of, take_slots};
use crate::order::{Order, Ticket};
use crate::state::SkuState;
use crate::state::index::{Hold, OrderState, Settled};
use crate::state::line::Waiter;
use crate::state::record::{Credits, HOLD_POOLS_MAX, issued_units, key_runs};

/// Orders of a line that may have left otherwise, besides as many as there are in it.
const STALE_MAX: u64 = 1024;

/// What became of an order in line.
enum Served {
    /// It waits no longer.
    Gone,
    /// It cannot be filled just now, for a reason of its own.
    Stays,
    /// There is no stock for it, nor for any order of its lot.
    Short,
    /// Somebody else is just where it is known whose it is, or another order comes first.
    Later,
    /// The turn has no room for its record, which takes so many units.
    NoRoom(usize),
}

/// How going over a line has ended.
pub(super) enum Gone {
    Over,
    /// It has to be done again.
    Again,
    /// As [`Again`](Gone::Again), and an order wants room for so many units.
    Wants(usize),
}

/// Where an order in line belongs.
enum Sorted {
    Lot(Alike),
    Gone,
    /// Somebody is just changing it.
    Changing,
    Later,
}

impl Dealer {
    /// Goes over the line of a SKU. `sorts`: how many orders may be sorted into lots.
    pub(super) fn serve(
        &mut self,
        number: u32,
        queue: &mut Queue,
        now: u64,
        spare: &mut Spare,
        sorts: &mut usize,
    ) -> Gone {
        let Some(sku) = self.resolver.catalog().sku(number).cloned() else {
            return Gone::Over;
        };
        sku.line.answer_call();
        queue.gather(&sku.line);
        let Some(grown) = sku.line.begin_look() else {
            return Gone::Again;
        };
        // Those whose LSNs came before that look.
        queue.gather(&sku.line);
        if queue.orders() as u64 > 2 * sku.line.orders() + STALE_MAX {
            queue.retain(|order| self.waits(*order).is_some());
        }
        let over = self.serve_line(&sku, queue, now, spare, sorts);
        if matches!(over, Gone::Over) {
            sku.line.end_look(grown);
        }
        over
    }

    fn serve_line(
        &mut self,
        sku: &SkuState,
        queue: &mut Queue,
        now: u64,
        spare: &mut Spare,
        sorts: &mut usize,
    ) -> Gone {
        if let Some(over) = self.serve_preferred(sku, now, spare) {
            return over;
        }
        if sku.pools.load().iter().all(|pool| pool.available() == 0) {
            return Gone::Over;
        }
        if !self.sort(sku.sku, queue, sorts) {
            return Gone::Again;
        }
        let mut fronts = queue.fronts(|alike| self.has_stock(sku.sku, alike, now));
        while let Some(front) = pop(&mut fronts) {
            // Those before it may have taken what there was.
            if !self.has_stock(sku.sku, &front.alike, now) {
                continue;
            }
            let served = self.serve_one(sku.sku, front.order, false, now, spare);
            if let Some(over) = over(&served) {
                return over;
            }
            let next = queue.behind(&front);
            match served {
                Served::Short => continue,
                Served::Gone => queue.remove(&front),
                _ => {}
            }
            fronts.extend(next);
        }
        Gone::Over
    }

    /// Orders that come before all others, if there is stock for them just now; then they have had their turn.
    fn serve_preferred(&mut self, sku: &SkuState, now: u64, spare: &mut Spare) -> Option<Gone> {
        while let Some(order) = sku.line.next_preferred() {
            let served = match self.lot_of(sku.sku, order) {
                Sorted::Lot(alike) if self.has_stock(sku.sku, &alike, now) => {
                    self.serve_one(sku.sku, order, true, now, spare)
                }
                Sorted::Later => Served::Later,
                Sorted::Lot(_) | Sorted::Gone | Sorted::Changing => continue,
            };
            if let Some(over) = over(&served) {
                sku.line.prefer(order.row, order.lsn);
                return Some(over);
            }
        }
        None
    }

    /// Sorts orders into lots; false: not all of them yet.
    fn sort(&mut self, sku: u32, queue: &mut Queue, sorts: &mut usize) -> bool {
        queue.renumber(self.resolver.numbering());
        while let Some(order) = queue.next_unsorted() {
            if *sorts == 0 {
                queue.put_back(order);
                return false;
            }
            *sorts -= 1;
            match self.lot_of(sku, order) {
                Sorted::Lot(alike) => queue.put(alike, order),
                Sorted::Gone => {}
                Sorted::Changing => queue.put_off(order),
                Sorted::Later => {
                    queue.put_back(order);
                    return false;
                }
            }
        }
        true
    }

    fn lot_of(&mut self, sku: u32, order: Waiter) -> Sorted {
        self.desk_looks += 1;
        let Some((id, settled)) = self.waits(order) else {
            return Sorted::Gone;
        };
        let Some(hold) = self.state.index.hold(settled) else {
            return Sorted::Changing;
        };
        let Some(holder) = self.state.holders.try_of(id) else {
            return Sorted::Later;
        };
        let like = like((id, holder), sku, &hold);
        Sorted::Lot(Alike {
            priority: like.priority as u8,
            way: self.resolver.way(&like.asked()).way,
            is_issue: hold.is_issue(),
            quantity: like.quantity,
        })
    }

    /// Whether the pools that orders of a lot are dealt from have enough for one of them.
    fn has_stock(&mut self, sku: u32, alike: &Alike, now: u64) -> bool {
        let priority = priority_of(alike.priority);
        let Some(to) = self.resolver.resolved(sku, priority, alike.way) else {
            return false;
        };
        let pools_max = match alike.is_issue {
            true => usize::MAX,
            false => HOLD_POOLS_MAX,
        };
        let pools = to.pools.iter().take(pools_max);
        let good = pools.filter(|pool| pool.is_good(now));
        let free: u64 = good.map(|pool| pool.available()).sum();
        free >= alike.quantity.into()
    }

    /// The order in line, if it still waits there.
    fn waits(&self, order: Waiter) -> Option<(u128, Settled)> {
        let found = self.state.index.order_of(order.row);
        found
            .filter(|(_, settled)| settled.state == OrderState::Waiting && settled.lsn == order.lsn)
    }

    /// Fills an order, if it can be.
    fn serve_one(
        &mut self,
        sku: u32,
        order: Waiter,
        is_preferred: bool,
        now: u64,
        spare: &mut Spare,
    ) -> Served {
        self.desk_looks += 1;
        let Some((id, settled)) = self.waits(order) else {
            return Served::Gone;
        };
        // Else its end, or whatever else becomes of it, is just being recorded.
        let Some(hold) = self.state.index.hold(settled) else {
            return Served::Stays;
        };
        let quantity = settled.quantity;
        if hold.ends_unix_ms <= now {
            return Served::Stays;
        }
        let Some(holder) = self.state.holders.try_of(id) else {
            return Served::Later;
        };
        let units = match hold.is_issue() {
            true => issued_units(usize::from(quantity) + key_runs(holder)),
            false => 1,
        };
        // One order alone may be larger than a turn.
        if units > spare.units && !spare.is_whole {
            return Served::NoRoom(units);
        }
        // Of a hold: counted twice until it is promised below, so that nobody gets more meanwhile.
        let state = match hold.is_issue() {
            true => None,
            false => self.resolver.catalog().sku(sku).cloned(),
        };
        let granted = state
            .as_ref()
            .and_then(|state| state.promise_share(quantity.into()));
        let unpromise = || {
            if let (Some(state), Some(granted)) = (&state, granted) {
                state.unpromise(granted);
            }
        };
        if granted.is_some_and(|granted| granted < quantity.into()) {
            unpromise();
            return Served::Short;
        }
        let Some(claimed) = self.state.index.claim_order(settled) else {
            unpromise();
            return Served::Stays;
        };
        let like = like((id, holder), sku, &hold);
        let taken = self.take_credits(now, &like, quantity.into());
        let got: u64 = self.credits.iter().map(|(_, got, _)| got).sum();
        // Behind the credits: they may have come for somebody who is to be looked at first.
        let pool = self.credits.first().map(|(pool, ..)| pool);
        let later = !is_preferred && pool.is_some_and(|pool| pool.line.has_preferred());
        if later || taken.is_err() || got < quantity.into() {
            for (pool, got, _) in self.credits.drain(..) {
                pool.return_credits(got);
            }
            self.state.index.let_go(claimed);
            unpromise();
            return if later { Served::Later } else { Served::Short };
        }
        spare.take_all(units);
        let to = if hold.is_issue() {
            let begin = self.bound.len() as u32;
            for (pool, got, _) in self.credits.drain(..) {
                let cursor = cursor_of(&mut self.cursors, &pool);
                take_slots(&pool, cursor, got as u32, &mut self.bound);
            }
            To::Cards {
                bound: begin..self.bound.len() as u32,
                fewer: 0,
            }
        } else {
            let mut credits = Credits::default();
            debug_assert!(self.credits.len() <= HOLD_POOLS_MAX);
            for ((pool, got, _), part) in self.credits.drain(..).zip(&mut credits.0) {
                *part = (pool.index, got as u16);
            }
            if let Some(state) = &state {
                state.promise(quantity.into());
            }
            unpromise();
            To::Hold(credits)
        };
        self.changes.push(Change {
            nth: None,
            id,
            holder,
            sku,
            claimed,
            hold: Some(hold),
            to,
        });
        Served::Gone
    }
}

/// Why the rest of the line has to be gone over in another turn.
fn over(served: &Served) -> Option<Gone> {
    match served {
        Served::Later => Some(Gone::Again),
        Served::NoRoom(units) => Some(Gone::Wants(*units)),
        Served::Gone | Served::Stays | Served::Short => None,
    }
}

fn priority_of(number: u8) -> Priority {
    Priority::try_from(number).expect("as it came")
}

/// An order like one that waits.
fn like((id, holder): (u128, u128), sku: u32, hold: &Hold) -> Order {
    let (priority, tag) = hold
        .waits
        .map_or((0, 0), |waits| (waits.priority, waits.tag));
    let step = match hold.is_issue() {
        true => Step::Issue,
        false => Step::Reserve,
    };
    let order = Order {
        priority: priority_of(priority),
        holder,
        step,
        ..Order::issue(id, sku, hold.quantity(), Ticket::single(0, 0))
    };
    order.tagged(tag)
}
