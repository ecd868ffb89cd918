//! The books against a state that is read as a whole: recovered from a disk, or of a server that rests.

use std::collections::{BTreeMap, HashMap, HashSet};

use croupier_client::{CardRef, Lsn, OrderId, OrderOutcome, SkuId, StockRow};

use super::{Books, Oracle, Standing};

/// A state as an observer reads it.
pub trait StateView {
    /// LSN and cards of an order; `None` if it is not known.
    fn order(&self, id: OrderId) -> Option<(Lsn, Vec<CardRef>)> {
        match self.standing(id) {
            Some(Standing::Issued(lsn, cards)) => Some((lsn, cards)),
            Some(other) => panic!("{id} was issued at once, and is {other:?}"),
            None => None,
        }
    }
    /// How an order stands; `None` if it is not known.
    fn standing(&self, id: OrderId) -> Option<Standing>;
    /// How many orders are known in all.
    fn orders(&self) -> u64;
    /// Counts of every SKU.
    fn stock(&self) -> Vec<StockRow>;
    /// Every card that operators have taken out of sale.
    fn out_of_sale(&self) -> BTreeMap<CardRef, OutOfSale>;
}

/// How a card is out of sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutOfSale {
    /// For a while.
    Suspended,
    /// For good.
    Void,
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
        let out_of_sale = state.out_of_sale();
        books.judge_moves(&out_of_sale);
        let mut known = 0;
        let mut all: Vec<(OrderId, SkuId, Vec<CardRef>)> = Vec::new();
        for (&id, booked) in &books.orders {
            let found = state.order(id);
            match (&booked.answer, &found) {
                (Some(answer), Some((lsn, cards))) => {
                    let same = answer.lsn == *lsn && *answer.cards == **cards;
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
                    assert!(booked.may_have(cards.len()), "{id}: quantity");
                }
                (None, None) => {}
            }
            let Some((_, cards)) = found else { continue };
            known += 1;
            all.push((id, booked.sku, cards));
        }
        books.chains.judge(|id| state.standing(id).is_some());
        let mut promised: HashMap<SkuId, u64> = HashMap::new();
        for (id, sku, standing) in books.judge_held(|id| state.standing(id)) {
            known += 1;
            match standing {
                Standing::Held(quantity) => {
                    *promised.entry(sku).or_default() += u64::from(quantity)
                }
                Standing::Issued(_, cards) => all.push((id, sku, cards)),
                Standing::Waiting(_) | Standing::Cancelled | Standing::Expired => {}
            }
        }
        for (id, sku, cards) in all {
            for card in &cards {
                let other = owners.insert(*card, id);
                assert!(
                    other.is_none_or(|other| other == id),
                    "one card for two orders, {other:?} and {id}"
                );
                assert!(
                    !books.never.contains(card),
                    "{id} has {card}, which was void before anybody had it"
                );
                match out_of_sale.get(card) {
                    None => *dealt.entry(sku).or_default() += 1,
                    Some(OutOfSale::Void) => {}
                    Some(OutOfSale::Suspended) => panic!("{id} has {card}, which is suspended"),
                }
                let owner = books.cards.owner(*card);
                assert!(
                    owner.is_none_or(|owner| owner == id),
                    "{card} was given to {owner:?} and is now of {id}"
                );
            }
        }
        assert_eq!(state.orders(), known, "orders that nobody has asked for");
        let rows = state.stock();
        let how_many = |how| out_of_sale.values().filter(|&&is| is == how).count() as u64;
        let (held, void) = rows.iter().fold((0, 0), |(held, void), row| {
            (held + row.held, void + row.void)
        });
        let all_promised: u64 = promised.values().sum();
        let suspended = how_many(OutOfSale::Suspended);
        assert_eq!(held, suspended + all_promised, "cards held");
        assert_eq!(void, how_many(OutOfSale::Void), "cards void");
        for row in &rows {
            let sum = row.free + row.held + row.issued + row.void;
            assert_eq!(sum, row.imported, "{row:?}");
            let least = promised.get(&SkuId(row.sku)).copied().unwrap_or(0);
            assert!(row.held >= least, "{row:?}: {least} are promised to holds");
            let issued = dealt.get(&SkuId(row.sku)).copied().unwrap_or(0);
            assert_eq!(row.issued, issued, "{row:?}: cards issued");
            let book = books.skus.get(&row.name).cloned().unwrap_or_default();
            let possible = [book.imported, book.imported + book.in_doubt.unwrap_or(0)];
            let grows = book.endless && books.growth_in_doubt && row.imported > possible[0];
            assert!(
                grows || possible.contains(&row.imported),
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
    pub fn settle_orders(&self, look: impl Fn(OrderId) -> Option<OrderOutcome>) {
        let mut books = self.books();
        books.settle_held(&look);
        let ids: Vec<_> = books.orders.keys().copied().collect();
        for id in ids {
            let outcome = look(id).unwrap_or(OrderOutcome::Refused {
                order_id: id,
                refusal: croupier_client::Refusal::OrderNotFound,
                retry_after_ms: 0,
            });
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
        books.cards.sellable(sku, secrets);
        let book = books.skus.entry(sku.to_owned()).or_default();
        book.id = Some(id);
        assert_eq!(book.in_doubt, None, "one import of a SKU at a time");
        book.in_doubt = Some(secrets.len() as u64);
    }

    /// As [`Oracle::import_under_way`], of so many cards that are delivered; `secrets`: those that they may be.
    ///
    /// # Panics
    /// As that does.
    pub fn delivery_under_way(&self, sku: &str, id: SkuId, cards: u64, secrets: &[Vec<u8>]) {
        self.import_under_way(sku, id, secrets);
        let mut books = self.books();
        let book = books.skus.entry(sku.to_owned()).or_default();
        book.in_doubt = Some(cards);
    }

    /// As [`Oracle::import_under_way`], of cards that may be dealt so often, or on without end. `uses`: how many of theirs there
    /// are in all.
    ///
    /// # Panics
    /// As that does.
    pub fn reusable_under_way(
        &self,
        sku: &str,
        id: SkuId,
        secrets: &[Vec<u8>],
        max_uses: Option<u32>,
        uses: u64,
    ) {
        self.import_under_way(sku, id, secrets);
        let mut books = self.books();
        books.cards.reusable(secrets, max_uses);
        let book = books.skus.entry(sku.to_owned()).or_default();
        book.in_doubt = Some(uses);
        book.endless |= max_uses.is_none();
    }

    /// Books that cards that are dealt without end may get more uses: until it is over, nobody knows how many.
    pub fn growth_under_way(&self) {
        self.books().growth_in_doubt = true;
    }

    /// Books how many uses there are now. No import may be in doubt.
    ///
    /// # Panics
    /// If cards that are not dealt without end have got some, or others lost some.
    pub fn growth_over(&self, rows: &[StockRow]) {
        let mut books = self.books();
        books.growth_in_doubt = false;
        for row in rows {
            let book = books.skus.entry(row.name.clone()).or_default();
            assert_eq!(book.in_doubt, None, "{row:?}: an import is in doubt");
            let may_be =
                row.imported == book.imported || book.endless && row.imported > book.imported;
            assert!(may_be, "{row:?}: {} were there", book.imported);
            book.imported = row.imported;
        }
    }

    /// Books that the import under way is over; `sealed`: its cards are in stock.
    pub fn import_over(&self, sku: &str, sealed: bool) {
        let mut books = self.books();
        let book = books.skus.entry(sku.to_owned()).or_default();
        let cards = book.in_doubt.take().unwrap_or(0);
        book.imported += if sealed { cards } else { 0 };
    }

    /// Books that operators take cards out of sale, or put them back: until it is over, any may be where they were or where
    /// they go.
    pub fn move_under_way(&self) {
        self.books().move_in_doubt = true;
    }

    /// Books where cards are after a move of so many, or after the start that settles one; `moved`: how many it was, if that
    /// is known. No other may be under way.
    ///
    /// # Panics
    /// If as many have not changed, or a void card has come back.
    pub fn move_over(&self, state: &impl StateView, moved: Option<u64>) {
        let mut books = self.books();
        let now = state.out_of_sale();
        books.judge_moves(&now);
        let cards: HashSet<&CardRef> = books.out_of_sale.keys().chain(now.keys()).collect();
        let changed = cards
            .into_iter()
            .filter(|card| books.out_of_sale.get(card) != now.get(card))
            .count() as u64;
        if let Some(moved) = moved {
            assert_eq!(changed, moved, "cards moved");
        }
        let ids = books.orders.keys().chain(books.held.keys());
        let owned: HashSet<CardRef> = ids
            .filter_map(|&id| match state.standing(id) {
                Some(Standing::Issued(_, cards)) => Some(cards),
                _ => None,
            })
            .flatten()
            .collect();
        let void = now.iter().filter(|&(_, &is)| is == OutOfSale::Void);
        let never: Vec<CardRef> = void
            .map(|(&card, _)| card)
            .filter(|card| !owned.contains(card))
            .collect();
        books.never.extend(never);
        books.out_of_sale = now;
        books.move_in_doubt = false;
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

impl Books {
    fn judge_moves(&self, now: &BTreeMap<CardRef, OutOfSale>) {
        if !self.move_in_doubt {
            assert_eq!(self.out_of_sale, *now, "cards out of sale");
        }
        for (card, was) in &self.out_of_sale {
            let is = now.get(card);
            let back = *was == OutOfSale::Void && is != Some(was);
            assert!(!back, "{card} was void and is now {is:?}");
        }
    }
}
