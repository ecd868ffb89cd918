//! The log of a stopped store, fact by fact, and the names that its numbers stand for. Changes nothing.

use croupier_protocol::Priority;

use super::Recorded;
use crate::checkpoint::{Checkpoint, apply_block};
use crate::error::EngineError;
use crate::route::Asked;
use crate::state::record::{self, Backordered, Fact, Issued, Reserved, Run, Runs, Stamp};
use crate::state::{Catalog, Replay, State, StateSeed};
use crate::store::{BitsOnly, Store};
use crate::wal::segments::segment_path;
use crate::wal::{BlockReader, Position};

/// The log of a store from its oldest block on.
pub(super) struct Log<'s> {
    pub(super) store: &'s Store,
    pub(super) from: Position,
}

impl Log<'_> {
    fn open(&self, from: Position) -> Result<BlockReader, EngineError> {
        let (store, wal) = (self.store, self.store.paths.wal());
        BlockReader::open(store.disk.clone(), &wal, store.store_id, from)
    }

    /// Bytes of its segments, for progress.
    pub(super) fn bytes(&self) -> Result<u64, EngineError> {
        Ok(self.open(self.from)?.bytes_ahead())
    }

    /// Every fact with its LSN, its time in Unix milliseconds and the version of its route table.
    pub(super) fn each(
        &self,
        on: &mut impl FnMut(u64),
        mut visit: impl FnMut(u64, Stamp, &Fact<'_>) -> Result<(), String>,
    ) -> Result<(), EngineError> {
        let mut reader = self.open(self.from)?;
        while let Some(block) = reader.next()? {
            let path = segment_path(&self.store.paths.wal(), block.seq);
            let damaged = |what| EngineError::damage(&path, block.offset, what);
            for placed in record::records(block.body, block.header.first_lsn) {
                let placed = placed.map_err(|(_, what)| damaged(what))?;
                let record = placed.record;
                visit(placed.lsn, record.stamp, &record.fact).map_err(damaged)?;
            }
            on(block.body.len() as u64);
        }
        Ok(())
    }
}

/// The state at the end of the log, without its orders: for the names of SKUs and pools.
pub(super) fn names_of(
    log: &Log<'_>,
    checkpoint: Option<&Checkpoint>,
    on: &mut impl FnMut(u64),
) -> Result<State, EngineError> {
    let seed = checkpoint.map_or(StateSeed::default(), |made| made.orders);
    let state = State::counting(Box::new(BitsOnly), seed);
    if let Some(made) = checkpoint {
        let restored = state.restore(made.snapshot.clone());
        restored.map_err(|unfit| unfit.at(&log.store.paths.current(), 0))?;
    }
    let mut reader = log.open(checkpoint.map_or(Position::START, |made| made.end))?;
    let mut replay = Replay::new(&state);
    while let Some(block) = reader.next()? {
        let path = segment_path(&log.store.paths.wal(), block.seq);
        apply_block(&mut replay, &path, &block, |_, _| Ok(()))?;
        on(block.body.len() as u64);
    }
    drop(replay);
    Ok(state)
}

/// Names of SKUs and pools by their numbers.
pub(super) struct Names {
    /// By SKU − 1: its name, and those of its pools.
    pub(super) skus: Vec<(String, Vec<String>)>,
    /// By slab: the index of its pool.
    pub(super) slabs: Vec<Option<u16>>,
}

impl Names {
    pub(super) fn of(catalog: &Catalog) -> Names {
        let skus = catalog.skus.iter().map(|sku| {
            let pools = sku.pools.load();
            let pools = pools.iter().map(|pool| pool.name.clone());
            (sku.name.clone(), pools.collect())
        });
        let slabs = catalog.slabs.iter();
        let slabs = slabs.map(|slab| Some(slab.as_ref()?.facts.pool));
        Names {
            skus: skus.collect(),
            slabs: slabs.collect(),
        }
    }

