//! The header of a slab: whose it is, where its sections lie, their checksums and the wrapped key.
//!
//! The specification is `docs/slab-format.md`. Bytes in, values out; knows no file and no key. A header that parses is
//! wholly in order: its sections are where version 1 puts them and nowhere else.

use std::mem::offset_of;

use thiserror::Error;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::layout::{
    CLASS_BYTES, HEADER_BYTES, LABELS_BYTES_LIMIT, SlabLayout, WrappedKey, crc32c,
};

/// The first eight bytes of every slab.
pub const SLAB_MAGIC: [u8; 8] = *b"CRPRSLAB";
/// The version this build writes and reads.
pub const SLAB_VERSION: u16 = 1;
/// How much of the header is bound to the wrapped key as associated data: everything that says whose slab it is.
pub const BOUND_BYTES: usize = 64;

/// The header as it lies in the file.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 8],
    version: U16,
    flags: U16,
    header_bytes: U32,
    store_id: [u8; 16],
    slab: U32,
    sku: U32,
    batch: U32,
    pool: U16,
    reserved_46: U16,
    cards: U32,
    class_bytes: U32,
    slot_bytes: U32,
    reserved_60: U32,
    created_unix_ms: U64,
    features: U64,
    claims_offset: U64,
    slots_offset: U64,
    sealed_offset: U64,
    prints_offset: U64,
    labels_offset: U64,
    labels_bytes: U64,
    file_bytes: U64,
    slots_crc: U32,
    sealed_crc: U32,
    prints_crc: U32,
    labels_crc: U32,
    wrapped_key: WrappedKey,
    expires_from_s: U64,
    zero: [u8; 3872],
    header_crc: U32,
}

const _: () = {
    assert!(
        size_of::<RawHeader>() == HEADER_BYTES,
        "every slab would be misread"
    );
    assert!(offset_of!(RawHeader, store_id) == 16);
    assert!(offset_of!(RawHeader, slab) == 32);
    assert!(offset_of!(RawHeader, pool) == 44);
    assert!(offset_of!(RawHeader, cards) == 48);
    assert!(
        offset_of!(RawHeader, created_unix_ms) == BOUND_BYTES,
        "wrapped keys bind what is before it"
    );
    assert!(offset_of!(RawHeader, claims_offset) == 80);
    assert!(offset_of!(RawHeader, file_bytes) == 128);
    assert!(offset_of!(RawHeader, slots_crc) == 136);
    assert!(offset_of!(RawHeader, wrapped_key) == 152);
    assert!(offset_of!(RawHeader, expires_from_s) == 212);
    assert!(offset_of!(RawHeader, zero) == 220);
    assert!(offset_of!(RawHeader, header_crc) == 4092);
};

/// Feature bit: `expires_from_s` says when the first card expires.
const FEATURE_EXPIRES_FROM: u64 = 1;
/// Feature bit: it is written slot by slot, as long as there are slots left.
const FEATURE_GROWS: u64 = 2;

/// CRC-32C of each section that has one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct SectionCrcs {
    pub slots: u32,
    pub sealed: u32,
    pub prints: u32,
    pub labels: u32,
}

/// Whose slab it is and when it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct SlabIdentity {
    pub store_id: [u8; 16],
    pub slab: u32,
    pub sku: u32,
    pub batch: u32,
    pub pool: u16,
    pub created_unix_ms: u64,
}

/// A header that is in order.
#[derive(Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct SlabHeader {
    pub identity: SlabIdentity,
    pub layout: SlabLayout,
    pub crcs: SectionCrcs,
    pub wrapped_key: WrappedKey,
    /// When the first of its cards expires, in Unix seconds; 0 = none ever does. `None`: it does not say so, as it was
    /// made by an earlier build.
    pub expires_from_s: Option<u64>,
    /// It grows: its cards are the slots it has, it has no labels, and its checksums are in the log.
    pub grows: bool,
}

impl SlabHeader {
    /// See [`SlabLayout::of`].
    pub fn layout(cards: u32, class_bytes: u32, labels_bytes: u64) -> SlabLayout {
        SlabLayout::of(cards, class_bytes, labels_bytes)
    }

