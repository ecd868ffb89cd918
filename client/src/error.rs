//! What can go wrong, as the caller sees it: typed, and each saying what to do. No error holds a secret.

use std::io;
use std::sync::Arc;

use croupier_protocol::{
    BodyError, FaultCode, FrameError, HeldOrder, Kind, OrderId, Refusal, UnknownNumber,
};
use thiserror::Error;

/// Why a call failed.
#[derive(Debug, Error)]
pub enum Error {
    /// The server's URL cannot be read.
    #[error(
        "bad server URL: {why}; write croupier://HOST[:PORT][?call_timeout_ms=N&connect_timeout_ms=N&retries=N]"
    )]
    BadUrl {
        /// What is wrong with it.
        why: String,
    },

    /// No connection could be had. Nothing was sent, so nothing happened.
    #[error(
        "cannot reach {addr} ({source}) and nothing was sent: is the server running, and is this its data port?"
    )]
    Unreachable {
        /// Host and port.
        addr: String,
        /// What the operating system said.
        source: io::Error,
    },

    /// The server said no. Nothing was changed.
    #[error("refused as {}: {text}", refusal.name())]
    Refused {
        /// The order that was refused, if it was one.
        order_id: Option<OrderId>,
        /// The reason.
        refusal: Refusal,
        /// How long the server advises to wait, in milliseconds; zero when waiting is no help.
        retry_after_ms: u32,
        /// For people.
        text: String,
    },

    /// The order is accepted: it waits until a channel has brought its cards, also if this caller goes. **Ask again with the same id**
    /// for them, look the order up, or read the feed.
    #[error(
        "order {} is accepted and waits for its cards: ask again with the same id, or look it up",
        waits.order_id
    )]
    Accepted {
        /// The order, and until when it waits.
        waits: HeldOrder,
    },

    /// Steps of orders were sent, and whether they were taken is not known. **Ask again with the same ids and numbers**: a
    /// step that was taken gets its original answer, one that was not is taken then. A new id could deal a second card.
    #[error(
        "not known what became of {count} orders ({first} and on), because {cause}: ask again with the same ids"
    )]
    OutcomeUnknown {
        /// How many orders this is about.
        count: usize,
        /// The first of them.
        first: OrderId,
        /// Why there is no answer.
        #[source]
        cause: Box<Error>,
    },

    /// The call's time was used up.
    #[error("no answer within {after_ms} ms ({})", if *sent { "the request was sent" } else { "nothing was sent" })]
    TimedOut {
        /// The time that the call had, in milliseconds.
        after_ms: u64,
        /// False: nothing was sent, so nothing happened. True: the request may still be carried out.
        sent: bool,
    },

    /// The server closed the connection and said why.
    #[error("the server closed the connection as {}: {text}", code.name())]
    Fault {
        /// The reason.
        code: FaultCode,
        /// For people.
        text: String,
    },

    /// The server does not speak this client's protocol.
    #[error("{0}")]
    Protocol(#[from] ProtocolError),

    /// The connection was lost after the request had been sent; what was asked for may or may not have happened.
    #[error(
        "the connection to {addr} was lost before the reply ({source}): look at the server before you repeat this"
    )]
    Closed {
        /// Host and port.
        addr: String,
        /// What the operating system said.
        source: io::Error,
    },

    /// A worker of an issuer has ended because cards that it made could not be delivered: its report has them.
    #[error(
        "the cards of {jobs} jobs could not be delivered: look at the errors beside them, and deliver them again"
    )]
    Undelivered {
        /// How many jobs.
        jobs: usize,
    },
}

impl Error {
    /// The refusal, if the server said no.
    pub const fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused { refusal, .. } => Some(*refusal),
            _ => None,
        }
    }
}

