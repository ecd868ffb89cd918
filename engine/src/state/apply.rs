//! The state and the one function that changes it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use croupier_protocol::planted::{self, Bug};

use super::canary::Canaries;
use super::catalog::{Batch, Catalog, NEVER, Pool, SkuState, SlabFacts, SlabSource, SlabState};
use super::channels::{Change, Channels, Known};
use super::held::HeldFact;
use super::holders::{Holders, Share};
use super::index::{IndexView, OrderIndex, OrderState, Place, Settled, Spread};
use super::line::{Desk, Line};
use super::moved::{SlabMarks, marks_of, restore_marks, take_moved};
use super::record::{Ended, Fact, Issued, Record, Run, SkuSet, Way};
use super::replay::Hand;
use super::reused::body_of;
use super::routes::{RouteTables, TableFact};
use super::selection::settings_of;
use crate::error::EngineError;
use crate::slab::{Grown, claim};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// What a dealer has taken in memory before the record was written (DESIGN, rule 2): the order's place in the index, and
/// with it the credits and claim bits of the cards that the record names.
pub struct Promise {
    pub place: Place,
    /// The row of the index that the order gets.
    pub row: u64,
}

/// The part that only cold paths touch.
#[derive(Default)]
pub struct Ledger {
    pub batches: BTreeMap<u32, Batch>,
    /// Slabs whose batch is not sealed yet.
    pub unsealed: Vec<SlabFacts>,
    pub routes: RouteTables,
    pub channels: Channels,
    pub canaries: Canaries,
    pub epoch: u64,
    pub(super) names: HashMap<String, u32>,
    pools: u32,
    pub slab_max: u32,
    pub batch_max: u32,
}

/// Ended orders as a number and the sum of their digests (see docs/checkpoint-format.md).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateSeed {
    pub orders: u64,
    pub orders_sum: u128,
}

/// Orders as a checkpoint needs them.
#[derive(Default)]
pub(super) struct Counted {
    pub ended: StateSeed,
    pub held: HashMap<u128, HeldFact>,
}

/// How a state keeps orders.
pub(super) enum Orders {
    /// Each by its id: a store that serves, or is verified.
    Indexed,
    /// Those that hold cards by their ids, and of all others only their number and sum: a checkpoint, whose older orders are
    /// not read.
    Counted(Mutex<Counted>),
}

/// Everything the store knows.
pub struct State {
    pub catalog: Arc<ArcSwap<Catalog>>,
    pub index: Arc<OrderIndex>,
    /// Where orders that wait for stock are filled.
    pub desk: Arc<Desk>,
    /// For whom orders are. Of a state that only counts its orders, nothing.
    pub holders: Holders,
    pub(super) orders: Orders,
    /// Cards are dealt from here: in the order that is set for each SKU.
    pub(super) arranges: AtomicBool,
    ledger: Mutex<Ledger>,
    source: Box<dyn SlabSource>,
}

/// Why a fact cannot become part of a state.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// It contradicts what is known: whoever wrote it did not write this.
    #[error("{0}")]
    Contradiction(String),
    /// What it names could not be read just now.
    #[error(transparent)]
    NotRead(EngineError),
}

impl From<String> for Unfit {
    fn from(what: String) -> Unfit {
        Unfit::Contradiction(what)
    }
}

impl From<&str> for Unfit {
    fn from(what: &str) -> Unfit {
        Unfit::Contradiction(what.into())
    }
}

impl Unfit {
    /// As an error of the file that says so: a contradiction is damage there, a file that cannot be read is not.
    pub fn at(self, path: &Path, offset: u64) -> EngineError {
        match self {
            Unfit::Contradiction(what) => EngineError::damage(path, offset, what),
            Unfit::NotRead(error) => error,
        }
    }
}

impl Drop for State {
    /// Slabs know their pool, and it knows them: without this they would stay for ever.
    fn drop(&mut self) {
        for sku in &self.catalog.load().skus {
            for pool in sku.pools.load().iter() {
                pool.slabs.store(Arc::default());
            }
        }
    }
}

