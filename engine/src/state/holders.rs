//! Holders: for whom orders are, and how much each holder has. docs/orders.md.
//!
//! Only orders that name a holder come here. What is known is spread over shards, by holder what it has, and by order id whose it
//! is. A shard is a lock and a queue before it: whoever has the lock first takes in what the queue has. So a fact, which may not
//! wait and cannot be refused any more, is put into the queue, and a dealer only ever *tries* to take the lock: what it wants to
//! know it wants before anything is promised, and then an order may as well come again in the next turn.
//!
//! A dealer takes an order's cards from its holder's cap before it claims its id, as it takes credits; the cards count as held from
//! then on. What was taken and is not used is given back. The record makes a fact of it: the same one when it is replayed, which
//! has taken before what the dealer had taken ([`Holders::promised`]).

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use crossbeam_queue::SegQueue;
use croupier_protocol::Refusal;

use super::record::{Cap, QUANTITY_LIMIT};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard};

#[cfg(not(any(croupier_loom, croupier_shuttle)))]
const SHARDS: usize = 64;
#[cfg(any(croupier_loom, croupier_shuttle))]
const SHARDS: usize = 1;

/// Takings that come so far out of their order are sorted when they are next looked at, and not moved to their place.
const NEAR: usize = 64;

/// Rows that a look-up copies at a time: while it does, dealers go round it.
const ROWS_AT_ONCE: usize = 4096;

/// What a holder has, wants, or gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    pub holder: u128,
    pub sku: u32,
    pub cards: u16,
    /// It is an open hold, or an order that waits.
    pub is_open: bool,
}

/// What may be had, by the caps.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub cap: Cap,
    /// Most open holds and waiting orders of a holder; 0: any number.
    pub open_max: u32,
}

/// Why a holder gets nothing, and when it may be otherwise, in milliseconds; 0: nobody knows.
pub type NoShare = (Refusal, u32);

/// Cards that were dealt: when, in Unix milliseconds, and how many. In one word, so that they sort by time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Taking(u64);

impl Taking {
    const CARD_BITS: u32 = 12;

    fn new(unix_ms: u64, cards: u16) -> Taking {
        const { assert!(QUANTITY_LIMIT < 1 << Taking::CARD_BITS, "a quantity fits") };
        Taking(unix_ms << Taking::CARD_BITS | u64::from(cards))
    }

    fn unix_ms(self) -> u64 {
        self.0 >> Taking::CARD_BITS
    }

    fn cards(self) -> u64 {
        self.0 & ((1 << Taking::CARD_BITS) - 1)
    }
}

/// What a holder has of one SKU.
struct Cards {
    sku: u32,
    /// Held, waited for, or taken by orders that are just being dealt.
    held: u64,
    /// By time, unless `is_mixed`.
    takings: Vec<Taking>,
    is_mixed: bool,
}

impl Cards {
    fn take_in(&mut self, taking: Taking) {
        let is_late = self.takings.last().is_some_and(|last| *last > taking);
        if is_late && !self.is_mixed {
            let at = self.takings.partition_point(|other| *other <= taking);
            if self.takings.len() - at <= NEAR {
                return self.takings.insert(at, taking);
            }
            self.is_mixed = true;
        }
        self.takings.push(taking);
    }

    /// How many of `want` cards may be had now, `least` at least. The error: none, and in how many milliseconds it may be
    /// otherwise.
    fn grant(&mut self, cap: Cap, now_unix_ms: u64, want: u16, least: u16) -> Result<u16, u32> {
        if cap.cards_max == 0 {
            return Ok(want);
        }
        if std::mem::take(&mut self.is_mixed) {
            self.takings.sort_unstable();
        }
        let (most, least) = (u64::from(cap.cards_max), u64::from(least));
        let mut counted = self.held;
        if counted + least > most {
            return Err(0);
        }
        for taking in self.takings.iter().rev() {
            let counts_until_ms = taking.unix_ms() + cap.window_ms;
            if counts_until_ms <= now_unix_ms {
                break;
            }
            counted += taking.cards();
            if counted + least > most {
                // Those before it are older, and what is behind it leaves room enough.
                let wait_ms = counts_until_ms - now_unix_ms;
                return Err(u32::try_from(wait_ms).unwrap_or(u32::MAX));
            }
        }
        let left = most - counted;
        Ok(u16::try_from(left).map_or(want, |left| left.min(want)))
    }
}

/// What a holder has.
#[derive(Default)]
struct Book {
    /// Open holds and waiting orders.
    open: u32,
    skus: Vec<Cards>,
    /// Rows of its orders in the index, about as they came.
    rows: Vec<u64>,
}

