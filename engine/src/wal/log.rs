//! The log as its users see it: append a batch, learn its LSN, wait until it is durable.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use croupier_protocol::planted::{self, Bug};

use super::bell::Bell;
use super::committer::{Committer, Wrote};
use super::format::{BLOCK_ALIGN_BYTES, BLOCK_HEADER_BYTES, StoreId};
use super::reader::Position;
use super::ring::{Ring, UNIT_BYTES};
use super::segments::{Mould, Segments, segment_path};
use crate::disk::{AlignedBuffer, Disk, SyncMethod};
use crate::error::{EngineError, IoContext as _};
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sync::thread::JoinHandle;
use crate::sync::{Condvar, Mutex, mpsc, thread};

/// Most units of one append, unless the options say less: what one turn of a dealer may produce. Every writer checks for
/// room for this much per writer before its turn, so that an append after the check always fits.
pub const APPEND_UNITS_MAX: u64 = 1024;

/// Who moves a log on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drive {
    /// Threads of its own.
    Threads,
    /// Whoever has opened it, a step at a time ([`Log::take_block`], [`Log::write_block`], [`Log::make_segment`]), so that
    /// a simulator decides what happens in which order. Who waits for an LSN takes the steps that are missing itself.
    Steps,
}

/// How a log is opened.
#[derive(Clone)]
pub struct LogOptions {
    pub store_id: StoreId,
    /// Directory of the segments.
    pub dir: PathBuf,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Bytes of the ring, a power of two.
    pub ring_bytes: u64,
    /// The epoch of this start.
    pub epoch: u64,
    /// `None`: measure, and take `Direct` unless it is more than a quarter slower.
    pub sync: Option<SyncMethod>,
    /// How many threads append (cores and the cold path).
    pub writers: u64,
    /// Most units of one append: at most [`APPEND_UNITS_MAX`], and less in simulations, so that edges are reached.
    pub append_units_max: u64,
    pub drive: Drive,
}

/// Somebody who wants to know when an LSN has become durable, woken at most once per wait.
pub struct Subscriber {
    /// The LSN that must be passed; `u64::MAX` when nothing is awaited.
    wanted: AtomicU64,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Subscriber {
    /// `wake` is called from the thread that commits.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Arc<Subscriber> {
        Arc::new(Subscriber {
            wanted: AtomicU64::new(u64::MAX),
            wake: Box::new(wake),
        })
    }

    /// Asks to be woken when everything up to and including the record at `lsn` is durable. The caller must look at
    /// [`Log::durable`] once more afterwards: it may have happened in between.
    pub fn want(&self, lsn: u64) {
        // SeqCst pairs with the committer's SeqCst store of `durable`: one of the two sees the other.
        self.wanted.store(lsn, Ordering::SeqCst);
    }

    fn tell(&self, durable: u64) {
        if self.wanted.load(Ordering::SeqCst) < durable {
            self.wanted.store(u64::MAX, Ordering::SeqCst);
            (self.wake)();
        }
    }
}

pub(super) const NO_PANIC: &str = "no one panics with this lock";

/// What the committer and everybody else share.
pub(super) struct Shared {
    pub ring: Ring,
    pub segments: Arc<Segments>,
    /// Everything below is on stable storage.
    durable: AtomicU64,
    failed: OnceLock<String>,
    pub stopping: AtomicBool,
    subscribers: Vec<Arc<Subscriber>>,
    /// Cold threads that block until something is durable.
    cold_waiters: AtomicUsize,
    cold_lock: Mutex<()>,
    cold_told: Condvar,
}

impl Shared {
    /// Publishes that everything below `lsn` is durable and wakes who waits.
    pub fn publish(&self, lsn: u64) {
        // SeqCst: see Subscriber::want.
        self.durable.store(lsn, Ordering::SeqCst);
        self.tell_all(lsn);
    }

    /// The writer ends for good; the first reason stays (rule 8).
    pub fn fail(&self, why: String) {
        tracing::error!(%why, "the log's writer has failed and stops for good; restart recovers from the disk");
        let _ = self.failed.set(why);
        self.tell_all(u64::MAX);
    }

    /// Whether records wait for the committer. Out of date at once when it works.
    pub fn has_ready(&self) -> bool {
        self.ring.ready(self.durable.load(Ordering::SeqCst))
    }

