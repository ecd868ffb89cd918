//! The dealer: orders in, cards promised, records written, verdicts out.
//!
//! Plain synchronous code without I/O and without a clock, so that a simulator can run it. One dealer per core; all share
//! the state. A *turn* deals a batch: it brings the orders of a SKU and priority together (the higher priority first),
//! looks every order up, takes credits for all new ones of a group at once, claims their ids, claims their slots in one
//! go, appends all records as one batch, and applies them with the LSNs they got.
//!
//! Order of deeds for one order, and why:
//! 1. look-up first, so that a repeat takes nothing;
//! 2. credits next: an empty SKU is refused before the order leaves any trace;
//! 3. then the id: from here on there is no way to refuse, and none is needed, because
//! 4. a slot certainly exists for every credit;
//! 5. the record gets its LSN, and only then the index tells what the order got.

mod again;
mod caps;
mod desk;
pub mod holds;
mod linked;

use std::ops::Range;
use std::sync::Arc;

use caps::Capped;
use croupier_protocol::planted::{self, Bug};
use croupier_protocol::{Refusal, Step};
use desk::{Backorder, DeskKept};
use holds::{Change, Putting};

use crate::config::{Config, DATA_DEFAULT};
use crate::engine::SKUS_MAX;
use crate::linked::Chain;
use crate::order::{Order, Outcome, Verdict};
use crate::route::{NoTarget, RouteCell, Router, Taken, Trial, WAY_BITS};
use crate::slab::claim;
use crate::state::index::{Claim, Hashed, IndexView, Look, Place};
use crate::state::record::{
    HOLD_POOLS_MAX, Issued, Run, Runs, Stamp, Way, about_units, issued_units, key_runs, put_issued,
};
use crate::state::{Catalog, Pool, Promise, State};
use crate::timers::Timers;

/// Where a dealer's records go.
pub trait Append {
    /// Appends whole units and returns the LSN of the first; `None` when there is no room.
    fn append(&self, units: &[u64]) -> Option<u64>;

    /// Most units of an append, but for one order that alone has more.
    fn units_max(&self) -> usize;
}

impl Append for crate::wal::Log {
    fn append(&self, units: &[u64]) -> Option<u64> {
        crate::wal::Log::append(self, units)
    }

    fn units_max(&self) -> usize {
        self.append_units_max() as usize
    }
}

/// Most orders of a turn.
pub const TURN_ORDERS_MAX: usize = 1024;
const _: () = assert!(TURN_ORDERS_MAX <= 1 << 16, "a group counts them in 16 bits");

/// Units that an order may need at most, as far as is known.
pub fn units_at_most(order: &Order) -> usize {
    match order.step {
        Step::Issue => issued_units(usize::from(order.quantity) + key_runs(order.holder)),
        Step::Commit => issued_units(order.quantity.max(order.cards_at_most()).into()),
        Step::Reserve => about_units(order.holder),
        Step::Cancel => 1 + usize::from(order.cards_at_most()),
        Step::Extend => 1,
    }
}

/// Bits of a group below its priority: the way, and how its orders are dealt.
const KIND_BITS: u32 = WAY_BITS + 2;
const _: () = assert!(
    (SKUS_MAX as u64) < 1 << (48 - 2 - KIND_BITS),
    "a group is 48 bits"
);

/// An order of a turn by its group, and within it by when it came; in one word, because turns sort them. A group are issues,
/// reserves, or reserves of a part, of one SKU and priority, that go the same way. Steps of orders that must be there already name no SKU, and come first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Grouped(u64);

impl Grouped {
    fn of(order: &Order, way: u16, nth: u16) -> Grouped {
        let how = match order.step {
            Step::Reserve if order.takes_part() => 2,
            Step::Reserve => 1,
            Step::Issue | Step::Commit | Step::Cancel | Step::Extend => 0,
        };
        // The higher priority first, whichever way it goes.
        let priority = (order.priority as u64) << KIND_BITS;
        let sku = u64::from(order.sku) << (KIND_BITS + 2);
        let group = sku | priority | u64::from(way) << 2 | how;
        Grouped(group << 16 | u64::from(nth))
    }

