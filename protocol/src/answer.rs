//! Orders as they are answered: the items of an IssueReply and of a LookUpReply.
//!
//! ```text
//! OrderItem  0 order_id [16] | 16 lsn u64 | 24 status u8 | 25 flags u8 | 26 refusal u16 | 28 retry_after_ms u32
//!            32 sku u32 | 36 card_count u16 | 38 held u16 | 40 cards_bytes u32 | 44 reserved u32
//! Card       0 slab u32 | 4 slot u32 | 8 generation u16 | 10 secret_bytes u16 | 12 secret …
//! Hold       0 ends_unix_ms u64 | 8 extensions u16 | 10 reserved [6]
//! ```
//!
//! The server writes them straight into its output ([`put_refused`], [`put_hold`], [`IssuedWriter`]); a client reads them in place
//! ([`OrderItems`]) or as values ([`order_items`]).

use std::mem::offset_of;

use bytes::BytesMut;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::body::{BodyError, Cursor};
use crate::frame_writer::take_back;
use crate::refusal::Refusal;
use crate::words::{CardRef, Lsn, OrderId, Secret, SkuId};

/// `status` of an order that was issued.
pub const STATUS_ISSUED: u8 = 1;
/// `status` of an order that was refused.
pub const STATUS_REFUSED: u8 = 2;
/// `status` of an order that holds cards.
pub const STATUS_HELD: u8 = 3;
/// `status` of an order whose hold was cancelled.
pub const STATUS_CANCELLED: u8 = 4;
/// `status` of an order whose hold has ended by itself.
pub const STATUS_EXPIRED: u8 = 5;
/// `status` of an order that waits for stock.
pub const STATUS_WAITING: u8 = 6;
/// `flags` of an order that had been dealt before.
pub const ORDER_FLAG_REPEAT: u8 = 1;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct OrderItemLayout {
    order_id: [u8; 16],
    lsn: U64,
    status: u8,
    flags: u8,
    refusal: U16,
    retry_after_ms: U32,
    sku: U32,
    card_count: U16,
    held: U16,
    cards_bytes: U32,
    reserved_tail: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct HoldLayout {
    ends_unix_ms: U64,
    extensions: U16,
    reserved: [u8; 6],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct CardLayout {
    slab: U32,
    slot: U32,
    generation: U16,
    secret_bytes: U16,
}

const _: () = {
    assert!(
        size_of::<OrderItemLayout>() == OrderItemHead::BYTES,
        "clients would misread every answer"
    );
    assert!(offset_of!(OrderItemLayout, lsn) == 16);
    assert!(offset_of!(OrderItemLayout, status) == 24);
    assert!(offset_of!(OrderItemLayout, flags) == 25);
    assert!(offset_of!(OrderItemLayout, refusal) == 26);
    assert!(offset_of!(OrderItemLayout, retry_after_ms) == 28);
    assert!(offset_of!(OrderItemLayout, sku) == 32);
    assert!(offset_of!(OrderItemLayout, card_count) == 36);
    assert!(offset_of!(OrderItemLayout, cards_bytes) == 40);
    assert!(offset_of!(OrderItemLayout, held) == 38);
    assert!(offset_of!(HoldLayout, extensions) == 8);
    assert!(size_of::<HoldLayout>() == Hold::BYTES);
    assert!(
        size_of::<CardLayout>() == Card::HEAD_BYTES,
        "clients would misread every secret"
    );
    assert!(offset_of!(CardLayout, slot) == 4);
    assert!(offset_of!(CardLayout, generation) == 8);
    assert!(offset_of!(CardLayout, secret_bytes) == 10);
};

/// The fixed part of one answer, as it lies on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderItemHead {
    /// The order that is answered.
    pub order_id: OrderId,
    /// The place of its record in the log; zero when refused.
    pub lsn: Lsn,
    /// [`STATUS_ISSUED`], [`STATUS_REFUSED`], [`STATUS_HELD`], [`STATUS_CANCELLED`], [`STATUS_EXPIRED`] or
    /// [`STATUS_WAITING`].
    pub status: u8,
    /// See [`ORDER_FLAG_REPEAT`].
    pub flags: u8,
    /// The number of a [`Refusal`]; zero when issued.
    pub refusal: u16,
    /// How long to wait before another try, in milliseconds; zero when that is no help.
    pub retry_after_ms: u32,
    /// What was ordered.
    pub sku: SkuId,
    /// Cards that follow.
    pub card_count: u16,
    /// Cards that are held, or were until the hold was cancelled or has expired; 0 else.
    pub held: u16,
    /// Bytes that follow: cards, or a hold.
    pub cards_bytes: u32,
}

impl OrderItemHead {
    /// Bytes of the fixed part.
    pub const BYTES: usize = 48;

    /// Appends the fixed part.
    #[inline]
    pub fn encode_into(&self, out: &mut BytesMut) {
        let layout = OrderItemLayout {
            order_id: self.order_id.to_bytes(),
            lsn: U64::new(self.lsn.0),
            status: self.status,
            flags: self.flags,
            refusal: U16::new(self.refusal),
            retry_after_ms: U32::new(self.retry_after_ms),
            sku: U32::new(self.sku.0),
            card_count: U16::new(self.card_count),
            held: U16::new(self.held),
            cards_bytes: U32::new(self.cards_bytes),
            reserved_tail: U32::ZERO,
        };
        out.extend_from_slice(layout.as_bytes());
    }

    #[inline]
    fn from_layout(layout: &OrderItemLayout) -> Self {
        Self {
            order_id: OrderId::from_bytes(layout.order_id),
            lsn: Lsn(layout.lsn.get()),
            status: layout.status,
            flags: layout.flags,
            refusal: layout.refusal.get(),
            retry_after_ms: layout.retry_after_ms.get(),
            sku: SkuId(layout.sku.get()),
            card_count: layout.card_count.get(),
            held: layout.held.get(),
            cards_bytes: layout.cards_bytes.get(),
        }
    }

    /// True if this step had been taken before.
    #[inline]
    pub const fn is_repeat(&self) -> bool {
        self.flags & ORDER_FLAG_REPEAT != 0
    }
}

/// Appends the answer to an order that is refused.
#[inline]
pub fn put_refused(
    out: &mut BytesMut,
    order_id: OrderId,
    sku: SkuId,
    refusal: Refusal,
    retry_after_ms: u32,
) {
    let head = OrderItemHead {
        order_id,
        lsn: Lsn::ZERO,
        status: STATUS_REFUSED,
        flags: 0,
        refusal: refusal.as_u16(),
        retry_after_ms,
        sku,
        card_count: 0,
        held: 0,
        cards_bytes: 0,
    };
    head.encode_into(out);
}

/// How a hold stands, or an order that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// When it ends by itself, in Unix milliseconds of the server's clock.
    pub ends_unix_ms: u64,
    /// How often it has been extended; 0 while the order waits.
    pub extensions: u16,
}

