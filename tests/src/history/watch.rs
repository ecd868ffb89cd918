//! What was seen: counts of everything, and what must not be.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::panic::{self, AssertUnwindSafe};
use std::pin::pin;
use std::sync::{Mutex, MutexGuard};
use std::task::Poll;

use tokio::task::JoinHandle;

/// Violations that are told in full; the others are only counted.
const TOLD_MAX: usize = 20;

/// Counts by what was asked and how it was answered.
pub type Answers = BTreeMap<(&'static str, &'static str), u64>;

/// What was seen of a history.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// By what was asked and how it was answered.
    pub answers: Answers,
    /// Of these, answers marked as repeats.
    pub repeats: u64,
    /// Asks without an answer, which were repeated later.
    pub unanswered: u64,
    /// Steps that were asked at the same time as, or after, the same step by another caller or by the same one.
    pub duplicates: u64,
    /// Chains of orders that were answered.
    pub chains: u64,
    /// Imports, those that were cut off, and cards.
    pub imports: [u64; 3],
    /// Moves by name, and cards moved.
    pub moves: BTreeMap<&'static str, [u64; 2]>,
    /// Checks of a quiet server, of a stopped store, and answers asked again for a sample.
    pub checks: [u64; 3],
    /// Violations, the first of them in full.
    pub violations: Vec<String>,
    /// All of them.
    pub violated: u64,
}

/// Sees to it that nothing goes unseen, from as many tasks as there are.
#[derive(Debug, Default)]
pub struct Watch {
    seen: Mutex<Seen>,
}

impl Watch {
    /// What was seen so far, to be added to.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// True if something was seen that must not be.
    pub fn is_violated(&self) -> bool {
        self.seen().violated > 0
    }

    /// Does a check that panics if it fails; `None` if it has.
    pub fn check<T>(&self, check: impl FnOnce() -> T) -> Option<T> {
        match panic::catch_unwind(AssertUnwindSafe(check)) {
            Ok(value) => Some(value),
            Err(why) => {
                self.violated(&*why);
                None
            }
        }
    }

    /// As [`Watch::check`], of one that waits.
    pub async fn check_async<T>(&self, check: impl Future<Output = T>) -> Option<T> {
        let mut check = pin!(check);
        let done = poll_fn(|context| {
            let poll = || check.as_mut().poll(context);
            match panic::catch_unwind(AssertUnwindSafe(poll)) {
                Ok(poll) => poll.map(Ok),
                Err(why) => Poll::Ready(Err(why)),
            }
        });
        match done.await {
            Ok(value) => Some(value),
            Err(why) => {
                self.violated(&*why);
                None
            }
        }
    }

    /// As [`Watch::check`], of one that blocks.
    pub async fn check_blocking<T: Send + 'static>(
        &self,
        check: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        self.check_async(joined(tokio::task::spawn_blocking(check)))
            .await
    }

    fn violated(&self, why: &(dyn Any + Send)) {
        let text = why.downcast_ref::<String>().cloned();
        let text = text.or_else(|| why.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        self.found(text.unwrap_or_else(|| "a check panicked without a word".to_owned()));
    }

    /// Books a violation.
    pub fn found(&self, what: String) {
        let mut seen = self.seen();
        seen.violated += 1;
        if seen.violations.len() < TOLD_MAX {
            seen.violations.push(what);
        }
    }
}

/// What a task has come to; its panic is passed on.
///
/// # Panics
/// If it has.
pub async fn joined<T>(task: JoinHandle<T>) -> T {
    match task.await {
        Ok(value) => value,
        Err(broken) => panic::resume_unwind(broken.into_panic()),
    }
}
