//! Orders in two phases, and those that may wait for stock: every answer against the books. docs/orders.md has the table.

use croupier_client::{IssuedOrder, OrderId, OrderOutcome, Refusal, SkuId, Step};

use super::cards::Answer;
use super::held::{HeldBook, Standing, Told};
use super::table::{Known, States, states_that_say};
use super::{Ask, Books};

/// What such an order takes of its SKU's cards, as far as is known.
pub(super) struct InTwoPhases {
    pub(super) id: OrderId,
    pub(super) sku: SkuId,
    pub(super) quantity: u64,
    /// Cards it holds for certain.
    pub(super) held_least: u64,
    /// Cards it may hold.
    pub(super) held_most: u64,
    /// Cards it has got.
    pub(super) dealt: u64,
    /// It waits, and wants so many, when it was last seen.
    pub(super) wants: u64,
    /// They are to be issued, not held.
    pub(super) is_issue: bool,
}

impl Books {
    pub(super) fn held_book(&mut self, id: OrderId) -> &mut HeldBook {
        self.held.get_mut(&id).expect("it was booked when asked")
    }

    /// Books the answer to a step.
    pub(super) fn step_answered(&mut self, ask: &Ask, outcome: &OrderOutcome) {
        let (step, now_ms) = (&ask.step, self.now_ms());
        let id = step.order.order_id;
        let book = self.held_book(id);
        let possible = book.possible(ask.known, now_ms);
        let said = states_that_say(ask, outcome);
        assert!(
            possible.meets(said),
            "{id}: {step:?} of an order known as {:?} is answered {outcome:?}, and the books say {book:?}",
            ask.known
        );
        match outcome {
            OrderOutcome::Issued(issued) => {
                let cards = issued.cards.len();
                let fits = match book.is_issue {
                    true => book.may_be_issued(cards),
                    false => book.commits(step.order.quantity, cards),
                };
                assert!(fits, "{id}: {step:?} gets {cards} cards: {book:?}");
                if !issued.repeat {
                    book.first(id, step);
                }
                self.committed(issued, step.only_held);
            }
            OrderOutcome::Held(held) => {
                if !held.repeat {
                    book.first(id, step);
                }
                // Answers may come late: the order may have ended since.
                book.holds(held);
                if step.step == Step::Reserve {
                    // As it was first, whatever extensions have made of it.
                    let hold = held.hold.expect("a held order has its hold");
                    let answer = (held.lsn, hold.ends_unix_ms);
                    let first = *book.reserved.get_or_insert(answer);
                    assert_eq!(first, answer, "{id}: another hold than before");
                }
            }
            OrderOutcome::Waiting(held) => {
                book.waits(held);
                if !held.repeat {
                    book.first(id, step);
                    let ends = held.hold.map_or(0, |hold| hold.ends_unix_ms);
                    let within = step.order.deadline.map_or(0, |within| within.as_millis());
                    let longer = now_ms.is_some_and(|now_ms| ends > now_ms + within as u64);
                    assert!(!longer, "{id}: {step:?} waits until {ends}");
                }
            }
            OrderOutcome::Cancelled(held) => {
                if !held.repeat {
                    book.first(id, step);
                }
                book.learn(id, Told::Cancelled);
            }
            OrderOutcome::Expired(_) => unreachable!("only a look-up says expired"),
            OrderOutcome::Refused { refusal, .. } => book.refused(ask, *refusal),
        }
        if ask.own {
            self.held_book(id).over(step, false);
        }
    }

    /// Books cards that a step has brought, or a look-up has shown. `only_held`: it takes no others.
    fn committed(&mut self, issued: &IssuedOrder, only_held: bool) {
        let id = issued.order_id;
        let now_ms = self.now_ms();
        let book = self.held_book(id);
        assert_eq!(book.sku, issued.sku, "{id}: another SKU than asked");
        // A late commit takes any card.
        let in_time = only_held && !issued.repeat || !book.may_have_expired(now_ms);
        let is_bound = |card| issued.cards.iter().all(|issued| issued.card == card);
        let fits = book.bound.is_none_or(is_bound) || !in_time;
        assert!(fits, "{id} gets another card than is bound to it: {book:?}");
        book.learn(id, Told::Cards(Answer::new(issued.lsn, &issued.cards)));
        self.give(issued);
    }

