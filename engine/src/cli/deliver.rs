//! `croupier deliver`: cards that become stock one by one, as they come.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use clap::Args;
use croupier_client::Client;
use croupier_protocol::{ImportRow, Refusal, RejectReason};
use serde_json::{Value, json};
use tokio::sync::mpsc::{self, Receiver, Sender};
use zeroize::Zeroizing;

use super::Globals;
use super::connect::ServerArgs;
use super::error::{CliError, FAILED};
use super::import::open;
use super::print::{self, Facts};
use crate::import::{FileError, Format, Parsed, ReadOptions, RowReader};

/// Cards that are delivered at a time, if so many are there.
const GROUP_ROWS: usize = 256;
/// Rejected lines that are listed; beyond it they are only counted.
const REJECTS_LISTED_MAX: usize = 1000;

/// Deliver cards: each line is one, and is stock as soon as it is there
///
/// What a server has already is rejected as a duplicate, so the same may be delivered again. Cards that are to become
/// sellable all at once, or have labels, are imported.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  croupier deliver --sku steam-50 keys.txt
  tail -f supplier.txt | croupier deliver --sku steam-50 --create-sku -")]
pub(super) struct DeliverArgs {
    /// The SKU's name
    #[arg(long, value_name = "NAME")]
    sku: String,
    /// The file, or - for stdin
    file: PathBuf,
    /// The pool that the cards join
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Make the SKU if there is none of that name
    #[arg(long)]
    create_sku: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// A line on its way: a card, or why it is none.
type Line = (u64, Result<Zeroizing<Vec<u8>>, RejectReason>);

/// What has become of the lines.
#[derive(Default)]
struct Report {
    lsn: u64,
    accepted: u64,
    rejected: u64,
    listed: Vec<(u64, RejectReason)>,
}

impl Report {
    fn reject(&mut self, line: u64, reason: RejectReason) {
        self.rejected += 1;
        if self.listed.len() < REJECTS_LISTED_MAX {
            self.listed.push((line, reason));
        }
    }
}

pub(super) fn run(args: DeliverArgs, globals: &Globals) -> Result<ExitCode, CliError> {
    let source = open(&args.file)?;
    let report = args.server.run(async |client| {
        if args.create_sku {
            make_sku(&client, &args.sku).await?;
        }
        let (to, lines) = mpsc::channel(2 * GROUP_ROWS);
        // Not waited for when something fails: it may be waiting for stdin.
        let reader = thread::spawn(move || read(source, &to));
        let mut report = Report::default();
        let sent = send(&client, &args, lines, &mut report).await;
        sent.map_err(|error| CliError::Deliver {
            accepted: report.accepted,
            error,
        })?;
        let read = reader.join().expect("reading lines does not panic");
        read.map_err(|error| CliError::File {
            path: args.file.clone(),
            error,
        })?;
        Ok(report)
    })?;
    print(&args, &report, globals)?;
    Ok(if report.accepted > 0 || report.rejected == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    })
}

async fn make_sku(client: &Client, name: &str) -> Result<(), CliError> {
    match client.sku_create(name).await {
        Ok(_) => Ok(()),
        Err(croupier_client::Error::Refused {
            refusal: Refusal::SkuExists,
            ..
        }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Reads lines until there are no more, or nobody wants them.
fn read(source: Box<dyn Read + Send>, to: &Sender<Line>) -> Result<(), FileError> {
    let options = ReadOptions {
        format: Some(Format::Lines),
        ..ReadOptions::default()
    };
    let mut rows = RowReader::open(source, &options)?;
    while let Some(parsed) = rows.next_row()? {
        let line = match parsed {
            Parsed::Row(row) => (row.line, Ok(Zeroizing::new(row.secret.to_vec()))),
            Parsed::Rejected { line, reason } => (line, Err(reason)),
        };
        if to.blocking_send(line).is_err() {
            break;
        }
    }
    Ok(())
}

/// Delivers lines as they come: as many at a time as are there.
async fn send(
    client: &Client,
    args: &DeliverArgs,
    mut lines: Receiver<Line>,
    report: &mut Report,
) -> Result<(), croupier_client::Error> {
    let mut group: Vec<Line> = Vec::with_capacity(GROUP_ROWS);
    while lines.recv_many(&mut group, GROUP_ROWS).await > 0 {
        let mut rows = Vec::with_capacity(group.len());
        for (line, card) in &group {
            match card {
                Ok(secret) => rows.push(ImportRow::new(*line, secret)),
                Err(reason) => report.reject(*line, *reason),
            }
        }
        for part in parts(&rows) {
            let told = client
                .deliver(&args.sku, args.pool.as_deref(), part)
                .await?;
            report.lsn = report.lsn.max(told.lsn);
            report.accepted += told.accepted;
            for rejected in told.rejections {
                let reason = RejectReason::try_from(rejected.reason);
                report.reject(
                    rejected.line,
                    reason.unwrap_or(RejectReason::DuplicateInStock),
                );
            }
        }
        group.clear();
    }
    Ok(())
}

/// Rows in parts that fit the shortest frame that a server may be configured for.
fn parts<'r, 's>(rows: &'r [ImportRow<'s>]) -> impl Iterator<Item = &'r [ImportRow<'s>]> {
    const PART_BYTES_MAX: usize = 7 << 10;
    let mut rest = rows;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = rest.iter().take_while(|row| {
            bytes += row.encoded_bytes();
            bytes <= PART_BYTES_MAX
        });
        let (part, later) = rest.split_at(fits.count().max(1).min(rest.len()));
        rest = later;
        (!part.is_empty()).then_some(part)
    })
}

fn print(args: &DeliverArgs, report: &Report, globals: &Globals) -> Result<(), CliError> {
    let rejections = report.listed.iter();
    let rejections: Vec<Value> = rejections
        .map(|(line, reason)| json!({ "line": line, "reason": reason.name() }))
        .collect();
    if globals.json {
        return print::json(&json!({
            "sku": args.sku, "lsn": report.lsn, "accepted": report.accepted,
            "rejected": report.rejected, "rejections": rejections,
        }));
    }
    for (line, reason) in &report.listed {
        eprintln!("line {line}: {}", reason.name());
    }
    Facts::default()
        .with("sku", args.sku.as_str())
        .with("accepted", report.accepted)
        .with("rejected", report.rejected)
        .print(false)
}