impl Book {
    fn cards(&mut self, sku: u32) -> &mut Cards {
        let at = self.skus.iter().position(|cards| cards.sku == sku);
        let at = at.unwrap_or_else(|| {
            // Most holders have one SKU or two.
            self.skus.reserve_exact(1);
            self.skus.push(Cards {
                sku,
                held: 0,
                takings: Vec::new(),
                is_mixed: false,
            });
            self.skus.len() - 1
        });
        &mut self.skus[at]
    }
}

/// A fact, or what was taken and is given back.
enum Note {
    /// Whose an order is.
    Order { id: u128, holder: u128 },
    /// Its row.
    Row { holder: u128, row: u64 },
    /// More is held.
    Held(Share),
    /// So much is held no longer, and of it so many cards were dealt then, in Unix milliseconds.
    Ended(Share, u16, u64),
}

#[derive(Default)]
struct Kept {
    orders: HashMap<u128, u128>,
    books: HashMap<u128, Book>,
}

impl Kept {
    fn take_in(&mut self, note: Note) {
        match note {
            Note::Order { id, holder } => {
                self.orders.insert(id, holder);
            }
            Note::Row { holder, row } => self.book(holder).rows.push(row),
            Note::Held(share) => self.hold(&share),
            Note::Ended(share, dealt, unix_ms) => {
                let book = self.book(share.holder);
                let open = book.open.checked_sub(share.is_open.into());
                book.open = open.expect("what ends was open");
                let cards = book.cards(share.sku);
                let held = cards.held.checked_sub(share.cards.into());
                cards.held = held.expect("what ends was held");
                if dealt > 0 {
                    cards.take_in(Taking::new(unix_ms, dealt));
                }
                self.drop_empty(share.holder);
            }
        }
    }

    /// A holder without orders leaves no trace: it may have been refused.
    fn drop_empty(&mut self, holder: u128) {
        let is_empty = |book: &Book| {
            let has_none = |cards: &Cards| cards.held == 0 && cards.takings.is_empty();
            book.open == 0 && book.rows.is_empty() && book.skus.iter().all(has_none)
        };
        if self.books.get(&holder).is_some_and(is_empty) {
            self.books.remove(&holder);
        }
    }

    fn hold(&mut self, share: &Share) {
        let book = self.book(share.holder);
        book.open += u32::from(share.is_open);
        book.cards(share.sku).held += u64::from(share.cards);
    }

    fn book(&mut self, holder: u128) -> &mut Book {
        self.books.entry(holder).or_default()
    }
}

#[derive(Default)]
struct Shard {
    notes: SegQueue<Note>,
    kept: Mutex<Kept>,
}

impl Shard {
    /// With all that was noted before.
    fn lock(&self) -> MutexGuard<'_, Kept> {
        let mut kept = self.kept.lock().expect("no one panics with this lock");
        self.catch_up(&mut kept);
        kept
    }

    /// As [`lock`](Self::lock); `None`: somebody else is here.
    fn try_lock(&self) -> Option<MutexGuard<'_, Kept>> {
        let mut kept = self.kept.try_lock().ok()?;
        self.catch_up(&mut kept);
        Some(kept)
    }

    fn catch_up(&self, kept: &mut Kept) {
        while let Some(note) = self.notes.pop() {
            kept.take_in(note);
        }
    }

    /// Never waits. Whoever comes next takes it in, if that is not us.
    fn note(&self, note: Note) {
        self.notes.push(note);
        drop(self.try_lock());
    }
}

/// All holders of a store.
pub struct Holders {
    shards: Box<[Shard]>,
    spread: RandomState,
    /// Some order names one.
    any: AtomicBool,
}

impl Default for Holders {
    fn default() -> Holders {
        Holders {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            spread: RandomState::new(),
            any: AtomicBool::new(false),
        }
    }
}

impl Holders {
    fn shard(&self, key: u128) -> &Shard {
        &self.shards[self.spread.hash_one(key) as usize % SHARDS]
    }

    /// Whether any order names a holder.
    pub fn is_used(&self) -> bool {
        // Acquire pairs with the Release in `begins`. Whoever has found an order in the index sees it said before.
        self.any.load(Ordering::Acquire)
    }

    /// Whose an order is that is known; 0: nobody is named. `None`: it cannot be told just now, come again.
    pub fn try_of(&self, id: u128) -> Option<u128> {
        if !self.is_used() {
            return Some(0);
        }
        let kept = self.shard(id).try_lock()?;
        Some(kept.orders.get(&id).copied().unwrap_or(0))
    }

    /// As [`try_of`](Self::try_of), for those who may wait.
    pub fn of(&self, id: u128) -> u128 {
        if !self.is_used() {
            return 0;
        }
        let kept = self.shard(id).lock();
        kept.orders.get(&id).copied().unwrap_or(0)
    }

