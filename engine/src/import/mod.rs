//! The formats cards arrive in: `lines`, `csv` and `bars`, read as a stream of rows and rejected lines.
//!
//! This module knows files, not stock: it finds the faults a parser can find (columns, quoting, UTF-8, dates, amounts)
//! and leaves duplicates and expired cards to the server. Memory is bounded whatever the input: one window of
//! [`LINE_BYTES_MAX`] plus one read, and a line above that is rejected without being held.
//!
//! When a line has several faults the first of this list is its reason: bad_quoting, wrong_column_count, invalid_utf8,
//! empty_secret, too_long, bad_expiry, bad_amount, label_too_long.
//!
//! Start with [`RowReader`], then [`lines`], [`bars`], [`csv`]; [`input`] is the window they all read through.

use std::io::{self, Read};
use std::path::Path;

use croupier_protocol::{ImportRow, LABEL_BYTES_MAX, RejectReason, SECRET_BYTES_MAX};

pub mod input;

pub mod bars;
pub mod csv;
pub mod lines;

pub mod amount;
pub mod expiry;

#[cfg(test)]
mod tests;

use self::input::Input;

/// A line (in csv: the fields of one record) above this is rejected as `too_long` and never held in memory.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// How the cards are written in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One card a line, the line is the secret.
    Lines,
    /// A header row names the columns (RFC 4180: quotes, embedded commas, quotes and line breaks).
    Csv,
    /// `secret║label║premium║cost`, one card a line.
    Bars,
}

/// What one line came to.
#[derive(Debug, PartialEq)]
pub enum Parsed<'a> {
    /// A card, as far as a parser can tell.
    Row(ImportRow<'a>),
    /// A line that is no card.
    Rejected {
        /// Number of the line in the file, from 1.
        line: u64,
        /// The first fault in the order of precedence.
        reason: RejectReason,
    },
}

/// Why a file cannot be read as cards at all.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("reading failed: {0}")]
    Read(#[from] io::Error),
    #[error("the file is UTF-16; save it as UTF-8 and import it again")]
    Utf16,
    #[error(
        "the file is a workbook or another zip archive; export the sheet as CSV (UTF-8) and import that"
    )]
    Workbook,
    #[error("the csv file is empty; its first line must name the columns")]
    NoHeader,
    #[error("line {line}: the header row is not valid {what}; its columns cannot be told apart")]
    BadHeader { line: u64, what: &'static str },
    #[error("the header row names more than {columns_max} columns")]
    TooManyColumns { columns_max: usize },
    #[error("there is no column {wanted:?}; the columns are: {}. Choose with --secret COL[,COL]", .columns.join(", "))]
    NoSuchColumn {
        wanted: String,
        columns: Vec<String>,
    },
    #[error("no column is called \"secret\"; the columns are: {}. Choose with --secret COL[,COL]", .columns.join(", "))]
    NoSecretColumn { columns: Vec<String> },
    #[error("the header row names the column {name:?} twice; rename one of them")]
    ColumnTwice { name: String },
    #[error(
        "secret columns are for csv files; this one is read as {format}. Leave --secret out or give --format csv"
    )]
    SecretNeedsCsv { format: Format },
}

impl Format {
    /// The word of `--format`.
    pub fn name(self) -> &'static str {
        match self {
            Format::Lines => "lines",
            Format::Csv => "csv",
            Format::Bars => "bars",
        }
    }

    /// The format a file most likely has: `.csv` and files read by column are csv, a `║` in the first line means bars.
    fn guess(name: Option<&Path>, secret_columns: &[String], first_line: &[u8]) -> Format {
        let is_csv = name
            .and_then(Path::extension)
            .is_some_and(|ext| ext.eq_ignore_ascii_case("csv"));
        if is_csv || !secret_columns.is_empty() {
            Format::Csv
        } else if memchr::memmem::find(first_line, bars::BAR.as_bytes()).is_some() {
            Format::Bars
        } else {
            Format::Lines
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How to read a file; everything left out is guessed from its name and first bytes.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions<'a> {
    /// The file's name, for its extension.
    pub name: Option<&'a Path>,
    /// The format, when it is known.
    pub format: Option<Format>,
    /// The csv columns that make the secret, joined by a space; empty = the column `secret`.
    pub secret_columns: &'a [String],
}

/// A file of cards in any format, one [`Parsed`] at a time. It has no `Debug`: its buffers hold secrets.
pub enum RowReader<R> {
    Lines(lines::LinesReader<R>),
    Csv(Box<csv::CsvReader<R>>),
    Bars(bars::BarsReader<R>),
}

impl<R: Read> RowReader<R> {
    /// Looks at the first bytes of `source`, settles the format and, for csv, the columns.
    pub fn open(source: R, options: &ReadOptions<'_>) -> Result<Self, FileError> {
        let mut input = Input::open(source)?;
        let guessed = Format::guess(options.name, options.secret_columns, input.peek_line()?);
        let format = options.format.unwrap_or(guessed);
        if format != Format::Csv && !options.secret_columns.is_empty() {
            return Err(FileError::SecretNeedsCsv { format });
        }
        Ok(match format {
            Format::Lines => RowReader::Lines(lines::LinesReader::new(input)),
            Format::Bars => RowReader::Bars(bars::BarsReader::new(input)),
            Format::Csv => RowReader::Csv(Box::new(csv::CsvReader::open(
                input,
                options.secret_columns,
            )?)),
        })
    }

    /// The next row or rejected line, `None` at the end. Blank lines are skipped.
    pub fn next_row(&mut self) -> Result<Option<Parsed<'_>>, FileError> {
        Ok(match self {
            RowReader::Lines(reader) => reader.next_row()?,
            RowReader::Csv(reader) => reader.next_row()?,
            RowReader::Bars(reader) => reader.next_row()?,
        })
    }

    /// The format that was settled on.
    pub fn format(&self) -> Format {
        match self {
            RowReader::Lines(_) => Format::Lines,
            RowReader::Csv(_) => Format::Csv,
            RowReader::Bars(_) => Format::Bars,
        }
    }

    /// Lines skipped so far because nothing was on them.
    pub fn blank_lines(&self) -> u64 {
        match self {
            RowReader::Lines(reader) => reader.blank_lines(),
            RowReader::Csv(reader) => reader.blank_lines(),
            RowReader::Bars(reader) => reader.blank_lines(),
        }
    }
}

/// Faults of a secret that every format shares.
fn check_secret(secret: &[u8]) -> Result<(), RejectReason> {
    if secret.trim_ascii().is_empty() {
        Err(RejectReason::EmptySecret)
    } else if secret.len() > SECRET_BYTES_MAX {
        Err(RejectReason::TooLong)
    } else {
        Ok(())
    }
}

/// A label is checked last: the secret's faults say more about the line.
fn check_label(label: &[u8]) -> Result<(), RejectReason> {
    if label.len() > LABEL_BYTES_MAX {
        Err(RejectReason::LabelTooLong)
    } else {
        Ok(())
    }
}
