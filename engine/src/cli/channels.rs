//! `croupier channels`: how the channels do that are outside.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use croupier_client::{
    ChannelCause, ChannelKind, ChannelMoveReply, ChannelRow, ChannelStanding, Client,
};
use serde_json::{Value, json};

use super::Globals;
use super::connect::ServerArgs;
use super::error::CliError;
use super::print::{self, Facts, Grid};
use super::records::{rfc3339, until};

/// Show how the channels do that are outside, issuers and upstreams, or take one out and put it back
///
/// Those of the route table in force, by name. Counts are since the server began.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  croupier channels
  croupier channels --json
  croupier channels eject alpha --for 10m
  croupier channels restore alpha")]
pub(super) struct ChannelsArgs {
    #[command(subcommand)]
    command: Option<ChannelsCommand>,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum ChannelsCommand {
    /// Ask a channel no more, whatever its route says
    #[command(after_help = "\
Examples:
  croupier channels eject alpha
  croupier channels eject alpha --for 10m")]
    Eject {
        /// The channel
        name: String,
        /// For how long; then a few jobs show whether it is well [default: until it is restored]
        #[arg(long = "for", value_name = "TIME", value_parser = time)]
        time: Option<Duration>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Have a channel be healthy, whatever was before
    #[command(after_help = "Example:\n  croupier channels restore alpha")]
    Restore {
        /// The channel
        name: String,
        #[command(flatten)]
        server: ServerArgs,
    },
}

fn time(text: &str) -> Result<Duration, String> {
    let read = text.parse::<jiff::SignedDuration>().ok();
    let read = read.and_then(|time| Duration::try_from(time).ok());
    read.filter(|time| !time.is_zero())
        .ok_or_else(|| format!("{text:?} is no time: write it as 30s, 10m or 2h"))
}

pub(super) fn run(args: &ChannelsArgs, globals: &Globals) -> Result<ExitCode, CliError> {
    match &args.command {
        None => {
            let rows = args
                .server
                .run(async |client| Ok(client.channels().await?))?;
            match globals.json {
                true => print::json(&rows.iter().map(shown).collect::<Vec<_>>())?,
                false => show(&rows)?,
            }
        }
        Some(ChannelsCommand::Eject { name, time, server }) => {
            let eject = async |client: Client| Ok(client.eject_channel(name, *time).await?);
            print_moved(name, &server.run(eject)?, globals)?;
        }
        Some(ChannelsCommand::Restore { name, server }) => {
            let restore = async |client: Client| Ok(client.restore_channel(name).await?);
            print_moved(name, &server.run(restore)?, globals)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print_moved(name: &str, moved: &ChannelMoveReply, globals: &Globals) -> Result<(), CliError> {
    let standing = ChannelStanding::try_from(moved.standing).map(ChannelStanding::name);
    Facts::default()
        .with("channel", name)
        .with("standing", standing.unwrap_or("unknown"))
        .with_some("until", until(moved.until_unix_ms))
        .with("lsn", moved.lsn)
        .print(globals.json)
}

/// Names of what stands in a row by its number; a number that this version does not know is shown as it is.
fn names(row: &ChannelRow) -> [String; 3] {
    let kind = ChannelKind::try_from(row.kind).map(ChannelKind::name);
    let standing = ChannelStanding::try_from(row.standing).map(ChannelStanding::name);
    let cause = ChannelCause::try_from(row.cause).map(ChannelCause::name);
    let text = |name: Result<&'static str, _>, number: u16| match name {
        Ok(name) => name.to_owned(),
        Err(_) => number.to_string(),
    };
    [
        text(kind, row.kind),
        text(standing, row.standing),
        text(cause, row.cause),
    ]
}

fn ms(us: u64) -> f64 {
    us as f64 / 1000.0
}

fn shown(row: &ChannelRow) -> Value {
    let [kind, standing, cause] = names(row);
    json!({
        "name": row.name, "kind": kind, "pool": row.pool, "standing": standing,
        "cause": (row.cause != 0).then_some(cause), "ejections": row.ejections,
        "since": (row.since_unix_ms != 0).then(|| rfc3339(row.since_unix_ms)), "until": until(row.until_unix_ms),
        "workers": row.workers, "room": row.room, "jobs": row.jobs, "ready": row.ready, "filled": row.filled,
        "failed": row.failed, "timed_out": row.timed_out, "late": row.late, "cards": row.cards,
        "mean_ms": ms(row.mean_us), "p99_ms": ms(row.p99_us),
    })
}

fn show(rows: &[ChannelRow]) -> Result<(), CliError> {
    if rows.is_empty() {
        return print::line("the route table in force has no channel that is outside");
    }
    let mut grid = Grid::new(&[
        "channel",
        "kind",
        "standing",
        "why",
        "until",
        ">workers",
        ">room",
        ">jobs",
        ">ready",
        ">filled",
        ">failed",
        ">timed out",
        ">late",
        ">cards",
        ">mean ms",
        ">p99 ms",
    ]);
    for row in rows {
        let [kind, standing, cause] = names(row);
        let dash = || "–".to_owned();
        grid.row([
            row.name.clone(),
            kind,
            standing,
            if row.cause == 0 { dash() } else { cause },
            until(row.until_unix_ms).unwrap_or_else(dash),
            row.workers.to_string(),
            row.room.to_string(),
            row.jobs.to_string(),
            row.ready.to_string(),
            row.filled.to_string(),
            row.failed.to_string(),
            row.timed_out.to_string(),
            row.late.to_string(),
            row.cards.to_string(),
            ms(row.mean_us).to_string(),
            ms(row.p99_us).to_string(),
        ]);
    }
    grid.print()
}
