//! Orders as they are asked for: the steps of an order, and the items of a LookUp. How they are answered: `answer`.
//!
//! Items are read as they came, whatever their values: which SKU exists and which priority is one is for the server
//! to say, item by item.

use std::mem::offset_of;

use bytes::BytesMut;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute_ref};

use crate::body::BodyError;
use crate::frame::Kind;
use crate::words::{Holder, OrderId, Priority, SkuId};

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct StepItemLayout {
    order_id: [u8; 16],
    sku: U32,
    quantity: U16,
    priority: u8,
    flags: u8,
    deadline_ms: U32,
    ttl_ms: U32,
}

const _: () = {
    assert!(
        size_of::<StepItemLayout>() == StepItem::BYTES,
        "servers would misread every order"
    );
    assert!(offset_of!(StepItemLayout, sku) == 16);
    assert!(offset_of!(StepItemLayout, quantity) == 20);
    assert!(offset_of!(StepItemLayout, priority) == 22);
    assert!(offset_of!(StepItemLayout, flags) == 23);
    assert!(offset_of!(StepItemLayout, deadline_ms) == 24);
    assert!(offset_of!(StepItemLayout, ttl_ms) == 28);
};

/// What is asked of an order: the kind of a frame of [`StepItem`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum Step {
    /// Cards, at once and for good.
    #[default]
    Issue,
    /// Cards put by for a while, without saying which.
    Reserve,
    /// The cards that are held, for good.
    Commit,
    /// The end of a hold.
    Cancel,
    /// More time for a hold.
    Extend,
}

impl Step {
    /// All steps.
    pub const ALL: [Self; 5] = [
        Self::Issue,
        Self::Reserve,
        Self::Commit,
        Self::Cancel,
        Self::Extend,
    ];

    /// The kind of a frame that asks for it.
    #[inline]
    pub const fn kind(self) -> Kind {
        match self {
            Self::Issue => Kind::Issue,
            Self::Reserve => Kind::Reserve,
            Self::Commit => Kind::Commit,
            Self::Cancel => Kind::Cancel,
            Self::Extend => Kind::Extend,
        }
    }

    /// The step that a frame of this kind asks for.
    #[inline]
    pub const fn of_kind(kind: Kind) -> Option<Self> {
        Some(match kind {
            Kind::Issue => Self::Issue,
            Kind::Reserve => Self::Reserve,
            Kind::Commit => Self::Commit,
            Kind::Cancel => Self::Cancel,
            Kind::Extend => Self::Extend,
            _ => return None,
        })
    }

    /// The name that commands use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Issue => "issue",
            Self::Reserve => "reserve",
            Self::Commit => "commit",
            Self::Cancel => "cancel",
            Self::Extend => "extend",
        }
    }
}

/// `flags` of a commit that takes nothing but what is held: an expired hold is refused instead of given other cards.
pub const STEP_FLAG_ONLY_HELD: u8 = 1;
/// `flags` of an issue or a reserve that may wait for stock until its deadline.
pub const STEP_FLAG_WAIT: u8 = 2;
/// `flags` of one that may wait and is answered only when it need not wait any more.
pub const STEP_FLAG_STAY: u8 = 4;
/// `flags` of an issue or a reserve that takes fewer cards if there are not so many, and is refused only if there is none.
pub const STEP_FLAG_PARTIAL: u8 = 8;
/// `flags` of an issue or a reserve that is *linked* with the next item of its frame: all orders of such a chain get their cards,
/// or none does.
pub const STEP_FLAG_LINKED: u8 = 16;
/// `flags` of an issue or a reserve that names its *holder*: the 16 bytes of the key follow the item.
pub const STEP_FLAG_HOLDER: u8 = 32;
/// `flags` of an issue or a reserve that has a *tag*, for route tables to tell it by: two bytes that follow the item, and the key of
/// its holder if there is one.
pub const STEP_FLAG_TAG: u8 = 64;

