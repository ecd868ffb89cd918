//! One core's view of the table in force and of the one on trial: by which an order is dealt, and where that sends it.

use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};
use croupier_protocol::Priority;

use super::{Asked, Fate, InForce, NoTarget, Resolved, Resolver, RouteCell, Trial, WAYS_MAX};
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
}

impl Router {
    pub fn new(cell: &RouteCell, catalog: &Arc<ArcSwap<Catalog>>) -> Router {
        let mut router = Router {
            newest: Cache::new(cell.0.clone()),
            in_force: Resolver::new(cell.load(), catalog),
            second: None,
            catalog: catalog.clone(),
            unix_ms: 0,
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
            self.second = trial.map(|trial| {
                Box::new(Second {
                    trial: trial.clone(),
                    resolver: Resolver::new(trial.table.clone(), &self.catalog),
                })
            });
        }
        if let Some(second) = &mut self.second {
            let Second { trial, resolver } = &mut **second;
            resolver.look(&trial.table, self.unix_ms);
        }
        self.in_force.look(&newest.table, self.unix_ms)
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

    /// What resolves an order that the table on trial deals; `None`: that in force does.
    #[inline]
    fn second_for(&mut self, id: u128) -> Option<&mut Resolver> {
        match &mut self.second {
            Some(second) if second.trial.deals(id) => Some(&mut second.resolver),
            _ => None,
        }
    }

    /// Which way an order goes, below 1 << [`WAY_BITS`]: orders of a SKU and priority that go the same way are dealt by the same table, and have
    /// the same target.
    #[inline]
    pub fn way(&mut self, asked: &Asked) -> u16 {
        match self.second_for(asked.id) {
            None => self.in_force.way(asked).min(NO_WAY),
            Some(second) => second.way(asked).min(NO_WAY) | ON_TRIAL,
        }
    }

    /// Where orders go that go this way.
    #[inline]
    pub fn target(
        &mut self,
        sku: u32,
        priority: Priority,
        way: u16,
    ) -> Result<&Resolved, NoTarget> {
        match &mut self.second {
            Some(second) if way & ON_TRIAL != 0 => {
                second.resolver.target(sku, priority, way & !ON_TRIAL)
            }
            _ => self.in_force.target(sku, priority, way),
        }
    }

    /// Where an order goes.
    #[inline]
    pub fn resolve(&mut self, asked: &Asked) -> Result<&Resolved, NoTarget> {
        match &mut self.second {
            Some(second) if second.trial.deals(asked.id) => second.resolver.resolve(asked),
            _ => self.in_force.resolve(asked),
        }
    }

    /// Notes that the rule that takes such an order has taken so many.
    pub fn count(&mut self, asked: &Asked, orders: u64) {
        let resolver = match &mut self.second {
            Some(second) if second.trial.deals(asked.id) => &mut second.resolver,
            _ => &mut self.in_force,
        };
        if let Ok(target) = resolver.resolve(asked) {
            let rule = target.rule;
            resolver.count(rule, orders);
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
