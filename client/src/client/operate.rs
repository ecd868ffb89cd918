//! What shops set up and operators ask: SKUs, stock, cards, routes, imports, facts.

use std::sync::PoisonError;
use std::time::Duration;

use bytes::BytesMut;
use croupier_protocol::{
    BatchList, BatchRow, CanaryChangeReply, CanarySettings, CanaryStart, CanaryStartReply,
    CanaryStatusReply, CardList, CardMove, CardPlace, CardRef, CardRow, CardStatus, ChannelMove,
    ChannelMoveReply, ChannelRow, ChannelsStatusReply, DELIVERY_ROWS_MAX, DealOrder, Deliver,
    DeliverReply, FeedReply, FindSecret, Holder, HolderCap, ImportRow, Kind, ListBatches,
    ListCards, ListOrders, MoveCards, MoveCardsReply, OrderId, OrderList, OrderOutcome, OrderRow,
    Refusal, RetryList, RetryListReply, RetryMove, RetryMoveReply, RouteRow, RoutesHistoryReply,
    RoutesLoad, RoutesLoadReply, RoutesRollback, RoutesShow, RoutesShowReply, RoutesStatusReply,
    ServerInfoReply, SkuCreate, SkuCreateReply, SkuId, SkuListReply, SkuRow, SkuSet, SkuSetReply,
    Stock, StockReply, StockRow, Trailing, encode_control,
};
use tokio::time::Instant;

use super::{Client, joined, one, place_of};
use crate::call::{Deadline, Resend};
use crate::error::{Error, ProtocolError};
use crate::feed::{Feed, FeedOptions, FeedPage};
use crate::import::{Import, ImportOptions};
use crate::link::Request;
use crate::order::CardSelection;

/// How a SKU is sold, for [`Client::sku_set`]: what is `None` stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SkuSettings {
    /// In which order its cards are dealt.
    pub deal_order: Option<DealOrder>,
    /// How much of what is free and held may be held at once, in per cent.
    pub hold_share_max_percent: Option<u16>,
    /// How many cards a holder may get, and within which time.
    pub holder_cap: HolderCap,
}

impl SkuSettings {
    /// Says in which order its cards are dealt.
    #[must_use]
    pub const fn deal_order(self, deal_order: DealOrder) -> Self {
        let deal_order = Some(deal_order);
        Self { deal_order, ..self }
    }

    /// Says how much of what is free and held may be held at once, in per cent.
    #[must_use]
    pub const fn hold_share_max_percent(self, percent: u16) -> Self {
        let hold_share_max_percent = Some(percent);
        Self {
            hold_share_max_percent,
            ..self
        }
    }
}

/// What a change of the route table is to look out for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RoutesOptions {
    /// The version that must be in force, so that nobody else's table is replaced unseen; `None` = whichever is.
    pub expect: Option<u32>,
}

impl RoutesOptions {
    /// Says which version must be in force.
    #[must_use]
    pub const fn expect(version: u32) -> Self {
        Self {
            expect: Some(version),
        }
    }
}

/// What is to be done with orders that no channel could fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryTo {
    /// They are asked for at once, from the first attempt on; also those that are buried.
    Kick = 1,
    /// No channel is asked any more.
    Bury = 2,
    /// They are cancelled.
    Drain = 3,
}

/// Which of the orders that no channel could fill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RetryWhich {
    /// These, at least one and at most 1000.
    Orders(Vec<OrderId>),
    /// All of them, or those of a SKU, or those that are buried, or are not.
    All {
        /// Of this SKU.
        sku: Option<String>,
        /// Only those that are buried, or only those that are not.
        buried: Option<bool>,
    },
}

impl Client {
    /// The id of a SKU. Ids are kept in the handle: only a name it has not met asks the server.
    ///
    /// # Errors
    /// [`Error::Refused`] as `UnknownSku` if there is none of this name.
    pub async fn sku_id(&self, name: &str) -> Result<SkuId, Error> {
        if let Some(id) = self.known_sku(name) {
            return Ok(id);
        }
        self.sku_list().await?;
        self.known_sku(name).ok_or_else(|| Error::Refused {
            order_id: None,
            refusal: Refusal::UnknownSku,
            retry_after_ms: 0,
            text: format!("{name:?}: {}", Refusal::UnknownSku),
        })
    }

