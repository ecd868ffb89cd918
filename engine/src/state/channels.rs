//! How channels that are outside stand, as their records say. docs/channels.md.

use std::collections::BTreeMap;

use croupier_protocol::{ChannelCause, ChannelStanding, Name};

/// Most channels of which is kept how they stand: as many as a table has, twice.
pub const CHANNELS_KEPT_MAX: usize = 512;

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

    /// From the numbers of a record or a checkpoint.
    pub fn of_numbers(standing: u16, until_unix_ms: u64) -> Result<Standing, String> {
        let newer = || {
            format!(
                "a channel stands as {standing}, which this version does not know: use a newer croupier"
            )
        };
        match ChannelStanding::try_from(standing).map_err(|_| newer())? {
            ChannelStanding::Ejected => Ok(Standing::Ejected { until_unix_ms }),
            _ if until_unix_ms != 0 => {
                Err("a channel that is not ejected has an end of that".into())
            }
            ChannelStanding::Healthy => Ok(Standing::Healthy),
            ChannelStanding::Probing => Ok(Standing::Probing),
        }
    }
}

/// The cause of a number.
pub fn cause_of(number: u16) -> Result<ChannelCause, String> {
    ChannelCause::try_from(number).map_err(|_| {
        format!("a channel stands as it does for cause {number}, which this version does not know: use a newer croupier")
    })
}

/// How channels stand, by name: those that changed last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Channels(BTreeMap<String, Known>);

/// What is known of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Of the record that said so.
    pub lsn: u64,
    pub change: Change,
}

impl Channels {
    /// Those of a checkpoint. The error says what in them cannot be.
    pub fn of_kept(kept: Vec<Known>) -> Result<Channels, String> {
        if kept.len() > CHANNELS_KEPT_MAX {
            return Err(format!("{} channels are kept", kept.len()));
        }
        let mut channels = Channels::default();
        for known in kept {
            let last = channels.0.last_key_value();
            if last.is_some_and(|(last, _)| *last >= known.change.channel) {
                return Err("channels are not in the order of their names".into());
            }
            channels.put(known)?;
        }
        Ok(channels)
    }

    /// A channel stands otherwise. Who has not changed for longest is forgotten when there are too many. The error says why it cannot be.
    pub(super) fn put(&mut self, known: Known) -> Result<(), String> {
        let name = &known.change.channel;
        Name::new(name).map_err(|error| format!("{name:?} is no name of a channel: {error}"))?;
        self.0.insert(name.clone(), known);
        if self.0.len() > CHANNELS_KEPT_MAX {
            let oldest = self.0.iter().min_by_key(|(_, known)| known.lsn);
            let oldest = oldest.map(|(name, _)| name.clone());
            oldest.map(|name| self.0.remove(&name));
        }
        Ok(())
    }

    /// All that are kept, by name.
    pub fn kept(&self) -> impl Iterator<Item = &Known> {
        self.0.values()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str, lsn: u64) -> Known {
        Known {
            lsn,
            change: Change {
                channel: name.into(),
                standing: Standing::Probing,
                cause: ChannelCause::EjectionOver,
                ejections: 1,
                unix_ms: lsn,
            },
        }
    }

    #[test]
    fn the_longest_unchanged_is_forgotten() {
        let mut channels = Channels::default();
        for nth in 0..CHANNELS_KEPT_MAX as u64 {
            channels.put(known(&format!("c{nth:03}"), nth)).unwrap();
        }
        channels.put(known("c000", 1_000)).unwrap();
        assert_eq!(channels.kept().count(), CHANNELS_KEPT_MAX);
        channels.put(known("new", 1_001)).unwrap();
        assert_eq!(channels.kept().count(), CHANNELS_KEPT_MAX);
        let has = |name: &str| channels.kept().any(|known| known.change.channel == name);
        assert!(has("c000") && !has("c001") && has("c002") && has("new"));
    }

    #[test]
    fn what_cannot_be_kept_is_told() {
        let two = |one: &str, other: &str| Channels::of_kept(vec![known(one, 1), known(other, 2)]);
        assert!(two("a", "b").is_ok());
        assert!(two("b", "a").is_err() && two("a", "a").is_err());
        assert!(two("", "b").is_err() && two("a", " b").is_err());
        let many = |count: usize| {
            (0..count)
                .map(|nth| known(&format!("{nth:04}"), 1))
                .collect()
        };
        assert!(Channels::of_kept(many(CHANNELS_KEPT_MAX)).is_ok());
        assert!(Channels::of_kept(many(CHANNELS_KEPT_MAX + 1)).is_err());
        assert!(Standing::of_numbers(2, 5).is_ok() && Standing::of_numbers(1, 0).is_ok());
        assert!(Standing::of_numbers(1, 5).is_err() && Standing::of_numbers(4, 0).is_err());
        assert!(cause_of(7).is_ok() && cause_of(0).is_err() && cause_of(99).is_err());
    }
}
