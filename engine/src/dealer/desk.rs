//! Orders that wait for stock, and the desk where they are filled: docs/orders.md.

mod lots;
mod serve;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use croupier_protocol::{Refusal, STEP_FLAG_STAY, STEP_FLAG_WAIT, Step};

use super::caps::no_share;
use super::holds::{Answer, Change, decided, units_of_end};
use super::{Dealer, Spare, outcome, refused, retry_after};
use crate::order::{FLAG_FIRST, Order, Outcome, Verdict};
use crate::state::Promise;
use crate::state::index::{Claim, Hold, OrderState, Place, Settled};
use crate::state::line::Desk;
use crate::state::record::{Backordered, Credits, Reserved, Stamp, about_units};
use lots::Queue;
use serve::Gone;

/// How long an ask stays before it is told that its order still waits. Callers ask again, and those that are gone cost no
/// more than that.
const STAY_MS: u64 = 5000;
/// Asks that stay at a time, those counted that have stayed for less than [`STAY_MS`] and do no more.
const STAYING_MAX: usize = 65_536;
/// Orders in line that a turn sorts into lots.
const SORTS_MAX: usize = 4096;

/// What the dealer that keeps the desk knows of the lines.
pub(super) struct DeskKept {
    desk: Arc<Desk>,
    lines: BTreeMap<u32, Queue>,
    /// SKUs whose lines are to be looked at.
    pending: BTreeSet<u32>,
    /// Units that an order wants which found no room in the last turn.
    wants: usize,
    /// Asks that stay, by order, and until when.
    staying: HashMap<u128, Vec<(u64, u8, Order)>>,
    asks: usize,
    /// When asks have stayed long enough: each stays as long as every other. Those of asks that have gone are among them.
    until: VecDeque<(u64, u128)>,
}

impl DeskKept {
    pub(super) fn new(desk: Arc<Desk>) -> DeskKept {
        DeskKept {
            desk,
            lines: BTreeMap::new(),
            pending: BTreeSet::new(),
            wants: 0,
            staying: HashMap::new(),
            asks: 0,
            until: VecDeque::new(),
        }
    }

    /// Whether there is something to do.
    pub(super) fn is_due(&self, now: u64) -> bool {
        let late = self.until.front().is_some_and(|(until, _)| *until <= now);
        late || self.has_calls()
    }

    fn has_calls(&self) -> bool {
        let called = self.desk.is_called() || self.desk.has_left() || self.desk.has_ends();
        called || !self.pending.is_empty()
    }

    /// When there will be.
    pub(super) fn next_unix_ms(&self) -> Option<u64> {
        if self.has_calls() {
            return Some(0);
        }
        self.until.front().map(|(until, _)| *until)
    }

    /// An ask stays; false: too many do.
    fn stay(&mut self, now: u64, (lane, order): (u8, Order)) -> bool {
        if self.until.len() >= STAYING_MAX {
            return false;
        }
        let until = now + STAY_MS;
        let asks = self.staying.entry(order.id).or_default();
        asks.push((until, lane, order));
        self.until.push_back((until, order.id));
        self.asks += 1;
        self.desk.stay();
        true
    }

    /// The asks about an order stay no longer: they are dealt again, and told what there is to tell.
    fn let_go(&mut self, id: u128, again: &mut Vec<(u8, Order)>) {
        self.let_go_by(u64::MAX, id, again);
    }

    /// Those of them that were to stay until then.
    fn let_go_by(&mut self, until: u64, id: u128, again: &mut Vec<(u8, Order)>) {
        let Some(asks) = self.staying.get_mut(&id) else {
            return;
        };
        // In the order in which they came.
        let gone = asks.partition_point(|(stays, ..)| *stays <= until);
        again.extend(asks.drain(..gone).map(|(_, lane, order)| (lane, order)));
        if asks.is_empty() {
            self.staying.remove(&id);
        }
        self.asks -= gone;
        self.desk.go(gone as u64);
    }
}

/// What an ask is told whose order waits.
pub(super) fn waiting(settled: Settled, hold: &Hold, repeat: bool) -> Verdict {
    Verdict::Waiting {
        lsn: settled.lsn,
        quantity: settled.quantity,
        ends_unix_ms: hold.ends_unix_ms,
        repeat,
    }
}

/// An order that is to wait, and has its id.
pub(super) struct Backorder {
    place: Place,
    lane: u8,
    /// As it waits: until its deadline.
    order: Order,
}

/// The record by which an order waits.
pub(super) fn waits(Backorder { lane, order, .. }: &Backorder) -> Backordered {
    Backordered {
        order_id: order.id,
        holder: order.holder,
        sku: order.sku,
        principal: 0,
        quantity: order.quantity,
        priority: order.priority as u8,
        lane: *lane,
        ttl_ms: match order.step {
            Step::Reserve => order.ttl_ms,
            _ => 0,
        },
        ends_unix_ms: order.deadline_unix_ms,
        tag: order.tag(),
    }
}

