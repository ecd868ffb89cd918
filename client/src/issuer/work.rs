//! One job: its cards are made while its lease is kept, and delivered until the server has them.

use std::future::{Future, pending};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use croupier_protocol::{
    DELIVERY_ROWS_MAX, FRAME_HEADER_BYTES, FaultCode, ImportRow, JobState, Refusal,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Counters, Settings, Undelivered, count};
use crate::error::Error;
use crate::job::{Job, JobCard, JobFailure};
use crate::retry::Backoff;

/// The longest DeliverJob frame that is sent, even if the server takes longer ones: more gains nothing.
const FRAME_BYTES_MAX: usize = 256 * 1024;
/// Of a DeliverJob, before its rows: head, SKU, channel.
const HEAD_BYTES_MAX: usize = FRAME_HEADER_BYTES + 32 + 2 * 64;
/// A lease that is extended has more left than this.
const LEASE_MIN: Duration = Duration::from_millis(10);

/// What all jobs of a worker share.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) settings: Settings,
    pub(super) counts: Arc<Counters>,
    /// By when everything must have ended, once the worker is being stopped.
    pub(super) stopping: watch::Receiver<Option<Instant>>,
}

/// What became of making cards.
enum Made {
    Cards(Vec<JobCard>),
    Failed(JobFailure),
    /// The worker's time is over.
    Abandoned,
}

/// Until when a job is the worker's, by its own clock.
struct Lease(Mutex<Instant>);

impl Lease {
    fn of(job: &Job) -> Self {
        Self(Mutex::new(Instant::now() + job.lease))
    }

    fn lock(&self) -> MutexGuard<'_, Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn goes_on(&self, left: Duration) {
        *self.lock() = Instant::now() + left;
    }

    fn is_over(&self) -> bool {
        *self.lock() <= Instant::now()
    }
}

impl Work {
    /// Makes the cards of a job and delivers them, or fails it.
    ///
    /// # Errors
    /// If there are cards that the server has not acknowledged, and will not.
    pub(super) async fn run<R>(&self, job: &Job, making: R) -> Result<(), Undelivered>
    where
        R: Future<Output = Result<Vec<JobCard>, JobFailure>> + Send + 'static,
    {
        let lease = Lease::of(job);
        match self.make(job, &lease, making).await {
            Made::Cards(cards) => self.deliver(job, &lease, cards).await,
            Made::Failed(failure) => {
                count(&self.counts.failed, 1);
                let Settings {
                    client, channel, ..
                } = &self.settings;
                if let Err(error) = client.fail_job(channel, job, &failure).await {
                    // Its lease runs out instead.
                    tracing::debug!(%error, job = %job.id, "a job that failed could not be given up");
                }
                Ok(())
            }
            Made::Abandoned => Ok(()),
        }
    }

    /// In a task of its own, so that a panic is the end of this job and no other.
    async fn make<R>(&self, job: &Job, lease: &Lease, making: R) -> Made
    where
        R: Future<Output = Result<Vec<JobCard>, JobFailure>> + Send + 'static,
    {
        let mut task = JoinSet::new();
        task.spawn(making);
        let made = tokio::select! {
            made = task.join_next() => made,
            () = self.keep_leased(job, lease) => None,
            () = self.time_is_over() => return Made::Abandoned,
        };
        match made {
            Some(Ok(Ok(cards))) => Made::Cards(cards),
            Some(Ok(Err(failure))) => Made::Failed(failure),
            Some(Err(_)) | None => Made::Failed(JobFailure::for_now("the worker broke down")),
        }
    }

    /// Extends the lease whenever half of it is over, for as long as it may; never ends.
    async fn keep_leased(&self, job: &Job, kept: &Lease) {
        let settings = &self.settings;
        let until = Instant::now() + settings.extend_up_to;
        let mut left = job.lease;
        while left > LEASE_MIN {
            sleep(left / 2).await;
            let more = job
                .lease
                .min(until.saturating_duration_since(Instant::now()));
            // An extension by less than what is left would be none.
            if more <= left / 2 {
                break;
            }
            let extended = settings.client.extend_job(&settings.channel, job, more);
            left = match extended.await {
                Ok(lease) if lease.state == JobState::UnderWay => {
                    count(&self.counts.extended, 1);
                    kept.goes_on(lease.lease);
                    lease.lease
                }
                Ok(lease) => {
                    tracing::debug!(job = %job.id, state = %lease.state, "the job is not this worker's any more");
                    break;
                }
                Err(error) => {
                    tracing::debug!(%error, job = %job.id, "a lease was not extended");
                    left / 2
                }
            };
        }
        pending().await
    }

    async fn deliver(
        &self,
        job: &Job,
        lease: &Lease,
        mut cards: Vec<JobCard>,
    ) -> Result<(), Undelivered> {
        // What is acknowledged is no more to be delivered.
        let mut acknowledged = 0;
        loop {
            let rest = &cards[acknowledged..];
            match self.deliver_some(job, lease, rest).await {
                Ok(some) if some == rest.len() => return Ok(()),
                Ok(some) => acknowledged += some,
                Err(error) => {
                    let (job, cards) = (job.clone(), cards.split_off(acknowledged));
                    return Err(Undelivered { job, cards, error });
                }
            }
        }
    }