impl State {
    /// An empty state that knows its orders by id. `orders`: how many to expect; `spread` is that of the index.
    pub fn new(source: Box<dyn SlabSource>, orders: u64, spread: Spread) -> State {
        State::with(source, Orders::Indexed, OrderIndex::new(orders, spread))
    }

    /// An empty state that only counts its orders, on top of `seed`. It cannot tell an order that is dealt twice.
    pub fn counting(source: Box<dyn SlabSource>, seed: StateSeed) -> State {
        State::with(
            source,
            Orders::Counted(Mutex::new(Counted {
                ended: seed,
                held: HashMap::new(),
            })),
            // Never asked.
            OrderIndex::new(
                0,
                Spread {
                    seed: [1, 1],
                    shards: 1,
                },
            ),
        )
    }

    fn with(source: Box<dyn SlabSource>, orders: Orders, index: OrderIndex) -> State {
        State {
            catalog: Arc::default(),
            desk: Arc::default(),
            holders: Holders::default(),
            index: Arc::new(index),
            orders,
            arranges: AtomicBool::new(false),
            ledger: Mutex::default(),
            source,
        }
    }

    /// The cold part.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("no one panics with this lock")
    }

    /// A SKU by name.
    pub fn sku_by_name(&self, name: &str) -> Option<u32> {
        self.ledger().names.get(name).copied()
    }

    /// The fact at `lsn` becomes part of the state. The only way to change it: live, in recovery and in checkpoints.
    ///
    /// For an order this takes the cards and the place in the index, and finds a card that goes to two orders or an order
    /// that is dealt twice. A dealer has taken them before it wrote the record, so it goes on from there:
    /// [`apply_issued`](Self::apply_issued). The error says what in the record cannot be.
    pub fn apply(&self, lsn: u64, record: &Record<'_>, hand: &mut Hand) -> Result<(), Unfit> {
        let unix_ms = if planted::is(Bug::ForgetHolderOnReplay) {
            0
        } else {
            record.stamp.unix_ms
        };
        match &record.fact {
            Fact::Issued(issued) if matches!(issued.way, Way::Issue | Way::Part) => {
                take_cards(hand.catalog(), issued)?;
                match &self.orders {
                    Orders::Indexed => self
                        .place_order(lsn, unix_ms, issued, hand)
                        .ok_or("an order is dealt twice")?,
                    Orders::Counted(counted) => {
                        if !(planted::is(Bug::FoldForgets) && issued.quantity > 2) {
                            lock(counted).ended.add(lsn, &Ended::Issued(*issued));
                        }
                    }
                }
                Ok(())
            }
            Fact::Issued(issued) if issued.way == Way::Filled => {
                Ok(self.replay_filled(lsn, unix_ms, issued, hand)?)
            }
            Fact::Issued(issued) => Ok(self.replay_commit(lsn, unix_ms, issued, hand)?),
            Fact::Backordered(backordered) => {
                Ok(self.replay_backordered(lsn, record.stamp, backordered, hand)?)
            }
            Fact::Retried(retried) => Ok(self.replay_retried(retried, hand)?),
            Fact::Reserved(reserved) => {
                Ok(self.replay_reserved(lsn, record.stamp, reserved, hand)?)
            }
            Fact::Extended(extended) => {
                Ok(self.replay_extended(lsn, record.stamp, extended, hand)?)
            }
            Fact::Released(released) => Ok(self.replay_released(lsn, released, hand)?),
            Fact::Started { epoch, .. } => {
                self.ledger().epoch = *epoch;
                Ok(())
            }
            Fact::SkuCreated { sku, name } => Ok(self.apply_sku(*sku, name)?),
            Fact::SkuSet(set) => Ok(self.apply_settings(set)?),
            Fact::SlabAdded {
                slab,
                sku,
                batch,
                pool,
                cards,
                class_bytes,
                header_hash,
                grows,
            } => {
                let facts = SlabFacts {
                    slab: *slab,
                    sku: *sku,
                    batch: *batch,
                    pool: *pool,
                    cards: *cards,
                    class_bytes: *class_bytes,
                    header_hash: *header_hash,
                    view: None,
                    grown: grows.then(Grown::default),
                };
                let mut ledger = self.ledger();
                ledger.slab_max = ledger.slab_max.max(*slab);
                ledger.batch_max = ledger.batch_max.max(*batch);
                ledger.unsealed.push(facts);
                Ok(())
            }
            Fact::SlabReused(reused) => self.apply_reused(reused),
            Fact::CardsAdded(added) => Ok(self.apply_added(added)?),
            Fact::BatchSealed {
                batch,
                sku,
                pool,
                cards,
                slabs,
                label,
                pool_name,
            } => {
                let sealed = Batch {
                    batch: *batch,
                    sku: *sku,
                    pool: *pool,
                    cards: *cards,
                    label: (*label).into(),
                    sealed_unix_ms: record.stamp.unix_ms,
                };
                self.apply_batch(sealed, *slabs, pool_name)
            }
            Fact::CardsMoved(moved) => {
                take_moved(hand.catalog(), moved)?;
                self.apply_moved(moved);
                Ok(())
            }
            Fact::RoutesLoaded { version, toml } => {
                let table = TableFact {
                    version: *version,
                    lsn,
                    unix_ms: record.stamp.unix_ms,
                    toml: (*toml).into(),
                };
                let mut ledger = self.ledger();
                ledger.canaries.allow(*version)?;
                Ok(ledger.routes.put(table)?)
            }
            Fact::Canary(fact) => {
                let mut ledger = self.ledger();
                let in_force = ledger.routes.version();
                let when = (lsn, record.stamp.unix_ms);
                match ledger.canaries.put(when, fact, in_force)? {
                    Some(table) => Ok(ledger.routes.put(table)?),
                    None => Ok(()),
                }
            }
            Fact::ChannelChanged {
                name,
                standing,
                cause,
                ejections,
            } => {
                let change = Change {
                    channel: (*name).into(),
                    standing: *standing,
                    cause: *cause,
                    ejections: *ejections,
                    unix_ms: record.stamp.unix_ms,
                };
                Ok(self.ledger().channels.put(Known { lsn, change })?)
            }
        }
    }

    /// The part of [`apply`](Self::apply) for orders whose cards and place have been taken: the order at `lsn`, which has
    /// cards, becomes known. Tells what the index now says of it.
    #[inline]
    pub fn apply_issued(
        &self,
        lsn: u64,
        unix_ms: u64,
        issued: &Issued<'_>,
        promise: Promise,
        view: &mut IndexView,
    ) -> Settled {
        let Promise { place, row } = promise;
        let id = issued.order_id;
        let settled = if issued.quantity == 1 && issued.fewer == 0 {
            let card = issued.cards().next().expect("an order has cards");
            self.index.put_one(row, id, lsn, card)
        } else {
            let mut cards = Vec::with_capacity(issued.quantity.into());
            cards.extend(issued.cards());
            if planted::is(Bug::ShortAnswer) {
                cards.pop();
            }
            let (state, cards) = (OrderState::Issued, cards.into_iter());
            match issued.fewer {
                0 => self.index.put_many(row, id, lsn, state, cards),
                fewer => {
                    let asked = issued.quantity + fewer;
                    self.index.put_part(row, id, lsn, asked, cards)
                }
            }
        };
        if issued.holder != 0 {
            self.holders.begins(id, issued.holder, row);
            self.holders
                .ended(share_of(issued), issued.quantity, unix_ms);
        }
        view.publish(place, row);
        settled
    }

    /// Takes the place in the index that a dealer would have taken, and the order becomes known; `None` when it is already.
    fn place_order(
        &self,
        lsn: u64,
        unix_ms: u64,
        issued: &Issued<'_>,
        hand: &mut Hand,
    ) -> Option<()> {
        let promise = hand.promise(self, issued.order_id)?;
        self.holders.promised(share_of(issued));
        self.apply_issued(lsn, unix_ms, issued, promise, &mut hand.view);
        Some(())
    }

    /// Puts back an order that a checkpoint holds; its cards are among the restored bits.
    pub fn restore_order(
        &self,
        lsn: u64,
        unix_ms: u64,
        ended: &Ended<'_>,
        hand: &mut Hand,
    ) -> Result<(), String> {
        if let Ended::Issued(issued) = ended {
            check_cards(issued)?;
            if matches!(issued.way, Way::Issue | Way::Filled | Way::Part) {
                let placed = self.place_order(lsn, unix_ms, issued, hand);
                return placed.ok_or_else(|| TWICE.into());
            }
        }
        self.restore_ended(lsn, unix_ms, ended, hand)
    }

    /// Whether orders are kept by their ids.
    pub(super) fn is_indexed(&self) -> bool {
        matches!(self.orders, Orders::Indexed)
    }

    /// Number and sum of all orders that have ended. Only when none is in flight.
    pub fn orders(&self) -> StateSeed {
        match &self.orders {
            Orders::Counted(counted) => lock(counted).ended,
            Orders::Indexed => {
                let mut all = StateSeed::default();
                self.index.for_each(|id, settled| {
                    if !settled.state.has_hold() {
                        let holder = self.holders.of(id);
                        all.add_settled(&self.index, id, holder, settled);
                    }
                });
                all
            }
        }
    }

    fn apply_sku(&self, sku: u32, name: &str) -> Result<(), String> {
        let mut ledger = self.ledger();
        let mut catalog = Catalog::clone(&self.catalog.load());
        if sku as usize != catalog.skus.len() + 1 {
            return Err(format!(
                "SKU {sku} is created as number {}",
                catalog.skus.len() + 1
            ));
        }
        if ledger.names.insert(name.into(), sku).is_some() {
            return Err(format!("SKU {name:?} is created twice"));
        }
        let line = Line::new(sku, self.desk.clone());
        let main = Pool::new(&line, sku, 0, MAIN_POOL, ledger.pools);
        ledger.pools += 1;
        catalog
            .skus
            .push(Arc::new(SkuState::new(sku, name, line, main)));
        self.catalog.store(Arc::new(catalog));
        Ok(())
    }

    /// The pool of a SKU by index, made when it is the next one.
    fn pool(
        &self,
        ledger: &mut Ledger,
        sku: &SkuState,
        index: u16,
        name: &str,
    ) -> Result<Arc<Pool>, String> {
        let pools = sku.pools.load();
        if let Some(pool) = pools.get(usize::from(index)) {
            return if pool.name == name {
                Ok(pool.clone())
            } else {
                Err(format!(
                    "pool {index} is called {:?} and {name:?}",
                    pool.name
                ))
            };
        }
        if usize::from(index) != pools.len() {
            return Err(format!(
                "pool {index} of SKU {} comes before pool {}",
                sku.sku,
                pools.len()
            ));
        }
        let made = Pool::new(&sku.line, sku.sku, index, name, ledger.pools);
        ledger.pools += 1;
        let mut longer = Vec::clone(&pools);
        longer.push(made.clone());
        sku.pools.store(Arc::new(longer));
        Ok(made)
    }

    fn apply_batch(&self, batch: Batch, slabs: u32, pool_name: &str) -> Result<(), Unfit> {
        let mut ledger = self.ledger();
        let (ours, others): (Vec<_>, Vec<_>) = ledger
            .unsealed
            .drain(..)
            .partition(|facts| facts.batch == batch.batch);
        ledger.unsealed = others;
        let cards: u64 = ours.iter().map(|facts| u64::from(facts.filled())).sum();
        if ours.len() != slabs as usize || cards != batch.cards {
            return Err(format!(
                "batch {} is sealed with {slabs} slabs of {} cards, but has {} of {cards}",
                batch.batch,
                batch.cards,
                ours.len()
            )
            .into());
        }
        self.seal_slabs(&mut ledger, &batch, ours, pool_name, |_| None)?;
        ledger.batches.insert(batch.batch, batch);
        Ok(())
    }

    /// Opens the slabs and makes them sellable: slabs first, then the count of what is free.
    pub(super) fn seal_slabs(
        &self,
        ledger: &mut Ledger,
        batch: &Batch,
        slabs: Vec<SlabFacts>,
        pool_name: &str,
        words_of: impl Fn(u32) -> Option<Vec<u64>>,
    ) -> Result<(), Unfit> {
        let mut catalog = Catalog::clone(&self.catalog.load());
        let sku = catalog
            .sku(batch.sku)
            .cloned()
            .ok_or_else(|| format!("batch of SKU {}, which is not there", batch.sku))?;
        let pools = sku.pools.load().len();
        let pool = self.pool(ledger, &sku, batch.pool, pool_name)?;
        let mut list = Vec::clone(&pool.slabs.load());
        let (mut cards, mut free) = (0, 0);
        let mut expires_from = NEVER;
        for facts in slabs {
            if facts.sku != batch.sku || facts.pool != batch.pool {
                return Err(format!(
                    "slab {} is of another SKU or pool than its batch",
                    facts.slab
                )
                .into());
            }
            let body = match &facts.view {
                None => self.source.body(&facts).map_err(Unfit::NotRead)?,
                Some(view) => body_of(&catalog, &facts, view)?,
            };
            let slab = Arc::new(SlabState::new(facts, body, pool.clone()));
            if let Some(words) = words_of(facts.slab) {
                for (word, value) in slab.words().iter().zip(words) {
                    word.store(value, Ordering::Relaxed);
                }
                let is_taken = |slot| claim::is_set(slab.words(), slot);
                if !(facts.filled()..facts.cards).all(is_taken) {
                    let text = format!("slab {} has free cards that are not there", facts.slab);
                    return Err(text.into());
                }
            }
            let at = facts.slab as usize;
            if catalog.slabs.len() <= at {
                catalog.slabs.resize(at + 1, None);
            }
            if catalog.slabs[at].replace(slab.clone()).is_some() {
                return Err(format!("slab {at} is added twice").into());
            }
            sku.class_bytes_max
                .fetch_max(facts.class_bytes, Ordering::Relaxed);
            cards += u64::from(facts.filled());
            // Slots that are not there count as taken.
            let open = u64::from(facts.cards) - claim::count_set(slab.words());
            free += open;
            if open > 0 && slab.expires() {
                expires_from = expires_from.min(slab.good_until_s());
            }
            list.push(slab);
        }
        if sku.pools.load().len() > pools {
            catalog.version += 1;
        }
        sku.imported.fetch_add(cards, Ordering::Relaxed);
        pool.slabs.store(Arc::new(list));
        // Behind the list, which a sweep goes through, and before the credits.
        pool.expires_from(expires_from);
        pool.grown();
        self.catalog.store(Arc::new(catalog));
        self.arrange(&sku, &pool);
        // Last: whoever gets a credit finds the slab.
        pool.add_credits(free);
        Ok(())
    }

    /// Puts back what a checkpoint holds. Only on an empty state.
    pub fn restore(&self, snapshot: Snapshot) -> Result<(), Unfit> {
        for sku in &snapshot.skus {
            self.apply_sku(sku.sku, &sku.name)?;
            let mut ledger = self.ledger();
            let state = self
                .catalog
                .load()
                .sku(sku.sku)
                .cloned()
                .ok_or("a SKU just made is not there")?;
            for (index, pool) in sku.pools.iter().enumerate() {
                self.pool(&mut ledger, &state, index as u16, pool)?;
            }
        }
        let mut ledger = self.ledger();
        let mut words: HashMap<u32, Vec<u64>> = HashMap::new();
        let mut by_batch: HashMap<u32, Vec<SlabFacts>> = HashMap::new();
        for (facts, bits) in snapshot.slabs {
            words.insert(facts.slab, bits);
            by_batch.entry(facts.batch).or_default().push(facts);
            ledger.slab_max = ledger.slab_max.max(facts.slab);
        }
        for batch in snapshot.batches {
            let slabs = by_batch.remove(&batch.batch).unwrap_or_default();
            let sku = self
                .catalog
                .load()
                .sku(batch.sku)
                .cloned()
                .ok_or("a batch of a SKU that is not there")?;
            let pool_name = sku
                .pools
                .load()
                .get(usize::from(batch.pool))
                .map(|pool| pool.name.clone());
            let pool_name = pool_name.ok_or("a batch of a pool that is not there")?;
            self.seal_slabs(&mut ledger, &batch, slabs, &pool_name, |slab| {
                words.get(&slab).cloned()
            })?;
            ledger.batch_max = ledger.batch_max.max(batch.batch);
            ledger.batches.insert(batch.batch, batch);
        }
        if let Some((batch, _)) = by_batch.into_iter().next() {
            return Err(format!("slabs of batch {batch}, which is not there").into());
        }
        let catalog = self.catalog.load();
        for (slab, status, words) in &snapshot.marks {
            restore_marks(&catalog, *slab, *status, words)?;
        }
        ledger.unsealed = snapshot.unsealed;
        ledger.slab_max = ledger
            .unsealed
            .iter()
            .map(|facts| facts.slab)
            .fold(ledger.slab_max, u32::max);
        ledger.batch_max = ledger
            .unsealed
            .iter()
            .map(|facts| facts.batch)
            .fold(ledger.batch_max, u32::max);
        for set in &snapshot.settings {
            self.apply_settings(set)?;
        }
        ledger.routes = snapshot.routes;
        ledger.channels = snapshot.channels;
        ledger.canaries = snapshot.canaries;
        ledger.epoch = snapshot.epoch;
        drop(ledger);
        let mut hand = Hand::new(self);
        for fact in &snapshot.held {
            self.restore_held(fact, &mut hand)?;
        }
        Ok(())
    }

    /// What a checkpoint holds. Only when no order is in flight.
    pub fn snapshot(&self) -> Snapshot {
        let ledger = self.ledger();
        let catalog = self.catalog.load();
        Snapshot {
            skus: catalog
                .skus
                .iter()
                .map(|sku| SkuSnapshot {
                    sku: sku.sku,
                    name: sku.name.clone(),
                    pools: sku
                        .pools
                        .load()
                        .iter()
                        .map(|pool| pool.name.clone())
                        .collect(),
                })
                .collect(),
            batches: ledger.batches.values().cloned().collect(),
            slabs: catalog
                .slabs
                .iter()
                .flatten()
                .map(|slab| {
                    let words = slab
                        .words()
                        .iter()
                        .map(|word| word.load(Ordering::Relaxed))
                        .collect();
                    (slab.facts_now(), words)
                })
                .collect(),
            marks: marks_of(&catalog),
            settings: settings_of(&catalog),
            held: self.held(),
            unsealed: ledger.unsealed.clone(),
            routes: ledger.routes.clone(),
            channels: ledger.channels.clone(),
            canaries: ledger.canaries.clone(),
            epoch: ledger.epoch,
        }
    }

    /// Forgets imports that a crash cut short; returns their slabs. At the end of recovery.
    pub fn drop_unsealed(&self) -> Vec<SlabFacts> {
        std::mem::take(&mut self.ledger().unsealed)
    }
}

