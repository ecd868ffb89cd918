//! Which rows of a chunk are new: fingerprint all of them, sort, compare with every slab of the SKU.
//!
//! Reasons do not depend on where a chunk happened to end: a secret that is in stock is `duplicate_in_stock` each time
//! it appears, any other is accepted once and `duplicate_in_file` from then on.

use std::ops::Range;
use std::thread;

use croupier_protocol::RejectReason;

use super::chunk::Chunk;
use crate::slab::file::Slab;
use crate::slab::prints::{PrintKey, join};
use crate::slab::vault::Fingerprinter;

/// Below this many rows a second thread costs more than it brings.
const ROWS_PER_WORKER_MIN: usize = 4096;

/// The fingerprint of a row that is new. Sorts by fingerprint, then by row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KeptPrint {
    pub(super) key: PrintKey,
    pub(super) row: u32,
}

/// What became of the rows of a chunk.
#[derive(Default)]
pub(super) struct Verdict {
    /// Sorted by fingerprint.
    pub(super) kept: Vec<KeptPrint>,
    /// By row.
    pub(super) dropped: Vec<(u32, RejectReason)>,
}

impl Verdict {
    /// Drops cards that came by another way.
    pub(super) fn drop_delivered(&mut self, is_delivered: &dyn Fn(&[u8; 16]) -> bool) {
        let before = self.dropped.len();
        let kept = self
            .kept
            .extract_if(.., |print| is_delivered(&print.key.to_bytes()));
        let dropped = kept.map(|print| (print.row, RejectReason::DuplicateInStock));
        self.dropped.extend(dropped);
        if self.dropped.len() > before {
            self.dropped.sort_unstable();
        }
    }
}

/// The fingerprint of every row, in their order.
pub(super) fn fingerprints(
    chunk: &Chunk,
    fingerprinter: &Fingerprinter,
    workers: usize,
) -> Vec<PrintKey> {
    let rows = chunk.rows();
    let of_rows = |rows: Range<u32>, fingerprinter: Fingerprinter| -> Vec<PrintKey> {
        rows.map(|row| PrintKey::of(&fingerprinter.of(chunk.secret(row)).0))
            .collect()
    };
    let share = rows.div_ceil(worth(workers, rows as usize) as u32);
    let mut shares: Vec<Vec<PrintKey>> = thread::scope(|scope| {
        let threads: Vec<_> = (share..rows)
            .step_by(share as usize)
            .map(|first| {
                let fingerprinter = fingerprinter.clone();
                scope.spawn(move || of_rows(first..(first + share).min(rows), fingerprinter))
            })
            .collect();
        let own = of_rows(0..share, fingerprinter.clone());
        let others = threads
            .into_iter()
            .map(|thread| thread.join().expect("hashing does not panic"));
        std::iter::once(own).chain(others).collect()
    });
    let mut keys = shares.remove(0);
    keys.reserve_exact(rows as usize - keys.len());
    shares
        .iter()
        .for_each(|share| keys.extend_from_slice(share));
    keys
}

/// Judges every row by its fingerprint. Each worker has its own even share of all possible fingerprints, so equal ones
/// meet, and the shares follow each other in order.
pub(super) fn judge(keys: &[PrintKey], stock: &[&Slab], made: &[&Slab], workers: usize) -> Verdict {
    let workers = worth(workers, keys.len());
    let judge_share = |share| judge_share(keys, share, workers, stock, made);
    let mut verdict = thread::scope(|scope| {
        let threads: Vec<_> = (1..workers)
            .map(|share| scope.spawn(move || judge_share(share)))
            .collect();
        let mut verdict = judge_share(0);
        for thread in threads {
            let share = thread.join().expect("judging does not panic");
            verdict.kept.extend_from_slice(&share.kept);
            verdict.dropped.extend_from_slice(&share.dropped);
        }
        verdict
    });
    verdict.dropped.sort_unstable();
    verdict
}

fn judge_share(
    keys: &[PrintKey],
    share: usize,
    shares: usize,
    stock: &[&Slab],
    made: &[&Slab],
) -> Verdict {
    let prints = (0u32..)
        .zip(keys)
        .filter(|(_, key)| key.share(shares) == share);
    let mut prints: Vec<KeptPrint> = prints.map(|(row, &key)| KeptPrint { key, row }).collect();
    prints.sort_unstable();
    let mut reasons: Vec<Option<RejectReason>> = vec![None; prints.len()];
    for (slabs, reason) in [
        (made, RejectReason::DuplicateInFile),
        (stock, RejectReason::DuplicateInStock),
    ] {
        for slab in slabs {
            let hit = |index| reasons[index] = Some(reason);
            join(&prints, |print| print.key, slab.fingerprints(), hit);
        }
    }
    for index in 1..prints.len() {
        if reasons[index].is_none() && prints[index].key == prints[index - 1].key {
            reasons[index] = Some(RejectReason::DuplicateInFile);
        }
    }
    split(prints, &reasons)
}

fn split(mut prints: Vec<KeptPrint>, reasons: &[Option<RejectReason>]) -> Verdict {
    let judged = prints.iter().zip(reasons);
    let dropped = judged
        .filter_map(|(print, reason)| Some((print.row, (*reason)?)))
        .collect();
    let mut reasons = reasons.iter();
    prints.retain(|_| reasons.next().expect("one a print").is_none());
    Verdict {
        kept: prints,
        dropped,
    }
}

fn worth(workers: usize, rows: usize) -> usize {
    workers.min(rows / ROWS_PER_WORKER_MIN).max(1)
}
