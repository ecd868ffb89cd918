//! `csv`: a header row, then one card a record (RFC 4180).
//!
//! The splitting is csv-core's, the parser inside the csv crate; its own reader would collect a record of any size, and
//! one stray quote makes the rest of a file one record. Here a record has [`LINE_BYTES_MAX`] and no more.
//!
//! csv-core forgives every quoting mistake by guessing what was meant. A card is not to be guessed, so [`Quoting`]
//! watches the raw bytes and the record is rejected instead. A record whose structure is in doubt (quoting, number of
//! columns, length) is reported on every line it spans, because those lines may have been cards.

use std::io::{self, Read};

use croupier_protocol::{ImportRow, RejectReason};
use csv_core::ReadRecordResult;
use zeroize::Zeroizing;

use super::expiry::ExpiryMemo;
use super::input::Input;
use super::{FileError, LINE_BYTES_MAX, Parsed, check_label, check_secret};

/// Most columns a header may name.
pub const COLUMNS_MAX: usize = 1024;

/// A csv file.
pub struct CsvReader<R> {
    records: Records<R>,
    columns: Columns,
    expiry: ExpiryMemo,
    joined: Zeroizing<Vec<u8>>,
    /// Lines of a rejected record that are still to be reported, and why.
    rest: Option<(std::ops::RangeInclusive<u64>, RejectReason)>,
}

impl<R: Read> CsvReader<R> {
    /// Reads the header row and finds the columns: `secret_columns`, or the column `secret` when that is empty.
    pub fn open(input: Input<R>, secret_columns: &[String]) -> Result<Self, FileError> {
        let mut records = Records::new(input);
        let Some(header) = records.next_record()? else {
            return Err(FileError::NoHeader);
        };
        let names = header_names(&header, &records)?;
        let columns = Columns::find(&names, secret_columns)?;
        Ok(CsvReader {
            records,
            columns,
            expiry: ExpiryMemo::default(),
            joined: Zeroizing::default(),
            rest: None,
        })
    }

    pub fn blank_lines(&self) -> u64 {
        self.records.blank_lines
    }

    pub fn next_row(&mut self) -> io::Result<Option<Parsed<'_>>> {
        if let Some((lines, reason)) = &mut self.rest {
            let reason = *reason;
            if let Some(line) = lines.next() {
                return Ok(Some(Parsed::Rejected { line, reason }));
            }
            self.rest = None;
        }
        let Some(record) = self.records.next_record()? else {
            return Ok(None);
        };
        let line = record.line;
        if let Some(reason) = record.structural_fault(self.columns.count) {
            self.rest = Some((line + 1..=record.line_last, reason));
            return Ok(Some(Parsed::Rejected { line, reason }));
        }
        Ok(Some(
            match self
                .columns
                .row_of(&record, &self.records, &mut self.expiry, &mut self.joined)
            {
                Err(reason) => Parsed::Rejected { line, reason },
                Ok(row) => Parsed::Row(row),
            },
        ))
    }
}

fn header_names<R: Read>(header: &Record, records: &Records<R>) -> Result<Vec<String>, FileError> {
    let line = header.line;
    match header.structural_fault(header.fields) {
        None => {}
        Some(RejectReason::WrongColumnCount) => {
            return Err(FileError::TooManyColumns {
                columns_max: COLUMNS_MAX,
            });
        }
        Some(RejectReason::TooLong) => {
            return Err(FileError::BadHeader {
                line,
                what: "text (over 1 MiB)",
            });
        }
        Some(_) => {
            return Err(FileError::BadHeader {
                line,
                what: "csv (its quotes do not match)",
            });
        }
    }
    let text = std::str::from_utf8(records.text(header)).map_err(|_| FileError::BadHeader {
        line,
        what: "UTF-8",
    })?;
    // An end inside a character is impossible: the text is whole, and csv splits at ASCII only.
    Ok((0..header.fields)
        .map(|at| text[records.range(at)].trim().to_owned())
        .collect())
}

/// Which columns of the file mean something.
#[derive(Debug)]
struct Columns {
    count: usize,
    secret: Vec<usize>,
    expiry: Option<usize>,
    label: Option<usize>,
}