pub(super) fn lock(counted: &Mutex<Counted>) -> MutexGuard<'_, Counted> {
    counted.lock().expect("no one panics with this lock")
}

/// What an order that is issued takes from its holder's caps.
pub(super) fn share_of(issued: &Issued<'_>) -> Share {
    Share {
        holder: issued.holder,
        sku: issued.sku,
        cards: issued.quantity,
        is_open: false,
    }
}

pub(super) const TWICE: &str = "an order stands twice in the order files";

/// The slab of a run, which must have its cards and be of `sku`.
pub(super) fn slab_of<'c>(
    catalog: &'c Catalog,
    sku: u32,
    run: &Run,
) -> Result<&'c Arc<SlabState>, String> {
    let slab = catalog.slab(run.slab).ok_or_else(|| {
        format!(
            "a record has cards of slab {}, which is not there",
            run.slab
        )
    })?;
    let end = u64::from(run.slot) + u64::from(run.count);
    if end > slab.cards().into() || slab.facts.sku != sku {
        return Err(format!(
            "a record of SKU {sku} has cards that slab {} does not have",
            run.slab
        ));
    }
    Ok(slab)
}

/// Sets the bits and takes the credits of an order's cards.
pub(super) fn take_cards(catalog: &Catalog, issued: &Issued<'_>) -> Result<(), String> {
    check_cards(issued)?;
    for run in issued.runs.iter() {
        let slab = slab_of(catalog, issued.sku, &run)?;
        take_run(slab, &run, |slot| {
            format!("card {}:{slot} goes to two orders", run.slab)
        })?;
    }
    Ok(())
}

