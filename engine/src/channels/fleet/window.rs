//! What is counted of a channel's jobs: those that ended lately, and how long they took.

/// Parts of a window.
const PARTS: u64 = 10;

/// Counts of jobs that ended within a window of time: a ring of its parts. The oldest part goes as a whole.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    parts: [Part; PARTS as usize],
}

#[derive(Clone, Copy, Debug, Default)]
struct Part {
    /// Which part of all time, from 1; 0: none yet.
    number: u64,
    counts: Counts,
}

/// Jobs that ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub ended: u32,
    pub failed: u32,
    pub slow: u32,
}

impl Counts {
    /// Whether so many per cent of them failed, at least; 0 per cent: never.
    pub fn has_failed(self, percent: u32) -> bool {
        percent > 0 && reaches(self.failed, self.ended, percent)
    }

    /// Whether so many per cent of them were slow, at least; 0 per cent: never.
    pub fn is_slow(self, percent: u32) -> bool {
        percent > 0 && reaches(self.slow, self.ended, percent)
    }
}

fn reaches(some: u32, all: u32, percent: u32) -> bool {
    all > 0 && u64::from(some) * 100 >= u64::from(percent) * u64::from(all)
}

impl Window {
    /// Notes a job that ended.
    pub fn note(&mut self, now_ms: u64, window_ms: u32, failed: bool, slow: bool) {
        let number = number(now_ms, window_ms);
        let part = &mut self.parts[(number % PARTS) as usize];
        if part.number != number {
            *part = Part {
                number,
                counts: Counts::default(),
            };
        }
        let counts = &mut part.counts;
        counts.ended = counts.ended.saturating_add(1);
        counts.failed = counts.failed.saturating_add(failed.into());
        counts.slow = counts.slow.saturating_add(slow.into());
    }

    /// What ended within the window that ends now.
    pub fn sum(&self, now_ms: u64, window_ms: u32) -> Counts {
        let last = number(now_ms, window_ms);
        let within = |part: &&Part| part.number <= last && last - part.number < PARTS;
        let counts = self.parts.iter().filter(within).map(|part| part.counts);
        counts.fold(Counts::default(), |sum, part| Counts {
            ended: sum.ended.saturating_add(part.ended),
            failed: sum.failed.saturating_add(part.failed),
            slow: sum.slow.saturating_add(part.slow),
        })
    }
}

/// Which part of all time it is, from 1.
fn number(now_ms: u64, window_ms: u32) -> u64 {
    now_ms / (u64::from(window_ms) / PARTS).max(1) + 1
}

/// Steps of a doubling.
const STEPS: usize = 8;
/// Doublings of a millisecond that are told apart: up to an hour, and then some.
const DOUBLINGS: usize = 24;

/// How long jobs took that were filled: this window's and the one's before, within an eighth.
#[derive(Clone, Debug)]
pub(super) struct Times {
    since_ms: u64,
    now: [u32; STEPS * DOUBLINGS],
    before: [u32; STEPS * DOUBLINGS],
}

impl Default for Times {
    fn default() -> Times {
        Times {
            since_ms: 0,
            now: [0; STEPS * DOUBLINGS],
            before: [0; STEPS * DOUBLINGS],
        }
    }
}

impl Times {
    pub fn note(&mut self, now_ms: u64, window_ms: u32, took_ms: u64) {
        let since = now_ms.saturating_sub(self.since_ms);
        if since >= u64::from(window_ms) {
            let before = std::mem::replace(&mut self.now, [0; STEPS * DOUBLINGS]);
            // What is older than two windows is no news.
            self.before = match since < 2 * u64::from(window_ms) {
                true => before,
                false => [0; STEPS * DOUBLINGS],
            };
            self.since_ms = now_ms;
        }
        let count = &mut self.now[step(took_ms)];
        *count = count.saturating_add(1);
    }

    /// The time that 99 in 100 took at most, in milliseconds; 0: there were none.
    pub fn p99_ms(&self) -> u64 {
        let both = |at: usize| u64::from(self.now[at]) + u64::from(self.before[at]);
        let all: u64 = (0..self.now.len()).map(both).sum();
        let mut left = all - all / 100;
        let reached = (0..self.now.len()).find(|&at| {
            left = left.saturating_sub(both(at));
            left == 0
        });
        match all {
            0 => 0,
            _ => reached.map_or(0, most_ms),
        }
    }
}

