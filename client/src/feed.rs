//! The change feed: what happens in a store, page by page, and where to go on.

use std::time::Duration;

use croupier_protocol::{
    CanaryDeed, CanaryReason, CardRun, CardStatus, ChannelCause, ChannelStanding, DealOrder,
    FEED_WAIT_MS_MAX, Feed as FeedBody, FeedKind, FeedReply, FeedRow, HoldEnd, IssueWay, Lsn,
    MoveCause, OrderId, RetryCause, SkuId, UnknownNumber,
};

use crate::client::Client;
use crate::error::{Error, ProtocolError};

/// What is asked of the feed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FeedOptions {
    /// The LSN to go on from: the `next` of the last page. 0 = the oldest fact there is.
    pub from: Lsn,
    /// Only facts of these SKUs, and those of none; empty = all.
    pub skus: Vec<SkuId>,
    /// Only facts of these kinds; empty = all that this version knows.
    pub kinds: Vec<FeedKind>,
    /// Most facts of a page, at most [`FEED_FACTS_MAX`](croupier_protocol::FEED_FACTS_MAX); 0 = as many as fit.
    pub facts_max: u32,
    /// How long the server waits for a fact if there is none, 30 s at most. The call has this time besides its own.
    pub wait: Duration,
}

impl FeedOptions {
    /// The wait in whole milliseconds, as far as the server waits.
    fn wait_ms(&self) -> u32 {
        let ms = u32::try_from(self.wait.as_millis()).unwrap_or(u32::MAX);
        ms.min(FEED_WAIT_MS_MAX)
    }

    pub(crate) fn wait(&self) -> Duration {
        Duration::from_millis(self.wait_ms().into())
    }

    pub(crate) fn body(&self) -> FeedBody {
        // A newer server may have kinds that this client could not read: it is not asked for them.
        let kinds = match &self.kinds[..] {
            [] => &FeedKind::ALL,
            some => some,
        };
        FeedBody {
            from: self.from.0,
            skus: self.skus.iter().map(|sku| sku.0).collect(),
            kinds: kinds.iter().map(|kind| kind.as_u16()).collect(),
            facts_max: self.facts_max,
            wait_ms: self.wait_ms(),
        }
    }
}

/// A page of the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedPage {
    /// The LSN to ask from next. It counts all facts, told or not.
    pub next: Lsn,
    /// The LSN behind the newest durable fact: this page reaches the end if `next` is the same.
    pub end: Lsn,
    /// In the order of their LSNs. An empty page is no end: there may be more that is not told.
    pub facts: Vec<FeedFact>,
}

impl FeedPage {
    pub(crate) fn of(reply: FeedReply) -> Result<Self, Error> {
        let facts = reply.facts.into_iter().map(FeedFact::of);
        Ok(Self {
            next: Lsn(reply.next),
            end: Lsn(reply.end),
            facts: facts
                .collect::<Result<_, _>>()
                .map_err(|number| Error::Protocol(ProtocolError::UnknownNumber(number)))?,
        })
    }
}

/// A fact of the feed. There is no secret in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedFact {
    /// Its place in the log.
    pub lsn: Lsn,
    /// When it was recorded, in Unix milliseconds of the server's clock.
    pub unix_ms: u64,
    /// What it tells.
    pub event: FeedEvent,
}