/// How a peer departed from the protocol (or, for the two about requests, how a request would have).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// The bytes are no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A body cannot be read as its kind.
    #[error("{kind:?} cannot be read, {error}: the server is broken, or of another version")]
    Body {
        /// The kind of the frame.
        kind: Kind,
        /// What is wrong, and where.
        error: BodyError,
    },
    /// A reply of another kind than the request's.
    #[error(
        "a {found:?} came where {expected:?} was due: the server is broken, or of another version"
    )]
    UnexpectedKind {
        /// The kind that answers the request.
        expected: Kind,
        /// The kind that came.
        found: Kind,
    },
    /// A reply to a request that was never made.
    #[error(
        "a reply to request {request_id}, which is not open: the server is broken, or of another version"
    )]
    UnknownRequest {
        /// The id in the reply.
        request_id: u64,
    },
    /// The reply has another number of answers than the request has items.
    #[error("{answered} answers to {asked} items: the server is broken, or of another version")]
    WrongCount {
        /// Items of the request.
        asked: usize,
        /// Answers of the reply.
        answered: usize,
    },
    /// Another route table than the one that was asked for.
    #[error(
        "route table {answered} came where {asked} was asked: the server is older than this client"
    )]
    WrongTable {
        /// The version that was asked for.
        asked: u32,
        /// The version that came.
        answered: u32,
    },
    /// An answer to another order than the one in its place.
    #[error("an answer to order {answered} where {asked} was asked: the server is broken")]
    WrongOrder {
        /// The order in this place of the request.
        asked: OrderId,
        /// The order in this place of the reply.
        answered: OrderId,
    },
    /// An answer that is none to what was asked, as cards to a reserve.
    #[error("the answer to the {kind:?} of order {order_id} is none to that: the server is broken")]
    WrongOutcome {
        /// What was asked.
        kind: Kind,
        /// Of which order.
        order_id: OrderId,
    },
    /// A number in a fact of the feed that this version does not know.
    #[error("{0}")]
    UnknownNumber(UnknownNumber),
    /// A reason of rejected lines that this version does not know.
    #[error("reject reason {found} is unknown: the server is newer, upgrade this client")]
    UnknownReason {
        /// The number.
        found: u16,
    },
    /// The server chose a version that this client did not offer.
    #[error(
        "the server chose protocol version {found}, which was not offered: the server is broken"
    )]
    UnofferedVersion {
        /// The version it chose.
        found: u16,
    },
    /// After a reconnect another store answered: its orders are others, so nothing may be sent again there.
    #[error("another store answers at this address than before: make a new client for it")]
    OtherStore,
    /// A request that is longer than the server accepts. It was not sent.
    #[error(
        "a request of {bytes} bytes is above the server's limit of {max}: ask for less at a time"
    )]
    RequestTooLong {
        /// Bytes of the frame.
        bytes: usize,
        /// The server's limit, in bytes.
        max: u32,
    },
    /// A reply that is longer than this client keeps.
    #[error("a reply of more than {max} bytes: ask for less at a time")]
    ReplyTooLong {
        /// This client's limit, in bytes.
        max: usize,
    },
}

/// Why there is no connection, or none any more. Every call that waited on it gets a copy.
#[derive(Debug, Clone)]
pub(crate) enum Cause {
    /// No connection was made.
    Unreachable(Arc<io::Error>),
    /// A connection was lost.
    Broken(Arc<io::Error>),
    /// The server said why it closes.
    Fault { code: FaultCode, text: String },
    /// The server cannot be understood.
    Protocol(ProtocolError),
    /// The call's time is used up.
    TimedOut { after_ms: u64 },
}

impl Cause {
    pub(crate) fn broken(error: io::Error) -> Self {
        Self::Broken(Arc::new(error))
    }

    pub(crate) fn unreachable(error: io::Error) -> Self {
        Self::Unreachable(Arc::new(error))
    }

    /// The handle was dropped.
    pub(crate) fn let_go() -> Self {
        Self::broken(io::Error::new(
            io::ErrorKind::NotConnected,
            "this client closed it",
        ))
    }

    /// True if another connection may fare better.
    pub(crate) fn passes(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Broken(_) => true,
            Self::Fault { code, .. } => {
                matches!(
                    code,
                    FaultCode::TooManyConnections | FaultCode::TimedOut | FaultCode::BadChecksum
                )
            }
            Self::Protocol(_) | Self::TimedOut { .. } => false,
        }
    }

    pub(crate) fn into_error(self, addr: &str, sent: bool) -> Error {
        let addr = || addr.to_owned();
        match self {
            Self::Unreachable(source) | Self::Broken(source) if sent => Error::Closed {
                addr: addr(),
                source: owned(source),
            },
            Self::Unreachable(source) | Self::Broken(source) => Error::Unreachable {
                addr: addr(),
                source: owned(source),
            },
            Self::Fault { code, text } => Error::Fault { code, text },
            Self::Protocol(error) => Error::Protocol(error),
            Self::TimedOut { after_ms } => Error::TimedOut { after_ms, sent },
        }
    }
}

fn owned(error: Arc<io::Error>) -> io::Error {
    Arc::try_unwrap(error).unwrap_or_else(|shared| io::Error::new(shared.kind(), shared))
}