impl Columns {
    fn find(names: &[String], secret_columns: &[String]) -> Result<Self, FileError> {
        let find = |wanted: &str| -> Result<Option<usize>, FileError> {
            let mut hits = names
                .iter()
                .enumerate()
                .filter(|(_, name)| name.eq_ignore_ascii_case(wanted));
            let hit = hits.next().map(|(at, _)| at);
            match hits.next() {
                None => Ok(hit),
                Some((_, name)) => Err(FileError::ColumnTwice { name: name.clone() }),
            }
        };
        let mut secret = Vec::new();
        for wanted in secret_columns {
            let wanted = wanted.trim();
            let missing = || FileError::NoSuchColumn {
                wanted: wanted.to_owned(),
                columns: names.to_vec(),
            };
            secret.push(find(wanted)?.ok_or_else(missing)?);
        }
        if secret.is_empty() {
            secret.push(find("secret")?.ok_or_else(|| FileError::NoSecretColumn {
                columns: names.to_vec(),
            })?);
        }
        let unused = |at: &usize| !secret.contains(at);
        let expiry = match find("expires_at")?.filter(unused) {
            None => find("expires")?.filter(unused),
            found => found,
        };
        let label = find("label")?.filter(unused);
        Ok(Columns {
            count: names.len(),
            secret,
            expiry,
            label,
        })
    }

    /// The card of a record whose structure is sound.
    fn row_of<'a, R: Read>(
        &self,
        record: &Record,
        records: &'a Records<R>,
        expiry: &mut ExpiryMemo,
        joined: &'a mut Zeroizing<Vec<u8>>,
    ) -> Result<ImportRow<'a>, RejectReason> {
        // One check for the whole record. The fields lie side by side without what was between them, so the end of one and
        // the begin of the next may look like a character that neither has: then no field can be cut out there.
        let text =
            std::str::from_utf8(records.text(record)).map_err(|_| RejectReason::InvalidUtf8)?;
        let field = |at: usize| text.get(records.range(at)).ok_or(RejectReason::InvalidUtf8);
        let secret = match self.secret.as_slice() {
            [one] => field(*one)?.as_bytes(),
            many => {
                joined.clear();
                for at in many {
                    let part = field(*at)?;
                    if part.trim_ascii().is_empty() {
                        continue;
                    }
                    if !joined.is_empty() {
                        joined.push(b' ');
                    }
                    joined.extend_from_slice(part.as_bytes());
                }
                joined.as_slice()
            }
        };
        check_secret(secret)?;
        let expires_at_s = match self.expiry {
            None => 0,
            Some(at) => expiry.parse_s(field(at)?).ok_or(RejectReason::BadExpiry)?,
        };
        let label = self.label.map_or(Ok(""), field)?.as_bytes();
        check_label(label)?;
        Ok(ImportRow {
            line: record.line,
            expires_at_s,
            premium_e4: None,
            cost_e4: None,
            label,
            secret,
        })
    }
}

/// One record as it was found; its fields stand in [`Records`] until the next one is read.
#[derive(Debug, Default)]
struct Record {
    line: u64,
    line_last: u64,
    fields: usize,
    has_quotes: bool,
    too_long: bool,
    bad_quoting: bool,
}

impl Record {
    fn structural_fault(&self, columns: usize) -> Option<RejectReason> {
        if self.bad_quoting {
            Some(RejectReason::BadQuoting)
        } else if self.fields != columns || self.fields > COLUMNS_MAX {
            Some(RejectReason::WrongColumnCount)
        } else if self.too_long {
            Some(RejectReason::TooLong)
        } else {
            None
        }
    }
}

/// The records of a file with their lines, blank lines skipped.
struct Records<R> {
    input: Input<R>,
    core: csv_core::Reader,
    /// The fields of the record at hand, unescaped, one after the other; a fixed room, see [`LINE_BYTES_MAX`].
    text: Zeroizing<Vec<u8>>,
    /// Where in `text` each field ends; a fixed room, see [`COLUMNS_MAX`].
    ends: Vec<usize>,
    line: u64,
    /// The last record ended with `\r`, so a `\n` at the front belongs to it.
    after_cr: bool,
    blank_lines: u64,
}

impl<R: Read> Records<R> {
    fn new(input: Input<R>) -> Self {
        Records {
            input,
            core: csv_core::Reader::new(),
            text: Zeroizing::new(vec![0; LINE_BYTES_MAX + 1]),
            ends: vec![0; COLUMNS_MAX + 1],
            line: 1,
            after_cr: false,
            blank_lines: 0,
        }
    }

