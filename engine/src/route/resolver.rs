//! One core's view of a route table and the catalog.

use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};
use croupier_protocol::Priority;

use super::{Asked, Moment, RouteTable, Target};
use crate::state::{Catalog, Pool};

/// A target with its pools found.
#[derive(Clone)]
pub struct Resolved {
    pub lane: Priority,
    pub pools: Arc<[Arc<Pool>]>,
    /// Number of the rule, from 0.
    pub rule: usize,
}

/// Why an order has no place to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTarget {
    UnknownSku,
    NoRoute,
}

/// No rule takes it.
const NO_WAY: u16 = u16::MAX;

/// What orders of a SKU and priority can come to, just now.
#[derive(Default)]
struct Ways {
    /// Rules that may take them, each with its first way; the last may be one that takes them all.
    rules: Vec<(usize, u16)>,
    /// What was looked up of their ways, by way: those that orders go.
    found: Vec<(u16, Resolved)>,
}

impl Ways {
    /// Where a way is among those that were looked up, or would be.
    #[inline]
    fn at(&self, way: u16) -> Result<usize, usize> {
        self.found.binary_search_by_key(&way, |(way, _)| *way)
    }
}

/// What each SKU and priority resolves to, found once per table, catalog and moment.
pub struct Resolver {
    catalog: Cache<Arc<ArcSwap<Catalog>>, Arc<Catalog>>,
    /// As of the last look, until the next one: ways are its.
    table: Arc<RouteTable>,
    catalog_version: u64,
    moment: Moment,
    /// By SKU − 1 and priority. `None`: not looked at yet.
    found: Vec<[Option<Ways>; 4]>,
}

impl Resolver {
    pub fn new(table: Arc<RouteTable>, catalog: &Arc<ArcSwap<Catalog>>) -> Resolver {
        Resolver {
            catalog: Cache::new(catalog.clone()),
            table,
            catalog_version: 0,
            moment: Moment::default(),
            found: Vec::new(),
        }
    }

    /// Looks whether table, catalog or what rules ask of the moment have changed; once per turn. Returns the table's version.
    pub fn look(&mut self, newest: &Arc<RouteTable>, unix_ms: u64) -> u32 {
        let catalog_version = self.catalog.load().version;
        // Tables that have times are asked by the minute.
        let moment = newest.moment(unix_ms / MINUTE_MS * MINUTE_MS);
        let is_same = Arc::ptr_eq(newest, &self.table);
        if !is_same || (self.catalog_version, self.moment) != (catalog_version, moment) {
            if !is_same {
                self.table = newest.clone();
            }
            (self.catalog_version, self.moment) = (catalog_version, moment);
            self.found.clear();
        }
        self.table.version()
    }

    /// The catalog as of the last refresh or later.
    pub fn catalog(&mut self) -> &Arc<Catalog> {
        self.catalog.load()
    }

    /// Which way an order goes: orders of a SKU and priority that go the same way have the same [`target`](Self::target).
    #[inline]
    pub fn way(&mut self, asked: &Asked) -> u16 {
        match self.table.is_plain {
            true => 0,
            false => self.look_for_way(asked),
        }
    }

    fn look_for_way(&mut self, asked: &Asked) -> u16 {
        if self.learn(asked.sku, asked.priority).is_err() {
            return NO_WAY;
        }
        let ways = known(&self.found, asked.sku, asked.priority);
        let rules = ways.into_iter().flat_map(|ways| &ways.rules);
        let mut all = rules.map(|&(rule, first)| (&self.table.rules[rule], first));
        let taken = all.find(|(rule, _)| rule.of_order.holds(asked));
        taken.map_or(NO_WAY, |(rule, first)| first + rule.way_of(asked.id) as u16)
    }

