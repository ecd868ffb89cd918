//! The books of a test: what was asked, what was answered, and what must therefore be true for ever.
//!
//! Every order is booked before it is sent ([`Oracle::ask`], [`Oracle::ask_step`]) and every outcome when it arrives
//! ([`Oracle::book`]), from as many tasks at once as a test likes. What is checked at once, on every answer:
//!
//! * it is for an order that was asked, with as many cards as were asked, each an imported card of that SKU;
//! * no card and no secret goes to two orders;
//! * the table of docs/orders.md allows it in a state that the order may have been in (`table`);
//! * an order that was answered before gets the same answer, marked as a repeat; only one answer ever is not marked;
//! * what is dealt anew has a later LSN than all that was answered before it was asked.
//!
//! With a clock that can be relied on ([`Oracle::timed`]) also: no hold and no wait ends before its time. With moves
//! ([`Oracle::moved`]): no card is dealt while it is out of sale.
//!
//! And on demand: [`Oracle::look_up_all`] (acknowledged orders stand, refused ones left no trace, those in doubt may
//! stand), [`Oracle::ask_all_again`] (retries get what stands), [`Oracle::check_stock`] (free + held + issued + void =
//! imported), [`Oracle::check_lines`] (nobody waits for stock that is there), [`Oracle::check_disk`] (the log says the
//! same, and its replay too).
//!
//! Reading order: `table`, `issued` (orders of one phase that may not wait), `held` and `two_phase` (all others), `line`
//! (those that wait), `linked` (all or none), `cards`, `stock`, `moves`; then
//! `judge` (a state read as a whole), `disk`, `cut` (after a power cut), `history` (what a long history asks besides).

mod table;

mod issued;

mod held;
mod line;
mod linked;
mod two_phase;

mod cards;
mod moves;
mod stock;

mod cut;
mod disk;
mod history;
mod judge;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};

use croupier_client::{
    CardRef, Client, Error, IssuedOrder, Lsn, Order, OrderId, OrderOutcome, OrderStep, SkuId, Step,
    Wait,
};

pub use disk::DiskReport;
pub use held::Standing;
pub use history::Glance;
pub use judge::{OutOfSale, StateView};
pub use linked::judge_chain;

use cards::CardBook;
use held::HeldBook;
use issued::Booked;
use linked::Chains;
use stock::SkuBook;
use table::Known;

/// A step of an order that is under way, and what was known of the order when it left.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// What is asked.
    pub step: OrderStep,
    /// It has the numbers that its order was booked with, so it may change it.
    own: bool,
    /// Its order may be accepted: it waits without leave.
    accepted: bool,
    known: Known,
    /// The last LSN that had been told.
    behind: Lsn,
}

impl Ask {
    /// For an order that must not be dealt, and is in no books.
    pub fn unbooked(order: Order) -> Ask {
        Ask {
            step: OrderStep::issue(order),
            own: false,
            accepted: false,
            known: Known::Nothing,
            behind: Lsn::ZERO,
        }
    }

    /// Whether it is an issue that may not wait: an order that is dealt or leaves no trace.
    pub fn is_plain(&self) -> bool {
        self.step.step == Step::Issue && self.step.wait == Wait::No
    }

    /// Whether its order may wait for stock.
    pub fn may_wait(&self) -> bool {
        self.step.wait != Wait::No || self.accepted
    }

    /// The order.
    pub fn order(&self) -> Order {
        self.step.order
    }
}

#[derive(Debug, Clone, Default)]
struct Books {
    orders: HashMap<OrderId, Booked>,
    /// Orders in two phases, and those that may wait.
    held: HashMap<OrderId, HeldBook>,
    chains: Chains,
    cards: CardBook,
    skus: BTreeMap<String, SkuBook>,
    /// Cards that operators have taken out of sale.
    out_of_sale: BTreeMap<CardRef, OutOfSale>,
    /// Behind which records of the log they are.
    out_since: HashMap<CardRef, Lsn>,
    /// Of which SKU the slabs are, in which cards were moved.
    slabs: HashMap<u32, SkuId>,
    /// Void cards that no order had.
    never: HashSet<CardRef>,
    /// A move was begun, and whether it has happened is not known.
    move_in_doubt: bool,
    /// So it is with more uses for cards that are dealt without end.
    growth_in_doubt: bool,
    /// The last LSN that an answer has told.
    lsn_told: Lsn,
    /// The clock of this test is the server's, and neither jumps.
    timed: bool,
}