/// The record by which an order that waited holds cards.
pub(super) fn filled_hold(change: &Change, credits: Credits) -> Reserved {
    let hold = change.hold.expect("it waited");
    let priority = hold.waits.map_or(0, |waits| waits.priority);
    Reserved {
        order_id: change.id,
        // That of the order that waited.
        holder: 0,
        sku: change.sku,
        principal: 0,
        quantity: hold.quantity(),
        priority,
        lane: priority,
        ttl_ms: hold.ttl_ms,
        filled: true,
        fewer: 0,
        credits,
        card: None,
    }
}

impl Dealer {
    /// An order whose route has channels outside waits, whether it says so or not, and its ask stays: docs/channels.md. One that
    /// takes a part takes what there is.
    pub(super) fn accepted(&mut self, now: u64, order: &Order) -> Order {
        if order.may_wait() || order.takes_part() {
            return *order;
        }
        let resolved = self.resolver.resolve(&order.asked());
        let accepts_ms = resolved.map_or(0, |target| target.accepts_ms);
        if accepts_ms == 0 {
            return *order;
        }
        let keep_ms = accepts_ms.min(self.limits.wait_max_ms.into());
        Order {
            deadline_unix_ms: order.deadline_unix_ms.min(now + keep_ms),
            flags: order.flags | STEP_FLAG_WAIT | STEP_FLAG_STAY,
            ..*order
        }
    }

    /// A new order finds no stock: it waits, if it may.
    pub(super) fn out_of_stock(
        &mut self,
        now: u64,
        cannot_record: Option<Refusal>,
        orders: &[(u8, Order)],
        (nth, seen): (u16, Option<Place>),
        out: &mut Vec<Outcome>,
    ) {
        let (lane, order) = &orders[usize::from(nth)];
        let order = &self.accepted(now, order);
        match self.open_cap(nth, order) {
            Some(Ok(())) => {}
            Some(Err(no)) => return out.push(no_share(order, no)),
            None => return self.deferred.push((*lane, *order)),
        }
        let sku = self.resolver.catalog().sku(order.sku);
        let Some(sku) = sku.filter(|_| order.may_wait()) else {
            let refusal = self.no_stock(order);
            out.push(refused(order, refusal, retry_after(refusal)));
            return;
        };
        if !sku.line.count(1) {
            self.deferred.push((*lane, *order));
            return;
        }
        let claim = self.index.claim(self.hashes[usize::from(nth)], seen);
        let Claim::Ours(place) = claim else {
            sku.line.discount(1);
            match claim {
                Claim::Known(settled) => {
                    self.tell_known(now, cannot_record, (*lane, order), settled, out);
                }
                _ => self.deferred.push((*lane, *order)),
            }
            return;
        };
        self.use_cap(nth, order, order.quantity);
        self.count(order, 1);
        self.backordered.push(Backorder {
            place,
            lane: *lane,
            order: *order,
        });
    }

    /// What an order is told that finds no stock: in a moment there is some, or not.
    pub(super) fn no_stock(&mut self, order: &Order) -> Refusal {
        let target = self.resolver.resolve(&order.asked());
        match target.is_ok_and(|target| target.pools.iter().any(|pool| pool.grows())) {
            true => Refusal::Busy,
            false => Refusal::OutOfStock,
        }
    }

    /// An issue or a reserve again, of an order that waits.
    pub(super) fn wait_again(&self, order: &Order, settled: Settled) -> Answer {
        let Some(hold) = self.state.index.hold(settled) else {
            return Answer::Later;
        };
        let step = match hold.is_issue() {
            true => Step::Issue,
            false => Step::Reserve,
        };
        let same_ttl = step == Step::Issue || order.ttl_ms == hold.ttl_ms;
        let asked = (order.step, order.sku, order.quantity);
        if asked != (step, hold.sku, settled.quantity) || !same_ttl {
            return decided(Refusal::OrderIdReused, settled);
        }
        let repeat = order.flags & FLAG_FIRST == 0;
        Answer::Told(waiting(settled, &hold, repeat))
    }

    /// Tells an ask that its order waits, or has it stay.
    pub(super) fn tell_waiting(
        &mut self,
        now: u64,
        cannot_record: Option<Refusal>,
        (lane, order): (u8, &Order),
        verdict: Verdict,
        out: &mut Vec<Outcome>,
    ) {
        let stays = order.stays() && cannot_record.is_none();
        if !stays {
            out.push(outcome(order, verdict));
            return;
        }
        let Some(desk) = &mut self.desk else {
            self.staying.push((lane, *order));
            return;
        };
        if !desk.stay(now, (lane, *order)) {
            out.push(outcome(order, verdict));
            return;
        }
        // It may have left the line before it was known that somebody stays for it.
        let index = &self.state.index;
        let still = index.get(index.hash(order.id));
        if still.is_none_or(|still| still.state != OrderState::Waiting) {
            desk.let_go(order.id, &mut self.deferred);
        }
    }

