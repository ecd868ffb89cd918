//! How channels that are outside stand, as their records say. docs/channels.md.

use croupier_protocol::{ChannelCause, ChannelStanding};

/// How a channel stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    #[default]
    Healthy,
    /// Out until then; [`NO_END`]: until an operator restores it.
    Ejected { until_unix_ms: u64 },
    /// Its ejection is over; a few jobs show whether it is well.
    Probing,
}

/// The end of an ejection that has none.
pub const NO_END: u64 = u64::MAX;

/// A channel stands otherwise than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub channel: String,
    pub standing: Standing,
    pub cause: ChannelCause,
    /// How often in a row it was ejected.
    pub ejections: u16,
    /// When.
    pub unix_ms: u64,
}

impl Standing {
    /// Its permanent number.
    pub fn number(self) -> ChannelStanding {
        match self {
            Standing::Healthy => ChannelStanding::Healthy,
            Standing::Ejected { .. } => ChannelStanding::Ejected,
            Standing::Probing => ChannelStanding::Probing,
        }
    }

    /// Until when it is out; 0 if it is not.
    pub fn until_unix_ms(self) -> u64 {
        match self {
            Standing::Ejected { until_unix_ms } => until_unix_ms,
            Standing::Healthy | Standing::Probing => 0,
        }
    }
}
