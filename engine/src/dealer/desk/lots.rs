//! A line as the desk keeps it: sorted into *lots*. docs/orders.md.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use croupier_protocol::planted::{self, Bug};

use crate::state::line::{Line, Waiter};

/// What orders of a lot have in common: there is stock for each of them, or for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Alike {
    pub priority: u8,
    /// As of the numbering of the queue.
    pub way: u16,
    /// To be issued; else to be held.
    pub is_issue: bool,
    pub quantity: u16,
}

/// The first is the first that came.
type Lot = BTreeSet<Waiter>;

/// The next order of a lot. Sorted as they are served: by priority, and then first come, first served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Front {
    priority: u8,
    pub order: Waiter,
    pub alike: Alike,
}

/// A line as the desk knows it.
#[derive(Default)]
pub(super) struct Queue {
    lots: BTreeMap<Alike, Lot>,
    /// Which numbering of ways they are of.
    numbering: u64,
    /// Lots of other numberings: their orders are to be sorted anew.
    stale: Vec<(Alike, Lot)>,
    /// Orders that are in no lot yet.
    loose: Vec<Waiter>,
    /// Orders that were just being changed when they were to be sorted: next time.
    changing: Vec<Waiter>,
}

impl Queue {
    /// Takes in who has joined.
    pub fn gather(&mut self, line: &Line) {
        self.loose
            .extend(std::iter::from_fn(|| line.next_arrival()));
    }

    /// Before orders are sorted: what is in lots whose ways had other numbers is to be sorted anew.
    pub fn renumber(&mut self, numbering: u64) {
        if self.numbering != numbering {
            self.numbering = numbering;
            self.stale.extend(std::mem::take(&mut self.lots));
        }
        self.loose.append(&mut self.changing);
    }

    /// The next order that is to be sorted.
    pub fn next_unsorted(&mut self) -> Option<Waiter> {
        while let Some((_, lot)) = self.stale.last_mut() {
            if let Some(order) = lot.pop_last() {
                return Some(order);
            }
            self.stale.pop();
        }
        self.loose.pop()
    }

    /// An order that cannot be sorted just now is to be, in this look.
    pub fn put_back(&mut self, order: Waiter) {
        self.loose.push(order);
    }

    /// An order that is just being changed is to be sorted in the next look.
    pub fn put_off(&mut self, order: Waiter) {
        self.changing.push(order);
    }

    pub fn put(&mut self, alike: Alike, order: Waiter) {
        self.lots.entry(alike).or_default().insert(order);
    }

    /// An order waits no longer.
    pub fn remove(&mut self, front: &Front) {
        if let Some(lot) = self.lots.get_mut(&front.alike) {
            lot.remove(&front.order);
            if lot.is_empty() {
                self.lots.remove(&front.alike);
            }
        }
    }

    /// The first order of each lot for which `has_stock` says so.
    pub fn fronts(&self, mut has_stock: impl FnMut(&Alike) -> bool) -> BTreeSet<Front> {
        let lots = self.lots.iter().filter(|(alike, _)| has_stock(alike));
        let firsts = lots.filter_map(|(alike, lot)| Some(front_of(*alike, *lot.first()?)));
        firsts.collect()
    }

    /// The order behind that in its lot.
    pub fn behind(&self, front: &Front) -> Option<Front> {
        let lot = self.lots.get(&front.alike)?;
        let rest = (Bound::Excluded(front.order), Bound::Unbounded);
        let next = lot.range(rest).next()?;
        Some(front_of(front.alike, *next))
    }

    /// How many orders are known here, with those that have left otherwise.
    pub fn orders(&self) -> usize {
        let lots = self
            .lots
            .values()
            .chain(self.stale.iter().map(|(_, lot)| lot));
        lots.map(BTreeSet::len).sum::<usize>() + self.loose.len() + self.changing.len()
    }

