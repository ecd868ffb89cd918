//! What came of a history, for people and for programs.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use comfy_table::{Cell, Table, presets::UTF8_FULL_CONDENSED};
use serde_json::{Value, json};

use super::Plan;
use super::run::Findings;

/// For people.
pub fn text(plan: &Plan, findings: &Findings) -> String {
    let mut text = format!("{}\n{}", answers(findings), counts(findings));
    for violation in &findings.seen.violations {
        let _ = write!(text, "\n\nVIOLATION: {violation}");
    }
    if let Some(kept) = &findings.kept {
        let _ = write!(text, "\n\nthe store is kept in {kept}");
    }
    let _ = write!(text, "\n{} violations", findings.seen.violated);
    let _ = write!(text, "; again: {}", again(plan));
    text
}

/// The command that does the same, as far as threads allow.
fn again(plan: &Plan) -> String {
    let Plan {
        orders,
        callers,
        kills,
        seed,
    } = plan;
    format!("croupier-history --orders {orders} --callers {callers} --kills {kills} --seed {seed}")
}

fn table(head: impl IntoIterator<Item = impl Into<Cell>>) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(head);
    table
}

/// How what was asked was answered.
fn answers(findings: &Findings) -> Table {
    let all = &findings.seen.answers;
    let asked: BTreeSet<_> = all.keys().map(|(asked, _)| *asked).collect();
    let said: BTreeSet<_> = all.keys().map(|(_, said)| *said).collect();
    let head = ["answer"].into_iter().chain(asked.iter().copied());
    let mut table = table(head);
    for said in said {
        let counts = asked.iter().map(|asked| {
            let count = all.get(&(*asked, said)).copied().unwrap_or(0);
            Cell::new(if count == 0 {
                "–".to_owned()
            } else {
                count.to_string()
            })
        });
        table.add_row([Cell::new(said)].into_iter().chain(counts));
    }
    table
}

fn counts(findings: &Findings) -> Table {
    let seen = &findings.seen;
    let [imports, cut_off, imported] = seen.imports;
    let [kills, stops] = findings.ends;
    let [quiet, stopped, sampled] = seen.checks;
    let [after_kill, after_stop] = &findings.starts;
    let moves = seen
        .moves
        .iter()
        .map(|(name, [count, cards])| format!("{count} {name} ({cards} cards)"));
    let replayed = match findings.replayed {
        Some(records) => {
            format!("{records} records, from the first one: the digest of the live state")
        }
        None => "not done".to_owned(),
    };
    let rows = [
        ("orders", findings.orders.to_string()),
        ("cards of orders", findings.cards.to_string()),
        ("waited for stock", findings.waited.to_string()),
        ("of these, filled", findings.filled.to_string()),
        ("answers", asked(findings).to_string()),
        ("of these, marked as repeats", seen.repeats.to_string()),
        (
            "asked twice, or by two at once",
            seen.duplicates.to_string(),
        ),
        ("chains of linked orders", seen.chains.to_string()),
        ("unanswered, asked again later", seen.unanswered.to_string()),
        (
            "imports",
            format!("{imports}, {cut_off} cut off, {imported} cards"),
        ),
        ("moves", moves.collect::<Vec<_>>().join(", ")),
        ("killed, stopped", format!("{kills}, {stops}")),
        ("start after a kill", spread(after_kill)),
        ("start after a stop", spread(after_stop)),
        ("checks while it rested", quiet.to_string()),
        ("checks of the stopped store", stopped.to_string()),
        ("old answers asked for again", sampled.to_string()),
        ("digests compared", findings.digests.to_string()),
        ("digest", findings.digest.clone()),
        ("replay", replayed),
        ("load", format!("{:.1} s", findings.load_took.as_secs_f64())),
        ("took", format!("{:.1} s", findings.took.as_secs_f64())),
        ("violations", seen.violated.to_string()),
    ];
    let mut table = table(["what", "count"]);
    for (what, count) in rows {
        table.add_row([what.to_owned(), count]);
    }
    table
}

fn asked(findings: &Findings) -> u64 {
    findings.seen.answers.values().sum()
}

/// The middle and the longest.
fn spread(times: &[Duration]) -> String {
    let mut times: Vec<u128> = times.iter().map(Duration::as_millis).collect();
    times.sort_unstable();
    match (times.get(times.len() / 2), times.last()) {
        (Some(middle), Some(longest)) => format!("{middle} ms, at most {longest} ms"),
        _ => "none".to_owned(),
    }
}

/// For programs.
pub fn json(plan: &Plan, findings: &Findings) -> Value {
    let seen = &findings.seen;
    let ms = |times: &[Duration]| {
        let ms = times.iter().map(|time| time.as_millis() as u64);
        ms.collect::<Vec<_>>()
    };
    let answers = seen
        .answers
        .iter()
        .map(|((asked, said), count)| json!({ "asked": asked, "answered": said, "count": count }));
    let moves = seen
        .moves
        .iter()
        .map(|(name, [count, cards])| json!({ "move": name, "count": count, "cards": cards }));
    json!({
        "again": again(plan),
        "seed": plan.seed,
        "orders": findings.orders,
        "cards": findings.cards,
        "waited": findings.waited,
        "filled": findings.filled,
        "answers": answers.collect::<Vec<_>>(),
        "repeats": seen.repeats,
        "duplicates": seen.duplicates,
        "chains": seen.chains,
        "unanswered": seen.unanswered,
        "imports": seen.imports[0],
        "imports_cut_off": seen.imports[1],
        "imported": seen.imports[2],
        "moves": moves.collect::<Vec<_>>(),
        "kills": findings.ends[0],
        "stops": findings.ends[1],
        "start_after_kill_ms": ms(&findings.starts[0]),
        "start_after_stop_ms": ms(&findings.starts[1]),
        "checks_at_rest": seen.checks[0],
        "checks_stopped": seen.checks[1],
        "sampled": seen.checks[2],
        "digests_compared": findings.digests,
        "digest": findings.digest,
        "replayed_records": findings.replayed,
        "load_ms": findings.load_took.as_millis() as u64,
        "took_ms": findings.took.as_millis() as u64,
        "violated": seen.violated,
        "violations": seen.violations,
        "store": findings.kept,
    })
}