impl Hold {
    /// Bytes of a hold on the wire.
    pub const BYTES: usize = 16;

    #[inline]
    fn from_layout(layout: &HoldLayout) -> Self {
        Self {
            ends_unix_ms: layout.ends_unix_ms.get(),
            extensions: layout.extensions.get(),
        }
    }
}

/// An order that has cards by name only: it holds them, or did, or waits for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldOrder {
    /// The caller's id of the order.
    pub order_id: OrderId,
    /// The place in the log of the record that this answer tells.
    pub lsn: Lsn,
    /// What was ordered.
    pub sku: SkuId,
    /// How many cards are held, or were, or are waited for.
    pub quantity: u16,
    /// True if this step had been taken before, and this is its original answer again.
    pub repeat: bool,
    /// The hold, while there is one, or how long the order waits.
    pub hold: Option<Hold>,
}

/// Appends the answer to an order that holds cards; `status` says what became of the hold if `order` has none.
#[inline]
pub fn put_hold(out: &mut BytesMut, status: u8, order: &HeldOrder) {
    let head = OrderItemHead {
        order_id: order.order_id,
        lsn: order.lsn,
        status,
        flags: if order.repeat { ORDER_FLAG_REPEAT } else { 0 },
        refusal: 0,
        retry_after_ms: 0,
        sku: order.sku,
        card_count: 0,
        held: order.quantity,
        cards_bytes: order.hold.map_or(0, |_| Hold::BYTES as u32),
    };
    head.encode_into(out);
    if let Some(hold) = order.hold {
        let layout = HoldLayout {
            ends_unix_ms: U64::new(hold.ends_unix_ms),
            extensions: U16::new(hold.extensions),
            reserved: [0; 6],
        };
        out.extend_from_slice(layout.as_bytes());
    }
}

