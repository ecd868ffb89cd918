//! One store and its life: stocked, loaded, stopped, started, killed, started; with what each of it cost.

use std::fs;
use std::io::BufReader;
use std::path::Path;
use std::process::ChildStdout;
use std::rc::Rc;
use std::time::Duration;

use croupier_protocol::StockRow;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::args::ScaleArgs;
use crate::contest::settle;
use crate::driver::Pacing;
use crate::embedded::EmbeddedServer;
use crate::error::BenchError;
use crate::machine::{Memory, memory_of};
use crate::oracle::OracleReport;
use crate::recorder::latency_histogram;
use crate::report::{ImportReport, Latency, StepReport};
use crate::run::{RunArgs, Session, Step, Stream, Target};
use crate::schedule::Arrivals;
use crate::workload::Holding;

/// A large store takes its time to be folded, and to be read again.
const LIFE_TIMEOUT: Duration = Duration::from_secs(600);
/// Loaded before every measurement, and not counted.
const WARMUP: Duration = Duration::from_millis(300);
/// A stock that is used up quickly is filled up so often at most.
const ROUNDS_MAX: usize = 12;

/// A served store, and the session that loads it.
#[derive(Debug)]
pub struct Life {
    // Before the server: its connections end first.
    session: Session,
    server: EmbeddedServer,
    duration: Duration,
    stock: u64,
    engine: String,
}

/// What a load came to.
#[derive(Debug, Clone, Serialize)]
pub struct Load {
    /// Orders answered with cards.
    pub orders: u64,
    /// Seconds they took.
    pub measured_s: f64,
    /// The same, a second.
    pub per_s: f64,
    /// From sending to answer, with all that was in flight before it.
    pub latency: Latency,
    /// Cores that the server kept busy.
    pub server_cores: Option<f64>,
}

/// A stop in good order, and the start after it.
#[derive(Debug, Clone, Serialize)]
pub struct Restart {
    /// From the signal to the end of the process: the log is folded into a checkpoint, and the digests are compared.
    pub stop_s: f64,
    /// From the start of the process to its first answer.
    pub start_s: f64,
    /// What the checkpoint takes on the disk, without the orders.
    pub checkpoint_bytes: u64,
    /// What the order files take.
    pub order_bytes: u64,
    /// What the slabs take.
    pub slab_bytes: u64,
}

/// A crash, and the start after it.
#[derive(Debug, Clone, Serialize)]
pub struct Recovery {
    /// From the start of the process to its first answer.
    pub start_s: f64,
    /// Orders read from order files, as the server says.
    pub checkpoint_orders: u64,
    /// Records read from the log, as the server says.
    pub records: u64,
    /// Seconds that reading both took, as the server says.
    pub took_s: f64,
    /// Both, a second.
    pub records_per_s: f64,
}

impl Life {
    /// Makes a store and serves it. Nothing is in it.
    pub fn begin(args: &ScaleArgs, skus: u32, stock: u64) -> Result<Self, BenchError> {
        let server = EmbeddedServer::start(&args.server().embedded())?;
        let mut load = RunArgs::for_contest(args.server(), args.secret_bytes);
        (load.skus, load.seed) = (skus, args.seed);
        load.connections = Some(super::args::CONNECTIONS);
        load.pipeline = Some(args.pipeline(super::args::CONNECTIONS));
        load.cards = Some(stock);
        let target = Rc::new(Target::lent(&server));
        let info = target.control()?.server_info()?;
        let session = Session::open(load, target)?;
        Ok(Self {
            session,
            server,
            duration: args.duration,
            stock,
            engine: format!("croupier {}, {}", info.version, info.sync),
        })
    }

    /// Version and durability mode.
    pub fn engine(&self) -> &str {
        &self.engine
    }

    /// The server's last words go with an error that happened in its presence.
    pub fn explain<T>(&self, result: Result<T, BenchError>) -> Result<T, BenchError> {
        if result.is_err() {
            eprintln!("the server said: {}", self.server.last_words());
        }
        result
    }

    /// Imports the stock, spread over all SKUs.
    pub fn stock_up(&mut self) -> Result<(), BenchError> {
        self.session.stock_up()
    }

    /// All imports so far.
    pub fn imported(&self) -> ImportReport {
        self.session.imported()
    }

    /// The server's memory just now.
    pub fn memory(&self) -> Memory {
        memory_of(self.server.pid()).unwrap_or_default()
    }

    /// The server's memory while so many connections do nothing.
    pub fn memory_with_idle(&self, connections: u32) -> Result<Memory, BenchError> {
        let idle = Target::lent(&self.server).streams(connections as usize)?;
        let memory = self.memory();
        drop(idle);
        Ok(memory)
    }

    /// From now on the load comes over so many connections.
    pub fn reshape(&mut self, connections: u32, pipeline: u32) {
        self.session.reshape(connections, pipeline);
    }

    /// Deals so many orders of the only SKU, as fast as it goes.
    pub fn deal(&mut self, orders: u64) -> Result<(), BenchError> {
        if orders == 0 {
            return Ok(());
        }
        self.session.top_up(orders)?;
        let until_used_up = Step {
            pacing: Pacing::Closed,
            warmup: Duration::ZERO,
            duration: LIFE_TIMEOUT,
        };
        self.checked(until_used_up).map(|_| ())
    }

