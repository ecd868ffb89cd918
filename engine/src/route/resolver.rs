//! One core's view of a route table and the catalog.
//!
//! A *path* is a rule, and which channel of each of its stages is asked first. Paths of a SKU and priority that come to the same
//! pools in the same order are one *way*: a dealer deals orders that go one way together, whichever rules have taken them.

use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};
use croupier_protocol::Priority;

use super::conditions::OfKinds;
use super::{Asked, Moment, RouteTable};
use crate::state::{Catalog, Pool};

/// Where orders go that go one way, with its pools found.
#[derive(Clone)]
pub struct Resolved {
    pub pools: Arc<[Arc<Pool>]>,
    /// Most time in ms that an order which finds no stock is accepted for; 0: it is not.
    pub accepts_ms: u64,
}

impl Resolved {
    /// Whether it is all the same to an order which of the two it is dealt by.
    fn is_same(&self, other: &Resolved) -> bool {
        let pairs = || self.pools.iter().zip(other.pools.iter());
        self.accepts_ms == other.accepts_ms
            && self.pools.len() == other.pools.len()
            && pairs().all(|(one, other)| Arc::ptr_eq(one, other))
    }
}

/// Why an order has no place to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTarget {
    UnknownSku,
    NoRoute,
}

/// Which way an order goes, and by which rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    pub way: u16,
    /// Number of the rule, from 0. Where SKU, priority and the moment alone decide, nobody has looked.
    pub rule: u16,
}

impl Taken {
    /// By none: no rule takes it, or there is no such SKU.
    const NONE: Taken = Taken {
        way: u16::MAX,
        rule: 0,
    };
}

/// A rule that may take orders of a SKU and priority.
struct Taker {
    rule: u16,
    /// Number of the first of its paths.
    first: u16,
    lane: Priority,
    kinds: OfKinds,
}

/// A path that was not looked up yet.
const NOT_FOUND: u16 = u16::MAX;

/// What orders of a SKU and priority can come to, just now.
struct Ways {
    /// In the order in which they are asked; the last may be one that takes them all.
    takers: Box<[Taker]>,
    /// By path: which of `found` it is.
    way_of: Box<[u16]>,
    /// By way.
    found: Vec<Resolved>,
    /// The lane, if it is the same whichever rule takes an order, and if none does.
    lane: Option<Priority>,
}

impl Ways {
    /// The first rule that takes an order.
    #[inline]
    fn taker(&self, table: &RouteTable, asked: &Asked) -> Option<&Taker> {
        let kind = asked.kind();
        // Most orders are of a kind that decides.
        let holds = |taker: &&Taker| {
            let all = || taker.kinds.all & kind != 0;
            let this = || table.rules[usize::from(taker.rule)].of_order.holds(asked);
            taker.kinds.may & kind != 0 && (all() || this())
        };
        self.takers.iter().find(holds)
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
    /// See [`numbering`](Self::numbering).
    numbering: u64,
    /// Orders of this turn, by the table's rule.
    counts: Vec<u32>,
    /// Rules that have any.
    counted: Vec<u16>,
}

impl Resolver {
    pub fn new(table: Arc<RouteTable>, catalog: &Arc<ArcSwap<Catalog>>) -> Resolver {
        Resolver {
            catalog: Cache::new(catalog.clone()),
            table,
            catalog_version: 0,
            moment: Moment::default(),
            found: Vec::new(),
            numbering: 0,
            counts: Vec::new(),
            counted: Vec::new(),
        }
    }

