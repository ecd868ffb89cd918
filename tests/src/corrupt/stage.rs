//! The store that is damaged: small, with something in every place a file has, made by the engine itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::BytesMut;
use croupier_engine::config::{Config, Sync};
use croupier_engine::dealer::{Dealer, OrderLimits};
use croupier_engine::disk::Disk;
use croupier_engine::disk::memory::MemoryDisk;
use croupier_engine::engine::{Engine, Ground};
use croupier_engine::intake::Intake;
use croupier_engine::order::{Order, Ticket};
use croupier_engine::recovery;
use croupier_engine::slab::Vault;
use croupier_engine::state::apply::Snapshot;
use croupier_engine::state::index::Spread;
use croupier_engine::state::{Digest, SlabFacts, State};
use croupier_engine::store::{self, BitsOnly, Store};
use croupier_engine::wal::Tail;
use croupier_engine::wal::log::Drive;
use croupier_protocol::{ImportBegin, ImportRow};
use tempfile::TempDir;

use super::{Doing as _, Trouble};
use crate::Mint;

/// Seven blocks to a segment: the log rolls after a few orders.
const SEGMENT_BYTES: u64 = 32 << 10;
/// So small that a ring of a quarter of a segment takes two turns.
const APPEND_UNITS_MAX: u64 = 64;
/// One table: an index of the size that a server has would take longer to make than all the rest of a start.
pub const SPREAD: Spread = Spread {
    seed: [3, 5],
    shards: 1,
};
/// Segments that are folded before the tail of the log is written.
const FOLDED_SEGMENTS: u64 = 2;
/// A segment that was left, and a part of the next.
const TAIL_BLOCKS: usize = 10;

/// What must be true whatever happens to a file, or else be refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Truth {
    /// One number for all of it.
    pub digest: Digest,
    /// Everything but the orders.
    pub snapshot: Snapshot,
    /// Every order: LSN and cards.
    pub orders: BTreeMap<u128, (u64, Vec<(u32, u32)>)>,
}

impl Truth {
    /// What a state says.
    pub fn of(state: &State) -> Self {
        let mut orders = BTreeMap::new();
        state.index.for_each(|id, settled| {
            let cards = state.index.cards(settled).collect();
            orders.insert(id, (settled.lsn, cards));
        });
        Self {
            digest: state.digest(),
            snapshot: state.snapshot(),
            orders,
        }
    }
}

/// A slab and what is in it.
#[derive(Debug, Clone)]
pub struct SlabTruth {
    /// As the log names it.
    pub facts: SlabFacts,
    /// Its secrets by slot.
    pub secrets: Vec<Vec<u8>>,
    /// Label, expiry, premium and cost by slot.
    pub entries: Vec<(String, u64, Option<i64>, Option<i64>)>,
}

/// The store.
pub struct Stage {
    root: TempDir,
    /// All that it knows.
    pub truth: Truth,
    /// As above, had the last block of the log never been written.
    pub truth_without_last_block: Truth,
    /// How its log ends.
    pub tail: Tail,
    /// Segment, offset and bytes of the last block of its log.
    pub last_block: (PathBuf, u64, u64),
    /// Its slabs.
    pub slabs: Vec<SlabTruth>,
    /// Its keys.
    pub vault: Arc<Vault>,
}

impl Stage {
    /// Makes it, in memory where the system has a file system for that.
    pub fn make() -> Result<Self, Trouble> {
        let shared = Path::new("/dev/shm");
        let root = match shared.is_dir() {
            true => TempDir::with_prefix_in("croupier-corrupt-", shared),
            false => TempDir::with_prefix("croupier-corrupt-"),
        };
        let root = root.doing("make a directory")?;
        let dir = root.path().join("data");
        store::init(&dir, None, SEGMENT_BYTES).doing("init")?;
        play(&dir)?;
        let store = Store::open(&dir, None).doing("open the store")?;
        let recovered = recovery::recover(&store, store.mapped_slabs(), SPREAD).doing("recover")?;
        let truth = Truth::of(&recovered.state);
        let slabs = slabs_of(&recovered.state)?;
        let last_block = last_block(&store)?;
        let without = load(&dir)?;
        without.tamper(&last_block.0, |bytes| {
            let from = last_block.1 as usize;
            bytes[from..from + last_block.2 as usize].fill(0);
        });
        let before = Store::on(without.disk(), &dir, store.vault.clone());
        let before = recovery::recover(&before, Box::new(BitsOnly), SPREAD)
            .doing("recover without the last block")?;
        let truth_without_last_block = Truth::of(&before.state);
        assert_ne!(
            truth, truth_without_last_block,
            "the last block holds an order"
        );
        Ok(Self {
            truth,
            truth_without_last_block,
            tail: recovered.tail,
            last_block,
            slabs,
            vault: store.vault.clone(),
            root,
        })
    }

