//! The order index: which orders there are and what they got. Lock-free, insert-only, grows without a pause.
//!
//! An order id is for ever (DESIGN, rule 6), so nothing is ever removed. Any dealer may deal any order, so the index is
//! shared; it must let exactly one of two dealers that hold the same id go on.
//!
//! # Shape
//!
//! shards by hash; a shard is one table of 32-byte entries with linear probing, or, while it grows, two:
//!
//! ```text
//! shard ──► table (new) ──older──► table (frozen) ──older──► none
//! ```
//!
//! An entry's `state` word is the only one that is fought over:
//!
//! ```text
//! EMPTY ──claim──► CLAIMED(tag of the id) ──settle──► SETTLED(lsn, cards known)
//!   └────freeze──► FROZEN
//! ```
//!
//! # The interleavings that matter
//!
//! * **Two claims of one id in one table** probe the same entries from the same start, so they meet at the first EMPTY
//!   one: one `compare_exchange` wins, the loser sees CLAIMED with its own tag and reports [`Claim::InFlight`].
//! * **Two claims of one id, one still in the old table, one already in the new.** Whoever goes on to the new table has
//!   first *frozen* the EMPTY entry that ended its probe of the old one. If the other claims that entry first, the
//!   freeze fails and finds the claim; if the freeze is first, the other's claim fails and it goes to the new table too.
//! * **A reader while entries move.** `older` is loaded before the new table is probed; if it is already gone, all its
//!   entries are in the new table; if not, they are still in the old one, which only ever loses its link.
//!
//! CLAIMED lasts for a part of one dealer turn (from the claim until its records have their LSNs). A table with CLAIMED
//! entries is not moved yet; the next insert into the shard tries again. Should the new table fill up before that, a
//! claim answers [`Claim::InFlight`]: the order comes back in the next turn, when this turn's claims are settled.
//!
//! Invariant: `used ≤ limit < entries`, also while the older table's entries (at most its own `limit`) are still to
//! come. So a probe always ends at an entry that is EMPTY or FROZEN.

mod arena;

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption, Cache};

use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sync::hint;
use arena::Arena;

const EMPTY: u64 = 0;
const FROZEN: u64 = 1;
/// Low two bits of a claimed entry; the rest is the tag.
const CLAIMED: u64 = 2;
/// Low two bits of a settled entry; then 14 bits of quantity, then 48 bits of LSN.
const SETTLED: u64 = 3;
const KIND_BITS: u64 = 3;
const LSN_BITS_MAX: u64 = 1 << 48;

/// What an order got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    pub lsn: u64,
    /// Number of cards.
    pub quantity: u16,
    cards: u64,
}

/// What a look at the index found.
pub enum Look {
    /// Nothing; with the entry that a claim would take, if that is certain.
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

/// A claimed entry, to be settled. Its table is the newest of its shard or the one before: a table with claimed entries
/// is not moved.
#[must_use = "a claimed entry must be settled in the same turn"]
#[derive(Clone, Copy)]
pub struct Place {
    shard: u32,
    generation: u32,
    index: usize,
}

#[derive(Default)]
struct Entry {
    id_high: AtomicU64,
    id_low: AtomicU64,
    /// One card: slab and slot. More: place in the arena.
    cards: AtomicU64,
    state: AtomicU64,
}

struct Table {
    entries: Box<[Entry]>,
    /// Counts the tables of a shard.
    generation: u32,
    limit: usize,
    /// Entries that moving the older table may still bring.
    room_for_older: usize,
    /// The older table's entries are all here, and `older` is none. Spares every probe a look at `older`.
    alone: AtomicBool,
    older: ArcSwapOption<Table>,
    /// Entries taken so far, reserved before they are claimed. At `limit` the table is full and the next one is made.
    used: Lonely,
}

/// On lines of its own: every insert writes it, and every look-up reads its neighbours.
#[derive(Default)]
#[repr(align(128))]
struct Lonely(AtomicUsize);

impl Table {
    fn new(capacity: usize, older: Option<Arc<Table>>) -> Arc<Table> {
        let limit = capacity * LOAD_PERCENT / 100;
        let room_for_older = older.as_ref().map_or(0, |older| older.limit);
        assert!(room_for_older < limit, "a newer table is larger");
        Arc::new(Table {
            entries: (0..capacity).map(|_| Entry::default()).collect(),
            generation: older.as_ref().map_or(0, |older| older.generation + 1),
            limit,
            room_for_older,
            alone: AtomicBool::new(older.is_none()),
            older: ArcSwapOption::new(older),
            used: Lonely::default(),
        })
    }

