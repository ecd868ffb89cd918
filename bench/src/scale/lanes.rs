//! Priorities under pressure: what an order of the highest one waits while bulk saturates the engine, and what is left for
//! the lowest when all of them do.
//!
//! Two open loops at the same rate take turns, one beside nothing and one beside a closed loop of bulk, so that a machine
//! that changes its mind changes both. Generators have a thread each, in this process, on the server's CPUs.

use std::fmt;
use std::time::Duration;

use croupier_protocol::Priority;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::args::{CONNECTIONS, ScaleArgs};
use super::life::{Granted, Life, Load};
use crate::contest::{median, settle};
use crate::driver::Pacing;
use crate::error::BenchError;
use crate::recorder::latency_histogram;
use crate::report::{Latency, Table};
use crate::run::{Step, Stream};
use crate::schedule::Arrivals;
use crate::units::{grouped, micros};

/// Connections of the orders of the highest priority.
const VIP_CONNECTIONS: u32 = 16;
/// How many times deeper pipelines are where lanes compete.
const SHARES_DEPTH: u32 = 4;
/// What one lane takes by default: more would be refused, should its connections be all on one core.
const LANE_ORDERS: u32 = 65_536;
/// Loaded before anything is counted.
const WARMUP: Duration = Duration::from_millis(500);
/// How long the load beside goes on before and after what is counted.
const MARGIN: Duration = Duration::from_millis(100);
/// Cards that a saturated second may need.
const SATURATED_CARDS_PER_S: f64 = 3e6;
/// Those that it needs in the long run: what is left over is there for the next stretch.
const SATURATED_CARDS_PER_S_USUAL: f64 = 2e6;

/// One rate of the highest priority.
#[derive(Debug, Clone, Serialize)]
pub struct LanesPoint {
    /// Orders a second of the highest priority.
    pub rate_per_s: u64,
    /// Round by round.
    pub rounds: Vec<Round>,
    /// With nothing beside them, all rounds together.
    pub idle: Load,
    /// While bulk saturates the engine, all rounds together.
    pub beside_bulk: Load,
    /// The P99 of the latter by that of the former: the median of the rounds.
    pub p99_ratio: f64,
    /// Bulk orders a second: the median of the rounds.
    pub bulk_per_s: f64,
    /// All lanes saturated at once, the highest first.
    pub shares: Vec<Share>,
}

/// Both loops once.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    /// The P99 with nothing beside.
    pub idle_p99_us: f64,
    /// The P99 while bulk saturates the engine.
    pub beside_bulk_p99_us: f64,
    /// The latter by the former.
    pub p99_ratio: f64,
    /// By how much the generator was late at P99 while bulk saturated the engine: part of the latency, and not the server's.
    pub sent_late_p99_us: f64,
    /// The load beside.
    pub bulk: Load,
}

/// One lane while all are saturated.
#[derive(Debug, Clone, Serialize)]
pub struct Share {
    /// Which.
    pub priority: &'static str,
    /// Its part of all orders that were answered, from 0 to 1.
    pub of_all: f64,
    /// Its orders.
    pub load: Load,
}

impl LanesPoint {
    /// What is said while the run goes on.
    pub fn line(&self) -> String {
        format!(
            "vip at {}/s: P99 {} µs, and {} µs beside {} bulk orders/s: {:.2} ×; lowest lane's share {:.1} %",
            grouped(self.rate_per_s),
            us(self.idle.latency.p99_us),
            us(self.beside_bulk.latency.p99_us),
            grouped(self.bulk_per_s as u64),
            self.p99_ratio,
            self.lowest_share() * 100.0
        )
    }

    /// True if no lane starves. What P99 may be, this machine's noise does not let a single run judge.
    pub fn pass(&self) -> bool {
        self.shares.iter().all(|share| share.load.orders > 0)
    }

    fn lowest_share(&self) -> f64 {
        self.shares.last().map_or(0.0, |lowest| lowest.of_all)
    }
}

fn us(us: f64) -> String {
    micros((us * 1e3) as u64)
}

fn per_s(load: &Load) -> String {
    grouped(load.per_s.round() as u64)
}

impl fmt::Display for LanesPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = [
            format!("vip, {}/s", grouped(self.rate_per_s)),
            "orders/s".into(),
        ];
        let latency = Latency::HEADER.map(String::from);
        let mut table = Table::new(1, head.into_iter().chain(latency));
        for (name, load) in [("idle", &self.idle), ("beside bulk", &self.beside_bulk)] {
            let head = [name.to_string(), per_s(load)];
            table.row(head.into_iter().chain(load.latency.cells()));
        }
        writeln!(f, "{table}")?;
        let mut table = Table::new(
            0,
            [
                "round",
                "idle P99 µs",
                "beside bulk P99 µs",
                "ratio",
                "of it sent late µs",
                "bulk orders/s",
                "bulk P99 µs",
                "server cores",
            ],
        );
        for (number, round) in (1u64..).zip(&self.rounds) {
            table.row([
                grouped(number),
                us(round.idle_p99_us),
                us(round.beside_bulk_p99_us),
                format!("{:.2}", round.p99_ratio),
                us(round.sent_late_p99_us),
                per_s(&round.bulk),
                us(round.bulk.latency.p99_us),
                round
                    .bulk
                    .server_cores
                    .map_or("–".into(), |cores| format!("{cores:.2}")),
            ]);
        }
        writeln!(f, "{table}")?;
        writeln!(
            f,
            "vip P99 beside bulk is {:.2} × that of idle, at {} bulk orders/s (medians of the rounds)\n",
            self.p99_ratio,
            grouped(self.bulk_per_s as u64)
        )?;
        let head = ["all saturated", "share %", "orders/s"];
        let mut table = Table::new(1, head.into_iter().chain(Latency::HEADER));
        for share in &self.shares {
            let head = [
                share.priority.to_string(),
                format!("{:.1}", share.of_all * 100.0),
                per_s(&share.load),
            ];
            table.row(head.into_iter().chain(share.load.latency.cells()));
        }
        writeln!(f, "{table}")
    }
}

