//! The log's bytes: segment header and block header, as docs/wal-format.md draws them. Knows no files.

use aws_lc_rs::digest;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Blocks begin at, and are padded to, a multiple of this; also the bytes of a segment header.
pub const BLOCK_ALIGN_BYTES: usize = 4096;
/// What a disk writes whole or not at all.
pub const SECTOR_BYTES: usize = 512;
pub const SEGMENT_HEADER_BYTES: usize = 4096;
pub const BLOCK_HEADER_BYTES: usize = 128;
/// Block flag: the log goes on in the next segment.
pub const BLOCK_LAST: u16 = 1;
pub const WAL_VERSION: u16 = 1;

const SEGMENT_MAGIC: [u8; 8] = *b"CRPRWAL1";
const BLOCK_MAGIC: [u8; 8] = *b"CRPRBLK1";

/// 128-bit id of a store, made by `croupier init`; every file of the store carries it.
pub type StoreId = [u8; 16];
/// SHA-256 of a block's header and body.
pub type BlockHash = [u8; 32];

/// CRC-32C (Castagnoli).
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// Bytes that a block with `body_bytes` takes in a segment.
pub const fn block_bytes(body_bytes: usize) -> usize {
    (BLOCK_HEADER_BYTES + body_bytes).next_multiple_of(BLOCK_ALIGN_BYTES)
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
struct RawSegmentHeader {
    magic: [u8; 8],
    version: U16,
    flags: U16,
    header_bytes: U32,
    store_id: StoreId,
    seq: U64,
    segment_bytes: U64,
    created_unix_ms: U64,
    features: U64,
}
const _: () = assert!(
    size_of::<RawSegmentHeader>() == 64,
    "docs/wal-format.md: segment header fields end at 64"
);

/// The header of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    pub store_id: StoreId,
    pub seq: u64,
    pub segment_bytes: u64,
    pub created_unix_ms: u64,
}

impl SegmentHeader {
    /// The header as the first 4096 bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let raw = RawSegmentHeader {
            magic: SEGMENT_MAGIC,
            version: U16::new(WAL_VERSION),
            flags: U16::new(0),
            header_bytes: U32::new(SEGMENT_HEADER_BYTES as u32),
            store_id: self.store_id,
            seq: U64::new(self.seq),
            segment_bytes: U64::new(self.segment_bytes),
            created_unix_ms: U64::new(self.created_unix_ms),
            features: U64::new(0),
        };
        let mut page = vec![0; SEGMENT_HEADER_BYTES];
        page[..64].copy_from_slice(raw.as_bytes());
        let crc = crc32c(&page[..SEGMENT_HEADER_BYTES - 4]);
        page[SEGMENT_HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        page
    }

    /// Reads and checks a header; the error says what is wrong with it.
    pub fn decode(page: &[u8]) -> Result<SegmentHeader, String> {
        if page.len() < SEGMENT_HEADER_BYTES {
            return Err(format!(
                "a segment header has {SEGMENT_HEADER_BYTES} bytes, here are {}",
                page.len()
            ));
        }
        let page = &page[..SEGMENT_HEADER_BYTES];
        let (raw, _) = RawSegmentHeader::read_from_prefix(page).expect("64 of 4096 bytes");
        if raw.magic != SEGMENT_MAGIC {
            return Err("not a log segment (wrong magic)".into());
        }
        let crc = u32::from_le_bytes(
            page[SEGMENT_HEADER_BYTES - 4..]
                .try_into()
                .expect("four bytes"),
        );
        if crc != crc32c(&page[..SEGMENT_HEADER_BYTES - 4]) {
            return Err("the segment header's checksum is wrong".into());
        }
        if raw.version.get() != WAL_VERSION || raw.features.get() != 0 || raw.flags.get() != 0 {
            return Err(format!(
                "log version {} with features {:#x}: this program knows version {WAL_VERSION}; use a newer croupier",
                raw.version, raw.features
            ));
        }
        Ok(SegmentHeader {
            store_id: raw.store_id,
            seq: raw.seq.get(),
            segment_bytes: raw.segment_bytes.get(),
            created_unix_ms: raw.created_unix_ms.get(),
        })
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
struct RawBlockHeader {
    magic: [u8; 8],
    version: U16,
    flags: U16,
    header_bytes: U32,
    store_id: StoreId,
    epoch: U64,
    block: U64,
    first_lsn: U64,
    end_lsn: U64,
    durable_lsn: U64,
    prev_hash: BlockHash,
    body_bytes: U32,
    body_crc: U32,
    unix_ms: U64,
    features: U32,
    header_crc: U32,
}
const _: () = assert!(
    size_of::<RawBlockHeader>() == BLOCK_HEADER_BYTES,
    "docs/wal-format.md: 128 bytes"
);
const _: () = assert!(std::mem::offset_of!(RawBlockHeader, prev_hash) == 72);
const _: () = assert!(std::mem::offset_of!(RawBlockHeader, header_crc) == 124);

/// The header of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    pub flags: u16,
    pub store_id: StoreId,
    pub epoch: u64,
    pub block: u64,
    pub first_lsn: u64,
    pub end_lsn: u64,
    pub durable_lsn: u64,
    pub prev_hash: BlockHash,
    pub body_bytes: u32,
    pub body_crc: u32,
    pub unix_ms: u64,
}