    /// The table before this one, while its entries are not all here.
    fn older(&self) -> Option<Arc<Table>> {
        // Acquire pairs with the Release of unlink: whoever skips the older table finds its entries here.
        if self.alone.load(Ordering::Acquire) {
            None
        } else {
            self.older.load_full()
        }
    }

    fn unlink(&self, older: &Arc<Table>) {
        self.older.compare_and_swap(older, None);
        // Release pairs with older().
        self.alone.store(true, Ordering::Release);
    }

    /// Multiply-shift: any capacity, and order of hashes is order of entries, so that moving is nearly sequential.
    fn start(&self, spread: u64) -> usize {
        ((u128::from(spread) * self.entries.len() as u128) >> 64) as usize
    }

    /// Takes one of the entries below the limit; while an older table is linked, its entries have theirs already.
    fn reserve(&self, older_linked: bool) -> bool {
        let kept = if older_linked {
            self.limit - self.room_for_older
        } else {
            self.limit
        };
        // Relaxed: a count, not a guard.
        if self.used.0.fetch_add(1, Ordering::Relaxed) < kept {
            return true;
        }
        self.used.0.fetch_sub(1, Ordering::Relaxed);
        false
    }

    fn after(&self, index: usize) -> usize {
        if index + 1 == self.entries.len() {
            0
        } else {
            index + 1
        }
    }
}

/// What a probe of one table found.
enum Probe {
    /// The first entry that ends the search: EMPTY when it was looked at.
    Vacant(usize),
    /// The search ends at a FROZEN entry: the id can only be in a newer table.
    Frozen,
    InFlight,
    Known(Settled),
}

/// An id's hash, split into what each level uses.
#[derive(Clone, Copy)]
pub struct Hashed {
    id: u128,
    shard: usize,
    spread: u64,
    tag: u64,
}

/// The index of one store.
pub struct OrderIndex {
    shards: Box<[Arc<ArcSwap<Table>>]>,
    arena: Arena,
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
pub const SHARDS: usize = 4096;
#[cfg(any(croupier_loom, croupier_shuttle))]
pub const SHARDS: usize = 1;
/// Entries a shard begins with; each a few more than the one before, so that they do not all grow at once.
#[cfg(not(any(croupier_loom, croupier_shuttle)))]
const SHARD_ENTRIES_MIN: usize = 32;
/// Under a checker a table grows at its fourth order.
#[cfg(any(croupier_loom, croupier_shuttle))]
const SHARD_ENTRIES_MIN: usize = 4;
/// How full a table gets. Fuller saves memory, and makes the search for an id that is not there longer.
const LOAD_PERCENT: usize = 84;
/// How much larger the next table is. Less saves memory, more saves moving.
const GROWTH_PERCENT: usize = 40;

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

impl OrderIndex {
    /// An empty index with room for about `orders` without growing.
    pub fn new(orders: u64, spread: Spread) -> OrderIndex {
        let Spread { seed, shards } = spread;
        assert!(shards.is_power_of_two(), "a hash is masked");
        let least = (orders as usize / shards * 5 / 4).max(SHARD_ENTRIES_MIN);
        let capacity = |shard| least + least * GROWTH_PERCENT / 100 * shard / shards;
        OrderIndex {
            shards: (0..shards)
                .map(|shard| Arc::new(ArcSwap::new(Table::new(capacity(shard), None))))
                .collect(),
            arena: Arena::default(),
            keys: (seed[0] | 1, seed[1] | 1),
        }
    }

    /// Hashes an id once; all else takes the result.
    pub fn hash(&self, id: u128) -> Hashed {
        let (low, high) = (id as u64, (id >> 64) as u64);
        let mixed = fold(low ^ self.keys.0, high ^ self.keys.1);
        let spread = fold(
            mixed ^ self.keys.1,
            0x9e37_79b9_7f4a_7c15 ^ low.rotate_left(32),
        );
        let tag = fold(spread ^ self.keys.0, 0xd6e8_feb8_6659_fd93 ^ high);
        Hashed {
            id,
            shard: (tag >> 48) as usize & (self.shards.len() - 1),
            spread,
            tag: tag << 2,
        }
    }

