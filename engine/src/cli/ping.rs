//! `croupier ping`: is a server there, and how far is it.

use std::process::ExitCode;

use clap::Args;

use super::Globals;
use super::connect::ServerArgs;
use super::error::CliError;
use super::print::{self, Facts};

/// Measure one round trip to the server
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  croupier ping --server croupier://10.0.0.7:7733")]
pub(super) struct PingArgs {
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn run(args: PingArgs, globals: &Globals) -> Result<ExitCode, CliError> {
    let round_trip = args.server.run(async |client| {
        // The first one pays for what a new connection warms up.
        client.ping().await?;
        Ok(client.ping().await?)
    })?;
    let round_trip_us = round_trip.as_nanos() as f64 / 1e3;
    if globals.json {
        Facts::default()
            .with("server", args.server.server)
            .with("round_trip_us", round_trip_us)
            .print(true)?;
    } else {
        print::line(&format!(
            "{} answers in {round_trip_us:.0} µs",
            args.server.server
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
