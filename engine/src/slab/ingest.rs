//! Making slabs: rows of one import in, durable slabs out, or nothing.
//!
//! Rows are gathered in one chunk per size class. A full chunk is fingerprinted, freed of duplicates, sealed and
//! written as one slab under a partial name; [`Ingest::finish`] waits until all of them are on the disk and only then
//! renames them. Work inside a chunk is shared by all cores, and a slab is synced while the next chunk fills.
//!
//! It blocks, so it belongs on a thread of its own and never on a dealer's. It knows neither the log nor what "sellable"
//! means: whoever called writes the one record that makes the slabs count. Two imports of one SKU at a time would not
//! see each other's cards, so the caller lets only one run, and looks itself for those that are delivered meanwhile.

mod chunk;
mod dedupe;
mod rejections;
mod workfiles;
mod writer;

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use croupier_protocol::{ImportRow, LABEL_BYTES_MAX, RejectReason, SECRET_BYTES_MAX};
use thiserror::Error;

use super::durable::IoFault;
use super::file::{Slab, SlabError};
use super::header::SlabIdentity;
use super::layout::{CLASS_BYTES, class_index};
use super::vault::{Vault, VaultError};
use crate::limits::{
    IMPORT_BUFFERED_BYTES_MAX, SLAB_CARDS_MAX, SLAB_LABELS_BYTES_MAX, SLAB_SEALED_BYTES_MAX,
};
use chunk::Chunk;
use rejections::Rejections;
use workfiles::Workfiles;
pub use workfiles::remove_leftovers;

/// Whether there is a card of a fingerprint.
pub type IsDelivered = Arc<dyn Fn(&[u8; 16]) -> bool + Send + Sync>;

/// Where an import's slabs go and what stands in their headers.
#[derive(Debug, Clone)]
pub struct IngestPlan {
    /// The store's directory of slabs.
    pub dir: PathBuf,
    /// As in the vault.
    pub store_id: [u8; 16],
    /// What the cards are.
    pub sku: u32,
    /// The pool of stock they go to.
    pub pool: u16,
    /// The import.
    pub batch: u32,
    /// The time of the import: cards that have expired by then are rejected.
    pub now_unix_ms: u64,
    /// Usually the default.
    pub limits: IngestLimits,
}

/// How much is held in memory and put into one slab.
#[derive(Debug, Clone, Copy)]
pub struct IngestLimits {
    /// Most cards of one slab.
    pub slab_cards_max: u32,
    /// Most bytes of sealed slots in one slab.
    pub slab_sealed_bytes_max: u64,
    /// Most bytes of labels in one slab.
    pub slab_labels_bytes_max: u64,
    /// Most bytes of rows in memory, all size classes together.
    pub buffered_bytes_max: u64,
    /// Threads that share the work on a chunk.
    pub workers: usize,
}

