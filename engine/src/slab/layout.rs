//! Sizes and places in a slab: size classes, entries of the tables, and where each section begins.
//!
//! The specification is `docs/slab-format.md`; this module is its translation and nothing more. It may not know files,
//! keys or claims. Next: [`crate::slab::header`], then [`crate::slab::file`] for opening.
//!
//! ```text
//! header · claim words · slot table · sealed slots · fingerprints · labels       each at a multiple of 4096
//! ```

use std::mem::offset_of;
use std::ops::Range;

use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of the header.
pub const HEADER_BYTES: usize = 4096;
/// Every section begins at a multiple of this, and the file ends at one.
pub const SECTION_ALIGN_BYTES: u64 = 4096;
/// The tag of AES-256-GCM.
pub const TAG_BYTES: usize = 16;
/// A plaintext begins with the length of its secret.
pub const SECRET_LENGTH_BYTES: usize = 2;
/// Bytes of the random nonce a slab key is wrapped with.
pub const WRAP_NONCE_BYTES: usize = 12;
/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// The largest labels section: offsets into it are 32 bits wide.
pub const LABELS_BYTES_LIMIT: u64 = u32::MAX as u64;

/// Plaintext bytes of a slot, the two of the length included.
///
/// Equal secrets have equal classes, which is why duplicates are only looked for within a class: a new version of the
/// format that changes this list must look in all of them.
pub const CLASS_BYTES: [u32; 19] = [
    32, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 448, 512, 768, 1024, 1536, 2048, 3072, 4112,
];

/// The largest class: no plaintext is longer.
pub const CLASS_BYTES_MAX: usize = CLASS_BYTES[CLASS_BYTES.len() - 1] as usize;

/// Which of [`CLASS_BYTES`] a secret of this length falls into; `None` when it is too long for a card.
pub fn class_index(secret_bytes: usize) -> Option<usize> {
    let plaintext_bytes = secret_bytes + SECRET_LENGTH_BYTES;
    let class =
        CLASS_BYTES.partition_point(|&class_bytes| (class_bytes as usize) < plaintext_bytes);
    (class < CLASS_BYTES.len()).then_some(class)
}

/// CRC-32C (Castagnoli, as in iSCSI).
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// A slab key, wrapped for the header.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct WrappedKey {
    /// Random.
    pub nonce: [u8; WRAP_NONCE_BYTES],
    /// The key, encrypted.
    pub key: [u8; KEY_BYTES],
    /// Proves key and bound header bytes.
    pub tag: [u8; TAG_BYTES],
}

/// One entry of the slot table as it lies in the file.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SlotEntryRaw {
    /// Unix seconds; 0 = never.
    pub expires_at_s: U64,
    /// Ten-thousandths of the currency unit; [`AMOUNT_NONE`] = not given.
    pub premium_e4: I64,
    /// Ten-thousandths of the currency unit; [`AMOUNT_NONE`] = not given.
    pub cost_e4: I64,
    /// Within the labels section.
    pub label_offset: U32,
    /// Length of the label.
    pub label_bytes: U16,
    /// Zero.
    pub reserved: U16,
}

/// What stands for an amount that was not given.
pub const AMOUNT_NONE: i64 = i64::MIN;

/// One entry of the fingerprints as it lies in the file; entries are sorted by (fingerprint, slot).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct PrintEntry {
    /// See [`crate::slab::vault::Fingerprint`].
    pub fingerprint: [u8; 16],
    /// The slot that holds the secret.
    pub slot: U32,
    /// Zero.
    pub reserved: U32,
}

/// Bytes of one [`SlotEntryRaw`].
pub const SLOT_ENTRY_BYTES: usize = size_of::<SlotEntryRaw>();
/// Bytes of one [`PrintEntry`].
pub const PRINT_ENTRY_BYTES: usize = size_of::<PrintEntry>();

const _: () = {
    assert!(size_of::<WrappedKey>() == 60, "the header would shift");
    assert!(SLOT_ENTRY_BYTES == 32, "the slot table would be misread");
    assert!(offset_of!(SlotEntryRaw, label_offset) == 24);
    assert!(PRINT_ENTRY_BYTES == 24, "duplicates would be missed");
    assert!(offset_of!(PrintEntry, slot) == 16);
};

