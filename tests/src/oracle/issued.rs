//! Orders that are issued at once: what they may be, from what was asked and answered.

use croupier_client::{
    Client, Holder, IssuedOrder, Lsn, Order, OrderId, OrderOutcome, OrderStep, Refusal, SkuId, Step,
};

use super::cards::Answer;
use super::table::{Known, States, states_that_say};
use super::{Ask, Books, Oracle};

/// Orders looked up at a time.
const CHUNK: usize = 500;

/// The book of an order that is issued at once.
#[derive(Debug, Clone)]
pub(super) struct Booked {
    pub(super) sku: SkuId,
    /// How many cards it asks for.
    pub(super) quantity: u16,
    pub(super) holder: Option<Holder>,
    /// An ask of it takes fewer cards if there are not so many.
    pub(super) may_be_part: bool,
    pub(super) answer: Option<Answer>,
    /// An answer without the repeat mark has been seen.
    pub(super) first_seen: bool,
    /// An ask was sent and its outcome is not known.
    pub(super) in_doubt: bool,
    /// It is certain to stand, by the refusal of another step; its cards are not known.
    pub(super) stands: bool,
    /// Asks whose outcome has not been booked.
    pub(super) under_way: u32,
}

impl Booked {
    pub(super) fn new(order: &Order) -> Self {
        Self {
            sku: order.sku,
            quantity: order.quantity,
            holder: order.holder,
            may_be_part: false,
            answer: None,
            first_seen: false,
            in_doubt: false,
            stands: false,
            under_way: 0,
        }
    }

    /// Whether the step is the one that this order was booked with.
    pub(super) fn owns(&self, step: &OrderStep) -> bool {
        let order = &step.order;
        let asked = (order.sku, order.quantity, order.holder);
        step.step == Step::Issue && (self.sku, self.quantity, self.holder) == asked
    }

    /// As it was asked for.
    pub(super) fn order(&self, id: OrderId) -> Order {
        Order {
            holder: self.holder,
            ..Order::new(id, self.sku).quantity(self.quantity)
        }
    }

    /// Whether it may have got so many cards.
    pub(super) fn may_have(&self, cards: usize) -> bool {
        let asked = usize::from(self.quantity);
        cards == asked || self.may_be_part && (1..asked).contains(&cards)
    }

    /// Cards that it is known to have.
    pub(super) fn cards(&self) -> u64 {
        let answer = self.answer.as_ref();
        answer.map_or(0, |answer| answer.cards.len() as u64)
    }

    pub(super) fn known(&self) -> Known {
        match self.answer.is_some() || self.stands {
            true => Known::Issued,
            false => Known::Nothing,
        }
    }

    fn may_stand(&self) -> bool {
        self.answer.is_some() || self.stands || self.in_doubt || self.under_way > 0
    }

    pub(super) fn is_settled(&self) -> bool {
        !(self.in_doubt || self.under_way > 0 || self.stands && self.answer.is_none())
    }

    /// The states it may have been in since so much was known.
    fn possible(&self, known: Known) -> States {
        let none = States::NONE.when(known == Known::Nothing);
        none.or(States::ISSUED.when(self.may_stand()))
    }
}

impl Oracle {
    /// Looks every order up that was ever asked. No ask may be under way.
    ///
    /// # Panics
    /// If an acknowledged order is gone or another, or one that was refused stands.
    pub async fn look_up_all(&self, client: &Client) {
        let ids: Vec<_> = self.books().orders.keys().copied().collect();
        self.look_up(client, &ids).await;
        let ids: Vec<_> = self.books().held.keys().copied().collect();
        self.look_up(client, &ids).await;
    }

    /// Looks these orders up and settles what was in doubt. No ask may be under way.
    ///
    /// # Panics
    /// As [`Oracle::look_up_all`].
    pub async fn look_up(&self, client: &Client, ids: &[OrderId]) {
        for chunk in ids.chunks(CHUNK) {
            let outcomes = client.orders(chunk).await.expect("look-ups are answered");
            let mut books = self.books();
            for (&id, outcome) in chunk.iter().zip(outcomes) {
                if books.held.contains_key(&id) {
                    let found = !matches!(outcome, OrderOutcome::Refused { .. });
                    books.settle_one(id, found.then_some(outcome));
                } else {
                    books.looked_up(id, &outcome);
                }
            }
        }
    }

