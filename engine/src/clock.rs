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
        let now = apart_ms();
        if now.saturating_sub(self.apart_ms) > JUMP_MS {
            return Some(now - self.apart_ms);
        }
        self.apart_ms = now;
        None
    }
}

fn apart_ms() -> u64 {
    let own = clock_gettime(ClockId::Boottime);
    let own_ms = own.tv_sec as u64 * 1000 + own.tv_nsec as u64 / 1_000_000;
    unix_ms().saturating_sub(own_ms)
}
