//! Where the index keeps the cards of orders that have several.

use std::sync::OnceLock;

use crate::sync::atomic::{AtomicU64, Ordering};

type Chunk = OnceLock<Box<[AtomicU64]>>;

/// Where the cards of orders with several cards lie: append-only chunks that never move. The first are small, so that a
/// small store costs little; the rest are of one size, and their places are made by the thousand when they are needed.
pub(super) struct Arena {
    small: [Chunk; ARENA_SMALL],
    large: Box<[OnceLock<Box<[Chunk]>>]>,
    next: AtomicU64,
}

#[cfg(not(any(croupier_loom, croupier_shuttle)))]
const ARENA_CHUNK_WORDS: usize = 1 << 16;
#[cfg(any(croupier_loom, croupier_shuttle))]
const ARENA_CHUNK_WORDS: usize = 1 << 6;
/// Chunks of 1, 1, 2, 4 … 32 Ki words, which together are as large as one of the others.
const ARENA_SMALL: usize = 7;
const ARENA_SMALLEST_WORDS: usize = ARENA_CHUNK_WORDS >> (ARENA_SMALL - 1);
const ARENA_LARGE_SPAN: usize = 1 << 10;
/// 2^32 cards of orders with several cards: 32 GiB of memory, beyond any machine this runs on.
const ARENA_LARGE_SPANS: usize = 1 << 6;

impl Default for Arena {
    fn default() -> Arena {
        Arena {
            small: [const { OnceLock::new() }; ARENA_SMALL],
            large: (0..ARENA_LARGE_SPANS).map(|_| OnceLock::new()).collect(),
            next: AtomicU64::new(0),
        }
    }
}

impl Arena {
    pub(super) fn put(&self, words: impl ExactSizeIterator<Item = u64>) -> u64 {
        // Relaxed: the range is ours alone; the entry's Release publishes it.
        let begin = self.next.fetch_add(words.len() as u64, Ordering::Relaxed);
        for (at, word) in (begin..).zip(words) {
            let (chunk, words, within) = self.place(at);
            chunk.get_or_init(|| (0..words).map(|_| AtomicU64::new(0)).collect())[within]
                .store(word, Ordering::Relaxed);
        }
        begin
    }

    pub(super) fn get(&self, at: u64) -> u64 {
        let (chunk, _, within) = self.place(at);
        let chunk = chunk
            .get()
            .expect("an order's cards are put before it is settled");
        chunk[within].load(Ordering::Relaxed)
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
            .expect("the arena of many-card orders is full")
            .get_or_init(|| (0..ARENA_LARGE_SPAN).map(|_| OnceLock::new()).collect());
        (
            &span[chunk % ARENA_LARGE_SPAN],
            ARENA_CHUNK_WORDS,
            at % ARENA_CHUNK_WORDS,
        )
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        self.next
            .load(Ordering::Relaxed)
            .next_multiple_of(ARENA_SMALLEST_WORDS as u64)
            * 8
    }
}

#[cfg(all(test, not(any(croupier_loom, croupier_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn the_arena_keeps_every_word_over_all_sizes_of_chunks() {
        let arena = Arena::default();
        let count = 3 * ARENA_CHUNK_WORDS as u64 + 5;
        for begin in (0..count).step_by(5) {
            let words = [0, 1, 2, 3, 4].map(|word| (begin + word) * 3);
            assert_eq!(arena.put(words.into_iter()), begin);
        }
        assert!((0..count).all(|at| arena.get(at) == at * 3));
    }
}
