//! Cards that become stock each on its own: Deliver, and DeliverJob for a job. Their rows are those of an import.

use bytes::BytesMut;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::body::{BodyError, Cursor};
use crate::import::{ImportRow, ImportRows};

/// The head of a Deliver; the two names follow, then the rows.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct DeliverHead {
    sku_bytes: U16,
    pool_bytes: U16,
    reserved: U32,
}

/// Where delivered cards go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deliver<'a> {
    /// The SKU's name.
    pub sku: &'a str,
    /// The pool's name; empty: `main`.
    pub pool: &'a str,
}

impl<'a> Deliver<'a> {
    /// Appends the body. The names are at most 64 bytes long, or the server refuses them.
    pub fn encode_into(&self, rows: &[ImportRow<'_>], out: &mut BytesMut) {
        let head = DeliverHead {
            sku_bytes: U16::new(self.sku.len() as u16),
            pool_bytes: U16::new(self.pool.len() as u16),
            reserved: U32::ZERO,
        };
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(self.sku.as_bytes());
        out.extend_from_slice(self.pool.as_bytes());
        rows.iter().for_each(|row| row.encode_into(out));
    }

    /// Reads the body; the rows are read in place.
    ///
    /// # Errors
    /// If a name is not there or is no UTF-8. A row that does not lie within the body is an error of the iterator.
    pub fn decode(body: &'a [u8], count: u16) -> Result<(Self, ImportRows<'a>), BodyError> {
        let mut rest = Cursor::new(body);
        let head: &DeliverHead = rest.take_fixed("head of Deliver")?;
        let sku = name(&mut rest, "SKU of Deliver, in UTF-8", head.sku_bytes)?;
        let pool = name(&mut rest, "pool of Deliver, in UTF-8", head.pool_bytes)?;
        Ok((Self { sku, pool }, ImportRows::of(rest, count)))
    }
}

fn name<'a>(rest: &mut Cursor<'a>, what: &'static str, bytes: U16) -> Result<&'a str, BodyError> {
    let offset = rest.offset();
    let name = rest.take(what, usize::from(bytes.get()))?;
    std::str::from_utf8(name).map_err(|error| BodyError {
        what,
        offset,
        need: name.len(),
        have: error.valid_up_to(),
    })
}

/// The head of a DeliverJob; the two names follow, then the rows.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct DeliverJobHead {
    job: [u8; 16],
    attempt: U32,
    flags: U16,
    sku_bytes: U16,
    channel_bytes: U16,
    reserved: [u8; 6],
}

/// Flag of a DeliverJob: nothing more comes for the job.
pub const JOB_FLAG_ALL: u16 = 1;

/// For what cards are delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliverJob<'a> {
    /// The job, by the 16 bytes of its id.
    pub job: [u8; 16],
    /// As it was given.
    pub attempt: u32,
    /// [`JOB_FLAG_ALL`], or 0.
    pub flags: u16,
    /// The SKU's name.
    pub sku: &'a str,
    /// The channel's name.
    pub channel: &'a str,
}

impl<'a> DeliverJob<'a> {
    /// Appends the body. The names are at most 64 bytes long, or the server refuses them.
    pub fn encode_into(&self, rows: &[ImportRow<'_>], out: &mut BytesMut) {
        let head = DeliverJobHead {
            job: self.job,
            attempt: U32::new(self.attempt),
            flags: U16::new(self.flags),
            sku_bytes: U16::new(self.sku.len() as u16),
            channel_bytes: U16::new(self.channel.len() as u16),
            reserved: [0; 6],
        };
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(self.sku.as_bytes());
        out.extend_from_slice(self.channel.as_bytes());
        rows.iter().for_each(|row| row.encode_into(out));
    }

    /// Reads the body; the rows are read in place.
    ///
    /// # Errors
    /// If a name is not there or is no UTF-8. A row that does not lie within the body is an error of the iterator.
    pub fn decode(body: &'a [u8], count: u16) -> Result<(Self, ImportRows<'a>), BodyError> {
        let mut rest = Cursor::new(body);
        let head: &DeliverJobHead = rest.take_fixed("head of DeliverJob")?;
        let sku = name(&mut rest, "SKU of DeliverJob, in UTF-8", head.sku_bytes)?;
        let channel = name(
            &mut rest,
            "channel of DeliverJob, in UTF-8",
            head.channel_bytes,
        )?;
        let asked = Self {
            job: head.job,
            attempt: head.attempt.get(),
            flags: head.flags.get(),
            sku,
            channel,
        };
        Ok((asked, ImportRows::of(rest, count)))
    }
}
