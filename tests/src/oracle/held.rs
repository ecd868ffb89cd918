//! The book of an order in two phases, or of one that may wait for stock: what it may be, from what was asked and answered.

use std::time::Duration;

use croupier_client::{
    CardRef, HeldOrder, Holder, Lsn, Order, OrderId, OrderStep, Refusal, SkuId, Step,
};

use super::Ask;
use super::cards::Answer;
use super::issued::Booked;
use super::table::{Known, States};

/// How an order stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It holds so many cards.
    Held(u16),
    /// It waits for so many.
    Waiting(u16),
    /// It has cards.
    Issued(Lsn, Vec<CardRef>),
    /// Its hold was cancelled.
    Cancelled,
    /// Its hold has ended by itself.
    Expired,
}

/// What was told of the end of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    Cards(Answer),
    /// Some cards, by a refusal of another step.
    SomeCards,
    Cancelled,
    Expired,
}

/// What a step asks, as far as it decides what an order becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// The issue or reserve.
    Begin,
    Commit {
        quantity: u16,
        only_held: bool,
    },
    Cancel,
    Extend(u16),
}

/// Asks of one wish.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asks {
    wish: Wish,
    pub(super) under_way: u16,
    in_doubt: bool,
}

/// The book of an order in two phases, or of one that may wait.
#[derive(Debug, Clone)]
pub(super) struct HeldBook {
    /// It is to be issued, not held.
    pub(super) is_issue: bool,
    /// Somebody has asked for it with leave to wait.
    pub(super) may_wait: bool,
    pub(super) sku: SkuId,
    /// For how many cards it asks.
    pub(super) quantity: u16,
    holder: Option<Holder>,
    /// An ask of it holds fewer cards if there are not so many.
    pub(super) may_be_part: bool,
    /// How many it holds, or has held, once that was told.
    granted: Option<u16>,
    /// The card that is bound to it.
    pub(super) bound: Option<CardRef>,
    pub(super) ttl_ms: u32,
    /// When it was booked, by a clock that can be relied on.
    begun_ms: u64,
    /// The first answer that it waits: the record, and until when.
    pub(super) waited: Option<(Lsn, u64)>,
    /// The first answer to its reserve, once it holds cards.
    pub(super) reserved: Option<(Lsn, u64)>,
    /// The newest record of its hold or its wait that was told, and when that ends by it.
    pub(super) ends: (Lsn, u64),
    /// It is known to have held cards.
    pub(super) has_held: bool,
    /// It is known to be there.
    pub(super) stood: bool,
    pub(super) told: Option<Told>,
    /// An answer without the repeat mark has been seen: to its issue or reserve, and to what ended it.
    first_seen: [bool; 2],
    /// A few: a map would cost more than the order.
    pub(super) wishes: Vec<Asks>,
}

fn wish_of(step: &OrderStep) -> Wish {
    match step.step {
        Step::Commit => Wish::Commit {
            quantity: step.order.quantity,
            only_held: step.only_held,
        },
        Step::Cancel => Wish::Cancel,
        Step::Extend => Wish::Extend(step.nth),
        Step::Issue | Step::Reserve => Wish::Begin,
    }
}

impl HeldBook {
    pub(super) fn new(step: &OrderStep, now_ms: Option<u64>) -> Self {
        Self {
            is_issue: step.step == Step::Issue,
            may_wait: false,
            sku: step.order.sku,
            quantity: step.order.quantity,
            holder: step.order.holder,
            may_be_part: false,
            granted: None,
            bound: None,
            ttl_ms: step.item(Duration::ZERO).ttl_ms,
            begun_ms: now_ms.unwrap_or(0),
            waited: None,
            reserved: None,
            ends: (Lsn::ZERO, 0),
            has_held: false,
            stood: false,
            told: None,
            first_seen: [false; 2],
            wishes: Vec::new(),
        }
    }

    /// The book of an order that was asked for without leave to wait until now.
    pub(super) fn of_issue(booked: Booked, step: &OrderStep, now_ms: Option<u64>) -> Self {
        let mut book = Self::new(step, now_ms);
        book.first_seen[0] = booked.first_seen;
        // An ask that took a part does not wait, but it may be the one that stands.
        book.may_be_part = booked.may_be_part;
        book.stood = booked.known() == Known::Issued;
        book.told = match booked.answer {
            Some(answer) => Some(Told::Cards(answer)),
            None => booked.stands.then_some(Told::SomeCards),
        };
        if booked.under_way > 0 || booked.in_doubt {
            book.wishes.push(Asks {
                wish: Wish::Begin,
                under_way: booked.under_way as u16,
                in_doubt: booked.in_doubt,
            });
        }
        book
    }