    /// Applies the records of orders that wait from now on.
    pub(super) fn apply_backordered(
        &mut self,
        lsn: &mut u64,
        stamp: Stamp,
        out: &mut Vec<Outcome>,
    ) {
        if self.backordered.is_empty() {
            return;
        }
        let mut backordered = std::mem::take(&mut self.backordered);
        let rows = self.state.index.take_rows(backordered.len() as u64);
        for (row, backorder) in (rows..).zip(backordered.drain(..)) {
            let promise = Promise {
                place: backorder.place,
                row,
            };
            let waits = waits(&backorder);
            let catalog = self.resolver.catalog();
            let view = &mut self.index;
            let (settled, hold) = self
                .state
                .apply_backordered(catalog, *lsn, stamp, &waits, promise, view);
            self.timers.add(hold.ends_unix_ms, row);
            *lsn += about_units(waits.holder) as u64;
            let Backorder { lane, order, .. } = backorder;
            let order = Order {
                flags: order.flags | FLAG_FIRST,
                ..order
            };
            let verdict = waiting(settled, &hold, false);
            self.tell_waiting(stamp.unix_ms, None, (lane, &order), verdict, out);
        }
        self.backordered = backordered;
    }

    /// Units of the log that are wanted for what there is to do without orders; 0: nothing. `cannot_record` is as for
    /// [`turn`](Self::turn).
    pub fn units_due(&self, now_unix_ms: u64, cannot_record: Option<Refusal>) -> usize {
        if cannot_record.is_some() {
            return usize::from(self.has_staying());
        }
        let desk = self.desk.as_ref().filter(|desk| desk.is_due(now_unix_ms));
        let wanted = desk.map_or(0, |desk| desk.wants.max(1));
        let ends = usize::from(self.timers.is_due(now_unix_ms));
        wanted.max(ends * units_of_end(&self.state.holders))
    }

    /// How often the desk that is kept here has looked at an order in line.
    pub fn desk_looks(&self) -> u64 {
        self.desk_looks
    }

    /// Whether a line calls for the desk that is kept here.
    pub fn has_calls(&self) -> bool {
        self.desk.as_ref().is_some_and(DeskKept::has_calls)
    }

    /// Whether asks stay here until their orders wait no longer.
    pub fn has_staying(&self) -> bool {
        self.desk.as_ref().is_some_and(|desk| desk.asks > 0)
    }

    /// Nothing new can be dealt: nobody stays for it.
    pub(super) fn let_all_go(&mut self) {
        if let Some(desk) = &mut self.desk {
            for id in desk.staying.keys().copied().collect::<Vec<_>>() {
                desk.let_go(id, &mut self.deferred);
            }
        }
    }

    /// At the desk: fills orders that wait, and lets asks go that have stayed long enough.
    pub(super) fn fill(&mut self, now: u64, spare: &mut Spare) {
        let Some(mut desk) = self.desk.take() else {
            return;
        };
        while let Some((ends_unix_ms, row)) = desk.desk.next_end() {
            self.timers.add(ends_unix_ms, row);
        }
        while let Some(id) = desk.desk.next_left() {
            desk.let_go(id, &mut self.deferred);
        }
        while let Some((until, id)) = desk.until.pop_front_if(|(until, _)| *until <= now) {
            let begin = self.deferred.len();
            desk.let_go_by(until, id, &mut self.deferred);
            for (_, order) in &mut self.deferred[begin..] {
                order.flags &= !croupier_protocol::STEP_FLAG_STAY;
            }
        }
        while let Some(sku) = desk.desk.next_call() {
            desk.pending.insert(sku);
        }
        // Holds that end take their share, unless an order wants all there is.
        let kept = match std::mem::take(&mut desk.wants) {
            0 => spare.units / 2,
            _ => 0,
        };
        spare.units -= kept;
        spare.is_whole &= kept == 0;
        let mut sorts = SORTS_MAX;
        for sku in std::mem::take(&mut desk.pending) {
            let queue = desk.lines.entry(sku).or_default();
            match self.serve(sku, queue, now, spare, &mut sorts) {
                Gone::Over => {}
                Gone::Again => {
                    desk.pending.insert(sku);
                }
                Gone::Wants(units) => {
                    desk.wants = desk.wants.max(units);
                    desk.pending.insert(sku);
                }
            }
        }
        spare.units += kept;
        self.desk = Some(desk);
    }
}
