//! How loaded this node is, and which marks of a table that has passed: docs/routes.md.

use std::sync::Mutex;
use std::time::Duration;

use std::sync::atomic::{AtomicU64, Ordering};

/// What is measured, each from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LoadParts {
    /// How full the fullest lane is.
    pub lanes: f64,
    /// Which part of the time cores have something to do, on average.
    pub cores: f64,
    /// How full the ring is of records that are not durable.
    pub log: f64,
}

impl LoadParts {
    /// The one that counts.
    fn largest(self) -> f64 {
        self.lanes.max(self.cores).max(self.log).clamp(0.0, 1.0)
    }
}

/// The load of a node, as it was found last.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LoadNow {
    pub parts: LoadParts,
    /// From 0 to 1.
    pub smoothed: f64,
}

/// The load of a node. Measured by one thread, read by who reports; dealers see no more than which marks it has passed.
#[derive(Debug, Default)]
pub struct Load(Mutex<LoadNow>);

impl Load {
    /// What it was last.
    pub fn now(&self) -> LoadNow {
        *self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Takes what was measured `since` the last time.
    pub fn measured(&self, parts: LoadParts, since: Duration, smoothing: Duration) -> LoadNow {
        let mut now = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let kept = match smoothing.is_zero() {
            true => 0.0,
            false => (-since.as_secs_f64() / smoothing.as_secs_f64()).exp(),
        };
        now.smoothed = parts.largest() * (1.0 - kept) + now.smoothed * kept;
        now.parts = parts;
        *now
    }
}

/// Most marks of a table: a bit each.
pub const MARKS_MAX: usize = 64;

/// The marks that a table asks about, and which of them the load has passed.
#[derive(Debug)]
pub struct Marks {
    marks: Vec<Mark>,
    /// How far below a mark it is passed no more.
    hysteresis: f64,
    /// A bit each.
    passed: AtomicU64,
}

#[derive(Debug)]
struct Mark {
    at: f64,
    /// How often it has been passed, or passed no more.
    flips: AtomicU64,
}

/// A mark for people.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MarkNow {
    pub at: f64,
    pub is_passed: bool,
    pub flips: u64,
}

impl Marks {
    pub(super) fn new(at: &[f64], hysteresis: f64) -> Marks {
        let mark = |&at| Mark {
            at,
            flips: AtomicU64::new(0),
        };
        Marks {
            marks: at.iter().map(mark).collect(),
            hysteresis,
            passed: AtomicU64::new(0),
        }
    }

    /// Which are passed, a bit each. Relaxed: they steer, and publish nothing.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// As [`follow`](Self::follow) of a table that is new: that is no change.
    pub fn begin(&self, load: f64) {
        self.follow(load);
        for mark in &self.marks {
            mark.flips.store(0, Ordering::Relaxed);
        }
    }

    /// Follows the load; true: a mark is passed that was not, or no more. One thread at a time.
    pub fn follow(&self, load: f64) -> bool {
        let before = self.passed();
        let mut passed = before;
        for (at, mark) in self.marks.iter().enumerate() {
            let bit = 1 << at;
            if load > mark.at {
                passed |= bit;
            } else if load < mark.at - self.hysteresis {
                passed &= !bit;
            }
            if (passed ^ before) & bit != 0 {
                mark.flips.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.passed.store(passed, Ordering::Relaxed);
        passed != before
    }

    /// All of them.
    pub fn now(&self) -> Vec<MarkNow> {
        let passed = self.passed();
        let all = self.marks.iter().enumerate();
        all.map(|(at, mark)| MarkNow {
            at: mark.at,
            is_passed: passed >> at & 1 != 0,
            flips: mark.flips.load(Ordering::Relaxed),
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_passed_until_the_load_is_well_below() {
        let marks = Marks::new(&[0.8, 0.5], 0.1);
        for (load, expect) in [
            (0.0, 0),
            (0.5, 0),
            (0.51, 2),
            (0.8, 2),
            (0.81, 3),
            (0.71, 3),
            (0.81, 3),
            (0.69, 2),
            (0.41, 2),
            (0.39, 0),
        ] {
            let before = marks.passed();
            assert_eq!(marks.follow(load), before != expect, "{load}");
            assert_eq!(marks.passed(), expect, "{load}");
        }
        let flips: Vec<u64> = marks.now().iter().map(|mark| mark.flips).collect();
        assert_eq!(flips, [2, 2]);
    }

    #[test]
    fn the_load_is_the_largest_part_smoothed() {
        let load = Load::default();
        let parts = LoadParts {
            lanes: 0.2,
            cores: 1.0,
            log: 0.1,
        };
        let (tick, second) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut last = 0.0;
        for _ in 0..10 {
            let now = load.measured(parts, tick, second).smoothed;
            assert!(last < now && now < 1.0);
            last = now;
        }
        // After the time constant.
        assert!((last - 0.632).abs() < 0.001, "{last}");
        assert_eq!(load.measured(parts, tick, Duration::ZERO).smoothed, 1.0);
        assert_eq!(load.now().parts, parts);
    }
}
