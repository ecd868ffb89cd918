//! SKUs, pools and slabs as dealers see them: immutable lists that are swapped whole, with atomic counters inside.

use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, ArcSwapOption};
use croupier_protocol::planted::{self, Bug};
use croupier_protocol::{DealOrder, HOLDER_CARDS_MAX_LIMIT, HOLDER_WINDOW_MS_MAX, StockRow};

use super::line::Line;
use super::record::{Cap, Credits, SkuSet};
use super::reused::{self, View};
use super::selection::Arranged;
use crate::card::CardStatus;
use crate::slab::{Grown, Slab, claim};
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// What a `SlabAdded` record says, or a `SlabReused` record of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlabFacts {
    pub slab: u32,
    pub sku: u32,
    pub batch: u32,
    pub pool: u16,
    pub cards: u32,
    pub class_bytes: u32,
    /// Zeros of a view.
    pub header_hash: [u8; 32],
    /// It has no file, and other slabs' cards.
    pub view: Option<View>,
    /// It grows, and had come so far when it became known ([`SlabState::grown`] tells how far it is now): then `cards` is
    /// what it has room for.
    pub grown: Option<Grown>,
}

impl SlabFacts {
    /// Cards that are there.
    pub fn filled(&self) -> u32 {
        self.grown.map_or(self.cards, |grown| grown.cards)
    }
}

/// Where the claim bits, and for a live store the cards, of a slab are.
pub enum SlabBody {
    /// A mapped slab file.
    Mapped(Arc<Slab>),
    /// Bits only: for checkpoints and verification, which need no card; and, where slabs are simulated, when each card expires.
    Bits(Box<[AtomicU64]>, Box<[u64]>),
    /// Bits of a view, and the slab that has its cards.
    View(Box<[AtomicU64]>, Arc<SlabState>),
}

impl SlabBody {
    /// Bits for so many cards.
    pub fn bits(cards: u32) -> SlabBody {
        let words = 0..claim::words_for(cards);
        SlabBody::Bits(words.map(|_| AtomicU64::new(0)).collect(), Box::default())
    }
}

/// Gives the body for a slab that a record names.
pub trait SlabSource: Send + Sync {
    /// The error says what is wrong with the slab, for people.
    fn body(&self, facts: &SlabFacts) -> Result<SlabBody, crate::error::EngineError>;
}

/// One bit a card, for what few cards of few slabs are: made when the first is. Only cold deeds, one at a time, set bits.
#[derive(Default)]
pub struct Marks(OnceLock<Box<[AtomicU64]>>);

impl Marks {
    /// Whether the card of `slot` is marked.
    pub fn has(&self, slot: u32) -> bool {
        self.0.get().is_some_and(|words| claim::is_set(words, slot))
    }

    /// Whether any card is marked.
    pub fn any(&self) -> bool {
        let words = self.0.get().map_or(0, |words| words.len());
        (0..words).any(|at| self.word(at) != 0)
    }

    /// The words, if any card is marked.
    pub fn words(&self) -> Option<Vec<u64>> {
        let words: Vec<u64> = (0..self.0.get()?.len()).map(|at| self.word(at)).collect();
        words.iter().any(|&word| word != 0).then_some(words)
    }

    fn word(&self, at: usize) -> u64 {
        // Relaxed: nobody marks meanwhile.
        self.0
            .get()
            .map_or(0, |words| words[at].load(Ordering::Relaxed))
    }

    fn of(&self, cards: u32) -> &[AtomicU64] {
        let blank = || {
            (0..claim::words_for(cards))
                .map(|_| AtomicU64::new(0))
                .collect()
        };
        self.0.get_or_init(blank)
    }
}

/// A slab with its claim bits.
pub struct SlabState {
    pub facts: SlabFacts,
    pub body: SlabBody,
    pub pool: Arc<Pool>,
    /// Cards out of sale for a while; their claim bits are set.
    pub suspended: Marks,
    /// Cards out of sale for good; their claim bits are set.
    pub void: Marks,
    /// The next region to lease to a core.
    next_region: AtomicUsize,
    /// Some of its cards expire.
    expires: AtomicBool,
    /// Some have come back since the sweep looked.
    returned: AtomicBool,
    /// No card that may still be dealt expires before, in Unix seconds; [`NEVER`] if none ever does.
    good_until_s: AtomicU64,
    /// Its cards are dealt from views, too.
    is_viewed: AtomicBool,
    /// Of a view: see [`View::closed`].
    is_closed: AtomicBool,
    /// Slots that have cards.
    filled: AtomicU32,
    /// Of a slab that grows: see [`Grown`]. Set by cold deeds, one at a time.
    crcs: [AtomicU32; 3],
}

