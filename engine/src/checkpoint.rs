//! Checkpoints: recovery run early. A fold takes the previous checkpoint and the sealed segments since, and makes the
//! next one, off the live path and without the live state.
//!
//! Order of deeds, so that a crash at any point leaves a whole store: order file → checkpoint file → `CURRENT` → only
//! then removal of what is folded. See docs/checkpoint-format.md for the bytes.

pub mod format;
pub mod orders;

use std::path::Path;
use std::time::{Duration, Instant};

use croupier_protocol::planted::{self, Bug};
pub use format::{Checkpoint, OrderFile};
pub use orders::{OrderFileReader, OrderFileWriter};

use crate::disk::Disk;
use crate::error::{EngineError, IoContext as _};
use crate::state::apply::Snapshot;
use crate::state::digest::digest_of;
use crate::state::record::{self, Ended};
use crate::state::{Digest, Replay, State, StateSeed};
use crate::store::{BitsOnly, Paths, Store};
use crate::wal::format::{BLOCK_HEADER_BYTES, BlockHeader, SEGMENT_HEADER_BYTES, StoreId};
use crate::wal::reader::{Block, list_segments};
use crate::wal::segments::segment_path;
use crate::wal::{BlockReader, Position};

/// What a fold did.
#[derive(Debug)]
pub struct Folded {
    pub records: u64,
    pub orders: u64,
    pub end: Position,
    pub digest: Digest,
    pub took: Duration,
}

/// Reads the checkpoint in force; `None` for a store that never had one.
pub fn load_current(
    disk: &Disk,
    paths: &Paths,
    store_id: StoreId,
) -> Result<Option<Checkpoint>, EngineError> {
    let current = paths.current();
    let reader = match disk.open_read(&current) {
        Ok(reader) => reader,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return no_checkpoint(disk, paths, store_id).map(|()| None);
        }
        Err(error) => return Err(error).at("open", &current),
    };
    let mut name = vec![0; reader.bytes().min(256) as usize];
    reader.read_at(0, &mut name).at("read", &current)?;
    let name = str::from_utf8(&name)
        .ok()
        .and_then(|line| line.strip_suffix('\n'))
        .filter(|name| format::is_checkpoint_name(name));
    let Some(name) = name else {
        return Err(EngineError::damage(
            &current,
            0,
            "it does not name a checkpoint",
        ));
    };
    format::read(disk, &paths.checkpoints().join(name), store_id).map(Some)
}

/// The first block of the oldest segment. The checkpoint in force, `made`, stands behind it as soon as there is one: segments go only
/// when all of them is folded, and the one in use never goes.
pub fn oldest_block(store: &Store, made: Option<&Checkpoint>) -> Result<Position, EngineError> {
    let end = made.map_or(Position::START, |checkpoint| checkpoint.end);
    let wal = store.paths.wal();
    let Some(&seq) = list_segments(&store.disk, &wal)?.first() else {
        return Ok(end);
    };
    let path = segment_path(&wal, seq);
    let offset = SEGMENT_HEADER_BYTES as u64;
    let mut head = [0; BLOCK_HEADER_BYTES];
    let file = store.disk.open_read(&path).at("open", &path)?;
    file.read_at(offset, &mut head).at("read", &path)?;
    match BlockHeader::decode(&head) {
        Ok(header) => Ok(Position::before(&header, seq, offset)),
        // Nothing is written there yet, or that write was cut short: the reader will say which.
        Err(_) if (end.seq, end.offset) == (seq, offset) => Ok(end),
        Err(what) => Err(EngineError::damage(&path, offset, what)),
    }
}

/// A file that the checkpoint in force is made of, as it was opened.
fn needed<T>(path: &Path, opened: std::io::Result<T>) -> Result<T, EngineError> {
    match opened {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(EngineError::damage(
            path,
            0,
            "it is missing, though the checkpoint in force needs it",
        )),
        opened => opened.at("open", path),
    }
}

/// Without `CURRENT` the log must be there from its first record on, or something has been lost. A checkpoint that lies
/// there all the same is the first one, cut short by a crash before it was in force.
fn no_checkpoint(disk: &Disk, paths: &Paths, store_id: StoreId) -> Result<(), EngineError> {
    let wal = paths.wal();
    let first = list_segments(disk, &wal)?.first().copied();
    let checkpoints = paths.checkpoints();
    if first == Some(1) {
        let never_made = disk.list(&checkpoints).at("list", &checkpoints)?.is_empty();
        let mut reader = BlockReader::open(disk.clone(), &wal, store_id, Position::START)?;
        // Segments go only once a checkpoint is in force, so behind the first block there is all of the log.
        if never_made || matches!(reader.next(), Ok(Some(_))) {
            return Ok(());
        }
    }
    Err(EngineError::damage(
        &paths.current(),
        0,
        "it is missing, though the store has had a checkpoint",
    ))
}