impl Default for IngestLimits {
    fn default() -> Self {
        Self {
            slab_cards_max: SLAB_CARDS_MAX,
            slab_sealed_bytes_max: SLAB_SEALED_BYTES_MAX,
            slab_labels_bytes_max: SLAB_LABELS_BYTES_MAX,
            buffered_bytes_max: IMPORT_BUFFERED_BYTES_MAX,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// Where the time went, summed over all chunks.
#[derive(Debug, Clone, Copy, Default)]
pub struct IngestTimes {
    /// HMAC of every row.
    pub fingerprint: Duration,
    /// Sorting, and comparing with every other slab of the SKU.
    pub dedupe: Duration,
    /// Sealing and writing to the page cache.
    pub seal_and_write: Duration,
    /// Waiting for the disk.
    pub sync: Duration,
}

/// A finished import: durable slabs that nobody sells yet.
#[derive(Debug)]
pub struct Ingested {
    /// Opened, under their final names, in the order they were made. Empty when no row was accepted.
    pub slabs: Vec<Slab>,
    /// Cards in them.
    pub accepted: u64,
    /// How many rows were rejected for which reason.
    pub counts: BTreeMap<RejectReason, u64>,
    /// Line and reason, by line; at most `REJECTIONS_LISTED_MAX`, the first that were found.
    pub rejections: Vec<(u64, RejectReason)>,
    /// For reports.
    pub times: IngestTimes,
}

impl Ingested {
    /// Removes the slabs again: for a caller whose record could not be written.
    pub fn discard(self) -> Result<(), IngestError> {
        let dir = self
            .slabs
            .first()
            .map(|slab| super::durable::parent(slab.path()).to_owned());
        for slab in &self.slabs {
            std::fs::remove_file(slab.path()).map_err(IoFault::at("remove", slab.path()))?;
        }
        match dir {
            Some(dir) => Ok(super::durable::sync_dir(&dir)?),
            None => Ok(()),
        }
    }
}

/// An import that is under way. Dropped before `finish`, it removes every file it made.
pub struct Ingest {
    vault: Arc<Vault>,
    plan: IngestPlan,
    existing: Vec<Arc<Slab>>,
    /// Slabs of `existing` whose fingerprints have been checked.
    prints_checked: HashSet<u32>,
    /// Whether a card of that fingerprint came by another way than imports.
    is_delivered: Option<IsDelivered>,
    slab_ids: Arc<AtomicU32>,
    /// One per size class, indexed as [`CLASS_BYTES`] is.
    chunks: Vec<Chunk>,
    buffered_bytes: u64,
    made: Vec<Slab>,
    accepted: u64,
    rejections: Rejections,
    workfiles: Workfiles,
    /// The slab that is being synced; at most one, so that memory and dirty pages stay bounded.
    syncing: Option<JoinHandle<Result<(), IoFault>>>,
    times: IngestTimes,
    /// Once something failed, nothing is tried again.
    failed: bool,
}

impl Ingest {
    /// Begins an import. `existing` is every slab of the SKU in all pools that an import made, sold or not; `slab_ids` gives the next
    /// number of a slab.
    pub fn begin(
        vault: Arc<Vault>,
        plan: IngestPlan,
        existing: Vec<Arc<Slab>>,
        slab_ids: Arc<AtomicU32>,
    ) -> Self {
        assert_eq!(
            plan.store_id,
            vault.store_id(),
            "slabs of one store, keys of another"
        );
        Self {
            workfiles: Workfiles::new(plan.dir.clone()),
            chunks: CLASS_BYTES.map(Chunk::new).into(),
            vault,
            plan,
            existing,
            is_delivered: None,
            prints_checked: HashSet::new(),
            slab_ids,
            buffered_bytes: 0,
            made: Vec::new(),
            accepted: 0,
            rejections: Rejections::default(),
            syncing: None,
            times: IngestTimes::default(),
            failed: false,
        }
    }

    /// Rejects cards as duplicates that came by another way, too. It is asked of each card just before it is written.
    #[must_use]
    pub fn beside(mut self, is_delivered: IsDelivered) -> Self {
        self.is_delivered = Some(is_delivered);
        self
    }

    /// Takes a row, or notes why not. An error means that the import has failed and left nothing behind.
    pub fn push(&mut self, row: ImportRow<'_>) -> Result<(), IngestError> {
        if self.failed {
            return Err(IngestError::Failed);
        }
        match fault_of(&row, self.plan.now_unix_ms / 1000) {
            Some(reason) => {
                self.rejections.note(row.line, reason);
                Ok(())
            }
            None => self.buffer(row),
        }
    }

    fn buffer(&mut self, row: ImportRow<'_>) -> Result<(), IngestError> {
        let class = class_index(row.secret.len()).expect("its length was checked");
        let chunk = &mut self.chunks[class];
        self.buffered_bytes += chunk.push(&row);
        if chunk.is_full(&self.plan.limits) {
            self.flush(class)?;
        }
        while self.buffered_bytes > self.plan.limits.buffered_bytes_max {
            self.flush(self.largest_chunk())?;
        }
        Ok(())
    }

    fn largest_chunk(&self) -> usize {
        let by_bytes = |class: &usize| self.chunks[*class].buffered_bytes();
        (0..self.chunks.len())
            .max_by_key(by_bytes)
            .expect("there are classes")
    }

    /// Writes what is left, waits for the disk and gives the slabs their names.
    pub fn finish(mut self) -> Result<Ingested, IngestError> {
        if self.failed {
            return Err(IngestError::Failed);
        }
        for class in 0..self.chunks.len() {
            self.flush(class)?;
        }
        self.wait_for_sync()?;
        self.workfiles.publish()?;
        Ok(Ingested {
            slabs: std::mem::take(&mut self.made),
            accepted: self.accepted,
            counts: std::mem::take(&mut self.rejections.counts),
            rejections: self.rejections.take_listed(),
            times: self.times,
        })
    }

    /// Makes a slab of a chunk, if it has a card that is new.
    fn flush(&mut self, class: usize) -> Result<(), IngestError> {
        let chunk = std::mem::replace(&mut self.chunks[class], Chunk::new(CLASS_BYTES[class]));
        self.buffered_bytes -= chunk.buffered_bytes();
        let flushed = self.make_slab(chunk);
        if flushed.is_err() {
            self.give_up();
        }
        flushed
    }

    fn make_slab(&mut self, mut chunk: Chunk) -> Result<(), IngestError> {
        if chunk.is_empty() {
            return Ok(());
        }
        self.check_prints(chunk.class_bytes())?;
        let kept = self.without_duplicates(&mut chunk);
        if kept.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        let identity = SlabIdentity {
            store_id: self.plan.store_id,
            // Relaxed: only uniqueness matters.
            slab: self.slab_ids.fetch_add(1, Ordering::Relaxed),
            sku: self.plan.sku,
            batch: self.plan.batch,
            pool: self.plan.pool,
            created_unix_ms: self.plan.now_unix_ms,
        };
        let workfile = self.workfiles.create(identity.slab)?;
        let workers = self.plan.limits.workers;
        writer::write_slab(&workfile, &self.vault, identity, &chunk, &kept, workers)?;
        let slab = Slab::from_file(&workfile.file, &workfile.path, &self.vault)?;
        self.accepted += u64::from(slab.cards());
        self.made.push(slab);
        self.times.seal_and_write += begun.elapsed();
        self.begin_sync(workfile.file, workfile.partial)
    }

    /// A damaged fingerprint would let a card in that is in stock already, and it would be dealt twice.
    fn check_prints(&mut self, class_bytes: u32) -> Result<(), IngestError> {
        for slab in &self.existing {
            if slab.class_bytes() == class_bytes && self.prints_checked.insert(slab.id()) {
                slab.verify_prints()?;
            }
        }
        Ok(())
    }

    /// Drops duplicates from the chunk, notes them, and returns the fingerprints of what is left.
    fn without_duplicates(&mut self, chunk: &mut Chunk) -> Vec<dedupe::KeptPrint> {
        let workers = self.plan.limits.workers;
        let begun = Instant::now();
        let keys = dedupe::fingerprints(chunk, &self.vault.fingerprinter(self.plan.sku), workers);
        let fingerprinted = Instant::now();
        let same_class = |slab: &&Slab| slab.class_bytes() == chunk.class_bytes();
        let stock: Vec<&Slab> = self
            .existing
            .iter()
            .map(|slab| &**slab)
            .filter(same_class)
            .collect();
        let made: Vec<&Slab> = self.made.iter().filter(same_class).collect();
        let mut verdict = dedupe::judge(&keys, &stock, &made, workers);
        if let Some(is_delivered) = &self.is_delivered {
            verdict.drop_delivered(&**is_delivered);
        }
        for &(row, reason) in &verdict.dropped {
            self.rejections.note(chunk.line(row), reason);
        }
        chunk.drop_rows(&verdict.dropped, &mut verdict.kept);
        self.times.fingerprint += fingerprinted - begun;
        self.times.dedupe += fingerprinted.elapsed();
        verdict.kept
    }

    fn begin_sync(&mut self, file: File, path: PathBuf) -> Result<(), IngestError> {
        self.wait_for_sync()?;
        let sync = move || file.sync_data().map_err(IoFault::at("sync", &path));
        self.syncing = Some(std::thread::spawn(sync));
        Ok(())
    }

    fn wait_for_sync(&mut self) -> Result<(), IngestError> {
        let begun = Instant::now();
        let synced = self.syncing.take().map(JoinHandle::join);
        self.times.sync += begun.elapsed();
        match synced {
            Some(Ok(synced)) => Ok(synced?),
            Some(Err(_)) => panic!("syncing a file does not panic"),
            None => Ok(()),
        }
    }

    fn give_up(&mut self) {
        self.failed = true;
        // The outcome no longer matters, but the file must not be worked on while it is removed.
        let _ = self.wait_for_sync();
        self.made.clear();
        self.workfiles.remove();
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        // After a `finish` that went well there is nothing left to remove.
        self.give_up();
    }
}

/// Why a row cannot become a card, in the order in which people would want to know.
pub(crate) fn fault_of(row: &ImportRow<'_>, now_s: u64) -> Option<RejectReason> {
    let utf8 = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok();
    if row.secret.is_empty() {
        Some(RejectReason::EmptySecret)
    } else if row.secret.len() > SECRET_BYTES_MAX {
        Some(RejectReason::TooLong)
    } else if row.label.len() > LABEL_BYTES_MAX {
        Some(RejectReason::LabelTooLong)
    } else if !utf8(row.secret) || !utf8(row.label) {
        Some(RejectReason::InvalidUtf8)
    } else if row.expires_at_s != 0 && row.expires_at_s <= now_s {
        Some(RejectReason::Expired)
    } else {
        None
    }
}

/// Why an import failed. It has left nothing behind.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum IngestError {
    #[error("no room for slab {} of {need_bytes} bytes: free some disk and import again ({source})", path.display())]
    DiskFull {
        path: PathBuf,
        need_bytes: u64,
        source: std::io::Error,
    },
    #[error("slab {} exists already: the store's next slab number is behind its files; stop and start the server so that it looks again", path.display())]
    SlabExists { path: PathBuf },
    #[error(transparent)]
    Io(#[from] IoFault),
    #[error(transparent)]
    Slab(#[from] SlabError),
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error("this import has failed before: begin a new one")]
    Failed,
}

impl IngestError {
    /// What a disk says of a slab's file that takes so many bytes.
    pub(super) fn of_disk(
        op: &'static str,
        path: &Path,
        need_bytes: u64,
        source: std::io::Error,
    ) -> IngestError {
        let fault = IoFault::at(op, path)(source);
        match fault.is_disk_full() {
            true => IngestError::DiskFull {
                path: fault.path,
                need_bytes,
                source: fault.source,
            },
            false => IngestError::Io(fault),
        }
    }
}

#[cfg(test)]
mod tests;
