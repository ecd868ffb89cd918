//! The flags of `croupier-bench scale`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::error::BenchError;
use crate::run::{CONNECTIONS_MAX, ServerArgs};
use crate::stock::{CARDS_PER_SKU_MAX, SECRET_BYTES_MAX, SECRET_BYTES_MIN, SKUS_MAX};
use crate::units;

/// Orders that are in flight at most, over all connections, unless the flags say otherwise: 50 connections × 128.
const IN_FLIGHT_DEFAULT: u32 = 6_400;

/// More is no light load beside a heavy one.
const LANE_ORDERS_PER_S_MAX: u64 = 100_000;

/// What is made larger and larger while all else stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Axis {
    /// Cards in stock, of one SKU.
    Cards,
    /// Orders that the store has dealt and keeps.
    Orders,
    /// SKUs that share the stock and are ordered evenly.
    Skus,
    /// Connections that share the orders in flight.
    Connections,
    /// Open holds, which expire while orders are issued.
    Holds,
    /// Orders a second of the highest priority, beside bulk that saturates the engine.
    Lanes,
}

impl Axis {
    /// All of them, in the order in which they are measured.
    pub const ALL: [Self; 6] = [
        Self::Cards,
        Self::Orders,
        Self::Skus,
        Self::Connections,
        Self::Holds,
        Self::Lanes,
    ];

    /// For tables and pictures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cards => "cards in stock",
            Self::Orders => "orders kept",
            Self::Skus => "SKUs",
            Self::Connections => "connections",
            Self::Holds => "holds",
            Self::Lanes => "orders a second of the highest priority",
        }
    }
}

/// Flags of `croupier-bench scale`.
#[derive(Debug, Clone, Args)]
pub struct ScaleArgs {
    /// The croupier binary to start; default: the one beside croupier-bench
    #[arg(long, value_name = "PATH")]
    pub croupier: Option<PathBuf>,
    /// Where temporary stores are made; default: the system's temporary directory (never one in memory)
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// A further argument of `croupier serve`, as --serve-arg=--cores --serve-arg=1; may be given several times
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub serve_arg: Vec<String>,

    /// Measure along these axes only
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "cards,orders,skus,connections,holds,lanes"
    )]
    pub axes: Vec<Axis>,
    /// The whole of it: up to 100,000,000 cards and 10,000 SKUs. Needs about 15 GB of disk and a quarter of an hour
    #[arg(long)]
    pub full: bool,
    /// Cards in stock, as 100k,1m,10m [default: 100k,1m,10m; --full: 100k,1m,10m,100m]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = units::count)]
    pub cards: Vec<u64>,
    /// Orders in the index [default: 100k,1m,10m]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = units::count)]
    pub orders: Vec<u64>,
    /// SKUs [default: 1,100,1k; --full: 1,10,100,1k,10k]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = units::count)]
    pub skus: Vec<u64>,
    /// Connections [default: 1,10,100,1k,10k]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = units::count)]
    pub connections: Vec<u64>,
    /// Holds that are made, left open and expire while orders are issued [default: 1m]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = units::count)]
    pub holds: Vec<u64>,
    /// How long a hold lasts at least
    #[arg(long, default_value = "5s", value_name = "DURATION", value_parser = units::duration)]
    pub hold_ttl_min: Duration,
    /// How long a hold lasts at most; the seed decides, hold by hold
    #[arg(long, default_value = "35s", value_name = "DURATION", value_parser = units::duration)]
    pub hold_ttl_max: Duration,
    /// Orders a second, in an open loop, before, while and after holds expire
    #[arg(long, default_value = "100000", value_name = "ORDERS_PER_S", value_parser = units::rate_per_s)]
    pub hold_rate: f64,
    /// Orders a second of the highest priority, in an open loop beside bulk that saturates the engine [default: 1k]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = units::count)]
    pub lanes: Vec<u64>,
    /// How often they are measured with nothing beside them and beside bulk, in turns
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub lane_rounds: u16,
    /// How nice the generator of bulk is: at 0 it takes the CPU from the server in time slices, and those are measured
    #[arg(long, default_value_t = 19, value_parser = clap::value_parser!(u8).range(0..=19))]
    pub bulk_nice: u8,

    /// Length of each measurement; a small stock is filled up again and again until it is reached
    #[arg(long, default_value = "2s", value_parser = units::duration)]
    pub duration: Duration,
    /// Orders in flight over all connections; each connection gets its share, and one at least
    #[arg(long, default_value_t = IN_FLIGHT_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub in_flight: u32,
    /// Cards that are in stock where something else than cards is scaled
    #[arg(long, default_value = "3m", value_name = "N", value_parser = units::count)]
    pub stock: u64,
    /// Bytes of a secret
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(SECRET_BYTES_MIN as i64..=SECRET_BYTES_MAX as i64))]
    pub secret_bytes: u16,
    /// Decides SKUs; order ids are new in every run
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    /// Draw how rate, latency and memory grow, as SVG
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
}

