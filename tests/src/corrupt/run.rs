//! All damages of a kind, on all processors.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use super::judge::{Judge, Outcome};
use super::regions::{Class, Region, regions};
use super::stage::Stage;
use super::{Doing as _, Trouble};
use crate::Dice;

const SECTOR_BYTES: usize = 512;
/// Bits that a thread takes at a time.
const CHUNK_BITS: u64 = 4096;
/// Silent damages that are told one by one.
const EXAMPLES_MAX: usize = 20;

/// What is to be damaged.
#[derive(Debug, Clone)]
pub struct Plan {
    /// One of so many bits and sectors is damaged; 1: each.
    pub sample: u64,
    /// Which of the sample.
    pub seed: u64,
    /// Only these kinds of bytes; none given: all.
    pub classes: Vec<Class>,
    /// Threads.
    pub jobs: usize,
}

/// Counts of one row of the report.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Places there are.
    pub places: u64,
    /// Places that were damaged.
    pub damaged: u64,
    /// Somebody refused.
    pub refused: u64,
    /// Of these, a start.
    pub at_start: u64,
    /// Of these, `croupier wal verify`.
    pub at_verify: u64,
    /// Of these, opening a secret.
    pub at_opening: u64,
    /// Mended, with a report, and every answer as before.
    pub repaired: u64,
    /// Every answer as before.
    pub harmless: u64,
    /// Cut as a torn write, with a report.
    pub cut_short: u64,
    /// Gone as a write that never was.
    pub never_written: u64,
    /// Another answer.
    pub silent: u64,
}

impl Counts {
    fn add(&mut self, outcome: &Outcome) {
        self.damaged += 1;
        match outcome {
            Outcome::Refused(seen) => {
                self.refused += 1;
                self.at_start += u64::from(seen.at_start);
                self.at_verify += u64::from(seen.at_verify);
                self.at_opening += u64::from(seen.at_opening);
            }
            Outcome::Repaired => self.repaired += 1,
            Outcome::Harmless => self.harmless += 1,
            Outcome::CutShort => self.cut_short += 1,
            Outcome::NeverWritten => self.never_written += 1,
            Outcome::Silent(_) => self.silent += 1,
        }
    }

    /// Adds the counts of another row.
    pub fn merge(&mut self, other: &Counts) {
        for (sum, more) in [
            (&mut self.places, other.places),
            (&mut self.damaged, other.damaged),
            (&mut self.refused, other.refused),
            (&mut self.at_start, other.at_start),
            (&mut self.at_verify, other.at_verify),
            (&mut self.at_opening, other.at_opening),
            (&mut self.repaired, other.repaired),
            (&mut self.harmless, other.harmless),
            (&mut self.cut_short, other.cut_short),
            (&mut self.never_written, other.never_written),
            (&mut self.silent, other.silent),
        ] {
            *sum += more;
        }
    }
}

/// What came of it all.
#[derive(Debug, Default)]
pub struct Findings {
    /// Flipped bits, by what they are.
    pub flips: BTreeMap<Class, Counts>,
    /// Sectors, by what was done to them and the directory or file they are in.
    pub sectors: BTreeMap<(&'static str, String), Counts>,
    /// Sentences of refusals, with digits left out, and how often each was said.
    pub said: BTreeMap<String, u64>,
    /// Some of the silent damages.
    pub examples: Vec<String>,
}

impl Findings {
    fn note(&mut self, place: &str, outcome: &Outcome) {
        match outcome {
            Outcome::Refused(seen) => {
                // Digits and names of files are left out: the sentence is what counts.
                let said = &seen.said;
                if let Some(count) = self.said.get_mut(said) {
                    *count += 1;
                } else {
                    *self.said.entry(without_numbers(said)).or_default() += 1;
                }
            }
            Outcome::Silent(why) if self.examples.len() < EXAMPLES_MAX => {
                self.examples.push(format!("{place}: {why}"));
            }
            _ => {}
        }
    }