/// One step of one order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepItem {
    /// The caller's id of the order.
    pub order_id: OrderId,
    /// What is ordered: of an issue and a reserve. 0 else.
    pub sku: SkuId,
    /// How many cards: of an issue and a reserve. Of a commit, how many of those that are held; 0 = all. Of an extend, the
    /// how-manieth of this hold it is, from 1. Of a cancel 0.
    pub quantity: u16,
    /// The number of a [`crate::Priority`], as it came.
    pub priority: u8,
    /// See [`STEP_FLAG_ONLY_HELD`], [`STEP_FLAG_WAIT`], [`STEP_FLAG_STAY`], [`STEP_FLAG_PARTIAL`],
    /// [`STEP_FLAG_LINKED`], [`STEP_FLAG_HOLDER`] and [`STEP_FLAG_TAG`].
    pub flags: u8,
    /// From arrival at the server, in milliseconds; 0 = none.
    pub deadline_ms: u32,
    /// How long a hold lasts from now, in milliseconds: of a reserve and an extend. 0 else.
    pub ttl_ms: u32,
    /// For whom the order is, if [`STEP_FLAG_HOLDER`] is set; else [`Holder::NONE`].
    pub holder: Holder,
    /// What route tables may tell it by, if [`STEP_FLAG_TAG`] is set; else 0.
    pub tag: u16,
}

impl StepItem {
    /// Bytes of one item, without what its flags say that follows.
    pub const BYTES: usize = 32;

    /// One card, of standard priority, without a deadline.
    pub const fn one(order_id: OrderId, sku: SkuId) -> StepItem {
        StepItem {
            order_id,
            sku,
            quantity: 1,
            priority: Priority::Standard as u8,
            flags: 0,
            deadline_ms: 0,
            ttl_ms: 0,
            holder: Holder::NONE,
            tag: 0,
        }
    }

    /// The item with a tag, and the flag that says so; without both if that is 0.
    #[must_use]
    pub const fn tagged(self, tag: u16) -> StepItem {
        let flags = match tag {
            0 => self.flags & !STEP_FLAG_TAG,
            _ => self.flags | STEP_FLAG_TAG,
        };
        StepItem { flags, tag, ..self }
    }

    /// The item with its holder, and the flag that says so; without both if that is none.
    #[must_use]
    pub const fn of_holder(self, holder: Holder) -> StepItem {
        let flags = if holder.is_none() {
            self.flags & !STEP_FLAG_HOLDER
        } else {
            self.flags | STEP_FLAG_HOLDER
        };
        StepItem {
            flags,
            holder,
            ..self
        }
    }

    /// Bytes of this item, with what follows it.
    pub const fn bytes(&self) -> usize {
        Self::BYTES + more_bytes(self.flags)
    }

    /// A commit, cancel or extend of an order, of standard priority, without a deadline.
    pub const fn of(order_id: OrderId) -> StepItem {
        StepItem {
            quantity: 0,
            ..StepItem::one(order_id, SkuId(0))
        }
    }

    /// Appends the item.
    #[inline]
    pub fn encode_into(&self, out: &mut BytesMut) {
        let layout = StepItemLayout {
            order_id: self.order_id.to_bytes(),
            sku: U32::new(self.sku.0),
            quantity: U16::new(self.quantity),
            priority: self.priority,
            flags: self.flags,
            deadline_ms: U32::new(self.deadline_ms),
            ttl_ms: U32::new(self.ttl_ms),
        };
        out.extend_from_slice(layout.as_bytes());
        if self.flags & STEP_FLAG_HOLDER != 0 {
            out.extend_from_slice(&self.holder.to_bytes());
        }
        if self.flags & STEP_FLAG_TAG != 0 {
            out.extend_from_slice(&self.tag.to_le_bytes());
        }
    }

    /// Reads one item; the key of a holder and a tag stand behind it.
    #[inline]
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Self {
        let layout: &StepItemLayout = transmute_ref!(bytes);
        Self {
            order_id: OrderId::from_bytes(layout.order_id),
            sku: SkuId(layout.sku.get()),
            quantity: layout.quantity.get(),
            priority: layout.priority,
            flags: layout.flags,
            deadline_ms: layout.deadline_ms.get(),
            ttl_ms: layout.ttl_ms.get(),
            holder: Holder::NONE,
            tag: 0,
        }
    }
}

