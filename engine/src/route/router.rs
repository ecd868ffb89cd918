//! One core's view of the table in force and of the one on trial: by which an order is dealt, and where that sends it.

use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};
use croupier_protocol::Priority;

use super::{
    Asked, Fate, InForce, NoTarget, Resolved, Resolver, RouteCell, Taken, Trial, WAYS_MAX,
};
use crate::state::Catalog;
use crate::state::record::Stamp;

/// Added to the ways of the table on trial: above all ways of the table in force, and of none.
const ON_TRIAL: u16 = 1 << 12;
/// No rule takes an order.
const NO_WAY: u16 = ON_TRIAL - 1;
const _: () = assert!(WAYS_MAX <= NO_WAY as usize, "each way has a number");
/// Ways are below this: a dealer groups orders by them.
pub const WAY_BITS: u32 = 13;

/// A trial as a core sees it, with what its table resolves to.
struct Second {
    trial: Arc<Trial>,
    resolver: Resolver,
}

/// Which table deals an order, and what that resolves to.
pub struct Router {
    newest: Cache<Arc<ArcSwap<InForce>>, Arc<InForce>>,
    in_force: Resolver,
    second: Option<Box<Second>>,
    catalog: Arc<ArcSwap<Catalog>>,
    unix_ms: u64,
    /// See [`numbering`](Self::numbering).
    numbering: u64,
}

impl Router {
    pub fn new(cell: &RouteCell, catalog: &Arc<ArcSwap<Catalog>>) -> Router {
        let mut router = Router {
            newest: Cache::new(cell.0.clone()),
            in_force: Resolver::new(cell.load(), catalog),
            second: None,
            catalog: catalog.clone(),
            unix_ms: 0,
            numbering: 0,
        };
        router.look();
        router
    }

    /// Looks whether tables, catalog or what rules ask of the moment have changed; once per turn. Returns the version in force.
    pub fn refresh(&mut self, unix_ms: u64) -> u32 {
        self.unix_ms = unix_ms;
        self.look()
    }

    /// As [`refresh`](Self::refresh), at the time of the last one.
    pub fn look(&mut self) -> u32 {
        let newest = self.newest.load();
        let trial = newest.trial.as_ref();
        let is_same = match (trial, &self.second) {
            (None, None) => true,
            (Some(new), Some(old)) => Arc::ptr_eq(new, &old.trial),
            _ => false,
        };
        if !is_same {
            // Other orders are dealt by the table on trial now.
            self.numbering += 1;
            self.second = trial.map(|trial| {
                Box::new(Second {
                    trial: trial.clone(),
                    resolver: Resolver::new(trial.table.clone(), &self.catalog),
                })
            });
        }
        if let Some(second) = &mut self.second {
            let Second { trial, resolver } = &mut **second;
            let before = resolver.numbering();
            resolver.look(&trial.table, self.unix_ms);
            self.numbering += resolver.numbering() - before;
        }
        let before = self.in_force.numbering();
        let version = self.in_force.look(&newest.table, self.unix_ms);
        self.numbering += self.in_force.numbering() - before;
        version
    }

    /// The catalog as of the last refresh or later.
    pub fn catalog(&mut self) -> &Arc<Catalog> {
        self.in_force.catalog()
    }

    /// The trial as of the last look.
    #[inline]
    pub fn trial(&self) -> Option<&Arc<Trial>> {
        self.second.as_ref().map(|second| &second.trial)
    }

    /// Changes whenever ways of either table get other numbers, and when other orders are dealt by the one on trial: what was put by
    /// under a number is to be asked for anew then.
    pub fn numbering(&self) -> u64 {
        self.numbering
    }

    /// What resolves an order that the table on trial deals; `None`: that in force does.
    #[inline]
    fn second_for(&mut self, id: u128) -> Option<&mut Resolver> {
        match &mut self.second {
            Some(second) if second.trial.deals(id) => Some(&mut second.resolver),
            _ => None,
        }
    }