    /// Its issue or reserve, once more.
    pub(super) fn begin(&self, id: OrderId) -> OrderStep {
        let order = Order {
            holder: self.holder,
            ..Order::new(id, self.sku).quantity(self.quantity)
        };
        match self.is_issue {
            true => OrderStep::issue(order),
            false => OrderStep::reserve(order, Duration::from_millis(self.ttl_ms.into())),
        }
    }

    /// Whether the step has the numbers of this order, or is one that follows.
    pub(super) fn owns(&self, step: &OrderStep) -> bool {
        match step.step {
            Step::Issue => {
                let order = &step.order;
                let asked = (order.sku, order.quantity, order.holder);
                self.is_issue && (self.sku, self.quantity, self.holder) == asked
            }
            Step::Reserve => {
                let item = step.item(Duration::ZERO);
                let asked = (item.sku, item.quantity, item.ttl_ms, step.order.holder);
                !self.is_issue && (self.sku, self.quantity, self.ttl_ms, self.holder) == asked
            }
            Step::Commit | Step::Cancel | Step::Extend => true,
        }
    }

    pub(super) fn known(&self) -> Known {
        match &self.told {
            Some(Told::Cards(_) | Told::SomeCards) => Known::Issued,
            Some(Told::Cancelled) => Known::Cancelled,
            Some(Told::Expired) => Known::Expired,
            None if self.stood && self.may_wait && !self.has_held => Known::Waiting,
            None if self.stood => Known::Held,
            None => Known::Nothing,
        }
    }

    fn asks(&mut self, step: &OrderStep) -> &mut Asks {
        let wish = wish_of(step);
        let known = self.wishes.iter().position(|asks| asks.wish == wish);
        let nth = known.unwrap_or_else(|| {
            let (under_way, in_doubt) = (0, false);
            self.wishes.push(Asks {
                wish,
                under_way,
                in_doubt,
            });
            self.wishes.len() - 1
        });
        &mut self.wishes[nth]
    }

    /// Books that a step of its own leaves. `waits`: its order may wait from now on.
    pub(super) fn leaves(&mut self, step: &OrderStep, waits: bool) {
        self.may_wait |= waits;
        self.may_be_part |= step.partial;
        self.asks(step).under_way += 1;
    }

    /// Books that a step of its own is over.
    pub(super) fn over(&mut self, step: &OrderStep, in_doubt: bool) {
        let asks = self.asks(step);
        asks.under_way = asks.under_way.saturating_sub(1);
        asks.in_doubt |= in_doubt;
        self.forget_wishes();
    }

    /// Books that somebody who is no caller cancels it.
    pub(super) fn may_be_cancelled(&mut self, id: OrderId) {
        self.asks(&OrderStep::cancel(id)).in_doubt = true;
    }

    pub(super) fn forget_wishes(&mut self) {
        self.wishes
            .retain(|asks| asks.under_way > 0 || asks.in_doubt);
        if self.wishes.is_empty() {
            self.wishes = Vec::new();
        }
    }

    /// Whether an ask whose outcome is not known may do this.
    fn may(&self, which: impl Fn(&Wish) -> bool) -> bool {
        self.wishes.iter().any(|asks| which(&asks.wish))
    }

    /// Whether an ask whose outcome is not known may have begun it.
    pub(super) fn may_have_begun(&self) -> bool {
        self.may(|wish| *wish == Wish::Begin)
    }

    /// Whether it may have got so many cards without an answer that has said so; `late`: behind its end.
    pub(super) fn may_have_got(&self, cards: usize, late: bool) -> bool {
        if self.is_issue {
            return self.may_be_issued(cards) && !late;
        }
        self.may(|wish| match wish {
            Wish::Commit {
                quantity,
                only_held,
            } => self.commits(*quantity, cards) && !(late && *only_held),
            _ => false,
        })
    }

    /// Whether an issue may be for so many cards.
    pub(super) fn may_be_issued(&self, cards: usize) -> bool {
        let asked = usize::from(self.quantity);
        cards == asked || self.may_be_part && (1..asked).contains(&cards)
    }

    /// Whether a commit of `quantity`, 0 for all, may be for so many cards.
    pub(super) fn commits(&self, quantity: u16, cards: usize) -> bool {
        match quantity {
            0 => self.may_hold_so_many(cards),
            some => usize::from(some) == cards,
        }
    }

    /// Whether it may hold, or have held, so many cards.
    fn may_hold_so_many(&self, cards: usize) -> bool {
        let (least, most) = self.holds_between();
        (least.into()..=most.into()).contains(&cards)
    }

