//! What a scene has to say, as data and for people, and what is found against it.

use std::collections::BTreeMap;
use std::fmt;

use croupier_protocol::StockRow;
use serde::Serialize;

use super::load::{Figures, GROUPS, PhaseFigures, Phases};
use super::suppliers::{Illness, Supplied};
use super::watch::Seen;
use super::{CHANNELS, ISSUED_SKU, SceneArgs};
use crate::machine::{FileSystem, Machine};
use crate::oracle::OracleReport;
use crate::report::{Latency, Table};
use crate::units::grouped;

/// What is known of the surroundings.
pub struct Facts {
    pub machine: Machine,
    pub file_system: FileSystem,
    pub version: String,
    pub durability: String,
    pub cores: u32,
    pub table: String,
    pub stock: Vec<StockRow>,
}

/// Everything about one scene.
#[derive(Debug, Serialize)]
pub struct SceneReport {
    /// Where.
    pub machine: Machine,
    /// What the store lies on.
    pub file_system: FileSystem,
    /// Version of the server, and how its log is made durable.
    pub server: String,
    /// Orders a second.
    pub rate_per_s: f64,
    /// Share of them that stock fills.
    pub stock_share: f64,
    /// The route table.
    pub table: String,
    /// Before, during, after.
    pub phases: Vec<PhaseReport>,
    /// The issuers.
    pub channels: Vec<ChannelReport>,
    /// The cards of the issuers' SKU.
    pub cards: CardsReport,
    /// Orders that were sent, warm-up included.
    pub sent: u64,
    /// Orders that nobody has answered.
    pub unanswered: u64,
    /// How long after their intended time orders were sent: what the generator itself adds.
    pub generator_lateness: Latency,
    /// The judge's words.
    pub oracle: OracleReport,
    /// True if nothing was found against it.
    pub pass: bool,
    /// What was found.
    pub reasons: Vec<String>,
}

/// One phase.
#[derive(Debug, Serialize)]
pub struct PhaseReport {
    /// `before`, `during` or `after`.
    pub phase: &'static str,
    /// How long it was.
    pub seconds: f64,
    /// By who has filled them, those without orders left out.
    pub groups: Vec<GroupReport>,
    /// Orders refused, by the refusal's name.
    pub refused: BTreeMap<String, u64>,
    /// Answers that said that an order is accepted and waits.
    pub waiting: u64,
}

/// Orders of one phase that one of the sources has filled.
#[derive(Debug, Serialize)]
pub struct GroupReport {
    /// `stock`, a channel, `issued` (all channels) or `all`.
    pub group: String,
    /// How many.
    pub orders: u64,
    /// From the intended time to the answer.
    pub latency: Latency,
}

/// One issuer.
#[derive(Debug, Serialize)]
pub struct ChannelReport {
    /// Its name.
    pub channel: &'static str,
    /// What was the matter with it.
    pub illness: Illness,
    /// From when it fell ill until it was ejected, in milliseconds; none: it was not.
    pub ejected_after_ms: Option<u64>,
    /// From when it got well until it was healthy, and stayed so, in milliseconds; none: it was not ejected, or is not well yet.
    pub recovered_after_ms: Option<u64>,
    /// How often it was ejected.
    pub ejections: usize,
    /// Jobs that it took.
    pub jobs: u64,
    /// Cards that it delivered.
    pub cards: u64,
    /// Jobs that were over when their cards came.
    pub late: u64,
}

/// Where the cards of the issuers' SKU are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CardsReport {
    /// That suppliers have made.
    pub made: u64,
    /// That the server has accepted, by its answers.
    pub delivered: u64,
    /// Of those, for jobs that were over.
    pub late: u64,
    /// That the server counts, in all.
    pub imported: u64,
    /// Of these, free: brought for orders that others had filled.
    pub free: u64,
    /// Promised.
    pub held: u64,
    /// That orders have.
    pub issued: u64,
    /// Out of sale.
    pub void: u64,
}

