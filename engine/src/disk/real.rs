//! The operating system's file system.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;

use super::{FileSystem, Open, OpenFile, PAGE_BYTES};

/// The operating system's file system.
pub struct RealFs;

struct RealFile {
    file: File,
    /// Reads and writes go past the page cache.
    pages: bool,
}

impl OpenFile for RealFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut got = 0;
        while got < buffer.len() {
            match self.file.read_at(&mut buffer[got..], offset + got as u64) {
                Ok(0) => break,
                Ok(more) => {
                    got += more;
                    // The end of the file; what is behind it could not be asked for from here.
                    if self.pages && !got.is_multiple_of(PAGE_BYTES) {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(got)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, bytes) {
            // A file system that cannot: the zeros that are written next take the room.
            Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        // Length counts as data that is needed to read the file back, so fdatasync is enough.
        self.file.sync_data()
    }
}

fn is_invalid(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::INVAL.raw_os_error())
}

impl FileSystem for RealFs {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn OpenFile>> {
        let mut options = OpenOptions::new();
        match how {
            Open::Read | Open::ReadPages => options.read(true),
            Open::Write | Open::WritePages | Open::WriteDurable => options.write(true),
            Open::Create => options.write(true).create(true).truncate(true),
        };
        let flags = match how {
            Open::ReadPages | Open::WritePages => OFlags::DIRECT,
            Open::WriteDurable => OFlags::DIRECT | OFlags::DSYNC,
            Open::Read | Open::Write | Open::Create => OFlags::empty(),
        };
        let opened = options.clone().custom_flags(flags.bits() as i32).open(path);
        let file = match opened {
            // A file system that has only its page cache; nothing is lost but time.
            Err(error) if flags == OFlags::DIRECT && is_invalid(&error) => options.open(path)?,
            opened => opened?,
        };
        let pages = flags.contains(OFlags::DIRECT);
        Ok(Box::new(RealFile { file, pages }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        std::fs::read_dir(dir)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn unix_ms(&self) -> u64 {
        crate::clock::unix_ms()
    }

    fn has_threads(&self) -> bool {
        true
    }
}
