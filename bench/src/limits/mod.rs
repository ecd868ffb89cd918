//! `croupier-bench limits`: what this machine can do at all with the bytes that orders have.
//!
//! Durable writes, the loopback, a server that only frames, a server that frames and group-commits; and next to them
//! the engine, so that its figures can be read as a share of what is possible.

mod durable_file;
mod loopback;
mod report;
mod sync;
pub mod toy;
mod toy_contender;

use std::time::Duration;

use clap::Args;

pub use report::LimitsReport;

use crate::contest::{Contender, Croupier, RoundLength, Shape, contest};
use crate::embedded::{directory_default, find_binary, temporary_directory};
use crate::error::BenchError;
use crate::machine::{FileSystem, Machine};
use crate::progress::Progress;
use crate::run::ServerArgs;
use crate::units;

use toy_contender::Toy;

/// Warm-up of every round.
const WARMUP: Duration = Duration::from_millis(500);
/// Cards that the engine has in stock for each second of a round; when it is faster the round is shorter.
const CARDS_PER_S: f64 = 3_000_000.0;

/// Flags of `croupier-bench limits`.
#[derive(Debug, Clone, Args)]
pub struct LimitsArgs {
    #[command(flatten)]
    /// The engine that is measured beside the limits.
    pub server: ServerArgs,
    /// Leave the engine out
    #[arg(long)]
    pub no_engine: bool,
    /// Connections x pipeline; several as 1x1,50x1
    #[arg(long, value_delimiter = ',', default_value = "1x1,50x1,16x128,50x128")]
    pub shape: Vec<Shape>,
    /// Rounds of every server in every shape
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Length of each measurement
    #[arg(long, default_value = "2s", value_parser = units::duration)]
    pub duration: Duration,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// Measures all of it.
pub fn run(args: &LimitsArgs) -> Result<LimitsReport, BenchError> {
    let parent = args.server.dir.clone().unwrap_or_else(directory_default);
    let directory = temporary_directory(&parent)?;
    let sync = sync::measure(directory.path(), args.duration)?;
    let method = sync::better_method(&sync);
    let loopback = {
        let _progress = Progress::new("loopback round trip");
        loopback::measure(args.duration)?
    };
    let mut contenders: Vec<Box<dyn Contender>> = vec![
        Box::new(Toy::start(directory.path(), None)?),
        Box::new(Toy::start(directory.path(), Some(method))?),
    ];
    let length = RoundLength {
        warmup: WARMUP,
        measured: args.duration,
    };
    let mut engine = None;
    let mut skipped = None;
    if args.no_engine {
        skipped = Some("--no-engine".to_string());
    } else if let (None, Err(error)) = (
        &args.server.server,
        find_binary(args.server.croupier.as_deref()),
    ) {
        skipped = Some(error.to_string());
    } else {
        let cards = (CARDS_PER_S * (length.warmup + length.measured).as_secs_f64()) as u64;
        let croupier = Croupier::start(&args.server, toy::SECRET_BYTES as u16, cards)?;
        engine = Some(croupier.description());
        contenders.push(Box::new(croupier));
    }
    let standings = contest(&mut contenders, &args.shape, args.rounds, length)?;
    Ok(LimitsReport {
        machine: Machine::detect(),
        file_system: FileSystem::of(directory.path()),
        sync,
        method,
        loopback,
        engine,
        engine_skipped: skipped,
        standings,
    })
}
