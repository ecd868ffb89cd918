//! Operators of channels that are outside, and of the orders that these could not fill.

use std::collections::BTreeMap;

use croupier_client::{OrderId, OrderOutcome};
use croupier_engine::engine::Engine;
use croupier_engine::state::channels::Standing;
use croupier_engine::state::record::{Fact, records};
use croupier_protocol::{
    ChannelMove, ChannelStanding, Refusal, RetryCause, RetryList, RetryMove, RetryRow,
};

use super::World;
use super::workers::CHANNELS;
use crate::callers::OUTSIDE_TAG;
use crate::holders::Turn;
use crate::plan::Feature;

/// How orders have fared that no channel could fill yet, by id.
pub(super) type Fared = BTreeMap<[u8; 16], RetryRow>;

/// What an operator does with such orders.
const KICK: u16 = 1;
const BURY: u16 = 2;
const DRAIN: u16 = 3;

/// All of them.
///
/// # Panics
/// If one is told as it cannot be.
pub(super) fn fared(engine: &Engine) -> Fared {
    let mut all = Fared::new();
    let mut asked = RetryList::default();
    loop {
        // A few, so that there are pages.
        asked.limit = 20;
        let page = engine.retries(&asked).expect("it changes nothing");
        assert!(page.waiting >= page.retrying + page.buried, "{page:?}");
        for row in page.rows {
            assert!(row.buried || row.attempts > 0, "{row:?}");
            assert_eq!(row.buried, row.again_unix_ms == 0, "{row:?}");
            let cause = RetryCause::try_from(row.cause);
            assert!(cause.is_ok(), "{row:?}");
            let before = all.insert(row.order, row);
            assert_eq!(before, None, "it is told twice");
        }
        match page.next {
            Some(next) => asked.after = next,
            None => {
                let told = (page.retrying + page.buried) as usize;
                assert_eq!(all.len(), told, "all are told");
                return all;
            }
        }
    }
}

/// Holds how orders have fared after a start against how they had when the server stopped in good order.
///
/// # Panics
/// If one has fared otherwise.
pub(super) fn same(before: &Fared, now: &Fared) {
    assert_eq!(before, now, "how orders fare with channels outlives a stop");
}

impl World {
    /// An operator looks at retries, or moves them or a channel.
    pub(super) fn operate_channels(&mut self) -> bool {
        let Some(engine) = self.engine() else {
            return false;
        };
        if !self.plan.has(Feature::Channels) || engine.cannot_record().is_some() {
            return false;
        }
        match self.dice.u32(0..16) {
            0..4 => self.look_at_retries(&engine),
            4..8 => self.move_retries(&engine, KICK),
            8 | 9 => self.move_retries(&engine, BURY),
            10 => self.move_retries(&engine, DRAIN),
            11..13 => self.move_channel(&engine, 1),
            _ => self.move_channel(&engine, 2),
        }
        true
    }

    pub(super) fn look_at_retries(&mut self, engine: &Engine) {
        let all = fared(engine);
        let buried = all.values().filter(|row| row.buried);
        self.buried.extend(buried.map(|row| row.order));
    }

    /// Orders that no channel could fill yet are asked for again, buried or cancelled: some by name, or all of a SKU, or all.
    fn move_retries(&mut self, engine: &Engine, what: u16) {
        self.look_at_retries(engine);
        let all = fared(engine);
        let mut asked = RetryMove {
            what,
            ..RetryMove::default()
        };
        let skus: BTreeMap<u32, &str> = self.skus.iter().copied().collect();
        let (mut sku, mut buried) = (None, None);
        match self.dice.u32(0..4) {
            0 => {}
            1 => buried = Some(self.dice.bool()),
            2 => sku = self.dice.choice(&self.skus).map(|(sku, _)| *sku),
            _ => {
                let mut named: Vec<[u8; 16]> = all.keys().copied().collect();
                self.dice.shuffle(&mut named);
                named.truncate(self.dice.usize(1..=4));
                asked.orders = named;
            }
        }
        asked.sku = sku.map(|sku| skus[&sku].to_owned());
        asked.buried = buried;
        let is_asked = |row: &&RetryRow| {
            let is_named = asked.orders.is_empty() || asked.orders.contains(&row.order);
            let fits = buried.is_none_or(|buried| buried == row.buried);
            // Those that are buried stay so.
            let changes = what != BURY || !row.buried;
            is_named && fits && changes && sku.is_none_or(|sku| sku == row.sku)
        };
        let rows: Vec<RetryRow> = all.into_values().filter(|row| is_asked(&row)).collect();
        self.move_these(engine, &asked, &rows);
    }