/// Sets the bits and takes the credits of free cards; `taken` says what it means if one is not.
pub(super) fn take_run(
    slab: &SlabState,
    run: &Run,
    taken: impl Fn(u32) -> String,
) -> Result<(), String> {
    for slot in run.slot..run.slot + run.count {
        if !claim::set(slab.words(), slot) {
            return Err(taken(slot));
        }
    }
    if slab.pool.take_credits(run.count.into()) != u64::from(run.count) {
        return Err(format!(
            "the count of free cards of SKU {} falls below zero",
            slab.facts.sku
        ));
    }
    Ok(())
}

/// Whether an order has as many cards as it says, and any.
pub(super) fn check_cards(issued: &Issued<'_>) -> Result<(), String> {
    let cards: u64 = issued.runs.iter().map(|run| u64::from(run.count)).sum();
    if cards != u64::from(issued.quantity) || cards == 0 {
        return Err(format!("an order of {} cards has {cards}", issued.quantity));
    }
    let may_be_fewer = match issued.way {
        Way::Issue | Way::Filled => issued.fewer == 0,
        Way::Part => issued.fewer > 0,
        Way::Commit | Way::LateCommit => true,
    };
    if !may_be_fewer {
        let (fewer, way) = (issued.fewer, issued.way);
        return Err(format!("{fewer} cards fewer of an order by {way:?}"));
    }
    Ok(())
}

/// Name of the pool that every SKU has.
pub const MAIN_POOL: &str = "main";

/// A SKU as a checkpoint holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkuSnapshot {
    pub sku: u32,
    pub name: String,
    pub pools: Vec<String>,
}

/// The state without its orders, as plain values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub skus: Vec<SkuSnapshot>,
    pub batches: Vec<Batch>,
    pub slabs: Vec<(SlabFacts, Vec<u64>)>,
    /// By slab and status.
    pub marks: Vec<SlabMarks>,
    /// Of SKUs that are not sold as SKUs are of which nothing was said.
    pub settings: Vec<SkuSet>,
    /// Orders that hold cards, by id.
    pub held: Vec<HeldFact>,
    /// Slabs whose batch was not sealed yet.
    pub unsealed: Vec<SlabFacts>,
    pub routes: RouteTables,
    pub channels: Channels,
    pub canaries: Canaries,
    pub epoch: u64,
}