/// When the first of the cards of a body that are there expires, in Unix seconds; 0 = none does.
fn first_expiry_s(body: &SlabBody, filled: u32, view: Option<&View>) -> u64 {
    match (body, view) {
        (SlabBody::Mapped(slab), _) => slab.expires_from_s(),
        (SlabBody::Bits(_, expiries), _) => {
            let all = expiries.iter().take(filled as usize).copied();
            all.filter(|&expires| expires != 0).min().unwrap_or(0)
        }
        (SlabBody::View(_, of), Some(view)) => {
            let first = first_expiry_s(&of.body, of.facts.cards, None);
            reused::expires_from_s(of, view, first)
        }
        (SlabBody::View(..), None) => 0,
    }
}

/// A list is made anew when this share of what is in it has come since: one part in so many.
const LIST_SHARE: u64 = 16;
/// Looking at so many words of claim bits costs what sorting in a card does.
const LIST_WORDS_PER_CARD: usize = 64;

/// A time that never comes.
pub const NEVER: u64 = u64::MAX;

impl SlabState {
    pub(super) fn new(facts: SlabFacts, body: SlabBody, pool: Arc<Pool>) -> SlabState {
        let filled = facts.filled();
        if let (Some(_), SlabBody::Mapped(slab)) = (facts.grown, &body) {
            slab.grow_to(filled);
        }
        let first = first_expiry_s(&body, filled, facts.view.as_ref());
        let crcs = facts.grown.unwrap_or_default().crcs;
        let state = SlabState {
            expires: AtomicBool::new(first != 0),
            returned: AtomicBool::new(false),
            good_until_s: if first == 0 { NEVER } else { first }.into(),
            facts,
            body,
            pool,
            suspended: Marks::default(),
            void: Marks::default(),
            next_region: AtomicUsize::new(0),
            is_viewed: AtomicBool::new(false),
            is_closed: AtomicBool::new(facts.view.is_some_and(|view| view.closed)),
            filled: filled.into(),
            crcs: crcs.map(AtomicU32::new),
        };
        assert_eq!(
            state.words().len(),
            claim::words_for(facts.cards),
            "as many bits as cards"
        );
        // Nobody can take what is not there.
        for slot in filled..facts.cards {
            claim::set(state.words(), slot);
        }
        state
    }

    /// Cards that are there: all of them, but of a slab that grows.
    #[inline]
    pub fn cards(&self) -> u32 {
        // Acquire: whoever sees a card counted finds it there.
        self.filled.load(Ordering::Acquire)
    }

    /// How far it has grown, if it grows. While nothing is added to it.
    pub fn grown(&self) -> Option<Grown> {
        // Relaxed: cold deeds, one at a time.
        let crcs = || [0, 1, 2].map(|at: usize| self.crcs[at].load(Ordering::Relaxed));
        self.facts.grown.map(|_| Grown {
            cards: self.cards(),
            crcs: crcs(),
        })
    }

    /// Cards of a slab that grows are there, and not for sale yet.
    pub(super) fn grow_to(&self, grown: Grown) {
        if let SlabBody::Mapped(slab) = &self.body {
            slab.grow_to(grown.cards);
        }
        for (crc, now) in self.crcs.iter().zip(grown.crcs) {
            crc.store(now, Ordering::Relaxed);
        }
        self.filled.store(grown.cards, Ordering::Release);
    }

    /// The claim bits.
    pub fn words(&self) -> &[AtomicU64] {
        match &self.body {
            SlabBody::Mapped(slab) => slab.claim_words(),
            SlabBody::Bits(words, _) | SlabBody::View(words, _) => words,
        }
    }

    /// Its mapped file, in a live store; a view has none.
    pub fn mapped(&self) -> Option<&Arc<Slab>> {
        match &self.body {
            SlabBody::Mapped(slab) => Some(slab),
            SlabBody::Bits(..) | SlabBody::View(..) => None,
        }
    }