/// A stretch of a closed loop that saturates the engine by itself.
fn saturating(args: &ScaleArgs, priority: Priority, pipeline: u32, nice: u8) -> Stream {
    Stream {
        step: Step {
            pacing: Pacing::Closed,
            warmup: WARMUP,
            duration: args.duration + 2 * MARGIN,
        },
        priority,
        connections: CONNECTIONS,
        pipeline,
        nice,
    }
}

fn vip(args: &ScaleArgs, orders_per_s: f64) -> Stream {
    Stream {
        step: Step {
            pacing: Pacing::Open {
                orders_per_s,
                arrivals: Arrivals::Constant,
            },
            warmup: WARMUP + MARGIN,
            duration: args.duration,
        },
        priority: Priority::Vip,
        connections: VIP_CONNECTIONS,
        pipeline: 1,
        nice: 0,
    }
}

fn saturated_cards(args: &ScaleArgs, per_s: f64) -> u64 {
    let seconds = WARMUP + args.duration + 2 * MARGIN;
    (seconds.as_secs_f64() * per_s) as u64
}

/// Cards that all stretches need, roughly and not too few.
pub fn cards_needed(args: &ScaleArgs) -> u64 {
    let stretches = u64::from(args.lane_rounds) + 1;
    saturated_cards(args, SATURATED_CARDS_PER_S)
        + stretches * saturated_cards(args, SATURATED_CARDS_PER_S_USUAL)
}

/// Measures a store that has just been made.
pub fn measure(
    life: &mut Life,
    args: &ScaleArgs,
    rate_per_s: u64,
) -> Result<LanesPoint, BenchError> {
    let orders_per_s = rate_per_s as f64;
    let mut rounds = Vec::new();
    let (mut idle, mut beside) = (Sum::new(), Sum::new());
    for _ in 0..args.lane_rounds {
        let [alone] = at_once(life, args, [vip(args, orders_per_s)])?;
        let bulk = saturating(
            args,
            Priority::Bulk,
            args.pipeline(CONNECTIONS),
            args.bulk_nice,
        );
        let loads = [vip(args, orders_per_s), bulk];
        let [pressed, bulk] = at_once(life, args, loads)?;
        let p99_us = |granted: &Granted| Latency::of(&granted.histogram).p99_us;
        rounds.push(Round {
            idle_p99_us: p99_us(&alone),
            beside_bulk_p99_us: p99_us(&pressed),
            p99_ratio: p99_us(&pressed) / p99_us(&alone),
            sent_late_p99_us: pressed.sent_late_p99_us.unwrap_or(0.0),
            bulk: Load::of(bulk),
        });
        idle.add(alone);
        beside.add(pressed);
    }
    let of_rounds = |figure: fn(&Round) -> f64| median(rounds.iter().map(figure).collect());
    Ok(LanesPoint {
        rate_per_s,
        idle: idle.load(),
        beside_bulk: beside.load(),
        p99_ratio: of_rounds(|round| round.p99_ratio),
        bulk_per_s: of_rounds(|round| round.bulk.per_s),
        rounds,
        shares: shares(life, args)?,
    })
}

/// All lanes at once.
fn shares(life: &mut Life, args: &ScaleArgs) -> Result<Vec<Share>, BenchError> {
    // Deep enough that orders wait in every lane, and not only in sockets and for the disk.
    let pipeline = (SHARES_DEPTH * args.pipeline(CONNECTIONS)).min(LANE_ORDERS / CONNECTIONS);
    let loads = Priority::ALL.map(|priority| saturating(args, priority, pipeline, 0));
    let granted = at_once(life, args, loads)?;
    let all: f64 = granted.iter().map(Granted::per_s).sum();
    let share = |(priority, granted): (Priority, Granted)| Share {
        priority: priority.name(),
        of_all: granted.per_s() / all,
        load: Load::of(granted),
    };
    Ok(Priority::ALL.into_iter().zip(granted).map(share).collect())
}

fn at_once<const N: usize>(
    life: &mut Life,
    args: &ScaleArgs,
    streams: [Stream; N],
) -> Result<[Granted; N], BenchError> {
    life.top_up(saturated_cards(args, SATURATED_CARDS_PER_S))?;
    settle();
    let granted = life.load_at_once(&streams)?;
    Ok(granted
        .try_into()
        .unwrap_or_else(|_| unreachable!("every stream has its figures")))
}

/// Rounds put together.
struct Sum {
    orders: u64,
    measured_s: f64,
    server_cores: Vec<f64>,
    histogram: Histogram<u64>,
}

impl Sum {
    fn new() -> Self {
        Self {
            orders: 0,
            measured_s: 0.0,
            server_cores: Vec::new(),
            histogram: latency_histogram(),
        }
    }

    fn add(&mut self, round: Granted) {
        self.orders += round.orders;
        self.measured_s += round.measured_s;
        self.server_cores.extend(round.server_cores);
        self.histogram
            .add(&round.histogram)
            .expect("both have the same bounds");
    }

    fn load(self) -> Load {
        Load {
            orders: self.orders,
            measured_s: self.measured_s,
            per_s: self.orders as f64 / self.measured_s,
            latency: Latency::of(&self.histogram),
            server_cores: (!self.server_cores.is_empty()).then(|| median(self.server_cores)),
        }
    }
}