/// Folds every sealed segment before `stop_before_segment` into a new checkpoint and removes what is folded. `None` when
/// there is nothing to fold.
pub fn fold(
    disk: &Disk,
    paths: &Paths,
    store_id: StoreId,
    stop_before_segment: u64,
) -> Result<Option<Folded>, EngineError> {
    let begun = Instant::now();
    let previous = load_current(disk, paths, store_id)?;
    let from = previous
        .as_ref()
        .map_or(Position::START, |checkpoint| checkpoint.end);
    let seed = previous
        .as_ref()
        .map_or(StateSeed::default(), |checkpoint| checkpoint.orders);
    let mut files = previous
        .as_ref()
        .map_or(Vec::new(), |checkpoint| checkpoint.files.clone());
    let state = State::counting(Box::new(BitsOnly), seed);
    if let Some(checkpoint) = &previous {
        let restored = state.restore(checkpoint.snapshot.clone());
        restored.map_err(|unfit| unfit.at(&paths.current(), 0))?;
    }
    let mut reader = BlockReader::open_until(
        disk.clone(),
        &paths.wal(),
        store_id,
        from,
        stop_before_segment,
    )?;
    let mut writer = OrderFileWriter::begin(disk, &paths.orders(), store_id)?;
    let (mut records, mut replay) = (0, Replay::new(&state));
    while let Some(block) = reader.next()? {
        let at = segment_path(&paths.wal(), block.seq);
        let each_order = |lsn, bytes: &[u8]| writer.put(lsn, bytes);
        records += apply_block(&mut replay, &at, &block, each_order)?;
    }
    let end = reader.position();
    if end == from {
        return Ok(None);
    }
    files.extend(writer.publish(from.lsn, end.lsn)?);
    let joined_away = orders::join_small(disk, &paths.orders(), store_id, &mut files)?;
    let snapshot = state.snapshot();
    let orders = state.orders();
    let digest = digest_of(&snapshot, orders);
    let checkpoint = Checkpoint {
        end,
        orders,
        digest,
        snapshot,
        files,
        created_unix_ms: disk.unix_ms(),
    };
    if planted::is(Bug::RemoveBeforeSwitch) {
        remove_folded(disk, paths, "", end.seq, &[]);
    }
    if planted::is(Bug::RemoveJoinedEarly) {
        let orders = paths.orders();
        for file in &joined_away {
            disk.remove(&orders.join(file)).at("remove", &orders)?;
        }
    }
    let name = put_in_force(disk, paths, store_id, &checkpoint)?;
    remove_folded(disk, paths, &name, end.seq, &joined_away);
    Ok(Some(Folded {
        records,
        orders: orders.orders,
        end,
        digest,
        took: begun.elapsed(),
    }))
}

/// Writes the checkpoint and switches `CURRENT` to it.
fn put_in_force(
    disk: &Disk,
    paths: &Paths,
    store_id: StoreId,
    checkpoint: &Checkpoint,
) -> Result<String, EngineError> {
    let name = format::write(disk, &paths.checkpoints(), store_id, checkpoint)?;
    let current = paths.current();
    disk.replace(&current, format!("{name}\n").as_bytes())
        .at("switch", &current)?;
    Ok(name)
}

/// Puts a state given as values in force in a store that has none yet: for `wal replay --into`.
pub fn install(
    store: &Store,
    end: Position,
    snapshot: Snapshot,
    orders: StateSeed,
    files: Vec<OrderFile>,
) -> Result<(), EngineError> {
    let digest = digest_of(&snapshot, orders);
    let checkpoint = Checkpoint {
        end,
        orders,
        digest,
        snapshot,
        files,
        created_unix_ms: store.disk.unix_ms(),
    };
    put_in_force(&store.disk, &store.paths, store.store_id, &checkpoint).map(|_| ())
}

/// Records that are put in together.
pub const BATCH: usize = 256;

/// Applies every record of a block; `each_order` gets LSN and bytes of those that end an order. Returns how many records.
pub fn apply_block(
    replay: &mut Replay<'_>,
    path: &Path,
    block: &Block<'_>,
    each_order: impl FnMut(u64, &[u8]) -> Result<(), EngineError>,
) -> Result<u64, EngineError> {
    let records = record::records(block.body, block.header.first_lsn);
    apply_records(replay, path, block.offset, records, each_order)
}

/// Applies records of the block at `block_offset`, as [`apply_block`] does.
pub fn apply_records<'b>(
    replay: &mut Replay<'_>,
    path: &Path,
    block_offset: u64,
    mut records: impl Iterator<Item = Result<record::Placed<'b>, (usize, String)>>,
    mut each_order: impl FnMut(u64, &[u8]) -> Result<(), EngineError>,
) -> Result<u64, EngineError> {
    let offset = |at: usize| block_offset + (BLOCK_HEADER_BYTES + at) as u64;
    let (mut places, mut batch) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
    let mut count = 0;
    loop {
        places.clear();
        batch.clear();
        for placed in records.by_ref().take(BATCH) {
            let placed =
                placed.map_err(|(at, what)| EngineError::damage(path, offset(at), what))?;
            batch.push((placed.lsn, placed.record));
            places.push((placed.at, placed.bytes));
        }
        if batch.is_empty() {
            return Ok(count);
        }
        let applied = replay.logged(&batch);
        applied.map_err(|(nth, unfit)| unfit.at(path, offset(places[nth].0)))?;
        for ((lsn, record), (_, bytes)) in batch.iter().zip(&places) {
            if Ended::of(&record.fact).is_some() {
                each_order(*lsn, bytes)?;
            }
        }
        count += batch.len() as u64;
    }
}

/// Removes what the checkpoint `name` has made superfluous. What cannot be removed now is tried again by the next fold.
fn remove_folded(
    disk: &Disk,
    paths: &Paths,
    name: &str,
    keep_from_segment: u64,
    joined_away: &[String],
) {
    let mut superfluous = Vec::new();
    if let Ok(names) = disk.list(&paths.checkpoints()) {
        superfluous.extend(
            names
                .iter()
                .filter(|other| *other != name)
                .map(|other| paths.checkpoints().join(other)),
        );
    }
    superfluous.extend(joined_away.iter().map(|file| paths.orders().join(file)));
    if let Ok(segments) = list_segments(disk, &paths.wal()) {
        let old = segments
            .into_iter()
            .take_while(|&seq| seq < keep_from_segment);
        superfluous.extend(old.map(|seq| segment_path(&paths.wal(), seq)));
    }
    for path in superfluous {
        if let Err(error) = disk.remove(&path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove what a checkpoint has made superfluous");
        }
    }
}