    /// Looks whether table, catalog or what rules ask of the moment have changed; once per turn. Returns the table's version.
    pub fn look(&mut self, newest: &Arc<RouteTable>, unix_ms: u64) -> u32 {
        let catalog_version = self.catalog.load().version;
        // Tables that have times are asked by the minute.
        let moment = newest.moment(unix_ms / MINUTE_MS * MINUTE_MS);
        let is_same = Arc::ptr_eq(newest, &self.table);
        if !is_same || (self.catalog_version, self.moment) != (catalog_version, moment) {
            // Where all orders of a SKU and priority go one way, that is number 0 in every such table.
            if !(newest.is_plain && self.table.is_plain) {
                self.numbering += 1;
            }
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

    /// Changes whenever ways get other numbers: what was put by under a number is to be asked for anew then.
    pub fn numbering(&self) -> u64 {
        self.numbering
    }

    /// Which lane an order waits in.
    #[inline]
    pub fn lane(&mut self, asked: &Asked) -> Result<Priority, NoTarget> {
        let Some(ways) = known(&self.found, asked.sku, asked.priority) else {
            self.learn(asked.sku, asked.priority)?;
            return self.lane(asked);
        };
        if let Some(lane) = ways.lane {
            return Ok(lane);
        }
        let taker = ways.taker(&self.table, asked);
        taker.map(|taker| taker.lane).ok_or(NoTarget::NoRoute)
    }

    /// Whether it takes [`Taken::rule`] to know which rule has taken an order: else it is that of all orders that go the same way.
    pub fn has_rules(&self) -> bool {
        !self.table.is_plain && self.table.rules.len() > 1
    }

    /// Which way an order goes: orders of a SKU and priority that go the same way come to the same
    /// [`Resolved`](Self::resolve).
    #[inline]
    pub fn way(&mut self, asked: &Asked) -> Taken {
        match self.table.is_plain {
            true => Taken::default(),
            false => self.look_for_way(asked).unwrap_or(Taken::NONE),
        }
    }

    fn look_for_way(&mut self, asked: &Asked) -> Result<Taken, NoTarget> {
        let Some(ways) = known(&self.found, asked.sku, asked.priority) else {
            self.learn(asked.sku, asked.priority)?;
            return self.look_for_way(asked);
        };
        let taker = ways.taker(&self.table, asked);
        let &Taker { rule, first, .. } = taker.ok_or(NoTarget::NoRoute)?;
        let nth = self.table.rules[usize::from(rule)].way_of(asked.id);
        let way = match ways.way_of[usize::from(first) + nth] {
            NOT_FOUND => self.find(asked.sku, asked.priority, (rule, first), nth)?,
            way => way,
        };
        Ok(Taken { way, rule })
    }

    /// Where an order goes.
    #[inline]
    pub fn resolve(&mut self, asked: &Asked) -> Result<&Resolved, NoTarget> {
        let way = self.look_for_way(asked)?.way;
        self.found_as(asked.sku, asked.priority, way)
            .ok_or(NoTarget::NoRoute)
    }

    /// Where orders go that go this way, which [`way`](Self::way) has told since ways have got their numbers; `None`: nowhere.
    pub fn resolved(&mut self, sku: u32, priority: Priority, way: u16) -> Option<&Resolved> {
        if self.table.is_plain {
            // Nobody need have asked before: any order will do.
            let asked = Asked {
                id: 0,
                holder: 0,
                sku,
                priority,
                quantity: 1,
                tag: 0,
            };
            self.look_for_way(&asked).ok()?;
        }
        self.found_as(sku, priority, way)
    }

    fn found_as(&self, sku: u32, priority: Priority, way: u16) -> Option<&Resolved> {
        let ways = known(&self.found, sku, priority)?;
        ways.found.get(usize::from(way))
    }

    /// Notes that a rule has taken so many orders of this turn.
    #[inline]
    pub fn count(&mut self, rule: u16, orders: u32) {
        let at = usize::from(rule);
        if self.counts.len() <= at {
            self.counts.resize(self.table.rules.len(), 0);
        }
        if self.counts[at] == 0 {
            self.counted.push(rule);
        }
        self.counts[at] += orders;
    }

    /// As [`count`](Self::count), of the rule that takes such orders, if one does.
    pub fn count_like(&mut self, asked: &Asked, orders: u32) {
        if let Ok(taken) = self.look_for_way(asked) {
            self.count(taken.rule, orders);
        }
    }

    /// Tells the table what was counted: at the end of a turn, before another table is looked for.
    pub fn tell_counts(&mut self) {
        for rule in self.counted.drain(..) {
            let rule = usize::from(rule);
            let orders = std::mem::take(&mut self.counts[rule]);
            self.table.count(rule, orders.into());
        }
    }

    /// Looks a path up, the `nth` of a rule whose first has that number; tells which way it is.
    #[cold]
    fn find(
        &mut self,
        sku: u32,
        priority: Priority,
        (rule, first): (u16, u16),
        nth: usize,
    ) -> Result<u16, NoTarget> {
        let target = self
            .table
            .target(usize::from(rule), nth, priority, self.moment);
        let catalog = self.catalog.load();
        let name = &catalog.sku(sku).ok_or(NoTarget::UnknownSku)?.name;
        let accepts_ms = self.table.accepts_ms(usize::from(rule), name, self.moment);
        let pools = pools_of(catalog, sku, target.pools);
        let found = Resolved {
            pools: pools.ok_or(NoTarget::UnknownSku)?,
            accepts_ms,
        };
        let ways = self.found[sku as usize - 1][priority.as_index()].as_mut();
        let ways = ways.ok_or(NoTarget::NoRoute)?;
        let known = ways.found.iter().position(|known| known.is_same(&found));
        let way = known.unwrap_or_else(|| {
            ways.found.push(found);
            ways.found.len() - 1
        });
        // No more than there are paths.
        ways.way_of[usize::from(first) + nth] = way as u16;
        Ok(way as u16)
    }

    /// Finds out which rules may take orders of a SKU and priority.
    #[cold]
    fn learn(&mut self, sku: u32, priority: Priority) -> Result<(), NoTarget> {
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
    let mut takers = Vec::new();
    let all = table.rules.iter().enumerate();
    let (mut paths, mut takes_all) = (0, false);
    for (at, rule) in all.filter(|(_, rule)| rule.may_take(sku, priority, moment)) {
        // Rules and paths of a table are few enough.
        takers.push(Taker {
            rule: at as u16,
            first: paths as u16,
            lane: rule.lane.unwrap_or(priority),
            kinds: rule.of_order.of_kinds(),
        });
        paths += rule.ways();
        takes_all = rule.of_order.is_any();
        if takes_all {
            break;
        }
    }
    // An order that no rule takes waits where its priority says.
    let lane = takers.first().map_or(priority, |taker| taker.lane);
    let is_one = takers.iter().all(|taker| taker.lane == lane);
    Ways {
        takers: takers.into(),
        way_of: vec![NOT_FOUND; paths].into(),
        found: Vec::new(),
        lane: (is_one && (lane == priority || takes_all)).then_some(lane),
    }
}

/// The pools of these names that a SKU has, in the order of the names; all of them without names.
fn pools_of(catalog: &Catalog, sku: u32, names: Option<Vec<String>>) -> Option<Arc<[Arc<Pool>]>> {
    let known = catalog.sku(sku)?.pools.load();
    let Some(names) = names else {
        return Some(known.iter().cloned().collect());
    };
    let found = |name: &String| known.iter().find(|pool| pool.name == *name).cloned();
    Some(names.iter().filter_map(found).collect())
}
