//! Recovery: the state as the disk tells it. Checkpoint, then order files, then the log to its end.
//!
//! Claim bits in memory begin at zero and are set from checkpoint and log alone (DESIGN, rule 2). Verification and replay
//! are the same walk without a live store around it.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use croupier_protocol::planted::{self, Bug};

use crate::ahead::{Apply, Item, read_ahead};
use crate::card::CardStatus;
use crate::checkpoint::orders::OwnedChunk;
use crate::checkpoint::{
    self, BATCH, Checkpoint, OrderFileReader, OrderFileWriter, apply_block, apply_records,
};
use crate::error::{EngineError, IoContext as _};
use crate::slab::layout::{PRINT_ENTRY_BYTES, SLOT_ENTRY_BYTES};
use crate::slab::{Slab, claim, remove_leftovers, slab_file_name};
use crate::state::digest::digest_of;
use crate::state::index::Spread;
use crate::state::record::{self, Ended};
use crate::state::{Catalog, Digest, Replay, SlabSource, SlabState, State, StateSeed, StockCounts};
use crate::store::{BitsOnly, SLABS_READ_WHOLE_BYTES_MAX, Store, init_copy};
use crate::wal::reader::{Block, OwnedBlock};
use crate::wal::segments::segment_path;
use crate::wal::{BlockReader, Position, Tail};

/// What recovery read.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Orders that came from order files.
    pub checkpoint_orders: u64,
    /// Records read from the log.
    pub records: u64,
    /// Bytes of a torn write behind the last whole block.
    pub torn_bytes: u64,
    pub took: Duration,
}

/// The recovered state, and where the log ends.
pub struct Recovered {
    pub state: State,
    pub tail: Tail,
    pub report: Report,
}

/// Where to stop.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    End,
    /// The last record applied is before this LSN … or at it.
    Lsn(u64),
    /// The last record applied was made at or before this time.
    UnixMs(u64),
}

/// Reads the state. Changes nothing on disk.
pub fn recover(
    store: &Store,
    source: Box<dyn SlabSource>,
    spread: Spread,
) -> Result<Recovered, EngineError> {
    recover_until(store, source, spread, Until::End)
}

fn recover_until(
    store: &Store,
    source: Box<dyn SlabSource>,
    spread: Spread,
    until: Until,
) -> Result<Recovered, EngineError> {
    let begun = Instant::now();
    let checkpoint = checkpoint::load_current(&store.disk, &store.paths, store.store_id)?;
    let orders = checkpoint
        .as_ref()
        .map_or(0, |checkpoint| checkpoint.orders.orders);
    let state = State::new(source, orders, spread);
    let mut report = Report::default();
    let from = match &checkpoint {
        Some(checkpoint) => {
            report.checkpoint_orders = restore(store, &state, checkpoint)?;
            checkpoint.end
        }
        None => Position::START,
    };
    check_reach(from, until)?;
    let tail = apply_log(store, &state, from, until, &mut report)?;
    check_grown(&state)?;
    report.torn_bytes = tail.torn.as_ref().map_or(0, |torn| torn.bytes);
    report.took = begun.elapsed();
    Ok(Recovered {
        state,
        tail,
        report,
    })
}

/// A checkpoint cannot be undone: what is before it can only be reached from an older copy.
fn check_reach(from: Position, until: Until) -> Result<(), EngineError> {
    match until {
        Until::Lsn(lsn) if lsn + 1 < from.lsn => Err(EngineError::Config(format!(
            "--until {lsn}: the log before LSN {} has been folded into a checkpoint; replay a copy that was made earlier",
            from.lsn
        ))),
        _ => Ok(()),
    }
}

fn restore(store: &Store, state: &State, checkpoint: &Checkpoint) -> Result<u64, EngineError> {
    let current = store.paths.current();
    let damaged = |what: String| EngineError::damage(&current, 0, what);
    if digest_of(&checkpoint.snapshot, checkpoint.orders) != checkpoint.digest {
        return Err(damaged(
            "the checkpoint's digest is not that of its state".into(),
        ));
    }
    state
        .restore(checkpoint.snapshot.clone())
        .map_err(|unfit| unfit.at(&current, 0))?;
    let mut files = checkpoint.files.iter();
    let mut reader: Option<OrderFileReader> = None;
    let chunks = || loop {
        if let Some(chunk) = reader
            .as_mut()
            .map_or(Ok(None), OrderFileReader::take_chunk)?
        {
            return Ok(Some(chunk));
        }
        let Some(file) = files.next() else {
            return Ok(None);
        };
        let orders = store.paths.orders();
        reader = Some(OrderFileReader::open(
            &store.disk,
            &orders,
            store.store_id,
            file,
        )?);
    };
    let restorers = read_ahead(store.disk.has_threads(), chunks, || Restorer {
        replay: Replay::new(state),
        read: StateSeed::default(),
    })?;
    let mut read = StateSeed::default();
    restorers
        .iter()
        .for_each(|restorer| read.join(restorer.read));
    if read.orders != checkpoint.orders.orders {
        return Err(damaged(format!(
            "its order files hold {} orders, it says {}",
            read.orders, checkpoint.orders.orders
        )));
    }
    // An order file of another copy of this store may have the same name and length, and checksums that are right.
    if read != checkpoint.orders {
        return Err(damaged(
            "its order files hold other orders than those it was made of: one of them is from another copy of this store"
                .into(),
        ));
    }
    Ok(read.orders)
}

