//! Latency distributions as an interval log, which the HdrHistogram tools of other languages read (`.hlog`).

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{
    IntervalLogWriterBuilder, IntervalLogWriterError, Tag,
};

use super::StepReport;

/// What the tools divide maxima by: nanoseconds are told as milliseconds.
const NS_PER_MS: f64 = 1e6;

/// Writes every operation of every step: an interval each, one step behind the other, the operation as its tag.
pub fn write_hlog(title: &str, steps: &[StepReport], path: &Path) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    write_to(title, steps, &mut out)?;
    out.flush()
}

fn write_to(title: &str, steps: &[StepReport], out: &mut impl Write) -> io::Result<()> {
    let mut serializer = V2DeflateSerializer::new();
    let measured: f64 = steps.iter().map(|step| step.measured_s).sum();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment(title)
        .with_start_time(SystemTime::now() - Duration::from_secs_f64(measured))
        .with_max_value_divisor(NS_PER_MS)
        .begin_log_with(out, &mut serializer)?;
    let mut start = Duration::ZERO;
    for step in steps {
        let took = Duration::from_secs_f64(step.measured_s);
        for operation in &step.operations {
            let tag = Tag::new(operation.operation.name());
            log.write_histogram(&operation.histogram, start, took, tag)
                .map_err(|error| match error {
                    IntervalLogWriterError::IoError(error) => error,
                    other => io::Error::other(other.to_string()),
                })?;
        }
        start += took;
    }
    Ok(())
}
