//! How long one durable write takes, by its size and by the way it is made durable.

use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::durable_file::{AlignedBuffer, DurableFile, SyncMethod};
use crate::error::BenchError;
use crate::progress::Progress;
use crate::recorder::latency_histogram;
use crate::report::Latency;

/// Sizes that are measured.
pub const SIZES_BYTES: [usize; 5] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];
/// The size that a lone order's block has.
pub const SMALLEST_BYTES: usize = SIZES_BYTES[0];
const FILE_BYTES: u64 = 64 << 20;
/// Writes of one kind before the other has its turn.
const TURN: usize = 25;
const WRITES_MAX: u64 = 20_000;

/// Durable writes of one size, one way.
#[derive(Debug, Clone, Serialize)]
pub struct SyncRow {
    /// Bytes of a write.
    pub bytes: usize,
    /// How it was made durable.
    pub method: SyncMethod,
    /// Writes measured.
    pub writes: u64,
    /// From the call to its return.
    pub latency: Latency,
}

/// Measures every size both ways in `directory`, `each` long; a way that the file system does not offer is left out.
pub fn measure(directory: &Path, each: Duration) -> Result<Vec<SyncRow>, BenchError> {
    let mut progress = Progress::new("durable writes");
    let mut files = Vec::new();
    for method in SyncMethod::ALL {
        let path = directory.join(format!("sync-{}", method.flag()));
        match DurableFile::create(&path, FILE_BYTES, method) {
            Ok(file) => files.push((method, file)),
            Err(error) => eprintln!("{} cannot be measured here: {error}", method.name()),
        }
    }
    let mut rows = Vec::new();
    for bytes in SIZES_BYTES {
        progress.say(|| format!("{} KiB", bytes >> 10));
        let mut buffer = AlignedBuffer::new(bytes);
        let mut histograms: Vec<Histogram<u64>> =
            files.iter().map(|_| latency_histogram()).collect();
        let deadline = Instant::now() + each * files.len() as u32;
        // The ways take turns, so that a busy moment of the disk meets both.
        while Instant::now() < deadline
            && histograms
                .iter()
                .all(|histogram| histogram.len() < WRITES_MAX)
        {
            for ((method, file), histogram) in files.iter_mut().zip(&mut histograms) {
                for _ in 0..TURN {
                    // Not all zeros: a disk may treat those as nothing to write.
                    buffer.as_mut()[..8].copy_from_slice(&(histogram.len() + 1).to_le_bytes());
                    let begun = Instant::now();
                    file.write_durable(buffer.first(bytes))
                        .map_err(BenchError::io(format!(
                            "write {bytes} bytes with {}",
                            method.name()
                        )))?;
                    histogram.saturating_record(begun.elapsed().as_nanos() as u64);
                }
            }
        }
        rows.extend(
            files
                .iter()
                .zip(&histograms)
                .map(|((method, _), histogram)| SyncRow {
                    bytes,
                    method: *method,
                    writes: histogram.len(),
                    latency: Latency::of(histogram),
                }),
        );
    }
    Ok(rows)
}

/// The way whose medians are the lower ones over all sizes.
pub fn better_method(rows: &[SyncRow]) -> SyncMethod {
    let total = |method| -> f64 {
        let medians: Vec<f64> = rows
            .iter()
            .filter(|row| row.method == method)
            .map(|row| row.latency.p50_us)
            .collect();
        if medians.is_empty() {
            f64::MAX
        } else {
            medians.iter().sum()
        }
    };
    if total(SyncMethod::Direct) < total(SyncMethod::Fdatasync) {
        SyncMethod::Direct
    } else {
        SyncMethod::Fdatasync
    }
}
