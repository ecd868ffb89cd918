use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Sorted entries of these keys; slots are numbered in the order of the keys.
fn entries(keys: impl IntoIterator<Item = u128>) -> Vec<PrintEntry> {
    let slots: BTreeMap<u128, u32> = keys.into_iter().zip(0..).collect();
    let entry = |(key, slot): (u128, u32)| PrintEntry {
        fingerprint: key.to_be_bytes(),
        slot: slot.into(),
        reserved: 0.into(),
    };
    slots.into_iter().map(entry).collect()
}

fn key(value: u128) -> PrintKey {
    PrintKey::of(&value.to_be_bytes())
}

/// Spread as fingerprints are.
fn spread(index: u128) -> u128 {
    index.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835)
}

#[test]
fn keys_sort_as_their_bytes_do_and_come_back() {
    let values = [
        0,
        1,
        0xFF,
        0x100,
        1 << 64,
        (1 << 64) + 1,
        u128::MAX - 1,
        u128::MAX,
    ];
    for pair in values.windows(2) {
        assert!(key(pair[0]) < key(pair[1]));
    }
    for value in values {
        assert_eq!(key(value).to_bytes(), value.to_be_bytes());
    }
}

#[test]
fn shares_are_even_and_in_order() {
    for shares in [1, 2, 3, 7] {
        assert_eq!(key(0).share(shares), 0);
        assert_eq!(key(u128::MAX).share(shares), shares - 1);
        let mut counts = vec![0; shares];
        (0..7000).for_each(|index| counts[key(spread(index)).share(shares)] += 1);
        assert!(
            counts.iter().all(|&count| count * shares > 6500),
            "{counts:?}"
        );
    }
}

#[test]
fn every_fingerprint_is_found_and_no_other() {
    for count in [0, 1, 2, 17, 5000] {
        let entries = entries((0..count).map(spread));
        for index in 0..count {
            let found = find(&entries, Fingerprint(spread(index).to_be_bytes()));
            assert_eq!(found, Some(index as u32));
        }
        for index in count..count + 50 {
            assert_eq!(
                find(&entries, Fingerprint(spread(index).to_be_bytes())),
                None
            );
        }
    }
}

#[test]
fn a_search_needs_no_even_spread() {
    for base in [0, u128::MAX - 1999] {
        let entries = entries((0..1000).map(|index| base + index * 2));
        for index in 0..1000 {
            let odd = Fingerprint((base + index * 2 + 1).to_be_bytes());
            assert_eq!(
                find(&entries, Fingerprint((base + index * 2).to_be_bytes())),
                Some(index as u32)
            );
            assert_eq!(find(&entries, odd), None);
        }
    }
}

proptest! {
    /// Few distinct values, so that there are hits; sizes on both sides of the choice between search and merge.
    #[test]
    fn a_join_hits_what_a_search_by_hand_hits(
        mut left in prop::collection::vec(0u128..400, 0..60),
        right in prop::collection::btree_set(0u128..400, 0..300),
        even in any::<bool>(),
    ) {
        let place = |value: u128| if even { spread(value) } else { value };
        let right: Vec<u128> = right.into_iter().map(place).collect();
        left.iter_mut().for_each(|value| *value = place(*value));
        left.sort_unstable();
        let keys: Vec<PrintKey> = left.iter().map(|&value| key(value)).collect();
        let mut hits = Vec::new();
        join(&keys, |&key| key, &entries(right.iter().copied()), |index| hits.push(index));
        let expect: Vec<usize> = (0..left.len()).filter(|&i| right.contains(&left[i])).collect();
        prop_assert_eq!(hits, expect);
    }
}
