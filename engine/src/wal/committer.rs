//! The committer: what makes records durable, a block at a time.
//!
//! There is one, and a thread of its own that lives for it. While that sleeps, a core with a few orders and nothing else
//! to do may write a block itself ([`Log::commit_here`](super::Log::commit_here)), which saves waking two threads.
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

use croupier_protocol::planted::{self, Bug};

use super::bell::Bell;
use super::format::{
    BLOCK_ALIGN_BYTES, BLOCK_HEADER_BYTES, BLOCK_LAST, BlockHeader, block_bytes, block_hash, crc32c,
};
use super::log::{LogOptions, NO_PANIC, Shared};
use super::reader::Position;
use super::ring::UNIT_BYTES;
use super::segments::segment_path;
use crate::disk::{AlignedBuffer, Disk, LogFile, SyncMethod};
use crate::sync::Mutex;

/// Most bytes of a block.
pub const BLOCK_BYTES_MAX: usize = 1 << 20;

pub(super) struct Committer {
    disk: Disk,
    options: LogOptions,
    shared: Arc<Shared>,
    file: LogFile,
    sync: SyncMethod,
    at: Position,
    buffer: AlignedBuffer,
    /// Bytes of `buffer` used for a block: at most [`BLOCK_BYTES_MAX`] and a quarter of a segment.
    block_bytes_max: usize,
    /// Where the block in `buffer` ends that has been taken from the ring and is not yet written.
    taken: Option<u64>,
}

/// What came of writing a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrote {
    /// It is durable.
    Block,
    /// It stays taken: the next segment is not there yet.
    NeedsSegment,
}

impl Committer {
    pub fn new(
        disk: Disk,
        options: LogOptions,
        shared: Arc<Shared>,
        file: LogFile,
        sync: SyncMethod,
        at: Position,
    ) -> Committer {
        let block_bytes_max =
            BLOCK_BYTES_MAX.min(options.segment_bytes as usize / 4) & !(BLOCK_ALIGN_BYTES - 1);
        assert!(
            block_bytes_max >= block_bytes(options.append_units_max as usize * UNIT_BYTES),
            "a turn fits a block"
        );
        let buffer = AlignedBuffer::new(block_bytes_max);
        let committer = Committer {
            disk,
            options,
            shared,
            file,
            sync,
            at,
            buffer,
            block_bytes_max,
            taken: None,
        };
        let left = committer.left_bytes();
        committer.shared.segments.left_in_use(left);
        committer
    }

    /// Commits until the log is stopped or a write fails; returns where the log ends. The body of the log's thread, which
    /// leaves the committer to others while it sleeps.
    pub fn run(seat: &Mutex<Committer>, bell: &Bell) -> Position {
        let mut this = seat.lock().expect(NO_PANIC);
        let shared = this.shared.clone();
        loop {
            if shared.has_failed() {
                return this.at;
            }
            if !this.take() {
                // Acquire pairs with the Release of Log::stop: every append made before is seen.
                let stopping = || shared.stopping.load(Ordering::Acquire);
                if stopping() && shared.ring.end() == this.at.lsn {
                    return this.at;
                }
                drop(this);
                bell.sleep_unless(|| shared.has_ready() || stopping() || shared.has_failed());
                this = seat.lock().expect(NO_PANIC);
                continue;
            }
            if this.write() == Wrote::NeedsSegment && !shared.segments.wait_for_next() {
                this.fail("stopped while waiting for room in the log");
            }
        }
    }

    /// Where the next block goes.
    pub fn position(&self) -> Position {
        self.at
    }

    /// Takes what is ready in the ring as one block, unless one has been taken; false when there is nothing to write.
    pub fn take(&mut self) -> bool {
        if self.taken.is_none() {
            let body = &mut self.buffer.slice_mut(self.block_bytes_max)[BLOCK_HEADER_BYTES..];
            let end_lsn = self.shared.ring.take(self.at.lsn, body);
            self.taken = (end_lsn > self.at.lsn).then_some(end_lsn);
            if planted::is(Bug::AckBeforeSync) && self.taken.is_some() {
                self.shared.publish(end_lsn);
            }
        }
        self.taken.is_some()
    }

    /// Writes the block that has been taken and publishes that it is durable. A failure ends the writer for good.
    pub fn write(&mut self) -> Wrote {
        self.try_write().unwrap_or_else(|error| {
            self.fail(error);
            Wrote::Block
        })
    }

    fn fail(&self, why: impl std::fmt::Display) {
        let path = segment_path(&self.options.dir, self.at.seq);
        self.shared.fail(format!(
            "{} at offset {}: {why}",
            path.display(),
            self.at.offset
        ));
    }

    fn try_write(&mut self) -> io::Result<Wrote> {
        let Some(end_lsn) = self.taken else {
            return Ok(Wrote::Block);
        };
        let body_bytes = (end_lsn - self.at.lsn) as usize * UNIT_BYTES;
        if (block_bytes(body_bytes) as u64) > self.left_bytes() && !self.roll()? {
            return Ok(Wrote::NeedsSegment);
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
        let mut written = self
            .file
            .write_durable(self.at.offset, self.buffer.slice(padded));
        if planted::is(Bug::RetryFailedWrite) && written.is_err() {
            written = Ok(());
        }
        written?;

        self.at.lsn = end_lsn;
        self.at.epoch = self.options.epoch;
        self.at.offset += padded as u64;
        self.shared.ring.release_to(end_lsn);
        self.shared.publish(end_lsn);

        self.at.block += 1;
        self.at.prev_hash = block_hash(self.buffer.slice(used));
        self.taken = None;
        self.shared.segments.left_in_use(self.left_bytes());
        Ok(Wrote::Block)
    }

    /// Bytes for blocks in this segment; room for the LAST block is kept.
    fn left_bytes(&self) -> u64 {
        self.options.segment_bytes - self.at.offset - BLOCK_ALIGN_BYTES as u64
    }

    /// Ends this segment with a LAST block and goes on in the next; false when that is not there yet. The body in `buffer`
    /// stays untouched.
    fn roll(&mut self) -> io::Result<bool> {
        let Some(next) = self.shared.segments.next() else {
            return Ok(false);
        };
        let mut page = AlignedBuffer::new(BLOCK_ALIGN_BYTES);
        self.header(BLOCK_LAST, self.at.lsn, crc32c(&[]))
            .encode(page.slice_mut(BLOCK_ALIGN_BYTES));
        let page_bytes = page.slice(BLOCK_ALIGN_BYTES);
        if planted::is(Bug::SkipLastSync) {
            self.file.write(self.at.offset, page_bytes)?;
        } else {
            self.file.write_durable(self.at.offset, page_bytes)?;
        }
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
        Ok(true)
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
            unix_ms: self.disk.unix_ms(),
        }
    }
}