    fn group(self) -> u64 {
        self.0 >> 16
    }

    fn nth(self) -> u16 {
        self.0 as u16
    }
}

/// An order that has its id and its cards and waits for its record.
struct Placed {
    /// Which of the turn's orders.
    nth: u16,
    place: Place,
    /// Its cards, as a range of `slots`.
    slots: Range<u32>,
}

impl Placed {
    fn slots<'s>(&self, slots: &'s [(u32, u32)]) -> &'s [(u32, u32)] {
        &slots[self.slots.start as usize..self.slots.end as usize]
    }
}

/// Where a dealer goes on looking for free slots of a pool.
#[derive(Clone, Copy, Default)]
struct Cursor {
    /// Index of the slab in the pool's list.
    slab: usize,
    /// Words of the leased region that are still to be looked at.
    at: usize,
    to: usize,
    /// The region is the whole slab: what other cores have left over.
    sweeping: bool,
}

/// What a new order may ask for. A repeat is answered whatever the limits are now.
#[derive(Clone, Copy, Debug)]
pub struct OrderLimits {
    /// Most cards.
    pub quantity_max: u16,
    /// The answer must fit a frame of so many bytes.
    pub frame_bytes_max: usize,
    /// Longest time to live of a hold.
    pub hold_ttl_max_ms: u32,
    /// How often a hold may be extended.
    pub hold_extensions_max: u16,
    /// Most open holds and waiting orders of one holder; 0: any number.
    pub holder_holds_max: u32,
    /// How long an order may wait for stock.
    pub wait_max_ms: u32,
}

impl Default for OrderLimits {
    fn default() -> OrderLimits {
        OrderLimits::of(&Config::new(DATA_DEFAULT))
    }
}

impl OrderLimits {
    /// Those of a configuration.
    pub fn of(config: &Config) -> OrderLimits {
        OrderLimits {
            quantity_max: config.quantity_max as u16,
            frame_bytes_max: config.frame_bytes_max as usize,
            hold_ttl_max_ms: config.hold_ttl_max_ms,
            hold_extensions_max: config.hold_extensions_max as u16,
            holder_holds_max: config.holder_holds_max,
            wait_max_ms: config.wait_max_ms,
        }
    }

    /// Why a new order may not be dealt, whatever stock there is. `class_bytes`: of its cards, at most.
    #[inline]
    fn refuse(&self, order: &Order, now: u64, class_bytes: u32) -> Option<Refusal> {
        if order.deadline_unix_ms < now {
            Some(Refusal::DeadlineExceeded)
        } else if !self.allow(order.quantity, class_bytes) {
            Some(Refusal::QuantityTooLarge)
        } else if order.ttl_ms > self.hold_ttl_max_ms && order.step == Step::Reserve {
            Some(Refusal::TtlInvalid)
        } else if order.may_wait() && order.waits_longer(now, self.wait_max_ms) {
            Some(Refusal::WaitInvalid)
        } else {
            None
        }
    }

    /// Whether an order of `quantity` cards of at most `class_bytes` each may be dealt.
    fn allow(&self, quantity: u16, class_bytes: u32) -> bool {
        quantity <= self.quantity_max && self.fits(quantity, class_bytes)
    }

    /// Whether so many cards can be answered.
    fn fits(&self, quantity: u16, class_bytes: u32) -> bool {
        let cards = usize::from(quantity) * (CARD_HEAD_BYTES + class_bytes as usize);
        quantity == 1 || ANSWER_HEAD_BYTES + cards <= self.frame_bytes_max
    }
}

/// Bytes of an answer with one order before its cards, and of a card before its secret: docs/wire-format.md.
const ANSWER_HEAD_BYTES: usize =
    croupier_protocol::FRAME_HEADER_BYTES + croupier_protocol::OrderItemHead::BYTES;
const CARD_HEAD_BYTES: usize = 12;

