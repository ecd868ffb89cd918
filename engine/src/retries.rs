//! Orders that no channel could fill yet: how they have fared is recorded, and operators see and move them. docs/channels.md.
//!
//! It blocks, so it belongs on the cold path.

use croupier_protocol::{
    ORDERS_LISTED_MAX, Refusal, RetryCause, RetryList, RetryListReply, RetryMove, RetryMoveReply,
    RetryRow,
};

use crate::engine::{Engine, Refused, unknown_sku};
use crate::state::index::{Claimed, Hold, Look, OrderState, Settled};
use crate::state::record::{Fact, Record, Release, Released, Retried, Stamp, Tried};

/// Most records of one append.
const CHUNK: usize = 256;
/// Most orders that a request may name.
const NAMED_MAX: usize = 1000;

/// Orders that wait and that no channel could fill so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryCounts {
    /// For another attempt.
    pub retrying: u64,
    pub buried: u64,
    /// Since when the oldest of them waits, in Unix milliseconds; 0: there is none.
    pub oldest_unix_ms: u64,
}

impl RetryCounts {
    /// Counts an order, if it is one of them.
    fn count(&mut self, hold: &Hold, tried: Tried) -> bool {
        if tried.attempts == 0 && !tried.is_buried {
            return false;
        }
        match tried.is_buried {
            true => self.buried += 1,
            false => self.retrying += 1,
        }
        let since = hold.reserved_unix_ms;
        if self.oldest_unix_ms == 0 || since < self.oldest_unix_ms {
            self.oldest_unix_ms = since;
        }
        true
    }
}

/// An order that waits, as it was seen, and what is to become of it.
struct Change {
    id: u128,
    settled: Settled,
    hold: Hold,
    to: To,
}

#[derive(Clone, Copy)]
enum To {
    Tried(Tried),
    Cancelled,
}

impl Engine {
    /// Records how orders that wait have fared, each by its row and the LSN of the record by which it waits. Those that wait no
    /// more are passed over. Tells how many were recorded.
    pub fn note_tried(&self, all: impl Iterator<Item = (u64, u64, Tried)>) -> Result<u64, Refused> {
        let index = &self.state.index;
        let changes = all.filter_map(|(row, lsn, tried)| {
            let (id, settled) = index.order_of(row)?;
            // First: of an order that waits no longer there is no hold to be looked for.
            let is_it = settled.state == OrderState::Waiting && settled.lsn == lsn;
            let hold = is_it.then(|| index.hold(settled)).flatten()?;
            Some(Change {
                id,
                settled,
                hold,
                to: To::Tried(tried),
            })
        });
        let (moved, _) = self.change_waiting(changes.collect())?;
        Ok(moved)
    }

    /// Changes orders that wait; those that somebody else is just changing are left. Tells how many it were, and the LSN of the last
    /// record.
    fn change_waiting(&self, changes: Vec<Change>) -> Result<(u64, u64), Refused> {
        let (mut moved, mut last) = (0, 0);
        let mut skus = Vec::new();
        // A record takes two units at most, and an append no more than the log keeps room for.
        let most = (self.log.append_units_max() / 2).clamp(1, CHUNK as u64) as usize;
        for chunk in changes.chunks(most) {
            self.log.tend();
            if let Some(refusal) = self.cannot_record() {
                return Err(Refused::plain(refusal));
            }
            let (done, lsn) = self.change_some(chunk)?;
            moved += done;
            last = lsn.max(last);
            skus.extend(chunk.iter().map(|change| change.hold.sku));
        }
        skus.sort_unstable();
        skus.dedup();
        let catalog = self.state.catalog.load();
        for sku in skus {
            if let Some(sku) = catalog.sku(sku) {
                // The desk has passed over those that were being changed.
                let told = sku.line.stock_comes();
                sku.line.stock_came(told);
            }
        }
        Ok((moved, last))
    }

