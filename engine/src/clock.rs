//! The wall clock, read at the edges only: dealers get `now` as an argument.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since 1970-01-01 UTC; 0 for a clock before that.
#[allow(clippy::disallowed_methods)] // the edge that all others are told to use
pub fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

/// A step of the wall clock that is more than setting it right.
const JUMP_MS: u64 = 60_000;

/// The wall clock against the machine's own, which nobody sets and which goes on while the machine sleeps: for deeds that cannot
/// be taken back, should the wall clock be wrong.
pub struct Clocks {
    /// What the wall clock shows, less what the machine's own does.
    apart_ms: u64,
}

impl Clocks {
    /// The wall clock is believed to be right now.
    pub fn now() -> Clocks {
        Clocks {
            apart_ms: apart_ms(),
        }
    }

    /// By how much the wall clock has jumped ahead since, if it has. Small steps are followed.
    pub fn jumped_ms(&mut self) -> Option<u64> {
        self.jumped_to_ms(apart_ms())
    }

    fn jumped_to_ms(&mut self, apart_ms: u64) -> Option<u64> {
        let ahead_ms = apart_ms.saturating_sub(self.apart_ms);
        if ahead_ms > JUMP_MS {
            return Some(ahead_ms);
        }
        self.apart_ms = apart_ms;
        None
    }
}

fn apart_ms() -> u64 {
    let own = clock_gettime(ClockId::Boottime);
    let own_ms = own.tv_sec as u64 * 1000 + own.tv_nsec as u64 / 1_000_000;
    unix_ms().saturating_sub(own_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_right_is_followed_and_one_that_jumps_ahead_is_not() {
        let hour_ms = 3_600_000;
        // What the clocks are apart by, one look after the other, and by how much that is too much.
        let table: &[&[(u64, Option<u64>)]] = &[
            &[(hour_ms, None), (hour_ms + 1, None), (hour_ms - 1, None)],
            // A clock that gains: each step is small.
            &[(hour_ms + 50_000, None), (hour_ms + 100_000, None)],
            &[(hour_ms + 60_000, None), (hour_ms + 120_000, None)],
            &[(hour_ms + 60_001, Some(60_001))],
            // As long as it is wrong; the steps it makes meanwhile do not make it right.
            &[
                (2 * hour_ms, Some(hour_ms)),
                (2 * hour_ms + 1, Some(hour_ms + 1)),
                (hour_ms + 10, None),
                (hour_ms + 60_010, None),
            ],
            // Back is no jump ahead, and the way forward again is one.
            &[(0, None), (hour_ms, Some(hour_ms))],
        ];
        for looks in table {
            let mut clocks = Clocks { apart_ms: hour_ms };
            for &(apart_ms, ahead_ms) in *looks {
                assert_eq!(clocks.jumped_to_ms(apart_ms), ahead_ms, "{looks:?}");
            }
        }
        assert_eq!(Clocks::now().jumped_ms(), None);
    }
}