fn apply_log(
    store: &Store,
    state: &State,
    from: Position,
    until: Until,
    report: &mut Report,
) -> Result<Tail, EngineError> {
    let wal = store.paths.wal();
    let mut reader = BlockReader::open(store.disk.clone(), &wal, store.store_id, from)?;
    let blocks = || {
        let before = reader.position();
        let Some(block) = reader.next()? else {
            return Ok(None);
        };
        Ok(Some(Logged {
            before,
            alone: past(until, &block) || !record::are_orders(block.body),
            block: OwnedBlock::of(&block),
        }))
    };
    let replayers = read_ahead(store.disk.has_threads(), blocks, || Replayer {
        replay: Replay::new(state),
        wal: &wal,
        until,
        records: 0,
        stopped: None,
    })?;
    report.records = replayers.iter().map(|replayer| replayer.records).sum();
    if let Some((before, reached)) = replayers.iter().find_map(|replayer| replayer.stopped) {
        return Ok(Tail {
            end: Position {
                lsn: reached,
                ..before
            },
            last_segment: before.seq,
            torn: None,
            last_block: None,
        });
    }
    Ok(reader
        .tail()
        .expect("the reader has reached the end")
        .clone())
}

/// A block of the log, and where the reader stood before it.
struct Logged {
    before: Position,
    block: OwnedBlock,
    alone: bool,
}

impl Item for Logged {
    fn is_alone(&self) -> bool {
        self.alone
    }
}

/// Applies blocks of the log.
struct Replayer<'s> {
    replay: Replay<'s>,
    wal: &'s Path,
    until: Until,
    records: u64,
    /// Where the limit was met: the position before that block, and the LSN behind the last record that it let through.
    stopped: Option<(Position, u64)>,
}

impl Apply<Logged> for Replayer<'_> {
    fn apply(&mut self, logged: Logged) -> Result<ControlFlow<()>, EngineError> {
        let block = logged.block.block();
        let path = segment_path(self.wal, block.seq);
        if past(self.until, &block) {
            let (records, reached) = apply_part(&mut self.replay, &path, &block, self.until)?;
            self.records += records;
            self.stopped = Some((logged.before, reached));
            return Ok(ControlFlow::Break(()));
        }
        self.records += apply_block(&mut self.replay, &path, &block, |_, _| Ok(()))?;
        Ok(ControlFlow::Continue(()))
    }
}

/// Puts back the orders of order files.
struct Restorer<'s> {
    replay: Replay<'s>,
    read: StateSeed,
}

impl Item for OwnedChunk {
    fn is_alone(&self) -> bool {
        false
    }
}

impl Apply<OwnedChunk> for Restorer<'_> {
    fn apply(&mut self, chunk: OwnedChunk) -> Result<ControlFlow<()>, EngineError> {
        let mut orders = chunk.orders();
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            batch.clear();
            for order in orders.by_ref().take(BATCH) {
                let (lsn, _, unix_ms, ended) = order?;
                self.read.add(lsn, &ended);
                batch.push((lsn, unix_ms, ended));
            }
            if batch.is_empty() {
                return Ok(ControlFlow::Continue(()));
            }
            let restored = self.replay.restored(&batch);
            restored.map_err(|what| chunk.damaged(what))?;
        }
    }
}

fn past(until: Until, block: &Block<'_>) -> bool {
    match until {
        Until::End => false,
        Until::Lsn(lsn) => block.header.end_lsn > lsn + 1,
        // A record is never younger than the block that carries it.
        Until::UnixMs(limit) => block.header.unix_ms > limit,
    }
}

