//! The order index: which orders there are and what they got. Lock-free, insert-only, grows without a pause.
//!
//! An order id is for ever (DESIGN, rule 6), so nothing is ever removed. Any dealer may deal any order, so the index is
//! shared; it must let exactly one of two dealers that hold the same id go on.
//!
//! # Shape
//!
//! What is kept of an order is a *row* of 32 bytes. Rows are written one behind the other as orders are dealt and never
//! move. They are found through tables of one-word slots: shards by hash; a shard is one table with linear probing, or,
//! while it grows, two:
//!
//! ```text
//! shard ──► table (new) ──older──► table (frozen) ──older──► none
//!             slot ──► row
//! ```
//!
//! So a new order costs one line of a table that is not at hand, and its row is written where the last one was; a growth
//! moves words, not orders.
//!
//! A slot is the only word that is fought over:
//!
//! ```text
//! EMPTY ──claim──► CLAIMED(tag of the id) ──settle──► SETTLED(tag, row)
//!   └────freeze──► FROZEN      └────give up──► GIVEN UP
//! ```
//!
//! Only who has claimed several ids that go together, and cannot have another of them, gives claims up.
//!
//! # The interleavings that matter
//!
//! * **Two claims of one id in one table** probe the same slots from the same start, so they meet at the first EMPTY
//!   one: one `compare_exchange` wins, the loser sees CLAIMED with its own tag and reports [`Claim::InFlight`]. So does
//!   another id with the same tag, which no harm comes of: it comes back in the next turn.
//! * **Two claims of one id, one still in the old table, one already in the new.** Whoever goes on to the new table has
//!   first *frozen* the EMPTY slot that ended its probe of the old one. If the other claims that slot first, the
//!   freeze fails and finds the claim; if the freeze is first, the other's claim fails and it goes to the new table too.
//! * **A reader while slots move.** `older` is loaded before the new table is probed; if it is already gone, all its
//!   slots are in the new table; if not, they are still in the old one, which only ever loses its link.
//!
//! * **A claim that is given up.** Its slot never is EMPTY again, nor anybody's: as before, the slots up to the first EMPTY one
//!   of a search only ever become more. So whoever had seen the slot EMPTY fails to claim it, or to freeze it, and looks
//!   again; whoever comes later passes it and claims the next EMPTY one, if need be in the newer table; and nobody can have
//!   claimed a slot behind it while the claim stood, for he would have met the claim first. Two who claim the same id
//!   thereafter meet at the same slot again. When the table is moved, such slots stay behind.
//!
//! CLAIMED lasts for a part of one dealer turn (from the claim until its records have their LSNs). A table with CLAIMED
//! slots is not moved yet; the next insert into the shard tries again. Should the new table fill up before that, a
//! claim answers [`Claim::InFlight`]: the order comes back in the next turn, when this turn's claims are settled.
//!
//! Invariant: `used ≤ limit < slots`, also while the older table's slots (at most its own `limit`) are still to
//! come. So a probe always ends at a slot that is EMPTY or FROZEN.

mod arena;
mod holds;
mod room;
mod table;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};

use crate::sync::atomic::Ordering;
use crate::sync::hint;
use arena::Arena;
use holds::Holds;
pub use holds::{Claimed, Hold, Places, ReleasedRow, Waits};
use room::Room;
use table::{LOAD_PERCENT, Probe, Rows, Table, tag_of};

/// What has become of an order: docs/orders.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum OrderState {
    /// It got its cards at once.
    Issued = 0,
    /// It holds cards.
    Held = 1,
    /// It got all the cards that it held.
    Committed = 2,
    /// It got a part of the cards that it held.
    CommittedPart = 3,
    Cancelled = 4,
    Expired = 5,
    /// It waits for stock.
    Waiting = 6,
    /// It got fewer cards than it asked for, at once.
    IssuedPart = 7,
}

impl OrderState {
    /// From the low three bits of a row's word.
    fn of_bits(bits: u64) -> OrderState {
        match bits & 7 {
            0 => OrderState::Issued,
            1 => OrderState::Held,
            2 => OrderState::Committed,
            3 => OrderState::CommittedPart,
            4 => OrderState::Cancelled,
            5 => OrderState::Expired,
            6 => OrderState::Waiting,
            _ => OrderState::IssuedPart,
        }
    }

