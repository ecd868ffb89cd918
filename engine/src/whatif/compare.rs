//! Orders that wait for channels, through the model twice: with the tables that were in force, and with another.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::figures::Compared;
use super::log::{Came, Names, pools_of_hold};
use super::observed::{Observed, Waiting};
use super::queues::{Arrival, Latency, Outcome, QUEUED_MAX, Queues};
use super::tables::{Channel, Known, Tables};
use super::{Recorded, Sent};
use crate::error::EngineError;
use crate::route::RouteTable;
use crate::state::State;
use crate::state::channels::Standing;
use crate::state::record::{Fact, Stamp, Way};
use croupier_protocol::Priority;

/// How long somebody says that a channel takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub channel: String,
    pub latency_ms: u64,
}

/// How long a channel is taken to need for a job, of which no latency was recorded or another was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assumed {
    pub channel: String,
    pub latency_ms: u64,
    /// Else it is its timeout.
    pub is_said: bool,
}

/// How long orders wait for channels, before and after.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// By name: those of the table, and those that any order went to.
    pub channels: BTreeMap<String, Compared>,
    pub lanes: [Compared; 4],
    /// Of channels that any order goes to in a model.
    pub assumed: Vec<Assumed>,
    /// Orders that go on waiting for stock, before and after: they are in no model.
    pub for_stock: [u64; 2],
    /// Orders that the queues had no room for.
    pub over: [u64; 2],
    /// Orders that are left in a queue: their channels were ejected, and did not come back.
    pub left: [u64; 2],
    /// Orders that waited, and were dealt by a table that is not known any more.
    pub table_unknown: u64,
}

impl Comparison {
    /// How far the figures can be trusted.
    pub(super) fn warnings(&self) -> Vec<String> {
        let guessed = self.assumed.iter().filter(|one| !one.is_said);
        let guessed = guessed.map(|one| {
            let Assumed { channel, latency_ms, .. } = one;
            format!(
                "channel {channel:?}: no latency of it is recorded, so each of its jobs is taken to last as long as its timeout, \
                 {latency_ms} ms: its figures are upper bounds. --latency {channel}=MS says how long they last"
            )
        });
        let mut warnings: Vec<String> = guessed.collect();
        let mut warn = |orders: u64, what: &str| {
            if orders > 0 {
                warnings.push(format!("{orders} orders {what}"));
            }
        };
        for (at, side) in ["before", "after"].into_iter().enumerate() {
            let full = format!(
                "({side}) found no place and a queue of {QUEUED_MAX} orders: they are in no figure, and the waits are lower bounds"
            );
            warn(self.over[at], &full);
            let left = format!(
                "({side}) still wait at the end, for channels that were ejected: they are in no P50 and P99"
            );
            warn(self.left[at], &left);
        }
        warn(
            self.table_unknown,
            "were dealt by tables that are not kept any more: they are not in `before`",
        );
        warnings
    }
}

/// What reads facts of the log: with what names them, and whether an order that comes with them counts.
type Observe<'o> = dyn FnMut(&Names, Stamp, &Fact<'_>, bool) -> Result<(), String> + 'o;

/// Both models, and what they are made from.
pub(super) struct Models {
    tables: Tables,
    observed: Observed,
    new: Known,
    latencies: Arc<[Latency]>,
    before: Queues,
    after: Queues,
    /// The version that `before` was told of last.
    set: Option<u32>,
    for_stock: [u64; 2],
}

