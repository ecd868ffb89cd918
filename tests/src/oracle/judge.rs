//! The books against a state that is read as a whole: recovered from a disk, or of a server that rests.

use std::collections::HashMap;

use croupier_client::{CardRef, IssuedOrder, Lsn, OrderId, OrderOutcome, SkuId, StockRow};

use super::{Oracle, claim};

/// A state as an observer reads it.
pub trait StateView {
    /// LSN and cards of an order; `None` if it is not known.
    fn order(&self, id: OrderId) -> Option<(Lsn, Vec<CardRef>)>;
    /// How many orders are known in all.
    fn orders(&self) -> u64;
    /// Counts of every SKU.
    fn stock(&self) -> Vec<StockRow>;
}

impl Oracle {
    /// Holds a state against the books and changes neither: acknowledged orders are what they were, what was refused is
    /// not there, what is in doubt or under way may be, no card has two orders, and the stock adds up.
    ///
    /// # Panics
    /// If it does not.
    pub fn judge(&self, state: &impl StateView) {
        let books = self.books();
        let mut owners: HashMap<CardRef, OrderId> = HashMap::new();
        let mut dealt: HashMap<SkuId, u64> = HashMap::new();
        let mut known = 0;
        for (&id, booked) in &books.orders {
            let found = state.order(id);
            match (&booked.answer, &found) {
                (Some(answer), Some((lsn, cards))) => {
                    let same = answer.lsn == *lsn
                        && answer.cards.len() == cards.len()
                        && answer
                            .cards
                            .iter()
                            .zip(cards)
                            .all(|(told, card)| told.0 == *card);
                    assert!(
                        same,
                        "{id} was answered {answer:?}, and is now {lsn:?} {cards:?}"
                    );
                }
                (Some(_), None) => panic!("{id} was acknowledged and is gone"),
                (None, Some((_, cards))) => {
                    assert!(
                        booked.in_doubt || booked.under_way > 0,
                        "{id} was refused, and stands all the same"
                    );
                    assert_eq!(cards.len(), usize::from(booked.quantity), "{id}: quantity");
                }
                (None, None) => {}
            }
            let Some((_, cards)) = found else { continue };
            known += 1;
            *dealt.entry(booked.sku).or_default() += cards.len() as u64;
            for card in &cards {
                claim(&mut owners, card, id);
                let owner = books.card_owners.get(card);
                assert!(
                    owner.is_none_or(|owner| *owner == id),
                    "{card} was given to {owner:?} and is now of {id}"
                );
            }
        }
        assert_eq!(state.orders(), known, "orders that nobody has asked for");
        let rows = state.stock();
        for row in &rows {
            let sum = row.free + row.held + row.issued + row.void;
            assert_eq!(sum, row.imported, "{row:?}");
            let issued = dealt.get(&SkuId(row.sku)).copied().unwrap_or(0);
            assert_eq!(row.issued, issued, "{row:?}: cards issued");
            let book = books.skus.get(&row.name).cloned().unwrap_or_default();
            let possible = [book.imported, book.imported + book.in_doubt.unwrap_or(0)];
            assert!(
                possible.contains(&row.imported),
                "{row:?}: an import is all or nothing, {possible:?}"
            );
        }
        for (name, book) in &books.skus {
            let there = book.imported == 0 || rows.iter().any(|row| row.name == *name);
            assert!(there, "{name} is gone");
        }
    }

    /// Books what a server that nobody else uses says of every order: settles what was in doubt.
    ///
    /// # Panics
    /// As [`Oracle::look_up_all`].
    pub fn settle_orders(&self, look: impl Fn(OrderId) -> Option<IssuedOrder>) {
        let mut books = self.books();
        let ids: Vec<_> = books.orders.keys().copied().collect();
        for id in ids {
            let outcome = look(id).map_or(
                OrderOutcome::Refused {
                    order_id: id,
                    refusal: croupier_client::Refusal::OrderNotFound,
                    retry_after_ms: 0,
                },
                OrderOutcome::Issued,
            );
            // A look-up while an ask is under way says nothing about that ask.
            if books.booked(id).under_way == 0 {
                books.looked_up(id, &outcome);
            }
        }
    }

    /// Books that cards of an import may be sold from now on, whatever becomes of it.
    ///
    /// # Panics
    /// If an earlier import of the SKU is still in doubt.
    pub fn import_under_way(&self, sku: &str, id: SkuId, secrets: &[Vec<u8>]) {
        let mut books = self.books();
        books.sellable(sku, secrets);
        let book = books.skus.entry(sku.to_owned()).or_default();
        book.id = Some(id);
        assert_eq!(book.in_doubt, None, "one import of a SKU at a time");
        book.in_doubt = Some(secrets.len() as u64);
    }

    /// Books that the import under way is over; `sealed`: its cards are in stock.
    pub fn import_over(&self, sku: &str, sealed: bool) {
        let mut books = self.books();
        let book = books.skus.entry(sku.to_owned()).or_default();
        let cards = book.in_doubt.take().unwrap_or(0);
        book.imported += if sealed { cards } else { 0 };
    }

    /// Settles imports in doubt by what the stock of a fresh start says.
    pub fn settle_imports(&self, rows: &[StockRow]) {
        let mut books = self.books();
        for (name, book) in &mut books.skus {
            let Some(cards) = book.in_doubt.take() else {
                continue;
            };
            let row = rows.iter().find(|row| row.name == *name);
            if row.is_some_and(|row| row.imported == book.imported + cards) {
                book.imported += cards;
            }
        }
    }
}
