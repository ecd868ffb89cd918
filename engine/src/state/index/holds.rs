//! Open holds, and orders that wait for stock: what is known of them beside their rows. docs/orders.md.

use crossbeam_queue::SegQueue;

use super::arena::Arena;
use super::{OrderIndex, OrderState, Settled};
use crate::state::record::{Credits, QUANTITY_LIMIT, Tried};
use crate::sync::atomic::{AtomicU64, Ordering};

/// What an order waits for, and in which line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    pub quantity: u16,
    pub priority: u8,
    /// What route tables can tell it by; 0: nothing.
    pub tag: u16,
    /// Of channels that were asked for it.
    pub tried: Tried,
}

impl Waits {
    /// Never 0: it waits for a card at least. A quantity takes 12 bits.
    fn bits(self) -> u64 {
        const { assert!(QUANTITY_LIMIT < 1 << 12, "a quantity takes 12 bits") };
        u64::from(self.quantity) | u64::from(self.priority & 3) << 12
    }

    fn of_bits(bits: u64, tag: u16) -> Option<Waits> {
        (bits != 0).then_some(Waits {
            quantity: bits as u16 & 0xfff,
            priority: (bits >> 12) as u8 & 3,
            tag,
            tried: Tried::default(),
        })
    }
}

/// In the place of what an order waits for: how many cards fewer it holds than it asked for.
const IS_PART: u64 = 1 << 15;
/// In the place of what an order waits for: the card that it holds stands in the place of the last two pools.
const IS_BOUND: u64 = 1 << 14;

/// What else the first word of a hold says: SKU, extensions, what it waits for, how many fewer it holds, whether it is bound.
pub(in crate::state) type What = (u32, u16, Option<Waits>, u16, bool);

/// Cards put by for an order, or an order that waits for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    pub sku: u32,
    /// As many cards; none while it waits.
    pub credits: Credits,
    /// Slab and slot of the one card that it holds, if it is bound: its claim bit is set.
    pub card: Option<(u32, u32)>,
    /// While the order waits.
    pub waits: Option<Waits>,
    /// How many cards fewer than the reserve asked for; none of one that waits or has waited.
    pub fewer: u16,
    /// The record that made it.
    pub reserved_lsn: u64,
    pub reserved_unix_ms: u64,
    /// What the reserve asked for; 0: an issue that waits.
    pub ttl_ms: u32,
    /// How often it has been extended, and what the last extension asked for.
    pub extensions: u16,
    pub extended_ttl_ms: u32,
    /// When it ends.
    pub ends_unix_ms: u64,
}

impl Hold {
    /// Cards that are held, or waited for.
    pub fn quantity(&self) -> u16 {
        match self.waits {
            Some(waits) => waits.quantity,
            None => self.credits.sum() as u16,
        }
    }

    /// Whether it is an issue that waits.
    pub fn is_issue(&self) -> bool {
        self.ttl_ms == 0
    }

    /// For how many cards it asked.
    pub fn asked(&self) -> u16 {
        self.quantity() + self.fewer
    }

    fn state(&self) -> OrderState {
        match self.waits {
            Some(_) => OrderState::Waiting,
            None => OrderState::Held,
        }
    }

    /// SKU, extensions and what it waits for, as a checkpoint keeps them, too.
    pub(in crate::state) fn what_word(&self) -> u64 {
        let bits = match (self.waits, self.fewer) {
            (Some(waits), _) => waits.bits(),
            (None, 0) if self.card.is_some() => IS_BOUND,
            (None, 0) => 0,
            (None, fewer) => IS_PART | u64::from(fewer),
        };
        // One that waits has no extensions.
        let more = self.waits.map_or(self.extensions, |waits| waits.tag);
        u64::from(self.sku) | u64::from(more) << 32 | bits << 48
    }

    /// From [`what_word`](Self::what_word).
    pub(in crate::state) fn of_what_word(word: u64) -> What {
        let (bits, more) = (word >> 48, (word >> 32) as u16);
        let (waits, fewer, bound) = if bits & IS_PART != 0 {
            (None, (bits & !IS_PART) as u16, false)
        } else if bits & IS_BOUND != 0 {
            (None, 0, true)
        } else {
            (Waits::of_bits(bits, more), 0, false)
        };
        let extensions = if waits.is_some() { 0 } else { more };
        (word as u32, extensions, waits, fewer, bound)
    }

    /// Its credits, and its card if it has one, as a checkpoint keeps them, too; of one that waits, how it was tried.
    pub(in crate::state) fn credit_words(&self) -> [u64; 2] {
        if let Some(waits) = self.waits {
            return waits.tried.words();
        }
        let [first, second] = self.credits.words();
        match self.card {
            Some((slab, slot)) => [first, u64::from(slab) | u64::from(slot) << 32],
            None => [first, second],
        }
    }

