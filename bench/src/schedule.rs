//! When orders are due in an open loop: a sequence of intended times that no answer, fast or slow, can move.

use crate::workload::mix64;

/// How intended times follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrivals {
    /// Evenly, one after the other.
    Constant,
    /// Independently of each other: exponential gaps.
    Poisson,
}

/// The intended times of one thread's frames, in nanoseconds on the run's clock.
#[derive(Debug)]
pub struct Schedule {
    arrivals: Arrivals,
    /// Mean gap; times are sums in floating point, good to a nanosecond for many days.
    gap_ns: f64,
    next_ns: f64,
    random: u64,
}

impl Schedule {
    /// Frames at `frames_per_s`, the first one `offset_gaps` gaps after `start_ns`: threads interleave their
    /// constant schedules by different offsets.
    pub fn new(
        arrivals: Arrivals,
        frames_per_s: f64,
        start_ns: u64,
        offset_gaps: f64,
        seed: u64,
    ) -> Self {
        let gap_ns = 1e9 / frames_per_s;
        let mut schedule = Self {
            arrivals,
            gap_ns,
            next_ns: start_ns as f64,
            random: mix64(seed),
        };
        match arrivals {
            Arrivals::Constant => schedule.next_ns += offset_gaps * gap_ns,
            Arrivals::Poisson => schedule.advance(),
        }
        schedule
    }

    /// When the next frame is due.
    #[inline]
    pub fn next_ns(&self) -> u64 {
        self.next_ns as u64
    }

    /// Goes on to the frame after.
    #[inline]
    pub fn advance(&mut self) {
        self.next_ns += match self.arrivals {
            Arrivals::Constant => self.gap_ns,
            Arrivals::Poisson => self.gap_ns * self.exponential(),
        };
    }

    /// A draw from the exponential distribution of mean 1, by inversion.
    #[inline]
    fn exponential(&mut self) -> f64 {
        self.random = self.random.wrapping_add(1);
        // 53 random bits, as a number in (0, 1]: its logarithm is finite.
        let uniform = ((mix64(self.random) >> 11) + 1) as f64 / (1u64 << 53) as f64;
        -uniform.ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(arrivals: Arrivals, count: usize) -> Vec<u64> {
        let mut schedule = Schedule::new(arrivals, 1000.0, 5_000, 0.5, 42);
        (0..count)
            .map(|_| {
                let next = schedule.next_ns();
                schedule.advance();
                next
            })
            .collect()
    }

    #[test]
    fn constant_arrivals_are_even() {
        assert_eq!(
            times(Arrivals::Constant, 3),
            [505_000, 1_505_000, 2_505_000]
        );
    }

    #[test]
    fn poisson_arrivals_have_the_mean_and_the_spread_of_an_exponential() {
        let times = times(Arrivals::Poisson, 100_001);
        let gaps: Vec<f64> = times
            .windows(2)
            .map(|pair| (pair[1] - pair[0]) as f64)
            .collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean / 1e6 - 1.0).abs() < 0.02, "mean gap {mean}");
        assert!(
            (variance.sqrt() / mean - 1.0).abs() < 0.02,
            "deviation {}",
            variance.sqrt()
        );
    }
}
