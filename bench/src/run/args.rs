//! The flags of `croupier-bench run`, and what they mean together.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use croupier_protocol::{
    FRAME_BYTES_MAX_DEFAULT, FRAME_BYTES_MAX_LIMIT, FRAME_HEADER_BYTES, Holder, OrderItemHead,
    Priority, StepItem,
};
use serde::Serialize;

use crate::driver::Pacing;
use crate::embedded::EmbeddedOptions;
use crate::error::BenchError;
use crate::schedule::Arrivals;
use crate::stock::{SECRET_BYTES_MAX, SECRET_BYTES_MIN, SKUS_MAX};
use crate::units;
use crate::workload::{Holding, Mix};

/// Orders a second of the default run.
pub const RATE_DEFAULT: f64 = 1500.0;
/// How long a hold lasts unless the flags say otherwise: time to pay.
const TTL_DEFAULT: Duration = Duration::from_secs(15 * 60);
/// Connections at most, so that a typing mistake does not use up the machine's ports.
pub const CONNECTIONS_MAX: u32 = 20_000;

/// Orders that a closed loop has in flight unless its flags say otherwise: what one core's lane takes by default.
const ORDERS_IN_FLIGHT_DEFAULT_MAX: usize = 65_536;

/// Where the server is: `--server`, or one of the bench's own.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    // No environment variable on purpose: a bench that fills a store with cards must not find one by accident.
    /// Server to load, as croupier://host:port; without it the bench starts one in a temporary directory
    #[arg(long, value_name = "URL", value_parser = crate::control::parse_url)]
    pub server: Option<String>,
    /// The croupier binary to start; default: the one beside croupier-bench
    #[arg(long, value_name = "PATH", conflicts_with = "server")]
    pub croupier: Option<PathBuf>,
    /// Where temporary stores are made; default: the system's temporary directory (never one in memory)
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// A further argument of `croupier serve`, as --serve-arg=--cores --serve-arg=1; may be given several times
    #[arg(
        long,
        value_name = "ARG",
        allow_hyphen_values = true,
        conflicts_with = "server"
    )]
    pub serve_arg: Vec<String>,
}

impl ServerArgs {
    /// How to start a server of the bench's own.
    pub fn embedded(&self) -> EmbeddedOptions {
        EmbeddedOptions {
            binary: self.croupier.clone(),
            parent: self.dir.clone(),
            serve_args: self.serve_arg.clone(),
        }
    }
}

