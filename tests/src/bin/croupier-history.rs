//! `croupier-history`: a long random history of the real binary, killed in between, told to the oracle.
//!
//! See `croupier_tests::history` for how it works.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use croupier_tests::history::{Plan, report, run};
use croupier_tests::use_binary_given;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::runtime::Builder;

/// Have many callers take every step of very many orders, repeated and retried, import and move cards, kill the server
/// again and again, and check every answer, the stock and the digests
///
/// Exit codes: 0 all held, 2 wrong usage, 3 something did not hold.
#[derive(Debug, Parser)]
#[command(name = "croupier-history")]
struct Args {
    /// The binary under test [default: CROUPIER_BIN, else it is built]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Orders to begin
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(100..))]
    orders: u64,
    /// Callers at a time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    callers: u16,
    /// Kills of the server, and a stop in good order for every five of them
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(0..=10_000))]
    kills: u16,
    /// Does the same again, as far as threads allow [default: by the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(told) = use_binary_given(args.binary) {
        eprintln!("{told}");
        return ExitCode::from(2);
    }
    let by_clock = || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(1, |since| since.as_micros() as u64)
    };
    let plan = Plan {
        orders: args.orders,
        callers: args.callers.into(),
        kills: args.kills.into(),
        seed: args.seed.unwrap_or_else(by_clock),
    };
    eprintln!("seed {}", plan.seed);
    let bar = ProgressBar::new(plan.orders);
    let style = ProgressStyle::with_template("{pos}/{len} orders {wide_bar} {eta}");
    bar.set_style(style.expect("a template"));
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let findings = runtime.block_on(run::run(&plan, &|begun| bar.set_position(begun)));
    bar.finish_and_clear();
    if args.json {
        println!("{}", report::json(&plan, &findings));
    } else {
        println!("{}", report::text(&plan, &findings));
    }
    match findings.seen.violated {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(3),
    }
}
