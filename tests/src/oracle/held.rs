//! Orders in two phases, and those that wait for stock: what they may be, from what was asked and answered. docs/orders.md
//! has the table.

use std::collections::HashMap;

use croupier_client::{
    CardRef, IssuedOrder, Lsn, OrderId, OrderOutcome, OrderStep, Refusal, SkuId, Step, Wait,
};

use super::{Answer, Ask, Books, claim};

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
enum Told {
    Cards(Answer),
    /// Some cards, by a refusal of another step.
    SomeCards,
    Cancelled,
    Expired,
}

/// What a step asks, as far as it decides what an order becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Wish {
    /// The first step.
    Begin,
    Commit {
        quantity: u16,
        only_held: bool,
    },
    Cancel,
    Extend(u16),
}

/// Asks of one wish.
#[derive(Debug, Clone, Copy, Default)]
struct Asks {
    under_way: u32,
    in_doubt: bool,
}

impl Asks {
    fn may_happen(self) -> bool {
        self.under_way > 0 || self.in_doubt
    }
}

/// The book of an order in two phases, or one that may wait.
#[derive(Debug, Clone)]
pub(super) struct HeldBook {
    /// It is to be issued, not reserved.
    is_issue: bool,
    may_wait: bool,
    sku: SkuId,
    quantity: u16,
    /// The first answer that it waits.
    waited: Option<(Lsn, u64)>,
    /// The first answer that it holds cards.
    reserved: Option<(Lsn, u64)>,
    /// It is known to be there.
    stood: bool,
    /// It waits, when it was last seen.
    waits: bool,
    told: Option<Told>,
    wishes: HashMap<Wish, Asks>,
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
    fn asks(&mut self, step: &OrderStep) -> &mut Asks {
        self.wishes.entry(wish_of(step)).or_default()
    }

    fn may(&self, which: impl Fn(&Wish) -> bool) -> bool {
        let mut wishes = self.wishes.iter();
        wishes.any(|(wish, asks)| which(wish) && asks.may_happen())
    }

    fn may_have_begun(&self) -> bool {
        self.may(|wish| *wish == Wish::Begin)
    }

    /// Whether so many cards may have been committed by an ask whose outcome is not known; `late`: of an expired hold.
    fn may_be_committed(&self, cards: usize, late: bool) -> bool {
        !self.is_issue
            && self.may(|wish| match wish {
                Wish::Commit {
                    quantity,
                    only_held,
                } => {
                    let asked = if *quantity == 0 {
                        self.quantity
                    } else {
                        *quantity
                    };
                    usize::from(asked) == cards && !(late && *only_held)
                }
                _ => false,
            })
    }

    fn judge(&self, id: OrderId, found: Option<&Standing>) {
        let fine = match (&self.told, found) {
            (Some(Told::Cards(answer)), Some(Standing::Issued(lsn, cards))) => {
                let told = answer.cards.iter().map(|(card, _)| card);
                answer.lsn == *lsn && told.eq(cards)
            }
            (Some(Told::SomeCards), Some(Standing::Issued(..)))
            | (Some(Told::Cancelled), Some(Standing::Cancelled))
            | (Some(Told::Expired), Some(Standing::Expired)) => true,
            (Some(Told::Expired), Some(Standing::Issued(_, cards))) => {
                self.may_be_committed(cards.len(), true)
            }
            (Some(_), _) => false,
            (None, None) => !self.stood,
            (None, Some(standing)) => {
                let was_there = self.stood || self.may_have_begun();
                was_there
                    && match standing {
                        Standing::Held(quantity) => !self.is_issue && *quantity == self.quantity,
                        Standing::Waiting(quantity) => {
                            self.may_wait && self.reserved.is_none() && *quantity == self.quantity
                        }
                        Standing::Issued(_, cards) if self.is_issue => {
                            cards.len() == usize::from(self.quantity)
                        }
                        Standing::Issued(_, cards) => self.may_be_committed(cards.len(), false),
                        Standing::Cancelled => self.may(|wish| *wish == Wish::Cancel),
                        Standing::Expired => !self.is_issue || self.may_wait,
                    }
            }
        };
        assert!(fine, "{id} is {found:?}, and the books say {self:?}");
    }

