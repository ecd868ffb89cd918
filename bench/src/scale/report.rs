//! How a store scales, as figures and as tables for people.

use std::fmt;

use serde::Serialize;

use super::args::Axis;
use super::holds::HoldsPoint;
use super::lanes::LanesPoint;
use super::life::{Load, Recovery, Restart};
use crate::machine::{FileSystem, Machine, Memory};
use crate::oracle::{OracleReport, VIOLATIONS_LISTED_MAX};
use crate::report::{ImportReport, Table};
use crate::units::{grouped, micros};

/// All points of all axes.
#[derive(Debug, Serialize)]
pub struct ScaleReport {
    /// Where.
    pub machine: Machine,
    /// What the stores lay on.
    pub file_system: FileSystem,
    /// Version and durability mode of the server.
    pub engine: String,
    /// Length of each measurement.
    pub duration_s: f64,
    /// Orders in flight over all connections.
    pub in_flight: u32,
    /// Cards in stock where something else is scaled.
    pub stock: u64,
    /// Bytes of a secret.
    pub secret_bytes: u16,
    /// By axis, ascending.
    pub points: Vec<Point>,
    /// By the number of holds, ascending.
    pub holds: Vec<HoldsPoint>,
    /// By the rate of the highest priority, ascending.
    pub lanes: Vec<LanesPoint>,
    /// Points that the machine has no room for, and why.
    pub left_out: Vec<String>,
    /// The judges' words, all points together.
    pub oracle: OracleReport,
}

/// One size on one axis.
#[derive(Debug, Clone, Serialize)]
pub struct Point {
    /// What is scaled.
    pub axis: Axis,
    /// How much of it there was when the load began.
    pub size: u64,
    /// The load.
    pub load: Load,
    /// The import of the stock, where it is measured.
    pub import: Option<ImportReport>,
    /// The server's memory before the load, freshly started (with all connections open, where these are scaled).
    pub memory: Memory,
    /// The server's memory after the load; for orders, before the start.
    pub memory_loaded: Memory,
    /// The process's own memory for each card, order, SKU or connection, by difference to the first point of the axis.
    pub bytes_each: Option<f64>,
    /// A stop in good order and the start after it, with this much stock or this many orders.
    pub restart: Option<Restart>,
    /// The stop that folds the orders of the load.
    pub fold: Option<Restart>,
    /// A crash and the start after it.
    pub recovery: Option<Recovery>,
}

/// A size with its unit.
pub fn sized(axis: Axis, size: u64) -> String {
    format!("{} {}", grouped(size), axis.name())
}

fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

/// Something that is not measured on every axis.
fn cell<T>(figure: Option<T>, text: impl Fn(T) -> String) -> String {
    figure.map_or("–".into(), text)
}

impl Point {
    /// A point of which only the load is known yet.
    pub fn new(axis: Axis, size: u64, load: Load) -> Self {
        Self {
            axis,
            size,
            load,
            import: None,
            memory: Memory::default(),
            memory_loaded: Memory::default(),
            bytes_each: None,
            restart: None,
            fold: None,
            recovery: None,
        }
    }

    /// Compares the memory with that of the first point of the axis.
    pub fn set_bytes_each(&mut self, earlier: &[Self]) {
        self.bytes_each = earlier
            .iter()
            .find(|point| point.axis == self.axis)
            .map(|first| {
                let more = self.memory.anonymous_bytes as f64 - first.memory.anonymous_bytes as f64;
                more / (self.size - first.size).max(1) as f64
            });
    }

    /// What is said while the run goes on.
    pub fn line(&self) -> String {
        format!(
            "{}: {} orders/s, P99 {} µs, {} MiB resident",
            sized(self.axis, self.size),
            grouped(self.load.per_s as u64),
            us(self.load.latency.p99_us),
            mib(self.memory.resident_bytes)
        )
    }

    fn cells(&self, first: &Self) -> Vec<String> {
        let ms = |seconds: f64| format!("{:.0}", seconds * 1e3);
        vec![
            grouped(self.size),
            grouped(self.load.per_s as u64),
            format!("{:.0} %", 100.0 * self.load.per_s / first.load.per_s),
            us(self.load.latency.p50_us),
            us(self.load.latency.p99_us),
            mib(self.memory.resident_bytes),
            mib(self.memory.anonymous_bytes),
            cell(self.bytes_each, |bytes| format!("{bytes:.2}")),
            cell(self.restart.as_ref(), |restart| ms(restart.start_s)),
        ]
    }

