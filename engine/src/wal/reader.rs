//! Reading the log block by block, and deciding what the end of it means: a clean end, a torn tail, or damage.

use std::path::{Path, PathBuf};

use super::committer::BLOCK_BYTES_MAX;
use super::format::{
    BLOCK_ALIGN_BYTES, BLOCK_HEADER_BYTES, BLOCK_LAST, BlockHash, BlockHeader, SECTOR_BYTES,
    SEGMENT_HEADER_BYTES, SegmentHeader, StoreId, block_bytes, block_hash, crc32c,
};
use super::segments::{segment_path, segment_seq};
use croupier_protocol::planted::{self, Bug};

use crate::disk::{Disk, Window};
use crate::error::{EngineError, IoContext as _};

/// A place between two blocks: where reading or writing goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Segment number.
    pub seq: u64,
    /// Offset in the segment of the next block.
    pub offset: u64,
    /// Number of the next block.
    pub block: u64,
    /// LSN of the next record.
    pub lsn: u64,
    /// Epoch of the block before.
    pub epoch: u64,
    /// Hash of the block before.
    pub prev_hash: BlockHash,
}

impl Position {
    /// Before the block of that header, which stands there.
    pub fn before(header: &BlockHeader, seq: u64, offset: u64) -> Position {
        Position {
            seq,
            offset,
            block: header.block,
            lsn: header.first_lsn,
            epoch: header.epoch,
            prev_hash: header.prev_hash,
        }
    }

    /// Before the first block of a new store.
    pub const START: Position = Position {
        seq: 1,
        offset: SEGMENT_HEADER_BYTES as u64,
        block: 1,
        lsn: 1,
        epoch: 0,
        prev_hash: [0; 32],
    };
}

/// How the log ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    pub end: Position,
    /// The highest segment that exists.
    pub last_segment: u64,
    /// A write that a crash cut short: to be zeroed before the log is written again.
    pub torn: Option<Spot>,
    /// The last block, if any was read: the only one that is there and may not be durable.
    pub last_block: Option<Spot>,
}

/// Where something lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    pub path: PathBuf,
    pub offset: u64,
    pub bytes: u64,
}

/// A whole, checked block.
pub struct Block<'a> {
    pub header: BlockHeader,
    pub body: &'a [u8],
    /// Segment and offset it was read from.
    pub seq: u64,
    pub offset: u64,
}

/// A block that outlives the reader's next step.
pub struct OwnedBlock {
    header: BlockHeader,
    body: Vec<u8>,
    seq: u64,
    offset: u64,
}

impl OwnedBlock {
    /// A copy.
    pub fn of(block: &Block<'_>) -> OwnedBlock {
        OwnedBlock {
            header: block.header,
            body: block.body.to_vec(),
            seq: block.seq,
            offset: block.offset,
        }
    }

    /// The block.
    pub fn block(&self) -> Block<'_> {
        Block {
            header: self.header,
            body: &self.body,
            seq: self.seq,
            offset: self.offset,
        }
    }
}

/// Segment numbers in `dir`, ascending.
pub fn list_segments(disk: &Disk, dir: &Path) -> Result<Vec<u64>, EngineError> {
    let mut seqs: Vec<u64> = disk
        .list(dir)
        .at("list", dir)?
        .iter()
        .filter_map(|name| segment_seq(name))
        .collect();
    seqs.sort_unstable();
    Ok(seqs)
}

/// Whether all bytes are zero; looks at all of them, which is what machines do fastest.
fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0, |any, byte| any | byte) == 0
}

/// A segment that is being read.
struct Segment {
    path: PathBuf,
    window: Window,
}

impl Segment {
    fn open(disk: &Disk, path: PathBuf) -> Result<Segment, EngineError> {
        let window = disk.open_window(&path).at("open", &path)?;
        Ok(Segment { path, window })
    }

    /// `want` bytes from `offset` on, or what the file has of them.
    fn get(&mut self, offset: u64, want: usize) -> Result<&[u8], EngineError> {
        self.window.get(offset, want).at("read", &self.path)
    }
}

/// Checks that the file is segment `seq` of this store, and as long as it should be.
fn check_segment(
    segment: &mut Segment,
    store_id: StoreId,
    seq: u64,
) -> Result<SegmentHeader, EngineError> {
    let file_bytes = segment.window.bytes();
    let page = segment.get(0, SEGMENT_HEADER_BYTES)?;
    let header =
        SegmentHeader::decode(page).map_err(|what| EngineError::damage(&segment.path, 0, what))?;
    let what = if header.store_id != store_id {
        "the segment belongs to another store"
    } else if header.seq != seq {
        "the segment's number is not the one in its name"
    } else if header.segment_bytes != file_bytes {
        "the segment is not as long as its header says"
    } else {
        return Ok(header);
    };
    Err(EngineError::damage(&segment.path, 0, what))
}

