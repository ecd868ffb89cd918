//! Cards on their way into a slab: the rows of an import, and the two small bodies around them.
//!
//! A row is read as it came, whatever its bytes: the server rejects a line with its reason, never the whole frame.

use std::mem::offset_of;

use bytes::BytesMut;
use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::body::{BodyError, Cursor, exactly};
use crate::limits::{LABEL_BYTES_MAX, SECRET_BYTES_MAX};

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ImportRowLayout {
    line: U64,
    expires_at_s: U64,
    premium_e4: I64,
    cost_e4: I64,
    label_bytes: U16,
    secret_bytes: U16,
    reserved: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ImportRowsReplyLayout {
    import: U64,
    rows_received: U64,
}

const _: () = {
    assert!(
        size_of::<ImportRowLayout>() == ImportRow::HEAD_BYTES,
        "servers would misread every imported card"
    );
    assert!(offset_of!(ImportRowLayout, expires_at_s) == 8);
    assert!(offset_of!(ImportRowLayout, premium_e4) == 16);
    assert!(offset_of!(ImportRowLayout, cost_e4) == 24);
    assert!(offset_of!(ImportRowLayout, label_bytes) == 32);
    assert!(offset_of!(ImportRowLayout, secret_bytes) == 34);
    assert!(
        size_of::<ImportRowsReplyLayout>() == ImportRowsReply::BYTES,
        "clients would misread the acknowledgement"
    );
};

/// What stands for an amount that is not given.
const AMOUNT_NONE: i64 = i64::MIN;

/// One card to import.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ImportRow<'a> {
    /// The caller's line number: reports use it.
    pub line: u64,
    /// When the card expires, in Unix seconds; 0 = never.
    pub expires_at_s: u64,
    /// What the card is sold above its worth for, in ten-thousandths of the currency unit. `i64::MIN` is none.
    pub premium_e4: Option<i64>,
    /// What the card cost, in ten-thousandths of the currency unit. `i64::MIN` is none.
    pub cost_e4: Option<i64>,
    /// A label for people: UTF-8, ≤ 256 bytes, or the server rejects the line.
    pub label: &'a [u8],
    /// The secret: UTF-8, 1 … 4096 bytes, or the server rejects the line.
    pub secret: &'a [u8],
}

/// Shows everything but the secret.
impl std::fmt::Debug for ImportRow<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImportRow")
            .field("line", &self.line)
            .field("expires_at_s", &self.expires_at_s)
            .field("premium_e4", &self.premium_e4)
            .field("cost_e4", &self.cost_e4)
            .field("label", &String::from_utf8_lossy(self.label))
            .field("secret", &"redacted")
            .finish()
    }
}

impl<'a> ImportRow<'a> {
    /// Bytes of a row before its label.
    pub const HEAD_BYTES: usize = 40;
    /// The longest row that [`ImportRow::encode_into`] writes, in bytes.
    pub const BYTES_MAX: usize = Self::HEAD_BYTES + LABEL_BYTES_MAX + 1 + SECRET_BYTES_MAX + 1;

    /// A row with a line number and a secret, and nothing else.
    pub const fn new(line: u64, secret: &'a [u8]) -> Self {
        Self {
            line,
            expires_at_s: 0,
            premium_e4: None,
            cost_e4: None,
            label: &[],
            secret,
        }
    }

    /// Bytes that [`ImportRow::encode_into`] appends.
    #[inline]
    pub fn encoded_bytes(&self) -> usize {
        Self::HEAD_BYTES + self.sent_label().len() + self.sent_secret().len()
    }

    /// Appends the row. A label or secret above its limit is cut to one byte above it: enough for the server to
    /// reject the line as too long, and no row outgrows a frame.
    #[inline]
    pub fn encode_into(&self, out: &mut BytesMut) {
        let (label, secret) = (self.sent_label(), self.sent_secret());
        let layout = ImportRowLayout {
            line: U64::new(self.line),
            expires_at_s: U64::new(self.expires_at_s),
            premium_e4: I64::new(self.premium_e4.unwrap_or(AMOUNT_NONE)),
            cost_e4: I64::new(self.cost_e4.unwrap_or(AMOUNT_NONE)),
            label_bytes: U16::new(label.len() as u16),
            secret_bytes: U16::new(secret.len() as u16),
            reserved: U32::ZERO,
        };
        out.reserve(Self::HEAD_BYTES + label.len() + secret.len());
        out.extend_from_slice(layout.as_bytes());
        out.extend_from_slice(label);
        out.extend_from_slice(secret);
    }

