//! One order, or one step of it, as the caller writes it down.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use croupier_protocol::{
    CardRef, Holder, OrderId, Priority, STEP_FLAG_LINKED, STEP_FLAG_ONLY_HELD, STEP_FLAG_PARTIAL,
    STEP_FLAG_STAY, STEP_FLAG_WAIT, SkuId, Step, StepItem,
};

/// How long a hold lasts where nobody says otherwise: time to pay.
pub const DEFAULT_TTL: Duration = Duration::from_secs(15 * 60);

/// An order: which SKU, how many cards, how urgent, under which id.
///
/// ```
/// use std::time::Duration;
/// use croupier_client::{Order, OrderId, Priority, SkuId};
///
/// let order = Order::new(OrderId::new_v7(), SkuId(7))
///     .quantity(3)
///     .priority(Priority::Vip)
///     .deadline(Duration::from_millis(50));
/// assert_eq!(order.quantity, 3);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// The id: for ever bound to this SKU and quantity.
    pub order_id: OrderId,
    /// What is ordered.
    pub sku: SkuId,
    /// How many cards: 1 unless [`Order::quantity`] says otherwise.
    pub quantity: u16,
    /// Which lane it waits in.
    pub priority: Priority,
    /// How long after its arrival the server may still deal it.
    pub deadline: Option<Duration>,
    /// For whom it is, if somebody is named: part of what is ordered.
    pub holder: Option<Holder>,
    /// What the server's route table may tell it by; 0: nothing.
    pub tag: u16,
}

impl Order {
    /// An order for one card, of standard priority, without a deadline.
    pub const fn new(order_id: OrderId, sku: SkuId) -> Self {
        Self {
            order_id,
            sku,
            quantity: 1,
            priority: Priority::Standard,
            deadline: None,
            holder: None,
            tag: 0,
        }
    }

    /// Gives it a tag: a number from 1 on that rules of the server's route table may ask for; 0: none. What it means is for callers
    /// and operators to agree on. It is no part of what is ordered: another try may have another tag.
    #[must_use]
    pub const fn tag(self, tag: u16) -> Self {
        Self { tag, ..self }
    }

    /// Says for whom it is: the caller's customer, whose cards and holds the server counts and limits. [`holder_of`] makes a key of
    /// a text. It is part of what is ordered: another try must name the same one.
    #[must_use]
    pub const fn holder(self, holder: Holder) -> Self {
        Self {
            holder: Some(holder),
            ..self
        }
    }

    /// Asks for so many cards.
    #[must_use]
    pub const fn quantity(self, quantity: u16) -> Self {
        Self { quantity, ..self }
    }

    /// Says how urgent this try is. It is no part of what is ordered: another try may have another priority.
    #[must_use]
    pub const fn priority(self, priority: Priority) -> Self {
        Self { priority, ..self }
    }

    /// Says how long the order may wait to be dealt; then it is refused as `DeadlineExceeded`. Whole milliseconds
    /// count, and the time that earlier tries of the same call took is taken off.
    #[must_use]
    pub const fn deadline(self, deadline: Duration) -> Self {
        Self {
            deadline: Some(deadline),
            ..self
        }
    }
}

/// The key of a holder that is known by a text: a UUID is its own 16 bytes, and of any other text of 1 to 256 bytes the key is the
/// first 16 bytes of its SHA-256. `None`: the text is none of these, or the UUID is all zeros.
///
/// A text that can be guessed, as a telephone number, can be found again from its key. Who must hide it makes keys of its own,
/// with a secret ([`Holder::from_bytes`]).
///
/// ```
/// use croupier_client::holder_of;
///
/// let key = holder_of("customer 4711").unwrap();
/// assert_eq!(key.to_string(), "b7d0e442-cb4f-5229-5736-ca320f5b4af2");
/// ```
pub fn holder_of(text: &str) -> Option<Holder> {
    if let Ok(id) = text.parse::<OrderId>() {
        let key = Holder::from_bytes(id.to_bytes());
        return (!key.is_none()).then_some(key);
    }
    if !(1..=HOLDER_TEXT_BYTES_MAX).contains(&text.len()) {
        return None;
    }
    let hash = digest(&SHA256, text.as_bytes());
    let key = hash.as_ref().first_chunk().copied().map(Holder::from_bytes);
    key.filter(|key| !key.is_none())
}

