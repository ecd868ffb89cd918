//! Searching and joining sorted fingerprints.
//!
//! Plain slices in, answers out; knows no file and no key. Fingerprints are the output of a keyed hash, hence uniform:
//! where one must lie is nearly known before anything is looked at.

use std::cmp::Ordering;

use super::layout::PrintEntry;
use super::vault::Fingerprint;

/// A chunk that is smaller than its opponent by this factor is searched for piece by piece, else both are read through.
const SEARCH_FACTOR: usize = 16;

/// A fingerprint as a number that sorts as its bytes do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PrintKey {
    high: u64,
    low: u64,
}

impl PrintKey {
    #[inline]
    pub(super) fn of(bytes: &[u8; 16]) -> Self {
        let whole = u128::from_be_bytes(*bytes);
        Self {
            high: (whole >> 64) as u64,
            low: whole as u64,
        }
    }

    #[inline]
    pub(super) fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.high) << 64 | u128::from(self.low)).to_be_bytes()
    }

    /// Where it falls when `0..shares` is spread evenly over all fingerprints.
    #[inline]
    pub(super) fn share(self, shares: usize) -> usize {
        ((u128::from(self.high) * shares as u128) >> 64) as usize
    }
}

/// The slot of `fingerprint` in sorted `entries`.
pub(super) fn find(entries: &[PrintEntry], fingerprint: Fingerprint) -> Option<u32> {
    let key = PrintKey::of(&fingerprint.0);
    let at = lower_bound(entries, key);
    entries
        .get(at)
        .filter(|entry| entry.fingerprint == fingerprint.0)
        .map(|entry| entry.slot.get())
}

/// The first entry that is not below `key`: gallops from where a uniform spread would have it.
pub(super) fn lower_bound(entries: &[PrintEntry], key: PrintKey) -> usize {
    let below = |at: usize| PrintKey::of(&entries[at].fingerprint) < key;
    let guess = key.share(entries.len());
    let (mut low, mut high) = (guess, guess);
    let mut step = 16;
    // Widen until everything before `low` is below and everything from `high` on is not.
    while low > 0 && !below(low - 1) {
        low = low.saturating_sub(step);
        step *= 2;
    }
    step = 16;
    while high < entries.len() && below(high) {
        high = (high + step).min(entries.len());
        step *= 2;
    }
    low + entries[low..high].partition_point(|entry| PrintKey::of(&entry.fingerprint) < key)
}

/// Calls `hit(i)` for every `i` with `keys[i]` in `entries`. Both are sorted; `keys` may repeat itself.
///
/// `key_of` says what of a `K` is its key.
pub(super) fn join<K>(
    keys: &[K],
    key_of: impl Fn(&K) -> PrintKey,
    entries: &[PrintEntry],
    mut hit: impl FnMut(usize),
) {
    let (Some(first), Some(last)) = (keys.first(), keys.last()) else {
        return;
    };
    let from = lower_bound(entries, key_of(first));
    let to = (lower_bound(entries, key_of(last)) + 1).min(entries.len());
    if keys.len() * SEARCH_FACTOR >= to - from {
        return merge(keys, key_of, &entries[from..to], hit);
    }
    for (i, key) in keys.iter().map(key_of).enumerate() {
        let entry = entries.get(lower_bound(entries, key));
        if entry.is_some_and(|entry| PrintKey::of(&entry.fingerprint) == key) {
            hit(i);
        }
    }
}

/// Reads both through once. Steps are taken without branches: which side is smaller is a coin toss.
fn merge<K>(
    keys: &[K],
    key_of: impl Fn(&K) -> PrintKey,
    entries: &[PrintEntry],
    mut hit: impl FnMut(usize),
) {
    let (mut i, mut j) = (0, 0);
    while i < keys.len() && j < entries.len() {
        let order = key_of(&keys[i]).cmp(&PrintKey::of(&entries[j].fingerprint));
        if order == Ordering::Equal {
            hit(i);
        }
        i += usize::from(order != Ordering::Greater);
        j += usize::from(order == Ordering::Greater);
    }
}

#[cfg(test)]
mod tests;