    fn known_sku(&self, name: &str) -> Option<SkuId> {
        self.shared
            .sku_ids
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .copied()
    }

    /// Makes a SKU. Not tried again once it was sent: if the answer was lost, [`Client::sku_list`] tells.
    ///
    /// # Errors
    /// [`Error::Refused`] as `SkuExists`, `NameInvalid` or `TooManySkus`.
    pub async fn sku_create(&self, name: &str) -> Result<SkuId, Error> {
        let body = SkuCreate {
            name: name.to_owned(),
        };
        let reply: SkuCreateReply = self.control(Kind::SkuCreate, &body, Resend::Never).await?;
        Ok(SkuId(reply.sku))
    }

    /// How a SKU is sold.
    ///
    /// # Errors
    /// [`Error::Refused`] as `UnknownSku`.
    pub async fn sku_settings(&self, name: &str) -> Result<SkuSetReply, Error> {
        let body = SkuSet {
            name: name.to_owned(),
            ..SkuSet::default()
        };
        self.control(Kind::SkuSet, &body, Resend::Safe).await
    }

    /// Says how a SKU is sold from now on. It may be sent again: the same twice is as once.
    ///
    /// # Errors
    /// [`Error::Refused`] as `UnknownSku` or `SettingInvalid`.
    pub async fn sku_set(&self, name: &str, settings: &SkuSettings) -> Result<SkuSetReply, Error> {
        let cap = settings.holder_cap;
        let body = SkuSet {
            name: name.to_owned(),
            deal_order: settings.deal_order.map(DealOrder::as_u16),
            hold_share_max_percent: settings.hold_share_max_percent,
            // A server that knows no caps understands all else.
            holder: Trailing((cap != HolderCap::default()).then_some(cap)),
        };
        self.control(Kind::SkuSet, &body, Resend::Safe).await
    }