/// The books of one store.
#[derive(Debug, Default)]
pub struct Oracle {
    books: Mutex<Books>,
}

impl Oracle {
    /// Empty books, for an empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Empty books of a test whose clock is the server's, and does not jump.
    #[must_use]
    pub fn timed() -> Self {
        let oracle = Self::default();
        oracle.books().timed = true;
        oracle
    }

    /// A copy of the books, for a copy of the store.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self {
            books: Mutex::new(self.books().clone()),
        }
    }

    /// A broken check panics with the books open; the next one must see them all the same.
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Books an order that is about to be sent.
    ///
    /// # Panics
    /// If the test asks for something else under a known id: that is to be refused, and not to be booked.
    pub fn ask(&self, order: Order) -> Ask {
        let ask = self.ask_step(OrderStep::issue(order));
        assert!(ask.own, "the test reuses {}", order.order_id);
        ask
    }

    /// Books a step that is about to be sent. The first issue or reserve of an id says what order it is; a step that does
    /// not go with it must be refused, as the table says.
    ///
    /// # Panics
    /// If it is another issue or reserve of an id that is not known to stand: it might be dealt.
    pub fn ask_step(&self, step: OrderStep) -> Ask {
        let mut books = self.books();
        if matches!(step.step, Step::Issue | Step::Reserve) {
            books.chains.alone(step.order.order_id);
        }
        books.leaves(step, false)
    }

    /// As [`Oracle::ask_step`], of an order that is accepted where the routes in force have a channel for it: it may wait though
    /// it does not say so, and may be told that there is no stock.
    ///
    /// # Panics
    /// As that does.
    pub fn ask_accepted(&self, step: OrderStep) -> Ask {
        let mut books = self.books();
        books.chains.alone(step.order.order_id);
        books.leaves(step, true)
    }

    /// Books that an operator cancels orders that wait: each may be cancelled from now on.
    pub fn drain_under_way(&self, ids: impl IntoIterator<Item = OrderId>) {
        let mut books = self.books();
        for id in ids {
            if let Some(book) = books.held.get_mut(&id) {
                book.may_be_cancelled(id);
            }
        }
    }

    /// Books what became of an order.
    ///
    /// # Panics
    /// If it cannot be.
    pub fn book(&self, ask: &Ask, outcome: &OrderOutcome) {
        let id = ask.order().order_id;
        assert_eq!(outcome.order_id(), id, "an answer to another order");
        let mut books = self.books();
        books.is_later(ask, outcome);
        if books.held.contains_key(&id) {
            books.step_answered(ask, outcome);
        } else if books.orders.contains_key(&id) {
            books.issue_answered(ask, outcome);
        } else {
            let said = table::states_that_say(ask, outcome);
            assert!(
                said.meets(table::States::NONE),
                "{id} was never begun: {outcome:?}"
            );
        }
    }

    /// Books that a card is bound to an order that holds it: a commit in time gets just that one.
    pub fn bound(&self, id: OrderId, card: CardRef) {
        let mut books = self.books();
        let before = books.held_book(id).bound.replace(card);
        let same = before.is_none_or(|before| before == card);
        assert!(same, "{id} had {before:?}, and {card} is bound to it");
    }

    /// Books that an order was sent and that its outcome is not known.
    pub fn lost(&self, ask: &Ask) {
        if !ask.own {
            return;
        }
        let (mut books, id) = (self.books(), ask.order().order_id);
        if let Some(book) = books.held.get_mut(&id) {
            book.over(&ask.step, true);
        } else {
            let booked = books.booked(id);
            booked.under_way = booked.under_way.saturating_sub(1);
            booked.in_doubt = true;
        }
    }

    /// Sends orders through a client and books what becomes of them; `None` when that is not known.
    ///
    /// # Panics
    /// On answers that cannot be, and on errors that a client should never see.
    pub async fn issue(&self, client: &Client, orders: &[Order]) -> Option<Vec<OrderOutcome>> {
        let asks: Vec<_> = orders.iter().map(|&order| self.ask(order)).collect();
        match client.issue_many(orders).await {
            Ok(outcomes) => {
                assert_eq!(outcomes.len(), orders.len());
                asks.iter()
                    .zip(&outcomes)
                    .for_each(|(ask, outcome)| self.book(ask, outcome));
                Some(outcomes)
            }
            Err(Error::OutcomeUnknown { .. }) => {
                asks.iter().for_each(|ask| self.lost(ask));
                None
            }
            Err(Error::Unreachable { .. } | Error::TimedOut { sent: false, .. }) => None,
            Err(other) => panic!("{other}"),
        }
    }

    /// As [`Oracle::issue`], for one order that must be dealt.
    ///
    /// # Panics
    /// If it is not.
    pub async fn deal(&self, client: &Client, order: Order) -> IssuedOrder {
        match self.issue(client, &[order]).await.as_deref() {
            Some([OrderOutcome::Issued(issued)]) => issued.clone(),
            other => panic!("{} was to be dealt: {other:?}", order.order_id),
        }
    }

    /// Orders that have been acknowledged.
    pub fn acknowledged(&self) -> Vec<Order> {
        let books = self.books();
        let answered = books
            .orders
            .iter()
            .filter(|(_, booked)| booked.answer.is_some());
        answered.map(|(&id, booked)| booked.order(id)).collect()
    }

    /// Cards that acknowledged orders have got.
    pub fn cards_dealt(&self) -> usize {
        self.books().cards.owned()
    }

    /// Every secret that was ever sent to the store.
    pub fn secrets(&self) -> Vec<Vec<u8>> {
        self.books().cards.secrets()
    }
}