    /// `rows`: the orders that it is about.
    pub(super) fn move_these(&mut self, engine: &Engine, asked: &RetryMove, rows: &[RetryRow]) {
        if rows.is_empty() {
            return;
        }
        let id = |row: &RetryRow| OrderId::from_u128(u128::from_be_bytes(row.order));
        if asked.what == DRAIN {
            self.oracle.drain_under_way(rows.iter().map(id));
        }
        let moved = engine.move_retries(asked);
        self.note(|| format!("{asked:?}: {moved:?}"));
        self.crash_copies();
        match moved {
            Ok(moved) => {
                assert_eq!(moved.moved, rows.len() as u64, "{asked:?}");
                if asked.what == KICK {
                    self.tally.channels.kicked += moved.moved;
                }
                self.check_moved(engine, asked.what, rows);
            }
            Err(refused) if self.die_waiting(&refused) => {}
            Err(refused) => {
                let ours = [Refusal::RetryInvalid, Refusal::UnknownSku];
                assert!(!ours.contains(&refused.refusal), "{}", refused.text);
            }
        }
    }

    /// All have become what was asked for.
    fn check_moved(&self, engine: &Engine, what: u16, rows: &[RetryRow]) {
        let now = fared(engine);
        let Some(node) = &self.node else { return };
        for row in rows {
            let is = now.get(&row.order);
            let id = OrderId::from_u128(u128::from_be_bytes(row.order));
            let fits = match what {
                KICK => is.is_none(),
                BURY => is.is_some_and(|is| is.buried && is.attempts == row.attempts),
                _ => matches!(node.look_up(id), Some(OrderOutcome::Cancelled(_))),
            };
            assert!(fits, "{row:?} is {is:?} behind {what}");
        }
    }

    /// A channel is taken out, or put back.
    fn move_channel(&mut self, engine: &Engine, what: u16) {
        let channel = *self.dice.choice(CHANNELS.as_slice()).expect("some");
        let for_ms = match what {
            1 if self.dice.u32(0..4) > 0 => self.dice.u64(1..20),
            _ => 0,
        };
        let asked = ChannelMove {
            channel: channel.into(),
            what,
            for_ms,
        };
        let moved = engine.move_channel(&asked);
        self.note(|| format!("{asked:?}: {moved:?}"));
        self.crash_copies();
        self.count_ejections(engine);
        match moved {
            Ok(moved) => {
                let wanted = match what {
                    1 => ChannelStanding::Ejected,
                    _ => ChannelStanding::Healthy,
                };
                assert_eq!(moved.standing, wanted.as_u16(), "{asked:?}");
            }
            Err(refused) => assert_ne!(refused.refusal, Refusal::Malformed, "{}", refused.text),
        }
    }

    /// Counts channels that have been taken out since the last look.
    pub(super) fn count_ejections(&mut self, engine: &Engine) {
        let ledger = engine.state.ledger();
        for known in ledger.channels.kept() {
            let is_new = known.lsn > self.channels_seen;
            let is_out = matches!(known.change.standing, Standing::Ejected { .. });
            self.tally.channels.ejections += u64::from(is_new && is_out);
        }
        let last = ledger.channels.kept().map(|known| known.lsn).max();
        self.channels_seen = last.unwrap_or(0).max(self.channels_seen);
    }
}

/// How many orders wait for channels by a turn's records.
pub(super) fn accepted(engine: &Engine, turn: &Turn) -> u64 {
    if engine.routes.load().outside().is_empty() {
        return 0;
    }
    let words = turn.words.iter();
    let bytes: Vec<u8> = words.flat_map(|word| word.to_le_bytes()).collect();
    let is_accepted =
        |fact: &Fact<'_>| matches!(fact, Fact::Backordered(waits) if waits.tag == OUTSIDE_TAG);
    let facts = records(&bytes, turn.lsn).map(|placed| placed.expect("a dealer's own record"));
    let accepted = facts.filter(|placed| is_accepted(&placed.record.fact));
    accepted.count() as u64
}
