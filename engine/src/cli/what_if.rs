//! `croupier routes replay`: what another route table would have made of the orders of a stopped store.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

use clap::Args;
use croupier_protocol::Priority;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::Globals;
use super::engine_seam::{self, Change, Count, Report, WhatIf, rule_names};
use super::error::CliError;
use super::init::StoreArgs;
use super::print::{self, Grid};
use super::records::rfc3339;
use super::routes::{print_warnings, read};
use super::wal::Point;

mod waits;

/// Longest time in ms that a job may be said to take: no lease is longer.
const LATENCY_MAX_MS: u32 = 3_600_000;
/// Most SKUs without a route that are listed.
const NO_ROUTE_LISTED_MAX: usize = 20;

/// Run the recorded orders of a stopped store through another route table; nothing is changed
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  croupier routes replay --data /var/lib/croupier --table new.toml
  croupier routes replay --data /var/lib/croupier --table new.toml --from 2026-11-11T00:00:00Z --json
  croupier routes replay --table new.toml --latency gamma=250")]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// The table, a TOML file
    #[arg(long, value_name = "FILE")]
    table: PathBuf,
    /// The first order that counts: an LSN, or a time (RFC 3339) [default: the first there is]
    #[arg(long, value_name = "LSN|TIME")]
    from: Option<Point>,
    /// The last order that counts [default: the last there is]
    #[arg(long, value_name = "LSN|TIME")]
    until: Option<Point>,
    /// How long each job of a channel that is outside takes, in milliseconds; may be given for several [default: as recorded, else its timeout]
    #[arg(long, value_name = "NAME=MS")]
    latency: Vec<Latency>,
}

/// How long each job of a channel takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Latency {
    pub(super) channel: String,
    pub(super) ms: u32,
}

impl FromStr for Latency {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=').and_then(|(channel, ms)| {
            let ms = ms.parse().ok().filter(|ms| *ms <= LATENCY_MAX_MS)?;
            (!channel.is_empty()).then(|| Self {
                channel: channel.to_owned(),
                ms,
            })
        });
        parts.ok_or_else(|| {
            format!(
                "{text:?} does not say how long a channel takes: write NAME=MS, as alpha=250, with milliseconds from 0 to {LATENCY_MAX_MS}"
            )
        })
    }
}

