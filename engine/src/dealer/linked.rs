//! Chains: orders of which all get their cards, or none does. docs/orders.md has the table.
//!
//! A chain is dealt order by order up to the point from which nothing can refuse it, and what it has taken until then is given
//! back if one of its orders cannot be had: credits as they were, ids by [`IndexView::give_up`]. Then its records go the way of
//! all others, in the one append of the turn: so they are in one block, and a crash leaves all of them or none.
//!
//! Credits are taken by SKU and ids are claimed by number, in every chain. So of chains that want the same, on whatever cores,
//! the one that is ahead of the others gets it, and no two send each other away for ever.
//!
//! [`IndexView::give_up`]: crate::state::index::IndexView::give_up

use std::ops::Range;
use std::sync::Arc;

use croupier_protocol::planted::{self, Bug};
use croupier_protocol::{Refusal, STEP_FLAG_LINKED, Step};

use super::holds::Putting;
use super::{Dealer, Placed, cursor_of, outcome, refused, retry_after, take_slots, units_at_most};
use crate::linked::{Chain, linked};
use crate::order::{Order, Outcome, Verdict};
use crate::state::index::{Claim, Look, Place, Settled};
use crate::state::record::Credits;
use crate::state::{Pool, SkuState};

/// Credits of one order of a chain: which of the turn's orders it is, the pool, how many.
type Taken = (u16, Arc<Pool>, u64);

/// Of a SKU, so many cards of the share that may be held.
type Share = (Arc<SkuState>, u64);

/// What is known of an order of a chain.
enum Seen {
    Known(Settled),
    /// Nothing; with the place that the look has found.
    Absent(Option<Place>),
}

impl Seen {
    fn lsn(&self) -> Option<u64> {
        match self {
            Seen::Known(settled) => Some(settled.lsn),
            Seen::Absent(_) => None,
        }
    }
}

/// Why a chain is not dealt.
enum Stop {
    /// Somebody is at one of its ids, or orders that wait come first: it comes again.
    Later,
    /// One of its orders cannot be had, and why.
    Refused(u16, Refusal),
}

impl Dealer {
    /// Chains that must come again in the next turn.
    pub fn take_deferred_chains(&mut self, into: &mut impl Extend<Chain>) {
        into.extend(self.deferred_chains.drain(..));
    }

    /// Deals the chains that a turn's orders begin with; returns how many orders they are.
    pub(super) fn deal_chains(
        &mut self,
        now: u64,
        units_max: usize,
        cannot_record: Option<Refusal>,
        orders: &[(u8, Order)],
        out: &mut Vec<Outcome>,
    ) -> usize {
        let mut begin = 0;
        loop {
            let end = begin + linked(&orders[begin..]);
            if begin == end {
                return end;
            }
            let chain = begin as u16..end as u16;
            self.deal_chain(now, units_max, cannot_record, orders, chain, out);
            begin = end;
        }
    }

    fn deal_chain(
        &mut self,
        now: u64,
        units_max: usize,
        cannot_record: Option<Refusal>,
        orders: &[(u8, Order)],
        chain: Range<u16>,
        out: &mut Vec<Outcome>,
    ) {
        let those = || chain.clone().map(|nth| &orders[usize::from(nth)]);
        let Some(seen) = self.look_at_chain(chain.clone()) else {
            return self.deferred_chains.push(those().copied().collect());
        };
        if seen.iter().any(|seen| matches!(seen, Seen::Known(_))) {
            return self.tell_chain(now, cannot_record, orders, chain, &seen, out);
        }
        let reason = match cannot_record {
            Some(refusal) => {
                let all = those().map(|(_, order)| refused(order, refusal, retry_after(refusal)));
                return out.extend(all);
            }
            None => self.never(now, units_max, orders, chain.clone()),
        };
        let stop = match reason {
            Some((nth, refusal)) => Err(Stop::Refused(nth, refusal)),
            None => self.take_chain(now, orders, chain.clone(), &seen),
        };
        self.settle_caps();
        match stop {
            Ok(()) => {}
            Err(Stop::Later) => self.deferred_chains.push(those().copied().collect()),
            // None of them is to blame: a pool that is just being swept.
            Err(Stop::Refused(_, refusal)) if refusal.retryable() => {
                let all = those().map(|(_, order)| refused(order, refusal, retry_after(refusal)));
                out.extend(all);
            }
            Err(Stop::Refused(which, refusal)) => {
                for nth in chain {
                    let refusal = if nth == which {
                        refusal
                    } else {
                        Refusal::LinkedRefused
                    };
                    out.push(refused(&orders[usize::from(nth)].1, refusal, 0));
                }
            }
        }
    }

