//! The steps of orders that hold cards: docs/orders.md has the table of states and steps that this is.

use std::ops::Range;

use croupier_protocol::planted::{self, Bug};
use croupier_protocol::{Hold as Told, Refusal, Step};

use super::desk::{DeskKept, filled_hold, waiting, waits};
use super::{
    Dealer, Grouped, RETRY_AFTER_MS, Spare, cursor_of, outcome, push_runs, refused, retry_after,
    runs_of, take_slots, units_at_most,
};
use crate::order::{Order, Outcome, Verdict};
use crate::state::Promise;
use crate::state::held::hold_of;
use crate::state::holders::Holders;
use crate::state::index::{Claimed, Hold, Look, OrderIndex, OrderState, Place, Settled};
use crate::state::record::{
    Credits, Extended, Issued, Release, Released, Reserved, Runs, Stamp, Way, about_units,
    issued_units, key_runs, put_backordered, put_extended, put_issued, put_released, put_reserved,
};

/// An order that has its id and its credits and waits for its record.
pub(super) struct Putting {
    pub(super) nth: u16,
    pub(super) place: Place,
    pub(super) credits: Credits,
}

/// A claimed order that waits for the record of its change.
pub(super) struct Change {
    /// Which of the turn's orders asks for it; `None`: its time is up, or there is stock for it.
    pub(super) nth: Option<u16>,
    pub(super) id: u128,
    /// For whom it is; 0: nobody is named.
    pub(super) holder: u128,
    pub(super) sku: u32,
    pub(super) claimed: Claimed,
    /// As it was; none of an order whose hold has expired.
    pub(super) hold: Option<Hold>,
    pub(super) to: To,
}

pub(super) enum To {
    /// Its cards, as a range of `bound`.
    Cards {
        bound: Range<u32>,
        fewer: u16,
    },
    Longer,
    Release(Release),
    /// It waited, and holds cards now.
    Hold(Credits),
}

/// What a step of a known order comes to.
pub(super) enum Answer {
    /// This, and nothing changes.
    Told(Verdict),
    /// Somebody is just changing it: come again.
    Later,
    /// The order changes, if it can be claimed.
    Change,
}

/// A refusal whose reason is what an order has become.
pub(super) fn decided(refusal: Refusal, settled: Settled) -> Answer {
    let early = planted::is(Bug::TellEndEarly);
    Answer::Told(Verdict::Refused {
        refusal,
        retry_after_ms: 0,
        lsn: if early { 0 } else { settled.lsn },
    })
}

fn told(hold: &Hold) -> Told {
    Told {
        ends_unix_ms: hold.ends_unix_ms,
        extensions: hold.extensions,
    }
}

/// What a look-up tells of an order, and its SKU if that is not told by its cards. `Busy`: it is just being dealt, or changed.
pub fn look_up(index: &OrderIndex, id: u128) -> (u32, Verdict) {
    match index.look(index.hash(id)) {
        Look::Known(settled) => told_of(index, settled),
        Look::Absent(_) => Some((0, Verdict::refused(Refusal::OrderNotFound, 0))),
        Look::InFlight => None,
    }
    .unwrap_or((0, Verdict::refused(Refusal::Busy, RETRY_AFTER_MS)))
}

fn told_of(index: &OrderIndex, settled: Settled) -> Option<(u32, Verdict)> {
    let (lsn, quantity, repeat) = (settled.lsn, settled.quantity, false);
    let released = |why| {
        let verdict = Verdict::Released {
            lsn,
            quantity,
            why,
            repeat,
        };
        Some((index.released(settled)?.sku, verdict))
    };
    match settled.state {
        OrderState::Held => {
            let hold = index.hold(settled)?;
            let verdict = Verdict::Held {
                lsn,
                quantity,
                hold: told(&hold),
                repeat,
            };
            Some((hold.sku, verdict))
        }
        OrderState::Waiting => {
            let hold = index.hold(settled)?;
            Some((hold.sku, waiting(settled, &hold, repeat)))
        }
        OrderState::Cancelled => released(Release::Cancelled),
        OrderState::Expired => released(Release::Expired),
        OrderState::Issued
        | OrderState::IssuedPart
        | OrderState::Committed
        | OrderState::CommittedPart => Some((0, Verdict::Issued { settled, repeat })),
    }
}

