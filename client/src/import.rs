//! Importing cards: rows are gathered into frames, some frames are always under way, and one record at the end makes
//! the cards sellable.
//!
//! An import has a connection of its own, for the server ties it to one: a connection that closes before the end
//! leaves nothing behind, and that is also how an import is given up.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use croupier_protocol::{
    FRAME_HEADER_BYTES, IMPORT_FRAMES_IN_FLIGHT_MAX, ImportBegin, ImportBeginReply, ImportEnd,
    ImportEndReply, ImportRow, ImportRowsReply, Kind, Lsn, MaxUses, RejectReason, SkuId,
    UnknownNumber, encode_control, put_import_id,
};
use tokio::time::timeout_at;

use crate::call::{Caller, Deadline, Failure, exchange};
use crate::client::{joined, one};
use crate::dial::dial;
use crate::error::{Cause, Error, ProtocolError};
use crate::link::{Answer, AnswerReceiver, Link, Lost, ReplyFrame, Request, bad_body};
use crate::retry::Backoff;

/// How long the server may take to seal and sync a whole import once its last row is there.
const END_TIMEOUT: Duration = Duration::from_secs(600);

/// The longest ImportRows frame that is sent, even if the server takes longer ones: more gains nothing.
const ROWS_FRAME_BYTES_MAX: u32 = 256 * 1024;

/// What is imported, and where to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportOptions {
    /// Name of the SKU.
    pub sku: String,
    /// Make the SKU if there is none of that name.
    pub create_sku: bool,
    /// Label of the batch; `None` = the server chooses one.
    pub batch: Option<String>,
    /// Pool that the cards join.
    pub pool: Option<String>,
    /// How often each card may be dealt; once unless it is said.
    pub max_uses: MaxUses,
}

/// What became of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportReport {
    /// Numeric id of the batch; 0 if no line was accepted.
    pub batch: u32,
    /// Label of the batch.
    pub label: String,
    /// The place of the import's record in the log; zero if no line was accepted.
    pub lsn: Lsn,
    /// Cards that are sellable now.
    pub accepted: u64,
    /// Slabs that hold them.
    pub slabs: u32,
    /// Rejected lines, counted by reason: all of them.
    pub counts: Vec<RejectionCount>,
    /// Rejected lines, the first million of them.
    pub rejections: Vec<Rejection>,
}

/// How many lines were rejected for one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RejectionCount {
    /// The reason.
    pub reason: RejectReason,
    /// Lines.
    pub count: u64,
}

/// One rejected line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejection {
    /// The line number that was given with the row.
    pub line: u64,
    /// The reason.
    pub reason: RejectReason,
}

/// An open import. Dropped before [`Import::finish`], it leaves nothing behind on the server.
///
/// ```no_run
/// use croupier_client::{Client, Error, ImportOptions, ImportRow};
///
/// # async fn import(client: Client, lines: Vec<String>) -> Result<(), Error> {
/// let options = ImportOptions { sku: "gift-50".to_owned(), create_sku: true, ..ImportOptions::default() };
/// let mut import = client.import(options).await?;
/// for (line, secret) in (1..).zip(&lines) {
///     import.push(ImportRow::new(line, secret.as_bytes())).await?;
/// }
/// let report = import.finish().await?;
/// println!("{} cards are sellable, {} lines were rejected", report.accepted, report.rejections.len());
/// # Ok(())
/// # }
/// ```
pub struct Import {
    link: Arc<Link>,
    addr: String,
    call_timeout: Duration,
    import: u64,
    sku: SkuId,
    frame_bytes_max: usize,
    /// Rows that no frame has taken yet, as they lie on the wire. Wiped when they are queued.
    rows: BytesMut,
    row_count: u16,
    /// Frames under way, the oldest first. Never more than `IMPORT_FRAMES_IN_FLIGHT_MAX`.
    unanswered: VecDeque<AnswerReceiver>,
    rows_acknowledged: u64,
}

impl std::fmt::Debug for Import {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Import")
            .field("import", &self.import)
            .field("sku", &self.sku)
            .field("rows_acknowledged", &self.rows_acknowledged)
            .finish_non_exhaustive()
    }
}

