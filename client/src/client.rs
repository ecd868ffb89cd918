//! The handle, and what a caller can ask for of orders.

mod jobs;
mod operate;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bytes::BytesMut;
use croupier_protocol::{
    CardPlace, CardRef, ControlBody, HeldOrder, Holder, IssuedOrder, Kind, OrderId, OrderOutcome,
    Pick, Refusal, SkuId, Step, Trailing, decode_control, encode_control,
};
pub use operate::{RetryTo, RetryWhich, RoutesOptions, SkuSettings};
use tokio::time::Instant;

use crate::ask::Item;
use crate::builder::{ClientBuilder, Settings};
use crate::call::{Caller, Resend};
use crate::error::{Error, ProtocolError};
use crate::link::{ReplyFrame, Request};
use crate::order::{CardPick, Order, OrderStep, Wait};

/// A handle on a server. Cheap to clone; all clones share one connection, which closes with the last of them.
///
/// Every call has a time limit (10 s unless the builder says otherwise), retries included. The crate's root says what
/// is tried again and what dropping a call's future means.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    caller: Caller,
    /// Ids of SKUs by name. A SKU keeps its id for ever, so nothing in here turns wrong.
    sku_ids: RwLock<HashMap<String, SkuId>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("settings", &self.shared.caller.settings)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Connects to `croupier://HOST[:PORT]`, with the defaults of [`ClientBuilder`].
    ///
    /// # Errors
    /// [`Error::BadUrl`], and those of [`ClientBuilder::build`].
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Self::builder().server(url)?.build().await
    }

    /// Sets a client up step by step.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    pub(crate) async fn from_settings(settings: Settings) -> Result<Self, Error> {
        let caller = Caller::new(settings);
        match caller.link().await {
            Ok(_) => Ok(Self {
                shared: Arc::new(Shared {
                    caller,
                    sku_ids: RwLock::default(),
                }),
            }),
            Err(cause) => Err(cause.into_error(&caller.settings.addr, false)),
        }
    }

    pub(crate) fn caller(&self) -> &Caller {
        &self.shared.caller
    }

    /// Asks for the cards of one order. The same order, asked for again, gets the same cards, with `repeat` set.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's reason: nothing was taken, and the id may try again. [`Error::Accepted`] if the cards
    /// come from a channel outside and have not come yet.
    /// [`Error::OutcomeUnknown`] if the order was sent and no answer can be had: ask again with the same id.
    /// [`Error::Unreachable`] or [`Error::TimedOut`] if it was never sent.
    pub async fn issue(&self, order: Order) -> Result<IssuedOrder, Error> {
        issued(Kind::Issue, self.take(order).await?)
    }

    /// As [`Client::issue`], and takes fewer cards if there are not so many. The same order, asked for again, gets the same
    /// cards, however many there are by then.
    ///
    /// # Errors
    /// As for [`Client::issue`]; [`Error::Refused`] as `OutOfStock` if there is not one card.
    pub async fn issue_part(&self, order: Order) -> Result<IssuedOrder, Error> {
        let step = OrderStep::issue(order).partial();
        issued(Kind::Issue, self.take(step).await?)
    }

    /// Puts the cards of one order by for `ttl` from now, without saying which: the first of two phases.
    /// [`Client::commit`] turns them into cards, [`Client::cancel`] gives them back, and so does the server when `ttl` is
    /// over. The same order with the same `ttl`, asked for again, gets the same answer, with `repeat` set.
    ///
    /// # Errors
    /// As for [`Client::issue`]; [`Error::Refused`] as `TtlInvalid` if `ttl` is zero or longer than the server allows.
    pub async fn reserve(&self, order: Order, ttl: Duration) -> Result<HeldOrder, Error> {
        held(
            Kind::Reserve,
            self.take(OrderStep::reserve(order, ttl)).await?,
        )
    }

    /// As [`Client::reserve`], and holds fewer cards if there are not so many: [`HeldOrder::quantity`] says how many.
    ///
    /// # Errors
    /// As for [`Client::reserve`]; [`Error::Refused`] as `OutOfStock` if there is not one card.
    pub async fn reserve_part(&self, order: Order, ttl: Duration) -> Result<HeldOrder, Error> {
        let step = OrderStep::reserve(order, ttl).partial();
        held(Kind::Reserve, self.take(step).await?)
    }

    /// Asks for the cards of several orders, of any SKUs, *all or none*: if one of them cannot be had, none is dealt and nothing is
    /// taken. Up to [`LINKED_ORDERS_MAX`](crate::LINKED_ORDERS_MAX) orders, each under an id of its own and in the reply in its place.
    /// The same orders, asked for again, get the same cards, with `repeat` set.
    ///
    /// # Errors
    /// As for [`Client::issue`]; [`Error::Refused`] names the order that could not be had, and why. As `LinkedRefused` it names one
    /// that is new while others of them stand already: that is another request than the one by which those were dealt.
    pub async fn issue_linked(&self, orders: &[Order]) -> Result<Vec<IssuedOrder>, Error> {
        let steps = orders.iter().map(|&order| OrderStep::issue(order));
        let outcomes = self.take_linked(steps.collect()).await?;
        let all = outcomes.into_iter();
        all.map(|outcome| issued(Kind::Issue, outcome)).collect()
    }

    /// Puts the cards of several orders by for `ttl` from now, *all or none*: as [`Client::issue_linked`], in two phases. From then
    /// on each is an order of its own, and committed, cancelled or extended alone.
    ///
    /// # Errors
    /// As for [`Client::reserve`] and [`Client::issue_linked`].
    pub async fn reserve_linked(
        &self,
        orders: &[Order],
        ttl: Duration,
    ) -> Result<Vec<HeldOrder>, Error> {
        let steps = orders.iter().map(|&order| OrderStep::reserve(order, ttl));
        let outcomes = self.take_linked(steps.collect()).await?;
        let all = outcomes.into_iter();
        all.map(|outcome| held(Kind::Reserve, outcome)).collect()
    }

    /// What became of steps that are to be linked; if any was refused, that is an error: of those, the one that says why.
    async fn take_linked(&self, mut steps: Vec<OrderStep>) -> Result<Vec<OrderOutcome>, Error> {
        if let [linked @ .., _] = &mut steps[..] {
            linked.iter_mut().for_each(|step| step.linked = true);
        }
        let outcomes = self.caller().ask(&steps).await?;
        let refusals = || {
            outcomes.iter().filter_map(|outcome| match outcome {
                OrderOutcome::Refused {
                    order_id,
                    refusal,
                    retry_after_ms,
                } => Some((*order_id, *refusal, *retry_after_ms)),
                _ => None,
            })
        };
        let why = refusals().find(|(_, refusal, _)| *refusal != Refusal::LinkedRefused);
        match why.or(refusals().next()) {
            None => Ok(outcomes),
            Some((first, refusal @ Refusal::StoreFailed, retry_after_ms)) => {
                Err(Error::OutcomeUnknown {
                    count: steps.len(),
                    first,
                    cause: Box::new(refused(first, refusal, retry_after_ms)),
                })
            }
            Some((order_id, refusal, retry_after_ms)) => {
                Err(refused(order_id, refusal, retry_after_ms))
            }
        }
    }

    /// As [`Client::issue`], for the one card that the caller picks. The same order with the same pick, asked for again, gets the
    /// same card. Priority and deadline mean nothing here, and routes neither: the card says where it is.
    ///
    /// # Errors
    /// As for [`Client::issue`]. [`Error::Refused`] as `CardIssued` if an order has the card or holds it, as `CardNotInState` if it
    /// is out of sale, as `UnknownCard` if the SKU has none there, as `OutOfStock` if no free card has the label, or all
    /// free cards are promised to others, and as `PickInvalid` if the order is for more cards than one.
    pub async fn issue_card(&self, order: Order, pick: &CardPick) -> Result<IssuedOrder, Error> {
        issued(Kind::Pick, self.pick(OrderStep::issue(order), pick).await?)
    }

    /// As [`Client::reserve`], for the one card that the caller picks: it is bound to the order at once, and a
    /// [`Client::commit`] gets just that one. If the hold expires, a late commit takes any card, as always.
    ///
    /// # Errors
    /// As for [`Client::reserve`] and [`Client::issue_card`].
    pub async fn reserve_card(
        &self,
        order: Order,
        ttl: Duration,
        pick: &CardPick,
    ) -> Result<HeldOrder, Error> {
        let step = OrderStep::reserve(order, ttl);
        held(Kind::Pick, self.pick(step, pick).await?)
    }

    async fn pick(&self, step: OrderStep, pick: &CardPick) -> Result<OrderOutcome, Error> {
        let item = step.item(Duration::ZERO);
        let (card, label) = match pick {
            CardPick::Card(card) => (Some(place_of(*card)), None),
            CardPick::Label(label) => (None, Some(label.clone())),
        };
        let body = Pick {
            order: item.order_id.to_bytes(),
            sku: item.sku.0,
            quantity: item.quantity,
            ttl_ms: (step.step == Step::Reserve).then_some(item.ttl_ms),
            card,
            label,
            holder: Trailing(step.order.holder.map(Holder::to_bytes)),
        };
        answered(self.caller().pick(step, &body).await?)
    }

    /// As [`Client::issue`]; but an order that finds no stock waits for some, for `within` from now, in the line of its
    /// priority. It is [`OrderOutcome::Issued`] or [`OrderOutcome::Waiting`]. Both are durable: the connection may go, and
    /// [`Client::order`], the same ask again or the feed tell what has become of it. [`Client::cancel`] ends the wait.
    ///
    /// # Errors
    /// As for [`Client::issue`]; [`Error::Refused`] as `WaitInvalid` if `within` is zero or longer than the server allows, and
    /// as `Expired` or `AlreadyCancelled` if the order has waited in vain.
    pub async fn issue_or_wait(
        &self,
        order: Order,
        within: Duration,
    ) -> Result<OrderOutcome, Error> {
        self.take(OrderStep::issue(order).wait(Wait::Told, within))
            .await
    }

    /// As [`Client::issue_or_wait`], and stays until the order has its cards or has waited in vain. Dropping the future does
    /// not end the order's wait.
    ///
    /// # Errors
    /// As for [`Client::issue_or_wait`].
    pub async fn issue_waiting(
        &self,
        order: Order,
        within: Duration,
    ) -> Result<IssuedOrder, Error> {
        issued(
            Kind::Issue,
            self.stay(OrderStep::issue(order), within).await?,
        )
    }

    /// As [`Client::reserve`], and waits as [`Client::issue_or_wait`] does: [`OrderOutcome::Held`] or
    /// [`OrderOutcome::Waiting`]. The hold lasts `ttl` from when there is stock for it.
    ///
    /// # Errors
    /// As for [`Client::reserve`] and [`Client::issue_or_wait`].
    pub async fn reserve_or_wait(
        &self,
        order: Order,
        ttl: Duration,
        within: Duration,
    ) -> Result<OrderOutcome, Error> {
        self.take(OrderStep::reserve(order, ttl).wait(Wait::Told, within))
            .await
    }

    /// As [`Client::reserve_or_wait`], and stays as [`Client::issue_waiting`] does.
    ///
    /// # Errors
    /// As for [`Client::reserve_or_wait`].
    pub async fn reserve_waiting(
        &self,
        order: Order,
        ttl: Duration,
        within: Duration,
    ) -> Result<HeldOrder, Error> {
        let step = OrderStep::reserve(order, ttl);
        held(Kind::Reserve, self.stay(step, within).await?)
    }

    /// Asks until an order waits no longer. The server ends its wait; so this ends, too.
    async fn stay(&self, step: OrderStep, within: Duration) -> Result<OrderOutcome, Error> {
        let started = Instant::now();
        // Whether it had been asked for before this call; that the call asks several times is its own affair.
        let mut asked_before = None;
        loop {
            let left = within.saturating_sub(started.elapsed());
            // Never none: a deadline that is over is one, too.
            let left = left.max(Duration::from_millis(1));
            let mut outcome = self.take(step.wait(Wait::Stay, left)).await?;
            match &mut outcome {
                OrderOutcome::Waiting(order) => {
                    asked_before.get_or_insert(order.repeat);
                    continue;
                }
                OrderOutcome::Issued(IssuedOrder { repeat, .. })
                | OrderOutcome::Held(HeldOrder { repeat, .. }) => {
                    *repeat = asked_before.unwrap_or(*repeat);
                }
                _ => {}
            }
            return Ok(outcome);
        }
    }

    /// Takes all cards that an order holds. If the hold has expired, other cards of the SKU are taken, if there are enough;
    /// [`Client::commit_only_held`] does without these.
    ///
    /// # Errors
    /// As for [`Client::issue`]. [`Error::Refused`] as `OrderNotFound` if nothing was reserved under this id, as
    /// `AlreadyCancelled` or `Expired` if the hold has ended without cards, and as `OrderIdReused` if another number of
    /// its cards was committed before.
    pub async fn commit(&self, order_id: OrderId) -> Result<IssuedOrder, Error> {
        self.commit_part(order_id, 0).await
    }

    /// Takes so many of the cards that an order holds (0 = all), and gives the rest back to stock. Else as
    /// [`Client::commit`].
    ///
    /// # Errors
    /// As for [`Client::commit`]; [`Error::Refused`] as `NotSoManyHeld` if the order holds fewer.
    pub async fn commit_part(
        &self,
        order_id: OrderId,
        quantity: u16,
    ) -> Result<IssuedOrder, Error> {
        let step = OrderStep::commit(order_id).quantity(quantity);
        issued(Kind::Commit, self.take(step).await?)
    }

    /// As [`Client::commit_part`], but an expired hold is refused as `Expired`, whether or not there are other cards.
    ///
    /// # Errors
    /// As for [`Client::commit_part`].
    pub async fn commit_only_held(
        &self,
        order_id: OrderId,
        quantity: u16,
    ) -> Result<IssuedOrder, Error> {
        let step = OrderStep::commit(order_id).quantity(quantity).only_held();
        issued(Kind::Commit, self.take(step).await?)
    }

    /// Ends the hold of an order and gives its cards back to stock. The id is used up.
    ///
    /// # Errors
    /// As for [`Client::commit`]; [`Error::Refused`] as `AlreadyCommitted` or `Expired` if the hold has ended otherwise.
    pub async fn cancel(&self, order_id: OrderId) -> Result<HeldOrder, Error> {
        held(Kind::Cancel, self.take(OrderStep::cancel(order_id)).await?)
    }

    /// Makes a hold last `ttl` from now. `nth` says which extension of this hold it is, counted from 1
    /// ([`Hold::extensions`](croupier_protocol::Hold::extensions) + 1), so that a retry of one is told from the next.
    ///
    /// # Errors
    /// As for [`Client::cancel`]; [`Error::Refused`] as `NoExtensionLeft` if the hold may not be extended so often, or if
    /// this is not its next extension, and as `TtlInvalid`.
    pub async fn extend(
        &self,
        order_id: OrderId,
        nth: u16,
        ttl: Duration,
    ) -> Result<HeldOrder, Error> {
        let step = OrderStep::extend(order_id, nth, ttl);
        held(Kind::Extend, self.take(step).await?)
    }

    /// What became of one step; a refusal is an error.
    async fn take(&self, step: impl Item) -> Result<OrderOutcome, Error> {
        answered(self.only(self.caller().ask(&[step]).await?)?)
    }

    /// Asks for the cards of many orders, in as few frames as the server's limits allow, all at once. The outcomes
    /// stand in the order of `orders`; each order is dealt or refused for itself. An order refused as `StoreFailed`
    /// may have been dealt: ask again with the same id once the server is back.
    ///
    /// # Errors
    /// As for [`Client::issue`], and then for all of `orders`: some may have been dealt. Asking again with the same
    /// ids is safe, and those that were dealt get their original answer.
    pub async fn issue_many(&self, orders: &[Order]) -> Result<Vec<OrderOutcome>, Error> {
        self.caller().ask(orders).await
    }

    /// Takes many steps, in as few frames as their kinds and the server's limits allow, all at once. The outcomes stand in
    /// the order of `steps`; each step is taken or refused for itself. Steps of one order belong in calls of their own,
    /// one after the other: in one call the server takes them in any order.
    ///
    /// A step refused as `StoreFailed` may have been taken: ask again with the same numbers once the server is back.
    ///
    /// # Errors
    /// As for [`Client::issue_many`].
    pub async fn steps(&self, steps: &[OrderStep]) -> Result<Vec<OrderOutcome>, Error> {
        self.caller().ask(steps).await
    }

    /// Looks an order up: issued, held, waiting, cancelled or expired, never refused; `None` if there is none of this id.
    ///
    /// # Errors
    /// [`Error::Refused`] if the server cannot show it, or those of a lost connection.
    pub async fn order(&self, order_id: OrderId) -> Result<Option<OrderOutcome>, Error> {
        match self.only(self.caller().ask(&[order_id]).await?)? {
            OrderOutcome::Refused {
                refusal: Refusal::OrderNotFound,
                ..
            } => Ok(None),
            OrderOutcome::Refused {
                refusal,
                retry_after_ms,
                ..
            } => Err(refused(order_id, refusal, retry_after_ms)),
            outcome => Ok(Some(outcome)),
        }
    }

    /// Looks many orders up; those that do not exist are refused as `OrderNotFound`.
    ///
    /// # Errors
    /// Those of a lost connection, or [`Error::Refused`] if the look-up is refused as a whole.
    pub async fn orders(&self, order_ids: &[OrderId]) -> Result<Vec<OrderOutcome>, Error> {
        self.caller().ask(order_ids).await
    }

    fn only(&self, mut outcomes: Vec<OrderOutcome>) -> Result<OrderOutcome, Error> {
        let answered = outcomes.len();
        outcomes
            .pop()
            .ok_or(Error::Protocol(ProtocolError::WrongCount {
                asked: 1,
                answered,
            }))
    }

    async fn control<T: ControlBody>(
        &self,
        kind: Kind,
        body: &(impl ControlBody + Sync),
        resend: Resend,
    ) -> Result<T, Error> {
        let frames = self
            .call(kind, |out| encode_control(body, out), resend)
            .await?;
        one(&frames)
    }

    async fn call(
        &self,
        kind: Kind,
        encode: impl Fn(&mut BytesMut),
        resend: Resend,
    ) -> Result<Vec<ReplyFrame>, Error> {
        self.call_of(kind, 0, encode, resend).await
    }

    /// A request whose body has so many items.
    async fn call_of(
        &self,
        kind: Kind,
        count: u16,
        encode: impl Fn(&mut BytesMut),
        resend: Resend,
    ) -> Result<Vec<ReplyFrame>, Error> {
        let caller = self.caller();
        let request = Request {
            kind,
            count,
            encode,
        };
        let called = caller.call(&request, 1, resend, caller.deadline()).await;
        called
            .map(|(frames, _)| frames)
            .map_err(|failure| failure.into_error(&caller.settings.addr))
    }
}

