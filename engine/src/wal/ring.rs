//! The ring: where dealers put records and the committer finds them, lock-free, in LSN order.
//!
//! The unit is 64 bytes ([`UNIT_WORDS`] words) and an LSN is a position in units, so that one `compare_exchange` on
//! `head` gives a batch of records both its place in the ring and its LSNs: ring order *is* LSN order.
//!
//! # Algorithm
//!
//! * A producer reserves `n` units by moving `head`, copies its words, and then publishes the batch by storing its end
//!   position into `ends[start]`.
//! * The committer stands at a batch start `pos`. `ends[pos] > pos` means that the batch is complete. A stamp left by an
//!   earlier lap cannot lie: that batch began at `pos - k·capacity` and was at most `capacity` long, so its end is ≤ `pos`.
//! * After its block is durable the committer moves `tail`, which lets producers overwrite.
//!
//! # Why the orderings are enough
//!
//! `ends` Release → Acquire carries the words to the committer. `tail` Release → Acquire carries "these words have been
//! read" to the producer that overwrites them. `head` itself publishes nothing. The words are relaxed atomics, which
//! on real machines are plain moves, and let this module be safe code.

use croupier_protocol::planted::{self, Bug};

use crate::sync::atomic::{AtomicU64, Ordering};

/// Words of a unit.
#[cfg(not(croupier_loom))]
pub const UNIT_WORDS: usize = 8;
/// One word under the model checker, which explores every store.
#[cfg(croupier_loom)]
pub const UNIT_WORDS: usize = 1;
/// Bytes of a unit.
pub const UNIT_BYTES: usize = UNIT_WORDS * 8;

/// A value on cache lines of its own: `head` is written by producers, `tail` by the committer.
#[repr(align(128))]
struct Lonely<T>(T);

/// A bounded multi-producer, single-consumer ring of 64-byte units.
pub struct Ring {
    words: Box<[AtomicU64]>,
    /// By start position of a batch: its end. See the module for why stale stamps are harmless.
    ends: Box<[AtomicU64]>,
    /// The next LSN to give out. Invariant: `head - tail <= capacity`.
    head: Lonely<AtomicU64>,
    /// Everything below has been made durable and may be overwritten.
    tail: Lonely<AtomicU64>,
    mask: u64,
}

impl Ring {
    /// A ring of `capacity_units` (a power of two) whose first batch gets the LSN `first_lsn` (≥ 1).
    pub fn new(capacity_units: usize, first_lsn: u64) -> Ring {
        assert!(capacity_units.is_power_of_two() && first_lsn >= 1);
        let zeros = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect();
        Ring {
            words: zeros(capacity_units * UNIT_WORDS),
            ends: zeros(capacity_units),
            head: Lonely(AtomicU64::new(first_lsn)),
            tail: Lonely(AtomicU64::new(first_lsn)),
            mask: capacity_units as u64 - 1,
        }
    }

    /// Units it holds.
    pub fn capacity_units(&self) -> u64 {
        self.mask + 1
    }

    /// Units that could be appended just now.
    pub fn room_units(&self) -> u64 {
        // tail first: a head read later can only make the room look smaller than it was.
        // Acquire: as in append.
        let tail = self.tail.0.load(Ordering::Acquire);
        let head = self.head.0.load(Ordering::Relaxed);
        self.capacity_units()
            .saturating_sub(head.saturating_sub(tail))
    }

    /// The LSN after the last one given out.
    pub fn end(&self) -> u64 {
        // Acquire: whoever asks wants to wait for what was appended before.
        self.head.0.load(Ordering::Acquire)
    }

