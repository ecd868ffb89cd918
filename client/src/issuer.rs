//! A worker of an issuer: keeps offers of room open, has the caller make cards for each job, and delivers them.
//!
//! Reading order: this page is what a caller sees; `worker` holds offers and jobs together; `work` is one job.

mod work;
mod worker;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use croupier_protocol::JOBS_MAX;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::client::Client;
use crate::error::Error;
use crate::job::{Job, JobCard, JobFailure};
use work::Work;
use worker::Worker;

/// What a worker is set up with.
#[derive(Debug, Clone)]
struct Settings {
    client: Client,
    channel: String,
    name: String,
    /// Never zero.
    jobs_max: u32,
    wait: Duration,
    extend_up_to: Duration,
}

/// Sets an [`Issuer`] up.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `start`"]
pub struct IssuerBuilder {
    settings: Settings,
}

impl IssuerBuilder {
    /// What the worker is called, for people; at most 64 bytes. Default: the channel's name.
    pub fn worker(mut self, name: impl Into<String>) -> Self {
        self.settings.name = name.into();
        self
    }

    /// Most jobs that are under way at a time, 1 … [`JOBS_MAX`](crate::JOBS_MAX). Default: 16.
    pub fn jobs_max(mut self, jobs: u32) -> Self {
        self.settings.jobs_max = jobs.clamp(1, JOBS_MAX);
        self
    }

    /// How long an offer stays open before it is made anew, a minute at most; [`Issuer::stop`] may take so long. Default: 5 s.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.settings.wait = wait;
        self
    }

    /// How long a job may be worked on in all: until then its lease is extended whenever half of it is over. Later its order is
    /// given to another channel, and what is made all the same is stock. Zero: leases are not extended. Default: a minute.
    pub fn extend_up_to(mut self, time: Duration) -> Self {
        self.settings.extend_up_to = time;
        self
    }

    /// Begins. `make` is called once for each job, for as many at a time as [`IssuerBuilder::jobs_max`] says, each in a task of its
    /// own; it makes or buys the cards, or says why not. If it panics, the job has failed for now.
    ///
    /// # Panics
    /// If called outside of a tokio runtime.
    pub fn start<F, R>(self, make: F) -> Issuer
    where
        F: Fn(Job) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Vec<JobCard>, JobFailure>> + Send + 'static,
    {
        let counts = Arc::new(Counters::default());
        let (stop, stopping) = watch::channel(None);
        let work = Work {
            settings: self.settings,
            counts: Arc::clone(&counts),
            stopping,
        };
        let worker = Worker::new(Arc::new(work), Arc::new(make));
        let task = tokio::spawn(worker.run());
        Issuer { task, stop, counts }
    }
}

/// A worker of an issuer that runs by itself. It connects again whenever it must, delivers until the server has acknowledged what it
/// was given (which is safe: a card is stock once), and never takes more jobs than it may.
///
/// Dropped, it stops at once: jobs are given up, and cards that were made and not acknowledged are lost to it. [`Issuer::stop`]
/// finishes what is under way.
///
/// ```no_run
/// use std::time::Duration;
/// use croupier_client::{Client, Error, Issuer, Job, JobCard, JobFailure};
///
/// # async fn work(client: Client) -> Result<(), Error> {
/// let issuer = Issuer::builder(client, "alpha")
///     .worker("alpha-1")
///     .jobs_max(64)
///     .start(|job: Job| async move {
///         match buy(&job.sku, job.quantity).await {
///             Some(codes) => Ok(codes.into_iter().map(JobCard::from).collect()),
///             None => Err(JobFailure::for_now("the supplier does not answer")),
///         }
///     });
/// wait_for_a_signal().await;
/// let report = issuer.stop(Duration::from_secs(30)).await;
/// println!("{} cards delivered", report.counts.cards);
/// for undelivered in report.undelivered {
///     keep_for_later(undelivered);
/// }
/// # Ok(())
/// # }
/// # async fn buy(_sku: &str, _quantity: u16) -> Option<Vec<String>> { None }
/// # async fn wait_for_a_signal() {}
/// # fn keep_for_later(_undelivered: croupier_client::Undelivered) {}
/// ```
#[derive(Debug)]
pub struct Issuer {
    task: JoinHandle<Ended>,
    /// By when everything under way must have ended.
    stop: watch::Sender<Option<Instant>>,
    counts: Arc<Counters>,
}