/// The answer to an order that is issued, being written at the end of a buffer. Dropped before
/// [`IssuedWriter::finish`], it leaves the buffer as it was and wipes what it wrote.
#[must_use = "an answer that is not finished is taken back"]
#[derive(Debug)]
pub struct IssuedWriter<'a> {
    out: &'a mut BytesMut,
    start: usize,
    card_count: u16,
    finished: bool,
}

impl<'a> IssuedWriter<'a> {
    /// Puts the fixed part down; cards follow.
    #[inline]
    pub fn begin(
        out: &'a mut BytesMut,
        order_id: OrderId,
        lsn: Lsn,
        sku: SkuId,
        repeat: bool,
    ) -> Self {
        let start = out.len();
        let head = OrderItemHead {
            order_id,
            lsn,
            status: STATUS_ISSUED,
            flags: if repeat { ORDER_FLAG_REPEAT } else { 0 },
            refusal: 0,
            retry_after_ms: 0,
            sku,
            card_count: 0,
            held: 0,
            cards_bytes: 0,
        };
        head.encode_into(out);
        Self {
            out,
            start,
            card_count: 0,
            finished: false,
        }
    }

    /// Appends one card.
    ///
    /// # Panics
    /// If the secret is longer than 65,535 bytes, or if this is card 65,536: no card and no order is.
    #[inline]
    pub fn put_card(&mut self, card: CardRef, secret: &[u8]) {
        let secret_bytes = u16::try_from(secret.len()).expect("a secret has at most 4096 bytes");
        put_card_head(self.out, card, secret_bytes);
        self.out.extend_from_slice(secret);
        self.count_card();
    }

    /// Appends one card whose secret `open` appends to the output, so that it is in memory nowhere else. `open`
    /// returns how many bytes it appended and removes nothing that was there before.
    ///
    /// # Errors
    /// Those of `open`; the card is then taken back (and wiped), the cards before it stay.
    ///
    /// # Panics
    /// As [`IssuedWriter::put_card`].
    #[inline]
    pub fn put_card_with<E>(
        &mut self,
        card: CardRef,
        open: impl FnOnce(&mut BytesMut) -> Result<usize, E>,
    ) -> Result<(), E> {
        let card_start = self.out.len();
        put_card_head(self.out, card, 0);
        let secret_start = self.out.len();
        match open(self.out) {
            Ok(appended) => {
                let secret_bytes = self.out.len() - secret_start;
                debug_assert_eq!(
                    appended, secret_bytes,
                    "open says how many bytes it appended"
                );
                let secret_bytes =
                    u16::try_from(secret_bytes).expect("a secret has at most 4096 bytes");
                self.out[secret_start - 2..secret_start]
                    .copy_from_slice(&secret_bytes.to_le_bytes());
                self.count_card();
                Ok(())
            }
            Err(error) => {
                take_back(self.out, card_start);
                Err(error)
            }
        }
    }

    #[inline]
    fn count_card(&mut self) {
        self.card_count = self
            .card_count
            .checked_add(1)
            .expect("an order has at most 65535 cards");
    }

    /// Bytes of the answer so far.
    #[inline]
    #[allow(
        clippy::len_without_is_empty,
        reason = "an answer has at least its fixed part"
    )]
    pub fn len(&self) -> usize {
        self.out.len() - self.start
    }

    /// Patches the number of cards and their bytes, and returns the bytes of the whole answer.
    #[inline]
    pub fn finish(mut self) -> usize {
        let item = &mut self.out[self.start..];
        let bytes = item.len();
        let (head, cards) = OrderItemLayout::mut_from_prefix(item)
            .expect("the head that begin wrote is still there");
        head.card_count = U16::new(self.card_count);
        head.cards_bytes = U32::new(cards.len() as u32);
        self.finished = true;
        bytes
    }
}

impl Drop for IssuedWriter<'_> {
    fn drop(&mut self) {
        if !self.finished {
            take_back(self.out, self.start);
        }
    }
}

#[inline]
fn put_card_head(out: &mut BytesMut, card: CardRef, secret_bytes: u16) {
    let layout = CardLayout {
        slab: U32::new(card.slab),
        slot: U32::new(card.slot),
        generation: U16::new(card.generation),
        secret_bytes: U16::new(secret_bytes),
    };
    out.extend_from_slice(layout.as_bytes());
}

