//! Many open holds that expire while orders are issued: what they take, what they do to the orders, how late they end,
//! and whether every card is where it belongs afterwards.

use std::fmt;
use std::time::{Duration, Instant};

use croupier_protocol::StockRow;
use serde::Serialize;

use super::args::ScaleArgs;
use super::lateness::Lateness;
use super::life::{Life, Load};
use crate::error::BenchError;
use crate::machine::Memory;
use crate::report::{Latency, Table};
use crate::units::grouped;
use crate::workload::Holding;

/// The log has to keep every record until it is read, so nothing of it is folded.
pub const SERVE_ARG: &str = "--checkpoint-segments=1048576";
/// How long after their time the last holds may expire before the bench gives up.
const EXPIRY_TIMEOUT: Duration = Duration::from_secs(60);
/// Beyond the end of the last hold, so that its expiry is within the stretch.
const STRETCH_MARGIN: Duration = Duration::from_millis(100);
/// Orders that an open loop sends more than its rate says, at most.
const ORDERS_MARGIN: u64 = 10_000;
/// Loaded before the orders of the first stretch are counted.
const WARMUP: Duration = Duration::from_secs(1);

/// One number of holds.
#[derive(Debug, Clone, Serialize)]
pub struct HoldsPoint {
    /// Holds made.
    pub size: u64,
    /// How they were made: a closed loop of reserves.
    pub made: Load,
    /// Holds that were open when the last one was made.
    pub open: u64,
    /// The server's memory before the first hold.
    pub memory_before: Memory,
    /// The server's memory when the last one was made.
    pub memory: Memory,
    /// All resident memory for each open hold, by difference.
    pub resident_bytes_each: f64,
    /// The process's own memory for each open hold, by difference.
    pub own_bytes_each: f64,
    /// Orders issued before there was any hold.
    pub before: Load,
    /// Orders issued while holds expired.
    pub during: Load,
    /// Orders issued when all had expired.
    pub after: Load,
    /// How late they expired, from the log.
    pub lateness: Lateness,
    /// The stock in the end.
    pub stock: Stock,
    /// The same after `kill -9` and a start.
    pub stock_recovered: Stock,
    /// Seconds of that start.
    pub recovery_s: f64,
}

/// Where the cards are.
#[derive(Debug, Clone, Serialize)]
pub struct Stock {
    /// Can be had.
    pub free: u64,
    /// Put by.
    pub held: u64,
    /// Dealt, as the server says.
    pub issued: u64,
    /// Out of sale for good.
    pub void: u64,
    /// Ever imported, as the server says.
    pub imported: u64,
    /// All of it is what the bench has imported and was given, and nothing is held.
    pub exact: bool,
}

impl Stock {
    fn new(row: &StockRow, imported: u64, dealt: u64) -> Self {
        let &StockRow {
            free,
            held,
            issued,
            void,
            ..
        } = row;
        Self {
            free,
            held,
            issued,
            void,
            imported: row.imported,
            exact: (held, void) == (0, 0)
                && (row.imported, issued) == (imported, dealt)
                && free + issued == imported,
        }
    }
}

impl HoldsPoint {
    /// What is said while the run goes on.
    pub fn line(&self) -> String {
        format!(
            "{} holds: {}/s made, {:.0} B of memory each, expired {} ms late at P99",
            grouped(self.size),
            grouped(self.made.per_s as u64),
            self.resident_bytes_each,
            self.lateness.p99_ms
        )
    }

    /// True if every hold has expired, none before its time, and no card is missing or twice.
    pub fn pass(&self) -> bool {
        let Lateness {
            reserved,
            expired,
            early,
            unknown,
            ..
        } = self.lateness;
        self.stock.exact
            && self.stock_recovered.exact
            && (reserved, expired) == (self.size, self.size)
            && early + unknown == 0
    }
}

