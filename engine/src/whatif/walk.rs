//! The orders of a stopped store, for a what-if: from order files and the log that is still there. Changes nothing.
//!
//! The log has the record with which each order came. Of what is older than the log there are order files, which have the ends
//! of orders: those that were dealt at once are whole there, of all others too little is known.

use std::path::Path;

use croupier_protocol::Priority;

use super::{Recorded, Tally};
use crate::checkpoint::{self, Checkpoint, OrderFileReader, apply_block};
use crate::error::EngineError;
use crate::route::{Asked, RouteTable};
use crate::state::record::{self, Ended, Fact, Issued, Run, Way};
use crate::state::{Catalog, Replay, State, StateSeed};
use crate::store::{BitsOnly, Store};
use crate::wal::segments::segment_path;
use crate::wal::{BlockReader, Position};

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
    fn has(&self, lsn: u64, unix_ms: u64) -> bool {
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
    /// What in the table looks like a mistake in this store.
    pub warnings: Vec<String>,
}

/// Asks `table` about all orders of the store in `dir`. `warn` looks at the table beside the SKUs and pools of the store;
/// `progress` is told bytes done and bytes in all, now and then.
pub fn replay(
    dir: &Path,
    key_file: Option<&Path>,
    table: &RouteTable,
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
    let all = in_files + 2 * log.bytes()?;
    let mut done = 0;
    let mut on = |bytes: u64| {
        done += bytes;
        progress(done.min(all), all);
    };

    let state = names_of(&log, checkpoint.as_ref(), &mut on)?;
    let catalog = state.catalog.load();
    let mut walk = Walk {
        table,
        names: Names::of(&catalog),
        span,
        from: Vec::new(),
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
    log.each(log_from, &mut on, |lsn, unix_ms, fact| {
        walk.logged(lsn, unix_ms, fact)
    })?;
    Ok(walk.report)
}

/// The log of a store from its oldest block on.
struct Log<'s> {
    store: &'s Store,
    from: Position,
}

impl Log<'_> {
    fn open(&self, from: Position) -> Result<BlockReader, EngineError> {
        let (store, wal) = (self.store, self.store.paths.wal());
        BlockReader::open(store.disk.clone(), &wal, store.store_id, from)
    }

    /// Bytes of its segments, for progress.
    fn bytes(&self) -> Result<u64, EngineError> {
        Ok(self.open(self.from)?.bytes_ahead())
    }

    /// Every fact with its LSN and its time, in Unix milliseconds.
    fn each(
        &self,
        from: Position,
        on: &mut impl FnMut(u64),
        mut visit: impl FnMut(u64, u64, &Fact<'_>) -> Result<(), String>,
    ) -> Result<(), EngineError> {
        let mut reader = self.open(from)?;
        while let Some(block) = reader.next()? {
            let path = segment_path(&self.store.paths.wal(), block.seq);
            let damaged = |what| EngineError::damage(&path, block.offset, what);
            for placed in record::records(block.body, block.header.first_lsn) {
                let placed = placed.map_err(|(_, what)| damaged(what))?;
                let record = placed.record;
                visit(placed.lsn, record.stamp.unix_ms, &record.fact).map_err(damaged)?;
            }
            on(block.body.len() as u64);
        }
        Ok(())
    }
}

/// The state at the end of the log, without its orders: for the names of SKUs and pools.
fn names_of(
    log: &Log<'_>,
    checkpoint: Option<&Checkpoint>,
    on: &mut impl FnMut(u64),
) -> Result<State, EngineError> {
    let seed = checkpoint.map_or(StateSeed::default(), |made| made.orders);
    let state = State::counting(Box::new(BitsOnly), seed);
    if let Some(made) = checkpoint {
        let restored = state.restore(made.snapshot.clone());
        restored.map_err(|unfit| unfit.at(&log.store.paths.current(), 0))?;
    }
    let mut reader = log.open(checkpoint.map_or(Position::START, |made| made.end))?;
    let mut replay = Replay::new(&state);
    while let Some(block) = reader.next()? {
        let path = segment_path(&log.store.paths.wal(), block.seq);
        apply_block(&mut replay, &path, &block, |_, _| Ok(()))?;
        on(block.body.len() as u64);
    }
    drop(replay);
    Ok(state)
}

