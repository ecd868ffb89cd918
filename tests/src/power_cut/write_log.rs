//! The write log of the kernel's `dm-log-writes` target, and the disks that a power cut may leave.
//!
//! The target puts a write into its log once a flush has made it durable (or at once, if it carries FUA), so what stands
//! before a mark is what every disk must have kept. What comes after the mark, up to the next flush, was on its way: of
//! that a disk may have kept any part, by sectors.
//!
//! Layout (`Documentation/admin-guide/device-mapper/log-writes.rst`), all numbers little-endian, in units of 512 bytes:
//!
//! ```text
//! 0   magic u64 | version u64 | entries u64 | sector_bytes u32
//! 1 … entry: sector u64 | sectors u64 | flags u64 | data_bytes u64, a mark's text; then, but for discards, the sectors
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::Dice;

const SECTOR_BYTES: u64 = 512;
const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1 << 0;
const FUA: u64 = 1 << 1;
const DISCARD: u64 = 1 << 2;
const MARK: u64 = 1 << 3;

/// What a disk was told.
#[derive(Debug)]
pub struct Entry {
    sector: u64,
    sectors: u64,
    flags: u64,
    /// Where in the log its sectors lie, in bytes.
    at: u64,
    /// The text of a mark.
    pub mark: Option<String>,
}

impl Entry {
    /// Whether everything logged before it is durable once it is.
    fn is_barrier(&self) -> bool {
        self.flags & (FLUSH | FUA) != 0
    }
}

/// A log that nobody writes to any more.
#[derive(Debug)]
pub struct WriteLog {
    file: File,
    /// In the order in which they became durable.
    pub entries: Vec<Entry>,
}

impl WriteLog {
    /// Reads the list of entries.
    ///
    /// # Errors
    /// If it cannot be read, or is none.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut head = [0; SECTOR_BYTES as usize];
        file.read_exact_at(&mut head, 0)?;
        if word(&head, 0) != MAGIC || word(&head, 24) & 0xffff_ffff != SECTOR_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "no write log of 512-byte sectors",
            ));
        }
        let (mut entries, mut at) = (Vec::new(), SECTOR_BYTES);
        for _ in 0..word(&head, 16) {
            file.read_exact_at(&mut head, at)?;
            let [sector, sectors, flags, data_bytes] =
                [0, 8, 16, 24].map(|offset| word(&head, offset));
            at += SECTOR_BYTES;
            let text = || {
                String::from_utf8_lossy(&head[32..32 + data_bytes.min(400) as usize]).into_owned()
            };
            let mark = (flags & MARK != 0).then(text);
            entries.push(Entry {
                sector,
                sectors,
                flags,
                at,
                mark,
            });
            if flags & DISCARD == 0 {
                at += sectors * SECTOR_BYTES;
            }
        }
        Ok(Self { file, entries })
    }

    /// Carries an entry out on a disk, or only those of its sectors that `keeps` chooses.
    fn apply(
        &self,
        entry: &Entry,
        disk: &mut [u8],
        mut keeps: impl FnMut() -> bool,
    ) -> io::Result<()> {
        let mut some = [0; SECTOR_BYTES as usize];
        for nth in 0..entry.sectors {
            if !keeps() {
                continue;
            }
            if entry.flags & DISCARD == 0 {
                self.file
                    .read_exact_at(&mut some, entry.at + nth * SECTOR_BYTES)?;
            }
            let to = ((entry.sector + nth) * SECTOR_BYTES) as usize;
            disk[to..to + some.len()].copy_from_slice(&some);
        }
        Ok(())
    }

    /// Brings a disk from entry `from` to before entry `to`.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn replay(&self, from: usize, to: usize, disk: &mut [u8]) -> io::Result<()> {
        let mut entries = self.entries[from..to].iter();
        entries.try_for_each(|entry| self.apply(entry, disk, || true))
    }

    /// Lets a disk keep some of what was on its way at entry `at`: nothing, all, or any sectors. Returns of how many
    /// sectors how many were kept.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn keep_some(&self, at: usize, disk: &mut [u8], dice: &mut Dice) -> io::Result<(u64, u64)> {
        let (mut kept, mut all) = (0, 0);
        // Of how many sectors one is lost.
        let lost_in = *dice.one_of(&[1, 2, 2, 2, 8, u64::MAX]);
        for entry in self.entries[at..]
            .iter()
            .filter(|entry| entry.mark.is_none())
        {
            let whole = !dice.once_in(2);
            self.apply(entry, disk, || {
                let keeps = !dice.once_in(lost_in) && (whole || !dice.once_in(2));
                all += 1;
                kept += u64::from(keeps);
                keeps
            })?;
            if entry.is_barrier() {
                break;
            }
        }
        Ok((kept, all))
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