/// One core's dealer.
pub struct Dealer {
    limits: OrderLimits,
    state: Arc<State>,
    index: IndexView,
    resolver: Router,
    cursors: Vec<Cursor>,
    // Kept between turns so that a turn allocates nothing. Orders are named by their number in the turn: they are large, and
    // stay where they are.
    hashes: Vec<Hashed>,
    groups: Vec<Grouped>,
    /// Which rule takes each, where orders that go one way may have been taken by several.
    rules: Vec<u16>,
    /// New orders, each with the place in the index that the look has found.
    fresh: Vec<(u16, Option<Place>)>,
    /// What new orders have taken from the caps of their holders.
    capped: Vec<Capped>,
    /// New orders whose ids are claimed, and how many cards each gets.
    accepted: Vec<(u16, Place, u16)>,
    slots: Vec<(u32, u32)>,
    placed: Vec<Placed>,
    runs: Vec<Run>,
    words: Vec<u64>,
    credits: Vec<(Arc<Pool>, u64, u64)>,
    /// Orders that hold cards from this turn on.
    putting: Vec<Putting>,
    /// What becomes in this turn of orders that hold cards.
    changes: Vec<Change>,
    /// The cards of those that are committed.
    bound: Vec<(u32, u32)>,
    /// Orders that are to wait for stock from this turn on.
    backordered: Vec<Backorder>,
    /// When the holds that were made here end, and waits.
    timers: Timers,
    /// The dealer that has it fills the orders that wait.
    desk: Option<DeskKept>,
    /// How often the desk has looked at an order that waits.
    desk_looks: u64,
    /// Orders to be answered when they wait no longer: for the core that keeps the desk.
    staying: Vec<(u8, Order)>,
    /// Orders to be dealt again next turn: somebody else is just dealing the same id.
    deferred: Vec<(u8, Order)>,
    /// Chains, for the same reason.
    deferred_chains: Vec<Chain>,
}

impl Dealer {
    pub fn new(state: Arc<State>, routes: &RouteCell, limits: OrderLimits) -> Dealer {
        Dealer {
            limits,
            index: IndexView::new(&state.index),
            resolver: Router::new(routes, &state.catalog),
            state,
            cursors: Vec::new(),
            hashes: Vec::new(),
            groups: Vec::new(),
            rules: Vec::new(),
            fresh: Vec::new(),
            capped: Vec::new(),
            accepted: Vec::new(),
            slots: Vec::new(),
            placed: Vec::new(),
            runs: Vec::new(),
            words: Vec::new(),
            credits: Vec::new(),
            putting: Vec::new(),
            changes: Vec::new(),
            bound: Vec::new(),
            backordered: Vec::new(),
            timers: Timers::default(),
            desk: None,
            desk_looks: 0,
            staying: Vec::new(),
            deferred: Vec::new(),
            deferred_chains: Vec::new(),
        }
    }

    /// The catalog as this dealer sees it.
    pub fn catalog(&mut self) -> &Arc<Catalog> {
        self.resolver.catalog()
    }

    /// Where an order waits. One that no rule takes waits too: it may be a repeat, which is answered whatever the routes
    /// are now.
    pub fn lane_of(&mut self, order: &Order) -> Result<usize, Refusal> {
        match self.resolver.lane(&order.asked()) {
            Ok(lane) => Ok(lane.as_index()),
            Err(NoTarget::UnknownSku) if order.follows() => Ok(order.priority.as_index()),
            Err(NoTarget::UnknownSku) => Err(Refusal::UnknownSku),
            Err(NoTarget::NoRoute) => Ok(order.priority.as_index()),
        }
    }

    /// The table on trial, as this dealer sees it.
    pub fn trial(&self) -> Option<&Arc<Trial>> {
        self.resolver.trial()
    }

    /// Looks whether routes or catalog have changed; before the first `lane_of` of a turn.
    pub fn refresh(&mut self) -> u32 {
        self.resolver.look()
    }

    /// Orders that must come again in the next turn, with their lanes.
    pub fn take_deferred(&mut self, into: &mut Vec<(u8, Order)>) {
        into.append(&mut self.deferred);
    }

    /// Orders that the core that keeps the desk must deal again: they are to be answered when they wait no longer.
    pub fn take_staying(&mut self, into: &mut Vec<(u8, Order)>) {
        into.append(&mut self.staying);
    }