impl Dealer {
    /// Keeps the ends of a share of the open holds, and, on the first core, the desk: at the start, before anything is
    /// dealt.
    pub fn adopt(&mut self, core: usize, cores: usize) {
        if core == 0 {
            self.desk = Some(DeskKept::new(self.state.desk.clone()));
        }
        for (_, settled, hold) in self.state.index.open_holds() {
            let row = settled.row();
            if row as usize % cores == core {
                self.timers.add(hold.ends_unix_ms, row);
            }
        }
    }

    /// When the next hold that is kept here ends, or there is something to do at the desk.
    pub fn next_end_unix_ms(&self) -> Option<u64> {
        let desk = self.desk.as_ref().and_then(DeskKept::next_unix_ms);
        let next = self.timers.next_unix_ms();
        [next, desk].into_iter().flatten().min()
    }

    /// Of a SKU of which not all may be held: promises what new reserves may hold, and refuses those for which that is too
    /// little. Returns how many cards are promised so, for as long as it takes to deal them.
    pub(super) fn promise_share(
        &mut self,
        sku: u32,
        need: &mut u64,
        orders: &[(u8, Order)],
        out: &mut Vec<Outcome>,
    ) -> Option<u64> {
        let granted = self.resolver.catalog().sku(sku)?.promise_share(*need)?;
        let mut left = granted;
        let mut fresh = std::mem::take(&mut self.fresh);
        fresh.retain(|(nth, _)| {
            let (_, order) = &orders[usize::from(*nth)];
            let wanted = u64::from(self.wanted(*nth, order));
            let fits = wanted <= left || order.takes_part() && left > 0;
            match fits {
                true => left -= wanted.min(left),
                false => out.push(refused(order, Refusal::HoldShareReached, 0)),
            }
            fits
        });
        self.fresh = fresh;
        *need = granted - left;
        Some(granted)
    }

    /// Gives the credits of a group to its orders, whose ids are claimed; what is left goes back.
    pub(super) fn put_by(&mut self, sku: u32) {
        let mut cards = 0;
        for (nth, place, quantity) in self.accepted.drain(..) {
            let mut missing = u64::from(quantity);
            cards += missing;
            let mut credits = Credits::default();
            let pools = self.credits.iter_mut().filter(|(_, got, used)| used < got);
            for ((pool, got, used), part) in pools.zip(&mut credits.0) {
                let take = missing.min(*got - *used);
                *used += take;
                missing -= take;
                *part = (pool.index, take as u16);
                if missing == 0 {
                    break;
                }
            }
            assert_eq!(missing, 0, "a claimed id has its credits");
            self.putting.push(Putting {
                nth,
                place,
                credits,
            });
        }
        if let Some(sku) = self.resolver.catalog().sku(sku) {
            sku.promise(cards);
        }
        for (pool, got, used) in self.credits.drain(..) {
            if got > used {
                pool.add_credits(got - used);
            }
        }
    }

    /// Takes the steps of orders that must be there already.
    pub(super) fn change_group(
        &mut self,
        now: u64,
        cannot_record: Option<Refusal>,
        orders: &[(u8, Order)],
        group: &[Grouped],
        spare: &mut Spare,
        out: &mut Vec<Outcome>,
    ) {
        for nth in group.iter().map(|grouped| grouped.nth()) {
            let (lane, order) = &orders[usize::from(nth)];
            let settled = match self.index.look(self.hashes[usize::from(nth)]) {
                Look::Known(settled) => settled,
                Look::InFlight => {
                    self.deferred.push((*lane, *order));
                    continue;
                }
                Look::Absent(_) => {
                    out.push(refused(order, Refusal::OrderNotFound, 0));
                    continue;
                }
            };
            let (index, mut hold, mut row) = (&self.state.index, None, None);
            let is_seen = if settled.state.has_hold() {
                hold = index.hold(settled);
                hold.is_some()
            } else if !settled.state.has_cards() {
                row = index.released(settled);
                row.is_some()
            } else {
                true
            };
            if !is_seen {
                // Somebody is just changing it.
                self.deferred.push((*lane, *order));
                continue;
            }
            let was_issue = row.is_some_and(|row| row.was_issue);
            let mut answer = self.answer_step(order, settled, hold.as_ref(), was_issue);
            if matches!(answer, Answer::Change) {
                let refusal = if order.deadline_unix_ms < now {
                    Some(Refusal::DeadlineExceeded)
                } else {
                    cannot_record
                };
                if let Some(refusal) = refusal {
                    out.push(refused(order, refusal, retry_after(refusal)));
                    continue;
                }
                answer = self.change(now, (nth, *lane), order, settled, hold, spare);
            }
            match answer {
                Answer::Told(verdict) => {
                    let sku = hold.map(|hold| hold.sku).or(row.map(|row| row.sku));
                    out.push(outcome_of(order, sku.unwrap_or(0), verdict));
                }
                Answer::Later => self.deferred.push((*lane, *order)),
                Answer::Change => {}
            }
        }
    }