/// Names of SKUs and pools by their numbers.
struct Names {
    /// By SKU − 1: its name, and those of its pools.
    skus: Vec<(String, Vec<String>)>,
    /// By slab: the index of its pool.
    slabs: Vec<Option<u16>>,
}

impl Names {
    fn of(catalog: &Catalog) -> Names {
        let skus = catalog.skus.iter().map(|sku| {
            let pools = sku.pools.load();
            let pools = pools.iter().map(|pool| pool.name.clone());
            (sku.name.clone(), pools.collect())
        });
        let slabs = catalog.slabs.iter();
        let slabs = slabs.map(|slab| Some(slab.as_ref()?.facts.pool));
        Names {
            skus: skus.collect(),
            slabs: slabs.collect(),
        }
    }

    fn sku(&self, sku: u32) -> Result<&(String, Vec<String>), String> {
        let found = self.skus.get((sku as usize).wrapping_sub(1));
        found.ok_or_else(|| format!("an order of SKU {sku}, which is not there"))
    }

    fn pool_of(&self, slab: u32) -> Result<u16, String> {
        let found = self.slabs.get(slab as usize).copied().flatten();
        found.ok_or_else(|| format!("an order has cards of slab {slab}, which is not there"))
    }
}

/// What the records of all kinds say of an order, in one form.
struct Came {
    order_id: u128,
    holder: u128,
    sku: u32,
    /// Cards that it got, was promised or waits for.
    cards: u16,
    /// How many more it asked for.
    fewer: u16,
    priority: u8,
    lane: u8,
    tag: u16,
}

