//! What a run has to say: the figures as data. How they look: `table` for people, `hgrm`, `hlog` and `plot` for files.

mod hgrm;
mod hlog;
mod plot;
mod table;

use std::collections::BTreeMap;

use croupier_protocol::Refusal;
use hdrhistogram::Histogram;
use serde::Serialize;
use uuid::Uuid;

pub use hgrm::write_hgrm;
pub use hlog::write_hlog;
pub use plot::{draw_distribution, draw_sweep};
pub use table::Table;

use crate::driver::{Driven, Pacing};
use crate::machine::{FileSystem, Machine};
use crate::oracle::OracleReport;
use crate::recorder::Operation;
use crate::run::{Mode, RunArgs, Step};

/// A step that answers less than this share of its rate has not held it.
pub const RATE_HELD_SHARE: f64 = 0.99;

/// Everything about one run.
#[derive(Debug, Serialize)]
pub struct RunReport {
    /// Where.
    pub machine: Machine,
    /// Against what.
    pub server: ServerFacts,
    /// With what.
    pub load: LoadFacts,
    /// The stock that was imported for it.
    pub import: ImportReport,
    /// One by rate, or a single one.
    pub steps: Vec<StepReport>,
    /// The judge's words.
    pub oracle: OracleReport,
    /// Pass or fail.
    pub verdict: Verdict,
}

/// The server under load.
#[derive(Debug, Clone, Serialize)]
pub struct ServerFacts {
    /// Host and port.
    pub address: String,
    /// True if the bench started it.
    pub embedded: bool,
    /// Its version.
    pub version: String,
    /// How its log is made durable.
    pub durability: String,
    /// Cores that deal.
    pub cores: u32,
    /// Which store.
    pub store_id: String,
    /// What an embedded store lies on.
    pub file_system: Option<FileSystem>,
}

/// The load, as asked for.
#[derive(Debug, Clone, Serialize)]
pub struct LoadFacts {
    /// Open or closed.
    pub mode: Mode,
    /// How intended times follow each other; open loops only.
    pub arrivals: Option<crate::schedule::Arrivals>,
    /// Connections.
    pub connections: usize,
    /// Frames that each connection keeps in flight; closed loops only.
    pub pipeline: Option<u32>,
    /// Orders in a frame.
    pub batch: u16,
    /// Cards in an order.
    pub quantity: u16,
    /// SKUs.
    pub skus: u32,
    /// Share of the first SKU; 0 = all evenly.
    pub hot_share: f64,
    /// Weights of operations.
    pub mix: String,
    /// Every order is a reserve and a commit; how long its hold lasts, in milliseconds.
    pub two_phase_ttl_ms: Option<u32>,
    /// Bytes of a secret.
    pub secret_bytes: u16,
    /// Threads of the generator.
    pub threads: u16,
    /// Decides what is ordered.
    pub seed: u64,
    /// Decides, with the seed, the order ids.
    pub run_id: String,
}

/// The import before a run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ImportReport {
    /// Cards.
    pub cards: u64,
    /// From the first row sent to the durable end, all imports together.
    pub seconds: f64,
}

/// One measured stretch.
#[derive(Debug, Serialize)]
pub struct StepReport {
    /// Intended orders a second; open loops only.
    pub rate_per_s: Option<f64>,
    /// Seconds that the counted answers took to come.
    pub measured_s: f64,
    /// Orders answered with cards, a second; of orders in two phases, pairs.
    pub throughput_per_s: f64,
    /// By operation, the absent ones left out.
    pub operations: Vec<OperationReport>,
    /// How long after their intended time frames were sent: what the generator itself adds. Open loops only.
    pub generator_lateness: Option<Latency>,
    /// Orders refused, by the refusal's name; warm-up included.
    pub refused: BTreeMap<String, u64>,
    /// Orders never answered.
    pub unanswered: u64,
    /// The run ended early for want of stock.
    pub stock_used_up: bool,
    /// Cores that the generator kept busy.
    pub generator_cores: f64,
    /// Cores that the server kept busy, if it is the bench's own.
    pub server_cores: Option<f64>,
}