impl Issuer {
    /// For a channel of the route table in force. The worker shares the connection of `client`.
    pub fn builder(client: Client, channel: impl Into<String>) -> IssuerBuilder {
        let channel = channel.into();
        IssuerBuilder {
            settings: Settings {
                name: channel.clone(),
                client,
                channel,
                jobs_max: 16,
                wait: Duration::from_secs(5),
                extend_up_to: Duration::from_secs(60),
            },
        }
    }

    /// What it has done so far.
    pub fn counts(&self) -> IssuerCounts {
        self.counts.read()
    }

    /// Waits until it ends by itself, which it does only on an error that does not pass: it then takes no more jobs and finishes those
    /// under way. Dropping the future does not end it.
    pub async fn ended(&self) {
        // Whoever runs has an end of it.
        self.stop.closed().await;
    }

    /// Takes no more jobs, finishes those under way and those that open offers still bring, for `within` at most, and tells what was
    /// done. What is being made by then is dropped; what has been made and could not be delivered is in the report.
    pub async fn stop(mut self, within: Duration) -> IssuerReport {
        let until = Instant::now().checked_add(within);
        self.stop.send_replace(until.or(Some(far_away())));
        let ended = (&mut self.task).await.unwrap_or_else(|_| Ended::default());
        IssuerReport {
            counts: self.counts(),
            undelivered: ended.undelivered,
            error: ended.error,
        }
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A time that nobody will see, in place of one too large to add.
fn far_away() -> Instant {
    Instant::now() + Duration::from_secs(86_400 * 365 * 30)
}

/// How a worker ended.
#[derive(Debug, Default)]
struct Ended {
    undelivered: Vec<Undelivered>,
    error: Option<Error>,
}

/// What a worker has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IssuerCounts {
    /// Jobs that were taken.
    pub jobs: u64,
    /// Cards that are stock by its deliveries.
    pub cards: u64,
    /// Cards that the server rejected: most often because they were stock already, by a delivery whose answer was lost.
    pub rejected: u64,
    /// Jobs that it has given up.
    pub failed: u64,
    /// Jobs that were over, by the server's word or by their lease, when their last card had come. Their cards are stock.
    pub late: u64,
    /// Extensions of leases.
    pub extended: u64,
}

/// What a worker leaves behind.
#[derive(Debug)]
pub struct IssuerReport {
    /// What it has done.
    pub counts: IssuerCounts,
    /// Cards that were made and of which the server has not said that they are stock. They may be: deliver them again
    /// ([`Client::deliver_job`] or [`Client::deliver`]), whenever.
    pub undelivered: Vec<Undelivered>,
    /// Why it ended by itself, if it did.
    pub error: Option<Error>,
}

/// Cards of one job that the server has not acknowledged.
#[derive(Debug)]
pub struct Undelivered {
    /// The job.
    pub job: Job,
    /// Its cards, but for those that were acknowledged.
    pub cards: Vec<JobCard>,
    /// Why.
    pub error: Error,
}

impl fmt::Display for Undelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cards, job) = (self.cards.len(), &self.job.id);
        write!(f, "{cards} cards of job {job}: {}", self.error)
    }
}

/// [`IssuerCounts`] while it runs. Relaxed everywhere: nothing is ordered by them.
#[derive(Debug, Default)]
struct Counters {
    jobs: AtomicU64,
    cards: AtomicU64,
    rejected: AtomicU64,
    failed: AtomicU64,
    late: AtomicU64,
    extended: AtomicU64,
    /// The server has answered an offer with jobs, or with none.
    accepted: AtomicBool,
}

impl Counters {
    fn read(&self) -> IssuerCounts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        IssuerCounts {
            jobs: of(&self.jobs),
            cards: of(&self.cards),
            rejected: of(&self.rejected),
            failed: of(&self.failed),
            late: of(&self.late),
            extended: of(&self.extended),
        }
    }
}

fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