    /// Appends a batch (a whole number of units) and returns the LSN of its first unit; `None` when there is no room.
    pub fn append(&self, batch: &[u64]) -> Option<u64> {
        assert!(
            !batch.is_empty() && batch.len().is_multiple_of(UNIT_WORDS),
            "whole units only"
        );
        let units = (batch.len() / UNIT_WORDS) as u64;
        let mut head = self.head.0.load(Ordering::Relaxed);
        loop {
            // Acquire pairs with release_to: the committer has read what is about to be overwritten.
            let tail = self.tail.0.load(Ordering::Acquire);
            if head + units > tail + self.capacity_units() {
                return None;
            }
            // AcqRel: a batch that is reserved later also comes later for whoever reads `end`.
            match self.head.0.compare_exchange_weak(
                head,
                head + units,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
        if planted::is(Bug::StampBeforeWords) {
            self.ends[(head & self.mask) as usize].store(head + units, Ordering::Release);
        }
        let start = (head & self.mask) as usize * UNIT_WORDS;
        let first = batch.len().min(self.words.len() - start);
        for (word, &value) in self.words[start..start + first].iter().zip(&batch[..first]) {
            word.store(value, Ordering::Relaxed);
        }
        for (word, &value) in self.words.iter().zip(&batch[first..]) {
            word.store(value, Ordering::Relaxed);
        }
        // Release pairs with the Acquire of take: the words above are there when the stamp is.
        self.ends[(head & self.mask) as usize].store(head + units, Ordering::Release);
        Some(head)
    }

    /// The end of the batch that begins at `pos`, once it is complete.
    fn batch_end(&self, pos: u64) -> Option<u64> {
        // Acquire pairs with the Release of append.
        let end = self.ends[(pos & self.mask) as usize].load(Ordering::Acquire);
        (end > pos).then_some(end)
    }

    /// Whether the batch at `pos` is complete. Certain only for whoever commits; a hint for others.
    pub fn ready(&self, pos: u64) -> bool {
        self.batch_end(pos).is_some()
    }

    /// Copies complete batches from `pos` on into `out` (little-endian), as many as fit whole, and returns the position
    /// after them. A batch larger than `out` would never go, so producers keep batches small (see `Log::append`). Only
    /// for the one committer.
    pub fn take(&self, pos: u64, out: &mut [u8]) -> u64 {
        let units_max = (out.len() / UNIT_BYTES) as u64;
        let mut at = pos;
        while let Some(end) = self.batch_end(at) {
            if end - pos > units_max {
                break;
            }
            for unit in at..end {
                let from = (unit & self.mask) as usize * UNIT_WORDS;
                let to = (unit - pos) as usize * UNIT_BYTES;
                let words = &self.words[from..from + UNIT_WORDS];
                for (bytes, word) in out[to..to + UNIT_BYTES].chunks_exact_mut(8).zip(words) {
                    // Relaxed: ordered by the Acquire of batch_end.
                    bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
                }
            }
            at = end;
        }
        at
    }

    /// Lets producers overwrite everything below `lsn`. Only for the one committer.
    pub fn release_to(&self, lsn: u64) {
        // Release pairs with the Acquire of append and room_units.
        self.tail.0.store(lsn, Ordering::Release);
    }
}

#[cfg(all(test, not(any(croupier_loom, croupier_shuttle))))]
mod tests {
    use super::*;

    fn unit(value: u64) -> [u64; UNIT_WORDS] {
        [value; UNIT_WORDS]
    }

    #[test]
    fn batches_come_out_in_lsn_order_over_many_laps() {
        let ring = Ring::new(4, 1);
        let mut pos = 1;
        for lap in 0..50u64 {
            assert_eq!(ring.append(&unit(lap)), Some(pos));
            assert_eq!(ring.append(&[unit(lap), unit(lap)].concat()), Some(pos + 1));
            assert_eq!(
                ring.append(&[unit(9), unit(9)].concat()),
                None,
                "one unit of room is left"
            );
            let mut out = [0; 4 * UNIT_BYTES];
            let end = ring.take(pos, &mut out);
            assert_eq!(end, pos + 3);
            assert_eq!(
                out[..3 * UNIT_BYTES],
                lap.to_le_bytes().repeat(3 * UNIT_WORDS)
            );
            assert!(!ring.ready(end));
            pos = end;
            ring.release_to(pos);
        }
    }

    #[test]
    fn a_block_stops_at_a_batch_edge() {
        let ring = Ring::new(8, 1);
        ring.append(&[unit(1), unit(1), unit(1)].concat()).unwrap();
        ring.append(&[unit(2), unit(2)].concat()).unwrap();
        let mut out = [0; 4 * UNIT_BYTES];
        assert_eq!(
            ring.take(1, &mut out),
            4,
            "the second batch would not fit whole"
        );
        assert_eq!(ring.take(4, &mut out), 6);
    }
}

#[cfg(all(test, croupier_loom))]
mod model {
    use super::*;
    use loom::sync::Arc;

    /// Takes and releases what is ready, and counts whole units by the value they hold.
    fn commit(ring: &Ring, pos: &mut u64, seen: &mut [usize; 4]) {
        let mut out = [0; CAPACITY_UNITS * UNIT_BYTES];
        let end = ring.take(*pos, &mut out);
        for unit in out.chunks(UNIT_BYTES).take((end - *pos) as usize) {
            seen[unit[0] as usize] += 1;
        }
        *pos = end;
        ring.release_to(end);
    }

    const CAPACITY_UNITS: usize = 4;

    /// Batches that wrap, find no room, or overwrite what was released a moment ago; stamps of the lap before are there.
    #[test]
    fn producers_and_the_committer_agree_on_every_batch() {
        crate::sync::model("ring: producers and the committer", None, || {
            let ring = Arc::new(Ring::new(CAPACITY_UNITS, 1));
            let (mut pos, mut seen) = (1, [0; 4]);
            for _ in 0..3 {
                ring.append(&[3; UNIT_WORDS]).unwrap();
            }
            let pair = {
                let ring = ring.clone();
                loom::thread::spawn(move || {
                    2 * usize::from(ring.append(&[1; 2 * UNIT_WORDS]).is_some())
                })
            };
            let single = {
                let ring = ring.clone();
                loom::thread::spawn(move || usize::from(ring.append(&[2; UNIT_WORDS]).is_some()))
            };
            commit(&ring, &mut pos, &mut seen);
            commit(&ring, &mut pos, &mut seen);
            let appended = [0, pair.join().unwrap(), single.join().unwrap(), 3];
            commit(&ring, &mut pos, &mut seen);
            assert_eq!(seen, appended, "each record once, none of another lap");
            assert_eq!(pos, ring.end());
        });
    }
}