/// The longest text that is made a holder's key.
pub const HOLDER_TEXT_BYTES_MAX: usize = 256;

/// Whether an order that finds no stock may wait for some, until its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wait {
    /// It is refused as `OutOfStock`.
    #[default]
    No,
    /// It waits, and the answer says so.
    Told,
    /// It waits, and the answer comes when it waits no longer, or after a few seconds.
    Stay,
}

/// One step of an order, for [`Client::steps`](crate::Client::steps).
///
/// ```
/// use croupier_client::{DEFAULT_TTL, Order, OrderId, OrderStep, SkuId};
///
/// let id = OrderId::new_v7();
/// let reserve = OrderStep::reserve(Order::new(id, SkuId(7)).quantity(3), DEFAULT_TTL);
/// let commit = OrderStep::commit(id).quantity(2).only_held();
/// assert_eq!(reserve.order.order_id, commit.order.order_id);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderStep {
    /// What is asked.
    pub step: Step,
    /// Of which order. The quantity of a commit is how many of the held cards, 0 = all; SKU and quantity mean nothing in a
    /// cancel or an extend.
    pub order: Order,
    /// How long the hold lasts from now: of a reserve and an extend. Whole milliseconds count, but a part of the first is one.
    pub ttl: Duration,
    /// Which extension of the hold this is, counted from 1: of an extend.
    pub nth: u16,
    /// Of a commit: refuse it if the hold has expired, instead of taking other cards.
    pub only_held: bool,
    /// Of an issue and a reserve.
    pub wait: Wait,
    /// Of an issue and a reserve: fewer cards will do if there are not so many.
    pub partial: bool,
    /// Of an issue and a reserve: it is linked with the next step, and all that are linked get their cards, or none does.
    pub linked: bool,
}

impl OrderStep {
    const fn new(step: Step, order: Order) -> Self {
        Self {
            step,
            order,
            ttl: Duration::ZERO,
            nth: 0,
            only_held: false,
            wait: Wait::No,
            partial: false,
            linked: false,
        }
    }

    /// A step of an order that is there, of standard priority, without a deadline.
    const fn of(step: Step, order_id: OrderId) -> Self {
        Self::new(step, Order::new(order_id, SkuId(0)).quantity(0))
    }

    /// Cards, at once and for good.
    pub const fn issue(order: Order) -> Self {
        Self::new(Step::Issue, order)
    }

    /// Cards put by for a while.
    pub const fn reserve(order: Order, ttl: Duration) -> Self {
        Self {
            ttl,
            ..Self::new(Step::Reserve, order)
        }
    }

    /// All cards that are held, for good; if the hold has expired, other cards if there are enough.
    pub const fn commit(order_id: OrderId) -> Self {
        Self::of(Step::Commit, order_id)
    }

    /// The end of a hold.
    pub const fn cancel(order_id: OrderId) -> Self {
        Self::of(Step::Cancel, order_id)
    }

    /// More time for a hold: its `nth` extension, counted from 1, makes it last `ttl` from now.
    pub const fn extend(order_id: OrderId, nth: u16, ttl: Duration) -> Self {
        Self {
            ttl,
            nth,
            ..Self::of(Step::Extend, order_id)
        }
    }

    /// Asks for so many cards; of a commit, for so many of those that are held, and the rest goes back to stock.
    #[must_use]
    pub const fn quantity(self, quantity: u16) -> Self {
        Self {
            order: self.order.quantity(quantity),
            ..self
        }
    }

    /// Has a commit refused as `Expired` if the hold has expired, instead of given other cards.
    #[must_use]
    pub const fn only_held(self) -> Self {
        Self {
            only_held: true,
            ..self
        }
    }

