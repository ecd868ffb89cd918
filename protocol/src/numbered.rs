//! Closed enums with permanent numbers: one macro, so that number, name and sentence stand in one table.

use thiserror::Error;

/// A number that this version gives no meaning to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{found} is no {what} of protocol version 1: the peer is newer or broken")]
pub struct UnknownNumber {
    /// What was to be read, for example `refusal`.
    pub what: &'static str,
    /// The number that was found.
    pub found: u16,
}

macro_rules! numbered {
    ($(#[$meta:meta])* $name:ident: $repr:ty, $what:literal { $($variant:ident = $number:literal, $label:literal, $text:literal;)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr($repr)]
        pub enum $name {
            $(#[doc = $text] $variant = $number,)+
        }

        impl $name {
            /// All of them, in the order of their numbers.
            pub const ALL: [Self; [$($number),+].len()] = [$(Self::$variant),+];

            /// The permanent number.
            #[inline]
            pub const fn as_u16(self) -> u16 {
                self as u16
            }

            /// The permanent name, as the wire page spells it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }

        impl TryFrom<u16> for $name {
            type Error = $crate::UnknownNumber;

            #[inline]
            fn try_from(number: u16) -> Result<Self, Self::Error> {
                match number {
                    $($number => Ok(Self::$variant),)+
                    found => Err($crate::UnknownNumber { what: $what, found }),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $(Self::$variant => $text,)+ })
            }
        }
    };
}
pub(crate) use numbered;
