//! The comparison as figures, and as a table for people.

use std::fmt;

use serde::Serialize;

use crate::contest::{Croupier, RoundLength, Standing};
use crate::machine::{FileSystem, Machine};
use crate::report::Table;
use crate::units::{grouped, micros};

/// Who did how much.
#[derive(Debug, Serialize)]
pub struct PeersReport {
    /// Where.
    pub machine: Machine,
    /// What everybody's files lay on.
    pub file_system: FileSystem,
    /// Cards in stock when a round began.
    pub cards: u64,
    /// Bytes of a secret.
    pub secret_bytes: u16,
    /// Rounds of everybody in every shape.
    pub rounds: u32,
    /// Their length.
    pub length: RoundLength,
    /// Versions and modes of those who took part.
    pub contenders: Vec<String>,
    /// Who did not, and why.
    pub skipped: Vec<String>,
    /// Everybody in every shape.
    pub standings: Vec<Standing>,
}

impl PeersReport {
    fn cells(&self, standing: &Standing) -> Vec<String> {
        let us = |us: f64| micros((us * 1e3) as u64);
        let ratio = Standing::find(&self.standings, Croupier::NAME, standing.shape)
            .map_or("–".to_string(), |croupier| {
                ratio(croupier.per_s / standing.per_s)
            });
        let per_s = || standing.rounds.iter().map(|round| round.per_s);
        vec![
            standing.shape.to_string(),
            standing.name.clone(),
            grouped(standing.per_s as u64),
            grouped(per_s().fold(f64::MAX, f64::min) as u64),
            grouped(per_s().fold(0.0, f64::max) as u64),
            us(standing.p50_us),
            us(standing.p99_us),
            standing
                .server_cores
                .map_or("–".into(), |cores| format!("{cores:.2}")),
            ratio,
        ]
    }
}

fn ratio(ratio: f64) -> String {
    if ratio >= 100.0 {
        format!("{} ×", grouped(ratio.round() as u64))
    } else {
        format!("{ratio:.2} ×")
    }
}

impl fmt::Display for PeersReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "machine     {}", self.machine)?;
        let memory = if self.file_system.durable {
            ""
        } else {
            ": IN MEMORY, nothing is durable there"
        };
        writeln!(f, "files on    {}{memory}", self.file_system.kind)?;
        for (index, description) in self.contenders.iter().enumerate() {
            writeln!(
                f,
                "{}{description}",
                if index == 0 {
                    "peers       "
                } else {
                    "            "
                }
            )?;
        }
        for skipped in &self.skipped {
            writeln!(f, "left out    {skipped}")?;
        }
        writeln!(
            f,
            "load        closed loop, new orders of one card of {} bytes, {} cards in stock; {} alternating rounds of {:.1} s\n",
            self.secret_bytes,
            grouped(self.cards),
            self.rounds,
            self.length.measured.as_secs_f64()
        )?;
        let header = [
            "shape",
            "peer",
            "orders/s",
            "lowest",
            "highest",
            "P50 µs",
            "P99 µs",
            "server cores",
            "croupier is",
        ];
        let mut table = Table::new(2, header);
        for standing in &self.standings {
            table.row(self.cells(standing));
        }
        writeln!(f, "{table}")?;
        writeln!(
            f,
            "orders/s, P50 and P99 are medians of the rounds; every answer was checked, a sample asked for again"
        )
    }
}