    /// Asks for every order again: those that stand must repeat their answer, those in doubt may be dealt now.
    ///
    /// # Panics
    /// If one of them is answered otherwise.
    pub async fn ask_all_again(&self, client: &Client) {
        let again = |booked: &Booked| booked.answer.is_some() || booked.in_doubt;
        let orders: Vec<_> = {
            let books = self.books();
            let orders = books.orders.iter().filter(|(_, booked)| again(booked));
            orders.map(|(&id, booked)| booked.order(id)).collect()
        };
        for chunk in orders.chunks(CHUNK) {
            let done = self.issue(client, chunk).await;
            assert!(done.is_some(), "a server that lives answers");
        }
    }
}

impl Books {
    pub(super) fn booked(&mut self, id: OrderId) -> &mut Booked {
        let booked = self.orders.get_mut(&id);
        booked.expect("it was booked when it was asked")
    }

    /// Books what became of a step of such an order.
    pub(super) fn issue_answered(&mut self, ask: &Ask, outcome: &OrderOutcome) {
        let (step, id) = (&ask.step, ask.step.order.order_id);
        let booked = self.booked(id);
        let possible = booked.possible(ask.known);
        let said = states_that_say(ask, outcome);
        assert!(
            possible.meets(said),
            "{id}: {step:?} of an order known as {:?} is answered {outcome:?}, and the books say {booked:?}",
            ask.known
        );
        if ask.own {
            booked.under_way = booked.under_way.saturating_sub(1);
        }
        match outcome {
            OrderOutcome::Issued(issued) => self.issued(issued, !issued.repeat),
            OrderOutcome::Refused {
                refusal: Refusal::StoreFailed,
                ..
            } => booked.in_doubt |= ask.own,
            OrderOutcome::Refused {
                refusal: Refusal::OrderIdReused,
                ..
            } => booked.stands = true,
            _ => {}
        }
    }

    /// Books an answer with cards.
    pub(super) fn issued(&mut self, issued: &IssuedOrder, first: bool) {
        let id = issued.order_id;
        let booked = self
            .orders
            .get_mut(&id)
            .unwrap_or_else(|| panic!("{id} was never asked"));
        assert_eq!(booked.sku, issued.sku, "{id}: another SKU than asked");
        assert!(
            booked.may_have(issued.cards.len()),
            "{id}: {} cards, and {} were asked for",
            issued.cards.len(),
            booked.quantity
        );
        assert_ne!(issued.lsn, Lsn::ZERO, "{id}: an issued order has a record");
        assert!(
            !(first && booked.first_seen),
            "{id} was dealt twice: two answers are not marked as repeats"
        );
        booked.first_seen |= first;
        booked.in_doubt = false;
        let answer = Answer::new(issued.lsn, &issued.cards);
        match &booked.answer {
            Some(known) => assert_eq!(*known, answer, "{id}: another answer than before"),
            None => booked.answer = Some(answer),
        }
        self.give(issued);
    }

    /// Books what a look-up says while no ask is under way.
    pub(super) fn looked_up(&mut self, id: OrderId, outcome: &OrderOutcome) {
        let booked = self.booked(id);
        match outcome {
            OrderOutcome::Issued(issued) => {
                assert!(!issued.repeat, "{id}: a look-up is no repeat");
                assert!(
                    booked.may_stand(),
                    "{id} was refused or never sent, and stands all the same"
                );
                if booked.answer.is_none() {
                    // Its own answer was lost: every one from now on is a repeat.
                    booked.first_seen = true;
                }
                self.issued(issued, false);
            }
            OrderOutcome::Refused { refusal, .. } => {
                assert_eq!(*refusal, Refusal::OrderNotFound, "{id}");
                let gone = booked.answer.is_some() || booked.stands;
                assert!(!gone, "{id} was acknowledged and is gone");
                booked.in_doubt = false;
            }
            other => panic!("{other:?} of an order that was issued"),
        }
    }

    /// Books what a look-up says while others ask.
    pub(super) fn issue_seen(&mut self, id: OrderId, known: Known, outcome: &OrderOutcome) {
        let booked = self.booked(id);
        match outcome {
            OrderOutcome::Issued(issued) => {
                assert!(
                    booked.may_stand(),
                    "{id} was refused or never sent, and stands all the same"
                );
                self.issued(issued, false);
            }
            OrderOutcome::Refused {
                refusal: Refusal::OrderNotFound,
                ..
            } => assert_eq!(known, Known::Nothing, "{id} was there and is gone"),
            OrderOutcome::Refused { refusal, .. } if refusal.retryable() => {}
            other => panic!("{id}: {other:?} of an order that was issued"),
        }
    }
}