    /// Where the card of `slot` is sealed, in a live store: the file, and the slot there.
    #[inline]
    pub fn sealed(&self, slot: u32) -> Option<(&Arc<Slab>, u32)> {
        match &self.body {
            SlabBody::Mapped(slab) => Some((slab, slot)),
            SlabBody::Bits(..) => None,
            SlabBody::View(..) => {
                let (of, card) = self.card_of(slot);
                of.mapped().map(|slab| (slab, card))
            }
        }
    }

    /// Views of its cards are being made.
    pub(super) fn has_views(&self) {
        self.is_viewed.store(true, Ordering::SeqCst);
    }

    /// Whether its cards may be dealt more than once: it is a view, or has some.
    pub fn is_reusable(&self) -> bool {
        self.facts.view.is_some() || self.is_viewed.load(Ordering::SeqCst)
    }

    /// An unused use of a view has been made void: no other view of its card follows.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
    }

    /// Whether no view of its card follows.
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    /// What a checkpoint holds of it, besides bits.
    pub(super) fn facts_now(&self) -> SlabFacts {
        let closed = self.is_closed() && !planted::is(Bug::ReopenEndless);
        let view = self.facts.view.map(|view| View { closed, ..view });
        SlabFacts {
            view,
            grown: self.grown(),
            ..self.facts
        }
    }

    /// When the card of `slot` expires, in Unix seconds; 0 = never.
    pub fn expires_at_s(&self, slot: u32) -> u64 {
        match &self.body {
            SlabBody::Mapped(slab) => slab.expires_at_s(slot),
            SlabBody::Bits(_, expiries) => expiries.get(slot as usize).copied().unwrap_or(0),
            SlabBody::View(..) => {
                let (of, card) = self.card_of(slot);
                of.expires_at_s(card)
            }
        }
    }

    /// No card that may still be dealt expires before, in Unix seconds; [`NEVER`] if none ever does.
    pub fn good_until_s(&self) -> u64 {
        self.good_until_s.load(Ordering::SeqCst)
    }

    /// For the sweep: it looks at the cards now, and says afterwards which expires next. Until when they were good.
    pub(crate) fn look_for_expired(&self) -> u64 {
        self.good_until_s.swap(NEVER, Ordering::SeqCst)
    }

    /// A card that may still be dealt expires then.
    pub(crate) fn expires_again(&self, unix_s: u64) {
        self.good_until_s.fetch_min(unix_s, Ordering::SeqCst);
    }

    /// Whether cards have come back since that was asked last.
    pub(crate) fn take_returned(&self) -> bool {
        self.returned.swap(false, Ordering::SeqCst)
    }

    /// Clears the bit of a card: behind the record that gives it back, if one took it, and before its credit.
    pub(crate) fn give_back(&self, slot: u32) {
        if self.expires() {
            let expires_s = self.expires_at_s(slot);
            if expires_s != 0 {
                // The sweep may have passed by it. SeqCst: the slab before the pool, see `Pool::swept`.
                self.returned.store(true, Ordering::SeqCst);
                self.expires_again(expires_s);
                self.pool.expires_from(expires_s);
            }
        }
        claim::give_back(self.words(), slot);
    }

    /// Whether any of its cards ever expires.
    pub fn expires(&self) -> bool {
        // Relaxed: said before the first card that expires is for sale.
        self.expires.load(Ordering::Relaxed)
    }

    /// Says so of a card that has just come.
    pub(super) fn may_expire(&self, slot: u32) {
        if self.expires_at_s(slot) != 0 {
            self.expires.store(true, Ordering::Relaxed);
        }
    }

    /// What the card of `slot` is. One that a dealer has just claimed counts as issued.
    pub fn status(&self, slot: u32) -> CardStatus {
        if !claim::is_set(self.words(), slot) {
            CardStatus::Free
        } else if self.void.has(slot) {
            CardStatus::Void
        } else if self.suspended.has(slot) {
            CardStatus::Suspended
        } else {
            CardStatus::Issued
        }
    }

    /// The slots whose cards are of a status, a bit each. A card that a dealer has just claimed counts as issued.
    pub fn slots_that_are(&self, status: CardStatus) -> Vec<u64> {
        let cards = self.cards();
        let words = self.words().iter().enumerate().map(|(at, word)| {
            // Relaxed: a look, as that of dealers.
            let taken = word.load(Ordering::Relaxed);
            let (suspended, void) = (self.suspended.word(at), self.void.word(at));
            match status {
                CardStatus::Free => !taken & claim::valid_mask(at, cards),
                CardStatus::Suspended => suspended,
                CardStatus::Void => void,
                CardStatus::Issued => taken & !suspended & !void & claim::valid_mask(at, cards),
            }
        });
        words.collect()
    }

    /// The marks of cards of a status, if it is one of the marked.
    pub(super) fn marks(&self, status: CardStatus) -> Option<&Marks> {
        match status {
            CardStatus::Suspended => Some(&self.suspended),
            CardStatus::Void => Some(&self.void),
            CardStatus::Free | CardStatus::Issued => None,
        }
    }

    pub(super) fn mark(&self, marks: &Marks, slot: u32) {
        claim::set(marks.of(self.facts.cards), slot);
    }

    pub(super) fn unmark(&self, marks: &Marks, slot: u32) {
        claim::give_back(marks.of(self.facts.cards), slot);
    }

    /// Leases the next region of words to a core; `None` when all are given out.
    pub fn lease_region(&self) -> Option<(usize, usize)> {
        // Relaxed: a hint that keeps cores apart; the bits decide.
        let from = self.next_region.fetch_add(1, Ordering::Relaxed) * claim::REGION_WORDS;
        let words = self.words().len();
        if from >= words {
            // Keeps the counter from running away while the slab stays first in its pool.
            self.next_region.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some((from, (from + claim::REGION_WORDS).min(words)))
    }
}

