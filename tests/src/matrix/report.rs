//! What the matrix found, for people and for programs.

use std::collections::{BTreeMap, BTreeSet};

use comfy_table::{Cell, Table, presets::UTF8_FULL_CONDENSED};
use serde_json::{Value, json};

use super::run::{Findings, Judged, Verdict};
use super::scene::SCENES;
use super::trace::Spot;
use super::{Fault, Phase};

/// Cases that held, and cases there were.
#[derive(Debug, Clone, Copy, Default)]
struct Covered {
    held: usize,
    all: usize,
}

impl Covered {
    fn add(&mut self, judged: &Judged) {
        self.all += 1;
        self.held += usize::from(matches!(judged.verdict, Verdict::Held { .. }));
    }

    fn cell(self) -> Cell {
        Cell::new(match self.all {
            0 => "–".to_owned(),
            all => format!("{}/{all}", self.held),
        })
    }
}

/// Counts of one row, by fault.
type Row = BTreeMap<Fault, Covered>;

/// What the client saw, what the server did, and how often.
type Outcomes = BTreeMap<(String, String), usize>;

/// The findings, added up.
#[derive(Debug)]
pub struct Report<'a> {
    findings: &'a Findings,
    by_phase: BTreeMap<Phase, Row>,
    by_call: BTreeMap<(String, &'static str), Row>,
    outcomes: BTreeMap<(String, &'static str, Fault), Outcomes>,
}

impl<'a> Report<'a> {
    /// Adds up.
    pub fn new(findings: &'a Findings) -> Self {
        let mut report = Self {
            findings,
            by_phase: BTreeMap::new(),
            by_call: BTreeMap::new(),
            outcomes: BTreeMap::new(),
        };
        for judged in &findings.judged {
            let (case, fault) = (&judged.case, judged.case.fault);
            let call = (case.spot.syscall.clone(), case.kind());
            report
                .by_phase
                .entry(case.scene().phase)
                .or_default()
                .entry(fault)
                .or_default()
                .add(judged);
            report
                .by_call
                .entry(call.clone())
                .or_default()
                .entry(fault)
                .or_default()
                .add(judged);
            if let Verdict::Held { saw, did } = &judged.verdict
                && fault != Fault::Kill
            {
                let outcomes = report.outcomes.entry((call.0, call.1, fault)).or_default();
                *outcomes.entry((saw.clone(), did.clone())).or_default() += 1;
            }
        }
        report
    }

    /// Cases in which something that must hold did not.
    pub fn broken(&self) -> usize {
        self.findings
            .judged
            .iter()
            .filter(|judged| matches!(judged.verdict, Verdict::Broken(_)))
            .count()
    }

    /// Cases whose fault never met its call.
    pub fn missed(&self) -> usize {
        self.findings
            .judged
            .iter()
            .filter(|judged| matches!(judged.verdict, Verdict::Missed))
            .count()
    }

    /// For people.
    pub fn text(&self) -> String {
        let faults: BTreeSet<Fault> = self
            .by_phase
            .values()
            .flat_map(|row| row.keys().copied())
            .collect();
        let names = || faults.iter().map(|fault| fault.name());
        let cells = |row: &Row| {
            let cells = faults
                .iter()
                .map(|fault| row.get(fault).copied().unwrap_or_default().cell());
            cells.collect::<Vec<_>>()
        };
        let mut phases = table(["phase".to_owned()].into_iter().chain(names()));
        for (phase, row) in &self.by_phase {
            phases.add_row([Cell::new(phase.name())].into_iter().chain(cells(row)));
        }
        let mut total = Row::new();
        for (fault, covered) in self.by_phase.values().flatten() {
            let sum = total.entry(*fault).or_default();
            *sum = Covered {
                held: sum.held + covered.held,
                all: sum.all + covered.all,
            };
        }
        phases.add_row([Cell::new("all")].into_iter().chain(cells(&total)));
        let mut calls = table(
            ["call".to_owned(), "file".to_owned()]
                .into_iter()
                .chain(names()),
        );
        for ((call, kind), row) in &self.by_call {
            calls.add_row(
                [Cell::new(call), Cell::new(kind)]
                    .into_iter()
                    .chain(cells(row)),
            );
        }
        let mut text = format!("{phases}\n\n{calls}\n");
        if !self.outcomes.is_empty() {
            let heads = [
                "call",
                "file",
                "fault",
                "the client saw",
                "the server",
                "times",
            ];
            let mut seen = table(heads.into_iter().map(str::to_owned));
            for ((call, kind, fault), outcomes) in &self.outcomes {
                for ((saw, did), times) in outcomes {
                    seen.add_row([call, *kind, &fault.name(), saw, did, &times.to_string()]);
                }
            }
            text += &format!("\n{seen}\n");
        }
        for judged in &self.findings.judged {
            match &judged.verdict {
                Verdict::Held { .. } => {}
                Verdict::Missed => text += &format!("\nMISSED {}\n", judged.case),
                Verdict::Broken(why) => text += &format!("\nBROKEN {}\n{why}\n", judged.case),
            }
        }
        for (scene, log, spot) in &self.findings.shadowed {
            let (scene, log) = (SCENES[*scene].name, log.name());
            let Spot {
                thread,
                syscall,
                path,
                nth,
                ..
            } = spot;
            text += &format!(
                "\nnot aimed at: {scene} ({log}): {syscall} #{nth} of {path} by {thread}, behind another thread's\n"
            );
        }
        let counted: usize = self.findings.counted.values().sum();
        let run = self.findings.judged.len();
        text + &format!(
            "\n{counted} calls on the write path; {run} faults: {} held, {} missed, {} broken; {:.0} s\n",
            run - self.missed() - self.broken(),
            self.missed(),
            self.broken(),
            self.findings.took.as_secs_f64()
        )
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let row = |row: &Row| {
            let cells = row.iter().map(|(fault, covered)| {
                (
                    fault.name(),
                    json!({ "covered": covered.held, "total": covered.all }),
                )
            });
            Value::Object(cells.collect())
        };
        let phases = self
            .by_phase
            .iter()
            .map(|(phase, covered)| (phase.name(), row(covered)));
        let calls = self.by_call.iter().map(
            |((call, kind), covered)| json!({ "call": call, "file": kind, "faults": row(covered) }),
        );
        let outcomes = self.outcomes.iter().flat_map(|((call, kind, fault), outcomes)| {
            outcomes.iter().map(move |((saw, did), times)| {
                let fault = fault.name();
                json!({ "call": call, "file": kind, "fault": fault, "client": saw, "server": did, "times": times })
            })
        });
        let failed = |wanted: fn(&Verdict) -> Option<&str>| {
            let failed = self.findings.judged.iter().filter_map(move |judged| {
                wanted(&judged.verdict)
                    .map(|why| json!({ "case": judged.case.to_string(), "why": why }))
            });
            failed.collect::<Vec<_>>()
        };
        json!({
            "calls": self.findings.counted.values().sum::<usize>(),
            "not_aimed_at": self.findings.shadowed.len(),
            "faults": self.findings.judged.len(),
            "phases": Value::Object(phases.collect()),
            "by_call": calls.collect::<Vec<_>>(),
            "outcomes": outcomes.collect::<Vec<_>>(),
            "missed": failed(|verdict| matches!(verdict, Verdict::Missed).then_some("its call was never met")),
            "broken": failed(|verdict| match verdict {
                Verdict::Broken(why) => Some(why),
                _ => None,
            }),
            "took_ms": self.findings.took.as_millis() as u64,
        })
    }
}

fn table(heads: impl Iterator<Item = String>) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(heads);
    table
}
