//! Order files: the records that ended orders and that checkpoints have folded, in LSN order, for ever.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::format::OrderFile;
use crate::disk::{Disk, Draft, Window};
use crate::error::{EngineError, IoContext as _};
use crate::state::record::{self, Ended};
use crate::wal::format::{StoreId, crc32c};

const MAGIC: [u8; 8] = *b"CRPRORDS";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 64;
const CHUNK_HEADER_BYTES: usize = 16;
/// A chunk is closed when it is at least this long.
const CHUNK_BYTES: usize = 1 << 20;
/// A reader refuses longer ones: a chunk ends with at most one record beyond `CHUNK_BYTES`.
const CHUNK_BYTES_MAX: usize = 2 << 20;

fn header(store_id: StoreId) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&(HEADER_BYTES as u32).to_le_bytes());
    bytes[16..32].copy_from_slice(&store_id);
    let crc = crc32c(&bytes[..HEADER_BYTES - 4]);
    bytes[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Writes an order file; it gets its name when it is published.
pub struct OrderFileWriter {
    draft: Draft,
    dir: PathBuf,
    chunk: Vec<u8>,
    chunk_rows: u32,
    rows: u64,
    file_bytes: u64,
}

impl OrderFileWriter {
    /// Begins a file in `dir`.
    pub fn begin(
        disk: &Disk,
        dir: &Path,
        store_id: StoreId,
    ) -> Result<OrderFileWriter, EngineError> {
        let mut draft = disk.draft(dir).at("write in", dir)?;
        draft.write_all(&header(store_id)).at("write in", dir)?;
        let (chunk, dir) = (Vec::with_capacity(CHUNK_BYTES_MAX), dir.to_path_buf());
        Ok(OrderFileWriter {
            draft,
            dir,
            chunk,
            chunk_rows: 0,
            rows: 0,
            file_bytes: HEADER_BYTES as u64,
        })
    }

    /// Adds a record that ended an order.
    pub fn put(&mut self, lsn: u64, record: &[u8]) -> Result<(), EngineError> {
        self.chunk.extend_from_slice(&lsn.to_le_bytes());
        self.chunk.extend_from_slice(record);
        self.chunk_rows += 1;
        if self.chunk.len() >= CHUNK_BYTES {
            self.close_chunk()
        } else {
            Ok(())
        }
    }

    /// Adds the rows of a checked chunk as they are.
    fn put_chunk(&mut self, rows: u32, bytes: &[u8]) -> Result<(), EngineError> {
        if self.chunk.len() + bytes.len() > CHUNK_BYTES_MAX {
            self.close_chunk()?;
        }
        self.chunk.extend_from_slice(bytes);
        self.chunk_rows += rows;
        if self.chunk.len() >= CHUNK_BYTES {
            self.close_chunk()
        } else {
            Ok(())
        }
    }

    fn close_chunk(&mut self) -> Result<(), EngineError> {
        if self.chunk_rows == 0 {
            return Ok(());
        }
        let mut head = [0; CHUNK_HEADER_BYTES];
        head[..4].copy_from_slice(&(self.chunk.len() as u32).to_le_bytes());
        head[4..8].copy_from_slice(&crc32c(&self.chunk).to_le_bytes());
        head[8..12].copy_from_slice(&self.chunk_rows.to_le_bytes());
        self.draft
            .write_all(&head)
            .and_then(|()| self.draft.write_all(&self.chunk))
            .at("write in", &self.dir)?;
        self.file_bytes += (CHUNK_HEADER_BYTES + self.chunk.len()) as u64;
        self.rows += u64::from(self.chunk_rows);
        self.chunk.clear();
        self.chunk_rows = 0;
        Ok(())
    }

    /// Makes it durable under its name. `None` when it has no rows: no file is made.
    pub fn publish(
        mut self,
        first_lsn: u64,
        end_lsn: u64,
    ) -> Result<Option<OrderFile>, EngineError> {
        self.close_chunk()?;
        if self.rows == 0 {
            return Ok(None);
        }
        let name = format!("orders-{first_lsn:016x}-{end_lsn:016x}.run");
        let path = self.dir.join(&name);
        self.draft.publish(&path).at("write", &path)?;
        Ok(Some(OrderFile {
            name,
            first_lsn,
            end_lsn,
            rows: self.rows,
            file_bytes: self.file_bytes,
        }))
    }
}

/// A checked chunk: its offset, its number of rows, and its rows (LSN and record each).
type Chunk<'a> = (u64, u32, &'a [u8]);

/// Reads an order file chunk by chunk.
pub struct OrderFileReader {
    file: Window,
    path: PathBuf,
    at: u64,
    rows_left: u64,
    /// Memory for the next chunk that is to be kept.
    chunk: Vec<u8>,
}