/// The slabs of one SKU that are sold from together, with one count of what is free.
pub struct Pool {
    pub sku: u32,
    /// Index within the SKU; 0 is the pool `main`.
    pub index: u16,
    pub name: String,
    /// Dense number over all pools of the store: dealers keep their cursors by it.
    pub number: u32,
    /// Of the SKU.
    pub line: Arc<Line>,
    /// Free cards not promised to anyone. Taken from first; only then a bit, which then certainly exists.
    available: AtomicU64,
    /// Sealed slabs in the order they became sellable.
    pub slabs: ArcSwap<Vec<Arc<SlabState>>>,
    /// Slabs before this one are known to be used up.
    first: AtomicUsize,
    /// How often cards have become free behind dealers that look for them.
    reopenings: AtomicU64,
    /// From then on, in Unix milliseconds, nothing is dealt from here until what has expired is gone.
    good_until_ms: AtomicU64,
    /// The cards in the order in which they are dealt, if one is set.
    arranged: ArcSwapOption<Arranged>,
    /// There is a list.
    is_arranged: AtomicBool,
    /// Cards that have come since it was made, and are not in it.
    unlisted: AtomicU64,
    /// Some of its cards are dealt without end, and may get more uses in a moment.
    grows: AtomicBool,
}

impl Pool {
    pub(super) fn new(
        line: &Arc<Line>,
        sku: u32,
        index: u16,
        name: &str,
        number: u32,
    ) -> Arc<Pool> {
        Arc::new(Pool {
            line: line.clone(),
            sku,
            index,
            name: name.into(),
            number,
            available: AtomicU64::new(0),
            slabs: ArcSwap::default(),
            first: AtomicUsize::new(0),
            reopenings: AtomicU64::new(0),
            good_until_ms: AtomicU64::new(NEVER),
            arranged: ArcSwapOption::default(),
            is_arranged: AtomicBool::new(false),
            unlisted: AtomicU64::new(0),
            grows: AtomicBool::new(false),
        })
    }

    /// Whether there will be more uses in a moment, if there are none now.
    pub fn grows(&self) -> bool {
        // Relaxed: it chooses between two refusals.
        self.grows.load(Ordering::Relaxed)
    }

    /// Says so.
    pub(crate) fn set_grows(&self, grows: bool) {
        self.grows.store(grows, Ordering::Relaxed);
    }

    /// Sets the list of cards in the order in which they are dealt, or that there is none.
    pub(super) fn arrange(&self, arranged: Option<Arranged>) {
        let is_arranged = arranged.is_some();
        // Relaxed: it says when to make the next one.
        self.unlisted.store(0, Ordering::Relaxed);
        self.arranged.store(arranged.map(Arc::new));
        self.is_arranged.store(is_arranged, Ordering::Relaxed);
    }

