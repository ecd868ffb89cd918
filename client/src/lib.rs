//! Rust client of Croupier: deals gift codes exactly once, over one multiplexed connection.
//!
//! [`Client`] is a cheap handle: clone it, share it, call it from any task of any tokio runtime. All clones share one
//! connection; calls are pipelined on it and answered in any order. Lost connections are made anew, and orders are
//! sent again under the id they had, so that a retry never deals a second card.
//!
//! ```no_run
//! use croupier_client::{Client, Error, Order, OrderId};
//!
//! # async fn deal() -> Result<(), Error> {
//! let client = Client::connect("croupier://127.0.0.1:7733").await?;
//! let sku = client.sku_id("gift-50").await?;
//!
//! // Keep the id with your own order before you ask: it is what makes asking again safe.
//! let order_id = OrderId::new_v7();
//! match client.issue(Order::new(order_id, sku)).await {
//!     Ok(issued) => hand_over(issued.cards[0].secret.as_bytes()),
//!     Err(Error::OutcomeUnknown { .. }) => ask_again_later_with_the_same(order_id),
//!     Err(error) => return Err(error),
//! }
//! # Ok(())
//! # }
//! # fn hand_over(_secret: &[u8]) {}
//! # fn ask_again_later_with_the_same(_order_id: OrderId) {}
//! ```
//!
//! # Two phases
//!
//! A shop that takes money first *reserves* the cards, lets its customer pay, and *commits*: [`Client::reserve`],
//! [`Client::commit`], [`Client::cancel`], [`Client::extend`]. A hold that is not committed in time expires, and its cards
//! are for others again.
//!
//! ```no_run
//! use croupier_client::{Client, DEFAULT_TTL, Error, Order, OrderId, Refusal};
//!
//! # async fn sell(client: &Client) -> Result<(), Error> {
//! # let sku = client.sku_id("gift-50").await?;
//! let order_id = OrderId::new_v7();
//! let held = client.reserve(Order::new(order_id, sku), DEFAULT_TTL).await?;
//! if !paid(held.hold.map(|hold| hold.ends_unix_ms)).await {
//!     client.cancel(order_id).await?;
//!     return Ok(());
//! }
//! match client.commit(order_id).await {
//!     Ok(issued) => hand_over(issued.cards[0].secret.as_bytes()),
//!     // Paid too late, and sold out since.
//!     Err(Error::Refused { refusal: Refusal::Expired, .. }) => pay_back(order_id),
//!     Err(Error::OutcomeUnknown { .. }) => commit_again_later(order_id),
//!     Err(error) => return Err(error),
//! }
//! # Ok(())
//! # }
//! # async fn paid(_until: Option<u64>) -> bool { true }
//! # fn hand_over(_secret: &[u8]) {}
//! # fn pay_back(_order_id: OrderId) {}
//! # fn commit_again_later(_order_id: OrderId) {}
//! ```
//!
//! # The change feed
//!
//! [`Client::feed`] tells what happens in a store: durable facts in the log's order, never a secret. [`Feed`] keeps the
//! position.
//!
//! ```no_run
//! use std::time::Duration;
//! use croupier_client::{Client, Error, FeedOptions, Lsn};
//!
//! # async fn follow(client: &Client, kept: Lsn) -> Result<(), Error> {
//! let wait = Duration::from_secs(20);
//! let mut feed = client.follow(FeedOptions { from: kept, wait, ..FeedOptions::default() });
//! loop {
//!     for fact in feed.next().await? {
//!         println!("{}: {:?}", fact.lsn, fact.event);
//!     }
//!     keep(feed.position());
//! }
//! # }
//! # fn keep(_position: Lsn) {}
//! ```
//!
//! # Making cards when they are wanted
//!
//! A worker of an issuer channel is pushed jobs and delivers cards for them: [`Issuer`] runs by itself, [`Client::take_jobs`],
//! [`Client::deliver_job`], [`Client::extend_job`] and [`Client::fail_job`] are the calls it makes.
//!
//! # What is tried again
//!
//! * A request that was never sent, whatever it is.
//! * Steps of orders, look-ups and other reads whose connection was lost before the reply, after 20 ms × 2ⁿ (1 s at most, with
//!   jitter), until the call's time or its retries are used up.
//! * What the server refused as `Busy`, `ShuttingDown` or `TooManyImports`, after the time it named, within the
//!   call's time.
//!
//! Nothing else: a `sku_create` or `routes_load` that was sent and not answered is for the caller to look at. When a
//! step of an order was sent and no answer can be had, the error is [`Error::OutcomeUnknown`], and only then.
//!
//! # Cancellation
//!
//! Dropping the future of a call takes nothing back: what was sent may be carried out, and its late reply is thrown
//! away. The connection stays usable.
#![forbid(unsafe_code)]

mod client;
mod feed;
mod import;
mod issuer;
mod job;
mod order;

mod ask;
mod call;
mod retry;

mod dial;
mod inbox;
mod link;

mod builder;
mod error;
mod url;

/// The decisions of a call, for simulations that have neither a clock nor a connection.
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod testing {
    pub use crate::ask::leaves_doubt;
    pub use crate::retry::{Resend, Tries};
}

pub use builder::ClientBuilder;
pub use client::{Client, RetryTo, RetryWhich, RoutesOptions, SkuSettings};
pub use error::{Error, ProtocolError};
pub use feed::{Feed, FeedEvent, FeedFact, FeedOptions, FeedPage};
pub use import::{Import, ImportOptions, ImportReport, Rejection, RejectionCount};
pub use issuer::{Issuer, IssuerBuilder, IssuerCounts, IssuerReport, Undelivered};
pub use job::{Job, JobCard, JobDelivery, JobFailure, JobLease};
pub use order::{
    CardPick, CardSelection, DEFAULT_TTL, HOLDER_TEXT_BYTES_MAX, Order, OrderStep, Wait, holder_of,
};

pub use croupier_protocol::{
    BatchRow, CARDS_NAMED_MAX, CanaryChangeReply, CanaryDeed, CanaryGroup, CanaryReason,
    CanarySettings, CanaryStartReply, CanaryStatusReply, CanaryStep, Card, CardMove, CardRef,
    CardRow, CardRun, CardStatus, ChannelCause, ChannelKind, ChannelMoveReply, ChannelRow,
    ChannelStanding, DELIVERY_ROWS_MAX, DealOrder, DeliverReply, FEED_FACTS_MAX, FaultCode,
    FeedKind, HeldOrder, Hold, HoldEnd, Holder, HolderCap, ImportRow, IssueWay, IssuedOrder,
    LINKED_ORDERS_MAX, Lsn, MaxUses, MoveCardsReply, MoveCause, OrderId, OrderOutcome, OrderRow,
    Priority, Refusal, RejectReason, RetryCause, RetryListReply, RetryMoveReply, RetryRow,
    RouteMark, RouteRow, RouteRule, RoutesLoadReply, RoutesShowReply, RoutesStatusReply, Secret,
    ServerInfoReply, SkuId, SkuRow, SkuSetReply, Step, StepItem, StockRow,
};
pub use croupier_protocol::{JOBS_MAX, JobState};