    /// Deals a batch, ends the holds whose time is up, and fills orders that wait. Chains come before all other orders, each
    /// in one piece. `orders` needs no more than `log` takes at once, but for one chain that is alone and will be refused, and
    /// `log` has room for that. `cannot_record`: why nothing new can be dealt just now; repeats are answered all the same.
    pub fn turn(
        &mut self,
        now_unix_ms: u64,
        log: &impl Append,
        cannot_record: Option<Refusal>,
        orders: &[(u8, Order)],
        out: &mut Vec<Outcome>,
    ) {
        let route_table = self.resolver.refresh(now_unix_ms);
        let index = &self.state.index;
        self.hashes.clear();
        let hashes = orders.iter().map(|(_, order)| index.hash(order.id));
        self.hashes.extend(hashes);
        // All first lines are asked for before any is needed.
        self.index.touch(&self.hashes);
        let chained = match orders.first() {
            Some((_, first)) if first.is_linked() => {
                self.deal_chains(now_unix_ms, log.units_max(), cannot_record, orders, out)
            }
            _ => 0,
        };
        let mut groups = self.group(orders, chained);
        // Most turns have no use for it. Steps that may have come first.
        let due = cannot_record.is_none() && self.units_due(now_unix_ms, None) > 0;
        if cannot_record.is_some() {
            self.let_all_go();
        }
        let first = groups.first().map(|first| usize::from(first.nth()));
        let follows = first.is_some_and(|nth| orders[nth].1.sku == 0);
        let mut spare = if due || follows {
            Spare::new(log.units_max(), orders)
        } else {
            Spare::default()
        };
        for group in groups.chunk_by(|a, b| a.group() == b.group()) {
            let (_, like) = &orders[usize::from(group[0].nth())];
            if like.sku == 0 {
                self.change_group(now_unix_ms, cannot_record, orders, group, &mut spare, out);
            } else {
                self.deal_group(now_unix_ms, cannot_record, orders, group, out);
            }
        }
        groups.clear();
        self.groups = groups;
        if due {
            self.fill(now_unix_ms, &mut spare);
            self.expire(now_unix_ms, &mut spare);
        }
        let stamp = Stamp {
            unix_ms: now_unix_ms,
            route_table,
        };
        self.record(stamp, log, orders, out);
        self.resolver.tell_counts();
    }

    /// The turn's orders but for the first, sorted by groups.
    fn group(&mut self, orders: &[(u8, Order)], chained: usize) -> Vec<Grouped> {
        let mut groups = std::mem::take(&mut self.groups);
        let numbered = orders[chained..].iter().zip(chained as u16..);
        let has_rules = self.resolver.has_rules();
        self.rules.clear();
        if has_rules {
            self.rules.resize(chained, 0);
        }
        groups.extend(numbered.map(|((_, order), nth)| {
            let taken = match order.follows() {
                true => Taken::default(),
                false => self.resolver.way(&order.asked()),
            };
            if has_rules {
                self.rules.push(taken.rule);
            }
            Grouped::of(order, taken.way, nth)
        }));
        // Most turns have one group and are sorted already.
        groups.sort_unstable();
        groups
    }

