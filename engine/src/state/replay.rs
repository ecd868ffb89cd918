//! Records from the disk on their way into a state: the one path of recovery, verification and folds.
//!
//! What a dealer does for an order before its record is written ([`Promise`]) is done here after it was read, and finds a
//! card that went to two orders, or an order that was dealt twice. Orders go in by batches: the lines of the index that
//! they need are all asked for before the first is needed.

use std::sync::Arc;

use croupier_protocol::planted::{self, Bug};

use super::apply::{Orders, Promise, State, StateSeed, Unfit};
use super::catalog::Catalog;
use super::index::{Claim, Hashed, IndexView};
use super::record::{Fact, Issued, Record};
use crate::slab::claim;
use crate::sync::hint;

/// One thread's way of putting records into a state. Several may put in orders side by side, and one other facts alone.
pub struct Replay<'s> {
    state: &'s State,
    view: IndexView,
    catalog: Arc<Catalog>,
    // Kept between batches so that a batch allocates nothing.
    hashes: Vec<Hashed>,
}

impl<'s> Replay<'s> {
    pub fn new(state: &'s State) -> Replay<'s> {
        Replay {
            state,
            view: IndexView::new(&state.index),
            catalog: state.catalog.load_full(),
            hashes: Vec::new(),
        }
    }

    /// Puts in records of the log, in their order. The error comes with the number of the record that cannot be.
    pub fn logged(&mut self, records: &[(u64, Record<'_>)]) -> Result<(), (usize, Unfit)> {
        self.catalog = self.state.catalog.load_full();
        let is_order = |record: &Record<'_>| matches!(record.fact, Fact::Issued(_));
        let mut at = 0;
        for same in records.chunk_by(|(_, a), (_, b)| is_order(a) == is_order(b)) {
            if is_order(&same[0].1) {
                let orders = same.iter().filter_map(|(lsn, record)| match &record.fact {
                    Fact::Issued(issued) => Some((*lsn, issued)),
                    _ => None,
                });
                let put = self.orders(orders);
                put.map_err(|(nth, what)| (at + nth, what.into()))?;
            } else {
                for (nth, (_, record)) in same.iter().enumerate() {
                    let applied = self.state.apply(record);
                    applied.map_err(|unfit| (at + nth, unfit))?;
                }
                self.catalog = self.state.catalog.load_full();
            }
            at += same.len();
        }
        Ok(())
    }

    fn orders<'a>(
        &mut self,
        orders: impl Iterator<Item = (u64, &'a Issued<'a>)> + Clone,
    ) -> Result<(), (usize, String)> {
        for (nth, (_, issued)) in orders.clone().enumerate() {
            take_cards(&self.catalog, issued).map_err(|what| (nth, what))?;
        }
        match &self.state.orders {
            Orders::Indexed => self.index(orders, "an order is dealt twice"),
            Orders::Counted(seed) => {
                let mut more = StateSeed::default();
                for (lsn, issued) in orders {
                    if !planted::is(Bug::FoldForgets) || issued.quantity <= 2 {
                        more.add(issued.order_id, lsn, issued.cards());
                    }
                }
                seed.lock()
                    .expect("no one panics with this lock")
                    .join(more);
                Ok(())
            }
        }
    }

    /// Puts back orders that a checkpoint holds; their cards are among the bits that it holds.
    pub fn restored(&mut self, orders: &[(u64, Issued<'_>)]) -> Result<(), String> {
        let orders = orders.iter().map(|(lsn, issued)| (*lsn, issued));
        orders.clone().try_for_each(|(_, issued)| {
            let cards = issued.runs.iter().map(|run| u64::from(run.count)).sum();
            check_cards(issued, cards)
        })?;
        self.index(orders, "an order stands twice in the order files")
            .map_err(|(_, what)| what)
    }

    fn index<'a>(
        &mut self,
        orders: impl Iterator<Item = (u64, &'a Issued<'a>)> + Clone,
        twice: &str,
    ) -> Result<(), (usize, String)> {
        let (state, view) = (self.state, &mut self.view);
        self.hashes.clear();
        let hashes = orders
            .clone()
            .map(|(_, issued)| state.index.hash(issued.order_id));
        self.hashes.extend(hashes);
        view.touch(&self.hashes);
        let rows = state.index.take_rows(self.hashes.len() as u64);
        for (nth, ((lsn, issued), row)) in orders.zip(rows..).enumerate() {
            let place = loop {
                match view.claim(self.hashes[nth], None) {
                    Claim::Ours(place) => break place,
                    Claim::Known(_) => return Err((nth, twice.into())),
                    // Another thread is between its claim of an id like this one and the next line.
                    Claim::InFlight => hint::spin_loop(),
                }
            };
            let applied = state.apply_issued(lsn, issued, Promise { place, row }, view);
            applied.map_err(|what| (nth, what))?;
        }
        Ok(())
    }
}

/// Sets the bits and takes the credits of an order's cards.
fn take_cards(catalog: &Catalog, issued: &Issued<'_>) -> Result<(), String> {
    let mut cards = 0u64;
    for run in issued.runs.iter() {
        let slab = catalog.slab(run.slab).ok_or_else(|| {
            format!(
                "an order has cards of slab {}, which is not there",
                run.slab
            )
        })?;
        let end = u64::from(run.slot) + u64::from(run.count);
        if end > slab.facts.cards.into() || slab.facts.sku != issued.sku {
            return Err(format!(
                "an order of SKU {} has cards that slab {} does not have",
                issued.sku, run.slab
            ));
        }
        for slot in run.slot..run.slot + run.count {
            if !claim::set(slab.words(), slot) {
                return Err(format!("card {}:{slot} goes to two orders", run.slab));
            }
        }
        if slab.pool.take_credits(run.count.into()) != u64::from(run.count) {
            return Err(format!(
                "the count of free cards of SKU {} falls below zero",
                issued.sku
            ));
        }
        cards += u64::from(run.count);
    }
    check_cards(issued, cards)
}

fn check_cards(issued: &Issued<'_>, cards: u64) -> Result<(), String> {
    if cards != u64::from(issued.quantity) || cards == 0 {
        return Err(format!("an order of {} cards has {cards}", issued.quantity));
    }
    Ok(())
}
