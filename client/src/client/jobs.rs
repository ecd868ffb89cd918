//! What a worker of an issuer asks, call by call: docs/wire-format.md, "Taking jobs". [`Issuer`](crate::Issuer) does all of it.

use std::time::Duration;

use bytes::BytesMut;
use croupier_protocol::{
    DELIVERY_ROWS_MAX, DeliverJob, EndJob, EndJobReply, ImportRow, JOB_FLAG_ALL, JOBS_WAIT_MS_MAX,
    Kind, Refusal, TakeJobs, TakeJobsReply, encode_control,
};

use super::{Client, one};
use crate::call::Resend;
use crate::error::{Cause, Error};
use crate::job::{Job, JobDelivery, JobFailure, JobLease};
use crate::link::Request;

/// What an EndJob does, by its number.
const EXTEND: u16 = 1;
const FAIL_FOR_NOW: u16 = 2;
const FAIL_FOR_GOOD: u16 = 3;

impl Client {
    /// Offers room for `jobs_max` jobs (1 … 4,096) of a channel as the worker of this name, and waits for one, `wait` at most (a
    /// minute, and the call has this time besides its own). None: there was none in that time. What comes is this worker's for
    /// [`Job::lease`]; if the connection is lost it is given to others. So it is if the future is dropped, once its lease is over.
    ///
    /// # Errors
    /// [`Error::Refused`] as `ChannelUnknown` if the route table in force has no issuer of this name, as `TooManyWorkers`, as
    /// `JobInvalid` if a number is out of range, and as `Busy` if 16 offers of this connection are open. Those of a lost connection.
    pub async fn take_jobs(
        &self,
        channel: &str,
        worker: &str,
        jobs_max: u32,
        wait: Duration,
    ) -> Result<Vec<Job>, Error> {
        let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        let wait_ms = wait_ms.min(JOBS_WAIT_MS_MAX);
        let body = TakeJobs {
            channel: channel.to_owned(),
            worker: worker.to_owned(),
            jobs_max,
            wait_ms,
        };
        let request = Request {
            kind: Kind::TakeJobs,
            count: 0,
            encode: |out: &mut BytesMut| encode_control(&body, out),
        };
        let caller = self.caller();
        let deadline = caller.deadline_after(Duration::from_millis(wait_ms.into()));
        let called = caller.call(&request, 1, Resend::Safe, deadline).await;
        let (frames, _) = called.map_err(|failure| failure.into_error(&caller.settings.addr))?;
        let reply: TakeJobsReply = one(&frames)?;
        let jobs = reply.jobs.into_iter();
        Ok(jobs.map(|row| Job::of(row, reply.lease_ms)).collect())
    }

    /// Delivers cards for a job, at most 1,024 rows without labels; `all`: no more will come. What is accepted is stock when this
    /// returns, **however the job stands by then**. It may be sent again, by whomever and however late: what is stock is rejected as
    /// `duplicate_in_stock`.
    ///
    /// # Errors
    /// [`Error::Refused`] as `ChannelUnknown`, as `JobOther` if the job is of another SKU, or as a delivery is
    /// ([`Client::deliver`]). Those of a lost connection.
    pub async fn deliver_job(
        &self,
        channel: &str,
        job: &Job,
        rows: &[ImportRow<'_>],
        all: bool,
    ) -> Result<JobDelivery, Error> {
        // As much of it as tells that it is too long.
        let named = |name: &'_ str| name.len() <= usize::from(u16::MAX);
        if rows.len() > DELIVERY_ROWS_MAX || !named(&job.sku) || !named(channel) {
            return Err(Error::Refused {
                order_id: None,
                refusal: Refusal::DeliveryInvalid,
                retry_after_ms: 0,
                text: Refusal::DeliveryInvalid.to_string(),
            });
        }
        let body = DeliverJob {
            job: job.id.to_bytes(),
            attempt: job.attempt,
            flags: if all { JOB_FLAG_ALL } else { 0 },
            sku: &job.sku,
            channel,
        };
        let encode = |out: &mut BytesMut| body.encode_into(rows, out);
        let frames = self
            .call_of(Kind::DeliverJob, rows.len() as u16, encode, Resend::Safe)
            .await?;
        JobDelivery::of(one(&frames)?)
    }

    /// Makes the lease of a job end `lease` from now, or an hour after the job was given, whichever is sooner.
    ///
    /// # Errors
    /// [`Error::Refused`] as `JobInvalid` if `lease` is less than a millisecond. Those of a lost connection. That a job is over, or
    /// that nobody knows it, is no error: [`JobLease`] says so.
    pub async fn extend_job(
        &self,
        channel: &str,
        job: &Job,
        lease: Duration,
    ) -> Result<JobLease, Error> {
        let extend_ms = u32::try_from(lease.as_millis()).unwrap_or(u32::MAX);
        self.end_job(channel, job, EXTEND, extend_ms, "").await
    }

    /// Gives a job up: for now, and another channel or a later attempt may do, or for good.
    ///
    /// # Errors
    /// Those of a lost connection. That a job is over, or that nobody knows it, is no error.
    pub async fn fail_job(
        &self,
        channel: &str,
        job: &Job,
        failure: &JobFailure,
    ) -> Result<JobLease, Error> {
        let what = match failure.retryable {
            true => FAIL_FOR_NOW,
            false => FAIL_FOR_GOOD,
        };
        self.end_job(channel, job, what, 0, failure.sent_reason())
            .await
    }

    async fn end_job(
        &self,
        channel: &str,
        job: &Job,
        what: u16,
        extend_ms: u32,
        reason: &str,
    ) -> Result<JobLease, Error> {
        let body = EndJob {
            channel: channel.to_owned(),
            job: job.id.to_bytes(),
            attempt: job.attempt,
            what,
            extend_ms,
            reason: reason.to_owned(),
        };
        let reply: EndJobReply = self.control(Kind::EndJob, &body, Resend::Safe).await?;
        JobLease::of(reply)
    }

    /// The longest frame that the server takes now, in bytes.
    pub(crate) async fn frame_bytes_max(&self) -> Result<usize, Error> {
        let caller = self.caller();
        let link = caller.link().await;
        let failed = |cause: Cause| cause.into_error(&caller.settings.addr, false);
        Ok(link.map_err(failed)?.hello.frame_bytes_max as usize)
    }
}