    /// From [`credit_words`](Self::credit_words).
    pub(in crate::state) fn of_credit_words(
        [first, second]: [u64; 2],
        waits: &mut Option<Waits>,
        bound: bool,
    ) -> (Credits, Option<(u32, u32)>) {
        if let Some(waits) = waits {
            waits.tried = Tried::of_words([first, second]);
            (Credits::default(), None)
        } else if bound {
            let card = (second as u32, (second >> 32) as u32);
            (Credits::from_words([first, 0]), Some(card))
        } else {
            (Credits::from_words([first, second]), None)
        }
    }

    /// When it was to end before any extension.
    pub fn first_end_unix_ms(&self) -> u64 {
        self.reserved_unix_ms + u64::from(self.ttl_ms)
    }

    /// The hold with one more extension. An extension never shortens.
    #[must_use]
    pub fn extended(self, unix_ms: u64, ttl_ms: u32) -> Hold {
        Hold {
            extensions: self.extensions + 1,
            extended_ttl_ms: ttl_ms,
            ends_unix_ms: self.ends_unix_ms.max(unix_ms + u64::from(ttl_ms)),
            ..self
        }
    }

    fn words(&self, row: u64) -> [u64; WORDS as usize] {
        let [first, second] = self.credit_words();
        [
            self.what_word(),
            first,
            second,
            self.reserved_lsn,
            self.reserved_unix_ms,
            u64::from(self.ttl_ms) | u64::from(self.extended_ttl_ms) << 32,
            self.ends_unix_ms,
            row + 1,
        ]
    }

    fn from_words(words: &[AtomicU64]) -> Hold {
        // Acquire: see `Rows::claim`.
        let word = |at: usize| words[at].load(Ordering::Acquire);
        let (sku, extensions, mut waits, fewer, bound) = Hold::of_what_word(word(0));
        let (credits, card) = Hold::of_credit_words([word(1), word(2)], &mut waits, bound);
        Hold {
            sku,
            extensions,
            waits,
            fewer,
            credits,
            card,
            reserved_lsn: word(3),
            reserved_unix_ms: word(4),
            ttl_ms: word(5) as u32,
            extended_ttl_ms: (word(5) >> 32) as u32,
            ends_unix_ms: word(6),
        }
    }
}

/// Words of a hold.
const WORDS: u64 = 8;
/// The row of the hold's order, plus one; 0: nobody's.
const ROW: usize = 7;

/// The holds of an index. One that has ended leaves its place to the next.
#[derive(Default)]
pub(super) struct Holds {
    words: Arena,
    /// Places that are free, so many at a time that threads rarely meet here.
    free: SegQueue<Vec<u64>>,
}

/// Places handed from thread to thread at a time.
const PLACES: usize = 64;

/// One thread's places for holds to come: those of holds that it has ended.
#[derive(Default)]
pub struct Places(Vec<u64>);

impl Holds {
    pub fn arena(&self) -> &Arena {
        &self.words
    }

    fn at(&self, place: u64) -> Option<&[AtomicU64]> {
        self.words.words_at(place, WORDS as usize)
    }

    fn put(&self, places: &mut Places, hold: &Hold, row: u64) -> u64 {
        if places.0.is_empty()
            && let Some(more) = self.free.pop()
        {
            places.0 = more;
        }
        let place = places.0.pop().unwrap_or_else(|| self.words.take(WORDS));
        self.set(place, hold, row);
        place
    }

    fn set(&self, place: u64, hold: &Hold, row: u64) {
        if self.at(place).is_none() {
            // Makes the chunk.
            self.words.set(place, [0; WORDS as usize]);
        }
        let words = self.at(place).expect("it was just made");
        for (word, value) in words.iter().zip(hold.words(row)) {
            // Release: see `Rows::claim`.
            word.store(value, Ordering::Release);
        }
    }

    fn give_back(&self, places: &mut Places, place: u64) {
        let words = self.at(place).expect("a hold that ends was there");
        words[ROW].store(0, Ordering::Release);
        places.0.push(place);
        if places.0.len() == 2 * PLACES {
            self.free.push(places.0.split_off(PLACES));
        }
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        self.words.memory_bytes()
    }
}

/// What the row of an order that got nothing says besides its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReleasedRow {
    pub sku: u32,
    /// It was to be issued.
    pub was_issue: bool,
}

impl ReleasedRow {
    fn word(self) -> u64 {
        u64::from(self.sku) | u64::from(self.was_issue) << 32
    }

    fn of_word(word: u64) -> ReleasedRow {
        ReleasedRow {
            sku: word as u32,
            was_issue: word >> 32 & 1 != 0,
        }
    }
}

/// A held, waiting or expired order that nobody else may change until it is changed or let go.
#[derive(Clone, Copy, Debug)]
#[must_use = "a claimed order must be changed or let go in the same turn"]
pub struct Claimed {
    /// As it was.
    pub settled: Settled,
}

impl Claimed {
    /// Its row.
    pub fn row(&self) -> u64 {
        self.settled.cards
    }
}