    /// Cards have come that are not in the list. Whether it is worth making anew: what that costs is to be shared by many of
    /// them.
    pub(super) fn is_list_due(&self, cards: u32) -> bool {
        let cards = u64::from(cards);
        let unlisted = self.unlisted.fetch_add(cards, Ordering::Relaxed) + cards;
        let slabs = self.slabs.load();
        let words = slabs.iter().map(|slab| slab.words().len());
        let words = words.sum::<usize>() / LIST_WORDS_PER_CARD;
        let arranged = self.arranged.load();
        let listed = arranged.as_ref().map_or(0, |arranged| arranged.left());
        unlisted * LIST_SHARE >= (listed + words) as u64
    }

    /// Claims cards in the order that is set, as far as there is one; returns how many.
    #[inline]
    pub fn take_arranged(&self, want: u32, taken: &mut Vec<(u32, u32)>) -> u32 {
        // Relaxed: a hint.
        if !self.is_arranged.load(Ordering::Relaxed) {
            return 0;
        }
        let arranged = self.arranged.load();
        arranged
            .as_ref()
            .map_or(0, |arranged| arranged.take(want, taken))
    }

    /// Whether no card of the pool has expired. Looked at behind the credits: those of cards that come later than the look
    /// are not among them.
    pub fn is_good(&self, now_unix_ms: u64) -> bool {
        // Relaxed: the Acquire of `take_credits` has it see what was said before the credits came.
        now_unix_ms < self.good_until_ms.load(Ordering::Relaxed) || planted::is(Bug::DealExpired)
    }

    /// There will be a card that expires then. Before its credit.
    pub(super) fn expires_from(&self, unix_s: u64) {
        let unix_ms = unix_s.saturating_mul(1000);
        self.good_until_ms.fetch_min(unix_ms, Ordering::SeqCst);
    }

    /// A sweep has taken out what expires soon, and has told each slab.
    pub(crate) fn swept(&self) {
        let next = || {
            let slabs = self.slabs.load();
            let until_s = slabs.iter().map(|slab| slab.good_until_s()).min();
            until_s.unwrap_or(NEVER).saturating_mul(1000)
        };
        // Orders that wait have found it shut, and come first.
        let told = self.line.stock_comes();
        let mut until_ms = next();
        loop {
            self.good_until_ms.store(until_ms, Ordering::SeqCst);
            // A card that came meanwhile has told its slab before the pool: its word to the pool may just have been lost.
            let again_ms = next();
            if again_ms >= until_ms {
                break;
            }
            until_ms = again_ms;
        }
        self.line.stock_came(told);
    }

    /// Free cards.
    pub fn available(&self) -> u64 {
        // Relaxed: a report.
        self.available.load(Ordering::Relaxed)
    }

    /// Takes up to `want` credits; each stands for a free bit somewhere in the pool.
    pub fn take_credits(&self, want: u64) -> u64 {
        let mut now = self.available.load(Ordering::Relaxed);
        while now > 0 {
            let take = now.min(want);
            // Acquire pairs with the Release of add_credits: the bits behind the credits are there.
            match self.available.compare_exchange_weak(
                now,
                now - take,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return take,
                Err(seen) => now = seen,
            }
        }
        0
    }

    /// Gives credits (back). What they stand for must be there already. Orders that wait for them come first.
    pub fn add_credits(&self, count: u64) {
        let told = self.line.stock_comes();
        self.return_credits(count);
        self.line.stock_came(told);
    }

    /// For the desk: gives credits back that are too few for an order in line.
    pub fn return_credits(&self, count: u64) {
        // Release pairs with the Acquire of take_credits.
        self.available.fetch_add(count, Ordering::Release);
    }

    /// Index of the first slab that may have a free card.
    pub fn first(&self) -> usize {
        self.first.load(Ordering::Relaxed)
    }

    /// Says that a slab has free cards again. Behind the bits, before the credits.
    pub(crate) fn reopened(&self, slab: u32) {
        if let Some(arranged) = &*self.arranged.load() {
            arranged.again();
        }
        self.came(slab);
    }

    /// Says that a slab has free cards that it never had. Behind the bits, before the credits.
    pub(super) fn came(&self, slab: u32) {
        self.grown();
        let slabs = self.slabs.load();
        if let Some(index) = slabs.iter().position(|other| other.facts.slab == slab) {
            // Relaxed: a hint; a dealer that misses it finds the cards when it has been round.
            self.first.fetch_min(index, Ordering::Relaxed);
        }
    }