/// Applies the records of a block up to the limit; returns their number and the LSN after them.
fn apply_part(
    replay: &mut Replay<'_>,
    path: &Path,
    block: &Block<'_>,
    until: Until,
) -> Result<(u64, u64), EngineError> {
    let mut reached = block.header.first_lsn;
    let within = record::records(block.body, block.header.first_lsn).take_while(|placed| {
        let Ok(placed) = placed else { return true };
        let within = match until {
            Until::End => true,
            Until::Lsn(limit) => placed.lsn <= limit,
            Until::UnixMs(limit) => placed.record.stamp.unix_ms <= limit,
        };
        if within {
            reached = placed.end_lsn();
        }
        within
    });
    let records = apply_records(replay, path, block.offset, within, |_, _| Ok(()))?;
    Ok((records, reached))
}

/// Makes certain that what recovery has read stays: nothing may be built on what only the cache of the operating system
/// had. A process that was killed, or ended after a sync that failed, leaves names and bytes that can be read and are not
/// on the disk, and of which no later sync speaks. Of the log only the last block can be such: it is written again.
fn make_certain(store: &Store, tail: &Tail) -> Result<(), EngineError> {
    let paths = &store.paths;
    for dir in [
        paths.root.clone(),
        paths.wal(),
        paths.slabs(),
        paths.orders(),
        paths.checkpoints(),
    ] {
        store.disk.sync_dir(&dir).at("sync", &dir)?;
    }
    match &tail.last_block {
        Some(last) => store
            .disk
            .rewrite(&last.path, last.offset, last.bytes)
            .at("write the last block again of", &last.path),
        None => Ok(()),
    }
}

/// Makes the disk fit the recovered state: makes certain what was read, zeroes a torn tail, removes what cut-short imports
/// left. Returns what it did, for the operator.
pub fn tidy(store: &Store, recovered: &Recovered) -> Result<Vec<String>, EngineError> {
    if !planted::is(Bug::TrustCacheAtStart) {
        make_certain(store, &recovered.tail)?;
    }
    let mut done = Vec::new();
    if let Some(torn) = &recovered.tail.torn
        && !planted::is(Bug::KeepTornTail)
    {
        store
            .disk
            .zero_range(&torn.path, torn.offset, torn.bytes)
            .at("zero the torn tail of", &torn.path)?;
        done.push(format!(
            "{}: a write of {} bytes at offset {} was cut short by a crash and never acknowledged; zeroed",
            torn.path.display(),
            torn.bytes,
            torn.offset
        ));
    }
    for facts in recovered.state.drop_unsealed() {
        done.push(format!(
            "slab {} of batch {} was never sealed; dropped",
            facts.slab, facts.batch
        ));
    }
    let catalog = recovered.state.catalog.load();
    let slabs = store.paths.slabs();
    let removed = remove_leftovers(&store.disk, &slabs, |slab| {
        let has_file = catalog
            .slab(slab)
            .is_some_and(|slab| slab.facts.view.is_none());
        has_file && !planted::is(Bug::DropSealedImports)
    });
    for path in removed.at("tidy", &slabs)? {
        done.push(format!(
            "{}: left by an import that did not finish; removed",
            path.display()
        ));
    }
    for dir in [
        store.paths.root.clone(),
        store.paths.wal(),
        store.paths.orders(),
        store.paths.checkpoints(),
        store.paths.slabs(),
    ] {
        for name in store.disk.list(&dir).at("list", &dir)? {
            if name.ends_with(".tmp") {
                let path = dir.join(name);
                store.disk.remove(&path).at("remove", &path)?;
            }
        }
    }
    Ok(done)
}

/// What `croupier wal verify` found.
#[derive(Debug)]
pub struct VerifyReport {
    pub orders: u64,
    pub records: u64,
    pub checkpoint_orders: u64,
    pub skus: u64,
    pub slabs: u64,
    pub counts: StockCounts,
    pub end_lsn: u64,
    pub torn_bytes: u64,
    pub digest: Digest,
    pub took: Duration,
}

/// Reads all of a slab's file that is there.
fn verify_slab(slab: &SlabState) -> Result<(), EngineError> {
    match (slab.mapped(), slab.grown()) {
        (Some(mapped), Some(grown)) => Ok(mapped.verify_grown(&grown)?),
        (Some(mapped), None) => Ok(mapped.verify_sections()?),
        (None, _) => Ok(()),
    }
}

/// Checks slabs that grow as far as they are filled, while they have no more bytes than a start reads whole. Only behind the log
/// it is known how far that is.
fn check_grown(state: &State) -> Result<(), EngineError> {
    let mut left = SLABS_READ_WHOLE_BYTES_MAX;
    for slab in state.catalog.load().slabs.iter().flatten() {
        let (Some(mapped), Some(grown)) = (slab.mapped(), slab.grown()) else {
            continue;
        };
        let layout = mapped.header().layout;
        let each = layout.slot_bytes() + SLOT_ENTRY_BYTES + PRINT_ENTRY_BYTES;
        match left.checked_sub(u64::from(grown.cards) * each as u64) {
            Some(rest) => left = rest,
            None => break,
        }
        mapped.verify_grown(&grown)?;
    }
    Ok(())
}

