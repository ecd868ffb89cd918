//! One table of slots, and the rows that its slots name.
//!
//! A slot is one word: what it is (2 bits), a tag (28 bits of the id's hash), and of a settled one the order's row
//! (34 bits). The tag is also what a slot's place follows from, in a table of any size: so a table is moved into a larger
//! one without a look at a single row.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use croupier_protocol::planted::{self, Bug};

use super::arena::{Arena, PAGE_WORDS};
use super::{Hashed, OrderState, Settled};
use crate::state::record::QUANTITY_LIMIT;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sync::zeroed_words;

/// What a new table is full of.
pub(super) const EMPTY: u64 = 0;
pub(super) const FROZEN: u64 = 1;
/// A slot that was claimed and given up: nobody's, and for ever, so that searches that went past it still do.
const GIVEN_UP: u64 = 1 << 63 | FROZEN;
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
    /// Of these: given up.
    given_up: AtomicUsize,
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
            given_up: AtomicUsize::new(0),
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

    /// About how many orders are here.
    pub fn orders(&self) -> usize {
        // Relaxed: a count, not a guard.
        let given_up = self.given_up.load(Ordering::Relaxed);
        self.used().saturating_sub(given_up)
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

    /// Has the system find the memory of all slots, which it may have only promised.
    pub fn touch(&self) {
        for slot in self.slots.iter().step_by(PAGE_WORDS) {
            // Relaxed: changes nothing, but as a write.
            slot.fetch_or(EMPTY, Ordering::Relaxed);
        }
    }

    /// Slots below the limit.
    pub fn room(&self) -> usize {
        self.limit.saturating_sub(self.used())
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

    /// Gives up a slot that the caller has claimed. It stays taken until the table is moved.
    pub fn give_up(&self, index: usize) {
        debug_assert!(is_claimed(self.slots[index].load(Ordering::Relaxed)));
        self.given_up.fetch_add(1, Ordering::Relaxed);
        // Relaxed: it names nothing. Whoever finds it goes on to the next slot.
        let word = if planted::is(Bug::GiveUpToEmpty) {
            EMPTY
        } else {
            GIVEN_UP
        };
        self.slots[index].store(word, Ordering::Relaxed);
    }

    #[inline]
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
            if tag_in(word) == hashed.tag && word != GIVEN_UP {
                if is_claimed(word) {
                    return Probe::InFlight;
                }
                match rows.get(word >> ROW_SHIFT, hashed.id) {
                    Found::Known(settled) => return Probe::Known(settled),
                    Found::Busy => return Probe::InFlight,
                    Found::Other => {}
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

/// What is kept of every order, in the order in which they were dealt: id, cards, LSN, state and quantity.
///
/// The rows of most orders never change once a slot names them. That of a hold does, by whoever has *claimed* it:
///
/// ```text
/// Held ──claim──► Held, BUSY ──change──► Held (extended) | Committed | Cancelled | Expired
/// Expired ──claim──► Expired, BUSY ──change──► Committed
/// ```
///
/// The last word has all that decides: LSN, state, BUSY and quantity. Each change has another LSN, so a word that is the same
/// before and after what it stands for was read has stood there all the while.
#[derive(Default)]
pub(super) struct Rows(Arena);

const ROW_WORDS: u64 = 4;
/// Places of a row's words: two of the id, what its cards are, what it is.
const CARDS: usize = 2;
const WHAT: usize = 3;
const QUANTITY_BITS: u32 = 12;
const _: () = assert!((QUANTITY_LIMIT as u64) < 1 << QUANTITY_BITS);
const STATE_SHIFT: u32 = QUANTITY_BITS;
const BUSY: u64 = 1 << 15;
const LSN_SHIFT: u32 = 16;
const LSN_BITS_MAX: u64 = 1 << 48;

/// What a look at a row found.
pub(super) enum Found {
    /// It is another order's.
    Other,
    /// Somebody is just changing it.
    Busy,
    Known(Settled),
}

fn what(lsn: u64, state: OrderState, quantity: u16) -> u64 {
    assert!(
        lsn < LSN_BITS_MAX && quantity < 1 << QUANTITY_BITS,
        "a row has room for it"
    );
    lsn << LSN_SHIFT | (state as u64) << STATE_SHIFT | u64::from(quantity)
}

fn settled_of(what: u64, cards: u64) -> Settled {
    Settled {
        lsn: what >> LSN_SHIFT,
        quantity: (what & ((1 << QUANTITY_BITS) - 1)) as u16,
        state: OrderState::of_bits(what >> STATE_SHIFT),
        cards,
    }
}

fn what_of(settled: Settled) -> u64 {
    what(settled.lsn, settled.state, settled.quantity)
}

impl Rows {
    pub fn arena(&self) -> &Arena {
        &self.0
    }

    /// Takes `count` rows for orders that will certainly be settled; returns the first.
    pub fn take(&self, count: u64) -> u64 {
        self.0.take(count * ROW_WORDS) / ROW_WORDS
    }

    /// Rows taken so far.
    pub fn taken(&self) -> u64 {
        self.0.words() / ROW_WORDS
    }

    /// Fills a row before it is published by the slot that names it. `cards`: where its cards are, or its hold, or its SKU.
    pub fn put(&self, row: u64, id: u128, cards: u64, settled: Settled) {
        let words = [(id >> 64) as u64, id as u64, cards, what_of(settled)];
        self.0.set(row * ROW_WORDS, words);
    }

    /// A row's words; none where none was put yet.
    fn words(&self, row: u64) -> Option<&[AtomicU64]> {
        self.0.words_at(row * ROW_WORDS, ROW_WORDS as usize)
    }

    /// What a row says, if it is that of `id`.
    #[inline]
    pub fn get(&self, row: u64, id: u128) -> Found {
        let Some(words) = self.words(row) else {
            return Found::Other;
        };
        // Relaxed, as the id never changes; the slot that named the row has published it.
        let there = [0, 1].map(|at: usize| words[at].load(Ordering::Relaxed));
        if there != [(id >> 64) as u64, id as u64] {
            return Found::Other;
        }
        // Acquire pairs with change: whoever sees the new state sees its cards.
        let what = words[WHAT].load(Ordering::Acquire);
        if what & BUSY != 0 {
            return Found::Busy;
        }
        Found::Known(Self::settled(words, row, what))
    }

    /// `what` has been loaded with Acquire.
    fn settled(words: &[AtomicU64], row: u64, what: u64) -> Settled {
        let mut settled = settled_of(what, row);
        if settled.state.has_cards() {
            // Such a row does not change any more.
            settled.cards = words[CARDS].load(Ordering::Relaxed);
        }
        settled
    }

    /// The word about cards of a row without cards: the place of its hold, or its SKU. `None`: the row has changed since.
    pub fn place(&self, settled: Settled) -> Option<u64> {
        let words = self.words(settled.cards)?;
        let place = words[CARDS].load(Ordering::Acquire);
        self.is_still(settled).then_some(place)
    }

    /// Whether a row without cards still says the same; what was read with Acquire before belongs to it then.
    pub fn is_still(&self, settled: Settled) -> bool {
        let is = |words: &[AtomicU64]| words[WHAT].load(Ordering::Acquire) == what_of(settled);
        self.words(settled.cards).is_some_and(is)
    }

    /// Claims a row without cards for a change, if it still says the same.
    pub fn claim(&self, settled: Settled) -> bool {
        let now = what_of(settled);
        // Acquire: what the claimer reads of the hold is of this state. Release: what it writes comes after BUSY for readers,
        // together with the Acquire of their second look.
        self.words(settled.cards).is_some_and(|words| {
            if planted::is(Bug::ChangeInTwoSteps) {
                let is = words[WHAT].load(Ordering::Acquire) == now;
                words[WHAT].store(now | BUSY, Ordering::Release);
                return is;
            }
            words[WHAT]
                .compare_exchange(now, now | BUSY, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        })
    }

    /// The word about cards of a row that the caller has claimed.
    pub fn claimed_place(&self, row: u64) -> u64 {
        let words = self.words(row).expect("a claimed row is there");
        words[CARDS].load(Ordering::Relaxed)
    }

    /// Ends a claim with a new state.
    pub fn change(&self, row: u64, cards: u64, to: Settled) {
        let words = self.words(row).expect("a claimed row is there");
        debug_assert!(words[WHAT].load(Ordering::Relaxed) & BUSY != 0);
        words[CARDS].store(cards, Ordering::Release);
        words[WHAT].store(what_of(to), Ordering::Release);
    }

    /// Every row that has been filled, and its id. One that is just being changed is as it was before.
    pub fn for_each(&self, mut visit: impl FnMut(u128, Settled)) {
        for row in 0..self.0.words() / ROW_WORDS {
            let Some((id, settled)) = self.read(row) else {
                continue;
            };
            visit(id, settled);
        }
    }

    /// The id and state of a row, if it has been filled.
    pub fn read(&self, row: u64) -> Option<(u128, Settled)> {
        let words = self.words(row)?;
        let what = words[WHAT].load(Ordering::Acquire) & !BUSY;
        // A row that was taken for a record that never came stays empty; no record has LSN 0.
        if what >> LSN_SHIFT == 0 {
            return None;
        }
        let [high, low] = [0, 1].map(|at: usize| words[at].load(Ordering::Relaxed));
        let id = u128::from(high) << 64 | u128::from(low);
        Some((id, Self::settled(words, row, what)))
    }

    pub fn memory_bytes(&self) -> u64 {
        self.0.memory_bytes()
    }
}