    /// Says that there are more free cards, maybe in more slabs. Behind the bits, before the credits.
    pub(crate) fn grown(&self) {
        // SeqCst, as the look in reopenings: whoever finds a card gone that such a credit has taken sees it.
        self.reopenings.fetch_add(1, Ordering::SeqCst);
    }

    /// How often cards have become free behind dealers that look for them.
    pub fn reopenings(&self) -> u64 {
        self.reopenings.load(Ordering::SeqCst)
    }

    /// Says that every slab before `index` is used up.
    pub fn used_up_before(&self, index: usize) {
        // Relaxed: a hint.
        self.first.fetch_max(index, Ordering::Relaxed);
    }
}

/// One SKU.
pub struct SkuState {
    pub sku: u32,
    pub name: String,
    pub pools: ArcSwap<Vec<Arc<Pool>>>,
    /// Orders that wait for its stock.
    pub line: Arc<Line>,
    /// Cards ever made sellable.
    pub(super) imported: AtomicU64,
    pub(super) class_bytes_max: AtomicU32,
    pub(super) suspended: AtomicU64,
    pub(super) void: AtomicU64,
    /// Cards that open holds have been promised.
    promised: AtomicU64,
    /// The number of the order in which cards are dealt.
    deal_order: AtomicU32,
    /// How much of what is free and promised may be promised, in per cent.
    hold_share_max_percent: AtomicU32,
    /// What holders may get: in one word, as they are set together.
    cap: AtomicU64,
}

/// Bits of a cap's word that are its window; those above are cards.
const CAP_WINDOW_BITS: u32 = 40;
const _: () = assert!(
    HOLDER_WINDOW_MS_MAX < 1 << CAP_WINDOW_BITS
        && (HOLDER_CARDS_MAX_LIMIT as u64) < 1 << (64 - CAP_WINDOW_BITS)
);

/// A row of the stock report: the first four add up to the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StockCounts {
    pub free: u64,
    pub held: u64,
    pub issued: u64,
    pub void: u64,
    pub imported: u64,
}

impl SkuState {
    pub(super) fn new(sku: u32, name: &str, line: Arc<Line>, main: Arc<Pool>) -> SkuState {
        SkuState {
            sku,
            line,
            name: name.into(),
            pools: ArcSwap::from_pointee(vec![main]),
            imported: 0.into(),
            class_bytes_max: 0.into(),
            suspended: 0.into(),
            void: 0.into(),
            promised: 0.into(),
            deal_order: u32::from(DealOrder::Fifo.as_u16()).into(),
            hold_share_max_percent: 100.into(),
            cap: 0.into(),
        }
    }

    /// What holders may get of it.
    pub fn cap(&self) -> Cap {
        // Relaxed: as the other settings.
        let word = self.cap.load(Ordering::Relaxed);
        Cap {
            cards_max: (word >> CAP_WINDOW_BITS) as u32,
            window_ms: word & ((1 << CAP_WINDOW_BITS) - 1),
        }
    }

    /// How it is sold.
    pub fn settings(&self) -> SkuSet {
        // Relaxed: each is set by itself, and by cold deeds.
        let order = self.deal_order.load(Ordering::Relaxed) as u16;
        SkuSet {
            sku: self.sku,
            deal_order: order.try_into().unwrap_or(DealOrder::Fifo),
            hold_share_max_percent: self.hold_share_max_percent.load(Ordering::Relaxed) as u8,
            cap: self.cap(),
        }
    }

    pub(super) fn set(&self, set: &SkuSet) {
        let order = set.deal_order.as_u16().into();
        self.deal_order.store(order, Ordering::Relaxed);
        let percent = set.hold_share_max_percent.into();
        self.hold_share_max_percent
            .store(percent, Ordering::Relaxed);
        let cap = u64::from(set.cap.cards_max) << CAP_WINDOW_BITS | set.cap.window_ms;
        self.cap.store(cap, Ordering::Relaxed);
    }

    /// Promises up to `want` cards before their credits are taken, as many as may be held; `None` if all may be: then there is
    /// nothing to be taken back.
    pub(crate) fn promise_share(&self, want: u64) -> Option<u64> {
        let percent = u64::from(self.hold_share_max_percent.load(Ordering::Relaxed));
        if percent >= 100 {
            return None;
        }
        let mut promised = self.promised();
        loop {
            let free: u64 = self.pools.load().iter().map(|pool| pool.available()).sum();
            let most = (free + promised) * percent / 100;
            let grant = want.min(most.saturating_sub(promised));
            // Relaxed: the count alone is what cores agree on.
            match self.promised.compare_exchange_weak(
                promised,
                promised + grant,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(grant),
                Err(seen) => promised = seen,
            }
        }
    }