/// One card that was handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// Which card.
    pub card: CardRef,
    /// What it delivers.
    pub secret: Secret,
}

impl Card {
    /// Bytes of a card on the wire before its secret.
    pub const HEAD_BYTES: usize = 12;
}

/// An order that was dealt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedOrder {
    /// The caller's id of the order.
    pub order_id: OrderId,
    /// The place of its record in the log.
    pub lsn: Lsn,
    /// What was ordered.
    pub sku: SkuId,
    /// True if it had been dealt before and this is the original answer again.
    pub repeat: bool,
    /// The cards, in the order in which they were dealt.
    pub cards: Vec<Card>,
}

/// What became of one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderOutcome {
    /// Its cards.
    Issued(IssuedOrder),
    /// It holds cards.
    Held(HeldOrder),
    /// Its hold was cancelled.
    Cancelled(HeldOrder),
    /// Its hold has ended by itself, or its wait; only a look-up says so.
    Expired(HeldOrder),
    /// It waits for stock.
    Waiting(HeldOrder),
    /// Why there are none. Nothing was taken, and the id may try again.
    Refused {
        /// The caller's id of the order.
        order_id: OrderId,
        /// The reason.
        refusal: Refusal,
        /// How long to wait before another try, in milliseconds; zero when that is no help.
        retry_after_ms: u32,
    },
}

impl OrderOutcome {
    /// The order that this is about.
    pub const fn order_id(&self) -> OrderId {
        match self {
            Self::Issued(order) => order.order_id,
            Self::Held(order)
            | Self::Cancelled(order)
            | Self::Expired(order)
            | Self::Waiting(order) => order.order_id,
            Self::Refused { order_id, .. } => *order_id,
        }
    }

    /// Its cards, if it has any.
    pub const fn issued(&self) -> Option<&IssuedOrder> {
        match self {
            Self::Issued(order) => Some(order),
            _ => None,
        }
    }

    /// Its cards, if it has any.
    pub fn into_issued(self) -> Option<IssuedOrder> {
        match self {
            Self::Issued(order) => Some(order),
            _ => None,
        }
    }
}

/// One answer, read in place. Its cards have been checked to lie within the body.
#[derive(Clone, Copy)]
pub struct OrderItemView<'a> {
    /// The fixed part.
    pub head: OrderItemHead,
    /// Where the answer begins in the body, in bytes: for errors.
    offset: usize,
    cards: &'a [u8],
}

/// Shows the fixed part only: the rest is secrets.
impl std::fmt::Debug for OrderItemView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OrderItemView")
            .field("head", &self.head)
            .finish_non_exhaustive()
    }
}

impl<'a> OrderItemView<'a> {
    /// The cards: which one, and its secret. None of an order that only holds some.
    #[inline]
    pub fn cards(&self) -> Cards<'a> {
        let is_issued = self.head.status == STATUS_ISSUED;
        Cards {
            rest: Cursor::new(self.cards),
            left: if is_issued { self.head.card_count } else { 0 },
        }
    }

    /// The answer as a value of its own.
    ///
    /// # Errors
    /// If it was refused with a number that is no [`Refusal`].
    pub fn to_outcome(&self) -> Result<OrderOutcome, BodyError> {
        let OrderItemHead {
            order_id,
            lsn,
            sku,
            retry_after_ms,
            ..
        } = self.head;
        if self.head.status == STATUS_REFUSED {
            let refusal = Refusal::try_from(self.head.refusal).map_err(|unknown| BodyError {
                what: "number of a refusal",
                offset: self.offset + offset_of!(OrderItemLayout, refusal),
                need: Refusal::ALL.len(),
                have: usize::from(unknown.found),
            })?;
            return Ok(OrderOutcome::Refused {
                order_id,
                refusal,
                retry_after_ms,
            });
        }
        if self.head.status != STATUS_ISSUED {
            let mut held = HeldOrder {
                order_id,
                lsn,
                sku,
                quantity: self.head.held,
                repeat: self.head.is_repeat(),
                hold: None,
            };
            return Ok(match self.head.status {
                STATUS_CANCELLED => OrderOutcome::Cancelled(held),
                STATUS_EXPIRED => OrderOutcome::Expired(held),
                status => {
                    let mut body = Cursor::new(self.cards);
                    held.hold = Some(Hold::from_layout(body.take_fixed("hold of an order")?));
                    if status == STATUS_WAITING {
                        OrderOutcome::Waiting(held)
                    } else {
                        OrderOutcome::Held(held)
                    }
                }
            });
        }
        let cards = self
            .cards()
            .map(|(card, secret)| Card {
                card,
                secret: secret.to_vec().into(),
            })
            .collect();
        Ok(OrderOutcome::Issued(IssuedOrder {
            order_id,
            lsn,
            sku,
            repeat: self.head.is_repeat(),
            cards,
        }))
    }
}

