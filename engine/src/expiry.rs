//! Cards leave stock before they expire. The page is docs/cards.md.
//!
//! Two things see to it. The *sweep*, on a thread of the cold path, takes out what expires within a moment: credit, bit,
//! record, as every move does. And each pool knows the time from which on one of its cards has expired: behind it dealers
//! take nothing from there ([`Pool::is_good`]). So a sweep that is late, because the disk is, delays orders, and no card is
//! dealt that has expired.
//!
//! Holds have credits and no cards. If so many cards expire that not all holds of the pool can be kept, the youngest end.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::card::{CardStatus, Cause};
use crate::engine::{Engine, Refused};
use crate::moves::{Done, Ready, Way};
use crate::slab::claim;
use crate::state::index::{Hold, Settled};
use crate::state::record::{Fact, Release, Released};
use crate::state::{NEVER, Pool, SlabState};

/// Cards of a slab that are known in advance, so that not every one that expires costs a look at the whole slab.
#[cfg(not(test))]
const UPCOMING_MAX: usize = 8192;
/// Few in tests, so that the rest is read again.
#[cfg(test)]
const UPCOMING_MAX: usize = 4;
/// Uses of a view that are taken out in one go: a few MiB of places.
const DUE_MAX: usize = 1 << 20;
/// How often the sweep looks again, a millisecond apart, for cards that orders under way may leave to it.
const LOOKS_MAX: u32 = 3;

/// The way of cards that expire.
const WAY: Way = Way {
    to: CardStatus::Void,
    from: &[CardStatus::Free, CardStatus::Suspended],
    cause: Cause::Expired,
};

/// What a sweep has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Cards that are void now.
    pub cards: u64,
    /// Holds that have ended because there are not enough cards left for them.
    pub holds: u64,
}

/// What the sweep keeps: the cards of each slab that expire next.
pub(crate) type AllUpcoming = HashMap<u32, Upcoming>;

/// The cards of a slab that expire next and may be dealt before: when, in Unix seconds, and which slots. The earliest first.
#[derive(Default)]
pub(crate) struct Upcoming {
    next: VecDeque<(u64, u32)>,
    /// There are no others.
    is_all: bool,
}

impl Upcoming {
    fn read(slab: &SlabState) -> Upcoming {
        let mut all: Vec<(u64, u32)> = (0..slab.cards())
            .filter(|&slot| {
                let status = slab.status(slot);
                WAY.from.contains(&status)
            })
            .map(|slot| (slab.expires_at_s(slot), slot))
            .filter(|&(expires_s, _)| expires_s != 0)
            .collect();
        let is_all = all.len() <= UPCOMING_MAX;
        if !is_all {
            all.select_nth_unstable(UPCOMING_MAX - 1);
            all.truncate(UPCOMING_MAX);
        }
        all.sort_unstable();
        Upcoming {
            next: all.into(),
            is_all,
        }
    }

    /// Takes those that expire by then.
    fn take_due(&mut self, until_s: u64) -> Vec<(u64, u32)> {
        let due = self
            .next
            .partition_point(|(expires_s, _)| *expires_s <= until_s);
        self.next.drain(..due).collect()
    }
}

impl Engine {
    /// Whether a card expires so soon that it has to leave stock now.
    pub fn is_sweep_due(&self, now_unix_ms: u64) -> bool {
        let until_s = self.sweep_until_s(now_unix_ms);
        let catalog = self.state.catalog.load();
        let mut slabs = catalog.slabs.iter().flatten();
        slabs.any(|slab| slab.good_until_s() <= until_s)
    }

