//! One table of slots, and the rows that its slots name.
//!
//! A slot is one word: what it is (2 bits), a tag (28 bits of the id's hash), and of a settled one the order's row
//! (34 bits). The tag is also what a slot's place follows from, in a table of any size: so a table is moved into a larger
//! one without a look at a single row.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::arena::Arena;
use super::{Hashed, Settled};
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sync::zeroed_words;

/// What a new table is full of.
pub(super) const EMPTY: u64 = 0;
pub(super) const FROZEN: u64 = 1;
/// Kind of a slot that is claimed and not settled: its tag is there, its row is not.
const CLAIMED: u64 = 2;
/// Kind of a slot whose order is known.
const SETTLED: u64 = 3;
const KIND_BITS: u64 = 3;
const TAG_SHIFT: u32 = 2;
const TAG_BITS: u32 = 28;
const ROW_SHIFT: u32 = TAG_SHIFT + TAG_BITS;
/// Rows an index can have: half a terabyte of them.
const ROWS_MAX: u64 = 1 << (64 - ROW_SHIFT);

/// How full a table gets. Fuller saves memory, and makes the search for an id that is not there longer.
pub(super) const LOAD_PERCENT: usize = 80;

/// The tag of a hash: its highest bits, which are also its place.
pub(super) fn tag_of(spread: u64) -> u64 {
    spread >> (64 - TAG_BITS)
}

pub(super) fn claimed(tag: u64) -> u64 {
    tag << TAG_SHIFT | CLAIMED
}

/// The word of a claimed slot once its order has a row.
pub(super) fn settled(claimed: u64, row: u64) -> u64 {
    assert!(row < ROWS_MAX, "a slot has room for it");
    row << ROW_SHIFT | claimed | SETTLED
}

pub(super) fn is_claimed(word: u64) -> bool {
    word & KIND_BITS == CLAIMED
}

pub(super) fn is_settled(word: u64) -> bool {
    word & KIND_BITS == SETTLED
}

fn tag_in(word: u64) -> u64 {
    word >> TAG_SHIFT & ((1 << TAG_BITS) - 1)
}

pub(super) struct Table {
    pub slots: Box<[AtomicU64]>,
    /// Counts the tables of a shard.
    pub generation: u32,
    limit: usize,
    /// Slots that moving the older table may still bring.
    room_for_older: usize,
    /// The older table's slots are all here, and `older` is none. Spares every probe a look at `older`.
    alone: AtomicBool,
    older: ArcSwapOption<Table>,
    /// Slots taken so far, reserved before they are claimed. At `limit` the table is full and the next one is made.
    used: Lonely,
}

/// On lines of its own: every insert writes it, and every look-up reads its neighbours.
#[derive(Default)]
#[repr(align(128))]
struct Lonely(AtomicUsize);

/// What a probe of one table found.
pub(super) enum Probe {
    /// The first slot that ends the search: EMPTY when it was looked at.
    Vacant(usize),
    /// The search ends at a FROZEN slot: the id can only be in a newer table.
    Frozen,
    InFlight,
    Known(Settled),
}

impl Table {
    pub fn new(capacity: usize, older: Option<Arc<Table>>) -> Arc<Table> {
        let limit = capacity * LOAD_PERCENT / 100;
        let room_for_older = older.as_ref().map_or(0, |older| older.limit);
        assert!(room_for_older < limit, "a newer table is larger");
        assert!(u32::try_from(capacity).is_ok(), "a place has room for it");
        Arc::new(Table {
            slots: zeroed_words(capacity),
            generation: older.as_ref().map_or(0, |older| older.generation + 1),
            limit,
            room_for_older,
            alone: AtomicBool::new(older.is_none()),
            older: ArcSwapOption::new(older),
            used: Lonely::default(),
        })
    }

    /// The table before this one, while its slots are not all here.
    pub fn older(&self) -> Option<Arc<Table>> {
        if self.is_alone() {
            None
        } else {
            self.older.load_full()
        }
    }

    pub fn is_alone(&self) -> bool {
        // Acquire pairs with the Release of unlink: whoever skips the older table finds its slots here.
        self.alone.load(Ordering::Acquire)
    }

    fn unlink(&self, older: &Arc<Table>) {
        self.older.compare_and_swap(older, None);
        // Release pairs with is_alone().
        self.alone.store(true, Ordering::Release);
    }

    /// Slots taken.
    pub fn used(&self) -> usize {
        // Relaxed: a count, not a guard.
        self.used.0.load(Ordering::Relaxed)
    }

    /// Multiply-shift: any capacity, and order of tags is order of slots, so that moving is nearly sequential.
    pub fn start(&self, tag: u64) -> usize {
        ((u128::from(tag) * self.slots.len() as u128) >> TAG_BITS) as usize
    }

    fn after(&self, index: usize) -> usize {
        if index + 1 == self.slots.len() {
            0
        } else {
            index + 1
        }
    }

    /// Takes one of the slots below the limit; while an older table is linked, its slots have theirs already.
    pub fn reserve(&self, older_linked: bool) -> bool {
        let kept = if older_linked {
            self.limit - self.room_for_older
        } else {
            self.limit
        };
        // Relaxed: a count, not a guard.
        if self.used.0.fetch_add(1, Ordering::Relaxed) < kept {
            return true;
        }
        self.give_back();
        false
    }

