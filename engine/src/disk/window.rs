//! A window on a file that is read from one end to the other, past the page cache.
//!
//! What recovery, folds and verification read they read once. Through the page cache every byte would be copied twice,
//! and each page of it first taken from somebody else.

use std::io;

use super::{AlignedBuffer, OpenFile};

/// What addresses, offsets and lengths of reads and writes past the page cache are multiples of.
pub const PAGE_BYTES: usize = 4096;
/// Bytes read at a time and ahead, at most. A block of the log waits behind such a read of a fold, which a slow disk needs 0.2 ms for; of a
/// megabyte, 1.6 ms, without being read any sooner.
const WINDOW_BYTES: usize = 128 << 10;
/// Bytes of the first read. Each further one is twice as long: who looks at one block only, does not read a megabyte for it.
const FIRST_WINDOW_BYTES: usize = 16 << 10;

/// The bytes of a file around where somebody reads it.
pub struct Window {
    file: Box<dyn OpenFile>,
    file_bytes: u64,
    pages: AlignedBuffer,
    pages_bytes: usize,
    next_bytes: usize,
    from: u64,
    have: usize,
}

impl Window {
    /// On a file opened as [`ReadPages`](super::Open::ReadPages).
    pub(super) fn new(file: Box<dyn OpenFile>) -> io::Result<Window> {
        let file_bytes = file.bytes()?;
        Ok(Window {
            file,
            file_bytes,
            pages: AlignedBuffer::new(0),
            pages_bytes: 0,
            next_bytes: FIRST_WINDOW_BYTES,
            from: 0,
            have: 0,
        })
    }

    /// Length of the file in bytes, when it was opened.
    pub fn bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The bytes from `offset` on: `want`, or what the file has of them.
    pub fn get(&mut self, offset: u64, want: usize) -> io::Result<&[u8]> {
        let wanted_end = (offset + want as u64).min(self.file_bytes);
        if offset < self.from || wanted_end > self.from + self.have as u64 {
            self.read(offset, want)?;
        }
        let start = ((offset - self.from) as usize).min(self.have);
        let have = (self.have - start).min(want);
        Ok(&self.pages.slice(self.have)[start..start + have])
    }

    fn read(&mut self, offset: u64, want: usize) -> io::Result<()> {
        let from = offset - offset % PAGE_BYTES as u64;
        let left = self.file_bytes.saturating_sub(from) as usize;
        let need = (offset - from) as usize + want;
        let bytes = need.max(self.next_bytes).min(left);
        self.next_bytes = (self.next_bytes * 2).min(WINDOW_BYTES);
        let bytes = bytes.next_multiple_of(PAGE_BYTES);
        if bytes > self.pages_bytes {
            self.pages = AlignedBuffer::new(bytes);
            self.pages_bytes = bytes;
        }
        // Nothing is had while the read may fail.
        (self.from, self.have) = (from, 0);
        let pages = self.pages.slice_mut(bytes);
        let mut have = 0;
        while have < bytes {
            let end = (have + WINDOW_BYTES).min(bytes);
            let got = self
                .file
                .read_at(from + have as u64, &mut pages[have..end])?;
            have += got;
            if have < end {
                break;
            }
        }
        self.have = have;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use crate::disk::Disk;

    #[test]
    fn a_draft_of_any_length_reads_back_from_any_offset() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::real();
        for bytes in [0, 1, 4095, 4096, (512 << 10) + 1, 5 << 20, (9 << 20) + 77] {
            let content: Vec<u8> = (0..bytes).map(|at| (at * 31 / 7) as u8).collect();
            let path = dir.path().join("file");
            let mut draft = disk.draft(dir.path()).unwrap();
            // Pieces of several lengths, some beyond the draft's buffer.
            let mut rest = &content[..];
            for piece in [1, 70_000, 3, 600_000].into_iter().cycle() {
                let (now, later) = rest.split_at(rest.len().min(piece));
                draft.write_all(now).unwrap();
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            draft.publish(&path).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), content);

            let mut window = disk.open_window(&path).unwrap();
            assert_eq!(window.bytes(), bytes as u64);
            for (offset, want) in [(0, 1), (4090, 10), (1 << 20, 1 << 20), (5, bytes), (0, 64)] {
                let start = offset.min(bytes);
                let end = (offset + want).min(bytes).max(start);
                let got = window.get(offset as u64, want).unwrap();
                assert_eq!(got, &content[start..end], "{offset} + {want} of {bytes}");
            }
        }
    }
}