    fn merge(&mut self, other: Findings) {
        for (class, counts) in other.flips {
            self.flips.entry(class).or_default().merge(&counts);
        }
        for (row, counts) in other.sectors {
            self.sectors.entry(row).or_default().merge(&counts);
        }
        for (said, count) in other.said {
            *self.said.entry(said).or_default() += count;
        }
        self.examples.extend(other.examples);
        self.examples.truncate(EXAMPLES_MAX);
    }

    /// Damages that changed an answer without a word. A flipped bit may not even undo the last write.
    pub fn broken(&self) -> u64 {
        let flips = self.flips.values();
        let flips: u64 = flips
            .map(|counts| counts.silent + counts.cut_short + counts.never_written)
            .sum();
        flips
            + self
                .sectors
                .values()
                .map(|counts| counts.silent)
                .sum::<u64>()
    }
}

fn without_numbers(said: &str) -> String {
    // Paths end at the first blank; digits within words are numbers of files, ids, checksums.
    said.split(' ')
        .map(|word| match word.rsplit_once('/') {
            Some((_, name)) => name,
            None => word,
        })
        .map(
            |word| match word.bytes().any(|byte| byte.is_ascii_digit()) {
                true => "…",
                false => word,
            },
        )
        .collect::<Vec<_>>()
        .join(" ")
}

/// Sectors with other contents, in one file.
struct Exchange {
    file: PathBuf,
    what: &'static str,
    one: usize,
    /// `None`: zeros.
    other: Option<usize>,
}

/// Damages everything that the plan says. `told` is called with places done and places in all.
pub fn run(plan: &Plan, told: &(dyn Fn(u64, u64) + Sync)) -> Result<Findings, Trouble> {
    let stage = Stage::make()?;
    let mut findings = Findings::default();
    let is_wanted = |class| plan.classes.is_empty() || plan.classes.contains(&class);
    let all: Vec<Region> = regions(&stage)?
        .into_iter()
        .filter(|region| is_wanted(region.class))
        .collect();
    let mut chunks: Vec<(Region, Range<u64>)> = Vec::new();
    for region in all {
        let (from, to) = (region.bytes.start * 8, region.bytes.end * 8);
        findings.flips.entry(region.class).or_default().places += to - from;
        let starts = (from..to).step_by(CHUNK_BITS as usize);
        chunks.extend(starts.map(|at| (region.clone(), at..(at + CHUNK_BITS).min(to))));
    }
    let exchanges = match plan.classes.is_empty() {
        true => exchanges(&stage)?,
        false => Vec::new(),
    };
    for exchange in &exchanges {
        let counts = findings.sectors.entry(row_of(exchange)).or_default();
        counts.places += 1;
    }
    let places: u64 = chunks.iter().map(|(_, bits)| bits.end - bits.start).sum();
    let (done, next) = (AtomicU64::new(0), AtomicUsize::new(0));
    let findings = Mutex::new(findings);
    let work = |job: usize| -> Result<(), Trouble> {
        let mut judge = Judge::new(&stage, &format!("copy-{job}"))?;
        let mut mine = Findings::default();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if let Some((region, bits)) = chunks.get(at) {
                flip(plan, &mut judge, region, bits.clone(), &mut mine)?;
                let more = bits.end - bits.start;
                told(done.fetch_add(more, Ordering::Relaxed) + more, places);
            } else if let Some(exchange) = exchanges.get(at - chunks.len()) {
                if Dice::new(plan.seed ^ at as u64).once_in(plan.sample) {
                    exchange_sectors(&stage, &mut judge, exchange, &mut mine)?;
                }
            } else {
                break;
            }
        }
        let mut findings = findings.lock().expect("no one panics with this lock");
        findings.merge(mine);
        Ok(())
    };
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..plan.jobs)
            .map(|job| scope.spawn(move || work(job)))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("judging does not panic"))
    })?;
    Ok(findings.into_inner().expect("all threads have ended"))
}