/// One operation of a step.
#[derive(Debug, Serialize)]
pub struct OperationReport {
    /// Which.
    pub operation: Operation,
    /// Orders answered with cards.
    pub orders: u64,
    /// The same, a second.
    pub per_s: f64,
    /// From the intended time (closed loop: the sending) to the answer.
    pub latency: Latency,
    /// For files and pictures.
    #[serde(skip)]
    pub histogram: Histogram<u64>,
}

/// A latency distribution, in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latency {
    /// Arithmetic mean.
    pub mean_us: f64,
    /// Half of all are at most this.
    pub p50_us: f64,
    /// 90 of 100.
    pub p90_us: f64,
    /// 99 of 100.
    pub p99_us: f64,
    /// 999 of 1,000.
    pub p999_us: f64,
    /// 9,999 of 10,000.
    pub p9999_us: f64,
    /// All.
    pub max_us: f64,
}

impl Latency {
    /// Reads a histogram of nanoseconds.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let us = |quantile| histogram.value_at_quantile(quantile).min(histogram.max()) as f64 / 1e3;
        Self {
            mean_us: histogram.mean() / 1e3,
            p50_us: us(0.5),
            p90_us: us(0.9),
            p99_us: us(0.99),
            p999_us: us(0.999),
            p9999_us: us(0.9999),
            max_us: histogram.max() as f64 / 1e3,
        }
    }

    /// The columns of every latency table, after [`Latency::HEADER`].
    pub fn cells(&self) -> [String; 6] {
        [
            self.p50_us,
            self.p90_us,
            self.p99_us,
            self.p999_us,
            self.p9999_us,
            self.max_us,
        ]
        .map(|us| crate::units::micros((us * 1e3) as u64))
    }

    /// Titles of [`Latency::cells`].
    pub const HEADER: [&str; 6] = [
        "P50 µs",
        "P90 µs",
        "P99 µs",
        "P99.9 µs",
        "P99.99 µs",
        "max µs",
    ];
}

/// Whether a run is what it was to be.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// True if no reason was found against it.
    pub pass: bool,
    /// What was found against it.
    pub reasons: Vec<String>,
    /// P99 above which a run fails, if one was set.
    pub p99_max_us: Option<f64>,
}

impl LoadFacts {
    /// As the flags say.
    pub fn new(args: &RunArgs, run_id: u128) -> Self {
        let closed = args.mode() == Mode::Closed;
        Self {
            mode: args.mode(),
            arrivals: (!closed).then_some(args.arrivals),
            connections: args.connections(),
            pipeline: closed.then(|| args.pipeline()),
            batch: args.batch,
            quantity: args.quantity,
            skus: args.skus,
            hot_share: args.hot_share,
            mix: args.mix.to_string(),
            two_phase_ttl_ms: args.holding().map(|holding| holding.ttl_ms_max),
            secret_bytes: args.secret_bytes,
            threads: args.threads,
            seed: args.seed,
            run_id: Uuid::from_u128(run_id).to_string(),
        }
    }
}

