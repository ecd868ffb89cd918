//! Sealing and opening of slots: AES-256-GCM under the key of a slab, slot identity bound in.
//!
//! Knows one slab's key and ids; not where sealed bytes lie. The nonce of a slot is its number, so a slot must be
//! sealed once only: [`SlabSealer`] therefore hands out each slot once, in [`SealRange`]s, and there is no other way to
//! seal. `open` is the end of an order's way and the only place where a secret of the store is seen again.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};
use bytes::BytesMut;
use croupier_protocol::planted::{self, Bug};
use thiserror::Error;
use zeroize::Zeroize;

use super::layout::{SECRET_LENGTH_BYTES, TAG_BYTES};
use super::vault::{SlabKey, aes_key};

const NONCE_BYTES: usize = 12;
const BOUND_BYTES: usize = 24;

/// What is the same for every slot of a slab.
struct SlotCipher {
    key: LessSafeKey,
    slab: u32,
    class_bytes: usize,
    /// store_id ‖ slab ‖ room for the slot.
    bound: [u8; BOUND_BYTES],
}

impl SlotCipher {
    fn new(key: &SlabKey, store_id: [u8; 16], slab: u32, class_bytes: u32) -> Self {
        let mut bound = [0; BOUND_BYTES];
        bound[..16].copy_from_slice(&store_id);
        bound[16..20].copy_from_slice(&slab.to_le_bytes());
        Self {
            key: aes_key(&key.0),
            slab,
            class_bytes: class_bytes as usize,
            bound,
        }
    }

    #[inline]
    fn nonce_and_bound(&self, slot: u32) -> (Nonce, Aad<[u8; BOUND_BYTES]>) {
        let slot = if planted::is(Bug::NonceReuse) {
            slot / 2
        } else {
            slot
        };
        let mut nonce = [0; NONCE_BYTES];
        nonce[8..].copy_from_slice(&slot.to_le_bytes());
        let mut bound = self.bound;
        bound[20..].copy_from_slice(&slot.to_le_bytes());
        (Nonce::assume_unique_for_key(nonce), Aad::from(bound))
    }
}

/// Seals the slots of one new slab, each exactly once.
pub struct SlabSealer {
    cipher: SlotCipher,
    cards: u32,
    next_slot: AtomicU32,
}

impl SlabSealer {
    /// For a slab of `cards` slots under a key that has sealed nothing yet, hence by value.
    pub fn new(key: SlabKey, store_id: [u8; 16], slab: u32, class_bytes: u32, cards: u32) -> Self {
        let cipher = SlotCipher::new(&key, store_id, slab, class_bytes);
        Self {
            cipher,
            cards,
            next_slot: AtomicU32::new(0),
        }
    }

    /// The next `slots` slots that nobody has taken yet, fewer at the end; `None` when all are taken.
    pub fn take(&self, slots: u32) -> Option<SealRange<'_>> {
        assert!(slots > 0);
        // Relaxed: the counter alone decides who seals what; nothing else is published through it.
        let taken = self
            .next_slot
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
                (next < self.cards).then(|| next.saturating_add(slots).min(self.cards))
            });
        let first = taken.ok()?;
        let end = first.saturating_add(slots).min(self.cards);
        Some(SealRange {
            cipher: &self.cipher,
            next: first,
            end,
        })
    }
}

impl fmt::Debug for SlabSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlabSealer(slab {}, redacted)", self.cipher.slab)
    }
}

/// Consecutive slots that only the holder may seal, in order.
pub struct SealRange<'a> {
    cipher: &'a SlotCipher,
    next: u32,
    end: u32,
}

impl SealRange<'_> {
    /// The slots not sealed yet.
    pub fn slots(&self) -> std::ops::Range<u32> {
        self.next..self.end
    }

    /// Seals `secret` into the next slot. `sealed` is that slot's bytes, whole: class and tag.
    pub fn seal_next(&mut self, secret: &[u8], sealed: &mut [u8]) {
        assert!(self.next < self.end, "every slot of the range is sealed");
        let class_bytes = self.cipher.class_bytes;
        assert_eq!(sealed.len(), class_bytes + TAG_BYTES);
        let (plaintext, tag) = sealed.split_at_mut(class_bytes);
        let (length, rest) = plaintext.split_at_mut(SECRET_LENGTH_BYTES);
        length.copy_from_slice(&(secret.len() as u16).to_le_bytes());
        rest[..secret.len()].copy_from_slice(secret);
        rest[secret.len()..].fill(0);
        let (nonce, bound) = self.cipher.nonce_and_bound(self.next);
        self.next += 1;
        self.cipher
            .key
            .seal_in_place_scatter(nonce, bound, plaintext, &[], tag)
            .expect("a slot is far below what AES-GCM can seal");
    }
}

/// Opens the slots of one slab.
pub struct SlabOpener {
    cipher: SlotCipher,
}

impl SlabOpener {
    /// For the slab whose key this is.
    pub fn new(key: &SlabKey, store_id: [u8; 16], slab: u32, class_bytes: u32) -> Self {
        Self {
            cipher: SlotCipher::new(key, store_id, slab, class_bytes),
        }
    }

    /// Appends the secret of `slot` to `out` and returns its length. `sealed` is the slot's bytes, whole.
    ///
    /// Nothing but the secret stays behind in `out`, also not in its spare room, and on an error `out` is as it was.
    /// Allocates only when `out` has less spare room than the class: reserve, as a growing buffer leaves copies.
    #[inline]
    pub fn open(&self, slot: u32, sealed: &[u8], out: &mut BytesMut) -> Result<usize, SealError> {
        let start = out.len();
        out.resize(start + self.cipher.class_bytes, 0);
        let opened = self.open_into(slot, sealed, &mut out[start..]);
        out.truncate(start + opened.unwrap_or(0));
        opened
    }

    /// Opens into a place of exactly the class's bytes: the secret first, zeros behind it; only zeros on an error.
    #[inline]
    fn open_into(&self, slot: u32, sealed: &[u8], place: &mut [u8]) -> Result<usize, SealError> {
        let damaged = SealError::Damaged {
            slab: self.cipher.slab,
            slot,
        };
        let (ciphertext, tag) = sealed.split_at_checked(place.len()).ok_or(damaged)?;
        let (nonce, bound) = self.cipher.nonce_and_bound(slot);
        let opened = self
            .cipher
            .key
            .open_separate_gather(nonce, bound, ciphertext, tag, place);
        let length = usize::from(u16::from_le_bytes([place[0], place[1]]));
        let end = SECRET_LENGTH_BYTES + length;
        if opened.is_err() || end > place.len() {
            place.zeroize();
            return Err(damaged);
        }
        place.copy_within(SECRET_LENGTH_BYTES..end, 0);
        // The secret moved down by two bytes, so its last two stand there once more; behind them is only padding.
        place[length..end].zeroize();
        Ok(length)
    }
}

impl fmt::Debug for SlabOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlabOpener(slab {}, redacted)", self.cipher.slab)
    }
}

/// A slot that gives no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[allow(missing_docs)]
pub enum SealError {
    #[error(
        "slot {slot} of slab {slab} does not open: its bytes were changed; run `croupier wal verify` and restore the slab from a copy"
    )]
    Damaged { slab: u32, slot: u32 },
    #[error(
        "slab {slab} has {cards} slots, slot {slot} was asked for: the log and the slab do not belong together"
    )]
    NoSuchSlot { slab: u32, slot: u32, cards: u32 },
}

#[cfg(test)]
mod tests;