    /// Whether there is a [`Hold`] of the order.
    pub fn has_hold(self) -> bool {
        matches!(self, OrderState::Held | OrderState::Waiting)
    }

    /// Whether the order has cards.
    pub fn has_cards(self) -> bool {
        matches!(
            self,
            OrderState::Issued
                | OrderState::IssuedPart
                | OrderState::Committed
                | OrderState::CommittedPart
        )
    }
}

/// What an order got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Of the record that made it so.
    pub lsn: u64,
    /// Number of cards that it has, holds, waits for, or has held or waited for.
    pub quantity: u16,
    pub state: OrderState,
    /// One card: slab and slot. More, or fewer than were asked for: place in the arena of cards. None: the order's row.
    cards: u64,
}

impl Settled {
    /// The row of an order without cards.
    pub fn row(&self) -> u64 {
        debug_assert!(!self.state.has_cards());
        self.cards
    }

    /// An order that got nothing, to be put into the index.
    pub fn released(lsn: u64, quantity: u16, state: OrderState) -> Settled {
        Settled {
            lsn,
            quantity,
            state,
            cards: 0,
        }
    }
}

/// What a look at the index found.
pub enum Look {
    /// Nothing; with the slot that a claim would take, if that is certain.
    Absent(Option<Place>),
    /// Claimed and not settled yet.
    InFlight,
    /// Dealt before.
    Known(Settled),
}

/// What came of trying to claim an id.
pub enum Claim {
    /// The id is ours: settle it in this turn.
    Ours(Place),
    /// Somebody else has just claimed it and not settled it yet: ask again soon.
    InFlight,
    /// It has been dealt before.
    Known(Settled),
}

/// A claimed slot, to be settled or given up. Its table is the newest of its shard or the one before: a table with claimed slots
/// is not moved.
#[must_use = "a claimed slot must be settled or given up in the same turn"]
#[derive(Clone, Copy)]
pub struct Place {
    shard: u32,
    generation: u32,
    index: u32,
}

/// An id's hash, split into what each level uses.
#[derive(Clone, Copy)]
pub struct Hashed {
    id: u128,
    shard: usize,
    tag: u64,
}

/// The index of one store.
pub struct OrderIndex {
    shards: Box<[Arc<ArcSwap<Table>>]>,
    rows: Rows,
    /// Cards of orders that have several.
    cards: Arena,
    holds: Holds,
    room: Room,
    keys: (u64, u64),
}

/// How an index spreads ids.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// Keys the hash, so that callers who choose ids cannot choose collisions.
    pub seed: [u64; 2],
    /// How many tables that grow by themselves; a power of two.
    pub shards: usize,
}

impl Spread {
    /// What a store is served with, under a seed.
    pub fn seeded(seed: [u64; 2]) -> Spread {
        Spread {
            seed,
            shards: SHARDS,
        }
    }
}

/// Shards of the index: each grows by itself, so no growth is long and not all grow at once.
#[cfg(not(any(croupier_loom, croupier_shuttle)))]
pub const SHARDS: usize = 1024;
#[cfg(any(croupier_loom, croupier_shuttle))]
pub const SHARDS: usize = 1;
/// Slots a shard begins with; each a few more than the one before, so that they do not all grow at once.
#[cfg(not(any(croupier_loom, croupier_shuttle)))]
const SHARD_SLOTS_MIN: usize = 32;
/// Under a checker a table grows at its fourth order.
#[cfg(any(croupier_loom, croupier_shuttle))]
const SHARD_SLOTS_MIN: usize = 4;
/// How much larger the next table is. Less saves memory, more saves moving.
const GROWTH_PERCENT: usize = 80;

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

impl OrderIndex {
    /// An empty index with room for about `orders` without growing.
    pub fn new(orders: u64, spread: Spread) -> OrderIndex {
        let Spread { seed, shards } = spread;
        assert!(shards.is_power_of_two(), "a hash is masked");
        // A few more than the mean, because hashes do not spread evenly.
        let mean = orders as usize / shards;
        let least = (mean * 103 / LOAD_PERCENT).max(SHARD_SLOTS_MIN);
        let capacity = |shard| least + least * GROWTH_PERCENT / 100 * shard / shards;
        OrderIndex {
            shards: (0..shards)
                .map(|shard| Arc::new(ArcSwap::new(Table::new(capacity(shard), None))))
                .collect(),
            rows: Rows::default(),
            cards: Arena::default(),
            holds: Holds::default(),
            room: Room::default(),
            keys: (seed[0] | 1, seed[1] | 1),
        }
    }

