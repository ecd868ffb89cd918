//! The command line: reads flags, runs the subcommand, prints its report, returns its exit code.

use std::fmt::Display;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde::Serialize;

use crate::error::{BenchError, EXIT_FAILED};
use crate::limits::toy::ToyArgs;
use crate::limits::{self, LimitsArgs};
use crate::machine::raise_file_limit;
use crate::peers::{self, PeersArgs};
use crate::report::{RunReport, draw_distribution, draw_sweep, write_hgrm, write_hlog};
use crate::run::{self, Mode, RunArgs};
use crate::scale::{self, ScaleArgs};
use crate::scene::{self, SceneArgs};

/// Loads a Croupier server, measures it from the caller's side, and checks every answer.
#[derive(Debug, Parser)]
#[command(name = "croupier-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Load one server: open loop at a rate (default 1,500/s for 30 s, P99 ≤ 1 ms), or closed loop with --closed
    Run(Box<RunArgs>),
    /// Measure what this machine can do without an engine, and the engine as a share of it
    Limits(LimitsArgs),
    /// Run Redis and PostgreSQL on the same work, side by side with Croupier
    Peers(PeersArgs),
    /// See what rate, latency, memory, starts and recovery become as cards, orders, SKUs, connections and holds grow
    Scale(Box<ScaleArgs>),
    /// Have three issuers fall ill in the middle of a load: one hangs, one is slow, one answers after its lease
    Scene(Box<SceneArgs>),
    /// A server without an engine, for `limits`
    #[command(hide = true)]
    Toy(ToyArgs),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let command = Cli::parse().command;
    raise_file_limit();
    let result = match command {
        Command::Run(args) => run_and_report(&args),
        Command::Limits(args) => limits::run(&args).and_then(|report| print(&report, args.json)),
        Command::Peers(args) => peers::run(&args).and_then(|report| print(&report, args.json)),
        Command::Scale(args) => scale_and_report(&args),
        Command::Scene(args) => {
            scene::run(&args).and_then(|report| print(&report, args.json).map(|_| report.pass))
        }
        Command::Toy(args) => limits::toy::serve(&args).map(|()| true),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_FAILED),
        Err(error) => {
            eprintln!("croupier-bench: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run_and_report(args: &RunArgs) -> Result<bool, BenchError> {
    let report = run::run(args)?;
    print(&report, args.json)?;
    write_files(args, &report)?;
    Ok(report.verdict.pass)
}

fn scale_and_report(args: &ScaleArgs) -> Result<bool, BenchError> {
    let report = scale::run(args)?;
    print(&report, args.json)?;
    if let Some(path) = &args.plot {
        scale::draw(path, &report)?;
    }
    Ok(report.pass())
}

/// Prints a report; true, for a report that is no verdict.
fn print(report: &(impl Serialize + Display), json: bool) -> Result<bool, BenchError> {
    if json {
        let text = serde_json::to_string_pretty(report).map_err(|error| BenchError::Io {
            what: "write the report".into(),
            source: error.into(),
        })?;
        println!("{text}");
    } else {
        print!("{report}");
    }
    Ok(true)
}

fn write_files(args: &RunArgs, report: &RunReport) -> Result<(), BenchError> {
    // A sweep has a distribution for each rate; the last one is the one that people ask about.
    let Some(operations) = report.steps.last().map(|step| &step.operations) else {
        return Ok(());
    };
    if let (Some(path), Some(operation)) = (&args.hgrm, operations.first()) {
        write_hgrm(&operation.histogram, path)
            .map_err(BenchError::io(format!("write {}", path.display())))?;
    }
    let title = format!(
        "croupier {}, {}",
        report.server.version, report.server.durability
    );
    if let Some(path) = &args.hlog {
        write_hlog(&title, &report.steps, path)
            .map_err(BenchError::io(format!("write {}", path.display())))?;
    }
    if let Some(path) = &args.plot {
        if args.mode() == Mode::Sweep {
            draw_sweep(path, &title, &report.steps)?;
        } else {
            let series: Vec<_> = operations
                .iter()
                .map(|operation| (operation.operation.name().to_string(), &operation.histogram))
                .collect();
            draw_distribution(path, &title, &series)?;
        }
    }
    Ok(())
}
