//! `croupier routes check|load|show`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::Globals;
use super::connect::ServerArgs;
use super::engine_seam;
use super::error::CliError;
use super::print::{self, Facts};

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
