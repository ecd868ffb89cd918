//! Reading bodies: the one error they share, and a cursor that keeps the offset for it.

use thiserror::Error;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// A body that cannot be read as its kind.
///
/// Lengths are in bytes. Where a value rather than a length is wrong, `what` says so, `need` is the largest value
/// allowed and `have` is the one found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{what} at offset {offset} of the body: need {need}, have {have}")]
pub struct BodyError {
    /// What was to be read.
    pub what: &'static str,
    /// Where in the body, in bytes from its start.
    pub offset: usize,
    /// Bytes (or the largest value) that were needed.
    pub need: usize,
    /// Bytes (or the value) that were there.
    pub have: usize,
}

/// The one value of layout `T` that `body` must be, to the byte.
pub(crate) fn exactly<'a, T>(what: &'static str, body: &'a [u8]) -> Result<&'a T, BodyError>
where
    T: FromBytes + Immutable + KnownLayout + Unaligned,
{
    T::ref_from_bytes(body).map_err(|_| BodyError {
        what,
        offset: 0,
        need: size_of::<T>(),
        have: body.len(),
    })
}

/// A body being read from front to back.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    body: &'a [u8],
    offset: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self { body, offset: 0 }
    }

    #[inline]
    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    #[inline]
    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.body[self.offset..]
    }

    /// The next `bytes` bytes.
    #[inline]
    pub(crate) fn take(&mut self, what: &'static str, bytes: usize) -> Result<&'a [u8], BodyError> {
        let rest = self.rest();
        let Some(taken) = rest.get(..bytes) else {
            return Err(BodyError {
                what,
                offset: self.offset,
                need: bytes,
                have: rest.len(),
            });
        };
        self.offset += bytes;
        Ok(taken)
    }

    /// The next value of layout `T`.
    #[inline]
    pub(crate) fn take_fixed<T>(&mut self, what: &'static str) -> Result<&'a T, BodyError>
    where
        T: FromBytes + Immutable + KnownLayout + Unaligned,
    {
        match T::ref_from_prefix(self.rest()) {
            Ok((value, _)) => {
                self.offset += size_of::<T>();
                Ok(value)
            }
            Err(_) => Err(BodyError {
                what,
                offset: self.offset,
                need: size_of::<T>(),
                have: self.body.len() - self.offset,
            }),
        }
    }

    /// Nothing may follow.
    pub(crate) fn expect_end(&self) -> Result<(), BodyError> {
        match self.rest().len() {
            0 => Ok(()),
            have => Err(BodyError {
                what: "end of the body",
                offset: self.offset,
                need: 0,
                have,
            }),
        }
    }
}