    /// Another number for every number, in no order that a caller could know. Not for the order's way: numbers that follow each
    /// other must not give an order one can see, which takes a better hash than an index needs.
    pub fn mixed(&self, number: u64) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.keys, number).hash(&mut hasher);
        hasher.finish()
    }

    /// Hashes an id once; all else takes the result.
    pub fn hash(&self, id: u128) -> Hashed {
        let (low, high) = (id as u64, (id >> 64) as u64);
        let mixed = fold(low ^ self.keys.0, high ^ self.keys.1);
        let spread = fold(
            mixed ^ self.keys.1,
            0x9e37_79b9_7f4a_7c15 ^ low.rotate_left(32),
        );
        let tag = tag_of(spread);
        // The lowest bits; the highest are the tag.
        let shard = spread as usize & (self.shards.len() - 1);
        Hashed { id, shard, tag }
    }

    /// What is known of an id, for those who ask rarely.
    pub fn look(&self, hashed: Hashed) -> Look {
        find(&self.rows, &self.shards[hashed.shard].load(), hashed)
    }

    /// What is known of an id. `None` also while it is in flight.
    pub fn get(&self, hashed: Hashed) -> Option<Settled> {
        match self.look(hashed) {
            Look::Known(settled) => Some(settled),
            Look::Absent(_) | Look::InFlight => None,
        }
    }

    /// Claims an id in the shard whose newest table is `table`; `None`: look at the shard again. Lock-free: every retry
    /// means that another thread got on.
    fn claim_in(&self, table: &Arc<Table>, hashed: Hashed) -> Option<Claim> {
        loop {
            // Before the probe: see the module, third interleaving.
            if let Some(older) = table.older() {
                match older.freeze_probe(&self.rows, hashed) {
                    Probe::Known(settled) => return Some(Claim::Known(settled)),
                    Probe::InFlight => return Some(Claim::InFlight),
                    Probe::Vacant(_) | Probe::Frozen => {}
                }
                table.try_move(&older);
            }
            let index = match table.probe(&self.rows, hashed) {
                Probe::Known(settled) => return Some(Claim::Known(settled)),
                Probe::InFlight => return Some(Claim::InFlight),
                Probe::Frozen => return None,
                Probe::Vacant(index) => index,
            };
            if !table.reserve(!table.is_alone()) {
                return if grow(&self.shards[hashed.shard], table) {
                    None
                } else {
                    Some(Claim::InFlight)
                };
            }
            if table.claim(index, hashed.tag) {
                return Some(Claim::Ours(Place {
                    shard: hashed.shard as u32,
                    generation: table.generation,
                    index: index as u32,
                }));
            }
            table.give_back();
            hint::spin_loop();
        }
    }

    /// Rows taken so far. The last of them may not be filled yet.
    pub fn rows_taken(&self) -> u64 {
        self.rows.taken()
    }

    /// Takes rows for `orders` orders whose ids are claimed and whose records have their LSNs; returns the first.
    pub fn take_rows(&self, orders: u64) -> u64 {
        self.rows.take(orders)
    }

    /// Fills a row of the caller's, to be published: one card, by slab and slot.
    pub fn put_one(&self, row: u64, id: u128, lsn: u64, card: (u32, u32)) -> Settled {
        let settled = Settled {
            lsn,
            quantity: 1,
            state: OrderState::Issued,
            cards: card_word(card),
        };
        self.rows.put(row, id, settled.cards, settled);
        settled
    }

    /// Fills a row of the caller's, to be published: several cards, in the order they were dealt, or one that was committed.
    pub fn put_many(
        &self,
        row: u64,
        id: u128,
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
        self.rows.put(row, id, settled.cards, settled);
        settled
    }

    /// Fills a row of the caller's, to be published: an order that asked for more cards than there were.
    pub fn put_part(
        &self,
        row: u64,
        id: u128,
        lsn: u64,
        asked: u16,
        cards: impl ExactSizeIterator<Item = (u32, u32)>,
    ) -> Settled {
        let quantity = cards.len();
        let at = self.cards.take(quantity as u64 + 1);
        self.cards.put(at, cards.map(card_word));
        self.cards
            .put(at + quantity as u64, [asked.into()].into_iter());
        let settled = Settled {
            lsn,
            quantity: quantity as u16,
            state: OrderState::IssuedPart,
            cards: at,
        };
        self.rows.put(row, id, settled.cards, settled);
        settled
    }

    /// For how many cards an order asked that was issued.
    pub fn asked(&self, settled: Settled) -> u16 {
        if settled.state != OrderState::IssuedPart {
            return settled.quantity;
        }
        let [asked] = self.cards.get(settled.cards + u64::from(settled.quantity));
        asked as u16
    }

    /// Keeps an order's cards; what stands for them.
    fn keep_cards(&self, mut cards: impl ExactSizeIterator<Item = (u32, u32)>) -> u64 {
        if cards.len() == 1 {
            return cards.next().map_or(0, card_word);
        }
        let at = self.cards.take(cards.len() as u64);
        self.cards.put(at, cards.map(card_word));
        at
    }

    /// The cards of an order, in the order they were dealt: slab and slot. None of one that only holds some.
    pub fn cards(&self, settled: Settled) -> impl ExactSizeIterator<Item = (u32, u32)> + '_ {
        let many = settled.quantity > 1 || settled.state == OrderState::IssuedPart;
        let quantity = if settled.state.has_cards() {
            settled.quantity
        } else {
            0
        };
        (0..usize::from(quantity)).map(move |nth| {
            let card = if many {
                let [card] = self.cards.get(settled.cards + nth as u64);
                card
            } else {
                settled.cards
            };
            ((card >> 32) as u32, card as u32)
        })
    }

    /// Orders known. Exact only when nobody inserts.
    pub fn len(&self) -> u64 {
        let mut count = 0;
        self.for_each(|_, _| count += 1);
        count
    }

    /// About how many orders there are, cheaply.
    pub fn len_hint(&self) -> u64 {
        self.shards
            .iter()
            .map(|shard| shard.load().orders() as u64)
            .sum()
    }

    /// Nothing known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every order, as they came. Exact only when nobody inserts.
    pub fn for_each(&self, visit: impl FnMut(u128, Settled)) {
        self.rows.for_each(visit);
    }

    /// Bytes of memory the index holds, for reports.
    pub fn memory_bytes(&self) -> u64 {
        let tables: usize = self
            .shards
            .iter()
            .map(|shard| {
                let table = shard.load();
                let older = table.older().map_or(0, |older| older.slots.len());
                (table.slots.len() + older) * size_of::<u64>()
            })
            .sum();
        tables as u64
            + self.rows.memory_bytes()
            + self.cards.memory_bytes()
            + self.holds.memory_bytes()
    }
}