    /// Takes back what was promised before the credits were.
    pub(crate) fn unpromise(&self, cards: u64) {
        self.promised.fetch_sub(cards, Ordering::Relaxed);
    }

    /// How many cards are of a status, if that is one of the marked.
    pub(super) fn marked(&self, status: CardStatus) -> Option<&AtomicU64> {
        match status {
            CardStatus::Suspended => Some(&self.suspended),
            CardStatus::Void => Some(&self.void),
            CardStatus::Free | CardStatus::Issued => None,
        }
    }

    /// Cards that open holds have been promised.
    pub fn promised(&self) -> u64 {
        // Relaxed: a report.
        self.promised.load(Ordering::Relaxed)
    }

    /// More cards are promised. Their credits have been taken.
    pub(crate) fn promise(&self, cards: u64) {
        self.promised.fetch_add(cards, Ordering::Relaxed);
    }

    /// Cards are not promised any more. Those that nobody got go back to their pools: behind the record that says so (DESIGN,
    /// rule 3).
    pub(super) fn keep_promise(&self, credits: Credits, back: Credits) {
        let is_capped = self.hold_share_max_percent.load(Ordering::Relaxed) < 100;
        let told = is_capped && self.line.stock_comes();
        // Relaxed: a report; before the credits, so that no card is counted as free and held.
        self.promised.fetch_sub(credits.sum(), Ordering::Relaxed);
        if is_capped {
            // Orders that wait to hold cards may do so now.
            self.line.stock_came(told);
        }
        if back.sum() == 0 {
            return;
        }
        let pools = self.pools.load();
        for (pool, cards) in back.iter() {
            pools[usize::from(pool)].add_credits(cards.into());
        }
    }

    /// The longest size class among its slabs, in bytes; 0 without stock. Tells how large an answer can be.
    pub fn class_bytes_max(&self) -> u32 {
        // Relaxed: set before the cards can be dealt.
        self.class_bytes_max.load(Ordering::Relaxed)
    }

    /// The counts as they are told to callers.
    pub fn row(&self) -> StockRow {
        let counts = self.stock();
        StockRow {
            sku: self.sku,
            name: self.name.clone(),
            free: counts.free,
            held: counts.held,
            issued: counts.issued,
            void: counts.void,
            imported: counts.imported,
        }
    }

    /// The counts. `issued` is what is imported and nothing else, so it includes orders in flight.
    pub fn stock(&self) -> StockCounts {
        // `imported` first: a batch sealed in between may only raise `free`.
        let free: u64 = self.pools.load().iter().map(|pool| pool.available()).sum();
        let imported = self.imported.load(Ordering::Relaxed).max(free);
        let taken = imported - free;
        // A move that is under way must not make more of the cards than there are.
        let void = self.void.load(Ordering::Relaxed).min(taken);
        let held = self.suspended.load(Ordering::Relaxed) + self.promised();
        let held = held.min(taken - void);
        StockCounts {
            free,
            held,
            issued: taken - void - held,
            void,
            imported,
        }
    }
}

/// A sealed import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub batch: u32,
    pub sku: u32,
    pub pool: u16,
    pub cards: u64,
    pub label: String,
    pub sealed_unix_ms: u64,
}

/// All SKUs and slabs by number, as one immutable value.
#[derive(Clone, Default)]
pub struct Catalog {
    /// SKU n is at n − 1.
    pub skus: Vec<Arc<SkuState>>,
    /// Slab n is at n; holes are numbers of imports that failed.
    pub slabs: Vec<Option<Arc<SlabState>>>,
    /// Grows whenever a dealer must forget what it resolved before: when a SKU has got another pool.
    pub version: u64,
}

impl Catalog {
    /// A SKU by number.
    pub fn sku(&self, sku: u32) -> Option<&Arc<SkuState>> {
        self.skus.get((sku as usize).checked_sub(1)?)
    }

    /// A slab by number.
    pub fn slab(&self, slab: u32) -> Option<&Arc<SlabState>> {
        self.slabs.get(slab as usize)?.as_ref()
    }
}