/// The cards of one answer, read in place.
#[derive(Clone)]
pub struct Cards<'a> {
    rest: Cursor<'a>,
    left: u16,
}

impl<'a> Iterator for Cards<'a> {
    type Item = (CardRef, &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        // The view that made this iterator has read all of it once, so neither can fail.
        take_card(&mut self.rest).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(self.left), Some(usize::from(self.left)))
    }
}

impl ExactSizeIterator for Cards<'_> {}

#[inline]
fn take_card<'a>(cursor: &mut Cursor<'a>) -> Result<(CardRef, &'a [u8]), BodyError> {
    let card: &CardLayout = cursor.take_fixed("head of a card")?;
    let secret = cursor.take("secret of a card", usize::from(card.secret_bytes.get()))?;
    let card = CardRef {
        slab: card.slab.get(),
        slot: card.slot.get(),
        generation: card.generation.get(),
    };
    Ok((card, secret))
}

/// The answers of a reply, read in place.
///
/// It yields `count` of them, or an error where the body stops making sense, and then nothing more.
#[derive(Clone)]
pub struct OrderItems<'a> {
    rest: Cursor<'a>,
    left: u16,
    failed: bool,
}

impl<'a> OrderItems<'a> {
    /// Reads `count` answers from the body of an IssueReply or LookUpReply.
    pub fn new(body: &'a [u8], count: u16) -> Self {
        Self {
            rest: Cursor::new(body),
            left: count,
            failed: false,
        }
    }

    #[inline]
    fn take_item(&mut self) -> Result<OrderItemView<'a>, BodyError> {
        let offset = self.rest.offset();
        let head = OrderItemHead::from_layout(self.rest.take_fixed("OrderItem")?);
        if !(STATUS_ISSUED..=STATUS_WAITING).contains(&head.status) {
            return Err(BodyError {
                what: "status of an order",
                offset: offset + offset_of!(OrderItemLayout, status),
                need: usize::from(STATUS_WAITING),
                have: usize::from(head.status),
            });
        }
        let cards_offset = self.rest.offset();
        let cards = self
            .rest
            .take("cards of an order", head.cards_bytes as usize)?;
        let mut cursor = Cursor::new(cards);
        let hold = if matches!(head.status, STATUS_HELD | STATUS_WAITING) {
            cursor
                .take_fixed::<HoldLayout>("hold of an order")
                .map(|_| ())
        } else {
            Ok(())
        };
        hold.and_then(|()| {
            (0..head.card_count).try_for_each(|_| take_card(&mut cursor).map(|_| ()))
        })
        .and_then(|()| cursor.expect_end())
        .map_err(|error| BodyError {
            offset: cards_offset + error.offset,
            ..error
        })?;
        Ok(OrderItemView {
            head,
            offset,
            cards,
        })
    }
}

impl<'a> Iterator for OrderItems<'a> {
    type Item = Result<OrderItemView<'a>, BodyError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let item = match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                self.take_item()
            }
            None => match self.rest.expect_end() {
                Ok(()) => return None,
                Err(error) => Err(error),
            },
        };
        self.failed = item.is_err();
        Some(item)
    }
}

/// The answers of a reply as values.
///
/// # Errors
/// If `body` is not `count` answers, to the byte.
pub fn order_items(body: &[u8], count: u16) -> Result<Vec<OrderOutcome>, BodyError> {
    let mut outcomes =
        Vec::with_capacity(usize::from(count).min(body.len() / OrderItemHead::BYTES));
    for item in OrderItems::new(body, count) {
        outcomes.push(item?.to_outcome()?);
    }
    Ok(outcomes)
}
