//! `croupier-corrupt`: flips every bit of a small store, zeroes and swaps its sectors, and looks whether anybody notices.
//!
//! See `croupier_tests::corrupt` for how it works.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::thread::available_parallelism;

use clap::Parser;
use croupier_tests::corrupt::regions::Class;
use croupier_tests::corrupt::report;
use croupier_tests::corrupt::run::{Plan, run};
use indicatif::{ProgressBar, ProgressStyle};

/// Flip every bit of every file of a small store, one at a time, then zero and swap sectors; each damage must be refused,
/// mended with a report, or change no answer at all
///
/// Exit codes: 0 all held, 1 something changed an answer in silence, 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "croupier-corrupt")]
struct Args {
    /// Only one of K bits and sectors, chosen by --seed
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    sample: u64,
    /// Which of the K
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only flips of these bytes; may be given several times
    #[arg(long, value_enum, value_name = "NAME")]
    class: Vec<Class>,
    /// Threads [default: one a processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: Option<u16>,
    /// Also print what the refusals said
    #[arg(long)]
    said: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let jobs = args.jobs.map(usize::from);
    let plan = Plan {
        sample: args.sample,
        seed: args.seed,
        classes: args.class,
        jobs: jobs.unwrap_or_else(|| available_parallelism().map_or(1, usize::from)),
    };
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{pos}/{len} bits {wide_bar} {eta}");
    bar.set_style(style.expect("a template"));
    let findings = run(&plan, &|done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let findings = match findings {
        Ok(findings) => findings,
        Err(trouble) => {
            eprintln!("{trouble}");
            return ExitCode::FAILURE;
        }
    };
    if args.json {
        println!("{}", report::json(&findings));
    } else {
        println!("{}", report::text(&findings));
    }
    if args.said {
        print!("{}", report::said(&findings));
    }
    match findings.broken() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
