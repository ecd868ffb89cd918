//! The claim: taking free slots of a slab, lock-free, over plain words of claim bits.
//!
//! One bit a slot, 1 = taken. A claim is a promise made in memory (DESIGN, rule 2); the log makes it a fact. This
//! module knows neither files nor records, only a slice of atomic [`Word`]s, so that it can be model-checked.
//!
//! # Algorithm
//!
//! The caller has first taken *credits* from the pool's `available` counter, so a free bit exists for each of them.
//! [`take_in`] then walks words and sets as many free bits as it wants with one `fetch_or` a word. Bits that somebody
//! else set between the look and the `fetch_or` are seen in its result and simply not ours.
//!
//! # Why the orderings are enough
//!
//! A bit guards immutable bytes that were published with the slab itself (Release store of the slab list, Acquire load
//! by the dealer), so claiming needs atomicity only. Giving back is different: what the former owner did must happen
//! before the next owner's claim, hence `Release` in [`give_back`] and `Acquire` in the `fetch_or` of [`take_in`].

use crate::sync::atomic::{AtomicU64, Ordering};

use croupier_protocol::planted::{self, Bug};

/// A word of claim bits: an atomic of the machine, or of the model checker.
pub trait Word {
    fn load(&self, ordering: Ordering) -> u64;
    fn fetch_or(&self, bits: u64, ordering: Ordering) -> u64;
    fn fetch_and(&self, bits: u64, ordering: Ordering) -> u64;
}

macro_rules! word {
    ($atomic:ty) => {
        impl Word for $atomic {
            #[inline(always)]
            fn load(&self, ordering: Ordering) -> u64 {
                self.load(ordering)
            }

            #[inline(always)]
            fn fetch_or(&self, bits: u64, ordering: Ordering) -> u64 {
                self.fetch_or(bits, ordering)
            }

            #[inline(always)]
            fn fetch_and(&self, bits: u64, ordering: Ordering) -> u64 {
                self.fetch_and(bits, ordering)
            }
        }
    };
}

word!(AtomicU64);

/// Slots in one word.
pub const WORD_SLOTS: u32 = 64;

/// Words of a region: what one core leases at a time, eight cache lines, so that cores do not share lines.
#[cfg(not(any(croupier_loom, croupier_shuttle)))]
pub const REGION_WORDS: usize = 64;
/// Shrunk under the model checker so that region edges are reached.
#[cfg(any(croupier_loom, croupier_shuttle))]
pub const REGION_WORDS: usize = 1;

/// How many words hold `slots` bits.
pub const fn words_for(slots: u32) -> usize {
    slots.div_ceil(WORD_SLOTS) as usize
}

/// The bits of word `word` that stand for slots below `slots`.
pub(crate) fn valid_mask(word: usize, slots: u32) -> u64 {
    let below = slots.saturating_sub(word as u32 * WORD_SLOTS);
    if below >= WORD_SLOTS {
        u64::MAX
    } else {
        (1u64 << below) - 1
    }
}

/// The lowest `want` set bits of `free`.
fn lowest(mut free: u64, want: u32) -> u64 {
    if free.count_ones() <= want {
        return free;
    }
    let mut picked = 0;
    for _ in 0..want {
        let bit = free & free.wrapping_neg();
        picked |= bit;
        free ^= bit;
    }
    picked
}

/// Claims up to `want` free slots in `words[from..to]`, lowest first, and hands each to `taken`. Returns how many.
///
/// `slots` is the number of slots of the whole slab; bits above it are never touched. `*cursor` is left at the first
/// word that may still have a free bit, so that the next call goes on there.
pub fn take_in(
    words: &[impl Word],
    slots: u32,
    cursor: &mut usize,
    to: usize,
    want: u32,
    mut taken: impl FnMut(u32),
) -> u32 {
    let to = to.min(words.len());
    let mut got_in_all = 0;
    while *cursor < to && got_in_all < want {
        let word = &words[*cursor];
        // Relaxed: only a hint; the fetch_or below decides.
        let free = !word.load(Ordering::Relaxed) & valid_mask(*cursor, slots);
        if free == 0 {
            *cursor += 1;
            continue;
        }
        let mask = lowest(free, want - got_in_all);
        // Acquire pairs with the Release of give_back; nothing is published by a claim.
        let before = if planted::is(Bug::ClaimInTwoSteps) {
            let before = word.load(Ordering::Acquire);
            word.fetch_or(mask, Ordering::Acquire);
            before
        } else {
            word.fetch_or(mask, Ordering::Acquire)
        };
        let mut ours = mask & !before;
        got_in_all += ours.count_ones();
        while ours != 0 {
            taken(*cursor as u32 * WORD_SLOTS + ours.trailing_zeros());
            ours &= ours - 1;
        }
    }
    got_in_all
}

/// Sets the bit of `slot`; true when it was free. For recovery, and for picked cards.
pub fn set(words: &[impl Word], slot: u32) -> bool {
    let bit = 1u64 << (slot % WORD_SLOTS);
    // Acquire: as in take_in.
    words[(slot / WORD_SLOTS) as usize].fetch_or(bit, Ordering::Acquire) & bit == 0
}

/// Clears the bit of `slot`; true when it was taken. Only after the record that gives it back has its LSN (rule 3), or when
/// no record has taken it.
pub fn give_back(words: &[impl Word], slot: u32) -> bool {
    let bit = 1u64 << (slot % WORD_SLOTS);
    // Release pairs with the Acquire of take_in: the former owner's doings come before the next claim.
    words[(slot / WORD_SLOTS) as usize].fetch_and(!bit, Ordering::Release) & bit != 0
}

