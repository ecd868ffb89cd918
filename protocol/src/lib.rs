//! Croupier's wire protocol: the words, the frames and the bodies that client and server share.
//!
//! This crate turns bytes into meaning and back. It knows no socket, no clock, no thread and no rule of the engine;
//! it never panics on bytes from outside, and it allocates nothing on the order's way. The specification is
//! `docs/wire-format.md`: where that page and this crate differ, the crate is wrong.
//!
//! ```text
//!  0               4               8       10  11  12      14      16                              24
//!  +---------------+---------------+-------+---+---+-------+-------+-------------------------------+------ - -
//!  | length   u32  | checksum u32  | magic |ver|knd| flags | count | request_id                u64 | body …
//!  +---------------+---------------+-------+---+---+-------+-------+-------------------------------+------ - -
//!
//!  Issue       body = count × StepItem (32 bytes, then 16 of a holder's key if it names one)
//!  IssueReply  body = count × OrderItem (48 bytes, then its cards)
//!  Reserve, Commit, Cancel, Extend and their replies: as for Issue
//!  LookUp      body = count × order id  (16 bytes)         the reply is as for Issue
//!  ImportRows  body = import id (8 bytes), count × row     (40 bytes, then label and secret)
//!  the rest    body = one fixed layout, or one bincode value (see `control`)
//! ```
//!
//! A server reads with [`peek`] and [`step_items`], and answers with [`FrameWriter`], [`put_refused`] and
//! [`IssuedWriter`]:
//!
//! ```
//! use bytes::BytesMut;
//! use croupier_protocol::*;
//!
//! let item = StepItem::one(OrderId::new_v7(), SkuId(1));
//! let mut wire = BytesMut::new();
//! let mut frame = FrameWriter::begin(&mut wire, Kind::Issue, 7);
//! item.encode_into(frame.body());
//! frame.set_count(1);
//! frame.finish();
//!
//! let header = peek(&wire, FRAME_BYTES_MAX_DEFAULT)?.expect("the frame is whole");
//! let items: Vec<_> = step_items(header.body_of(&wire), header.count)?.collect();
//! assert_eq!(items, [item]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod limits;
mod words;

#[doc(hidden)]
pub mod planted;

mod numbered;
mod refusal;

mod codec;
mod frame;
mod frame_writer;

mod answer;
mod body;
mod canary;
mod control;
mod deliver;
mod feed;
mod find;
mod hello;
mod import;
mod moves;
mod order;
mod refused;
mod sku;
mod uses;

pub use answer::{
    Card, Cards, HeldOrder, Hold, IssuedOrder, IssuedWriter, ORDER_FLAG_REPEAT, OrderItemHead,
    OrderItemView, OrderItems, OrderOutcome, STATUS_CANCELLED, STATUS_EXPIRED, STATUS_HELD,
    STATUS_ISSUED, STATUS_REFUSED, STATUS_WAITING, order_items, put_hold, put_refused,
};
pub use body::BodyError;
pub use canary::{CanaryDeed, CanaryReason};
pub use codec::{CodecError, Frame, FrameCodec};
pub use control::{
    BatchList, BatchRow, CanaryChangeReply, CanaryGroup, CanarySettings, CanaryStart,
    CanaryStartReply, CanaryStatusReply, CanaryStep, CardList, CardPlace, CardRow, CardRun,
    ChannelMove, ChannelMoveReply, ChannelRow, ChannelsStatusReply, ControlBody, DeliverJobReply,
    DeliverReply, EndJob, EndJobReply, Feed, FeedReply, FeedRow, HolderCap, ImportBegin,
    ImportBeginReply, ImportEndReply, JobRow, ListBatches, ListCards, ListOrders, MoveCards,
    MoveCardsReply, OrderList, OrderRow, Pick, ReasonCount, RejectedLine, RetryList,
    RetryListReply, RetryMove, RetryMoveReply, RetryRow, RouteMark, RouteRow, RouteRule,
    RoutesHistoryReply, RoutesLoad, RoutesLoadReply, RoutesRollback, RoutesShow, RoutesShowReply,
    RoutesStatusReply, ServerInfoReply, SkuCreate, SkuCreateReply, SkuListReply, SkuRow, SkuSet,
    SkuSetReply, Stock, StockReply, StockRow, TakeJobs, TakeJobsReply, Trailing, decode_control,
    encode_control,
};
pub use deliver::{Deliver, DeliverJob, JOB_FLAG_ALL};
pub use feed::{FeedKind, HoldEnd, IssueWay, MoveCause};
pub use find::FindSecret;
pub use frame::{FLAG_MORE, FRAME_MAGIC, FRAME_VERSION, FrameError, FrameHeader, Kind, peek};
pub use frame_writer::FrameWriter;
pub use hello::{Hello, HelloReply, PROTOCOL_VERSION};
pub use import::{ImportEnd, ImportRow, ImportRows, ImportRowsReply, import_rows, put_import_id};
pub use limits::*;
pub use moves::{CardMove, CardStatus};
pub use numbered::UnknownNumber;
pub use order::{
    STEP_FLAG_HOLDER, STEP_FLAG_LINKED, STEP_FLAG_ONLY_HELD, STEP_FLAG_PARTIAL, STEP_FLAG_STAY,
    STEP_FLAG_TAG, STEP_FLAG_WAIT, Step, StepItem, StepItems, lookup_items, put_lookup, step_items,
};
pub use refusal::{
    ChannelCause, ChannelKind, ChannelStanding, FaultCode, JobState, Refusal, RejectReason,
    RetryCause,
};
pub use refused::{FaultBody, RefusedBody};
pub use sku::DealOrder;
pub use uses::{MaxUses, MaxUsesError};
pub use words::{
    CardRef, CardRefError, Holder, Lsn, Name, NameError, OrderId, OrderIdParseError, Priority,
    PriorityParseError, Secret, SkuId,
};
