//! The disk: what the log, checkpoints and start-up do to files, in deeds that a crash leaves whole or undone.
//!
//! The deeds (a file that appears complete, a block that is durable when the call returns) are written once, here, over
//! [`FileSystem`]: a handful of plain operations that promise nothing until they are synced. The operating system's is
//! [`RealFs`]; [`memory::MemoryDisk`] forgets what was not synced, tears and reorders it, and fails on demand, so that a
//! missing sync is found by a simulation and not by a power cut.

#[cfg(any(test, feature = "testing"))]
pub mod memory;
pub mod real;
mod window;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use croupier_protocol::planted::{self, Bug};

pub use real::RealFs;
pub use window::{PAGE_BYTES, Window};

/// How a block is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMethod {
    /// `pwrite`, then `fdatasync`.
    Fdatasync,
    /// One `pwrite` on a file opened with `O_DIRECT | O_DSYNC`.
    Direct,
    /// Not durable at all: only under `--unsafe-no-sync`.
    UnsafeNone,
}

impl SyncMethod {
    /// For people: shown by `croupier info` and the bench.
    pub fn name(self) -> &'static str {
        match self {
            SyncMethod::Fdatasync => "fdatasync",
            SyncMethod::Direct => "O_DIRECT|O_DSYNC",
            SyncMethod::UnsafeNone => "UNSAFE: none",
        }
    }
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// To be read.
    Read,
    /// As `Read`, past the page cache: whole pages at aligned offsets and addresses only.
    ReadPages,
    /// To be written in place; it must exist.
    Write,
    /// As `Write`, past the page cache: whole pages at aligned offsets and addresses only.
    WritePages,
    /// As `WritePages`; each write is durable when it returns.
    WriteDurable,
    /// To be written from nothing, in place of what has the name.
    Create,
}

/// A file system's plain operations. Nothing is durable before it is synced: bytes by the file's sync, names by their
/// directory's.
pub trait FileSystem: Send + Sync {
    /// Opens a file.
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn OpenFile>>;
    /// Gives a file another name in the same directory, in place of what has that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Takes a name away.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Names in a directory, in any order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// The time that is put into headers, in Unix milliseconds.
    fn unix_ms(&self) -> u64;
    /// Whether several threads may use it at once in an order of their own; a simulated one has one thread for all.
    fn has_threads(&self) -> bool;
}

/// An open file.
pub trait OpenFile: Send {
    /// Length in bytes.
    fn bytes(&self) -> io::Result<u64>;
    /// Fills as much of `buffer` as the file has from `offset` on; returns how much that is.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `bytes`.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Asks for room for `bytes` bytes from the start on, so that writes there do not run out of it.
    fn allocate(&self, bytes: u64) -> io::Result<()>;
    /// Makes contents and length durable. After an error nobody knows what is (rule 8).
    fn sync(&self) -> io::Result<()>;
}

/// A directory tree with the guarantees that the store's formats are built on. Clones are the same disk.
#[derive(Clone)]
pub struct Disk {
    fs: Arc<dyn FileSystem>,
    drafts: Arc<AtomicU64>,
}

/// Zeros written to a new segment before they are synced: as many as a block of the log may wait for.
const SYNCED_ZEROS_BYTES: u64 = 128 << 10;

/// At an address that `O_DIRECT` takes.
#[repr(align(4096))]
struct Zeros([u8; 1 << 20]);

static ZEROS: Zeros = Zeros([0; 1 << 20]);

impl Disk {
    /// The operating system's.
    pub fn real() -> Disk {
        Disk::new(Arc::new(RealFs))
    }

    /// Over another file system.
    pub fn new(fs: Arc<dyn FileSystem>) -> Disk {
        Disk {
            fs,
            drafts: Arc::default(),
        }
    }

    /// The time that is put into headers, in Unix milliseconds.
    pub fn unix_ms(&self) -> u64 {
        self.fs.unix_ms()
    }

    /// Whether threads may be started to use it.
    pub fn has_threads(&self) -> bool {
        self.fs.has_threads()
    }

