//! Reports for people, on a terminal of usual width.

use std::fmt;

use comfy_table::{CellAlignment, LineStyle, Table as Drawn, TableStyle};

use super::{Latency, OperationReport, RunReport, StepReport};
use crate::run::Mode;
use crate::units::grouped;

/// A table with a header; the first columns hold words, the rest numbers.
#[derive(Debug)]
pub struct Table {
    drawn: Drawn,
    word_columns: usize,
}

impl Table {
    /// An empty table whose first `word_columns` columns are aligned to the left.
    pub fn new<T: ToString>(word_columns: usize, header: impl IntoIterator<Item = T>) -> Self {
        let mut drawn = Drawn::new();
        let line = LineStyle::none().fill('─').junction('─');
        drawn.load_style(TableStyle::new().header_separator(line));
        drawn.set_header(texts(header));
        Self {
            drawn,
            word_columns,
        }
    }

    /// Adds a row.
    pub fn row<T: ToString>(&mut self, cells: impl IntoIterator<Item = T>) -> &mut Self {
        self.drawn.add_row(texts(cells));
        self
    }
}

fn texts<T: ToString>(cells: impl IntoIterator<Item = T>) -> Vec<String> {
    cells.into_iter().map(|cell| cell.to_string()).collect()
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut drawn = self.drawn.clone();
        for column in drawn.column_iter_mut().skip(self.word_columns) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "{}", drawn.trim_fmt())
    }
}

impl fmt::Display for RunReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.header(f)?;
        if self.load.mode == Mode::Sweep {
            self.sweep_table(f)?
        } else {
            self.step_tables(f)?
        }
        self.oracle_lines(f)?;
        let verdict = if self.verdict.pass { "PASS" } else { "FAIL" };
        let limit = self.verdict.p99_max_us.map_or(String::new(), |max| {
            format!(" (P99 ≤ {max:.0} µs, nothing failed)")
        });
        writeln!(f, "{verdict}{limit}")?;
        self.verdict
            .reasons
            .iter()
            .try_for_each(|reason| writeln!(f, "  {reason}"))
    }
}

impl RunReport {
    fn header(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (server, load) = (&self.server, &self.load);
        writeln!(f, "machine     {}", self.machine)?;
        let origin = if server.embedded {
            "started by the bench"
        } else {
            &server.address
        };
        writeln!(
            f,
            "server      croupier {} on {} cores, {origin}",
            server.version, server.cores
        )?;
        write!(f, "durability  {}", server.durability)?;
        match &server.file_system {
            Some(on) if on.durable => writeln!(f, ", on {}", on.kind)?,
            Some(on) => writeln!(
                f,
                ", on {}: IN MEMORY, nothing is durable and no figure of it means anything",
                on.kind
            )?,
            None => writeln!(f)?,
        }
        let pacing = match (load.pipeline, load.arrivals) {
            (Some(pipeline), _) => format!(
                "closed loop, {} connections × pipeline {pipeline}",
                load.connections
            ),
            (None, arrivals) => {
                let arrivals = arrivals.map_or(String::new(), |arrivals| {
                    format!(" ({arrivals:?} arrivals)").to_lowercase()
                });
                format!("open loop{arrivals}, {} connections", load.connections)
            }
        };
        let mix = load.two_phase_ttl_ms.map_or(load.mix.clone(), |ttl_ms| {
            let ttl_s = f64::from(ttl_ms) / 1e3;
            format!("reserve and commit (TTL {ttl_s} s)")
        });
        writeln!(
            f,
            "load        {pacing}, batch {}, quantity {}, {} SKUs (hot share {}), {mix}",
            load.batch, load.quantity, load.skus, load.hot_share
        )?;
        if self.import.cards > 0 {
            let per_s = self.import.cards as f64 / self.import.seconds.max(1e-9);
            let (cards, per_s) = (grouped(self.import.cards), grouped(per_s as u64));
            writeln!(
                f,
                "import      {cards} cards of {} bytes in {:.1} s ({per_s}/s)",
                load.secret_bytes, self.import.seconds
            )?;
        }
        writeln!(f)
    }

    fn step_tables(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            let mut table = Table::new(
                1,
                ["operation", "orders", "orders/s"]
                    .into_iter()
                    .chain(Latency::HEADER),
            );
            for operation in &step.operations {
                table.row(operation_cells(operation));
            }
            writeln!(f, "{table}")?;
            step.lines(f)?;
        }
        Ok(())
    }

    fn sweep_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["rate/s", "operation", "orders", "orders/s"];
        let tail = ["refused", "unanswered", "server cores"];
        let mut table = Table::new(2, head.into_iter().chain(Latency::HEADER).chain(tail));
        for step in &self.steps {
            for operation in &step.operations {
                let mut cells = vec![grouped(step.rate_per_s.unwrap_or(0.0) as u64)];
                cells.extend(operation_cells(operation));
                cells.push(grouped(step.refused.values().sum()));
                cells.push(grouped(step.unanswered));
                cells.push(
                    step.server_cores
                        .map_or("–".into(), |cores| format!("{cores:.2}")),
                );
                table.row(cells);
            }
        }
        writeln!(f, "{table}")
    }

    fn oracle_lines(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let oracle = &self.oracle;
        writeln!(
            f,
            "oracle      {} answers and {} cards judged, {} orders looked up again, {} violations",
            grouped(oracle.orders),
            grouped(oracle.cards),
            grouped(oracle.sampled),
            grouped(oracle.violations)
        )?;
        if oracle.cards_foreign > 0 {
            let foreign = grouped(oracle.cards_foreign);
            writeln!(
                f,
                "            {foreign} cards were older stock: their secrets could only be judged in the sample"
            )?;
        }
        oracle
            .details
            .iter()
            .try_for_each(|detail| writeln!(f, "  violation: {detail}"))
    }
}

impl StepReport {
    fn lines(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refused: Vec<String> = self
            .refused
            .iter()
            .map(|(name, orders)| format!("{} {name}", grouped(*orders)))
            .collect();
        let refused = if refused.is_empty() {
            "none".to_string()
        } else {
            refused.join(", ")
        };
        writeln!(
            f,
            "measured    {:.2} s; refused: {refused}; never answered: {}",
            self.measured_s,
            grouped(self.unanswered)
        )?;
        if self.stock_used_up && self.rate_per_s.is_none() {
            writeln!(f, "            ended early, with the stock used up")?;
        }
        if let Some(late) = self.generator_lateness {
            writeln!(
                f,
                "generator   sent {:.1} µs after the intended time at P50, {:.1} µs at P99 (part of the latencies above)",
                late.p50_us, late.p99_us
            )?;
        }
        write!(f, "cores busy  generator {:.2}", self.generator_cores)?;
        match self.server_cores {
            Some(cores) => writeln!(f, ", server {cores:.2}"),
            None => writeln!(f),
        }
    }
}

fn operation_cells(operation: &OperationReport) -> Vec<String> {
    let mut cells = vec![
        operation.operation.name().to_string(),
        grouped(operation.orders),
        grouped(operation.per_s.round() as u64),
    ];
    cells.extend(operation.latency.cells());
    cells
}
