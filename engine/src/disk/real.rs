//! The operating system's file system.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::thread;
use std::time::Instant;

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

/// Bytes that are given back at a time: what a device needs for them, a block of the log may have to wait.
const SHRINK_BYTES: u64 = 256 << 10;
/// Bytes after which a file system with a journal is to tell its device: pieces that wait for one commit go at once.
const SHRINK_SYNC_BYTES: u64 = 1 << 20;

/// Gives back the bytes of a file without a name, and rests as long as each piece takes.
fn shrink(file: &File) -> io::Result<()> {
    let metadata = file.metadata()?;
    // Under another name somebody keeps it.
    if metadata.nlink() > 0 {
        return Ok(());
    }
    let mut bytes = metadata.len();
    while bytes > SHRINK_BYTES {
        let start = Instant::now();
        bytes -= SHRINK_BYTES;
        file.set_len(bytes)?;
        if bytes % SHRINK_SYNC_BYTES < SHRINK_BYTES {
            file.sync_data()?;
        }
        thread::sleep(start.elapsed());
    }
    Ok(())
}

impl FileSystem for RealFs {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn OpenFile>> {
        let mut options = OpenOptions::new();
        match how {
            Open::Read | Open::ReadPages => options.read(true),
            Open::Write | Open::WritePages | Open::WriteDurable => options.write(true),
            Open::Create => options.write(true).create(true).truncate(true).mode(0o600),
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

    /// A large file is given back a piece at a time once its name is gone: given back at once, it would make every other
    /// write wait, on a file system that tells its device (`discard`) for 14 ms where 64 MiB go.
    fn remove(&self, path: &Path) -> io::Result<()> {
        let opened = OpenOptions::new().write(true).open(path);
        std::fs::remove_file(path)?;
        // Without it all is as it should be, but at once.
        if let Ok(file) = opened {
            let _ = shrink(&file);
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_removed_stays_whole_for_those_who_have_it_under_another_name() {
        let dir = tempfile::tempdir().unwrap();
        let [path, kept] = ["path", "kept"].map(|name| dir.path().join(name));
        let bytes = vec![7; 3 * SHRINK_BYTES as usize + 1];
        for keep in [false, true] {
            std::fs::write(&path, &bytes).unwrap();
            if keep {
                std::fs::hard_link(&path, &kept).unwrap();
            }
            RealFs.remove(&path).unwrap();
            assert!(!path.exists());
        }
        assert_eq!(std::fs::read(&kept).unwrap(), bytes);
        let error = RealFs.remove(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