    /// Where orders go that go this way.
    #[inline]
    pub fn target(
        &mut self,
        sku: u32,
        priority: Priority,
        way: u16,
    ) -> Result<&Resolved, NoTarget> {
        let at = known(&self.found, sku, priority).and_then(|ways| ways.at(way).ok());
        let at = match at {
            Some(at) => at,
            None => self.find(sku, priority, way)?,
        };
        let ways = known(&self.found, sku, priority);
        let found = ways.and_then(|ways| ways.found.get(at));
        found.map(|(_, found)| found).ok_or(NoTarget::NoRoute)
    }

    /// Where an order goes.
    #[inline]
    pub fn resolve(&mut self, asked: &Asked) -> Result<&Resolved, NoTarget> {
        let way = self.way(asked);
        self.target(asked.sku, asked.priority, way)
    }

    /// Notes that a rule has taken so many orders.
    pub fn count(&self, rule: usize, orders: u64) {
        self.table.count(rule, orders);
    }

    /// Looks a way up; tells where among those of the SKU and priority it is then.
    #[cold]
    fn find(&mut self, sku: u32, priority: Priority, way: u16) -> Result<usize, NoTarget> {
        self.learn(sku, priority)?;
        let slot = &mut self.found[sku as usize - 1][priority.as_index()];
        let ways = slot.as_mut().ok_or(NoTarget::NoRoute)?;
        let rule = ways.rules.iter().rev().find(|(_, first)| *first <= way);
        let &(rule, first) = rule.ok_or(NoTarget::NoRoute)?;
        let nth = usize::from(way - first);
        if nth >= self.table.rules[rule].ways() {
            return Err(NoTarget::NoRoute);
        }
        let target = self.table.target(rule, nth, priority, self.moment);
        let found = resolved(self.catalog.load(), sku, target).ok_or(NoTarget::UnknownSku)?;
        match ways.at(way) {
            Ok(at) => Ok(at),
            Err(at) => {
                ways.found.insert(at, (way, found));
                Ok(at)
            }
        }
    }

    /// Finds out which rules may take orders of a SKU and priority, unless that is known.
    fn learn(&mut self, sku: u32, priority: Priority) -> Result<(), NoTarget> {
        if known(&self.found, sku, priority).is_some() {
            return Ok(());
        }
        let catalog = self.catalog.load();
        let state = catalog.sku(sku).ok_or(NoTarget::UnknownSku)?;
        let ways = ways_of(&self.table, &state.name, priority, self.moment);
        let index = sku as usize - 1;
        if self.found.len() <= index {
            self.found.resize_with(index + 1, Default::default);
        }
        self.found[index][priority.as_index()] = Some(ways);
        Ok(())
    }
}

const MINUTE_MS: u64 = 60_000;

#[inline]
fn known(found: &[[Option<Ways>; 4]], sku: u32, priority: Priority) -> Option<&Ways> {
    let all = found.get((sku as usize).wrapping_sub(1))?;
    all[priority.as_index()].as_ref()
}

/// The rules that may take orders of this SKU and priority, as far as one takes all of them.
fn ways_of(table: &RouteTable, sku: &str, priority: Priority, moment: Moment) -> Ways {
    let mut ways = Ways::default();
    let all = table.rules.iter().enumerate();
    let mut first = 0;
    for (at, rule) in all.filter(|(_, rule)| rule.may_take(sku, priority, moment)) {
        // All ways of a table are few enough.
        ways.rules.push((at, first as u16));
        first += rule.ways();
        if rule.of_order.is_any() {
            break;
        }
    }
    ways
}

fn resolved(catalog: &Catalog, sku: u32, target: Target) -> Option<Resolved> {
    let known = catalog.sku(sku)?.pools.load();
    let pools = match target.pools {
        None => known.iter().cloned().collect(),
        Some(names) => names
            .iter()
            .filter_map(|name| known.iter().find(|pool| pool.name == *name).cloned())
            .collect(),
    };
    Some(Resolved {
        lane: target.lane,
        pools,
        rule: target.rule,
    })
}
