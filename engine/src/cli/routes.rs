//! `croupier routes check|load|show|status|history|rollback`; `replay` is in `what_if`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use croupier_client::{Client, RouteRow, RoutesLoadReply, RoutesOptions, RoutesStatusReply};
use serde_json::{Value, json};

use super::Globals;
use super::connect::ServerArgs;
use super::engine_seam;
use super::error::CliError;
use super::print::{self, Facts, Grid};
use super::records::rfc3339;
use super::what_if::{self, ReplayArgs};

/// Check a route table, put it in force, show it, go back to one that was in force, or see what it would do
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
    #[command(after_help = "\
Examples:
  croupier routes load routes.toml
  croupier routes load routes.toml --expect 7")]
    Load {
        /// The table, a TOML file
        file: PathBuf,
        #[command(flatten)]
        expect: ExpectArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show the route table in force, or one that was
    #[command(after_help = "\
Examples:
  croupier routes show > routes.toml
  croupier routes show --version 7")]
    Show {
        /// Its version, as `routes history` tells it; 0 is the built-in table [default: the one in force]
        #[arg(long, value_name = "VERSION")]
        version: Option<u32>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show how loaded the server is, and how many orders each rule has taken
    #[command(after_help = "Example:\n  croupier routes status --json")]
    Status {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// List the route tables that were in force, the newest first
    #[command(after_help = "Example:\n  croupier routes history")]
    History {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Put a route table in force again that was before
    #[command(after_help = "\
Examples:
  croupier routes rollback
  croupier routes rollback 7
  croupier routes rollback --expect 8")]
    Rollback {
        /// Its version, as `routes history` tells it; 0 is the built-in table [default: the last one before that is another table]
        version: Option<u32>,
        #[command(flatten)]
        expect: ExpectArgs,
        #[command(flatten)]
        server: ServerArgs,
    },
    Replay(ReplayArgs),
}

/// Which table is to be replaced.
#[derive(Debug, Args)]
struct ExpectArgs {
    /// Change nothing unless this version is in force: somebody else may have loaded another
    #[arg(long, value_name = "VERSION")]
    expect: Option<u32>,
}

impl ExpectArgs {
    fn options(&self) -> RoutesOptions {
        RoutesOptions {
            expect: self.expect,
        }
    }
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
        RoutesCommand::Load {
            file,
            expect,
            server,
        } => {
            let (toml, options) = (read(&file)?, expect.options());
            let load = async |client: Client| Ok(client.routes_load_with(&toml, options).await?);
            print_loaded(server.run(load)?, globals.json)?;
        }
        RoutesCommand::Status { server } => {
            let status = server.run(async |client| Ok(client.routes_status().await?))?;
            show_status(&status, globals)?;
        }
        RoutesCommand::Rollback {
            version,
            expect,
            server,
        } => {
            let options = expect.options();
            let back = async |client: Client| Ok(client.routes_rollback(version, options).await?);
            print_loaded(server.run(back)?, globals.json)?;
        }
        RoutesCommand::Show { version, server } => {
            let shown = server.run(async |client| match version {
                Some(version) => Ok(client.routes_show_version(version).await?),
                None => Ok(client.routes_show().await?),
            })?;
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
        RoutesCommand::History { server } => {
            let rows = server.run(async |client| Ok(client.routes_history().await?))?;
            print_history(&rows, globals.json)?;
        }
        RoutesCommand::Replay(args) => return what_if::run(&args, globals),
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

pub(super) fn read(file: &Path) -> Result<String, CliError> {
    std::fs::read_to_string(file).map_err(|source| CliError::Path {
        op: "read",
        path: file.to_owned(),
        source,
    })
}

fn print_loaded(loaded: RoutesLoadReply, as_json: bool) -> Result<(), CliError> {
    if as_json {
        let facts = Facts::default()
            .with("version", loaded.version)
            .with("lsn", loaded.lsn);
        return facts.with("warnings", loaded.warnings).print(true);
    }
    print_warnings(&loaded.warnings);
    print::line(&format!(
        "route table {} is in force since lsn {}",
        loaded.version, loaded.lsn
    ))
}

/// The newest first; it is the one in force. What is not known is null, or a dash.
fn print_history(rows: &[RouteRow], as_json: bool) -> Result<(), CliError> {
    let lsn = |row: &RouteRow| (row.lsn > 0).then_some(row.lsn);
    let at = |row: &RouteRow| (row.unix_ms > 0).then(|| rfc3339(row.unix_ms));
    if as_json {
        let rows = rows.iter().enumerate().map(|(nth, row)| {
            json!({
                "version": row.version, "in_force": nth == 0, "lsn": lsn(row), "at": at(row),
                "bytes": row.bytes, "rules": row.rules, "same_as": row.same_as,
            })
        });
        return print::json(&rows.collect::<Vec<_>>());
    }
    let mut grid = Grid::new(&[
        ">version", ">lsn", "since", ">bytes", ">rules", ">same as", "",
    ]);
    let text = |some: Option<String>| some.unwrap_or_else(|| "–".to_owned());
    for (nth, row) in rows.iter().enumerate() {
        let remark = match (nth, row.version) {
            (0, 0) => "in force, built in",
            (0, _) => "in force",
            (_, 0) => "built in",
            _ => "",
        };
        grid.row([
            row.version.to_string(),
            text(lsn(row).map(|lsn| lsn.to_string())),
            text(at(row)),
            row.bytes.to_string(),
            row.rules.to_string(),
            text(row.same_as.map(|version| version.to_string())),
            remark.to_owned(),
        ]);
    }
    grid.print()
}

pub(super) fn print_warnings(warnings: &[String]) {
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
}