    /// Gives back what was reserved and not claimed.
    pub fn give_back(&self) {
        self.used.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Claims a slot, if it is still empty.
    pub fn claim(&self, index: usize, tag: u64) -> bool {
        // Relaxed: nothing is published by a claim; settle publishes.
        self.slots[index]
            .compare_exchange(EMPTY, claimed(tag), Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// Tells the row of a slot that the caller has claimed.
    pub fn settle(&self, index: usize, row: u64) {
        let slot = &self.slots[index];
        // Relaxed: only the claimer writes a claimed slot.
        let claimed = slot.load(Ordering::Relaxed);
        debug_assert!(is_claimed(claimed));
        // Release pairs with the Acquire of every probe: whoever sees SETTLED sees the row.
        slot.store(settled(claimed, row), Ordering::Release);
    }

    pub fn probe(&self, rows: &Rows, hashed: Hashed) -> Probe {
        let mut index = self.start(hashed.tag);
        for _ in 0..self.slots.len() {
            // Acquire pairs with settle.
            let word = self.slots[index].load(Ordering::Acquire);
            if word == EMPTY {
                return Probe::Vacant(index);
            }
            if word == FROZEN {
                return Probe::Frozen;
            }
            if tag_in(word) == hashed.tag {
                if is_claimed(word) {
                    return Probe::InFlight;
                }
                if let Some(settled) = rows.get(word >> ROW_SHIFT, hashed.id) {
                    return Probe::Known(settled);
                }
            }
            index = self.after(index);
        }
        Probe::Frozen
    }

    /// Probes an old table and freezes the slot that ends the search, so that no one can claim the id there any more.
    pub fn freeze_probe(&self, rows: &Rows, hashed: Hashed) -> Probe {
        loop {
            match self.probe(rows, hashed) {
                // Relaxed: freezing publishes nothing.
                Probe::Vacant(index)
                    if self.slots[index]
                        .compare_exchange(EMPTY, FROZEN, Ordering::Relaxed, Ordering::Relaxed)
                        .is_ok() =>
                {
                    return Probe::Frozen;
                }
                Probe::Vacant(_) => {}
                found => return found,
            }
        }
    }

    /// Moves every slot of `older` here and unlinks it, unless one of them is still CLAIMED.
    pub fn try_move(&self, older: &Arc<Table>) {
        let mut busy = false;
        for slot in &older.slots {
            // Relaxed, and so below: what is read is only copied, with Release, and the rows it names were published to
            // this thread by the Acquire of the second pass.
            let mut word = slot.load(Ordering::Relaxed);
            if word == EMPTY {
                match slot.compare_exchange(EMPTY, FROZEN, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => continue,
                    Err(now) => word = now,
                }
            }
            busy |= is_claimed(word);
        }
        if busy {
            return;
        }
        // Now `older` cannot change any more. Several threads may copy at once: a word that is there already is the same.
        for slot in &older.slots {
            let word = slot.load(Ordering::Acquire);
            if is_settled(word) {
                self.copy_in(word);
            }
        }
        self.unlink(older);
    }

    fn copy_in(&self, word: u64) {
        let mut index = self.start(tag_in(word));
        for _ in 0..self.slots.len() {
            let slot = &self.slots[index];
            // Release: whoever finds the slot here finds its row.
            match slot.compare_exchange(EMPTY, word, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => {
                    self.used.0.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                // This table has itself been grown over and frozen: then somebody else has finished this move.
                Err(FROZEN) => return,
                Err(there) if there == word => return,
                Err(_) => index = self.after(index),
            }
        }
    }
}

/// What is kept of every order, in the order in which they were dealt: id, cards, LSN and quantity.
#[derive(Default)]
pub(super) struct Rows(Arena);

const ROW_WORDS: u64 = 4;
const QUANTITY_BITS: u32 = 14;
const LSN_BITS_MAX: u64 = 1 << 48;

impl Rows {
    /// Takes `count` rows for orders that will certainly be settled; returns the first.
    pub fn take(&self, count: u64) -> u64 {
        self.0.take(count * ROW_WORDS) / ROW_WORDS
    }

    /// Fills a row before it is published by the slot that names it.
    pub fn put(&self, row: u64, id: u128, settled: Settled) {
        assert!(
            settled.lsn < LSN_BITS_MAX && settled.quantity < 1 << QUANTITY_BITS,
            "a row has room for it"
        );
        let what = settled.lsn << QUANTITY_BITS | u64::from(settled.quantity);
        let words = [(id >> 64) as u64, id as u64, settled.cards, what];
        self.0.set(row * ROW_WORDS, words);
    }

    fn read(&self, row: u64) -> (u128, Settled) {
        let [high, low, cards, what] = self.0.get(row * ROW_WORDS);
        let settled = Settled {
            lsn: what >> QUANTITY_BITS,
            quantity: (what & ((1 << QUANTITY_BITS) - 1)) as u16,
            cards,
        };
        (u128::from(high) << 64 | u128::from(low), settled)
    }

    /// What a row says, if it is that of `id`.
    fn get(&self, row: u64, id: u128) -> Option<Settled> {
        let (there, settled) = self.read(row);
        (there == id).then_some(settled)
    }

    /// Every row that has been filled.
    pub fn for_each(&self, mut visit: impl FnMut(u128, Settled)) {
        for row in 0..self.0.words() / ROW_WORDS {
            // A row that was taken for a record that never came stays empty; no record has LSN 0.
            let (id, settled) = self.read(row);
            if settled.lsn != 0 {
                visit(id, settled);
            }
        }
    }

    pub fn memory_bytes(&self) -> u64 {
        self.0.memory_bytes()
    }
}