    pub(super) fn sku(&self, sku: u32) -> Result<&(String, Vec<String>), String> {
        let found = self.skus.get((sku as usize).wrapping_sub(1));
        found.ok_or_else(|| format!("an order of SKU {sku}, which is not there"))
    }

    pub(super) fn pool_of(&self, slab: u32) -> Result<u16, String> {
        let found = self.slabs.get(slab as usize).copied().flatten();
        found.ok_or_else(|| format!("an order has cards of slab {slab}, which is not there"))
    }

    /// Cards by the index of their pool, from where they lie.
    pub(super) fn pools_of(
        &self,
        runs: Runs<'_>,
        from: &mut Vec<(u16, u64)>,
    ) -> Result<(), String> {
        from.clear();
        for Run { slab, count, .. } in runs.iter() {
            let pool = self.pool_of(slab)?;
            match from.iter_mut().find(|(known, _)| *known == pool) {
                Some((_, cards)) => *cards += u64::from(count),
                None => from.push((pool, count.into())),
            }
        }
        Ok(())
    }

    /// Names of the pools of a SKU, with the cards of each.
    pub(super) fn named(&self, sku: u32, from: &[(u16, u64)]) -> Result<Vec<(&str, u64)>, String> {
        let (_, pools) = self.sku(sku)?;
        let name = |(pool, cards): &(u16, u64)| Some((&pools.get(usize::from(*pool))?[..], *cards));
        Ok(from.iter().filter_map(name).collect())
    }

    /// An order with its names; its cards by pool.
    pub(super) fn order<'a>(
        &'a self,
        unix_ms: u64,
        came: &Came,
        from: &'a [(u16, u64)],
    ) -> Result<Recorded<'a>, String> {
        let (sku, pools) = self.sku(came.sku)?;
        let priority = |number: u8| {
            let known = Priority::try_from(number);
            known.map_err(|_| format!("an order of priority or lane {number}"))
        };
        Ok(Recorded {
            sku,
            asked: Asked {
                id: came.order_id,
                holder: came.holder,
                sku: came.sku,
                priority: priority(came.priority)?,
                quantity: came.cards.saturating_add(came.fewer),
                tag: came.tag,
            },
            unix_ms,
            cards: came.cards.into(),
            lane: priority(came.lane)?,
            pools,
            from,
        })
    }
}

/// Cards of a hold by the index of their pool.
pub(super) fn pools_of_hold(reserved: &Reserved, from: &mut Vec<(u16, u64)>) {
    from.clear();
    let credits = reserved.credits.iter();
    from.extend(credits.map(|(pool, cards)| (pool, u64::from(cards))));
}

/// What the records of all kinds say of an order, in one form.
pub(super) struct Came {
    order_id: u128,
    holder: u128,
    sku: u32,
    /// Cards that it got, was promised or waits for.
    cards: u16,
    /// How many more it asked for.
    fewer: u16,
    priority: u8,
    lane: u8,
    tag: u16,
}

impl Came {
    pub(super) fn issued(issued: &Issued<'_>) -> Came {
        Came {
            order_id: issued.order_id,
            holder: issued.holder,
            sku: issued.sku,
            cards: issued.quantity,
            fewer: issued.fewer,
            priority: issued.priority,
            lane: issued.lane,
            // The record tells none.
            tag: 0,
        }
    }

    pub(super) fn reserved(reserved: &Reserved) -> Came {
        Came {
            order_id: reserved.order_id,
            holder: reserved.holder,
            sku: reserved.sku,
            cards: reserved.quantity,
            fewer: reserved.fewer,
            priority: reserved.priority,
            lane: reserved.lane,
            // The record tells none.
            tag: 0,
        }
    }

    pub(super) fn waits(waits: &Backordered) -> Came {
        Came {
            order_id: waits.order_id,
            holder: waits.holder,
            sku: waits.sku,
            cards: waits.quantity,
            fewer: 0,
            priority: waits.priority,
            lane: waits.lane,
            tag: waits.tag,
        }
    }
}