    /// The data directory.
    pub fn dir(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// A directory for a copy, removed with the stage.
    pub fn copy(&self, name: &str) -> Result<PathBuf, Trouble> {
        let to = self.root.path().join(name);
        crate::store::copy_tree(&self.dir(), &to);
        Ok(to)
    }
}

/// All files of a data directory on a disk in memory, under the same paths.
pub fn load(dir: &Path) -> Result<MemoryDisk, Trouble> {
    fn put(disk: &MemoryDisk, dir: &Path) -> Result<(), Trouble> {
        for entry in fs::read_dir(dir).doing("list")? {
            let path = entry.doing("list")?.path();
            if path.is_dir() {
                put(disk, &path)?;
            } else {
                disk.put(&path, &fs::read(&path).doing("read")?);
            }
        }
        Ok(())
    }
    let disk = MemoryDisk::new();
    put(&disk, dir)?;
    Ok(disk)
}

/// SKUs, an import of two size classes with labels, routes, orders of one and of several cards, checkpoints, a tail.
fn play(dir: &Path) -> Result<(), Trouble> {
    let store = Store::open(dir, None).doing("open the new store")?;
    let ground = Ground {
        slabs: store.mapped_slabs(),
        spread: SPREAD,
        drive: Drive::Steps,
        append_units_max: APPEND_UNITS_MAX,
        growing_cards_max: croupier_engine::limits::GROWING_SLAB_CARDS_MAX,
        subscribers: Vec::new(),
    };
    let mut config = Config::new(dir);
    config.sync = Sync::Fdatasync;
    let (engine, _) = Engine::start(config, store, 1, ground).doing("start the engine")?;
    let engine = Arc::new(engine);
    let refused = |refused: croupier_engine::engine::Refused| refused.text;
    import(&engine, "game key", 1)?;
    import(&engine, "礼品卡", 2)?;
    let routes = croupier_engine::route::DEFAULT_ROUTES;
    engine
        .routes_load(routes, None)
        .map_err(refused)
        .doing("load routes")?;

    let mut till = Till::new(&engine);
    for fold in 1..=FOLDED_SEGMENTS {
        while engine.log.segment_in_use() <= fold {
            till.turn(&engine, 1)?;
        }
        engine.fold(false).doing("fold")?;
    }
    for block in 0..TAIL_BLOCKS {
        till.turn(&engine, 1 + block % 2)?;
    }
    // Many records in the last one: more than a sector of them.
    till.turn(&engine, 9)?;
    // Driven in steps, the log ends where it is, as in a crash.
    Ok(())
}

fn import(engine: &Arc<Engine>, sku: &str, mint: u16) -> Result<(), Trouble> {
    let refused = |refused: croupier_engine::engine::Refused| refused.text;
    let asked = ImportBegin {
        sku: sku.into(),
        create_sku: true,
        ..ImportBegin::default()
    };
    let mut intake = Intake::begin(engine, &asked)
        .map_err(refused)
        .doing("begin an import")?;
    let mut mint = Mint::new(mint);
    for line in 1..=70u64 {
        let bytes = if line % 9 == 0 { 40 } else { 24 };
        let secret = mint.secret(bytes);
        let label = format!("label {}", line % 5);
        let row = ImportRow {
            label: label.as_bytes(),
            expires_at_s: 4_000_000_000 + line,
            premium_e4: (line % 3 == 0).then_some(line as i64),
            cost_e4: Some(-(line as i64)),
            ..ImportRow::new(line, &secret)
        };
        intake.push(row).map_err(refused).doing("import")?;
    }
    let reply = intake.finish(engine).map_err(refused).doing("import")?;
    assert_eq!(reply.accepted, 70, "all are good");
    Ok(())
}

/// Deals a block of orders at a time.
struct Till {
    dealer: Dealer,
    next: u128,
}

impl Till {
    fn new(engine: &Engine) -> Self {
        let limits = OrderLimits {
            quantity_max: 100,
            ..OrderLimits::default()
        };
        Self {
            dealer: Dealer::new(engine.state.clone(), &engine.routes, limits),
            next: 1,
        }
    }