    /// What the table says of a commit, cancel or extend. `hold` is that of a held order.
    /// `was_issue`: that of one that has ended without cards.
    fn answer_step(
        &self,
        order: &Order,
        settled: Settled,
        hold: Option<&Hold>,
        was_issue: bool,
    ) -> Answer {
        match (settled.state, order.step) {
            (OrderState::Waiting, Step::Cancel) => Answer::Change,
            (OrderState::Waiting, _) => decided(Refusal::StillWaiting, settled),
            (OrderState::Issued | OrderState::IssuedPart, _) => {
                decided(Refusal::OrderIdReused, settled)
            }
            (OrderState::Committed | OrderState::CommittedPart, Step::Commit) => {
                let all = order.quantity == 0 && settled.state == OrderState::Committed;
                if !all && order.quantity != settled.quantity {
                    return decided(Refusal::OrderIdReused, settled);
                }
                Answer::Told(Verdict::Issued {
                    settled,
                    repeat: true,
                })
            }
            (OrderState::Committed | OrderState::CommittedPart, _) => {
                decided(Refusal::AlreadyCommitted, settled)
            }
            (OrderState::Cancelled, Step::Cancel) => Answer::Told(Verdict::Released {
                lsn: settled.lsn,
                quantity: settled.quantity,
                why: Release::Cancelled,
                repeat: true,
            }),
            (OrderState::Cancelled | OrderState::Expired, Step::Commit | Step::Extend)
                if was_issue =>
            {
                decided(Refusal::OrderIdReused, settled)
            }
            (OrderState::Cancelled, _) => decided(Refusal::AlreadyCancelled, settled),
            (OrderState::Expired, Step::Commit) if !order.only_held() => {
                if order.quantity > settled.quantity {
                    decided(Refusal::NotSoManyHeld, settled)
                } else {
                    Answer::Change
                }
            }
            (OrderState::Expired, _) => decided(Refusal::Expired, settled),
            (OrderState::Held, Step::Commit) if order.quantity > settled.quantity => {
                decided(Refusal::NotSoManyHeld, settled)
            }
            (OrderState::Held, Step::Extend) => {
                let Some(hold) = hold else {
                    return Answer::Later;
                };
                let asked = (order.quantity, order.ttl_ms);
                if asked == (hold.extensions, hold.extended_ttl_ms) {
                    return Answer::Told(Verdict::Held {
                        lsn: settled.lsn,
                        quantity: settled.quantity,
                        hold: told(hold),
                        repeat: true,
                    });
                }
                let is_next = order.quantity == hold.extensions + 1;
                if order.quantity == hold.extensions {
                    decided(Refusal::OrderIdReused, settled)
                } else if !is_next || hold.extensions >= self.limits.hold_extensions_max {
                    decided(Refusal::NoExtensionLeft, settled)
                } else if order.ttl_ms > self.limits.hold_ttl_max_ms {
                    decided(Refusal::TtlInvalid, settled)
                } else {
                    Answer::Change
                }
            }
            (OrderState::Held, _) => Answer::Change,
        }
    }