    /// How many cards it holds if it holds any: at least and at most.
    pub(super) fn holds_between(&self) -> (u16, u16) {
        match self.granted {
            Some(granted) => (granted, granted),
            None if self.may_be_part => (1, self.quantity),
            None => (self.quantity, self.quantity),
        }
    }

    /// The states it may have been in since so much was known. `now_ms` is none of a clock that cannot be relied on.
    pub(super) fn possible(&self, known: Known, now_ms: Option<u64>) -> States {
        let has_cards = matches!(self.told, Some(Told::Cards(_) | Told::SomeCards));
        let committed = has_cards || self.may(|wish| matches!(wish, Wish::Commit { .. }));
        let cancelled =
            self.told == Some(Told::Cancelled) || self.may(|wish| *wish == Wish::Cancel);
        let expired = self.may_have_expired(now_ms);
        let ended = matches!(self.told, Some(Told::Cancelled | Told::Expired));
        let both = States::NONE.or(States::WAITING.when(self.may_wait));
        let here = if self.is_issue {
            both.or(States::ISSUED.when(!ended))
                .or(States::VAINLY_CANCELLED.when(cancelled))
                .or(States::VAINLY_EXPIRED.when(expired && self.may_wait))
        } else {
            both.or(States::HELD)
                .or(States::COMMITTED.when(committed))
                .or(States::CANCELLED.when(cancelled))
                .or(States::EXPIRED.when(expired))
        };
        here.and(known.onwards())
    }

    /// No hold and no wait ends by itself before the end that was told. An extension whose answer is not known may have
    /// brought another end, and a wait that became a hold, too.
    pub(super) fn may_have_expired(&self, now_ms: Option<u64>) -> bool {
        let extended = self.may(|wish| matches!(wish, Wish::Extend(_)));
        let mut end = self.ends.1;
        if !self.is_issue && !self.has_held {
            end = end.min(self.begun_ms + u64::from(self.ttl_ms));
        }
        extended || now_ms.is_none_or(|now_ms| now_ms >= end)
    }

    /// Whether it is certain that it holds its cards until `now_ms`.
    pub(super) fn surely_holds(&self, now_ms: Option<u64>) -> bool {
        let holds = self.stood && self.known() == Known::Held && !self.is_issue;
        holds && self.wishes.is_empty() && now_ms.is_none_or(|now_ms| now_ms < self.ends.1)
    }

    /// Whether it may hold cards, for all that is known.
    pub(super) fn may_hold(&self) -> bool {
        !self.is_issue && self.told.is_none() && (self.stood || self.may_have_begun())
    }

    /// It was told that it waits, and was filled later, as far as is known.
    pub(super) fn is_filled(&self) -> bool {
        let issued = self.is_issue && matches!(self.told, Some(Told::Cards(_) | Told::SomeCards));
        self.waited.is_some() && (issued || self.has_held)
    }

    /// True if nothing about it is in doubt but whether its time is up.
    pub(super) fn is_settled(&self) -> bool {
        self.wishes.is_empty() && self.told != Some(Told::SomeCards)
    }

    pub(super) fn judge(&self, id: OrderId, found: Option<&Standing>) {
        let fine = match (&self.told, found) {
            (Some(Told::Cards(answer)), Some(Standing::Issued(lsn, cards))) => {
                answer.lsn == *lsn && *answer.cards == **cards
            }
            (Some(Told::SomeCards), Some(Standing::Issued(..)))
            | (Some(Told::Cancelled), Some(Standing::Cancelled))
            | (Some(Told::Expired), Some(Standing::Expired)) => true,
            (Some(Told::Expired), Some(Standing::Issued(_, cards))) => {
                self.may_have_got(cards.len(), true)
            }
            (Some(_), _) => false,
            (None, None) => !self.stood,
            (None, Some(standing)) => {
                let was_there = self.stood || self.may_have_begun();
                was_there
                    && match standing {
                        Standing::Held(quantity) => {
                            !self.is_issue && self.may_hold_so_many((*quantity).into())
                        }
                        Standing::Waiting(quantity) => {
                            self.may_wait && !self.has_held && *quantity == self.quantity
                        }
                        Standing::Issued(_, cards) => self.may_have_got(cards.len(), false),
                        Standing::Cancelled => self.may(|wish| *wish == Wish::Cancel),
                        Standing::Expired => !self.is_issue || self.may_wait,
                    }
            }
        };
        assert!(fine, "{id} is {found:?}, and the books say {self:?}");
    }