/// Flags of `croupier-bench run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    #[command(flatten)]
    /// Which server.
    pub server: ServerArgs,

    /// Open loop: orders a second, sent at their intended times whatever the answers do [default: 1500]
    #[arg(long, value_name = "ORDERS_PER_S", value_parser = units::rate_per_s)]
    pub rate: Option<f64>,
    /// Open loop: how intended times follow each other
    #[arg(long, value_enum, default_value = "constant")]
    pub arrivals: Arrivals,
    /// Open loop at each of these rates in turn, as 1000,5000,20000
    #[arg(long, value_name = "RATES", value_delimiter = ',', value_parser = units::rate_per_s, conflicts_with = "rate")]
    pub sweep: Vec<f64>,
    /// Closed loop: every connection keeps its pipeline full
    #[arg(long, conflicts_with_all = ["rate", "sweep"])]
    pub closed: bool,
    /// Fail when P99 is above this, as 1ms [default: 1ms for the default run, else none]
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    pub p99_max: Option<Duration>,

    /// Connections [default: 50 closed (fewer when --batch is large), 16 open]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(CONNECTIONS_MAX)))]
    pub connections: Option<u32>,
    /// Closed loop: frames that each connection keeps in flight [default: 128, or 128 orders' worth with --batch]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub pipeline: Option<u32>,
    /// Orders in a frame; a server of the bench's own is started with room for frames of that size
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub batch: u16,
    /// Cards in an order
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub quantity: u16,
    /// Priority of all orders: vip, standard, bulk or background
    #[arg(long, default_value = "standard")]
    pub priority: Priority,
    /// SKUs
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=SKUS_MAX as i64))]
    pub skus: u32,
    /// Share of orders that name the first SKU, from 0 to 1; the rest is spread evenly. 0 = all evenly
    #[arg(long, default_value = "0", value_parser = units::share)]
    pub hot_share: f64,
    /// Holders: every order names one of so many, in no order. 0 = none is named
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100_000_000))]
    pub holders: u32,
    /// Weights of operations by frame; lookups ask for orders that this run issued
    #[arg(long, default_value = "issue=100", value_parser = Mix::parse)]
    pub mix: Mix,

    /// Every order is a reserve and, when that is answered, a commit of the same id; orders/s are pairs a second
    #[arg(long, conflicts_with = "mix")]
    pub two_phase: bool,
    /// How long holds last, as 30s or 15m [default: 15m]
    #[arg(long, value_name = "DURATION", value_parser = units::duration, requires = "two_phase")]
    pub ttl: Option<Duration>,

    /// How long to measure [default: 30s open, 10s closed, 10s for each rate of a sweep]
    #[arg(long, value_parser = units::duration)]
    pub duration: Option<Duration>,
    /// How long to load before measuring [default: 2s]
    #[arg(long, value_parser = units::duration_or_zero)]
    pub warmup: Option<Duration>,
    /// How long answers are waited for when nothing is sent any more
    #[arg(long, default_value = "15s", value_parser = units::duration)]
    pub drain: Duration,
    /// Decides SKUs, mix and arrivals; order ids are new in every run
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Threads of the generator
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: u16,

    /// Cards to import first, over all SKUs; 0 = use the stock that is there [default: enough for the run]
    #[arg(long, value_name = "N")]
    pub cards: Option<u64>,
    /// Bytes of a secret
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(SECRET_BYTES_MIN as i64..=SECRET_BYTES_MAX as i64))]
    pub secret_bytes: u16,
    /// SKUs are called PREFIX-00000, PREFIX-00001, …
    #[arg(long, default_value = "bench", value_name = "PREFIX")]
    pub sku_prefix: String,

    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    /// Write the latency distribution as a percentile table (HdrHistogram's .hgrm text)
    #[arg(long, value_name = "FILE")]
    pub hgrm: Option<PathBuf>,
    /// Write all latency distributions, one interval a rate and operation, as HdrHistogram's .hlog
    #[arg(long, value_name = "FILE")]
    pub hlog: Option<PathBuf>,
    /// Draw the latency distribution, or with --sweep the throughput–latency curve, as SVG
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
}

/// One measured stretch of a run.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// When requests are sent.
    pub pacing: Pacing,
    /// Loaded and not counted.
    pub warmup: Duration,
    /// Loaded and counted.
    pub duration: Duration,
}

/// The kind of run, for the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// At intended times.
    Open,
    /// At intended times, at several rates.
    Sweep,
    /// As fast as answers come.
    Closed,
}

impl RunArgs {
    /// What a contest asks of a server: one SKU, one card an order, one order a frame.
    pub fn for_contest(server: ServerArgs, secret_bytes: u16) -> Self {
        Self {
            server,
            rate: None,
            arrivals: Arrivals::Constant,
            sweep: Vec::new(),
            closed: true,
            p99_max: None,
            connections: Some(1),
            pipeline: Some(1),
            batch: 1,
            quantity: 1,
            priority: Priority::Standard,
            skus: 1,
            hot_share: 0.0,
            holders: 0,
            mix: Mix::ISSUE_ONLY,
            two_phase: false,
            ttl: None,
            duration: None,
            warmup: None,
            drain: Duration::from_secs(15),
            seed: 1,
            threads: 1,
            cards: None,
            secret_bytes,
            sku_prefix: "bench".into(),
            json: false,
            hgrm: None,
            hlog: None,
            plot: None,
        }
    }

    /// Which kind of run this is.
    pub fn mode(&self) -> Mode {
        match (self.closed, self.sweep.is_empty()) {
            (true, _) => Mode::Closed,
            (_, false) => Mode::Sweep,
            _ => Mode::Open,
        }
    }

    /// True for the run that the bench is there for first of all, which passes or fails. A pair is two answers, so the
    /// limit of one does not judge it.
    pub fn is_default_load(&self) -> bool {
        self.mode() == Mode::Open && self.rate.is_none() && !self.two_phase
    }

    /// How orders are reserved, if they are.
    pub fn holding(&self) -> Option<Holding> {
        let ttl = self.ttl.unwrap_or(TTL_DEFAULT);
        // Zero would mean none.
        let ttl_ms = u32::try_from(ttl.as_millis()).unwrap_or(u32::MAX).max(1);
        self.two_phase.then_some(Holding {
            ttl_ms_min: ttl_ms,
            ttl_ms_max: ttl_ms,
            commit: true,
        })
    }