/// A card as one word.
fn card_word((slab, slot): (u32, u32)) -> u64 {
    u64::from(slab) << 32 | u64::from(slot)
}

/// Puts a larger table in front; the chain is at most two long, so false while the one before cannot be moved yet.
fn grow(shard: &ArcSwap<Table>, table: &Arc<Table>) -> bool {
    if let Some(older) = table.older() {
        table.try_move(&older);
        // Whether that made room or only the link went: the caller looks again.
        return table.is_alone();
    }
    // Only one of several growers wins; the others find its table in the next round.
    shard.compare_and_swap(table, larger(table));
    true
}

/// The table that follows one that is alone.
fn larger(table: &Arc<Table>) -> Arc<Table> {
    let slots = table.slots.len();
    let more = (slots * GROWTH_PERCENT / 100).max(8);
    Table::new(slots + more, Some(table.clone()))
}

/// One thread's view of the index: it keeps the newest table of every shard at hand, so that a look-up costs one load to
/// see that it is still the newest, and no shared counter is touched.
pub struct IndexView {
    index: Arc<OrderIndex>,
    shards: Vec<Cache<Arc<ArcSwap<Table>>, Arc<Table>>>,
    /// For holds to come.
    pub places: Places,
}

impl IndexView {
    pub fn new(index: &Arc<OrderIndex>) -> IndexView {
        let shards = index
            .shards
            .iter()
            .map(|shard| Cache::new(shard.clone()))
            .collect();
        IndexView {
            index: index.clone(),
            shards,
            places: Places::default(),
        }
    }

