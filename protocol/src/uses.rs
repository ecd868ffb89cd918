//! How often a card may be dealt.

use std::fmt;
use std::str::FromStr;

use crate::limits::USES_MAX;

/// How often each card of an import may be dealt; once unless it is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MaxUses {
    /// So often. On the wire below `u32::MAX`; a server takes 1 … [`USES_MAX`].
    Times(u32),
    /// On without end.
    Unlimited,
}

/// What stands for no end on the wire.
const UNLIMITED: u32 = u32::MAX;

impl MaxUses {
    /// The number on the wire.
    pub const fn as_u32(self) -> u32 {
        match self {
            // One that is too many stays that.
            MaxUses::Times(UNLIMITED) => UNLIMITED - 1,
            MaxUses::Times(times) => times,
            MaxUses::Unlimited => UNLIMITED,
        }
    }

    /// From the number on the wire.
    pub const fn from_u32(number: u32) -> MaxUses {
        match number {
            UNLIMITED => MaxUses::Unlimited,
            times => MaxUses::Times(times),
        }
    }
}

impl Default for MaxUses {
    fn default() -> Self {
        MaxUses::Times(1)
    }
}

impl fmt::Display for MaxUses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MaxUses::Times(times) => times.fmt(f),
            MaxUses::Unlimited => f.write_str("unlimited"),
        }
    }
}

/// A text that is neither a number in range nor `unlimited`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxUsesError;

impl fmt::Display for MaxUsesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a card is dealt 1 to {USES_MAX} times, or \"unlimited\"")
    }
}

impl std::error::Error for MaxUsesError {}

impl FromStr for MaxUses {
    type Err = MaxUsesError;

    fn from_str(text: &str) -> Result<Self, MaxUsesError> {
        match text.parse() {
            Ok(times @ 1..=USES_MAX) => Ok(MaxUses::Times(times)),
            _ if text == "unlimited" => Ok(MaxUses::Unlimited),
            _ => Err(MaxUsesError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_numbers() {
        let check = |text: &str, expect: Option<MaxUses>| {
            assert_eq!(text.parse().ok(), expect, "{text:?}");
            if let Some(uses) = expect {
                assert_eq!(uses.to_string(), text);
                assert_eq!(MaxUses::from_u32(uses.as_u32()), uses);
            }
        };
        check("1", Some(MaxUses::default()));
        check("65536", Some(MaxUses::Times(65_536)));
        check("unlimited", Some(MaxUses::Unlimited));
        for text in ["0", "65537", "-1", "", "5x", "Unlimited", "4294967295"] {
            check(text, None);
        }
        assert_ne!(MaxUses::Times(u32::MAX).as_u32(), u32::MAX);
    }
}
