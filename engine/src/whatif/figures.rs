//! How many orders wait, and for how long: as it is gathered, and as it is told.

use hdrhistogram::Histogram;

/// Longest wait that is told apart, in milliseconds: some thousand years, and a bound for what a histogram takes.
const WAIT_MAX_MS: u64 = 1 << 45;
/// Waits are told apart to a thousandth of them.
const DIGITS: u8 = 3;

/// How many orders waited for how long.
#[derive(Clone, Debug)]
pub struct Waits(Histogram<u64>);

impl Default for Waits {
    fn default() -> Waits {
        // It grows with what is noted, to 300 KiB at most.
        Waits(Histogram::new(DIGITS).expect("so many digits are allowed"))
    }
}

impl Waits {
    /// One more order.
    pub fn note(&mut self, wait_ms: u64) {
        let noted = self.0.record(wait_ms.min(WAIT_MAX_MS));
        noted.expect("it grows up to there");
    }

    /// What they come to; nothing is known yet of how many waited at once.
    pub fn figures(&self) -> Figures {
        let at = |quantile| self.0.value_at_quantile(quantile).min(self.0.max());
        Figures {
            orders: self.0.len(),
            p50_ms: at(0.50),
            p99_ms: at(0.99),
            most_ms: self.0.max(),
            ..Figures::default()
        }
    }
}

/// How many wait at once, over time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    now: u64,
    most: u64,
    most_at_ms: u64,
    /// When it last changed.
    since_ms: u64,
    /// The number times the milliseconds that it was so.
    area: u128,
}

impl Depth {
    /// One more waits. Times do not fall.
    pub fn up(&mut self, at_ms: u64) {
        self.pass(at_ms);
        self.now += 1;
        if self.now > self.most {
            (self.most, self.most_at_ms) = (self.now, at_ms);
        }
    }

    /// One waits no more.
    pub fn down(&mut self, at_ms: u64) {
        self.pass(at_ms);
        self.now = self.now.saturating_sub(1);
    }

    fn pass(&mut self, at_ms: u64) {
        let passed = at_ms.saturating_sub(self.since_ms);
        self.area += u128::from(self.now) * u128::from(passed);
        self.since_ms = self.since_ms.max(at_ms);
    }

    /// What it comes to between two times, outside which nobody waits.
    pub fn peak(mut self, begun_ms: u64, end_ms: u64) -> Peak {
        self.pass(end_ms);
        let over = u128::from(end_ms.saturating_sub(begun_ms)).max(1);
        Peak {
            most: self.most,
            most_at_ms: self.most_at_ms,
            mean_e3: (self.area * 1000 / over) as u64,
        }
    }
}

/// The orders of a lane.
#[derive(Clone, Debug, Default)]
pub struct Lane {
    /// Those that channels were asked for, and that have their cards.
    outside: u64,
    /// Those without their cards.
    waiting: Depth,
    waits: Waits,
}

impl Lane {
    /// An order has its cards, or is certain to have them, after so long.
    pub fn note(&mut self, wait_ms: u64) {
        self.waits.note(wait_ms);
    }

    /// Channels are asked for one more order.
    pub fn comes(&mut self, at_ms: u64) {
        self.waiting.up(at_ms);
    }

    /// One of these waits no more: it is filled, or given up.
    pub fn leaves(&mut self, at_ms: u64, is_filled: bool) {
        self.waiting.down(at_ms);
        self.outside += u64::from(is_filled);
    }

    /// What it comes to between two times, outside which nobody waits.
    pub fn figures(&self, begun_ms: u64, end_ms: u64) -> Figures {
        Figures {
            outside: self.outside,
            depth: Some(self.waiting.peak(begun_ms, end_ms)),
            ..self.waits.figures()
        }
    }
}

/// How many waited at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peak {
    pub most: u64,
    /// When it first was so, in Unix milliseconds; 0: nobody waited.
    pub most_at_ms: u64,
    /// The mean over time, in thousandths.
    pub mean_e3: u64,
}

/// How a channel or a lane did, or would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Those that got cards, and whose wait is known.
    pub orders: u64,
    /// Those of them that channels were asked for.
    pub outside: u64,
    /// Most jobs at a time, of a channel in a model.
    pub jobs_most: Option<u64>,
    /// Of a channel: orders that wait for a place of it. Of a lane: those without their cards. `None`: it is not known.
    pub depth: Option<Peak>,
    /// Of all waits, in milliseconds; 0: there are none.
    pub p50_ms: u64,
    pub p99_ms: u64,
    pub most_ms: u64,
}

/// As recorded, and as a model has it with the recorded tables and with another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    pub recorded: Figures,
    pub before: Figures,
    pub after: Figures,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_up_to_two_seconds_are_exact() {
        let mut waits = Waits::default();
        assert_eq!(waits.figures(), Figures::default());
        (1..=100).rev().for_each(|wait| waits.note(wait * 10));
        let figures = waits.figures();
        let told = (
            figures.orders,
            figures.p50_ms,
            figures.p99_ms,
            figures.most_ms,
        );
        assert_eq!(told, (100, 500, 990, 1000));
        waits.note(u64::MAX);
        assert!(waits.figures().most_ms >= WAIT_MAX_MS);
    }

    #[test]
    fn a_depth_is_the_most_at_once_and_its_mean_over_time() {
        let mut depth = Depth::default();
        depth.up(1_000);
        depth.up(1_100);
        depth.down(1_200);
        depth.up(1_300);
        depth.down(1_300);
        depth.down(1_400);
        let peak = Peak {
            most: 2,
            most_at_ms: 1_100,
            // 1 × 100 + 2 × 100 + 1 × 200 over 1000.
            mean_e3: 500,
        };
        assert_eq!(depth.peak(1_000, 2_000), peak);
        assert_eq!(Depth::default().peak(0, 0), Peak::default());
    }
}