impl fmt::Display for HoldsPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(
            0,
            [
                "holds",
                "made/s",
                "open at once",
                "B a hold",
                "own B a hold",
                "recovery s",
            ],
        );
        table.row([
            grouped(self.size),
            grouped(self.made.per_s as u64),
            grouped(self.open),
            format!("{:.1}", self.resident_bytes_each),
            format!("{:.1}", self.own_bytes_each),
            format!("{:.2}", self.recovery_s),
        ]);
        writeln!(f, "{table}")?;
        let head = ["issued", "orders", "orders/s"];
        let mut table = Table::new(1, head.into_iter().chain(Latency::HEADER));
        for (name, load) in [
            ("before", &self.before),
            ("while holds expire", &self.during),
            ("after", &self.after),
        ] {
            let counts = [
                name.to_string(),
                grouped(load.orders),
                grouped(load.per_s.round() as u64),
            ];
            table.row(counts.into_iter().chain(load.latency.cells()));
        }
        writeln!(f, "{table}")?;
        let late = &self.lateness;
        let mut table = Table::new(
            0,
            [
                "expired",
                "too early",
                "unknown",
                "late by P50 ms",
                "P99 ms",
                "max ms",
            ],
        );
        table.row(
            [
                late.expired,
                late.early,
                late.unknown,
                late.p50_ms,
                late.p99_ms,
                late.max_ms,
            ]
            .map(grouped),
        );
        writeln!(f, "{table}")?;
        let mut table = Table::new(
            1,
            [
                "stock", "free", "held", "issued", "void", "imported", "exact",
            ],
        );
        for (name, stock) in [
            ("in the end", &self.stock),
            ("after kill -9", &self.stock_recovered),
        ] {
            let counts = [
                stock.free,
                stock.held,
                stock.issued,
                stock.void,
                stock.imported,
            ];
            let exact = if stock.exact { "yes" } else { "NO" };
            table.row(
                std::iter::once(name.to_string())
                    .chain(counts.map(grouped))
                    .chain([exact.to_string()]),
            );
        }
        writeln!(f, "{table}")
    }
}

/// How long all holds are made and expire, at most: what the stretch in between needs of orders.
fn expiry_max(args: &ScaleArgs) -> Duration {
    // A server that makes fewer than 50,000 holds a second has longer stretches, and is told so.
    args.hold_ttl_max + Duration::from_secs(20)
}

/// Cards that the holds and the orders beside them need.
pub fn cards_needed(args: &ScaleArgs, size: u64) -> u64 {
    let stretches = WARMUP + 2 * args.duration + expiry_max(args);
    size + (args.hold_rate * stretches.as_secs_f64()) as u64 + 3 * ORDERS_MARGIN
}

/// Measures a store that has just been made.
pub fn measure(life: &mut Life, args: &ScaleArgs, size: u64) -> Result<HoldsPoint, BenchError> {
    life.stock_up()?;
    // Started anew, so that what the import has left in the allocator is not taken for holds.
    life.restart()?;
    let before = life.issue_at(args.hold_rate, WARMUP, args.duration)?;

    let memory_before = life.memory();
    let begun = Instant::now();
    let holding = Holding {
        ttl_ms_min: args.hold_ttl_min.as_millis() as u32,
        ttl_ms_max: args.hold_ttl_max.as_millis() as u32,
        commit: false,
    };
    let made = life.hold(size, holding)?;
    let memory = life.memory();
    let open = life.stock_row()?.held;
    let last_end = begun.elapsed() + args.hold_ttl_max + STRETCH_MARGIN;

    let until_first = args.hold_ttl_min.saturating_sub(begun.elapsed());
    let expiring = last_end.saturating_sub(begun.elapsed() + until_first);
    let during = life.issue_at(args.hold_rate, until_first, expiring)?;
    await_expiry(life)?;
    let after = life.issue_at(args.hold_rate, Duration::ZERO, args.duration)?;

    let imported = life.imported().cards;
    let dealt = life.cards_judged();
    let stock = Stock::new(&life.stock_row()?, imported, dealt);
    let lateness = life.crash_and_read(Lateness::read)?;
    let recovery_s = life.start()?;
    let stock_recovered = Stock::new(&life.stock_row()?, imported, dealt);
    let each = |more: u64, less: u64| (more as f64 - less as f64) / open.max(1) as f64;
    Ok(HoldsPoint {
        size,
        resident_bytes_each: each(memory.resident_bytes, memory_before.resident_bytes),
        own_bytes_each: each(memory.anonymous_bytes, memory_before.anonymous_bytes),
        made,
        open,
        memory_before,
        memory,
        before,
        during,
        after,
        lateness,
        stock,
        stock_recovered,
        recovery_s,
    })
}

fn await_expiry(life: &Life) -> Result<(), BenchError> {
    let deadline = Instant::now() + EXPIRY_TIMEOUT;
    while life.stock_row()?.held > 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