    /// The header as it is written, checksum included.
    pub fn to_bytes(&self) -> Box<[u8; HEADER_BYTES]> {
        let mut raw = bound_header(&self.identity, &self.layout);
        let layout = &self.layout;
        raw.created_unix_ms = self.identity.created_unix_ms.into();
        raw.claims_offset = layout.claims_offset.into();
        raw.slots_offset = layout.slots_offset.into();
        raw.sealed_offset = layout.sealed_offset.into();
        raw.prints_offset = layout.prints_offset.into();
        raw.labels_offset = layout.labels_offset.into();
        raw.labels_bytes = layout.labels_bytes.into();
        raw.file_bytes = layout.file_bytes.into();
        raw.slots_crc = self.crcs.slots.into();
        raw.sealed_crc = self.crcs.sealed.into();
        raw.prints_crc = self.crcs.prints.into();
        raw.labels_crc = self.crcs.labels.into();
        raw.wrapped_key = self.wrapped_key;
        if let Some(expires_from_s) = self.expires_from_s {
            raw.features = FEATURE_EXPIRES_FROM.into();
            raw.expires_from_s = expires_from_s.into();
        }
        if self.grows {
            raw.features = (raw.features.get() | FEATURE_GROWS).into();
        }
        raw.header_crc = crc32c(&raw.as_bytes()[..offset_of!(RawHeader, header_crc)]).into();
        Box::new(zerocopy::transmute!(raw))
    }

    /// Reads and checks a header. `bytes` is the file's beginning; nothing after the header is looked at.
    pub fn parse(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let (raw, _) = RawHeader::ref_from_prefix(bytes).map_err(|_| HeaderFault::TooShort {
            found_bytes: bytes.len(),
        })?;
        check_whole(raw)?;
        check_fields(raw)?;
        let layout = checked_layout(raw)?;
        Ok(Self {
            identity: SlabIdentity {
                store_id: raw.store_id,
                slab: raw.slab.get(),
                sku: raw.sku.get(),
                batch: raw.batch.get(),
                pool: raw.pool.get(),
                created_unix_ms: raw.created_unix_ms.get(),
            },
            layout,
            crcs: SectionCrcs {
                slots: raw.slots_crc.get(),
                sealed: raw.sealed_crc.get(),
                prints: raw.prints_crc.get(),
                labels: raw.labels_crc.get(),
            },
            wrapped_key: raw.wrapped_key,
            expires_from_s: (raw.features.get() & FEATURE_EXPIRES_FROM != 0)
                .then(|| raw.expires_from_s.get()),
            grows: raw.features.get() & FEATURE_GROWS != 0,
        })
    }

    /// What is bound to the wrapped key as associated data: bytes 0 … 64 of the header.
    pub fn bound_bytes(identity: &SlabIdentity, layout: &SlabLayout) -> [u8; BOUND_BYTES] {
        let raw = bound_header(identity, layout);
        let mut bound = [0; BOUND_BYTES];
        bound.copy_from_slice(&raw.as_bytes()[..BOUND_BYTES]);
        bound
    }
}

/// A header of which only the bound bytes are filled in.
fn bound_header(identity: &SlabIdentity, layout: &SlabLayout) -> RawHeader {
    let mut raw = RawHeader::new_zeroed();
    raw.magic = SLAB_MAGIC;
    raw.version = SLAB_VERSION.into();
    raw.header_bytes = (HEADER_BYTES as u32).into();
    raw.store_id = identity.store_id;
    raw.slab = identity.slab.into();
    raw.sku = identity.sku.into();
    raw.batch = identity.batch.into();
    raw.pool = identity.pool.into();
    raw.cards = layout.cards.into();
    raw.class_bytes = layout.class_bytes.into();
    raw.slot_bytes = (layout.slot_bytes() as u32).into();
    raw
}

/// Magic and version first: another kind of file, or a newer one, has its checksum elsewhere.
fn check_whole(raw: &RawHeader) -> Result<(), HeaderFault> {
    if raw.magic != SLAB_MAGIC {
        return Err(HeaderFault::NotASlab { found: raw.magic });
    }
    if raw.version.get() != SLAB_VERSION {
        return Err(HeaderFault::UnsupportedVersion {
            found: raw.version.get(),
        });
    }
    let expected = crc32c(&raw.as_bytes()[..offset_of!(RawHeader, header_crc)]);
    let found = raw.header_crc.get();
    if found != expected {
        return Err(HeaderFault::Checksum { found, expected });
    }
    Ok(())
}