    /// Promises a change: claims the order and, for a commit, its cards.
    fn change(
        &mut self,
        now: u64,
        (nth, lane): (u16, u8),
        order: &Order,
        settled: Settled,
        hold: Option<Hold>,
        spare: &mut Spare,
    ) -> Answer {
        let index = &self.state.index;
        let sku = match &hold {
            Some(hold) => hold.sku,
            None => match index.released(settled) {
                Some(row) => row.sku,
                None => return Answer::Later,
            },
        };
        let Some(holder) = self.state.holders.try_of(order.id) else {
            return Answer::Later;
        };
        let cards = match (order.step, order.quantity) {
            (Step::Commit, 0) => settled.quantity,
            (Step::Commit, some) => some,
            _ => 0,
        };
        if cards > 0 {
            let catalog = self.resolver.catalog();
            let class_bytes = catalog.sku(sku).map_or(0, |sku| sku.class_bytes_max());
            // What was held may be had, even if less may be ordered since; but nobody could be told more than fits.
            if !self.limits.fits(cards, class_bytes) {
                return Answer::Told(Verdict::refused(Refusal::QuantityTooLarge, 0));
            }
            let units = issued_units(usize::from(cards) + key_runs(holder));
            let more = units - units_at_most(order);
            if !spare.take(more) {
                // The key of its holder is as long as a run.
                let cards = cards + key_runs(holder) as u16;
                self.deferred.push((lane, order.of_cards_at_most(cards)));
                return Answer::Change;
            }
        }
        if let (Step::Commit, Some(hold)) = (order.step, &hold)
            && let Some(refusal) = self.not_good(now, hold)
        {
            return match refusal {
                Refusal::Busy => Answer::Told(Verdict::refused(refusal, RETRY_AFTER_MS)),
                _ => decided(refusal, settled),
            };
        }
        if order.step == Step::Cancel && holder != 0 {
            let more = about_units(holder).saturating_sub(units_at_most(order));
            if more > 0 && !spare.take(more) {
                let cards = key_runs(holder) as u16;
                self.deferred.push((lane, order.of_cards_at_most(cards)));
                return Answer::Change;
            }
        }
        let late = Order {
            sku,
            holder,
            step: Step::Issue,
            quantity: cards,
            flags: 0,
            ..*order
        };
        let late = late.tagged(0);
        let is_late = order.step == Step::Commit && hold.is_none();
        if is_late {
            match self.take_whole_cap(now, nth, &late) {
                Some(Ok(())) => {}
                Some(Err((refusal, retry_after_ms))) => {
                    return Answer::Told(Verdict::Refused {
                        refusal,
                        retry_after_ms,
                        lsn: settled.lsn,
                    });
                }
                None => return Answer::Later,
            }
        }
        let Some(claimed) = self.state.index.claim_order(settled) else {
            self.settle_caps();
            return Answer::Later;
        };
        let to = match order.step {
            Step::Commit => {
                let begin = self.bound.len() as u32;
                match &hold {
                    Some(hold) => self.bind(hold, cards),
                    None => {
                        let bound = self.bind_late(now, &late);
                        if bound != Ok(true) {
                            self.settle_caps();
                            self.state.index.let_go(claimed);
                            return match bound {
                                Ok(_) => Answer::Later,
                                Err(Refusal::Busy) => {
                                    Answer::Told(Verdict::refused(Refusal::Busy, RETRY_AFTER_MS))
                                }
                                Err(_) => decided(Refusal::Expired, settled),
                            };
                        }
                    }
                }
                To::Cards {
                    bound: begin..self.bound.len() as u32,
                    fewer: settled.quantity - cards,
                }
            }
            Step::Extend => To::Longer,
            _ => To::Release(Release::Cancelled),
        };
        if is_late {
            self.use_cap(nth, &late, cards);
            self.settle_caps();
        }
        self.changes.push(Change {
            nth: Some(nth),
            id: order.id,
            holder,
            sku,
            claimed,
            hold,
            to,
        });
        Answer::Change
    }