    /// What is known of an id. `None` also while it is in flight.
    pub fn get(&self, hashed: Hashed) -> Option<Settled> {
        match find(&self.shards[hashed.shard].load(), hashed) {
            Look::Known(settled) => Some(settled),
            Look::Absent(_) | Look::InFlight => None,
        }
    }

    /// Claims an id, or says who has it.
    pub fn claim(&self, hashed: Hashed) -> Claim {
        loop {
            if let Some(claim) = self.claim_in(&self.shards[hashed.shard].load(), hashed) {
                return claim;
            }
        }
    }

    /// Claims an id in the shard whose newest table is `table`; `None`: look at the shard again. Lock-free: every retry
    /// means that another thread got on.
    fn claim_in(&self, table: &Arc<Table>, hashed: Hashed) -> Option<Claim> {
        loop {
            // Before the probe: see the module, third interleaving.
            if let Some(older) = table.older() {
                match freeze_probe(&older, hashed) {
                    Probe::Known(settled) => return Some(Claim::Known(settled)),
                    Probe::InFlight => return Some(Claim::InFlight),
                    Probe::Vacant(_) | Probe::Frozen => {}
                }
                self.try_move(table, &older);
            }
            let index = match probe(table, hashed) {
                Probe::Known(settled) => return Some(Claim::Known(settled)),
                Probe::InFlight => return Some(Claim::InFlight),
                Probe::Frozen => return None,
                Probe::Vacant(index) => index,
            };
            if !table.reserve(!table.alone.load(Ordering::Acquire)) {
                return if self.grow(&self.shards[hashed.shard], table) {
                    None
                } else {
                    Some(Claim::InFlight)
                };
            }
            // Relaxed: nothing is published by a claim; settle publishes.
            let state = &table.entries[index].state;
            if state
                .compare_exchange(
                    EMPTY,
                    hashed.tag | CLAIMED,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok()
            {
                let place = Place {
                    shard: hashed.shard as u32,
                    generation: table.generation,
                    index,
                };
                return Some(Claim::Ours(place));
            }
            table.used.0.fetch_sub(1, Ordering::Relaxed);
            hint::spin_loop();
        }
    }

    /// Puts a larger table in front; the chain is at most two long, so false while the one before cannot be moved yet.
    fn grow(&self, shard: &ArcSwap<Table>, table: &Arc<Table>) -> bool {
        if let Some(older) = table.older() {
            self.try_move(table, &older);
            // Whether that made room or only the link went: the caller looks again.
            return table.alone.load(Ordering::Acquire);
        }
        let entries = table.entries.len();
        let newer = Table::new(
            entries + (entries * GROWTH_PERCENT / 100).max(8),
            Some(table.clone()),
        );
        // Only one of several growers wins; the others find its table in the next round.
        shard.compare_and_swap(table, newer);
        true
    }

    /// Moves every entry of `older` into `table` and unlinks it, unless some entry is still CLAIMED.
    fn try_move(&self, table: &Arc<Table>, older: &Arc<Table>) {
        let mut busy = false;
        for entry in &older.entries {
            // Acquire pairs with settle: id and cards are there.
            let mut state = entry.state.load(Ordering::Acquire);
            if state == EMPTY {
                match entry.state.compare_exchange(
                    EMPTY,
                    FROZEN,
                    Ordering::Relaxed,
                    Ordering::Acquire,
                ) {
                    Ok(_) => continue,
                    Err(now) => state = now,
                }
            }
            busy |= state & KIND_BITS == CLAIMED;
        }
        if busy {
            return;
        }
        // Now `older` cannot change any more. Several threads may copy at once; the ids make that harmless.
        for entry in &older.entries {
            let state = entry.state.load(Ordering::Acquire);
            if state & KIND_BITS != SETTLED {
                continue;
            }
            let id = entry.id();
            let hashed = self.hash(id);
            self.copy_into(table, hashed, entry, state);
        }
        table.unlink(older);
    }

    fn copy_into(&self, table: &Table, hashed: Hashed, entry: &Entry, state: u64) {
        loop {
            match probe(table, hashed) {
                Probe::Known(_) => return,
                // Another copier is between its claim and its settle of the very same entry.
                Probe::InFlight => hint::spin_loop(),
                // `table` has itself been grown over and frozen: then somebody else has finished this move.
                Probe::Frozen => return,
                Probe::Vacant(index) => {
                    let target = &table.entries[index];
                    let claimed = hashed.tag | CLAIMED;
                    // Relaxed: as in claim.
                    if target
                        .state
                        .compare_exchange(EMPTY, claimed, Ordering::Relaxed, Ordering::Relaxed)
                        .is_ok()
                    {
                        table.used.0.fetch_add(1, Ordering::Relaxed);
                        target.publish(hashed.id, entry.cards.load(Ordering::Relaxed), state);
                        return;
                    }
                }
            }
        }
    }

    /// Makes a claimed id known: one card.
    pub fn settle_one(&self, place: Place, id: u128, lsn: u64, slab: u32, slot: u32) -> Settled {
        self.settle(place, id, lsn, 1, u64::from(slab) << 32 | u64::from(slot))
    }

    /// Makes a claimed id known: several cards, in the order they were dealt.
    pub fn settle_many(
        &self,
        place: Place,
        id: u128,
        lsn: u64,
        cards: impl ExactSizeIterator<Item = (u32, u32)>,
    ) -> Settled {
        let quantity = cards.len() as u16;
        let cards = self
            .arena
            .put(cards.map(|(slab, slot)| u64::from(slab) << 32 | u64::from(slot)));
        self.settle(place, id, lsn, quantity, cards)
    }

    fn settle(&self, place: Place, id: u128, lsn: u64, quantity: u16, cards: u64) -> Settled {
        assert!(
            lsn < LSN_BITS_MAX && quantity < 1 << 14,
            "an entry has room for it"
        );
        let state = SETTLED | u64::from(quantity) << 2 | lsn << 16;
        let table = self.shards[place.shard as usize].load();
        if table.generation == place.generation {
            table.entries[place.index].publish(id, cards, state);
        } else {
            let older = table
                .older()
                .expect("a table with a claimed entry stays linked");
            assert_eq!(
                older.generation, place.generation,
                "a table with a claimed entry stays linked"
            );
            older.entries[place.index].publish(id, cards, state);
        }
        Settled {
            lsn,
            quantity,
            cards,
        }
    }

    /// The cards of an order, in the order they were dealt: slab and slot.
    pub fn cards(&self, settled: Settled) -> impl ExactSizeIterator<Item = (u32, u32)> + '_ {
        let many = settled.quantity > 1;
        (0..usize::from(settled.quantity)).map(move |nth| {
            let card = if many {
                self.arena.get(settled.cards + nth as u64)
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
            .map(|shard| shard.load().used.0.load(Ordering::Relaxed) as u64)
            .sum()
    }

    /// Nothing known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every settled order, in no order. Exact only when nobody inserts.
    pub fn for_each(&self, mut visit: impl FnMut(u128, Settled)) {
        for shard in &self.shards {
            let table = shard.load_full();
            if let Some(older) = table.older() {
                self.try_move(&table, &older);
                assert!(
                    table.older().is_none(),
                    "only walked when no order is in flight"
                );
            }
            for entry in &table.entries {
                let state = entry.state.load(Ordering::Acquire);
                if state & KIND_BITS == SETTLED {
                    visit(entry.id(), entry.settled(state));
                }
            }
        }
    }

    /// Bytes of memory the index holds, for reports.
    pub fn memory_bytes(&self) -> u64 {
        let tables: usize = self
            .shards
            .iter()
            .map(|shard| {
                let table = shard.load();
                let older = table.older().map_or(0, |older| older.entries.len());
                (table.entries.len() + older) * size_of::<Entry>()
            })
            .sum();
        tables as u64 + self.arena.memory_bytes()
    }
}

/// One thread's view of the index: it keeps the newest table of every shard at hand, so that a look-up costs one load to
/// see that it is still the newest, and no shared counter is touched.
pub struct IndexView {
    index: Arc<OrderIndex>,
    shards: Vec<Cache<Arc<ArcSwap<Table>>, Arc<Table>>>,
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
        }
    }

    /// Loads the first cache line a look-up will need, so that a batch of look-ups waits for memory once, not each.
    pub fn touch(&mut self, hashed: Hashed) -> u64 {
        let table = self.shards[hashed.shard].load();
        // Relaxed: the value does not matter, only that the line comes.
        table.entries[table.start(hashed.spread)]
            .state
            .load(Ordering::Relaxed)
    }

    /// What is known of the id.
    pub fn look(&mut self, hashed: Hashed) -> Look {
        find(self.shards[hashed.shard].load(), hashed)
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
}

/// Takes the entry that ended an earlier search for the id, if it is still empty. Whoever had claimed the id since would
/// have taken just that entry; whoever had begun a newer table would have linked this one as its older.
fn claim_seen(table: &Table, hashed: Hashed, place: Place) -> bool {
    if table.generation != place.generation || !table.reserve(false) {
        return false;
    }
    let state = &table.entries[place.index].state;
    // Relaxed: as in claim_in.
    let ours = state
        .compare_exchange(
            EMPTY,
            hashed.tag | CLAIMED,
            Ordering::Relaxed,
            Ordering::Relaxed,
        )
        .is_ok();
    if !ours {
        table.used.0.fetch_sub(1, Ordering::Relaxed);
    }
    ours
}

/// Looks an id up in a shard whose newest table is `table`.
fn find(table: &Table, hashed: Hashed) -> Look {
    // Before the probe: see the module, third interleaving.
    let older = table.older();
    let mut place = None;
    match probe(table, hashed) {
        Probe::Known(settled) => return Look::Known(settled),
        Probe::InFlight => return Look::InFlight,
        Probe::Vacant(index) if older.is_none() => {
            place = Some(Place {
                shard: hashed.shard as u32,
                generation: table.generation,
                index,
            });
        }
        Probe::Vacant(_) | Probe::Frozen => {}
    }
    match older.map(|older| probe(&older, hashed)) {
        Some(Probe::Known(settled)) => Look::Known(settled),
        Some(Probe::InFlight) => Look::InFlight,
        Some(Probe::Vacant(_) | Probe::Frozen) | None => Look::Absent(place),
    }
}

impl Entry {
    fn id(&self) -> u128 {
        // Relaxed: the caller has seen SETTLED with Acquire.
        u128::from(self.id_high.load(Ordering::Relaxed)) << 64
            | u128::from(self.id_low.load(Ordering::Relaxed))
    }

    fn settled(&self, state: u64) -> Settled {
        Settled {
            lsn: state >> 16,
            quantity: (state >> 2 & 0x3fff) as u16,
            cards: self.cards.load(Ordering::Relaxed),
        }
    }

    fn publish(&self, id: u128, cards: u64, state: u64) {
        self.id_high.store((id >> 64) as u64, Ordering::Relaxed);
        self.id_low.store(id as u64, Ordering::Relaxed);
        self.cards.store(cards, Ordering::Relaxed);
        // Release pairs with the Acquire of every probe: whoever sees SETTLED sees id and cards.
        self.state.store(state, Ordering::Release);
    }
}

fn probe(table: &Table, hashed: Hashed) -> Probe {
    let mut index = table.start(hashed.spread);
    for _ in 0..table.entries.len() {
        let entry = &table.entries[index];
        // Acquire pairs with publish.
        let state = entry.state.load(Ordering::Acquire);
        match state & KIND_BITS {
            _ if state == EMPTY => return Probe::Vacant(index),
            _ if state == FROZEN => return Probe::Frozen,
            SETTLED if entry.id() == hashed.id => return Probe::Known(entry.settled(state)),
            CLAIMED if state == hashed.tag | CLAIMED => return Probe::InFlight,
            _ => index = table.after(index),
        }
    }
    Probe::Frozen
}

/// Probes an old table and freezes the entry that ends the search, so that no one can claim the id there any more.
fn freeze_probe(table: &Table, hashed: Hashed) -> Probe {
    loop {
        match probe(table, hashed) {
            Probe::Vacant(index) => {
                let state = &table.entries[index].state;
                // Relaxed: freezing publishes nothing.
                if state
                    .compare_exchange(EMPTY, FROZEN, Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok()
                {
                    return Probe::Frozen;
                }
            }
            found => return found,
        }
    }
}

#[cfg(all(test, not(any(croupier_loom, croupier_shuttle))))]
mod tests;

#[cfg(all(test, croupier_loom))]
mod model;