/// Where a time is counted: below eight milliseconds each has its own step, then eight share a doubling.
fn step(took_ms: u64) -> usize {
    if took_ms < STEPS as u64 {
        return took_ms as usize;
    }
    let doubling = took_ms.ilog2() as usize;
    let within = (took_ms >> (doubling - 3)) as usize % STEPS;
    ((doubling - 2) * STEPS + within).min(STEPS * DOUBLINGS - 1)
}

/// The longest time that is counted there.
fn most_ms(step: usize) -> u64 {
    if step < STEPS {
        return step as u64;
    }
    let (doubling, within) = (step / STEPS + 2, step % STEPS);
    (((STEPS + within + 1) as u64) << (doubling - 3)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_leave_the_window_part_by_part() {
        let mut window = Window::default();
        window.note(0, 1000, true, false);
        window.note(99, 1000, false, true);
        window.note(950, 1000, false, false);
        let sum = |now_ms| {
            let Counts {
                ended,
                failed,
                slow,
            } = window.sum(now_ms, 1000);
            [ended, failed, slow]
        };
        assert_eq!(sum(999), [3, 1, 1]);
        assert_eq!(sum(1000), [1, 0, 0]);
        assert_eq!(sum(1899), [1, 0, 0]);
        assert_eq!(sum(1900), [0, 0, 0]);
        // A clock that goes back forgets what is ahead of it, and does not count it.
        assert_eq!(sum(500), [2, 1, 1]);
    }

    #[test]
    fn a_part_is_used_again() {
        let mut window = Window::default();
        for now_ms in (0..100_000).step_by(100) {
            window.note(now_ms, 1000, true, true);
        }
        let all = Counts {
            ended: 10,
            failed: 10,
            slow: 10,
        };
        assert_eq!(window.sum(99_900, 1000), all);
        // Less than a millisecond to a part.
        let mut short = Window::default();
        short.note(5, 1, true, false);
        assert_eq!(short.sum(5, 1).ended, 1);
        assert_eq!(short.sum(15, 1).ended, 0);
    }

    #[test]
    fn shares_are_reached_exactly() {
        let counts = |ended, failed| Counts {
            ended,
            failed,
            slow: failed,
        };
        for (of, percent, expect) in [
            (counts(20, 10), 50, true),
            (counts(20, 9), 50, false),
            (counts(20, 20), 0, false),
            (counts(0, 0), 1, false),
            (counts(u32::MAX, u32::MAX), 100, true),
        ] {
            assert_eq!(of.has_failed(percent), expect, "{of:?} {percent}");
            assert_eq!(of.is_slow(percent), expect, "{of:?} {percent}");
        }
    }

    #[test]
    fn every_time_has_a_step() {
        let mut before = 0;
        for took_ms in (0..5_000).chain([1 << 20, 1 << 25, 1 << 40, u64::MAX]) {
            let at = step(took_ms);
            assert!(at >= before && at < STEPS * DOUBLINGS, "{took_ms}");
            if at < STEPS * DOUBLINGS - 1 {
                let most = most_ms(at);
                assert!(
                    most >= took_ms && most <= took_ms + took_ms / 8,
                    "{took_ms}: {most}"
                );
            }
            before = at;
        }
    }

    #[test]
    fn most_took_so_long_at_most() {
        let mut times = Times::default();
        assert_eq!(times.p99_ms(), 0);
        times.note(0, 1000, 0);
        assert_eq!(times.p99_ms(), 0);
        for _ in 0..98 {
            times.note(10, 1000, 5);
        }
        times.note(10, 1000, 3_600_000);
        assert_eq!(times.p99_ms(), 5, "one in a hundred is longer");
        times.note(1_500, 1000, 100);
        times.note(1_500, 1000, 100);
        assert!((100..=112).contains(&times.p99_ms()));
        times.note(10_000, 1000, 7);
        assert_eq!(times.p99_ms(), 7, "the rest is long ago");
    }
}