/// Whether the bit of `slot` is set in plain words.
pub fn has(words: &[u64], slot: u32) -> bool {
    words[(slot / WORD_SLOTS) as usize] >> (slot % WORD_SLOTS) & 1 == 1
}

/// The slots whose bits are set in plain words.
pub fn slots_in(words: impl IntoIterator<Item = u64>) -> impl Iterator<Item = u32> {
    (0..).zip(words).flat_map(|(at, word)| {
        let mut left = word;
        std::iter::from_fn(move || {
            let bit = (left != 0).then(|| left.trailing_zeros())?;
            left &= left - 1;
            Some(at * WORD_SLOTS + bit)
        })
    })
}

/// Whether `slot` is taken.
pub fn is_set(words: &[impl Word], slot: u32) -> bool {
    // Relaxed: a snapshot for reports and assertions.
    words[(slot / WORD_SLOTS) as usize].load(Ordering::Relaxed) & (1u64 << (slot % WORD_SLOTS)) != 0
}

/// Taken slots of the slab.
pub fn count_set(words: &[impl Word]) -> u64 {
    // Relaxed: exact only when nobody claims, which is when it is called.
    words
        .iter()
        .map(|word| u64::from(word.load(Ordering::Relaxed).count_ones()))
        .sum()
}

#[cfg(all(test, not(any(croupier_loom, croupier_shuttle))))]
mod tests {
    use super::*;

    fn words(values: &[u64]) -> Vec<AtomicU64> {
        values.iter().map(|&value| AtomicU64::new(value)).collect()
    }

    fn check(before: &[u64], slots: u32, want: u32, expect: &[u32]) {
        let bits = words(before);
        let mut taken = Vec::new();
        let mut cursor = 0;
        let got = take_in(&bits, slots, &mut cursor, usize::MAX, want, |slot| {
            taken.push(slot)
        });
        assert_eq!(taken, expect, "before {before:x?}, want {want}");
        assert_eq!(got as usize, expect.len());
        for &slot in expect {
            assert!(is_set(&bits, slot));
        }
        assert_eq!(count_set(&bits), count_set(&words(before)) + u64::from(got));
    }

    #[test]
    fn takes_the_lowest_free_slots_and_nothing_else() {
        check(&[0], 64, 1, &[0]);
        check(&[0], 64, 3, &[0, 1, 2]);
        check(&[0b1011], 64, 2, &[2, 4]);
        check(&[u64::MAX, 0], 128, 1, &[64]);
        check(&[u64::MAX >> 1, 1], 128, 3, &[63, 65, 66]);
        check(&[0], 2, 5, &[0, 1]);
        check(&[u64::MAX, 0], 66, 64, &[64, 65]);
        check(&[u64::MAX], 64, 1, &[]);
        check(&[], 0, 1, &[]);
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let bits = words(&[u64::MAX]);
        assert!(give_back(&bits, 17));
        assert!(!give_back(&bits, 17), "it was free already");
        assert!(set(&bits, 17));
        assert!(!set(&bits, 17));
    }

    #[test]
    fn many_threads_never_share_a_slot() {
        let slots = 10_000;
        let bits: Vec<AtomicU64> = (0..words_for(slots)).map(|_| AtomicU64::new(0)).collect();
        let mut all: Vec<u32> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let (mut mine, mut cursor) = (Vec::new(), 0);
                        while take_in(&bits, slots, &mut cursor, usize::MAX, 3, |slot| {
                            mine.push(slot)
                        }) > 0
                        {}
                        mine
                    })
                })
                .collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect()
        });
        all.sort_unstable();
        assert_eq!(all, (0..slots).collect::<Vec<_>>());
    }
}

#[cfg(all(test, croupier_loom))]
mod model {
    use super::*;
    use loom::sync::{Arc, atomic::AtomicU64};

    #[test]
    fn two_claimers_and_a_give_back_never_share_a_slot() {
        crate::sync::model("claim: two claimers", None, || {
            let bits = Arc::new(vec![
                AtomicU64::new(u64::MAX << 2),
                AtomicU64::new(u64::MAX << 1),
            ]);
            let claimers: Vec<_> = (0..2)
                .map(|_| {
                    let bits = bits.clone();
                    loom::thread::spawn(move || {
                        let (mut mine, mut cursor) = (Vec::new(), 0);
                        take_in(&bits, 65, &mut cursor, 2, 2, |slot| mine.push(slot));
                        mine
                    })
                })
                .collect();
            let mut all: Vec<u32> = claimers
                .into_iter()
                .flat_map(|claimer| claimer.join().unwrap())
                .collect();
            all.sort_unstable();
            let before = all.len();
            all.dedup();
            assert_eq!(all.len(), before, "one slot, two owners");
            assert_eq!(
                all,
                [0, 1, 64],
                "credits were 4 for 3 free slots: all three are gone"
            );
        });
    }

    #[test]
    fn a_given_back_slot_goes_to_exactly_one() {
        crate::sync::model("claim: a slot given back", None, || {
            let bits = Arc::new(vec![AtomicU64::new(u64::MAX)]);
            let giver = {
                let bits = bits.clone();
                loom::thread::spawn(move || assert!(give_back(&bits, 5)))
            };
            let taker = {
                let bits = bits.clone();
                loom::thread::spawn(move || {
                    let mut cursor = 0;
                    take_in(&bits, 64, &mut cursor, 1, 1, |slot| assert_eq!(slot, 5))
                })
            };
            let mut cursor = 0;
            let mine = take_in(&bits, 64, &mut cursor, 1, 1, |_| ());
            giver.join().unwrap();
            let theirs = taker.join().unwrap();
            assert!(mine + theirs <= 1);
            assert_eq!(is_set(&bits, 5), mine + theirs == 1);
        });
    }
}
