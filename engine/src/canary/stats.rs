//! The tests by which two groups of orders are compared. Pure: samples in, chances out.
//!
//! Which order is in which group was drawn by lot, by a hash of its id. Each function tells how likely a canary is that looks as much
//! worse as this one or more, if its table makes no difference: a *p*-value, small when the canary is worse.

use statrs::distribution::{Binomial, DiscreteCDF as _, Hypergeometric};
use statrs::stats_tests::Alternative;
use statrs::stats_tests::mannwhitneyu::{MannWhitneyUMethod, mannwhitneyu};

/// From so many latencies a group on the normal distribution does for ranks.
const RANKED_MIN: usize = 20;
/// Most latencies of a group that are ranked: the library takes the square of them.
const RANKED_MAX: usize = 4000;
/// The slowest one in so many is the tail.
const TAIL: usize = 100;

/// What is known of the orders of one group.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Orders that were refused for reasons that a table may be to blame for.
    pub failed: u32,
    /// Latencies of the others per card, in nanoseconds, as they came.
    pub latencies_ns: Vec<u64>,
}

impl Sample {
    /// Orders that were answered.
    pub fn orders(&self) -> usize {
        self.failed as usize + self.latencies_ns.len()
    }

    /// The latency that so many in a hundred do not exceed; `None`: there is none.
    pub fn percentile_ns(&self, hundredths: usize) -> Option<u64> {
        let mut all = self.latencies_ns.clone();
        let at = (all.len() * hundredths).div_ceil(100).checked_sub(1)?;
        Some(*all.select_nth_unstable(at).1)
    }
}

/// The groups that are compared.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    pub canary: Sample,
    pub baseline: Sample,
}

impl Samples {
    /// Orders of the smaller and of the larger group.
    pub fn orders(&self) -> (usize, usize) {
        let (canary, baseline) = (self.canary.orders(), self.baseline.orders());
        (canary.min(baseline), canary.max(baseline))
    }

    /// More of the canary's orders failed.
    pub fn failures(&self) -> f64 {
        let (canary, baseline) = (&self.canary, &self.baseline);
        more_than_its_part(
            (canary.failed as usize, canary.orders()),
            (baseline.failed as usize, baseline.orders()),
        )
    }

    /// The canary is slower, by more than the factor `limit`.
    pub fn slower(&self, limit: f64) -> f64 {
        let baseline = picked(&self.baseline.latencies_ns, 1.0);
        let canary = picked(&self.canary.latencies_ns, limit);
        if canary.len().min(baseline.len()) < RANKED_MIN {
            return 1.0;
        }
        let method = MannWhitneyUMethod::AsymptoticInclContinuityCorrection;
        match mannwhitneyu(&canary, &baseline, method, Alternative::Greater) {
            // Not a number: all are the same.
            Ok((_, p)) if !p.is_nan() => p,
            _ => 1.0,
        }
    }

    /// The canary's slowest hundredth is slower, by more than the factor `limit`.
    pub fn slow_tail(&self, limit: f64) -> f64 {
        let canary = scaled(&self.canary.latencies_ns, limit);
        let baseline = &self.baseline.latencies_ns;
        let mut all: Vec<u64> = canary.iter().chain(baseline).copied().collect();
        let Some(at) = all.len().checked_sub(1 + all.len() / TAIL) else {
            return 1.0;
        };
        let border = *all.select_nth_unstable(at).1;
        let slow_from = |border: u64, some: &[u64]| some.iter().filter(|&&ns| ns >= border).count();
        // Of many that are alike at the border all are in the tail, if none would be else.
        let is_empty = slow_from(border + 1, &all) * 2 < all.len() / TAIL;
        let border = border + u64::from(!is_empty);
        let slow = |some: &[u64]| slow_from(border, some);
        more_than_its_part(
            (slow(&canary), canary.len()),
            (slow(baseline), baseline.len()),
        )
    }

    /// Fewer of the canary's orders were answered.
    pub fn fewer_answers(&self) -> f64 {
        let (canary, baseline) = (self.canary.orders() as u64, self.baseline.orders() as u64);
        match Binomial::new(0.5, canary + baseline) {
            Ok(by_lot) if canary < baseline => by_lot.cdf(canary),
            _ => 1.0,
        }
    }

    /// P99 of the canary as a multiple of that of the baseline; infinite if only that has one.
    pub fn p99_ratio(&self) -> f64 {
        match (
            self.canary.percentile_ns(99),
            self.baseline.percentile_ns(99),
        ) {
            (Some(canary), Some(baseline)) => canary as f64 / baseline.max(1) as f64,
            // Nothing that could be slower.
            (None, _) => 1.0,
            (Some(_), None) => f64::INFINITY,
        }
    }
}

