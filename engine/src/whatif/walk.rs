//! The orders of a stopped store, for a what-if: from order files and the log that is still there. Changes nothing.
//!
//! The log has the record with which each order came. Of what is older than the log there are order files, which have the ends
//! of orders: those that were dealt at once are whole there, of all others too little is known.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use super::Tally;
use super::compare::{Comparison, Models, Said};
use super::log::{Came, Log, Names, names_of, pools_of_hold};
use crate::checkpoint::{self, OrderFileReader};
use crate::error::EngineError;
use crate::route::RouteTable;
use crate::state::Catalog;
use crate::state::record::{Ended, Fact, Issued, Stamp, Way};
use crate::store::Store;

/// A place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    Lsn(u64),
    UnixMs(u64),
}

/// Which orders count, by the place or the time of their records; both ends count, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub from: Option<Point>,
    pub until: Option<Point>,
}

impl Span {
    pub(super) fn has(&self, lsn: u64, unix_ms: u64) -> bool {
        let from = match self.from {
            None => true,
            Some(Point::Lsn(from)) => lsn >= from,
            Some(Point::UnixMs(from)) => unix_ms >= from,
        };
        from && match self.until {
            None => true,
            Some(Point::Lsn(until)) => lsn <= until,
            Some(Point::UnixMs(until)) => unix_ms <= until,
        }
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub tally: Tally,
    /// LSN and time, in Unix milliseconds, of the first order that was counted, and of the last.
    pub first: Option<(u64, u64)>,
    pub last: Option<(u64, u64)>,
    /// From this LSN on the log is there, and with it every order.
    pub log_from: u64,
    /// Orders from before that which were not dealt at once: their priority is not known any more, and they are not counted.
    pub left_out: u64,
    /// Holds of a card that the caller picked: no table was asked. They are not counted.
    pub picked: u64,
    /// How long orders wait for channels that are outside; `None`: no table has any.
    pub waits: Option<Comparison>,
    /// What in the table looks like a mistake in this store, and how far the figures can be trusted.
    pub warnings: Vec<String>,
}

/// Asks `table` about all orders of the store in `dir`. `said` tells of channels how long they take; `warn` looks at the table beside
/// the SKUs and pools of the store; `progress` is told bytes done and bytes in all, now and then.
pub fn replay(
    dir: &Path,
    key_file: Option<&Path>,
    table: &Arc<RouteTable>,
    said: &[Said],
    warn: impl FnOnce(&RouteTable, &Catalog) -> Vec<String>,
    span: Span,
    mut progress: impl FnMut(u64, u64),
) -> Result<Report, EngineError> {
    let store = Store::open(dir, key_file)?;
    let checkpoint = checkpoint::load_current(&store.disk, &store.paths, store.store_id)?;
    let log_from = checkpoint::oldest_block(&store, checkpoint.as_ref())?;
    let log = Log {
        store: &store,
        from: log_from,
    };
    let files = checkpoint.as_ref().map_or(&[][..], |made| &made.files);
    let files = files.iter().filter(|file| file.first_lsn < log_from.lsn);
    let in_files: u64 = files.clone().map(|file| file.file_bytes).sum();
    let log_bytes = log.bytes()?;
    // A guess until it is known whether the log is read for latencies, too.
    let all = Cell::new(in_files + 2 * log_bytes);
    let mut done = 0;
    let mut on = |bytes: u64| {
        done += bytes;
        progress(done.min(all.get()), all.get());
    };

    let state = names_of(&log, checkpoint.as_ref(), &mut on)?;
    let catalog = state.catalog.load();
    let names = Names::of(&catalog);
    let models = Models::of(&state, table, said, |observe| {
        all.set(all.get() + log_bytes);
        log.each(&mut on, |lsn, stamp, fact| {
            let is_counted = span.has(lsn, stamp.unix_ms);
            observe(&names, stamp, fact, is_counted)
        })
    })?;
    let mut walk = Walk {
        table,
        names,
        span,
        from: Vec::new(),
        models,
        report: Report {
            log_from: log_from.lsn,
            warnings: warn(table, &catalog),
            ..Report::default()
        },
    };
    for file in files {
        let orders = store.paths.orders();
        let mut reader = OrderFileReader::open(&store.disk, &orders, store.store_id, file)?;
        while let Some(chunk) = reader.take_chunk()? {
            let mut read = 0;
            for order in chunk.orders() {
                let (lsn, bytes, unix_ms, ended) = order?;
                read += bytes.len() as u64;
                // What is still in the log is read there.
                if lsn < log_from.lsn {
                    let told = walk.ended(lsn, unix_ms, &ended);
                    told.map_err(|what| chunk.damaged(what))?;
                }
            }
            on(read);
        }
    }
    log.each(&mut on, |lsn, stamp, fact| walk.logged(lsn, stamp, fact))?;
    Ok(walk.end())
}

/// The orders on their way into the report.
struct Walk<'t> {
    table: &'t RouteTable,
    names: Names,
    span: Span,
    /// Cards of the order at hand by pool.
    from: Vec<(u16, u64)>,
    /// Who waits for channels outside; `None`: nobody does.
    models: Option<Models>,
    report: Report,
}

