//! How late holds end, read from the log of a store that nobody serves: what `croupier wal dump` prints.

use std::collections::HashMap;
use std::io::BufRead;

use serde::{Deserialize, Serialize};

use crate::error::BenchError;
use crate::progress::Progress;
use crate::units::grouped;

/// Kinds of records that say something about holds, as they stand in a line; most lines have none of them.
const KINDS: [&str; 3] = [
    "\"kind\":\"Reserved\"",
    "\"kind\":\"Extended\"",
    "\"kind\":\"Released\"",
];

/// From the end of a hold to the time of the record that says that it has expired.
#[derive(Debug, Clone, Serialize)]
pub struct Lateness {
    /// Holds made.
    pub reserved: u64,
    /// Holds that expired.
    pub expired: u64,
    /// Holds that expired before their time: there must be none.
    pub early: u64,
    /// Holds that expired and were not there, or no longer: there must be none.
    pub unknown: u64,
    /// Half of them at most this late, in milliseconds.
    pub p50_ms: u64,
    /// 99 of 100.
    pub p99_ms: u64,
    /// All.
    pub max_ms: u64,
}

/// A record, as far as holds are concerned.
#[derive(Debug, Deserialize)]
struct Row<'a> {
    kind: &'a str,
    at: &'a str,
    order_id: &'a str,
    #[serde(default)]
    ttl_ms: i64,
    #[serde(default)]
    why: &'a str,
}

impl Lateness {
    /// Reads a dump: a JSON array with a record a line.
    pub fn read(dump: impl BufRead) -> Result<Self, BenchError> {
        let mut progress = Progress::new("records of the log");
        let mut ends: HashMap<u128, i64> = HashMap::new();
        let mut late_ms: Vec<u64> = Vec::new();
        let (mut reserved, mut early, mut unknown) = (0, 0, 0);
        for (number, line) in (0u64..).zip(dump.lines()) {
            progress.say(|| format!("{} read", grouped(number)));
            let line = line.map_err(BenchError::io("read the dump of the log"))?;
            if !KINDS.iter().any(|kind| line.contains(kind)) {
                continue;
            }
            let row: Row<'_> = serde_json::from_str(line.trim_end_matches(','))
                .map_err(|error| unreadable(&line, &error))?;
            let order: u128 = row
                .order_id
                .parse::<uuid::Uuid>()
                .map_err(|error| unreadable(&line, &error))?
                .as_u128();
            let at_ms = row
                .at
                .parse::<jiff::Timestamp>()
                .map_err(|error| unreadable(&line, &error))?
                .as_millisecond();
            match (row.kind, row.why) {
                ("Reserved", _) => {
                    reserved += 1;
                    ends.insert(order, at_ms + row.ttl_ms);
                }
                ("Extended", _) => {
                    ends.insert(order, at_ms + row.ttl_ms);
                }
                (_, "expired") => match ends.remove(&order) {
                    None => unknown += 1,
                    Some(end_ms) => match u64::try_from(at_ms - end_ms) {
                        Ok(late) => late_ms.push(late),
                        Err(_) => early += 1,
                    },
                },
                _ => {
                    ends.remove(&order);
                }
            }
        }
        late_ms.sort_unstable();
        let rank = |quantile: f64| {
            let index = (late_ms.len() as f64 * quantile).ceil() as usize;
            late_ms.get(index.max(1) - 1).copied().unwrap_or(0)
        };
        Ok(Self {
            reserved,
            expired: late_ms.len() as u64 + early + unknown,
            early,
            unknown,
            p50_ms: rank(0.5),
            p99_ms: rank(0.99),
            max_ms: rank(1.0),
        })
    }
}

fn unreadable(line: &str, error: &dyn std::fmt::Display) -> BenchError {
    BenchError::Unexpected {
        request: "croupier wal dump",
        detail: format!("{error} in {line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kind: &str, at: &str, order: u32, rest: &str) -> String {
        format!(
            r#"{{"lsn":1,"at":"2026-01-01T00:00:{at}Z","kind":"{kind}","order_id":"00000000-0000-0000-0000-{order:012}"{rest}}}"#
        )
    }

    #[test]
    fn ends_and_expiries_are_told_apart() {
        let dump = format!(
            "[\n{}\n]\n",
            [
                row("Reserved", "00.000", 1, r#","ttl_ms":1000"#),
                row("Reserved", "00.000", 2, r#","ttl_ms":1000"#),
                row("Reserved", "00.000", 3, r#","ttl_ms":1000"#),
                row("Reserved", "00.000", 4, r#","ttl_ms":5000"#),
                row("Extended", "00.500", 2, r#","extension":1,"ttl_ms":1000"#),
                row("Issued", "00.600", 5, ""),
                row("Released", "00.700", 3, r#","why":"cancelled""#),
                row("Released", "01.004", 1, r#","why":"expired""#),
                row("Released", "01.502", 2, r#","why":"expired""#),
                row("Released", "02.000", 4, r#","why":"expired""#),
                row("Released", "02.000", 3, r#","why":"expired""#),
            ]
            .join(",\n")
        );
        let read = Lateness::read(dump.as_bytes()).expect("it is readable");
        assert_eq!((read.reserved, read.expired), (4, 4));
        assert_eq!((read.early, read.unknown), (1, 1));
        assert_eq!((read.p50_ms, read.p99_ms, read.max_ms), (2, 4, 4));
        let broken = r#"{"kind":"Reserved"}"#;
        assert!(Lateness::read(broken.as_bytes()).is_err());
    }
}
