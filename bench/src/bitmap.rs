//! Sets of small numbers, one bit each, that notice a second insertion.

use std::collections::HashMap;

/// Highest slot a slab may have; a server that names a higher one is wrong, and must not cost gigabytes.
pub const SLOTS_PER_SLAB_MAX: u32 = 1 << 30;
/// Slabs up to this id are found by index, the rest through a hash table.
const SLABS_INDEXED: usize = 1 << 16;
/// Words added at least when a bitmap grows, so that growth is rare.
const WORDS_GROWN_MIN: usize = 1 << 6;

/// A set of `u32`s below [`SLOTS_PER_SLAB_MAX`].
#[derive(Debug, Default)]
pub struct Bitmap {
    words: Vec<u64>,
}

impl Bitmap {
    /// Adds a number; false when it was there before.
    #[inline]
    pub fn insert(&mut self, number: u32) -> bool {
        let (word, bit) = (number as usize / 64, 1u64 << (number % 64));
        if word >= self.words.len() {
            self.grow(word);
        }
        let seen = self.words[word] & bit != 0;
        self.words[word] |= bit;
        !seen
    }

    #[cold]
    fn grow(&mut self, word: usize) {
        let wanted = (word + 1)
            .max(self.words.len() * 3 / 2)
            .max(WORDS_GROWN_MIN);
        self.words.resize(wanted, 0);
    }

    /// Whether a number is in the set.
    pub fn contains(&self, number: u32) -> bool {
        self.words
            .get(number as usize / 64)
            .is_some_and(|word| word & (1 << (number % 64)) != 0)
    }

    /// Adds another set; returns the numbers both had, up to `listed_max`.
    pub fn absorb(&mut self, other: &Self, listed_max: usize) -> Vec<u32> {
        if other.words.len() > self.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        let mut both = Vec::new();
        for (index, (mine, theirs)) in self.words.iter_mut().zip(&other.words).enumerate() {
            let mut overlap = *mine & *theirs;
            while overlap != 0 && both.len() < listed_max {
                both.push(index as u32 * 64 + overlap.trailing_zeros());
                overlap &= overlap - 1;
            }
            *mine |= *theirs;
        }
        both
    }
}

/// A set of slots by slab.
#[derive(Debug)]
pub struct SlotSet {
    by_slab: Vec<Bitmap>,
    /// Slab id → place in `by_slab` plus 1; 0 = not seen yet.
    indexed: Vec<u32>,
    far: HashMap<u32, u32>,
}

impl Default for SlotSet {
    fn default() -> Self {
        Self {
            by_slab: Vec::new(),
            indexed: vec![0; SLABS_INDEXED],
            far: HashMap::new(),
        }
    }
}

impl SlotSet {
    /// Adds a slot; false when it was there before. The slot must be below [`SLOTS_PER_SLAB_MAX`].
    #[inline]
    pub fn insert(&mut self, slab: u32, slot: u32) -> bool {
        self.bitmap(slab).insert(slot)
    }

    #[inline]
    fn bitmap(&mut self, slab: u32) -> &mut Bitmap {
        let place = match self.indexed.get_mut(slab as usize) {
            Some(place) => place,
            None => self.far.entry(slab).or_insert(0),
        };
        if *place == 0 {
            self.by_slab.push(Bitmap::default());
            *place = self.by_slab.len() as u32;
        }
        &mut self.by_slab[*place as usize - 1]
    }

    /// Adds another set; returns the slots both had, up to `listed_max`.
    pub fn absorb(&mut self, other: &Self, listed_max: usize) -> Vec<(u32, u32)> {
        let near = other
            .indexed
            .iter()
            .enumerate()
            .map(|(slab, &place)| (slab as u32, place));
        let far = other.far.iter().map(|(&slab, &place)| (slab, place));
        let mut both = Vec::new();
        for (slab, place) in near.chain(far).filter(|&(_, place)| place != 0) {
            let theirs = &other.by_slab[place as usize - 1];
            let room = listed_max - both.len();
            both.extend(
                self.bitmap(slab)
                    .absorb(theirs, room)
                    .into_iter()
                    .map(|slot| (slab, slot)),
            );
        }
        both
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_insertion_is_noticed() {
        let mut set = SlotSet::default();
        for (slab, slot) in [
            (0, 0),
            (0, 63),
            (0, 64),
            (1, 0),
            (70_000, 5),
            (u32::MAX, 1_000_000),
        ] {
            assert!(set.insert(slab, slot), "{slab}:{slot} was new");
            assert!(!set.insert(slab, slot), "{slab}:{slot} was there");
        }
    }

    #[test]
    fn overlap_of_two_sets_is_listed() {
        let (mut mine, mut theirs) = (SlotSet::default(), SlotSet::default());
        for slot in 0..1000 {
            mine.insert(3, slot);
            theirs.insert(3, slot + 1000);
            theirs.insert(90_000, slot);
        }
        assert_eq!(mine.absorb(&theirs, 10), vec![]);
        let mut third = SlotSet::default();
        third.insert(3, 1999);
        third.insert(90_000, 7);
        third.insert(3, 2000);
        assert_eq!(mine.absorb(&third, 10), vec![(3, 1999), (90_000, 7)]);
    }
}