impl Import {
    pub(crate) async fn begin(caller: &Caller, options: ImportOptions) -> Result<Self, Error> {
        let settings = &caller.settings;
        let deadline = caller.deadline();
        let dialed = timeout_at(deadline.at, dial(settings, IMPORT_FRAMES_IN_FLIGHT_MAX + 1))
            .await
            .unwrap_or_else(|_| Err(deadline.cause()));
        let admitted = dialed.and_then(|link| caller.admit(link));
        let link = admitted.map_err(|cause| cause.into_error(&settings.addr, false))?;

        let ImportOptions {
            sku,
            create_sku,
            batch,
            pool,
            max_uses,
        } = options;
        let body = ImportBegin {
            sku,
            create_sku,
            batch,
            pool,
            max_uses,
        };
        let encode = |out: &mut BytesMut| encode_control(&body, out);
        let request = Request {
            kind: Kind::ImportBegin,
            count: 0,
            encode,
        };
        let begun = begin_until(&link, &request, deadline).await;
        let reply: Result<ImportBeginReply, Error> = begun
            .map_err(|failure| failure.into_error(&settings.addr))
            .and_then(|frames| one(&frames));
        let import = reply.inspect_err(|_| link.lose(Cause::let_go()))?;
        let frame_bytes_max = link.hello.frame_bytes_max.min(ROWS_FRAME_BYTES_MAX) as usize;
        Ok(Self {
            rows: BytesMut::with_capacity(frame_bytes_max),
            frame_bytes_max,
            link,
            addr: settings.addr.clone(),
            call_timeout: settings.call_timeout,
            import: import.import,
            sku: SkuId(import.sku),
            row_count: 0,
            unanswered: VecDeque::with_capacity(IMPORT_FRAMES_IN_FLIGHT_MAX),
            rows_acknowledged: 0,
        })
    }

    /// The SKU that the cards will be of.
    pub const fn sku(&self) -> SkuId {
        self.sku
    }

    /// Rows that the server has received.
    pub const fn rows_acknowledged(&self) -> u64 {
        self.rows_acknowledged
    }

    /// Adds one card. Rows are gathered and sent when a frame is full; then this waits if 16 frames are unanswered.
    ///
    /// A secret or label that the server does not accept is no error here: the report names its line.
    ///
    /// Dropped before it is done, the row was not added, and the import goes on.
    ///
    /// # Errors
    /// Once it fails, the import has failed and left nothing behind: begin another one.
    pub async fn push(&mut self, row: ImportRow<'_>) -> Result<(), Error> {
        // The import id stands before the rows.
        let frame_bytes = FRAME_HEADER_BYTES + 8 + self.rows.len() + row.encoded_bytes();
        if frame_bytes > self.frame_bytes_max || self.row_count == u16::MAX {
            self.flush().await?;
        }
        row.encode_into(&mut self.rows);
        self.row_count += 1;
        Ok(())
    }

    /// Makes all accepted cards sellable, by one record.
    ///
    /// # Errors
    /// [`Error::Closed`] or [`Error::TimedOut`] if the answer was lost: the import may have happened as a whole or
    /// not at all. The stock tells, and so does importing the same lines again: each is then rejected as a duplicate.
    pub async fn finish(mut self) -> Result<ImportReport, Error> {
        self.flush().await?;
        while !self.unanswered.is_empty() {
            self.await_oldest().await?;
        }
        let end = ImportEnd {
            import: self.import,
        };
        let request = Request {
            kind: Kind::ImportEnd,
            count: 0,
            encode: |out: &mut BytesMut| end.encode_into(out),
        };
        let answer = exchange(
            &self.link,
            &request,
            None,
            Deadline::after(END_TIMEOUT.max(self.call_timeout)),
        )
        .await;
        let frames = reply_of(answer).map_err(|failure| failure.into_error(&self.addr))?;
        report(&frames)
    }

    async fn flush(&mut self) -> Result<(), Error> {
        if self.row_count == 0 {
            return Ok(());
        }
        while self.unanswered.len() >= IMPORT_FRAMES_IN_FLIGHT_MAX {
            self.await_oldest().await?;
        }
        let (import, rows) = (self.import, &self.rows);
        let encode = |out: &mut BytesMut| {
            put_import_id(out, import);
            out.extend_from_slice(rows);
        };
        let request = Request {
            kind: Kind::ImportRows,
            count: self.row_count,
            encode,
        };
        let sent = self
            .link
            .send(&request, None)
            .map_err(|cause| cause.into_error(&self.addr, true))?;
        self.unanswered.push_back(sent);
        self.rows.fill(0);
        self.rows.clear();
        self.row_count = 0;
        Ok(())
    }

