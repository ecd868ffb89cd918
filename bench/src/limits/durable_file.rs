//! A zero-written file whose blocks are durable when the call returns, by either of the two ways there are.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use serde::Serialize;

/// Addresses, offsets and lengths of direct writes are multiples of this.
pub const ALIGN_BYTES: usize = 4096;

/// How a block is made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
pub enum SyncMethod {
    /// `pwrite`, then `fdatasync`.
    #[value(name = "fdatasync")]
    #[serde(rename = "fdatasync")]
    Fdatasync,
    /// One `pwrite` with `O_DIRECT | O_DSYNC`.
    #[value(name = "direct")]
    #[serde(rename = "direct")]
    Direct,
}

impl SyncMethod {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Fdatasync, Self::Direct];

    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fdatasync => "pwrite + fdatasync",
            Self::Direct => "O_DIRECT|O_DSYNC",
        }
    }

    /// For flags.
    pub fn flag(self) -> &'static str {
        match self {
            Self::Fdatasync => "fdatasync",
            Self::Direct => "direct",
        }
    }
}

/// Bytes at an aligned address.
#[derive(Debug)]
pub struct AlignedBuffer {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl AlignedBuffer {
    /// Zeros.
    pub fn new(length: usize) -> Self {
        let bytes = vec![0u8; length + ALIGN_BYTES];
        // The vector is never grown, so its address stays.
        let start = bytes.as_ptr().align_offset(ALIGN_BYTES);
        assert!(start < ALIGN_BYTES);
        Self {
            bytes,
            start,
            length,
        }
    }

    /// All of it.
    pub fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.length]
    }

    /// The first `length` bytes.
    pub fn first(&self, length: usize) -> &[u8] {
        assert!(length <= self.length);
        &self.bytes[self.start..self.start + length]
    }
}

/// The file. It is written from front to back and then over again.
#[derive(Debug)]
pub struct DurableFile {
    file: File,
    method: SyncMethod,
    bytes: u64,
    offset: u64,
}

impl DurableFile {
    /// Writes `bytes` zeros and makes them durable, so that later writes change no metadata.
    pub fn create(path: &Path, bytes: u64, method: SyncMethod) -> io::Result<Self> {
        assert_eq!(bytes % ALIGN_BYTES as u64, 0);
        let zeros = vec![0u8; 1 << 20];
        let mut fresh = File::create_new(path)?;
        let mut left = bytes;
        while left > 0 {
            let length = left.min(zeros.len() as u64);
            fresh.write_all(&zeros[..length as usize])?;
            left -= length;
        }
        fresh.sync_all()?;
        let flags = match method {
            SyncMethod::Fdatasync => OFlags::empty(),
            SyncMethod::Direct => OFlags::DIRECT | OFlags::DSYNC,
        };
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(flags.bits() as i32)
            .open(path)?;
        Ok(Self {
            file,
            method,
            bytes,
            offset: 0,
        })
    }

    /// Writes a block (aligned, as from [`AlignedBuffer`]) behind the one before and makes it durable.
    pub fn write_durable(&mut self, block: &[u8]) -> io::Result<()> {
        if self.offset + block.len() as u64 > self.bytes {
            self.offset = 0;
        }
        self.file.write_all_at(block, self.offset)?;
        self.offset += block.len() as u64;
        match self.method {
            SyncMethod::Fdatasync => self.file.sync_data(),
            SyncMethod::Direct => Ok(()),
        }
    }
}
