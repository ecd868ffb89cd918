//! When a canary is promoted, paused or rolled back: docs/canary.md. Pure: what was seen of orders in, verdicts out.

use std::collections::HashSet;

use croupier_protocol::CanaryReason;

use super::Settings;
use super::stats::{Sample, Samples};
use crate::route::{Fate, Group, Sighting};

/// Chance that a canary that is no worse is rolled back at any time.
pub const ERROR: f64 = 0.02;
/// A canary is not promoted while a test finds less than this.
const SUSPICION: f64 = 0.01;
/// When a step is looked at: sixteenths of the minimum sample that both groups have.
const LOOKS: [usize; 5] = [1, 4, 16, 32, 64];
/// The first of them after which the canary may be promoted.
const FIRST_TO_PROMOTE: usize = 2;
/// A look is also due when one group has so many times as much.
const LOPSIDED: usize = 2;
/// How many tests there are.
const TESTS: usize = 4;

/// What is to become of a canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is no worse: that share is next; `None`: all orders.
    Promote(Option<u8>),
    /// Nobody can say.
    Pause(CanaryReason),
    /// It is worse.
    RollBack(CanaryReason),
}

/// One step of a canary, from an empty sample to its verdict.
#[derive(Debug)]
pub struct Course {
    settings: Settings,
    share: u8,
    is_paused: bool,
    /// Which sample of this canary it is, from 1.
    nth: u32,
    samples: Samples,
    /// Ids, hashed, of orders that count already and may come again.
    counted: HashSet<u64>,
    /// Looks that the sample has had, or that came at once with the last one.
    looked: usize,
    /// How long the step has been going on.
    elapsed_ms: u64,
}

impl Course {
    /// A step at a share, with an empty sample: the `nth` of this canary, from 1.
    pub fn new(settings: Settings, share: u8, is_paused: bool, nth: u32) -> Course {
        Course {
            settings,
            share,
            is_paused,
            nth: nth.max(1),
            samples: Samples::default(),
            counted: HashSet::new(),
            looked: 0,
            elapsed_ms: 0,
        }
    }

    /// What was seen so far.
    pub fn samples(&self) -> &Samples {
        &self.samples
    }

    /// Orders that both groups need for the next look.
    pub fn next_look(&self) -> usize {
        self.look_at(self.looked.min(LOOKS.len() - 1))
    }

    /// Takes what became of an order.
    pub fn see(&mut self, seen: &Sighting) {
        let most = LOPSIDED * self.look_at(LOOKS.len() - 1);
        let sample = match seen.group {
            Group::Canary => &mut self.samples.canary,
            Group::Baseline => &mut self.samples.baseline,
        };
        if sample.orders() >= most || self.counted.contains(&seen.id) {
            return;
        }
        match seen.fate {
            Fate::Served { ns } => sample.latencies_ns.push(ns),
            Fate::Filled { ns } => {
                sample.latencies_ns.push(ns);
                self.counted.insert(seen.id);
            }
            Fate::Failed => {
                sample.failed += 1;
                self.counted.insert(seen.id);
            }
        }
    }

    /// Time has passed: what is to become of the canary; `None`: nothing yet. After a verdict another step begins.
    pub fn judge(&mut self, passed_ms: u64) -> Option<Verdict> {
        self.elapsed_ms = self.elapsed_ms.saturating_add(passed_ms);
        let (small, large) = self.samples.orders();
        let is_due =
            |nth: usize| small >= self.look_at(nth) || large >= LOPSIDED * self.look_at(nth);
        let looked = (self.looked..LOOKS.len())
            .take_while(|&nth| is_due(nth))
            .last();
        if let Some(nth) = looked {
            self.looked = nth + 1;
            return self.look(nth);
        }
        let is_late = self.elapsed_ms >= self.settings.step_time_ms && !self.is_paused;
        is_late.then_some(Verdict::Pause(CanaryReason::TooFewOrders))
    }

    /// Orders of a group at which a step is looked at.
    fn look_at(&self, nth: usize) -> usize {
        (self.settings.minimum_sample as usize * LOOKS[nth]).div_ceil(LOOKS[FIRST_TO_PROMOTE])
    }

    /// What one test at one look may find by chance.
    fn error(&self) -> f64 {
        let (nth, steps) = (f64::from(self.nth), f64::from(self.settings.steps()));
        let of_sample = steps / ((nth + steps - 1.0) * (nth + steps));
        ERROR * of_sample / (LOOKS.len() * TESTS) as f64
    }

    fn look(&mut self, look: usize) -> Option<Verdict> {
        let limit = self.settings.limit();
        let found = [
            (CanaryReason::Failures, self.samples.failures()),
            (CanaryReason::FewerAnswers, self.samples.fewer_answers()),
            (CanaryReason::Slower, self.samples.slower(limit)),
            (CanaryReason::SlowTail, self.samples.slow_tail(limit)),
        ];
        let worst = found.into_iter().min_by(|a, b| a.1.total_cmp(&b.1));
        let (reason, p) = worst.unwrap_or((CanaryReason::NoWorse, 1.0));
        if p <= self.error() {
            return Some(Verdict::RollBack(reason));
        }
        let is_last = look == LOOKS.len() - 1;
        if self.is_paused {
            if is_last {
                *self = Course::new(self.settings, self.share, true, self.nth + 1);
            }
            return None;
        }
        let (small, _) = self.samples.orders();
        let is_enough = look >= FIRST_TO_PROMOTE && small >= self.settings.minimum_sample as usize;
        let is_fast = is_last || self.samples.p99_ratio() <= limit;
        if is_enough && p > SUSPICION && is_fast {
            return Some(Verdict::Promote(self.settings.share_after(self.share)));
        }
        is_last.then_some(Verdict::Pause(CanaryReason::Inconclusive))
    }
}

/// Figures of a group, for records and people.
pub fn figures_of(sample: &Sample) -> crate::state::canary::Figures {
    let us = |hundredths| {
        let ns = sample.percentile_ns(hundredths).unwrap_or(0);
        u32::try_from(ns / 1000).unwrap_or(u32::MAX)
    };
    crate::state::canary::Figures {
        orders: sample.orders() as u32,
        failed: sample.failed,
        p50_us: us(50),
        p99_us: us(99),
    }
}

#[cfg(test)]
mod tests;