    /// Makes cards stock of a SKU and pool (`None`: `main`), each on its own, durable when this returns; at most 1,024 rows, without
    /// labels. What is known already is rejected, by the number of its row. So it may be sent again: if an answer was lost
    /// on the way, cards of this delivery are rejected as `duplicate_in_stock`, and are there.
    ///
    /// # Errors
    /// [`Error::Refused`] as `UnknownSku`, `NameInvalid`, `DeliveryInvalid`, `DiskFull` or `StoreFailed`.
    pub async fn deliver(
        &self,
        sku: &str,
        pool: Option<&str>,
        rows: &[ImportRow<'_>],
    ) -> Result<DeliverReply, Error> {
        // As much of it as tells that it is too long.
        let named = |name: &'_ str| name.len() <= usize::from(u16::MAX);
        let pool = pool.unwrap_or_default();
        if rows.len() > DELIVERY_ROWS_MAX || !named(sku) || !named(pool) {
            return Err(Error::Refused {
                order_id: None,
                refusal: Refusal::DeliveryInvalid,
                retry_after_ms: 0,
                text: Refusal::DeliveryInvalid.to_string(),
            });
        }
        let body = Deliver { sku, pool };
        let count = rows.len() as u16;
        let encode = |out: &mut BytesMut| body.encode_into(rows, out);
        let frames = self
            .call_of(Kind::Deliver, count, encode, Resend::Safe)
            .await?;
        one(&frames)
    }

    /// Orders of a holder, a page at a time, the oldest first by the LSN of their last record: those behind `after` (0 = from the
    /// first), at most `limit` of them (0 = as many as fit). The second value is the `after` of the next page; `None` = that was
    /// the last. An order that changes between two pages comes again.
    ///
    /// # Errors
    /// Those of a lost connection.
    pub async fn orders_of(
        &self,
        holder: Holder,
        after: u64,
        limit: u32,
    ) -> Result<(Vec<OrderRow>, Option<u64>), Error> {
        let body = ListOrders {
            holder: holder.to_bytes(),
            after,
            limit,
        };
        let list: OrderList = self.control(Kind::ListOrders, &body, Resend::Safe).await?;
        Ok((list.rows, list.next))
    }

    /// All SKUs.
    ///
    /// # Errors
    /// Those of a lost connection.
    pub async fn sku_list(&self) -> Result<Vec<SkuRow>, Error> {
        let frames = self.call(Kind::SkuList, |_| {}, Resend::Safe).await?;
        let skus: Vec<SkuRow> = joined(&frames, |page: SkuListReply| page.skus)?;
        let ids = skus
            .iter()
            .map(|row| (row.name.clone(), SkuId(row.sku)))
            .collect();
        *self
            .shared
            .sku_ids
            .write()
            .unwrap_or_else(PoisonError::into_inner) = ids;
        Ok(skus)
    }

    /// Counts of the cards of one SKU, or of every one.
    ///
    /// # Errors
    /// [`Error::Refused`] as `UnknownSku` if there is none of this name.
    pub async fn stock(&self, name: Option<&str>) -> Result<Vec<StockRow>, Error> {
        let body = Stock {
            name: name.map(str::to_owned),
        };
        let frames = self
            .call(Kind::Stock, |out| encode_control(&body, out), Resend::Safe)
            .await?;
        joined(&frames, |page: StockReply| page.rows)
    }

    /// Takes cards out of sale, or puts them back; tells how many. Not tried again once it was sent: if the answer was lost,
    /// [`Client::stock`] tells.
    ///
    /// Cards that are named one by one, and those of an order, go all or none. Of a SKU or a batch those go that can.
    ///
    /// # Errors
    /// [`Error::Refused`] as `UnknownSku`, `UnknownBatch`, `UnknownCard` or `OrderNotFound`; as `CardIssued` if an order has
    /// one of the cards, and as `CardNotInState` if one is not where it could go this way from. The text says which.
    pub async fn move_cards(
        &self,
        which: &CardSelection,
        card_move: CardMove,
        issued: bool,
    ) -> Result<MoveCardsReply, Error> {
        let Chosen {
            sku,
            batch,
            cards,
            order,
        } = Chosen::of(which);
        let body = MoveCards {
            sku,
            batch,
            cards,
            order,
            to: card_move.as_u16(),
            issued,
        };
        self.control(Kind::MoveCards, &body, Resend::Never).await
    }

    /// The cards that have a secret, of one SKU or of any: at most one for each SKU, with all its uses if they are few. None: no
    /// import has brought it.
    ///
    /// # Errors
    /// [`Error::Refused`] as `UnknownSku`, or as `SelectionInvalid` if no card can have such a secret.
    pub async fn find_secret(
        &self,
        sku: Option<SkuId>,
        secret: &[u8],
    ) -> Result<Vec<CardRow>, Error> {
        let found = self.find_secret_page(sku, secret).await?;
        Ok(found.0)
    }

    /// As [`Client::find_secret`]; the second value: they have more uses than are told, and these are the first of each.
    /// [`Client::list_cards`] of them tells all.
    ///
    /// # Errors
    /// Those of [`Client::find_secret`].
    pub async fn find_secret_page(
        &self,
        sku: Option<SkuId>,
        secret: &[u8],
    ) -> Result<(Vec<CardRow>, bool), Error> {
        let body = FindSecret {
            sku: sku.unwrap_or_default(),
            secret,
        };
        let encode = |out: &mut BytesMut| body.encode_into(out);
        let frames = self.call(Kind::FindSecret, encode, Resend::Safe).await?;
        let list: CardList = one(&frames)?;
        Ok((list.rows, list.next.is_some()))
    }

    /// What became of cards, by place, a page at a time: those behind `after`, of one status or of any. The second value is
    /// the `after` of the next page; `None` = that was the last. A page may be empty and not the last.
    ///
    /// # Errors
    /// [`Error::Refused`] as `UnknownSku`, `UnknownBatch`, `UnknownCard`, or `SelectionInvalid` if there are too many cards
    /// or none; those of [`Client::order`] for the cards of an order.
    pub async fn list_cards(
        &self,
        which: &CardSelection,
        status: Option<CardStatus>,
        after: Option<CardRef>,
    ) -> Result<(Vec<CardRow>, Option<CardRef>), Error> {
        let mut chosen = Chosen::of(which);
        if let CardSelection::Order(id) = which {
            // The request names no orders.
            let order = self.order(*id).await?.and_then(OrderOutcome::into_issued);
            let cards = order.into_iter().flat_map(|order| order.cards);
            chosen.cards = cards.map(|card| place_of(card.card)).collect();
            if chosen.cards.is_empty() {
                return Ok((Vec::new(), None));
            }
        }
        let body = ListCards {
            sku: chosen.sku,
            batch: chosen.batch,
            cards: chosen.cards,
            status: status.map_or(0, CardStatus::as_u16),
            after: after.map(place_of),
        };
        let list: CardList = self.control(Kind::ListCards, &body, Resend::Safe).await?;
        let next = list.next.map(|place| CardRef {
            slab: place.slab,
            slot: place.slot,
            generation: place.generation,
        });
        Ok((list.rows, next))
    }

    /// The batches of one SKU, or of every one.
    ///
    /// # Errors
    /// [`Error::Refused`] as `UnknownSku` if there is none of this name.
    pub async fn batches(&self, sku: Option<&str>) -> Result<Vec<BatchRow>, Error> {
        let body = ListBatches {
            sku: sku.map(str::to_owned),
        };
        let encode = |out: &mut BytesMut| encode_control(&body, out);
        let frames = self.call(Kind::ListBatches, encode, Resend::Safe).await?;
        joined(&frames, |page: BatchList| page.rows)
    }

    /// How long the server takes to answer, from this call to its reply.
    ///
    /// # Errors
    /// Those of a lost connection.
    pub async fn ping(&self) -> Result<Duration, Error> {
        let asked = Instant::now();
        self.call(Kind::Ping, |_| {}, Resend::Safe).await?;
        Ok(asked.elapsed())
    }

    /// What server this is and how it does.
    ///
    /// # Errors
    /// Those of a lost connection.
    pub async fn server_info(&self) -> Result<ServerInfoReply, Error> {
        let frames = self.call(Kind::ServerInfo, |_| {}, Resend::Safe).await?;
        one(&frames)
    }

    /// Puts a route table in force. Not tried again once it was sent: if the answer was lost,
    /// [`Client::routes_show`] tells.
    ///
    /// # Errors
    /// [`Error::Refused`] as `RoutesInvalid`; the text says line and reason, and nothing changed.
    pub async fn routes_load(&self, toml: &str) -> Result<RoutesLoadReply, Error> {
        self.routes_load_with(toml, RoutesOptions::default()).await
    }

    /// As [`Client::routes_load`], with options.
    ///
    /// # Errors
    /// As for [`Client::routes_load`]; [`Error::Refused`] as `RoutesChanged` if another version is in force than is expected.
    pub async fn routes_load_with(
        &self,
        toml: &str,
        options: RoutesOptions,
    ) -> Result<RoutesLoadReply, Error> {
        let body = RoutesLoad {
            toml: toml.to_owned(),
            expect: Trailing(options.expect),
        };
        self.control(Kind::RoutesLoad, &body, Resend::Never).await
    }

    /// Puts a route table in force again that was before, under a new version: the one of version `to` (0 = the built-in one), or
    /// without it the last one that is another than the one in force. Not tried again once it was sent: if the answer was lost,
    /// [`Client::routes_history`] tells.
    ///
    /// # Errors
    /// [`Error::Refused`] as `RoutesVersionUnknown` if that table is not kept; the text names the versions that are. As
    /// `RoutesChanged` if another version is in force than is expected.
    pub async fn routes_rollback(
        &self,
        to: Option<u32>,
        options: RoutesOptions,
    ) -> Result<RoutesLoadReply, Error> {
        let expect = options.expect;
        let body = RoutesRollback { to, expect };
        self.control(Kind::RoutesRollback, &body, Resend::Never)
            .await
    }

    /// The route tables that were in force and are kept, the newest first; the built-in one, version 0, is the last.
    ///
    /// # Errors
    /// Those of a lost connection.
    pub async fn routes_history(&self) -> Result<Vec<RouteRow>, Error> {
        let frames = self.call(Kind::RoutesHistory, |_| {}, Resend::Safe).await?;
        Ok(one::<RoutesHistoryReply>(&frames)?.rows)
    }

    /// The route table of a version, 0 = the built-in one.
    ///
    /// # Errors
    /// [`Error::Refused`] as `RoutesVersionUnknown` if it is not kept. [`Error::Protocol`] if the server is so old that it knows
    /// no other table than the one in force. Those of a lost connection.
    pub async fn routes_show_version(&self, version: u32) -> Result<RoutesShowReply, Error> {
        let body = RoutesShow {
            version: Trailing(Some(version)),
        };
        let shown: RoutesShowReply = self.control(Kind::RoutesShow, &body, Resend::Safe).await?;
        if shown.version != version {
            let (asked, answered) = (version, shown.version);
            return Err(ProtocolError::WrongTable { asked, answered }.into());
        }
        Ok(shown)
    }

    /// The route table in force.
    ///
    /// # Errors
    /// Those of a lost connection.
    pub async fn routes_show(&self) -> Result<RoutesShowReply, Error> {
        let frames = self.call(Kind::RoutesShow, |_| {}, Resend::Safe).await?;
        one(&frames)
    }

    /// How loaded the server is, and how many orders each rule of its route table has taken.
    ///
    /// # Errors
    /// Those of a lost connection.
    pub async fn routes_status(&self) -> Result<RoutesStatusReply, Error> {
        let frames = self.call(Kind::RoutesStatus, |_| {}, Resend::Safe).await?;
        one(&frames)
    }

    /// Orders that no channel could fill yet, of one SKU or all, buried or not, a page at a time; and how many there are in all.
    /// `after` is 0, or the `next` of the page before.
    ///
    /// # Errors
    /// [`Error::Refused`] as `UnknownSku`. Those of a lost connection.
    pub async fn retries(
        &self,
        sku: Option<&str>,
        buried: Option<bool>,
        after: u64,
        limit: u32,
    ) -> Result<RetryListReply, Error> {
        let body = RetryList {
            sku: sku.map(str::to_owned),
            buried,
            after,
            limit,
        };
        self.control(Kind::RetryList, &body, Resend::Safe).await
    }

    /// Has orders that no channel could fill asked for again, buried or cancelled. Orders that do not wait are passed over.
    ///
    /// # Errors
    /// [`Error::Refused`] as `RetryInvalid` or `UnknownSku`. Those of a lost connection: ask again.
    pub async fn move_retries(
        &self,
        to: RetryTo,
        which: &RetryWhich,
    ) -> Result<RetryMoveReply, Error> {
        let mut body = RetryMove {
            what: to as u16,
            ..RetryMove::default()
        };
        match which {
            RetryWhich::Orders(orders) => {
                body.orders = orders.iter().map(|order| order.to_bytes()).collect();
            }
            RetryWhich::All { sku, buried } => (body.sku, body.buried) = (sku.clone(), *buried),
        }
        self.control(Kind::RetryMove, &body, Resend::Safe).await
    }

    /// How the channels do that are outside, by name.
    ///
    /// # Errors
    /// Those of a lost connection.
    pub async fn channels(&self) -> Result<Vec<ChannelRow>, Error> {
        let frames = self
            .call(Kind::ChannelsStatus, |_| {}, Resend::Safe)
            .await?;
        joined(&frames, |page: ChannelsStatusReply| page.rows)
    }

    /// Takes a channel that is outside out for so long, or without an end until it is [restored](Self::restore_channel), whatever else
    /// is. It may be asked again: that begins anew.
    ///
    /// # Errors
    /// [`Error::Refused`] as `ChannelUnknown` if the route table in force has none of this name. Those of a lost connection.
    pub async fn eject_channel(
        &self,
        channel: &str,
        time: Option<Duration>,
    ) -> Result<ChannelMoveReply, Error> {
        let for_ms = time.map_or(0, |time| {
            u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
        });
        self.move_channel(channel, 1, for_ms).await
    }

    /// Has a channel that is outside be healthy, whatever was before.
    ///
    /// # Errors
    /// As for [`Client::eject_channel`].
    pub async fn restore_channel(&self, channel: &str) -> Result<ChannelMoveReply, Error> {
        self.move_channel(channel, 2, 0).await
    }

    async fn move_channel(
        &self,
        channel: &str,
        what: u16,
        for_ms: u64,
    ) -> Result<ChannelMoveReply, Error> {
        let body = ChannelMove {
            channel: channel.to_owned(),
            what,
            for_ms,
        };
        let encode = |out: &mut BytesMut| encode_control(&body, out);
        let frames = self.call(Kind::ChannelMove, encode, Resend::Safe).await?;
        one(&frames)
    }

    /// Has a route table tried on a share of orders: docs/canary.md. What `settings` leave out is as by default. Not tried again once it
    /// was sent: if the answer was lost, [`Client::canary_status`] tells.
    ///
    /// # Errors
    /// [`Error::Refused`] as `CanaryRunning` if another is under way, as `RoutesInvalid` with line and reason, as `CanarySame` if the table
    /// is the one in force, as `CanaryChannel` if it has a channel outside that the one in force has not, and as `CanaryInvalid` for
    /// settings that cannot be meant. Nothing changed then.
    pub async fn canary_start(
        &self,
        toml: &str,
        settings: &CanarySettings,
    ) -> Result<CanaryStartReply, Error> {
        let body = CanaryStart {
            toml: toml.to_owned(),
            settings: settings.clone(),
        };
        self.control(Kind::CanaryStart, &body, Resend::Never).await
    }

    /// How the last canary does, or did.
    ///
    /// # Errors
    /// Those of a lost connection.
    pub async fn canary_status(&self) -> Result<CanaryStatusReply, Error> {
        let frames = self.call(Kind::CanaryStatus, |_| {}, Resend::Safe).await?;
        one(&frames)
    }

    /// Ends the canary that is under way: all orders go by the table in force. Not tried again once it was sent.
    ///
    /// # Errors
    /// [`Error::Refused`] as `NoCanary` if none is under way.
    pub async fn canary_abort(&self) -> Result<CanaryChangeReply, Error> {
        let frames = self.call(Kind::CanaryAbort, |_| {}, Resend::Never).await?;
        one(&frames)
    }

    /// Begins the step of a paused canary again. Not tried again once it was sent.
    ///
    /// # Errors
    /// [`Error::Refused`] as `NoCanary` if none is paused.
    pub async fn canary_resume(&self) -> Result<CanaryChangeReply, Error> {
        let frames = self.call(Kind::CanaryResume, |_| {}, Resend::Never).await?;
        one(&frames)
    }

    /// A page of the change feed: durable facts from an LSN on. If there is none yet, the server waits for one as long as
    /// the options say; other calls go on meanwhile.
    ///
    /// # Errors
    /// [`Error::Refused`] as `FeedTooOld` if what `from` names has been folded into a checkpoint (the text says from where
    /// one can go on; 0 is the same place), and as `FeedAhead` if the log does not reach so far. Those of a lost
    /// connection.
    pub async fn feed(&self, options: &FeedOptions) -> Result<FeedPage, Error> {
        let body = options.body();
        let request = Request {
            kind: Kind::Feed,
            count: 0,
            encode: |out: &mut BytesMut| encode_control(&body, out),
        };
        let caller = self.caller();
        let deadline = Deadline::after(caller.settings.call_timeout.saturating_add(options.wait()));
        let called = caller.call(&request, 1, Resend::Safe, deadline).await;
        let (frames, _) = called.map_err(|failure| failure.into_error(&caller.settings.addr))?;
        FeedPage::of(one::<FeedReply>(&frames)?)
    }

    /// A reader of the change feed that keeps its position.
    pub fn follow(&self, options: FeedOptions) -> Feed {
        Feed::new(self.clone(), options)
    }

    /// Opens an import, on a connection of its own.
    ///
    /// # Errors
    /// [`Error::Refused`], for example as `UnknownSku` or `NameInvalid`; or those of a lost connection.
    pub async fn import(&self, options: ImportOptions) -> Result<Import, Error> {
        Import::begin(self.caller(), options).await
    }
}

/// Which cards, in the fields that requests about cards share.
#[derive(Default)]
struct Chosen {
    sku: Option<String>,
    batch: Option<String>,
    cards: Vec<CardPlace>,
    order: Option<[u8; 16]>,
}

impl Chosen {
    fn of(which: &CardSelection) -> Self {
        let mut chosen = Self::default();
        match which {
            CardSelection::Sku(sku) => chosen.sku = Some(sku.clone()),
            CardSelection::Batch { sku, label } => {
                (chosen.sku, chosen.batch) = (Some(sku.clone()), Some(label.clone()));
            }
            CardSelection::Cards(cards) => {
                chosen.cards = cards.iter().copied().map(place_of).collect();
            }
            CardSelection::Order(id) => chosen.order = Some(id.to_bytes()),
        }
        chosen
    }
}
