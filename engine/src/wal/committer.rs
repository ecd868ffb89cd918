//! The committer: the one thread that makes records durable, a block at a time.
//!
//! It takes whatever is ready in the ring as one block, writes it, makes it durable, publishes the durable LSN, and only
//! then computes the hash that the next block will carry. While one block is being synced the next one fills in the
//! ring; no timer delays a block.
//!
//! Invariant: a block is begun only when everything before it is durable. So its `durable_lsn` is its `first_lsn`, and
//! at most one block of a log can be torn.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::bell::Bell;
use super::disk::{AlignedBuffer, LogFile, SharedDisk, SyncMethod};
use super::format::{
    BLOCK_ALIGN_BYTES, BLOCK_HEADER_BYTES, BLOCK_LAST, BlockHeader, block_bytes, block_hash, crc32c,
};
use super::log::{APPEND_UNITS_MAX, LogOptions, Shared};
use super::reader::Position;
use super::ring::UNIT_BYTES;
use super::segments::segment_path;
use crate::clock::unix_ms;

/// Most bytes of a block.
pub const BLOCK_BYTES_MAX: usize = 1 << 20;

pub(super) struct Committer {
    disk: SharedDisk,
    options: LogOptions,
    shared: Arc<Shared>,
    file: Box<dyn LogFile>,
    sync: SyncMethod,
    at: Position,
    buffer: AlignedBuffer,
    /// Bytes of `buffer` used for a block: at most [`BLOCK_BYTES_MAX`] and a quarter of a segment.
    block_bytes_max: usize,
}

impl Committer {
    pub fn new(
        disk: SharedDisk,
        options: LogOptions,
        shared: Arc<Shared>,
        file: Box<dyn LogFile>,
        sync: SyncMethod,
        at: Position,
    ) -> Committer {
        let block_bytes_max =
            BLOCK_BYTES_MAX.min(options.segment_bytes as usize / 4) & !(BLOCK_ALIGN_BYTES - 1);
        assert!(
            block_bytes_max >= block_bytes(APPEND_UNITS_MAX as usize * UNIT_BYTES),
            "a turn fits a block"
        );
        let buffer = AlignedBuffer::new(block_bytes_max);
        Committer {
            disk,
            options,
            shared,
            file,
            sync,
            at,
            buffer,
            block_bytes_max,
        }
    }

    /// Commits until the log is stopped or a write fails; returns where the log ends.
    pub fn run(mut self, bell: &Bell) -> Position {
        self.shared.segments.left_in_use(self.left_bytes());
        loop {
            if self.shared.has_failed() {
                return self.at;
            }
            match self.commit_ready() {
                Ok(true) => {}
                Ok(false) => {
                    let stopping = || self.shared.stopping.load(Ordering::Acquire);
                    if stopping() && self.shared.ring.end() == self.at.lsn {
                        return self.at;
                    }
                    let failed = || self.shared.has_failed();
                    bell.sleep_unless(|| {
                        self.shared.ring.ready(self.at.lsn) || stopping() || failed()
                    });
                }
                Err(error) => {
                    let path = segment_path(&self.options.dir, self.at.seq);
                    self.shared.fail(format!(
                        "{} at offset {}: {error}",
                        path.display(),
                        self.at.offset
                    ));
                    return self.at;
                }
            }
        }
    }

    /// One block of what is ready; false when nothing is.
    fn commit_ready(&mut self) -> io::Result<bool> {
        let first_lsn = self.at.lsn;
        let body = &mut self.buffer.slice_mut(self.block_bytes_max)[BLOCK_HEADER_BYTES..];
        let end_lsn = self.shared.ring.take(first_lsn, body);
        if end_lsn == first_lsn {
            return Ok(false);
        }
        let body_bytes = (end_lsn - first_lsn) as usize * UNIT_BYTES;
        if (block_bytes(body_bytes) as u64) > self.left_bytes() {
            self.roll()?;
        }
        let used = BLOCK_HEADER_BYTES + body_bytes;
        let padded = block_bytes(body_bytes);
        let header = self.header(
            0,
            end_lsn,
            crc32c(&self.buffer.slice(used)[BLOCK_HEADER_BYTES..]),
        );
        let block = self.buffer.slice_mut(padded);
        header.encode(block);
        block[used..].fill(0);
        self.file
            .write_durable(self.at.offset, self.buffer.slice(padded))?;

        self.at.lsn = end_lsn;
        self.at.epoch = self.options.epoch;
        self.at.offset += padded as u64;
        self.shared.ring.release_to(end_lsn);
        self.shared.publish(end_lsn);

        self.at.block += 1;
        self.at.prev_hash = block_hash(self.buffer.slice(used));
        self.shared.segments.left_in_use(self.left_bytes());
        Ok(true)
    }

    /// Bytes for blocks in this segment; room for the LAST block is kept.
    fn left_bytes(&self) -> u64 {
        self.options.segment_bytes - self.at.offset - BLOCK_ALIGN_BYTES as u64
    }

    /// Ends this segment with a LAST block and goes on in the next. The body in `buffer` stays untouched.
    fn roll(&mut self) -> io::Result<()> {
        let Some(next) = self.shared.segments.next() else {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "stopped while waiting for room in the log",
            ));
        };
        let mut page = AlignedBuffer::new(BLOCK_ALIGN_BYTES);
        self.header(BLOCK_LAST, self.at.lsn, crc32c(&[]))
            .encode(page.slice_mut(BLOCK_ALIGN_BYTES));
        self.file
            .write_durable(self.at.offset, page.slice(BLOCK_ALIGN_BYTES))?;
        self.file = self
            .disk
            .open_log(&segment_path(&self.options.dir, next), self.sync)?;
        self.at = Position {
            seq: next,
            offset: super::format::SEGMENT_HEADER_BYTES as u64,
            block: self.at.block + 1,
            prev_hash: block_hash(page.slice(BLOCK_HEADER_BYTES)),
            ..self.at
        };
        Ok(())
    }

    fn header(&self, flags: u16, end_lsn: u64, body_crc: u32) -> BlockHeader {
        BlockHeader {
            flags,
            store_id: self.options.store_id,
            epoch: self.options.epoch,
            block: self.at.block,
            first_lsn: self.at.lsn,
            end_lsn,
            durable_lsn: self.at.lsn,
            prev_hash: self.at.prev_hash,
            body_bytes: ((end_lsn - self.at.lsn) as usize * UNIT_BYTES) as u32,
            body_crc,
            unix_ms: unix_ms(),
        }
    }
}