impl SceneReport {
    pub(super) fn new(
        args: &SceneArgs,
        facts: Facts,
        phases: Phases,
        figures: Figures,
        seen: &Seen,
        supplied: Vec<Supplied>,
        oracle: OracleReport,
    ) -> Self {
        let cards = CardsReport::of(&facts.stock, &supplied);
        let mut reasons = Vec::new();
        let refused: u64 = figures
            .phases
            .iter()
            .flat_map(|phase| phase.refused.values())
            .sum();
        let mut against = |is: bool, text: String| {
            if is {
                reasons.push(text);
            }
        };
        against(refused > 0, format!("{} orders failed", grouped(refused)));
        let unanswered = figures.unanswered;
        against(
            unanswered > 0,
            format!("{} orders were not answered", grouped(unanswered)),
        );
        against(
            oracle.violations > 0,
            format!("{} promises were broken", grouped(oracle.violations)),
        );
        against(
            !cards.add_up(figures.issued),
            format!(
                "the cards do not add up: {cards:?}, and {} orders have one",
                figures.issued
            ),
        );
        for ((name, _), supplied) in CHANNELS.iter().zip(&supplied) {
            let report = &supplied.report;
            if let Some(error) = &report.error {
                against(true, format!("the worker of {name} ended: {error}"));
            }
            let kept = report.undelivered.len();
            against(
                kept > 0,
                format!("{kept} jobs of {name} were not delivered"),
            );
        }
        let lengths = [args.before, args.during, args.after];
        let reports = ["before", "during", "after"]
            .into_iter()
            .zip(lengths)
            .zip(figures.phases)
            .map(|((phase, length), figures)| {
                PhaseReport::new(phase, length.as_secs_f64(), figures)
            });
        Self {
            machine: facts.machine,
            file_system: facts.file_system,
            server: format!(
                "croupier {} on {} cores, {}",
                facts.version, facts.cores, facts.durability
            ),
            rate_per_s: args.rate,
            stock_share: args.stock_share,
            table: facts.table,
            phases: reports.collect(),
            channels: channels(seen, &phases, &supplied),
            cards,
            sent: figures.sent,
            unanswered,
            generator_lateness: Latency::of(&figures.lateness),
            oracle,
            pass: reasons.is_empty(),
            reasons,
        }
    }
}

fn channels(seen: &Seen, phases: &Phases, supplied: &[Supplied]) -> Vec<ChannelReport> {
    let ms = |ns: u64| ns / 1_000_000;
    let all = CHANNELS.iter().zip(supplied).enumerate();
    all.map(|(nth, (&(channel, illness), supplied))| ChannelReport {
        channel,
        illness,
        ejected_after_ms: seen.ejected_after_ns(nth, phases).map(ms),
        recovered_after_ms: seen.recovered_after_ns(nth, phases).map(ms),
        ejections: seen.ejections(nth),
        jobs: supplied.report.counts.jobs,
        cards: supplied.report.counts.cards,
        late: supplied.report.counts.late,
    })
    .collect()
}

impl PhaseReport {
    fn new(phase: &'static str, seconds: f64, figures: PhaseFigures) -> Self {
        let groups = figures.latency.iter().enumerate();
        let groups = groups.filter(|(_, latency)| !latency.is_empty());
        let groups = groups.map(|(group, latency)| GroupReport {
            group: group_name(group),
            orders: latency.len(),
            latency: Latency::of(latency),
        });
        Self {
            phase,
            seconds,
            groups: groups.collect(),
            refused: figures.refused,
            waiting: figures.waiting,
        }
    }
}

fn group_name(group: usize) -> String {
    match group {
        0 => "stock".to_owned(),
        _ if group == GROUPS - 1 => "all".to_owned(),
        _ if group == GROUPS - 2 => "issued".to_owned(),
        channel => CHANNELS[channel - 1].0.to_owned(),
    }
}

impl CardsReport {
    fn of(stock: &[StockRow], supplied: &[Supplied]) -> Self {
        let row = stock.iter().find(|row| row.name == ISSUED_SKU);
        let count = |of: fn(&StockRow) -> u64| row.map_or(0, of);
        let sum = |of: fn(&Supplied) -> u64| supplied.iter().map(of).sum();
        Self {
            made: sum(|supplied| supplied.made),
            delivered: sum(|supplied| supplied.report.counts.cards),
            late: sum(|supplied| supplied.report.counts.late),
            imported: count(|row| row.imported),
            free: count(|row| row.free),
            held: count(|row| row.held),
            issued: count(|row| row.issued),
            void: count(|row| row.void),
        }
    }

    /// Every card that was made is stock or an order's, and no other is; every order has one.
    fn add_up(&self, orders: u64) -> bool {
        let there = self.free + self.held + self.issued + self.void;
        self.made == self.imported
            && self.delivered == self.imported
            && self.imported == there
            && (self.issued, self.held, self.void) == (orders, 0, 0)
    }
}

