//! One call: from a request to its answer, over as many connections as it takes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use bytes::BytesMut;
use croupier_protocol::RefusedBody;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};

use crate::builder::Settings;
use crate::dial::dial;
use crate::error::{Cause, Error};
use crate::link::{Answer, Link, Lost, ReplyFrame, Request};
pub(crate) use crate::retry::Resend;
use crate::retry::Tries;

/// A server that lets calls run into their timeout is given up once it has been silent for so long (or for half of
/// the call's time, if that is longer): a dead peer is told from a slow one by other calls being answered.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// Why a call has no reply.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was refused whole.
    Refused {
        refused: RefusedBody,
        /// True if an earlier try was sent and its answer lost.
        in_doubt: bool,
    },
    /// There was no answer.
    NoAnswer(Lost),
}

impl Failure {
    pub(crate) fn into_error(self, addr: &str) -> Error {
        match self {
            Self::Refused { refused, .. } => refused_error(refused),
            Self::NoAnswer(Lost { cause, sent }) => cause.into_error(addr, sent),
        }
    }
}

fn refused_error(refused: RefusedBody) -> Error {
    let RefusedBody {
        refusal,
        retry_after_ms,
        text,
    } = refused;
    let text = if text.is_empty() {
        refusal.to_string()
    } else {
        text
    };
    Error::Refused {
        order_id: None,
        refusal,
        retry_after_ms,
        text,
    }
}

/// Sends one request on one link and waits for its answer. No retry.
pub(crate) async fn exchange<F: Fn(&mut BytesMut)>(
    link: &Link,
    request: &Request<F>,
    room: Option<OwnedSemaphorePermit>,
    deadline: Deadline,
) -> Result<Answer, Lost> {
    let receiver = link
        .send(request, room)
        .map_err(|cause| Lost { cause, sent: false })?;
    match timeout_at(deadline.at, receiver).await {
        Ok(Ok(answer)) => answer,
        // A sender that is dropped unused says goodbye first; but if it ever did not, the request may have left.
        Ok(Err(_)) => Err(Lost {
            cause: Cause::let_go(),
            sent: true,
        }),
        Err(_) => {
            if link.silence() >= SILENCE_MAX.max(deadline.call_timeout / 2) {
                tracing::debug!(
                    "the server has been silent for too long, the connection is given up"
                );
                link.lose(deadline.cause());
            }
            Err(Lost {
                cause: deadline.cause(),
                sent: true,
            })
        }
    }
}

/// When a call's time is used up, and how long that was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    pub(crate) call_timeout: Duration,
}

impl Deadline {
    pub(crate) fn after(call_timeout: Duration) -> Self {
        // A timeout that is no time at all anyone will see (30 years) stands for one too large to add.
        let now = Instant::now();
        let at = now
            .checked_add(call_timeout)
            .unwrap_or(now + Duration::from_secs(86_400 * 365 * 30));
        Self { at, call_timeout }
    }

