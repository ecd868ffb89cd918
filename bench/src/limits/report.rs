//! The limits as figures, and as tables for people.

use std::fmt;

use serde::Serialize;

use super::durable_file::SyncMethod;
use super::sync::{SMALLEST_BYTES, SyncRow};
use super::toy_contender::Toy;
use crate::contest::{Croupier, Shape, Standing};
use crate::machine::{FileSystem, Machine};
use crate::report::{Latency, Table};
use crate::units::{grouped, micros};

/// What the machine can do, and what the engine makes of it.
#[derive(Debug, Serialize)]
pub struct LimitsReport {
    /// Where.
    pub machine: Machine,
    /// What the files lay on.
    pub file_system: FileSystem,
    /// Durable writes by size and method.
    pub sync: Vec<SyncRow>,
    /// The better method: what the committing toy used.
    pub method: SyncMethod,
    /// One byte there and back.
    pub loopback: Latency,
    /// Version and durability mode of the engine, if it took part.
    pub engine: Option<String>,
    /// Why it did not.
    pub engine_skipped: Option<String>,
    /// Every server in every shape.
    pub standings: Vec<Standing>,
}

impl LimitsReport {
    /// One durable write of the smallest size and one round trip: the least one order at a time can take.
    pub fn least_order_us(&self) -> Option<f64> {
        let smallest = |row: &&SyncRow| row.bytes == SMALLEST_BYTES && row.method == self.method;
        Some(self.sync.iter().find(smallest)?.latency.p50_us + self.loopback.p50_us)
    }

    fn shapes(&self) -> Vec<Shape> {
        let mut shapes = Vec::new();
        for standing in &self.standings {
            if !shapes.contains(&standing.shape) {
                shapes.push(standing.shape);
            }
        }
        shapes
    }
}

impl fmt::Display for LimitsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "machine     {}", self.machine)?;
        let memory = if self.file_system.durable {
            ""
        } else {
            ": IN MEMORY, nothing is durable there"
        };
        writeln!(f, "files on    {}{memory}", self.file_system.kind)?;
        match (&self.engine, &self.engine_skipped) {
            (Some(engine), _) => writeln!(f, "engine      {engine}\n")?,
            (None, reason) => writeln!(
                f,
                "engine      left out: {}\n",
                reason.as_deref().unwrap_or("not asked for")
            )?,
        }

        writeln!(f, "One durable write into a zero-written file:\n")?;
        let mut table = Table::new(
            1,
            ["method", "KiB", "writes"]
                .into_iter()
                .chain(Latency::HEADER),
        );
        for row in &self.sync {
            let mut cells = vec![
                row.method.name().to_string(),
                (row.bytes >> 10).to_string(),
                grouped(row.writes),
            ];
            cells.extend(row.latency.cells());
            table.row(cells);
        }
        writeln!(f, "{table}")?;

        writeln!(f, "One byte over the loopback and back:\n")?;
        let mut table = Table::new(0, Latency::HEADER);
        table.row(self.loopback.cells());
        writeln!(f, "{table}")?;

        writeln!(
            f,
            "Servers, closed loop, one order a frame, medians of the rounds (connections × pipeline):\n"
        )?;
        let header = [
            "shape",
            "server",
            "orders/s",
            "P50 µs",
            "P99 µs",
            "server cores",
            "of frames",
            "of frames + commit",
        ];
        let mut table = Table::new(2, header);
        for standing in &self.standings {
            table.row(self.server_cells(standing));
        }
        writeln!(f, "{table}")?;
        self.lone_order(f)
    }
}

impl LimitsReport {
    fn server_cells(&self, standing: &Standing) -> Vec<String> {
        let share = |of: &str| {
            let whole = Standing::find(&self.standings, of, standing.shape)?;
            Some(format!("{:.0} %", 100.0 * standing.per_s / whole.per_s))
        };
        let us = |us: f64| micros((us * 1e3) as u64);
        vec![
            standing.shape.to_string(),
            standing.name.clone(),
            grouped(standing.per_s as u64),
            us(standing.p50_us),
            us(standing.p99_us),
            standing
                .server_cores
                .map_or("–".into(), |cores| format!("{cores:.2}")),
            share(Toy::FRAMES).unwrap_or_else(|| "–".into()),
            share(Toy::FRAMES_AND_COMMITS)
                .filter(|_| standing.name != Toy::FRAMES)
                .unwrap_or_else(|| "–".into()),
        ]
    }

    /// The engine's latency of one order at a time, against what it cannot avoid.
    fn lone_order(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let alone = self
            .shapes()
            .into_iter()
            .find(|shape| shape.connections == 1 && shape.pipeline == 1);
        let engine = alone.and_then(|shape| Standing::find(&self.standings, Croupier::NAME, shape));
        let (Some(engine), Some(least_us)) = (engine, self.least_order_us()) else {
            return Ok(());
        };
        writeln!(
            f,
            "one order at a time: {:.1} µs, {:.2} × (durable write of {} KiB + round trip = {least_us:.1} µs)",
            engine.p50_us,
            engine.p50_us / least_us,
            SMALLEST_BYTES >> 10
        )
    }
}