/// Reads blocks in order from a position on.
pub struct BlockReader {
    disk: Disk,
    dir: PathBuf,
    store_id: StoreId,
    segments: Vec<u64>,
    at: Position,
    segment: Segment,
    segment_bytes: u64,
    /// The fold of a running store reads only up to here: this segment is still being written.
    stop_before_segment: u64,
    tail: Option<Tail>,
    /// Segment, offset and bytes of the last block read.
    last_block: Option<(u64, u64, u64)>,
}

impl BlockReader {
    /// Reads from `at`. Checks that no segment is missing from there on.
    pub fn open(
        disk: Disk,
        dir: &Path,
        store_id: StoreId,
        at: Position,
    ) -> Result<BlockReader, EngineError> {
        let segments = list_segments(&disk, dir)?;
        Self::open_listed(disk, dir, store_id, at, segments, u64::MAX)
    }

    /// As [`open`](Self::open), but ends cleanly before segment `stop`, which somebody else is writing.
    pub fn open_until(
        disk: Disk,
        dir: &Path,
        store_id: StoreId,
        at: Position,
        stop: u64,
    ) -> Result<BlockReader, EngineError> {
        let segments = list_segments(&disk, dir)?;
        Self::open_listed(disk, dir, store_id, at, segments, stop)
    }

    fn open_listed(
        disk: Disk,
        dir: &Path,
        store_id: StoreId,
        at: Position,
        mut segments: Vec<u64>,
        stop_before_segment: u64,
    ) -> Result<BlockReader, EngineError> {
        segments.retain(|&seq| seq >= at.seq);
        for (expect, have) in (at.seq..).zip(segments.iter().copied().chain([u64::MAX])) {
            if expect == have || (have == u64::MAX && expect > at.seq) {
                continue;
            }
            return Err(EngineError::damage(
                &segment_path(dir, expect),
                0,
                "this segment of the log is missing; what follows it cannot be trusted",
            ));
        }
        let segment = Segment::open(&disk, segment_path(dir, at.seq))?;
        let mut reader = BlockReader {
            disk,
            dir: dir.into(),
            store_id,
            segments,
            at,
            segment,
            segment_bytes: 0,
            stop_before_segment,
            tail: None,
            last_block: None,
        };
        reader.check_segment_header()?;
        Ok(reader)
    }

    /// Where the next block is expected.
    pub fn position(&self) -> Position {
        self.at
    }

    /// Bytes of the segments from here on, for progress.
    pub fn bytes_ahead(&self) -> u64 {
        self.segments
            .iter()
            .filter(|&&seq| seq >= self.at.seq)
            .count() as u64
            * self.segment_bytes
    }

    /// How the log ended; there once [`next`](Self::next) has returned `None`.
    pub fn tail(&self) -> Option<&Tail> {
        self.tail.as_ref()
    }