impl Models {
    /// `read` reads the log once from its begin; `None`: no table has a channel that is outside.
    pub(super) fn of(
        state: &State,
        table: &Arc<RouteTable>,
        said: &[Said],
        read: impl FnOnce(&mut Observe<'_>) -> Result<(), EngineError>,
    ) -> Result<Option<Models>, EngineError> {
        let mut tables = Tables::of(state);
        let new = tables.known(table.clone());
        let new = new.filter(|_| !tables.names().is_empty());
        let Some(new) = new else {
            return check(&tables, said).map(|()| None);
        };
        let mut observed = Observed::default();
        let mut from = Vec::new();
        read(&mut |names, stamp, fact, is_counted| {
            tables.learn(fact);
            observe(
                &mut observed,
                &tables,
                names,
                stamp,
                fact,
                is_counted,
                &mut from,
            )
        })?;
        check(&tables, said)?;
        let mut latencies = observed.latencies(tables.names().len());
        for Said {
            channel,
            latency_ms,
        } in said
        {
            if let Some(channel) = tables.channel(channel) {
                latencies[usize::from(channel)] = Latency::Said(*latency_ms);
            }
        }
        Ok(Some(Models::with(tables, observed, new, latencies.into())))
    }

    fn with(tables: Tables, observed: Observed, new: Known, latencies: Arc<[Latency]>) -> Models {
        let mut after = Queues::new(latencies.clone());
        set(&mut after, &new);
        Models {
            tables,
            observed,
            new,
            before: Queues::new(latencies.clone()),
            after,
            latencies,
            set: None,
            for_stock: [0; 2],
        }
    }

    /// A fact may be one of a table or of a channel.
    pub(super) fn learn(&mut self, unix_ms: u64, fact: &Fact<'_>) {
        self.tables.learn(fact);
        if let Fact::ChannelChanged { name, standing, .. } = fact
            && let Some(channel) = self.tables.channel(name)
        {
            let is_out = matches!(standing, Standing::Ejected { .. });
            self.before.stands(unix_ms, channel, is_out);
            self.after.stands(unix_ms, channel, is_out);
        }
    }

    /// An order of the log: the version of the table it was dealt by, and where the other table sends it.
    pub(super) fn add(&mut self, order: &Recorded<'_>, version: u32, sent: &Sent) {
        let (at_ms, asked) = (order.unix_ms, &order.asked);
        let arrival = |lane: Priority| Arrival {
            id: asked.id,
            priority: asked.priority,
            lane,
        };
        if !order.from.is_empty() {
            self.before.at_once(at_ms, order.lane);
        } else if let Some(known) = self.tables.get(version) {
            match known.to_ask(order.sku, asked, at_ms) {
                None => self.for_stock[0] += 1,
                Some(to_ask) => {
                    if self.set.replace(version) != Some(version) {
                        set(&mut self.before, known);
                    }
                    self.before.arrive(at_ms, &arrival(order.lane), &to_ask);
                }
            }
        }
        match sent {
            Sent::AtOnce { lane } => self.after.at_once(at_ms, *lane),
            Sent::Asks { lane, to_ask } => {
                let to_ask = self.new.numbered(to_ask.clone());
                self.after.arrive(at_ms, &arrival(*lane), &to_ask);
            }
            Sent::ForStock => self.for_stock[1] += 1,
            Sent::Nowhere => {}
        }
    }

    /// What it came to.
    pub(super) fn end(mut self) -> Comparison {
        let (before, after) = (self.before.finish(), self.after.finish());
        let mut comparison = Comparison {
            lanes: Priority::ALL.map(|lane| Compared {
                recorded: self.observed.lane(lane),
                before: before.lanes[lane.as_index()],
                after: after.lanes[lane.as_index()],
            }),
            for_stock: self.for_stock,
            over: [before.over, after.over],
            left: [before.left, after.left],
            table_unknown: self.observed.table_unknown(),
            ..Comparison::default()
        };
        let is_new = |channel: Channel| self.new.outside().any(|(one, _)| one == channel);
        for (channel, name) in (0..).zip(self.tables.names()) {
            let of = |outcome: &Outcome| {
                let found = outcome.channels.get(usize::from(channel));
                found.copied().unwrap_or_default()
            };
            let compared = Compared {
                recorded: self.observed.channel(channel),
                before: of(&before),
                after: of(&after),
            };
            let Compared {
                recorded,
                before: was,
                after: is,
            } = compared;
            if !is_new(channel) && recorded.orders + was.orders + is.orders == 0 {
                continue;
            }
            comparison.channels.insert(name.clone(), compared);
            let outcome = if is.orders > 0 { &after } else { &before };
            if was.orders + is.orders > 0
                && let Some((latency_ms, is_said)) = self.assumed(channel, outcome)
            {
                comparison.assumed.push(Assumed {
                    channel: name.clone(),
                    latency_ms,
                    is_said,
                });
            }
        }
        comparison
    }

    /// How long jobs of a channel are taken to last that was not recorded, and whether that was said.
    fn assumed(&self, channel: Channel, outcome: &Outcome) -> Option<(u64, bool)> {
        let at = usize::from(channel);
        match self.latencies.get(at) {
            Some(Latency::Recorded(_)) => None,
            Some(Latency::Said(ms)) => Some((*ms, true)),
            Some(Latency::Unknown) | None => Some((*outcome.timeouts_ms.get(at)?, false)),
        }
    }
}

/// Tells a model what a table says of its channels.
fn set(queues: &mut Queues, known: &Known) {
    for (channel, outside) in known.outside() {
        queues.set(channel, outside.jobs_max, outside.timeout_ms);
    }
}

/// Refuses what is said of channels that no table has.
fn check(tables: &Tables, said: &[Said]) -> Result<(), EngineError> {
    for (nth, Said { channel, .. }) in said.iter().enumerate() {
        if said[..nth].iter().any(|other| other.channel == *channel) {
            let what = format!("--latency {channel}=MS is given twice: give it once");
            return Err(EngineError::Config(what));
        }
        if tables.channel(channel).is_none() {
            let mut names: Vec<&str> = tables.names().iter().map(|name| &name[..]).collect();
            names.sort_unstable();
            let known = match &names[..] {
                [] => "there is none".to_owned(),
                names => format!("name one of {}", names.join(", ")),
            };
            let what = format!(
                "--latency: no table has a channel {channel:?} that is outside (an issuer or an upstream): {known}"
            );
            return Err(EngineError::Config(what));
        }
    }
    Ok(())
}

/// Has the latencies of channels observed: one fact of the log.
fn observe(
    observed: &mut Observed,
    tables: &Tables,
    names: &Names,
    stamp: Stamp,
    fact: &Fact<'_>,
    is_counted: bool,
    from: &mut Vec<(u16, u64)>,
) -> Result<(), String> {
    let Stamp {
        unix_ms,
        route_table,
    } = stamp;
    let table = tables.get(route_table);
    match fact {
        Fact::Issued(issued) if issued.way == Way::Filled => {
            names.pools_of(issued.runs, from)?;
            let from = names.named(issued.sku, from)?;
            observed.filled(unix_ms, issued.order_id, &from, table);
        }
        Fact::Reserved(reserved) if reserved.filled => {
            pools_of_hold(reserved, from);
            let from = names.named(reserved.sku, from)?;
            observed.filled(unix_ms, reserved.order_id, &from, table);
        }
        Fact::Issued(issued) if matches!(issued.way, Way::Issue | Way::Part) && is_counted => {
            let order = names.order(unix_ms, &Came::issued(issued), &[])?;
            observed.at_once(unix_ms, order.lane);
        }
        Fact::Reserved(reserved) if reserved.card.is_none() && is_counted => {
            let order = names.order(unix_ms, &Came::reserved(reserved), &[])?;
            observed.at_once(unix_ms, order.lane);
        }
        Fact::Backordered(waits) => {
            let order = names.order(unix_ms, &Came::waits(waits), &[])?;
            let waiting = Waiting {
                asked: order.asked,
                sku: order.sku,
                lane: order.lane,
                unix_ms,
                is_counted,
            };
            observed.waits(&waiting, table);
        }
        Fact::Retried(retried) => observed.retried(unix_ms, retried),
        Fact::Released(released) => observed.ended(unix_ms, released.order_id),
        Fact::Started { .. } => observed.started(unix_ms),
        _ => {}
    }
    Ok(())
}

#[cfg(all(test, not(any(croupier_loom, croupier_shuttle))))]
mod tests;
