//! One line on stderr that says, every second, how a run is doing. Drawn on terminals only.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::units::grouped;

/// What threads tell the line. Relaxed throughout: figures for people, nothing is published through them.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Gauge {
    answered: AtomicU64,
    refused: AtomicU64,
    in_flight: AtomicU64,
}

impl Gauge {
    /// Orders answered so far, refused so far, and in flight now.
    #[inline]
    pub fn set(&self, answered: u64, refused: u64, in_flight: u64) {
        self.answered.store(answered, Ordering::Relaxed);
        self.refused.store(refused, Ordering::Relaxed);
        self.in_flight.store(in_flight, Ordering::Relaxed);
    }
}

/// The line.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    last: Instant,
    last_answered: u64,
}

const EVERY: Duration = Duration::from_secs(1);

impl Progress {
    /// A line that begins with `what`.
    pub fn new(what: impl Into<String>) -> Self {
        let bar = ProgressBar::new_spinner();
        bar.set_style(
            ProgressStyle::with_template("{spinner} {prefix} {elapsed} {msg}")
                .expect("the template is valid"),
        );
        bar.set_prefix(what.into());
        bar.tick();
        Self {
            bar,
            last: Instant::now(),
            last_answered: 0,
        }
    }

    /// A line that nobody sees: of a load beside another one, which has the terminal.
    pub fn hidden() -> Self {
        Self {
            bar: ProgressBar::hidden(),
            last: Instant::now(),
            last_answered: 0,
        }
    }

    /// Draws what the threads told, once a second.
    pub fn show(&mut self, gauges: &[Gauge]) {
        let passed = self.last.elapsed();
        if passed < EVERY {
            return;
        }
        let sum = |of: fn(&Gauge) -> &AtomicU64| {
            gauges
                .iter()
                .map(|gauge| of(gauge).load(Ordering::Relaxed))
                .sum::<u64>()
        };
        let answered = sum(|gauge| &gauge.answered);
        let per_s = (answered - self.last_answered.min(answered)) as f64 / passed.as_secs_f64();
        (self.last, self.last_answered) = (Instant::now(), answered);
        self.bar.set_message(format!(
            "{} orders/s, {} answered, {} refused, {} in flight",
            grouped(per_s as u64),
            grouped(answered),
            grouped(sum(|gauge| &gauge.refused)),
            grouped(sum(|gauge| &gauge.in_flight)),
        ));
        self.bar.tick();
    }

    /// Draws a text of the caller's, once a second.
    pub fn say(&mut self, text: impl FnOnce() -> String) {
        if self.last.elapsed() >= EVERY {
            self.last = Instant::now();
            self.bar.set_message(text());
            self.bar.tick();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
