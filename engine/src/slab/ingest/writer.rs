//! Writes one slab: preallocate, then section by section in blocks that all workers share, the header last.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use crc_fast::CrcAlgorithm;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use zerocopy::IntoBytes;

use super::IngestError;
use super::chunk::Chunk;
use super::dedupe::KeptPrint;
use super::workfiles::Workfile;
use crate::slab::header::{SectionCrcs, SlabHeader, SlabIdentity};
use crate::slab::layout::{PRINT_ENTRY_BYTES, PrintEntry, SLOT_ENTRY_BYTES, SlabLayout, crc32c};
use crate::slab::sealing::SlabSealer;
use crate::slab::vault::Vault;

/// Bytes of a section that a worker makes, checksums and writes at a time: small enough for its cache, large enough that
/// combining the checksums (some 40 µs each) does not show.
const BLOCK_BYTES: usize = 512 << 10;

/// Writes a slab of all rows of `chunk`; row numbers are slot numbers. It is not synced yet.
pub(super) fn write_slab(
    workfile: &Workfile,
    vault: &Vault,
    identity: SlabIdentity,
    chunk: &Chunk,
    prints: &[KeptPrint],
    workers: usize,
) -> Result<(), IngestError> {
    assert_eq!(
        prints.len(),
        chunk.rows() as usize,
        "one fingerprint a card"
    );
    let layout = SlabLayout::of(
        chunk.rows(),
        chunk.class_bytes(),
        chunk.labels().len() as u64,
    );
    let fault = |op, source| IngestError::of_disk(op, &workfile.partial, layout.file_bytes, source);
    preallocate(&workfile.file, layout.file_bytes)
        .map_err(|source| fault("preallocate", source))?;
    let bound = SlabHeader::bound_bytes(&identity, &layout);
    let key = vault.new_key(&bound)?;
    let wrapped_key = vault.wrap(&key, &bound)?;
    let sealer = SlabSealer::new(
        key,
        identity.store_id,
        identity.slab,
        layout.class_bytes,
        layout.cards,
    );
    let writer = SectionWriter {
        file: &workfile.file,
        layout: &layout,
        workers,
    };
    writer
        .write_sections(&sealer, chunk, prints)
        .and_then(|crcs| {
            let header = SlabHeader {
                identity,
                layout,
                crcs,
                wrapped_key,
                expires_from_s: Some(chunk.expires_from_s()),
                grows: false,
            };
            workfile.file.write_all_at(&header.to_bytes()[..], 0)
        })
        .map_err(|source| fault("write", source))
}

/// Takes the room before anything is written, so that a full disk is known at once and a mapped page always exists.
fn preallocate(file: &File, file_bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, file_bytes) {
        Ok(()) => Ok(()),
        // A file system without it: every byte that is not zero is written below, before the file is mapped.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.set_len(file_bytes),
        Err(errno) => Err(errno.into()),
    }
}

struct SectionWriter<'a> {
    file: &'a File,
    layout: &'a SlabLayout,
    workers: usize,
}