    pub(crate) fn cause(self) -> Cause {
        Cause::TimedOut {
            after_ms: u64::try_from(self.call_timeout.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Waits, unless the time is used up before.
    pub(crate) async fn wait(self, wait: Duration) -> bool {
        if Instant::now() + wait >= self.at {
            return false;
        }
        sleep(wait).await;
        true
    }
}

/// What all clones of a handle share: the settings, and the connection of the moment.
pub(crate) struct Caller {
    pub(crate) settings: Settings,
    /// Orders that may yet be sent.
    room: Arc<Semaphore>,
    /// The connection of the moment; it may be lost, then the next call dials another.
    current: RwLock<Option<Arc<Link>>>,
    /// One dials, the others wait. Holds the outcome of the last failed try for them.
    dialing: Mutex<Option<Cause>>,
    /// Tries to dial that have ended.
    dials: AtomicU64,
    /// The store that answered first. Another one is never sent anything: it would deal the same orders again.
    store_id: OnceLock<[u8; 16]>,
}

impl Caller {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            room: Arc::new(Semaphore::new(settings.in_flight_max as usize)),
            settings,
            current: RwLock::new(None),
            dialing: Mutex::new(None),
            dials: AtomicU64::new(0),
            store_id: OnceLock::new(),
        }
    }

    pub(crate) fn deadline(&self) -> Deadline {
        self.deadline_after(Duration::ZERO)
    }

    /// That of a call which the server may answer so much later.
    pub(crate) fn deadline_after(&self, longer: Duration) -> Deadline {
        Deadline::after(self.settings.call_timeout + longer)
    }

    fn current(&self) -> Option<Arc<Link>> {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The connection of the moment, or a new one if that is lost.
    pub(crate) async fn link(&self) -> Result<Arc<Link>, Cause> {
        let usable = |link: &Arc<Link>| !link.is_lost();
        if let Some(link) = self.current().filter(usable) {
            return Ok(link);
        }
        // Relaxed: the mutex below orders it; a stale value costs one more try.
        let dials_before = self.dials.load(Ordering::Relaxed);
        let mut last_failure = self.dialing.lock().await;
        if let Some(link) = self.current().filter(usable) {
            return Ok(link);
        }
        // Somebody's try ended while we waited: a thousand calls do not wait for a thousand timeouts in a row.
        if let Some(cause) = last_failure
            .as_ref()
            .filter(|_| self.dials.load(Ordering::Relaxed) != dials_before)
        {
            return Err(cause.clone());
        }
        let dialed = dial(&self.settings, 1)
            .await
            .and_then(|link| self.admit(link));
        self.dials.fetch_add(1, Ordering::Relaxed);
        *last_failure = dialed.as_ref().err().cloned();
        let link = dialed?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&link));
        Ok(link)
    }

    /// Refuses a link to another store than before.
    pub(crate) fn admit(&self, link: Arc<Link>) -> Result<Arc<Link>, Cause> {
        if *self.store_id.get_or_init(|| link.hello.store_id) == link.hello.store_id {
            return Ok(link);
        }
        let cause = Cause::Protocol(crate::ProtocolError::OtherStore);
        link.lose(cause.clone());
        Err(cause)
    }

    /// Sends a request until it is answered, as far as `resend` and the time allow. `items`: how many orders it is.
    /// Also returns whether an earlier try was sent and its answer lost.
    pub(crate) async fn call<F: Fn(&mut BytesMut)>(
        &self,
        request: &Request<F>,
        items: usize,
        resend: Resend,
        deadline: Deadline,
    ) -> Result<(Vec<ReplyFrame>, bool), Failure> {
        let mut tries = Tries::new(self.settings.retries, resend);
        loop {
            let (cause, sent) = match self.try_once(request, items, deadline).await {
                Ok(Answer::Reply(frames)) => return Ok((frames, tries.in_doubt())),
                Ok(Answer::Refused(refused)) => {
                    match tries.refused(refused.refusal, refused.retry_after_ms) {
                        Some(wait) if deadline.wait(wait).await => continue,
                        _ => {
                            let in_doubt = tries.in_doubt();
                            return Err(Failure::Refused { refused, in_doubt });
                        }
                    }
                }
                Err(Lost { cause, sent }) => (cause, sent),
            };
            match tries.lost(sent, cause.passes()) {
                Some(wait) if deadline.wait(wait).await => {}
                _ => {
                    let sent = tries.in_doubt();
                    return Err(Failure::NoAnswer(Lost { cause, sent }));
                }
            }
            tracing::debug!(kind = ?request.kind, ?cause, retries_left = tries.retries_left(), "trying again");
        }
    }

    async fn try_once<F: Fn(&mut BytesMut)>(
        &self,
        request: &Request<F>,
        items: usize,
        deadline: Deadline,
    ) -> Result<Answer, Lost> {
        let not_sent = |cause| Lost { cause, sent: false };
        let too_late = |_| not_sent(deadline.cause());
        let permits = u32::try_from(items)
            .unwrap_or(u32::MAX)
            .clamp(1, self.settings.in_flight_max);
        let room = Arc::clone(&self.room).acquire_many_owned(permits);
        let room = timeout_at(deadline.at, room).await.map_err(too_late)?.ok();
        let link = timeout_at(deadline.at, self.link())
            .await
            .map_err(too_late)?
            .map_err(not_sent)?;
        exchange(&link, request, room, deadline).await
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        if let Some(link) = self.current() {
            link.lose(Cause::let_go());
        }
    }
}