    /// Whether the writer has ended.
    pub fn has_failed(&self) -> bool {
        self.failed.get().is_some()
    }

    fn tell_all(&self, durable: u64) {
        for subscriber in &self.subscribers {
            subscriber.tell(durable);
        }
        // SeqCst: as for subscribers.
        if self.cold_waiters.load(Ordering::SeqCst) > 0 {
            drop(self.cold_lock.lock().expect(NO_PANIC));
            self.cold_told.notify_all();
        }
    }
}

/// The open log. Appending is lock-free; one thread at a time commits.
pub struct Log {
    shared: Arc<Shared>,
    committer: Arc<Mutex<Committer>>,
    bell: Arc<Bell>,
    sync: SyncMethod,
    epoch: u64,
    writers: u64,
    append_units_max: u64,
    driver: Mutex<Option<Driver>>,
}

/// What moves a log on, until it is stopped.
enum Driver {
    Threads(JoinHandle<Position>, JoinHandle<()>),
    Steps,
}

impl Log {
    /// Goes on writing at `at` (where reading ended); `last_segment` is the highest segment that exists.
    pub fn open(
        disk: Disk,
        options: LogOptions,
        at: Position,
        last_segment: u64,
        subscribers: Vec<Arc<Subscriber>>,
    ) -> Result<Log, EngineError> {
        let path = segment_path(&options.dir, at.seq);
        let sync = match options.sync {
            Some(method) => method,
            None => measure(&disk, &options, last_segment),
        };
        let file = disk.open_log(&path, sync).at("open for writing", &path)?;
        let ring_units = (options.ring_bytes as usize / UNIT_BYTES).next_power_of_two();
        let margin = options.ring_bytes * 2 + (options.writers + 4) * BLOCK_ALIGN_BYTES as u64;
        let mould = Mould {
            disk: disk.clone(),
            dir: options.dir.clone(),
            store_id: options.store_id,
            segment_bytes: options.segment_bytes,
        };
        let segments = Segments::new(mould, margin, at.seq, last_segment);
        let shared = Arc::new(Shared {
            ring: Ring::new(ring_units, at.lsn),
            segments: segments.clone(),
            durable: AtomicU64::new(at.lsn),
            failed: OnceLock::new(),
            stopping: AtomicBool::new(false),
            subscribers,
            cold_waiters: AtomicUsize::new(0),
            cold_lock: Mutex::new(()),
            cold_told: Condvar::new(),
        });
        let (writers, epoch) = (options.writers, options.epoch);
        let (append_units_max, drive) = (options.append_units_max, options.drive);
        assert!(
            append_units_max <= APPEND_UNITS_MAX,
            "a ring and a block are made for that"
        );
        let committer = Committer::new(disk, options, shared.clone(), file, sync, at);
        let committer = Arc::new(Mutex::new(committer));
        let (bell, driver) = match drive {
            Drive::Threads => start_threads(committer.clone(), &shared, &path)?,
            Drive::Steps => (Arc::new(Bell::for_this_thread()), Driver::Steps),
        };
        Ok(Log {
            shared,
            committer,
            bell,
            sync,
            epoch,
            writers,
            append_units_max,
            driver: Mutex::new(Some(driver)),
        })
    }

    /// Most units of one append.
    pub fn append_units_max(&self) -> u64 {
        self.append_units_max
    }

    /// For [`Drive::Steps`]: takes what is ready as the next block, unless one is taken; false when there is nothing to
    /// write.
    pub fn take_block(&self) -> bool {
        !self.has_failed() && self.with_committer(Committer::take)
    }

    /// For [`Drive::Steps`]: writes the block that is taken; false when it must wait for a segment to be made.
    pub fn write_block(&self) -> bool {
        self.has_failed() || self.with_committer(Committer::write) == Wrote::Block
    }

    /// For [`Drive::Steps`]: makes a spare segment if one is missing; false when that failed.
    pub fn make_segment(&self) -> bool {
        self.shared.segments.make_one()
    }

    /// For cold deeds before they append: what a thread does all the time is done here in a log that is driven in steps, so
    /// that it knows that the disk is full before a deed that cannot wait relies on it.
    pub fn tend(&self) {
        if self.in_steps() {
            // First what is ready: it may take the spare segment.
            while self.step() {}
            self.make_segment();
        }
    }

    fn has_failed(&self) -> bool {
        self.shared.has_failed()
    }