/// Checks that every card is accounted for once: free, in an order, or marked as out of sale.
fn check_cards(state: &State, catalog: &Catalog, counts: &StockCounts) -> Result<(), String> {
    let (dealt, cards) = state.dealt(|_| true);
    let bound = state.bound();
    let ones =
        |words: &[u64]| -> u64 { words.iter().map(|word| u64::from(word.count_ones())).sum() };
    let mut found = StockCounts::default();
    let mut once = 0;
    for slab in catalog.slabs.iter().flatten() {
        let of = |status| slab.slots_that_are(status);
        let (free, held) = (of(CardStatus::Free), of(CardStatus::Suspended));
        let (issued, void) = (of(CardStatus::Issued), of(CardStatus::Void));
        let dealt = &dealt[&slab.facts.slab];
        for (at, &dealt) in dealt.iter().enumerate() {
            let bound = bound.get(&slab.facts.slab).map_or(0, |words| words[at]);
            // An order has no card that is free or suspended, and nobody else has one that is issued, but a hold that has
            // none yet.
            let wrong = (dealt & (free[at] | held[at] | bound))
                | (issued[at] & !(dealt | bound))
                | (bound & !issued[at]);
            let twice = (free[at] & (held[at] | void[at])) | (held[at] & void[at]);
            if let Some(bit) = claim::slots_in([wrong | twice]).next() {
                let slot = at as u32 * claim::WORD_SLOTS + bit;
                return Err(format!(
                    "card {}:{slot} is {}, and {} order has it",
                    slab.facts.slab,
                    slab.status(slot).name(),
                    if dealt >> bit & 1 == 1 { "an" } else { "no" }
                ));
            }
        }
        once += ones(dealt);
        found.free += ones(&free);
        found.held += ones(&held);
        found.issued += ones(&issued);
        found.void += ones(&void);
        found.imported += u64::from(slab.cards());
    }
    let bound: u64 = bound.values().map(|words| ones(words)).sum();
    let promised = state.index.open_holds();
    let promised = promised.filter(|(.., hold)| hold.card.is_none());
    let promised: u64 = promised.map(|(.., hold)| hold.credits.sum()).sum();
    if promised > found.free {
        return Err(format!(
            "{promised} cards are promised to holds, and {} are free",
            found.free
        ));
    }
    found.free -= promised;
    found.issued = found.issued.saturating_sub(bound);
    found.held += promised + bound;
    if once != cards {
        return Err(format!(
            "orders have {cards} cards, which are {once}: one has two orders"
        ));
    }
    if found != *counts {
        return Err(format!(
            "the cards are {found:?}, the counts say {counts:?}"
        ));
    }
    Ok(())
}

/// Reads everything and checks everything: every checksum, every slab section, every order, and that free + held +
/// issued + void = imported. Changes nothing.
pub fn verify(dir: &Path, key_file: Option<&Path>) -> Result<VerifyReport, EngineError> {
    let begun = Instant::now();
    let store = Store::open(dir, key_file)?;
    let recovered = recover(&store, store.mapped_slabs(), Spread::seeded([1, 1]))?;
    let state = &recovered.state;
    state.drop_unsealed();
    let catalog = state.catalog.load();
    let mut counts = StockCounts::default();
    for sku in &catalog.skus {
        let stock = sku.stock();
        counts.free += stock.free;
        counts.held += stock.held;
        counts.issued += stock.issued;
        counts.void += stock.void;
        counts.imported += stock.imported;
    }
    for slab in catalog.slabs.iter().flatten() {
        verify_slab(slab)?;
    }
    check_cards(state, &catalog, &counts).map_err(|what| EngineError::damage(dir, 0, what))?;
    let orders = state.orders();
    Ok(VerifyReport {
        orders: orders.orders,
        records: recovered.report.records,
        checkpoint_orders: recovered.report.checkpoint_orders,
        skus: catalog.skus.len() as u64,
        slabs: catalog.slabs.iter().flatten().count() as u64,
        counts,
        end_lsn: recovered.tail.end.lsn,
        torn_bytes: recovered.report.torn_bytes,
        digest: state.digest(),
        took: begun.elapsed(),
    })
}

