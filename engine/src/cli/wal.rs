//! `croupier wal dump|verify|replay`: the log of a stopped store.

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::Globals;
use super::engine_seam;
use super::error::CliError;
use super::init::{SegmentArgs, StoreArgs};
use super::print;
use super::records;

/// Read, check and replay the log of a stopped store
#[derive(Debug, Args)]
pub(super) struct WalArgs {
    #[command(subcommand)]
    command: WalCommand,
}

#[derive(Debug, Subcommand)]
enum WalCommand {
    /// Print the records of the log, one a line
    #[command(
        after_help = "Example:\n  croupier wal dump --data /var/lib/croupier --from 1000 | head"
    )]
    Dump {
        #[command(flatten)]
        store: StoreArgs,
        /// The first record to print
        #[arg(long, value_name = "LSN", default_value_t = 0)]
        from: u64,
        /// The last record to print [default: the last there is]
        #[arg(long, value_name = "LSN|TIME")]
        until: Option<Point>,
    },
    /// Check every byte of the log, the checkpoints and the slabs; exit code 3 when something is damaged
    #[command(after_help = "Example:\n  croupier wal verify --data /var/lib/croupier --json")]
    Verify {
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Rebuild the state from the log, up to a point, and print its digest; with --into, as a new data directory
    #[command(after_help = "\
Examples:
  croupier wal replay --data /var/lib/croupier
  croupier wal replay --data /var/lib/croupier --until 2026-11-11T00:05:00Z --into /tmp/before")]
    Replay {
        #[command(flatten)]
        store: StoreArgs,
        /// The last record to replay: an LSN, or a time (RFC 3339) up to which records count
        #[arg(long, value_name = "LSN|TIME")]
        until: Option<Point>,
        /// A new or empty directory to write the rebuilt store to
        #[arg(long, value_name = "DIR")]
        into: Option<PathBuf>,
        #[command(flatten)]
        segment: SegmentArgs,
    },
}

/// A record from or up to which others count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Point {
    /// This one.
    Lsn(u64),
    /// The first or last one made at this time, or next to it.
    UnixMs(u64),
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(lsn) = text.parse() {
            return Ok(Point::Lsn(lsn));
        }
        let instant: Timestamp = text.parse().map_err(|_| {
            "an LSN is a number, a time is RFC 3339 like 2026-11-11T00:05:00Z".to_owned()
        })?;
        Ok(Point::UnixMs(
            u64::try_from(instant.as_millisecond()).unwrap_or(0),
        ))
    }
}

pub(super) fn run(args: WalArgs, globals: &Globals) -> Result<ExitCode, CliError> {
    match args.command {
        WalCommand::Dump { store, from, until } => return dump(&store, from, until, globals.json),
        WalCommand::Verify { store } => {
            engine_seam::verify(&store.data, store.key_file.as_deref())?.print(globals.json)?;
        }
        WalCommand::Replay {
            store,
            until,
            into,
            segment,
        } => {
            let config = segment.load(store)?;
            engine_seam::replay(&config, until, into.as_deref())?.print(globals.json)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One record a line, and with `json` a JSON array of them, written as they are read.
fn dump(
    store: &StoreArgs,
    from: u64,
    until: Option<Point>,
    as_json: bool,
) -> Result<ExitCode, CliError> {
    let mut rows = print::Rows::new(as_json);
    let dumped = records::walk(
        &store.data,
        store.key_file.as_deref(),
        from,
        until,
        &mut |lsn, record| {
            let facts = records::facts(lsn, record);
            if as_json {
                rows.put_json(&facts.into_json())
            } else {
                rows.put_text(&facts.into_line())
            }
        },
    );
    match dumped {
        Err(error) if rows.is_empty() => Err(error),
        Err(CliError::StdoutClosed) => Err(CliError::StdoutClosed),
        Err(error) => {
            // Damage further on: what was read stays one whole JSON value, the error goes to stderr.
            rows.end()?;
            Ok(error.report(false))
        }
        Ok(()) => rows.end().map(|()| ExitCode::SUCCESS),
    }
}
