//! An order on its way: from the frame it came in to the answer that goes back.

use croupier_protocol::{
    Hold, Priority, Refusal, STEP_FLAG_HOLDER, STEP_FLAG_LINKED, STEP_FLAG_ONLY_HELD,
    STEP_FLAG_PARTIAL, STEP_FLAG_STAY, STEP_FLAG_TAG, STEP_FLAG_WAIT, Step, StepItem,
};

use crate::route::Asked;
use crate::state::index::Settled;
use crate::state::record::{QUANTITY_LIMIT, Release};

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

/// An order waiting in a lane: a step of it.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    pub id: u128,
    /// For whom it is: of an issue and a reserve; 0: nobody is named.
    pub holder: u128,
    /// Of an issue and a reserve; 0 else.
    pub sku: u32,
    /// As in [`StepItem`].
    pub quantity: u16,
    pub priority: Priority,
    pub step: Step,
    /// When it is refused instead of dealt, in Unix milliseconds; `u64::MAX` = never.
    pub deadline_unix_ms: u64,
    /// Of a reserve and an extend.
    pub ttl_ms: u32,
    /// See [`tag`](Order::tag) and [`cards_at_most`](Order::cards_at_most): a step has one or the other.
    pub more: u16,
    /// Those of its [`StepItem`], and [`FLAG_FIRST`].
    pub flags: u8,
    pub ticket: Ticket,
}

/// This ask, and none before it, has the order wait: what it is told in the end is no repeat.
pub const FLAG_FIRST: u8 = 1 << 7;

const _: () = assert!(size_of::<Order>() == 80, "lanes are full of them");

impl Order {
    /// An issue of standard priority, without a deadline.
    pub fn issue(id: u128, sku: u32, quantity: u16, ticket: Ticket) -> Order {
        Order {
            id,
            holder: 0,
            sku,
            quantity,
            priority: Priority::Standard,
            step: Step::Issue,
            deadline_unix_ms: u64::MAX,
            ttl_ms: 0,
            more: 0,
            flags: 0,
            ticket,
        }
    }

    /// A step as it was asked for. The error is what could never have been dealt, whatever the state.
    pub fn of_item(
        step: Step,
        item: &StepItem,
        deadline_unix_ms: u64,
        ticket: Ticket,
    ) -> Result<Order, Refusal> {
        let priority = check_item(step, item)?;
        Ok(Order {
            id: item.order_id.as_u128(),
            holder: item.holder.as_u128(),
            // A step of an order that must be there names none, whatever the item says: dealers tell the two apart by it.
            sku: match step {
                Step::Issue | Step::Reserve => item.sku.0,
                Step::Commit | Step::Cancel | Step::Extend => 0,
            },
            quantity: item.quantity,
            priority,
            step,
            deadline_unix_ms,
            ttl_ms: item.ttl_ms,
            more: item.tag,
            flags: item.flags,
            ticket,
        })
    }

    /// What it can be told by in a route table: of an issue and a reserve; 0: nothing.
    pub fn tag(&self) -> u16 {
        if self.follows() { 0 } else { self.more }
    }

    /// The order with that tag; a step of an order that must be there already has none.
    #[must_use]
    pub fn tagged(self, tag: u16) -> Order {
        if self.follows() {
            return self;
        }
        Order { more: tag, ..self }
    }

    /// Cards that the record of a step of an order that must be there may name, the key of its holder counted as one, once that has
    /// been found out: a commit of all that is held does not say, nor does a cancel say whose.
    pub fn cards_at_most(&self) -> u16 {
        if self.follows() { self.more } else { 0 }
    }

    /// The step with that.
    #[must_use]
    pub fn of_cards_at_most(self, cards: u16) -> Order {
        debug_assert!(self.follows(), "an issue and a reserve say how many");
        Order {
            more: cards,
            ..self
        }
    }

    /// What route tables ask of it.
    pub fn asked(&self) -> Asked {
        Asked {
            id: self.id,
            holder: self.holder,
            sku: self.sku,
            priority: self.priority,
            quantity: self.quantity,
            tag: self.tag(),
        }
    }

    /// A commit does not take other cards when the hold has expired.
    pub fn only_held(&self) -> bool {
        self.flags & STEP_FLAG_ONLY_HELD != 0
    }

    /// It is to hold cards.
    pub fn is_reserve(&self) -> bool {
        self.step == Step::Reserve
    }

    /// It takes fewer cards if there are not so many.
    pub fn takes_part(&self) -> bool {
        self.flags & STEP_FLAG_PARTIAL != 0
    }

