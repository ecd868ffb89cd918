//! `croupier import`: a file of cards on its way to the server, and the report of what became of each line.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use croupier_client::{Client, ImportOptions, ImportReport, MaxUses, RejectionCount};
use croupier_protocol::{REJECTIONS_LISTED_MAX, RejectReason, SkuId};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::Globals;
use super::connect::ServerArgs;
use super::error::{CliError, FAILED};
use super::print::{self, Grid};
use crate::import::{FileError, Format, Parsed, ReadOptions, RowReader};

/// Rejected lines that are shown to people; `--rejects` and `--json` give all.
const REJECTS_SHOWN: usize = 10;

/// Import cards from a file: all of its good lines become sellable at once, every other line is reported
#[derive(Debug, Args)]
#[command(after_help = "\
Formats (guessed from the file's name and first line unless --format says):
  lines  one card a line
  csv    a header row; --secret names the columns that make the secret (default: secret);
         expires_at or expires (YYYY-MM-DD or RFC 3339) and label are taken when they are there
  bars   secret║label║premium║cost

Examples:
  croupier import --sku steam-50 --create-sku keys.txt
  croupier import --sku gift-100 gift-cards.csv --secret number,pin --rejects rejects.csv
  croupier import --sku five-seats accounts.csv --secret name,password --max-uses 5
  zcat keys.txt.gz | croupier import --sku steam-50 - --json")]
pub(super) struct ImportArgs {
    /// The SKU's name
    #[arg(long, value_name = "NAME")]
    sku: String,
    /// The file, or - for stdin
    file: PathBuf,
    /// How the cards are written [default: guessed]
    #[arg(long, value_enum)]
    format: Option<FormatArg>,
    /// csv columns that make the secret, joined by a space
    #[arg(long, value_name = "COL[,COL]", value_delimiter = ',')]
    secret: Vec<String>,
    /// Label of the batch [default: the server chooses one]
    #[arg(long, value_name = "LABEL")]
    batch: Option<String>,
    /// The pool that the cards join
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// How often each card may be dealt; "unlimited" goes with at most 64 cards
    #[arg(long, value_name = "N|unlimited", default_value_t)]
    max_uses: MaxUses,
    /// Make the SKU if there is none of that name
    #[arg(long)]
    create_sku: bool,
    /// Write every rejected line's number and reason to this csv file
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FormatArg {
    Lines,
    Csv,
    Bars,
}

impl From<FormatArg> for Format {
    fn from(arg: FormatArg) -> Self {
        match arg {
            FormatArg::Lines => Format::Lines,
            FormatArg::Csv => Format::Csv,
            FormatArg::Bars => Format::Bars,
        }
    }
}

pub(super) fn run(args: ImportArgs, globals: &Globals) -> Result<ExitCode, CliError> {
    // Everything that can be wrong on this side is found before the server hears of it.
    let bar = progress_bar(&args.file);
    let options = ReadOptions {
        name: (!is_stdin(&args.file)).then_some(args.file.as_path()),
        format: args.format.map(Format::from),
        secret_columns: &args.secret,
    };
    let source = bar.wrap_read(open(&args.file)?);
    let mut rows =
        RowReader::open(source, &options).map_err(|error| file_error(&args.file, error))?;
    let rejects_file = args.rejects.as_deref().map(create).transpose()?;

    let summary = args.server.run(async |client| {
        let mut rejections = Rejections::default();
        let (sku_id, report) = send(&client, &args, &mut rows, &mut rejections).await?;
        let summary = Summary::new(report, rejections);
        Ok(Summary {
            sku: args.sku.clone(),
            sku_id: sku_id.0,
            format: rows.format().name(),
            blank_lines: rows.blank_lines(),
            ..summary
        })
    });
    bar.finish_and_clear();
    let summary = summary?;

    if let (Some(file), Some(path)) = (rejects_file, &args.rejects) {
        summary
            .write_rejects(file)
            .map_err(|source| CliError::Path {
                op: "write",
                path: path.clone(),
                source,
            })?;
    }
    if globals.json {
        print::json(&summary)?;
    } else {
        summary.print(args.rejects.as_deref())?;
    }
    Ok(if summary.accepted > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    })
}

async fn send<R: Read>(
    client: &Client,
    args: &ImportArgs,
    rows: &mut RowReader<R>,
    rejections: &mut Rejections,
) -> Result<(SkuId, ImportReport), CliError> {
    let mut import = client
        .import(ImportOptions {
            sku: args.sku.clone(),
            create_sku: args.create_sku,
            batch: args.batch.clone(),
            pool: args.pool.clone(),
            max_uses: args.max_uses,
        })
        .await?;
    while let Some(parsed) = rows
        .next_row()
        .map_err(|error| file_error(&args.file, error))?
    {
        match parsed {
            Parsed::Row(row) => import.push(row).await?,
            Parsed::Rejected { line, reason } => rejections.add(line, reason),
        }
    }
    Ok((import.sku(), import.finish().await?))
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// Opens a file of cards; `-` is stdin.
pub(super) fn open(path: &Path) -> Result<Box<dyn Read + Send>, CliError> {
    if is_stdin(path) {
        return Ok(Box::new(io::stdin()));
    }
    match File::open(path) {
        Ok(file) => Ok(Box::new(file)),
        Err(source) => Err(CliError::Path {
            op: "open",
            path: path.to_owned(),
            source,
        }),
    }
}

fn create(path: &Path) -> Result<File, CliError> {
    File::create(path).map_err(|source| CliError::Path {
        op: "create",
        path: path.to_owned(),
        source,
    })
}

fn file_error(path: &Path, error: FileError) -> CliError {
    let path = if is_stdin(path) {
        "stdin".into()
    } else {
        path.to_owned()
    };
    CliError::File { path, error }
}

/// Bytes of the file on stderr, when somebody looks at it.
fn progress_bar(path: &Path) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bytes = std::fs::metadata(path)
        .ok()
        .filter(|meta| meta.is_file())
        .map(|meta| meta.len());
    let (bar, template) = match bytes {
        Some(bytes) => (
            ProgressBar::new(bytes),
            "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        ),
        None => (
            ProgressBar::new_spinner(),
            "{spinner} {bytes} {bytes_per_sec}",
        ),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Rejected lines, all counted and the first [`REJECTIONS_LISTED_MAX`] listed.
#[derive(Debug, Default)]
struct Rejections {
    counts: BTreeMap<&'static str, u64>,
    listed: Vec<RejectedLine>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct RejectedLine {
    line: u64,
    reason: &'static str,
}

impl Rejections {
    fn add(&mut self, line: u64, reason: RejectReason) {
        *self.counts.entry(reason.name()).or_default() += 1;
        if self.listed.len() < REJECTIONS_LISTED_MAX {
            self.listed.push(RejectedLine {
                line,
                reason: reason.name(),
            });
        }
    }
}

/// What became of an import. Its JSON is flat: one field a reason that occurred.
#[derive(Debug, Serialize)]
struct Summary {
    sku: String,
    sku_id: u32,
    batch: Option<String>,
    batch_id: u32,
    lsn: u64,
    slabs: u32,
    format: &'static str,
    /// Lines with something on them: accepted and rejected, without a csv file's header.
    lines: u64,
    blank_lines: u64,
    accepted: u64,
    #[serde(flatten)]
    counts: BTreeMap<&'static str, u64>,
    rejected: Vec<RejectedLine>,
}

impl Summary {
    /// Joins the server's report with what the parser had rejected before; the file's own facts are still blank.
    fn new(report: ImportReport, found: Rejections) -> Self {
        let Rejections {
            mut counts,
            listed: mut rejected,
        } = found;
        for RejectionCount { reason, count } in report.counts {
            *counts.entry(reason.name()).or_default() += count;
        }
        rejected.extend(report.rejections.iter().map(|found| RejectedLine {
            line: found.line,
            reason: found.reason.name(),
        }));
        rejected.sort_unstable();
        let rejected_lines: u64 = counts.values().sum();
        Summary {
            sku: String::new(),
            sku_id: 0,
            batch: (report.accepted > 0).then_some(report.label),
            batch_id: report.batch,
            lsn: report.lsn.0,
            slabs: report.slabs,
            format: "",
            lines: report.accepted + rejected_lines,
            blank_lines: 0,
            accepted: report.accepted,
            counts,
            rejected,
        }
    }

    fn write_rejects(&self, file: File) -> io::Result<()> {
        // The header stands there also when no line was rejected.
        let mut writer = csv::WriterBuilder::new()
            .has_headers(false)
            .from_writer(file);
        writer.write_record(["line", "reason"])?;
        for rejected in &self.rejected {
            writer.serialize(rejected)?;
        }
        writer.flush()
    }

    fn print(&self, rejects: Option<&Path>) -> Result<(), CliError> {
        let batch = match &self.batch {
            Some(label) => format!("batch {}, lsn {}", print::shown(label), self.lsn),
            None => "nothing was imported".to_owned(),
        };
        print::line(&format!(
            "{} ({}): {batch}",
            print::shown(&self.sku),
            self.format
        ))?;
        let mut grid = Grid::new(&["lines", ">count"]);
        grid.row(["accepted".to_owned(), self.accepted.to_string()]);
        for (reason, count) in &self.counts {
            grid.row([(*reason).to_owned(), count.to_string()]);
        }
        grid.row(["all".to_owned(), self.lines.to_string()]);
        grid.print()?;
        if self.rejected.is_empty() {
            return Ok(());
        }
        let mut grid = Grid::new(&[">rejected line", "reason"]);
        for rejected in self.rejected.iter().take(REJECTS_SHOWN) {
            grid.row([rejected.line.to_string(), rejected.reason.to_owned()]);
        }
        grid.print()?;
        let hidden = self.rejected.len().saturating_sub(REJECTS_SHOWN);
        match rejects {
            Some(path) => print::line(&format!(
                "all {} of them: {}",
                self.rejected.len(),
                path.display()
            )),
            None if hidden > 0 => print::line(&format!(
                "and {hidden} more: --rejects FILE writes them all"
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use croupier_client::Rejection;
    use croupier_protocol::Lsn;
    use serde_json::json;

    use super::*;

    fn summary(accepted: u64) -> Summary {
        let mut found = Rejections::default();
        found.add(9, RejectReason::BadExpiry);
        found.add(3, RejectReason::EmptySecret);
        found.add(5, RejectReason::EmptySecret);
        let report = ImportReport {
            batch: 2,
            label: "b".to_owned(),
            lsn: Lsn(17),
            accepted,
            slabs: 1,
            counts: [RejectReason::EmptySecret, RejectReason::DuplicateInFile]
                .map(|reason| RejectionCount { reason, count: 1 })
                .into(),
            rejections: vec![
                Rejection {
                    line: 4,
                    reason: RejectReason::EmptySecret,
                },
                Rejection {
                    line: 8,
                    reason: RejectReason::DuplicateInFile,
                },
            ],
        };
        let facts = Summary::new(report, found);
        Summary {
            sku: "s".to_owned(),
            sku_id: 4,
            format: "csv",
            blank_lines: 6,
            ..facts
        }
    }

    #[test]
    fn the_summary_is_flat_and_joins_both_sides() {
        let expect = json!({
            "sku": "s", "sku_id": 4, "batch": "b", "batch_id": 2, "lsn": 17, "slabs": 1, "format": "csv",
            "lines": 105, "blank_lines": 6, "accepted": 100, "empty_secret": 3, "bad_expiry": 1, "duplicate_in_file": 1,
            "rejected": [
                { "line": 3, "reason": "empty_secret" },
                { "line": 4, "reason": "empty_secret" },
                { "line": 5, "reason": "empty_secret" },
                { "line": 8, "reason": "duplicate_in_file" },
                { "line": 9, "reason": "bad_expiry" },
            ],
        });
        assert_eq!(
            serde_json::to_value(summary(100)).expect("plain data"),
            expect
        );
        assert_eq!(
            serde_json::to_value(summary(0)).expect("plain data")["batch"],
            json!(null)
        );
    }

    #[test]
    fn rejects_as_csv() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        summary(1)
            .write_rejects(file.reopen().expect("the same file"))
            .expect("written");
        let text = std::fs::read_to_string(file.path()).expect("readable");
        assert!(
            text.starts_with("line,reason\n3,empty_secret\n4,empty_secret\n"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 6);
    }
}