    fn life_cells(&self) -> Vec<String> {
        let (fold, recovery) = (self.fold.as_ref(), self.recovery.as_ref());
        let seconds = |seconds: f64| format!("{seconds:.2}");
        vec![
            grouped(self.size),
            cell(self.import.as_ref(), |import| {
                grouped((import.cards as f64 / import.seconds.max(1e-9)) as u64)
            }),
            cell(fold, |fold| seconds(fold.stop_s)),
            cell(fold, |fold| mib(fold.checkpoint_bytes)),
            cell(fold, |fold| mib(fold.order_bytes)),
            cell(recovery, |recovery| seconds(recovery.start_s)),
            cell(recovery, |recovery| grouped(recovery.checkpoint_orders)),
            cell(recovery, |recovery| grouped(recovery.records)),
            cell(recovery, |recovery| grouped(recovery.records_per_s as u64)),
        ]
    }
}

fn us(us: f64) -> String {
    micros((us * 1e3) as u64)
}

impl ScaleReport {
    /// True if the oracle found nothing, all holds came to their end, and no lane starved.
    pub fn pass(&self) -> bool {
        self.oracle.violations == 0
            && self.holds.iter().all(HoldsPoint::pass)
            && self.lanes.iter().all(LanesPoint::pass)
    }

    /// Adds what one store's oracle has found.
    pub fn judge(&mut self, oracle: OracleReport) {
        let all = &mut self.oracle;
        all.orders += oracle.orders;
        all.cards += oracle.cards;
        all.cards_foreign += oracle.cards_foreign;
        all.sampled += oracle.sampled;
        all.violations += oracle.violations;
        all.details.extend(oracle.details);
        all.details.truncate(VIOLATIONS_LISTED_MAX);
    }

    /// The points of one axis.
    pub fn along(&self, axis: Axis) -> Vec<&Point> {
        let points = self.points.iter();
        points.filter(|point| point.axis == axis).collect()
    }

    fn axis(&self, f: &mut fmt::Formatter<'_>, axis: Axis) -> fmt::Result {
        let points = self.along(axis);
        let Some(first) = points.first() else {
            return Ok(());
        };
        let each = match axis {
            Axis::Cards => "B a card",
            Axis::Orders => "B an order",
            Axis::Skus => "B a SKU",
            Axis::Connections => "B a connection",
            Axis::Holds | Axis::Lanes => unreachable!("they have points of another kind"),
        };
        let mut table = Table::new(
            0,
            [
                axis.name(),
                "orders/s",
                "of the first",
                "P50 µs",
                "P99 µs",
                "RSS MiB",
                "own MiB",
                each,
                "start ms",
            ],
        );
        for point in &points {
            table.row(point.cells(first));
        }
        writeln!(f, "{table}")?;
        if axis == Axis::Connections {
            return Ok(());
        }
        let mut table = Table::new(
            0,
            [
                axis.name(),
                "import/s",
                "fold s",
                "checkpoint MiB",
                "orders MiB",
                "recovery s",
                "orders read",
                "records read",
                "records/s",
            ],
        );
        for point in &points {
            table.row(point.life_cells());
        }
        writeln!(f, "{table}")
    }
}

impl fmt::Display for ScaleReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "machine     {}", self.machine)?;
        let memory = if self.file_system.durable {
            ""
        } else {
            ": IN MEMORY, nothing is durable there"
        };
        writeln!(
            f,
            "server      {}, on {}{memory}",
            self.engine, self.file_system.kind
        )?;
        writeln!(
            f,
            "load        closed loop, {} orders in flight, {} s for each figure, {} cards of {} bytes unless cards are scaled\n",
            grouped(self.in_flight.into()),
            self.duration_s,
            grouped(self.stock),
            self.secret_bytes
        )?;
        for axis in Axis::ALL {
            self.axis(f, axis)?;
        }
        self.holds
            .iter()
            .try_for_each(|point| write!(f, "{point}"))?;
        self.lanes
            .iter()
            .try_for_each(|point| write!(f, "{point}"))?;
        self.left_out
            .iter()
            .try_for_each(|line| writeln!(f, "{line}"))?;
        writeln!(
            f,
            "oracle      {} answers judged, {} orders looked up again, {} violations",
            grouped(self.oracle.orders),
            grouped(self.oracle.sampled),
            grouped(self.oracle.violations)
        )?;
        self.oracle
            .details
            .iter()
            .try_for_each(|detail| writeln!(f, "  violation: {detail}"))
    }
}