impl OrderFileReader {
    /// Opens a file that a checkpoint lists, and checks that it is that one.
    pub fn open(
        disk: &Disk,
        dir: &Path,
        store_id: StoreId,
        listed: &OrderFile,
    ) -> Result<OrderFileReader, EngineError> {
        let path = dir.join(&listed.name);
        let mut file = super::needed(&path, disk.open_window(&path))?;
        let head = file.get(0, HEADER_BYTES).at("read", &path)?;
        if head != header(store_id) {
            return Err(EngineError::damage(
                &path,
                0,
                "not an order file of this store and version",
            ));
        }
        if file.bytes() != listed.file_bytes {
            let what = format!(
                "it has {} bytes, the checkpoint says {}",
                file.bytes(),
                listed.file_bytes
            );
            return Err(EngineError::damage(&path, 0, what));
        }
        Ok(OrderFileReader {
            file,
            path,
            at: HEADER_BYTES as u64,
            rows_left: listed.rows,
            chunk: Vec::new(),
        })
    }

    /// The next chunk; `None` at the end.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk<'_>>, EngineError> {
        if self.at >= self.file.bytes() {
            if self.rows_left != 0 {
                return Err(EngineError::damage(
                    &self.path,
                    self.at,
                    "it has fewer orders than the checkpoint says",
                ));
            }
            return Ok(None);
        }
        let begin = self.at;
        let head = self.file.get(begin, CHUNK_HEADER_BYTES);
        let head = head.at("read", &self.path)?;
        let word = |at: usize| {
            let bytes = head.get(at..at + 4)?;
            Some(u32::from_le_bytes(bytes.try_into().expect("4 bytes")))
        };
        let (bytes, crc, rows) = match (word(0), word(4), word(8), word(12)) {
            (Some(bytes), Some(crc), Some(rows), Some(0)) => (bytes as usize, crc, rows),
            // Cut short, or no chunk's head.
            _ => (usize::MAX, 0, 0),
        };
        if bytes > CHUNK_BYTES_MAX
            || bytes as u64 > self.file.bytes() - begin
            || u64::from(rows) > self.rows_left
        {
            return Err(EngineError::damage(
                &self.path,
                begin,
                "no chunk of orders begins here",
            ));
        }
        let chunk = self.file.get(begin + CHUNK_HEADER_BYTES as u64, bytes);
        let chunk = chunk.at("read", &self.path)?;
        if chunk.len() < bytes || crc32c(chunk) != crc {
            return Err(EngineError::damage(
                &self.path,
                begin,
                "a chunk of orders does not match its checksum",
            ));
        }
        self.at += (CHUNK_HEADER_BYTES + bytes) as u64;
        self.rows_left -= u64::from(rows);
        Ok(Some((begin, rows, chunk)))
    }

    /// The next chunk, to be kept.
    pub fn take_chunk(&mut self) -> Result<Option<OwnedChunk>, EngineError> {
        let mut bytes = std::mem::take(&mut self.chunk);
        let Some((offset, rows, chunk)) = self.next_chunk()? else {
            return Ok(None);
        };
        bytes.clear();
        bytes.extend_from_slice(chunk);
        Ok(Some(OwnedChunk {
            path: self.path.clone(),
            offset,
            rows,
            bytes,
        }))
    }

    /// Every order: LSN and record bytes.
    pub fn for_each(
        &mut self,
        mut visit: impl FnMut(u64, &[u8]) -> Result<(), String>,
    ) -> Result<(), EngineError> {
        while let Some(chunk) = self.take_chunk()? {
            for order in chunk.orders() {
                let (lsn, bytes, ..) = order?;
                visit(lsn, bytes).map_err(|what| chunk.damaged(what))?;
            }
            // Its memory serves the next one.
            self.chunk = chunk.bytes;
        }
        Ok(())
    }
}

/// A checked chunk of an order file.
pub struct OwnedChunk {
    path: PathBuf,
    offset: u64,
    rows: u32,
    bytes: Vec<u8>,
}

/// LSN, record bytes, the record's time in Unix milliseconds, and what the order ended as.
type Row<'a> = (u64, &'a [u8], u64, Ended<'a>);

impl OwnedChunk {
    /// Its orders; the first error is the last.
    pub fn orders(&self) -> impl Iterator<Item = Result<Row<'_>, EngineError>> {
        let (mut at, mut seen, mut failed) = (0, 0, false);
        std::iter::from_fn(move || {
            if failed {
                return None;
            }
            if at >= self.bytes.len() {
                failed = true;
                let short = seen != self.rows;
                let what = format!("a chunk of {} orders has {seen}", self.rows);
                return short.then(|| Err(self.damaged(what)));
            }
            let row = self.row(&self.bytes[at..]);
            match &row {
                Ok((_, bytes, ..)) => {
                    at += 8 + bytes.len();
                    seen += 1;
                }
                Err(_) => failed = true,
            }
            Some(row.map_err(|what| self.damaged(what)))
        })
    }

    fn row<'a>(&self, bytes: &'a [u8]) -> Result<Row<'a>, String> {
        let (lsn, rest) = bytes.split_first_chunk().ok_or("a row is cut short")?;
        let (record, length) = record::decode(rest)?;
        let ended = Ended::of(&record.fact).ok_or("a record that ends no order")?;
        let (lsn, unix_ms) = (u64::from_le_bytes(*lsn), record.stamp.unix_ms);
        Ok((lsn, &rest[..length], unix_ms, ended))
    }

    /// Damage of this chunk.
    pub fn damaged(&self, what: impl Into<String>) -> EngineError {
        EngineError::damage(&self.path, self.offset, what)
    }
}