impl SectionWriter<'_> {
    fn write_sections(
        &self,
        sealer: &SlabSealer,
        chunk: &Chunk,
        prints: &[KeptPrint],
    ) -> io::Result<SectionCrcs> {
        let layout = self.layout;
        self.file
            .write_all_at(chunk.labels(), layout.labels_offset)?;
        Ok(SectionCrcs {
            sealed: self.write_sealed(sealer, chunk)?,
            slots: self.write_records(layout.slots_offset, SLOT_ENTRY_BYTES, |slot, out| {
                out.extend_from_slice(chunk.entry(slot).as_bytes());
            })?,
            prints: self.write_records(layout.prints_offset, PRINT_ENTRY_BYTES, |rank, out| {
                out.extend_from_slice(print_entry(&prints[rank as usize]).as_bytes());
            })?,
            labels: crc32c(chunk.labels()),
        })
    }

    fn write_sealed(&self, sealer: &SlabSealer, chunk: &Chunk) -> io::Result<u32> {
        let slot_bytes = self.layout.slot_bytes();
        let block_slots = (BLOCK_BYTES / slot_bytes).max(1) as u32;
        self.write_blocks(self.layout.sealed_offset, slot_bytes, |out| {
            let mut range = sealer.take(block_slots)?;
            let slots = range.slots();
            out.resize(slots.len() * slot_bytes, 0);
            for (slot, sealed) in slots.clone().zip(out.chunks_exact_mut(slot_bytes)) {
                range.seal_next(chunk.secret(slot), sealed);
            }
            Some(slots.start)
        })
    }

    /// Writes one record a card; `put` appends the record of a card's number.
    fn write_records(
        &self,
        offset: u64,
        record_bytes: usize,
        put: impl Fn(u32, &mut Vec<u8>) + Sync,
    ) -> io::Result<u32> {
        let queue = BlockQueue::new(self.layout.cards, (BLOCK_BYTES / record_bytes) as u32);
        self.write_blocks(offset, record_bytes, |out| {
            let records = queue.take()?;
            records.clone().for_each(|record| put(record, out));
            Some(records.start)
        })
    }

    /// Writes a section and returns its CRC. `make_next` fills an empty buffer with the next block and returns the number
    /// of the block's first record, until nothing is left.
    fn write_blocks(
        &self,
        offset: u64,
        record_bytes: usize,
        make_next: impl Fn(&mut Vec<u8>) -> Option<u32> + Sync,
    ) -> io::Result<u32> {
        let work = || -> io::Result<Vec<BlockCrc>> {
            let mut written = Vec::new();
            let mut block = Vec::new();
            while let Some(first) = make_next(&mut block) {
                self.file
                    .write_all_at(&block, offset + u64::from(first) * record_bytes as u64)?;
                written.push(BlockCrc {
                    first,
                    crc: crc32c(&block),
                    bytes: block.len() as u64,
                });
                block.clear();
            }
            Ok(written)
        };
        let section_bytes = self.layout.cards as usize * record_bytes;
        let workers = self.workers.min(section_bytes.div_ceil(BLOCK_BYTES)).max(1);
        let written: io::Result<Vec<Vec<BlockCrc>>> = thread::scope(|scope| {
            let threads: Vec<_> = (1..workers).map(|_| scope.spawn(work)).collect();
            let own = std::iter::once(work());
            own.chain(
                threads
                    .into_iter()
                    .map(|thread| thread.join().expect("it returns errors")),
            )
            .collect()
        });
        Ok(section_crc(written?.concat()))
    }
}

fn print_entry(print: &KeptPrint) -> PrintEntry {
    PrintEntry {
        fingerprint: print.key.to_bytes(),
        slot: print.row.into(),
        reserved: 0.into(),
    }
}

/// Hands out the records of a section, a block at a time.
struct BlockQueue {
    records: u32,
    block_records: u32,
    next: AtomicU32,
}

impl BlockQueue {
    fn new(records: u32, block_records: u32) -> Self {
        Self {
            records,
            block_records,
            next: AtomicU32::new(0),
        }
    }

    fn take(&self) -> Option<Range<u32>> {
        // Relaxed: the counter alone decides who writes what.
        let block = self.next.fetch_add(1, Ordering::Relaxed);
        let first = block
            .checked_mul(self.block_records)
            .filter(|&first| first < self.records)?;
        Some(first..first.saturating_add(self.block_records).min(self.records))
    }
}

/// The CRC of one block that was written.
#[derive(Clone, Copy)]
struct BlockCrc {
    first: u32,
    crc: u32,
    bytes: u64,
}

/// The CRC of a whole section from those of its blocks.
fn section_crc(mut blocks: Vec<BlockCrc>) -> u32 {
    blocks.sort_unstable_by_key(|block| block.first);
    let combine = |crc: u64, block: &BlockCrc| {
        crc_fast::checksum_combine(CrcAlgorithm::Crc32Iscsi, crc, block.crc.into(), block.bytes)
    };
    blocks.iter().fold(u64::from(crc32c(&[])), combine) as u32
}