    /// Takes what an order wants from its holder's caps, all of it, or, if `part`, as much as they leave; how many cards that is.
    /// `None`: come again.
    pub fn try_take(
        &self,
        wanted: &Share,
        part: bool,
        limits: &Limits,
        now_unix_ms: u64,
    ) -> Option<Result<u16, NoShare>> {
        let mut kept = self.shard(wanted.holder).try_lock()?;
        Some(kept.take(wanted, part, limits, now_unix_ms))
    }

    /// As [`try_take`](Self::try_take), for those who may wait.
    pub fn take(&self, wanted: &Share, limits: &Limits, now_unix_ms: u64) -> Result<u16, NoShare> {
        let mut kept = self.shard(wanted.holder).lock();
        kept.take(wanted, false, limits, now_unix_ms)
    }

    /// Gives back what was taken and not used.
    pub fn give_back(&self, share: Share) {
        self.ended(share, 0, 0);
    }

    /// What a replay makes of a record: the dealer that wrote it had taken so much.
    pub(super) fn promised(&self, share: Share) {
        if share.holder != 0 {
            self.shard(share.holder).note(Note::Held(share));
        }
    }

    /// An order becomes known as the holder's. Before the index tells of it.
    pub(super) fn begins(&self, id: u128, holder: u128, row: u64) {
        if holder == 0 {
            return;
        }
        self.shard(id).note(Note::Order { id, holder });
        self.shard(holder).note(Note::Row { holder, row });
        // Release: see `is_used`.
        self.any.store(true, Ordering::Release);
    }

    /// So much is held no longer, and of it so many cards were dealt then, in Unix milliseconds. Both at once: nobody gets more in
    /// between.
    pub(super) fn ended(&self, share: Share, dealt: u16, unix_ms: u64) {
        if share.holder != 0 {
            let shard = self.shard(share.holder);
            shard.note(Note::Ended(share, dealt, unix_ms));
        }
    }

    /// Rows of a holder's orders, about as they came.
    pub fn rows_of(&self, holder: u128) -> Vec<u64> {
        let mut all = Vec::new();
        loop {
            let kept = self.shard(holder).lock();
            let rows = kept.books.get(&holder).map_or(&[][..], |book| &book.rows);
            let more = rows.get(all.len()..).unwrap_or_default();
            if more.is_empty() {
                return all;
            }
            all.extend_from_slice(&more[..more.len().min(ROWS_AT_ONCE)]);
        }
    }

    /// What each holder has, for those who compare two states: holder, open holds, SKU, cards held, and the times at which cards
    /// were dealt with their number. By holder and SKU.
    #[cfg(feature = "testing")]
    pub fn all(&self) -> Vec<HolderCards> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let kept = shard.lock();
            for (&holder, book) in &kept.books {
                for cards in &book.skus {
                    let takings = cards.takings.iter();
                    let mut dealt: Vec<_> = takings
                        .map(|taking| (taking.unix_ms(), taking.cards()))
                        .collect();
                    dealt.sort_unstable();
                    if cards.held > 0 || !dealt.is_empty() {
                        all.push((holder, book.open, cards.sku, cards.held, dealt));
                    }
                }
            }
        }
        all.sort_unstable();
        all
    }
}

/// See [`Holders::all`].
#[cfg(feature = "testing")]
pub type HolderCards = (u128, u32, u32, u64, Vec<(u64, u64)>);

impl Kept {
    fn take(
        &mut self,
        wanted: &Share,
        part: bool,
        limits: &Limits,
        now_unix_ms: u64,
    ) -> Result<u16, NoShare> {
        let book = self.book(wanted.holder);
        if wanted.is_open && limits.open_max > 0 && book.open >= limits.open_max {
            return Err((Refusal::HolderHoldsReached, 0));
        }
        let least = if part { 1 } else { wanted.cards };
        let granted = if wanted.cards == 0 {
            Ok(0)
        } else {
            let cards = book.cards(wanted.sku);
            cards.grant(limits.cap, now_unix_ms, wanted.cards, least)
        };
        match granted {
            Ok(cards) => {
                self.hold(&Share { cards, ..*wanted });
                Ok(cards)
            }
            Err(wait_ms) => {
                self.drop_empty(wanted.holder);
                Err((Refusal::HolderCardsReached, wait_ms))
            }
        }
    }
}

#[cfg(all(test, not(any(croupier_loom, croupier_shuttle))))]
mod tests {
    use super::*;

    fn cards(held: u64, takings: &[(u64, u16)]) -> Cards {
        let mut cards = Cards {
            sku: 1,
            held,
            takings: Vec::new(),
            is_mixed: false,
        };
        for &(unix_ms, count) in takings {
            cards.take_in(Taking::new(unix_ms, count));
        }
        cards
    }