impl Books {
    /// Books that a step leaves. `accepted`: its order may wait without leave.
    fn leaves(&mut self, step: OrderStep, accepted: bool) -> Ask {
        let id = step.order.order_id;
        let begins = matches!(step.step, Step::Issue | Step::Reserve);
        let is_new = !self.held.contains_key(&id) && !self.orders.contains_key(&id);
        let waits = step.wait != Wait::No || accepted;
        let now_ms = self.now_ms();
        if is_new && (step.step == Step::Reserve || begins && waits) {
            self.held.insert(id, HeldBook::new(&step, now_ms));
        } else if is_new && step.step == Step::Issue {
            self.orders.insert(id, Booked::new(&step.order));
        } else if waits && self.orders.get(&id).is_some_and(|book| book.owns(&step)) {
            // It might not wait until now.
            let booked = self.orders.remove(&id).expect("it is there");
            let book = HeldBook::of_issue(booked, &step, now_ms);
            self.held.insert(id, book);
        }
        let (own, known) = if let Some(book) = self.held.get_mut(&id) {
            let (own, known) = (book.owns(&step), book.known());
            if own {
                book.leaves(&step, waits);
            }
            (own, known)
        } else if let Some(booked) = self.orders.get_mut(&id) {
            let own = booked.owns(&step);
            booked.under_way += u32::from(own);
            booked.may_be_part |= own && step.partial;
            (own, booked.known())
        } else {
            (false, Known::Nothing)
        };
        let harmless = own || !begins || known != Known::Nothing;
        assert!(harmless, "the test reuses {id}");
        Ask {
            step,
            own,
            accepted,
            known,
            behind: self.lsn_told,
        }
    }

    /// What is new stands in the log behind all that was told before it was asked.
    fn is_later(&mut self, ask: &Ask, outcome: &OrderOutcome) {
        let (lsn, repeat) = match outcome {
            OrderOutcome::Issued(issued) => (issued.lsn, issued.repeat),
            OrderOutcome::Held(held)
            | OrderOutcome::Waiting(held)
            | OrderOutcome::Cancelled(held) => (held.lsn, held.repeat),
            OrderOutcome::Expired(_) | OrderOutcome::Refused { .. } => return,
        };
        assert!(
            repeat || lsn > ask.behind,
            "{}: {lsn} is new, but {} had been told before it was asked",
            ask.order().order_id,
            ask.behind
        );
        self.lsn_told = self.lsn_told.max(lsn);
    }

    /// Gives an order its cards.
    fn give(&mut self, issued: &IssuedOrder) {
        let mut skus = self.skus.iter();
        let sku = skus.find(|(_, book)| book.id == Some(issued.sku));
        for card in &issued.cards {
            let name = sku.map(|(name, _)| name.as_str());
            self.cards.give(issued.order_id, name, card);
            let out_since = self.out_since.get(&card.card);
            assert!(
                out_since.is_none_or(|&since| issued.lsn < since),
                "{} got {} by {}, which is out of sale since {out_since:?}",
                issued.order_id,
                card.card,
                issued.lsn
            );
        }
    }

    /// The time, if it can be relied on.
    fn now_ms(&self) -> Option<u64> {
        self.timed.then(crate::unix_ms)
    }
}
