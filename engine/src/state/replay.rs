//! Records from the disk on their way into a state: the one path of recovery, verification and folds.
//!
//! They go in by batches: the lines of the index that a batch needs are all asked for before the first is needed.

use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};

use super::apply::{Promise, State, Unfit};
use super::catalog::Catalog;
use super::index::{Claim, Hashed, IndexView};
use super::record::{Ended, Fact, Record};
use crate::sync::hint;

/// What one thread keeps at hand of a state that it puts records into.
pub struct Hand {
    pub(super) view: IndexView,
    catalog: Cache<Arc<ArcSwap<Catalog>>, Arc<Catalog>>,
    /// Rows of the index that were taken for this thread and not filled yet.
    rows: std::ops::Range<u64>,
}

/// Rows taken at a time, so that threads do not fight over each. Those left over stay empty.
const ROWS_TAKEN: u64 = 64;

impl Hand {
    pub fn new(state: &State) -> Hand {
        Hand {
            view: IndexView::new(&state.index),
            catalog: Cache::new(state.catalog.clone()),
            rows: 0..0,
        }
    }

    pub(super) fn catalog(&mut self) -> &Catalog {
        self.catalog.load()
    }

    pub(super) fn parts(&mut self) -> (&Catalog, &mut IndexView) {
        (self.catalog.load(), &mut self.view)
    }

    /// Takes the place in the index that a dealer would have taken; `None` when the order has one.
    pub(super) fn promise(&mut self, state: &State, id: u128) -> Option<Promise> {
        let hashed = state.index.hash(id);
        let place = loop {
            match self.view.claim(hashed, None) {
                Claim::Ours(place) => break place,
                Claim::Known(_) => return None,
                // Another thread is between its claim of an id like this one and what it publishes.
                Claim::InFlight => hint::spin_loop(),
            }
        };
        if self.rows.is_empty() {
            let first = state.index.take_rows(ROWS_TAKEN);
            self.rows = first..first + ROWS_TAKEN;
        }
        let row = self.rows.next().expect("rows were taken above");
        Some(Promise { place, row })
    }
}

/// One thread's way of putting records into a state. Several may put in orders side by side, and one other facts alone.
pub struct Replay<'s> {
    state: &'s State,
    hand: Hand,
    // Kept between batches so that a batch allocates nothing.
    hashes: Vec<Hashed>,
}

impl<'s> Replay<'s> {
    pub fn new(state: &'s State) -> Replay<'s> {
        Replay {
            state,
            hand: Hand::new(state),
            hashes: Vec::new(),
        }
    }

    /// Puts in records of the log, in their order. The error comes with the number of the record that cannot be.
    pub fn logged(&mut self, records: &[(u64, Record<'_>)]) -> Result<(), (usize, Unfit)> {
        if self.state.is_indexed() {
            self.touch(records.iter().filter_map(|(_, record)| match &record.fact {
                Fact::Issued(issued) => Some(issued.order_id),
                Fact::Reserved(reserved) => Some(reserved.order_id),
                Fact::Backordered(waits) => Some(waits.order_id),
                _ => None,
            }));
        }
        for (nth, (lsn, record)) in records.iter().enumerate() {
            let applied = self.state.apply(*lsn, record, &mut self.hand);
            applied.map_err(|unfit| (nth, unfit))?;
        }
        Ok(())
    }

    /// Puts back orders that a checkpoint holds, each with the LSN and the time of its record, in Unix milliseconds; their cards
    /// are among the bits that it holds.
    pub fn restored(&mut self, orders: &[(u64, u64, Ended<'_>)]) -> Result<(), String> {
        self.touch(orders.iter().map(|(.., ended)| ended.order_id()));
        let (state, hand) = (self.state, &mut self.hand);
        orders
            .iter()
            .try_for_each(|(lsn, unix_ms, ended)| state.restore_order(*lsn, *unix_ms, ended, hand))
    }

    fn touch(&mut self, ids: impl Iterator<Item = u128>) {
        self.hashes.clear();
        self.hashes.extend(ids.map(|id| self.state.index.hash(id)));
        self.hand.view.touch(&self.hashes);
    }
}
