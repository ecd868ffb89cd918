//! Cards out of sale: what a server tells of them after a move, and what must hold until they are back.

use croupier_client::{CardRef, CardRow, CardStatus, Lsn, OrderId, SkuId, StockRow};

use super::{Books, Oracle, OutOfSale};

impl Oracle {
    /// Books that a move of these cards is about to be asked for: until [`Oracle::moved`], they may be where they were or
    /// where they go. One of a store at a time.
    pub fn moving(&self, cards: impl IntoIterator<Item = CardRef>) {
        let mut books = self.books();
        books.move_in_doubt = true;
        for card in cards {
            books.out_since.remove(&card);
        }
    }

    /// Books how all cards that may have been moved stand now. `since`: the LSN of the move, if that is known.
    ///
    /// # Panics
    /// If a void card has come back.
    pub fn moved(&self, rows: &[CardRow], since: Option<Lsn>) {
        let mut books = self.books();
        // Where it was is not known, so nothing is certain to be behind it.
        let since = since.unwrap_or(Lsn(u64::MAX));
        books.move_in_doubt = false;
        for row in rows {
            let card = place(row);
            books.slabs.insert(row.slab, SkuId(row.sku));
            let now = match status(row) {
                Some(CardStatus::Suspended) => Some(OutOfSale::Suspended),
                Some(CardStatus::Void) => Some(OutOfSale::Void),
                _ => None,
            };
            let was = match now {
                Some(now) => books.out_of_sale.insert(card, now),
                None => books.out_of_sale.remove(&card),
            };
            let back = was == Some(OutOfSale::Void) && now != was;
            assert!(!back, "{card} was void and is now {now:?}");
            if now.is_some() && row.order.is_none() {
                books.out_since.insert(card, since);
            }
        }
    }

    /// Holds what a server tells of cards against the books: who has them, and which are out of sale. No ask and no move may
    /// be under way.
    ///
    /// # Panics
    /// If they differ.
    pub fn check_cards(&self, rows: &[CardRow]) {
        let books = self.books();
        for row in rows {
            let card = place(row);
            let order = row.order.map(OrderId::from_bytes);
            assert_eq!(order, books.cards.owner(card), "{card}: whose it is");
            let known = books.out_of_sale.get(&card);
            let due = match known {
                Some(OutOfSale::Suspended) => CardStatus::Suspended,
                Some(OutOfSale::Void) => CardStatus::Void,
                None if order.is_some() => CardStatus::Issued,
                None => CardStatus::Free,
            };
            assert_eq!(status(row), Some(due), "{card} of {order:?}");
        }
    }
}

impl Books {
    /// Void cards that orders had, with their SKUs.
    pub(super) fn void_of_orders(&self) -> Vec<(CardRef, SkuId)> {
        let void = self.out_of_sale.iter();
        let void =
            void.filter(|&(card, &is)| is == OutOfSale::Void && self.cards.owner(*card).is_some());
        let with_sku = void.filter_map(|(&card, _)| Some((card, *self.slabs.get(&card.slab)?)));
        with_sku.collect()
    }

    /// Compares counts of a SKU with the moves that were booked and with what its holds take, at least and at most. Says
    /// nothing where nobody books moves.
    pub(super) fn check_out_of_sale(&self, row: &StockRow, least: u64, most: u64) {
        if !self.timed || self.move_in_doubt {
            return;
        }
        let (mut suspended, mut void) = (0, 0);
        for (card, is) in &self.out_of_sale {
            if self.slabs.get(&card.slab) == Some(&SkuId(row.sku)) {
                match is {
                    OutOfSale::Suspended => suspended += 1,
                    OutOfSale::Void => void += 1,
                }
            }
        }
        assert_eq!(row.void, void, "{row:?}: void cards");
        let held = least + suspended..=most + suspended;
        assert!(held.contains(&row.held), "{row:?}: {held:?} may be held");
    }
}

fn place(row: &CardRow) -> CardRef {
    CardRef {
        slab: row.slab,
        slot: row.slot,
        generation: row.generation,
    }
}

fn status(row: &CardRow) -> Option<CardStatus> {
    CardStatus::try_from(row.status).ok()
}