    fn turn(&mut self, engine: &Engine, orders: usize) -> Result<(), Trouble> {
        let mut order = || {
            let number = self.next;
            self.next += 1;
            let order = Order::issue(
                number << 64 | 0x00c0_ffee,
                1 + (number % 2) as u32,
                if number.is_multiple_of(5) { 3 } else { 1 },
                Ticket::single(0, number as u64),
            );
            (0, order)
        };
        let orders: Vec<_> = (0..orders).map(|_| order()).collect();
        let mut outcomes = Vec::new();
        let now = engine.store.disk.unix_ms();
        self.dealer
            .turn(now, &engine.log, None, &orders, &mut outcomes);
        let last = outcomes.iter().map(|outcome| outcome.lsn()).max();
        let last = last.filter(|&lsn| lsn > 0).ok_or("nothing was dealt");
        let last = last.doing("deal")?;
        engine.log.wait_durable(last).doing("write the log")?;
        // As the thread for that would.
        while engine.log.make_segment() && !has_spares(engine)? {}
        Ok(())
    }
}

fn has_spares(engine: &Engine) -> Result<bool, Trouble> {
    let segments =
        croupier_engine::wal::reader::list_segments(&engine.store.disk, &engine.store.paths.wal());
    let last = segments.doing("list segments")?.last().copied();
    let spares = croupier_engine::wal::segments::SPARE_SEGMENTS;
    Ok(last >= Some(engine.log.segment_in_use() + spares))
}

fn slabs_of(state: &State) -> Result<Vec<SlabTruth>, Trouble> {
    let catalog = state.catalog.load();
    let mut slabs = Vec::new();
    for slab in catalog.slabs.iter().flatten() {
        let mapped = slab.mapped().ok_or("bits only").doing("read a slab")?;
        let (mut secrets, mut entries) = (Vec::new(), Vec::new());
        for slot in 0..mapped.cards() {
            let mut secret = BytesMut::new();
            mapped
                .open_secret(slot, &mut secret)
                .doing("open a secret")?;
            secrets.push(secret.to_vec());
            let entry = mapped.entry(slot).doing("read an entry")?;
            entries.push((
                entry.label.to_owned(),
                entry.expires_at_s,
                entry.premium_e4,
                entry.cost_e4,
            ));
        }
        slabs.push(SlabTruth {
            facts: slab.facts,
            secrets,
            entries,
        });
    }
    Ok(slabs)
}

fn last_block(store: &Store) -> Result<(PathBuf, u64, u64), Trouble> {
    use croupier_engine::wal::BlockReader;
    use croupier_engine::wal::format::block_bytes;
    let disk = Disk::real();
    let checkpoint = croupier_engine::checkpoint::load_current(&disk, &store.paths, store.store_id)
        .doing("read the checkpoint")?
        .ok_or("there is none")
        .doing("read the checkpoint")?;
    let mut reader = BlockReader::open(disk, &store.paths.wal(), store.store_id, checkpoint.end)
        .doing("read")?;
    let mut last = None;
    while let Some(block) = reader.next().doing("read the log")? {
        let path = croupier_engine::wal::segments::segment_path(&store.paths.wal(), block.seq);
        last = Some((path, block.offset, block_bytes(block.body.len()) as u64));
    }
    last.ok_or("no block").doing("read the log")
}
