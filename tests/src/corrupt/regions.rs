//! What each byte of a store is, told by the pages in `docs/`: every byte of every file belongs to exactly one class.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use croupier_engine::slab::SlabHeader;
use croupier_engine::slab::layout::Section;
use croupier_engine::wal::format::{
    BLOCK_HEADER_BYTES, BlockHeader, SEGMENT_HEADER_BYTES, block_bytes,
};

use super::stage::Stage;
use super::{Doing as _, Trouble};

/// A kind of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum Class {
    /// Header of a segment that is in use or was left.
    WalSegmentHeader,
    /// Header of a block.
    WalBlockHeader,
    /// Records of a block.
    WalRecords,
    /// Zeros that fill a block up.
    WalPadding,
    /// Zeros between the last block and the end of its segment.
    WalBlankRest,
    /// Header of a spare segment.
    WalSpareHeader,
    /// Zeros of a spare segment.
    WalSpareRest,
    /// Header of the checkpoint.
    CheckpointHeader,
    /// The rest of it.
    CheckpointBody,
    /// The name of the checkpoint in force.
    Current,
    /// Header of an order file.
    OrdersHeader,
    /// Headers of its chunks.
    OrdersChunkHeader,
    /// The orders in them.
    OrdersRows,
    /// Header of a slab.
    SlabHeader,
    /// Claim words, zero in the file.
    SlabClaims,
    /// Slot table.
    SlabSlots,
    /// Sealed secrets.
    SlabSealed,
    /// Fingerprints.
    SlabPrints,
    /// Labels.
    SlabLabels,
    /// Zeros between sections.
    SlabGaps,
    /// The store file.
    StoreFile,
    /// The key file.
    KeyFile,
    /// The lock, an empty file.
    Lock,
}

impl Class {
    /// As it is written on the command line.
    pub fn name(self) -> String {
        let value = self.to_possible_value().expect("none is hidden");
        value.get_name().to_owned()
    }

    /// Whether a start reads it through the disk that can be in memory.
    pub fn is_in_memory(self) -> bool {
        self < Class::SlabHeader
    }
}

/// Some bytes of a file that are of one class.
#[derive(Debug, Clone)]
pub struct Region {
    /// Within the data directory.
    pub path: PathBuf,
    /// Which bytes.
    pub bytes: Range<u64>,
    /// What they are.
    pub class: Class,
}

/// All bytes of the store.
pub fn regions(stage: &Stage) -> Result<Vec<Region>, Trouble> {
    let dir = stage.dir();
    let mut all = Vec::new();
    for inside in ["wal", "checkpoints", "orders", "slabs", ""] {
        let mut names: Vec<PathBuf> = fs::read_dir(dir.join(inside))
            .doing("list")?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.is_file())
            .collect();
        names.sort();
        for path in names {
            let bytes = fs::read(&path).doing("read")?;
            let inside = path.strip_prefix(&dir).expect("it lies within");
            let mut parts = Parts {
                path: inside,
                at: 0,
                all: &mut all,
            };
            split(stage, &bytes, &mut parts)?;
            assert_eq!(
                parts.at,
                bytes.len() as u64,
                "{}: every byte has its class",
                inside.display()
            );
        }
    }
    Ok(all)
}

/// Cuts a file into regions, from its beginning to its end.
struct Parts<'a> {
    path: &'a Path,
    at: u64,
    all: &'a mut Vec<Region>,
}

impl Parts<'_> {
    /// The next bytes, up to `end`, are of this class.
    fn to(&mut self, end: u64, class: Class) {
        assert!(end >= self.at, "{}: parts overlap", self.path.display());
        self.all.push(Region {
            path: self.path.into(),
            bytes: self.at..end,
            class,
        });
        self.at = end;
    }
}

fn split(stage: &Stage, bytes: &[u8], parts: &mut Parts<'_>) -> Result<(), Trouble> {
    let end = bytes.len() as u64;
    let name = parts.path.to_string_lossy().into_owned();
    match name.split('/').next().unwrap_or_default() {
        "wal" => wal(stage, bytes, parts),
        "checkpoints" => {
            parts.to(192, Class::CheckpointHeader);
            parts.to(end, Class::CheckpointBody);
        }
        "orders" => orders(bytes, parts),
        "slabs" => slab(bytes, parts).doing("read a slab's header")?,
        "CURRENT" => parts.to(end, Class::Current),
        "store" => parts.to(end, Class::StoreFile),
        "store.key" => parts.to(end, Class::KeyFile),
        "LOCK" => parts.to(end, Class::Lock),
        _ => return Err(Trouble::at(name, "a file of no known kind")),
    }
    Ok(())
}

fn wal(stage: &Stage, bytes: &[u8], parts: &mut Parts<'_>) {
    let in_use = croupier_engine::wal::segments::segment_path(Path::new("wal"), stage.tail.end.seq);
    let is_spare = parts.path > in_use.as_path();
    let end = bytes.len() as u64;
    if is_spare {
        parts.to(SEGMENT_HEADER_BYTES as u64, Class::WalSpareHeader);
        parts.to(end, Class::WalSpareRest);
        return;
    }
    parts.to(SEGMENT_HEADER_BYTES as u64, Class::WalSegmentHeader);
    while let Some(rest) = bytes.get(parts.at as usize..)
        && let Ok(header) = BlockHeader::decode(rest)
    {
        let begin = parts.at;
        let body_bytes = header.body_bytes as usize;
        parts.to(begin + BLOCK_HEADER_BYTES as u64, Class::WalBlockHeader);
        parts.to(parts.at + body_bytes as u64, Class::WalRecords);
        parts.to(begin + block_bytes(body_bytes) as u64, Class::WalPadding);
    }
    parts.to(end, Class::WalBlankRest);
}

fn orders(bytes: &[u8], parts: &mut Parts<'_>) {
    parts.to(64, Class::OrdersHeader);
    while let Some(head) = bytes.get(parts.at as usize..parts.at as usize + 16) {
        let rows = u32::from_le_bytes(head[..4].try_into().expect("four bytes"));
        parts.to(parts.at + 16, Class::OrdersChunkHeader);
        parts.to(parts.at + u64::from(rows), Class::OrdersRows);
    }
}

fn slab(bytes: &[u8], parts: &mut Parts<'_>) -> Result<(), String> {
    let header = SlabHeader::parse(bytes).map_err(|fault| fault.to_string())?;
    parts.to(bytes.len().min(4096) as u64, Class::SlabHeader);
    for section in Section::ALL {
        let range = header.layout.section(section);
        parts.to(range.start, Class::SlabGaps);
        let class = match section {
            Section::Claims => Class::SlabClaims,
            Section::Slots => Class::SlabSlots,
            Section::Sealed => Class::SlabSealed,
            Section::Prints => Class::SlabPrints,
            Section::Labels => Class::SlabLabels,
        };
        parts.to(range.end, class);
    }
    parts.to(bytes.len() as u64, Class::SlabGaps);
    Ok(())
}