    /// Why a hold gets no cards now, although it is open: the one that is bound to it has expired; or some have in the pools
    /// that it has credits of, and are just being taken out.
    fn not_good(&mut self, now: u64, hold: &Hold) -> Option<Refusal> {
        let catalog = self.resolver.catalog();
        if let Some((slab, slot)) = hold.card {
            let expires_s = catalog.slab(slab)?.expires_at_s(slot);
            return (1..=now / 1000)
                .contains(&expires_s)
                .then_some(Refusal::Expired);
        }
        let pools = catalog.sku(hold.sku)?.pools.load();
        let mut held = hold.credits.iter();
        let is_good = held.all(|(pool, _)| pools[usize::from(pool)].is_good(now));
        (!is_good).then_some(Refusal::Busy)
    }

    /// Claims cards for credits of a hold, unless it has its card.
    fn bind(&mut self, hold: &Hold, cards: u16) {
        if let Some(card) = hold.card {
            return self.bound.push(card);
        }
        let sku = self.resolver.catalog().sku(hold.sku);
        let pools = sku.expect("it has a hold").pools.load();
        let mut missing = cards;
        for (pool, credits) in hold.credits.iter() {
            let pool = &pools[usize::from(pool)];
            let take = missing.min(credits);
            if take > 0 {
                let cursor = cursor_of(&mut self.cursors, pool);
                take_slots(pool, cursor, take.into(), &mut self.bound);
            }
            missing -= take;
        }
    }

    /// Claims cards for an order whose hold has expired, as for an issue; false: orders that wait come first. The error:
    /// there are not so many, or not just now.
    fn bind_late(&mut self, now: u64, like: &Order) -> Result<bool, Refusal> {
        let cards = like.quantity;
        if !self.take_credits_in_line(now, like, cards.into())? {
            return Ok(false);
        }
        let got: u64 = self.credits.iter().map(|(_, got, _)| got).sum();
        let enough = got == u64::from(cards);
        for (pool, got, _) in self.credits.drain(..) {
            if enough {
                let cursor = cursor_of(&mut self.cursors, &pool);
                take_slots(&pool, cursor, got as u32, &mut self.bound);
            } else {
                pool.add_credits(got);
            }
        }
        if enough {
            Ok(true)
        } else {
            Err(Refusal::OutOfStock)
        }
    }

    /// Ends holds and waits whose time is up, as far as there is room for their records.
    pub(super) fn expire(&mut self, now: u64, spare: &mut Spare) {
        let index = &self.state.index;
        while self.timers.is_due(now) && spare.take(units_of_end(&self.state.holders)) {
            let Some(row) = self.timers.take_due(now) else {
                break;
            };
            let Some((id, settled)) = index.order_of(row) else {
                continue;
            };
            if !settled.state.has_hold() {
                continue;
            }
            let Some(holder) = self.state.holders.try_of(id) else {
                self.timers.add(now + 1, row);
                continue;
            };
            let hold = index.hold(settled);
            match hold {
                Some(hold) if hold.ends_unix_ms > now => self.timers.add(hold.ends_unix_ms, row),
                Some(hold) => match index.claim_order(settled) {
                    Some(claimed) => self.changes.push(Change {
                        nth: None,
                        id,
                        holder,
                        sku: hold.sku,
                        claimed,
                        hold: Some(hold),
                        to: To::Release(Release::Expired),
                    }),
                    None => self.timers.add(now + 1, row),
                },
                // Somebody is just changing it.
                None => self.timers.add(now + 1, row),
            }
        }
    }

    /// Drops a few ends of holds that have ended otherwise, if those are many.
    fn sweep_timers(&mut self) {
        let index = &self.state.index;
        self.timers.sweep(index.held_hint(), |row| {
            let order = index.order_of(row);
            order.is_some_and(|(_, settled)| settled.state.has_hold())
        });
    }