/// What became of one step; a refusal is an error.
fn answered(outcome: OrderOutcome) -> Result<OrderOutcome, Error> {
    match outcome {
        OrderOutcome::Refused {
            refusal: refusal @ Refusal::StoreFailed,
            retry_after_ms,
            order_id,
        } => Err(Error::OutcomeUnknown {
            count: 1,
            first: order_id,
            cause: Box::new(refused(order_id, refusal, retry_after_ms)),
        }),
        OrderOutcome::Refused {
            refusal,
            retry_after_ms,
            order_id,
        } => Err(refused(order_id, refusal, retry_after_ms)),
        outcome => Ok(outcome),
    }
}

/// The cards of a step that is answered by cards.
fn issued(kind: Kind, outcome: OrderOutcome) -> Result<IssuedOrder, Error> {
    match outcome {
        OrderOutcome::Issued(order) => Ok(order),
        outcome => Err(wrong_outcome(kind, &outcome)),
    }
}

/// The hold of a step that is answered by a hold, or by the end of one.
fn held(kind: Kind, outcome: OrderOutcome) -> Result<HeldOrder, Error> {
    match outcome {
        OrderOutcome::Held(order) | OrderOutcome::Cancelled(order) => Ok(order),
        outcome => Err(wrong_outcome(kind, &outcome)),
    }
}