/// The orders on their way into the report.
struct Walk<'t> {
    table: &'t RouteTable,
    names: Names,
    span: Span,
    /// Cards of the order at hand by pool.
    from: Vec<(u16, u64)>,
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
    fn logged(&mut self, lsn: u64, unix_ms: u64, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Issued(issued) if matches!(issued.way, Way::Issue | Way::Part) => {
                self.issued(lsn, unix_ms, issued)
            }
            Fact::Reserved(reserved) if reserved.card.is_some() => {
                self.report.picked += u64::from(self.span.has(lsn, unix_ms));
                Ok(())
            }
            Fact::Reserved(reserved) if !reserved.filled => {
                self.from.clear();
                let credits = reserved.credits.iter();
                self.from
                    .extend(credits.map(|(pool, cards)| (pool, u64::from(cards))));
                let came = Came {
                    order_id: reserved.order_id,
                    holder: reserved.holder,
                    sku: reserved.sku,
                    cards: reserved.quantity,
                    fewer: reserved.fewer,
                    priority: reserved.priority,
                    lane: reserved.lane,
                    // The record tells none.
                    tag: 0,
                };
                self.count(lsn, unix_ms, &came)
            }
            Fact::Backordered(waits) => {
                self.from.clear();
                let came = Came {
                    order_id: waits.order_id,
                    holder: waits.holder,
                    sku: waits.sku,
                    cards: waits.quantity,
                    fewer: 0,
                    priority: waits.priority,
                    lane: waits.lane,
                    tag: waits.tag,
                };
                self.count(lsn, unix_ms, &came)
            }
            _ => Ok(()),
        }
    }

    fn issued(&mut self, lsn: u64, unix_ms: u64, issued: &Issued<'_>) -> Result<(), String> {
        self.from.clear();
        for Run { slab, count, .. } in issued.runs.iter() {
            let pool = self.names.pool_of(slab)?;
            match self.from.iter_mut().find(|(known, _)| *known == pool) {
                Some((_, cards)) => *cards += u64::from(count),
                None => self.from.push((pool, count.into())),
            }
        }
        let came = Came {
            order_id: issued.order_id,
            holder: issued.holder,
            sku: issued.sku,
            cards: issued.quantity,
            fewer: issued.fewer,
            priority: issued.priority,
            lane: issued.lane,
            tag: 0,
        };
        self.count(lsn, unix_ms, &came)
    }

    /// Counts the order; its cards by pool are at hand.
    fn count(&mut self, lsn: u64, unix_ms: u64, came: &Came) -> Result<(), String> {
        if !self.span.has(lsn, unix_ms) {
            return Ok(());
        }
        let (sku, pools) = self.names.sku(came.sku)?;
        let priority = |number: u8| {
            let known = Priority::try_from(number);
            known.map_err(|_| format!("an order of priority or lane {number}"))
        };
        let order = Recorded {
            sku,
            asked: Asked {
                id: came.order_id,
                holder: came.holder,
                sku: came.sku,
                priority: priority(came.priority)?,
                quantity: came.cards.saturating_add(came.fewer),
                tag: came.tag,
            },
            unix_ms,
            cards: came.cards.into(),
            lane: priority(came.lane)?,
            pools,
            from: &self.from,
        };
        self.report.tally.add(self.table, &order);
        self.report.first.get_or_insert((lsn, unix_ms));
        self.report.last = Some((lsn, unix_ms));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{DEFAULT_ROUTES, RouteTable};
    use crate::state::record::{Backordered, Credits, Release, Released, Reserved, Runs};
    use crate::whatif::Count;

    /// SKU 1 has the pools main and vip, with slab 1 in main and slab 3 in vip.
    fn names() -> Names {
        let pools = ["main", "vip"].map(str::to_owned).into();
        Names {
            skus: vec![("s".to_owned(), pools)],
            slabs: vec![None, Some(0), None, Some(1)],
        }
    }

    fn walk(table: &RouteTable, span: Span) -> Walk<'_> {
        Walk {
            table,
            names: names(),
            span,
            from: Vec::new(),
            report: Report::default(),
        }
    }

    fn run(slab: u32, count: u32) -> Run {
        Run {
            slab,
            slot: 0,
            count,
            generation: 0,
        }
    }

    fn issued(way: Way, runs: &[Run]) -> Issued<'_> {
        Issued {
            order_id: 7,
            holder: 0,
            sku: 1,
            principal: 0,
            quantity: runs.iter().map(|run| run.count as u16).sum(),
            priority: 2,
            lane: 1,
            way,
            fewer: 0,
            runs: Runs::Given(runs),
        }
    }

    fn reserved() -> Reserved {
        Reserved {
            order_id: 7,
            holder: 0,
            sku: 1,
            principal: 0,
            quantity: 4,
            priority: 0,
            lane: 0,
            ttl_ms: 9,
            filled: false,
            fewer: 0,
            credits: Credits([(1, 3), (0, 1), (0, 0), (0, 0)]),
            card: None,
        }
    }

    fn waits() -> Backordered {
        Backordered {
            order_id: 7,
            holder: 0,
            sku: 1,
            principal: 0,
            quantity: 5,
            priority: 3,
            lane: 3,
            ttl_ms: 0,
            ends_unix_ms: 9,
            tag: 0,
        }
    }

    fn released() -> Released {
        Released {
            order_id: 7,
            holder: 0,
            sku: 1,
            principal: 0,
            quantity: 4,
            why: Release::Expired,
            was_issue: false,
        }
    }

    fn count(orders: u64, cards: u64) -> Count {
        Count { orders, cards }
    }

    #[test]
    fn an_order_of_the_log_counts_where_it_came() {
        let table = RouteTable::parse(1, DEFAULT_ROUTES).unwrap();
        let mut walk = walk(&table, Span::default());
        let runs = [run(3, 1), run(1, 2), run(3, 4)];
        let bound = Reserved {
            card: Some((1, 0)),
            ..reserved()
        };
        let filled = Reserved {
            filled: true,
            ..reserved()
        };
        let facts = [
            Fact::Issued(issued(Way::Issue, &runs)),
            Fact::Issued(issued(Way::Part, &runs[..1])),
            Fact::Reserved(reserved()),
            Fact::Backordered(waits()),
            // Steps of orders that have come, and what is no order.
            Fact::Issued(issued(Way::Commit, &runs)),
            Fact::Issued(issued(Way::LateCommit, &runs)),
            Fact::Issued(issued(Way::Filled, &runs)),
            Fact::Reserved(filled),
            Fact::Released(released()),
            Fact::SkuCreated { sku: 1, name: "s" },
            Fact::Reserved(bound),
        ];
        for (lsn, fact) in (10..).zip(&facts) {
            walk.logged(lsn, 100 + lsn, fact).unwrap();
        }
        let Report { tally, .. } = &walk.report;
        assert_eq!(tally.all, count(4, 7 + 1 + 4 + 5));
        let before = tally.lanes.map(|lane| lane.before);
        let expect = [count(1, 4), count(2, 8), count(0, 0), count(1, 5)];
        assert_eq!(before, expect);
        // Runs of one pool are one place that an order has its cards from.
        assert_eq!(tally.pools["main"].before, count(2, 3));
        assert_eq!(tally.pools["vip"].before, count(3, 9));
        assert_eq!((walk.report.left_out, walk.report.picked), (0, 1));
        let ends = (walk.report.first, walk.report.last);
        assert_eq!(ends, (Some((10, 110)), Some((13, 113))));
    }

    #[test]
    fn of_what_is_folded_away_only_orders_that_were_dealt_at_once_count() {
        let table = RouteTable::parse(1, DEFAULT_ROUTES).unwrap();
        let mut walk = walk(&table, Span::default());
        let runs = [run(1, 2)];
        let ways = [
            Way::Issue,
            Way::Part,
            Way::Commit,
            Way::LateCommit,
            Way::Filled,
        ];
        for way in ways {
            let ended = Ended::Issued(issued(way, &runs));
            walk.ended(5, 6, &ended).unwrap();
        }
        walk.ended(5, 6, &Ended::Released(released())).unwrap();
        assert_eq!(walk.report.tally.all, count(2, 4));
        // The commit, the one that had waited, and the one that expired; its late commit is a row of the same order.
        assert_eq!(walk.report.left_out, 3);
    }

    #[test]
    fn both_ends_of_a_span_count() {
        let table = RouteTable::parse(1, DEFAULT_ROUTES).unwrap();
        let (lsn, time) = (Point::Lsn, Point::UnixMs);
        for (from, until, orders) in [
            (None, None, 5),
            (Some(lsn(12)), None, 3),
            (None, Some(lsn(12)), 3),
            (Some(lsn(12)), Some(lsn(12)), 1),
            (Some(time(112)), Some(time(113)), 2),
            (Some(lsn(13)), Some(time(112)), 0),
        ] {
            let span = Span { from, until };
            let mut walk = walk(&table, span);
            for at in 10..15 {
                let came = Fact::Backordered(waits());
                walk.logged(at, 100 + at, &came).unwrap();
            }
            assert_eq!(walk.report.tally.all.orders, orders, "{span:?}");
        }
    }

    #[test]
    fn records_that_cannot_be_are_told() {
        let table = RouteTable::parse(1, DEFAULT_ROUTES).unwrap();
        let mut walk = walk(&table, Span::default());
        let (good, bad) = ([run(1, 1)], [run(2, 1)]);
        for (fact, words) in [
            (issued(Way::Issue, &bad), "slab 2, which is not there"),
            (
                Issued {
                    sku: 2,
                    ..issued(Way::Issue, &good)
                },
                "SKU 2, which is not there",
            ),
            (
                Issued {
                    lane: 4,
                    ..issued(Way::Issue, &good)
                },
                "priority or lane 4",
            ),
        ] {
            let error = walk.logged(1, 1, &Fact::Issued(fact)).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        assert_eq!(walk.report, Report::default());
    }
}