    fn change_some(&self, changes: &[Change]) -> Result<(u64, u64), Refused> {
        let mut view = self.lock(&self.cold);
        let (stamp, tables) = (self.stamp(), self.routes.both());
        let index = &self.state.index;
        let mut claimed: Vec<(&Change, Claimed, Option<Released>, usize)> = Vec::new();
        let mut words = Vec::new();
        for change in changes {
            let released = match change.to {
                To::Tried(_) => None,
                To::Cancelled => match self.state.holders.try_of(change.id) {
                    Some(holder) => Some(Released {
                        order_id: change.id,
                        holder,
                        sku: change.hold.sku,
                        principal: 0,
                        quantity: change.hold.quantity(),
                        why: Release::Cancelled,
                        was_issue: change.hold.is_issue(),
                    }),
                    // Somebody is just looking whose it is.
                    None => continue,
                },
            };
            let Some(claim) = index.claim_order(change.settled) else {
                continue;
            };
            let fact = match (change.to, released) {
                (To::Tried(tried), _) => Fact::Retried(retried(change, tried)),
                (To::Cancelled, Some(released)) => Fact::Released(released),
                (To::Cancelled, None) => unreachable!("it was just made"),
            };
            let stamp = Stamp {
                route_table: tables.table_of(change.id).version(),
                ..stamp
            };
            let units = Record { stamp, fact }.put(&mut words);
            claimed.push((change, claim, released, units));
        }
        if claimed.is_empty() {
            return Ok((0, 0));
        }
        let first = match self.append(&words) {
            Ok(first) => first,
            Err(refused) => {
                for (_, claim, ..) in claimed {
                    index.let_go(claim);
                }
                return Err(refused);
            }
        };
        let catalog = self.state.catalog.load();
        let (moved, mut lsn) = (claimed.len() as u64, first);
        for (change, claim, released, units) in claimed {
            match (change.to, released) {
                (To::Tried(tried), _) => {
                    self.state
                        .apply_retried(&retried(change, tried), &change.hold, claim);
                }
                (To::Cancelled, Some(released)) => {
                    self.state.apply_released(
                        &catalog,
                        lsn,
                        &released,
                        claim,
                        &change.hold,
                        &mut view,
                    );
                }
                (To::Cancelled, None) => {}
            }
            lsn += units as u64;
        }
        Ok((moved, lsn - 1))
    }

    /// Which orders wait for another attempt, or are buried.
    pub fn retries(&self, asked: &RetryList) -> Result<RetryListReply, Refused> {
        let only = self.sku_asked(asked.sku.as_deref())?;
        let most = match asked.limit {
            0 => ORDERS_LISTED_MAX,
            limit => limit.min(ORDERS_LISTED_MAX),
        };
        let body_bytes = self.config.frame_bytes_max as usize - ROWS_AT_BYTES;
        let most = (most as usize).min(body_bytes / ROW_BYTES);
        let mut reply = RetryListReply::default();
        let mut counts = RetryCounts::default();
        let mut rows = Vec::new();
        for (id, settled, hold) in self.state.index.open_holds() {
            let Some(waits) = hold.waits else { continue };
            if only.is_some_and(|sku| sku != hold.sku) {
                continue;
            }
            reply.waiting += 1;
            let tried = waits.tried;
            if !counts.count(&hold, tried) {
                continue;
            }
            let is_asked = asked.buried.is_none_or(|buried| buried == tried.is_buried);
            // By row, from 1: that is its place in the listing.
            let place = settled.row() + 1;
            if is_asked && place > asked.after {
                rows.push((place, row_of(id, &hold, tried)));
            }
        }
        rows.sort_unstable_by_key(|(place, _)| *place);
        if rows.len() > most {
            rows.truncate(most);
            reply.next = rows.last().map(|(place, _)| *place);
        }
        (reply.retrying, reply.buried) = (counts.retrying, counts.buried);
        reply.oldest_unix_ms = counts.oldest_unix_ms;
        reply.rows = rows.into_iter().map(|(_, row)| row).collect();
        Ok(reply)
    }

    /// How many orders wait for another attempt, and how many are buried. It looks at all that waits.
    pub fn retry_counts(&self) -> RetryCounts {
        let mut counts = RetryCounts::default();
        for (_, _, hold) in self.state.index.open_holds() {
            if let Some(waits) = hold.waits {
                counts.count(&hold, waits.tried);
            }
        }
        counts
    }

    fn sku_asked(&self, name: Option<&str>) -> Result<Option<u32>, Refused> {
        let Some(name) = name else { return Ok(None) };
        let sku = self.state.sku_by_name(name);
        sku.map(Some).ok_or_else(|| unknown_sku(name))
    }

