//! The window on a file that every parser reads through.
//!
//! Fixed in size and wiped when dropped (it held secrets): [`LINE_BYTES_MAX`] for the line at hand plus room for one
//! read. Nothing in it is copied but the unfinished line at the end of a read, which moves to the front.

use std::io::{self, ErrorKind, Read};

use zeroize::Zeroizing;

use super::{FileError, LINE_BYTES_MAX};

/// Bytes asked for at once: enough that the system call does not show, small enough to stay in the L2 cache.
pub const READ_BYTES: usize = 256 << 10;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// A sliding window on `source`.
pub struct Input<R> {
    source: R,
    buf: Zeroizing<Vec<u8>>,
    /// Invariant: `start <= end <= buf.len()`; `buf[start..end]` is read and not consumed.
    start: usize,
    end: usize,
    at_end: bool,
}

impl<R: Read> Input<R> {
    /// Reads the first bytes, refuses what is plainly no text, and drops a byte order mark.
    pub fn open(source: R) -> Result<Self, FileError> {
        let buf = Zeroizing::new(vec![0; LINE_BYTES_MAX + READ_BYTES]);
        let mut input = Input {
            source,
            buf,
            start: 0,
            end: 0,
            at_end: false,
        };
        while input.window().len() < 4 && input.refill()? {}
        match input.window() {
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return Err(FileError::Utf16),
            [b'P', b'K', 3, 4, ..] => return Err(FileError::Workbook),
            _ => {}
        }
        if input.window().starts_with(BOM) {
            input.consume(BOM.len());
        }
        Ok(input)
    }

    /// What is read and not consumed.
    pub fn window(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }

    /// A part of the window, for callers that consumed it in the same breath: `range` counts from the start of the
    /// buffer as [`Input::take`] returned it.
    pub fn slice(&self, range: std::ops::Range<usize>) -> &[u8] {
        &self.buf[range]
    }

    /// Consumes `bytes` of the window.
    pub fn consume(&mut self, bytes: usize) {
        assert!(bytes <= self.end - self.start, "consumed beyond the window");
        self.start += bytes;
    }

    /// Consumes `bytes` and says where they stand for [`Input::slice`]; valid until the next refill.
    pub fn take(&mut self, bytes: usize) -> std::ops::Range<usize> {
        let from = self.start;
        self.consume(bytes);
        from..self.start
    }

    /// Reads more behind the window; false at the end of the file. The window must be at most [`LINE_BYTES_MAX`] long.
    pub fn refill(&mut self) -> io::Result<bool> {
        if self.at_end {
            return Ok(false);
        }
        self.buf.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        assert!(self.end < self.buf.len(), "no room to read into");
        let room_end = self.buf.len().min(self.end + READ_BYTES);
        loop {
            match self.source.read(&mut self.buf[self.end..room_end]) {
                Ok(0) => {
                    self.at_end = true;
                    return Ok(false);
                }
                Ok(bytes) => {
                    self.end += bytes;
                    return Ok(true);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The first line that has something on it (or as much of it as one read holds), without consuming it.
    pub fn peek_line(&mut self) -> io::Result<&[u8]> {
        loop {
            let begin = self
                .window()
                .iter()
                .take_while(|byte| byte.is_ascii_whitespace())
                .count();
            let ended = memchr::memchr(b'\n', &self.window()[begin..]);
            if ended.is_some() || self.window().len() >= READ_BYTES || !self.refill()? {
                let line = &self.window()[begin..];
                return Ok(&line[..ended.unwrap_or(line.len())]);
            }
        }
    }
}