    /// Has an issue or a reserve take fewer cards if there are not so many; it is refused as `OutOfStock` only if there is none.
    #[must_use]
    pub const fn partial(self) -> Self {
        Self {
            partial: true,
            ..self
        }
    }

    /// Links an issue or a reserve with the next step of the same call: up to [`LINKED_ORDERS_MAX`](crate::LINKED_ORDERS_MAX) of
    /// them get their cards, or none does. The last one is not linked.
    #[must_use]
    pub const fn linked(self) -> Self {
        Self {
            linked: true,
            ..self
        }
    }

    /// Has an issue or a reserve that finds no stock wait for some, for so long.
    #[must_use]
    pub const fn wait(self, wait: Wait, within: Duration) -> Self {
        Self {
            order: self.order.deadline(within),
            wait,
            ..self
        }
    }

    const fn flags(&self) -> u8 {
        let wait = match self.wait {
            Wait::No => 0,
            Wait::Told => STEP_FLAG_WAIT,
            Wait::Stay => STEP_FLAG_WAIT | STEP_FLAG_STAY,
        };
        let only_held = if self.only_held {
            STEP_FLAG_ONLY_HELD
        } else {
            0
        };
        let partial = if self.partial { STEP_FLAG_PARTIAL } else { 0 };
        let linked = if self.linked { STEP_FLAG_LINKED } else { 0 };
        wait | only_held | partial | linked
    }

    /// The step as it is sent. `waited` is the time that earlier tries of the same call took.
    pub fn item(&self, waited: Duration) -> StepItem {
        let order = &self.order;
        let item = StepItem {
            order_id: order.order_id,
            sku: order.sku,
            quantity: match self.step {
                Step::Extend => self.nth,
                _ => order.quantity,
            },
            priority: order.priority as u8,
            flags: self.flags(),
            // Never zero, which means none. A step that was taken in time by an earlier try is answered even if this one
            // comes too late to be taken.
            deadline_ms: order.deadline.map_or(0, |deadline| {
                whole_ms(deadline.saturating_sub(waited)).max(1)
            }),
            // The same in every try: it is one of the numbers by which the server knows a repeat.
            ttl_ms: if self.ttl.is_zero() {
                0
            } else {
                whole_ms(self.ttl).max(1)
            },
            holder: Holder::NONE,
            tag: 0,
        };
        let item = item.of_holder(order.holder.unwrap_or(Holder::NONE));
        match self.step {
            Step::Issue | Step::Reserve => item.tagged(order.tag),
            Step::Commit | Step::Cancel | Step::Extend => item,
        }
    }
}

/// Whole milliseconds, at most what fits.
fn whole_ms(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

/// Which card, for [`Client::issue_card`](crate::Client::issue_card) and [`Client::reserve_card`](crate::Client::reserve_card).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CardPick {
    /// This one.
    Card(CardRef),
    /// Any free one of the SKU that has this label.
    Label(String),
}

/// Which cards, for [`Client::move_cards`](crate::Client::move_cards).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CardSelection {
    /// All of a SKU, by its name.
    Sku(String),
    /// Those of one batch of a SKU.
    Batch {
        /// The SKU's name.
        sku: String,
        /// The batch's label.
        label: String,
    },
    /// These, at most [`CARDS_NAMED_MAX`](crate::CARDS_NAMED_MAX).
    Cards(Vec<CardRef>),
    /// Those of an order.
    Order(OrderId),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_live_is_sent_in_whole_milliseconds_and_never_rounded_to_none() {
        let sent = |ttl| {
            OrderStep::extend(OrderId::from_u128(1), 1, ttl)
                .item(Duration::from_secs(1))
                .ttl_ms
        };
        assert_eq!(sent(Duration::ZERO), 0);
        assert_eq!(sent(Duration::from_nanos(1)), 1);
        assert_eq!(sent(Duration::from_micros(2_999)), 2);
        assert_eq!(sent(DEFAULT_TTL), 900_000);
        assert_eq!(sent(Duration::MAX), u32::MAX);
    }
}
