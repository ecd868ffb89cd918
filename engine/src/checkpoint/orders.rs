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

/// Joins the newest files while the last is not much smaller than the one before, so that sizes fall by halves and there
/// are few. Returns the names that are not needed any more once the checkpoint is switched.
pub fn join_small(
    disk: &Disk,
    dir: &Path,
    store_id: StoreId,
    files: &mut Vec<OrderFile>,
) -> Result<Vec<String>, EngineError> {
    let mut keep = files.len();
    let mut joined_bytes = 0;
    while keep > 0 && (keep == files.len() || files[keep - 1].file_bytes < 2 * joined_bytes) {
        keep -= 1;
        joined_bytes += files[keep].file_bytes;
    }
    let parts = files.split_off(keep);
    if parts.len() < 2 {
        files.extend(parts);
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
