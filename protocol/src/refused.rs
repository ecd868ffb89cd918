//! The two ways to say no to more than one order: a request refused whole, and a connection that is closed.

use std::mem::offset_of;

use bytes::BytesMut;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::body::{BodyError, Cursor};
use crate::refusal::{FaultCode, Refusal};

/// Both bodies begin like this; text for people follows, to the end of the frame.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ReasonLayout {
    number: U16,
    reserved: U16,
    retry_after_ms: U32,
}

const _: () = {
    assert!(
        size_of::<ReasonLayout>() == 8,
        "clients would misread why they were refused"
    );
    assert!(offset_of!(ReasonLayout, retry_after_ms) == 4);
};

/// The body of Refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedBody {
    /// The reason.
    pub refusal: Refusal,
    /// How long to wait before another try, in milliseconds; zero when that is no help.
    pub retry_after_ms: u32,
    /// For people: what exactly, and where. Never a secret.
    pub text: String,
}

impl RefusedBody {
    /// Appends the body.
    pub fn encode_into(&self, out: &mut BytesMut) {
        put_reason(out, self.refusal.as_u16(), self.retry_after_ms, &self.text);
    }

    /// Reads the body.
    ///
    /// # Errors
    /// If it is too short, or the number is no refusal of this version.
    pub fn decode(body: &[u8]) -> Result<Self, BodyError> {
        let (number, retry_after_ms, text) = take_reason("Refused", body)?;
        let refusal = Refusal::try_from(number).map_err(|unknown| BodyError {
            what: "number of a refusal",
            offset: 0,
            need: Refusal::ALL.len(),
            have: usize::from(unknown.found),
        })?;
        Ok(Self {
            refusal,
            retry_after_ms,
            text,
        })
    }
}

/// The body of Fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultBody {
    /// The reason.
    pub fault: FaultCode,
    /// For people: what exactly, and where. Never a secret.
    pub text: String,
}

impl FaultBody {
    /// Appends the body.
    pub fn encode_into(&self, out: &mut BytesMut) {
        put_reason(out, self.fault.as_u16(), 0, &self.text);
    }

    /// Reads the body.
    ///
    /// # Errors
    /// If it is too short, or the number is no fault of this version.
    pub fn decode(body: &[u8]) -> Result<Self, BodyError> {
        let (number, _, text) = take_reason("Fault", body)?;
        let fault = FaultCode::try_from(number).map_err(|unknown| BodyError {
            what: "number of a fault",
            offset: 0,
            need: FaultCode::ALL.len(),
            have: usize::from(unknown.found),
        })?;
        Ok(Self { fault, text })
    }
}

fn put_reason(out: &mut BytesMut, number: u16, retry_after_ms: u32, text: &str) {
    let layout = ReasonLayout {
        number: U16::new(number),
        reserved: U16::ZERO,
        retry_after_ms: U32::new(retry_after_ms),
    };
    out.extend_from_slice(layout.as_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Text that is not UTF-8 is mended rather than refused: the reason before it matters more.
fn take_reason(what: &'static str, body: &[u8]) -> Result<(u16, u32, String), BodyError> {
    let mut cursor = Cursor::new(body);
    let layout: &ReasonLayout = cursor.take_fixed(what)?;
    let text = String::from_utf8_lossy(cursor.rest()).into_owned();
    Ok((layout.number.get(), layout.retry_after_ms.get(), text))
}
