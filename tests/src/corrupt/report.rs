//! What came of all damages, for people and for programs.

use comfy_table::{Cell, CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use serde_json::{Value, json};

use super::run::{Counts, Findings};

const HEADS: [&str; 11] = [
    "damaged",
    "of",
    "refused",
    "by start",
    "by verify",
    "by opening",
    "repaired",
    "harmless",
    "cut short",
    "never written",
    "SILENT",
];

fn figures(counts: &Counts) -> [u64; 11] {
    [
        counts.damaged,
        counts.places,
        counts.refused,
        counts.at_start,
        counts.at_verify,
        counts.at_opening,
        counts.repaired,
        counts.harmless,
        counts.cut_short,
        counts.never_written,
        counts.silent,
    ]
}

fn table<'a>(first: &str, rows: impl Iterator<Item = (String, &'a Counts)>) -> Table {
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_header([first].iter().chain(&HEADS));
    let mut all = Counts::default();
    let mut add = |name: String, counts: &Counts| {
        let cells = figures(counts).map(|figure| match figure {
            0 => Cell::new("–").set_alignment(CellAlignment::Right),
            _ => Cell::new(figure).set_alignment(CellAlignment::Right),
        });
        table.add_row([Cell::new(name)].into_iter().chain(cells));
    };
    for (name, counts) in rows {
        all.merge(counts);
        add(name, counts);
    }
    add("all".into(), &all);
    table
}

/// For people.
pub fn text(findings: &Findings) -> String {
    let flips = findings.flips.iter();
    let flips = flips.map(|(class, counts)| (class.name(), counts));
    let mut parts = vec![table("flipped bits of", flips).to_string()];
    if !findings.sectors.is_empty() {
        let sectors = findings.sectors.iter();
        let sectors = sectors.map(|((what, dir), counts)| (format!("{dir} {what}"), counts));
        parts.push(table("sectors of", sectors).to_string());
    }
    parts.push(
        "A damage is refused by a start, by `croupier wal verify` or when a secret is opened; several may see it. Repaired and\n\
         harmless leave state and answers as they were. Cut short and never written: the last block's own sectors, zeroed,\n\
         look as a crash in that write leaves them; the first is reported."
            .to_owned(),
    );
    for example in &findings.examples {
        parts.push(format!("SILENT {example}"));
    }
    parts.join("\n\n")
}

/// What refusals said, each sentence once.
pub fn said(findings: &Findings) -> String {
    let said = findings.said.iter();
    said.map(|(sentence, count)| format!("{count:>9}  {sentence}\n"))
        .collect()
}

/// For programs.
pub fn json(findings: &Findings) -> Value {
    let row = |counts: &Counts| {
        let names = HEADS.map(|head| head.replace(' ', "_").to_lowercase());
        let figures = figures(counts).map(Value::from);
        Value::Object(names.into_iter().zip(figures).collect())
    };
    let flips = findings.flips.iter();
    let sectors = findings.sectors.iter();
    json!({
        "flips": flips.map(|(class, counts)| (class.name(), row(counts))).collect::<serde_json::Map<_, _>>(),
        "sectors": sectors
            .map(|((what, dir), counts)| (format!("{dir} {what}"), row(counts)))
            .collect::<serde_json::Map<_, _>>(),
        "silent": findings.examples,
        "broken": findings.broken(),
    })
}
