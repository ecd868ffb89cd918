//! `croupier routes check|load|show|status`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use croupier_client::RoutesStatusReply;
use serde_json::{Value, json};

use super::Globals;
use super::connect::ServerArgs;
use super::engine_seam;
use super::error::CliError;
use super::print::{self, Facts, Grid};

/// Check a route table, put it in force, or show the one in force
#[derive(Debug, Args)]
pub(super) struct RoutesArgs {
    #[command(subcommand)]
    command: RoutesCommand,
}

#[derive(Debug, Subcommand)]
enum RoutesCommand {
    /// Read a route table and say what is wrong with it; nothing is changed and no server is needed
    #[command(after_help = "Example:\n  croupier routes check routes.toml")]
    Check {
        /// The table, a TOML file
        file: PathBuf,
    },
    /// Put a route table in force on the server
    #[command(after_help = "Example:\n  croupier routes load routes.toml")]
    Load {
        /// The table, a TOML file
        file: PathBuf,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show how loaded the server is, and how many orders each rule has taken
    #[command(after_help = "Example:\n  croupier routes status --json")]
    Status {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show the route table in force
    #[command(after_help = "Example:\n  croupier routes show > routes.toml")]
    Show {
        #[command(flatten)]
        server: ServerArgs,
    },
}

pub(super) fn run(args: RoutesArgs, globals: &Globals) -> Result<ExitCode, CliError> {
    match args.command {
        RoutesCommand::Check { file } => {
            let warnings = engine_seam::routes_check(&file, &read(&file)?)?;
            if globals.json {
                Facts::default()
                    .with("valid", true)
                    .with("warnings", warnings)
                    .print(true)?;
            } else {
                print_warnings(&warnings);
                print::line(&format!("{}: valid", file.display()))?;
            }
        }
        RoutesCommand::Load { file, server } => {
            let toml = read(&file)?;
            let loaded = server.run(async |client| Ok(client.routes_load(&toml).await?))?;
            if globals.json {
                let facts = Facts::default()
                    .with("version", loaded.version)
                    .with("lsn", loaded.lsn);
                facts.with("warnings", loaded.warnings).print(true)?;
            } else {
                print_warnings(&loaded.warnings);
                print::line(&format!(
                    "route table {} is in force since lsn {}",
                    loaded.version, loaded.lsn
                ))?;
            }
        }
        RoutesCommand::Status { server } => {
            let status = server.run(async |client| Ok(client.routes_status().await?))?;
            show_status(&status, globals)?;
        }
        RoutesCommand::Show { server } => {
            let shown = server.run(async |client| Ok(client.routes_show().await?))?;
            if globals.json {
                Facts::default()
                    .with("version", shown.version)
                    .with("toml", shown.toml)
                    .print(true)?;
            } else {
                // As it was loaded, so that it can be loaded again.
                print::line(shown.toml.trim_end())?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Parts of a whole, which are sent in ten-thousandths.
fn part(ten_thousandths: u32) -> f64 {
    f64::from(ten_thousandths) / 10_000.0
}

fn show_status(status: &RoutesStatusReply, globals: &Globals) -> Result<(), CliError> {
    let load = Facts::default()
        .with("version", status.version)
        .with("load", part(status.load))
        .with("lanes", part(status.lanes))
        .with("cores", part(status.cores))
        .with("log", part(status.log));
    if globals.json {
        let marks = status.marks.iter().map(|mark| {
            json!({ "load_above": part(mark.at), "passed": mark.passed, "flips": mark.flips })
        });
        let rules = (1..).zip(&status.rules).map(|(number, rule): (u32, _)| {
            json!({ "rule": number, "name": rule.name, "orders": rule.orders })
        });
        let load = load.with("marks", marks.collect::<Vec<Value>>());
        return load
            .with("rules", rules.collect::<Vec<Value>>())
            .print(true);
    }
    load.print(false)?;
    if !status.marks.is_empty() {
        let mut marks = Grid::new(&["load above", "passed", "flips"]);
        for mark in &status.marks {
            let at = part(mark.at).to_string();
            marks.row([at, mark.passed.to_string(), mark.flips.to_string()]);
        }
        marks.print()?;
    }
    let mut rules = Grid::new(&["rule", "name", "orders"]);
    for (number, rule) in (1..).zip(&status.rules) {
        let number: u32 = number;
        rules.row([
            number.to_string(),
            rule.name.clone(),
            rule.orders.to_string(),
        ]);
    }
    rules.print()
}

fn read(file: &Path) -> Result<String, CliError> {
    std::fs::read_to_string(file).map_err(|source| CliError::Path {
        op: "read",
        path: file.to_owned(),
        source,
    })
}

fn print_warnings(warnings: &[String]) {
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
}
