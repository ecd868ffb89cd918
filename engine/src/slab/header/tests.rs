use super::*;

/// Written by `golden/make.py` from the format page alone.
const GOLDEN: &[u8] = include_bytes!("../golden/slab-0000002a.slab");

/// The same that says when its first card expires.
const GOLDEN_EXPIRES: &[u8] = include_bytes!("../golden/slab-0000002b.slab");

fn golden() -> SlabHeader {
    SlabHeader::parse(GOLDEN).unwrap()
}

#[test]
fn the_golden_header_reads_and_writes_the_same() {
    let header = golden();
    let identity = SlabIdentity {
        store_id: std::array::from_fn(|i| 0x10 + i as u8),
        slab: 0x2A,
        sku: 7,
        batch: 3,
        pool: 2,
        created_unix_ms: 1_700_000_000_123,
    };
    assert!(header.identity == identity);
    assert_eq!(header.layout, SlabLayout::of(3, 32, 11));
    assert_eq!(&header.to_bytes()[..], &GOLDEN[..HEADER_BYTES]);
    assert_eq!(
        SlabHeader::bound_bytes(&identity, &header.layout),
        GOLDEN[..BOUND_BYTES]
    );
}

#[test]
fn a_header_that_says_when_its_first_card_expires_reads_and_writes_the_same() {
    let header = SlabHeader::parse(GOLDEN_EXPIRES).unwrap();
    assert_eq!(header.expires_from_s, Some(1_900_000_000));
    assert_eq!(&header.to_bytes()[..], &GOLDEN_EXPIRES[..HEADER_BYTES]);
    assert_eq!(golden().expires_from_s, None);
}

#[test]
fn every_flipped_bit_is_refused() {
    let mut bytes = GOLDEN[..HEADER_BYTES].to_vec();
    for bit in 0..HEADER_BYTES * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(SlabHeader::parse(&bytes).is_err(), "bit {bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(SlabHeader::parse(&bytes).is_ok());
}

#[test]
fn every_shorter_header_is_refused() {
    for found_bytes in 0..HEADER_BYTES {
        let fault = SlabHeader::parse(&GOLDEN[..found_bytes]).err();
        assert_eq!(fault, Some(HeaderFault::TooShort { found_bytes }));
    }
}

/// What is told of a header with `bytes` at `offset` and, unlike damage, a checksum that is right.
fn fault_with(offset: usize, bytes: &[u8]) -> HeaderFault {
    let mut header = GOLDEN[..HEADER_BYTES].to_vec();
    header[offset..offset + bytes.len()].copy_from_slice(bytes);
    let crc = crc32c(&header[..4092]);
    header[4092..].copy_from_slice(&crc.to_le_bytes());
    SlabHeader::parse(&header)
        .err()
        .expect("it must be refused")
}

#[test]
fn a_header_that_was_written_wrong_is_refused_by_field() {
    let field = |offset, name, found, expected| HeaderFault::Field {
        offset,
        name,
        found,
        expected,
    };
    let cases = [
        (
            0,
            b"NOTASLAB".as_slice(),
            HeaderFault::NotASlab {
                found: *b"NOTASLAB",
            },
        ),
        (8, &[2, 0], HeaderFault::UnsupportedVersion { found: 2 }),
        (10, &[1, 0], field(10, "flags", 1, 0)),
        (12, &[0, 0x20, 0, 0], field(12, "header_bytes", 8192, 4096)),
        (46, &[1], field(46, "reserved", 1, 0)),
        (48, &[0; 4], HeaderFault::NoCards),
        (
            48,
            &[0, 4, 0, 0],
            field(96, "sealed_offset", 0x3000, 0xA000),
        ),
        (52, &[33, 0, 0, 0], HeaderFault::UnknownClass { found: 33 }),
        (56, &[49, 0, 0, 0], field(56, "slot_bytes", 49, 48)),
        (60, &[1], field(60, "reserved", 1, 0)),
        (72, &[4], field(72, "features", 4, 0)),
        (80, &[0, 0, 1], field(80, "claims_offset", 0x1_0000, 4096)),
        (88, &[1], field(88, "slots_offset", 0x2001, 0x2000)),
        (104, &[1], field(104, "prints_offset", 0x4001, 0x4000)),
        (112, &[1], field(112, "labels_offset", 0x5001, 0x5000)),
        (
            120,
            &[0, 0, 0, 0, 1],
            HeaderFault::LabelsTooLong { found: 1 << 32 },
        ),
        (
            120,
            &[0xFF; 8],
            HeaderFault::LabelsTooLong { found: u64::MAX },
        ),
        (128, &[1], field(128, "file_bytes", 0x6001, 0x6000)),
        (72, &[5], field(72, "features", 5, 1)),
        (72, &[3], field(72, "features", 3, 2)),
        (72, &[2], field(120, "labels_bytes", 11, 0)),
        (212, &[1], field(212, "expires_from_s", 1, 0)),
        (4091, &[7], field(4091, "zero", 7, 0)),
    ];
    for (offset, bytes, expect) in cases {
        assert_eq!(fault_with(offset, bytes), expect, "{bytes:?} at {offset}");
    }
}

#[test]
fn a_fault_says_where() {
    let fault = HeaderFault::Checksum {
        found: 0x12,
        expected: 0xABCD_EF01,
    };
    let text = "offset 4092: the header's checksum is 0x00000012, its bytes give 0xabcdef01: it was damaged";
    assert_eq!(fault.to_string(), text);
}