    #[test]
    fn a_window_slides_and_says_when_there_is_room() {
        let cap = Cap {
            cards_max: 5,
            window_ms: 100,
        };
        let check = |held, takings: &[(u64, u16)], now, want, least, expect: Result<u16, u32>| {
            let got = cards(held, takings).grant(cap, now, want, least);
            assert_eq!(got, expect, "{held} held, {takings:?} at {now}: {want}");
        };
        check(0, &[], 0, 5, 5, Ok(5));
        check(0, &[], 0, 6, 6, Err(0));
        check(0, &[], 0, 6, 1, Ok(5));
        check(5, &[], 0, 1, 1, Err(0));
        check(0, &[(1000, 3)], 1050, 2, 2, Ok(2));
        check(0, &[(1000, 3)], 1050, 3, 3, Err(50));
        check(0, &[(1000, 3)], 1099, 3, 3, Err(1));
        check(0, &[(1000, 3)], 1100, 5, 5, Ok(5));
        check(0, &[(1000, 2), (1050, 3)], 1060, 2, 2, Err(40));
        check(0, &[(1000, 2), (1050, 3)], 1060, 3, 3, Err(90));
        check(0, &[(1050, 3), (1000, 2)], 1060, 2, 2, Err(40));
        check(2, &[(1000, 2)], 1060, 2, 2, Err(40));
        check(4, &[(1000, 1)], 1060, 2, 2, Err(0));
        // A clock that was set back: what was dealt later counts.
        check(0, &[(1000, 5)], 10, 1, 1, Err(1090));
    }

    #[test]
    fn takings_far_out_of_their_order_are_sorted_when_they_are_needed() {
        let takings: Vec<(u64, u16)> = (0..1000).rev().map(|at| (1000 + at, 1)).collect();
        let mut cards = cards(0, &takings);
        assert!(cards.is_mixed);
        let cap = Cap {
            cards_max: 10,
            window_ms: 5,
        };
        assert_eq!(cards.grant(cap, 1999, 10, 1), Ok(5));
        assert_eq!(cards.takings.len(), 1000);
        assert!(cards.takings.is_sorted());
    }

    #[test]
    fn what_is_taken_counts_until_it_is_given_back_or_old() {
        let holders = Holders::default();
        let limits = Limits {
            cap: Cap {
                cards_max: 3,
                window_ms: 1000,
            },
            open_max: 1,
        };
        let share = |cards, is_open| Share {
            holder: 7,
            sku: 1,
            cards,
            is_open,
        };
        let take = |share: Share, now| holders.take(&share, &limits, now);
        assert_eq!(take(share(2, true), 0), Ok(2));
        assert_eq!(
            take(share(1, true), 0),
            Err((Refusal::HolderHoldsReached, 0))
        );
        assert_eq!(
            take(share(2, false), 0),
            Err((Refusal::HolderCardsReached, 0))
        );
        let other_sku = Share {
            sku: 2,
            ..share(3, false)
        };
        assert_eq!(take(other_sku, 0), Ok(3));
        // The hold is committed in part.
        holders.ended(share(2, true), 1, 50);
        assert_eq!(take(share(2, true), 60), Ok(2));
        holders.give_back(share(2, true));
        assert_eq!(
            take(share(3, false), 60),
            Err((Refusal::HolderCardsReached, 990))
        );
        assert_eq!(take(share(3, false), 1050), Ok(3));
        let stranger = Share {
            holder: 8,
            ..share(4, false)
        };
        assert!(take(stranger, 0).is_err());
        let books = |holder| holders.shard(holder).lock().books.contains_key(&holder);
        assert_eq!((books(7), books(8)), (true, false));
        assert_eq!((holders.of(5), holders.try_of(5)), (0, Some(0)));
        holders.begins(5, 7, 3);
        assert_eq!((holders.of(5), holders.try_of(5)), (7, Some(7)));
        assert_eq!((holders.rows_of(7), holders.rows_of(8)), (vec![3], vec![]));
    }
    #[test]
    fn who_finds_somebody_there_does_not_wait() {
        let holders = Holders::default();
        holders.begins(5, 7, 0);
        let share = Share {
            holder: 7,
            sku: 1,
            cards: 2,
            is_open: true,
        };
        let limits = Limits {
            cap: Cap {
                cards_max: 2,
                window_ms: 10,
            },
            open_max: 0,
        };
        let take = || holders.try_take(&share, false, &limits, 0);
        let there: Vec<_> = holders
            .shards
            .iter()
            .map(|shard| shard.kept.lock())
            .collect();
        assert!(take().is_none());
        assert_eq!(holders.try_of(5), None);
        // Facts are kept for whoever comes next, in their order.
        holders.begins(6, 7, 1);
        holders.promised(share);
        holders.ended(share, 1, 0);
        drop(there);
        assert_eq!((holders.try_of(5), holders.try_of(6)), (Some(7), Some(7)));
        assert_eq!(holders.rows_of(7), [0, 1]);
        assert_eq!(take(), Some(Err((Refusal::HolderCardsReached, 10))));
    }
}
