//! The wall clock, read at the edges only: dealers get `now` as an argument.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970-01-01 UTC; 0 for a clock before that.
#[allow(clippy::disallowed_methods)] // the edge that all others are told to use
pub fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
