//! Which holds end when: docs/orders.md. One core's own; nobody else reaches it.

use std::collections::BTreeMap;

/// Milliseconds of a tick, as a power of two.
const TICK_SHIFT: u32 = 2;
/// Entries that may be of holds that have ended otherwise, besides as many as there are open holds.
const STALE_MAX: usize = 4096;

/// Rows of held orders by the time that their holds end. An entry says when to look, not what will be found there.
#[derive(Default)]
pub struct Timers {
    /// By the tick before whose end they end.
    ticks: BTreeMap<u64, Vec<u64>>,
    entries: usize,
    /// Lists that have been emptied, for the next ticks.
    spare: Vec<Vec<u64>>,
    /// The tick that was swept last.
    swept: u64,
}

impl Timers {
    /// To be looked at when `ends_unix_ms` is over.
    pub fn add(&mut self, ends_unix_ms: u64, row: u64) {
        let tick = ends_unix_ms.div_ceil(1 << TICK_SHIFT);
        let rows = self
            .ticks
            .entry(tick)
            .or_insert_with(|| self.spare.pop().unwrap_or_default());
        rows.push(row);
        self.entries += 1;
    }

    /// When the next is due.
    pub fn next_unix_ms(&self) -> Option<u64> {
        let (tick, _) = self.ticks.first_key_value()?;
        Some(tick << TICK_SHIFT)
    }

    /// Whether one is due.
    pub fn is_due(&self, now_unix_ms: u64) -> bool {
        self.next_unix_ms().is_some_and(|next| next <= now_unix_ms)
    }

    /// Takes one that is due.
    pub fn take_due(&mut self, now_unix_ms: u64) -> Option<u64> {
        loop {
            let mut first = self.ticks.first_entry()?;
            if first.key() << TICK_SHIFT > now_unix_ms {
                return None;
            }
            if let Some(row) = first.get_mut().pop() {
                self.entries -= 1;
                return Some(row);
            }
            self.spare.push(first.remove());
        }
    }

    /// Drops those that `keep` does not want from the next tick, if many must be of holds that have ended otherwise: there
    /// are only `open` holds.
    pub fn sweep(&mut self, open: usize, mut keep: impl FnMut(u64) -> bool) {
        if self.entries <= 2 * open + STALE_MAX {
            return;
        }
        let Some((&tick, rows)) = self.ticks.range_mut(self.swept + 1..).next() else {
            self.swept = 0;
            return;
        };
        self.swept = tick;
        let before = rows.len();
        rows.retain(|&row| keep(row));
        self.entries -= before - rows.len();
        if rows.is_empty() {
            self.spare.extend(self.ticks.remove(&tick));
            self.spare.truncate(SPARE_MAX);
        }
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Nothing will ever be due.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }
}

/// Emptied lists that are kept.
const SPARE_MAX: usize = 64;

#[cfg(all(test, not(any(croupier_loom, croupier_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_comes_in_time_and_not_before() {
        let mut timers = Timers::default();
        let ends: Vec<u64> = (0..10_000u64).map(|n| 1 + n * 7_919 % 4_999).collect();
        for (row, &end) in (0..).zip(&ends) {
            timers.add(end, row);
        }
        let mut seen = 0;
        for now in 0..6_000 {
            while let Some(row) = timers.take_due(now) {
                let end = ends[row as usize];
                assert!((end..end + 4).contains(&now), "{end} at {now}");
                seen += 1;
            }
            assert!(timers.next_unix_ms().is_none_or(|next| next > now));
        }
        assert_eq!((seen, timers.is_empty()), (10_000, true));
    }

    #[test]
    fn what_has_ended_otherwise_does_not_pile_up() {
        let mut timers = Timers::default();
        let open = 1_000;
        for row in 0..1_000_000u64 {
            timers.add(1_000_000 + row / 100, row);
            // Only the last thousand are still open.
            timers.sweep(open, |other| other + 1_000 > row);
            assert!(
                timers.len() < 2 * open + STALE_MAX + 200,
                "{}",
                timers.len()
            );
        }
    }
}