/// Where everything lies. Wholly determined by the number of cards, their class and the bytes of their labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlabLayout {
    /// At least one.
    pub cards: u32,
    /// One of [`CLASS_BYTES`].
    pub class_bytes: u32,
    /// One bit a slot.
    pub claims_offset: u64,
    /// [`SLOT_ENTRY_BYTES`] a slot.
    pub slots_offset: u64,
    /// [`SlabLayout::slot_bytes`] a slot.
    pub sealed_offset: u64,
    /// [`PRINT_ENTRY_BYTES`] a slot.
    pub prints_offset: u64,
    /// UTF-8.
    pub labels_offset: u64,
    /// May be 0.
    pub labels_bytes: u64,
    /// The whole file.
    pub file_bytes: u64,
}

impl SlabLayout {
    /// The layout of a slab. `class_bytes` is one of [`CLASS_BYTES`], `cards` is not 0.
    pub fn of(cards: u32, class_bytes: u32, labels_bytes: u64) -> Self {
        assert!(cards > 0, "a slab without cards is not written");
        assert!(
            labels_bytes <= LABELS_BYTES_LIMIT,
            "label offsets are 32 bits wide"
        );
        let slots = u64::from(cards);
        let claims_offset = HEADER_BYTES as u64;
        let slots_offset = aligned(claims_offset + slots.div_ceil(64) * 8);
        let sealed_offset = aligned(slots_offset + slots * SLOT_ENTRY_BYTES as u64);
        let slot_bytes = u64::from(class_bytes) + TAG_BYTES as u64;
        let prints_offset = aligned(sealed_offset + slots * slot_bytes);
        let labels_offset = aligned(prints_offset + slots * PRINT_ENTRY_BYTES as u64);
        Self {
            cards,
            class_bytes,
            claims_offset,
            slots_offset,
            sealed_offset,
            prints_offset,
            labels_offset,
            labels_bytes,
            file_bytes: aligned(labels_offset + labels_bytes),
        }
    }

    /// Bytes of one sealed slot: the plaintext and its tag.
    pub fn slot_bytes(&self) -> usize {
        self.class_bytes as usize + TAG_BYTES
    }

    /// How many 64-bit words hold the claim bits.
    pub fn claim_words(&self) -> usize {
        self.cards.div_ceil(64) as usize
    }

    /// The bytes of one section within the file.
    pub fn section(&self, section: Section) -> Range<u64> {
        self.part(section, self.cards)
    }

    /// The bytes of one section that belong to its first `cards` cards; claim words and labels are not cut.
    pub fn part(&self, section: Section, cards: u32) -> Range<u64> {
        let cards = u64::from(cards);
        let (offset, bytes) = match section {
            Section::Claims => (self.claims_offset, self.claim_words() as u64 * 8),
            Section::Slots => (self.slots_offset, cards * SLOT_ENTRY_BYTES as u64),
            Section::Sealed => (self.sealed_offset, cards * self.slot_bytes() as u64),
            Section::Prints => (self.prints_offset, cards * PRINT_ENTRY_BYTES as u64),
            Section::Labels => (self.labels_offset, self.labels_bytes),
        };
        offset..offset + bytes
    }
}

fn aligned(offset: u64) -> u64 {
    offset.next_multiple_of(SECTION_ALIGN_BYTES)
}

/// The sections after the header, in the order of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Section {
    Claims,
    Slots,
    Sealed,
    Prints,
    Labels,
}

impl Section {
    /// In the order of the file.
    pub const ALL: [Self; 5] = [
        Self::Claims,
        Self::Slots,
        Self::Sealed,
        Self::Prints,
        Self::Labels,
    ];

    /// As the format page calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Claims => "claim words",
            Self::Slots => "slot table",
            Self::Sealed => "sealed slots",
            Self::Prints => "fingerprints",
            Self::Labels => "labels",
        }
    }
}

#[cfg(test)]
mod tests;
