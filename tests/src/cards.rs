//! Secrets for tests: all different, none guessable from another, and findable should one ever leak.

use std::collections::HashSet;

use crate::dice::{Dice, mixed};

const LETTERS: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
/// A leak of so many bytes in a row is a leak.
const WINDOW_BYTES: usize = 12;

/// Makes secrets that no other mint with another seed makes.
#[derive(Debug)]
pub struct Mint {
    made: u64,
    filler: Dice,
}

impl Mint {
    /// A mint of its own kind of secrets. `number` is below 2¹⁶.
    pub const fn new(number: u16) -> Self {
        Self {
            made: (number as u64) << 48,
            filler: Dice::new(number as u64),
        }
    }

    /// One secret of at least 16 letters, padded to `bytes` with more of them.
    pub fn secret(&mut self, bytes: usize) -> Vec<u8> {
        self.made += 1;
        let mut secret = Vec::with_capacity(bytes.max(16));
        // 13 letters of 5 bits hold all of a number that no other secret has.
        let mut own = mixed(self.made);
        for _ in 0..13 {
            secret.push(LETTERS[(own % 32) as usize]);
            own /= 32;
        }
        while secret.len() < bytes.max(16) {
            secret.push(LETTERS[(self.filler.next() % 32) as usize]);
        }
        secret
    }

    /// `count` secrets of `bytes` each.
    pub fn secrets(&mut self, count: usize, bytes: usize) -> Vec<Vec<u8>> {
        (0..count).map(|_| self.secret(bytes)).collect()
    }
}

/// Where in `bytes` any part of any of `secrets` stands that is long enough to be no accident.
pub fn leaked(secrets: &[Vec<u8>], bytes: &[u8]) -> Option<usize> {
    let parts: HashSet<&[u8]> = secrets
        .iter()
        .flat_map(|secret| secret.windows(WINDOW_BYTES))
        .collect();
    bytes
        .windows(WINDOW_BYTES)
        .position(|part| parts.contains(part))
}
