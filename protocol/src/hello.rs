//! The handshake: which versions the client speaks, and what the server chose and allows.

use std::mem::offset_of;

use bytes::BytesMut;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::body::{BodyError, exactly};

/// The one version of the protocol that this crate speaks.
pub const PROTOCOL_VERSION: u16 = 1;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct HelloLayout {
    version_min: U16,
    version_max: U16,
    reserved: U32,
    features: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct HelloReplyLayout {
    version: U16,
    reserved: U16,
    frame_bytes_max: U32,
    features: U64,
    store_id: [u8; 16],
    orders_per_frame_max: U32,
    orders_in_flight_max: U32,
    quantity_max: U32,
    reserved_tail: U32,
}

const _: () = {
    assert!(
        size_of::<HelloLayout>() == Hello::BYTES,
        "no client could say hello"
    );
    assert!(offset_of!(HelloLayout, features) == 8);
    assert!(
        size_of::<HelloReplyLayout>() == HelloReply::BYTES,
        "every client would misread the limits"
    );
    assert!(offset_of!(HelloReplyLayout, frame_bytes_max) == 4);
    assert!(offset_of!(HelloReplyLayout, features) == 8);
    assert!(offset_of!(HelloReplyLayout, store_id) == 16);
    assert!(offset_of!(HelloReplyLayout, orders_per_frame_max) == 32);
    assert!(offset_of!(HelloReplyLayout, orders_in_flight_max) == 36);
    assert!(offset_of!(HelloReplyLayout, quantity_max) == 40);
};

/// The first frame of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// The lowest version the client speaks.
    pub version_min: u16,
    /// The highest version the client speaks.
    pub version_max: u16,
    /// Feature bits the client knows: none in version 1.
    pub features: u64,
}

impl Default for Hello {
    /// What a client built on this crate says.
    fn default() -> Self {
        Self {
            version_min: PROTOCOL_VERSION,
            version_max: PROTOCOL_VERSION,
            features: 0,
        }
    }
}

impl Hello {
    /// Bytes of the body.
    pub const BYTES: usize = 16;

    /// Appends the body.
    pub fn encode_into(&self, out: &mut BytesMut) {
        let layout = HelloLayout {
            version_min: U16::new(self.version_min),
            version_max: U16::new(self.version_max),
            reserved: U32::ZERO,
            features: U64::new(self.features),
        };
        out.extend_from_slice(layout.as_bytes());
    }

    /// Reads the body.
    ///
    /// # Errors
    /// If `body` has another length.
    pub fn decode(body: &[u8]) -> Result<Self, BodyError> {
        let layout: &HelloLayout = exactly("Hello", body)?;
        Ok(Self {
            version_min: layout.version_min.get(),
            version_max: layout.version_max.get(),
            features: layout.features.get(),
        })
    }

    /// The highest version that both sides know, if there is one.
    pub fn common_version(&self) -> Option<u16> {
        (self.version_min..=self.version_max)
            .contains(&PROTOCOL_VERSION)
            .then_some(PROTOCOL_VERSION)
    }
}

/// What the server chose, who it is, and what it allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HelloReply {
    /// The version both sides speak from now on.
    pub version: u16,
    /// The longest frame the server accepts, in bytes.
    pub frame_bytes_max: u32,
    /// Feature bits both sides know.
    pub features: u64,
    /// Which store answers: a client that comes back can tell whether it is the same one.
    pub store_id: [u8; 16],
    /// Items in one Issue or LookUp frame, at most.
    pub orders_per_frame_max: u32,
    /// Orders of this connection that may await their reply, at most.
    pub orders_in_flight_max: u32,
    /// Cards one order may ask for, at most.
    pub quantity_max: u32,
}

impl HelloReply {
    /// Bytes of the body.
    pub const BYTES: usize = 48;

    /// Appends the body.
    pub fn encode_into(&self, out: &mut BytesMut) {
        let layout = HelloReplyLayout {
            version: U16::new(self.version),
            reserved: U16::ZERO,
            frame_bytes_max: U32::new(self.frame_bytes_max),
            features: U64::new(self.features),
            store_id: self.store_id,
            orders_per_frame_max: U32::new(self.orders_per_frame_max),
            orders_in_flight_max: U32::new(self.orders_in_flight_max),
            quantity_max: U32::new(self.quantity_max),
            reserved_tail: U32::ZERO,
        };
        out.extend_from_slice(layout.as_bytes());
    }

    /// Reads the body.
    ///
    /// # Errors
    /// If `body` has another length.
    pub fn decode(body: &[u8]) -> Result<Self, BodyError> {
        let layout: &HelloReplyLayout = exactly("HelloReply", body)?;
        Ok(Self {
            version: layout.version.get(),
            frame_bytes_max: layout.frame_bytes_max.get(),
            features: layout.features.get(),
            store_id: layout.store_id,
            orders_per_frame_max: layout.orders_per_frame_max.get(),
            orders_in_flight_max: layout.orders_in_flight_max.get(),
            quantity_max: layout.quantity_max.get(),
        })
    }
}
