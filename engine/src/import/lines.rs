//! `lines`: one card a line, and the line source that `bars` shares.
//!
//! The path of a line allocates nothing and copies nothing: a row points into the input's window.

use std::io::{self, Read};
use std::ops::Range;

use croupier_protocol::{ImportRow, RejectReason};

use super::input::Input;
use super::{LINE_BYTES_MAX, Parsed, check_secret};

/// Physical lines with their numbers; `\n` and `\r\n` end a line, blank lines are counted and skipped.
pub(super) struct LineSource<R> {
    input: Input<R>,
    line: u64,
    blank_lines: u64,
}

/// A line that is not blank.
pub(super) struct Line<'a> {
    /// Its number in the file, from 1.
    pub(super) number: u64,
    /// What is on it, without its end; `None` above [`LINE_BYTES_MAX`].
    pub(super) bytes: Option<&'a [u8]>,
}

/// Where a line stands, or that it was too long to hold.
enum Found {
    Line(Range<usize>),
    TooLong,
}

impl<R: Read> LineSource<R> {
    pub(super) fn new(input: Input<R>) -> Self {
        LineSource {
            input,
            line: 0,
            blank_lines: 0,
        }
    }

    pub(super) fn blank_lines(&self) -> u64 {
        self.blank_lines
    }

    /// The next line that is not blank.
    #[inline]
    pub(super) fn next_line(&mut self) -> io::Result<Option<Line<'_>>> {
        loop {
            let Some(found) = self.find_line()? else {
                return Ok(None);
            };
            self.line += 1;
            let range = match found {
                Found::TooLong => {
                    return Ok(Some(Line {
                        number: self.line,
                        bytes: None,
                    }));
                }
                Found::Line(range) => range,
            };
            let bytes = self.input.slice(range.clone());
            let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
            if !is_blank(bytes) {
                let range = range.start..range.start + bytes.len();
                let bytes = Some(self.input.slice(range));
                return Ok(Some(Line {
                    number: self.line,
                    bytes,
                }));
            }
            self.blank_lines += 1;
        }
    }

    #[inline]
    fn find_line(&mut self) -> io::Result<Option<Found>> {
        let mut searched = 0;
        loop {
            let window = self.input.window();
            if let Some(at) = memchr::memchr(b'\n', &window[searched..]) {
                let bytes = searched + at;
                let range = self.input.take(bytes + 1);
                let fits = bytes <= LINE_BYTES_MAX;
                return Ok(Some(if fits {
                    Found::Line(range.start..range.end - 1)
                } else {
                    Found::TooLong
                }));
            }
            searched = window.len();
            if searched > LINE_BYTES_MAX {
                return self.skip_line().map(Some);
            }
            if !self.input.refill()? {
                let bytes = self.input.window().len();
                return Ok((bytes > 0).then(|| Found::Line(self.input.take(bytes))));
            }
        }
    }

    /// Drops the rest of a line that is too long.
    #[cold]
    fn skip_line(&mut self) -> io::Result<Found> {
        loop {
            let window = self.input.window();
            let end = memchr::memchr(b'\n', window);
            let bytes = end.map_or(window.len(), |at| at + 1);
            self.input.consume(bytes);
            if end.is_some() || !self.input.refill()? {
                return Ok(Found::TooLong);
            }
        }
    }
}

/// The first byte settles it for nearly every line.
#[inline]
pub(super) fn is_blank(line: &[u8]) -> bool {
    match line.first() {
        None => true,
        Some(first) => first.is_ascii_whitespace() && line.trim_ascii().is_empty(),
    }
}

/// A file with one secret a line.
pub struct LinesReader<R> {
    source: LineSource<R>,
}

impl<R: Read> LinesReader<R> {
    pub fn new(input: Input<R>) -> Self {
        LinesReader {
            source: LineSource::new(input),
        }
    }

    pub fn blank_lines(&self) -> u64 {
        self.source.blank_lines()
    }

    #[inline]
    pub fn next_row(&mut self) -> io::Result<Option<Parsed<'_>>> {
        let Some(Line {
            number: line,
            bytes,
        }) = self.source.next_line()?
        else {
            return Ok(None);
        };
        Ok(Some(match secret_of(bytes) {
            Err(reason) => Parsed::Rejected { line, reason },
            Ok(secret) => Parsed::Row(ImportRow {
                line,
                expires_at_s: 0,
                premium_e4: None,
                cost_e4: None,
                label: b"",
                secret,
            }),
        }))
    }
}

fn secret_of(bytes: Option<&[u8]>) -> Result<&[u8], RejectReason> {
    let bytes = bytes.ok_or(RejectReason::TooLong)?;
    std::str::from_utf8(bytes).map_err(|_| RejectReason::InvalidUtf8)?;
    check_secret(bytes)?;
    Ok(bytes)
}
