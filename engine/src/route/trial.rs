//! A route table on trial: which orders it deals, and what was seen of them and of as many others. The page is docs/canary.md.

use std::sync::Arc;

use arc_swap::ArcSwap;
use crossbeam_queue::ArrayQueue;

use super::RouteTable;
use super::conditions::mix;

/// Hundredths of a per cent: the places that orders are put at.
const PLACES: u64 = 10_000;
/// Apart from the salts of weights and holders: "canary".
const SALT: u64 = 0x6361_6e61_7279;
/// Another, for what is told of an order: "seen".
const SEEN_SALT: u64 = 0x7365_656e;
/// Orders of a core that are seen and not gathered yet; what is more is not measured.
const SIGHTINGS_MAX: usize = 4096;

/// Orders that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Dealt by the table on trial.
    Canary,
    /// As many, dealt by the table in force.
    Baseline,
}

/// What became of an order, as far as a table may be to blame for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It has its cards, or holds them: the time that took for each, in nanoseconds.
    Served { ns: u64 },
    /// As [`Served`](Fate::Served), when it had waited for stock.
    Filled { ns: u64 },
    /// It was refused, or has waited in vain.
    Failed,
}

/// An order that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    pub group: Group,
    /// The order's id, hashed.
    pub id: u64,
    pub fate: Fate,
}

/// A table on trial, for one share of orders.
#[derive(Debug)]
pub struct Trial {
    pub table: Arc<RouteTable>,
    /// Of all orders, in per cent; at most 50.
    pub share: u8,
    /// When that share began, in Unix milliseconds.
    pub since_unix_ms: u64,
    /// What was seen and not gathered yet, by core.
    sightings: Box<[ArrayQueue<Sighting>]>,
}

impl Trial {
    /// That of a table from `since_unix_ms` on, seen by so many cores.
    pub fn new(table: Arc<RouteTable>, share: u8, since_unix_ms: u64, cores: usize) -> Trial {
        let queue = |_| ArrayQueue::new(SIGHTINGS_MAX);
        Trial {
            table,
            share,
            since_unix_ms,
            sightings: (0..cores.max(1)).map(queue).collect(),
        }
    }

    /// The group of an order, if it is in one: of the id alone, and the same for every larger share.
    #[inline]
    pub fn group_of(&self, id: u128) -> Option<Group> {
        let place = mix(id, SALT) % PLACES;
        let border = u64::from(self.share) * PLACES / 100;
        if place < border {
            Some(Group::Canary)
        } else if place >= PLACES - border {
            Some(Group::Baseline)
        } else {
            None
        }
    }

    /// Whether the table on trial deals an order.
    #[inline]
    pub fn deals(&self, id: u128) -> bool {
        self.group_of(id) == Some(Group::Canary)
    }

    /// Notes what became of an order of a group; `core`: who says so. If there is no room, it is left out.
    pub fn saw(&self, core: usize, id: u128, group: Group, fate: Fate) {
        let id = mix(id, SEEN_SALT);
        let queue = &self.sightings[core % self.sightings.len()];
        // Of no matter to anybody: both groups lose alike.
        let _ = queue.push(Sighting { group, id, fate });
    }

    /// Takes what was seen since the last time.
    pub fn gather(&self, mut each: impl FnMut(Sighting)) {
        // What there is before any is taken, and no more. The first core tells of an order that it waits no longer before another one can tell
        // that it was answered: so that comes first here, too.
        let there: Vec<usize> = self.sightings.iter().map(ArrayQueue::len).collect();
        for (queue, there) in self.sightings.iter().zip(there) {
            for seen in std::iter::from_fn(|| queue.pop()).take(there) {
                each(seen);
            }
        }
    }
}

/// What orders are dealt by.
#[derive(Clone, Debug)]
pub struct InForce {
    pub table: Arc<RouteTable>,
    pub trial: Option<Arc<Trial>>,
}

impl InForce {
    /// The table that deals an order.
    #[inline]
    pub fn table_of(&self, id: u128) -> &Arc<RouteTable> {
        match &self.trial {
            Some(trial) if trial.deals(id) => &trial.table,
            _ => &self.table,
        }
    }
}

/// The table in force, and the one on trial: one load gives both.
#[derive(Clone)]
pub struct RouteCell(pub(super) Arc<ArcSwap<InForce>>);

impl RouteCell {
    /// Begins with `table`, and none on trial.
    pub fn new(table: RouteTable) -> RouteCell {
        let table = Arc::new(table);
        RouteCell(Arc::new(ArcSwap::from_pointee(InForce {
            table,
            trial: None,
        })))
    }

    /// Puts another table in force, for orders dealt from now on; none is on trial then.
    pub fn swap(&self, table: Arc<RouteTable>) {
        self.0.store(Arc::new(InForce { table, trial: None }));
    }

    /// Has another trial, or none, beside the table in force. One at a time, and not while a table is swapped.
    pub fn put_on_trial(&self, trial: Option<Arc<Trial>>) {
        let table = self.load();
        self.0.store(Arc::new(InForce { table, trial }));
    }

    /// The table in force.
    pub fn load(&self) -> Arc<RouteTable> {
        self.0.load().table.clone()
    }

    /// Both tables.
    pub fn both(&self) -> Arc<InForce> {
        self.0.load_full()
    }

    /// The table on trial.
    pub fn trial(&self) -> Option<Arc<Trial>> {
        self.0.load().trial.clone()
    }
}