/// Fields that can have one value only. The checksum was right, so a wrong one was written so.
fn check_fields(raw: &RawHeader) -> Result<(), HeaderFault> {
    let field = |offset, name, found: u64, expected: u64| match found == expected {
        true => Ok(()),
        false => Err(HeaderFault::Field {
            offset,
            name,
            found,
            expected,
        }),
    };
    field(10, "flags", raw.flags.get().into(), 0)?;
    field(
        12,
        "header_bytes",
        raw.header_bytes.get().into(),
        HEADER_BYTES as u64,
    )?;
    field(46, "reserved", raw.reserved_46.get().into(), 0)?;
    field(60, "reserved", raw.reserved_60.get().into(), 0)?;
    let features = raw.features.get();
    // What it is from the start cannot be told of cards that come later.
    let known = match features & FEATURE_GROWS {
        0 => features & FEATURE_EXPIRES_FROM,
        _ => FEATURE_GROWS,
    };
    field(72, "features", features, known)?;
    if features & FEATURE_GROWS != 0 {
        field(120, "labels_bytes", raw.labels_bytes.get(), 0)?;
        let crcs = [
            raw.slots_crc,
            raw.sealed_crc,
            raw.prints_crc,
            raw.labels_crc,
        ];
        for (at, crc) in (offset_of!(RawHeader, slots_crc)..).step_by(4).zip(crcs) {
            field(at, "checksum of what grows", crc.get().into(), 0)?;
        }
    }
    if features & FEATURE_EXPIRES_FROM == 0 {
        let (at, found) = (offset_of!(RawHeader, expires_from_s), raw.expires_from_s);
        field(at, "expires_from_s", found.get(), 0)?;
    }
    match raw.zero.iter().position(|&byte| byte != 0) {
        Some(at) => field(
            offset_of!(RawHeader, zero) + at,
            "zero",
            raw.zero[at].into(),
            0,
        ),
        None => Ok(()),
    }
}

/// The layout, computed again and compared: a header cannot point a section anywhere else.
fn checked_layout(raw: &RawHeader) -> Result<SlabLayout, HeaderFault> {
    let (cards, class_bytes) = (raw.cards.get(), raw.class_bytes.get());
    if cards == 0 {
        return Err(HeaderFault::NoCards);
    }
    if !CLASS_BYTES.contains(&class_bytes) {
        return Err(HeaderFault::UnknownClass { found: class_bytes });
    }
    if raw.labels_bytes.get() > LABELS_BYTES_LIMIT {
        return Err(HeaderFault::LabelsTooLong {
            found: raw.labels_bytes.get(),
        });
    }
    let layout = SlabLayout::of(cards, class_bytes, raw.labels_bytes.get());
    let fields = [
        (
            56,
            "slot_bytes",
            raw.slot_bytes.get().into(),
            layout.slot_bytes() as u64,
        ),
        (
            80,
            "claims_offset",
            raw.claims_offset.get(),
            layout.claims_offset,
        ),
        (
            88,
            "slots_offset",
            raw.slots_offset.get(),
            layout.slots_offset,
        ),
        (
            96,
            "sealed_offset",
            raw.sealed_offset.get(),
            layout.sealed_offset,
        ),
        (
            104,
            "prints_offset",
            raw.prints_offset.get(),
            layout.prints_offset,
        ),
        (
            112,
            "labels_offset",
            raw.labels_offset.get(),
            layout.labels_offset,
        ),
        (128, "file_bytes", raw.file_bytes.get(), layout.file_bytes),
    ];
    match fields
        .into_iter()
        .find(|(_, _, found, expected)| found != expected)
    {
        Some((offset, name, found, expected)) => Err(HeaderFault::Field {
            offset,
            name,
            found,
            expected,
        }),
        None => Ok(layout),
    }
}

/// Why bytes are no header of a slab. Offsets are within the file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[allow(missing_docs)]
pub enum HeaderFault {
    #[error("it has {found_bytes} bytes where a slab's header alone has 4096: it was cut off")]
    TooShort { found_bytes: usize },
    #[error("offset 0: {} is not the magic of a slab", found.escape_ascii())]
    NotASlab { found: [u8; 8] },
    #[error(
        "offset 8: version {found}, this build knows version {SLAB_VERSION}: use the build that wrote it"
    )]
    UnsupportedVersion { found: u16 },
    #[error(
        "offset 4092: the header's checksum is {found:#010x}, its bytes give {expected:#010x}: it was damaged"
    )]
    Checksum { found: u32, expected: u32 },
    #[error("offset {offset}: {name} is {found}, version {SLAB_VERSION} has {expected}")]
    Field {
        offset: usize,
        name: &'static str,
        found: u64,
        expected: u64,
    },
    #[error("offset 48: it says it has no cards")]
    NoCards,
    #[error("offset 52: {found} is no size class of version {SLAB_VERSION}")]
    UnknownClass { found: u32 },
    #[error("offset 120: labels of {found} bytes, at most {LABELS_BYTES_LIMIT} are allowed")]
    LabelsTooLong { found: u64 },
}

#[cfg(test)]
mod tests;
