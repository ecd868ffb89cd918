//! An order on its way: from the frame it came in to the answer that goes back.

use croupier_protocol::{IssueItem, Priority, Refusal};

use crate::state::index::Settled;
use crate::state::record::QUANTITY_LIMIT;

/// Where an answer goes: which connection of which core, and which place in which request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub core: u16,
    /// Position in a request of several orders.
    pub index: u16,
    /// Slot of the connection in its core's table, and which use of that slot.
    pub connection: u32,
    pub use_of_slot: u32,
    /// Slot of the request in its connection's table of multi-order requests; `u32::MAX`: a single order.
    pub request_slot: u32,
    pub request_id: u64,
}

/// The `request_slot` of a request with one order.
pub const SINGLE: u32 = u32::MAX;

impl Ticket {
    /// That of a request with one order, on a connection that does not matter: for those who deal without a server.
    pub fn single(core: u16, request_id: u64) -> Ticket {
        Ticket {
            core,
            index: 0,
            connection: 0,
            use_of_slot: 0,
            request_slot: SINGLE,
            request_id,
        }
    }
}

/// An order waiting in a lane.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    pub id: u128,
    pub sku: u32,
    pub quantity: u16,
    pub priority: Priority,
    /// When it is refused instead of dealt, in Unix milliseconds; `u64::MAX` = never.
    pub deadline_unix_ms: u64,
    pub ticket: Ticket,
}

/// What becomes of an order.
#[derive(Clone, Copy, Debug)]
pub enum Verdict {
    /// Its cards; to be answered once `lsn` is durable.
    Issued { settled: Settled, repeat: bool },
    Refused {
        refusal: Refusal,
        retry_after_ms: u32,
    },
}

/// A verdict on its way back.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub ticket: Ticket,
    pub id: u128,
    pub sku: u32,
    pub verdict: Verdict,
}

impl Outcome {
    /// The record that must be durable before this may be told; 0: nothing.
    pub fn lsn(&self) -> u64 {
        match self.verdict {
            Verdict::Issued { settled, .. } => settled.lsn,
            Verdict::Refused { .. } => 0,
        }
    }
}

/// Checks what can be told from the request alone, and could never have been dealt.
pub fn check_item(item: &IssueItem) -> Result<Priority, Refusal> {
    if item.order_id.is_zero() {
        return Err(Refusal::OrderIdZero);
    }
    if item.flags != 0 {
        return Err(Refusal::UnsupportedFlag);
    }
    if item.quantity == 0 {
        return Err(Refusal::QuantityZero);
    }
    if item.quantity > QUANTITY_LIMIT {
        return Err(Refusal::QuantityTooLarge);
    }
    Priority::try_from(item.priority).map_err(|_| Refusal::UnknownPriority)
}