    fn sent_label(&self) -> &'a [u8] {
        &self.label[..self.label.len().min(LABEL_BYTES_MAX + 1)]
    }

    fn sent_secret(&self) -> &'a [u8] {
        &self.secret[..self.secret.len().min(SECRET_BYTES_MAX + 1)]
    }
}

/// Appends the import id that the body of an ImportRows begins with.
#[inline]
pub fn put_import_id(out: &mut BytesMut, import: u64) {
    out.extend_from_slice(&import.to_le_bytes());
}

/// The import id and the rows of an ImportRows, read in place.
///
/// # Errors
/// If the import id is not there. A row that does not lie within the body is an error of the iterator.
pub fn import_rows(body: &[u8], count: u16) -> Result<(u64, ImportRows<'_>), BodyError> {
    let mut rest = Cursor::new(body);
    let import: &U64 = rest.take_fixed("import id")?;
    Ok((import.get(), ImportRows::of(rest, count)))
}

/// The rows of an ImportRows: `count` of them, or an error where the body stops making sense, and then nothing more.
#[derive(Clone)]
pub struct ImportRows<'a> {
    rest: Cursor<'a>,
    left: u16,
    failed: bool,
}

impl<'a> ImportRows<'a> {
    pub(crate) fn of(rest: Cursor<'a>, left: u16) -> Self {
        Self {
            rest,
            left,
            failed: false,
        }
    }

    #[inline]
    fn take_row(&mut self) -> Result<ImportRow<'a>, BodyError> {
        let head: &ImportRowLayout = self.rest.take_fixed("head of a row")?;
        let amount = |e4: I64| Some(e4.get()).filter(|e4| *e4 != AMOUNT_NONE);
        Ok(ImportRow {
            line: head.line.get(),
            expires_at_s: head.expires_at_s.get(),
            premium_e4: amount(head.premium_e4),
            cost_e4: amount(head.cost_e4),
            label: self
                .rest
                .take("label of a row", usize::from(head.label_bytes.get()))?,
            secret: self
                .rest
                .take("secret of a row", usize::from(head.secret_bytes.get()))?,
        })
    }
}

impl<'a> Iterator for ImportRows<'a> {
    type Item = Result<ImportRow<'a>, BodyError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let row = match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                self.take_row()
            }
            None => match self.rest.expect_end() {
                Ok(()) => return None,
                Err(error) => Err(error),
            },
        };
        self.failed = row.is_err();
        Some(row)
    }
}

/// Acknowledges one ImportRows frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportRowsReply {
    /// The import.
    pub import: u64,
    /// Rows of this import that the server has received so far.
    pub rows_received: u64,
}

impl ImportRowsReply {
    /// Bytes of the body.
    pub const BYTES: usize = 16;

    /// Appends the body.
    pub fn encode_into(&self, out: &mut BytesMut) {
        let layout = ImportRowsReplyLayout {
            import: U64::new(self.import),
            rows_received: U64::new(self.rows_received),
        };
        out.extend_from_slice(layout.as_bytes());
    }

    /// Reads the body.
    ///
    /// # Errors
    /// If `body` has another length.
    pub fn decode(body: &[u8]) -> Result<Self, BodyError> {
        let layout: &ImportRowsReplyLayout = exactly("ImportRowsReply", body)?;
        Ok(Self {
            import: layout.import.get(),
            rows_received: layout.rows_received.get(),
        })
    }
}

/// Ends an import: its accepted cards become sellable by one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportEnd {
    /// The import.
    pub import: u64,
}

impl ImportEnd {
    /// Bytes of the body.
    pub const BYTES: usize = 8;

    /// Appends the body.
    pub fn encode_into(&self, out: &mut BytesMut) {
        put_import_id(out, self.import);
    }

    /// Reads the body.
    ///
    /// # Errors
    /// If `body` has another length.
    pub fn decode(body: &[u8]) -> Result<Self, BodyError> {
        let import: &U64 = exactly("ImportEnd", body)?;
        Ok(Self {
            import: import.get(),
        })
    }
}