    fn with_committer<T>(&self, step: impl FnOnce(&mut Committer) -> T) -> T {
        assert!(
            self.in_steps(),
            "only a log that is driven in steps, and not stopped, takes steps"
        );
        step(&mut self.committer.lock().expect(NO_PANIC))
    }

    fn in_steps(&self) -> bool {
        matches!(*self.driver.lock().expect(NO_PANIC), Some(Driver::Steps))
    }

    /// One block's steps, and the segment it may need. False: nothing to do, or no room for it.
    fn step(&self) -> bool {
        self.take_block() && (self.write_block() || (self.make_segment() && self.write_block()))
    }

    /// Appends records (whole units, at most [`APPEND_UNITS_MAX`]) and returns the LSN of the first. `None`: no room;
    /// cannot happen after [`has_room`](Self::has_room) said yes in the same turn.
    pub fn append(&self, units: &[u64]) -> Option<u64> {
        let lsn = self.append_quietly(units)?;
        self.bell.ring();
        Some(lsn)
    }

    /// As [`append`](Self::append), but wakes nobody: the caller goes on to [`commit_here`](Self::commit_here) or
    /// [`wake_committer`](Self::wake_committer).
    pub fn append_quietly(&self, units: &[u64]) -> Option<u64> {
        assert!(
            (units.len() * 8 / UNIT_BYTES) as u64 <= self.append_units_max,
            "an append is at most a turn"
        );
        self.shared.ring.append(units)
    }

    /// For whoever has appended quietly and does not commit.
    pub fn wake_committer(&self) {
        self.bell.ring();
    }

    /// Makes what is ready durable on the calling thread, which waits for the disk, if the committer sleeps; otherwise sees
    /// to it that the committer will.
    pub fn commit_here(&self) {
        if let Ok(mut committer) = self.committer.try_lock()
            && !self.has_failed()
            && committer.take()
        {
            // Without a segment to go on in, the thread waits for one.
            let _ = committer.write();
        }
        self.bell.ring_if(|| self.shared.has_ready());
    }

    /// Whether a whole turn fits, even if every other writer begins one now.
    pub fn has_room(&self) -> bool {
        let writers = if planted::is(Bug::ForgetOtherWriters) {
            1
        } else {
            self.writers
        };
        self.shared.ring.room_units() >= self.append_units_max * writers
    }

    /// No disk for more log: refuse what would have to be recorded.
    pub fn is_full(&self) -> bool {
        self.shared.segments.is_full()
    }

    /// The segment being written; all before it are sealed.
    pub fn segment_in_use(&self) -> u64 {
        self.shared.segments.in_use()
    }

    /// Everything below is on stable storage.
    pub fn durable(&self) -> u64 {
        // SeqCst: see Subscriber::want.
        self.shared.durable.load(Ordering::SeqCst)
    }

    /// The LSN after the last one given out.
    pub fn end(&self) -> u64 {
        self.shared.ring.end()
    }

    /// Why the writer has ended, if it has.
    pub fn failure(&self) -> Option<&str> {
        self.shared.failed.get().map(String::as_str)
    }

    /// Ends the writer for good, for a reason that is not the disk's.
    pub fn fail(&self, why: &str) {
        self.shared.fail(why.into());
        self.bell.ring();
    }

    /// How blocks are made durable.
    pub fn sync_method(&self) -> SyncMethod {
        self.sync
    }

    /// The epoch of this start.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Blocks the calling (cold) thread until the record at `lsn` is durable.
    pub fn wait_durable(&self, lsn: u64) -> Result<(), EngineError> {
        let shared = &self.shared;
        let in_steps = self.in_steps();
        while in_steps && self.durable() <= lsn && self.step() {}
        // SeqCst: see Shared::tell_all.
        shared.cold_waiters.fetch_add(1, Ordering::SeqCst);
        let mut guard = shared.cold_lock.lock().expect(NO_PANIC);
        while !in_steps && self.durable() <= lsn && self.failure().is_none() {
            guard = shared.cold_told.wait(guard).expect(NO_PANIC);
        }
        drop(guard);
        shared.cold_waiters.fetch_sub(1, Ordering::SeqCst);
        match self.failure() {
            _ if self.durable() > lsn => Ok(()),
            Some(why) => Err(EngineError::WriterFailed(why.into())),
            None => Err(EngineError::WriterFailed(
                "no room in the log, and nobody to wait for".into(),
            )),
        }
    }