impl OrderIndex {
    /// Fills a row of the caller's, to be published: an order that holds cards, or waits for some.
    pub fn put_held(
        &self,
        places: &mut Places,
        row: u64,
        id: u128,
        lsn: u64,
        hold: &Hold,
    ) -> Settled {
        let settled = Settled {
            lsn,
            quantity: hold.quantity(),
            state: hold.state(),
            cards: row,
        };
        let place = self.holds.put(places, hold, row);
        self.rows.put(row, id, place, settled);
        settled
    }

    /// Fills a row of the caller's, to be published: an order that got nothing.
    pub fn put_released(
        &self,
        row: u64,
        id: u128,
        what: ReleasedRow,
        released: Settled,
    ) -> Settled {
        let settled = Settled {
            cards: row,
            ..released
        };
        self.rows.put(row, id, what.word(), settled);
        settled
    }

    /// The hold of a held or waiting order; `None`: the order has changed since.
    pub fn hold(&self, settled: Settled) -> Option<Hold> {
        let place = self.rows.place(settled)?;
        let hold = Hold::from_words(self.holds.at(place)?);
        self.rows.is_still(settled).then_some(hold)
    }

    /// What is said of an order that got nothing; `None`: it has changed since.
    pub fn released(&self, settled: Settled) -> Option<ReleasedRow> {
        self.rows.place(settled).map(ReleasedRow::of_word)
    }

    /// Claims a held, waiting or expired order for a change, if it is still what was seen.
    pub fn claim_order(&self, settled: Settled) -> Option<Claimed> {
        self.rows.claim(settled).then_some(Claimed { settled })
    }

    /// Gives a claimed order up as it was.
    pub fn let_go(&self, claimed: Claimed) {
        let place = self.rows.claimed_place(claimed.row());
        self.rows.change(claimed.row(), place, claimed.settled);
    }

    /// Changes the hold of a claimed order; one that waited may hold cards now.
    pub fn change_hold(&self, claimed: Claimed, lsn: u64, hold: &Hold) -> Settled {
        let row = claimed.row();
        let place = self.rows.claimed_place(row);
        self.holds.set(place, hold, row);
        let settled = Settled {
            lsn,
            state: hold.state(),
            ..claimed.settled
        };
        self.rows.change(row, place, settled);
        settled
    }

    /// Notes how a claimed order that waits was tried; it waits on in its place. Whoever reads it meanwhile may read some of what
    /// was noted before: nothing is dealt by that.
    pub fn note_tried(&self, claimed: Claimed, hold: &Hold) {
        self.change_hold(claimed, claimed.settled.lsn, hold);
    }

    /// Ends a claimed order with cards; its hold, if it had one, is no more.
    pub fn end_with(
        &self,
        places: &mut Places,
        claimed: Claimed,
        lsn: u64,
        state: OrderState,
        cards: impl ExactSizeIterator<Item = (u32, u32)>,
    ) -> Settled {
        let settled = Settled {
            lsn,
            quantity: cards.len() as u16,
            state,
            cards: self.keep_cards(cards),
        };
        self.end(places, claimed, settled.cards, settled)
    }

    /// Ends a claimed order with nothing; its hold is no more.
    pub fn end_without(
        &self,
        places: &mut Places,
        claimed: Claimed,
        lsn: u64,
        state: OrderState,
        what: ReleasedRow,
    ) -> Settled {
        let settled = Settled {
            lsn,
            state,
            ..claimed.settled
        };
        self.end(places, claimed, what.word(), settled)
    }

    fn end(&self, places: &mut Places, claimed: Claimed, word: u64, settled: Settled) -> Settled {
        let row = claimed.row();
        let place = self.rows.claimed_place(row);
        self.rows.change(row, word, settled);
        if claimed.settled.state.has_hold() {
            // Behind the change: nobody who still reads the old row believes what comes here next.
            self.holds.give_back(places, place);
        }
        settled
    }

    /// About how many holds are open and orders waiting, cheaply: places that threads keep for themselves count as open.
    pub fn held_hint(&self) -> usize {
        let places = (self.holds.words.words() / WORDS) as usize;
        places.saturating_sub(self.holds.free.len() * PLACES)
    }

    /// Open holds and waiting orders: the id of each, how it stands, and its hold. Exact only when nobody changes any.
    pub fn open_holds(&self) -> impl Iterator<Item = (u128, Settled, Hold)> + '_ {
        (0..self.holds.words.words())
            .step_by(WORDS as usize)
            .filter_map(|place| {
                let words = self.holds.at(place)?;
                let row = words[ROW].load(Ordering::Acquire).checked_sub(1)?;
                let (id, settled) = self.rows.read(row)?;
                let hold = Hold::from_words(words);
                settled.state.has_hold().then_some((id, settled, hold))
            })
    }

    /// The order of a row, if there is one.
    pub fn order_of(&self, row: u64) -> Option<(u128, Settled)> {
        self.rows.read(row)
    }
}
