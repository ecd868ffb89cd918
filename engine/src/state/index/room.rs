//! Room made ahead: memory that the next orders will need, made by a thread of its own, the *keeper*.
//!
//! New memory is slow: the system zeroes it page by page, which takes milliseconds for what thousands of orders need, and
//! longer where the machine is a guest and its host has to find the pages. A dealer that meets the end of what is there
//! makes more itself, and whoever waits for that turn waits for it; the keeper sees to it that this is rare.

use std::sync::OnceLock;

use super::{OrderIndex, larger};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::thread::{Thread, current, park};

/// Slots of a shard that are free when a larger table is made ahead: more than come while the arena goes through a chunk,
/// which is how often the keeper is called.
const SHARD_ROOM_SLOTS: usize = 256;
/// As many as one in so many slots, if that is more: all shards come to their ends at about the same time, and the larger they are,
/// the longer it takes to make room for them all.
const SHARD_ROOM_SHARE: usize = 16;
/// Smaller tables are made as fast as they are noticed.
const SHARD_SLOTS_LARGE: usize = 512;

/// Who is called when room is short.
#[derive(Default)]
pub(super) struct Room {
    keeper: OnceLock<Thread>,
    called: AtomicBool,
}

impl OrderIndex {
    /// Keeps room until `is_over`: the body of a thread that lives for it. Whoever makes that true calls
    /// [`call_keeper`](Self::call_keeper).
    pub fn keep_room(&self, is_over: impl Fn() -> bool) {
        let _ = self.room.keeper.set(current());
        while !is_over() {
            // Relaxed: whoever calls after this makes the next sleep end at once, and this call looks at what is short.
            self.room.called.store(false, Ordering::Relaxed);
            self.make_room();
            park();
        }
    }

    /// Wakes the keeper.
    pub fn call_keeper(&self) {
        if let Some(keeper) = self.room.keeper.get() {
            keeper.unpark();
        }
    }

    /// For dealers, once a turn: a few loads, and a system call when room has become short.
    pub fn call_keeper_if_short(&self) {
        let arenas = [self.rows.arena(), &self.cards, self.holds.arena()];
        if arenas.iter().any(|arena| arena.is_short())
            && !self.room.called.load(Ordering::Relaxed)
            && !self.room.called.swap(true, Ordering::Relaxed)
        {
            self.call_keeper();
        }
    }

    /// Makes what is short, and larger tables for shards that are nearly full.
    fn make_room(&self) {
        for arena in [self.rows.arena(), &self.cards, self.holds.arena()] {
            arena.make_ahead();
        }
        for shard in &self.shards {
            let table = shard.load_full();
            let slots = table.slots.len();
            let least = SHARD_ROOM_SLOTS.max(slots / SHARD_ROOM_SHARE);
            if slots >= SHARD_SLOTS_LARGE && table.is_alone() && table.room() < least {
                let newer = larger(&table);
                // Before a dealer meets it: who claims in a shard that grows moves slots, too.
                newer.touch();
                shard.compare_and_swap(&table, newer);
                // With a slot claimed just now it is left to the next claim in the shard.
                shard.load().try_move(&table);
            }
        }
    }
}
