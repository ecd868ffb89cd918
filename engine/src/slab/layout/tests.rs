use super::*;

#[test]
fn a_secret_falls_into_the_smallest_class_that_holds_it_and_its_length() {
    let cases = [
        (0, Some(32)),
        (1, Some(32)),
        (30, Some(32)),
        (31, Some(48)),
        (46, Some(48)),
        (47, Some(64)),
        (4094, Some(4112)),
        (4096, Some(4112)),
        (4110, Some(4112)),
        (4111, None),
        (65_535, None),
    ];
    for (secret_bytes, expect) in cases {
        let class = class_index(secret_bytes).map(|class| CLASS_BYTES[class]);
        assert_eq!(class, expect, "{secret_bytes} bytes");
    }
    assert!(CLASS_BYTES.is_sorted());
}

#[test]
fn sections_follow_each_other_at_whole_pages() {
    // cards, class, labels → offsets of claims, slots, sealed, prints, labels, end
    let cases = [
        ((1, 32, 0), [4096, 8192, 12_288, 16_384, 20_480, 20_480]),
        ((3, 32, 11), [4096, 8192, 12_288, 16_384, 20_480, 24_576]),
        (
            (128, 48, 4096),
            [4096, 8192, 12_288, 20_480, 24_576, 28_672],
        ),
        (
            (129, 48, 4097),
            [4096, 8192, 16_384, 28_672, 32_768, 40_960],
        ),
        (
            (32_768, 32, 0),
            [4096, 8192, 1_056_768, 2_629_632, 3_416_064, 3_416_064],
        ),
        (
            (32_769, 32, 0),
            [4096, 12_288, 1_064_960, 2_641_920, 3_432_448, 3_432_448],
        ),
    ];
    for ((cards, class_bytes, labels_bytes), expect) in cases {
        let layout = SlabLayout::of(cards, class_bytes, labels_bytes);
        let found = [
            layout.claims_offset,
            layout.slots_offset,
            layout.sealed_offset,
            layout.prints_offset,
            layout.labels_offset,
            layout.file_bytes,
        ];
        assert_eq!(
            found, expect,
            "{cards} cards of {class_bytes}, labels {labels_bytes}"
        );
        for pair in Section::ALL.windows(2) {
            assert!(layout.section(pair[0]).end <= layout.section(pair[1]).start);
        }
    }
}

#[test]
fn the_largest_slab_there_can_be_does_not_overflow() {
    let layout = SlabLayout::of(u32::MAX, 4112, LABELS_BYTES_LIMIT);
    assert!(layout.file_bytes > u64::from(u32::MAX) * 4128);
}

#[test]
fn entries_lie_as_the_page_says() {
    let entry = SlotEntryRaw {
        expires_at_s: 0x0807_0605_0403_0201.into(),
        premium_e4: 0x1817_1615_1413_1211.into(),
        cost_e4: AMOUNT_NONE.into(),
        label_offset: 0x3433_3231.into(),
        label_bytes: 0x4241.into(),
        reserved: 0.into(),
    };
    let mut expect = Vec::from([
        1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18,
    ]);
    expect.extend([
        0, 0, 0, 0, 0, 0, 0, 0x80, 0x31, 0x32, 0x33, 0x34, 0x41, 0x42, 0, 0,
    ]);
    assert_eq!(entry.as_bytes(), expect);

    let print = PrintEntry {
        fingerprint: [9; 16],
        slot: 0x0403_0201.into(),
        reserved: 0.into(),
    };
    assert_eq!(
        print.as_bytes(),
        [[9; 16].as_slice(), &[1, 2, 3, 4, 0, 0, 0, 0]].concat()
    );
}