impl fmt::Display for SceneReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "machine     {}", self.machine)?;
        let FileSystem { kind, durable } = &self.file_system;
        let durable = if *durable {
            ""
        } else {
            ": IN MEMORY, nothing is durable and no figure of it means anything"
        };
        writeln!(f, "server      {}, on {kind}{durable}", self.server)?;
        let (rate, share) = (grouped(self.rate_per_s as u64), self.stock_share * 100.0);
        writeln!(
            f,
            "load        open loop, {rate} orders/s, {share:.0} % of them from stock, the rest from {} issuers",
            self.channels.len()
        )?;
        writeln!(
            f,
            "sent late   P99 {:.0} µs, max {:.0} µs (the generator itself)\n",
            self.generator_lateness.p99_us, self.generator_lateness.max_us
        )?;
        self.phase_table(f)?;
        self.channel_table(f)?;
        let CardsReport {
            made,
            late,
            imported,
            free,
            issued,
            ..
        } = self.cards;
        writeln!(
            f,
            "cards       {} made, {} stock: {} dealt, {} free; {} came for jobs that were over",
            grouped(made),
            grouped(imported),
            grouped(issued),
            grouped(free),
            grouped(late)
        )?;
        let oracle = &self.oracle;
        writeln!(
            f,
            "oracle      {} answers and {} cards judged, {} orders looked up again, {} promises broken",
            grouped(oracle.orders),
            grouped(oracle.cards),
            grouped(oracle.sampled),
            oracle.violations
        )?;
        for detail in &oracle.details {
            writeln!(f, "  {detail}")?;
        }
        writeln!(f, "{}", if self.pass { "PASS" } else { "FAIL" })?;
        let mut reasons = self.reasons.iter();
        reasons.try_for_each(|reason| writeln!(f, "  {reason}"))
    }
}

impl SceneReport {
    fn phase_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = ["phase", "filled by", "orders"];
        let mut table = Table::new(2, header.into_iter().chain(Latency::HEADER));
        for phase in &self.phases {
            for group in &phase.groups {
                let words = [phase.phase, &group.group].map(str::to_owned);
                let orders = [grouped(group.orders)];
                let cells = words.into_iter().chain(orders);
                table.row(cells.chain(group.latency.cells()));
            }
        }
        writeln!(f, "{table}")?;
        for phase in &self.phases {
            let refused: u64 = phase.refused.values().sum();
            let (refused, waiting) = (grouped(refused), grouped(phase.waiting));
            write!(
                f,
                "{:<12}{refused} orders failed, {waiting} answers said that an order waits",
                phase.phase
            )?;
            for (refusal, orders) in &phase.refused {
                write!(f, "; {} {refusal}", grouped(*orders))?;
            }
            writeln!(f)?;
        }
        writeln!(f)
    }

    fn channel_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = [
            "channel",
            "during",
            "ejected after ms",
            "healthy after ms",
            "ejections",
            "jobs",
            "cards",
            "late",
        ];
        let mut table = Table::new(2, header);
        for channel in &self.channels {
            let ms = |ms: Option<u64>| ms.map_or("–".to_owned(), grouped);
            table.row([
                channel.channel.to_owned(),
                channel.illness.name().to_owned(),
                ms(channel.ejected_after_ms),
                ms(channel.recovered_after_ms),
                channel.ejections.to_string(),
                grouped(channel.jobs),
                grouped(channel.cards),
                grouped(channel.late),
            ]);
        }
        writeln!(f, "{table}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_add_up_when_each_is_somewhere_once() {
        let good = CardsReport {
            made: 10,
            delivered: 10,
            late: 3,
            imported: 10,
            free: 2,
            issued: 8,
            ..CardsReport::default()
        };
        assert!(good.add_up(8));
        assert!(!good.add_up(7), "somebody has none, or two");
        assert!(!CardsReport { made: 11, ..good }.add_up(8), "one is lost");
        assert!(!CardsReport { free: 3, ..good }.add_up(8));
        let held = CardsReport {
            held: 1,
            free: 1,
            ..good
        };
        assert!(!held.add_up(8));
    }

    #[test]
    fn groups_have_the_names_of_who_fills_them() {
        let names: Vec<_> = (0..GROUPS).map(group_name).collect();
        assert_eq!(names, ["stock", "a", "b", "c", "issued", "all"]);
    }
}
