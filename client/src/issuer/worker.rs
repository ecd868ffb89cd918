//! Offers and jobs of one worker, held together: never more jobs than it may, and an offer for whatever room is left.

use std::future::Future;
use std::sync::Arc;

use tokio::task::{JoinError, JoinSet};

use super::work::Work;
use super::{Ended, Undelivered, count};
use crate::error::Error;
use crate::job::{Job, JobCard, JobFailure};
use crate::retry::Backoff;

/// Offers that are open at a time, each of a part of the room: one is answered as soon as there is one job, and the others are
/// there for those that come meanwhile.
const OFFERS_MAX: u32 = 4;

type Offered = (u32, Result<Vec<Job>, Error>);

pub(super) struct Worker<F> {
    work: Arc<Work>,
    make: Arc<F>,
    offers: JoinSet<Offered>,
    jobs: JoinSet<Result<(), Undelivered>>,
    /// Jobs that open offers have room for.
    offered: u32,
    ended: Ended,
}

impl<F, R> Worker<F>
where
    F: Fn(Job) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Vec<JobCard>, JobFailure>> + Send + 'static,
{
    pub(super) fn new(work: Arc<Work>, make: Arc<F>) -> Self {
        Self {
            work,
            make,
            offers: JoinSet::new(),
            jobs: JoinSet::new(),
            offered: 0,
            ended: Ended::default(),
        }
    }

    /// Until it is stopped, or meets what does not pass; then until everything under way is done.
    pub(super) async fn run(mut self) -> Ended {
        let mut stopping = self.work.stopping.clone();
        loop {
            let ends = stopping.borrow_and_update().is_some() || self.ended.error.is_some();
            if !ends {
                self.offer();
            } else if self.offers.is_empty() && self.jobs.is_empty() {
                return self.ended;
            }
            tokio::select! {
                Some(offered) = self.offers.join_next() => self.answered(offered),
                Some(done) = self.jobs.join_next() => self.done(done),
                Ok(()) = stopping.changed() => {}
                else => return self.ended,
            }
        }
    }

    /// Opens offers for the room that is left.
    fn offer(&mut self) {
        let jobs_max = self.work.settings.jobs_max;
        let share = jobs_max.div_ceil(OFFERS_MAX);
        while self.offers.len() < OFFERS_MAX as usize {
            let room = jobs_max.saturating_sub(self.offered + self.jobs.len() as u32);
            let room = room.min(share);
            if room == 0 {
                return;
            }
            self.offered += room;
            let work = Arc::clone(&self.work);
            self.offers
                .spawn(async move { (room, taken(&work, room).await) });
        }
    }

    fn answered(&mut self, offered: Result<Offered, JoinError>) {
        let Ok((room, taken)) = offered else {
            // An offer does not panic, and nobody aborts one alone.
            return;
        };
        self.offered -= room;
        match taken {
            Ok(jobs) => jobs.into_iter().for_each(|job| self.begin(job)),
            Err(error) => self.fail(error),
        }
    }

    fn begin(&mut self, job: Job) {
        count(&self.work.counts.jobs, 1);
        let (work, make) = (Arc::clone(&self.work), Arc::clone(&self.make));
        self.jobs
            .spawn(async move { work.run(&job, make(job.clone())).await });
    }

    fn done(&mut self, done: Result<Result<(), Undelivered>, JoinError>) {
        if let Ok(Err(undelivered)) = done {
            tracing::error!(job = %undelivered.job.id, error = %undelivered.error, "cards could not be delivered: the worker ends");
            self.fail(Error::Undelivered {
                jobs: self.ended.undelivered.len() + 1,
            });
            self.ended.undelivered.push(undelivered);
        }
    }

    fn fail(&mut self, error: Error) {
        self.ended.error.get_or_insert(error);
    }
}

/// Jobs for so much room, asked for until the server answers; none once the worker is being stopped.
async fn taken(work: &Work, room: u32) -> Result<Vec<Job>, Error> {
    let settings = &work.settings;
    let mut backoff = Backoff::new();
    loop {
        let (channel, name) = (&settings.channel, &settings.name);
        let asked = settings
            .client
            .take_jobs(channel, name, room, settings.wait);
        let asked = tokio::select! {
            asked = asked => asked,
            () = work.time_is_over() => return Ok(Vec::new()),
        };
        match asked {
            Ok(jobs) => {
                work.was_accepted();
                return Ok(jobs);
            }
            Err(error) if !work.passes(&error) => return Err(error),
            Err(error) if work.is_stopping() => {
                tracing::debug!(%error, "an offer had no answer");
                return Ok(Vec::new());
            }
            Err(error) => {
                tracing::warn!(%error, channel, "no jobs can be taken: trying again");
                work.pause(backoff.wait()).await;
            }
        }
    }
}
