//! The route table of a running store: it follows the load and the time, and tells how it does. docs/routes.md.

use std::time::Duration;

use croupier_protocol::{RouteMark, RouteRule, RoutesStatusReply};

use crate::engine::Engine;
use crate::route::{InForce, LoadParts, Moment, RouteTable};

/// The tables in force and on trial, each with the share of orders that may be dealt by it and the moment, that orders which wait have been
/// looked at with.
pub(crate) type Followed = [Option<(u32, u8, Moment)>; 2];

/// As they are just now.
pub(crate) fn followed(tables: &InForce, unix_ms: u64) -> Followed {
    let now = |table: &RouteTable, share| (table.version(), share, table.moment(unix_ms));
    let trial = tables.trial.as_ref();
    [
        Some(now(&tables.table, 100)),
        trial.map(|trial| now(&trial.table, trial.share)),
    ]
}

impl Engine {
    /// Has the tables in force and on trial follow what was measured `since` the last time; to be called several times a second.
    pub fn follow_load(&self, unix_ms: u64, parts: LoadParts, since: Duration) {
        let tables = self.routes.both();
        let smoothing = tables.table.smoothing();
        let load = self.load.measured(parts, since, smoothing);
        let trial = tables.trial.as_ref().map(|trial| &trial.table);
        for table in std::iter::once(&tables.table).chain(trial) {
            if table.marks().follow(load.smoothed) {
                tracing::info!(
                    load = load.smoothed,
                    version = table.version(),
                    "the load has passed a mark of the route table, or passes it no more"
                );
            }
        }
        let now = followed(&tables, unix_ms);
        let before = std::mem::replace(&mut *self.lock(&self.followed), now);
        if before != now {
            // Orders that wait may have other pools now.
            self.state.call_desk();
        }
    }

    /// How loaded this node is, and what the table in force makes of that.
    pub fn routes_status(&self) -> RoutesStatusReply {
        let (table, load) = (self.routes.load(), self.load.now());
        let ten_thousandths = |part: f64| (part.clamp(0.0, 1.0) * 10_000.0).round() as u32;
        let marks = table.marks().now().into_iter().map(|mark| RouteMark {
            at: ten_thousandths(mark.at),
            passed: mark.is_passed,
            flips: mark.flips,
        });
        let rules = table.rule_counts().into_iter().map(|rule| RouteRule {
            name: rule.name,
            orders: rule.orders,
        });
        RoutesStatusReply {
            version: table.version(),
            load: ten_thousandths(load.smoothed),
            lanes: ten_thousandths(load.parts.lanes),
            cores: ten_thousandths(load.parts.cores),
            log: ten_thousandths(load.parts.log),
            marks: marks.collect(),
            rules: rules.collect(),
        }
    }
}
