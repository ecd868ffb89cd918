//! One connection, from handshake to loss: what is queued on it, and who waits for which reply.
//!
//! Callers put whole frames into `out` and a one-shot into `open`, both under one short lock; the connection's only
//! task ([`run`]) writes what is queued as one write per wake, and gives replies to whom they belong. A link is never
//! repaired: once it is lost it stays lost, everybody who waits is told, and the next call dials a new one.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use croupier_protocol::{
    BodyError, FRAME_BYTES_MAX_LIMIT, FaultBody, FrameHeader, FrameWriter, HelloReply, Kind,
    RefusedBody, peek,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use crate::error::{Cause, ProtocolError};
use crate::inbox::Inbox;

/// The longest reply, all its frames together, that is kept for a caller.
const REPLY_BYTES_MAX: usize = 256 * 1024 * 1024;
/// How long a reply is still looked for after a write has failed: the server may have said why it closed.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// One frame of a reply. Its body may hold secrets and is wiped when dropped.
pub(crate) struct ReplyFrame {
    pub(crate) header: FrameHeader,
    pub(crate) body: Zeroizing<Vec<u8>>,
}

/// How the server answered one request.
pub(crate) enum Answer {
    /// The reply, in frames.
    Reply(Vec<ReplyFrame>),
    /// The request was refused whole.
    Refused(RefusedBody),
}

/// The connection was lost before the answer.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) cause: Cause,
    /// False: not a byte of the request has left.
    pub(crate) sent: bool,
}

pub(crate) type AnswerReceiver = oneshot::Receiver<Result<Answer, Lost>>;

/// What is to be sent: a frame, but for its request id.
pub(crate) struct Request<F> {
    pub(crate) kind: Kind,
    pub(crate) count: u16,
    /// Appends the body; called once for each try.
    pub(crate) encode: F,
}

/// A request that is queued or sent and not answered.
struct OpenRequest {
    kind: Kind,
    answer: oneshot::Sender<Result<Answer, Lost>>,
    frames: Vec<ReplyFrame>,
    reply_bytes: usize,
    /// Where its frame begins in all the bytes ever queued.
    queued_at: u64,
    /// Given back when the answer is there, also if nobody waits for it any more: it is the server's work that is
    /// bounded, not the caller's patience.
    _room: Option<OwnedSemaphorePermit>,
}

struct LinkState {
    /// Whole frames that the task has not taken yet.
    out: BytesMut,
    open: HashMap<u64, OpenRequest>,
    next_request_id: u64,
    /// Bytes ever taken by the task to be written.
    taken_bytes: u64,
    /// Since when something is open and nothing has been received.
    silent_since: Option<Instant>,
}

/// One connection.
pub(crate) struct Link {
    /// What the server allows.
    pub(crate) hello: HelloReply,
    state: Mutex<LinkState>,
    /// Set once, under the lock of `state`, so that nothing is queued afterwards.
    lost: OnceLock<Cause>,
    /// Something is queued, or the link is lost.
    wake: Notify,
}

impl Link {
    pub(crate) fn new(hello: HelloReply, out_bytes: usize) -> Self {
        let state = LinkState {
            out: BytesMut::with_capacity(out_bytes),
            open: HashMap::new(),
            next_request_id: 1,
            taken_bytes: 0,
            silent_since: None,
        };
        Self {
            hello,
            state: Mutex::new(state),
            lost: OnceLock::new(),
            wake: Notify::new(),
        }
    }

    /// Nothing that is done under the lock leaves the state half changed, so a panic elsewhere does no harm to it.
    fn lock(&self) -> MutexGuard<'_, LinkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a request.
    pub(crate) fn send<F: Fn(&mut BytesMut)>(
        &self,
        request: &Request<F>,
        room: Option<OwnedSemaphorePermit>,
    ) -> Result<AnswerReceiver, Cause> {
        let mut guard = self.lock();
        let state = &mut *guard;
        if let Some(cause) = self.lost.get() {
            return Err(cause.clone());
        }
        let request_id = state.next_request_id;
        let queued_at = state.taken_bytes + state.out.len() as u64;
        let mut writer = FrameWriter::begin(&mut state.out, request.kind, request_id);
        (request.encode)(writer.body());
        writer.set_count(request.count);
        let (bytes, max) = (writer.len(), self.hello.frame_bytes_max);
        if bytes > max as usize {
            return Err(Cause::Protocol(ProtocolError::RequestTooLong {
                bytes,
                max,
            }));
        }
        writer.finish();
        let (answer, receiver) = oneshot::channel();
        let open = OpenRequest {
            kind: request.kind,
            answer,
            frames: Vec::new(),
            reply_bytes: 0,
            queued_at,
            _room: room,
        };
        state.open.insert(request_id, open);
        state.next_request_id += 1;
        state.silent_since.get_or_insert_with(Instant::now);
        drop(guard);
        self.wake.notify_one();
        Ok(receiver)
    }

    /// Ends the link. The first cause is the one that everybody learns.
    pub(crate) fn lose(&self, cause: Cause) {
        let mut state = self.lock();
        if self.lost.set(cause.clone()).is_err() {
            return;
        }
        state.out.fill(0);
        state.out = BytesMut::new();
        let taken_bytes = state.taken_bytes;
        let open = std::mem::take(&mut state.open);
        drop(state);
        self.wake.notify_one();
        for request in open.into_values() {
            let sent = request.queued_at < taken_bytes;
            // Whoever dropped the call does not want to know.
            let _ = request.answer.send(Err(Lost {
                cause: cause.clone(),
                sent,
            }));
        }
    }