    /// Delivers as many of these as one frame has room for, and says how many that was.
    async fn deliver_some(
        &self,
        job: &Job,
        lease: &Lease,
        cards: &[JobCard],
    ) -> Result<usize, Error> {
        let Settings {
            client, channel, ..
        } = &self.settings;
        let mut backoff = Backoff::new();
        loop {
            let delivered = async {
                let rows = rows_of(cards, client.frame_bytes_max().await?);
                let all = rows.len() == cards.len();
                let delivery = client.deliver_job(channel, job, &rows, all).await?;
                Ok((rows.len(), all, delivery))
            };
            let delivered = tokio::select! {
                delivered = delivered => delivered,
                () = self.time_is_over() => Err(Error::TimedOut { after_ms: 0, sent: true }),
            };
            match delivered {
                Ok((rows, all, delivery)) => {
                    count(&self.counts.cards, delivery.accepted);
                    count(&self.counts.rejected, delivery.rejections.len() as u64);
                    for row in &delivery.rejections {
                        tracing::debug!(job = %job.id, line = row.line, reason = row.reason.name(), "a card was rejected");
                    }
                    let over = matches!(delivery.state, JobState::Over | JobState::Unknown)
                        || lease.is_over();
                    count(&self.counts.late, u64::from(all && over));
                    return Ok(rows);
                }
                Err(error) if !self.passes(&error) || self.is_time_over() => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, job = %job.id, "cards are delivered again");
                    self.pause(backoff.wait()).await;
                }
            }
        }
    }

    /// True if the same may be asked again later, with another answer.
    pub(super) fn passes(&self, error: &Error) -> bool {
        match error {
            Error::Unreachable { .. } | Error::TimedOut { .. } | Error::Closed { .. } => true,
            Error::Fault { code, .. } => matches!(
                code,
                FaultCode::TooManyConnections | FaultCode::TimedOut | FaultCode::BadChecksum
            ),
            Error::Refused { refusal, .. } => match refusal {
                Refusal::StoreFailed | Refusal::DiskFull => true,
                // A worker that was set up wrongly is told so at once. Later a table may be put right, and a worker go.
                Refusal::ChannelUnknown | Refusal::TooManyWorkers => self.is_accepted(),
                refusal => refusal.retryable(),
            },
            _ => false,
        }
    }

    pub(super) fn was_accepted(&self) {
        self.counts.accepted.store(true, Ordering::Relaxed);
    }

    fn is_accepted(&self) -> bool {
        self.counts.accepted.load(Ordering::Relaxed)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.borrow().is_some()
    }

    fn is_time_over(&self) -> bool {
        let until = *self.stopping.borrow();
        until.is_some_and(|until| until <= Instant::now())
    }

    /// Ends when everything must have ended.
    pub(super) async fn time_is_over(&self) {
        let mut stopping = self.stopping.clone();
        let until = match stopping.wait_for(Option::is_some).await {
            Ok(until) => *until,
            Err(_) => None,
        };
        match until {
            Some(until) => sleep_until(until).await,
            // Nobody is there to stop it: then the task is aborted.
            None => pending().await,
        }
    }

    /// Waits, and less if the worker is to stop meanwhile.
    pub(super) async fn pause(&self, time: Duration) {
        tokio::select! {
            () = sleep(time) => {}
            () = self.time_is_over() => {}
        }
    }
}

/// The first of the cards, as many as one frame takes; one at least, which the server then refuses.
fn rows_of(cards: &[JobCard], frame_bytes_max: usize) -> Vec<ImportRow<'_>> {
    let mut room = frame_bytes_max
        .min(FRAME_BYTES_MAX)
        .saturating_sub(HEAD_BYTES_MAX);
    let mut rows = Vec::with_capacity(cards.len().min(DELIVERY_ROWS_MAX));
    for (line, card) in (1..).zip(cards.iter().take(DELIVERY_ROWS_MAX)) {
        let row = card.row(line);
        let bytes = row.encoded_bytes();
        if bytes > room && !rows.is_empty() {
            break;
        }
        room = room.saturating_sub(bytes);
        rows.push(row);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_filled_and_never_overfilled() {
        let cards: Vec<JobCard> = (0..3000).map(|_| vec![b'x'; 100].into()).collect();
        assert_eq!(rows_of(&cards, 16 << 20).len(), DELIVERY_ROWS_MAX);
        let rows = rows_of(&cards, 4096);
        let bytes: usize = rows.iter().map(ImportRow::encoded_bytes).sum();
        assert!(HEAD_BYTES_MAX + bytes <= 4096 && HEAD_BYTES_MAX + bytes + 140 > 4096);
        assert_eq!(rows_of(&cards, 24).len(), 1);
        assert_eq!(rows_of(&[], 4096).len(), 0);
    }
}
