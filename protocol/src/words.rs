//! The words of the domain that travel: ids, places, priorities, names and secrets.
//!
//! Scalars are newtypes so that an LSN is never taken for a SKU. `Secret` is the only one that may not be shown.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::limits::NAME_BYTES_MAX;

/// A word of 16 bytes that callers choose: in memory a number, printed as UUID text, on the wire the bytes in text order.
macro_rules! sixteen_bytes {
    ($(#[$doc:meta])+ $name:ident) => {
        $(#[$doc])+
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(u128);

        impl $name {
            /// From the 16 bytes in text order.
            #[inline]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(u128::from_be_bytes(bytes))
            }

            /// The 16 bytes in text order.
            #[inline]
            pub const fn to_bytes(self) -> [u8; 16] {
                self.0.to_be_bytes()
            }

            /// From the number that the text, read as one hexadecimal number, denotes.
            #[inline]
            pub const fn from_u128(number: u128) -> Self {
                Self(number)
            }

            /// As one number.
            #[inline]
            pub const fn as_u128(self) -> u128 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(Uuid::from_u128(self.0).as_hyphenated(), f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

sixteen_bytes! {
    /// The id of an order: 128 bits chosen by the caller, for ever bound to what it ordered first.
    ///
    /// Prints and parses as UUID text; on the wire it is the 16 bytes in text order (big-endian).
    OrderId
}

impl OrderId {
    /// A new id: a UUID version 7 (RFC 9562), which sorts by time of making.
    pub fn new_v7() -> Self {
        Self(Uuid::now_v7().as_u128())
    }

    /// True for the id of all zeros, which no order may have.
    #[inline]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

/// A text that is no order id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "not an order id ({cause}): write it as a UUID, for example 01890a5d-ac96-774b-bcce-b302099a8057"
)]
pub struct OrderIdParseError {
    cause: String,
}

impl FromStr for OrderId {
    type Err = OrderIdParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match Uuid::parse_str(text) {
            Ok(uuid) => Ok(Self(uuid.as_u128())),
            Err(cause) => Err(OrderIdParseError {
                cause: cause.to_string(),
            }),
        }
    }
}

sixteen_bytes! {
    /// The caller's customer, for whom an order is: a key of 16 bytes that the caller chooses; all zero: nobody is named.
    ///
    /// Prints as UUID text, as [`OrderId`] does. How a key is made of a text is for callers to agree on; the client has one way.
    Holder
}

impl Holder {
    /// Nobody is named.
    pub const NONE: Self = Self(0);
    /// Bytes of a key.
    pub const BYTES: usize = 16;

    /// True if nobody is named.
    #[inline]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// The numeric id of a SKU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SkuId(pub u32);

impl fmt::Display for SkuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The place of a record in the log. Larger is later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Before every record: what a refusal carries.
    pub const ZERO: Self = Self(0);
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Which card: the slab, the slot in it, and how often that slot has been given back before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CardRef {
    /// Number of the slab.
    pub slab: u32,
    /// Index of the slot in the slab.
    pub slot: u32,
    /// Generation of the slot.
    pub generation: u16,
}

impl fmt::Display for CardRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}.{}", self.slab, self.slot, self.generation)
    }
}

/// A text that is no [`CardRef`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{text:?} is no card: write slab:slot or slab:slot.generation, as `croupier order` shows it"
)]
pub struct CardRefError {
    /// The text.
    pub text: String,
}

impl FromStr for CardRef {
    type Err = CardRefError;

    /// Reads `slab:slot.generation`; without a generation it is 0.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (slab, rest) = text.split_once(':')?;
            let (slot, generation) = rest.split_once('.').unwrap_or((rest, "0"));
            Some(Self {
                slab: slab.parse().ok()?,
                slot: slot.parse().ok()?,
                generation: generation.parse().ok()?,
            })
        };
        read().ok_or_else(|| CardRefError { text: text.into() })
    }
}

/// How urgent an order is: which lane it waits in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum Priority {
    /// Before all others.
    Vip = 0,
    /// What an order has if nothing else is said.
    #[default]
    Standard = 1,
    /// Large orders that may wait.
    Bulk = 2,
    /// Whatever is left over.
    Background = 3,
}

impl Priority {
    /// All priorities, the most urgent first.
    pub const ALL: [Self; 4] = [Self::Vip, Self::Standard, Self::Bulk, Self::Background];

    /// The place in [`Priority::ALL`].
    #[inline]
    pub const fn as_index(self) -> usize {
        self as usize
    }

    /// The name that commands and files use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vip => "vip",
            Self::Standard => "standard",
            Self::Bulk => "bulk",
            Self::Background => "background",
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text or number that is no priority.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{found}` is no priority: use vip (0), standard (1), bulk (2) or background (3)")]
pub struct PriorityParseError {
    found: String,
}

impl FromStr for Priority {
    type Err = PriorityParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = Self::ALL
            .into_iter()
            .find(|priority| priority.name() == text);
        named.ok_or_else(|| PriorityParseError {
            found: text.to_owned(),
        })
    }
}

impl TryFrom<u8> for Priority {
    type Error = PriorityParseError;

    #[inline]
    fn try_from(number: u8) -> Result<Self, Self::Error> {
        let known = Self::ALL.get(usize::from(number)).copied();
        known.ok_or_else(|| PriorityParseError {
            found: number.to_string(),
        })
    }
}

/// The name of a SKU, a batch or a pool: 1 … 64 bytes of UTF-8, no control characters, no white space at either end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// Why a text is no [`Name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NameError {
    /// No bytes at all.
    #[error("a name may not be empty")]
    Empty,
    /// More than [`NAME_BYTES_MAX`] bytes.
    #[error("a name has at most {NAME_BYTES_MAX} bytes, this one has {bytes}")]
    TooLong {
        /// Bytes of the text.
        bytes: usize,
    },
    /// A character such as a tab or a line end.
    #[error("a name has no control characters, this one has one at byte {offset}")]
    ControlCharacter {
        /// Where the first one stands, in bytes.
        offset: usize,
    },
    /// White space before or after it.
    #[error("a name neither begins nor ends with white space: trim it")]
    EdgeWhitespace,
}

impl Name {
    /// Checks and keeps a name.
    ///
    /// # Errors
    /// [`NameError`] says which of the rules the text breaks.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong { bytes: text.len() });
        }
        if let Some((offset, _)) = text
            .char_indices()
            .find(|(_, character)| character.is_control())
        {
            return Err(NameError::ControlCharacter { offset });
        }
        if text.trim() != text {
            return Err(NameError::EdgeWhitespace);
        }
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// The bytes that a card delivers. They are wiped when dropped, and neither `Debug` nor `Display` shows them.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// The bytes: hand them to whoever bought the card, and to no log.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The secret as text; bytes that are not UTF-8 (an import accepts none) become `U+FFFD`.
    pub fn to_string_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

impl From<Vec<u8>> for Secret {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}