    /// True once the link is of no use any more.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.get().is_some()
    }

    /// How long the server has let open requests wait without sending anything at all.
    pub(crate) fn silence(&self) -> Duration {
        self.lock()
            .silent_since
            .map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Swaps what is queued into `writing`, which is empty. False if there is nothing.
    fn take_queued(&self, writing: &mut BytesMut) -> Result<bool, Cause> {
        let mut state = self.lock();
        if let Some(cause) = self.lost.get() {
            return Err(cause.clone());
        }
        std::mem::swap(&mut state.out, writing);
        state.taken_bytes += writing.len() as u64;
        Ok(!writing.is_empty())
    }

    /// Hands out all replies that are whole. Returns the length of the frame that has begun, in bytes (1 if unknown).
    fn deliver(&self, inbox: &mut Inbox) -> Result<usize, Cause> {
        let mut state = self.lock();
        loop {
            let received = inbox.received();
            let Some(header) = peek(received, FRAME_BYTES_MAX_LIMIT).map_err(broken_protocol)?
            else {
                state.silent_since = if state.open.is_empty() {
                    None
                } else {
                    Some(Instant::now())
                };
                let length = received
                    .first_chunk::<4>()
                    .map_or(1, |length| u32::from_le_bytes(*length) as usize);
                return Ok(length.max(received.len() + 1));
            };
            state.deliver_frame(header, header.body_of(received))?;
            inbox.consume(header.length as usize);
        }
    }
}

impl LinkState {
    fn deliver_frame(&mut self, header: FrameHeader, body: &[u8]) -> Result<(), Cause> {
        let FrameHeader {
            kind, request_id, ..
        } = header;
        if kind == Kind::Fault {
            let FaultBody { fault: code, text } =
                FaultBody::decode(body).map_err(|error| bad_body(kind, error))?;
            return Err(Cause::Fault { code, text });
        }
        let Some(open) = self.open.get_mut(&request_id) else {
            return Err(Cause::Protocol(ProtocolError::UnknownRequest {
                request_id,
            }));
        };
        if kind == Kind::Refused {
            let refused = RefusedBody::decode(body).map_err(|error| bad_body(kind, error))?;
            self.answer(request_id, |_| Answer::Refused(refused));
            return Ok(());
        }
        let expected = open.kind.reply_of();
        if kind != expected {
            return Err(Cause::Protocol(ProtocolError::UnexpectedKind {
                expected,
                found: kind,
            }));
        }
        open.reply_bytes += body.len();
        if open.reply_bytes > REPLY_BYTES_MAX {
            return Err(Cause::Protocol(ProtocolError::ReplyTooLong {
                max: REPLY_BYTES_MAX,
            }));
        }
        if !open.answer.is_closed() {
            open.frames.push(ReplyFrame {
                header,
                body: Zeroizing::new(body.to_vec()),
            });
        }
        if !header.more() {
            self.answer(request_id, Answer::Reply);
        }
        Ok(())
    }

    fn answer(&mut self, request_id: u64, answer: impl FnOnce(Vec<ReplyFrame>) -> Answer) {
        if let Some(open) = self.open.remove(&request_id) {
            // A call that was dropped is answered to nobody.
            let _ = open.answer.send(Ok(answer(open.frames)));
        }
    }
}

fn broken_protocol(error: impl Into<ProtocolError>) -> Cause {
    Cause::Protocol(error.into())
}

pub(crate) fn bad_body(kind: Kind, error: BodyError) -> Cause {
    Cause::Protocol(ProtocolError::Body { kind, error })
}

/// What the task holds its link by: if it ends without a word (its runtime was shut down, perhaps before the task
/// ran for the first time), whoever waits is still told.
pub(crate) struct ServedLink(pub(crate) Arc<Link>);

impl Drop for ServedLink {
    fn drop(&mut self) {
        let cause = io::Error::new(
            io::ErrorKind::NotConnected,
            "the runtime that served it was shut down",
        );
        self.0.lose(Cause::broken(cause));
    }
}

/// Serves a link until it is lost: the connection's only task.
pub(crate) async fn run(mut stream: TcpStream, link: ServedLink, inbox: Inbox) {
    let (mut receiver, mut sender) = stream.split();
    let cause = tokio::select! {
        cause = receive_replies(&mut receiver, &link.0, inbox) => cause,
        cause = send_requests(&mut sender, &link.0) => cause,
    };
    tracing::debug!(?cause, "connection ended");
    link.0.lose(cause);
}

async fn receive_replies(receiver: &mut ReadHalf<'_>, link: &Link, mut inbox: Inbox) -> Cause {
    loop {
        let frame_bytes = match link.deliver(&mut inbox) {
            Ok(frame_bytes) => frame_bytes,
            Err(cause) => return cause,
        };
        match inbox.receive(receiver, frame_bytes).await {
            Ok(0) => {
                return Cause::broken(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the server closed it",
                ));
            }
            Ok(_) => {}
            Err(error) => return Cause::broken(error),
        }
    }
}

async fn send_requests(sender: &mut WriteHalf<'_>, link: &Link) -> Cause {
    let mut writing = BytesMut::with_capacity(link.lock().out.capacity());
    loop {
        link.wake.notified().await;
        // Other tasks that are ready to queue something get to do so: one write for all of them.
        tokio::task::yield_now().await;
        loop {
            match link.take_queued(&mut writing) {
                Ok(true) => {}
                Ok(false) => break,
                Err(cause) => return cause,
            }
            if let Err(error) = sender.write_all(&writing).await {
                sleep(LAST_WORDS).await;
                return Cause::broken(error);
            }
            // An import's frames hold secrets.
            writing.fill(0);
            writing.clear();
        }
    }
}