/// Connections that a load has where their number is not what is scaled.
pub const CONNECTIONS: u32 = 50;

impl ScaleArgs {
    /// The sizes of one axis, ascending.
    pub fn sizes(&self, axis: Axis) -> Vec<u64> {
        let (given, usual, full): (_, &[u64], &[u64]) = match axis {
            Axis::Cards => (
                &self.cards,
                &[100_000, 1_000_000, 10_000_000],
                &[100_000, 1_000_000, 10_000_000, 100_000_000],
            ),
            Axis::Orders => (
                &self.orders,
                &[100_000, 1_000_000, 10_000_000],
                &[100_000, 1_000_000, 10_000_000],
            ),
            Axis::Skus => (&self.skus, &[1, 100, 1_000], &[1, 10, 100, 1_000, 10_000]),
            Axis::Connections => (
                &self.connections,
                &[1, 10, 100, 1_000, 10_000],
                &[1, 10, 100, 1_000, 10_000],
            ),
            Axis::Holds => (&self.holds, &[1_000_000], &[1_000_000]),
            Axis::Lanes => (&self.lanes, &[1_000], &[1_000]),
        };
        let mut sizes = match (given.is_empty(), self.full) {
            (false, _) => given.clone(),
            (true, false) => usual.to_vec(),
            (true, true) => full.to_vec(),
        };
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    /// Frames that each of so many connections keeps in flight.
    pub fn pipeline(&self, connections: u32) -> u32 {
        (self.in_flight / connections).max(1)
    }

    /// The server as `run` would be told of it.
    pub fn server(&self) -> ServerArgs {
        ServerArgs {
            server: None,
            croupier: self.croupier.clone(),
            dir: self.dir.clone(),
            serve_arg: self.serve_arg.clone(),
        }
    }

    /// Checks what single flags cannot say.
    pub fn check(&self) -> Result<(), BenchError> {
        for (axis, most) in [
            (Axis::Cards, CARDS_PER_SKU_MAX / 2),
            (Axis::Orders, CARDS_PER_SKU_MAX / 2),
            (Axis::Skus, SKUS_MAX as u64),
            (Axis::Connections, u64::from(CONNECTIONS_MAX)),
            (Axis::Holds, CARDS_PER_SKU_MAX / 4),
            (Axis::Lanes, LANE_ORDERS_PER_S_MAX),
        ] {
            if let Some(&size) = self.sizes(axis).iter().find(|&&size| size > most) {
                return Err(BenchError::Usage(format!(
                    "{} {} are more than the bench can do: {} at most",
                    units::grouped(size),
                    axis.name(),
                    units::grouped(most)
                )));
            }
        }
        if self.hold_ttl_min > self.hold_ttl_max {
            return Err(BenchError::Usage(
                "--hold-ttl-min is above --hold-ttl-max".into(),
            ));
        }
        let is_drawn = |axis: &Axis| !matches!(axis, Axis::Holds | Axis::Lanes);
        if self.plot.is_some() && !self.axes.iter().any(is_drawn) {
            return Err(BenchError::Usage(
                "--plot draws how figures grow along the other axes, not holds and lanes".into(),
            ));
        }
        let is_svg = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "svg");
        if self.plot.as_ref().is_some_and(|path| !is_svg(path)) {
            return Err(BenchError::Usage(
                "--plot draws SVG: give it a file name that ends in .svg".into(),
            ));
        }
        Ok(())
    }
}
