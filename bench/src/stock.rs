//! Cards for a run: secrets that say which card they are, and how many orders the stock is good for.
//!
//! A secret is `tag | number | filler` in hexadecimal: the run's tag (8 digits), which card of which SKU it is (16),
//! and a filler computed from the number. The oracle can therefore tell of every secret whether this run imported it,
//! for which SKU, and whether every byte is as it was imported, without keeping any.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::workload::mix64;

const TAG_BYTES: usize = 8;
const NUMBER_BYTES: usize = 16;
/// The shortest secret there is room for the tag and the number in.
pub const SECRET_BYTES_MIN: usize = TAG_BYTES + NUMBER_BYTES;
/// The longest secret the bench makes.
pub const SECRET_BYTES_MAX: usize = 512;
/// SKUs a run may have: what fits the SKU's part of the number.
pub const SKUS_MAX: usize = 1 << 16;
/// Cards of one SKU a run may have.
pub const CARDS_PER_SKU_MAX: u64 = crate::bitmap::SLOTS_PER_SLAB_MAX as u64;

/// How the secrets of one run look.
#[derive(Debug, Clone)]
pub struct SecretShape {
    tag: [u8; TAG_BYTES],
    bytes: usize,
}

/// What a secret turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretReading {
    /// A card of this run.
    Ours {
        /// Index of its SKU in the run.
        sku_index: u16,
        /// Its number among the cards of that SKU.
        number: u32,
    },
    /// Stock from elsewhere.
    Foreign,
    /// It bears this run's tag, but is not as it was imported.
    Damaged,
}

impl SecretShape {
    /// Secrets of `bytes` bytes, tagged with the run.
    ///
    /// # Panics
    /// If `bytes` is not within [`SECRET_BYTES_MIN`] and [`SECRET_BYTES_MAX`].
    pub fn new(run_id: u128, bytes: usize) -> Self {
        assert!((SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&bytes));
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(
            &hex16(mix64(run_id as u64 ^ mix64((run_id >> 64) as u64)))[..TAG_BYTES],
        );
        Self { tag, bytes }
    }

    /// Bytes of every secret.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Writes the secret of a card to the front of `out`.
    #[inline]
    pub fn write(&self, sku_index: u16, number: u32, out: &mut [u8; SECRET_BYTES_MAX]) {
        let id = u64::from(sku_index) << 32 | u64::from(number);
        out[..TAG_BYTES].copy_from_slice(&self.tag);
        out[TAG_BYTES..SECRET_BYTES_MIN].copy_from_slice(&hex16(id));
        for (index, chunk) in out[SECRET_BYTES_MIN..self.bytes].chunks_mut(16).enumerate() {
            let filler = hex16(mix64(id ^ (index as u64) << 48));
            chunk.copy_from_slice(&filler[..chunk.len()]);
        }
    }

    /// Tells which card a secret is, and whether every byte of it is right.
    #[inline]
    pub fn read(&self, secret: &[u8]) -> SecretReading {
        if !secret.starts_with(&self.tag) {
            return SecretReading::Foreign;
        }
        let Some(digits) = secret.get(TAG_BYTES..SECRET_BYTES_MIN) else {
            return SecretReading::Damaged;
        };
        let id = unhex16(digits.try_into().expect("the range is 16 long"));
        let (sku_index, number) = ((id >> 32) as u16, id as u32);
        let mut expected = [0; SECRET_BYTES_MAX];
        self.write(sku_index, number, &mut expected);
        if secret == &expected[..self.bytes] {
            SecretReading::Ours { sku_index, number }
        } else {
            SecretReading::Damaged
        }
    }
}

const NIBBLES: u64 = 0x0f0f_0f0f_0f0f_0f0f;
const ONES: u64 = 0x0101_0101_0101_0101;

/// Sixteen lower-case hexadecimal digits, eight at a time in one register.
#[inline]
fn hex16(number: u64) -> [u8; 16] {
    let mut text = [0; 16];
    text[..8].copy_from_slice(&hex8((number >> 32) as u32));
    text[8..].copy_from_slice(&hex8(number as u32));
    text
}

#[inline]
fn hex8(number: u32) -> [u8; 8] {
    // Each half moves to its own half of the register, then each byte, then each nibble; the first digit is the
    // highest byte, which big-endian order puts first.
    let mut digits = u64::from(number);
    digits = (digits | digits << 16) & 0x0000_ffff_0000_ffff;
    digits = (digits | digits << 8) & 0x00ff_00ff_00ff_00ff;
    digits = (digits | digits << 4) & NIBBLES;
    // Adding 6 carries into bit 4 from ten on: those digits are letters, 39 further on than '0' + digit.
    let letters = ((digits + 6 * ONES) >> 4) & ONES;
    (digits + u64::from(b'0') * ONES + letters * 39).to_be_bytes()
}