    /// Takes in what is certain to stand, from an answer or a look-up.
    fn learn(&mut self, id: OrderId, now: Told) {
        let fits = match (&self.told, &now) {
            (None, _) => true,
            (Some(Told::Cards(answer)), Told::Cards(other)) => answer == other,
            (Some(Told::Cards(_)), Told::SomeCards) => return,
            (Some(Told::SomeCards | Told::Expired), Told::Cards(_) | Told::SomeCards)
            | (Some(Told::Cancelled), Told::Cancelled)
            | (Some(Told::Expired), Told::Expired) => true,
            _ => false,
        };
        assert!(fits, "{id} was {:?} and is now {now:?}", self.told);
        self.stood = true;
        self.told = Some(now);
    }
}

impl Books {
    /// Books a step that leaves; tells whether its order is known to be there.
    pub(super) fn ask_step(&mut self, step: &OrderStep) -> bool {
        let order = &step.order;
        let known = self.held.entry(order.order_id);
        let book = known.or_insert_with(|| {
            let begins = matches!(step.step, Step::Issue | Step::Reserve);
            assert!(begins, "the test follows no order");
            HeldBook {
                is_issue: step.step == Step::Issue,
                may_wait: false,
                sku: order.sku,
                quantity: order.quantity,
                waited: None,
                reserved: None,
                stood: false,
                waits: false,
                told: None,
                wishes: HashMap::new(),
            }
        });
        book.may_wait |= step.wait != Wait::No;
        book.asks(step).under_way += 1;
        book.stood
    }

    fn held_book(&mut self, id: OrderId) -> &mut HeldBook {
        self.held.get_mut(&id).expect("it was booked when asked")
    }

    pub(super) fn step_over(&mut self, step: &OrderStep, in_doubt: bool) {
        let asks = self.held_book(step.order.order_id).asks(step);
        asks.under_way = asks.under_way.saturating_sub(1);
        asks.in_doubt |= in_doubt;
    }

    /// Books the answer to a step that is over.
    pub(super) fn step_answered(&mut self, ask: &Ask, outcome: &OrderOutcome) {
        let step = &ask.step;
        let id = step.order.order_id;
        match outcome {
            OrderOutcome::Issued(issued) => {
                let book = self.held_book(id);
                let may_be = match step.step {
                    Step::Commit => !book.is_issue,
                    step => step == Step::Issue && book.is_issue,
                };
                assert!(may_be, "{id}: cards for {step:?}");
                let asked = match step.order.quantity {
                    0 => book.quantity,
                    some => some,
                };
                assert_eq!(issued.cards.len(), usize::from(asked), "{id}: {step:?}");
                self.committed(issued);
            }
            OrderOutcome::Held(held) => {
                let hold = held.hold.expect("a held order has its hold");
                let book = self.held_book(id);
                assert_eq!(
                    (held.sku, held.quantity),
                    (book.sku, book.quantity),
                    "{id}: {step:?}"
                );
                assert!(
                    matches!(step.step, Step::Reserve | Step::Extend),
                    "{id}: {step:?} is answered by a hold"
                );
                // Answers may come late: the order may have ended since.
                if step.step == Step::Reserve {
                    let answer = (held.lsn, hold.ends_unix_ms);
                    let first = *book.reserved.get_or_insert(answer);
                    assert_eq!(first, answer, "{id}: another hold than before");
                }
                assert!(!book.is_issue, "{id} is to be issued, and holds cards");
                book.stood = true;
            }
            OrderOutcome::Waiting(held) => {
                let hold = held.hold.expect("it waits until then");
                let book = self.held_book(id);
                let asked = (book.sku, book.quantity);
                assert_eq!((held.sku, held.quantity), asked, "{id}: {step:?}");
                let begins = matches!(step.step, Step::Issue | Step::Reserve);
                assert!(begins && book.may_wait, "{id}: {step:?} waits");
                let answer = (held.lsn, hold.ends_unix_ms);
                let first = *book.waited.get_or_insert(answer);
                assert_eq!(first, answer, "{id}: another wait than before");
                book.stood = true;
            }
            OrderOutcome::Cancelled(_) => {
                assert_eq!(
                    step.step,
                    Step::Cancel,
                    "{id}: {step:?} is answered as cancelled"
                );
                self.held_book(id).learn(id, Told::Cancelled);
            }
            OrderOutcome::Expired(_) => panic!("{id}: only a look-up says expired"),
            OrderOutcome::Refused { refusal, .. } => self.step_refused(ask, *refusal),
        }
    }