    /// The next block, or `None` at the end of the log.
    #[allow(clippy::should_implement_trait)] // lends its buffer and fails
    pub fn next(&mut self) -> Result<Option<Block<'_>>, EngineError> {
        loop {
            if self.tail.is_some() || self.at.seq >= self.stop_before_segment {
                if self.tail.is_none() {
                    self.tail = Some(self.clean_end());
                }
                return Ok(None);
            }
            let Some(header) = self.read_block()? else {
                return Ok(None);
            };
            let (seq, offset) = (self.at.seq, self.at.offset);
            let used = BLOCK_HEADER_BYTES + header.body_bytes as usize;
            self.at.prev_hash = block_hash(self.segment.get(offset, used)?);
            self.at.block += 1;
            self.at.lsn = header.end_lsn;
            self.at.epoch = header.epoch;
            let bytes = block_bytes(header.body_bytes as usize) as u64;
            self.at.offset += bytes;
            self.last_block = Some((seq, offset, bytes));
            if header.flags & BLOCK_LAST != 0 {
                self.next_segment()?;
                continue;
            }
            let body = &self.segment.get(offset, used)?[BLOCK_HEADER_BYTES..];
            return Ok(Some(Block {
                header,
                body,
                seq,
                offset,
            }));
        }
    }

    /// Checks the block at the position; `None` (and the tail set) when the log ends there.
    fn read_block(&mut self) -> Result<Option<BlockHeader>, EngineError> {
        let offset = self.at.offset;
        let head = self.segment.get(offset, BLOCK_HEADER_BYTES)?;
        if offset + BLOCK_ALIGN_BYTES as u64 > self.segment_bytes {
            return Err(
                self.damage("the segment ends without the block that says where the log goes on")
            );
        }
        let header = match BlockHeader::decode(head) {
            Ok(header) => header,
            Err(what) => {
                let first_sector = self.segment.get(offset, SECTOR_BYTES)?;
                if !is_zero(first_sector) {
                    return Err(self.damage(what));
                }
                // How long it was is not known without its header, but no block is longer than this.
                return self.end_here(BLOCK_BYTES_MAX).map(|()| None);
            }
        };
        self.check_follows(&header)?;
        let used = BLOCK_HEADER_BYTES + header.body_bytes as usize;
        let padded = block_bytes(header.body_bytes as usize);
        if offset + padded as u64 > self.segment_bytes {
            return Err(self.damage("the block is longer than its segment"));
        }
        let Some((block, padding)) = self.segment.get(offset, padded)?.split_at_checked(used)
        else {
            return Err(self.damage("the segment has become shorter while it was read"));
        };
        if crc32c(&block[BLOCK_HEADER_BYTES..]) != header.body_crc {
            // Sectors that hold a whole record cannot be all zeros once written.
            let torn = block.chunks(SECTOR_BYTES).skip(1).any(is_zero);
            // And what was to be zeros is that, landed or not.
            if (!torn || !is_zero(padding)) && !planted::is(Bug::TruncateOnDamage) {
                return Err(self.damage("the block's body does not match its checksum"));
            }
            return self.end_here(padded).map(|()| None);
        }
        if padding.iter().any(|&byte| byte != 0) {
            return Err(self.damage("the zeros that fill up the block are not zeros"));
        }
        Ok(Some(header))
    }

    fn check_follows(&self, header: &BlockHeader) -> Result<(), EngineError> {
        let what = if header.store_id != self.store_id {
            "the block belongs to another store"
        } else if header.block != self.at.block || header.first_lsn != self.at.lsn {
            "the block does not follow the one before it (number or LSN)"
        } else if header.prev_hash != self.at.prev_hash && !planted::is(Bug::IgnoreChain) {
            "the block does not carry the hash of the one before it"
        } else if header.epoch < self.at.epoch {
            "the block's epoch is older than that of the one before it"
        } else if header.durable_lsn > header.first_lsn {
            "the block claims more to be durable than there was"
        } else {
            return Ok(());
        };
        Err(self.damage(what))
    }

    /// The log ends at the position: allowed when nothing whole comes later. Finds what a torn write of at most `bytes_max`
    /// bytes left behind; anything beyond those nobody wrote.
    fn end_here(&mut self, bytes_max: usize) -> Result<(), EngineError> {
        let here = self.at;
        let mut torn_end = None;
        let ahead: Vec<u64> = self
            .segments
            .iter()
            .copied()
            .filter(|&seq| seq >= here.seq)
            .collect();
        for seq in ahead {
            let path = segment_path(&self.dir, seq);
            let mut segment = Segment::open(&self.disk, path.clone())?;
            let mut offset = SEGMENT_HEADER_BYTES as u64;
            if seq == here.seq {
                offset = here.offset;
            } else {
                // A spare that could not be read later must be told before anything is written to it.
                check_segment(&mut segment, self.store_id, seq)?;
            }
            loop {
                let page = segment.get(offset, BLOCK_ALIGN_BYTES)?;
                if page.is_empty() {
                    break;
                }
                // The position's own block is the one that is not whole.
                if (seq, offset) != (here.seq, here.offset) && self.is_later_block(page) {
                    return Err(self.damage(format!(
                        "a block is missing or damaged here, and a later one is whole ({} at offset {offset})",
                        path.display()
                    )));
                }
                if !is_zero(page) {
                    if seq != here.seq || offset >= here.offset + bytes_max as u64 {
                        return Err(EngineError::damage(
                            &path,
                            offset,
                            "bytes behind the end of the log",
                        ));
                    }
                    torn_end = Some(offset + page.len() as u64);
                }
                offset += BLOCK_ALIGN_BYTES as u64;
            }
        }
        let mut tail = self.clean_end();
        tail.torn = torn_end.map(|end| Spot {
            path: segment_path(&self.dir, here.seq),
            offset: here.offset,
            bytes: end - here.offset,
        });
        self.tail = Some(tail);
        Ok(())
    }

    fn is_later_block(&self, page: &[u8]) -> bool {
        BlockHeader::decode(page)
            .is_ok_and(|header| header.store_id == self.store_id && header.block > self.at.block)
    }

    fn clean_end(&self) -> Tail {
        let last_segment = self.segments.last().copied().unwrap_or(self.at.seq);
        Tail {
            end: self.at,
            last_segment,
            torn: None,
            last_block: self.last_block.map(|(seq, offset, bytes)| Spot {
                path: segment_path(&self.dir, seq),
                offset,
                bytes,
            }),
        }
    }

    fn next_segment(&mut self) -> Result<(), EngineError> {
        self.at.seq += 1;
        self.at.offset = SEGMENT_HEADER_BYTES as u64;
        if self.at.seq >= self.stop_before_segment {
            return Ok(());
        }
        let path = segment_path(&self.dir, self.at.seq);
        if !self.segments.contains(&self.at.seq) {
            return Err(EngineError::damage(
                &path,
                0,
                "the log goes on in this segment, but it is missing",
            ));
        }
        self.segment = Segment::open(&self.disk, path)?;
        self.check_segment_header()
    }

    fn check_segment_header(&mut self) -> Result<(), EngineError> {
        self.segment_bytes =
            check_segment(&mut self.segment, self.store_id, self.at.seq)?.segment_bytes;
        Ok(())
    }

    fn damage(&self, what: impl Into<String>) -> EngineError {
        EngineError::damage(&self.segment.path, self.at.offset, what)
    }
}
