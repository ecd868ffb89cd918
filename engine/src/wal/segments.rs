//! Segments made ahead of need: a thread keeps a few zero-written, synced files ready, so that the committer never waits
//! for a file system, and a full disk shows before the log is full.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::format::{SegmentHeader, StoreId};
use crate::disk::Disk;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// Segments kept ready beyond the one in use.
pub const SPARE_SEGMENTS: u64 = 2;
/// How long to wait before another try when a segment could not be made.
const RETRY_AFTER: Duration = Duration::from_millis(500);

fn segment_name(seq: u64) -> String {
    format!("wal-{seq:016x}.seg")
}

/// The file of segment `seq`.
pub fn segment_path(dir: &Path, seq: u64) -> PathBuf {
    dir.join(segment_name(seq))
}

/// The segment number in a file name; `None` when it is not exactly a segment's name.
pub fn segment_seq(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("wal-")?.strip_suffix(".seg")?;
    let seq = u64::from_str_radix(digits, 16).ok()?;
    (segment_name(seq) == name).then_some(seq)
}

/// What all segments of a log have in common.
pub struct Mould {
    pub disk: Disk,
    /// Directory of the segments.
    pub dir: PathBuf,
    pub store_id: StoreId,
    /// Bytes of a segment.
    pub segment_bytes: u64,
}

impl Mould {
    /// Makes one segment, durable, full of zeros.
    fn make(&self, seq: u64) -> std::io::Result<()> {
        let header = SegmentHeader {
            store_id: self.store_id,
            seq,
            segment_bytes: self.segment_bytes,
            created_unix_ms: self.disk.unix_ms(),
        };
        let path = segment_path(&self.dir, seq);
        self.disk
            .create_zeroed(&path, &header.encode(), self.segment_bytes)
    }
}

/// Makes a segment of a log that nobody writes yet.
pub fn make_segment(
    disk: &Disk,
    dir: &Path,
    store_id: StoreId,
    seq: u64,
    bytes: u64,
) -> std::io::Result<()> {
    let mould = Mould {
        disk: disk.clone(),
        dir: dir.into(),
        store_id,
        segment_bytes: bytes,
    };
    mould.make(seq)
}

struct Made {
    /// Highest segment that exists.
    last: u64,
    /// The one the committer writes.
    in_use: u64,
    stop: bool,
    failing: Option<String>,
}

impl Made {
    fn has_spares(&self) -> bool {
        self.last >= self.in_use + SPARE_SEGMENTS
    }
}

const NO_PANIC: &str = "no one panics with this lock";

/// The stock of spare segments, shared by the thread that makes them, the committer and the dealers.
pub struct Segments {
    mould: Mould,
    /// Bytes that must be left for what the ring may still hold when orders stop being taken.
    margin_bytes: u64,
    left_in_use_bytes: AtomicU64,
    /// The log has no room that is sure: dealers refuse as `DiskFull`.
    full: AtomicBool,
    made: Mutex<Made>,
    changed: Condvar,
}

impl Segments {
    /// Starts with segment `in_use` in use and `last` the highest that exists.
    pub fn new(mould: Mould, margin_bytes: u64, in_use: u64, last: u64) -> Arc<Segments> {
        Arc::new(Segments {
            mould,
            margin_bytes,
            left_in_use_bytes: AtomicU64::new(u64::MAX),
            full: AtomicBool::new(false),
            made: Mutex::new(Made {
                last,
                in_use,
                stop: false,
                failing: None,
            }),
            changed: Condvar::new(),
        })
    }

    /// Keeps spares ready until [`stop`](Self::stop); the body of the thread that makes segments.
    pub fn run(&self) {
        loop {
            let made = self.lock();
            if made.stop {
                return;
            }
            if made.has_spares() {
                drop(self.changed.wait(made).expect(NO_PANIC));
                continue;
            }
            drop(made);
            if !self.make_one() {
                let made = self.lock();
                if !made.stop {
                    drop(
                        self.changed
                            .wait_timeout(made, RETRY_AFTER)
                            .expect(NO_PANIC),
                    );
                }
            }
        }
    }

    /// Makes one segment, if there are fewer spares than there should be; false when that failed.
    pub fn make_one(&self) -> bool {
        let seq = {
            let made = self.lock();
            if made.has_spares() {
                return true;
            }
            made.last + 1
        };
        let result = self.mould.make(seq);
        let mut made = self.lock();
        match &result {
            Ok(()) => {
                if made.failing.take().is_some() {
                    tracing::info!(seq, "log segments can be made again");
                }
                made.last = seq;
            }
            Err(error) => {
                if made.failing.is_none() {
                    tracing::error!(seq, %error, "cannot make the next log segment; free some disk");
                }
                made.failing = Some(error.to_string());
            }
        }
        self.judge_room(&made);
        self.changed.notify_all();
        result.is_ok()
    }

    /// Ends [`run`](Self::run) and every wait.
    pub fn stop(&self) {
        self.lock().stop = true;
        self.changed.notify_all();
    }

    /// True while there is no room that is sure; orders are then refused as `DiskFull`.
    pub fn is_full(&self) -> bool {
        // Relaxed: a dealer that sees it a turn late still has the margin.
        self.full.load(Ordering::Relaxed)
    }

    /// The segment the committer writes; all before it are sealed.
    pub fn in_use(&self) -> u64 {
        self.lock().in_use
    }

    /// Why segments cannot be made just now.
    pub fn failing(&self) -> Option<String> {
        self.lock().failing.clone()
    }

    /// Told by the committer after every block: bytes left in the segment in use.
    pub fn left_in_use(&self, bytes: u64) {
        let before = self.left_in_use_bytes.swap(bytes, Ordering::Relaxed);
        // The lock is taken only when the margin is crossed, not per block.
        if (before >= self.margin_bytes) != (bytes >= self.margin_bytes) || self.is_full() {
            let made = self.lock();
            self.judge_room(&made);
        }
    }

    /// Goes on to the segment after the one in use; `None` when it is not there yet.
    pub fn next(&self) -> Option<u64> {
        let mut made = self.lock();
        if made.last <= made.in_use {
            return None;
        }
        made.in_use += 1;
        self.changed.notify_all();
        Some(made.in_use)
    }

    /// Waits until there is a segment after the one in use; false when stopped.
    pub fn wait_for_next(&self) -> bool {
        let mut made = self.lock();
        while made.last <= made.in_use {
            if made.stop {
                return false;
            }
            made = self.changed.wait(made).expect(NO_PANIC);
        }
        true
    }

    fn judge_room(&self, made: &Made) {
        let short = self.left_in_use_bytes.load(Ordering::Relaxed) < self.margin_bytes;
        let full = made.failing.is_some() && made.last <= made.in_use && short;
        if self.full.swap(full, Ordering::Relaxed) != full {
            if full {
                tracing::error!("the log is full: orders are refused until there is disk");
            } else {
                tracing::info!("the log has room again: orders are taken");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Made> {
        self.made.lock().expect(NO_PANIC)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_has_one_name() {
        assert_eq!(segment_seq(&segment_name(0x1f)), Some(0x1f));
        for other in [
            "wal-000000000000001F.seg",
            "wal-+00000000000001f.seg",
            "wal-1f.seg",
            "wal-000000000000001f.seg.bak",
        ] {
            assert_eq!(segment_seq(other), None, "{other}");
        }
    }
}