    /// Deals issues, or reserves, of one SKU and priority.
    fn deal_group(
        &mut self,
        now: u64,
        cannot_record: Option<Refusal>,
        orders: &[(u8, Order)],
        group: &[Grouped],
        out: &mut Vec<Outcome>,
    ) {
        let mut need = 0u64;
        let (_, like) = &orders[usize::from(group[0].nth())];
        let class_bytes = self
            .resolver
            .catalog()
            .sku(like.sku)
            .map_or(0, |sku| sku.class_bytes_max());
        for nth in group.iter().map(|grouped| grouped.nth()) {
            let (lane, order) = &orders[usize::from(nth)];
            let seen = match self.index.look(self.hashes[usize::from(nth)]) {
                Look::Known(settled) => {
                    self.tell_known(now, cannot_record, (*lane, order), settled, out);
                    continue;
                }
                Look::InFlight => {
                    self.deferred.push((*lane, *order));
                    continue;
                }
                Look::Absent(seen) => seen,
            };
            let refusal = self.limits.refuse(order, now, class_bytes);
            let refusal = refusal.or(cannot_record);
            match refusal {
                Some(refusal) => out.push(refused(order, refusal, retry_after(refusal))),
                None if order.holder != 0 => {
                    need += u64::from(self.take_cap(now, (nth, seen), (*lane, order), out));
                }
                None => {
                    need += u64::from(order.quantity);
                    self.fresh.push((nth, seen));
                }
            }
        }
        if self.fresh.is_empty() {
            return;
        }
        if like.step == Step::Reserve {
            let granted = self.promise_share(like.sku, &mut need, orders, out);
            self.deal_fresh(now, cannot_record, orders, like, need, out);
            if let (Some(granted), Some(sku)) = (granted, self.resolver.catalog().sku(like.sku)) {
                // What was promised of it is counted by now.
                sku.unpromise(granted);
            }
        } else {
            self.deal_fresh(now, cannot_record, orders, like, need, out);
        }
        self.settle_caps();
    }

    /// Deals those orders of a group that are new. `need`: their cards.
    fn deal_fresh(
        &mut self,
        now: u64,
        cannot_record: Option<Refusal>,
        orders: &[(u8, Order)],
        like: &Order,
        need: u64,
        out: &mut Vec<Outcome>,
    ) {
        if self.fresh.is_empty() {
            return;
        }
        match self.take_credits_in_line(now, like, need) {
            Ok(true) => {}
            Ok(false) => {
                let fresh = self.fresh.drain(..);
                self.deferred
                    .extend(fresh.map(|(nth, _)| orders[usize::from(nth)]));
                return;
            }
            Err(Refusal::OutOfStock) => {
                let mut fresh = std::mem::take(&mut self.fresh);
                for new in fresh.drain(..) {
                    self.out_of_stock(now, cannot_record, orders, new, out);
                }
                self.fresh = fresh;
                return;
            }
            Err(refusal) => {
                let wait_ms = retry_after(refusal);
                let fresh = self.fresh.drain(..);
                let no = |(nth, _)| refused(&orders[usize::from(nth)].1, refusal, wait_ms);
                out.extend(fresh.map(no));
                return;
            }
        }
        let accepted_cards = self.claim_ids(now, cannot_record, orders, out);
        if like.step == Step::Reserve {
            self.put_by(like.sku);
            return;
        }
        self.claim_slots(accepted_cards);
        self.hand_out();
    }

    /// As [`take_credits`](Self::take_credits); false: orders that wait come first, and have not been served yet.
    fn take_credits_in_line(&mut self, now: u64, like: &Order, need: u64) -> Result<bool, Refusal> {
        let sku = self.resolver.catalog().sku(like.sku);
        if sku.is_some_and(|sku| sku.line.is_first()) {
            return Ok(false);
        }
        self.take_credits(now, like, need)?;
        // Again, behind the credits: those that came for the line since the first look have told it so before.
        let pool = self.credits.first().map(|(pool, ..)| pool);
        if pool.is_some_and(|pool| pool.line.is_first()) {
            for (pool, got, _) in self.credits.drain(..) {
                pool.add_credits(got);
            }
            return Ok(false);
        }
        Ok(true)
    }