fn flip(
    plan: &Plan,
    judge: &mut Judge<'_>,
    region: &Region,
    bits: Range<u64>,
    findings: &mut Findings,
) -> Result<(), Trouble> {
    let mut dice = Dice::new(plan.seed ^ bits.start);
    for bit in bits {
        if !dice.once_in(plan.sample) {
            continue;
        }
        let outcome = match region.class.is_in_memory() {
            true => judge.flip_in_memory(&region.path, bit),
            false => judge.flip_on_files(&region.path, bit)?,
        };
        findings
            .flips
            .entry(region.class)
            .or_default()
            .add(&outcome);
        let place = || format!("{} bit {bit}", region.path.display());
        findings.note(&place(), &outcome);
    }
    Ok(())
}

/// Every sector zeroed, and every two sectors of a file that differ exchanged.
fn exchanges(stage: &Stage) -> Result<Vec<Exchange>, Trouble> {
    let mut all = Vec::new();
    for inside in ["wal", "checkpoints", "orders", "slabs"] {
        let mut files: Vec<PathBuf> = fs::read_dir(stage.dir().join(inside))
            .doing("list")?
            .filter_map(|entry| entry.ok().map(|entry| entry.file_name()))
            .map(|name| PathBuf::from(inside).join(name))
            .collect();
        files.sort();
        for file in files {
            let bytes = fs::read(stage.dir().join(&file)).doing("read a file")?;
            let sectors: Vec<&[u8]> = bytes.chunks(SECTOR_BYTES).collect();
            for (one, sector) in sectors.iter().enumerate() {
                let mut add = |what, other| {
                    all.push(Exchange {
                        file: file.clone(),
                        what,
                        one,
                        other,
                    });
                };
                if sector.iter().any(|&byte| byte != 0) {
                    add("zeroed", None);
                }
                for (other, with) in sectors.iter().enumerate().skip(one + 1) {
                    if sector.len() == with.len() && sector != with {
                        add("swapped", Some(other));
                    }
                }
            }
        }
    }
    Ok(all)
}

fn row_of(exchange: &Exchange) -> (&'static str, String) {
    let dir = exchange.file.parent().expect("it is in a directory");
    (exchange.what, dir.display().to_string())
}

fn exchange_sectors(
    stage: &Stage,
    judge: &mut Judge<'_>,
    exchange: &Exchange,
    findings: &mut Findings,
) -> Result<(), Trouble> {
    let mut bytes = fs::read(stage.dir().join(&exchange.file)).doing("read a file")?;
    let end = bytes.len();
    let range = |sector: usize| sector * SECTOR_BYTES..((sector + 1) * SECTOR_BYTES).min(end);
    let one = bytes[range(exchange.one)].to_vec();
    let other = exchange.other.map_or(vec![0; one.len()], |other| {
        let there = bytes[range(other)].to_vec();
        bytes[range(other)].copy_from_slice(&one);
        there
    });
    bytes[range(exchange.one)].copy_from_slice(&other);
    let mut outcome = judge.with_bytes(&exchange.file, &bytes)?;
    let (path, from, length) = &stage.last_block;
    let undone = matches!(outcome, Outcome::CutShort | Outcome::NeverWritten);
    let in_last = |sector: usize| {
        let at = (sector * SECTOR_BYTES) as u64;
        stage.dir().join(&exchange.file) == *path && (*from..from + length).contains(&at)
    };
    // Only a sector of the last write may look as if it had not been written yet, and only its first, which has the header,
    // may turn up elsewhere: without it nobody knows how long the block was.
    let may_be_gone = match exchange.other {
        None => in_last(exchange.one),
        Some(_) => exchange.one as u64 == from / SECTOR_BYTES as u64 && in_last(exchange.one),
    };
    if undone && !may_be_gone {
        outcome = Outcome::Silent("the last block is gone".into());
    }
    findings
        .sectors
        .entry(row_of(exchange))
        .or_default()
        .add(&outcome);
    let place = format!(
        "{} sector {} {} {:?}",
        exchange.file.display(),
        exchange.one,
        exchange.what,
        exchange.other
    );
    findings.note(&place, &outcome);
    Ok(())
}
