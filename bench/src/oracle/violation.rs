//! What the oracle accuses a server of: a closed list, each with the words for people.

use croupier_protocol::{CardRef, OrderId, SkuId};

/// A promise that an answer broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The answer names another order than was asked for in its place.
    #[error("asked for order {asked}, answered for order {answered}")]
    WrongOrder {
        /// The order asked for.
        asked: OrderId,
        /// The order in the answer.
        answered: OrderId,
    },
    /// The answer names another SKU.
    #[error("order {order} asked for SKU {asked}, answered with SKU {answered}")]
    WrongSku {
        /// The order.
        order: OrderId,
        /// The SKU asked for.
        asked: SkuId,
        /// The SKU in the answer.
        answered: SkuId,
    },
    /// More or fewer cards than asked for.
    #[error("order {order} asked for {asked} cards and got {got}")]
    WrongQuantity {
        /// The order.
        order: OrderId,
        /// Cards asked for.
        asked: u16,
        /// Cards in the answer.
        got: u16,
    },
    /// A reserve that was neither granted nor refused.
    #[error("order {order} was to be reserved and was answered with status {status}")]
    NotHeld {
        /// The order.
        order: OrderId,
        /// The status of the answer.
        status: u8,
    },
    /// A commit whose record stands before that of its reserve.
    #[error("order {order} was reserved at LSN {reserve_lsn} and committed at LSN {lsn}")]
    CommitBeforeReserve {
        /// The order.
        order: OrderId,
        /// The place of the commit's record.
        lsn: u64,
        /// The place of the reserve's record.
        reserve_lsn: u64,
    },
    /// A new order id was answered as a repeat.
    #[error("order {order} is new and was answered as a repeat")]
    NotARepeat {
        /// The order.
        order: OrderId,
    },
    /// An issued order without a place in the log.
    #[error("order {order} was issued without an LSN")]
    NoLsn {
        /// The order.
        order: OrderId,
    },
    /// One card for two orders.
    #[error("card {card} was issued twice, the second time for order {order}")]
    CardTwice {
        /// The card.
        card: CardRef,
        /// The later order.
        order: OrderId,
    },
    /// One card for two orders that different threads saw.
    #[error("slot {slot} of slab {slab} was issued twice, on two threads of the bench")]
    SlotTwiceOnTwoThreads {
        /// The slab.
        slab: u32,
        /// The slot.
        slot: u32,
    },
    /// One imported secret for two orders (under two card references).
    #[error(
        "imported card {number} of SKU number {sku_index} was delivered twice, the second time as {card} for order {order}"
    )]
    SecretTwice {
        /// The SKU's index in the run.
        sku_index: u16,
        /// The card's number in the import.
        number: u32,
        /// The card reference it came under.
        card: CardRef,
        /// The later order.
        order: OrderId,
    },
    /// One imported secret for two orders that different threads saw.
    #[error(
        "imported card {number} of SKU number {sku_index} was delivered twice, on two threads of the bench"
    )]
    SecretTwiceOnTwoThreads {
        /// The SKU's index in the run.
        sku_index: usize,
        /// The card's number in the import.
        number: u32,
    },
    /// The secret of another SKU's card.
    #[error(
        "order {order} asked for SKU number {asked} of the run and got a secret of number {got} (card {card})"
    )]
    SecretOfOtherSku {
        /// The order.
        order: OrderId,
        /// Index of the SKU asked for.
        asked: usize,
        /// Index of the SKU the secret was imported for.
        got: u16,
        /// The card.
        card: CardRef,
    },
    /// A secret of this run with changed bytes.
    #[error("the secret of card {card}, order {order}, is not as it was imported")]
    SecretDamaged {
        /// The card.
        card: CardRef,
        /// The order.
        order: OrderId,
    },
    /// A slot number no slab can have.
    #[error("order {order} got card {card}, whose slot number no slab can have")]
    SlotTooHigh {
        /// The order.
        order: OrderId,
        /// The card.
        card: CardRef,
    },
    /// A refusal number this version does not know.
    #[error("order {order} was refused with the unknown number {number}")]
    UnknownRefusal {
        /// The order.
        order: OrderId,
        /// The number.
        number: u16,
    },
    /// An answer to no question.
    #[error("an answer came to request {request_id:#x}, which is not in flight")]
    NotAsked {
        /// The request id.
        request_id: u64,
    },
    /// A frame with more or fewer answers than orders.
    #[error("{asked} orders in a frame, {answered} answers")]
    WrongCount {
        /// Orders in the request.
        asked: u16,
        /// Answers so far.
        answered: u32,
    },
    /// A lookup answered otherwise than the issue.
    #[error("order {order} was issued, and looked up it {difference}")]
    LookUpDiffers {
        /// The order.
        order: OrderId,
        /// How it differs.
        difference: &'static str,
    },
}
