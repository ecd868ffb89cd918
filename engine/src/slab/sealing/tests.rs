use std::collections::BTreeSet;

use super::*;
use crate::slab::layout::{CLASS_BYTES, class_index};

const STORE_ID: [u8; 16] = *b"store of a test!";

/// Sealer and opener of one slab under one key.
fn pair(class_bytes: u32, cards: u32) -> (SlabSealer, SlabOpener) {
    let key = SlabKey::generate().unwrap();
    let opener = SlabOpener::new(&key, STORE_ID, 9, class_bytes);
    (
        SlabSealer::new(key, STORE_ID, 9, class_bytes, cards),
        opener,
    )
}

/// One sealed slot, number 0.
fn sealed(secret: &[u8], class_bytes: u32) -> (Vec<u8>, SlabOpener) {
    let (sealer, opener) = pair(class_bytes, 1);
    let mut slot = vec![0xEE; class_bytes as usize + TAG_BYTES];
    sealer.take(1).unwrap().seal_next(secret, &mut slot);
    (slot, opener)
}

#[test]
fn every_length_comes_back_from_its_class() {
    for secret_bytes in (0..=520).chain([766, 767, 1500, 2046, 4094, 4095, 4096, 4110]) {
        let secret: Vec<u8> = (0..secret_bytes).map(|i| (i * 7) as u8).collect();
        let class_bytes = CLASS_BYTES[class_index(secret_bytes).unwrap()];
        let (slot, opener) = sealed(&secret, class_bytes);
        let mut out = BytesMut::from(&b"before"[..]);
        assert_eq!(opener.open(0, &slot, &mut out), Ok(secret_bytes));
        assert_eq!(out, [b"before", secret.as_slice()].concat());
    }
}

#[test]
fn nothing_but_the_secret_is_left_behind() {
    for secret in [b"".as_slice(), b"x", b"ABCDEFGH", &[b'z'; 30]] {
        let (slot, opener) = sealed(secret, 32);
        let mut place = [0xEE; 32];
        assert_eq!(opener.open_into(0, &slot, &mut place), Ok(secret.len()));
        assert_eq!(&place[..secret.len()], secret);
        assert_eq!(place[secret.len()..], vec![0; 32 - secret.len()]);

        let mut damaged = slot.clone();
        damaged[40] ^= 1;
        place.fill(0xEE);
        assert!(opener.open_into(0, &damaged, &mut place).is_err());
        assert_eq!(
            place, [0; 32],
            "also what was decrypted before the tag was found wrong"
        );
    }
}

#[test]
fn a_changed_slot_does_not_open_and_leaves_the_buffer_alone() {
    let (slot, opener) = sealed(b"ABCD-EFGH", 32);
    let damaged = Err(SealError::Damaged { slab: 9, slot: 0 });
    let mut out = BytesMut::from(&b"before"[..]);
    for bit in 0..slot.len() * 8 {
        let mut slot = slot.clone();
        slot[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(opener.open(0, &slot, &mut out), damaged, "bit {bit}");
        assert_eq!(out, b"before"[..]);
    }
    for length in 0..slot.len() {
        assert_eq!(
            opener.open(0, &slot[..length], &mut out),
            damaged,
            "length {length}"
        );
    }
    assert_eq!(
        opener.open(0, &[slot.as_slice(), &[0]].concat(), &mut out),
        damaged
    );
    assert_eq!(out, b"before"[..]);
}

#[test]
fn a_slot_opens_only_as_itself() {
    let key = SlabKey::generate().unwrap();
    let here = SlabOpener::new(&key, STORE_ID, 9, 32);
    let other_slab = SlabOpener::new(&key, STORE_ID, 8, 32);
    let other_store = SlabOpener::new(&key, [0; 16], 9, 32);
    let sealer = SlabSealer::new(key, STORE_ID, 9, 32, 2);
    let mut slots = [[0; 48]; 2];
    let mut range = sealer.take(2).unwrap();
    slots
        .iter_mut()
        .for_each(|slot| range.seal_next(b"the same secret", slot));
    assert_ne!(slots[0], slots[1]);
    let mut out = BytesMut::new();
    assert_eq!(here.open(1, &slots[1], &mut out), Ok(15));
    assert!(here.open(0, &slots[1], &mut out).is_err(), "another slot");
    assert!(
        other_slab.open(1, &slots[1], &mut out).is_err(),
        "another slab"
    );
    assert!(
        other_store.open(1, &slots[1], &mut out).is_err(),
        "another store"
    );
    assert_eq!(out, b"the same secret"[..]);
}

#[test]
fn every_slot_is_handed_out_exactly_once() {
    for (cards, slots) in [(1, 1), (1, 10), (10, 3), (64, 64), (1000, 7)] {
        let (sealer, _) = pair(32, cards);
        let taken = std::thread::scope(|scope| {
            let take_all =
                || std::iter::from_fn(|| sealer.take(slots)).flat_map(|range| range.slots());
            let threads: Vec<_> = (0..3)
                .map(|_| scope.spawn(move || take_all().collect::<Vec<_>>()))
                .collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect::<Vec<_>>()
        });
        assert_eq!(taken.len(), cards as usize);
        assert_eq!(
            taken.into_iter().collect::<BTreeSet<_>>(),
            (0..cards).collect()
        );
        assert!(sealer.take(1).is_none());
    }
}

#[test]
#[should_panic(expected = "every slot of the range is sealed")]
fn a_range_does_not_reach_beyond_itself() {
    let (sealer, _) = pair(32, 2);
    let mut range = sealer.take(1).unwrap();
    let mut slot = [0; 48];
    range.seal_next(b"a", &mut slot);
    range.seal_next(b"b", &mut slot);
}

#[test]
fn the_number_of_the_last_slot_does_not_overflow() {
    let (sealer, _) = pair(32, u32::MAX);
    assert_eq!(sealer.take(u32::MAX).unwrap().slots(), 0..u32::MAX);
    assert!(sealer.take(u32::MAX).is_none());
}

#[test]
fn no_key_is_shown() {
    let (sealer, opener) = pair(32, 1);
    assert_eq!(format!("{sealer:?}"), "SlabSealer(slab 9, redacted)");
    assert_eq!(format!("{opener:?}"), "SlabOpener(slab 9, redacted)");
}