    /// P99 above which the run fails.
    pub fn p99_limit(&self) -> Option<Duration> {
        self.p99_max
            .or_else(|| self.is_default_load().then_some(Duration::from_millis(1)))
    }

    /// Connections, by the kind of run.
    pub fn connections(&self) -> usize {
        let default = if self.closed {
            // A closed loop asks for all at once: no more than the lanes take.
            (ORDERS_IN_FLIGHT_DEFAULT_MAX / usize::from(self.batch)).clamp(1, 50)
        } else {
            16
        };
        self.connections.map_or(default, |count| count as usize)
    }

    /// Frames that each connection of a closed loop keeps in flight.
    pub fn pipeline(&self) -> u32 {
        self.pipeline
            .unwrap_or((128 / u32::from(self.batch)).max(1))
    }

    /// Bytes that the answer to one frame takes if it comes whole, at most.
    pub fn answer_bytes_max(&self) -> usize {
        // A card's head and, because secrets are opened in place, the largest seal; see docs/wire-format.md.
        let card_bytes = 12 + 64 + usize::from(self.secret_bytes);
        let order_bytes = OrderItemHead::BYTES + usize::from(self.quantity) * card_bytes;
        FRAME_HEADER_BYTES + usize::from(self.batch) * order_bytes
    }

    /// The server flags, with room for large batches where the bench starts the server itself.
    pub fn server_with_room(&self) -> ServerArgs {
        let mut server = self.server.clone();
        let key_bytes = if self.holders > 0 { Holder::BYTES } else { 0 };
        let item_bytes = StepItem::BYTES + key_bytes;
        let request_bytes = FRAME_HEADER_BYTES + usize::from(self.batch) * item_bytes;
        let says_so = |arg: &String| arg.starts_with("--frame-bytes-max");
        if server.server.is_none()
            && request_bytes > FRAME_BYTES_MAX_DEFAULT as usize
            && !server.serve_arg.iter().any(says_so)
        {
            let bytes = self
                .answer_bytes_max()
                .min(FRAME_BYTES_MAX_LIMIT as usize)
                .max(request_bytes);
            server.serve_arg.push(format!("--frame-bytes-max={bytes}"));
        }
        server
    }

    /// The measured stretches, in order.
    pub fn steps(&self) -> Vec<Step> {
        let warmup = self.warmup.unwrap_or(Duration::from_secs(2));
        let duration = |seconds| self.duration.unwrap_or(Duration::from_secs(seconds));
        let open = |orders_per_s| Pacing::Open {
            orders_per_s,
            arrivals: self.arrivals,
        };
        match self.mode() {
            Mode::Closed => vec![Step {
                pacing: Pacing::Closed,
                warmup,
                duration: duration(10),
            }],
            Mode::Open => {
                vec![Step {
                    pacing: open(self.rate.unwrap_or(RATE_DEFAULT)),
                    warmup,
                    duration: duration(30),
                }]
            }
            Mode::Sweep => {
                let step = |&rate: &f64| Step {
                    pacing: open(rate),
                    warmup,
                    duration: duration(10),
                };
                self.sweep.iter().map(step).collect()
            }
        }
    }

    /// Checks what single flags cannot say.
    pub fn check(&self) -> Result<(), BenchError> {
        if self.hot_share > 0.0 && self.skus == 1 {
            return Err(BenchError::Usage(
                "--hot-share needs --skus 2 or more".into(),
            ));
        }
        if self.connections() < usize::from(self.threads) {
            return Err(BenchError::Usage(format!(
                "{} threads cannot share {} connections: say --connections {0} or more",
                self.threads,
                self.connections()
            )));
        }
        croupier_protocol::Name::new(&self.sku_name(0)).map_err(|error| {
            BenchError::Usage(format!("--sku-prefix {:?}: {error}", self.sku_prefix))
        })?;
        if self.plot.is_some()
            && self
                .plot
                .as_ref()
                .and_then(|path| path.extension())
                .is_none_or(|kind| kind != "svg")
        {
            return Err(BenchError::Usage(
                "--plot draws SVG: give it a file name that ends in .svg".into(),
            ));
        }
        Ok(())
    }

    /// The name of a SKU of the run.
    pub fn sku_name(&self, index: usize) -> String {
        format!("{}-{index:05}", self.sku_prefix)
    }
}