    /// Has orders that no channel could fill asked for again, buried or cancelled.
    pub fn move_retries(&self, asked: &RetryMove) -> Result<RetryMoveReply, Refused> {
        let invalid = |text: &str| Err(Refused::because(Refusal::RetryInvalid, text));
        let named = !asked.orders.is_empty();
        if asked.orders.len() > NAMED_MAX {
            return invalid("at most 1000 orders may be named: name fewer, or a SKU, or all");
        }
        if named && (asked.sku.is_some() || asked.buried.is_some()) {
            return invalid(
                "orders that are named go by their names alone: leave out SKU and buried",
            );
        }
        if !(1..=3).contains(&asked.what) {
            return invalid("what is to be done is 1 kick, 2 bury or 3 drain");
        }
        let only = self.sku_asked(asked.sku.as_deref())?;
        let all = if named {
            self.named(&asked.orders)
        } else {
            let is_asked = |hold: &Hold| {
                let tried = hold.waits.map(|waits| waits.tried).unwrap_or_default();
                let fared = tried.attempts > 0 || tried.is_buried;
                let buried = asked.buried.is_none_or(|buried| buried == tried.is_buried);
                fared && buried && only.is_none_or(|sku| sku == hold.sku)
            };
            let open = self.state.index.open_holds();
            open.filter(|(_, _, hold)| is_asked(hold)).collect()
        };
        let changes = all.into_iter().filter_map(|(id, settled, hold)| {
            let tried = hold.waits?.tried;
            let to = match asked.what {
                // From the beginning.
                1 => To::Tried(Tried::default()),
                2 if tried.is_buried => return None,
                2 => To::Tried(Tried {
                    attempts: tried.attempts,
                    cause: RetryCause::Operator.as_u16() as u8,
                    is_buried: true,
                    again_unix_ms: 0,
                }),
                _ => To::Cancelled,
            };
            Some(Change {
                id,
                settled,
                hold,
                to,
            })
        });
        let changes: Vec<Change> = changes.collect();
        let told: Vec<(u64, u64)> = changes
            .iter()
            .map(|change| (change.settled.row(), change.settled.lsn))
            .collect();
        self.log.tend();
        let (moved, lsn) = self.change_waiting(changes)?;
        if lsn > 0 {
            let durable = self.log.wait_durable(lsn);
            durable.map_err(|error| Refused::because(Refusal::StoreFailed, error))?;
        }
        for (row, lsn) in told {
            self.state.desk.tell_joined(row, lsn);
        }
        Ok(RetryMoveReply { moved, lsn })
    }

    /// Those of the orders that wait.
    fn named(&self, orders: &[[u8; 16]]) -> Vec<(u128, Settled, Hold)> {
        let index = &self.state.index;
        let waiting = orders.iter().filter_map(|order| {
            let id = u128::from_be_bytes(*order);
            let Look::Known(settled) = index.look(index.hash(id)) else {
                return None;
            };
            let waits = settled.state == OrderState::Waiting;
            let hold = waits.then(|| index.hold(settled)).flatten()?;
            Some((id, settled, hold))
        });
        waiting.collect()
    }
}

/// Bytes of a row, and of all that stands around the rows.
const ROW_BYTES: usize = 16 + 4 + 2 + 2 + 2 + 1 + 2 + 8 + 8 + 8;
const ROWS_AT_BYTES: usize = 128;

fn retried(change: &Change, tried: Tried) -> Retried {
    Retried {
        order_id: change.id,
        sku: change.hold.sku,
        principal: 0,
        tried,
    }
}

fn row_of(id: u128, hold: &Hold, tried: Tried) -> RetryRow {
    RetryRow {
        order: id.to_be_bytes(),
        sku: hold.sku,
        quantity: hold.quantity(),
        priority: hold.waits.map_or(0, |waits| waits.priority.into()),
        attempts: tried.attempts,
        buried: tried.is_buried,
        cause: tried.cause.into(),
        again_unix_ms: tried.again_unix_ms,
        since_unix_ms: hold.reserved_unix_ms,
        ends_unix_ms: hold.ends_unix_ms,
    }
}
