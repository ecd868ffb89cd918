//! The figures of the moment in the text format that scrapers read: docs/operations.md.

use std::fmt::Write as _;
use std::sync::Arc;

use croupier_protocol::{CanaryGroup, ChannelRow, StockRow};

use super::core::CoreShared;
use crate::engine::Engine;
use crate::retries::RetryCounts;

/// All of them. It looks at every order that waits.
pub fn metrics(engine: &Engine, cores: &[Arc<CoreShared>]) -> String {
    let mut page = Page::default();
    page.of_store(engine);
    page.of_routes(engine);
    page.of_channels(engine);
    page.of_canary(engine);
    page.of_orders(engine);
    page.of_cores(cores);
    page.of_stock(engine);
    page.text
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    /// A figure, once for each of its labels, which are whole: with braces, or empty.
    fn gauge(&mut self, name: &str, help: &str, rows: impl IntoIterator<Item = (String, u64)>) {
        let _ = writeln!(
            self.text,
            "# HELP croupier_{name} {help}\n# TYPE croupier_{name} gauge"
        );
        for (labels, value) in rows {
            let _ = writeln!(self.text, "croupier_{name}{labels} {value}");
        }
    }

    /// A figure without labels.
    fn one(&mut self, name: &str, help: &str, value: impl Into<u64>) {
        self.gauge(name, help, [(String::new(), value.into())]);
    }

    fn of_store(&mut self, engine: &Engine) {
        let info = engine.info();
        let what = "Orders dealt since the store was made.";
        self.one("orders", what, info.orders);
        let what = "Everything up to this record is on stable storage.";
        self.one("durable_lsn", what, info.durable_lsn);
        let what = "The record that comes next.";
        self.one("log_end_lsn", what, engine.log.end());
        let what = "1 while new orders are refused.";
        self.one("refusing", what, engine.cannot_record().is_some());
    }

    fn of_routes(&mut self, engine: &Engine) {
        let routes = engine.routes_status();
        let what = "The route table in force.";
        self.one("route_table_version", what, routes.version);
        let parts = [
            ("smoothed", routes.load),
            ("lanes", routes.lanes),
            ("cores", routes.cores),
            ("log", routes.log),
        ];
        self.gauge(
            "load_ten_thousandths",
            "The load that route tables ask about, and its parts.",
            parts.map(|(part, load)| (format!("{{part=\"{part}\"}}"), load.into())),
        );
        let flips = routes.marks.iter().map(|mark| {
            let at = f64::from(mark.at) / 10_000.0;
            (format!("{{load=\"{at}\"}}"), mark.flips)
        });
        self.gauge(
            "route_flips",
            "How often the load has passed a mark of the route table, or passed it no more.",
            flips,
        );
        let taken = (1..).zip(&routes.rules).map(|(number, rule): (u32, _)| {
            let name = label(&rule.name);
            let labels = format!("{{rule=\"{number}\",name=\"{name}\"}}");
            (labels, rule.orders)
        });
        let what = "Orders that a rule of the route table has taken.";
        self.gauge("route_orders", what, taken);
    }

    fn of_channels(&mut self, engine: &Engine) {
        type Figure = (&'static str, &'static str, fn(&ChannelRow) -> u64);
        const FIGURES: [Figure; 11] = [
            (
                "standing",
                "How a channel stands: 1 healthy, 2 ejected, 3 probing.",
                |row| row.standing.into(),
            ),
            (
                "ejections",
                "How often in a row a channel was ejected.",
                |row| row.ejections.into(),
            ),
            ("workers", "Workers of a channel.", |row| row.workers.into()),
            ("jobs", "Jobs of a channel under way.", |row| {
                row.jobs.into()
            }),
            ("ready", "Orders that wait for room of a channel.", |row| {
                row.ready.into()
            }),
            ("filled", "Jobs that a channel has filled.", |row| {
                row.filled
            }),
            ("failed", "Jobs that a channel has failed.", |row| {
                row.failed
            }),
            (
                "timed_out",
                "Jobs of a channel whose lease ran out.",
                |row| row.timed_out,
            ),
            (
                "late",
                "Deliveries of a channel for jobs that were over, or unknown.",
                |row| row.late,
            ),
            ("cards", "Cards that a channel has delivered.", |row| {
                row.cards
            }),
            (
                "mean_us",
                "Mean time of jobs that a channel has filled, in microseconds.",
                |row| row.mean_us,
            ),
        ];
        let channels = engine.channels_status();
        for (name, help, figure) in FIGURES {
            let rows = channels.iter().map(|row| {
                let labels = format!("{{channel=\"{}\"}}", label(&row.name));
                (labels, figure(row))
            });
            self.gauge(&format!("channel_{name}"), help, rows);
        }
    }

    fn of_canary(&mut self, engine: &Engine) {
        type Figure = (&'static str, &'static str, fn(&CanaryGroup) -> u32);
        const FIGURES: [Figure; 4] = [
            (
                "orders",
                "Orders of a group that were measured in this step.",
                |group| group.orders,
            ),
            (
                "failed",
                "Those of them that were refused for reasons that a table may be to blame for.",
                |group| group.failed,
            ),
            (
                "p50_us",
                "Median latency of the others per card, in microseconds.",
                |group| group.p50_us,
            ),
            (
                "p99_us",
                "Latency per card that one of them in a hundred exceeds, in microseconds.",
                |group| group.p99_us,
            ),
        ];
        let canary = engine.canary_status();
        let share = canary.steps.last().filter(|_| canary.under_way);
        let what = "Orders that the canary of a route table deals; 0 = none is under way.";
        self.one(
            "canary_share_percent",
            what,
            share.map_or(0, |step| u64::from(step.share)),
        );
        let what = "The last route table that was a canary; 0 = none was.";
        self.one("canary_version", what, canary.version);
        for (name, help, figure) in FIGURES {
            let both = ["canary", "baseline"].into_iter().zip(&canary.groups);
            let rows =
                both.map(|(group, of)| (format!("{{group=\"{group}\"}}"), figure(of).into()));
            self.gauge(&format!("canary_{name}"), help, rows);
        }
    }

    fn of_orders(&mut self, engine: &Engine) {
        let held = engine.state.index.held_hint() as u64;
        self.one("holds_open", "About how many orders hold cards.", held);
        let catalog = engine.state.catalog.load();
        let waiting: u64 = catalog.skus.iter().map(|sku| sku.line.orders()).sum();
        self.one("orders_waiting", "Orders that wait for stock.", waiting);
        // Without an order in line there is nothing to be counted.
        let tried = match waiting {
            0 => RetryCounts::default(),
            _ => engine.retry_counts(),
        };
        self.gauge(
            "retry_orders",
            "Orders that no channel could fill: those that wait for another attempt, and those that are buried.",
            [("retrying", tried.retrying), ("buried", tried.buried)]
                .map(|(state, orders)| (format!("{{state=\"{state}\"}}"), orders)),
        );
        self.one(
            "retry_oldest_unix_ms",
            "Since when the oldest of them waits, in Unix milliseconds; 0 = there is none.",
            tried.oldest_unix_ms,
        );
    }

    fn of_cores(&mut self, cores: &[Arc<CoreShared>]) {
        let lanes = ["vip", "standard", "bulk", "background"];
        let depths = cores.iter().enumerate().flat_map(|(core, shared)| {
            let depths = shared.queues.lanes.depths();
            lanes.iter().zip(depths).map(move |(lane, depth)| {
                let labels = format!("{{core=\"{core}\",lane=\"{lane}\"}}");
                (labels, depth as u64)
            })
        });
        self.gauge("lane_orders", "Orders waiting in a lane.", depths);
        let connections = cores.iter().enumerate().map(|(core, shared)| {
            let labels = format!("{{core=\"{core}\"}}");
            (labels, shared.connections() as u64)
        });
        self.gauge("connections", "Open connections.", connections);
    }

    fn of_stock(&mut self, engine: &Engine) {
        type Figure = (&'static str, &'static str, fn(&StockRow) -> u64);
        const FIGURES: [Figure; 4] = [
            ("free", "Free cards.", |row| row.free),
            (
                "held",
                "Cards that are suspended, or promised to holds.",
                |row| row.held,
            ),
            ("issued", "Cards issued.", |row| row.issued),
            ("void", "Cards out of sale for good.", |row| row.void),
        ];
        let Ok(rows) = engine.stock(None) else { return };
        for (name, help, figure) in FIGURES {
            let rows = rows.iter().map(|row| {
                let labels = format!("{{sku=\"{}\"}}", label(&row.name));
                (labels, figure(row))
            });
            self.gauge(&format!("stock_{name}"), help, rows);
        }
    }
}

/// A name as the value of a label.
fn label(name: &str) -> String {
    let name = name.replace('\\', "\\\\").replace('"', "\\\"");
    name.replace('\n', "\\n")
}
