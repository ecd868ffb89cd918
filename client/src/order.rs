//! One order, as the caller writes it down.

use std::time::Duration;

use croupier_protocol::{CardRef, OrderId, Priority, SkuId};

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