pub(super) fn run(args: &ReplayArgs, globals: &Globals) -> Result<ExitCode, CliError> {
    let toml = read(&args.table)?;
    let asked = WhatIf {
        data: &args.store.data,
        key_file: args.store.key_file.as_deref(),
        table: (&args.table, &toml),
        from: args.from,
        until: args.until,
        latencies: &args.latency,
    };
    let mut progress = Progress::begin();
    let report = engine_seam::what_if(&asked, |done, all| progress.at(done, all))?;
    progress.end();
    let names = rule_names(&toml);
    if globals.json {
        print::json(&to_json(&report, &names))?;
    } else {
        print_warnings(&report.warnings);
        print_tables(&report, &names)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A bar on stderr, when somebody looks at it and it takes longer than a second.
struct Progress {
    begun: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    fn begin() -> Self {
        Self {
            begun: Instant::now(),
            bar: None,
        }
    }

    fn at(&mut self, done: u64, all: u64) {
        if self.bar.is_none() {
            if self.begun.elapsed() < Duration::from_secs(1) || !io::stderr().is_terminal() {
                return;
            }
            let bar = ProgressBar::with_draw_target(Some(all), ProgressDrawTarget::stderr());
            let template = "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
            self.bar = Some(match ProgressStyle::with_template(template) {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            });
        }
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        }
    }

    fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Rules with their counts, also those that took nothing.
fn rules<'r>(
    report: &'r Report,
    names: &'r [String],
) -> impl Iterator<Item = (usize, &'r str, Count)> {
    names.iter().enumerate().map(|(nth, name)| {
        let count = report.tally.rules.get(&nth).copied();
        (nth + 1, &name[..], count.unwrap_or_default())
    })
}

/// SKUs and priorities without a route, those with the most orders first.
fn no_route_by(report: &Report) -> Vec<(&str, Priority, Count)> {
    let by = report.tally.no_route_by.iter();
    let mut by: Vec<_> = by
        .map(|((sku, priority), count)| (&sku[..], *priority, *count))
        .collect();
    by.sort_by_key(|(sku, priority, count)| (u64::MAX - count.orders, *sku, priority.as_index()));
    by.truncate(NO_ROUTE_LISTED_MAX);
    by
}

fn to_json(report: &Report, names: &[String]) -> Value {
    let tally = &report.tally;
    let count = |count: Count| json!({ "orders": count.orders, "cards": count.cards });
    let place = |place: Option<(u64, u64)>| place.map(|(lsn, _)| lsn);
    let time = |place: Option<(u64, u64)>| place.map(|(_, unix_ms)| rfc3339(unix_ms));
    let change = |key: &str, name: &str, change: &Change| {
        json!({
            key: name,
            "orders_before": change.before.orders, "orders_after": change.after.orders,
            "cards_before": change.before.cards, "cards_after": change.after.cards,
        })
    };
    let rules = rules(report, names).map(|(rule, name, count)| {
        json!({ "rule": rule, "name": name, "orders": count.orders, "cards": count.cards })
    });
    let lanes =
        Priority::ALL.map(|lane| change("lane", lane.name(), &tally.lanes[lane.as_index()]));
    let pools = tally.pools.iter();
    let pools = pools.map(|(pool, counts)| change("pool", pool, counts));
    let no_route = no_route_by(report).into_iter().map(|(sku, priority, count)| {
        json!({
            "sku": sku, "priority": priority.name(), "orders": count.orders, "cards": count.cards,
        })
    });
    json!({
        "orders": tally.all.orders,
        "cards": tally.all.cards,
        "first_lsn": place(report.first),
        "first_at": time(report.first),
        "last_lsn": place(report.last),
        "last_at": time(report.last),
        "log_from_lsn": report.log_from,
        "left_out": report.left_out,
        "picked": report.picked,
        "rules": rules.collect::<Vec<_>>(),
        "lanes": lanes,
        "pools": pools.collect::<Vec<_>>(),
        "other_lane": count(tally.other_lane),
        "other_pools": count(tally.other_pools),
        "no_pool": count(tally.no_pool),
        "no_route": count(tally.no_route),
        "no_route_by": no_route.collect::<Vec<_>>(),
        "waits": report.waits.as_ref().map(waits::to_json),
        "warnings": report.warnings,
    })
}

fn print_tables(report: &Report, names: &[String]) -> Result<(), CliError> {
    let tally = &report.tally;
    print::line(&summary(report))?;
    let mut grid = Grid::new(&[">rule", "name", ">orders", ">cards"]);
    for (rule, name, count) in rules(report, names) {
        grid.row([
            rule.to_string(),
            name.to_owned(),
            count.orders.to_string(),
            count.cards.to_string(),
        ]);
    }
    let no_route = tally.no_route;
    grid.row([
        "–".to_owned(),
        "no route".to_owned(),
        no_route.orders.to_string(),
        no_route.cards.to_string(),
    ]);
    grid.print()?;
    let lanes = Priority::ALL.map(|lane| (lane.name(), &tally.lanes[lane.as_index()]));
    print_changes("lane", lanes)?;
    let pools = tally.pools.iter();
    print_changes("pool", pools.map(|(pool, change)| (&pool[..], change)))?;
    if no_route.orders > 0 {
        let mut grid = Grid::new(&["no route for", "priority", ">orders", ">cards"]);
        for (sku, priority, count) in no_route_by(report) {
            let (orders, cards) = (count.orders.to_string(), count.cards.to_string());
            grid.row([sku.to_owned(), priority.name().to_owned(), orders, cards]);
        }
        grid.print()?;
    }
    report.waits.as_ref().map_or(Ok(()), waits::print)
}

/// Before, after and the difference.
fn print_changes<'c>(
    what: &str,
    changes: impl IntoIterator<Item = (&'c str, &'c Change)>,
) -> Result<(), CliError> {
    let columns = [what, ">orders", ">then", ">+/−", ">cards", ">then", ">+/−"];
    let mut grid = Grid::new(&columns);
    for (name, Change { before, after }) in changes {
        grid.row([
            name.to_owned(),
            before.orders.to_string(),
            after.orders.to_string(),
            difference(before.orders, after.orders),
            before.cards.to_string(),
            after.cards.to_string(),
            difference(before.cards, after.cards),
        ]);
    }
    grid.print()
}

/// How much more it is, with its sign.
fn difference(before: u64, after: u64) -> String {
    match i128::from(after) - i128::from(before) {
        0 => "0".to_owned(),
        by => format!("{by:+}").replace('-', "−"),
    }
}

/// What was looked at, and what of it is worth a look.
fn summary(report: &Report) -> String {
    let tally = &report.tally;
    let mut lines = vec![match (report.first, report.last) {
        (Some((first, first_ms)), Some((last, last_ms))) => format!(
            "{} orders of {} cards: LSN {first} to {last}, {} to {}",
            tally.all.orders,
            tally.all.cards,
            rfc3339(first_ms),
            rfc3339(last_ms)
        ),
        _ => "no orders".to_owned(),
    }];
    let mut say = |orders: u64, what: String| {
        if orders > 0 {
            lines.push(what);
        }
    };
    let (lane, pools) = (tally.other_lane, tally.other_pools);
    say(
        lane.orders,
        format!("{} orders would wait in another lane", lane.orders),
    );
    say(
        pools.orders,
        format!(
            "{} orders got {} cards from pools in which the table does not look for them",
            pools.orders, pools.cards
        ),
    );
    let none = tally.no_pool.orders;
    say(
        none,
        format!("{none} orders would be sent to pools of which their SKU has none"),
    );
    let none = tally.no_route.orders;
    say(none, format!("{none} orders would have no route"));
    say(
        report.left_out,
        format!(
            "not counted: {} orders from before LSN {}, of which only the end is kept",
            report.left_out, report.log_from
        ),
    );
    say(
        report.picked,
        format!("not counted: {} holds of picked cards", report.picked),
    );
    if let Some(waits) = &report.waits {
        waits::summary(waits, say);
    }
    lines.join("\n")
}