/// The number that sixteen digits mean; what it returns for other bytes is unspecified, and the caller compares.
#[inline]
fn unhex16(text: &[u8; 16]) -> u64 {
    let half = |digits: &[u8]| {
        let raw = u64::from_be_bytes(digits.try_into().expect("halves are 8 long"));
        let letters = (raw >> 6) & ONES;
        let mut digits = (raw & NIBBLES).wrapping_add(letters * 9) & NIBBLES;
        digits = (digits | digits >> 4) & 0x00ff_00ff_00ff_00ff;
        digits = (digits | digits >> 8) & 0x0000_ffff_0000_ffff;
        (digits | digits >> 16) & 0xffff_ffff
    };
    half(&text[..8]) << 32 | half(&text[8..])
}

/// Cards of each SKU that no order of this run has asked for yet. Threads share it, so that no run sends an order
/// that the stock it imported cannot fill.
#[derive(Debug)]
pub struct Budget {
    left: Vec<AtomicI64>,
}

impl Budget {
    /// An empty budget for a number of SKUs.
    pub fn new(skus: usize) -> Self {
        Self {
            left: (0..skus).map(|_| AtomicI64::new(0)).collect(),
        }
    }

    /// Adds cards that were imported.
    pub fn add(&self, sku_index: usize, cards: u64) {
        // Relaxed: a counter of its own, nothing is published through it.
        self.left[sku_index].fetch_add(cards as i64, Ordering::Relaxed);
    }

    /// Cards that are left.
    pub fn left(&self, sku_index: usize) -> u64 {
        // Relaxed: as in `add`.
        self.left[sku_index].load(Ordering::Relaxed).max(0) as u64
    }

    /// Takes so many cards of the first SKU, or all there are, for a budget of their own.
    pub fn split(&self, cards: u64) -> Self {
        let taken = cards.min(self.left(0));
        // Relaxed: as in `add`.
        self.left[0].fetch_sub(taken as i64, Ordering::Relaxed);
        let split = Self::new(self.left.len());
        split.add(0, taken);
        split
    }

    /// Takes the cards of one order; false when there are not enough, and then the run is over.
    #[inline]
    pub fn take(&self, sku_index: usize, cards: u16) -> bool {
        // Relaxed: as in `add`.
        let left = self.left[sku_index].fetch_sub(i64::from(cards), Ordering::Relaxed);
        if left < i64::from(cards) {
            self.left[sku_index].fetch_add(i64::from(cards), Ordering::Relaxed);
        }
        left >= i64::from(cards)
    }
}

/// Cards to import for a SKU that `share` of `orders` name: the mean, six standard deviations and a little more.
pub fn cards_needed(orders: f64, share: f64, quantity: u16) -> u64 {
    let mean = orders * share;
    let spread = (orders * share * (1.0 - share)).sqrt();
    ((mean + 6.0 * spread + 16.0).ceil() * f64::from(quantity)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_read_back() {
        for bytes in [24, 32, 40, 41, 100, SECRET_BYTES_MAX] {
            let shape = SecretShape::new(99, bytes);
            for (sku_index, number) in [
                (0, 0),
                (1, 0xdead_beef),
                (u16::MAX, u32::MAX),
                (7, 1_234_567),
            ] {
                let mut secret = [0; SECRET_BYTES_MAX];
                shape.write(sku_index, number, &mut secret);
                let secret = &secret[..bytes];
                assert!(
                    secret.iter().all(u8::is_ascii_hexdigit),
                    "{}",
                    String::from_utf8_lossy(secret)
                );
                assert_eq!(
                    shape.read(secret),
                    SecretReading::Ours { sku_index, number }
                );
            }
        }
    }

    #[test]
    fn any_changed_byte_is_seen() {
        let shape = SecretShape::new(99, 40);
        let mut secret = [0; SECRET_BYTES_MAX];
        shape.write(3, 77, &mut secret);
        for index in 0..40 {
            let mut changed = secret[..40].to_vec();
            changed[index] ^= 1;
            let expected = if index < TAG_BYTES {
                SecretReading::Foreign
            } else {
                SecretReading::Damaged
            };
            assert_eq!(shape.read(&changed), expected, "byte {index}");
        }
        assert_eq!(shape.read(&secret[..39]), SecretReading::Damaged);
        assert_eq!(shape.read(&secret[..10]), SecretReading::Damaged);
        assert_eq!(shape.read(&secret[..41]), SecretReading::Damaged);
        assert_eq!(shape.read(b""), SecretReading::Foreign);
    }

    #[test]
    fn hexadecimal_is_that_of_the_standard_library() {
        for number in [
            0,
            1,
            9,
            10,
            0xabcd_ef01_2345_6789,
            u64::MAX,
            mix64(1),
            mix64(2),
        ] {
            assert_eq!(hex16(number), format!("{number:016x}").as_bytes());
            assert_eq!(unhex16(&hex16(number)), number);
        }
    }

    #[test]
    fn a_budget_ends_exactly() {
        let budget = Budget::new(1);
        budget.add(0, 5);
        assert!(budget.take(0, 2) && budget.take(0, 3));
        assert!(!budget.take(0, 1));
        budget.add(0, 5);
        let split = budget.split(3);
        assert_eq!((split.left(0), budget.left(0)), (3, 2));
        assert_eq!((budget.split(3).left(0), budget.left(0)), (2, 0));
    }
}
