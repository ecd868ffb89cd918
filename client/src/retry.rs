//! Whether to try again, and when; and waiting for several calls at once.
//!
//! [`Tries`] decides without a clock and without a connection, so that a simulation runs the very same decisions.

use std::future::{Future, poll_fn};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use croupier_protocol::Refusal;

const WAIT_FIRST: Duration = Duration::from_millis(20);
const WAIT_MAX: Duration = Duration::from_secs(1);

/// May a request be sent again that was sent and not answered?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resend {
    /// It reads, or it carries ids that make it the same request.
    Safe,
    /// It might happen twice.
    Never,
}

/// The tries of one call: what is known of it, and whether another one is due.
#[derive(Debug)]
pub struct Tries {
    backoff: Backoff,
    retries_left: u32,
    resend: Resend,
    in_doubt: bool,
}

impl Tries {
    /// For a call that may be retried `retries` times after losing its connection.
    pub fn new(retries: u32, resend: Resend) -> Self {
        Self::with_jitter(retries, resend, Jitter::Random)
    }

    /// As [`Tries::new`], with waits that follow from a seed.
    #[cfg(feature = "testing")]
    pub fn seeded(retries: u32, resend: Resend, seed: u64) -> Self {
        Self::with_jitter(retries, resend, Jitter::Seeded(seed))
    }

    fn with_jitter(retries: u32, resend: Resend, jitter: Jitter) -> Self {
        Self {
            backoff: Backoff {
                next: WAIT_FIRST,
                jitter,
            },
            retries_left: retries,
            resend,
            in_doubt: false,
        }
    }

    /// True from the first try that was sent and whose answer was lost.
    pub fn in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// A try was refused whole: how long to wait before the next one, if that makes sense.
    pub fn refused(&mut self, refusal: Refusal, retry_after_ms: u32) -> Option<Duration> {
        refusal
            .retryable()
            .then(|| self.backoff.wait_advised(retry_after_ms))
    }

    /// A try has no answer: how long to wait before the next one, if there may be one. `sent`: it may have reached the
    /// server. `passes`: what went wrong may pass.
    pub fn lost(&mut self, sent: bool, passes: bool) -> Option<Duration> {
        self.in_doubt |= sent;
        let may_resend = self.resend == Resend::Safe || !sent;
        if !may_resend || !passes || self.retries_left == 0 {
            return None;
        }
        self.retries_left -= 1;
        Some(self.backoff.wait())
    }

    /// Retries that are left.
    pub fn retries_left(&self) -> u32 {
        self.retries_left
    }
}

/// Where the spread of waits comes from.
#[derive(Debug)]
enum Jitter {
    Random,
    #[cfg(feature = "testing")]
    Seeded(u64),
}

impl Jitter {
    /// From 0 to 1.
    fn fraction(&mut self) -> f64 {
        match self {
            // The standard library seeds its hashers at random: enough for this.
            Jitter::Random => {
                f64::from(RandomState::new().build_hasher().finish() as u32) / f64::from(u32::MAX)
            }
            #[cfg(feature = "testing")]
            Jitter::Seeded(state) => {
                // SplitMix64's step and first mix (Steele, Lea, Flood 2014).
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                f64::from((mixed >> 32) as u32) / f64::from(u32::MAX)
            }
        }
    }
}

/// How long to wait before the next try: twice as long each time, and never the same for two clients.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    jitter: Jitter,
}

impl Backoff {
    pub(crate) const fn new() -> Self {
        Self {
            next: WAIT_FIRST,
            jitter: Jitter::Random,
        }
    }

    /// Between half of the step and all of it.
    pub(crate) fn wait(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(WAIT_MAX);
        step / 2 + (step / 2).mul_f64(self.jitter.fraction())
    }

    /// What the server advised, and up to a quarter more, so that those refused together do not come back together.
    pub(crate) fn wait_advised(&mut self, retry_after_ms: u32) -> Duration {
        match Duration::from_millis(u64::from(retry_after_ms)) {
            Duration::ZERO => self.wait(),
            advised => advised + (advised / 4).mul_f64(self.jitter.fraction()),
        }
    }
}

/// Runs all at once and returns their outputs in order. For a handful of futures: each wake polls all that are open.
pub(crate) async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut open: Vec<Pin<Box<F>>> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = open.iter().map(|_| None).collect();
    poll_fn(|context| {
        let mut all_done = true;
        for (future, output) in open.iter_mut().zip(&mut outputs) {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    Poll::Ready(value) => *output = Some(value),
                    Poll::Pending => all_done = false,
                }
            }
        }
        if all_done {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_second_with_jitter() {
        let mut backoff = Backoff::new();
        for step_ms in [20, 40, 80, 160, 320, 640, 1000, 1000, 1000] {
            let (wait, step) = (backoff.wait(), Duration::from_millis(step_ms));
            assert!(wait >= step / 2 && wait <= step, "{wait:?} of {step:?}");
        }
        let waits: Vec<_> = (0..20).map(|_| backoff.wait()).collect();
        assert!(waits.iter().any(|wait| *wait != waits[0]));
    }

    #[test]
    fn the_servers_advice_is_kept_to() {
        let mut backoff = Backoff::new();
        let wait = backoff.wait_advised(100);
        assert!(
            wait >= Duration::from_millis(100) && wait <= Duration::from_millis(125),
            "{wait:?}"
        );
        assert!(backoff.wait_advised(0) <= WAIT_FIRST);
    }

    #[tokio::test]
    async fn outputs_stand_in_the_order_of_the_futures() {
        let futures = [3_u64, 1, 2].map(|ms| async move {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            ms
        });
        assert_eq!(join_all(futures).await, [3, 1, 2]);
    }
}