    /// Loads the store with its usual stock; a small one is filled up and loaded again until it has been long enough.
    pub fn load(&mut self, one_sku: bool) -> Result<Load, BenchError> {
        let step = |warmup, duration| Step {
            pacing: Pacing::Closed,
            warmup,
            duration,
        };
        if one_sku {
            // A round of its own, so that not half of a small stock is spent before anything is counted.
            self.session.top_up(self.stock)?;
            self.checked(step(Duration::ZERO, WARMUP))?;
        }
        let warmup = if one_sku { Duration::ZERO } else { WARMUP };
        let mut histogram: Histogram<u64> = latency_histogram();
        let (mut orders, mut seconds, mut cores) = (0, 0.0, Vec::new());
        for _ in 0..ROUNDS_MAX {
            if one_sku {
                self.session.top_up(self.stock)?;
            }
            settle();
            let left = self.duration.as_secs_f64() - seconds;
            let round = self.checked(step(warmup, Duration::from_secs_f64(left.max(0.01))))?;
            orders += round.orders;
            seconds += round.measured_s;
            cores.extend(round.server_cores);
            histogram
                .add(&round.histogram)
                .expect("both have the same bounds");
            if !one_sku || seconds >= self.duration.as_secs_f64() * 0.98 {
                break;
            }
        }
        Ok(Load {
            orders,
            measured_s: seconds,
            per_s: orders as f64 / seconds,
            latency: Latency::of(&histogram),
            server_cores: (!cores.is_empty()).then(|| crate::contest::median(cores)),
        })
    }

    /// Issues orders at a steady rate, whatever the answers do.
    pub fn issue_at(
        &mut self,
        orders_per_s: f64,
        warmup: Duration,
        duration: Duration,
    ) -> Result<Load, BenchError> {
        self.session.hold(None);
        let report = self.session.step(Step {
            pacing: Pacing::Open {
                orders_per_s,
                arrivals: Arrivals::Constant,
            },
            warmup,
            duration,
        })?;
        if report.stock_used_up {
            return Err(BenchError::Unexpected {
                request: "Issue",
                detail: "the stock was used up: the holds were made too slowly".into(),
            });
        }
        granted(report).map(Load::of)
    }

    /// Imports as many cards of the only SKU as are missing from `cards`.
    pub fn top_up(&mut self, cards: u64) -> Result<(), BenchError> {
        self.session.top_up(cards)
    }

    /// Several loads of issues at the same time, none of which may come to the end of the stock.
    pub fn load_at_once(&mut self, streams: &[Stream]) -> Result<Vec<Granted>, BenchError> {
        self.session.hold(None);
        let reports = self.session.steps_at_once(streams)?;
        if reports.iter().any(|report| report.stock_used_up) {
            return Err(BenchError::Unexpected {
                request: "Issue",
                detail: "the stock was used up before the loads had ended".into(),
            });
        }
        reports.into_iter().map(granted).collect()
    }

    /// Makes so many holds, as fast as it goes, and leaves them to themselves.
    pub fn hold(&mut self, orders: u64, holding: Holding) -> Result<Load, BenchError> {
        self.session.hold(Some(holding));
        let until_all_are_made = Step {
            pacing: Pacing::Closed,
            warmup: Duration::ZERO,
            duration: LIFE_TIMEOUT,
        };
        let report = self.session.step_of(until_all_are_made, orders)?;
        granted(report).map(Load::of)
    }

    /// Counts of the only SKU's cards.
    pub fn stock_row(&self) -> Result<StockRow, BenchError> {
        let rows = Target::lent(&self.server).control()?.stock()?;
        rows.into_iter()
            .next()
            .ok_or_else(|| BenchError::Unexpected {
                request: "Stock",
                detail: "there is no SKU".into(),
            })
    }

    /// Cards that orders were answered with so far.
    pub fn cards_judged(&self) -> u64 {
        self.session.cards_judged()
    }

    /// Kills the server and reads its log.
    pub fn crash_and_read<T>(
        &mut self,
        read: impl FnOnce(BufReader<ChildStdout>) -> Result<T, BenchError>,
    ) -> Result<T, BenchError> {
        self.server.kill();
        self.server.dump_log(read)
    }

    /// One stretch of issues; refusals and silences are errors.
    fn checked(&mut self, step: Step) -> Result<Granted, BenchError> {
        granted(self.session.step(step)?)
    }

    /// Stops in good order and starts again.
    pub fn restart(&mut self) -> Result<Restart, BenchError> {
        let stop_s = self.server.stop(LIFE_TIMEOUT)?.as_secs_f64();
        let data = self.server.data();
        let (checkpoint_bytes, order_bytes, slab_bytes) = (
            bytes_below(&data.join("checkpoints")),
            bytes_below(&data.join("orders")),
            bytes_below(&data.join("slabs")),
        );
        let start_s = self.start()?;
        Ok(Restart {
            stop_s,
            start_s,
            checkpoint_bytes,
            order_bytes,
            slab_bytes,
        })
    }

