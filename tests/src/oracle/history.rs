//! What a long history of many callers asks of the books besides: look-ups under load, what is in doubt, samples.

use croupier_client::{OrderId, OrderOutcome, OrderStep};

use super::held::{HeldBook, Told};
use super::issued::Booked;
use super::table::Known;
use super::{Books, Oracle};
use crate::dice::Dice;

/// A look-up under way, while others ask.
#[derive(Debug, Clone, Copy)]
pub struct Glance {
    /// Which order is looked up.
    pub id: OrderId,
    known: Known,
}

impl Oracle {
    /// Books a look-up that is about to be sent.
    pub fn glance(&self, id: OrderId) -> Glance {
        let books = self.books();
        let issued = books.orders.get(&id).map(Booked::known);
        let held = books.held.get(&id).map(HeldBook::known);
        Glance {
            id,
            known: issued.or(held).unwrap_or_default(),
        }
    }

    /// Books what a look-up has shown, whoever asks meanwhile.
    ///
    /// # Panics
    /// If it cannot be.
    pub fn glanced(&self, glance: &Glance, outcome: &OrderOutcome) {
        let (mut books, id) = (self.books(), glance.id);
        assert_eq!(outcome.order_id(), id, "an answer to another order");
        if books.held.contains_key(&id) {
            books.held_seen(id, glance.known, outcome);
        } else if books.orders.contains_key(&id) {
            books.issue_seen(id, glance.known, outcome);
        } else {
            let there = !matches!(outcome, OrderOutcome::Refused { .. });
            assert!(!there, "{id} was never begun: {outcome:?}");
        }
    }

    /// Orders of which something is in doubt: after a crash, when every ask was repeated.
    pub fn unsettled(&self) -> Vec<OrderId> {
        let books = self.books();
        let issued = books.orders.iter().filter(|(_, book)| !book.is_settled());
        let held = books.held.iter().filter(|(_, book)| !book.is_settled());
        let ids = issued.map(|(&id, _)| id).chain(held.map(|(&id, _)| id));
        ids.collect()
    }

    /// About `count` of the steps whose answers are for ever: asked again, they must be answered the same.
    pub fn sample(&self, count: usize, dice: &mut Dice) -> Vec<OrderStep> {
        let books = self.books();
        let all = (books.orders.len() + books.held.len()).max(1) as u64;
        let each = (all / count.max(1) as u64).max(1);
        books.answered().filter(|_| dice.once_in(each)).collect()
    }

    /// Orders that were begun.
    pub fn begun(&self) -> usize {
        let books = self.books();
        books.orders.len() + books.held.len()
    }
}

impl Books {
    /// Of every order that was answered, the last step that was taken.
    fn answered(&self) -> impl Iterator<Item = OrderStep> + '_ {
        let issued = self.orders.iter().filter_map(|(&id, book)| {
            book.answer.as_ref()?;
            Some(OrderStep::issue(book.order(id)))
        });
        let held = self.held.iter().filter_map(|(&id, book)| match &book.told {
            Some(Told::Cards(_)) if book.is_issue => Some(book.begin(id)),
            Some(Told::Cards(answer)) => {
                Some(OrderStep::commit(id).quantity(answer.cards.len() as u16))
            }
            Some(Told::Cancelled) => Some(OrderStep::cancel(id)),
            // A late commit would be dealt.
            Some(Told::Expired) if !book.is_issue => Some(OrderStep::commit(id).only_held()),
            Some(Told::Expired) => Some(book.begin(id)),
            Some(Told::SomeCards) => None,
            // Of one that waits, a step that may not wait is the same step.
            None => (book.reserved.or(book.waited)).map(|_| book.begin(id)),
        });
        issued.chain(held)
    }
}