/// Flags that say that more follows the item.
const MORE_FLAGS: u8 = STEP_FLAG_HOLDER | STEP_FLAG_TAG;

/// Bytes that follow an item of these flags.
const fn more_bytes(flags: u8) -> usize {
    let key = (flags & STEP_FLAG_HOLDER != 0) as usize * Holder::BYTES;
    key + (flags & STEP_FLAG_TAG != 0) as usize * size_of::<u16>()
}

/// The items of a frame of steps: see [`step_items`].
#[derive(Debug, Clone)]
pub struct StepItems<'a> {
    rest: &'a [u8],
    left: u16,
}

impl Iterator for StepItems<'_> {
    type Item = StepItem;

    #[inline]
    fn next(&mut self) -> Option<StepItem> {
        // They have been measured: it ends where the count does.
        let (bytes, rest) = self.rest.split_first_chunk::<{ StepItem::BYTES }>()?;
        let mut item = StepItem::decode(bytes);
        self.rest = rest;
        self.left -= 1;
        if item.flags & STEP_FLAG_HOLDER != 0 {
            let (key, rest) = self.rest.split_first_chunk::<{ Holder::BYTES }>()?;
            item.holder = Holder::from_bytes(*key);
            self.rest = rest;
        }
        if item.flags & STEP_FLAG_TAG != 0 {
            let (tag, rest) = self.rest.split_first_chunk::<2>()?;
            item.tag = u16::from_le_bytes(*tag);
            self.rest = rest;
        }
        Some(item)
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left.into(), Some(self.left.into()))
    }
}

impl ExactSizeIterator for StepItems<'_> {}

/// The items of a frame of steps, read in place.
///
/// # Errors
/// If `body` is not as long as `count` items and what their flags say that follows.
#[inline]
pub fn step_items(body: &[u8], count: u16) -> Result<StepItems<'_>, BodyError> {
    let mut need = usize::from(count) * StepItem::BYTES;
    if body.len() == need {
        // What most frames are: more would be bytes that there are not.
        let items: &[[u8; StepItem::BYTES]] = body.as_chunks().0;
        let any = items.iter().fold(0, |any, item| any | item[FLAGS_AT]);
        if any & MORE_FLAGS == 0 {
            let left = count;
            return Ok(StepItems { rest: body, left });
        }
    }
    let (mut at, mut seen) = (0, 0);
    while seen < count
        && let Some(flags) = body.get(at + FLAGS_AT)
    {
        let more = more_bytes(*flags);
        need += more;
        at += StepItem::BYTES + more;
        seen += 1;
    }
    if body.len() != need {
        return Err(BodyError {
            what: "steps of orders",
            offset: 0,
            need,
            have: body.len(),
        });
    }
    let left = count;
    Ok(StepItems { rest: body, left })
}

/// Where the flags of an item are.
const FLAGS_AT: usize = offset_of!(StepItemLayout, flags);

/// The order ids of a LookUp, read in place.
///
/// # Errors
/// If `body` is not `count` ids long.
#[inline]
pub fn lookup_items(
    body: &[u8],
    count: u16,
) -> Result<impl ExactSizeIterator<Item = OrderId> + '_, BodyError> {
    let ids = fixed_items::<16>("order ids of LookUp", body, count)?;
    Ok(ids.iter().map(|bytes| OrderId::from_bytes(*bytes)))
}

/// Appends one order id to the body of a LookUp.
#[inline]
pub fn put_lookup(out: &mut BytesMut, order_id: OrderId) {
    out.extend_from_slice(&order_id.to_bytes());
}

#[inline]
fn fixed_items<'a, const BYTES: usize>(
    what: &'static str,
    body: &'a [u8],
    count: u16,
) -> Result<&'a [[u8; BYTES]], BodyError> {
    let need = usize::from(count) * BYTES;
    if body.len() != need {
        return Err(BodyError {
            what,
            offset: 0,
            need,
            have: body.len(),
        });
    }
    Ok(body.as_chunks().0)
}