    /// Waits for the reply to the oldest frame. Dropped in between, it has changed nothing.
    async fn await_oldest(&mut self) -> Result<(), Error> {
        let Some(oldest) = self.unanswered.front_mut() else {
            return Ok(());
        };
        let deadline = Deadline::after(self.call_timeout);
        let answer = match timeout_at(deadline.at, oldest).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Lost {
                cause: Cause::let_go(),
                sent: true,
            }),
            Err(_) => Err(Lost {
                cause: deadline.cause(),
                sent: true,
            }),
        };
        self.unanswered.pop_front();
        match self.acknowledge(answer) {
            Ok(()) => Ok(()),
            Err(failure) => {
                self.link.lose(Cause::let_go());
                Err(failure.into_error(&self.addr))
            }
        }
    }

    fn acknowledge(&mut self, answer: Result<Answer, Lost>) -> Result<(), Failure> {
        for frame in reply_of(answer)? {
            let reply = ImportRowsReply::decode(&frame.body).map_err(|error| {
                Failure::NoAnswer(Lost {
                    cause: bad_body(frame.header.kind, error),
                    sent: true,
                })
            })?;
            self.rows_acknowledged = self.rows_acknowledged.max(reply.rows_received);
        }
        Ok(())
    }
}

impl Drop for Import {
    fn drop(&mut self) {
        self.rows.fill(0);
        self.link.lose(Cause::broken(io::Error::new(
            io::ErrorKind::NotConnected,
            "the import was dropped",
        )));
    }
}

/// Begins as soon as the server has room for another import, within the call's time.
async fn begin_until<F: Fn(&mut BytesMut)>(
    link: &Link,
    request: &Request<F>,
    deadline: Deadline,
) -> Result<Vec<ReplyFrame>, Failure> {
    let mut backoff = Backoff::new();
    loop {
        match reply_of(exchange(link, request, None, deadline).await) {
            Err(Failure::Refused { refused, .. })
                if refused.refusal.retryable()
                    && deadline
                        .wait(backoff.wait_advised(refused.retry_after_ms))
                        .await => {}
            begun => return begun,
        }
    }
}

fn reply_of(answer: Result<Answer, Lost>) -> Result<Vec<ReplyFrame>, Failure> {
    match answer {
        Ok(Answer::Reply(frames)) => Ok(frames),
        Ok(Answer::Refused(refused)) => Err(Failure::Refused {
            refused,
            in_doubt: false,
        }),
        Err(lost) => Err(Failure::NoAnswer(lost)),
    }
}

/// Joins the pages.
fn report(frames: &[ReplyFrame]) -> Result<ImportReport, Error> {
    let mut pages = joined(frames, |page: ImportEndReply| vec![page])?.into_iter();
    let Some(first) = pages.next() else {
        return Err(Error::Protocol(ProtocolError::WrongCount {
            asked: 1,
            answered: 0,
        }));
    };
    let counts = first.counts.iter().map(|row| {
        Ok(RejectionCount {
            reason: reason(row.reason)?,
            count: row.count,
        })
    });
    let mut report = ImportReport {
        batch: first.batch,
        label: first.label,
        lsn: Lsn(first.lsn),
        accepted: first.accepted,
        slabs: first.slabs,
        counts: counts.collect::<Result<_, Error>>()?,
        rejections: Vec::new(),
    };
    for row in first
        .rejections
        .into_iter()
        .chain(pages.flat_map(|page| page.rejections))
    {
        report.rejections.push(Rejection {
            line: row.line,
            reason: reason(row.reason)?,
        });
    }
    Ok(report)
}

fn reason(number: u16) -> Result<RejectReason, Error> {
    RejectReason::try_from(number).map_err(|UnknownNumber { found, .. }| {
        Error::Protocol(ProtocolError::UnknownReason { found })
    })
}
