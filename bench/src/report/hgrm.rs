//! The percentile table of a latency distribution, as HdrHistogram's plotters read it (`.hgrm`).

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use hdrhistogram::Histogram;

/// Lines for each halving of the distance to 100 %, as the original tool writes them.
const TICKS_PER_HALF_DISTANCE: u32 = 5;

/// Writes a histogram of nanoseconds as a table of microseconds.
pub fn write_hgrm(histogram: &Histogram<u64>, path: &Path) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    write_to(histogram, &mut out)?;
    out.flush()
}

fn write_to(histogram: &Histogram<u64>, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    for point in histogram.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
        let value_us = point.value_iterated_to().min(histogram.max()) as f64 / 1e3;
        let below = histogram.count_between(0, point.value_iterated_to());
        let quantile = point.quantile_iterated_to();
        write!(out, "{value_us:>12.3} {quantile:>14.12} {below:>10}")?;
        if quantile < 1.0 {
            writeln!(out, " {:>14.2}", 1.0 / (1.0 - quantile))?;
        } else {
            writeln!(out)?;
        }
    }
    writeln!(
        out,
        "#[Mean    = {:>12.3}, StdDeviation   = {:>12.3}]",
        histogram.mean() / 1e3,
        histogram.stdev() / 1e3
    )?;
    writeln!(
        out,
        "#[Max     = {:>12.3}, Total count    = {:>12}]",
        histogram.max() as f64 / 1e3,
        histogram.len()
    )?;
    writeln!(
        out,
        "#[Buckets = {:>12}, SubBuckets     = {:>12}]",
        histogram.buckets(),
        histogram.distinct_values()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_counts_everything() {
        let mut histogram = crate::recorder::latency_histogram();
        (1..=1000u64).for_each(|us| histogram.record(us * 1000).expect("within bounds"));
        let mut text = Vec::new();
        write_to(&histogram, &mut text).expect("memory takes it");
        let text = String::from_utf8(text).expect("it is text");
        let last = text
            .lines()
            .rfind(|line| !line.starts_with('#'))
            .expect("there are lines");
        // A value stands for all that three digits cannot tell from it; the highest of them is written.
        let fields: Vec<&str> = last.split_whitespace().collect();
        assert_eq!(fields, ["1000.447", "1.000000000000", "1000"]);
        assert!(text.contains("Total count    =         1000"), "{text}");
    }
}