/// What `croupier wal replay` did.
#[derive(Debug)]
pub struct ReplayReport {
    pub records: u64,
    pub orders: u64,
    pub end_lsn: u64,
    pub digest: Digest,
    pub into: Option<PathBuf>,
    pub took: Duration,
}

/// Replays checkpoint and log up to `until`. With `into`, that state becomes a store of its own in an empty directory,
/// with the same identity and key; the original stays as it is.
pub fn replay(
    dir: &Path,
    key_file: Option<&Path>,
    until: Until,
    into: Option<&Path>,
    segment_bytes: u64,
) -> Result<ReplayReport, EngineError> {
    let begun = Instant::now();
    let store = Store::open(dir, key_file)?;
    let recovered = recover_until(&store, Box::new(BitsOnly), Spread::seeded([1, 1]), until)?;
    recovered.state.drop_unsealed();
    if let Some(into) = into {
        write_copy(&store, &recovered, key_file, into, segment_bytes)?;
    }
    Ok(ReplayReport {
        records: recovered.report.records,
        orders: recovered.state.orders().orders,
        end_lsn: recovered.tail.end.lsn,
        digest: recovered.state.digest(),
        into: into.map(Path::to_path_buf),
        took: begun.elapsed(),
    })
}

/// A store in `into` whose checkpoint is the recovered state and whose log begins behind it.
fn write_copy(
    store: &Store,
    recovered: &Recovered,
    key_file: Option<&Path>,
    into: &Path,
    segment_bytes: u64,
) -> Result<(), EngineError> {
    init_copy(into, store, key_file, segment_bytes)?;
    let copy = Store::open(into, key_file)?;
    let catalog = recovered.state.catalog.load();
    let files = catalog.slabs.iter().flatten();
    for slab in files.filter(|slab| slab.facts.view.is_none()) {
        let name = slab_file_name(slab.facts.slab);
        let (from, to) = (
            store.paths.slabs().join(&name),
            copy.paths.slabs().join(&name),
        );
        std::fs::copy(&from, &to).at("copy a slab to", &to)?;
        std::fs::File::open(&to)
            .and_then(|file| file.sync_all())
            .at("sync", &to)?;
        let mapped = Slab::open(&to, &copy.vault, None)?;
        if mapped.header_hash() != slab.facts.header_hash {
            return Err(EngineError::damage(
                &from,
                0,
                "the slab is not the one that the log names",
            ));
        }
    }
    copy.disk
        .sync_dir(&copy.paths.slabs())
        .at("sync", &copy.paths.slabs())?;
    let orders = copy_orders(store, recovered, &copy)?;
    let state = &recovered.state;
    let end = Position {
        lsn: recovered.tail.end.lsn,
        epoch: recovered.tail.end.epoch,
        ..Position::START
    };
    let (snapshot, all) = (state.snapshot(), state.orders());
    checkpoint::install(&copy, end, snapshot, all, orders)
}

/// All orders of the recovered state as one order file, with the records as they were logged.
fn copy_orders(
    store: &Store,
    recovered: &Recovered,
    copy: &Store,
) -> Result<Vec<checkpoint::OrderFile>, EngineError> {
    let end_lsn = recovered.tail.end.lsn;
    let mut writer = OrderFileWriter::begin(&copy.disk, &copy.paths.orders(), copy.store_id)?;
    let checkpoint = checkpoint::load_current(&store.disk, &store.paths, store.store_id)?;
    let mut failed = None;
    let mut put = |lsn: u64, record: &[u8]| {
        writer.put(lsn, record).map_err(|error| {
            let told = error.to_string();
            failed = Some(error);
            told
        })
    };
    for file in checkpoint.iter().flat_map(|checkpoint| &checkpoint.files) {
        let mut reader =
            OrderFileReader::open(&store.disk, &store.paths.orders(), store.store_id, file)?;
        reader.for_each(&mut put)?;
    }
    let from = checkpoint.map_or(Position::START, |checkpoint| checkpoint.end);
    let mut reader =
        BlockReader::open(store.disk.clone(), &store.paths.wal(), store.store_id, from)?;
    'log: while let Some(block) = reader.next()? {
        let path = segment_path(&store.paths.wal(), block.seq);
        for placed in record::records(block.body, block.header.first_lsn) {
            let damaged = |what| EngineError::damage(&path, block.offset, what);
            let placed = placed.map_err(|(_, what)| damaged(what))?;
            if placed.lsn >= end_lsn {
                break 'log;
            }
            if Ended::of(&placed.record.fact).is_some() {
                put(placed.lsn, placed.bytes).map_err(damaged)?;
            }
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    Ok(writer.publish(1, end_lsn)?.into_iter().collect())
}
