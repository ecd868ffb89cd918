//! A job of a channel as its worker sees it: so many cards, wanted for an order, until its lease is over.

use std::time::Duration;

use croupier_protocol::{
    DeliverJobReply, EndJobReply, ImportRow, JOB_REASON_BYTES_MAX, JobRow, JobState, Lsn, OrderId,
    RejectReason, Secret,
};

use crate::error::{Error, ProtocolError};
use crate::import::Rejection;

/// So many cards of a SKU, wanted for an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The order, and the job's id. The same order may come again with a higher [`Job::attempt`]: whether it is then given
    /// the cards that were made for it before, or new ones, is the worker's own affair.
    pub id: OrderId,
    /// Which time it is asked for, from 1.
    pub attempt: u32,
    /// Name of the SKU.
    pub sku: String,
    /// How many cards.
    pub quantity: u16,
    /// When nobody wants it any more, in Unix milliseconds of the server's clock.
    pub ends_unix_ms: u64,
    /// How long the worker had it when it came.
    pub lease: Duration,
}

impl Job {
    pub(crate) fn of(row: JobRow, lease_ms: u32) -> Self {
        Self {
            id: OrderId::from_bytes(row.job),
            attempt: row.attempt,
            sku: row.sku,
            quantity: row.quantity,
            ends_unix_ms: row.ends_unix_ms,
            lease: Duration::from_millis(lease_ms.into()),
        }
    }
}

/// A card that is delivered for a job. Its secret is wiped when it is dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobCard {
    /// What the card delivers: UTF-8, 1 … 4096 bytes, or the server rejects it.
    pub secret: Secret,
    /// When the card expires, in Unix seconds; 0 = never.
    pub expires_at_s: u64,
}

impl JobCard {
    /// Says when it expires, in Unix seconds.
    #[must_use]
    pub fn expires_at_s(self, expires_at_s: u64) -> Self {
        Self {
            expires_at_s,
            ..self
        }
    }

    pub(crate) fn row(&self, line: u64) -> ImportRow<'_> {
        ImportRow {
            expires_at_s: self.expires_at_s,
            ..ImportRow::new(line, self.secret.as_bytes())
        }
    }
}

impl From<Secret> for JobCard {
    fn from(secret: Secret) -> Self {
        Self {
            secret,
            expires_at_s: 0,
        }
    }
}

impl From<Vec<u8>> for JobCard {
    fn from(secret: Vec<u8>) -> Self {
        Secret::from(secret).into()
    }
}

impl From<String> for JobCard {
    fn from(secret: String) -> Self {
        secret.into_bytes().into()
    }
}

/// Why a worker has no cards for a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFailure {
    /// Another channel, or a later attempt, may do. False: this channel will never fill this order.
    pub retryable: bool,
    /// For people; never a secret. The server takes 256 bytes, and no more is sent.
    pub reason: String,
}

impl JobFailure {
    /// It failed for now: another channel or a later attempt may do.
    pub fn for_now(reason: impl Into<String>) -> Self {
        Self {
            retryable: true,
            reason: reason.into(),
        }
    }

    /// It failed for good: this channel will not fill this order.
    pub fn for_good(reason: impl Into<String>) -> Self {
        Self {
            retryable: false,
            reason: reason.into(),
        }
    }

    /// As much of the reason as the server takes.
    pub(crate) fn sent_reason(&self) -> &str {
        let end = self.reason.floor_char_boundary(JOB_REASON_BYTES_MAX);
        &self.reason[..end]
    }
}

/// What became of cards that were delivered for a job. **All that were accepted are stock, however the job stands.**
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobDelivery {
    /// The place of the last record that says that they are stock; zero if no card was new.
    pub lsn: Lsn,
    /// Cards that are stock now.
    pub accepted: u64,
    /// The other rows, by the line that was given with each.
    pub rejections: Vec<Rejection>,
    /// How the job stands.
    pub state: JobState,
    /// Cards that it still wants.
    pub missing: u16,
}

impl JobDelivery {
    pub(crate) fn of(reply: DeliverJobReply) -> Result<Self, Error> {
        let rejections = reply.rejections.into_iter().map(|row| {
            let reason = RejectReason::try_from(row.reason)
                .map_err(|_| ProtocolError::UnknownReason { found: row.reason })?;
            let line = row.line;
            Ok(Rejection { line, reason })
        });
        Ok(Self {
            lsn: Lsn(reply.lsn),
            accepted: reply.accepted,
            rejections: rejections.collect::<Result<_, ProtocolError>>()?,
            state: state_of(reply.job)?,
            missing: reply.missing,
        })
    }
}

/// How a job stands, and how long its worker still has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobLease {
    /// How it stands.
    pub state: JobState,
    /// From now; zero if it is over.
    pub lease: Duration,
}

impl JobLease {
    pub(crate) fn of(reply: EndJobReply) -> Result<Self, Error> {
        Ok(Self {
            state: state_of(reply.job)?,
            lease: Duration::from_millis(reply.lease_ms.into()),
        })
    }
}

fn state_of(number: u16) -> Result<JobState, Error> {
    let state = JobState::try_from(number);
    state.map_err(|unknown| Error::Protocol(ProtocolError::UnknownNumber(unknown)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_cut_between_characters() {
        let reason = "ä".repeat(200);
        let sent = JobFailure::for_now(reason.clone());
        assert_eq!(sent.sent_reason(), &reason[..256]);
        let odd = JobFailure::for_good(format!("x{reason}"));
        assert_eq!(odd.sent_reason().len(), 255);
        assert_eq!(JobFailure::for_good("sold out").sent_reason(), "sold out");
    }
}