    /// Leaves out those that wait no longer.
    pub fn retain(&mut self, waits: impl Fn(&Waiter) -> bool) {
        let lots = self.lots.values_mut();
        for lot in lots.chain(self.stale.iter_mut().map(|(_, lot)| lot)) {
            lot.retain(&waits);
        }
        self.lots.retain(|_, lot| !lot.is_empty());
        self.loose.retain(&waits);
        self.changing.retain(&waits);
    }
}

fn front_of(alike: Alike, order: Waiter) -> Front {
    Front {
        priority: alike.priority,
        order,
        alike,
    }
}

/// The order whose turn it is.
pub(super) fn pop(fronts: &mut BTreeSet<Front>) -> Option<Front> {
    match planted::is(Bug::FillOutOfTurn) {
        true => fronts.pop_last(),
        false => fronts.pop_first(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alike(priority: u8, way: u16, quantity: u16) -> Alike {
        Alike {
            priority,
            way,
            is_issue: true,
            quantity,
        }
    }

    fn order(lsn: u64) -> Waiter {
        Waiter {
            lsn,
            row: 1000 - lsn,
        }
    }

    /// LSNs in the order in which orders of ways that have stock are served.
    fn served(queue: &Queue, has_stock: impl Fn(&Alike) -> bool) -> Vec<u64> {
        let mut fronts = queue.fronts(has_stock);
        let next = || {
            let front = pop(&mut fronts)?;
            fronts.extend(queue.behind(&front));
            Some(front.order.lsn)
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn lots_are_served_side_by_side_in_the_order_of_the_line() {
        let mut queue = Queue::default();
        queue.renumber(1);
        for (priority, way, quantity, lsn) in [
            (1, 0, 1, 5),
            (1, 0, 2, 6),
            (1, 1, 1, 3),
            (1, 0, 1, 7),
            (0, 1, 1, 9),
            (0, 0, 1, 8),
        ] {
            queue.put(alike(priority, way, quantity), order(lsn));
        }
        assert_eq!(served(&queue, |_| true), [8, 9, 3, 5, 6, 7]);
        assert_eq!(served(&queue, |alike| alike.way == 0), [8, 5, 6, 7]);
        assert_eq!(served(&queue, |alike| alike.quantity == 1), [8, 9, 3, 5, 7]);

        let front = front_of(alike(1, 0, 1), order(5));
        queue.remove(&front);
        assert_eq!(queue.behind(&front).unwrap().order, order(7));
        assert_eq!((served(&queue, |_| true).len(), queue.orders()), (5, 5));
    }

    #[test]
    fn nobody_is_lost_while_ways_get_other_numbers() {
        let mut queue = Queue::default();
        for round in 0..4 {
            queue.renumber(round);
            let mut sorted = 0;
            // Not all of them, in some rounds.
            while sorted < 3 + round
                && let Some(order) = queue.next_unsorted()
            {
                match order.lsn % 5 {
                    0 if round == 2 => queue.put_off(order),
                    way => queue.put(alike(1, way as u16, 1), order),
                }
                sorted += 1;
            }
            if round == 0 {
                (1..=10).for_each(|lsn| queue.put_back(order(lsn)));
            }
            assert_eq!(queue.orders(), 10);
        }
        queue.renumber(9);
        let mut all: Vec<u64> = std::iter::from_fn(|| queue.next_unsorted())
            .map(|order| order.lsn)
            .collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(1..=10));
        assert_eq!(queue.orders(), 0);
    }

    #[test]
    fn who_has_left_is_forgotten_wherever_it_stands() {
        let mut queue = Queue::default();
        queue.put(alike(1, 0, 1), order(1));
        queue.put(alike(1, 0, 1), order(2));
        queue.renumber(1);
        queue.put(alike(2, 0, 1), order(3));
        queue.put(alike(1, 0, 1), order(4));
        queue.put_off(order(5));
        queue.put_back(order(6));
        queue.put_back(order(8));
        queue.retain(|order| order.lsn % 2 == 0);
        assert_eq!(queue.orders(), 4);
        assert_eq!(served(&queue, |_| true), [4]);
    }
}