/// What a fact of the feed tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedEvent {
    /// The server began an epoch of the log.
    Started {
        /// Its number, from 1.
        epoch: u64,
        /// Version of the server.
        version: String,
    },
    /// A SKU was made.
    SkuCreated {
        /// Its numeric id.
        sku: SkuId,
        /// Its name.
        name: String,
    },
    /// A SKU is sold in another way.
    SkuSet {
        /// Its numeric id.
        sku: SkuId,
        /// In which order its cards are dealt.
        deal_order: DealOrder,
        /// How much of what is free and held may be held at once, in per cent.
        hold_share_max_percent: u64,
    },
    /// A batch is for sale.
    BatchSealed {
        /// Of this SKU.
        sku: SkuId,
        /// Its numeric id.
        batch: u32,
        /// Its label.
        label: String,
        /// The pool that its cards are in.
        pool: String,
        /// How many cards it has.
        cards: u64,
    },
    /// Cards were delivered, and are for sale.
    CardsAdded {
        /// Of this SKU.
        sku: SkuId,
        /// They count to this batch.
        batch: u32,
        /// How many cards.
        quantity: u64,
        /// Which.
        cards: Vec<CardRun>,
    },
    /// An order has got its cards.
    Issued {
        /// The order.
        order_id: OrderId,
        /// Of this SKU.
        sku: SkuId,
        /// How many cards.
        quantity: u64,
        /// Which; empty if they are too many to tell: [`Client::order`] has them.
        cards: Vec<CardRun>,
        /// How it came to them.
        way: IssueWay,
        /// How many fewer than it held.
        fewer: u64,
    },
    /// Another route table is in force.
    RoutesLoaded {
        /// Its version.
        version: u64,
    },
    /// A route table is tried on a share of orders, or what became of it.
    Canary {
        /// Its version.
        version: u64,
        /// What became of it.
        deed: CanaryDeed,
        /// Why.
        reason: CanaryReason,
        /// Per cent of orders that it deals from then on; 100: it is in force.
        share_percent: u64,
    },
    /// Cards have left the stock, or come back, otherwise than by orders.
    CardsMoved {
        /// Of this SKU.
        sku: SkuId,
        /// How many cards.
        quantity: u64,
        /// Which; empty if they are too many to tell.
        cards: Vec<CardRun>,
        /// What they were.
        from: CardStatus,
        /// What they are.
        to: CardStatus,
        /// Why.
        cause: MoveCause,
    },
    /// An order holds cards.
    Reserved {
        /// The order.
        order_id: OrderId,
        /// Of this SKU.
        sku: SkuId,
        /// How many cards.
        quantity: u64,
        /// How long, from the fact's time on.
        ttl: Duration,
        /// The card that is bound to it; none of others, whose cards the commit tells.
        cards: Vec<CardRun>,
    },
    /// A hold has got more time.
    Extended {
        /// The order.
        order_id: OrderId,
        /// Of this SKU.
        sku: SkuId,
        /// Which extension of the hold this is, from 1.
        nth: u64,
        /// How long, from the fact's time on.
        ttl: Duration,
    },
    /// A hold has ended without cards, or an order has waited in vain.
    Released {
        /// The order.
        order_id: OrderId,
        /// Of this SKU.
        sku: SkuId,
        /// How many cards it held, or waited for.
        quantity: u64,
        /// Why.
        end: HoldEnd,
    },
    /// An order waits for stock.
    Backordered {
        /// The order.
        order_id: OrderId,
        /// Of this SKU.
        sku: SkuId,
        /// For how many cards.
        quantity: u64,
        /// When it waits no longer, in Unix milliseconds of the server's clock.
        ends_unix_ms: u64,
    },
    /// No channel could fill an order that waits, or it is to be tried again.
    Retried {
        /// The order.
        order_id: OrderId,
        /// Of this SKU.
        sku: SkuId,
        /// Attempts that have failed.
        attempts: u64,
        /// Why the last one has; `None` = none has.
        cause: Option<RetryCause>,
        /// When the next one is made, in Unix milliseconds of the server's clock; 0 = at once, or never, if it is buried.
        again_unix_ms: u64,
    },
    /// A channel is ejected, tried, or healthy again.
    ChannelChanged {
        /// Its name.
        channel: String,
        /// How it stands from here on.
        standing: ChannelStanding,
        /// Why.
        cause: ChannelCause,
        /// How often in a row it was ejected.
        ejections: u64,
        /// Until when it is out, in Unix milliseconds of the server's clock; 0 = it is not; `u64::MAX` = until it is restored.
        until_unix_ms: u64,
    },
}

impl FeedEvent {
    /// Its kind.
    pub const fn kind(&self) -> FeedKind {
        match self {
            Self::Started { .. } => FeedKind::Started,
            Self::SkuCreated { .. } => FeedKind::SkuCreated,
            Self::SkuSet { .. } => FeedKind::SkuSet,
            Self::BatchSealed { .. } => FeedKind::BatchSealed,
            Self::CardsAdded { .. } => FeedKind::CardsAdded,
            Self::Issued { .. } => FeedKind::Issued,
            Self::RoutesLoaded { .. } => FeedKind::RoutesLoaded,
            Self::Canary { .. } => FeedKind::Canary,
            Self::CardsMoved { .. } => FeedKind::CardsMoved,
            Self::Reserved { .. } => FeedKind::Reserved,
            Self::Extended { .. } => FeedKind::Extended,
            Self::Released { .. } => FeedKind::Released,
            Self::Backordered { .. } => FeedKind::Backordered,
            Self::Retried { .. } => FeedKind::Retried,
            Self::ChannelChanged { .. } => FeedKind::ChannelChanged,
        }
    }