fn wrong_outcome(kind: Kind, outcome: &OrderOutcome) -> Error {
    if let OrderOutcome::Waiting(waits) = outcome {
        return Error::Accepted { waits: *waits };
    }
    Error::Protocol(ProtocolError::WrongOutcome {
        kind,
        order_id: outcome.order_id(),
    })
}

fn refused(order_id: OrderId, refusal: Refusal, retry_after_ms: u32) -> Error {
    Error::Refused {
        order_id: Some(order_id),
        refusal,
        retry_after_ms,
        text: refusal.to_string(),
    }
}

fn control_body<T: ControlBody>(frame: &ReplyFrame) -> Result<T, Error> {
    let kind = frame.header.kind;
    decode_control(&frame.body)
        .map_err(|error| Error::Protocol(ProtocolError::Body { kind, error }))
}

fn place_of(card: CardRef) -> CardPlace {
    CardPlace {
        slab: card.slab,
        slot: card.slot,
        generation: card.generation,
    }
}

/// The value of a reply that comes in one frame.
pub(crate) fn one<T: ControlBody>(frames: &[ReplyFrame]) -> Result<T, Error> {
    match frames {
        [frame] => control_body(frame),
        _ => Err(Error::Protocol(ProtocolError::WrongCount {
            asked: 1,
            answered: frames.len(),
        })),
    }
}

/// The items of all pages of a reply.
pub(crate) fn joined<T: ControlBody, I>(
    frames: &[ReplyFrame],
    items: impl Fn(T) -> Vec<I>,
) -> Result<Vec<I>, Error> {
    let mut all = Vec::new();
    for frame in frames {
        all.extend(items(control_body(frame)?));
    }
    Ok(all)
}