    /// Takes in what is certain to stand, from an answer or a look-up.
    pub(super) fn learn(&mut self, id: OrderId, now: Told) {
        let fits = match (&self.told, &now) {
            (None, _) => true,
            (Some(Told::Cards(answer)), Told::Cards(other)) => answer == other,
            (Some(Told::Cards(_)), Told::SomeCards) => return,
            // Told late: it was committed meanwhile.
            (Some(Told::Cards(_) | Told::SomeCards), Told::Expired) if !self.is_issue => return,
            (Some(Told::Expired), Told::Cards(_) | Told::SomeCards) => !self.is_issue,
            (Some(Told::SomeCards), Told::Cards(_) | Told::SomeCards)
            | (Some(Told::Cancelled), Told::Cancelled)
            | (Some(Told::Expired), Told::Expired) => true,
            _ => false,
        };
        assert!(fits, "{id} was {:?} and is now {now:?}", self.told);
        if let (Told::Cards(answer), Some((lsn, _))) = (&now, self.waited) {
            assert!(answer.lsn > lsn, "{id}: cards by {answer:?}, before {lsn}");
        }
        self.stood = true;
        self.told = Some(now);
    }

    /// Takes in how a hold stands, or stood.
    pub(super) fn holds(&mut self, held: &HeldOrder) {
        let id = held.order_id;
        assert!(!self.is_issue, "{id} is to be issued, and holds cards");
        let waited = self.waited.is_some_and(|(lsn, _)| held.lsn <= lsn);
        assert!(!waited, "{id} holds cards by {}: {self:?}", held.lsn);
        let fits = self.may_hold_so_many(held.quantity.into());
        assert!(fits, "{id} holds {} cards: {self:?}", held.quantity);
        self.granted = Some(held.quantity);
        self.stands(held);
        self.has_held = true;
    }

    /// Takes in until when an order waits, or waited.
    pub(super) fn waits(&mut self, held: &HeldOrder) {
        let id = held.order_id;
        assert!(self.may_wait, "{id} waits, and nobody has asked for that");
        assert_eq!(held.quantity, self.quantity, "{id} waits for others");
        self.stands(held);
        let told = (held.lsn, held.hold.map_or(0, |hold| hold.ends_unix_ms));
        let first = *self.waited.get_or_insert(told);
        assert_eq!(first, told, "{id}: another wait than before");
        let held = self.reserved.is_some_and(|(lsn, _)| lsn <= told.0);
        assert!(!held, "{id} waits by {told:?}, behind its hold: {self:?}");
    }

    fn stands(&mut self, held: &HeldOrder) {
        let id = held.order_id;
        let hold = held.hold.expect("it has its end");
        assert_eq!(held.sku, self.sku, "{id}: another hold");
        self.stood = true;
        if held.lsn > self.ends.0 {
            self.ends = (held.lsn, hold.ends_unix_ms);
        } else if held.lsn == self.ends.0 {
            assert_eq!(hold.ends_unix_ms, self.ends.1, "{id}: another end");
        }
    }

    /// An answer without the repeat mark, which there is one of.
    pub(super) fn first(&mut self, id: OrderId, step: &OrderStep) {
        let nth = match step.step {
            Step::Issue | Step::Reserve => 0,
            Step::Commit | Step::Cancel => 1,
            // There may be several extensions.
            Step::Extend => return,
        };
        let before = std::mem::replace(&mut self.first_seen[nth], true);
        assert!(!before, "{id}: two answers to {step:?} are not marked");
    }

    /// Takes in what a refusal says of it.
    pub(super) fn refused(&mut self, ask: &Ask, refusal: Refusal) {
        let id = ask.step.order.order_id;
        match refusal {
            Refusal::AlreadyCommitted => self.learn(id, Told::SomeCards),
            Refusal::AlreadyCancelled => self.learn(id, Told::Cancelled),
            Refusal::Expired => self.learn(id, Told::Expired),
            Refusal::OrderIdReused => {
                self.stood = true;
                if let (Step::Commit, Some(Told::Cards(answer)), false) =
                    (ask.step.step, &self.told, self.is_issue)
                {
                    // For how many a commit of all was, is known only of whoever was told what is held.
                    let all = ask.step.order.quantity == 0 && self.granted.is_none();
                    let same = self.commits(ask.step.order.quantity, answer.cards.len());
                    let fits = all && self.may_be_part || !same;
                    assert!(fits, "{id}: it asks for what it got");
                }
            }
            Refusal::StillWaiting => self.stood = true,
            Refusal::StoreFailed if ask.own => self.asks(&ask.step).in_doubt = true,
            _ => {}
        }
    }
}