    /// Makes `path` with `bytes` of zeros behind `head` (whole pages both), durable together with its name, visible only
    /// when complete. The zeros go past the page cache: there they would be in the way of what is written over them.
    pub fn create_zeroed(&self, path: &Path, head: &[u8], bytes: u64) -> io::Result<()> {
        let tmp = tmp_name(path);
        let made = (|| {
            let file = self.fs.open(&tmp, Open::Create)?;
            // Room first: a full disk is told before gigabytes of zeros are written.
            file.allocate(bytes)?;
            file.write_at(0, head)?;
            let pages = self.fs.open(&tmp, Open::WritePages)?;
            let mut offset = head.len() as u64;
            while offset < bytes {
                let end = (offset + SYNCED_ZEROS_BYTES).min(bytes);
                write_zeros(&*pages, offset, end)?;
                // Little by little: a block of the log must never queue behind a whole segment of zeros.
                if !planted::is(Bug::SkipSegmentSync) {
                    file.sync()?;
                }
                offset = end;
            }
            self.fs.rename(&tmp, path)
        })();
        if made.is_err() {
            // The first error is the one to tell; a left-over is overwritten by the next try.
            let _ = self.fs.remove(&tmp);
        }
        made?;
        self.sync_dir(parent(path))
    }

    /// Opens an existing segment for writing.
    pub fn open_log(&self, path: &Path, method: SyncMethod) -> io::Result<LogFile> {
        let how = match method {
            SyncMethod::Direct => Open::WriteDurable,
            SyncMethod::Fdatasync | SyncMethod::UnsafeNone => Open::Write,
        };
        Ok(LogFile {
            file: self.fs.open(path, how)?,
            method,
        })
    }

    /// Opens a file that was made full of zeros, to be written in place, each part once.
    pub(crate) fn open_growing(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        self.fs.open(path, Open::Write)
    }

    /// Begins a file in `dir` that gets its name when it is complete.
    pub fn draft(&self, dir: &Path) -> io::Result<Draft> {
        // Relaxed: only uniqueness matters.
        let number = self.drafts.fetch_add(1, Ordering::Relaxed);
        let tmp = dir.join(format!("draft-{number}.tmp"));
        let file = self.fs.open(&tmp, Open::Create)?;
        Ok(Draft {
            disk: self.clone(),
            tmp: Some(tmp),
            file,
            pages: None,
            buffer: AlignedBuffer::new(DRAFT_BUFFER_BYTES),
            filled: 0,
            at: 0,
        })
    }

    /// Makes or replaces a small file: readers see the old or the new one.
    pub fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut draft = self.draft(parent(path))?;
        draft.write_all(bytes)?;
        draft.publish(path)
    }

    /// Overwrites `bytes` bytes from `offset` on with zeros, durable.
    pub fn zero_range(&self, path: &Path, offset: u64, bytes: u64) -> io::Result<()> {
        let file = self.fs.open(path, Open::Write)?;
        write_zeros(&*file, offset, offset + bytes)?;
        file.sync()
    }

    /// Writes bytes that are there once more and makes them durable, wherever they were read from.
    pub fn rewrite(&self, path: &Path, offset: u64, bytes: u64) -> io::Result<()> {
        let mut same = vec![0; bytes as usize];
        let got = self.open_read(path)?.read_at(offset, &mut same)?;
        let file = self.fs.open(path, Open::Write)?;
        file.write_at(offset, &same[..got])?;
        file.sync()
    }

    /// A reader of the whole file.
    pub fn open_read(&self, path: &Path) -> io::Result<Reader> {
        let file = self.fs.open(path, Open::Read)?;
        let bytes = file.bytes()?;
        Ok(Reader { file, bytes })
    }

    /// A window on a file that is read through.
    pub fn open_window(&self, path: &Path) -> io::Result<Window> {
        Window::new(self.fs.open(path, Open::ReadPages)?)
    }

    /// Names in a directory, sorted.
    pub fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = self.fs.list(dir)?;
        names.sort_unstable();
        Ok(names)
    }

    /// Removes a file, and makes that durable.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        self.fs.remove(path)?;
        self.sync_dir(parent(path))
    }

    /// Makes the names in `dir` durable.
    pub fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if planted::is(Bug::SkipDirectorySync) {
            return Ok(());
        }
        self.fs.sync_dir(dir)
    }
}

/// An open segment: whole blocks at aligned offsets, durable when the call returns.
pub struct LogFile {
    file: Box<dyn OpenFile>,
    method: SyncMethod,
}

