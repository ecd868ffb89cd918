//! `croupier-matrix`: kills and fails the real binary at every system call of its write path.
//!
//! Needs strace. See `croupier_tests::matrix` for how it works.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use croupier_tests::matrix::report::Report;
use croupier_tests::matrix::run::{Plan, Told, Verdict, run};
use croupier_tests::matrix::{Fault, Log, Phase};
use croupier_tests::use_binary_given;
use indicatif::{ProgressBar, ProgressStyle};

/// Kill the server in front of every system call of its write path, and fail each with EIO and ENOSPC; after each fault
/// start the store again and check that nothing was lost and nothing dealt twice
///
/// Exit codes: 0 all held, 1 something did not hold or a call was never met, 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "croupier-matrix")]
struct Args {
    /// The binary under test [default: CROUPIER_BIN, else it is built]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Only this phase; may be given several times
    #[arg(long, value_enum)]
    phase: Vec<Phase>,
    /// Only this fault; may be given several times
    #[arg(long, value_enum)]
    fault: Vec<Fault>,
    /// Only this way of making the log durable; may be given several times
    #[arg(long, value_enum)]
    log: Vec<Log>,
    /// Only every K-th call
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    sample: u32,
    /// Which of the K
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Runs at a time
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    jobs: u32,
    /// Only cases whose description contains this text, as reports print it
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
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
    let plan = Plan {
        phases: args.phase,
        faults: args.fault,
        logs: args.log,
        sample: args.sample as usize,
        seed: args.seed,
        jobs: args.jobs as usize,
        only: args.only,
    };
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{pos}/{len} faults {wide_bar} {eta} {msg}");
    bar.set_style(style.expect("a template"));
    let findings = run(&plan, &|told| match told {
        Told::Cases(count) => bar.set_length(count as u64),
        Told::Done(judged) => {
            if let Verdict::Broken(_) = judged.verdict {
                bar.println(format!("BROKEN {}", judged.case));
            }
            bar.inc(1);
        }
    });
    bar.finish_and_clear();
    let findings = match findings {
        Ok(findings) => findings,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::FAILURE;
        }
    };
    let report = Report::new(&findings);
    if args.json {
        println!("{}", report.json());
    } else {
        println!("{}", report.text());
    }
    match report.broken() + report.missed() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