impl Walk<'_> {
    /// A record of an order file.
    fn ended(&mut self, lsn: u64, unix_ms: u64, ended: &Ended<'_>) -> Result<(), String> {
        match ended {
            Ended::Issued(issued) if matches!(issued.way, Way::Issue | Way::Part) => {
                self.issued(lsn, unix_ms, issued)
            }
            // It was expired before, and has a row that says so.
            Ended::Issued(issued) if issued.way == Way::LateCommit => Ok(()),
            _ => {
                self.report.left_out += u64::from(self.span.has(lsn, unix_ms));
                Ok(())
            }
        }
    }

    /// A record of the log. Those of orders that have come before are no news.
    fn logged(&mut self, lsn: u64, stamp: Stamp, fact: &Fact<'_>) -> Result<(), String> {
        let unix_ms = stamp.unix_ms;
        if let Some(models) = &mut self.models {
            models.learn(unix_ms, fact);
        }
        let came = match fact {
            Fact::Issued(issued) if matches!(issued.way, Way::Issue | Way::Part) => {
                self.names.pools_of(issued.runs, &mut self.from)?;
                Came::issued(issued)
            }
            Fact::Reserved(reserved) if reserved.card.is_some() => {
                self.report.picked += u64::from(self.span.has(lsn, unix_ms));
                return Ok(());
            }
            Fact::Reserved(reserved) if !reserved.filled => {
                pools_of_hold(reserved, &mut self.from);
                Came::reserved(reserved)
            }
            Fact::Backordered(waits) => {
                self.from.clear();
                Came::waits(waits)
            }
            _ => return Ok(()),
        };
        self.count(lsn, unix_ms, &came, Some(stamp.route_table))
    }

    /// Of an order file.
    fn issued(&mut self, lsn: u64, unix_ms: u64, issued: &Issued<'_>) -> Result<(), String> {
        self.names.pools_of(issued.runs, &mut self.from)?;
        self.count(lsn, unix_ms, &Came::issued(issued), None)
    }

    /// Counts the order; its cards by pool are at hand. With the version of the table that it was dealt by, if it is in the log.
    fn count(
        &mut self,
        lsn: u64,
        unix_ms: u64,
        came: &Came,
        route_table: Option<u32>,
    ) -> Result<(), String> {
        if !self.span.has(lsn, unix_ms) {
            return Ok(());
        }
        let order = self.names.order(unix_ms, came, &self.from)?;
        let sent = self.report.tally.add(self.table, &order);
        if let (Some(models), Some(version)) = (&mut self.models, route_table) {
            models.add(&order, version, &sent);
        }
        self.report.first.get_or_insert((lsn, unix_ms));
        self.report.last = Some((lsn, unix_ms));
        Ok(())
    }

    fn end(self) -> Report {
        let mut report = self.report;
        if let Some(models) = self.models {
            let waits = models.end();
            report.warnings.extend(waits.warnings());
            report.waits = Some(waits);
        }
        report
    }
}

#[cfg(test)]
mod tests;