    /// It may wait for stock until its deadline.
    pub fn may_wait(&self) -> bool {
        self.flags & STEP_FLAG_WAIT != 0
    }

    /// It may wait for longer than that.
    pub fn waits_longer(&self, now_unix_ms: u64, wait_max_ms: u32) -> bool {
        self.deadline_unix_ms.saturating_sub(now_unix_ms) > wait_max_ms.into()
    }

    /// It is linked with the next order of its turn ([`crate::linked`]).
    pub fn is_linked(&self) -> bool {
        self.flags & STEP_FLAG_LINKED != 0
    }

    /// It is to be answered when it waits no longer, or in a while.
    pub fn stays(&self) -> bool {
        self.flags & STEP_FLAG_STAY != 0
    }

    /// Whether it is about an order that must be there already.
    pub fn follows(&self) -> bool {
        !matches!(self.step, Step::Issue | Step::Reserve)
    }
}

/// What becomes of an order.
#[derive(Clone, Copy, Debug)]
pub enum Verdict {
    /// Its cards; to be answered once `lsn` is durable.
    Issued { settled: Settled, repeat: bool },
    /// It holds cards; to be answered once `lsn` is durable.
    Held {
        lsn: u64,
        quantity: u16,
        hold: Hold,
        repeat: bool,
    },
    /// It waits for stock; to be answered once `lsn` is durable.
    Waiting {
        lsn: u64,
        quantity: u16,
        ends_unix_ms: u64,
        repeat: bool,
    },
    /// Its hold has ended without cards; to be answered once `lsn` is durable.
    Released {
        lsn: u64,
        quantity: u16,
        why: Release,
        repeat: bool,
    },
    Refused {
        refusal: Refusal,
        retry_after_ms: u32,
        /// Of the record that is the reason, which must be durable too; 0: none is.
        lsn: u64,
    },
}

impl Verdict {
    /// A refusal for which no record is the reason.
    pub fn refused(refusal: Refusal, retry_after_ms: u32) -> Verdict {
        Verdict::Refused {
            refusal,
            retry_after_ms,
            lsn: 0,
        }
    }
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
            Verdict::Held { lsn, .. }
            | Verdict::Waiting { lsn, .. }
            | Verdict::Released { lsn, .. }
            | Verdict::Refused { lsn, .. } => lsn,
        }
    }
}

/// Checks what can be told from the request alone, and could never have been dealt.
fn check_item(step: Step, item: &StepItem) -> Result<Priority, Refusal> {
    if item.order_id.is_zero() {
        return Err(Refusal::OrderIdZero);
    }
    let flags = match step {
        Step::Commit => STEP_FLAG_ONLY_HELD,
        Step::Issue | Step::Reserve => {
            STEP_FLAG_WAIT | STEP_FLAG_STAY | STEP_FLAG_PARTIAL | STEP_FLAG_HOLDER | STEP_FLAG_TAG
        }
        Step::Cancel | Step::Extend => 0,
    };
    let waits = item.flags & STEP_FLAG_WAIT != 0;
    let bad = match item.flags & (STEP_FLAG_STAY | STEP_FLAG_PARTIAL) {
        0 => false,
        // Who stays waits.
        STEP_FLAG_STAY => !waits,
        // Whoever takes what there is has nothing to wait for.
        _ => item.flags & STEP_FLAG_STAY != 0 || waits,
    };
    let bad = bad || item.flags & STEP_FLAG_TAG != 0 && item.tag == 0;
    if item.flags & !flags != 0 || bad {
        return Err(Refusal::UnsupportedFlag);
    }
    if item.flags & STEP_FLAG_HOLDER != 0 && item.holder.is_none() {
        return Err(Refusal::HolderInvalid);
    }
    if waits && item.deadline_ms == 0 {
        return Err(Refusal::WaitInvalid);
    }
    match step {
        Step::Issue | Step::Reserve if item.quantity == 0 => return Err(Refusal::QuantityZero),
        Step::Issue | Step::Reserve | Step::Commit if item.quantity > QUANTITY_LIMIT => {
            return Err(Refusal::QuantityTooLarge);
        }
        Step::Extend if item.quantity == 0 => return Err(Refusal::NoExtensionLeft),
        _ => {}
    }
    if matches!(step, Step::Reserve | Step::Extend) && item.ttl_ms == 0 {
        return Err(Refusal::TtlInvalid);
    }
    Priority::try_from(item.priority).map_err(|_| Refusal::UnknownPriority)
}