    /// Takes up to `need` credits from the pools that the route names, in their order. `Busy`: they would do, but in one of
    /// them cards have expired, and are just being taken out.
    fn take_credits(&mut self, now: u64, like: &Order, need: u64) -> Result<(), Refusal> {
        let target = match self.resolver.resolve(&like.asked()) {
            Ok(target) => target,
            Err(NoTarget::UnknownSku) => return Err(Refusal::UnknownSku),
            Err(NoTarget::NoRoute) => return Err(Refusal::NoRoute),
        };
        let mut missing = need;
        let mut swept = true;
        let pools_max = match like.step {
            // The record keeps how many fewer it gets in the place of a pool.
            Step::Reserve if like.takes_part() => HOLD_POOLS_MAX - 1,
            Step::Reserve => HOLD_POOLS_MAX,
            _ => usize::MAX,
        };
        for pool in target.pools.iter().take(pools_max) {
            let got = pool.take_credits(missing);
            if !pool.is_good(now) {
                // Whoever sweeps it calls the desk.
                pool.return_credits(got);
                swept = false;
            } else if got > 0 {
                self.credits.push((pool.clone(), got, 0));
                missing -= got;
            }
            if missing == 0 {
                break;
            }
        }
        if missing > 0 && !swept {
            for (pool, got, _) in self.credits.drain(..) {
                pool.add_credits(got);
            }
            Err(Refusal::Busy)
        } else if self.credits.is_empty() {
            Err(Refusal::OutOfStock)
        } else {
            Ok(())
        }
    }

    /// Claims the ids of fresh orders as far as the credits reach; returns how many cards they are.
    fn claim_ids(
        &mut self,
        now: u64,
        cannot_record: Option<Refusal>,
        orders: &[(u8, Order)],
        out: &mut Vec<Outcome>,
    ) -> u64 {
        let mut left: u64 = self.credits.iter().map(|(_, got, _)| got).sum();
        let (all, before) = (left, self.accepted.len());
        let mut fresh = std::mem::take(&mut self.fresh);
        for (nth, seen) in fresh.drain(..) {
            let (lane, order) = &orders[usize::from(nth)];
            let mut quantity = u64::from(self.wanted(nth, order));
            if quantity > left && order.takes_part() && left > 0 {
                quantity = left;
            }
            if quantity > left {
                self.out_of_stock(now, cannot_record, orders, (nth, seen), out);
                continue;
            }
            match self.index.claim(self.hashes[usize::from(nth)], seen) {
                Claim::Ours(place) => {
                    left -= quantity;
                    self.use_cap(nth, order, quantity as u16);
                    self.accepted.push((nth, place, quantity as u16));
                }
                Claim::InFlight => self.deferred.push((*lane, *order)),
                Claim::Known(settled) => {
                    self.tell_known(now, cannot_record, (*lane, order), settled, out);
                }
            }
        }
        self.fresh = fresh;
        self.count_accepted(orders, before);
        all - left
    }

    /// Notes which rules have taken the orders that are accepted since there were so many.
    fn count_accepted(&mut self, orders: &[(u8, Order)], before: usize) {
        let new = &self.accepted[before..];
        if self.resolver.has_rules() {
            for (nth, ..) in new {
                let nth = usize::from(*nth);
                self.resolver.count(&orders[nth].1.asked(), self.rules[nth]);
            }
        } else if let Some((nth, ..)) = new.first() {
            let many = new.len() as u32;
            self.count(&orders[usize::from(*nth)].1, many);
        }
    }

    /// Notes that the rule which takes such an order has taken so many.
    fn count(&mut self, like: &Order, orders: u32) {
        self.resolver.count_like(&like.asked(), orders);
    }

    /// Claims slots for `cards` cards and gives unused credits back.
    fn claim_slots(&mut self, cards: u64) {
        let mut want = cards;
        for (_, got, used) in &mut self.credits {
            *used = want.min(*got);
            want -= *used;
        }
        let mut credits = std::mem::take(&mut self.credits);
        for (pool, got, used) in credits.drain(..) {
            if used > 0 {
                let cursor = cursor_of(&mut self.cursors, &pool);
                take_slots(&pool, cursor, used as u32, &mut self.slots);
            }
            if got > used && !planted::is(Bug::LoseCredits) {
                pool.add_credits(got - used);
                if planted::is(Bug::GiveCreditsTwice) {
                    pool.add_credits(got - used);
                }
            }
        }
        self.credits = credits;
    }

    /// Gives the claimed slots to the accepted orders, in their order.
    fn hand_out(&mut self) {
        let mut next = self.placed.last().map_or(0, |placed| placed.slots.end);
        for (nth, place, quantity) in self.accepted.drain(..) {
            let slots = next..next + u32::from(quantity);
            next = slots.end;
            self.placed.push(Placed { nth, place, slots });
        }
        assert_eq!(
            next as usize,
            self.slots.len(),
            "every claimed slot has its order"
        );
    }