/// Files of about the same size that are joined, once there are so many: each order is copied again when its file has become
/// eight times as large, and there are a few dozen files. Two would be fewer files, and three times the copying.
const JOIN_FILES: usize = 8;
/// Together up to this size, two are: nothing is saved by keeping them apart.
const JOIN_ANY_BYTES: u64 = 1 << 20;

/// How many of the oldest files stay as they are, the rest being joined. `bytes`: the sizes of all, the newest last.
fn to_keep(bytes: &[u64]) -> usize {
    let mut keep = bytes.len();
    let mut joined_bytes = 0;
    loop {
        let about = 2 * joined_bytes.max(bytes[..keep].last().copied().unwrap_or_default());
        let alike = bytes[..keep].iter().rev().take_while(|&&one| one < about);
        let (files, more_bytes) = alike.fold((0, 0), |(files, sum), one| (files + 1, sum + one));
        let is_small = joined_bytes + more_bytes <= JOIN_ANY_BYTES;
        let least = if is_small { 2 } else { JOIN_FILES };
        if files == 0 || files + usize::from(joined_bytes > 0) < least {
            return keep;
        }
        keep -= files;
        joined_bytes += more_bytes;
    }
}

/// Joins the newest files where there are many of about the same size. Returns the names that are not needed any more once the
/// checkpoint is switched.
pub fn join_small(
    disk: &Disk,
    dir: &Path,
    store_id: StoreId,
    files: &mut Vec<OrderFile>,
) -> Result<Vec<String>, EngineError> {
    let bytes: Vec<u64> = files.iter().map(|file| file.file_bytes).collect();
    let parts = files.split_off(to_keep(&bytes));
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    let mut writer = OrderFileWriter::begin(disk, dir, store_id)?;
    for part in &parts {
        let mut reader = OrderFileReader::open(disk, dir, store_id, part)?;
        while let Some((_, rows, bytes)) = reader.next_chunk()? {
            writer.put_chunk(rows, bytes)?;
        }
    }
    let (first, end) = (parts[0].first_lsn, parts[parts.len() - 1].end_lsn);
    files.extend(writer.publish(first, end)?);
    Ok(parts.into_iter().map(|part| part.name).collect())
}

#[cfg(test)]
mod tests {
    use super::to_keep;

    #[test]
    fn files_of_about_one_size_are_joined_once_there_are_many() {
        const MIB: u64 = 1 << 20;
        for (bytes, keep) in [
            (&[][..], 0),
            (&[5], 1),
            (&[5, 5], 0),
            (&[100 * MIB, 5, 5], 1),
            (&[MIB / 2 + 1, MIB / 2], 2),
            (&[100 * MIB, 3 * MIB], 2),
            (&[3 * MIB; 7], 7),
            (&[3 * MIB; 8], 0),
            // What comes of it may be the eighth of its own size.
            (&[[24 * MIB; 7], [3 * MIB; 7]].concat(), 14),
            (&[&[24 * MIB; 7][..], &[3 * MIB; 8]].concat(), 0),
            (&[&[24 * MIB; 6][..], &[3 * MIB; 8]].concat(), 6),
            // Small ones between are no wall, large ones are.
            (&[3, 3, 3, 3, 1, 3, 3, 3, 3].map(|one| one * MIB), 0),
            (&[3, 3, 3, 3, 9, 3, 3, 3, 3].map(|one| one * MIB), 9),
        ] {
            assert_eq!(to_keep(bytes), keep, "{bytes:?}");
        }
    }

    #[test]
    fn there_are_a_few_dozen_files_and_little_is_copied() {
        let (mut files, mut copied, mut rng) = (Vec::new(), 0, fastrand::Rng::with_seed(7));
        let mut written = 0;
        for _ in 0..10_000 {
            let one = rng.u64(1..400 << 20);
            written += one;
            files.push(one);
            let keep = to_keep(&files);
            let joined: u64 = files.drain(keep..).sum();
            if joined > 0 {
                files.push(joined);
                copied += joined;
            }
            assert!(files.len() < 80, "{} files", files.len());
        }
        assert!(copied < 7 * written, "{copied} of {written}");
    }
}