    /// Takes cards out of stock that expire within `expiry_lead_ms`, or have. An error says why some are still there; the next
    /// sweep goes on with them, and meanwhile nothing is dealt from the pools of those that have expired.
    pub fn sweep_expired(&self, now_unix_ms: u64) -> Result<Swept, Refused> {
        let until_s = self.sweep_until_s(now_unix_ms);
        let _one_at_a_time = self.lock(&self.moving);
        let mut all = self.lock(&self.upcoming);
        let catalog = self.state.catalog.load_full();
        let slabs = catalog.slabs.iter().flatten();
        let is_due = |slab: &&Arc<SlabState>| slab.good_until_s() <= until_s;
        let due: Vec<&Arc<SlabState>> = slabs.filter(is_due).collect();
        let mut swept = Swept::default();
        let ended = due
            .iter()
            .try_for_each(|slab| self.sweep_slab(slab, until_s, &mut all, &mut swept));
        for slab in due {
            slab.pool.swept();
        }
        ended.map(|()| swept)
    }

    pub(crate) fn sweep_until_s(&self, now_unix_ms: u64) -> u64 {
        (now_unix_ms + u64::from(self.config.expiry_lead_ms)) / 1000
    }

    fn sweep_slab(
        &self,
        slab: &SlabState,
        until_s: u64,
        upcoming_of: &mut AllUpcoming,
        swept: &mut Swept,
    ) -> Result<(), Refused> {
        if slab.facts.view.is_some() {
            return self.sweep_view(slab, until_s, swept);
        }
        // First: what comes back from here on lowers it again.
        let was_s = slab.look_for_expired();
        let known = upcoming_of.remove(&slab.facts.slab);
        let mut upcoming = known.filter(|_| !slab.take_returned()).unwrap_or_default();
        loop {
            if upcoming.next.is_empty() && !upcoming.is_all {
                upcoming = Upcoming::read(slab);
            }
            let due = upcoming.take_due(until_s);
            if due.is_empty() {
                break;
            }
            let mut slots: Vec<u32> = due.iter().map(|(_, slot)| *slot).collect();
            slots.sort_unstable();
            match self.void_expired(slab, slots, swept) {
                Ok(true) => {}
                // What is left is read again.
                Ok(false) => {
                    slab.expires_again(was_s);
                    return Ok(());
                }
                Err(refused) => {
                    slab.expires_again(was_s);
                    return Err(refused);
                }
            }
        }
        if let Some((next_s, _)) = upcoming.next.front() {
            slab.expires_again(*next_s);
            upcoming_of.insert(slab.facts.slab, upcoming);
        }
        Ok(())
    }

    /// As [`sweep_slab`](Self::sweep_slab), where many slots are one card: they are looked for when they are due.
    fn sweep_view(&self, slab: &SlabState, until_s: u64, swept: &mut Swept) -> Result<(), Refused> {
        let was_s = slab.look_for_expired();
        loop {
            let (due, next_s) = due_in_view(slab, until_s);
            if due.is_empty() {
                slab.expires_again(next_s);
                return Ok(());
            }
            let all_gone = self.void_expired(slab, due, swept);
            // What is left is looked for again.
            if !matches!(all_gone, Ok(true)) {
                slab.expires_again(was_s);
                return all_gone.map(|_| ());
            }
        }
    }

    /// Makes cards void as far as they can be had. False: some are still free.
    fn void_expired(
        &self,
        slab: &SlabState,
        mut slots: Vec<u32>,
        swept: &mut Swept,
    ) -> Result<bool, Refused> {
        let mut done = Done::default();
        let suspended = slots.extract_if(.., |slot| slab.suspended.has(*slot));
        let from = CardStatus::Suspended;
        let slots_suspended: Vec<u32> = suspended.collect();
        let ready = Ready {
            slab,
            from,
            slots: slots_suspended,
        };
        let mut wrote = self.write(ready, WAY, &mut done);
        for may_end_holds in [true, false] {
            if wrote.is_err() {
                break;
            }
            let from = CardStatus::Free;
            let taken = take_some(slab, &mut slots);
            let ready = Ready {
                slab,
                from,
                slots: taken,
            };
            wrote = self.write(ready, WAY, &mut done);
            if slots.is_empty() || wrote.is_err() || !may_end_holds {
                break;
            }
            // Holds have been promised the rest.
            match self.end_holds(&slab.pool, slots.len() as u64) {
                Ok(holds) => swept.holds += holds,
                Err(refused) => wrote = Err(refused),
            }
        }
        swept.cards += done.moved;
        wrote.map(|()| slots.is_empty())
    }

