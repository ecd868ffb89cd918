//! Orders as they are asked for: the items of an Issue and of a LookUp. How they are answered: `answer`.
//!
//! Items are read as they came, whatever their values: which SKU exists and which priority is one is for the server
//! to say, item by item.

use std::mem::offset_of;

use bytes::BytesMut;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute_ref};

use crate::body::BodyError;
use crate::words::{OrderId, Priority, SkuId};

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct IssueItemLayout {
    order_id: [u8; 16],
    sku: U32,
    quantity: U16,
    priority: u8,
    flags: u8,
    deadline_ms: U32,
    reserved: U32,
}

const _: () = {
    assert!(
        size_of::<IssueItemLayout>() == IssueItem::BYTES,
        "servers would misread every order"
    );
    assert!(offset_of!(IssueItemLayout, sku) == 16);
    assert!(offset_of!(IssueItemLayout, quantity) == 20);
    assert!(offset_of!(IssueItemLayout, priority) == 22);
    assert!(offset_of!(IssueItemLayout, flags) == 23);
    assert!(offset_of!(IssueItemLayout, deadline_ms) == 24);
};

/// One order of an Issue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IssueItem {
    /// The caller's id of the order.
    pub order_id: OrderId,
    /// What is ordered.
    pub sku: SkuId,
    /// How many cards.
    pub quantity: u16,
    /// The number of a [`crate::Priority`], as it came.
    pub priority: u8,
    /// Zero in version 1.
    pub flags: u8,
    /// From arrival at the server, in milliseconds; 0 = none.
    pub deadline_ms: u32,
}

impl IssueItem {
    /// Bytes of one item.
    pub const BYTES: usize = 32;

    /// One card, of standard priority, without a deadline.
    pub const fn one(order_id: OrderId, sku: SkuId) -> IssueItem {
        IssueItem {
            order_id,
            sku,
            quantity: 1,
            priority: Priority::Standard as u8,
            flags: 0,
            deadline_ms: 0,
        }
    }

    /// Appends the item.
    #[inline]
    pub fn encode_into(&self, out: &mut BytesMut) {
        let layout = IssueItemLayout {
            order_id: self.order_id.to_bytes(),
            sku: U32::new(self.sku.0),
            quantity: U16::new(self.quantity),
            priority: self.priority,
            flags: self.flags,
            deadline_ms: U32::new(self.deadline_ms),
            reserved: U32::ZERO,
        };
        out.extend_from_slice(layout.as_bytes());
    }

    /// Reads one item.
    #[inline]
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Self {
        let layout: &IssueItemLayout = transmute_ref!(bytes);
        Self {
            order_id: OrderId::from_bytes(layout.order_id),
            sku: SkuId(layout.sku.get()),
            quantity: layout.quantity.get(),
            priority: layout.priority,
            flags: layout.flags,
            deadline_ms: layout.deadline_ms.get(),
        }
    }
}

/// The items of an Issue, read in place.
///
/// # Errors
/// If `body` is not `count` items long.
#[inline]
pub fn issue_items(
    body: &[u8],
    count: u16,
) -> Result<impl ExactSizeIterator<Item = IssueItem> + '_, BodyError> {
    let items = fixed_items::<{ IssueItem::BYTES }>("items of Issue", body, count)?;
    Ok(items.iter().map(IssueItem::decode))
}

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
