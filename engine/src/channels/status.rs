//! How channels stand: their records.

use croupier_protocol::{Name, Refusal};

use super::fleet::Change;
use crate::engine::{Engine, Refused};
use crate::state::State;
use crate::state::record::Fact;

/// What is known of channels from records, by name.
pub(crate) fn known(state: &State) -> Vec<Change> {
    let ledger = state.ledger();
    let known = ledger.channels.kept();
    known.map(|known| known.change.clone()).collect()
}

impl Engine {
    /// What is known of channels from records, by name.
    pub fn known_channels(&self) -> Vec<Change> {
        known(&self.state)
    }

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

    /// Records how channels stand otherwise than before, in the order in which that came. When this is back, all that came before is
    /// recorded.
    pub(super) fn record_changes(&self) {
        let _one_at_a_time = self.lock(&self.channels.recording);
        loop {
            let change = self.channels.inner().changes.pop_front();
            let Some(change) = change else { return };
            let (standing, cause) = (change.standing.number(), change.cause.name());
            tracing::info!(channel = %change.channel, standing = standing.name(), cause, "a channel stands otherwise");
            if let Err(refused) = self.record_channel(&change) {
                // It stands so all the same, until a restart.
                tracing::warn!(why = %refused.text, channel = %change.channel, "how a channel stands could not be recorded");
            }
        }
    }
}
