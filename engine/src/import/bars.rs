//! `bars`: `secret║label║premium║cost`, one card a line; an empty amount means "not given".

use std::io::{self, Read};

use croupier_protocol::{ImportRow, RejectReason};

use super::input::Input;
use super::lines::{Line, LineSource};
use super::{Parsed, amount, check_label, check_secret};

/// U+2551, what such files put between their columns.
pub const BAR: &str = "║";

/// A file with four columns between bars.
pub struct BarsReader<R> {
    source: LineSource<R>,
}

impl<R: Read> BarsReader<R> {
    pub fn new(input: Input<R>) -> Self {
        BarsReader {
            source: LineSource::new(input),
        }
    }

    pub fn blank_lines(&self) -> u64 {
        self.source.blank_lines()
    }

    pub fn next_row(&mut self) -> io::Result<Option<Parsed<'_>>> {
        let Some(Line {
            number: line,
            bytes,
        }) = self.source.next_line()?
        else {
            return Ok(None);
        };
        Ok(Some(match row_of(line, bytes) {
            Err(reason) => Parsed::Rejected { line, reason },
            Ok(row) => Parsed::Row(row),
        }))
    }
}

fn row_of(line: u64, bytes: Option<&[u8]>) -> Result<ImportRow<'_>, RejectReason> {
    let bytes = bytes.ok_or(RejectReason::TooLong)?;
    // Columns are counted on bytes: a damaged line with the wrong count is first of all that. No byte of a bar can be
    // part of another character, so this finds the same bars as a split of the text would.
    let bars = memchr::memmem::find_iter(bytes, BAR.as_bytes())
        .take(4)
        .count();
    if bars != 3 {
        return Err(RejectReason::WrongColumnCount);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| RejectReason::InvalidUtf8)?;
    let mut columns = text.split(BAR);
    let mut column = || columns.next().unwrap_or_default();
    let (secret, label, premium, cost) = (column(), column(), column(), column());
    check_secret(secret.as_bytes())?;
    let premium_e4 = amount::parse_e4(premium).ok_or(RejectReason::BadAmount)?;
    let cost_e4 = amount::parse_e4(cost).ok_or(RejectReason::BadAmount)?;
    check_label(label)?;
    Ok(ImportRow {
        line,
        expires_at_s: 0,
        premium_e4,
        cost_e4,
        label: label.as_bytes(),
        secret: secret.as_bytes(),
    })
}