    /// What is known of each order of a chain; `None`: of one it is just being decided.
    fn look_at_chain(&mut self, chain: Range<u16>) -> Option<Vec<Seen>> {
        let hashes = &self.hashes[usize::from(chain.start)..usize::from(chain.end)];
        let mut seen = Vec::with_capacity(hashes.len());
        for &hashed in hashes {
            seen.push(match self.index.look(hashed) {
                Look::Known(settled) => Seen::Known(settled),
                Look::Absent(place) => Seen::Absent(place),
                Look::InFlight => return None,
            });
        }
        // Whoever deals a chain claims all its ids before the first is known. So if one is, a second look finds the others of
        // the same chain, which may have come since the first.
        if seen.iter().any(|seen| matches!(seen, Seen::Known(_))) {
            for (seen, &hashed) in seen.iter_mut().zip(hashes) {
                match (&seen, self.index.look(hashed)) {
                    (Seen::Absent(_), Look::Known(settled)) => *seen = Seen::Known(settled),
                    (Seen::Absent(_), Look::InFlight) => return None,
                    _ => {}
                }
            }
        }
        Some(seen)
    }

    /// The answers to a chain of which orders are known. If all are, each gets its own once more; if not, it is another request
    /// than the one by which they came, and those that are not known get nothing.
    fn tell_chain(
        &mut self,
        now: u64,
        cannot_record: Option<Refusal>,
        orders: &[(u8, Order)],
        chain: Range<u16>,
        seen: &[Seen],
        out: &mut Vec<Outcome>,
    ) {
        let known_lsn = seen.iter().filter_map(Seen::lsn).max().unwrap_or(0);
        for (nth, seen) in chain.zip(seen) {
            let (lane, order) = &orders[usize::from(nth)];
            match seen {
                Seen::Known(settled) => {
                    // It is there whatever the others are; should it have to come again, it comes alone.
                    let flags = order.flags & !STEP_FLAG_LINKED;
                    let alone = Order { flags, ..*order };
                    self.tell_known(now, cannot_record, (*lane, &alone), *settled, out);
                }
                Seen::Absent(_) => {
                    let verdict = Verdict::Refused {
                        refusal: Refusal::LinkedRefused,
                        retry_after_ms: 0,
                        lsn: known_lsn,
                    };
                    out.push(outcome(order, verdict));
                }
            }
        }
    }

    /// An order of a new chain that may not be dealt, whatever there is, and why.
    fn never(
        &mut self,
        now: u64,
        units_max: usize,
        orders: &[(u8, Order)],
        chain: Range<u16>,
    ) -> Option<(u16, Refusal)> {
        let (mut units, mut largest) = (0, (0, chain.start));
        for nth in chain {
            let order = &orders[usize::from(nth)].1;
            let sku = self.resolver.catalog().sku(order.sku);
            let class_bytes = sku.map_or(0, |sku| sku.class_bytes_max());
            if let Some(refusal) = self.limits.refuse(order, now, class_bytes) {
                return Some((nth, refusal));
            }
            units += units_at_most(order);
            largest = largest.max((order.quantity, nth));
        }
        (units > units_max).then_some((largest.1, Refusal::QuantityTooLarge))
    }