    /// What resolves an order.
    #[inline]
    fn resolver_of(&mut self, id: u128) -> &mut Resolver {
        match &mut self.second {
            Some(second) if second.trial.deals(id) => &mut second.resolver,
            _ => &mut self.in_force,
        }
    }

    /// Which lane an order waits in.
    #[inline]
    pub fn lane(&mut self, asked: &Asked) -> Result<Priority, NoTarget> {
        self.resolver_of(asked.id).lane(asked)
    }

    /// Whether it takes [`Taken::rule`] to know which rule of its table has taken an order: else it is that of all orders that go the
    /// same way.
    pub fn has_rules(&self) -> bool {
        let second = self.second.as_ref();
        self.in_force.has_rules() || second.is_some_and(|second| second.resolver.has_rules())
    }

    /// Which way an order goes, below 1 << [`WAY_BITS`], and by which rule of its table: orders of a SKU and priority that go the same way
    /// are dealt by the same table, and come to the same [`Resolved`](Self::resolve).
    #[inline]
    pub fn way(&mut self, asked: &Asked) -> Taken {
        let (taken, table) = match self.second_for(asked.id) {
            None => (self.in_force.way(asked), 0),
            Some(second) => (second.way(asked), ON_TRIAL),
        };
        Taken {
            way: taken.way.min(NO_WAY) | table,
            ..taken
        }
    }

    /// Where an order goes.
    #[inline]
    pub fn resolve(&mut self, asked: &Asked) -> Result<&Resolved, NoTarget> {
        self.resolver_of(asked.id).resolve(asked)
    }

    /// Where orders go that go this way, which [`way`](Self::way) has told since ways have got their numbers; `None`: nowhere.
    pub fn resolved(&mut self, sku: u32, priority: Priority, way: u16) -> Option<&Resolved> {
        let resolver = match way & ON_TRIAL {
            0 => &mut self.in_force,
            _ => &mut self.second.as_mut()?.resolver,
        };
        resolver.resolved(sku, priority, way & !ON_TRIAL)
    }

    /// Notes an order of this turn, whose rule [`way`](Self::way) has told.
    #[inline]
    pub fn count(&mut self, asked: &Asked, rule: u16) {
        let resolver = self.resolver_of(asked.id);
        match resolver.has_rules() {
            true => resolver.count(rule, 1),
            // Nobody has looked which it is.
            false => resolver.count_like(asked, 1),
        }
    }

    /// Notes so many orders of this turn that go the same way as this one, by the rule that takes it, if one does.
    pub fn count_like(&mut self, asked: &Asked, orders: u32) {
        self.resolver_of(asked.id).count_like(asked, orders);
    }

    /// Tells the tables what was counted: at the end of a turn, before others are looked for.
    pub fn tell_counts(&mut self) {
        self.in_force.tell_counts();
        if let Some(second) = &mut self.second {
            second.resolver.tell_counts();
        }
    }

    /// The stamp of an order's record, which is `stamp` but for the table that deals it.
    #[inline]
    pub fn stamp_of(&self, stamp: Stamp, id: u128) -> Stamp {
        match &self.second {
            Some(second) if second.trial.deals(id) => Stamp {
                route_table: second.trial.table.version(),
                ..stamp
            },
            _ => stamp,
        }
    }

    /// An order waits for stock no longer: it has `cards` cards, or none in the end. `since_ms`: when it began to wait.
    #[inline]
    pub fn waited(&self, id: u128, since_ms: u64, now_ms: u64, cards: u16) {
        if let Some(second) = &self.second {
            let trial = &second.trial;
            // What was before is another table's, or another step's.
            let is_of_step = since_ms >= trial.since_unix_ms;
            if let Some(group) = trial.group_of(id).filter(|_| is_of_step) {
                let ns = now_ms.saturating_sub(since_ms).saturating_mul(1_000_000);
                let fate = match u64::from(cards) {
                    0 => Fate::Failed,
                    cards => Fate::Filled { ns: ns / cards },
                };
                trial.saw(0, id, group, fate);
            }
        }
    }
}