    fn text(&self, record: &Record) -> &[u8] {
        &self.text[..record
            .fields
            .checked_sub(1)
            .map_or(0, |last| self.ends[last])]
    }

    fn range(&self, at: usize) -> std::ops::Range<usize> {
        let from = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        from..self.ends[at]
    }

    fn next_record(&mut self) -> io::Result<Option<Record>> {
        loop {
            self.skip_line_ends()?;
            let Some(record) = self.read_record()? else {
                return Ok(None);
            };
            let blank = record.fields == 1
                && !record.has_quotes
                && !record.too_long
                && self.text(&record).trim_ascii().is_empty();
            if !blank {
                return Ok(Some(record));
            }
            self.blank_lines += 1;
        }
    }

    /// Passes over line ends between records: the `\n` of a `\r\n`, and lines with nothing on them. csv-core would
    /// skip them as well, but without saying on which line the record begins.
    fn skip_line_ends(&mut self) -> io::Result<()> {
        loop {
            match self.input.window().first().copied() {
                Some(b'\n') => {
                    self.line += 1;
                    self.blank_lines += u64::from(!self.after_cr);
                }
                Some(b'\r') => {}
                Some(_) => return Ok(()),
                None if self.input.refill()? => continue,
                None => return Ok(()),
            }
            self.after_cr = false;
            self.input.consume(1);
        }
    }

    /// The record that begins at the window's front; `None` when there is nothing left.
    fn read_record(&mut self) -> io::Result<Option<Record>> {
        let mut record = Record {
            line: self.line,
            ..Record::default()
        };
        let mut quoting = Quoting::default();
        let (mut filled, mut ended, mut last) = (0, 0, 0);
        loop {
            if self.input.window().is_empty() {
                // Whatever it says: to csv-core an empty window is the end of the file, and after this one it is.
                self.input.refill()?;
            }
            let window = self.input.window();
            let (result, bytes_in, bytes_out, ends) =
                self.core
                    .read_record(window, &mut self.text[filled..], &mut self.ends[ended..]);
            let raw = &window[..bytes_in];
            let whole = result == ReadRecordResult::Record;
            record.has_quotes |= memchr::memchr(b'"', raw).is_some();
            if record.has_quotes || !whole || quoting != Quoting::FieldStart {
                quoting = quoting.pass(raw);
            }
            self.line += memchr::memchr_iter(b'\n', raw).count() as u64;
            last = raw.last().copied().unwrap_or(last);
            self.input.consume(bytes_in);
            record.fields += ends;
            filled += bytes_out;
            ended += ends;
            record.too_long |= filled > LINE_BYTES_MAX;
            match result {
                ReadRecordResult::InputEmpty => {}
                // What is thrown away is overwritten; only its columns are still counted.
                ReadRecordResult::OutputFull => filled = 0,
                ReadRecordResult::OutputEndsFull => ended = 0,
                ReadRecordResult::Record => break,
                ReadRecordResult::End => return Ok(None),
            }
        }
        self.after_cr = last == b'\r';
        record.line_last = self.line - u64::from(last == b'\n' && self.line > record.line);
        record.bad_quoting = matches!(quoting, Quoting::Quoted | Quoting::Broken);
        Ok(Some(record))
    }
}

/// What RFC 4180 thinks of the bytes of a record so far. One mercy: a quote inside an unquoted field is just a quote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Quoting {
    #[default]
    FieldStart,
    /// Only white space so far: a quote after it was meant to open the field, and would be taken literally.
    Blank,
    Bare,
    Quoted,
    /// After a quote inside quotes: the next byte says whether it closed the field.
    Closed,
    Broken,
}

impl Quoting {
    fn pass(self, raw: &[u8]) -> Self {
        raw.iter().fold(self, |state, byte| match (state, byte) {
            (Quoting::Broken, _) | (Quoting::Blank, b'"') => Quoting::Broken,
            (Quoting::Quoted, b'"') => Quoting::Closed,
            (Quoting::Quoted, _) | (Quoting::Closed | Quoting::FieldStart, b'"') => Quoting::Quoted,
            (_, b',') => Quoting::FieldStart,
            // Outside quotes a line end is the record's end.
            (_, b'\r' | b'\n') => state,
            (Quoting::Closed, _) => Quoting::Broken,
            (Quoting::FieldStart | Quoting::Blank, b' ' | b'\t') => Quoting::Blank,
            (_, _) => Quoting::Bare,
        })
    }
}