    /// The SKU that it is about, if it is about one.
    pub const fn sku(&self) -> Option<SkuId> {
        match self {
            Self::Started { .. }
            | Self::RoutesLoaded { .. }
            | Self::ChannelChanged { .. }
            | Self::Canary { .. } => None,
            Self::SkuCreated { sku, .. }
            | Self::SkuSet { sku, .. }
            | Self::BatchSealed { sku, .. }
            | Self::CardsAdded { sku, .. }
            | Self::Issued { sku, .. }
            | Self::CardsMoved { sku, .. }
            | Self::Reserved { sku, .. }
            | Self::Extended { sku, .. }
            | Self::Released { sku, .. }
            | Self::Retried { sku, .. }
            | Self::Backordered { sku, .. } => Some(*sku),
        }
    }
}

impl FeedFact {
    fn of(row: FeedRow) -> Result<Self, UnknownNumber> {
        let sku = SkuId(row.sku);
        let order_id = OrderId::from_bytes(row.order.unwrap_or_default());
        let ttl = Duration::from_millis(row.number);
        let (quantity, cards) = (row.quantity, row.cards);
        let event = match FeedKind::try_from(row.kind)? {
            FeedKind::Started => FeedEvent::Started {
                epoch: row.number,
                version: row.text,
            },
            FeedKind::SkuCreated => FeedEvent::SkuCreated {
                sku,
                name: row.text,
            },
            FeedKind::SkuSet => FeedEvent::SkuSet {
                sku,
                deal_order: row.how.try_into()?,
                hold_share_max_percent: row.number,
            },
            FeedKind::BatchSealed => FeedEvent::BatchSealed {
                sku,
                batch: row.batch,
                label: row.text,
                pool: row.pool,
                cards: quantity,
            },
            FeedKind::CardsAdded => FeedEvent::CardsAdded {
                sku,
                batch: row.batch,
                quantity,
                cards,
            },
            FeedKind::Issued => FeedEvent::Issued {
                order_id,
                sku,
                quantity,
                cards,
                way: row.how.try_into()?,
                fewer: row.number,
            },
            FeedKind::RoutesLoaded => FeedEvent::RoutesLoaded {
                version: row.number,
            },
            FeedKind::Canary => FeedEvent::Canary {
                version: row.number,
                deed: (row.how >> 8).try_into()?,
                reason: (row.how & 0xff).try_into()?,
                share_percent: quantity,
            },
            FeedKind::CardsMoved => FeedEvent::CardsMoved {
                sku,
                quantity,
                cards,
                from: (row.how >> 8).try_into()?,
                to: (row.how & 0xff).try_into()?,
                cause: u16::try_from(row.number).unwrap_or(u16::MAX).try_into()?,
            },
            FeedKind::Reserved => FeedEvent::Reserved {
                order_id,
                sku,
                quantity,
                ttl,
                cards,
            },
            FeedKind::Extended => FeedEvent::Extended {
                order_id,
                sku,
                nth: quantity,
                ttl,
            },
            FeedKind::Released => FeedEvent::Released {
                order_id,
                sku,
                quantity,
                end: row.how.try_into()?,
            },
            FeedKind::Backordered => FeedEvent::Backordered {
                order_id,
                sku,
                quantity,
                ends_unix_ms: row.number,
            },
            FeedKind::Retried => FeedEvent::Retried {
                order_id,
                sku,
                attempts: quantity,
                cause: match row.how {
                    0 => None,
                    cause => Some(cause.try_into()?),
                },
                again_unix_ms: row.number,
            },
            FeedKind::ChannelChanged => FeedEvent::ChannelChanged {
                channel: row.text,
                standing: (row.how >> 8).try_into()?,
                cause: (row.how & 0xff).try_into()?,
                ejections: quantity,
                until_unix_ms: row.number,
            },
        };
        Ok(Self {
            lsn: Lsn(row.lsn),
            unix_ms: row.unix_ms,
            event,
        })
    }
}

/// A reader of the feed that knows where it is. Keep [`Feed::position`] with whatever its facts led to, and begin there
/// after a restart: then every fact counts once.
#[derive(Debug, Clone)]
pub struct Feed {
    client: Client,
    options: FeedOptions,
}

impl Feed {
    pub(crate) const fn new(client: Client, options: FeedOptions) -> Self {
        Self { client, options }
    }

    /// The next facts; empty if none came within the wait. Dropping the future loses nothing.
    ///
    /// # Errors
    /// As for [`Client::feed`]. The position stays, so that it can be tried again.
    pub async fn next(&mut self) -> Result<Vec<FeedFact>, Error> {
        let page = self.client.feed(&self.options).await?;
        self.options.from = page.next;
        Ok(page.facts)
    }

    /// The LSN behind all facts that [`Feed::next`] has returned.
    pub const fn position(&self) -> Lsn {
        self.options.from
    }
}