    /// Writes the records of this turn's holds.
    pub(super) fn write_holds(&mut self, stamp: Stamp, orders: &[(u8, Order)]) {
        for putting in &self.putting {
            let reserved = reserved(putting, orders);
            let stamp = self.resolver.stamp_of(stamp, reserved.order_id);
            put_reserved(&mut self.words, stamp, &reserved);
        }
        for backordered in &self.backordered {
            let waits = waits(backordered);
            let stamp = self.resolver.stamp_of(stamp, waits.order_id);
            put_backordered(&mut self.words, stamp, &waits);
        }
        for change in &self.changes {
            if let Some((since_ms, cards)) = wait_over(change) {
                let now_ms = stamp.unix_ms;
                self.resolver.waited(change.id, since_ms, now_ms, cards);
            }
            let stamp = self.resolver.stamp_of(stamp, change.id);
            match &change.to {
                To::Hold(credits) => {
                    let reserved = filled_hold(change, *credits);
                    put_reserved(&mut self.words, stamp, &reserved);
                }
                To::Cards { bound, fewer } => {
                    let begin = self.runs.len();
                    push_runs(slots_of(&self.bound, bound), &mut self.runs);
                    let runs = Runs::Given(&self.runs[begin..]);
                    let issued = issued(change, orders, bound, *fewer, runs);
                    put_issued(&mut self.words, stamp, &issued);
                }
                To::Longer => {
                    put_extended(&mut self.words, stamp, &extended(change, orders));
                }
                To::Release(why) => {
                    put_released(&mut self.words, stamp, &released(change, *why));
                }
            }
        }
    }

    /// Applies what [`write_holds`](Self::write_holds) has written. `lsn`: of its first record; `run`: its first run.
    pub(super) fn apply_holds(
        &mut self,
        mut lsn: u64,
        mut run: usize,
        stamp: Stamp,
        orders: &[(u8, Order)],
        out: &mut Vec<Outcome>,
    ) {
        if !self.putting.is_empty() {
            let rows = self.state.index.take_rows(self.putting.len() as u64);
            for (row, putting) in (rows..).zip(self.putting.drain(..)) {
                let reserved = reserved(&putting, orders);
                let promise = Promise {
                    place: putting.place,
                    row,
                };
                let (settled, hold) =
                    self.state
                        .apply_reserved(lsn, stamp, &reserved, promise, &mut self.index);
                self.timers.add(hold.ends_unix_ms, row);
                out.push(held(&orders[usize::from(putting.nth)].1, settled, &hold));
                lsn += about_units(reserved.holder) as u64;
            }
            self.sweep_timers();
        }
        self.apply_backordered(&mut lsn, stamp, out);
        let catalog = self.resolver.catalog();
        for change in self.changes.drain(..) {
            let order = change.nth.map(|nth| &orders[usize::from(nth)].1);
            let state = &self.state;
            match (&change.to, &change.hold) {
                (To::Hold(credits), Some(_)) => {
                    let reserved = filled_hold(&change, *credits);
                    let hold = hold_of(lsn, stamp, &reserved);
                    state.apply_filled_hold(catalog, lsn, change.id, &hold, change.claimed);
                    self.timers.add(hold.ends_unix_ms, change.claimed.row());
                }
                (To::Cards { bound, fewer }, hold) => {
                    let runs = runs_of(slots_of(&self.bound, bound), &self.runs[run..]);
                    let given = Runs::Given(&self.runs[run..run + runs]);
                    run += runs;
                    let issued = issued(&change, orders, bound, *fewer, given);
                    let settled = match issued.way {
                        Way::Filled => {
                            let view = &mut self.index;
                            let when = (lsn, stamp.unix_ms);
                            state.apply_filled(catalog, when, &issued, change.claimed, view)
                        }
                        _ => state.apply_commit(
                            catalog,
                            (lsn, stamp.unix_ms),
                            &issued,
                            change.claimed,
                            hold.as_ref(),
                            &mut self.index,
                        ),
                    };
                    lsn += issued_units(runs + key_runs(change.holder)) as u64;
                    let verdict = Verdict::Issued {
                        settled,
                        repeat: false,
                    };
                    out.extend(order.map(|order| outcome_of(order, change.sku, verdict)));
                    continue;
                }
                (To::Longer, Some(hold)) => {
                    let extended = extended(&change, orders);
                    let (settled, hold) =
                        state.apply_extended(lsn, stamp, &extended, change.claimed, hold);
                    out.extend(order.map(|order| held(order, settled, &hold)));
                }
                (To::Release(why), Some(hold)) => {
                    let released = released(&change, *why);
                    let settled = state.apply_released(
                        catalog,
                        lsn,
                        &released,
                        change.claimed,
                        hold,
                        &mut self.index,
                    );
                    let verdict = Verdict::Released {
                        lsn: settled.lsn,
                        quantity: settled.quantity,
                        why: *why,
                        repeat: false,
                    };
                    out.extend(order.map(|order| outcome_of(order, change.sku, verdict)));
                    lsn += about_units(change.holder) as u64;
                    continue;
                }
                (To::Longer | To::Release(_) | To::Hold(_), None) => {
                    unreachable!("only orders with a hold do that")
                }
            }
            lsn += 1;
        }
        self.bound.clear();
    }
}