    /// Writes the records of this turn as one batch and applies them.
    fn record(
        &mut self,
        stamp: Stamp,
        log: &impl Append,
        orders: &[(u8, Order)],
        out: &mut Vec<Outcome>,
    ) {
        let holds = [
            self.putting.len(),
            self.backordered.len(),
            self.changes.len(),
        ];
        if self.placed.is_empty() && holds == [0; 3] {
            return;
        }
        let mut offsets = 0u64;
        let mut run_ends = 0;
        for placed in &self.placed {
            push_runs(placed.slots(&self.slots), &mut self.runs);
            let runs = Runs::Given(&self.runs[run_ends..]);
            run_ends = self.runs.len();
            let order = &orders[usize::from(placed.nth)];
            let cards = placed.slots.len();
            let stamp = self.resolver.stamp_of(stamp, order.1.id);
            put_issued(&mut self.words, stamp, &issued(order, cards, runs));
        }
        if planted::is(Bug::ReleaseBeforeRecord)
            && let Some(&(slab, slot)) = self.slots.last()
            && let Some(slab) = self.resolver.catalog().slab(slab)
        {
            claim::give_back(slab.words(), slot);
        }
        self.write_holds(stamp, orders);
        let base = log
            .append(&self.words)
            .expect("room was checked before the turn");
        let mut at = 0;
        let rows = self.state.index.take_rows(self.placed.len() as u64);
        for (row, placed) in (rows..).zip(self.placed.drain(..)) {
            let order = &orders[usize::from(placed.nth)];
            let runs = runs_of(placed.slots(&self.slots), &self.runs[at..]);
            at += runs;
            let runs_given = Runs::Given(&self.runs[at - runs..at]);
            let issued = issued(order, placed.slots.len(), runs_given);
            let promise = Promise {
                place: placed.place,
                row,
            };
            let lsn = base + offsets;
            let settled =
                self.state
                    .apply_issued(lsn, stamp.unix_ms, &issued, promise, &mut self.index);
            offsets += issued_units(runs + key_runs(issued.holder)) as u64;
            let Order {
                ticket, id, sku, ..
            } = order.1;
            out.push(Outcome {
                ticket,
                id,
                sku,
                verdict: Verdict::Issued {
                    settled,
                    repeat: false,
                },
            });
        }
        self.apply_holds(base + offsets, at, stamp, orders, out);
        self.state.index.call_keeper_if_short();
        self.words.clear();
        self.runs.clear();
        self.slots.clear();
    }
}

/// What a caller is told to wait when nothing better is known.
pub const RETRY_AFTER_MS: u32 = 20;

/// How long a caller who is refused so is told to wait.
fn retry_after(refusal: Refusal) -> u32 {
    if refusal.retryable() {
        RETRY_AFTER_MS
    } else {
        0
    }
}

/// A refusal of an order.
pub fn refused(order: &Order, refusal: Refusal, retry_after_ms: u32) -> Outcome {
    outcome(order, Verdict::refused(refusal, retry_after_ms))
}

fn outcome(order: &Order, verdict: Verdict) -> Outcome {
    Outcome {
        ticket: order.ticket,
        id: order.id,
        sku: order.sku,
        verdict,
    }
}

/// Units of the log that a turn has left for what its orders did not say.
#[derive(Default)]
struct Spare {
    units: usize,
    /// The turn has nothing else yet.
    is_whole: bool,
}

impl Spare {
    fn new(units_max: usize, orders: &[(u8, Order)]) -> Spare {
        let asked = orders.iter().map(|(_, order)| units_at_most(order));
        Spare {
            units: units_max.saturating_sub(asked.sum()),
            is_whole: orders.is_empty(),
        }
    }

    /// Takes some, if there are so many.
    fn take(&mut self, units: usize) -> bool {
        let enough = units <= self.units;
        if enough {
            self.take_all(units);
        }
        enough
    }