    /// Ends holds that have credits of a pool, the youngest first, until they come to so many credits. Returns how many.
    fn end_holds(&self, pool: &Pool, cards: u64) -> Result<u64, Refused> {
        let index = &self.state.index;
        let held = |hold: &Hold| {
            // One that has its card gives back no other.
            let parts = hold.credits.iter().filter(|_| hold.card.is_none());
            let ours = parts.filter(|(of, _)| hold.sku == pool.sku && *of == pool.index);
            ours.map(|(_, credits)| u64::from(credits)).sum::<u64>()
        };
        let mut holds: Vec<(u64, u128, Settled)> = index
            .open_holds()
            .filter(|(.., hold)| held(hold) > 0)
            .map(|(id, settled, hold)| (hold.reserved_lsn, id, settled))
            .collect();
        holds.sort_unstable_by_key(|(lsn, ..)| std::cmp::Reverse(*lsn));
        let catalog = self.state.catalog.load();
        let (mut freed, mut ended) = (0, 0);
        for (_, id, settled) in holds {
            if freed >= cards {
                break;
            }
            let Some(hold) = index.hold(settled) else {
                continue;
            };
            let Some(claimed) = index.claim_order(settled) else {
                continue;
            };
            let released = Released {
                order_id: id,
                holder: self.state.holders.of(id),
                sku: hold.sku,
                principal: 0,
                quantity: settled.quantity,
                why: Release::Expired,
                was_issue: false,
            };
            let mut view = self.lock(&self.cold);
            match self.append_fact(Fact::Released(released)) {
                Ok(lsn) => {
                    self.state
                        .apply_released(&catalog, lsn, &released, claimed, &hold, &mut view);
                }
                Err(refused) => {
                    index.let_go(claimed);
                    return Err(refused);
                }
            }
            freed += held(&hold);
            ended += 1;
        }
        Ok(ended)
    }
}

/// Uses of a view that are in stock and expire by then, as many as one go takes; if there are none, when the next one does.
fn due_in_view(slab: &SlabState, until_s: u64) -> (Vec<u32>, u64) {
    let free = slab.slots_that_are(CardStatus::Free);
    let suspended = slab.slots_that_are(CardStatus::Suspended);
    let both = free.iter().zip(suspended).map(|(free, other)| free | other);
    let (mut due, mut next_s) = (Vec::new(), NEVER);
    for slot in claim::slots_in(both) {
        match slab.expires_at_s(slot) {
            0 => {}
            expires_s if expires_s > until_s => next_s = next_s.min(expires_s),
            _ => due.push(slot),
        }
        if due.len() == DUE_MAX {
            break;
        }
    }
    (due, next_s)
}

/// Takes those of the slots that are free, a credit and a bit each; who got one meanwhile keeps it. Leaves those for which there
/// was no credit.
pub(crate) fn take_some(slab: &SlabState, slots: &mut Vec<u32>) -> Vec<u32> {
    let mut taken = Vec::new();
    for look in 0..LOOKS_MAX {
        slots.retain(|&slot| !claim::is_set(slab.words(), slot));
        if slots.is_empty() {
            break;
        }
        if look > 0 {
            thread::sleep(Duration::from_millis(1));
        }
        let mut credits = slab.pool.take_credits(slots.len() as u64);
        slots.retain(|&slot| {
            if credits == 0 {
                return true;
            }
            if claim::set(slab.words(), slot) {
                credits -= 1;
                taken.push(slot);
            }
            false
        });
        if credits > 0 {
            slab.pool.add_credits(credits);
        }
    }
    taken.sort_unstable();
    taken
}

#[cfg(all(test, not(any(croupier_loom, croupier_shuttle))))]
mod tests;
