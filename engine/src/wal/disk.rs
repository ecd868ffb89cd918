//! What the log, checkpoints and start-up need from a disk, as a trait, so that a disk that forgets what was not synced
//! can stand in for it; and the real one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// An open segment: whole blocks at aligned offsets, durable when the call returns.
pub trait LogFile: Send {
    /// Writes `block` (length, offset and address multiples of 4096) and makes it durable. After an error the caller
    /// must not write again (rule 8).
    fn write_durable(&mut self, offset: u64, block: &[u8]) -> io::Result<()>;
}

/// A directory tree with the guarantees that the store's formats are built on.
pub trait Disk: Send + Sync {
    /// Makes `path` with `bytes` of zeros behind `head`, durable together with its name, visible only when complete.
    fn create_zeroed(&self, path: &Path, head: &[u8], bytes: u64) -> io::Result<()>;
    /// Opens an existing segment for writing.
    fn open_log(&self, path: &Path, method: SyncMethod) -> io::Result<Box<dyn LogFile>>;
    /// Begins a file that gets its name when it is complete: see [`Draft`].
    fn draft(&self, dir: &Path) -> io::Result<Box<dyn Draft>>;
    /// Overwrites `bytes` bytes from `offset` on with zeros, durable.
    fn zero_range(&self, path: &Path, offset: u64, bytes: u64) -> io::Result<()>;
    /// A reader of the whole file.
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn ReadAt>>;
    /// Names in a directory, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Removes a file, and makes that durable.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// A file that is being written under a temporary name. Dropped unpublished, it is removed.
pub trait Draft: io::Write + Send {
    /// Syncs the file, gives it the name `path` (replacing what was there) and syncs the directory: readers see the old
    /// or the new file, never a part.
    fn publish(self: Box<Self>, path: &Path) -> io::Result<()>;
}

/// Makes or replaces a small file.
pub fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut draft = disk.draft(parent(path))?;
    draft.write_all(bytes)?;
    draft.publish(path)
}

/// A disk shared by everyone who writes to the store.
pub type SharedDisk = Arc<dyn Disk>;

/// Reads at offsets.
pub trait ReadAt: Send {
    /// Length of the file in bytes.
    fn bytes(&self) -> u64;
    /// Fills as much of `buffer` as the file has from `offset` on; returns how much that is.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

/// The operating system's file system.
pub struct RealDisk;

struct RealLog {
    file: File,
    method: SyncMethod,
}

impl LogFile for RealLog {
    fn write_durable(&mut self, offset: u64, block: &[u8]) -> io::Result<()> {
        self.file.write_all_at(block, offset)?;
        match self.method {
            SyncMethod::Fdatasync => self.file.sync_data(),
            SyncMethod::Direct | SyncMethod::UnsafeNone => Ok(()),
        }
    }
}

struct RealReader {
    file: File,
    bytes: u64,
}

impl ReadAt for RealReader {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut got = 0;
        while got < buffer.len() {
            match self.file.read_at(&mut buffer[got..], offset + got as u64) {
                Ok(0) => break,
                Ok(more) => got += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(got)
    }
}

/// Makes the names in `dir` durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

fn tmp_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    PathBuf::from(name)
}

/// Writes `path.tmp`, syncs, renames, syncs the directory; removes the `.tmp` when something fails.
fn write_then_rename(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let tmp = tmp_name(path);
    let made = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&tmp)?;
        write(&mut file)?;
        file.sync_all()?;
        std::fs::rename(&tmp, path)
    })();
    if made.is_err() {
        // The first error is the one to tell; a left-over .tmp is overwritten by the next try.
        let _ = std::fs::remove_file(&tmp);
    }
    made?;
    sync_dir(parent(path))
}

struct RealDraft {
    file: io::BufWriter<File>,
    /// There until published.
    tmp: Option<PathBuf>,
}

impl io::Write for RealDraft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Draft for RealDraft {
    fn publish(mut self: Box<Self>, path: &Path) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        std::fs::rename(self.tmp.as_ref().expect("published once"), path)?;
        self.tmp = None;
        sync_dir(parent(path))
    }
}

impl Drop for RealDraft {
    fn drop(&mut self) {
        if let Some(tmp) = &self.tmp {
            // A left-over draft is removed by the next start.
            let _ = std::fs::remove_file(tmp);
        }
    }
}

/// Zeros written to a new segment before they are synced.
const SYNCED_ZEROS_BYTES: u64 = 512 << 10;

static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

fn write_zeros(file: &File, mut offset: u64, end: u64) -> io::Result<()> {
    while offset < end {
        let some = (end - offset).min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..some as usize], offset)?;
        offset += some;
    }
    Ok(())
}

impl Disk for RealDisk {
    fn create_zeroed(&self, path: &Path, head: &[u8], bytes: u64) -> io::Result<()> {
        write_then_rename(path, |file| {
            // Blocks first: a full disk is told before gigabytes of zeros are written.
            match rustix::fs::fallocate(&*file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
                Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(errno.into()),
            }
            file.write_all(head)?;
            let mut offset = head.len() as u64;
            while offset < bytes {
                let end = (offset + SYNCED_ZEROS_BYTES).min(bytes);
                write_zeros(file, offset, end)?;
                // Little by little: a block of the log must never queue behind a whole segment of zeros.
                file.sync_data()?;
                offset = end;
            }
            Ok(())
        })
    }

    fn open_log(&self, path: &Path, method: SyncMethod) -> io::Result<Box<dyn LogFile>> {
        let mut options = OpenOptions::new();
        options.write(true);
        if method == SyncMethod::Direct {
            let flags = rustix::fs::OFlags::DIRECT | rustix::fs::OFlags::DSYNC;
            options.custom_flags(flags.bits() as i32);
        }
        Ok(Box::new(RealLog {
            file: options.open(path)?,
            method,
        }))
    }

    fn draft(&self, dir: &Path) -> io::Result<Box<dyn Draft>> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let tmp = dir.join(format!(
            "draft-{}.tmp",
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&tmp)?;
        Ok(Box::new(RealDraft {
            file: io::BufWriter::with_capacity(1 << 20, file),
            tmp: Some(tmp),
        }))
    }

    fn zero_range(&self, path: &Path, offset: u64, bytes: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(path)?;
        write_zeros(&file, offset, offset + bytes)?;
        file.sync_data()
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn ReadAt>> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Box::new(RealReader { file, bytes }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = std::fs::read_dir(dir)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort_unstable();
        Ok(names)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)?;
        sync_dir(parent(path))
    }
}

/// A buffer whose contents begin at a multiple of 4096, as `O_DIRECT` wants it, in safe code.
pub struct AlignedBuffer {
    bytes: Vec<u8>,
    start: usize,
}

impl AlignedBuffer {
    /// Room for `bytes` bytes, all zero.
    pub fn new(bytes: usize) -> AlignedBuffer {
        let align = super::format::BLOCK_ALIGN_BYTES;
        let buffer = vec![0; bytes + align];
        let start = buffer.as_ptr().align_offset(align);
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
