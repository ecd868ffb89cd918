//! How channels stand: their records, what is told of them, and what operators say.

use std::collections::HashMap;

use croupier_protocol::{
    ChannelKind, ChannelMove, ChannelMoveReply, ChannelRow, ChannelStanding, Name, Refusal,
};

use super::dispatcher::ChannelNow;
use super::fleet::{Change, NO_END, Row};
use crate::engine::{Engine, Refused};
use crate::route::{Outside, Source};
use crate::state::State;
use crate::state::record::Fact;

/// What is known of channels from records, by name.
pub(crate) fn known(state: &State) -> Vec<Change> {
    let ledger = state.ledger();
    let known = ledger.channels.kept();
    known.map(|known| known.change.clone()).collect()
}

/// A channel of which nothing is known.
fn row_of(outside: &Outside) -> ChannelRow {
    let kind = match outside.source {
        Source::Issuer => ChannelKind::Issuer,
        Source::Upstream { .. } => ChannelKind::Upstream,
    };
    ChannelRow {
        name: outside.name.clone(),
        kind: kind.as_u16(),
        pool: outside.pool.clone(),
        standing: ChannelStanding::Healthy.as_u16(),
        ..ChannelRow::default()
    }
}

/// Tells a row how its channel stands, and how long its jobs take.
fn tell_standing(row: &mut ChannelRow, known: &Row<'_>) {
    row.standing = known.standing.number().as_u16();
    row.cause = known.cause.map_or(0, |cause| cause.as_u16());
    row.ejections = known.ejections;
    row.since_unix_ms = known.since_unix_ms;
    row.until_unix_ms = known.standing.until_unix_ms();
    row.mean_us = (known.mean_ms * 1000.0).round() as u64;
    row.p99_us = known.p99_ms.saturating_mul(1000);
}

/// Tells a row what is under way, and what was counted.
fn tell_counts(row: &mut ChannelRow, now: &ChannelNow) {
    (row.workers, row.room) = (now.workers, now.room);
    (row.jobs, row.ready) = (now.jobs, now.ready);
    let counts = now.counts;
    (row.filled, row.failed) = (counts.filled, counts.failed);
    (row.timed_out, row.late) = (counts.timed_out, counts.late);
    row.cards = counts.cards;
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

    /// How the outside channels of the table in force do, by name.
    pub fn channels_status(&self) -> Vec<ChannelRow> {
        let table = self.routes.load();
        let mut rows: Vec<ChannelRow> = table.outside().iter().map(row_of).collect();
        if rows.is_empty() {
            return rows;
        }
        rows.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        let mut inner = self.channels.inner();
        let now = inner.dispatcher.channels().into_iter();
        let now: HashMap<String, ChannelNow> = now.map(|one| (one.name.clone(), one)).collect();
        let fleet = inner.dispatcher.fleet();
        for row in &mut rows {
            if let Some(known) = fleet.row(&row.name) {
                tell_standing(row, &known);
            }
            if let Some(now) = now.get(&row.name) {
                tell_counts(row, now);
            }
        }
        rows
    }

    /// Takes a channel out for an operator, or puts it back, and waits until that is durable.
    pub fn move_channel(&self, asked: &ChannelMove) -> Result<ChannelMoveReply, Refused> {
        if let Some(refusal) = self.cannot_record() {
            return Err(Refused::plain(refusal));
        }
        // The table in force may be a new one.
        self.follow_channels_once();
        let now = self.store.disk.unix_ms();
        let world = self.world(now);
        let mut inner = self.channels.inner();
        let fleet = inner.dispatcher.fleet();
        let moved = match (asked.what, asked.for_ms) {
            (1, 0) => fleet.eject_by_hand(now, &asked.channel, NO_END),
            (1, for_ms) => fleet.eject_by_hand(now, &asked.channel, now.saturating_add(for_ms)),
            (2, 0) => fleet.restore_by_hand(now, &asked.channel),
            (what, for_ms) => {
                let text = format!(
                    "a channel is ejected (1), for a while or until it is restored, or restored (2): {what} for {for_ms} ms is neither"
                );
                return Err(Refused::because(Refusal::Malformed, text));
            }
        };
        let Some(change) = moved else {
            drop(inner);
            return Err(self.unknown_channel(&asked.channel));
        };
        inner.changes.push_back(change.clone());
        inner.dispatcher.moved(now, &asked.channel, &world);
        let deeds = inner.do_gives(&self.channels);
        drop(inner);
        self.record_changes();
        self.note(deeds);
        self.channels.bell.ring();
        self.told_of(&change)
    }

    /// What an operator is told of a change: it is durable.
    fn told_of(&self, change: &Change) -> Result<ChannelMoveReply, Refused> {
        let ledger = self.state.ledger();
        let mut known = ledger.channels.kept();
        match known.find(|known| known.change.channel == change.channel) {
            Some(known) if known.change.standing == change.standing => Ok(ChannelMoveReply {
                lsn: known.lsn,
                standing: known.change.standing.number().as_u16(),
                until_unix_ms: known.change.standing.until_unix_ms(),
            }),
            _ => {
                let why = self.cannot_record().unwrap_or(Refusal::Busy);
                let text = "the channel stands so until a restart, but that could not be recorded: ask again";
                Err(Refused::because(why, text))
            }
        }
    }
}
