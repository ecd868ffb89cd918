//! What orders take from the caps of their holders: docs/orders.md.
//!
//! Taken before the credits, and so before the id is claimed. What an order has taken and does not use is given back as soon as
//! its group, or its chain, has been dealt. Only orders that name a holder come here.

use super::{Dealer, outcome};
use crate::order::{Order, Outcome, Verdict};
use crate::state::holders::{Limits, NoShare, Share};
use crate::state::index::Place;

/// What an order of the turn has taken.
pub(super) struct Capped {
    /// Which of the turn's orders.
    nth: u16,
    share: Share,
    /// How many of the cards it gets; `None`: it gets nothing, as far as is known.
    used: Option<u16>,
}

impl Dealer {
    fn limits_of(&mut self, sku: u32) -> Limits {
        let sku = self.resolver.catalog().sku(sku);
        Limits {
            cap: sku.map_or_else(Default::default, |sku| sku.cap()),
            open_max: self.limits.holder_holds_max,
        }
    }

    /// Takes what a new order wants, or a part of it, if that will do. `None`: come again.
    fn try_cap(&mut self, now: u64, nth: u16, order: &Order) -> Option<Result<u16, NoShare>> {
        let share = Share {
            holder: order.holder,
            sku: order.sku,
            cards: order.quantity,
            is_open: order.is_reserve(),
        };
        let limits = self.limits_of(order.sku);
        let holders = &self.state.holders;
        let taken = holders.try_take(&share, order.takes_part(), &limits, now)?;
        if let Ok(cards) = taken {
            self.capped.push(Capped {
                nth,
                share: Share { cards, ..share },
                used: None,
            });
        }
        Some(taken)
    }

    /// A new order of a group, which is dealt further if its holder may have what it wants, or a part. Returns how many cards
    /// that is.
    pub(super) fn take_cap(
        &mut self,
        now: u64,
        (nth, seen): (u16, Option<Place>),
        (lane, order): (u8, &Order),
        out: &mut Vec<Outcome>,
    ) -> u16 {
        match self.try_cap(now, nth, order) {
            Some(Ok(cards)) => {
                self.fresh.push((nth, seen));
                return cards;
            }
            // What others of the group have taken, they may not get.
            Some(Err(_)) if self.is_undecided(nth, order.holder) => {
                self.deferred.push((lane, *order))
            }
            Some(Err(no)) => out.push(no_share(order, no)),
            None => self.deferred.push((lane, *order)),
        }
        0
    }

    /// Whether other orders of the holder have taken something, and may yet give it back.
    fn is_undecided(&self, nth: u16, holder: u128) -> bool {
        let mut capped = self.capped.iter().filter(|capped| capped.nth != nth);
        capped.any(|capped| capped.share.holder == holder && capped.used.is_none())
    }

    /// As [`take_cap`](Self::take_cap), for an order of a chain, or a late commit: all or nothing. `None`: come again.
    pub(super) fn take_whole_cap(
        &mut self,
        now: u64,
        nth: u16,
        order: &Order,
    ) -> Option<Result<(), NoShare>> {
        if order.holder == 0 {
            return Some(Ok(()));
        }
        self.try_cap(now, nth, order).map(|taken| taken.map(drop))
    }

    /// An order that found no stock counts as waiting from now on. `None`: come again.
    pub(super) fn open_cap(&mut self, nth: u16, order: &Order) -> Option<Result<(), NoShare>> {
        if order.holder == 0 || order.is_reserve() || !order.may_wait() {
            return Some(Ok(()));
        }
        let waits = Share {
            holder: order.holder,
            sku: order.sku,
            cards: 0,
            is_open: true,
        };
        let limits = self.limits_of(order.sku);
        // No card more: no clock is asked.
        let taken = self.state.holders.try_take(&waits, false, &limits, 0)?;
        match taken {
            Ok(_) => {
                if let Some(capped) = self.capped_mut(nth) {
                    capped.share.is_open = true;
                }
                Some(Ok(()))
            }
            Err(_) if self.is_undecided(nth, order.holder) => None,
            Err(no) => Some(Err(no)),
        }
    }

    /// As many cards as an order wants, and may have.
    pub(super) fn wanted(&mut self, nth: u16, order: &Order) -> u16 {
        if order.holder == 0 {
            return order.quantity;
        }
        self.capped_mut(nth).map_or(0, |capped| capped.share.cards)
    }

    /// The order gets so many cards, or holds them, or waits for them: nothing refuses it any more.
    pub(super) fn use_cap(&mut self, nth: u16, order: &Order, cards: u16) {
        if order.holder != 0
            && let Some(capped) = self.capped_mut(nth)
        {
            capped.used = Some(cards);
        }
    }

    fn capped_mut(&mut self, nth: u16) -> Option<&mut Capped> {
        // In the order in which they were looked at.
        let at = self.capped.binary_search_by_key(&nth, |capped| capped.nth);
        at.ok().map(|at| &mut self.capped[at])
    }

    /// Gives back what was taken and is not used.
    pub(super) fn settle_caps(&mut self) {
        for Capped { share, used, .. } in self.capped.drain(..) {
            let rest = match used {
                None => share,
                Some(cards) if cards < share.cards => Share {
                    cards: share.cards - cards,
                    is_open: false,
                    ..share
                },
                Some(_) => continue,
            };
            self.state.holders.give_back(rest);
        }
    }
}

/// The refusal of an order whose holder has reached a cap.
pub(super) fn no_share(order: &Order, (refusal, retry_after_ms): NoShare) -> Outcome {
    outcome(order, Verdict::refused(refusal, retry_after_ms))
}