impl BlockHeader {
    /// Writes the header, with its checksum, over the first bytes of `out`.
    pub fn encode(&self, out: &mut [u8]) {
        let raw = RawBlockHeader {
            magic: BLOCK_MAGIC,
            version: U16::new(WAL_VERSION),
            flags: U16::new(self.flags),
            header_bytes: U32::new(BLOCK_HEADER_BYTES as u32),
            store_id: self.store_id,
            epoch: U64::new(self.epoch),
            block: U64::new(self.block),
            first_lsn: U64::new(self.first_lsn),
            end_lsn: U64::new(self.end_lsn),
            durable_lsn: U64::new(self.durable_lsn),
            prev_hash: self.prev_hash,
            body_bytes: U32::new(self.body_bytes),
            body_crc: U32::new(self.body_crc),
            unix_ms: U64::new(self.unix_ms),
            features: U32::new(0),
            header_crc: U32::new(0),
        };
        out[..BLOCK_HEADER_BYTES].copy_from_slice(raw.as_bytes());
        let crc = crc32c(&out[..BLOCK_HEADER_BYTES - 4]);
        out[BLOCK_HEADER_BYTES - 4..BLOCK_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads and checks a header by itself; the error says what is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<BlockHeader, String> {
        let Ok((raw, _)) = RawBlockHeader::read_from_prefix(bytes) else {
            return Err(format!(
                "a block header has {BLOCK_HEADER_BYTES} bytes, here are {}",
                bytes.len()
            ));
        };
        if raw.magic != BLOCK_MAGIC {
            return Err("no block begins here (wrong magic)".into());
        }
        if raw.header_crc.get() != crc32c(&bytes[..BLOCK_HEADER_BYTES - 4]) {
            return Err("the block header's checksum is wrong".into());
        }
        let flags = raw.flags.get();
        if raw.version.get() != WAL_VERSION || raw.features.get() != 0 || flags & !BLOCK_LAST != 0 {
            return Err(format!(
                "log version {} with features {:#x} and flags {flags:#x}: this program knows version {WAL_VERSION}; \
                 use a newer croupier",
                raw.version, raw.features
            ));
        }
        let header = BlockHeader {
            flags,
            store_id: raw.store_id,
            epoch: raw.epoch.get(),
            block: raw.block.get(),
            first_lsn: raw.first_lsn.get(),
            end_lsn: raw.end_lsn.get(),
            durable_lsn: raw.durable_lsn.get(),
            prev_hash: raw.prev_hash,
            body_bytes: raw.body_bytes.get(),
            body_crc: raw.body_crc.get(),
            unix_ms: raw.unix_ms.get(),
        };
        let units = header.end_lsn.checked_sub(header.first_lsn);
        if units.and_then(|units| units.checked_mul(super::ring::UNIT_BYTES as u64))
            != Some(header.body_bytes.into())
        {
            return Err("the block header contradicts itself (LSNs and length)".into());
        }
        if raw.header_bytes.get() != BLOCK_HEADER_BYTES as u32
            || flags & BLOCK_LAST != 0 && header.body_bytes != 0
        {
            return Err(
                "the block header contradicts itself (header length, or LAST with records)".into(),
            );
        }
        Ok(header)
    }
}

/// The hash that the next block carries as `prev_hash`: over header and body, without padding.
pub fn block_hash(header_and_body: &[u8]) -> BlockHash {
    digest::digest(&digest::SHA256, header_and_body)
        .as_ref()
        .try_into()
        .expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> BlockHeader {
        BlockHeader {
            flags: 0,
            store_id: [7; 16],
            epoch: 3,
            block: 9,
            first_lsn: 100,
            end_lsn: 102,
            durable_lsn: 100,
            prev_hash: [1; 32],
            body_bytes: 128,
            body_crc: 5,
            unix_ms: 1_700_000_000_000,
        }
    }

    #[test]
    fn headers_round_trip_and_every_flipped_bit_is_seen() {
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        header().encode(&mut bytes);
        assert_eq!(BlockHeader::decode(&bytes), Ok(header()));
        for bit in 0..BLOCK_HEADER_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(BlockHeader::decode(&flipped).is_err(), "bit {bit}");
        }
        let segment = SegmentHeader {
            store_id: [7; 16],
            seq: 4,
            segment_bytes: 1 << 20,
            created_unix_ms: 1,
        };
        let page = segment.encode();
        assert_eq!(SegmentHeader::decode(&page), Ok(segment));
        for bit in 0..page.len() * 8 {
            let mut flipped = page.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn blocks_take_whole_pages() {
        assert_eq!(block_bytes(0), 4096);
        assert_eq!(block_bytes(4096 - 128), 4096);
        assert_eq!(block_bytes(4096 - 64), 8192);
    }
}