    /// Takes credits, ids and slots of all orders of a chain, or nothing.
    fn take_chain(
        &mut self,
        now: u64,
        orders: &[(u8, Order)],
        chain: Range<u16>,
        seen: &[Seen],
    ) -> Result<(), Stop> {
        let order_of = |nth: u16| &orders[usize::from(nth)].1;
        let place = |seen: &Seen| match seen {
            Seen::Absent(place) => *place,
            Seen::Known(_) => None,
        };
        let mut fresh: Vec<_> = chain.zip(seen.iter().map(place)).collect();
        // Before anything is taken: giving back would call the desk for nothing.
        let catalog = self.resolver.catalog();
        let skus = fresh.iter().map(|&(nth, _)| catalog.sku(order_of(nth).sku));
        if skus.flatten().any(|sku| sku.line.is_first()) {
            return Err(Stop::Later);
        }
        for &(nth, _) in &fresh {
            let taken = self.take_whole_cap(now, nth, order_of(nth));
            let stop = match taken {
                Some(Ok(())) => continue,
                Some(Err((refusal, _))) => Stop::Refused(nth, refusal),
                None => Stop::Later,
            };
            return Err(stop);
        }
        fresh.sort_unstable_by_key(|&(nth, _)| (order_of(nth).sku, nth));
        let shares = self.take_shares(fresh.iter().map(|&(nth, _)| (nth, order_of(nth))))?;
        let mut taken: Vec<Taken> = Vec::with_capacity(fresh.len());
        let mut left_out = None;
        for &(nth, _) in &fresh {
            if let Err(stop) = self.take_credits_of(now, nth, order_of(nth), &mut taken) {
                if planted::is(Bug::SplitChain) {
                    left_out = Some(nth);
                    continue;
                }
                give_back(taken);
                unpromise(&shares);
                return Err(stop);
            }
        }
        fresh.retain(|&(nth, _)| left_out != Some(nth));
        fresh.sort_unstable_by_key(|&(nth, _)| order_of(nth).id);
        let mut places = Vec::with_capacity(fresh.len());
        for &(nth, seen) in &fresh {
            match self.index.claim(self.hashes[usize::from(nth)], seen) {
                Claim::Ours(place) => places.push((nth, place)),
                // The next look tells what that has come to.
                Claim::InFlight | Claim::Known(_) => {
                    for (_, place) in places {
                        self.index.give_up(place);
                    }
                    give_back(taken);
                    unpromise(&shares);
                    return Err(Stop::Later);
                }
            }
        }
        // From here on nothing refuses.
        places.sort_unstable_by_key(|&(nth, _)| nth);
        for (nth, place) in places {
            let order = order_of(nth);
            self.use_cap(nth, order, order.quantity);
            self.count(order, 1);
            let pools = taken.iter().filter(|&&(of, ..)| of == nth);
            match order.step {
                Step::Reserve => {
                    let mut credits = Credits::default();
                    for ((_, pool, got), part) in pools.zip(&mut credits.0) {
                        *part = (pool.index, *got as u16);
                    }
                    if let Some(sku) = self.resolver.catalog().sku(order.sku) {
                        sku.promise(order.quantity.into());
                    }
                    self.putting.push(Putting {
                        nth,
                        place,
                        credits,
                    });
                }
                _ => {
                    let begin = self.slots.len() as u32;
                    for (_, pool, got) in pools {
                        let cursor = cursor_of(&mut self.cursors, pool);
                        take_slots(pool, cursor, *got as u32, &mut self.slots);
                    }
                    let slots = begin..self.slots.len() as u32;
                    assert_eq!(slots.len(), usize::from(order.quantity), "a slot a credit");
                    self.placed.push(Placed { nth, place, slots });
                }
            }
        }
        // What was promised of them is counted by now.
        unpromise(&shares);
        Ok(())
    }

    /// Promises what reserves of a chain may hold, of SKUs of which not all may be held: until their holds are promised
    /// themselves.
    fn take_shares<'o>(
        &mut self,
        reserves: impl Iterator<Item = (u16, &'o Order)>,
    ) -> Result<Vec<Share>, Stop> {
        let catalog = self.resolver.catalog();
        let mut shares: Vec<Share> = Vec::new();
        for (nth, order) in reserves.filter(|(_, order)| order.step == Step::Reserve) {
            let quantity = order.quantity.into();
            let sku = catalog.sku(order.sku);
            let granted = sku.and_then(|sku| Some((sku.clone(), sku.promise_share(quantity)?)));
            let enough = granted.as_ref().is_none_or(|(_, got)| *got == quantity);
            shares.extend(granted);
            if !enough {
                unpromise(&shares);
                return Err(Stop::Refused(nth, Refusal::HoldShareReached));
            }
        }
        Ok(shares)
    }

    /// Takes the credits of one order. On an error those that it got are among `taken`, too.
    fn take_credits_of(
        &mut self,
        now: u64,
        nth: u16,
        order: &Order,
        taken: &mut Vec<Taken>,
    ) -> Result<(), Stop> {
        let in_line = self.take_credits_in_line(now, order, order.quantity.into());
        let mut got = 0;
        taken.extend(self.credits.drain(..).map(|(pool, credits, _)| {
            got += credits;
            (nth, pool, credits)
        }));
        match in_line {
            Ok(true) if got == u64::from(order.quantity) => Ok(()),
            Ok(true) => Err(Stop::Refused(nth, self.no_stock(order))),
            Ok(false) => Err(Stop::Later),
            Err(refusal) => Err(Stop::Refused(nth, refusal)),
        }
    }
}

fn unpromise(shares: &[Share]) {
    for (sku, cards) in shares {
        sku.unpromise(*cards);
    }
}

fn give_back(taken: Vec<Taken>) {
    for (_, pool, credits) in taken {
        pool.add_credits(credits);
    }
}