/// Since when an order has waited for stock that waits no longer, and how many cards it got; nothing of one that its caller has
/// cancelled.
fn wait_over(change: &Change) -> Option<(u64, u16)> {
    let hold = change.hold.filter(|hold| hold.waits.is_some())?;
    let cards = match change.to {
        To::Cards { .. } | To::Hold(_) => hold.quantity(),
        To::Release(Release::Expired) => 0,
        To::Release(Release::Cancelled) | To::Longer => return None,
    };
    Some((hold.reserved_unix_ms, cards))
}

/// Units that the record of an end may take.
pub(super) fn units_of_end(holders: &Holders) -> usize {
    about_units(holders.is_used().into())
}

fn held(order: &Order, settled: Settled, hold: &Hold) -> Outcome {
    let verdict = Verdict::Held {
        lsn: settled.lsn,
        quantity: settled.quantity,
        hold: told(hold),
        repeat: false,
    };
    outcome_of(order, hold.sku, verdict)
}

/// As [`outcome`], of an order that does not name its SKU.
fn outcome_of(order: &Order, sku: u32, verdict: Verdict) -> Outcome {
    Outcome {
        sku,
        ..outcome(order, verdict)
    }
}

fn slots_of<'s>(bound: &'s [(u32, u32)], range: &Range<u32>) -> &'s [(u32, u32)] {
    &bound[range.start as usize..range.end as usize]
}

fn reserved(putting: &Putting, orders: &[(u8, Order)]) -> Reserved {
    let (lane, order) = &orders[usize::from(putting.nth)];
    let quantity = putting.credits.sum() as u16;
    Reserved {
        order_id: order.id,
        holder: order.holder,
        sku: order.sku,
        principal: 0,
        quantity,
        fewer: order.quantity - quantity,
        priority: order.priority as u8,
        lane: *lane,
        ttl_ms: order.ttl_ms,
        filled: false,
        credits: putting.credits,
        card: None,
    }
}

fn issued<'r>(
    change: &Change,
    orders: &[(u8, Order)],
    bound: &Range<u32>,
    fewer: u16,
    runs: Runs<'r>,
) -> Issued<'r> {
    let waits = change.hold.and_then(|hold| hold.waits);
    let (priority, lane) = match (waits, change.nth) {
        (Some(waits), _) => (waits.priority, waits.priority),
        (None, Some(nth)) => {
            let (lane, order) = &orders[usize::from(nth)];
            (order.priority as u8, *lane)
        }
        (None, None) => unreachable!("somebody has asked for the cards"),
    };
    Issued {
        order_id: change.id,
        holder: change.holder,
        sku: change.sku,
        principal: 0,
        quantity: (bound.end - bound.start) as u16,
        priority,
        lane,
        way: match (waits, change.hold) {
            (Some(_), _) => Way::Filled,
            (None, Some(_)) => Way::Commit,
            (None, None) => Way::LateCommit,
        },
        fewer,
        runs,
    }
}

fn extended(change: &Change, orders: &[(u8, Order)]) -> Extended {
    let nth = change.nth.expect("somebody has asked for more time");
    let (_, order) = &orders[usize::from(nth)];
    Extended {
        order_id: change.id,
        sku: change.sku,
        principal: 0,
        nth: order.quantity,
        ttl_ms: order.ttl_ms,
    }
}

fn released(change: &Change, why: Release) -> Released {
    Released {
        order_id: change.id,
        holder: change.holder,
        sku: change.sku,
        principal: 0,
        quantity: change.claimed.settled.quantity,
        why,
        was_issue: change
            .hold
            .is_some_and(|hold| hold.waits.is_some() && hold.is_issue()),
    }
}