    /// Kills the server and starts it again.
    pub fn crash(&mut self) -> Result<Recovery, BenchError> {
        self.server.kill();
        let start_s = self.start()?;
        let log = self.server.log();
        let said = Recovered::read(&log).ok_or_else(|| BenchError::Unexpected {
            request: "a start after a crash",
            detail: "the server's log does not say what it recovered".into(),
        })?;
        let read = said.records + said.checkpoint_orders;
        Ok(Recovery {
            start_s,
            checkpoint_orders: said.checkpoint_orders,
            records: said.records,
            took_s: said.took_s,
            records_per_s: read as f64 / said.took_s.max(1e-9),
        })
    }

    /// Starts the server again; returns the seconds until its first answer.
    pub fn start(&mut self) -> Result<f64, BenchError> {
        let took = self.server.serve(LIFE_TIMEOUT)?;
        self.session.follow(Rc::new(Target::lent(&self.server)))?;
        Ok(took.as_secs_f64())
    }

    /// Looks the sampled orders up, and hands over what the oracle has found.
    pub fn end(mut self) -> Result<OracleReport, BenchError> {
        self.session.look_samples_up()
    }
}

/// What a stretch without refusals and silences came to.
pub struct Granted {
    /// Orders answered with cards.
    pub orders: u64,
    /// Seconds they took.
    pub measured_s: f64,
    /// Cores that the server kept busy.
    pub server_cores: Option<f64>,
    /// Nanoseconds from the intended time, or the sending, to the answer.
    pub histogram: Histogram<u64>,
    /// By how much the generator was late at P99; open loops only.
    pub sent_late_p99_us: Option<f64>,
}

impl Granted {
    /// Orders a second.
    pub fn per_s(&self) -> f64 {
        self.orders as f64 / self.measured_s
    }
}

/// Refusals and silences are errors.
fn granted(report: StepReport) -> Result<Granted, BenchError> {
    let refused: u64 = report.refused.values().sum();
    match report.operations.into_iter().next() {
        Some(operation) if refused == 0 && report.unanswered == 0 => Ok(Granted {
            orders: operation.orders,
            measured_s: report.measured_s,
            server_cores: report.server_cores,
            histogram: operation.histogram,
            sent_late_p99_us: report.generator_lateness.map(|late| late.p99_us),
        }),
        _ => Err(BenchError::Unexpected {
            request: "a load",
            detail: format!(
                "orders refused: {:?}, never answered: {}",
                report.refused, report.unanswered
            ),
        }),
    }
}

impl Load {
    /// Its figures.
    pub fn of(granted: Granted) -> Self {
        Self {
            orders: granted.orders,
            measured_s: granted.measured_s,
            per_s: granted.orders as f64 / granted.measured_s,
            latency: Latency::of(&granted.histogram),
            server_cores: granted.server_cores,
        }
    }
}

/// What a server says of its recovery: `recovered records=1 checkpoint_orders=2 … took=3ms`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Recovered {
    records: u64,
    checkpoint_orders: u64,
    took_s: f64,
}

impl Recovered {
    fn read(log: &str) -> Option<Self> {
        let line = log
            .lines()
            .find(|line| line.contains("recovered records="))?;
        let field = |name: &str| {
            line.split_whitespace()
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        };
        Some(Self {
            records: field("records")?.parse().ok()?,
            checkpoint_orders: field("checkpoint_orders")?.parse().ok()?,
            took_s: seconds_of(field("took")?)?,
        })
    }
}

/// Reads a duration as Rust's `Debug` writes it: `1.5s`, `20ms`, `7.1µs`, `9ns`.
fn seconds_of(text: &str) -> Option<f64> {
    let unit = text.find(|c: char| c != '.' && !c.is_ascii_digit())?;
    let scale = match &text[unit..] {
        "s" => 1.0,
        "ms" => 1e-3,
        "µs" => 1e-6,
        "ns" => 1e-9,
        _ => return None,
    };
    Some(text[..unit].parse::<f64>().ok()? * scale)
}

/// Bytes of the files directly in a directory.
fn bytes_below(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    entries
        .filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_words_are_understood() {
        let log = "2026-01-01T00:00:00Z  INFO croupier::cli: recovered records=12 checkpoint_orders=3000 \
                   torn_bytes=0 took=1.5ms\n";
        let expected = Recovered {
            records: 12,
            checkpoint_orders: 3000,
            took_s: 0.0015,
        };
        assert_eq!(Recovered::read(log), Some(expected));
        assert_eq!(Recovered::read("listening"), None);
    }

    #[test]
    fn durations_of_the_log() {
        for (text, seconds) in [
            ("2s", 2.0),
            ("1.25ms", 0.00125),
            ("30µs", 3e-5),
            ("7ns", 7e-9),
        ] {
            let read = seconds_of(text).expect("it is a duration");
            assert!((read - seconds).abs() < 1e-12, "{text}: {read}");
        }
        for bad in ["", "5", "s", "1h"] {
            assert_eq!(seconds_of(bad), None, "{bad:?}");
        }
    }
}
