//! Channels that are outside: docs/channels.md.

pub mod fleet;

use croupier_protocol::{Name, Refusal};

use crate::engine::{Engine, Refused};
use crate::state::channels::Change;
use crate::state::record::Fact;

impl Engine {
    /// Makes it a fact how a channel stands from now on: when this is back it is durable. The fact's time is that of its record. Returns
    /// its LSN.
    pub fn record_channel(&self, change: &Change) -> Result<u64, Refused> {
        // What is durable and cannot be followed would end the writer.
        if let Err(error) = Name::new(&change.channel) {
            return Err(Refused::because(Refusal::ChannelUnknown, error));
        }
        self.record(&[Fact::ChannelChanged {
            name: &change.channel,
            standing: change.standing,
            cause: change.cause,
            ejections: change.ejections,
        }])
    }

    /// What is known of channels from records, by name.
    pub fn known_channels(&self) -> Vec<Change> {
        let ledger = self.state.ledger();
        ledger
            .channels
            .kept()
            .map(|known| known.change.clone())
            .collect()
    }
}
