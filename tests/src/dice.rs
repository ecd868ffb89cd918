//! Random numbers that can be had again: a failed run says its seed.

use std::env;
use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// SplitMix64 (Steele, Lea, Flood 2014): small, and good enough to choose what to do next.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The same numbers for the same seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Seeded by `CROUPIER_TEST_SEED`, else by the clock; says which on stderr, for the one who must repeat it.
    pub fn rolled(what: &str) -> Self {
        let clock = || unix_time().as_nanos() as u64;
        let seed = env::var("CROUPIER_TEST_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(clock);
        eprintln!("{what}: CROUPIER_TEST_SEED={seed}");
        Self(seed)
    }

    /// Other dice, with a seed of their own.
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// Any number.
    #[allow(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }

    /// A number in `range`.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// True once in `n`.
    pub fn once_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }

    /// One of `these`.
    ///
    /// # Panics
    /// If there are none.
    pub fn one_of<'a, T>(&mut self, these: &'a [T]) -> &'a T {
        &these[self.within(0..these.len() as u64) as usize]
    }
}

/// The time since 1970.
fn unix_time() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or(Duration::from_nanos(1))
}

/// The server's time, if it runs on the same machine.
pub fn unix_ms() -> u64 {
    unix_time().as_millis() as u64
}

/// Another number for every number: no two give the same.
pub(crate) const fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