impl StepReport {
    /// Sums a step up.
    pub fn new(step: Step, driven: Driven) -> Self {
        let Driven {
            mut recorder,
            stock_used_up,
            generator_cores,
            server_cores,
        } = driven;
        let (measured_s, ended_in_warmup) = (recorder.measured_s(), recorder.ended_in_warmup());
        let mut refused = BTreeMap::new();
        let mut operations = Vec::new();
        for operation in Operation::ALL {
            let record = recorder.operation(operation);
            for (number, &orders) in record
                .refused
                .iter()
                .enumerate()
                .filter(|&(_, &orders)| orders > 0)
            {
                *refused.entry(refusal_name(number)).or_default() += orders;
            }
            if record.orders > 0 && !ended_in_warmup {
                operations.push(OperationReport {
                    operation,
                    orders: record.orders,
                    per_s: record.orders as f64 / measured_s,
                    latency: Latency::of(&record.latency),
                    histogram: record.latency.clone(),
                });
            }
        }
        let rate_per_s = match step.pacing {
            Pacing::Closed => None,
            Pacing::Open { orders_per_s, .. } => Some(orders_per_s),
        };
        Self {
            rate_per_s,
            measured_s,
            throughput_per_s: throughput_per_s(&operations),
            operations,
            generator_lateness: rate_per_s.map(|_| Latency::of(&recorder.lateness)),
            refused,
            unanswered: recorder.unanswered,
            stock_used_up,
            generator_cores,
            server_cores,
        }
    }

    /// The worst P99 of its operations.
    pub fn p99_us(&self) -> f64 {
        self.operations
            .iter()
            .map(|operation| operation.latency.p99_us)
            .fold(0.0, f64::max)
    }

    fn reasons(&self, p99_max_us: Option<f64>, reasons: &mut Vec<String>) {
        let label = self.rate_per_s.map_or(String::new(), |rate| {
            format!("at {}/s: ", crate::units::grouped(rate as u64))
        });
        if self.operations.is_empty() {
            reasons.push(format!("{label}no order was answered"));
        }
        let refused: u64 = self.refused.values().sum();
        if refused > 0 {
            reasons.push(format!("{label}{refused} orders were refused"));
        }
        if self.unanswered > 0 {
            reasons.push(format!(
                "{label}{} orders were never answered",
                self.unanswered
            ));
        }
        if let Some(max_us) = p99_max_us.filter(|&max_us| self.p99_us() > max_us) {
            reasons.push(format!(
                "{label}P99 {:.0} µs is above {max_us:.0} µs",
                self.p99_us()
            ));
        }
        if let Some(rate) = self.rate_per_s {
            if self.stock_used_up {
                reasons.push(format!("{label}the stock was used up before the end"));
            }
            // Few Poisson arrivals spread widely, and that is not the server's fault.
            let expected = rate * self.measured_s;
            let tolerated = expected * (1.0 - RATE_HELD_SHARE) + 4.0 * expected.sqrt();
            if self.throughput_per_s * self.measured_s < expected - tolerated {
                reasons.push(format!(
                    "{label}only {:.0}/s were answered",
                    self.throughput_per_s
                ));
            }
        }
    }
}

/// Operations a second, where a reserve and its commit are one.
fn throughput_per_s(operations: &[OperationReport]) -> f64 {
    let pair = operations
        .iter()
        .find(|operation| operation.operation == Operation::Pair);
    let sum = || operations.iter().map(|operation| operation.per_s).sum();
    pair.map_or_else(sum, |pair| pair.per_s)
}

fn refusal_name(number: usize) -> String {
    match u16::try_from(number)
        .ok()
        .and_then(|number| Refusal::try_from(number).ok())
    {
        Some(refusal) => refusal.name().to_string(),
        None => format!("unknown-{number}"),
    }
}

impl Verdict {
    /// Looks for reasons against a run. A single rate has to be held; a sweep is there to find out which ones are.
    pub fn of(
        steps: &[StepReport],
        oracle: &OracleReport,
        p99_max: Option<std::time::Duration>,
    ) -> Self {
        let p99_max_us = p99_max.map(|max| max.as_secs_f64() * 1e6);
        let mut reasons = Vec::new();
        if let [step] = steps {
            step.reasons(p99_max_us, &mut reasons);
        }
        if oracle.violations > 0 {
            reasons.push(format!("the oracle found {} violations", oracle.violations));
        }
        Self {
            pass: reasons.is_empty(),
            reasons,
            p99_max_us,
        }
    }
}
