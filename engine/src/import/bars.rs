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
    let bars = bars(bytes).ok_or(RejectReason::WrongColumnCount)?;
    let text = std::str::from_utf8(bytes).map_err(|_| RejectReason::InvalidUtf8)?;
    let secret = &bytes[..bars[0]];
    let label = &bytes[bars[0] + BAR.len()..bars[1]];
    check_secret(secret)?;
    let amount = |from: usize, to: usize| {
        amount::parse_e4(&text[from + BAR.len()..to]).ok_or(RejectReason::BadAmount)
    };
    let premium_e4 = amount(bars[1], bars[2])?;
    let cost_e4 = amount(bars[2], text.len())?;
    check_label(label)?;
    Ok(ImportRow {
        line,
        expires_at_s: 0,
        premium_e4,
        cost_e4,
        label,
        secret,
    })
}

/// Where the three bars stand; `None` if there are fewer or more.
fn bars(bytes: &[u8]) -> Option<[usize; 3]> {
    let first = BAR.as_bytes()[0];
    let mut found =
        memchr::memchr_iter(first, bytes).filter(|at| bytes[*at..].starts_with(BAR.as_bytes()));
    let bars = [found.next()?, found.next()?, found.next()?];
    found.next().is_none().then_some(bars)
}
