//! Where the index keeps its rows, and the cards of orders that have several.

use std::sync::OnceLock;

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::zeroed_words;

/// Words of a page of memory, or a part of one.
pub(super) const PAGE_WORDS: usize = 512;

type Chunk = OnceLock<Box<[AtomicU64]>>;

/// Words in append-only chunks that never move. The first are small, so that a small store costs little; the rest are of
/// one size, and their places are made by the thousand when they are needed. Every chunk begins at a multiple of
/// [`ARENA_SMALLEST_WORDS`].
pub(super) struct Arena {
    small: [Chunk; ARENA_SMALL],
    large: Box<[OnceLock<Box<[Chunk]>>]>,
    next: AtomicU64,
    /// All chunks below this word are there.
    made: AtomicU64,
}

#[cfg(not(any(croupier_loom, croupier_shuttle)))]
const ARENA_CHUNK_WORDS: usize = 1 << 19;
#[cfg(any(croupier_loom, croupier_shuttle))]
const ARENA_CHUNK_WORDS: usize = 1 << 6;
/// Chunks of 1, 1, 2, 4 … 256 Ki words, which together are as large as one of the others.
#[cfg(not(any(croupier_loom, croupier_shuttle)))]
const ARENA_SMALL: usize = 10;
#[cfg(any(croupier_loom, croupier_shuttle))]
const ARENA_SMALL: usize = 4;
const ARENA_SMALLEST_WORDS: usize = ARENA_CHUNK_WORDS >> (ARENA_SMALL - 1);
const ARENA_LARGE_SPAN: usize = 1 << 11;
/// 2^36 words, half a terabyte.
const ARENA_LARGE_SPANS: usize = 1 << 6;

impl Default for Arena {
    fn default() -> Arena {
        Arena {
            small: [const { OnceLock::new() }; ARENA_SMALL],
            large: (0..ARENA_LARGE_SPANS).map(|_| OnceLock::new()).collect(),
            next: AtomicU64::new(0),
            made: AtomicU64::new(0),
        }
    }
}

impl Arena {
    /// Takes `count` words for the caller alone; returns the first.
    pub(super) fn take(&self, count: u64) -> u64 {
        // Relaxed: what is put there is published by whoever names it.
        self.next.fetch_add(count, Ordering::Relaxed)
    }

    /// Words that are to be there beyond those that are taken: as many as are taken, up to a large chunk.
    fn ahead(&self) -> u64 {
        self.words()
            .clamp(ARENA_SMALLEST_WORDS as u64, ARENA_CHUNK_WORDS as u64)
    }

    /// Whether what is there ahead is too little.
    pub(super) fn is_short(&self) -> bool {
        // Relaxed: a hint.
        self.made.load(Ordering::Relaxed) < self.words() + self.ahead()
    }

    /// Makes chunks until there are enough ahead. One thread at a time.
    pub(super) fn make_ahead(&self) {
        while self.is_short() {
            let made = self.made.load(Ordering::Relaxed);
            let (chunk, words, within) = self.place(made);
            debug_assert_eq!(within, 0, "chunks are made whole");
            chunk.get_or_init(|| {
                let chunk = zeroed_words(words);
                // Not only asked for, but there.
                let pages = chunk.iter().step_by(PAGE_WORDS);
                pages.for_each(|word| word.store(0, Ordering::Relaxed));
                chunk
            });
            self.made.store(made + words as u64, Ordering::Relaxed);
        }
    }

    /// Fills words that were taken.
    pub(super) fn put(&self, begin: u64, words: impl Iterator<Item = u64>) {
        for (at, word) in (begin..).zip(words) {
            let (chunk, words, within) = self.place(at);
            chunk.get_or_init(|| zeroed_words(words))[within].store(word, Ordering::Relaxed);
        }
    }

    /// Fills words that were taken, at a multiple of their number, a power of two.
    pub(super) fn set<const WORDS: usize>(&self, at: u64, words: [u64; WORDS]) {
        let (chunk, size, within) = self.place(at);
        let chunk = chunk.get_or_init(|| zeroed_words(size));
        for (place, word) in chunk[within..within + WORDS].iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
    }

    /// Words that were put, at a multiple of their number, a power of two. Zeros where nothing was put yet.
    pub(super) fn get<const WORDS: usize>(&self, at: u64) -> [u64; WORDS] {
        let (chunk, _, within) = self.place(at);
        let words = chunk.get().map(|chunk| &chunk[within..within + WORDS]);
        std::array::from_fn(|nth| words.map_or(0, |words| words[nth].load(Ordering::Relaxed)))
    }

    /// `count` words at a multiple of `count`, a power of two. None where nothing was put yet.
    pub(super) fn words_at(&self, at: u64, count: usize) -> Option<&[AtomicU64]> {
        let (chunk, _, within) = self.place(at);
        chunk.get().map(|chunk| &chunk[within..within + count])
    }

    /// Words taken so far.
    pub(super) fn words(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// The chunk of a word, how many words it has, and which of them it is.
    fn place(&self, at: u64) -> (&Chunk, usize, usize) {
        let at = at as usize;
        if at < ARENA_CHUNK_WORDS {
            let size = (at / ARENA_SMALLEST_WORDS).checked_ilog2();
            // Chunk 0 begins at 0, chunk 1 where that ends, and each further one at as many words as it has.
            return match size {
                None => (&self.small[0], ARENA_SMALLEST_WORDS, at),
                Some(size) => {
                    let words = ARENA_SMALLEST_WORDS << size;
                    (&self.small[size as usize + 1], words, at - words)
                }
            };
        }
        let chunk = at / ARENA_CHUNK_WORDS;
        let span = self
            .large
            .get(chunk / ARENA_LARGE_SPAN)
            .expect("the arena is full")
            .get_or_init(|| (0..ARENA_LARGE_SPAN).map(|_| OnceLock::new()).collect());
        (
            &span[chunk % ARENA_LARGE_SPAN],
            ARENA_CHUNK_WORDS,
            at % ARENA_CHUNK_WORDS,
        )
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        self.words().next_multiple_of(ARENA_SMALLEST_WORDS as u64) * 8
    }
}

#[cfg(all(test, not(any(croupier_loom, croupier_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_ahead_is_enough_and_not_far_too_much() {
        let arena = Arena::default();
        for _ in 0..3000 {
            arena.make_ahead();
            assert!(!arena.is_short());
            let (made, taken) = (arena.made.load(Ordering::Relaxed), arena.words());
            assert!(made <= taken + 3 * arena.ahead(), "{made} for {taken}");
            arena.take(999);
        }
    }

    #[test]
    fn the_arena_keeps_every_word_over_all_sizes_of_chunks() {
        let arena = Arena::default();
        let count = 3 * ARENA_CHUNK_WORDS as u64 + 5;
        for begin in (0..count).step_by(5) {
            let words = [0, 1, 2, 3, 4].map(|word| (begin + word) * 3);
            assert_eq!(arena.take(5), begin);
            arena.put(begin, words.into_iter());
        }
        assert!((0..count).all(|at| arena.get(at) == [at * 3]));
        assert!(
            (0..count / 4).all(|at| arena.get(at * 4) == [0, 3, 6, 9].map(|word| at * 12 + word))
        );
    }
}