    /// Holds what a state says of every such order against the books; returns what stands.
    pub(super) fn judge_held(
        &self,
        standing: impl Fn(OrderId) -> Option<Standing>,
    ) -> Vec<(OrderId, SkuId, Standing)> {
        let mut all = Vec::new();
        for (&id, book) in &self.held {
            let found = standing(id);
            book.judge(id, found.as_ref());
            all.extend(found.map(|found| (id, book.sku, found)));
        }
        all
    }

    /// Books what a server that nobody else uses says.
    pub(super) fn settle_held(&mut self, look: impl Fn(OrderId) -> Option<OrderOutcome>) {
        let ids: Vec<_> = self.held.keys().copied().collect();
        for id in ids {
            self.settle_one(id, look(id));
        }
    }

    /// Books what such a server says of one order.
    pub(super) fn settle_one(&mut self, id: OrderId, found: Option<OrderOutcome>) {
        let book = self.held_book(id);
        // A look-up while an ask is under way says nothing about that ask.
        if book.wishes.iter().any(|asks| asks.under_way > 0) {
            return;
        }
        let known = book.known();
        match &found {
            None => assert!(!book.stood, "{id} is gone: {book:?}"),
            Some(found) => self.held_seen(id, known, found),
        }
        let book = self.held_book(id);
        book.wishes.clear();
        book.forget_wishes();
    }

    /// Books what a look-up says, also while others ask. `known`: what was known when it was sent.
    pub(super) fn held_seen(&mut self, id: OrderId, known: Known, outcome: &OrderOutcome) {
        let now_ms = self.now_ms();
        let book = self.held_book(id);
        let may_be = match outcome {
            OrderOutcome::Issued(issued) => {
                let cards = issued.cards.len();
                let told = matches!(book.told, Some(Told::Cards(_) | Told::SomeCards));
                told || book.may_have_got(cards, known == Known::Expired)
            }
            OrderOutcome::Held(_) => book.possible(known, now_ms).meets(States::HELD),
            OrderOutcome::Waiting(_) => book.possible(known, now_ms).meets(States::WAITING),
            OrderOutcome::Cancelled(_) => book.possible(known, now_ms).meets(States::ALL_CANCELLED),
            OrderOutcome::Expired(_) => book.possible(known, now_ms).meets(States::ALL_EXPIRED),
            OrderOutcome::Refused {
                refusal: Refusal::OrderNotFound,
                ..
            } => known == Known::Nothing,
            OrderOutcome::Refused { refusal, .. } => refusal.retryable(),
        };
        let was_there = book.stood || book.may_have_begun();
        let there = !matches!(outcome, OrderOutcome::Refused { .. });
        assert!(
            may_be && (was_there || !there),
            "{id} was {known:?} and is seen as {outcome:?}, and the books say {book:?}"
        );
        match outcome {
            OrderOutcome::Issued(issued) => self.committed(issued, false),
            OrderOutcome::Held(held) => book.holds(held),
            OrderOutcome::Waiting(held) => book.waits(held),
            OrderOutcome::Cancelled(_) => book.learn(id, Told::Cancelled),
            // It may still be committed late.
            OrderOutcome::Expired(_) => book.learn(id, Told::Expired),
            OrderOutcome::Refused { .. } => {}
        }
    }

    /// What every such order takes.
    pub(super) fn in_two_phases(&self) -> impl Iterator<Item = InTwoPhases> + '_ {
        let now_ms = self.now_ms();
        self.held.iter().map(move |(&id, book)| {
            let quantity = u64::from(book.quantity);
            let (least, most) = book.holds_between();
            let if_so = |so, cards: u16| if so { u64::from(cards) } else { 0 };
            InTwoPhases {
                id,
                sku: book.sku,
                quantity,
                held_least: if_so(book.surely_holds(now_ms), least),
                held_most: if_so(book.may_hold(), most),
                wants: if_so(book.known() == Known::Waiting, book.quantity),
                is_issue: book.is_issue,
                dealt: match &book.told {
                    Some(Told::Cards(answer)) => answer.cards.len() as u64,
                    _ => 0,
                },
            }
        })
    }

    /// How many of them have ended.
    pub(super) fn ended_in_two_phases(&self) -> u64 {
        self.held
            .values()
            .filter(|book| book.told.is_some())
            .count() as u64
    }
}