    /// Takes so many, or what there is.
    fn take_all(&mut self, units: usize) {
        self.units = self.units.saturating_sub(units);
        self.is_whole = false;
    }
}

fn issued<'r>((lane, order): &(u8, Order), cards: usize, runs: Runs<'r>) -> Issued<'r> {
    let quantity = cards as u16;
    let fewer = order.quantity - quantity;
    Issued {
        order_id: order.id,
        holder: order.holder,
        sku: order.sku,
        principal: 0,
        quantity,
        priority: order.priority as u8,
        lane: *lane,
        way: if fewer == 0 { Way::Issue } else { Way::Part },
        fewer,
        runs,
    }
}

/// Where to look for free slots of a pool.
fn cursor_of<'c>(cursors: &'c mut Vec<Cursor>, pool: &Pool) -> &'c mut Cursor {
    let number = pool.number as usize;
    if cursors.len() <= number {
        cursors.resize(number + 1, Cursor::default());
    }
    &mut cursors[number]
}

/// Appends the runs that `slots` form.
fn push_runs(slots: &[(u32, u32)], runs: &mut Vec<Run>) {
    let begin = runs.len();
    for &(slab, slot) in slots {
        match runs[begin..].last_mut() {
            Some(run) if run.slab == slab && run.slot + run.count == slot => run.count += 1,
            _ => runs.push(Run {
                slab,
                slot,
                count: 1,
                generation: 0,
            }),
        }
    }
}

/// How many of the first of `runs` make up `slots`.
fn runs_of(slots: &[(u32, u32)], runs: &[Run]) -> usize {
    let mut cards = 0;
    let is_ours = |run: &&Run| {
        let ours = cards < slots.len();
        cards += run.count as usize;
        ours
    };
    runs.iter().take_while(is_ours).count()
}

/// Claims `want` slots of a pool for credits that the caller holds; a free bit exists for each of them.
fn take_slots(pool: &Pool, cursor: &mut Cursor, want: u32, slots: &mut Vec<(u32, u32)>) {
    let mut missing = want - pool.take_arranged(want, slots);
    let mut passes = 0;
    let mut reopenings = pool.reopenings();
    let mut list = pool.slabs.load();
    while missing > 0 {
        let Some(slab) = list.get(cursor.slab) else {
            // The first pass may have begun in the middle, and the next begins where cards may be again. A full one that
            // began after the credits were taken sees every free bit, unless cards became free behind it meanwhile.
            let now = pool.reopenings();
            if now != reopenings {
                (reopenings, passes) = (now, 0);
                // An import counts as one: others may take the cards here and leave theirs in its slabs.
                list = pool.slabs.load();
            }
            passes += 1;
            assert!(
                passes <= 3,
                "SKU {}: {missing} cards are counted as free and not to be found",
                pool.sku
            );
            *cursor = Cursor {
                slab: if passes == 1 { pool.first() } else { 0 },
                ..Cursor::default()
            };
            continue;
        };
        if cursor.at < cursor.to {
            let number = slab.facts.slab;
            let found = |slot| slots.push((number, slot));
            missing -= claim::take_in(
                slab.words(),
                slab.facts.cards,
                &mut cursor.at,
                cursor.to,
                missing,
                found,
            );
            continue;
        }
        next_region(pool, slab, cursor, passes);
    }
}

/// The next words to look at: a region of its own, then what others have left over, then the next slab.
fn next_region(pool: &Pool, slab: &crate::state::SlabState, cursor: &mut Cursor, passes: u32) {
    if cursor.slab < pool.first() && passes == 0 {
        *cursor = Cursor {
            slab: pool.first(),
            ..Cursor::default()
        };
    } else if let Some((at, to)) = slab.lease_region() {
        *cursor = Cursor { at, to, ..*cursor };
    } else if !cursor.sweeping {
        *cursor = Cursor {
            at: 0,
            to: slab.words().len(),
            sweeping: true,
            ..*cursor
        };
    } else {
        if cursor.slab == pool.first() {
            pool.used_up_before(cursor.slab + 1);
        }
        *cursor = Cursor {
            slab: cursor.slab + 1,
            ..Cursor::default()
        };
    }
}
