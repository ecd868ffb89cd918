//! `croupier-bench scale`: what becomes of rate, latency, memory, starts and recovery as a store grows.
//!
//! One thing grows at a time (cards, orders, SKUs, connections), all else stays. Every point goes through a store's
//! whole life: stocked, loaded, stopped, started, killed, started. The oracle judges every answer as in `run`.

mod args;
mod holds;
mod lanes;
mod lateness;
mod life;
mod plot;
mod points;
mod report;
mod room;

use std::path::PathBuf;

pub use args::{Axis, ScaleArgs};
pub use plot::draw;
pub use report::ScaleReport;

use croupier_protocol::Priority;

use crate::embedded::directory_default;
use crate::error::BenchError;
use crate::machine::{FileSystem, Machine};

use args::CONNECTIONS;
use life::Life;
use room::Need;

/// Orders a second that no store of today exceeds: what a measurement may need of stock.
const ORDERS_PER_S_MAX: f64 = 4e6;

/// Measures all points of all axes that the flags name.
pub fn run(args: &ScaleArgs) -> Result<ScaleReport, BenchError> {
    args.check()?;
    let mut scale = Scale::new(args);
    for axis in Axis::ALL {
        match axis {
            _ if !args.axes.contains(&axis) => {}
            Axis::Holds => scale.holds()?,
            Axis::Lanes => scale.lanes()?,
            _ => scale.along(axis)?,
        }
    }
    Ok(scale.report)
}

struct Scale<'a> {
    args: &'a ScaleArgs,
    directory: PathBuf,
    report: ScaleReport,
}

impl<'a> Scale<'a> {
    fn new(args: &'a ScaleArgs) -> Self {
        let directory = args.dir.clone().unwrap_or_else(directory_default);
        let report = ScaleReport {
            machine: Machine::detect(),
            file_system: FileSystem::of(&directory),
            engine: String::new(),
            duration_s: args.duration.as_secs_f64(),
            in_flight: args.in_flight,
            stock: args.stock,
            secret_bytes: args.secret_bytes,
            points: Vec::new(),
            holds: Vec::new(),
            lanes: Vec::new(),
            left_out: Vec::new(),
            oracle: Default::default(),
        };
        Self {
            args,
            directory,
            report,
        }
    }

    /// A store of its own for each size: every point begins with a new one.
    fn along(&mut self, axis: Axis) -> Result<(), BenchError> {
        for size in self.args.sizes(axis) {
            if !self.has_room(axis, size) {
                continue;
            }
            let (skus, stock) = match axis {
                Axis::Cards => (1, size),
                Axis::Skus => (size as u32, self.args.stock),
                _ => (1, self.args.stock),
            };
            let mut life = Life::begin(self.args, skus, stock)?;
            let point = points::measure(&mut life, self.args, axis, size);
            let mut point = life.explain(point)?;
            point.set_bytes_each(&self.report.points);
            eprintln!("{}", point.line());
            self.report.points.push(point);
            self.report.engine = life.engine().to_string();
            self.report.judge(life.end()?);
        }
        Ok(())
    }

    /// A store of its own for each number of holds, whose log stays whole.
    fn holds(&mut self) -> Result<(), BenchError> {
        let mut args = self.args.clone();
        args.serve_arg.push(holds::SERVE_ARG.into());
        for size in args.sizes(Axis::Holds) {
            if !self.has_room(Axis::Holds, size) {
                continue;
            }
            let mut life = Life::begin(&args, 1, holds::cards_needed(&args, size))?;
            let point = holds::measure(&mut life, &args, size);
            let point = life.explain(point)?;
            eprintln!("{}", point.line());
            self.report.holds.push(point);
            self.report.engine = life.engine().to_string();
            self.report.judge(life.end()?);
        }
        Ok(())
    }

    /// A store of its own for each rate of the highest priority.
    fn lanes(&mut self) -> Result<(), BenchError> {
        for size in self.args.sizes(Axis::Lanes) {
            if !self.has_room(Axis::Lanes, size) {
                continue;
            }
            let mut life = Life::begin(self.args, 1, self.args.stock)?;
            let point = lanes::measure(&mut life, self.args, size);
            let point = life.explain(point)?;
            eprintln!("{}", point.line());
            self.report.lanes.push(point);
            self.report.engine = life.engine().to_string();
            self.report.judge(life.end()?);
        }
        Ok(())
    }

    /// Whether the machine has room for a point; one that it has none for is named.
    fn has_room(&mut self, axis: Axis, size: u64) -> bool {
        let Some(why) = self.need(axis, size).missing(&self.directory) else {
            return true;
        };
        let line = format!("{} left out: {why}", report::sized(axis, size));
        eprintln!("{line}");
        self.report.left_out.push(line);
        false
    }

    fn need(&self, axis: Axis, size: u64) -> Need {
        let seconds = 2.0 * self.args.duration.as_secs_f64() + 1.0;
        let measured = (seconds * ORDERS_PER_S_MAX) as u64;
        let need = Need {
            cards: self.args.stock + measured,
            secret_bytes: self.args.secret_bytes,
            orders: measured,
            connections: CONNECTIONS.into(),
            skus: 1,
        };
        match axis {
            Axis::Cards => Need {
                cards: size + measured,
                ..need
            },
            Axis::Orders => Need {
                cards: size + need.cards,
                orders: size + measured,
                ..need
            },
            Axis::Skus => Need { skus: size, ..need },
            Axis::Connections => Need {
                connections: size,
                ..need
            },
            Axis::Lanes => {
                let cards = lanes::cards_needed(self.args);
                Need {
                    cards,
                    orders: cards,
                    connections: u64::from(CONNECTIONS) * Priority::ALL.len() as u64,
                    ..need
                }
            }
            Axis::Holds => {
                let cards = holds::cards_needed(self.args, size);
                Need {
                    cards,
                    orders: size + cards,
                    ..need
                }
            }
        }
    }
}
