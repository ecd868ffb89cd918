//! Waiting between tries, and waiting for several calls at once.

use std::future::{Future, poll_fn};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

const WAIT_FIRST: Duration = Duration::from_millis(20);
const WAIT_MAX: Duration = Duration::from_secs(1);

/// How long to wait before the next try: twice as long each time, and never the same for two clients.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) const fn new() -> Self {
        Self { next: WAIT_FIRST }
    }

    /// Between half of the step and all of it.
    pub(crate) fn wait(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(WAIT_MAX);
        step / 2 + (step / 2).mul_f64(random_fraction())
    }

    /// What the server advised, and up to a quarter more, so that those refused together do not come back together.
    pub(crate) fn wait_advised(&mut self, retry_after_ms: u32) -> Duration {
        match Duration::from_millis(u64::from(retry_after_ms)) {
            Duration::ZERO => self.wait(),
            advised => advised + (advised / 4).mul_f64(random_fraction()),
        }
    }
}

/// From 0 to 1. The standard library seeds its hashers at random: enough for jitter.
fn random_fraction() -> f64 {
    f64::from(RandomState::new().build_hasher().finish() as u32) / f64::from(u32::MAX)
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