fn scaled(latencies_ns: &[u64], limit: f64) -> Vec<u64> {
    let all = latencies_ns.iter();
    all.map(|&ns| (ns as f64 / limit) as u64).collect()
}

/// At most [`RANKED_MAX`] of them, from the first to the last.
fn picked(latencies_ns: &[u64], limit: f64) -> Vec<u64> {
    let (all, few) = (latencies_ns.len(), latencies_ns.len().min(RANKED_MAX));
    let some: Vec<u64> = (0..few).map(|nth| latencies_ns[nth * all / few]).collect();
    scaled(&some, limit)
}

/// The chance that as many or more of those that are marked in both groups are in the first. Each is (marked, all).
fn more_than_its_part((marked, size): (usize, usize), (others, rest): (usize, usize)) -> f64 {
    if marked == 0 {
        return 1.0;
    }
    let by_lot = Hypergeometric::new((size + rest) as u64, (marked + others) as u64, size as u64);
    // Above one less: as many or more.
    by_lot.map_or(1.0, |by_lot| by_lot.sf(marked as u64 - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(failed: u32, latencies_ns: impl IntoIterator<Item = u64>) -> Sample {
        Sample {
            failed,
            latencies_ns: latencies_ns.into_iter().collect(),
        }
    }

    fn samples(canary: Sample, baseline: Sample) -> Samples {
        Samples { canary, baseline }
    }

    fn is_about(found: f64, expect: f64) {
        assert!((found / expect - 1.0).abs() < 1e-6, "{found} {expect}");
    }

    #[test]
    fn failures_are_counted_exactly() {
        let p = |canary: (u32, u64), baseline: (u32, u64)| {
            let of = |(failed, rest)| sample(failed, 0..rest);
            samples(of(canary), of(baseline)).failures()
        };
        // The lady tasting tea: three of four right.
        is_about(p((3, 1), (1, 3)), 17.0 / 70.0);
        is_about(p((4, 0), (0, 4)), 1.0 / 70.0);
        assert_eq!(p((0, 9), (5, 4)), 1.0);
        assert_eq!(p((0, 0), (0, 0)), 1.0);
        assert!(p((200, 0), (0, 200)) < 1e-100);
        assert!(p((40, 1960), (40, 1960)) > 0.5);
        assert!(p((80, 1920), (40, 1960)) < 1e-3);
    }

    #[test]
    fn who_is_slower_by_more_than_the_limit_is_found() {
        let base: Vec<u64> = (1..=400).map(|n| 1_000_000 + n * 1000).collect();
        let by = |factor: f64| {
            let canary = base.iter().map(|&ns| (ns as f64 * factor) as u64);
            samples(sample(0, canary), sample(0, base.clone())).slower(1.05)
        };
        assert!(by(1.0) > 0.99);
        assert!(by(1.04) > 0.5);
        assert!(by(1.2) < 1e-6);
        let few = samples(sample(0, [9; 19]), sample(0, [1; 500]));
        assert_eq!(few.slower(1.0), 1.0);
        let same = samples(sample(0, [7; 50]), sample(0, [7; 50]));
        assert_eq!(same.slower(1.0), 1.0);
    }

    #[test]
    fn a_slow_tail_is_found_that_no_rank_shows() {
        let base = |slow: u64| (0..4000).map(move |n| if n % 1000 < slow { 90_000 } else { 1000 });
        let tail = samples(sample(0, base(30)), sample(0, base(0)));
        assert!(tail.slow_tail(1.05) < 1e-9);
        assert!(tail.slower(1.05) > 0.01);
        assert_eq!(tail.p99_ratio(), 90.0);
        let same = samples(sample(0, base(30)), sample(0, base(30)));
        assert!(same.slow_tail(1.05) > 0.4);
        assert_eq!(same.p99_ratio(), 1.0);
        assert_eq!(Samples::default().slow_tail(1.05), 1.0);
    }

    #[test]
    fn who_does_not_answer_is_found() {
        let p = |canary, baseline| {
            samples(sample(0, 0..canary), sample(0, 0..baseline)).fewer_answers()
        };
        is_about(p(0, 10), 1.0 / 1024.0);
        assert_eq!((p(10, 0), p(0, 0), p(7, 7)), (1.0, 1.0, 1.0));
        assert!(p(95, 105) > 0.2);
        assert!(p(60, 130) < 1e-6);
    }

    #[test]
    fn percentiles_are_values_that_there_are() {
        let some = sample(3, (1..=200).rev());
        assert_eq!(some.percentile_ns(50), Some(100));
        assert_eq!(some.percentile_ns(99), Some(198));
        assert_eq!(sample(1, []).percentile_ns(99), None);
        assert_eq!(sample(0, [5]).percentile_ns(50), Some(5));
    }
}