    /// Gives the log a moment to make room in the ring; false when it would be for nothing.
    pub fn wait_for_progress(&self) -> bool {
        if self.in_steps() {
            return self.step();
        }
        thread::sleep(Duration::from_millis(1));
        true
    }

    /// Writes what the ring holds, ends both threads and returns where the log ends. A second call returns `None`.
    pub fn stop(&self) -> Result<Option<Position>, EngineError> {
        let Some(driver) = self.driver.lock().expect(NO_PANIC).take() else {
            return Ok(None);
        };
        // Release pairs with the committer's Acquire: it sees every append made before.
        self.shared.stopping.store(true, Ordering::Release);
        self.bell.ring();
        let end = match driver {
            Driver::Threads(commit, supply) => {
                let end = commit
                    .join()
                    .map_err(|_| EngineError::WriterFailed("the log's thread panicked".into()))?;
                self.shared.segments.stop();
                let _ = supply.join();
                end
            }
            Driver::Steps => {
                let mut committer = self.committer.lock().expect(NO_PANIC);
                while !self.has_failed() && committer.take() {
                    if committer.write() == Wrote::NeedsSegment && !self.make_segment() {
                        self.fail("stopped while waiting for room in the log");
                    }
                }
                committer.position()
            }
        };
        match self.failure() {
            Some(why) => Err(EngineError::WriterFailed(why.into())),
            None => Ok(Some(end)),
        }
    }
}

fn start_threads(
    committer: Arc<Mutex<Committer>>,
    shared: &Arc<Shared>,
    path: &Path,
) -> Result<(Arc<Bell>, Driver), EngineError> {
    let panicked = shared.clone();
    let segments = shared.segments.clone();
    let (bell_out, bell_in) = mpsc::channel();
    let commit = thread::Builder::new()
        .name("croupier-log".into())
        .spawn(move || {
            let bell = Arc::new(Bell::for_this_thread());
            bell_out
                .send(bell.clone())
                .expect("who started it waits for it");
            let run = std::panic::AssertUnwindSafe(|| Committer::run(&committer, &bell));
            std::panic::catch_unwind(run).unwrap_or_else(|panic| {
                panicked.fail("the log's thread panicked".into());
                std::panic::resume_unwind(panic)
            })
        })
        .at("start the thread that writes", path)?;
    let supply = thread::Builder::new()
        .name("croupier-segs".into())
        .spawn(move || segments.run())
        .at("start the thread that makes", path)?;
    let bell = bell_in.recv().expect("the committer sends its bell first");
    Ok((bell, Driver::Threads(commit, supply)))
}

impl Drop for Log {
    fn drop(&mut self) {
        // Whoever cares for the outcome has called stop(). One that is driven in steps ends where its driver left it, as in
        // a crash.
        let has_threads = matches!(
            *self
                .driver
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
            Some(Driver::Threads(..))
        );
        if has_threads {
            let _ = self.stop();
        }
    }
}

/// Tries both ways on the newest, still blank segment (with zeros, so that it stays blank).
fn measure(disk: &Disk, options: &LogOptions, last_segment: u64) -> SyncMethod {
    const ROUNDS: usize = 12;
    let path: &Path = &segment_path(&options.dir, last_segment);
    let offset = options.segment_bytes - (BLOCK_ALIGN_BYTES as u64);
    let zeros = AlignedBuffer::new(BLOCK_ALIGN_BYTES);
    let median_of = |method| {
        let mut file = disk.open_log(path, method).ok()?;
        let mut taken = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let begun = std::time::Instant::now();
            file.write_durable(offset, zeros.slice(BLOCK_ALIGN_BYTES))
                .ok()?;
            taken.push(begun.elapsed());
        }
        taken.sort_unstable();
        Some(taken[ROUNDS / 2])
    };
    match (
        median_of(SyncMethod::Direct),
        median_of(SyncMethod::Fdatasync),
    ) {
        // A little slower is still better: it copies nothing, and the time saved is that of orders.
        (Some(direct), Some(sync)) if direct <= sync * 5 / 4 => SyncMethod::Direct,
        _ => SyncMethod::Fdatasync,
    }
}

const _: () = assert!(BLOCK_HEADER_BYTES.is_multiple_of(UNIT_BYTES) || cfg!(croupier_loom));