    /// Loads the first cache line that each look-up will need, so that a batch of look-ups waits for memory once.
    pub fn touch<'h>(&mut self, batch: impl IntoIterator<Item = &'h Hashed>) {
        let mut any = 0;
        for hashed in batch {
            let table = self.shards[hashed.shard].load();
            // Relaxed: the value does not matter, only that the line comes.
            any ^= table.slots[table.start(hashed.tag)].load(Ordering::Relaxed);
        }
        std::hint::black_box(any);
    }

    /// What is known of the id.
    pub fn look(&mut self, hashed: Hashed) -> Look {
        find(&self.index.rows, self.shards[hashed.shard].load(), hashed)
    }

    /// Claims an id, or says who has it. `seen` is the place that a look before has found.
    pub fn claim(&mut self, hashed: Hashed, seen: Option<Place>) -> Claim {
        if let Some(place) = seen
            && claim_seen(self.shards[hashed.shard].load(), hashed, place)
        {
            return Claim::Ours(place);
        }
        loop {
            if let Some(claim) = self
                .index
                .claim_in(self.shards[hashed.shard].load(), hashed)
            {
                return claim;
            }
        }
    }

    /// Makes a claimed id known: its row has been filled.
    pub fn publish(&mut self, place: Place, row: u64) {
        let table: &Table = self.shards[place.shard as usize].load();
        if table.generation == place.generation {
            return table.settle(place.index as usize, row);
        }
        older_of(table, place).settle(place.index as usize, row);
    }

    /// Gives up a claim: the id is as free as before. See the module, last interleaving.
    pub fn give_up(&mut self, place: Place) {
        let table: &Table = self.shards[place.shard as usize].load();
        if table.generation == place.generation {
            return table.give_up(place.index as usize);
        }
        older_of(table, place).give_up(place.index as usize);
    }
}

/// The table of a claimed slot, which is not the newest.
fn older_of(table: &Table, place: Place) -> Arc<Table> {
    table
        .older()
        .filter(|older| older.generation == place.generation)
        .expect("a table with a claimed slot stays linked")
}

/// Takes the slot that ended an earlier search for the id, if it is still empty. Whoever had claimed the id since would
/// have taken just that slot; whoever had begun a newer table would have linked this one as its older.
fn claim_seen(table: &Table, hashed: Hashed, place: Place) -> bool {
    if table.generation != place.generation || !table.reserve(false) {
        return false;
    }
    let ours = table.claim(place.index as usize, hashed.tag);
    if !ours {
        table.give_back();
    }
    ours
}

/// Looks an id up in a shard whose newest table is `table`.
#[inline]
fn find(rows: &Rows, table: &Table, hashed: Hashed) -> Look {
    // Before the probe: see the module, third interleaving.
    if !table.is_alone() {
        return find_in_both(rows, table, hashed);
    }
    match table.probe(rows, hashed) {
        Probe::Known(settled) => Look::Known(settled),
        Probe::InFlight => Look::InFlight,
        Probe::Vacant(index) => Look::Absent(Some(Place {
            shard: hashed.shard as u32,
            generation: table.generation,
            index: index as u32,
        })),
        Probe::Frozen => Look::Absent(None),
    }
}

/// As [`find`], where an older table may have slots that are not in `table` yet.
#[cold]
fn find_in_both(rows: &Rows, table: &Table, hashed: Hashed) -> Look {
    let older = table.older();
    for table in [Some(table), older.as_deref()].into_iter().flatten() {
        match table.probe(rows, hashed) {
            Probe::Known(settled) => return Look::Known(settled),
            Probe::InFlight => return Look::InFlight,
            Probe::Vacant(_) | Probe::Frozen => {}
        }
    }
    Look::Absent(None)
}

#[cfg(all(test, not(any(croupier_loom, croupier_shuttle))))]
mod tests;

#[cfg(all(test, croupier_loom))]
mod model;
