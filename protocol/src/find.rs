//! The one look-up that carries a secret, and so is no bincode value: FindSecret.

use std::fmt;

use bytes::BytesMut;
use zerocopy::little_endian::U32;

use crate::body::{BodyError, Cursor};
use crate::words::SkuId;

/// Asks which card has a secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FindSecret<'a> {
    /// Of which SKU; 0 = of any.
    pub sku: SkuId,
    /// The secret, as it was imported.
    pub secret: &'a [u8],
}

impl fmt::Debug for FindSecret<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FindSecret")
            .field("sku", &self.sku)
            .finish_non_exhaustive()
    }
}

impl<'a> FindSecret<'a> {
    /// Appends the body.
    pub fn encode_into(&self, out: &mut BytesMut) {
        out.extend_from_slice(&self.sku.0.to_le_bytes());
        out.extend_from_slice(self.secret);
    }

    /// Reads the body.
    ///
    /// # Errors
    /// If the SKU is not there. An empty secret is for the server to refuse.
    pub fn decode(body: &'a [u8]) -> Result<Self, BodyError> {
        let mut rest = Cursor::new(body);
        let sku: &U32 = rest.take_fixed("SKU of FindSecret")?;
        Ok(Self {
            sku: SkuId(sku.get()),
            secret: rest.rest(),
        })
    }
}