    fn step_refused(&mut self, ask: &Ask, refusal: Refusal) {
        let step = &ask.step;
        let id = step.order.order_id;
        let book = self.held_book(id);
        match refusal {
            Refusal::AlreadyCommitted => book.learn(id, Told::SomeCards),
            Refusal::AlreadyCancelled => book.learn(id, Told::Cancelled),
            // It may have been committed late since, by an ask that was quicker.
            Refusal::Expired if matches!(book.told, Some(Told::Cards(_) | Told::SomeCards)) => {}
            Refusal::Expired => book.learn(id, Told::Expired),
            Refusal::OrderNotFound => {
                let follows = step.step != Step::Reserve;
                let may_be = follows && !ask.answered_before;
                assert!(may_be, "{id} is not found: {book:?}");
            }
            Refusal::StillWaiting => {
                let may_be = matches!(step.step, Step::Commit | Step::Extend) && book.may_wait;
                assert!(may_be, "{id} still waits for {step:?}: {book:?}");
                book.stood = true;
            }
            Refusal::OutOfStock => {
                let begins = matches!(step.step, Step::Issue | Step::Reserve);
                let may_be = begins && step.wait == Wait::No && !ask.answered_before;
                assert!(may_be, "{id} finds no stock: {book:?}");
            }
            Refusal::StoreFailed => book.asks(step).in_doubt = true,
            _ => {}
        }
    }

    fn committed(&mut self, issued: &IssuedOrder) {
        let id = issued.order_id;
        let cards: Vec<_> = issued
            .cards
            .iter()
            .map(|card| (card.card, card.secret.as_bytes().to_vec()))
            .collect();
        let sku = self.held_book(id).sku;
        assert_eq!(sku, issued.sku, "{id}: another SKU than asked");
        let name = self
            .skus
            .iter()
            .find(|(_, book)| book.id == Some(sku))
            .map(|(name, _)| name.clone());
        for (card, secret) in &cards {
            let of = self.secrets.get(secret);
            assert_eq!(of, name.as_ref(), "{id}: {card} is no card of its SKU");
            own(&mut self.card_owners, card, id);
            own(&mut self.secret_owners, secret, id);
        }
        let answer = Answer {
            lsn: issued.lsn,
            cards,
        };
        self.held_book(id).learn(id, Told::Cards(answer));
    }

    /// Holds what a state says of every order in two phases against the books; returns what stands.
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
        if book.wishes.values().any(|asks| asks.under_way > 0) {
            return;
        }
        match found {
            None => assert!(!book.stood, "{id} is gone: {book:?}"),
            Some(OrderOutcome::Held(_)) => {
                assert_eq!(book.told, None, "{id} is held again");
                (book.stood, book.waits) = (true, false);
            }
            Some(OrderOutcome::Waiting(_)) => {
                let before = (&book.told, book.reserved);
                assert_eq!(before, (&None, None), "{id} waits again");
                (book.stood, book.waits) = (true, true);
            }
            Some(OrderOutcome::Cancelled(_)) => book.learn(id, Told::Cancelled),
            // It may still be committed late.
            Some(OrderOutcome::Expired(_)) => book.learn(id, Told::Expired),
            Some(OrderOutcome::Issued(issued)) => self.committed(&issued),
            Some(other) => panic!("{id}: {other:?}"),
        }
        let wishes = &mut self.held_book(id).wishes;
        wishes.values_mut().for_each(|asks| asks.in_doubt = false);
    }

    /// Of every order in these books its SKU, and how many cards it holds and has, as far as is known.
    pub(super) fn in_two_phases(&self) -> impl Iterator<Item = (SkuId, u64, u64)> + '_ {
        self.held.values().map(|book| match &book.told {
            None if book.stood && !book.waits => (book.sku, book.quantity.into(), 0),
            Some(Told::Cards(answer)) => (book.sku, 0, answer.cards.len() as u64),
            _ => (book.sku, 0, 0),
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

/// Gives `what` to an order, unless another one has it; the same one may get it again.
fn own<K: Clone + Eq + std::hash::Hash>(owners: &mut HashMap<K, OrderId>, what: &K, id: OrderId) {
    if owners.get(what) != Some(&id) {
        claim(owners, what, id);
    }
}
