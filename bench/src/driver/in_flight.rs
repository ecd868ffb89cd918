//! The requests of one connection that await their answer: a fixed table, indexed by the request id itself.

use crate::recorder::Operation;

/// One request that awaits its answer.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    /// Generation and index; 0 = free.
    request_id: u64,
    /// When it was to be sent, in nanoseconds on the run's clock.
    pub intended_ns: u64,
    /// Sequence number of its first order; the rest follow one by one (issue and reserve only).
    pub first_sequence: u64,
    /// What it asks.
    pub operation: Operation,
    /// Orders in it.
    pub orders: u16,
    /// Orders answered so far: a reply may come in several frames.
    pub answered: u16,
    /// Orders that hold cards by now (reserve only).
    held: u16,
}

/// An order that a lookup or a commit asks for, and what its first answer said.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked {
    /// Its sequence number.
    pub sequence: u64,
    /// The fingerprint of the answer to an issue, or the LSN of the answer to a reserve.
    pub earlier: u64,
}

/// The table. Nothing is allocated after it was made.
#[derive(Debug)]
pub struct InFlight {
    slots: Box<[Slot]>,
    /// Indexes of free slots; the last one is taken next, while its line is still in the cache.
    free: Vec<u32>,
    generation: u32,
    /// `batch` entries for each slot; empty where orders are only issued.
    asked: Box<[Asked]>,
    batch: usize,
    /// When the reserve that a slot's commit follows was to be sent; empty where nothing is reserved.
    begun_ns: Box<[u64]>,
}

impl InFlight {
    /// Room for `slots` requests of `batch` orders, and for orders that are asked for again if there are any.
    pub fn new(slots: usize, batch: u16, asked_again: bool) -> Self {
        let empty = Slot {
            request_id: 0,
            intended_ns: 0,
            first_sequence: 0,
            operation: Operation::Issue,
            orders: 0,
            answered: 0,
            held: 0,
        };
        let batch = usize::from(batch);
        let (asked, begun) = if asked_again {
            (slots * batch, slots)
        } else {
            (0, 0)
        };
        Self {
            slots: vec![empty; slots].into_boxed_slice(),
            free: (0..slots as u32).rev().collect(),
            generation: 0,
            asked: vec![Asked::default(); asked].into_boxed_slice(),
            batch,
            begun_ns: vec![0; begun].into_boxed_slice(),
        }
    }

    /// True if there is no room for another request.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    /// Notes a request and gives it an id that no earlier one had.
    ///
    /// # Panics
    /// If the table is full.
    #[inline]
    pub fn open(
        &mut self,
        operation: Operation,
        intended_ns: u64,
        first_sequence: u64,
        orders: u16,
    ) -> u64 {
        let index = self.free.pop().expect("the caller asked for room first");
        let request_id = self.new_id(index);
        self.slots[index as usize] = Slot {
            request_id,
            intended_ns,
            first_sequence,
            operation,
            orders,
            answered: 0,
            held: 0,
        };
        request_id
    }

    /// An order of a reserve holds cards: its commit will ask for it.
    #[inline]
    pub fn hold(&mut self, request_id: u64, order: Asked) {
        let index = request_id as u32 as usize;
        let slot = &mut self.slots[index];
        self.asked[index * self.batch + usize::from(slot.held)] = order;
        slot.held += 1;
    }

    /// A reserve is answered: its slot becomes that of the commit of what is held. Returns the commit's id and how many
    /// orders it asks for; `None` if nothing is held, and then the slot is free.
    #[inline]
    pub fn commit(&mut self, request_id: u64, intended_ns: u64) -> Option<(u64, u16)> {
        let index = request_id as u32;
        let Slot {
            intended_ns: begun_ns,
            held,
            ..
        } = self.slots[index as usize];
        if held == 0 {
            self.close(request_id);
            return None;
        }
        self.begun_ns[index as usize] = begun_ns;
        let request_id = self.new_id(index);
        self.slots[index as usize] = Slot {
            request_id,
            intended_ns,
            first_sequence: 0,
            operation: Operation::Commit,
            orders: held,
            answered: 0,
            held: 0,
        };
        Some((request_id, held))
    }

    /// When the reserve that a commit follows was to be sent.
    #[inline]
    pub fn begun_ns(&self, request_id: u64) -> u64 {
        self.begun_ns[request_id as u32 as usize]
    }

    #[inline]
    fn new_id(&mut self, index: u32) -> u64 {
        // After 2^32 requests ids begin anew: only the one that is in flight has to differ.
        self.generation = self.generation.wrapping_add(1).max(1);
        u64::from(self.generation) << 32 | u64::from(index)
    }

    /// The request of an id, if it is in flight.
    #[inline]
    pub fn get(&mut self, request_id: u64) -> Option<&mut Slot> {
        self.slots
            .get_mut(request_id as u32 as usize)
            .filter(|slot| slot.request_id == request_id && request_id != 0)
    }

    /// The request is answered.
    #[inline]
    pub fn close(&mut self, request_id: u64) {
        let index = request_id as u32;
        let slot = &mut self.slots[index as usize];
        debug_assert_eq!(slot.request_id, request_id);
        slot.request_id = 0;
        self.free.push(index);
    }

    /// The orders that a lookup or a commit asks for: room for a whole batch.
    #[inline]
    pub fn asked(&mut self, request_id: u64) -> &mut [Asked] {
        let first = request_id as u32 as usize * self.batch;
        &mut self.asked[first..first + self.batch]
    }

    /// Orders that await their answer.
    pub fn orders(&self) -> u64 {
        let open = self.slots.iter().filter(|slot| slot.request_id != 0);
        open.map(|slot| u64::from(slot.orders - slot.answered))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back_in_any_order_and_never_twice() {
        let mut table = InFlight::new(3, 2, true);
        let ids: Vec<u64> = (0..3)
            .map(|n| table.open(Operation::Issue, n, n * 2, 2))
            .collect();
        assert!(table.is_full());
        assert_eq!(table.orders(), 6);
        assert_eq!(table.get(ids[1]).map(|slot| slot.first_sequence), Some(2));
        table.close(ids[1]);
        assert!(table.get(ids[1]).is_none(), "an id is good for one answer");
        let reused = table.open(Operation::LookUp, 9, 9, 1);
        assert_ne!(reused, ids[1]);
        assert_eq!(reused as u32, ids[1] as u32, "the slot is the same");
        table.asked(reused)[1].sequence = 5;
        for unknown in [0, 77, u64::MAX] {
            assert!(table.get(unknown).is_none());
        }
        [ids[0], ids[2], reused]
            .into_iter()
            .for_each(|id| table.close(id));
        assert_eq!(table.orders(), 0);
    }

    #[test]
    fn a_commit_takes_the_place_of_its_reserve() {
        let mut table = InFlight::new(1, 3, true);
        let reserve = table.open(Operation::Reserve, 5, 100, 3);
        for sequence in [100, 102] {
            table.hold(
                reserve,
                Asked {
                    sequence,
                    earlier: 1,
                },
            );
        }
        let (commit, orders) = table.commit(reserve, 9).expect("two orders hold cards");
        assert_eq!((orders, table.orders(), table.begun_ns(commit)), (2, 2, 5));
        assert!(table.get(reserve).is_none() && table.is_full());
        assert_eq!(
            table.get(commit).map(|slot| slot.operation),
            Some(Operation::Commit)
        );
        assert_eq!(table.asked(commit)[1].sequence, 102);
        table.close(commit);
        let refused = table.open(Operation::Reserve, 10, 103, 3);
        assert!(table.commit(refused, 11).is_none() && !table.is_full());
    }
}