impl LogFile {
    /// Writes `block` (length, offset and address multiples of 4096) and makes it durable. After an error the caller
    /// must not write again (rule 8).
    pub fn write_durable(&mut self, offset: u64, block: &[u8]) -> io::Result<()> {
        self.write(offset, block)?;
        if planted::is(Bug::SkipBlockSync) {
            return Ok(());
        }
        match self.method {
            SyncMethod::Fdatasync => self.file.sync(),
            SyncMethod::Direct | SyncMethod::UnsafeNone => Ok(()),
        }
    }

    /// Writes `block`; whether it is durable then is another question.
    pub(crate) fn write(&mut self, offset: u64, block: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, block)
    }
}

/// Reads at offsets.
pub struct Reader {
    file: Box<dyn OpenFile>,
    bytes: u64,
}

impl Reader {
    /// Length of the file in bytes, when it was opened.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Fills as much of `buffer` as the file has from `offset` on; returns how much that is.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buffer)
    }
}

/// What a draft gathers before it writes: as much as a block of the log may wait for.
const DRAFT_BUFFER_BYTES: usize = 128 << 10;

/// A file that is being written under a temporary name. Dropped unpublished, it is removed. Long ones are written past the
/// page cache: nobody reads them soon.
pub struct Draft {
    disk: Disk,
    /// There until published.
    tmp: Option<PathBuf>,
    file: Box<dyn OpenFile>,
    /// The same file, opened when the first buffer is full.
    pages: Option<Box<dyn OpenFile>>,
    buffer: AlignedBuffer,
    filled: usize,
    at: u64,
}

impl io::Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.filled == DRAFT_BUFFER_BYTES {
            self.write_pages()?;
        }
        let some = bytes.len().min(DRAFT_BUFFER_BYTES - self.filled);
        let room = &mut self.buffer.slice_mut(DRAFT_BUFFER_BYTES)[self.filled..];
        room[..some].copy_from_slice(&bytes[..some]);
        self.filled += some;
        Ok(some)
    }

    /// Nothing is to be had of a draft before it is published.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Draft {
    /// Writes the buffer, which is full.
    fn write_pages(&mut self) -> io::Result<()> {
        if self.pages.is_none() {
            let tmp = self.tmp.as_ref().expect("written before it is published");
            self.pages = Some(self.disk.fs.open(tmp, Open::WritePages)?);
        }
        let pages = self.pages.as_ref().expect("opened above");
        pages.write_at(self.at, self.buffer.slice(self.filled))?;
        self.at += self.filled as u64;
        self.filled = 0;
        Ok(())
    }

    /// Syncs the file, gives it the name `path` (in the same directory, replacing what was there) and syncs the
    /// directory: readers see the old or the new file, never a part.
    pub fn publish(mut self, path: &Path) -> io::Result<()> {
        if self.filled > 0 {
            self.file
                .write_at(self.at, self.buffer.slice(self.filled))?;
        }
        if !planted::is(Bug::SkipDraftSync) {
            self.file.sync()?;
        }
        let tmp = self.tmp.as_ref().expect("published once");
        self.disk.fs.rename(tmp, path)?;
        self.tmp = None;
        self.disk.sync_dir(parent(path))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(tmp) = &self.tmp {
            // A left-over draft is removed by the next start.
            let _ = self.disk.fs.remove(tmp);
        }
    }
}

fn write_zeros(file: &dyn OpenFile, mut offset: u64, end: u64) -> io::Result<()> {
    while offset < end {
        let some = (end - offset).min(ZEROS.0.len() as u64);
        file.write_at(offset, &ZEROS.0[..some as usize])?;
        offset += some;
    }
    Ok(())
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

fn tmp_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    PathBuf::from(name)
}

/// A buffer whose contents begin at a multiple of [`PAGE_BYTES`], as `O_DIRECT` wants it, in safe code.
pub struct AlignedBuffer {
    bytes: Vec<u8>,
    start: usize,
}

impl AlignedBuffer {
    /// Room for `bytes` bytes, all zero.
    pub fn new(bytes: usize) -> AlignedBuffer {
        let buffer = vec![0; bytes + PAGE_BYTES];
        let start = buffer.as_ptr().align_offset(PAGE_BYTES);
        AlignedBuffer {
            bytes: buffer,
            start,
        }
    }

    /// The first `bytes` bytes.
    pub fn slice(&self, bytes: usize) -> &[u8] {
        &self.bytes[self.start..self.start + bytes]
    }

    /// The first `bytes` bytes, to write.
    pub fn slice_mut(&mut self, bytes: usize) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + bytes]
    }
}
