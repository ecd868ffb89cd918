//! The books as a power cut leaves them.

use std::sync::Mutex;

use super::{Booked, Books, Oracle};

impl Oracle {
    /// What is certain after a power cut somewhere between two moments: what was known at the first. All that was asked
    /// until the second is in doubt. Of each SKU at most one import may have been under way.
    #[must_use]
    pub fn cut(before: &Self, after: &Self) -> Self {
        let (before, after) = (before.books().clone(), after.books().clone());
        let mut books = Books {
            cards: after.cards.owned_as_in(before.cards),
            lsn_told: before.lsn_told,
            ..after
        };
        for (id, booked) in &mut books.orders {
            let known = before.orders.get(id).filter(|known| known.answer.is_some());
            *booked = match known {
                Some(known) => known.clone(),
                None => Booked {
                    answer: None,
                    first_seen: false,
                    in_doubt: true,
                    stands: false,
                    ..booked.clone()
                },
            };
        }
        let sent = books.cards.sent();
        for (name, book) in &mut books.skus {
            let known = before.skus.get(name).cloned().unwrap_or_default();
            let sent = sent.get(name.as_str()).copied().unwrap_or(0);
            book.imported = known.imported;
            book.made = known.made;
            book.in_doubt = (sent > known.imported).then(|| sent - known.imported);
        }
        Self {
            books: Mutex::new(books),
        }
    }
}
