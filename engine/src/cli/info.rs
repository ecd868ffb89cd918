//! `croupier info`: what server this is and how it does.

use std::process::ExitCode;

use clap::Args;

use super::Globals;
use super::connect::ServerArgs;
use super::error::CliError;
use super::order::hex;
use super::print::Facts;

/// Show the server's version, store, cores and place in the log
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  croupier info --json")]
pub(super) struct InfoArgs {
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn run(args: InfoArgs, globals: &Globals) -> Result<ExitCode, CliError> {
    let info = args
        .server
        .run(async |client| Ok(client.server_info().await?))?;
    Facts::default()
        .with("version", info.version)
        .with("store_id", hex(&info.store_id))
        .with("epoch", info.epoch)
        .with("cores", info.cores)
        .with("durable_lsn", info.durable_lsn)
        .with("uptime_ms", info.uptime_ms)
        .with("sync", info.sync)
        .with("routes_version", info.routes)
        .with("orders", info.orders)
        .print(globals.json)?;
    Ok(ExitCode::SUCCESS)
}
